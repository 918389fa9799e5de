"""This machine remembers where the images of a dataset are, and nobody else can tell it where to look."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers import class_names, make_recipe, make_splits, run_build, write_parquet

from ule_datasets import load
from ule_datasets.base.errors import InputError
from ule_datasets.cli.verify import main as verify
from ule_datasets.dataset.local import FILE_NAME, remembered_source
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.definition import PublishedRecipe
from ule_datasets.sources.cifar10 import CIFAR10


class Built(NamedTuple):
    """A dataset in a folder, and where its images are."""

    folder: Path
    source: Path

    @property
    def note(self) -> Path:
        return self.folder / FILE_NAME

    def remembered(self) -> str | None:
        return remembered_source(self.folder, Manifest.read(self.folder))

    def change(self, signature: Any = None, **fields: Any) -> None:
        signed = json.loads(self.note.read_text())
        changed = {"note": {**signed["note"], **fields}, "signature": signature or signed["signature"]}
        self.note.write_text(json.dumps(changed))


@pytest.fixture
def built(tmp_path: Path) -> Built:
    source = write_parquet(tmp_path / "source", make_splits(3, 6, 8), class_names(3))
    assert run_build("ops", "--source", source, "--out", tmp_path / "out").code == 0
    return Built(tmp_path / "out", source)


def test_the_source_is_remembered_by_load_and_by_verify_and_moves_with_the_folder(
    built: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = shutil.move(built.folder, tmp_path / "elsewhere")
    assert load(moved, poison_rate=0.5).poisoned.sum() == 9
    assert verify([str(moved), "--integrity-only", "--quiet", "--workers", "1"]) == 0
    assert "not compared" not in capsys.readouterr().err


def test_a_source_that_is_gone_is_forgotten(built: Built) -> None:
    shutil.rmtree(built.source)
    with pytest.raises(InputError, match="this recipe works on your own images: say where they are"):
        load(built.folder, poison_rate=0.5)


FORGERIES: dict[str, Callable[[Built], object]] = {
    "another source": lambda built: built.change(source=str(built.folder)),
    "a URL": lambda built: built.change(source="https://collector.example/images/"),
    "another signature": lambda built: built.change(signature="0" * 64),
    "no signature": lambda built: built.note.write_text(json.dumps({"note": {"source": str(built.source)}})),
    "as it was once written": lambda built: built.note.write_text(json.dumps({"source": str(built.source)})),
    "another listing": lambda built: built.change(listing="0" * 64),
    "a number": lambda built: built.change(signature=7),
    "letters that are not ASCII": lambda built: built.change(signature="é" * 64),
    "a list": lambda built: built.note.write_text("[]"),
    "nothing": lambda built: built.note.write_text(""),
    "no text": lambda built: built.note.write_bytes(b"\xff\xfe"),
    "nested too deeply": lambda built: built.note.write_text("[" * 100_000),
    "a folder": lambda built: (built.note.unlink(), built.note.mkdir()),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_note_that_this_machine_did_not_write_counts_for_nothing(built: Built, name: str) -> None:
    assert built.remembered() == str(built.source)
    FORGERIES[name](built)
    assert built.remembered() is None
    with pytest.raises(InputError, match="say where they are"):
        load(built.folder, poison_rate=0.5)


def test_a_note_of_another_machine_or_of_other_images_counts_for_nothing(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_parquet(tmp_path / "other", make_splits(2, 6, 8), class_names(2))
    assert run_build("ops", "--source", other, "--out", tmp_path / "other-out").code == 0
    text = built.note.read_text()
    shutil.copy(tmp_path / "other-out" / FILE_NAME, built.note)
    assert built.remembered() is None
    built.note.write_text(text)
    assert built.remembered() == str(built.source)
    monkeypatch.setenv("ULE_CACHE", str(tmp_path / "another machine"))
    assert built.remembered() is None


def test_a_cache_that_cannot_be_written_to_costs_the_note_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ULE_CACHE", str(tmp_path / "file" / "cache"))
    source = write_parquet(tmp_path / "source", make_splits(3, 6, 8), class_names(3))
    outcome = run_build("ops", "--source", source, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    assert not (tmp_path / "out" / FILE_NAME).exists()


@pytest.mark.parametrize(
    ("source", "location"), [("cifar10", CIFAR10.default_location), ("own-images", None), ("somebody's", None)]
)
def test_where_a_source_is_read_from_is_for_the_catalogue_to_say(source: str, location: str | None) -> None:
    content = json.loads(make_recipe().to_json())
    content["source"] |= {"name": source, "default_location": "https://collector.example/images/"}
    parsed = PublishedRecipe.parse(json.dumps(content))
    assert (parsed.source.name, parsed.source.default_location) == (source, location)


def test_embedded_images_are_remembered_for_a_recipe_of_ones_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()  # not what was read
    assert run_build("ops", "--source", "digits", "--limit", "3", "--out", "own").code == 0
    manifest = Manifest.read(tmp_path / "own")
    assert remembered_source(tmp_path / "own", manifest) == "digits"
