"""``ule-verify`` as people use it: what it prints, what it returns, what it writes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from helpers import make_splits, write_image_folder

import ule_datasets.effect
from builders import RECIPES
from ule_datasets.cli.build import main as build_main
from ule_datasets.cli.verify import main
from ule_datasets.recipe import Claim, PublishedRecipe
from ule_datasets.verify import expects_collapse

TINY = dataclasses.replace(ule_datasets.effect.PROFILES["smoke"], epochs=1, max_train_images=64, max_test_images=32)


@pytest.fixture
def one_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smoke profile with one epoch on 64 images: every part runs, nothing is learned."""
    monkeypatch.setitem(ule_datasets.effect.PROFILES, "smoke", TINY)


@pytest.fixture
def digits(built_digits: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built_digits, tmp_path / "digits"))


def report_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "verification" / "report.json").read_text())  # type: ignore[no-any-return]


def test_the_smoke_profile_shows_the_collapse_on_the_digits_and_confirms_no_number(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(digits), "--workers", "2"]) == 0
    out, err = capsys.readouterr()
    assert "15 of 15 checks passed" in out
    assert "no augmentation:" in out
    assert "neither confirm nor refute any number of a paper" in out
    assert "this will take about" in err
    report = report_of(digits)
    effect = report["effect"]
    assert isinstance(effect, dict)
    none, crop = effect["judgements"]
    assert none["augmentation"] == "none"
    assert none["verdict"] in {"collapse shown", "partial collapse"}
    assert none["clean"]["mean"] - none["poisoned"]["mean"] >= 25
    assert crop["augmentation"] == "crop", "digits are not flipped"
    assert crop["verdict"] == "collapse not shown"
    assert len(effect["runs"]) == 4
    for name in ("report.html", "report.md", "accuracy.png"):
        assert (digits / "verification" / name).stat().st_size > 1000
    text = (digits / "verification" / "report.md").read_text()
    assert str(digits.parent) not in json.dumps(report) + text, "no path of this machine"
    assert main([str(digits), "--integrity-only", "--quiet"]) == 0, "the report does not spoil the dataset"


def test_finished_runs_are_reused(one_epoch: None, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = main([str(digits), "--workers", "1"])
    runs = sorted((digits / "verification" / "runs").iterdir())
    times = [run.stat().st_mtime_ns for run in runs]
    capsys.readouterr()
    assert main([str(digits), "--workers", "1"]) == first
    assert capsys.readouterr().err.count("reusing a finished run") == 4
    assert [run.stat().st_mtime_ns for run in sorted((digits / "verification" / "runs").iterdir())] == times


def test_a_control_that_did_not_learn_is_inconclusive_and_no_failure(
    one_epoch: None, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(digits), "--workers", "1", "--quiet"]) == 0
    assert capsys.readouterr().out.count("inconclusive") == 2


@pytest.mark.parametrize("name", ["data/train-00000-of-00001.parquet", "figures/contact_sheet.png", "manifest.json"])
def test_one_flipped_byte_ends_with_exit_code_1_and_names_the_file(
    digits: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((digits / name).read_bytes())
    content[len(content) // 2] ^= 4
    (digits / name).write_bytes(content)
    assert main([str(digits), "--workers", "1"]) == 1
    assert name in capsys.readouterr().out
    assert not (digits / "verification" / "runs").exists(), "nothing is trained on a damaged dataset"


def test_the_source_is_remembered_from_the_build_and_can_be_given(
    one_epoch: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_image_folder(tmp_path / "mine", make_splits(3, 30, 8), ("a", "b", "c"))
    out = tmp_path / "out"
    assert build_main(["ops", "--source", str(source), "--out", str(out), "--workers", "1", "--quiet"]) == 0
    assert str(source) not in (out / "manifest.json").read_text()
    assert main([str(out), "--workers", "1", "--quiet"]) == 0
    assert "15 of 15 checks passed" in capsys.readouterr().out
    source.rename(tmp_path / "moved")
    assert main([str(out), "--workers", "1", "--quiet"]) == 2
    assert "say where the images are with --source" in capsys.readouterr().err
    assert main([str(out), "--workers", "1", "--quiet", "--source", str(tmp_path / "moved")]) == 0
    assert main([str(out), "--integrity-only"]) == 0
    captured = capsys.readouterr()
    assert "not compared with the clean source" in captured.err
    assert "9 of 9 checks passed" in captured.out


def test_a_damaged_dataset_ends_with_exit_code_1_even_without_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_image_folder(tmp_path / "mine", make_splits(3, 8, 8), ("a", "b", "c"))
    out = tmp_path / "out"
    assert build_main(["ops", "--source", str(source), "--out", str(out), "--workers", "1", "--quiet"]) == 0
    shutil.rmtree(source)
    (out / "figures" / "contact_sheet.png").write_bytes(b"other")
    assert main([str(out), "--workers", "1", "--quiet"]) == 1
    assert "figures/contact_sheet.png has 5 bytes" in capsys.readouterr().out


def test_a_source_of_other_images_fails_the_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits, other = make_splits(3, 8, 8), make_splits(3, 9, 8)
    source = write_image_folder(tmp_path / "mine", splits, ("a", "b", "c"))
    wrong = write_image_folder(tmp_path / "other", other, ("a", "b", "c"))
    assert build_main(["ops", "--source", str(source), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert main([str(tmp_path / "out"), "--source", str(wrong), "--quiet", "--workers", "1"]) == 1
    assert "of the source is missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a dataset folder"),
        (["nowhere"], "no dataset at nowhere"),
        (["DIGITS", "--profile", "full"], "--profile full: choose from smoke"),
        (["DIGITS", "--seeds", "0"], "--seeds 0: must be at least 1"),
        (["DIGITS", "--workers", "0"], "--workers 0: must be at least 1"),
        (["DIGITS", "--device", "tpu"], "device 'tpu': on this machine it can be auto, cpu"),
        (["DIGITS", "--source", "nowhere"], "no such file or folder"),
        (["DIGITS", "--nonsense"], "No such option"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(digits) if word == "DIGITS" else word for word in arguments]
    assert main([*words, "--quiet"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_a_dataset_without_a_test_split_can_only_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = {"train": make_splits(3, 8, 8)["train"]}
    source = write_image_folder(tmp_path / "mine", splits, ("a", "b", "c"))
    assert build_main(["ops", "--source", str(source), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert main([str(tmp_path / "out"), "--quiet", "--workers", "1"]) == 2
    assert "has no test split to measure on" in capsys.readouterr().err
    assert main([str(tmp_path / "out"), "--quiet", "--workers", "1", "--integrity-only"]) == 0


def test_a_collapse_is_expected_where_the_paper_reports_one_or_nothing() -> None:
    expected = {name: expects_collapse(PublishedRecipe.parse(recipe.to_json()), 10) for name, recipe in RECIPES.items()}
    assert expected["ops-cifar10"]
    assert expected["ops-digits"]
    assert not expected["ops-color-cifar10"]
    assert not expected["randpix-cifar10"]
    recipe = PublishedRecipe.parse(RECIPES["ops-cifar10"].to_json())
    for accuracy, wanted in ((30.9, True), (31.1, False)):
        claim = Claim(id="x", table="1", model="resnet18", strategy="standard", accuracy=accuracy)
        assert expects_collapse(dataclasses.replace(recipe, claims=(claim,)), 10) is wanted


def test_the_readme_table_is_what_the_results_say() -> None:
    from cards.update import ROOT, with_catalogue

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_catalogue(text) == text, "run: python -m cards.update"


@pytest.mark.slow
def test_the_smoke_profile_shows_the_collapse_on_cifar10(
    built_cifar10: Path, cifar10_folder: Path, tmp_path: Path
) -> None:
    arguments = [str(built_cifar10), "--source", str(cifar10_folder), "--report", str(tmp_path / "report")]
    assert main(arguments) == 0
    effect = json.loads((tmp_path / "report" / "report.json").read_text())["effect"]
    none = effect["judgements"][0]
    assert none["clean"]["mean"] - none["poisoned"]["mean"] >= 25
    assert none["poisoned"]["mean"] <= 20
