"""What people call from Python: the same as the commands do and tell, in records that others take as they are."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import datasets
import pandas
import pytest
from helpers import run_build

import cards
import ule_datasets
from builders import RECIPES
from ule_datasets.cli.verify import main
from ule_datasets.dataset.manifest import Manifest

FUNCTIONS = [name for name in ule_datasets.__all__ if inspect.isfunction(getattr(ule_datasets, name))]


def test_the_package_lists_what_it_has_and_nothing_else() -> None:
    assert dir(ule_datasets) == sorted(ule_datasets.__all__)
    assert set(FUNCTIONS) == {
        *("build", "claims", "evaluate", "load", "load_perturbation", "recipe", "recipes", "results", "verify")
    }
    assert all(hasattr(ule_datasets, name) for name in ule_datasets.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'bild'"):
        ule_datasets.bild  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_documented_and_typed(name: str) -> None:
    function = getattr(ule_datasets, name)
    signature, hints, text = inspect.signature(function), get_type_hints(function), inspect.getdoc(function) or ""
    assert set(hints) == {*signature.parameters, "return"}
    assert len(text.splitlines()[0]) > 20
    assert "Raises:" in text
    if len(signature.parameters) > 1:
        for parameter in signature.parameters:
            assert f"    {parameter}: " in text, parameter


def test_recipes_are_those_of_the_list() -> None:
    told = json.loads(run_build("--list", "--json").stdout)["result"]["recipes"]
    entries = ule_datasets.recipes()
    assert json.loads(json.dumps([dataclasses.asdict(entry) for entry in entries])) == told
    table = pandas.DataFrame(entries)
    assert list(table["name"]) == list(RECIPES)
    assert table.set_index("name")["reported"]["cifar10-s"] == 16.67
    assert run_build("--list", "cifar10-s").stdout.splitlines() == str(ule_datasets.recipe("cifar10-s")).splitlines()
    assert [entry.name for entry in ule_datasets.recipes("*digits*")] == ["digits-s", "ops-digits"]


def test_claims_are_those_of_the_list_and_tables_take_them(capsys: pytest.CaptureFixture[str]) -> None:
    records = ule_datasets.claims()
    assert main(["--list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["result"]["claims"]
    assert [record["id"] for record in records] == [claim["id"] for claim in told]
    for record, claim in zip(records, told, strict=True):
        flat = {name: value for name, value in claim.items() if name not in ("protocol", "fitting")}
        assert {name: record[name] for name in flat} == flat
        assert record["protocol"] == (claim["protocol"] or {}).get("words")
        assert record["fitting_least"] == claim["fitting"]["least"]
    assert datasets.Dataset.from_list(records).to_list() == records
    assert len(pandas.DataFrame(records).dropna(subset="value")) == len(records)
    assert {record["id"] for record in ule_datasets.claims("ops-t5-*", "uc-*")} == {
        record["id"] for record in records if record["id"].startswith(("ops-t5-", "uc-"))
    }


def test_results_are_the_measured_files_and_tables_take_them() -> None:
    records = ule_datasets.results()
    assert datasets.Dataset.from_list(records).to_list() == records
    rows = [(name, row) for name in RECIPES for row in cards.measured(name)]
    assert len(records) == len(rows) > 0
    for record, (name, row) in zip(records, rows, strict=True):
        assert record["dataset"] == name
        for column in (
            "profile",
            "model",
            "strategy",
            "poisoned",
            "poisoned_sd",
            "clean",
            "clean_sd",
            "verdict",
            "seeds",
        ):
            assert record[column] == row[column]
    assert len({tuple(record) for record in records}) == 1
    assert {record["dataset"] for record in ule_datasets.results("digits")} == {"digits-s", "ops-digits"}


def test_a_build_is_that_of_the_command(built_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = ule_datasets.build("ops-digits", quiet=True)
    assert (result.folder, result.already_complete) == (Path("datasets/ops-digits"), False)
    assert result.manifest.files == Manifest.read(built_digits).files
    assert ule_datasets.build("ops-digits", quiet=True).already_complete
    trial = ule_datasets.build(RECIPES["ops-digits"], "mine", seed=3, limit=5, formats=["parquet"], quiet=True)
    assert (trial.manifest.name, trial.manifest.formats) == ("ops-digits-seed3-trial5", ("parquet",))
    assert trial.folder == Path("mine")
    saved = ule_datasets.build("ops-digits", "again", perturbation=built_digits, quiet=True)
    assert saved.manifest.perturbation_digest == result.manifest.perturbation_digest


def test_a_verification_is_that_of_the_command(
    built_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = ule_datasets.verify(built_digits, integrity_only=True, report=tmp_path / "report", quiet=True)
    capsys.readouterr()
    assert main([str(built_digits), "--integrity-only", "--report", str(tmp_path / "report"), "--quiet"]) == 0
    assert report.passed
    assert capsys.readouterr().out.splitlines()[:-1] == str(report).splitlines() == report.lines()
    assert (tmp_path / "report" / "report.html").exists()


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a recipe": (lambda: ule_datasets.recipe("ops-cifr10"), "no recipe 'ops-cifr10'; did you mean ops-cifar10"),
    "recipes": (lambda: ule_datasets.recipes("nothing-like-it"), "no recipe matches 'nothing-like-it'"),
    "results": (lambda: ule_datasets.results("nothing-like-it"), "no recipe matches 'nothing-like-it'"),
    "claims": (lambda: ule_datasets.claims("nothing-like-it"), "nothing-like-it"),
    "a build": (lambda: ule_datasets.build("ops-digit", quiet=True), "no recipe 'ops-digit'; did you mean ops-digits"),
    "a dataset": (lambda: ule_datasets.verify("ops-digits-x", quiet=True), "no dataset at ops-digits-x"),
    "a profile": (lambda: ule_datasets.verify(claims=["ops-t5-*"], profile="slow", quiet=True), "--profile slow is"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_there_is_refused_in_one_line(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, message = REFUSED[case]
    with pytest.raises(ule_datasets.InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
