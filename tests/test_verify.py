"""``ule-verify`` as people use it: what it prints, what it returns, what it writes."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
from helpers import make_splits, snapshot, write_image_folder
from made_up import Noisy
from tiny_recipes import on_small_images
from tiny_weights import FILE, TINY, register_tiny_weights

import cards
from builders import RECIPES
from cards import update
from cards.render import preview
from ule_datasets import countermeasures, verifying
from ule_datasets.cli.build import main as build_main
from ule_datasets.cli.verify import main
from ule_datasets.compute.precision import Precision
from ule_datasets.countermeasures import COUNTERMEASURES
from ule_datasets.dataset.integrity import content
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.experiments import pace
from ule_datasets.experiments.profiles import PROFILES
from ule_datasets.models.weights import WEIGHTS
from ule_datasets.sources import decode
from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.verification import subjects
from ule_datasets.verification.subjects import expects_collapse, why_unjudged
from ule_datasets.victims.fine_tuned import FineTuned
from ule_datasets.victims.table import VICTIMS

BRIEF = dataclasses.replace(PROFILES["smoke"], epochs=1, fine_tuning_epochs=2, max_train_images=64, max_test_images=32)


@pytest.fixture
def one_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smoke profile with one epoch on 64 images: every part runs, nothing is learned."""
    monkeypatch.setitem(PROFILES, "smoke", BRIEF)


@pytest.fixture(autouse=True)
def fresh_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No finished runs of other tests and no weights; returns the folder where the runs of this test are kept."""
    monkeypatch.delenv("ULE_WEIGHTS", raising=False)
    monkeypatch.setenv("ULE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "runs"


@pytest.fixture
def digits(built_digits: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built_digits, tmp_path / "digits"))


def report_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.slow
def test_the_smoke_profile_shows_the_collapse_on_the_digits_and_confirms_no_number(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(digits), "--workers", "2"]) == 0
    out, err = capsys.readouterr()
    assert "21 of 21 checks passed" in out
    assert "ops-digits, resnet18-w8, none:" in out
    assert "neither confirm nor refute any number of a paper" in out
    assert "this will take about" in err
    report = report_of(digits / "verification")
    none, standard = report["comparisons"]
    assert none["strategy"] == "none"
    assert none["collapse"] in {"collapse shown", "partial collapse"}
    assert none["clean"]["mean"] - none["poisoned"]["mean"] >= 25
    assert standard["collapse"] == "collapse not shown"
    assert len(report["runs"]) == 4
    augmentations = [run["protocol"]["strategy"]["augmentation"] for run in report["runs"]]
    assert not any(augmentation["flip"] for augmentation in augmentations), "digits are not flipped"
    for name in ("report.html", "report.md", "accuracy.png"):
        assert (digits / "verification" / name).stat().st_size > 1000
    text = (digits / "verification" / "report.md").read_text()
    assert str(digits.parent) not in json.dumps(report) + text, "no path of this machine"
    assert main([str(digits), "--integrity-only", "--quiet"]) == 0, "the report does not spoil the dataset"


def test_finished_runs_are_reused_whatever_else_is_asked(
    one_epoch: None, digits: Path, fresh_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(digits), "--workers", "1"]) == 0, "of 32 test images nothing follows, whatever was learned"
    times = {run.name: run.stat().st_mtime_ns for run in fresh_runs.iterdir()}
    assert len(times) == 4
    capsys.readouterr()
    assert main([str(digits), "--workers", "1", "--strategies", "none,cutout"]) == 0
    assert capsys.readouterr().err.count("reusing a finished run") == 2
    after = {run.name: run.stat().st_mtime_ns for run in fresh_runs.iterdir()}
    assert len(after) == 6
    assert times.items() <= after.items()


def test_a_dry_run_shows_the_plan_and_trains_nothing(
    digits: Path, fresh_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(digits), "--dry-run", "--strategies", "linf-at", "--seeds", "3", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "6 runs, 0 finished before" in out
    assert " core minutes on " in out
    assert ": at the rate of large matrix products, " in out
    assert " TFLOP left\n" in out
    assert "ops-digits, resnet18-w8, linf-at: 3 runs of 10 epochs on 1,437 images" in out
    assert not fresh_runs.exists()
    assert not (digits / "verification").exists()


def test_the_quick_profile_trains_its_own_network_in_the_numbers_that_are_faster_here(
    digits: Path, fresh_runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    brief = dataclasses.replace(PROFILES["quick"], epochs=1, max_train_images=16, max_test_images=8, num_seeds=1)
    monkeypatch.setitem(PROFILES, "quick", brief)
    monkeypatch.setattr(pace, "_measured", lambda *_: {Precision.FLOAT32: 2.0, Precision.BFLOAT16: 1.0})
    arguments = [str(digits), "--profile", "quick", "--workers", "1"]
    assert main([*arguments, "--dry-run"]) == 0
    assert "ops-digits, quicknet, standard: 1 run of 1 epoch on 16 images" in capsys.readouterr().out
    assert not fresh_runs.with_name("pace").exists()
    assert main([*arguments, "--quiet"]) in (0, 1), "nothing is learned in one epoch"
    assert "nothing about any number of a paper" in " ".join(capsys.readouterr().out.split())
    report = report_of(digits / "verification")
    assert report["profile"]["precision"] == "bfloat16"
    assert {(run["protocol"]["model"], run["protocol"]["precision"]) for run in report["runs"]} == {
        ("quicknet", "bfloat16")
    }


def test_a_dry_run_reads_no_image_and_knows_finished_runs(
    one_epoch: None, digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def decoded(*_: object, **__: object) -> NoReturn:
        raise AssertionError("an image was decoded")

    main([str(digits), "--workers", "1"])
    for module, function in ((subjects, "read_source"), (content, "decode_images"), (decode, "decode_chunk")):
        monkeypatch.setattr(module, function, decoded)
    shutil.rmtree(digits / "data")
    capsys.readouterr()
    assert main([str(digits), "--dry-run", "--strategies", "none,mixup"]) == 0
    said = capsys.readouterr().out
    assert "4 runs, 2 finished before" in said
    assert re.search(r"at least \S+ core seconds on .*: at the rate of large matrix products", said), (
        "of another strategy"
    )
    assert main([str(digits), "--dry-run", "--strategies", "none", "--seeds", "2"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"about \S+ core seconds on .*: resnet18-w8 as 2 earlier runs took", said)
    assert main(["--claims", "ops-t2-resnet18-*", "--profile", "paper", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "  ops-cifar10, resnet18, standard: 3 runs of 200 epochs on 50,000 images" in said
    (digits / "recipe.json").unlink()
    assert main([str(digits), "--dry-run"]) == 2
    assert "is not a complete dataset: it has no recipe.json" in capsys.readouterr().err


def test_a_countermeasure_prepares_its_training_sets_before_training_and_never_in_a_dry_run(
    digits: Path, fresh_runs: Path, one_epoch: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(countermeasures, "COUNTERMEASURES", (*COUNTERMEASURES, Noisy))
    arguments = [str(digits), "--strategies", "noisy", "--workers", "1"]
    assert main([*arguments, "--dry-run"]) == 0
    assert not fresh_runs.with_name("prepared").exists()
    assert main(arguments) == 0
    assert "ops-digits, noisy: 64 images are prepared once" in capsys.readouterr().err
    assert len(list(fresh_runs.with_name("prepared").glob("noisy-*.npy"))) == 2, "of the dataset and of its control"
    assert {run["strategy"] for run in report_of(digits / "verification")["runs"]} == {"noisy"}


def test_what_a_countermeasure_learns_before_training_is_shown_also_of_finished_runs(
    digits: Path, fresh_runs: Path, one_epoch: None, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, sets = [str(digits), "--strategies", "op", "--workers", "1"], fresh_runs.with_name("prepared")
    assert main(arguments) == 0
    assert "ops-digits, op: learns of 64 images once for all training" in capsys.readouterr().err
    kept = sorted(sets.glob("op-*.npy"))
    assert len(kept) == 2, "of the dataset and of its control"
    report = digits / "verification"
    pictures = [(report / f"learned-{number}.png").read_bytes() for number in (1, 2)]
    assert pictures[0] != pictures[1]
    assert (report / "report.md").read_text().count(", op: what a linear classifier has learned") == 4
    for path in kept:
        path.unlink()
    assert main(arguments) == 0
    assert {run["reused"] for run in report_of(report)["runs"]} == {True}
    assert [(report / f"learned-{number}.png").read_bytes() for number in (1, 2)] == pictures


CLAIMS = """
[paper]
key = "mine"
title = "Mine"
venue = "a test"
arxiv = "none"

[defaults]
paper = "mine"
table = "1"
metric = "clean test accuracy, %"
train_dataset = "ops-digits"
test_dataset = "digits-test"
model = "resnet18-w8"
chance = 10

[[claim]]
id = "mine-right"
value = 24
regime = "collapsed"
strategy = "none"

[[claim]]
id = "mine-mislabelled"
value = 97
regime = "recovered"
strategy = "none"

[[claim]]
id = "mine-baseline"
value = 98
regime = "baseline"
train_dataset = "digits"
strategy = "none"

[[claim]]
id = "mine-adversarial"
value = 20
regime = "collapsed"
strategy = "linf-at"
"""


@pytest.mark.slow
def test_claims_of_ones_own_are_confirmed_refuted_or_left_open(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under adversarial training for 10 epochs the control does not learn, so that nothing is said."""
    (tmp_path / "mine.toml").write_text(CLAIMS)
    arguments = [str(digits), "--claims", "mine-*,ops-t3-wrn_28_1-params", "--claims-file", str(tmp_path / "mine.toml")]
    assert main([*arguments, "--seeds", "3", "--workers", "2", "--report", str(tmp_path / "report")]) == 1
    assert "REFUTED mine-mislabelled" in capsys.readouterr().out
    found = {claim["id"]: claim for claim in report_of(tmp_path / "report")["claims"]}
    assert found["mine-mislabelled"]["effect"]["verdict"] == "refuted"
    assert found["mine-baseline"]["effect"]["verdict"] == "confirmed"
    assert found["mine-right"]["level"]["verdict"] == "not comparable", "the smoke profile judges no number"
    assert found["ops-t3-wrn_28_1-params"]["verdict"] == "confirmed"
    adversarial = found["mine-adversarial"]
    if max(adversarial["control"]) < 32.5:
        assert adversarial["effect"]["verdict"] == "inconclusive"
        assert "the control did not learn" in adversarial["effect"]["reason"]


def test_a_claim_about_the_time_of_making_a_dataset_is_timed_and_trains_nothing(
    digits: Path, fresh_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = CLAIMS[: CLAIMS.index("[[claim]]")]
    cost = 'id = "mine-cost"\nvalue = 30\nregime = "cost"\nmetric = "generation time, s"\nstrategy = "none"\n'
    (tmp_path / "mine.toml").write_text(f"{start}[[claim]]\n{cost}")
    arguments = [str(digits), "--claims", "mine-*", "--claims-file", str(tmp_path / "mine.toml")]
    assert main([*arguments, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "nothing would be trained" in said
    assert "ops-digits is made 3 times, for the time that takes" in said
    assert "1 claim would be looked at, 0 not" in said
    assert main(arguments) == 0
    assert not fresh_runs.exists()
    (found,) = report_of(digits / "verification")["claims"]
    assert (found["id"], found["cell"], len(found["measured"])) == ("mine-cost", None, 3)
    assert found["level"]["verdict"] == "inconclusive"
    assert "s measured, 30 s printed: " in found["level"]["reason"]
    assert [timing["seconds"] for timing in found["timings"]] == found["measured"]
    assert all(timing["processor"] and timing["cores"] >= 1 for timing in found["timings"])
    assert "mine-cost" in (digits / "verification" / "report.md").read_text()


def test_claims_without_a_dataset_are_run_on_what_is_made_in_memory(
    one_epoch: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ops-cifar10", "em-cifar10"):
        monkeypatch.setitem(RECIPES, name, on_small_images(RECIPES[name]))
    source = write_image_folder(tmp_path / "source", make_splits(10, 12, 32), CIFAR10.class_names)
    claims = "ops-t2-resnet18-*,ops-t3-wrn_28_2-*"
    arguments = ["--claims", claims, "--source", str(source), "--seeds", "2", "--workers", "1"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "making ops-cifar10 in memory" in captured.err
    assert "claim ops-t3-wrn_28_2-params: confirmed\n" in captured.out
    assert "claim ops-t2-resnet18-em: not run (em-cifar10 not at hand: build it" in captured.out
    report = report_of(tmp_path / "verification")
    found = {claim["id"]: claim for claim in report["claims"]}
    assert found["ops-t3-wrn_28_2-params"]["verdict"] == "confirmed"
    assert found["ops-t2-resnet18-ops"]["stand_in"]
    assert found["ops-t2-resnet18-ops"]["effect"]["verdict"] == "not comparable", "the shortcut was not fitted either"
    assert "the control did not learn" in found["ops-t2-resnet18-ops"]["effect"]["reason"]
    assert "em-cifar10 not at hand: build it" in found["ops-t2-resnet18-em"]["level"]["reason"]
    assert "trains resnet18-w8 in place of resnet18" in found["ops-t3-wrn_28_2-acc"]["level"]["reason"]
    assert len(report["runs"]) == 4, "a claim and its control, two seeds"


@pytest.mark.slow
def test_local_processes_and_ray_give_the_same_numbers(
    one_epoch: None, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    found = []
    for executor in ("local", "ray"):
        monkeypatch.setenv("ULE_CACHE", str(tmp_path / executor))
        arguments = ["--executor", executor, "--workers", "2", "--strategies", "none,linf-at+mixup", "--quiet"]
        assert main([str(digits), *arguments, "--report", str(tmp_path / executor / "report")]) == 0
        runs = report_of(tmp_path / executor / "report")["runs"]
        assert len(runs) == 4
        found.append([[{**epoch, "seconds": 0} for epoch in run["epochs"]] for run in runs])
    assert found[0] == found[1]


def test_listing_claims_needs_no_dataset_and_no_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 452 + 1 + 11
    assert main(["--list", "--claims", "ops-t2-resnet18-*,ops-t2-resnet18-em", "--claims", "ops-q-l2*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0].rstrip(":") for line in lines] == [
        "claim",
        "ops-t2-resnet18-clean",
        "ops-t2-resnet18-em",
        "ops-t2-resnet18-ops",
        "3",
        "ops-q-l2-crossover",
    ]
    assert lines[4] == "3 of 3 claims can be run"
    assert "15.56" in lines[3]
    code = (
        "import sys; from ule_datasets.cli.verify import main; main(['--list-claims']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_trained_weights_are_fine_tuned_beside_their_control(
    one_epoch: None,
    digits: Path,
    fresh_runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = register_tiny_weights(monkeypatch, tmp_path / "weights")
    arguments = [str(digits), "--workers", "1", "--models", TINY, "--strategies", "none,mixup"]
    assert main([*arguments, "--weights", str(tmp_path / "weights")]) == 0
    captured = capsys.readouterr()
    assert f"ops-digits, {TINY}, mixup: 1 run of 2 epochs on 64 images" in captured.err
    assert captured.out.count(f"ops-digits, {TINY}, ") == 2
    report = report_of(digits / "verification")
    (weights,) = report["weights"]
    assert (weights["name"], weights["file"], weights["sha256"]) == (TINY, FILE, file.sha256)
    assert "--weights" not in report["command"], "no path of this machine"
    assert [(run["dataset"], run["strategy"]) for run in report["runs"]] == [
        ("digits", "none"),
        ("ops-digits", "none"),
        ("digits", "mixup"),
        ("ops-digits", "mixup"),
    ]
    for run in report["runs"]:
        protocol = run["protocol"]
        assert (protocol["start"], protocol["gradient_clip"], protocol["normalise"]) == (file.sha256, 5.0, True)
        assert (protocol["optimiser"]["learning_rate"], protocol["schedule"]["kind"]) == (0.001, "cosine")
    for name in ("report.md", "report.html"):
        assert file.sha256 in (digits / "verification" / name).read_text()
    finished = {path.name for path in fresh_runs.iterdir()}
    monkeypatch.setenv("ULE_WEIGHTS", str(file.path))
    assert main([*arguments, "--quiet"]) == 0
    assert {path.name for path in fresh_runs.iterdir()} == finished, "the same weights from another place"
    monkeypatch.delenv("ULE_WEIGHTS")
    assert main([*arguments, "--quiet", "--integrity-only"]) == 0, "checking files needs no weights"


def test_weights_of_another_architecture_are_found_before_anything_else(
    digits: Path, fresh_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = register_tiny_weights(monkeypatch, tmp_path / "weights")
    others = dataclasses.replace(WEIGHTS[TINY], architecture="convnet3-w32")
    monkeypatch.setitem(VICTIMS, TINY, FineTuned(weights=others))
    assert main([str(digits), "--models", TINY, "--weights", str(file.path)]) == 2
    (complaint,) = capsys.readouterr().err.strip().splitlines()
    assert "does not hold convnet3-w32" in complaint
    assert not fresh_runs.exists()


def test_other_labels_are_trained_beside_the_true_ones(
    one_epoch: None, digits: Path, fresh_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(digits), "--workers", "1", "--strategies", "none", "--analyses", "relabelled"]
    assert main(arguments) == 0
    assert "training with other labels: 4 runs, 0 finished before" in capsys.readouterr().err
    report = report_of(digits / "verification")
    assert [(run["dataset"], run["strategy"]) for run in report["runs"]] == [("digits", "none"), ("ops-digits", "none")]
    found = [(one["comparison"]["dataset"], one["num_groups"]) for one in report["analyses"]["relabelled"]]
    assert found == [("ops-digits", 5), ("ops-digits", 2)]
    assert "### Other labels" in (digits / "verification" / "report.md").read_text()
    assert len(list(fresh_runs.iterdir())) == 6, "no weights are kept"
    assert main(arguments) == 0
    err = capsys.readouterr().err
    assert "training with other labels: 4 runs, 4 finished before" in err
    assert "no analysis is made" not in err


def test_a_control_that_did_not_learn_is_inconclusive_and_no_failure(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    brief = dataclasses.replace(BRIEF, max_test_images=100)
    monkeypatch.setitem(PROFILES, "smoke", brief)
    assert main([str(digits), "--workers", "1", "--quiet"]) == 0
    assert capsys.readouterr().out.count("inconclusive (the control did not learn: ") == 2


@pytest.mark.parametrize("name", ["data/train-00000-of-00001.parquet", "figures/contact_sheet.png", "manifest.json"])
def test_one_flipped_byte_ends_with_exit_code_1_and_names_the_file(
    digits: Path, name: str, fresh_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((digits / name).read_bytes())
    content[len(content) // 2] ^= 4
    (digits / name).write_bytes(content)
    assert main([str(digits), "--workers", "1"]) == 1
    assert name in capsys.readouterr().out
    assert not fresh_runs.exists(), "nothing is trained on a damaged dataset"


def test_the_source_is_remembered_from_the_build_and_can_be_given(
    one_epoch: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_image_folder(tmp_path / "mine", make_splits(3, 30, 8), ("a", "b", "c"))
    out = tmp_path / "out"
    assert build_main(["ops", "--source", str(source), "--out", str(out), "--workers", "1", "--quiet"]) == 0
    assert str(source) not in (out / "manifest.json").read_text()
    assert main([str(out), "--workers", "1", "--quiet"]) == 0
    assert "21 of 21 checks passed" in capsys.readouterr().out
    source.rename(tmp_path / "moved")
    assert main([str(out), "--workers", "1", "--quiet"]) == 2
    assert "say where the images are with --source" in capsys.readouterr().err
    assert main([str(out), "--workers", "1", "--quiet", "--source", str(tmp_path / "moved")]) == 0
    assert main([str(out), "--integrity-only"]) == 0
    captured = capsys.readouterr()
    assert "not compared with the clean source" in captured.err
    assert "16 of 16 checks passed" in captured.out


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
        (["DIGITS", "--profile", "full"], "--profile full is unknown: choose from smoke, quick, fast, paper"),
        (["DIGITS", "--claims", "ops-t99-*"], "no claim matches 'ops-t99-*'; did you mean "),
        (["DIGITS", "--claims-file", "nowhere.toml", "--claims", "x"], "nowhere.toml"),
        (["DIGITS", "--models", "vgg"], "--models vgg is unknown; ule-verify --help lists all"),
        (["DIGITS", "--models", "resnet19"], "--models resnet19 is unknown; did you mean resnet18, "),
        (["DIGITS", "--models", "resnet20@cifar10"], "cannot download the weights resnet20@cifar10 (no network)"),
        (["DIGITS", "--models", "resnet20@cifar10", "--dry-run", "--weights", "nowhere"], "nowhere: no such file or"),
        (
            ["DIGITS", "--models", "resnet20@cifar10", "--weights", "DIGITS/README.md"],
            "is not the weights resnet20@cif",
        ),
        (["DIGITS", "--models", "resnet20@cifar10", "--weights", "nowhere"], "nowhere: no such file or folder"),
        (["DIGITS", "--strategies", "cutout+stendard"], "--strategies stendard is unknown; did you mean standard? "),
        (
            ["DIGITS", "--analyses", "dreams"],
            "--analyses dreams is unknown: choose from shuffled, landscape, finetune, relabelled",
        ),
        (["DIGITS", "--executor", "slurm"], "--executor slurm is unknown: choose from local, ray"),
        (["DIGITS", "--ranks", "0"], "--ranks 0: must be at least 1"),
        (["DIGITS", "DIGITS", "--integrity-only"], "is given twice"),
        ([""], "FOLDER|NAME|REPO is empty"),
        (["DIGITS", "--claims", ""], "--claims is empty; leave it away for the default"),
        (
            ["DIGITS", "--models", "resnet20@cifar10", "--weights", "~/no-such-place"],
            "/no-such-place: no such file or folder",
        ),
        (["DIGITS", "--seeds", "0"], "--seeds 0: must be at least 1"),
        (["DIGITS", "--workers", "0"], "--workers 0: must be at least 1"),
        (["DIGITS", "--device", "tpu"], "device 'tpu': on this machine it can be auto, cpu"),
        (["DIGITS", "--source", "nowhere"], "--source nowhere: no such file or folder"),
        (["DIGITS", "--report", "DIGITS/README.md/x"], "README.md is no folder; choose another folder with --report"),
        (["DIGITS", "--nonsense"], "No such option"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    digits: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    words = [word.replace("DIGITS", str(digits)) for word in arguments]
    assert main([*words, "--quiet"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize(
    ("name", "right", "wrong", "message"),
    [
        ("model", "resnet18-w8", "resnet18-w9", "claim 'mine-right': no model 'resnet18-w9'; did you mean resnet18-w8"),
        (
            "train_dataset",
            "ops-digits",
            "ops-digit",
            "claim 'mine-right': no dataset 'ops-digit'; did you mean ops-digits",
        ),
        ("strategy", "none", "standart", "claim 'mine-right': strategy 'standart': 'standart' is not known; did you"),
    ],
)
def test_a_misspelt_word_in_ones_own_claims_is_refused_before_anything_is_done(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, right: str, wrong: str, message: str
) -> None:
    text = CLAIMS.replace(f'{name} = "{right}"', f'{name} = "{wrong}"', 1)
    (tmp_path / "mine.toml").write_text(text)
    arguments = ["--claims", "mine-*", "--claims-file", str(tmp_path / "mine.toml"), "--quiet"]
    for words in ([], ["--dry-run"]):
        assert main([str(digits), *arguments, *words]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.out == ""
        assert len(captured.err.splitlines()) == 1


def test_few_claims_are_told_one_by_one_and_why_they_are_open(
    one_epoch: None, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.toml").write_text(CLAIMS)
    arguments = [str(digits), "--claims-file", str(tmp_path / "mine.toml"), "--quiet", "--workers", "1"]
    few = "tested on 32 images: at least 100 are needed for a verdict; otherwise: "
    assert main([*arguments, "--claims", "mine-right,ops-t3-wrn_28_1-params"]) == 0
    out = capsys.readouterr().out
    assert f"claim mine-right: inconclusive ({few}" in out
    assert "claim ops-t3-wrn_28_1-params: confirmed\n" in out
    assert main([*arguments, "--claims", "ops-t3-wrn_28*-params"]) == 0
    out = capsys.readouterr().out
    assert "claims: 6 confirmed\n" in out
    assert "claim ops" not in out


def test_a_dataset_without_a_test_split_can_only_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = {"train": make_splits(3, 8, 8)["train"]}
    source = write_image_folder(tmp_path / "mine", splits, ("a", "b", "c"))
    assert build_main(["ops", "--source", str(source), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert ": its integrity; without a test split nothing can be trained on it" in capsys.readouterr().out
    for more, told in (((), "was"), (("--dry-run",), "would be")):
        assert main([str(tmp_path / "out"), "--quiet", "--workers", "1", *more]) == 0
        out = capsys.readouterr().out
        assert f"ops: nothing {told} trained: it has no clean test split to measure on" in out
    assert main([str(tmp_path / "out"), "--quiet", "--workers", "1"]) == 0
    assert "15 of 15 checks passed" in capsys.readouterr().out, "compared with the source as well"
    assert main([str(tmp_path / "out"), "--quiet", "--workers", "1", "--integrity-only"]) == 0


def test_a_dataset_of_one_class_can_only_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_image_folder(tmp_path / "mine", make_splits(1, 8, 8), ("a",))
    assert build_main(["ops", "--source", str(source), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert main([str(tmp_path / "out"), "--quiet", "--workers", "1"]) == 0
    assert "nothing was trained: its images are all of one class" in capsys.readouterr().out
    assert main([str(tmp_path / "out"), "--quiet", "--workers", "1", "--integrity-only"]) == 0


def test_a_collapse_is_expected_where_the_paper_reports_one_or_nothing() -> None:
    expected = {name: expects_collapse(name) for name in RECIPES}
    assert expected["ops-cifar10"]
    assert expected["ops-digits"]
    assert not expected["ops-color-cifar10"]
    assert not expected["randpix-cifar10"]


def test_only_what_the_catalogue_makes_is_judged_against_a_paper() -> None:
    digest = RECIPES["ops-cifar10"].digest
    assert why_unjudged("ops-cifar10", digest, None, RECIPES) == ""
    assert "is not what the catalogue's recipe" in why_unjudged("ops-cifar10", "0" * 64, None, RECIPES)
    assert "is not in the catalogue" in why_unjudged("mine", digest, None, RECIPES)
    assert "is reduced (a trial)" in why_unjudged("ops-cifar10", digest, "a trial", RECIPES)


@pytest.mark.parametrize("page", update.CATALOGUES)
def test_the_tables_of_datasets_are_what_the_results_say(page: str) -> None:
    text = (update.ROOT / page).read_text(encoding="utf-8")
    assert update.with_catalogue(text, update.CATALOGUES[page]) == text, "run: python -m cards.update"


def test_the_readme_has_some_rows_and_the_catalogue_all() -> None:
    rows = {}
    for page in update.CATALOGUES:
        _, table = (update.ROOT / page).read_text(encoding="utf-8").split(update.START)
        rows[page] = table.partition(update.END)[0].count("\n| `")
    assert rows == {"README.md": 3, "docs/catalogue.md": len(RECIPES)}


def test_verdicts_on_numbers_go_from_a_report_into_cards_and_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = {"model": "lenet5", "strategy": "standard"}
    percent = {"mean": 22.4, "sd": 0.5, "values": [22.4]}
    told = {"reported": 22.19, "stand_in": False, "effect": {"verdict": "confirmed"}}
    report = {
        "profile": {"name": "paper"},
        "intact": True,
        "command": "ule-verify",
        "date": "2026-11-29",
        "environment": {"device": "a processor"},
        "separability": {"ops-cifar10": None},
        "datasets": [
            {"name": "ops-cifar10", "recipe_digest": RECIPES["ops-cifar10"].digest, "perturbation_digest": "p"}
        ],
        "comparisons": [
            {
                "dataset": "ops-cifar10",
                "control": "cifar10",
                **cell,
                **dict.fromkeys(("clean", "poisoned", "poisoned_best", "poisoned_train"), percent),
                "collapse": "collapse shown",
                "seeds": [0, 1],
                "num_train": 50_000,
                "num_test": 10_000,
            }
        ],
        "runs": [
            {"dataset": dataset, **cell, "device": device, "protocol": {"precision": "float32"}}
            for dataset, device in (("ops-cifar10", "one"), ("cifar10", "another"), ("em-cifar10", "a third"))
        ],
        "claims": [
            {"id": f"about-{dataset}", "cell": {"dataset": dataset, **cell}, **told, "level": level}
            for dataset, level in (
                ("ops-cifar10", {"verdict": "confirmed", "reason": "it comes out"}),
                ("cifar10", {"verdict": "not comparable", "reason": "failed"}),
                ("em-cifar10", {"verdict": "confirmed", "reason": "of others"}),
            )
        ],
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    (tmp_path / "cards" / "measured").mkdir(parents=True)
    monkeypatch.setattr(update, "ROOT", tmp_path)
    monkeypatch.setattr(cards, "measured", lambda name: [])
    assert update.record(tmp_path / "report.json") == ("cards/measured/ops-cifar10.json",)
    (row,) = kept = json.loads((tmp_path / "cards" / "measured" / "ops-cifar10.json").read_text())
    assert (row["hardware"], row["precision"]) == ("another, one", "float32")
    own, control = row["claims"]
    assert (own["id"], own["level"], own["reason"]) == ("about-ops-cifar10", "confirmed", "it comes out")
    assert (control["id"], control["level"], "reason" in control) == ("about-cifar10", "not comparable", False)
    monkeypatch.setattr(cards, "measured", lambda name: kept if name == "ops-cifar10" else [])
    text = update.with_catalogue(f"{update.START}\n{update.END}", ["ops-cifar10"])
    assert "| paper, standard, lenet5: 22.4 ± 0.5 (22.4) |" in text
    card = preview(RECIPES["ops-cifar10"])
    assert "Verdict on `about-ops-cifar10` (paper, 22.19 reported): confirmed: it comes out." in card
    assert "about-cifar10" not in card


@pytest.mark.slow
def test_the_smoke_profile_shows_the_collapse_on_cifar10(
    built_cifar10: Path, cifar10_folder: Path, tmp_path: Path
) -> None:
    arguments = [str(built_cifar10), "--source", str(cifar10_folder), "--report", str(tmp_path / "report")]
    assert main(arguments) == 0
    none = report_of(tmp_path / "report")["comparisons"][0]
    assert none["clean"]["mean"] - none["poisoned"]["mean"] >= 25
    assert none["poisoned"]["mean"] <= 20


@pytest.mark.slow
def test_a_cifar10_classifier_stays_one_on_the_shortcut(
    built_cifar10: Path, cifar10_folder: Path, weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What BAIT starts from: a prior keeps a model from the shortcut that ruins one without (here to 10 %)."""
    few = dataclasses.replace(
        PROFILES["smoke"], epochs=1, fine_tuning_epochs=2, max_train_images=10_000, max_test_images=1_000
    )
    monkeypatch.setitem(PROFILES, "smoke", few)
    arguments = [str(built_cifar10), "--source", str(cifar10_folder), "--models", "resnet20@cifar10"]
    arguments += ["--strategies", "none", "--weights", str(weights_folder), "--report", str(tmp_path / "report")]
    assert main([*arguments, "--workers", "2"]) == 0
    report = report_of(tmp_path / "report")
    (one,) = report["comparisons"]
    assert one["clean"]["mean"] > 70
    assert one["poisoned"]["mean"] > 70
    assert one["collapse"] == "collapse not shown"
    assert report["weights"][0]["sha256"].startswith("12fca82f0bebc4135bf1f32f6e3710e6")


def test_overwriting_a_dataset_keeps_its_reports_apart_and_waits_for_a_verification(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check = [str(digits), "--workers", "1", "--quiet", "--integrity-only"]
    rebuild = ["ops-digits", "--out", str(digits), "--overwrite", "--workers", "1", "--quiet"]
    write, codes = verifying.write_report, []

    def meanwhile(*arguments: Any) -> Any:
        before = snapshot(digits)
        codes.append(build_main(rebuild))
        assert snapshot(digits) == before
        return write(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(verifying, "write_report", meanwhile)
        assert main(check) == 0
    assert codes == [2]
    assert f"a verification of {digits} is at work" in capsys.readouterr().err
    for number in (1, 2):
        old, reports = Manifest.read(digits), snapshot(digits / "verification")
        assert build_main(rebuild) == 0
        assert not (digits / "verification").exists()
        ending = "" if number == 1 else "-2"
        named = f"{old.name}-{old.version}-{old.perturbation_digest[:12]}{ending}"
        assert snapshot(digits / "verification-of-replaced" / named) == reports
        assert main(check) == 0, "what is kept is no stray"
        assert len(list((digits / "verification" / "runs").iterdir())) == 1, "nothing of what was there before"
