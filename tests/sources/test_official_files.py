"""CIFAR-100 and SVHN in every form of their owners: the same bytes, known by the official sums, and nothing trusted."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pickle
import re
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    complaint,
    encode,
    make_splits,
    read,
    run_build,
    run_build_process,
    run_python,
    shuffled,
    write_cifar_batches,
    write_form,
    write_parquet_file,
    write_svhn,
)
from hub import HubServer
from hypothesis import given, settings
from hypothesis import strategies as st
from miniatures import SPECS, SPLITS, archive, md5, miniature, official, recipe_file

from builders import RECIPES
from cards.pin import pin
from ule_datasets.base.errors import InputError
from ule_datasets.sources import spec as specs
from ule_datasets.sources.cifar100 import CIFAR100
from ule_datasets.sources.matlab import Digits
from ule_datasets.sources.reading import Source, find_form
from ule_datasets.sources.spec import SourceSpec
from ule_datasets.sources.svhn import SVHN


@pytest.fixture(autouse=True)
def _nothing_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specs, "pinned", dict)


def assert_same(one: Source, other: Source) -> None:
    assert one.class_names == other.class_names
    assert list(one.splits) == list(other.splits) == ["train", "test"]
    for name, split in one.splits.items():
        assert (split.digest, split.keys) == (other.splits[name].digest, other.splits[name].keys)
        assert np.array_equal(split.pixels(), other.splits[name].pixels())
        assert np.array_equal(split.labels, other.splits[name].labels)


def on_the_hub(name: str, folder: Path) -> dict[str, Path]:
    """The files of the Hub's repository of a source, with its columns and its spelling of the classes."""
    import pyarrow.parquet as pq

    names = list(SPECS[name].class_names or ())
    files = {}
    for split, samples in SPLITS[name].items():
        images, labels = shuffled(samples, 9)
        path = folder / f"{split}-00000-of-00001.parquet"
        if name == "svhn":
            write_parquet_file(path, [encode(image) for image in images], labels.tolist(), names, "image")
        else:
            write_parquet_file(path, [encode(image) for image in images], labels.tolist(), None, "img")
            table = pq.read_table(path).rename_columns(["img", "fine_label"])
            table = table.append_column("coarse_label", [(labels // 5).tolist()])
            fine = {"names": ["cra" if name == "crab" else name for name in names], "_type": "ClassLabel"}
            info = {"info": {"features": {"img": {"_type": "Image"}, "fine_label": fine}}}
            pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), path)
        files[f"cropped_digits/{path.name}" if name == "svhn" else f"cifar100/{path.name}"] = path
    if name == "svhn":
        extra = write_parquet_file(folder / "extra.parquet", [encode(samples.images[0])], [1], names, "image")
        files["cropped_digits/extra-00000-of-00001.parquet"] = extra
        files["full_numbers/train-00000-of-00001.parquet"] = extra
        (folder / "README.md").write_text(CARD)
        files["README.md"] = folder / "README.md"
    return files


CARD = """---
configs:
- config_name: full_numbers
  data_files:
  - split: train
    path: full_numbers/train-*
- config_name: cropped_digits
  data_files:
  - split: train
    path: cropped_digits/train-*
  - split: test
    path: cropped_digits/test-*
  - split: extra
    path: cropped_digits/extra-*
---
"""


@pytest.mark.parametrize("name", SPECS)
def test_the_forms_of_the_owners_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    folder = official(name, tmp_path / "official")
    spec = miniature(name, folder)
    first = read(folder, spec)
    assert first.class_names == spec.class_names
    for split, samples in SPLITS[name].items():
        expected = sorted((image.tobytes(), label) for image, label in zip(*samples, strict=True))
        found = first.splits[split]
        assert sorted((i.tobytes(), n) for i, n in zip(found.pixels(), found.labels, strict=True)) == expected
    if name == "svhn":
        assert_same(first, read(write_svhn(tmp_path / "plain", SPLITS[name], compressed=False), without_sums(spec)))
        return
    packed = archive(folder, tmp_path / "cifar-100-python.tar.gz")
    spec = dataclasses.replace(spec, sums=(*spec.sums, (packed.name, md5(packed))))
    assert_same(first, read(packed, spec))
    assert_same(first, read(folder / "cifar-100-python", spec))
    packed.rename(folder / packed.name)  # as torchvision leaves them
    assert_same(first, read(folder, spec))


def without_sums(spec: SourceSpec) -> SourceSpec:
    return dataclasses.replace(spec, sums=())


def test_torchvision_sees_in_them_what_is_read_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    official("cifar100", tmp_path)
    official("svhn", tmp_path)
    for kind in (datasets.CIFAR100, datasets.SVHN):
        monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": None})
    for name, theirs in {
        "cifar100": (datasets.CIFAR100(tmp_path, train=True), datasets.CIFAR100(tmp_path, train=False)),
        "svhn": (datasets.SVHN(tmp_path, "train"), datasets.SVHN(tmp_path, "test")),
    }.items():
        source = read(tmp_path, miniature(name, tmp_path))
        for split, dataset in zip(("train", "test"), theirs, strict=True):
            expected = sorted((np.asarray(image).tobytes(), int(label)) for image, label in dataset)
            found = source.splits[split]
            assert sorted((i.tobytes(), n) for i, n in zip(found.pixels(), found.labels, strict=True)) == expected


@pytest.mark.parametrize("name", SPECS)
def test_a_folder_with_several_sources_is_taken_for_the_one_that_is_wanted(name: str, tmp_path: Path) -> None:
    """As torchvision's datasets lie beside each other below one root."""
    for each in SPECS:
        official(each, tmp_path)
    write_cifar_batches(tmp_path, make_splits(), [f"class{number}" for number in range(10)])
    assert read(tmp_path, miniature(name, tmp_path)).kind != "the original CIFAR-10 batches"
    assert find_form(str(tmp_path), RECIPES["ops-cifar10"].source).kind == "the original CIFAR-10 batches"
    assert "has images in 3 forms: " in complaint(lambda: read(tmp_path))


@pytest.mark.parametrize("name", SPECS)
def test_the_repository_on_the_hub_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    folder = official(name, tmp_path / "official")
    recipe = recipe_file(tmp_path / "small.py", f"ops-{name}", miniature(name, folder))
    with HubServer() as server:
        repository = {"cifar100": "uoft-cs/cifar100", "svhn": "ufldl-stanford/svhn"}[name]
        (tmp_path / "files").mkdir()
        server.put(repository, on_the_hub(name, tmp_path / "files"))
        environment = {**server.environment(home=tmp_path / "home"), "ULE_CACHE": str(tmp_path / "cache")}
        outcome = run_build_process(recipe, "--out", tmp_path / "hub", "--workers", "1", environment=environment)
        assert outcome.code == 0, outcome.stderr
        assert not [path for path, _ in server.downloads if "extra" in path or "full" in path]
    assert run_build(recipe, "--out", tmp_path / "files-of-owners", "--source", folder).code == 0
    for path in ("perturbation.safetensors", "recipe.json"):
        assert (tmp_path / "hub" / path).read_bytes() == (tmp_path / "files-of-owners" / path).read_bytes()
    shards = [path.name for path in (tmp_path / "hub" / "data").iterdir()]
    assert shards
    for shard in shards:
        assert (tmp_path / "hub/data" / shard).read_bytes() == (tmp_path / "files-of-owners/data" / shard).read_bytes()


def test_the_first_build_from_official_files_pins_the_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = official("svhn", tmp_path / "official")
    spec = miniature("svhn", folder)
    recipe = recipe_file(tmp_path / "small.py", "ops-svhn", spec)
    assert run_build(recipe, "--source", folder, "--out", tmp_path / "built").code == 0
    card = (tmp_path / "built" / "README.md").read_text(encoding="utf-8")
    assert "The digests of SVHN are **not yet pinned**" in card
    pins = tmp_path / "pins.json"
    assert pin(tmp_path / "built", {"svhn": spec}, pins) == "svhn"
    found = json.loads(pins.read_text(encoding="utf-8"))
    assert found == {"svhn": {name: split.digest for name, split in read(folder, spec).splits.items()}}
    monkeypatch.setattr(specs, "pinned", lambda: found)
    assert not spec.unpinned
    assert read(folder, spec).train.digest == found["svhn"]["train"]
    others = write_form("parquet", tmp_path / "others", make_splits(10, 7, 32), spec.class_names or ())
    told = complaint(lambda: read(others, spec))
    assert "is not SVHN: its train split of 70 images has digest" in told
    assert "is no source whose digests are missing" in complaint(lambda: pin(tmp_path / "built", {"svhn": spec}, pins))


def test_digests_are_pinned_from_official_files_only(tmp_path: Path) -> None:
    folder = official("svhn", tmp_path / "official")
    spec = miniature("svhn", folder)
    recipe = recipe_file(tmp_path / "small.py", "ops-svhn", spec)
    table = tmp_path / "table"
    table.mkdir()
    for name, path in on_the_hub("svhn", tmp_path).items():
        if name.startswith("cropped_digits/t"):
            path.rename(table / path.name)
    assert run_build(recipe, "--source", table, "--out", tmp_path / "built").code == 0
    told = complaint(lambda: pin(tmp_path / "built", {"svhn": spec}, tmp_path / "pins.json"))
    assert "was made from Parquet shards; only official files, by their md5, tell what SVHN is" in told
    told = complaint(lambda: pin(tmp_path / "built", {"svhn": SVHN}, tmp_path / "pins.json"))
    assert "was made from other images than all of SVHN" in told


# --- refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file"), [("cifar100", "train"), ("cifar100", "test"), ("cifar100", "meta"), ("svhn", "train_32x32.mat")]
)
def test_a_file_that_is_not_the_official_one_is_refused_by_its_sum(name: str, file: str, tmp_path: Path) -> None:
    folder = official(name, tmp_path)
    spec = miniature(name, folder)
    sums = tuple((known, "0" * 32 if known == file else value) for known, value in spec.sums)
    (path,) = folder.rglob(file)
    recipe = recipe_file(tmp_path / "small.py", f"ops-{name}", dataclasses.replace(spec, sums=sums))
    outcome = run_build(recipe, "--source", folder, "--out", tmp_path / "out")
    expected = f"{path} is not the official file: its md5 is {md5(path)}, expected {'0' * 32}; download it again"
    assert outcome.code == 2
    assert [line.removeprefix("ule-build: ") for line in outcome.complaint] == [expected]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["cifar-100-python.tar.gz", "train", "meta"])
def test_an_archive_that_is_not_the_official_one_is_refused_by_its_sum(file: str, tmp_path: Path) -> None:
    folder = official("cifar100", tmp_path / "official")
    packed = archive(folder, tmp_path / "cifar-100-python.tar.gz")
    spec = miniature("cifar100", folder)
    sums = {**dict(spec.sums), packed.name: md5(packed), file: "0" * 32}
    where = str(packed) if file == packed.name else f"{packed} ({file})"
    told = complaint(lambda: read(packed, dataclasses.replace(spec, sums=tuple(sums.items()))))
    assert told.startswith(f"{where} is not the official file: its md5 is ")


@pytest.mark.parametrize("name", SPECS)
def test_the_real_source_refuses_a_miniature(name: str, tmp_path: Path) -> None:
    folder = official(name, tmp_path)
    assert "is not the official file: its md5 is" in complaint(lambda: read(folder, SPECS[name]))
    counted = dataclasses.replace(SPECS[name], sums=())
    assert f"is not {counted.title}: " in complaint(lambda: read(folder, counted))


def test_batches_of_cifar_100_that_are_not_all_there_are_named(tmp_path: Path) -> None:
    folder = official("cifar100", tmp_path) / "cifar-100-python"
    (folder / "test").unlink()
    told = complaint(lambda: read(tmp_path, CIFAR100))
    assert told.startswith(f"{folder} lacks test of the 2 original CIFAR-100 batches: unpack their archive")


def test_test_images_of_svhn_alone_are_refused(tmp_path: Path) -> None:
    (official("svhn", tmp_path) / "train_32x32.mat").unlink()
    assert "has test_32x32.mat and lacks train_32x32.mat" in complaint(lambda: read(tmp_path))


def test_extra_images_of_svhn_are_told_and_not_used(tmp_path: Path) -> None:
    folder = write_svhn(tmp_path, {**SPLITS["svhn"], "extra": SPLITS["svhn"]["test"]})
    form = find_form(str(folder))
    assert list(form.chunks) == ["train", "test"]
    assert [(each.reason, each.example) for each in form.passed_over] == [
        ("extra images, which are not used", "extra_32x32.mat")
    ]


class Ran:
    """Would be called by an unpickler that is not restricted."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return (Path.touch, ("ran",))  # type: ignore[return-value]


@pytest.mark.parametrize("file", ["train", "meta"])
def test_a_hostile_pickle_is_refused(file: str, tmp_path: Path) -> None:
    folder = official("cifar100", tmp_path)
    (folder / "cifar-100-python" / file).write_bytes(pickle.dumps({b"data": Ran()}, protocol=2))
    told = complaint(lambda: read(folder))
    assert "is not an intact CIFAR-100 batch file: it asks for __builtin__.getattr" in told


# --- files of MATLAB -------------------------------------------------------------------------------------------


def element(kind: int, data: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def variable(
    name: bytes, kind: int, shape: tuple[int, ...], stored: int, data: bytes, size: int | None = None, order: str = "<"
) -> bytes:
    """A variable; ``size`` is what it says instead of how long its data is."""
    body = element(6, struct.pack(f"{order}II", kind, 0), order)
    body += element(5, struct.pack(f"{order}{len(shape)}i", *shape), order) + element(1, name, order)
    values = struct.pack(f"{order}II", stored, len(data) if size is None else size) + data + bytes(-len(data) % 8)
    return struct.pack(f"{order}II", 14, len(body + values)) + body + values


def packed(content: bytes) -> bytes:
    data = zlib.compress(content, 9)
    return struct.pack("<II", 15, len(data)) + data


def header(order: str = "<", version: int = 0x0100) -> bytes:
    start = b"MATLAB 5.0 MAT-file, made up".ljust(124)
    return start + struct.pack(f"{order}H", version) + (b"IM" if order == "<" else b"MI")


PIXELS = np.arange(5 * 3072, dtype=np.uint32).astype(np.uint8)
X = variable(b"X", 9, (32, 32, 3, 5), 2, PIXELS.tobytes())
Y = variable(b"y", 9, (5, 1), 2, bytes([1, 10, 9, 2, 3]))


def rows(path: Path, content: bytes) -> list[tuple[bytes, int]]:
    path.write_bytes(content)
    return [(np.asarray(sample.image).tobytes(), sample.label) for sample in Digits(path).samples()]


def test_bytes_of_both_orders_packed_or_not_and_other_variables_are_read(tmp_path: Path) -> None:
    pixels = PIXELS.reshape(5, 3, 32, 32).transpose(0, 3, 2, 1)
    expected = [(image.tobytes(), label) for image, label in zip(pixels, [1, 0, 9, 2, 3], strict=True)]
    other = variable(b"seen", 1, (1, 1), 9, bytes(8))
    big = variable(b"X", 9, (32, 32, 3, 5), 2, PIXELS.tobytes(), order=">")
    big += variable(b"y", 6, (5, 1), 9, struct.pack(">5d", 1, 10, 9, 2, 3), order=">")
    for content in (header() + X + Y, header() + packed(other) + packed(Y) + other + packed(X), header(">") + big):
        assert rows(tmp_path / "train_32x32.mat", content) == expected


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is not a MATLAB file, but empty: an incomplete download?"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not a MATLAB file, but a pointer of Git LFS"),
        (b"\x89HDF\r\n\x1a\n" + bytes(300), "is not a MATLAB file, but an HDF5 file"),
        (b"?" * 300, "it does not begin as files of MATLAB do"),
        (header(version=0x0200), "it is of version 2 of MATLAB's format, allowed is 1: save it with -v7"),
        (header()[:100], "it is cut off"),
        (header() + X, "it has no variable y"),
        (header() + Y, "it has no variable X"),
        (header() + (X + Y)[:-9], "it is cut off"),
        (header() + packed(X)[:-9], "it is cut off"),
        (header() + variable(b"X", 6, (32, 32, 3, 5), 9, PIXELS.tobytes() * 8) + Y, "images X are real numbers"),
        (header() + variable(b"X", 9, (32, 32, 3, 6), 2, PIXELS.tobytes()) + Y, r"bytes \[32, 32, 3, 6\], must be"),
        (header() + variable(b"X", 9, (2**31 - 1,) * 4, 2, PIXELS.tobytes()) + Y, "must be bytes"),
        (header() + variable(b"X", 9, (32, 32, 3, 5), 2, PIXELS.tobytes(), size=2**31) + Y, "take 2,147,483,648 bytes"),
        (header() + X + variable(b"y", 9, (2**30, 1), 2, bytes(8)), "labels y are bytes"),
        (header() + X + variable(b"y", 9, (2, 3), 2, bytes(6)), "labels y are bytes"),
        (header() + X + variable(b"y", 9, (), 2, bytes(1)), "labels y are bytes"),
        (header() + X + packed(Y)[:-5] + bytes(5), "Error -3 while decompressing"),
        (header() + struct.pack("<IIII", 14, 8, 6, 0) + X + Y, "has a damaged head"),
        (header() + X + variable(b"y", 9, (5, 1), 2, bytes(5), size=2**31), "labels y take 2,147,483,648 bytes"),
        (header() + X + variable(b"y", 1, (5, 1), 14, Y), "labels y are of class 1"),
        (header() + X + variable(b"y", 6, (5, 1), 9, struct.pack("<5d", 1, 2, 3, 4, 0.5)), "are not whole numbers"),
        (header() + X + variable(b"y", 6, (5, 1), 9, struct.pack("<5d", 1, 2, 3, 4, np.nan)), "not whole numbers"),
        (header() + packed(X + bytes(99)) + Y, "is longer than it says"),
        (header() + packed(X[:5000]) + Y, "is shorter than it says"),
        (header() + variable(b"X" * 2**20, 9, (5, 1), 2, bytes(5)), "has a damaged head"),
        (header() + variable(b"X", 9, (1,) * 9, 2, bytes(1)), "has a damaged head"),
        (header() + packed(X)[:100] + bytes(999), "Error -3 while decompressing"),
    ],
)
def test_a_damaged_or_hostile_file_of_matlab_is_refused_in_one_line(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "train_32x32.mat"
    message = complaint(lambda: rows(path, content))
    assert str(path) in message
    assert re.search(told, message), message


@pytest.mark.parametrize("where", ["values", "name", "labels", "others"])
def test_what_is_packed_very_small_takes_no_memory(where: str, tmp_path: Path) -> None:
    """A megabyte that unpacks to a gigabyte, wherever it stands."""
    large = bytes(2**30)
    content = {
        "values": lambda: packed(variable(b"X", 9, (32, 32, 3, 5), 2, large)) + packed(Y),
        "name": lambda: packed(variable(large, 9, (32, 32, 3, 5), 2, b"")) + packed(Y),
        "labels": lambda: packed(X) + packed(variable(b"y", 9, (2**30, 1), 2, large)),
        "others": lambda: packed(variable(b"z", 9, (2**30, 1), 2, large)) + packed(Y) + packed(X),
    }[where]()
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(header() + content)
    assert path.stat().st_size < 2 * 2**20
    program = """
import resource, sys
from pathlib import Path
from ule_datasets.base.errors import InputError
from ule_datasets.sources.matlab import Digits
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(len(list(Digits(Path(sys.argv[1])).samples())))
except InputError as error:
    print("refused")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    found, taken = run_python(program, path).stdout.split()
    assert found == ("5" if where == "others" else "refused")
    assert int(taken) < 32 * 1024, "KiB"


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, len(header() + packed(X) + packed(Y)) - 1), value=st.integers(0, 255))
def test_whatever_byte_is_damaged_it_is_refused_or_read(place: int, value: int) -> None:
    content = bytearray(header() + packed(X) + packed(Y))
    content[place] = value
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(InputError):
        assert len(rows(Path(folder) / "train_32x32.mat", bytes(content))) == 5
