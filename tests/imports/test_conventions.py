"""Every convention in which others release perturbations is read to exactly the pixels that it stands for."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from released import CONVENTIONS, ORDERED, Poison, poison, sample_noise, source_split, write_int8, write_tensor

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.data.quantization import Quantize
from ule_datasets.data.split import Split
from ule_datasets.imports.release import Order, Stated
from ule_datasets.methods.imported import Imported
from ule_datasets.methods.method import Context, Crafted


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return source_split(tmp_path_factory.mktemp("source"))


def imported(path: Path, split: Split, stated: Stated | None = None) -> Crafted:
    context = Context(num_classes=10, seed=Seed(0), reporter=Reporter(silent=True), release=path)
    return Imported(stated=stated).generate(split, context)


def applied(crafted: Crafted, split: Split) -> set[bytes]:
    whole = Perturbation(layers=crafted.layers, source_digest=split.digest)
    images = whole.apply(split.pixels(), split.labels, split.keys)
    return {bytes(image) + bytes(clean) for image, clean in zip(images, split.pixels(), strict=True)}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_pixels_are_exactly_those_that_were_released(name: str, split: Split, tmp_path: Path) -> None:
    convention = CONVENTIONS[name]
    released = poison(convention.kind)
    crafted = imported(convention.write(tmp_path, released), split, convention.stated)
    expected = {bytes(a) + bytes(b) for a, b in zip(released.images, ORDERED.images, strict=True)}
    assert applied(crafted, split) == expected
    found = crafted.notes["imported"]
    assert found["bound"] == 8
    assert found["sha256"]
    assert found["convention"]


@pytest.mark.parametrize("rule", [Quantize.TRUNC, Quantize.HALF_UP])
def test_real_numbers_between_levels_are_rounded_as_stated(rule: Quantize, split: Split, tmp_path: Path) -> None:
    real = sample_noise() + 0.6
    path = tmp_path / "noise.npy"
    np.save(path, (real / 255).astype(np.float32))
    crafted = imported(path, split, Stated(quantize=rule))
    raised = 0 if rule is Quantize.TRUNC else 1
    assert applied(crafted, split) == {
        bytes(a) + bytes(b) for a, b in zip(Poison.of(sample_noise() + raised).images, ORDERED.images, strict=True)
    }


def test_noise_in_another_order_is_refused_or_taken_as_stated(split: Split, tmp_path: Path) -> None:
    assert split.place is not None
    in_ours = sample_noise()[split.place]
    path = write_int8(tmp_path, Poison.of(in_ours))
    with pytest.raises(InputError, match=r"not in the source order .* seems to be in the canonical order"):
        imported(path, split)
    assert imported(path, split, Stated(order=Order.CANONICAL)).notes["imported"]["order"] == "canonical"
    shuffled = np.random.default_rng(0).permutation(sample_noise())
    other = write_int8(tmp_path, Poison.of(shuffled))
    with pytest.raises(InputError, match="nothing shows that the noise is in the order of the images in --source"):
        imported(other, split)
    imported(other, split, Stated(order=Order.SOURCE))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda levels: levels[:7] / 255, "holds noise for 7: the clean images are 80 of 10 classes"),
        (lambda levels: np.full_like(levels, np.nan, float), "there is no number in it"),
        (
            lambda levels: np.where(np.arange(80)[:, None, None, None] == 3, np.nan, levels / 255),
            "NaN or infinities in 1 entry",
        ),
        (lambda levels: levels * 40.0, "noise of up to 320 grey levels changes no byte by that much"),
        (lambda levels: levels / 8, "seem to be in units of its bound"),
        (lambda levels: levels[:, :16, :16] / 255, "has noise of 16 x 16 x 3 values"),
        (lambda levels: levels[:, :, :, :2] / 255, r"has shape \[80, 32, 32, 2\], expected"),
        (lambda levels: levels.astype(complex), "no numbers"),
        (lambda levels: levels.astype(object), "no numbers: what it holds would have to be run"),
    ],
)
def test_arrays_that_are_no_noise_for_these_images_are_refused(
    make: Any, told: str, split: Split, tmp_path: Path
) -> None:
    path = tmp_path / "noise.npy"
    np.save(path, make(sample_noise()), allow_pickle=True)
    with pytest.raises(InputError, match=told) as caught:
        imported(path, split)
    assert "\n" not in str(caught.value)


def test_which_of_several_arrays_is_meant_is_stated_where_it_is_not_clear(split: Split, tmp_path: Path) -> None:
    path = tmp_path / "several.npz"
    np.savez(path, first=sample_noise(), second=sample_noise() * 0)
    with pytest.raises(InputError, match=r"several arrays that may be meant \(first, second\)"):
        imported(path, split)
    with pytest.raises(InputError, match="has no array 'third'; it has first, second"):
        imported(path, split, Stated(entry="third"))
    assert imported(path, split, Stated(entry="first")).notes["imported"]["bound"] == 8


# --- hostile files ---


class Attack:
    """Pickled, it asks for a function to be called."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("place", ["pickle", "torch", "beside an array", "npy"])
def test_nothing_in_a_file_is_run(place: str, protocol: int, split: Split, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    attack = Attack(os.mkdir, str(mark))
    path = tmp_path / {"npy": "a.npy", "torch": "a.pt"}.get(place, "a.pkl")
    if place == "npy":
        np.save(path, np.array([attack], object), allow_pickle=True)
    elif place == "torch":
        torch.save({"delta": torch.zeros(80, 3, 32, 32), "x": attack}, path, pickle_protocol=max(2, protocol))
    else:
        content = {"noise": np.zeros((80, 3, 32, 32), np.int8), "x": attack} if place == "beside an array" else attack
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(InputError, match=r"it asks for .*mkdir|would have to be run"):
        imported(path, split)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("argparse", "ArgumentParser"),
        ("torch", "load"),
        ("numpy", "load"),
        ("collections", "OrderedDict.__class__"),
        ("argparse", "Namespace.__class__"),
    ],
)
def test_whatever_else_a_pickle_asks_for_is_refused(module: str, name: str, split: Split, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    words = [bytes([0x8C, len(word)]) + word.encode() for word in (module, name)]
    path.write_bytes(b"\x80\x04" + b"".join(words) + b"\x93)R.")
    with pytest.raises(InputError, match=f"cannot be read safely: it asks for {module}.{name}"):
        imported(path, split)


def test_what_is_passed_over_is_not_made(tmp_path: Path, split: Split) -> None:
    content = {"args": argparse.Namespace(x=1), "out": Path("x"), "noise": sample_noise().astype(np.int8)}
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(content))
    assert imported(path, split).notes["imported"]["bound"] == 8


def giant(path: Path) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|i1", "fortran_order": False, "shape": (10**9, 3, 32, 32)}
        )


@pytest.mark.parametrize("kind", ["npy", "npz", "tensor", "bomb", "overlapping", "memo", "pickle"])
def test_giants_and_bombs_are_refused_before_memory_is_taken(
    kind: str, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULE_MEMORY", "64")
    path = tmp_path / {"npy": "a.npy", "npz": "a.npz", "bomb": "a.npz", "memo": "a.pkl", "pickle": "a.pkl"}.get(
        kind, "a.pt"
    )
    if kind == "npy":
        giant(path)
    elif kind == "npz":
        giant(tmp_path / "x.npy")
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(tmp_path / "x.npy", "x.npy")
    elif kind == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", bytes(100 * 2**20))
        assert path.stat().st_size < 2**20
    elif kind == "tensor":
        torch.save(torch.zeros(1).expand(10**6, 3, 32, 32), path)
    elif kind == "overlapping":
        torch.save(torch.zeros(80, 3, 32, 32), path)
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in contents.items():
                archive.writestr(name, data)
    elif kind == "memo":
        path.write_bytes(b"\x80\x02r" + struct.pack("<I", 2**31) + b".")
    else:
        array = io.BytesIO()
        pickle.dump(np.zeros((2, 3, 4, 4), np.int8), array, protocol=4)
        path.write_bytes(array.getvalue().replace(b"K\x02K\x03", b"J\xff\xff\xff\x7fK\x03"))
    with pytest.raises(InputError) as caught:
        imported(path, split)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_off_is_refused_wherever_it_is_cut(split: Split, tmp_path: Path) -> None:
    for whole in (write_tensor(tmp_path, poison("classes")), write_int8(tmp_path, poison("classes"))):
        data = whole.read_bytes()
        for length in [*range(0, 200, 13), *range(200, len(data) - 1, len(data) // 20)]:
            whole.write_bytes(data[:length])
            with pytest.raises(InputError):
                imported(whole, split)
