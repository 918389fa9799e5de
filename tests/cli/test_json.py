"""``--json``: one value on stdout whatever happens, of the shape that docs/reference/json.md describes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Outcome, make_splits, run_build, write_image_folder

import ule_datasets
from ule_datasets.cli import verify
from ule_datasets.cli.running import SCHEMA

DOCUMENT = (Path(ule_datasets.__file__).parents[1] / "docs" / "reference" / "json.md").read_text(encoding="utf-8")


def documented(heading: str) -> set[str]:
    """The keys that a section of the document lists."""
    section = re.split(r"\n#+ ", DOCUMENT.partition(f"# {heading}\n")[2])[0]
    bullets = re.findall(r"^- ((?:`\w+`(?:, )?)+)", section, re.MULTILINE)
    return {key for bullet in bullets for key in re.findall(r"`(\w+)`", bullet)}


def answer_of(outcome: Outcome) -> dict[str, Any]:
    answer = json.loads(outcome.stdout)
    assert set(answer) == documented("Always")
    assert (answer["schema"], answer["code"]) == (SCHEMA, outcome.code)
    return answer  # type: ignore[no-any-return]


def run_verify(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Outcome:
    capsys.readouterr()
    code = verify.main([*map(str, words), "--workers", "1", "--json"])
    return Outcome(code, *capsys.readouterr())


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ULE_CACHE", str(tmp_path / "cache"))


def test_a_build_its_plan_and_a_finished_one_have_the_documented_keys(tmp_path: Path) -> None:
    source = write_image_folder(tmp_path / "source", make_splits(2, 2, 8), ("a", "b"))
    words = ("ops", "--source", source, "--out", tmp_path / "x", "--format", "parquet", "--json")
    planned = answer_of(run_build(*words, "--dry-run"))["result"]
    assert set(planned) == documented("`ule-build NAME --dry-run`")
    assert not planned["finished"]
    assert not (tmp_path / "x").exists()
    built = answer_of(run_build(*words))["result"]
    assert set(built) == documented("`ule-build NAME`")
    assert (built["already_complete"], built["formats"]) == (False, ["parquet"])
    assert built["splits"]["train"]["images"] == 4
    again = answer_of(run_build(*words))["result"]
    assert again == {**built, "already_complete": True}
    assert answer_of(run_build(*words, "--dry-run"))["result"]["finished"]


def test_a_catalogue_has_the_documented_keys() -> None:
    answer = answer_of(run_build("--list", "ops", "--json"))
    assert set(answer["result"]) == documented("`ule-build --list`")
    for recipe in answer["result"]["recipes"]:
        assert set(recipe) == documented("A recipe")


def test_a_verification_and_its_plan_have_the_documented_keys(
    built_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = answer_of(run_verify(capsys, built_digits, "--dry-run"))["result"]
    assert set(planned) == documented("`ule-verify FOLDER --dry-run`")
    assert planned["runs"] == 4
    outcome = run_verify(capsys, built_digits, "--integrity-only", "--report", tmp_path / "report")
    found = answer_of(outcome)["result"]
    assert set(found) == documented("`ule-verify FOLDER`")
    assert "ok     files: " in outcome.stderr
    assert found["passed"]
    assert Path(found["report"]).is_file()
    listed = answer_of(run_verify(capsys, "--list", "ops-t1-*"))["result"]
    assert set(listed) == documented("`ule-verify --list`")
    assert all(claim["id"].startswith("ops-t1-") for claim in listed["claims"])
    assert all(claim["waits_for"] == [] for claim in listed["claims"])
    waiting = answer_of(run_verify(capsys, "--list", "le-text-linprobe-*"))["result"]["claims"]
    assert waiting
    assert all("model simclr-resnet18" in claim["waits_for"] for claim in waiting)


def test_a_lint_has_the_documented_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "noise.npy", np.ones((2, 8, 8, 3), np.int8))
    outcome = run_verify(capsys, "--lint", tmp_path / "noise.npy", "--report", tmp_path / "report")
    found = answer_of(outcome)["result"]
    keys = documented("`ule-verify --lint FILE`")
    assert set(found) == keys - {"check", "severity", "text"}
    assert (outcome.code, found["passed"]) == (1, False)
    assert json.loads((tmp_path / "report" / "lint.json").read_text()) == found


def test_help_is_one_value_too_and_read_on_stderr() -> None:
    outcome = run_build("--help", "--json")
    assert answer_of(outcome)["result"] is None
    assert "--push-to-hub" in outcome.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("nope",), "no recipe 'nope'"),
        (("ops", "--source", "/nowhere", "--dry-run"), "no such file or folder"),
        (("ops", "--nonsense"), "No such option"),
        ((), "name a recipe"),
    ],
)
def test_what_goes_wrong_is_told_as_json_too(words: tuple[str, ...], complaint: str) -> None:
    outcome = run_build(*words, "--json")
    answer = answer_of(outcome)
    assert (answer["code"], answer["result"]) == (2, None)
    assert complaint in answer["complaints"][0]
    assert complaint in outcome.stderr
