"""After a loss of power at any moment the same command ends in the same bytes, or says in one line why it cannot.

``pytest -m slow tests/test_powerloss.py`` tries every state that ``powerloss`` knows, and else some that are drawn.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import Listening, class_names, data_files, make_recipe, make_splits, write_image_folder
from made_up import Listener, make_task
from powerloss import Disk, Tree, restore, some, without_syncs

from ule_datasets.base import files
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.building import BuildOptions, build
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.bounds import LInf
from ule_datasets.dataset.manifest import FILE_NAME
from ule_datasets.experiments import unfinished
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
LOST_POWER = "losses of power, in every state that they may leave after any file operation of a build, a craft, a run"
CHANGED = "changed bytes in what an interrupted build left"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Some work in a folder that loses its power."""

    disk: Path
    work: Callable[[], object]
    result: Callable[[], Any]
    """What must come of it."""
    beside: Path | None = None
    """A place that keeps all that it is given."""

    def watch(self) -> Disk:
        """Do the work, and see which states a loss of power may leave meanwhile."""
        watched = Disk(self.disk, on_moment=lambda: contents(self.beside))
        with watched.watching():
            self.work()
        return watched

    def restore(self, tree: Tree, beside: Tree | None) -> None:
        restore(tree, self.disk)
        if self.beside is not None and beside is not None:
            restore(beside, self.beside)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = make_splits(2, per_class=PER_CHUNK, size=SIZE)
    return write_image_folder(tmp_path_factory.mktemp("powerloss") / "photos", splits, class_names(2))


@pytest.fixture(autouse=True)
def in_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one_thread: None) -> None:
    """Many files and many checkpoints, and kept crafts among what loses its power."""
    monkeypatch.setattr(image_folder, "FILES_PER_CHUNK", PER_CHUNK)
    monkeypatch.setattr(stepwise, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(unfinished, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setenv("ULE_CACHE", str(tmp_path / "disk" / "cache"))


def built(folder: Path) -> dict[str, Any]:
    """A dataset, without what tells how its build went."""
    manifest = json.loads((folder / FILE_NAME).read_text())
    del manifest["build"], manifest["self_sha256"]
    return {**data_files(folder), FILE_NAME: manifest}


def contents(folder: Path | None) -> Tree | None:
    paths = sorted(folder.rglob("*")) if folder is not None and folder.exists() else []
    found = {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths if folder}
    return None if folder is None else found


def tidied(folder: Path) -> dict[str, Any]:
    assert not list(folder.glob(".build*"))
    return built(folder)


def a_build(disk: Path, photos: Path) -> Scene:
    options = BuildOptions(out=disk / "x", source=str(photos))
    return Scene(disk=disk, work=lambda: build(RECIPE, options, Listening()), result=lambda: tidied(disk / "x"))


def a_build_over_an_older_one(disk: Path, photos: Path) -> Scene:
    options = BuildOptions(out=disk / "x", source=str(photos), overwrite=True)
    build(dataclasses.replace(RECIPE, name="older", shard_mebibytes=1.0), options, Listening())
    return Scene(disk=disk, work=lambda: build(RECIPE, options, Listening()), result=lambda: tidied(disk / "x"))


def a_craft(disk: Path, photos: Path) -> Scene:
    """With checkpoints, and kept for later."""
    options = BuildOptions(out=disk / "x", source=str(photos), device="cpu")
    return Scene(disk=disk, work=lambda: build(CRAFTED, options, Listening()), result=lambda: tidied(disk / "x"))


def a_delivery(disk: Path, photos: Path) -> Scene:
    store = disk.with_name("store")
    options = BuildOptions(out=disk / "x", source=str(photos), deliver_to=f"file://{store}/x")
    work = partial(build, RECIPE, options, Listening())
    return Scene(disk=disk, work=work, result=lambda: built(store / "x"), beside=store)


def training_runs(disk: Path, _: Path) -> Scene:
    tasks, found = [make_task(seed, keep_weights=True) for seed in range(2)], list[Any]()

    def work() -> None:
        store = RunStore(disk / "runs")
        with LocalExecutor() as executor:
            found[:] = [work_off(tasks, store, executor, Listener()), [store.weights(t).read_bytes() for t in tasks]]

    return Scene(disk=disk, work=work, result=lambda: list(found))


SCENES = (a_build, a_build_over_an_older_one, a_craft, a_delivery, training_runs)


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path, photos: Path) -> Scene:
    (tmp_path / "disk").mkdir()
    made: Scene = request.param(tmp_path / "disk", photos)
    return made


def counts(few: int, many: int | None = None) -> pytest.MarkDecorator:
    """Some of the cases; with ``-m slow`` more, or all."""
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)], ids=["some", "more"])


@counts(8)
@pytest.mark.parametrize("scene", SCENES, ids=lambda make: make.__name__, indirect=True)
def test_after_a_loss_of_power_the_same_command_ends_in_the_same_bytes(
    scene: Scene, count: int | None, tried: Callable[..., None]
) -> None:
    begin = Disk(scene.disk).tree()
    scene.work()
    expected = scene.result()
    scene.restore(begin, {})
    watched = scene.watch()
    assert scene.result() == expected
    chosen = some(watched.states, count)
    with without_syncs():
        for key, state in chosen:
            scene.restore(state.tree, watched.remembered[key])
            scene.work()
            assert scene.result() == expected, state.words
    print(f"\n{len(chosen)} of {len(watched.states)} states at {watched.moments} moments")
    tried(LOST_POWER, len(chosen))


@counts(2, 100)
@pytest.mark.parametrize("scene", SCENES[:3], ids=lambda make: make.__name__, indirect=True)
def test_after_a_second_loss_of_power_while_the_first_is_mended_as_well(
    scene: Scene, count: int, tried: Callable[..., None]
) -> None:
    watched = scene.watch()
    expected = scene.result()
    for (key, state), seed in zip(some(watched.states, count), range(count), strict=True):
        scene.restore(state.tree, watched.remembered[key])
        again = scene.watch()
        _, second = some(again.states, 1, seed=seed)[0]
        scene.restore(second.tree, None)
        with without_syncs():
            scene.work()
        assert scene.result() == expected, f"{state.words}; then {second.words}"
    tried(LOST_POWER, count)


def flipped(content: bytes, generator: random.Random) -> bytes:
    """With another bit somewhere."""
    place, bit = generator.randrange(len(content)), 1 << generator.randrange(8)
    return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


@counts(8, 400)
@pytest.mark.parametrize("scene", SCENES[:3], ids=lambda make: make.__name__, indirect=True)
def test_a_changed_byte_in_what_an_interrupted_build_left_is_mended_or_refused(
    scene: Scene, count: int, tried: Callable[..., None]
) -> None:
    """Until the manifest is in its place: then the dataset is finished, and verification's to check."""
    watched = scene.watch()
    expected = scene.result()
    generator, refused = random.Random(3), list[tuple[str, str]]()
    trees = [state.tree for state in watched.states.values() if f"x/{FILE_NAME}" not in state.tree]
    unfinished = [(tree, [path for path, content in tree.items() if content]) for tree in trees]
    with without_syncs():
        for _ in range(count):
            tree, paths = generator.choice([(tree, paths) for tree, paths in unfinished if paths])
            path = generator.choice(paths)
            scene.restore({**tree, path: flipped(tree[path] or b"", generator)}, None)
            try:
                scene.work()
            except InputError as error:
                refused.append((path, str(error)))
            else:
                assert scene.result() == expected, path
    for path, message in refused:
        said = {"identity.json": "holds an unfinished build that cannot be continued", "previous.json": "is damaged"}
        assert said[Path(path).name] in message
    tried(CHANGED, count)


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
    assert {Path(path).name for path, times in written.items() if times > 1} == {"source.json"}, "first without digests"
    filled = {path.parent for path in (tmp_path / "x").rglob("*") if path.is_file()}
    in_place, put_away = 1, 1  # the manifest, the staging folder
    assert files.SYNCS.folders <= written.total() + len(made) + len(filled) + in_place + put_away
