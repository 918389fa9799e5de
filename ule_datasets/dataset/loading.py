"""Opening a built dataset directly: a torch dataset with transforms, or everything as tensors."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch.utils.data import Dataset

from ule_datasets.base.errors import InputError
from ule_datasets.base.options import FORMATS
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.base.shown import counted, few
from ule_datasets.compute.executor import available_cpus
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.codec import FINISHED, encode_png, open_image
from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION_FILE
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.data.split import positions_of, share_of
from ule_datasets.data.spool import Images
from ule_datasets.dataset.fetching import find_dataset, require_images
from ule_datasets.dataset.integrity import require_intact
from ule_datasets.dataset.integrity.files import shards_of
from ule_datasets.dataset.local import remembered_source
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.dataset.shards.content import ShardContent
from ule_datasets.dataset.shards.reading import SampleForm, check_samples, decode_images, read_shard
from ule_datasets.definition import PublishedRecipe
from ule_datasets.sources.reading import read_source

DECODE_BLOCK = 1024


class PoisonedDataset(Dataset[tuple[Any, Any]]):
    """One split in memory, images encoded until asked for; used like torchvision's datasets.

    ``dataset[i]`` is ``(image, target)``: a PIL image and the class number, or what ``transform`` and
    ``target_transform`` make of them.
    """

    def __init__(
        self,
        content: ShardContent,
        manifest: Manifest,
        split: str,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self._encoded, self._manifest, self._split = content.encoded, manifest, split
        self.classes: list[str] = list(manifest.class_names)
        """Names of the classes, in the order of their numbers."""
        self.class_to_idx: dict[str, int] = {name: number for number, name in enumerate(self.classes)}
        """Class numbers by name."""
        self.targets: list[int] = content.labels
        """Class numbers of the samples; who changes one gets it from ``dataset[i]``."""
        self.keys = tuple(content.keys)
        """The samples' identities: the same in every form of the dataset."""
        self.poisoned = np.array(content.poisoned, dtype=bool)
        """Which samples are perturbed (bool, [N])."""
        self.transform = transform
        self.target_transform = target_transform

    @property
    def labels(self) -> list[int]:
        """The same list as ``targets``."""
        return self.targets

    @property
    def class_names(self) -> tuple[str, ...]:
        """What ``classes`` has, as a tuple."""
        return tuple(self.classes)

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if not isinstance(index, SupportsIndex):
            raise TypeError(f"dataset[i] takes one number, not {_shown(index)}; torch.utils.data.Subset takes several")
        image, _, _ = open_image(self._encoded[index], f"image {index} ({self.keys[index]})", FINISHED)
        target = self.targets[index]
        return (
            image if self.transform is None else self.transform(image),
            target if self.target_transform is None else self.target_transform(target),
        )

    def __repr__(self) -> str:
        made, (height, width, _) = self._manifest, self._manifest.image_shape
        reduced = f" ({made.reduced})" if made.reduced else ""
        lines = [
            f"{type(self).__name__} {made.name} {made.version}{reduced}, {self._split}",
            f"{len(self):,} images of {height} x {width} pixels, {int(self.poisoned.sum()):,} of them perturbed",
            f"{counted(len(self.classes), 'class')}: {few(self.classes)}",
        ]
        given = {"transform": self.transform, "target_transform": self.target_transform}
        lines += [f"{name}: {function!r}" for name, function in given.items() if function is not None]
        return "\n    ".join(lines)

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The whole split as uint8 images [N, H, W, 3] and int64 labels [N]; ``transform`` is not applied."""
        return torch.from_numpy(decoded(self._encoded)), torch.tensor(self.targets, dtype=torch.int64)


def decoded(encoded: Sequence[bytes]) -> np.ndarray:
    """Pixels of PNG images of one size: uint8 [N, H, W, 3]."""
    starts = range(0, len(encoded), DECODE_BLOCK)
    with ThreadPoolExecutor(available_cpus()) as pool:
        blocks = list(pool.map(lambda s: decode_images(encoded[s : s + DECODE_BLOCK], "dataset"), starts))
    return np.concatenate(blocks)


def load(
    where: str | Path,
    *,
    split: str = "train",
    transform: Callable[[Any], Any] | None = None,
    target_transform: Callable[[Any], Any] | None = None,
    clean: bool = False,
    poison_rate: float | None = None,
    source: str | Path | None = None,
    revision: str | None = None,
    verify: bool = False,
) -> PoisonedDataset:
    """Open one split of a dataset.

    Nothing is verified unless ``verify`` says so: files are taken as they are, as long as they can be read.

    Args:
        where: a dataset folder; a name, for ``./datasets/NAME``; or ``OWNER/NAME`` on the Hub, of which only this
            split is fetched.
        split: ``train`` or ``test``.
        transform: applied to each PIL image by ``dataset[i]``.
        target_transform: applied to each class number by ``dataset[i]``.
        clean: the control: the same rows with the same labels, as they were before they were perturbed, from the clean
            source.
        poison_rate: keep only this share of the training images poisoned (nested, seeded subsets) and take
            the others from the clean source.
        source: where the clean images are, for ``clean`` and ``poison_rate``; default: where a build on this machine
            took them from, else the source's own place.
        revision: of a repository, never of a folder: a tag such as ``v1.0.0``, a branch or a commit.
        verify: check the integrity of the whole dataset first, without its source, as ``ule-verify`` does; of a
            repository everything is fetched.

    Raises:
        InputError: no such dataset or split, a rate above the built one, a source that nothing would be taken from,
            with ``verify`` a damaged dataset, or an argument that is none of these.
    """
    _check_arguments(
        where=where,
        split=split,
        transform=transform,
        target_transform=target_transform,
        clean=clean,
        poison_rate=poison_rate,
        source=source,
        revision=revision,
        verify=verify,
    )
    rate = 0.0 if clean else poison_rate
    wanted = [f"data/{split}-*"] + ([PERTURBATION_FILE] if rate is not None else [])
    folder = find_dataset(where, revision, patterns=("*",) if verify else tuple(wanted))
    manifest = Manifest.read(folder)
    if split not in manifest.splits:
        raise InputError(f"{folder} has no split {split!r}; it has {', '.join(manifest.splits)}")
    require_images(folder, manifest, where)
    if verify:
        with LocalExecutor(1) as executor:
            require_intact(folder, manifest, executor)
    content = read_split(folder, manifest, split)
    if rate is not None and split == "train":
        _lower_rate(content, folder, rate, _location(folder, manifest, source))
    return PoisonedDataset(content, manifest, split, transform, target_transform)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class AppliedPerturbation:
    """What was done to the training images of a dataset, in the order of the dataset."""

    difference: np.ndarray
    """Poisoned minus clean, to the byte: int16 [N, H, W, 3] in units of 1/255. What would have left 0 .. 255 was cut
    off, and is not in it."""
    overwritten: np.ndarray
    """Pixels that were replaced, whatever stood there, instead of added to: bool [N, H, W]."""
    poisoned: np.ndarray
    """Which samples are perturbed at all: bool [N]."""
    keys: tuple[str, ...]
    """The samples' identities."""

    def __repr__(self) -> str:
        count, height, width, _ = self.difference.shape
        return (
            f"{type(self).__name__} of {count:,} images of {height} x {width} pixels, {int(self.poisoned.sum()):,} of "
            f"them perturbed: from {self.difference.min():+d} to {self.difference.max():+d}, "
            f"{int(self.overwritten.sum()):,} pixels overwritten"
        )


def load_perturbation(
    where: str | Path, *, source: str | Path | None = None, revision: str | None = None
) -> AppliedPerturbation:
    """What was done to the training images of a dataset: ``clean == poisoned - difference``, row by row.

    The crafted layers, as they were before anything was cut off, are in the dataset's ``perturbation.safetensors``.

    Args:
        where: a dataset, as for ``load``.
        source: where the clean images are; default as for ``load``.
        revision: of a repository on the Hub.

    Raises:
        InputError: no such dataset, or its clean images are not there.
    """
    folder = find_dataset(where, revision, patterns=("data/train-*", PERTURBATION_FILE))
    manifest = Manifest.read(folder)
    require_images(folder, manifest, where)
    content = read_split(folder, manifest, "train")
    poisoned = decoded(content.encoded)
    clean, rows = _originals(folder, content.keys, _location(folder, manifest, source))
    perturbation = Perturbation.load(folder / PERTURBATION_FILE)
    labels = np.array(content.labels, dtype=np.int64)
    return AppliedPerturbation(
        difference=poisoned.astype(np.int16) - clean[rows],
        overwritten=perturbation.overwritten(poisoned.shape[1:3], labels, content.keys),
        poisoned=np.array(content.poisoned, dtype=bool),
        keys=tuple(content.keys),
    )


def _check_arguments(**given: object) -> None:
    """Refuse values of kinds that would only fail somewhere within."""
    for name, value in given.items():
        kinds, words = _ARGUMENTS[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise InputError(f"load: {name} is {_shown(value)}, must be {words}")
        if value == "":
            raise InputError(f"load: {name} is empty, must be {words}")
    rate = given["poison_rate"]
    if isinstance(rate, int | float | np.integer | np.floating) and not 0 <= rate <= 1:
        raise InputError(f"load: poison_rate is {rate}, must be {_ARGUMENTS['poison_rate'][1]}")
    if given["clean"] and rate is not None:
        raise InputError("load: clean takes all images from the clean source, poison_rate a share of them; give one")
    if given["source"] is not None and rate is None and not given["clean"]:
        raise InputError("load: source is where clean and poison_rate take clean images from; give one of these too")
    for name in ("transform", "target_transform"):
        if given[name] is not None and not callable(given[name]):
            raise InputError(f"load: {name} is {_shown(given[name])}, must be {_ARGUMENTS[name][1]}")


_ARGUMENTS: dict[str, tuple[tuple[type, ...], str]] = {
    "where": ((str, Path), "a folder, a name, or OWNER/NAME on the Hub"),
    "split": ((str,), "the name of a split: 'train' or 'test'"),
    "transform": ((object,), "a function of a PIL image, or None"),
    "target_transform": ((object,), "a function of a class number, or None"),
    "clean": ((bool,), "True or False"),
    "poison_rate": ((int, float, np.integer, np.floating, NoneType), "a share between 0 and 1, or None"),
    "source": ((str, Path, NoneType), "the place of the clean images, or None"),
    "revision": ((str, NoneType), "a tag, a branch or a commit as text, or None"),
    "verify": ((bool,), "True or False"),
}


def _shown(value: object) -> str:
    return f"{reprlib.repr(value)} ({type(value).__name__})"


def read_split(folder: Path, manifest: Manifest, split: str) -> ShardContent:
    """All shards of a split, from Parquet where it is there."""
    file_format = next((name for name in FORMATS if name in manifest.formats), FORMATS[0])
    form = SampleForm(class_names=manifest.class_names, image_shape=manifest.image_shape)
    content = ShardContent()
    for path in shards_of(manifest, file_format, split):
        part = read_shard(folder / path, manifest.class_names)
        check_samples(part, form, str(folder / path))
        content.extend(part)
    return content


def _lower_rate(content: ShardContent, folder: Path, rate: float, location: str | None) -> None:
    """Replace images by their clean originals until only ``rate`` of all are poisoned."""
    built = sum(content.poisoned)
    wanted = share_of(rate, len(content.keys))
    if wanted > built:
        raise InputError(f"poison_rate {rate}: this dataset was built with {built} of {len(content.keys)} poisoned")
    if wanted == built:
        return
    perturbation = Perturbation.load(folder / PERTURBATION_FILE)
    order = Seed(perturbation.about["seed"]).order(content.keys, "poison rate")
    clean, rows = _originals(folder, content.keys, location)
    for index in order[wanted:].tolist():
        if content.poisoned[index]:
            content.encoded[index] = encode_png(np.asarray(clean[rows[index]]))
            content.poisoned[index] = False


def _location(folder: Path, manifest: Manifest, source: str | Path | None) -> str | None:
    """Where the clean images are; ``None``: in the source's own place."""
    return remembered_source(folder, manifest) if source is None else str(source)


def _originals(folder: Path, keys: Sequence[str], location: str | None) -> tuple[Images, np.ndarray]:
    """The clean images of a dataset, and the row among them of each of its samples (int64, [N])."""
    recipe = PublishedRecipe.read(folder)
    with LocalExecutor(1) as executor:
        clean = read_source(recipe.source, location, executor=executor, reporter=Reporter()).train
    rows = positions_of(keys, clean.keys)
    if len(missing := np.flatnonzero(rows < 0)):
        raise InputError(f"the source lacks {len(missing)} of the dataset's images, first {keys[missing[0]]}")
    return clean.images, rows
