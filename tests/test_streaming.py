"""Builds from photographs of many sizes: the same files whoever does the work, and whatever is killed meanwhile."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from dying import PER_CHUNK, Death, decode_or_die, kill_each, write_or_die
from forging import rewrite
from helpers import Outcome, data_files, run_build, snapshot
from photos import (
    BROKEN,
    CONVERTED,
    COUNTS,
    CUT,
    NUM_DUPLICATES,
    broken_files,
    expected_digest,
    write_broken,
    write_photos,
    write_recipe,
)

from ule_datasets import building, verifying
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.spool import SpooledImages
from ule_datasets.dataset import shards
from ule_datasets.dataset.integrity import Check
from ule_datasets.dataset.integrity.content import check_content
from ule_datasets.dataset.integrity.description import open_dataset
from ule_datasets.dataset.integrity.source import check_against_source
from ule_datasets.dataset.manifest import LEFT_OUT, Manifest
from ule_datasets.dataset.shards.content import ShardContent
from ule_datasets.packaging import assembly
from ule_datasets.packaging.folder import DONE, STAGING, BuildFolder
from ule_datasets.sources import decode, image_folder, reading

NUM_CHUNKS, NUM_CLASSES = 2 + 7, 3
NUM_IMAGES = sum(COUNTS.values()) + NUM_DUPLICATES


class Photos(NamedTuple):
    """Photographs, a recipe for them, and what one process makes of both, in chunks of the usual size."""

    source: Path
    recipe: Path
    built: Path

    def arguments(self, out: Path, *more: str | Path, source: Path | None = None) -> tuple[str | Path, ...]:
        return self.recipe, *CUT, "--source", source or self.source, "--out", out, *more

    def build(self, out: Path, *more: str | Path, source: Path | None = None) -> Outcome:
        return run_build(*self.arguments(out, *more, source=source))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    folder = tmp_path_factory.mktemp("streaming")
    made = Photos(write_photos(folder / "source"), write_recipe(folder), folder / "built")
    outcome = made.build(made.built)
    assert outcome.code == 0, outcome.stderr
    return made


@pytest.fixture
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder, "FILES_PER_CHUNK", PER_CHUNK)


def assert_built(outcome: Outcome, folder: Path, photos: Photos) -> None:
    assert outcome.code == 0, outcome.stderr
    assert data_files(folder) == data_files(photos.built)
    assert Manifest.read(folder).files == Manifest.read(photos.built).files
    assert not list(folder.glob(".build*"))


# --- what is built --------------------------------------------------------------------------------------------


def test_pixels_are_those_of_pillow_and_copies_and_conversions_are_counted(photos: Photos) -> None:
    manifest = Manifest.read(photos.built)
    assert manifest.source_digests == {name: expected_digest(photos.source, name) for name in COUNTS}
    assert manifest.source_about == {"duplicates": {"train": NUM_DUPLICATES}, "converted_to_rgb": CONVERTED}
    assert {name: record.num_examples for name, record in manifest.splits.items()} == {**COUNTS, "train": 49}
    assert sum(file.path.startswith("data/train-") for file in manifest.files) > 3, "several shards"
    card = (photos.built / "README.md").read_text()
    assert "\n| duplicates | 1 (train) |\n" in card
    assert "\n| converted to rgb | 1 (CMYK), 1 (L), 1 (P) |\n" in card
    assert not (photos.built / LEFT_OUT).exists()


@pytest.mark.usefixtures("many_chunks")
def test_one_process_and_two_give_the_same_files_whatever_the_chunks(photos: Photos, tmp_path: Path) -> None:
    for workers in ("1", "2"):
        outcome = photos.build(tmp_path / workers, "--workers", workers)
        assert_built(outcome, tmp_path / workers, photos)
        assert "\n1 train image is an exact copy of another; it stays\n" in outcome.stderr
        assert "\nconverted to RGB: 1 of mode CMYK, 1 of mode L, 1 of mode P\n" in outcome.stderr


@pytest.mark.usefixtures("many_chunks")
def test_a_ray_cluster_gives_the_same_files(photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from ule_datasets.compute.ray import RayExecutor

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with RayExecutor(2, address="local", object_store_bytes=80 * 2**20):
        outcome = photos.build(tmp_path / "x", "--workers", "2", "--executor", "ray")
    assert_built(outcome, tmp_path / "x", photos)


@pytest.mark.usefixtures("many_chunks")
def test_a_folder_for_decoded_images_is_used_and_left_empty(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, seen = tmp_path / "scratch", list[tuple[str, int]]()
    plain = building.craft

    def watched(*arguments: Any) -> Any:
        seen.extend((path.suffix, path.stat().st_size) for path in scratch.rglob("*.*"))
        assert not BuildFolder(tmp_path / "x").spool.exists()
        return plain(*arguments)

    monkeypatch.setattr(building, "craft", watched)
    outcome = photos.build(tmp_path / "x", "--scratch", scratch, "--workers", "2")
    assert_built(outcome, tmp_path / "x", photos)
    assert sum(size for suffix, size in seen if suffix == ".rgb") == NUM_IMAGES * 32 * 32 * 3
    assert snapshot(scratch) == {}


def test_builds_that_share_a_folder_for_decoded_images_do_not_share_the_images(tmp_path: Path) -> None:
    spools = {BuildFolder(tmp_path / name, tmp_path / "scratch").spool for name in ("a", "b", "c/a")}
    assert len(spools) == 3
    assert {spool.parent for spool in spools} == {tmp_path / "scratch"}
    assert BuildFolder(tmp_path / "c/../a", tmp_path / "scratch").spool in spools


# --- killed, and continued --------------------------------------------------------------------------------------


READING = (
    Death("ule_datasets.sources.decode", "decode_rgb", 6),
    Death("ule_datasets.sources.decode", "_write_note", 2),  # the pixels are there, their note is not
    Death("ule_datasets.sources.decode", "decode_rgb", 12),
    Death("ule_datasets.base.progress", "Reporter.track", 4, workers=2),
    Death("ule_datasets.building", "craft", 1),
)
ASSEMBLING = (
    Death("ule_datasets.dataset.shards", "encode_png", 15),
    Death("ule_datasets.packaging.folder", "BuildFolder.write_note", 3),  # the files are there, their note is not
    Death("ule_datasets.dataset.shards.webdataset", "write", 2),  # one format is there, the other is not
    Death("ule_datasets.building", "write_card", 1),
)
ASSEMBLING_BY_TWO = (Death("ule_datasets.base.progress", "Reporter.track", NUM_CHUNKS + NUM_CLASSES + 3, workers=2),)
ENDING = (
    Death("ule_datasets.packaging.folder", "BuildFolder.publish", 1),
    Death("ule_datasets.packaging.folder", "remove_leftovers", 2),  # complete, but for what is to be cleared away
)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, many_chunks: None) -> dict[str, int]:
    """How many images are decoded, and encoded, by this process."""
    counts = {"decoded": 0, "encoded": 0}

    def counting(what: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            counts[what] += 1
            return plain(*arguments, **options)

        return call

    monkeypatch.setattr(decode, "decode_rgb", counting("decoded", decode.decode_rgb))
    monkeypatch.setattr(shards, "encode_png", counting("encoded", shards.encode_png))
    return counts


@pytest.mark.parametrize("elsewhere", [False, True])
def test_killed_again_and_again_while_reading_and_continued_gives_the_same_files(
    photos: Photos, tmp_path: Path, counted: dict[str, int], elsewhere: bool
) -> None:
    out, scratch = tmp_path / "x", tmp_path / "scratch"
    arguments = ("--scratch", scratch) if elsewhere else ()
    kill_each(READING, *photos.arguments(out, *arguments))
    assert not (out / "manifest.json").exists()
    assert_built(photos.build(out, *arguments), out, photos)
    assert counted == {"decoded": 0, "encoded": NUM_IMAGES}, "the last one had read everything"
    assert not snapshot(scratch)


def test_killed_again_and_again_while_assembling_and_continued_gives_the_same_files(
    photos: Photos, tmp_path: Path, counted: dict[str, int]
) -> None:
    out = tmp_path / "x"
    kill_each(ASSEMBLING, *photos.arguments(out))
    outcome = photos.build(out)
    assert_built(outcome, out, photos)
    assert counted == {"decoded": 0, "encoded": 0}, "the last one had written every shard"
    assert "continuing: 7 of 7 shards are already written" in outcome.stderr


def test_shards_that_are_lost_or_damaged_between_interrupted_builds_are_made_again(
    photos: Photos, tmp_path: Path, counted: dict[str, int]
) -> None:
    out = tmp_path / "x"
    kill_each(ASSEMBLING_BY_TWO, *photos.arguments(out))
    assert 0 < len(list((out / STAGING).glob("shard-*.json"))) < 7
    kill_each(ASSEMBLING[-1:], *photos.arguments(out))
    files = out / STAGING / "files"
    next((files / "data").glob("train-00001-*")).unlink()
    damaged = files / "webdataset" / "train-000003.tar"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (out / STAGING / "spool" / "test-000000.rgb").unlink()
    outcome = photos.build(out)
    assert_built(outcome, out, photos)
    rows = shards.shard_rows(49, 32 * 32 * 3, 0.03)
    assert counted == {"decoded": PER_CHUNK, "encoded": len(rows[1]) + len(rows[3])}
    assert "continuing: 5 of 7 shards are already written" in outcome.stderr


def test_killed_while_ending_and_continued_gives_the_same_files(
    photos: Photos, tmp_path: Path, counted: dict[str, int]
) -> None:
    out, scratch = tmp_path / "x", tmp_path / "scratch"
    kill_each(ENDING, *photos.arguments(out, "--scratch", scratch))
    assert (out / "manifest.json").exists()
    assert (out / DONE).exists()
    assert any(scratch.rglob("*.rgb"))
    outcome = photos.build(out, "--scratch", scratch)
    assert_built(outcome, out, photos)
    assert "nothing to do" in outcome.stdout
    assert snapshot(scratch) == {}
    assert counted == {"decoded": 0, "encoded": 0}


# --- a worker dies ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("many_chunks")
def test_a_build_that_loses_workers_ends_well_with_the_same_files(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, scratch = tmp_path / "x", tmp_path / "scratch"
    monkeypatch.setattr(reading, "decode_chunk", functools.partial(decode_or_die, tmp_path / "decoding"))
    monkeypatch.setattr(assembly, "write_shard", functools.partial(write_or_die, tmp_path / "writing"))
    outcome = photos.build(out, "--workers", "2", "--scratch", scratch)
    assert_built(outcome, out, photos)
    assert (tmp_path / "decoding").exists()
    assert (tmp_path / "writing").exists()
    assert len(re.findall(r"warning: task \d+ lost its worker in attempt 1 of 3: .*signal 9", outcome.stderr)) == 2
    assert snapshot(scratch) == {}


# --- images that cannot be used ---------------------------------------------------------------------------------


@pytest.fixture
def damaged(photos: Photos, tmp_path: Path) -> Path:
    """The photographs, with some among them that cannot be used."""
    return write_broken(Path(shutil.copytree(photos.source, tmp_path / "damaged")))


@pytest.mark.usefixtures("many_chunks")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_corrupt_images_are_refused_with_their_number_and_names_and_what_was_decoded_is_kept(
    photos: Photos, damaged: Path, tmp_path: Path, workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for out, arguments in ((tmp_path / "x", ()), (tmp_path / "y", ("--scratch", tmp_path / "scratch"))):
        for _ in range(2):
            outcome = photos.build(out, "--workers", workers, *arguments, source=damaged)
            assert outcome.code == 2
            [line] = outcome.complaint
            assert line.startswith(
                f"ule-build: {len(BROKEN)} unusable samples: {damaged}/train/class001/cut.JPEG cannot be"
            )
            assert all(str(path) in line for path in broken_files(damaged))
            assert line.endswith(
                "; the same command with --skip-unusable leaves such images out, and decodes none of the others again"
            )
        with monkeypatch.context() as patch:
            patch.setattr(decode, "decode_rgb", lambda *_: pytest.fail("decoded again"))
            outcome = photos.build(out, "--workers", "1", *arguments, "--skip-unusable", source=damaged)
        assert outcome.code == 0, outcome.stderr
        described = {"README.md", LEFT_OUT}
        found, wanted = data_files(out), data_files(photos.built)
        assert {path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path)} == described
    assert snapshot(tmp_path / "scratch") == {}


@pytest.mark.parametrize("scratch", [False, True])
def test_what_a_refusal_has_kept_makes_way_for_any_other_build(
    photos: Photos, damaged: Path, tmp_path: Path, *, scratch: bool
) -> None:
    out, more = tmp_path / "x", ("--scratch", tmp_path / "scratch") if scratch else ()
    assert photos.build(out, *more, source=damaged).code == 2
    other = run_build(photos.recipe, "--crop", "30", "--source", photos.source, "--out", out, *more)
    assert other.code == 0, other.stderr
    assert Manifest.read(out).image_shape == (30, 30, 3)
    assert snapshot(tmp_path / "scratch") == ({} if scratch else None)


@pytest.mark.usefixtures("many_chunks")
def test_skipped_images_are_listed_counted_and_known_to_verification(
    photos: Photos, damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x"
    outcome = photos.build(out, "--skip-unusable", source=damaged)
    assert outcome.code == 0, outcome.stderr
    assert f"\nleft out {len(BROKEN)} unusable images, first: train/class001/cut.JPEG cannot be" in outcome.stderr
    listed = (out / LEFT_OUT).read_text().splitlines()
    names = [path.relative_to(damaged).as_posix() for path in broken_files(damaged)]
    assert [line.partition(" ")[0] for line in listed] == [f"train\t{name}" for name in names]
    assert all(BROKEN[Path(name).stem] in line for name, line in zip(names, listed, strict=True))
    assert str(tmp_path) not in (out / LEFT_OUT).read_text()
    manifest = Manifest.read(out)
    assert manifest.source_about["left_out"] == {"train": len(BROKEN)}
    assert LEFT_OUT in {file.path for file in manifest.files}
    assert f"\n| left out | {len(BROKEN)} (train) (listed in `left-out.txt`) |\n" in (out / "README.md").read_text()

    described = {"README.md", LEFT_OUT}
    found, wanted = data_files(out), data_files(photos.built)
    assert {path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path)} == described
    assert run_verify(out, "--source", damaged, report=tmp_path / "report").code == 0

    monkeypatch.chdir(damaged.parent)
    assert photos.build(tmp_path / "y", "--skip-unusable", source=Path("damaged")).code == 0
    assert data_files(tmp_path / "y") == found, "however the source is named"


# --- wrong usage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("ops-cifar10", "--crop", "24"),
            r"ops-cifar10 says itself what its images are cut to: nothing; --crop is for",
        ),
        (("ops-imagenet100", "--crop", "24"), "ops-imagenet100 says itself what its images are cut to: to RGB, "),
        (("ops", "--resize", "36"), "--resize goes with --crop"),
        (("ops", "--crop", "32", "--resize", "20"), "resize is 20, must be at least the crop of 32"),
        (("ops", "--crop", "0"), "crop is 0, must be at least 1"),
        (("ops", "--executor", "nonsense"), "--executor nonsense: choose from local, ray"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    photos: Photos, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = run_build(*arguments, "--source", photos.source, "--out", tmp_path / "x")
    assert outcome.code == 2
    [line] = outcome.stderr.splitlines()
    assert line.startswith(f"ule-build: {message}") or message in line
    assert not (tmp_path / "x").exists()


# --- verification, with pixels on disk and in memory ------------------------------------------------------------


def run_verify(folder: Path, *arguments: str | Path, report: Path) -> Outcome:
    from ule_datasets.cli.verify import main

    words = [folder, "--integrity-only", "--quiet", "--workers", "1", "--report", report, *arguments]
    return Outcome(main([str(word) for word in words]), "", "")


def test_verification_says_the_same_with_pixels_on_disk(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = []
    for limit in (verifying.IN_MEMORY, 0):
        monkeypatch.setattr(verifying, "IN_MEMORY", limit)
        report, scratch = tmp_path / f"report-{limit}", tmp_path / f"scratch-{limit}"
        assert run_verify(photos.built, "--source", photos.source, "--scratch", scratch, report=report).code == 0
        assert scratch.exists() == (limit == 0), "pixels go there only if they are too many"
        assert not snapshot(scratch)
        reports.append(json.loads((report / "report.json").read_text())["datasets"])
    assert reports[0] == reports[1]
    checks = reports[0][0]["checks"]
    assert len(checks) > 12
    assert all(check["passed"] for check in checks)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_wrong_is_found_and_named_alike_with_pixels_on_disk(
    photos: Photos, tmp_path: Path, workers: int
) -> None:
    folder, other = Path(shutil.copytree(photos.built, tmp_path / "x")), tmp_path / "other"

    def tamper(content: ShardContent) -> None:
        content.encoded[1], content.encoded[2] = content.encoded[2], content.encoded[1]
        content.poisoned[3] = not content.poisoned[3]

    rewrite(folder, "train-00002", tamper)
    rewrite(folder, "test-00001", lambda content: content.encoded.__setitem__(0, content.encoded[1]))
    shutil.copytree(photos.source, other)
    next((other / "test").rglob("*.JPEG")).unlink()
    for source in (photos.source, other):
        in_memory, on_disk = (checks_of(folder, source, spool, workers) for spool in (None, tmp_path / "spool"))
        assert on_disk == in_memory
        failed = {check.name for check in on_disk if not check.passed}
        assert failed >= {"train: images", "train: poisoned flags", "train: budget"}
        assert ("test: samples of the source" in failed) == (source == other)
        assert ("test: images" in failed) == (source != other)
        assert sum(path.stat().st_size for path in (tmp_path / "spool").rglob("*.rgb")) > 60 * 32 * 32 * 3
        shutil.rmtree(tmp_path / "spool")


def checks_of(root: Path, where: Path, spool: Path | None, workers: int) -> list[Check]:
    silent = Reporter(silent=True)
    with LocalExecutor(workers) as executor:
        folder, checks = open_dataset(root, Manifest.read(root))
        assert folder is not None
        splits, more = check_content(folder, executor, silent, None if spool is None else spool / "built")
        clean = None if spool is None else spool / "clean"
        source = reading.read_source(
            folder.recipe.source, str(where), executor=executor, reporter=silent, spool=clean, skip_unusable=True
        )
        for images in (*(split.images for split in splits.values()), *(s.images for s in source.splits.values())):
            assert isinstance(images, np.ndarray if spool is None else SpooledImages)
        return [*checks, *more, *check_against_source(folder, splits, source, executor)]
