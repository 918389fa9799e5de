"""After a loss of power at any moment the same command ends in the same bytes, or says in one line why it cannot.

``pytest -m slow tests/test_powerloss.py -s`` tries every state that ``powerloss`` knows, and prints how many there are;
without ``-m slow`` some of them are drawn.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import Listening, class_names, data_files, make_recipe, make_splits, write_image_folder
from made_up import Listener, make_task
from powerloss import Disk, restore, some, without_syncs

from ule_datasets.base import files
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.build import BuildOptions, build
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.bounds import LInf
from ule_datasets.dataset.manifest import FILE_NAME
from ule_datasets.experiments.runs import RunStore, work_off
from ule_datasets.methods.engine import stepwise
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.methods.error_minimizing import ErrorMinimizing, StopRule
from ule_datasets.sources import image_folder

SIZE, PER_CHUNK = 8, 4
RECIPE = make_recipe(shard_mebibytes=PER_CHUNK * SIZE * SIZE * 3 / 2**20)
NOISE = ErrorMinimizing(
    surrogate=SurrogateSettings(model="convnet3-w16", batch_size=4),
    num_steps=2,
    steps_per_round=2,
    stop_accuracy=1.0,
    stop_rule=StopRule.ABOVE,
    max_rounds=2,
)
CRAFTED = make_recipe("crafted", methods=(NOISE,), budget=(LInf(levels=8),), shard_mebibytes=1.0)
Work = Callable[[Path], None]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = make_splits(2, per_class=PER_CHUNK, size=SIZE)
    return write_image_folder(tmp_path_factory.mktemp("powerloss") / "photos", splits, class_names(2))


@pytest.fixture(autouse=True)
def in_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one_thread: None) -> None:
    """Many files and many checkpoints, and kept crafts among what loses its power."""
    monkeypatch.setattr(image_folder, "FILES_PER_CHUNK", PER_CHUNK)
    monkeypatch.setattr(stepwise, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setenv("ULE_CACHE", str(tmp_path / "disk" / "cache"))


def built(folder: Path) -> dict[str, Any]:
    """A dataset, without what tells how its build went."""
    manifest = json.loads((folder / FILE_NAME).read_text())
    del manifest["build"], manifest["self_sha256"]
    return {**data_files(folder), FILE_NAME: manifest}


def lose_power(
    disk: Path, work: Callable[[], None], result: Callable[[], Any], count: int | None, *, beside: Path | None = None
) -> None:
    """Do some work, and do it again after losses of power in it; ``beside`` keeps all that it is given."""
    before = Disk(disk)
    before._look()
    begin = before._tree(before._now, "as written")
    work()
    expected = result()
    restore(begin, disk)
    watched = Disk(disk, on_moment=lambda: {} if beside is None else contents(beside))
    if beside is not None and beside.exists():
        shutil.rmtree(beside)
    with watched.watching():
        work()
    assert result() == expected
    ends: Counter[str] = Counter()
    with without_syncs():
        for key, state in some(watched.states, count):
            restore(state.tree, disk)
            if beside is not None:
                restore(watched.remembered[key], beside)
            try:
                work()
            except InputError as error:
                ends[str(error)] += 1
            else:
                assert result() == expected, state.words
                ends["the same bytes"] += 1
    print(f"\n{sum(ends.values())} of {len(watched.states)} states at {watched.moments} moments: {dict(ends)}")
    assert set(ends) == {"the same bytes"}


def contents(folder: Path) -> dict[str, bytes | None]:
    paths = sorted(folder.rglob("*")) if folder.exists() else []
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in paths}


every_state = pytest.mark.parametrize("count", [15, pytest.param(None, marks=pytest.mark.slow)], ids=["some", "all"])


@every_state
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwritten"])
def test_a_build(tmp_path: Path, photos: Path, count: int | None, overwrite: bool) -> None:
    disk = tmp_path / "disk"
    options = BuildOptions(out=disk / "x", source=str(photos), overwrite=overwrite)
    disk.mkdir()
    if overwrite:
        older = dataclasses.replace(RECIPE, name="older", shard_mebibytes=1.0)
        build(older, options, Listening())
    lose_power(disk, lambda: build(RECIPE, options, Listening()) and None, lambda: tidied(disk / "x"), count)


def tidied(folder: Path) -> dict[str, Any]:
    assert not list(folder.glob(".build*"))
    return built(folder)


def test_a_build_waits_for_the_disk_twice_for_each_file_that_it_writes_at_most(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for its content, once for its name; besides, once for each folder that is made, and each that is filled."""
    monkeypatch.setattr(files, "SYNCS", files.Syncs())
    written: Counter[str] = Counter()
    made: list[Path] = []
    replace, mkdir = Path.replace, Path.mkdir

    def counted_replace(self: Path, target: Path) -> Path:
        written[str(target)] += self.name.endswith(files.PARTIAL)
        return replace(self, target)

    def counted_mkdir(self: Path, *arguments: Any, **options: Any) -> None:
        made.append(self)
        mkdir(self, *arguments, **options)

    monkeypatch.setattr(Path, "replace", counted_replace)
    monkeypatch.setattr(Path, "mkdir", counted_mkdir)
    options = BuildOptions(out=tmp_path / "x", source=str(photos))
    build(RECIPE, options, Reporter(silent=True))
    assert files.SYNCS.files == written.total() > 20
    assert max(written.values()) == 1, "no file is written twice"
    filled = {path.parent for path in (tmp_path / "x").rglob("*") if path.is_file()}
    in_place, put_away = 1, 1  # the manifest, the staging folder
    assert files.SYNCS.folders <= written.total() + len(made) + len(filled) + in_place + put_away


@every_state
def test_a_craft_with_checkpoints_that_is_kept_for_later(tmp_path: Path, photos: Path, count: int | None) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    options = BuildOptions(out=disk / "x", source=str(photos), device="cpu")
    lose_power(disk, lambda: build(CRAFTED, options, Listening()) and None, lambda: tidied(disk / "x"), count)


@every_state
def test_training_runs(tmp_path: Path, count: int | None) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    tasks = [make_task(seed, keep_weights=True) for seed in range(2)]
    found: list[Any] = []

    def work() -> None:
        store = RunStore(disk / "runs")
        with LocalExecutor() as executor:
            found[:] = [work_off(tasks, store, executor, Listener()), [store.weights(t).read_bytes() for t in tasks]]

    lose_power(disk, work, lambda: list(found), count)


@every_state
def test_a_delivery(tmp_path: Path, photos: Path, count: int | None) -> None:
    disk, store = tmp_path / "disk", tmp_path / "store"
    disk.mkdir()
    options = BuildOptions(out=disk / "x", source=str(photos), deliver_to=f"file://{store}/x")
    lose_power(
        disk,
        lambda: build(RECIPE, options, Listening()) and None,
        lambda: built(store / "x"),
        count,
        beside=store,
    )
