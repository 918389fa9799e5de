"""Every field of every file that describes a dataset, replaced by anything: a refusal in a line or a failed check."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from forging import with_value
from helpers import class_names, make_splits, run_build, snapshot, write_parquet
from safetensors import safe_open
from safetensors.numpy import save_file

from ule_datasets.base.errors import InputError
from ule_datasets.base.names import DatasetName
from ule_datasets.dataset.manifest import FILE_NAME as MANIFEST
from ule_datasets.dataset.manifest import UNSIGNED

VALUES: list[Any] = [
    *(None, True, -1, 2**70, 1e308, "", "x", [], {}, [[]], {"a": {}}, [None]),
    *("../../escaped", "/tmp/escaped", "a\\b", "CON", "a\0b", "x" * 5000, "\x1b[31m\n|`<script>$\\bad$ \u202e"),
]
"""Of wrong types, and names that lead elsewhere or draw on the terminal."""
SOME, MANY = 12, 1000
"""Cases that are tried each time, and where it may take minutes."""
Tried = Callable[..., None]
Change = Callable[[Path, Callable[[Any], Any]], None]


def change_json(name: str) -> Change:
    def change(folder: Path, mutate: Callable[[Any], Any]) -> None:
        content = mutate(json.loads((folder / name).read_text()))
        (folder / name).write_text(json.dumps(content))

    return change


def change_manifest(folder: Path, mutate: Callable[[Any], Any]) -> None:
    import hashlib

    content = mutate(json.loads((folder / MANIFEST).read_text()))
    if isinstance(content, dict):
        content = {**{k: v for k, v in content.items() if k != "self_sha256"}, "self_sha256": UNSIGNED}
    text = json.dumps(content, indent=1, ensure_ascii=True) + "\n"
    (folder / MANIFEST).write_text(text.replace(UNSIGNED, hashlib.sha256(text.encode()).hexdigest()))


def change_perturbation(folder: Path, mutate: Callable[[Any], Any]) -> None:
    path = folder / "perturbation.safetensors"
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["ule"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata={"ule": json.dumps(mutate(header))})


def change_card(folder: Path, mutate: Callable[[Any], Any]) -> None:
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    front = yaml.safe_dump(mutate(yaml.safe_load(front)), sort_keys=False)
    (folder / "README.md").write_text(f"---\n{front}---\n{text}")


CHANGES: dict[str, Change] = {
    "manifest.json": change_manifest,
    "recipe.json": change_json("recipe.json"),
    "craft.json": change_json("craft.json"),
    "croissant.json": change_json("croissant.json"),
    "README.md": change_card,
    "perturbation.safetensors": change_perturbation,
}


def places(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every value; of a list only the first and the last."""
    yield place
    if isinstance(content, dict):
        for key, value in content.items():
            yield from places(value, (*place, key))
    elif isinstance(content, list) and content:
        for index in sorted({0, len(content) - 1}):
            yield from places(content[index], (*place, index))


def cases(dataset: Path) -> list[tuple[str, tuple[Any, ...], Any]]:
    found = []
    for name, change in CHANGES.items():
        seen: list[Any] = []

        def look(content: Any, seen: list[Any] = seen) -> Any:
            seen.append(content)
            return content

        folder = dataset.with_name("looked-at")
        shutil.copytree(dataset, folder)
        change(folder, look)
        shutil.rmtree(folder)
        found += [(name, place, value) for place, value in itertools.product(places(seen[0]), VALUES)]
    return found


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    write_parquet(folder / "source", make_splits(2, 3, 8), class_names(2))
    outcome = run_build("ops", "--source", folder / "source", "--out", folder / "dataset")
    assert outcome.code == 0, outcome.stderr
    return folder / "dataset"


def verified(dataset: Path, parent: Path, case: tuple[str, tuple[Any, ...], Any]) -> int:
    """Change, verify, and look around; the exit code."""
    from ule_datasets.cli.verify import main

    name, place, value = case
    folder = parent / "attacked"
    shutil.copytree(dataset, folder)
    CHANGES[name](folder, lambda content: with_value(content, place, value))
    before = snapshot(folder)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(folder), "--integrity-only", "--quiet", "--report", str(parent / "report")])
    said, lines = out.getvalue() + err.getvalue(), err.getvalue().splitlines()
    assert code in (0, 1, 2), case
    assert "unexpected" not in said, (case, said)
    assert len(lines) <= (1 if code == 2 else 0), (case, lines)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said), (case, said)
    assert snapshot(folder) == before, case
    assert {path.name for path in parent.iterdir()} <= {"attacked", "report"}, case
    for report in (parent / "report").glob("report.[mh]*"):
        text = report.read_text()
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]|<script", text), case
    shutil.rmtree(folder)
    shutil.rmtree(parent / "report", ignore_errors=True)
    return code


def attack(dataset: Path, parent: Path, chosen: list[tuple[str, tuple[Any, ...], Any]], tried: Tried) -> None:
    codes = [verified(dataset, parent, case) for case in chosen]
    assert codes.count(0) < len(codes) / 2
    tried("hostile values in fields of descriptions", len(codes))


def test_some_changed_fields_are_refused_or_found(dataset: Path, tmp_path: Path, tried: Tried) -> None:
    attack(dataset, tmp_path, random.Random(4).sample(cases(dataset), SOME), tried)


@pytest.mark.slow
def test_many_changed_fields_are_refused_or_found(dataset: Path, tmp_path: Path, tried: Tried) -> None:
    attack(dataset, tmp_path, random.Random(5).sample(cases(dataset), MANY), tried)


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "CON", "nul", "a/b", "Big", "a_b", "$x$", "x" * 97, "a.", "ä", "a\n"]
)
def test_a_dataset_is_not_called_so(name: str) -> None:
    with pytest.raises(InputError):
        DatasetName(name)
