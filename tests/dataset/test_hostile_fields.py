"""Every field of everything that describes a dataset, with what a hostile one may hold: refused or told, in words."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forging as f
import pytest
import yaml
from helpers import class_names, make_recipe, make_splits, snapshot, write_image_folder
from safetensors import safe_open
from safetensors.numpy import save_file

from ule_datasets.base.progress import Reporter
from ule_datasets.building import BuildOptions, build
from ule_datasets.cli.verify import main
from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.dataset.manifest import UNSIGNED

Place = tuple[str | int, ...]
NOT_TEXT = "[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]"
"""What draws on a terminal, or turns its text around."""
HOSTILE: dict[str, Any] = {
    "a path out of the folder": "../../escaped",
    "an absolute path": "/tmp/escaped",
    "escapes of a terminal": "\x1b[31mred\x1b]0;title\x07",
    "lines of its own": "x\nFAILED nothing: all is well\r\n",
    "a table and HTML": "a|b<script>alert(1)</script>`c`[d](javascript:e)",
    "another direction and a backslash": "\u202ea\\b",
    "half a character": "\ud800",
    "no character": "a\0b",
    "a device": "con",
    "nothing": "",
    "100,000 letters": "x" * 100_000,
    "null": None,
    "true": True,
    "a number": -1,
    "a number of 400 digits": 10**400,
    "a number beyond 64 bits": 2**70,
    "a large fraction": 1e308,
    "infinity": float("inf"),
    "a list": [],
    "a list of nothing": [None],
    "an object": {},
    "an object of an object": {"a": {}},
    "a list in a list": [[[[]]]],
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("tiny")
    where = write_image_folder(base / "source", make_splits(3, 8, 8), class_names(3))
    recipe = make_recipe(poison_rate=0.5, shard_mebibytes=0.002)
    build(recipe, BuildOptions(out=base / "out", source=str(where), workers=1), Reporter(silent=True))
    shutil.rmtree(base / "source")
    return base / "out"


def places(content: Any, here: Place = ()) -> Iterator[Place]:
    """The whole and every field, of lists only the first element and the last."""
    yield here
    if isinstance(content, dict):
        for name, value in content.items():
            yield from places(value, (*here, name))
    elif isinstance(content, list):
        for index in sorted({0, len(content) - 1} if content else ()):
            yield from places(content[index], (*here, index))


def at(content: Any, place: Place) -> Any:
    for step in place:
        content = content[step]
    return content


def kind_of(value: Any) -> str:
    """Of JSON values: those of one kind may stand for each other."""
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def in_manifest(folder: Path, content: Any) -> None:
    """Signed anew, but where the signature itself is what is hostile."""
    path = folder / "manifest.json"
    own = json.loads(path.read_text()).get("self_sha256")
    if isinstance(content, dict) and content.get("self_sha256") == own:
        content = {**{name: value for name, value in content.items() if name != "self_sha256"}, "self_sha256": UNSIGNED}
    text = json.dumps(content, indent=1) + "\n"
    path.write_text(text.replace(UNSIGNED, hashlib.sha256(text.encode()).hexdigest()))


def in_recipe(folder: Path, content: Any) -> None:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    (folder / "recipe.json").write_text(text + "\n")
    f.seal(folder, recipe_digest=hashlib.sha256(text.encode()).hexdigest())


def in_perturbation(folder: Path, content: Any) -> None:
    (folder / "craft.json").write_text(json.dumps(content))
    made = dataclasses.replace(Perturbation.load(folder / PERTURBATION), about=content)
    made.save(folder / PERTURBATION)
    f.seal(folder)


def header_of(folder: Path) -> Any:
    with safe_open(folder / PERTURBATION, framework="numpy") as file:
        return json.loads(file.metadata()["ule"])


def in_header(folder: Path, content: Any) -> None:
    with safe_open(folder / PERTURBATION, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, folder / PERTURBATION, metadata={"ule": json.dumps(content)})
    f.seal(folder)


def in_card(folder: Path, content: Any) -> None:
    body = (folder / "README.md").read_text().split("---\n", 2)[2]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(content)}---\n{body}")
    f.seal(folder)


def in_croissant(folder: Path, content: Any) -> None:
    (folder / "croissant.json").write_text(json.dumps(content))
    f.seal(folder)


def json_of(name: str) -> Callable[[Path], Any]:
    return lambda folder: json.loads((folder / name).read_text())


DOCUMENTS: dict[str, tuple[Callable[[Path], Any], Callable[[Path, Any], None]]] = {
    "manifest.json": (json_of("manifest.json"), in_manifest),
    "recipe.json": (json_of("recipe.json"), in_recipe),
    "craft.json": (json_of("craft.json"), in_perturbation),
    "perturbation.safetensors": (header_of, in_header),
    "README.md": (lambda folder: yaml.safe_load((folder / "README.md").read_text().split("---\n")[1]), in_card),
    "croissant.json": (json_of("croissant.json"), in_croissant),
}


def told_in_words(folder: Path, capsys: pytest.CaptureFixture[str], where: str) -> int:
    """What ``ule-verify`` says of such a folder; its exit code."""
    around = snapshot(folder.parent)
    report = folder.parent / "report"
    code = main([str(folder), "--integrity-only", "--quiet", "--workers", "1", "--report", str(report)])
    out, err = capsys.readouterr()
    pages = [path for path in report.glob("report.*") if path.suffix != ".json"] if report.exists() else []
    written = "".join(path.read_text(encoding="utf-8") for path in pages)
    assert code in (0, 1, 2), where
    assert len(err.splitlines()) == (code == 2), f"{where}: {err}"
    for forbidden in ("Traceback", "ule-verify: unexpected"):
        assert forbidden not in out + err, f"{where}: {out + err}"
    assert not re.search(NOT_TEXT, out + err), f"{where}: {out + err}"
    assert not any(line.startswith("FAILED nothing") for line in out.splitlines()), f"{where}: {out}"
    assert not re.search(f"{NOT_TEXT}|<script", written), where
    shutil.rmtree(report, ignore_errors=True)
    assert snapshot(folder.parent) == around, f"{where}: something was written elsewhere"
    assert not Path("/tmp/escaped").exists()
    return code


def attack(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], document: str, every: bool) -> int:
    """Every eighth field with one hostile value, or all with every one; how many were tried."""
    read, write = DOCUMENTS[document]
    content, words, count = read(tiny), list(HOSTILE), 0
    (tmp_path / "within").mkdir()
    for number, place in list(enumerate(places(content)))[:: 1 if every else 8]:
        for name in words if every else [words[number // 8 % len(words)]]:
            folder = Path(shutil.copytree(tiny, tmp_path / "within" / "copy"))
            try:
                write(folder, f.with_value(content, place, HOSTILE[name]))
            except (ValueError, TypeError, AttributeError, yaml.YAMLError):  # not even a forger can write this
                shutil.rmtree(folder)
                continue
            if (number + count) % 4 == 3:  # as it is after an accident, or whoever cannot sign
                signed = (folder / "manifest.json").read_bytes()
                shutil.copy(tiny / "manifest.json", folder)
                told_in_words(folder, capsys, f"{document}, {place}: {name}, unsigned")
                (folder / "manifest.json").write_bytes(signed)
                count += 1
            code = told_in_words(folder, capsys, f"{document}, {place}: {name}")
            if document == "manifest.json" and kind_of(HOSTILE[name]) != kind_of(at(content, place)):
                assert code, f"{place}: {name} passes for what it is not"
            shutil.rmtree(folder)
            count += 1
    return count


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_hostile_value_in_any_field_is_told_in_words(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], document: str, tried: Callable[..., None]
) -> None:
    tried("hostile values in fields of descriptions", attack(tiny, tmp_path, capsys, document, every=False))


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_hostile_value_in_every_field_is_told_in_words(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], document: str, tried: Callable[..., None]
) -> None:
    tried("hostile values in fields of descriptions", attack(tiny, tmp_path, capsys, document, every=True))
