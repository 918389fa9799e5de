"""A source read into a spool is the one read into memory, and what an interrupted run has decoded stays decoded."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import FORMS, class_names, encode, make_splits, write_form, write_image_folder, write_parquet
from photos import (
    BROKEN,
    CONVERTED,
    COUNTS,
    CROP,
    NUM_DUPLICATES,
    RESIZE,
    broken_files,
    expected_digest,
    write_broken,
    write_photos,
)

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.codec import Picture, Rules
from ule_datasets.data.spool import SpooledImages
from ule_datasets.places import hub
from ule_datasets.places.hub import Snapshot
from ule_datasets.sources import decode, image_folder
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.reading import Source, read_source
from ule_datasets.sources.spec import Preprocess, SourceSpec

SPEC = dataclasses.replace(OWN_IMAGES, preprocess=Preprocess(resize=RESIZE, crop=CROP, convert="RGB"))
PER_CHUNK = 8
FILES = sum(COUNTS.values()) + NUM_DUPLICATES


@pytest.fixture(autouse=True)
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder, "FILES_PER_CHUNK", PER_CHUNK)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "source")


@pytest.fixture
def photos(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "photos"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The origin of every image that is decoded in this process."""
    origins: list[str] = []
    plain = decode.decode_rgb

    def counted(data: bytes, origin: str, rules: Rules) -> Picture:
        origins.append(origin)
        return plain(data, origin, rules)

    monkeypatch.setattr(decode, "decode_rgb", counted)
    return origins


def read(
    where: Path | str, spool: Path | None = None, *, spec: SourceSpec = SPEC, workers: int = 1, skip: bool = False
) -> Source:
    with LocalExecutor(workers) as executor:
        return read_source(
            spec, str(where), executor=executor, reporter=Reporter(silent=True), spool=spool, skip_unusable=skip
        )


def assert_same(disk: Source, memory: Source) -> None:
    assert list(disk.splits) == list(memory.splits)
    assert disk.class_names == memory.class_names
    assert disk.findings == memory.findings
    for name, split in disk.splits.items():
        other = memory.splits[name]
        assert isinstance(split.images, SpooledImages)
        assert isinstance(other.images, np.ndarray)
        assert (split.name, split.keys, split.digest) == (other.name, other.keys, other.digest)
        assert np.array_equal(split.labels, other.labels)
        assert np.array_equal(split.pixels(), other.images)


# --- the same, wherever it stands -----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_photographs_are_the_same_in_a_spool_and_in_memory(pristine: Path, tmp_path: Path, workers: int) -> None:
    memory = read(pristine)
    assert {name: len(split) for name, split in memory.splits.items()} == {**COUNTS, "train": 49}
    assert {name: split.digest for name, split in memory.splits.items()} == {
        name: expected_digest(pristine, name) for name in COUNTS
    }
    disk = read(pristine, tmp_path / "spool", workers=workers)
    assert_same(disk, memory)
    assert disk.findings.duplicates == (("train", NUM_DUPLICATES),)
    assert dict(disk.findings.converted) == CONVERTED
    assert_same(read(pristine, tmp_path / "spool", workers=workers), memory)
    assert len(list((tmp_path / "spool").glob("*.rgb"))) == 7 + 2
    assert len(list((tmp_path / "spool").iterdir())) == 2 * (7 + 2), "notes beside the pixels, and nothing else"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_in_a_spool_and_in_memory(tmp_path: Path, form: str) -> None:
    where = write_form(form, tmp_path / "source", make_splits(10, 4), class_names(10))
    memory = read(where, spec=OWN_IMAGES)
    for _ in range(2):
        assert_same(read(where, tmp_path / "spool", spec=OWN_IMAGES), memory)


def test_official_names_are_the_keys_in_a_spool_as_well(pristine: Path, tmp_path: Path, decoded: list[str]) -> None:
    spec = dataclasses.replace(SPEC, keyed_by="name")
    memory = read(pristine, spec=spec)
    assert sorted(memory.train.keys) == sorted(path.stem for path in (pristine / "train").rglob("*.JPEG"))
    assert_same(read(pristine, tmp_path / "spool", spec=spec), memory)
    decoded.clear()
    assert_same(read(pristine, tmp_path / "spool", spec=spec), memory)
    assert decoded == []


# --- what is decoded again, and what is not -------------------------------------------------------------------


def test_what_is_decoded_is_not_decoded_again(photos: Path, tmp_path: Path, decoded: list[str]) -> None:
    first = read(photos, tmp_path / "spool")
    assert len(decoded) == FILES
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "spool").iterdir()}
    again = read(photos, tmp_path / "spool", workers=2)
    assert len(decoded) == FILES
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "spool").iterdir()} == before
    assert again.train.keys == first.train.keys
    assert again.findings == first.findings


def other_content(photos: Path, spool: Path) -> None:
    path = sorted((photos / "train").rglob("*.JPEG"))[10]
    path.write_bytes(encode(np.random.default_rng(1).integers(0, 256, (50, 50, 3), dtype=np.uint8)))


def same_size_another_time(photos: Path, spool: Path) -> None:
    path = sorted((photos / "train").rglob("*.JPEG"))[10]
    stat = path.stat()
    path.write_bytes(path.read_bytes()[:-2] + b"\xff\xd9")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert path.stat().st_size == stat.st_size


def spool_file_cut_short(photos: Path, spool: Path) -> None:
    path = spool / "train-000001.rgb"
    path.write_bytes(path.read_bytes()[:-1])


def spool_file_too_long(photos: Path, spool: Path) -> None:
    with (spool / "train-000001.rgb").open("ab") as file:
        file.write(b"x")


def spool_file_lost(photos: Path, spool: Path) -> None:
    (spool / "train-000001.rgb").unlink()


def note_lost(photos: Path, spool: Path) -> None:
    (spool / "train-000001.json").unlink()


def note_cut_short(photos: Path, spool: Path) -> None:
    path = spool / "train-000001.json"
    path.write_text(path.read_text()[:100])


@pytest.mark.parametrize(
    "change",
    [
        other_content,
        same_size_another_time,
        spool_file_cut_short,
        spool_file_too_long,
        spool_file_lost,
        note_lost,
        note_cut_short,
    ],
)
def test_what_was_changed_is_decoded_again_and_nothing_else(
    photos: Path, tmp_path: Path, decoded: list[str], change: Callable[[Path, Path], None]
) -> None:
    spool = tmp_path / "spool"
    read(photos, spool)
    decoded.clear()
    change(photos, spool)
    disk = read(photos, spool)
    wanted = sorted(str(path) for path in (photos / "train").rglob("*.JPEG"))[PER_CHUNK : 2 * PER_CHUNK]
    assert decoded == wanted, "the second chunk"
    assert_same(disk, read(photos))


@pytest.mark.parametrize("what", ["preprocess", "decoder", "version"])
def test_another_step_or_decoder_or_version_decodes_everything_again(
    photos: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    spec, spool = SPEC, tmp_path / "spool"
    read(photos, spool)
    decoded.clear()
    if what == "preprocess":
        spec = dataclasses.replace(SPEC, preprocess=Preprocess(resize=RESIZE + 4, crop=CROP, convert="RGB"))
    elif what == "decoder":
        versions = {**decode.encoder_versions(), "jpeg": "libjpeg-turbo 0.0.1"}
        monkeypatch.setattr(decode, "encoder_versions", lambda: versions)
    else:
        monkeypatch.setattr(decode, "__version__", "0.0.0")
    disk = read(photos, spool, spec=spec)
    assert len(decoded) == FILES
    assert_same(disk, read(photos, spec=spec))


def test_an_interrupted_run_leaves_whole_chunks_and_the_next_one_does_the_others(
    photos: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, counted = tmp_path / "spool", decode.decode_rgb
    whole = COUNTS["test"] + 2 * PER_CHUNK  # the test images come first

    def interrupted(data: bytes, origin: str, rules: Rules) -> Picture:
        if len(decoded) == whole + 5:
            raise KeyboardInterrupt
        return counted(data, origin, rules)

    monkeypatch.setattr(decode, "decode_rgb", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read(photos, spool)
    chunks = ("test-000000", "test-000001", "train-000000", "train-000001")
    assert sorted(path.name for path in spool.iterdir()) == [f"{c}{end}" for c in chunks for end in (".json", ".rgb")]
    decoded.clear()
    monkeypatch.setattr(decode, "decode_rgb", counted)
    disk = read(photos, spool)
    assert len(decoded) == FILES - whole
    assert_same(disk, read(photos))


# --- what is wrong with images --------------------------------------------------------------------------------


def test_unusable_images_are_counted_and_named_and_left_out_only_if_asked(
    photos: Path, tmp_path: Path, decoded: list[str]
) -> None:
    whole = read(photos)
    write_broken(photos)
    paths = broken_files(photos)
    assert len(paths) == len(BROKEN)
    for spool in (None, tmp_path / "spool", tmp_path / "spool"):
        with pytest.raises(InputError) as refused:
            read(photos, spool)
        message = str(refused.value)
        assert message.startswith(f"{len(BROKEN)} unusable samples: ")
        assert all(f"{path} {BROKEN[path.stem]}" in message for path in paths)
        assert message.endswith(
            "; the same command with --skip-unusable leaves such images out, and decodes none of the others again"
        )
    decoded.clear()
    disk = read(photos, tmp_path / "spool", skip=True)
    assert decoded == [], "what was refused is not decoded again either"
    assert_same(disk, read(photos, skip=True))
    assert disk.train.digest == whole.train.digest
    assert disk.train.keys == whole.train.keys
    assert [split for split, _ in disk.findings.left_out] == ["train"] * len(BROKEN)
    for path, (_, problem) in zip(paths, disk.findings.left_out, strict=True):
        assert problem.startswith(f"{path.relative_to(photos)} {BROKEN[path.stem]}")
    assert disk.findings.about() == {
        "duplicates": {"train": NUM_DUPLICATES},
        "converted_to_rgb": CONVERTED,
        "left_out": {"train": len(BROKEN)},
    }
    assert disk.findings.lines() == [
        "1 train image is an exact copy of another; it stays",
        "converted to RGB: 1 of mode CMYK, 1 of mode L, 1 of mode P",
        f"left out {len(BROKEN)} unusable images, first: {disk.findings.left_out[0][1]}",
    ]


def test_a_chunk_without_any_usable_image_is_no_hole(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "source", make_splits(3, 8, 8), class_names(3))
    middle = sorted((folder / "train").rglob("*.png"))[PER_CHUNK : 2 * PER_CHUNK]
    for path in middle:
        path.write_text("broken")
    disk = read(folder, tmp_path / "spool", spec=OWN_IMAGES, skip=True)
    assert len(disk.train) == 24 - PER_CHUNK
    assert_same(disk, read(folder, spec=OWN_IMAGES, skip=True))
    for path in (folder / "train").rglob("*.png"):
        path.write_text("broken")
    for spool in (None, tmp_path / "spool"):
        with pytest.raises(InputError, match="has no training images"):
            read(folder, spool, spec=OWN_IMAGES, skip=True)


@pytest.mark.parametrize("odd", [0, 3, 17])
@pytest.mark.parametrize("skip", [False, True])
def test_images_of_other_sizes_are_never_left_out_since_the_first_may_be_the_odd_one(
    tmp_path: Path, odd: int, skip: bool
) -> None:
    folder = write_image_folder(tmp_path / "source", make_splits(3, 8, 8), class_names(3))
    paths = sorted((folder / "train").rglob("*.png"))
    paths[odd].write_bytes(encode(np.zeros((9, 8, 3), dtype=np.uint8)))
    paths[5].write_text("broken")
    for spool in (None, tmp_path / "spool", tmp_path / "spool"):
        with pytest.raises(InputError, match=r"is \dx\d pixels, \S+ is \dx\d.*; --crop 8 --resize 8 brings all") as e:
            read(folder, spool, spec=OWN_IMAGES, skip=skip)
        assert str(paths[odd]) in str(e.value)
        assert (str(paths[5]) in str(e.value)) is not skip


def test_names_of_what_is_left_out_are_the_same_however_the_place_is_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_broken(photos)
    reference = read(photos, skip=True).findings.left_out
    assert reference[0][1].startswith("train/class001/cut.JPEG cannot be")
    monkeypatch.chdir(photos.parent)
    monkeypatch.setenv("HOME", str(photos.parent))
    for where in (f"{photos}/", "photos", "./photos", "photos//", "~/photos"):
        assert read(where, skip=True).findings.left_out == reference
    monkeypatch.chdir(photos)
    assert read(".", skip=True).findings.left_out == reference


def test_left_out_rows_of_one_file_and_of_the_hub_are_named_without_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = make_splits(3, 4, 8)
    folder = write_parquet(tmp_path / "cache" / "data", splits, class_names(3), num_files=1)
    path = folder / "train-00000-of-00001.parquet"
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    rows = table["img"].to_pylist()
    rows[2]["bytes"] = b"broken"
    pq.write_table(table.set_column(0, "img", pa.array(rows)), path)
    wanted = (("train", f"{path.name} (row group 0, row 2) is not a readable image: unknown image format"),)
    snapshot = Snapshot("owner/name", tmp_path / "cache", {f"data/{file.name}": 1 for file in folder.iterdir()})
    monkeypatch.setattr(hub, "look_up", lambda *_, **__: snapshot)
    monkeypatch.setattr(hub, "download", lambda *_, **__: snapshot.folder)
    for where in (path, folder, "hub:owner/name"):
        assert read(where, spec=OWN_IMAGES, skip=True).findings.left_out == wanted
