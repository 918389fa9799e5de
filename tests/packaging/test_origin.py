"""The images belong to what a build is: the same are recognised wherever they are, and others never taken for them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import (
    Outcome,
    Samples,
    data_files,
    encode,
    make_images,
    make_splits,
    run_build,
    snapshot,
    write_image_folder,
    write_parquet,
    write_webdataset,
)

import ule_datasets.building
import ule_datasets.packaging.assembly
import ule_datasets.sources.reading
from ule_datasets.packaging.folder import BuildFolder

NAMES = ("a", "b", "c")
SPLITS = make_splits(3, 4, 8)
OTHERS = {"train": make_images(3, 4, 8, seed=9), "test": SPLITS["test"]}


@pytest.fixture(autouse=True)
def lean(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes most of the time of so small a build, and is the same for all."""
    monkeypatch.setattr(ule_datasets.building, "write_card", lambda *_: "")
    monkeypatch.setattr(ule_datasets.building, "draw_figures", lambda *_: ())
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Place:
    """A source of images in a folder, and the dataset that was built from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cats = write_image_folder(root / "cats", SPLITS, NAMES)

    @property
    def first(self) -> Path:
        """One of the images."""
        return min(self.cats.rglob("*.png"))

    def moved(self) -> Path:
        return Path(shutil.move(self.cats, self.root / "moved"))

    def copied(self, splits: Mapping[str, Samples] = SPLITS, names: tuple[str, ...] = NAMES) -> Path:
        return write_image_folder(self.root / "copied", splits, names)

    def changed(self, change: Callable[[Path], object]) -> Path:
        change(self.first)
        return self.cats


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def repaint(path: Path) -> None:
    """Other pixels in a file of another time."""
    path.write_bytes(encode(np.full((8, 8, 3), 7, dtype=np.uint8)))


def one_more(path: Path) -> None:
    path.with_name("one-more.png").write_bytes(encode(np.full((8, 8, 3), 9, dtype=np.uint8)))


def swap_labels(path: Path) -> None:
    path.rename(path.parents[1] / "b" / "moved.png")


def rename_class(path: Path) -> None:
    for split in ("train", "test"):
        (path.parents[2] / split / "c").rename(path.parents[2] / split / "d")


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def into_parquet(place: Place) -> Path:
    return write_parquet(place.root / "parquet", SPLITS, NAMES)


def linked(place: Place) -> Path:
    (place.root / "link").symlink_to(place.cats)
    return place.root / "link"


SAME: dict[str, tuple[Callable[[Place], Path | None], bool]] = {
    "the same command": (lambda place: place.cats, False),
    "moved": (Place.moved, True),
    "no source at all": (lambda place: None, False),
    "spelled in another way": (lambda place: place.cats / "train" / "..", False),
    "through a link": (linked, False),
    "with a file that is no part of it": (lambda place: (place.cats / "notes.txt").touch() or place.cats, False),
    "copied, with other names of files": (Place.copied, True),
    "as Parquet": (into_parquet, True),
    "from another time": (lambda place: place.changed(touch), True),
}  # fmt: skip
"""Sources of the same images, and whether they have to be read to know it."""

OTHER: dict[str, Callable[[Place], Path]] = {
    "other images": lambda place: place.copied(OTHERS),
    "other classes": lambda place: place.copied(SPLITS, ("x", "y", "z")),
    "no test split": lambda place: place.copied({"train": SPLITS["train"]}),
    "test images are others": lambda place: place.copied({**SPLITS, "test": OTHERS["train"]}),
    "one pixel is another": lambda place: place.changed(repaint),
    "one image more": lambda place: place.changed(one_more),
    "one image less": lambda place: place.changed(Path.unlink),
    "one image in another class": lambda place: place.changed(swap_labels),
    "one class has another name": lambda place: place.changed(rename_class),
    "Parquet without names of classes": lambda place: write_parquet(place.root / "parquet", SPLITS, None),
    "tar shards, without names of classes": lambda place: write_webdataset(place.root / "tars", SPLITS),
}


class Out(NamedTuple):
    """Where a dataset goes, in a folder or to a URL."""

    words: tuple[str, ...]
    folder: Path


KINDS = ("folder", "URL")


@pytest.fixture
def out(kind: str, tmp_path: Path) -> Out:
    folder = tmp_path / "bucket" / "out"
    if kind == "folder":
        return Out(("--out", str(folder)), folder)
    return Out(("--out", f"file://{folder}", "--scratch", str(tmp_path / "scratch")), folder)


def everywhere(names: Iterable[str], *, at_urls: int) -> list[tuple[str, str]]:
    """All in a folder, and the first few at a URL, where all but the way of writing is the same."""
    return [(name, kind) for kind in KINDS for name in list(names)[: at_urls if kind == "URL" else None]]


def build(source: Path | None, out: Out, *more: str) -> Outcome:
    return run_build("ops", *(() if source is None else ("--source", source)), *out.words, *more)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits of all chunks that are read."""
    read: list[str] = []
    original = ule_datasets.sources.reading.decode_chunk
    monkeypatch.setattr(
        ule_datasets.sources.reading, "decode_chunk", lambda task: read.append(task.split) or original(task)
    )
    return read


@pytest.mark.parametrize(("name", "kind"), everywhere(SAME, at_urls=2))
def test_the_same_images_are_recognised_and_read_only_where_something_changed(
    name: str, place: Place, out: Out, readings: list[str]
) -> None:
    assert build(place.cats, out).code == 0
    before = data_files(out.folder)
    change, is_read = SAME[name]
    readings.clear()
    source = change(place)
    for must_be_read in (is_read, False):
        outcome = build(source, out)
        assert outcome.code == 0, outcome.stderr
        assert "already holds ops 1.0.0, finished earlier; nothing to do (nothing was verified" in outcome.stdout
        assert bool(readings) == must_be_read
        readings.clear()
    assert data_files(out.folder) == before


def assert_named(line: str, made: str, before: Path, now: Path) -> None:
    """Both places are named, and one place is named once."""
    if before == now:
        assert re.search(rf"{made} {before} as it was \(.*\), and that has changed \(", line), line
        assert line.count(str(before)) == 1
    else:
        assert f"{made} {before}" in line
        assert f"not from {now}" in line


@pytest.mark.parametrize(("name", "kind"), everywhere(OTHER, at_urls=1))
def test_other_images_are_refused_by_name_and_replace_the_first_only_when_that_is_asked_for(
    name: str, place: Place, out: Out
) -> None:
    assert build(place.cats, out).code == 0
    before = snapshot(out.folder)
    source = OTHER[name](place)
    outcome = build(source, out)
    assert outcome.code == 2
    line = outcome.stderr.splitlines()[-1]
    assert_named(line, "made from", place.cats, source)
    assert "--overwrite" in line
    assert snapshot(out.folder) == before
    if name in ("other images", "one class has another name"):
        assert build(source, out, "--overwrite").code == 0
        assert "already holds" in build(source, out).stdout
        assert run_build("ops", "--source", source, "--out", place.root / "fresh").code == 0
        assert data_files(out.folder) == data_files(place.root / "fresh")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_first_is_published_for_the_second(place: Place, out: Out) -> None:
    """Also where the dataset came from elsewhere, and nobody here knows from where."""
    assert build(place.cats, out).code == 0
    (out.folder / ".local.json").unlink(missing_ok=True)
    shutil.rmtree(os.environ["ULE_CACHE"], ignore_errors=True)
    outcome = build(place.copied(OTHERS), out)
    assert outcome.code == 2
    assert "holds ops 1.0.0 made from 12 train and 6 test images, digest " in outcome.stderr
    assert "already holds ops 1.0.0" in build(place.cats, out).stdout


@pytest.mark.parametrize("kind", ["folder"])
def test_a_trial_is_compared_with_its_part_of_the_images(place: Place, out: Out) -> None:
    assert build(place.cats, out, "--limit", "2").code == 0
    assert "already holds" in build(place.copied(), out, "--limit", "2").stdout
    assert build(write_image_folder(place.root / "dogs", OTHERS, NAMES), out, "--limit", "2").code == 2


@pytest.mark.parametrize("kind", ["folder"])
def test_images_that_were_left_out_are_left_out_of_the_comparison(place: Place, out: Out) -> None:
    place.first.write_bytes(b"broken")
    assert build(place.cats, out, "--skip-unusable").code == 0
    outcome = build(place.moved(), out)
    assert outcome.code == 0, outcome.stderr
    assert "already holds ops 1.0.0" in outcome.stdout


# --- interrupted ---------------------------------------------------------------------------------------------


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def reading_stops(patch: pytest.MonkeyPatch) -> None:
    original = ule_datasets.sources.reading.decode_chunk
    chunks = iter([original])
    patch.setattr(ule_datasets.sources.reading, "decode_chunk", lambda task: next(chunks, interrupt)(task))


STAGES: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "reading": reading_stops,
    "crafting": lambda patch: patch.setattr(ule_datasets.building, "craft", interrupt),
    "assembling": lambda patch: patch.setattr(ule_datasets.packaging.assembly, "write_shard", interrupt),
    "describing": lambda patch: patch.setattr(ule_datasets.building, "draw_figures", interrupt),
    "moving": lambda patch: patch.setattr(BuildFolder, "publish", interrupt),
}


@pytest.fixture
def folder(tmp_path: Path) -> Out:
    return Out(("--out", str(tmp_path / "out")), tmp_path / "out")


def stop_at(stage: str, source: Path, out: Out) -> None:
    with pytest.MonkeyPatch.context() as patch:
        STAGES[stage](patch)
        assert build(source, out).code == 130
    assert not (out.folder / "manifest.json").exists()


@pytest.mark.parametrize("name", ["other images", "one pixel is another"])
@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_build_goes_on_with_no_other_images(stage: str, name: str, place: Place, folder: Out) -> None:
    kept = Path(shutil.copytree(place.cats, place.root / "kept"))
    stop_at(stage, place.cats, folder)
    source = OTHER[name](place)
    outcome = build(source, folder)
    if stage == "reading" and source == place.cats:
        assert outcome.code == 0, "nothing has been made of the images that were there before"
        return
    assert outcome.code == 2
    line = outcome.stderr.splitlines()[-1]
    assert_named(line, "holds an unfinished build from", place.cats, source)
    if source == place.cats:
        shutil.rmtree(place.cats)
        kept.rename(place.cats)
    assert build(place.cats, folder).code == 0
    assert run_build("ops", "--source", place.cats, "--out", place.root / "fresh").code == 0
    assert data_files(folder.folder) == data_files(place.root / "fresh")


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_build_of_other_images_is_replaced_when_that_is_asked_for(
    stage: str, place: Place, folder: Out
) -> None:
    stop_at(stage, place.cats, folder)
    dogs = place.copied(OTHERS)
    assert build(dogs, folder, "--overwrite").code == 0
    assert run_build("ops", "--source", dogs, "--out", place.root / "fresh").code == 0
    assert data_files(folder.folder) == data_files(place.root / "fresh")


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "reading"])
@pytest.mark.parametrize("name", ["moved", "as Parquet", "no source at all"])
def test_an_interrupted_build_goes_on_with_the_same_images_from_anywhere(
    stage: str, name: str, place: Place, folder: Out
) -> None:
    stop_at(stage, place.cats, folder)
    source = SAME[name][0](place)
    outcome = build(source, folder)
    if source is None and stage != "moving":
        assert "say where they are with --source" in outcome.stderr
        return
    assert outcome.code == 0, outcome.stderr
    assert run_build("ops", "--source", place.copied(), "--out", place.root / "fresh").code == 0
    assert data_files(folder.folder) == data_files(place.root / "fresh")


def test_a_source_that_cannot_be_used_binds_nobody(place: Place, folder: Out) -> None:
    stop_at("reading", place.cats, folder)
    place.first.write_bytes(b"broken")
    assert build(place.cats, folder).code == 2
    assert build(place.copied(), folder).code == 0


def test_another_machine_does_not_go_on_with_other_images_at_a_url(place: Place, tmp_path: Path) -> None:
    out = Out(("--out", f"file://{tmp_path}/bucket", "--scratch", str(tmp_path / "here")), tmp_path / "bucket")
    stop_at("assembling", place.cats, out)
    there = Out((*out.words[:3], str(tmp_path / "there")), out.folder)
    outcome = build(place.copied(OTHERS), there)
    assert outcome.code == 2
    assert "bucket holds an unfinished build from 12 train and 6 test images" in outcome.stderr
    assert build(write_parquet(place.root / "parquet", SPLITS, NAMES), there).code == 0
