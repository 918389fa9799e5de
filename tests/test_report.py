"""The report: everything that matters is in all three files, nothing is claimed that was not run."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from ule_datasets.augmentation import Augmentation
from ule_datasets.effect import PROFILES, DataKind, Effect, Run
from ule_datasets.recipe import Claim
from ule_datasets.report import Check, Report, describe_environment, draw_accuracy, not_run, write_report
from ule_datasets.training import EpochRecord, RunHistory, TrainingProtocol

AUGMENTATIONS = (Augmentation(crop_padding=0, flip=False), Augmentation(crop_padding=4, flip=True))
CURVES = {
    (DataKind.CLEAN, "none"): [20.0, 40.0, 61.25],
    (DataKind.POISONED, "none"): [15.5, 9.0, 9.5],
    (DataKind.CLEAN, "crop+flip"): [25.0, 45.0, 62.0],
    (DataKind.POISONED, "crop+flip"): [30.0, 55.0, 52.25],
}
CLAIM = Claim(id="ops-t2-resnet18-ops", table="2", model="resnet18", strategy="standard", accuracy=15.56)


def run(kind: DataKind, augmentation: Augmentation, *, seed: int = 0, finite: bool = True) -> Run:
    epochs = tuple(
        EpochRecord(
            epoch=i, train_loss=1.0 if finite else None, train_accuracy=99.0, test_accuracy=a + seed, seconds=2.0
        )
        for i, a in enumerate(CURVES[kind, str(augmentation)], start=1)
    )
    protocol = TrainingProtocol(model="resnet18-w8", epochs=3, augmentation=augmentation)
    history = RunHistory(protocol=protocol, seed=seed, device="A chip (CPU)", threads=1, epochs=epochs, seconds=6.0)
    return Run(kind=kind, history=history, reused=seed == 1)


def effect(*, seeds: tuple[int, ...] = (0,), finite: bool = True, expected: bool = True) -> Effect:
    return Effect(
        profile=dataclasses.replace(PROFILES["smoke"], epochs=3),
        num_classes=10,
        num_train=10_000,
        num_test=2_000,
        collapse_expected=expected,
        runs=tuple(run(k, a, seed=s, finite=finite) for s in seeds for a in AUGMENTATIONS for k in DataKind),
    )


def report(**changes: object) -> Report:
    plain = Report(
        dataset="ops-example",
        version="1.2.3",
        title="One-Pixel Shortcut on examples",
        reduced=None,
        recipe_digest="a" * 64,
        perturbation_digest="b" * 64,
        manifest_digest="c" * 64,
        checks=(Check("files", True, "7 files agree"), Check("budget", True, "one pixel")),
        effect=effect(),
        claims=not_run([CLAIM], "smoke trains another network"),
        environment={"device": "A chip (CPU)", "cores": "2"},
        command="ule-verify datasets/ops-example",
        date="2026-01-02",
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def written(folder: Path, given: Report) -> dict[str, str]:
    write_report(given, folder)
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.suffix != ".png"}


class Balance(HTMLParser):
    """Fails where an element is not closed in order."""

    VOID = ("meta", "br", "link", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_report_is_three_texts_and_a_plot_and_nothing_else(tmp_path: Path) -> None:
    write_report(report(), tmp_path / "new" / "verification")
    names = sorted(path.name for path in (tmp_path / "new" / "verification").iterdir())
    assert names == ["accuracy.png", "report.html", "report.json", "report.md"]


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_both_readable_forms_carry_every_fact(name: str, tmp_path: Path) -> None:
    text = written(tmp_path, report())[name]
    for fact in (
        "ops-example", "1.2.3", "a" * 64, "b" * 64, "c" * 64, "7 files agree", "one pixel", "61.2", "9.5", "52.2",
        "collapse shown", "collapse not shown", "15.5 (1)", "55.0 (2)", "15.56", "not run",
        "smoke trains another network",
        "neither confirm nor refute any number of a paper", "10,000", "A chip (CPU)", "ule-verify datasets/ops-example",
        "2026-01-02", "Collapse shown under no augmentation; collapse not shown under crop+flip.",
    ):  # fmt: skip
        assert fact in text, fact


def test_json_holds_every_epoch_and_the_verdicts(tmp_path: Path) -> None:
    content = json.loads(written(tmp_path, report())["report.json"])
    assert content["schema"] == "ule-datasets report 1"
    assert (content["passed"], content["intact"]) == (True, True)
    assert [judgement["verdict"] for judgement in content["effect"]["judgements"]] == [
        "collapse shown",
        "collapse not shown",
    ]
    first = content["effect"]["runs"][0]
    assert (first["trained_on"], first["seed"], first["last_epoch"]) == (
        "clean",
        0,
        {"epoch": 3, "test_accuracy": 61.25},
    )
    assert [record["test_accuracy"] for record in first["epochs"]] == [20.0, 40.0, 61.25]
    assert first["after_epoch"] == {"1": 20.0, "2": 40.0}
    assert first["protocol"]["augmentation"] == {"crop_padding": 0, "flip": False}
    assert content["claims"][0]["verdict"] == "not run"
    assert content["checks"][0] == {"name": "files", "passed": True, "detail": "7 files agree"}


def test_a_failed_check_fails_the_report_and_stands_out(tmp_path: Path) -> None:
    given = report(checks=(Check("files", True, "fine"), Check("labels", False, "3 labels differ")))
    texts = written(tmp_path, given)
    assert not given.passed
    assert json.loads(texts["report.json"])["passed"] is False
    assert "❌ 1 of 2 checks failed" in texts["report.md"]
    assert "| ❌ | labels | 3 labels differ |" in texts["report.md"]
    assert '<span class="mark bad">failed</span></td><td>labels</td>' in texts["report.html"]


def test_a_collapse_that_was_expected_and_not_shown_fails_the_report(tmp_path: Path) -> None:
    only_crop = dataclasses.replace(effect(), runs=effect().runs[2:])
    assert not report(effect=only_crop).passed
    assert "A collapse was expected" in written(tmp_path, report(effect=only_crop))["report.md"]
    unexpected = dataclasses.replace(only_crop, collapse_expected=False)
    assert report(effect=unexpected).passed


def test_without_an_effect_the_report_says_that_it_was_not_measured(tmp_path: Path) -> None:
    write_report(report(), tmp_path)
    texts = written(tmp_path, report(effect=None, claims=()))
    assert "| Effect | not measured |" in texts["report.md"]
    assert "<b>Effect</b> not measured" in texts["report.html"]
    assert json.loads(texts["report.json"])["effect"] is None
    assert not (tmp_path / "accuracy.png").exists(), "the plot of an older report is gone"
    assert "accuracy.png" not in texts["report.md"]


def test_text_from_outside_cannot_break_the_page_or_the_tables(tmp_path: Path) -> None:
    given = report(title="<script>alert(1)</script>", checks=(Check("a|b", True, "x\n<b>y</b> | z"),))
    texts = written(tmp_path, given)
    assert "<script>" not in texts["report.html"]
    assert "&lt;b&gt;y&lt;/b&gt;" in texts["report.html"]
    assert "| ✅ | a\\|b | x &lt;b>y&lt;/b> \\| z |" in texts["report.md"]


def test_every_table_row_of_the_markdown_has_as_many_cells_as_its_head(tmp_path: Path) -> None:
    widths: list[int] = []
    for line in written(tmp_path, report(effect=effect(seeds=(0, 1))))["report.md"].splitlines():
        if not line.startswith("|"):
            widths = []
            continue
        widths.append(len(re.findall(r"(?<!\\)\|", line)))
        assert widths[-1] == widths[0], line


def test_the_page_is_well_formed_and_self_contained(tmp_path: Path) -> None:
    page = written(tmp_path, report())["report.html"]
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert "<svg" in page
    assert "currentColor" in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", page)
    assert "@import" not in page


def test_the_plot_has_a_panel_for_each_augmentation(tmp_path: Path) -> None:
    write_report(report(), tmp_path)
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    plot = draw_accuracy(effect())
    assert plot is not None
    for text in ("no augmentation: collapse shown", "crop+flip: collapse not shown", "chance", "best epoch", "61.2"):
        assert text in plot.svg, text


def test_drawing_twice_gives_the_same_picture() -> None:
    assert draw_accuracy(effect()) == draw_accuracy(effect())


def test_without_matplotlib_the_report_says_how_to_get_the_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    texts = written(tmp_path, report())
    for name in ("report.md", "report.html"):
        assert "not drawn: install ule-datasets[plots]" in texts[name]
    assert not (tmp_path / "accuracy.png").exists()


def test_seeds_are_summarised_and_kept_runs_named(tmp_path: Path) -> None:
    text = written(tmp_path, report(effect=effect(seeds=(0, 1))))["report.md"]
    assert "61.8 ± 0.7 %" in text
    assert "2 seeds (0, 1)" in text
    assert text.count("kept from an earlier verification") == 4


def test_a_run_that_broke_is_listed_with_the_epoch(tmp_path: Path) -> None:
    texts = written(tmp_path, report(effect=effect(finite=False)))
    assert "loss not finite, stopped after epoch 3" in texts["report.md"]
    assert "inconclusive" in texts["report.html"]
    assert "collapse shown</span>" not in texts["report.html"]


def test_a_reduced_dataset_says_so(tmp_path: Path) -> None:
    texts = written(tmp_path, report(reduced="trial on 10 images"))
    assert "(**reduced: trial on 10 images**)" in texts["report.md"]
    assert "reduced: trial on 10 images" in texts["report.html"]


def test_the_environment_names_hardware_and_versions_and_neither_host_nor_paths() -> None:
    environment = describe_environment(torch.device("cpu"))
    assert {"device", "processor", "cores", "system", "python", "torch", "numpy", "ule-datasets"} <= set(environment)
    assert environment["torch"] == torch.__version__
    assert not any(str(Path.home()) in value or str(Path.cwd()) in value for value in environment.values())
