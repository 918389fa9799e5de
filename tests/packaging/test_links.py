"""Nothing is written, changed or deleted outside the folder that a command was given, whatever links are in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers import class_names, make_splits, run_build, snapshot, write_parquet

from ule_datasets.base.errors import InputError
from ule_datasets.base.files import make_room, mark_used, replacing, sweep
from ule_datasets.base.sealed import write_note
from ule_datasets.packaging.folder import IDENTITY, PREVIOUS


class Scene(NamedTuple):
    """A user's folder beside a dataset that has come from elsewhere."""

    source: Path
    dataset: Path
    mine: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("links")
    write_parquet(folder / "source", make_splits(2, 3, 8), class_names(2))
    outcome = run_build("ops", "--source", folder / "source", "--out", folder / "dataset", "--workers", 1)
    assert outcome.code == 0, outcome.stderr
    return folder


@pytest.fixture
def scene(built: Path, tmp_path: Path) -> Scene:
    shutil.copytree(built, tmp_path / "all")
    mine = tmp_path / "mine"
    for name in ("data/train-00000-of-00001.parquet", "lock", "identity.json", "x.json", "report.md", "files/a"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text(f"my {name}")
    return Scene(tmp_path / "all" / "source", tmp_path / "all" / "dataset", mine)


def rebuild(scene: Scene, *options: str) -> Any:
    return run_build("ops", "--source", scene.source, "--out", scene.dataset, "--workers", 1, *options)


@pytest.mark.parametrize("name", ["data", "webdataset", "figures", ".build", ".build.done", "verification", "whatever"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_link_in_a_dataset_folder_leads_to_nothing(scene: Scene, name: str, overwrite: bool) -> None:
    link = scene.dataset / name
    shutil.rmtree(link, ignore_errors=True)
    link.symlink_to(scene.mine)
    before = snapshot(scene.mine)
    outcome = rebuild(scene, *(["--overwrite"] if overwrite else ["--seed", "3"]))
    assert snapshot(scene.mine) == before
    assert len(outcome.complaint) <= 1
    assert "unexpected" not in outcome.stderr
    assert outcome.code == (0 if overwrite and name == "verification" else 2), outcome.stderr


@pytest.mark.parametrize("name", ["lock", "files", "spool", "identity.json", "files/data", "complete.json"])
def test_a_link_in_what_an_interrupted_build_left_leads_to_nothing(scene: Scene, name: str) -> None:
    (scene.dataset / "manifest.json").unlink()
    write_note_of_another(scene)
    link = scene.dataset / ".build" / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(scene.mine / "lock" if link.suffix or name == "lock" else scene.mine)
    before = snapshot(scene.mine)
    outcome = rebuild(scene, "--overwrite")
    assert snapshot(scene.mine) == before
    assert outcome.code == 2
    assert "is a link to" in outcome.complaint[0]


def write_note_of_another(scene: Scene) -> None:
    (scene.dataset / ".build").mkdir()
    write_note(scene.dataset / ".build" / f"{IDENTITY}.json", IDENTITY, {"name": "another"})


def test_a_note_names_no_file_outside(scene: Scene) -> None:
    from ule_datasets.packaging.folder import BuildFolder

    folder = BuildFolder(scene.dataset, identity={"name": "x"})
    folder.staging.mkdir()
    for path in ("../../mine/lock", str(scene.mine / "lock"), "data/../../../mine/lock"):
        write_note(folder.staging / "previous.json", PREVIOUS, {"paths": [path]})
        with pytest.raises(InputError, match="is damaged"):
            folder._remove_previous()
        assert (scene.mine / "lock").exists()


def test_a_report_is_not_written_behind_a_link(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    from ule_datasets.cli.verify import main

    (scene.dataset / "verification").symlink_to(scene.mine)
    before = snapshot(scene.mine)
    assert main([str(scene.dataset), "--integrity-only"]) == 2
    assert "verification is a link to" in capsys.readouterr().err
    assert snapshot(scene.mine) == before


def test_links_in_a_cache_are_links(tmp_path: Path) -> None:
    mine, cache = tmp_path / "mine", tmp_path / "cache"
    for folder in (mine / "sub", cache):
        folder.mkdir(parents=True)
    (mine / "file").write_text("mine")
    os.utime(mine / "file", (1, 1))
    os.utime(mine / "sub", (1, 1))
    for name, target in {"a.x": mine / "file", ".old.1.partial": mine / "sub", "broken.x": mine / "none"}.items():
        (cache / name).symlink_to(target)
        os.utime(cache / name, (1, 1), follow_symlinks=False)
    partial = cache / f".new.x.{os.getpid()}.partial"
    partial.symlink_to(mine / "file")
    with replacing(cache / "new.x") as path:
        path.write_text("new")
    mark_used(cache / "a.x")
    assert (mine / "file").stat().st_mtime == 1
    make_room(cache / "new.x", 0)
    sweep(cache)
    assert [path.name for path in cache.iterdir()] == ["new.x"]
    assert (mine / "file").read_text() == "mine"
    assert (mine / "sub").is_dir()
