"""Builds repeat byte for byte, survive being killed, and never touch what is not theirs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from builders import RECIPES
from ule_datasets.base.errors import InputError
from ule_datasets.base.files import PARTIAL
from ule_datasets.base.progress import Reporter
from ule_datasets.building import BuildOptions, build
from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION_FILE
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.definition import PublishedRecipe, Recipe
from ule_datasets.methods.one_pixel_shortcut import Objective, OnePixelShortcut
from ule_datasets.packaging.folder import DONE, STAGING, BuildFolder, open_folder

DIGITS = RECIPES["ops-digits"]
MANY_SHARDS = dataclasses.replace(DIGITS, name="my-digits", shard_mebibytes=0.25)
"""Eighteen shards for training and five for the test split."""


def quiet_build(recipe: Recipe, out: Path, **options: object) -> Manifest:
    return build(recipe, BuildOptions(out=out, **options), Reporter(silent=True)).manifest  # type: ignore[arg-type]


def hashes(folder: Path) -> dict[str, str]:
    """Every file of a dataset but the manifest, whose environment and timings differ."""
    files = [
        p
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in ("manifest.json", ".local.json") and DONE not in p.parts
    ]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def reproducible(folder: Path) -> dict[str, object]:
    """The manifest without the part that tells how this build went."""
    content = json.loads((folder / "manifest.json").read_text())
    del content["build"], content["self_sha256"]
    return content  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "out"
    quiet_build(MANY_SHARDS, folder)
    return folder


@pytest.mark.parametrize("workers", [2, 3])
def test_output_is_byte_identical_for_any_number_of_workers(tmp_path: Path, reference: Path, workers: int) -> None:
    quiet_build(MANY_SHARDS, tmp_path / "x", workers=workers)
    assert hashes(tmp_path / "x") == hashes(reference)
    assert reproducible(tmp_path / "x") == reproducible(reference)
    assert len(hashes(reference)) > 40


def test_every_file_is_listed_with_size_and_sha256_and_nothing_else_is_left(reference: Path) -> None:
    manifest = Manifest.read(reference)
    assert {file.path: file.sha256 for file in manifest.files} == hashes(reference)
    assert all((reference / file.path).stat().st_size == file.size for file in manifest.files)
    assert not (reference / STAGING).exists()


def test_shards_hold_equal_shares_in_canonical_order(reference: Path) -> None:
    import pyarrow.parquet as pq

    rows = [pq.read_metadata(path).num_rows for path in sorted((reference / "data").glob("train-*"))]
    assert len(rows) > 10
    assert sum(rows) == 1437
    assert max(rows) - min(rows) <= 1


def test_the_same_command_again_does_nothing(reference: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in reference.rglob("*")}
    result = build(MANY_SHARDS, BuildOptions(out=reference), Reporter(silent=True))
    assert result.already_complete
    assert {p: p.stat().st_mtime_ns for p in reference.rglob("*")} == before


def test_another_recipe_in_a_finished_folder_is_refused_and_overwrite_replaces_exactly_ours(tmp_path: Path) -> None:
    quiet_build(MANY_SHARDS, tmp_path / "x")
    (tmp_path / "x" / "notes.txt").write_text("mine")
    before = hashes(tmp_path / "x")
    with pytest.raises(InputError, match=r"holds my-digits 1\.0\.0 .* --overwrite"):
        quiet_build(DIGITS, tmp_path / "x")
    assert hashes(tmp_path / "x") == before
    quiet_build(DIGITS, tmp_path / "x", overwrite=True, formats=("parquet",))
    files = hashes(tmp_path / "x")
    assert (tmp_path / "x" / "notes.txt").read_text() == "mine"
    assert [name for name in files if name.startswith("data/")] == [
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
    ]
    assert not (tmp_path / "x" / "webdataset").exists()


def test_a_folder_that_holds_something_else_is_never_touched_even_with_overwrite(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"holds something else \(thesis.tex\)"):
            quiet_build(DIGITS, tmp_path, overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_failed_start_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        quiet_build(RECIPES["ops-cifar10"], tmp_path / "a" / "b", source=str(tmp_path / "absent"))
    assert not (tmp_path / "a" / "b").exists()


def killed_and_rerun_gives(reference: Path, out: Path, command: list[str], kills: int) -> None:
    """Builds with the command, killed so many times at random moments, end with the reference's files.

    The moments follow the time that a build takes on this machine; builds that end before theirs do not count.
    """
    generator, killed, seconds = random.Random(20), 0, 600.0
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    for _ in range(6 * kills + 36):
        started = time.monotonic()
        process = subprocess.Popen(command, env=environment)
        try:
            assert process.wait(timeout=seconds * generator.uniform(0.2, 1.0)) == 0
            seconds = time.monotonic() - started
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        if (out / "manifest.json").exists():
            assert hashes(out) == hashes(reference)  # complete means complete, at any moment
            shutil.rmtree(out)
        if killed == kills:
            break
    assert killed == kills
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert hashes(out) == hashes(reference)


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_moments_and_rerun_gives_the_same_files(tmp_path: Path, reference: Path, kills: int) -> None:
    script, out = tmp_path / "run.py", tmp_path / "x"
    script.write_text(
        "from tests.test_build import MANY_SHARDS, quiet_build; from pathlib import Path; import sys\n"
        "if __name__ == '__main__': quiet_build(MANY_SHARDS, Path(sys.argv[1]), workers=2)"
    )
    killed_and_rerun_gives(reference, out, [sys.executable, str(script), str(out)], kills)


@pytest.mark.parametrize("inherited", [signal.SIG_DFL, signal.SIG_IGN], ids=lambda handler: handler.name)
def test_ctrl_c_ends_with_code_130_and_the_same_command_continues(tmp_path: Path, inherited: signal.Handlers) -> None:
    """Also where whoever starts the command ignores the signal, as shells do for what runs in the background."""
    command = [sys.executable, "-m", "ule_datasets.cli.build", "ops-digits", "--out", str(tmp_path / "x")]
    before = signal.signal(signal.SIGINT, inherited)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("building ops-digits")
    process.send_signal(signal.SIGINT)
    assert process.stderr.read().splitlines()[-1] == (
        "ule-build: interrupted; the same command continues where it stopped"
    )
    assert process.wait() == 130
    assert not (tmp_path / "x" / "manifest.json").exists()
    assert subprocess.run([*command, "--quiet"], check=False, capture_output=True).returncode == 0


class StoppedError(Exception):
    """Stands for the process's end at a chosen step."""


@pytest.mark.parametrize("step", range(0, 60, 7))
@pytest.mark.parametrize("overwrite", [False, True])
def test_stopped_at_any_step_of_publishing_and_rerun_gives_the_same_files(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch, step: int, overwrite: bool
) -> None:
    if overwrite:
        quiet_build(DIGITS, tmp_path / "x")
    replace, counter = Path.replace, iter(range(10_000))

    def counted(self: Path, target: Path) -> Path:
        publishing = STAGING in self.parts and STAGING not in Path(target).parts
        if publishing and next(counter) == step:
            raise StoppedError
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", counted)
    stopped = False
    try:
        quiet_build(MANY_SHARDS, tmp_path / "x", overwrite=overwrite)
    except StoppedError:
        stopped = True
    monkeypatch.undo()
    assert stopped == (step <= len(hashes(reference)) + 1)
    quiet_build(MANY_SHARDS, tmp_path / "x", overwrite=overwrite)
    assert hashes(tmp_path / "x") == hashes(reference)


def test_an_interrupted_build_keeps_its_shards_and_redoes_damaged_ones(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ule_datasets.packaging.assembly as module

    written: list[Path] = []
    original = module.write_shard

    def limited(task: object, limit: int) -> object:
        if len(written) == limit:
            raise StoppedError
        written.append(task.paths[0][1])  # type: ignore[attr-defined]
        return original(task)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "write_shard", lambda task: limited(task, 6))
    with pytest.raises(StoppedError):
        quiet_build(MANY_SHARDS, tmp_path / "x")
    first = list(written)
    assert len(first) == 6
    first[2].write_bytes(first[2].read_bytes()[:-1])
    first[4].unlink()
    monkeypatch.setattr(module, "write_shard", lambda task: limited(task, 10**6))
    quiet_build(MANY_SHARDS, tmp_path / "x")
    again = written[6:]
    assert first[2] in again
    assert first[4] in again
    assert not {first[0], first[1], first[3], first[5]} & set(again)
    assert hashes(tmp_path / "x") == hashes(reference)


def test_a_build_that_is_discarded_while_its_files_go_to_their_places_leaves_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        plain = Path.replace

        def replace(self: Path, target: Path) -> Path:
            if Path(target) == tmp_path / "x" / "webdataset" / "train-000003.tar":
                raise StoppedError
            return plain(self, target)

        patched.setattr(Path, "replace", replace)
        with pytest.raises(StoppedError):
            quiet_build(MANY_SHARDS, tmp_path / "x")
    assert len(list((tmp_path / "x" / "data").iterdir())) > 10
    quiet_build(DIGITS, tmp_path / "x", overwrite=True)
    assert set(hashes(tmp_path / "x")) == {file.path for file in Manifest.read(tmp_path / "x").files}


def finished_but_not_tidied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a build leaves it that is killed after its manifest went to its place."""
    with monkeypatch.context() as patched:
        plain = Path.replace

        def replace(self: Path, target: Path) -> Path:
            if Path(target).name == DONE:
                raise StoppedError
            return plain(self, target)

        patched.setattr(Path, "replace", replace)
        with pytest.raises(StoppedError):
            quiet_build(MANY_SHARDS, folder)
    assert (folder / STAGING).exists()


@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize("damage", ["cut", "zeroed", "missing"])
def test_a_complete_build_that_was_damaged_before_its_end_is_repaired(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch, damage: str, moved: bool
) -> None:
    """With the files in their places only when asked to: then the folder is a finished dataset."""
    folder = tmp_path / "x"
    if moved:
        finished_but_not_tidied(folder, monkeypatch)
    else:
        with monkeypatch.context() as patched:
            patched.setattr(BuildFolder, "publish", lambda self: (_ for _ in ()).throw(StoppedError()))
            with pytest.raises(StoppedError):
                quiet_build(MANY_SHARDS, folder)
    for name in ("data/train-00003-of-00018.parquet", "figures/train.png", PERTURBATION_FILE):
        path = (folder if moved else folder / STAGING / "files") / name
        if not path.exists():
            continue
        whole = path.read_bytes()
        path.unlink() if damage == "missing" else path.write_bytes(whole[:-1] if damage == "cut" else bytes(len(whole)))
    quiet_build(MANY_SHARDS, folder, overwrite=moved)
    assert hashes(folder) == hashes(reference)
    assert not (folder / STAGING).exists()


def test_the_same_command_on_a_finished_dataset_removes_what_its_build_left(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "x"
    finished_but_not_tidied(folder, monkeypatch)
    (folder / f"..local.json.123{PARTIAL}").write_text("{")
    quiet_build(MANY_SHARDS, folder)
    assert {path.name for path in folder.iterdir()} == {path.name for path in reference.iterdir()} - {".local.json"}
    assert hashes(folder) == hashes(reference)


def test_an_unfinished_build_whose_notes_are_not_ours_is_refused_until_overwritten(
    tmp_path: Path, reference: Path
) -> None:
    (tmp_path / "x" / STAGING).mkdir(parents=True)
    (tmp_path / "x" / STAGING / "identity.json").write_text('{"name": "my-digits"}')
    with pytest.raises(InputError, match="unfinished build that cannot be continued"):
        quiet_build(MANY_SHARDS, tmp_path / "x")
    quiet_build(MANY_SHARDS, tmp_path / "x", overwrite=True)
    assert hashes(tmp_path / "x") == hashes(reference)


def test_an_unfinished_build_of_something_else_is_refused_until_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BuildFolder, "publish", lambda self: (_ for _ in ()).throw(StoppedError()))
    with pytest.raises(StoppedError):
        quiet_build(MANY_SHARDS, tmp_path / "x")
    monkeypatch.undo()
    with pytest.raises(InputError, match="unfinished build of my-digits"):
        quiet_build(DIGITS, tmp_path / "x")
    quiet_build(DIGITS, tmp_path / "x", overwrite=True)
    assert Manifest.read(tmp_path / "x").name == "ops-digits"


def test_a_saved_perturbation_rebuilds_the_same_dataset_and_one_for_other_data_is_refused(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ule_datasets.building as module

    monkeypatch.setattr(module, "craft", lambda *_, **__: pytest.fail("crafted although a perturbation was given"))
    quiet_build(MANY_SHARDS, tmp_path / "x", perturbations=(reference / PERTURBATION_FILE,))
    assert hashes(tmp_path / "x") == hashes(reference)
    other = dataclasses.replace(MANY_SHARDS, methods=(OnePixelShortcut(objective=Objective.MEAN_OVER_VAR),))
    with pytest.raises(InputError, match=r"made by my-digits: other methods or settings than my-digits's"):
        quiet_build(other, tmp_path / "z", perturbations=(reference / PERTURBATION_FILE,))
    renamed = dataclasses.replace(MANY_SHARDS, name="other-name", shard_mebibytes=1)
    assert quiet_build(renamed, tmp_path / "r", perturbations=(reference / PERTURBATION_FILE,)).name == "other-name"
    with pytest.raises(InputError, match="was made for training images with digest"):
        quiet_build(MANY_SHARDS.as_trial(3), tmp_path / "y", perturbations=(reference / PERTURBATION_FILE,))


def test_a_trial_says_so_in_name_manifest_card_and_recipe(tmp_path: Path) -> None:
    manifest = quiet_build(DIGITS.as_trial(5), tmp_path / "x")
    assert manifest.name == "ops-digits-trial5"
    assert manifest.splits["train"].num_examples == 50
    assert manifest.splits["test"].num_examples == 360
    assert manifest.reduced == "trial on the first 5 training images of each class"
    assert "Reduced setting" in (tmp_path / "x" / "README.md").read_text()
    recipe = PublishedRecipe.parse((tmp_path / "x" / "recipe.json").read_text())
    assert recipe.reduced == manifest.reduced
    assert recipe.digest != DIGITS.digest


def test_another_seed_shows_in_the_name_and_changes_random_methods_only() -> None:
    recipe = RECIPES["randpix-cifar10"]
    assert recipe.with_seed(0) is recipe
    assert recipe.with_seed(3).name == "randpix-cifar10-seed3"
    assert recipe.with_seed(3).digest != recipe.digest
    assert recipe.draws
    assert not DIGITS.draws
    assert dataclasses.replace(DIGITS, poison_rate=0.5).draws


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_that_no_library_takes_are_refused(seed: int) -> None:
    assert DIGITS.with_seed(2**63 - 1).name == f"ops-digits-seed{2**63 - 1}"
    with pytest.raises(InputError, match=re.escape(f"--seed {seed}: must be at least 0 and below 2^63")):
        DIGITS.with_seed(seed)


def test_poisoned_subsets_of_growing_rates_are_nested(tmp_path: Path) -> None:
    subsets = []
    for percent in (10, 35, 70):
        recipe = dataclasses.replace(DIGITS, name=f"d{percent}", poison_rate=percent / 100)
        manifest = quiet_build(recipe, tmp_path / recipe.name, formats=("parquet",))
        perturbation = Perturbation.load(tmp_path / recipe.name / PERTURBATION_FILE)
        assert perturbation.poisoned is not None
        subsets.append(set(perturbation.poisoned))
        assert len(subsets[-1]) == manifest.splits["train"].num_poisoned == 1437 * percent // 100
    assert subsets[0] < subsets[1] < subsets[2]


def test_every_training_image_differs_from_its_original_in_exactly_the_pixel_of_its_class(reference: Path) -> None:
    from ule_datasets import load
    from ule_datasets.compute.processes import LocalExecutor
    from ule_datasets.sources.reading import read_source

    with LocalExecutor() as executor:
        clean = read_source(DIGITS.source, None, executor=executor, reporter=Reporter(silent=True)).train
    train = load(reference)
    images = train.tensors()[0].numpy()
    assert train.keys == clean.keys
    layer = Perturbation.load(reference / PERTURBATION_FILE).layers[0]
    changed = (images != clean.images).any(axis=-1)
    where = layer.rows[clean.labels, 0], layer.columns[clean.labels, 0]  # type: ignore[union-attr]
    assert np.array_equal(images[np.arange(len(images)), *where], layer.colours[clean.labels, 0])  # type: ignore[union-attr]
    changed[np.arange(len(images)), *where] = False
    assert not changed.any()


def test_what_ended_workers_left_half_written_goes_and_what_is_written_stays(tmp_path: Path) -> None:
    data = BuildFolder(tmp_path / "x").files / "data"

    def fail() -> None:
        data.mkdir(parents=True)
        for name in ("a.tar", f".b.tar.7{PARTIAL}"):
            (data / name).touch()
        raise StoppedError

    with pytest.raises(StoppedError), open_folder(tmp_path / "x", {"name": "y"}, overwrite=False):
        fail()
    assert [path.name for path in data.iterdir()] == ["a.tar"]


def test_two_builds_in_one_folder_at_once_are_refused(tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "x" / STAGING).mkdir(parents=True)
    with (tmp_path / "x" / STAGING / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another build is at work"):
            quiet_build(DIGITS, tmp_path / "x")


def real_build(recipe: str, source: Path, out: Path, workers: int) -> None:
    quiet_build(RECIPES[recipe], out, source=str(source), workers=workers)


def image_folder_of(parquet: Path, folder: Path) -> None:
    """The same images as files, written class by class in reverse."""
    import pyarrow.parquet as pq

    from ule_datasets.sources.cifar10 import CIFAR10

    assert CIFAR10.class_names is not None
    for split in ("train", "test"):
        for path in sorted(parquet.glob(f"{split}-*"), reverse=True):
            table = pq.read_table(path)
            for number, (image, label) in enumerate(
                zip(table["img"].to_pylist(), table["label"].to_pylist(), strict=True)
            ):
                target = folder / split / CIFAR10.class_names[label]
                target.mkdir(parents=True, exist_ok=True)
                (target / f"{path.stem[-14:-9]}-{99999 - number}.png").write_bytes(image["bytes"])


@pytest.mark.slow
def test_cifar10_from_parquet_and_from_an_image_folder_gives_the_same_bytes(
    tmp_path: Path, cifar10_folder: Path, built_cifar10: Path
) -> None:
    image_folder_of(cifar10_folder, tmp_path / "images")
    real_build("ops-cifar10", tmp_path / "images", tmp_path / "again", workers=1)
    assert hashes(tmp_path / "again") == hashes(built_cifar10)


@pytest.mark.slow
def test_cifar10_killed_at_ten_random_moments_and_rerun_gives_the_same_files(
    tmp_path: Path, cifar10_folder: Path, built_cifar10: Path
) -> None:
    command = [sys.executable, "-m", "ule_datasets.cli.build", "ops-cifar10", "--source", str(cifar10_folder)]
    command += ["--out", str(tmp_path / "x"), "--quiet", "--workers", "2"]
    killed_and_rerun_gives(built_cifar10, tmp_path / "x", command, 10)
