"""A known perturbation of small images, written as others release theirs."""

from __future__ import annotations

import argparse
import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from helpers import Samples, class_names, encode, make_splits, shuffled, write_cifar_batches
from safetensors.numpy import save_file

from ule_datasets.base.progress import Reporter
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.split import Split
from ule_datasets.imports.release import Stated
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.reading import read_source

CLASSES, BOUND = 10, 8
SPLITS = make_splits(CLASSES, 8, 32)
FILES = 4
"""The seed by which ``write_cifar_batches`` orders images."""
ORDERED = shuffled(SPLITS["train"], FILES)
"""The training images in the order of their files."""
GROUPS = np.arange(len(ORDERED.labels)) % 5


def class_noise(count: int = CLASSES) -> np.ndarray:
    """Levels of both signs for each class, up to the bound, int16 [count, 32, 32, 3]."""
    coarse = np.random.default_rng(5).integers(-BOUND, BOUND + 1, (count, 4, 4, 3))
    return coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.int16)


def sample_noise() -> np.ndarray:
    """Levels for each image, which show its class: int16 [N, 32, 32, 3]."""
    own = np.random.default_rng(6).integers(-3, 4, ORDERED.images.shape)
    return np.clip(class_noise()[ORDERED.labels] + own, -BOUND, BOUND).astype(np.int16)


class Poison(NamedTuple):
    """What is released: levels of each entry, and the images that they make, in the order of the source's files."""

    levels: np.ndarray
    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, levels: np.ndarray, clean: Samples = ORDERED) -> Poison:
        return cls(levels, np.clip(clean.images + levels, 0, 255).astype(np.uint8), clean.labels)


Write = Callable[[Path, Poison], Path]


def write_tensor(path: Path, poison: Poison, *, legacy: bool = False) -> Path:
    """EM, TUE, LE: ``perturbation.pt``, real numbers in units of 1."""
    noise = torch.from_numpy(poison.levels.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    torch.save(noise, path / "perturbation.pt", _use_new_zipfile_serialization=not legacy)
    return path / "perturbation.pt"


def write_half(path: Path, poison: Poison) -> Path:
    """Real numbers of half precision, in which no level is exact."""
    np.save(path / "noise.npy", (poison.levels / 255).astype(np.float16))
    return path / "noise.npy"


def write_checkpoint(path: Path, poison: Poison) -> Path:
    """CP: a part of a checkpoint, in units of the bound, beside weights and the command line."""
    delta = torch.from_numpy(poison.levels.transpose(0, 3, 1, 2).astype(np.float32) / BOUND)
    model = {"conv.weight": torch.zeros(4, 3, 3, 3), "delta": torch.nn.Parameter(delta)}
    torch.save({"opt": argparse.Namespace(lr=0.1), "model": model, "epoch": 3}, path / "ckpt_epoch_1000.pth")
    return path / "ckpt_epoch_1000.pth"


def write_int8(path: Path, poison: Poison, *, protocol: int = 4) -> Path:
    """REM, SEM: whole levels in a pickle."""
    noise = poison.levels.transpose(0, 3, 1, 2).astype(np.int8)
    (path / "min-min-def-noise.pkl").write_bytes(pickle.dumps(noise, protocol=protocol))
    return path / "min-min-def-noise.pkl"


def write_levels(path: Path, poison: Poison) -> Path:
    """Real numbers in grey levels."""
    np.savez_compressed(path / "noise.npz", noise=poison.levels.astype(np.float64), epsilon=np.array(8))
    return path / "noise.npz"


def write_safetensors(path: Path, poison: Poison) -> Path:
    save_file({"noise": np.ascontiguousarray(poison.levels.astype(np.int16))}, path / "noise.safetensors")
    return path / "noise.safetensors"


def write_groups(path: Path, poison: Poison) -> Path:
    """UC: noise for each cluster, and a file that says which images are in it."""
    folder = path / "uc"
    folder.mkdir()
    np.save(folder / "noise.npy", poison.levels.astype(np.float32) / 255)
    (folder / "clusters.pkl").write_bytes(pickle.dumps(GROUPS.tolist()))
    return folder


def write_numbered(path: Path, poison: Poison) -> Path:
    """TAP, AR: PNG files by number."""
    folder = path / "pngs"
    folder.mkdir()
    for number, image in enumerate(poison.images):
        (folder / f"{number}.png").write_bytes(encode(image))
    return folder


def write_classes(path: Path, poison: Poison) -> Path:
    """APBench on ImageNet, UC: class folders."""
    folder = path / "classes"
    for number, (image, label) in enumerate(zip(poison.images, poison.labels.tolist(), strict=True)):
        place = folder / class_names(CLASSES)[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(encode(image))
    return folder


def write_real_images(path: Path, poison: Poison) -> Path:
    """NTGA: whole images in real numbers, with labels."""
    np.savez(path / "x.npz", x_train=poison.images.astype(np.float32) / 255, y_train=poison.labels)
    return path / "x.npz"


def write_bytes_array(path: Path, poison: Poison) -> Path:
    """AVATAR, LSP: whole images, without labels."""
    np.save(path / "data.npy", poison.images)
    return path / "data.npy"


def write_rows(path: Path, poison: Poison) -> Path:
    """Learn-from-unlearnable: images as rows, colour by colour."""
    content = {"data": poison.images.transpose(0, 3, 1, 2).reshape(-1, 3072), "labels": poison.labels.tolist()}
    (path / "train.pkl").write_bytes(pickle.dumps(content))
    return path / "train.pkl"


def write_byte_strings(path: Path, poison: Poison, *, encoded: bool = False) -> Path:
    """ECLIPSE, DUNE: a list of raw bytes, or of files."""
    (path / "list.pkl").write_bytes(pickle.dumps([encode(i) if encoded else i.tobytes() for i in poison.images]))
    return path / "list.pkl"


def write_pairs(path: Path, poison: Poison) -> Path:
    """HYPO: a list of pairs of an image and its label."""
    images = torch.from_numpy(poison.images.transpose(0, 3, 1, 2).copy())
    torch.save(list(zip(images, poison.labels.tolist(), strict=True)), path / "p.pt")
    return path / "p.pt"


class Convention(NamedTuple):
    """How one kind of file is written, from what, and what must be stated about it."""

    write: Write
    kind: str
    """``samples``, ``classes`` or ``groups`` of noise, or ``images``."""
    stated: Stated | None = None


CONVENTIONS: dict[str, Convention] = {
    "tensor": Convention(write_tensor, "samples"),
    "tensor of an old torch": Convention(functools.partial(write_tensor, legacy=True), "samples"),
    "half precision": Convention(write_half, "samples"),
    "tensor, class-wise": Convention(write_tensor, "classes"),
    "checkpoint": Convention(write_checkpoint, "samples", Stated(epsilon=BOUND)),
    "int8": Convention(write_int8, "samples"),
    "int8 of protocol 5": Convention(functools.partial(write_int8, protocol=5), "samples"),
    "int8 of protocol 2": Convention(functools.partial(write_int8, protocol=2), "samples"),
    "levels": Convention(write_levels, "samples"),
    "safetensors": Convention(write_safetensors, "samples"),
    "groups": Convention(write_groups, "groups", Stated(order="source")),  # type: ignore[arg-type]
    "numbered files": Convention(write_numbered, "images"),
    "class folders": Convention(write_classes, "images"),
    "real images": Convention(write_real_images, "images"),
    "array of bytes": Convention(write_bytes_array, "images"),
    "rows": Convention(write_rows, "images"),
    "byte strings": Convention(write_byte_strings, "images"),
    "files in a list": Convention(functools.partial(write_byte_strings, encoded=True), "images"),
    "pairs": Convention(write_pairs, "images"),
}


def poison(kind: str) -> Poison:
    """What a convention holds, undamaged."""
    if kind in ("samples", "images"):
        return Poison.of(sample_noise())
    levels = class_noise() if kind == "classes" else class_noise(5)
    spread = levels[ORDERED.labels if kind == "classes" else GROUPS]
    return Poison(levels, Poison.of(spread).images, ORDERED.labels)


def source_split(folder: Path, **reading: Any) -> Split:
    """The clean training images, read from files whose order is known."""
    write_cifar_batches(folder, SPLITS, class_names(CLASSES))
    with LocalExecutor() as executor:
        reporter = Reporter(silent=True)
        return read_source(OWN_IMAGES, str(folder), executor=executor, reporter=reporter, **reading).train
