"""What a report tells first, and what it leaves out: plain words, pictures, and nothing that it cannot judge."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.verification.test_report import (
    OPEN,
    REFUTED,
    SMOKE,
    Page,
    busy,
    grid,
    judged,
    left_open,
    part,
    report,
    result,
    run,
    written,
)
from ule_datasets.dataset.integrity import Check
from ule_datasets.experiments.profiles import PROFILES
from ule_datasets.packaging.figures import class_sheet
from ule_datasets.packaging.figures.contact import sample_sheet
from ule_datasets.papers.claims import all_claims, statements
from ule_datasets.verification.judging import StatementResult
from ule_datasets.verification.report.content import Learned, Report
from ule_datasets.verification.report.writing import LEARNED_SHOWN, PICTURES_SHOWN


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where matplotlib is not installed: quicker."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            report(),
            "ops-cifar10 protects against training without augmentation (9.5 %, clean 61.2 %), but not against "
            "standard training (52.2 %, clean 62.0 %). In brackets: clean test images that a model (resnet18-w8, "
            "3 epochs) gets right when trained on it, and when trained on the clean images instead; guessing gives "
            "10 %.",
        ),
        (
            report(result=result(run("cifar10", "none"), run("ops-cifar10", "none", accuracies=(30.0,)))),
            "ops-cifar10 protects in part against training without augmentation (30.0 %, clean 61.2 %).",
        ),
        (
            report(result=result(run("cifar10", "none"), run("ops-cifar10", "none", accuracies=(60.0,)))),
            "ops-cifar10 does not protect against training without augmentation (60.0 %, clean 61.2 %).",
        ),
        (
            report(result=result(run("cifar10", "none", accuracies=(11.0,)), run("ops-cifar10", "none"))),
            "ops-cifar10: about training without augmentation (9.5 %, clean 11.0 %) nothing can be said: the control "
            "did not learn, or a loss was not finite.",
        ),
        (report(result=None), "ops-cifar10 is exactly what its manifest says; nothing was trained."),
        (
            report(result=None, datasets=(part(checks=(Check("files", False, "x"), Check("budget", True, "y"))),)),
            "ops-cifar10 is not what it says it is: 1 of 2 checks failed.",
        ),
        (
            report(datasets=(part(), part("em-cifar10")), result=grid("ops-cifar10", "em-cifar10")),
            "em-cifar10 protects against training without augmentation and standard training (13.8 to 15.0 %, clean "
            "61.2 to 62.0 %).",
        ),
        (
            report(claims=(judged("ops-t5-ops-mixup", level=REFUTED, effect=REFUTED),)),
            "Refuted: ops-t5-ops-mixup.",
        ),
    ],
)
def test_the_first_lines_say_in_plain_words_what_was_shown(tmp_path: Path, given: Report, words: str) -> None:
    texts = written(tmp_path, given)
    assert words in Page(texts["report.html"]).text
    lead = texts["report.md"].split("\n")[2]
    assert words in lead
    assert lead.startswith("**")


def test_a_partial_collapse_is_not_told_as_a_full_one(tmp_path: Path) -> None:
    given = report(result=result(run("cifar10", "none"), run("ops-cifar10", "none", accuracies=(30.0,))))
    texts = written(tmp_path, given)
    assert '<span class="mark part">partial collapse</span>' in texts["report.html"]
    assert '<div class="card part"><b>Effect</b>' in texts["report.html"]
    assert "| Effect | ◐ Partial collapse under no augmentation. |" in texts["report.md"]


@pytest.mark.parametrize(("profile", "told"), [("smoke", False), ("quick", True)])
def test_what_nobody_asked_for_is_told_where_the_profile_can_judge_it(tmp_path: Path, profile: str, told: bool) -> None:
    claims = (judged("ops-t5-ops-standard"), left_open("ops-t5-ops-mixup", "not asked for"))
    given = busy()
    given = report(
        profile=dataclasses.replace(PROFILES[profile], epochs=3),
        claims=claims,
        statements=(StatementResult(statement=statements()["ops-q-l2-crossover"], judged=OPEN),),
        findings=given.findings,
        beside=frozenset(
            {*all_claims(), *statements(), "displacement", "fitting", "shuffled", "landscape", "finetune"}
        ),
    )
    page = Page(written(tmp_path, given)["report.html"])
    assert ("claims" in page.ids) == ("tables" in page.ids) == told
    assert "statements" not in page.ids, "nothing is decided"
    assert "Other labels" in page.text, "asked for"
    assert ("Fine-tuning" in page.text) == told
    left = "1 printed number, 1 statement" if told else "2 printed numbers, 1 statement, 5 analyses"
    assert f"decides nothing about it: {left}. All of it is in report.json" in page.text
    everything = json.loads((tmp_path / "report.json").read_text())
    assert (len(everything["claims"]), len(everything["statements"])) == (2, 1)


def test_what_is_refuted_is_told_whoever_asked(tmp_path: Path) -> None:
    given = report(
        claims=(judged("ops-t5-ops-standard", level=REFUTED),), beside=frozenset(all_claims()), profile=SMOKE
    )
    assert "claims" in Page(written(tmp_path, given)["report.html"]).ids


def test_samples_stand_at_the_top_as_drawings_and_as_files(tmp_path: Path) -> None:
    clean = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    sheet = sample_sheet(clean, clean + 3, 0, ("<cat>", "dog"))
    texts = written(tmp_path, report(pictures={f"set-{number}": sheet for number in range(PICTURES_SHOWN + 1)}))
    page = Page(texts["report.html"])
    assert texts["report.html"].index("<svg") < texts["report.html"].index('id="effect"')
    assert texts["report.html"].count("<svg") == PICTURES_SHOWN
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in page.references)
    assert "difference on a scale on which nothing is cut off" in page.text
    assert "set-1: Some training images" in page.text
    for number in range(PICTURES_SHOWN):
        assert f"](samples-{number + 1}.png)" in texts["report.md"]
        assert (tmp_path / f"samples-{number + 1}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / f"samples-{number + 1}.svg").read_text().startswith("<svg ")


def test_what_was_learned_of_training_sets_is_shown_below_the_effect(tmp_path: Path) -> None:
    values = np.zeros((12, 4, 4, 3), dtype=np.float32)
    values[:, 1, 2] = np.linspace(-2, 1, 12)[:, None]
    sheet = class_sheet(values, [f"class {number}" for number in range(12)])
    pictures = [
        Learned(dataset=f"set-{number}", strategy="op", caption="what it <learned>", sheet=sheet)
        for number in range(LEARNED_SHOWN + 1)
    ]
    texts = written(tmp_path, report(learned=tuple(pictures)))
    page = Page(texts["report.html"])
    assert texts["report.html"].count("<svg") == LEARNED_SHOWN
    assert texts["report.html"].index("<svg") > texts["report.html"].index('id="effect"')
    assert "set-1, op: what it <learned>" in page.text
    assert "set-6" not in page.text
    for number in range(LEARNED_SHOWN):
        assert f"](learned-{number + 1}.png)" in texts["report.md"]
        assert (tmp_path / f"learned-{number + 1}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / f"learned-{number + 1}.svg").read_text().startswith("<svg ")
    assert not (tmp_path / f"learned-{LEARNED_SHOWN + 1}.png").exists()
    assert "learned" not in json.loads((tmp_path / "report.json").read_text())
