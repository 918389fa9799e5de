"""The report: every number in it is one that was measured or printed, and what was not done is said or absent."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ule_datasets.analyses.displacement import compare as compare_displacement
from ule_datasets.analyses.findings import Findings
from ule_datasets.analyses.finetuning import FINETUNING_RATES, finetuning_protocol, summarise
from ule_datasets.analyses.fitting import compare_fitting
from ule_datasets.analyses.landscape import Pair, Surface
from ule_datasets.analyses.relabelled import RelabelledResult
from ule_datasets.analyses.relabelled import summarise as summarise_relabelled
from ule_datasets.analyses.shuffled import Reading, ShuffledCell, ShuffleTable
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.dataset.integrity import Check
from ule_datasets.experiments.effect import Collapse, compare
from ule_datasets.experiments.grid import Cell, GridResult, LostRun, Run
from ule_datasets.experiments.profiles import PROFILES
from ule_datasets.papers.claims import Claim, Regime, Statement, all_claims, select, statements
from ule_datasets.papers.gates import TRAINING, Gate
from ule_datasets.papers.statistics import Judged, Verdict
from ule_datasets.verification.judging import ClaimResult, StatementResult
from ule_datasets.verification.report.content import DatasetPart, Report, describe_environment
from ule_datasets.verification.report.plots import CONTROL, PALETTE, PLOT_NAMES, _apart, draw_plots
from ule_datasets.verification.report.tables import paper_tables
from ule_datasets.verification.report.writing import write_report
from ule_datasets.verification.separability import Separability
from ule_datasets.victims.history import EpochRecord, RunHistory, Window
from ule_datasets.victims.protocol import TrainingProtocol

SMOKE = dataclasses.replace(PROFILES["smoke"], epochs=3)
MODEL = "resnet18-w8"
CURVES = {
    ("cifar10", "none"): (20.0, 40.0, 61.25),
    ("cifar10", "standard"): (25.0, 45.0, 62.0),
    ("ops-cifar10", "none"): (15.5, 9.0, 9.5),
    ("ops-cifar10", "standard"): (30.0, 55.0, 52.25),
    ("em-cifar10", "none"): (14.0, 12.5, 13.75),
    ("em-cifar10", "standard"): (17.0, 16.0, 15.0),
}
STUDIED = ("cifar10", "ops-cifar10", "em-cifar10")
CONFIRMED, REFUTED, OPEN, NOT_RUN = (
    Judged(verdict=verdict, reason=f"because {verdict}")
    for verdict in (Verdict.CONFIRMED, Verdict.REFUTED, Verdict.INCONCLUSIVE, Verdict.NOT_RUN)
)


# --- what is reported on: made up, nothing is trained --------------------------------------------------------


def history(
    accuracies: Sequence[float],
    *,
    strategy: str = "standard",
    model: str = MODEL,
    seed: int = 0,
    finite: bool = True,
    train: Sequence[float] = (70.0, 92.5, 99.0),
    protocol: TrainingProtocol | None = None,
) -> RunHistory:
    last = len(accuracies)
    epochs = tuple(
        EpochRecord(
            epoch=epoch,
            train_loss=None if epoch == last and not finite else 1.0,
            seconds=2.0,
            train_accuracy=train[min(epoch, len(train)) - 1],
            test_accuracy=accuracy + seed,
            displacement=3.125 * epoch,
            windows=tuple(
                Window(
                    step=5 * (epoch - 1) + part,
                    train_accuracy=train[min(epoch, len(train)) - 1] + part / 10,
                    displacement=3.125 * (epoch - 1 + part / 5),
                )
                for part in range(1, 6)
            ),
        )
        for epoch, accuracy in enumerate(accuracies, start=1)
    )
    protocol = protocol or TrainingProtocol(model=model, epochs=last, strategy=parse_strategy(strategy))
    return RunHistory(
        protocol=protocol,
        seed=seed,
        device="A chip (CPU)",
        threads=2,
        ranks=1,
        num_parameters=174_970,
        epochs=epochs,
        seconds=1234.4,
    )


def run(dataset: str, strategy: str, *, seed: int = 0, model: str = MODEL, **how: Any) -> Run:
    curve = how.pop("accuracies", None) or CURVES[dataset, strategy]
    done = history(curve, strategy=strategy, model=model, seed=seed, **how)
    return Run(
        cell=Cell(dataset, model, strategy), seed=seed, history=done, identity=f"{dataset}-{seed}", reused=seed == 1
    )


def result(*runs: Run, lost: tuple[LostRun, ...] = (), control: str = "cifar10", profile: Any = SMOKE) -> GridResult:
    """Of these runs, compared with their controls."""
    plain = GridResult(
        profile=profile,
        seeds=tuple(sorted({each.seed for each in runs})),
        num_classes={each.cell.dataset: 10 for each in runs},
        num_test={each.cell.dataset: 2_000 for each in runs},
        num_train={each.cell.dataset: 10_000 for each in runs},
        runs=runs,
        lost=lost,
        comparisons=(),
    )
    found = []
    for cell in dict.fromkeys(each.cell for each in runs if each.cell.dataset != control):
        clean = plain.histories(dataclasses.replace(cell, dataset=control))
        if clean:
            found.append(
                compare(
                    clean,
                    plain.histories(cell),
                    dataset=cell.dataset,
                    control=control,
                    chance=plain.chance(cell.dataset),
                    num_test=plain.num_test[cell.dataset],
                )
            )
    return dataclasses.replace(plain, comparisons=tuple(found))


def grid(*datasets: str, seeds: Sequence[int] = (0,), strategies: Sequence[str] = ("none", "standard")) -> GridResult:
    names = ("cifar10", *(datasets or ("ops-cifar10",)))
    return result(*(run(n, strategy, seed=seed) for strategy in strategies for n in names for seed in seeds))


def part(name: str = "ops-cifar10", **changes: Any) -> DatasetPart:
    plain = DatasetPart(
        name=name,
        version="1.2.3",
        title=f"Title of {name}",
        reduced=None,
        recipe_digest="a" * 64,
        perturbation_digest="b" * 64,
        manifest_digest="c" * 64,
        unjudged="",
        checks=(Check("files", True, "7 files agree"), Check("budget", True, "one pixel")),
    )
    return dataclasses.replace(plain, **changes)


def report(**changes: Any) -> Report:
    plain = Report(
        datasets=(part(),),
        profile=SMOKE,
        result=grid(),
        claims=(),
        statements=(),
        findings=Findings(),
        separability={"ops-cifar10": Separability(fitted=99.75, held_out=98.5, num_samples=9_876)},
        collapse_expected={"ops-cifar10": True},
        environment={"device": "A chip (CPU)", "cores": "2"},
        command="ule-verify ops-cifar10 --claims 'ops-t5-*'",
        date="2026-01-02",
    )
    return dataclasses.replace(plain, **changes)


def judged(id: str, *, level: Judged = OPEN, effect: Judged = CONFIRMED, **changes: Any) -> ClaimResult:
    claim = all_claims()[id]
    plain = ClaimResult(
        claim=claim,
        level=level,
        effect=effect,
        cell=Cell(claim.train_dataset, claim.model, claim.strategy),
        measured=(14.25, 16.75),
        best=(30.5, 31.5),
        control=(93.0, 94.0),
    )
    return dataclasses.replace(plain, **changes)


def left_open(id: str, reason: str) -> ClaimResult:
    why = Judged(verdict=Verdict.NOT_RUN, reason=reason)
    return ClaimResult(claim=all_claims()[id], level=why, effect=why)


def regrouped(num_groups: int, seeds: Sequence[int]) -> RelabelledResult:
    """With classes in groups: protected 30.5 %, clean 95.5 %, and one more for each seed."""
    clean, protected = ({seed: history((value,), seed=seed) for seed in seeds} for value in (95.5, 30.5))
    found = summarise_relabelled(
        clean, protected, dataset="ops-cifar10", control="cifar10", num_groups=num_groups, num_test=2_000
    )
    assert found is not None
    return found


def findings(seeds: Sequence[int] = (0, 1, 2)) -> Findings:
    """All analyses."""
    clean, ops = (
        [history(CURVES[name, "standard"], seed=seed, train=train) for seed in seeds]
        for name, train in (("cifar10", (50.0, 70.0, 88.0)), ("ops-cifar10", (70.0, 92.5, 99.0)))
    )
    axis = (-1.0, 0.0, 1.0)
    flat, steep = (
        Surface(
            grid=axis,
            losses=tuple(tuple(0.25 + scale * (a * a + b * b) for b in axis) for a in axis),
            centre=0.25,
            circle=(0.25 + scale / 4,) * 16,
            increase=scale / 4,
            num_images=500,
        )
        for scale in (0.5, 8.0)
    )
    base = TrainingProtocol(model=MODEL, epochs=12, strategy=parse_strategy("standard"))
    tuned = {
        rate: [
            history(
                (40.0, 20.0, 10.0 + index), seed=seed, protocol=finetuning_protocol(base, learning_rate=rate, start="x")
            )
            for seed in seeds
        ]
        for index, rate in enumerate(FINETUNING_RATES)
    }
    found = {
        "displacement": {"ops-cifar10": compare_displacement(clean, ops)},
        "fitting": {"ops-cifar10": compare_fitting(clean, ops)},
        "shuffled": tuple(
            ShuffleTable(
                seed=seed,
                cells=tuple(
                    ShuffledCell(
                        trained_on=on, evaluated_on=at, reading=reading, accuracies=(value,), mean=value, sd=None
                    )
                    for on, start in (("cifar10", 90.5), ("ops-cifar10", 15.5))
                    for value, at, reading in (
                        (start + seed, "ops-cifar10", None),
                        (start / 5 + seed, "ops-cifar10 shuffled", Reading.ADDITIVE),
                        (start / 4 + seed, "ops-cifar10 shuffled", Reading.RESTAMPED),
                    )
                ),
            )
            for seed in seeds
        ),
        "landscape": tuple(Pair(seed=seed, dataset="ops-cifar10", protected=flat, clean=steep) for seed in seeds),
        "finetune": summarise(tuned, start_accuracy=93.5, chance=10.0),
        "relabelled": tuple(regrouped(number, seeds) for number in (5, 2)),
    }
    return Findings(roles={name: name for name in STUDIED}, found=found)


# --- reading what was written ---------------------------------------------------------------------------------


def written(folder: Path, given: Report) -> dict[str, str]:
    write_report(given, folder)
    return {
        path.name: path.read_text(encoding="utf-8")
        for path in folder.iterdir()
        if path.is_file() and path.suffix != ".png"
    }


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


class Page(HTMLParser):
    """Fails where an element is not closed in order; collects tables, ids and references."""

    VOID = ("meta", "br", "link", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "src", "xlink:href"):
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += f" {data}"

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def table(self, *heads: str) -> list[list[str]]:
        """The rows of the one table with these heads."""
        plain = [[[" ".join(cell.split()) for cell in row] for row in table] for table in self.tables]
        (found,) = (table for table in plain if table and table[0][: len(heads)] == list(heads))
        return found[1:]


def markdown_tables(text: str) -> list[list[list[str]]]:
    """Cells of every table."""
    tables: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            tables[-1].append([cell.strip() for cell in split_cells(line)])
        elif tables[-1]:
            tables.append([])
    return [table for table in tables if table]


def split_cells(line: str) -> list[str]:
    """As GitHub splits them: a backslash keeps the next letter from ending a cell."""
    return re.findall(r"((?:\\.|[^\\|])*)\|", line[1:])


def row_starting(tables: list[list[list[str]]], *cells: str) -> list[str]:
    (found,) = (row for table in tables for row in table if row[: len(cells)] == list(cells))
    return found


def claim_row(tables: list[list[list[str]]], id: str) -> list[str]:
    """Of the table of claims, where an id may be followed by that of the same number."""
    (found,) = (row for table in tables for row in table if row[0].split(" ")[0] == id)
    return found


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where matplotlib is not installed: quicker."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def busy() -> Report:
    """With something in every section."""
    wide = grid("ops-cifar10", "em-cifar10", seeds=(0, 1, 2))
    lost = (LostRun(cell=Cell("em-cifar10", MODEL, "mixup"), seed=2, reason="killed three times"),)
    stood_in = Cell("ops-cifar10", MODEL, "standard")
    some = statements()
    return report(
        datasets=(
            part(),
            part(
                "em-cifar10",
                reduced="fewer images",
                unjudged="not judged: fewer images",
                checks=(),
                manifest_digest=None,
            ),
        ),
        result=dataclasses.replace(wide, lost=lost),
        claims=(
            judged("ops-t5-ops-standard"),
            judged("ops-t5-ops-mixup", level=REFUTED, effect=REFUTED, measured=(80.5, 81.25, 79.0)),
            judged("ops-t5-ops-cutout", effect=REFUTED, cell=stood_in),
            judged("ops-t3-wrn_28_1-params", level=CONFIRMED, measured=(0.370506,), cell=None, best=(), control=()),
            judged("ops-t1-train_ops-test_ops_shuffled", measured=(70.5, float("nan"))),
            *(left_open(claim.id, f"not asked for: --claims {claim.id}") for claim in select("le-t1-*")),
            *(left_open(claim.id, "em-cifar10 not at hand") for claim in select("ops-t2-*-em")),
        ),
        statements=(
            StatementResult(statement=some["ops-q-linf-at-em"], judged=REFUTED),
            StatementResult(statement=some["ops-q-l2-crossover"], judged=REFUTED, stand_ins=("resnet18 = small",)),
            StatementResult(statement=some["ops-q-landscape"], judged=NOT_RUN),
        ),
        findings=findings(),
        separability={**report().separability, "em-cifar10": None},
        collapse_expected={"ops-cifar10": True, "em-cifar10": True},
    )


# --- tests ----------------------------------------------------------------------------------------------------


def test_a_report_is_three_texts_and_the_plots_that_have_something_to_show(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "verification"
    assert write_report(report(), folder) == folder / "report.html"
    texts = ["report.html", "report.json", "report.md"]
    names = ["accuracy.png", "accuracy.svg", *texts, "strategies.png", "strategies.svg"]
    assert files_in(folder) == names
    (run,) = (folder / "runs").iterdir()
    assert files_in(run) == names, "the run's own"
    write_report(report(result=None, separability={}), folder)
    assert files_in(folder) == texts, "plots of an older report are gone"
    assert files_in(run) == names, "but not from its own folder"


def test_the_page_is_well_formed_and_self_contained_and_no_id_occurs_twice(tmp_path: Path) -> None:
    text = written(tmp_path, busy())["report.html"]
    page = Page(text)
    assert text.count("<svg") == len(PLOT_NAMES)
    assert "currentColor" in text
    assert len(set(page.ids)) == len(page.ids)
    assert all(reference.startswith("#") for reference in page.references)
    assert {reference[1:] for reference in page.references} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert "@import" not in text
    markdown = (tmp_path / "report.md").read_text()
    assert re.findall(r"\]\((.*?)\)", markdown) == list(PLOT_NAMES)
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in PLOT_NAMES)


@pytest.mark.usefixtures("no_plots")
def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_head(tmp_path: Path) -> None:
    tables = markdown_tables(written(tmp_path, busy())["report.md"])
    assert len(tables) > 15
    for table in tables:
        assert {len(row) for row in table} == {len(table[0])}, table[0]
        assert set("".join(table[1])) <= set("-:"), table[0]


@pytest.mark.usefixtures("no_plots")
def test_every_row_of_a_table_in_the_page_has_as_many_cells_as_its_head(tmp_path: Path) -> None:
    tables = Page(written(tmp_path, busy())["report.html"]).tables
    assert len(tables) > 15
    for table in tables:
        assert {len(row) for row in table} == {len(table[0])}, table[0]


@pytest.mark.usefixtures("no_plots")
def test_the_effect_is_told_number_by_number(tmp_path: Path) -> None:
    given = report(result=grid(seeds=(0, 1)))
    texts = written(tmp_path, given)
    rows = Page(texts["report.html"]).table("strategy", "result", "protected")
    assert len(rows) == len(given.comparisons) == 2
    for row, one in zip(rows, given.comparisons, strict=True):
        found = (one.poisoned, one.clean, one.poisoned_best, one.poisoned_train)
        numbers = [each.percent for each in found]
        numbers.insert(2, "10.0 %")
        strategy = {"none": "no augmentation"}.get(one.strategy, one.strategy)
        assert row == [strategy, one.collapse, *numbers]
        mark = {Collapse.SHOWN: "✅", Collapse.NOT_SHOWN: "○"}[one.collapse]
        in_markdown = row_starting(markdown_tables(texts["report.md"]), strategy, f"{mark} {one.collapse}")
        assert [cell.strip("*") for cell in in_markdown] == [strategy, f"{mark} {one.collapse}", *numbers]
    for text in texts["report.md"], Page(texts["report.html"]).text:
        assert "Collapse shown under no augmentation; collapse not shown under standard." in text
        assert "right about 98.5 % of samples it was not fitted to (99.8 % of those it was); 9,876 samples" in text
        assert SMOKE.limits in text
        assert "2 seeds (0, 1)" in text
        assert "10,000 training images, tested on 2,000 clean test images" in text


def test_which_epochs_were_tested_is_told_where_not_all_were(tmp_path: Path) -> None:
    """And what is missing is a dash, or nothing in a picture."""
    curve = (20.0, 30.0, *[40.0] * 18)
    whole = [run(name, "none", accuracies=curve) for name in ("cifar10", "ops-cifar10")]
    protocol = dataclasses.replace(whole[0].history.protocol, test_interval=7)

    def thinned(each: Run) -> Run:
        epochs = tuple(
            record if record.epoch in protocol.tested_epochs else dataclasses.replace(record, test_accuracy=None)
            for record in each.history.epochs
        )
        return dataclasses.replace(each, history=dataclasses.replace(each.history, protocol=protocol, epochs=epochs))

    words = "each of the first and the last 5 epochs and every 7th one"
    for runs, told in ((whole, False), ([thinned(each) for each in whole], True)):
        folder = tmp_path / str(told)
        texts = written(folder, report(result=result(*runs)))
        for text in texts["report.md"], Page(texts["report.html"]).text:
            assert (words in text) == (f"{words};" in text) == told
        (row, _) = Page(texts["report.html"]).table("trained on", "model", "strategy", "seed", "epoch 1", "epoch 2")
        assert row[4:12] == ["20.0", "30.0", "40.0", "–" if told else "40.0", "40.0", "40.0", "40.0 (3)", "99.0"]
        content = json.loads(texts["report.json"])["runs"][0]
        assert content["last_epoch"] == {"epoch": 20, "test_accuracy": 40.0}
        assert content["after_epoch"].get("10") == (None if told else 40.0)
        assert [each["test_accuracy"] is None for each in content["epochs"]].count(True) == (8 if told else 0)


@pytest.mark.usefixtures("no_plots")
def test_several_datasets_have_a_sentence_each(tmp_path: Path) -> None:
    given = report(datasets=(part(), part("em-cifar10", reduced="fewer")), result=grid("ops-cifar10", "em-cifar10"))
    for text in written(tmp_path, given)["report.md"], Page(written(tmp_path, given)["report.html"]).text:
        assert "ops-cifar10: collapse shown under no augmentation; collapse not shown under standard." in text
        assert "em-cifar10 (reduced): collapse shown under no augmentation and standard." in text
        assert "Verification of ops-cifar10 1.2.3 and em-cifar10 1.2.3" in text
    many = tuple(part(f"one-{number}") for number in range(8))
    assert "# Verification of 8 datasets" in written(tmp_path, report(datasets=many))["report.md"]


@pytest.mark.usefixtures("no_plots")
def test_the_runs_are_told_number_by_number(tmp_path: Path) -> None:
    given = report(result=result(*grid(seeds=(0, 1)).runs, run("cifar10", "mixup", accuracies=(20.5,), finite=False)))
    assert given.result is not None
    texts = written(tmp_path, given)
    rows = Page(texts["report.html"]).table("trained on", "model", "strategy", "seed", "epoch 1", "epoch 2", "last")
    in_markdown = [
        [cell.strip("*") for cell in row]
        for table in markdown_tables(texts["report.md"])
        if table[0][:2] == ["trained on", "model"]
        for row in table[2:]
    ]
    for row, plain, one in zip(rows, in_markdown, given.result.runs, strict=True):
        done = one.history
        at = [f"{record.test_accuracy:.1f}" for record in done.epochs[:2]]
        fitted = done.fitted()
        assert row == [
            one.cell.dataset,
            one.cell.model,
            one.cell.strategy,
            str(one.seed),
            *at,
            *["–"] * (2 - len(at)),
            f"{done.last.test_accuracy:.1f}",
            f"{done.last_five:.1f}",
            f"{done.best.accuracy:.1f} ({done.best.epoch})",
            f"{done.last.train_accuracy:.1f}",
            "never" if fitted is None else str(fitted.epoch),
            "1,234 s",
            "from an earlier verification"
            if one.reused
            else ""
            if done.finite
            else "loss not finite, stopped after epoch 1",
        ]
        assert plain == row
    assert "Trained on A chip (CPU), 2 threads (9 runs)." in texts["report.md"]


@pytest.mark.usefixtures("no_plots")
def test_a_table_of_a_paper_is_laid_out_as_printed_with_the_measurement_beneath(tmp_path: Path) -> None:
    others = [id for id in all_claims() if id.startswith("ops-t5-") and id != "ops-t5-ops-standard"]
    given = report(claims=(judged("ops-t5-ops-standard"), *(left_open(id, "no time") for id in others)))
    (table,) = paper_tables(given.claims)
    assert {name for name, _ in table.columns} == {"cifar10", "em-cifar10", "ops-cifar10", "cifar10-s"}
    assert [head for (head, _), _ in table.rows][:3] == ["standard", "mixup", "cutout"]
    assert (table.corner, table.measured, len(table.rows)) == ("strategy", 1, 9)
    printed = {claim.id: f"{claim.value:g}" for claim in select("ops-t5-*")}
    shown = [entry.claim.id for _, cells in table.rows for cell in cells for entry in cell]
    assert sorted(shown) == sorted(printed), "the whole table, each number once"
    texts = written(tmp_path, given)
    rows = Page(texts["report.html"]).table("strategy", "ops-cifar10", "cifar10", "em-cifar10", "cifar10-s")
    assert rows[0] == [
        "standard",
        "15.56 15.50 ± 1.77 (2) inconclusive",
        printed["ops-t5-clean-standard"],
        printed["ops-t5-em-standard"],
        printed["ops-t5-cifar10s-standard"],
    ]
    assert "<br>**15.50 ± 1.77 (2)**<br>❔ inconclusive" in texts["report.md"]


@pytest.mark.parametrize(
    ("id", "corner", "columns", "rows"),
    [
        ("ops-t1-train_ops-test_ops", "evaluated on", ["cifar10", "em-cifar10", "ops-cifar10"], 5),
        ("ops-t2-resnet18-ops", "model", ["cifar10", "em-cifar10", "ops-cifar10"], 6),
        ("ops-t3-wrn_28_1-params", "model", ["trainable parameters, millions", "clean test accuracy, %"], 6),
        ("ops-tA-ops", "strategy", ["cifar10", "ops-cifar10", "ops-position-cifar10", "ops-color-cifar10"], 1),
        ("uc-t1-clean-pets-resnet18-224", "trained on", ["resnet18-224", "efficientnet_b1", "regnet_x_1_6gf"], 48),
    ],
)
def test_rows_and_columns_of_the_papers_tables(id: str, corner: str, columns: list[str], rows: int) -> None:
    claim = all_claims().get(id) or next(c for c in all_claims().values() if (c.paper, c.table) == ("ops", "A"))
    of_its_table = [
        other.id for other in all_claims().values() if (other.paper, other.table) == (claim.paper, claim.table)
    ]
    (table,) = paper_tables([left_open(id, "no time") for id in of_its_table])
    assert table.corner == corner
    assert [column[1] or column[0] for column in table.columns] == columns
    assert len(table.rows) == rows


def test_no_number_of_any_table_is_missing_or_doubled() -> None:
    everything = report(claims=tuple(left_open(id, "no time") for id in all_claims()))
    tables = paper_tables(everything.claims)
    assert [(t.paper, t.number) for t in tables] == list(
        dict.fromkeys((c.paper, c.table) for c in all_claims().values())
    )
    shown = [entry.claim.id for table in tables for _, cells in table.rows for cell in cells for entry in cell]
    assert sorted(shown) == sorted(all_claims())


@pytest.mark.usefixtures("no_plots")
def test_claims_have_both_verdicts_and_what_stood_in_is_said(tmp_path: Path) -> None:
    given = busy()
    texts = written(tmp_path, given)
    page, tables = Page(texts["report.html"]), markdown_tables(texts["report.md"])
    (row,) = (row for row in page.table("claim", "reported", "measured") if row[0].startswith("ops-t5-ops-standard"))
    assert row[1:] == [
        "15.56",
        "15.50 ± 1.77 (2)",
        "31.00 ± 0.71 (2)",
        "93.50 ± 0.71 (2)",
        "inconclusive because inconclusive",
        "confirmed because confirmed",
    ]
    assert claim_row(tables, "ops-t5-ops-standard")[4:] == [
        "15.56",
        "**15.50 ± 1.77 (2)**",
        "31.00 ± 0.71 (2)",
        "93.50 ± 0.71 (2)",
        "❔ inconclusive: because inconclusive",
        "✅ confirmed: because confirmed",
    ]
    assert "**0.371**" in claim_row(tables, "ops-t3-wrn_28_1-params")
    assert "**not finite in 1 of 2**" in claim_row(tables, "ops-t1-train_ops-test_ops_shuffled")
    (stood_in,) = (row for row in page.table("claim", "reported") if row[0].startswith("ops-t5-ops-cutout"))
    assert f"{MODEL} in its place" in stood_in[0]
    assert f"resnet18 ({MODEL} in its place)" in claim_row(tables, "ops-t5-ops-cutout")
    counts = "1 refuted, 1 inconclusive (another model), 1 confirmed"
    for text in page.text, texts["report.md"]:
        assert f"{len(given.claims)} claims: {len(select('le-t1-*')) + 6} not run, 2 inconclusive, {counts}" in text
        assert "ops-t5-ops-mixup, ops-q-linf-at-em" in text, "refuted, by id; those with stand-ins are not"
    assert given.refuted == ("ops-t5-ops-mixup", "ops-q-linf-at-em")


@pytest.mark.usefixtures("no_plots")
def test_how_far_training_data_was_fitted_and_by_which_rule_is_told_beside_the_level(tmp_path: Path) -> None:
    gate = Gate(name=TRAINING, passed=True, detail="90.10 at the last epoch, 99 not wanted because <of the control>")
    texts = written(tmp_path, report(claims=(judged("ops-t5-ops-standard", gates=(gate,)),)))
    for text in Page(texts["report.html"]).text, texts["report.md"].replace("&lt;", "<").replace("&gt;", ">"):
        assert f"training accuracy: {gate.detail}" in text
    (claim,) = json.loads(texts["report.json"])["claims"]
    assert claim["gates"] == [{"name": TRAINING, "passed": True, "detail": gate.detail, "caps": False}]


@pytest.mark.usefixtures("no_plots")
def test_many_open_claims_are_grouped_by_reason(tmp_path: Path) -> None:
    texts = written(tmp_path, busy())
    ids = [claim.id for claim in select("le-t1-*")]
    assert (
        f"- {len(ids)}: not run: not asked for: --claims followed by the ids ({', '.join(ids[:4])} and"
        in (texts["report.md"])
    )
    page = Page(texts["report.html"])
    assert f"{len(ids)} not run: not asked for: --claims followed by the ids {', '.join(ids)}" in page.text
    assert f"{len(ids) + 6} claims without a measurement, by reason" in page.text
    assert "Nothing was measured of: le Table 1, ops Table 2." in texts["report.md"]


@pytest.mark.usefixtures("no_plots")
def test_statements_are_told_with_reason_and_stand_ins(tmp_path: Path) -> None:
    texts = written(tmp_path, busy())
    rows = Page(texts["report.html"]).table("statement", "verdict", "reason")
    assert [row[1] for row in rows] == ["refuted", "refuted"]
    assert "because refuted stand-ins resnet18 = small" in rows[1][2]
    tables = markdown_tables(texts["report.md"])
    assert row_starting(tables, "ops-q-linf-at-em")[2:] == ["❌ refuted: because refuted", ""]
    assert row_starting(tables, "ops-q-l2-crossover")[2:] == ["refuted: because refuted", "resnet18 = small"]
    assert "- ops-q-landscape: because not run" in texts["report.md"]
    assert "| Statements of papers | 1 refuted, 1 refuted (stand-ins), 1 not run |" in texts["report.md"]


@pytest.mark.usefixtures("no_plots")
def test_the_analyses_are_told_number_by_number(tmp_path: Path) -> None:
    given = busy()
    texts = written(tmp_path, given)
    page, tables = Page(texts["report.html"]), markdown_tables(texts["report.md"])
    found = given.findings.found["displacement"]["ops-cifar10"]
    rows = page.table("dataset", "first", "seed")
    assert len(rows) == 6
    for row, at in zip(rows, (*found.by_epoch.protected, *found.by_window.protected), strict=True):
        way = {"epoch": "epoch", "window": "fifth of an epoch"}[at.by]
        assert row == [
            "ops-cifar10",
            way,
            str(at.seed),
            "never",
            "",
            "",
            "",
            str(at.epoch),
            str(at.step),
            f"{at.train_accuracy:.1f}",
            f"{at.displacement:.2f}",
        ]
        assert [cell.strip("*") for cell in row_starting(tables, *row[:3])] == row
    fitting = row_starting(tables, "ops-cifar10", "88.0, 88.0, 88.0")
    assert fitting[2:5] == ["99.0, 99.0, 99.0", "never, never, never", "2, 2, 2"]
    assert row_starting(tables, "ops-cifar10", "as they are")[2:] == ["91.50 ± 1.00 (3)", "16.50 ± 1.00 (3)"]
    assert row_starting(tables, "ops-cifar10", "shuffled, additive")[2:] == ["19.10 ± 1.00 (3)", "4.10 ± 1.00 (3)"]
    assert row_starting(tables, "ops-cifar10", "shuffled, re-stamped")[2:] == ["23.62 ± 1.00 (3)", "4.88 ± 1.00 (3)"]
    assert row_starting(tables, "ops-cifar10", "2", "0.25")[3:] == ["0.25", "**0.125**", "**2**", "500"]
    finetuning = given.findings.found["finetune"]
    for rate in finetuning.rates:
        cells = row_starting(tables, f"{rate.learning_rate:g}", "0, 1, 2")
        assert cells[2] == f"**{rate.mean:.2f} ± {rate.sd:.2f} (3)**"
        assert page.table("learning rate")[finetuning.rates.index(rate)][:3] == [
            f"{rate.learning_rate:g}",
            "0, 1, 2",
            cells[2].strip("*"),
        ]
    assert "Clean test accuracy before: 93.5 %; chance 10.0 %." in page.text
    for row, number, chance in zip(page.table("dataset", "groups"), ("5", "2"), ("20.0 %", "50.0 %"), strict=True):
        numbers = ["0, 1, 2", "31.5 ± 1.0 %", "96.5 ± 1.0 %", chance, "70.0 ± 0.0 %"]
        note = "not fully fitted: 70.0 ± 0.0 % training accuracy on the poisoned images, below 90 %"
        assert row == ["ops-cifar10", number, *numbers, f"collapse shown {note}"]
        in_markdown = [cell.strip("*") for cell in row_starting(tables, "ops-cifar10", number, "0, 1, 2")]
        assert in_markdown == [*row[:-1], f"collapse shown; {note}"]


@pytest.mark.usefixtures("no_plots")
def test_other_labels_alone_have_a_section(tmp_path: Path) -> None:
    texts = written(tmp_path, report(findings=Findings(found={"relabelled": (regrouped(5, (0,)),)})))
    assert "analyses" in Page(texts["report.html"]).ids
    assert "#analyses" in Page(texts["report.html"]).references
    assert re.findall(r"^#+ (?:Analyses|Other labels|Runs)$", texts["report.md"], re.M) == [
        "## Analyses",
        "### Other labels",
        "## Runs",
    ]
    (found,) = json.loads(texts["report.json"])["analyses"]["relabelled"]
    assert (found["num_groups"], found["chance"], found["comparison"]["clean"]["values"]) == (5, 20.0, [95.5])


@pytest.mark.usefixtures("no_plots")
def test_clusters_are_told_beside_classes(tmp_path: Path) -> None:
    clusters = {"ops-cifar10": Separability(fitted=97.25, held_out=96.5, num_samples=8_765)}
    texts = written(tmp_path, report(cluster_separability=clusters))
    for text in texts["report.md"], Page(texts["report.html"]).text:
        assert "right about 98.5 % of samples it was not fitted to" in text
        assert "asked for the cluster of its sample instead of the class, a linear classifier on the" in text
        assert "right about 96.5 % of samples it was not fitted to (97.2 % of those it was); 8,765 samples" in text
    assert json.loads(texts["report.json"])["cluster_separability"]["ops-cifar10"]["held_out"] == 96.5


PRIOR = "resnet20@cifar10"


def fine_tuned(*, clean: float = 90.0, protected: float = 85.0) -> Report:
    """Both strategies, from trained weights."""
    runs = [
        run(
            name,
            strategy,
            model=PRIOR,
            accuracies=(accuracy,),
            protocol=SMOKE.protocol(PRIOR, strategy, flippable=True),
        )
        for strategy in SMOKE.strategies
        for name, accuracy in (("cifar10", clean), ("ops-cifar10", protected))
    ]
    provenance = {
        "name": PRIOR,
        "architecture": "resnet20",
        "origin": "file:resnet20.th",
        "file": "mine.th",
        "sha256": "d" * 64,
    }
    return report(result=result(*runs), weights=(provenance,))


@pytest.mark.usefixtures("no_plots")
def test_what_models_were_trained_before_is_told_with_how_they_were_fine_tuned(tmp_path: Path) -> None:
    texts = written(tmp_path, fine_tuned())
    for text in texts["report.md"], Page(texts["report.html"]).text:
        assert (
            f"{PRIOR}: resnet20 from mine.th (file:resnet20.th, sha256 {'d' * 64}) with a new last layer; all layers "
            "fine-tuned for 30 epochs at learning rate 0.001, cosine schedule, gradients clipped at norm 5, images "
            "normalised as for those weights."
        ) in text
        assert f"no augmentation ({PRIOR})" in text
    content = json.loads(texts["report.json"])
    assert content["weights"] == [dict(fine_tuned().weights[0])]
    assert content["runs"][0]["protocol"]["model"] == PRIOR


def test_a_collapse_is_not_expected_of_models_that_were_trained_before() -> None:
    held = fine_tuned()
    assert {one.collapse for one in held.comparisons} == {Collapse.NOT_SHOWN}
    assert (held.unexpected, held.passed) == ((), True)
    runs = [run(name, s, accuracies=(90.0,)) for name in ("cifar10", "ops-cifar10") for s in ("none", "standard")]
    assert held.result is not None
    assert report(result=result(*held.result.runs, *runs)).unexpected == ("ops-cifar10",)
    only = [each for each in runs if each.cell.strategy == "none"]
    assert report(result=result(*held.result.runs, *only)).unexpected == (), "a strategy was not tried from scratch"


@pytest.mark.usefixtures("no_plots")
def test_what_was_not_done_has_no_section(tmp_path: Path) -> None:
    headings = re.findall(r"^#+ .*", written(tmp_path, report(result=None, separability={}))["report.md"], re.M)
    assert headings == [
        "# Verification of ops-cifar10 1.2.3",
        "## Integrity",
        "### ops-cifar10",
        "## How this was made",
    ]
    page = Page((tmp_path / "report.html").read_text())
    assert page.ids == ["integrity", "made"]
    assert page.references == ["#integrity", "#made"]
    assert "Effect not measured" in page.text
    assert "profile cannot say" not in page.text
    everything = Page(written(tmp_path / "all", busy())["report.html"]).ids
    assert everything == ["effect", "tables", "claims", "statements", "analyses", "runs", "integrity", "made"]


@pytest.mark.usefixtures("no_plots")
def test_claims_alone_make_a_report(tmp_path: Path) -> None:
    size = judged("ops-t3-wrn_28_1-params", level=CONFIRMED, measured=(0.370506,), cell=None, best=(), control=())
    given = report(datasets=(), result=None, separability={}, collapse_expected={}, claims=(size,))
    texts = written(tmp_path, given)
    assert "# Verification of claims" in texts["report.md"]
    assert "No dataset was opened." in Page(texts["report.html"]).text
    assert "| Numbers of papers | 1 claim: 1 confirmed |" in texts["report.md"]


@pytest.mark.usefixtures("no_plots")
def test_integrity_digests_environment_and_command_are_told(tmp_path: Path) -> None:
    failed = (Check("files", True, "fine"), Check("labels", False, "3 labels differ"))
    texts = written(tmp_path, report(datasets=(part(checks=failed), part("em-cifar10", manifest_digest="d" * 64))))
    assert json.loads(texts["report.json"])["passed"] is False
    assert "❌ 1 of 4 checks failed" in texts["report.md"]
    assert "| ❌ | labels | 3 labels differ |" in texts["report.md"]
    page = Page(texts["report.html"])
    assert "1 of 4 checks failed" in page.text
    for text in page.text, texts["report.md"]:
        for fact in ("a" * 64, "b" * 64, "c" * 64, "d" * 64, "7 files agree", "A chip (CPU)", "2026-01-02"):
            assert fact in text, fact
        assert "ule-verify ops-cifar10 --claims 'ops-t5-*'" in text


@pytest.mark.usefixtures("no_plots")
def test_reduced_unjudged_and_unsaved_datasets_say_so_wherever_they_are_named(tmp_path: Path) -> None:
    strange = part("em-cifar10", unjudged="its recipe is another", manifest_digest=None, checks=())
    why = Judged(verdict=Verdict.NOT_COMPARABLE, reason="its recipe is another")
    claim = judged("ops-t5-em-standard", level=why, effect=why)
    given = report(
        datasets=(part(reduced="10 images", unjudged="not compared: 10 images"), strange),
        claims=(claim,),
        result=grid("ops-cifar10", "em-cifar10"),
        separability={"em-cifar10": None},
    )
    texts = written(tmp_path, given)
    tables = markdown_tables(texts["report.md"])
    tag = "em-cifar10 (not judged, made in memory)"
    assert len(row_starting(tables, tag, "no augmentation")) == 8
    assert sum(row[0] == tag for table in tables for row in table) == 4, "effect and runs"
    assert f"- **{tag}, the perturbation**: it changes images of fewer than two classes" in texts["report.md"]
    assert f"### {tag}" in texts["report.md"]
    assert claim_row(tables, "ops-t5-em-standard")[1] == tag
    assert [tag in cell for cell in next(t for t in tables if t[0][0] == "strategy")[0]].count(True) == 1
    assert "not comparable (data not judged)" in texts["report.md"]
    assert "(**not compared: 10 images**)" in texts["report.md"]
    assert "(**its recipe is another**) (**made in memory** for this verification)" in texts["report.md"]
    rows = Page(texts["report.html"]).table("dataset", "strategy", "result")
    assert [row[0] for row in rows[:2]] == ["ops-cifar10 reduced", "em-cifar10 not judged, made in memory"]


@pytest.mark.usefixtures("no_plots")
def test_lost_runs_and_a_missing_collapse_stand_out(tmp_path: Path) -> None:
    lost = (LostRun(cell=Cell("ops-cifar10", MODEL, "mixup"), seed=7, reason="killed | three times"),)
    shown = {one.collapse for one in grid(strategies=("none",)).comparisons}
    assert shown == {Collapse.SHOWN}
    runs = [run("cifar10", s) for s in ("none", "standard")]
    runs += [run("ops-cifar10", s, accuracies=(30.0, 60.0, 60.0)) for s in ("none", "standard")]
    given = report(result=result(*runs, lost=lost))
    assert (given.unexpected, given.passed) == (("ops-cifar10",), False)
    texts = written(tmp_path, given)
    for text in texts["report.md"], Page(texts["report.html"]).text:
        assert "A collapse was expected of ops-cifar10 under at least one strategy." in text
        assert "1 of 5: their workers died" in text
    assert "| ops-cifar10 | resnet18-w8 | mixup | 7 | killed \\| three times |" in texts["report.md"]


@pytest.mark.usefixtures("no_plots")
def test_text_from_outside_cannot_break_the_page_or_the_tables(tmp_path: Path) -> None:
    bad = "<script>x</script> a|b \\| [c](http://d) `e`\n# f"
    claim = dataclasses.replace(
        all_claims()["ops-t5-ops-standard"],
        id=f"id {bad}",
        paper=f"p {bad}",
        table=f"t {bad}",
        model=f"m {bad}",
        strategy=f"s {bad}",
        train_dataset=f"d {bad}",
        note=f'"{bad}',
        metric=f"u {bad}",
    )
    why = Judged(verdict=Verdict.INCONCLUSIVE, reason=bad)
    given = report(
        datasets=(part(f"n {bad}", version=bad, title=bad, reduced=bad, checks=(Check(bad, True, bad),)),),
        claims=(
            judged("ops-t5-ops-standard", claim=claim, level=why, effect=why),
            ClaimResult(claim=dataclasses.replace(claim, id=f"other {bad}"), level=why, effect=why),
        ),
        statements=(
            StatementResult(
                statement=Statement(id=bad, paper=bad, where=bad, statement=bad, test=bad), judged=why, stand_ins=(bad,)
            ),
        ),
        command=bad,
        date=bad,
        environment={bad: bad},
    )
    texts = written(tmp_path, given)
    Page(texts["report.html"])
    assert "<script" not in texts["report.html"]
    assert 'title="id &lt;script' in texts["report.html"]
    outside_of_code = re.sub(r"```text\n.*\n```", "", texts["report.md"])
    assert "<script" not in outside_of_code
    assert not re.search(r"(?<!\\)\[c\]", outside_of_code)
    assert "\n# f" not in texts["report.md"]
    for table in markdown_tables(texts["report.md"]):
        assert {len(row) for row in table} == {len(table[0])}, table


@pytest.mark.usefixtures("no_plots")
def test_without_matplotlib_the_report_says_how_to_get_the_plots(tmp_path: Path) -> None:
    for name in PLOT_NAMES:
        (tmp_path / name).write_bytes(b"of an older report")
    texts = written(tmp_path, report())
    for name in ("report.md", "report.html"):
        assert "Plots not drawn: install ule-datasets[plots]" in texts[name]
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".png"]
    assert "![" not in texts["report.md"]


def test_another_missing_module_is_no_missing_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "matplotlib":
                raise ModuleNotFoundError("No module named 'kiwisolver'", name="kiwisolver")

    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match="kiwisolver"):
        draw_plots(report(), {})


def test_the_plots_name_what_they_show_and_are_the_same_each_time() -> None:
    given = report(claims=(judged("ops-t5-ops-standard", cell=Cell("ops-cifar10", MODEL, "standard")),))
    drawn = draw_plots(given, {"ops-cifar10": "ops-cifar10 (reduced)"})
    assert drawn is not None
    accuracy, bars = drawn
    for text in (
        "no augmentation: collapse shown",
        "standard: collapse not shown",
        "chance",
        "best epoch",
        "61.2",
        "52.2",
        "clean control",
        "ops-cifar10 (reduced)",
    ):
        assert text in accuracy.svg, text
    signs = ("9.5", "52.2", "15.56", "reported; measured with another model or other data")
    for text in ("no augmentation", "standard", "clean control", "ops-cifar10", "(reduced)", *signs):
        assert text in bars.svg, text
    assert draw_plots(given, {"ops-cifar10": "ops-cifar10 (reduced)"}) == drawn


def seen(colour: str, kind: str) -> np.ndarray:
    """As an eye of some kind sees it (Machado, Oliveira and Fernandes, 2009), in CIE L*a*b*."""
    kinds = {
        "protanopia": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deuteranopia": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "tritanopia": [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
        "all": np.eye(3).tolist(),
    }
    xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    levels = np.frombuffer(bytes.fromhex(colour[1:]), dtype=np.uint8) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    x, y, z = np.array(xyz) @ np.clip(np.array(kinds[kind]) @ linear, 0, 1) / (0.95047, 1, 1.08883)
    root = [t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z)]
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


@pytest.mark.parametrize("kind", ["all", "protanopia", "deuteranopia", "tritanopia"])
def test_every_eye_tells_the_colours_of_datasets_apart(kind: str) -> None:
    colours = [seen(colour, kind) for colour in (CONTROL, *PALETTE)]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(colours, 2)) > 15
    assert all(35 < colour[0] < 75 for colour in (seen(c, "all") for c in PALETTE)), "on white and on black"


@pytest.mark.parametrize(
    ("values", "heights"),
    [
        ([80.0, 20.0, 50.0], [80.0, 20.0, 50.0]),
        ([20.0, 20.0], [17.0, 23.0]),
        ([99.0, 98.0, 10.0], [100.0, 94.0, 10.0]),
        ([1.0, 0.0], [6.0, 0.0]),
    ],
)
def test_labels_of_close_curves_do_not_overlap(values: list[float], heights: list[float]) -> None:
    assert _apart(values, gap=6.0) == pytest.approx(heights)


def test_many_strategies_datasets_and_models_are_drawn_in_rows(tmp_path: Path) -> None:
    from PIL import Image

    names = [f"set-{number}" for number in range(8)]
    strategies = ("none", "standard", "cutout", "linf-at", "linf-at+cutout")
    runs = [
        run(name, strategy, accuracies=(20.0, 30.0, 10.0 + 9 * index))
        for strategy in strategies
        for index, name in enumerate(("cifar10", *names))
    ]
    given = report(datasets=tuple(part(name) for name in names), result=result(*runs), collapse_expected={})
    write_report(given, tmp_path)
    for name in ("accuracy.png", "strategies.png"):
        width, height = Image.open(tmp_path / name).size
        assert width < 2000, name
        assert height > 700, name


def test_json_holds_every_epoch_and_the_verdicts(tmp_path: Path) -> None:
    content = json.loads(report(claims=(judged("ops-t5-ops-standard", measured=(15.0, float("nan"))),)).to_json())
    assert content["schema"] == "ule-datasets report 2"
    assert (content["passed"], content["intact"]) == (True, True)
    assert [one["collapse"] for one in content["comparisons"]] == ["collapse shown", "collapse not shown"]
    first = content["runs"][0]
    assert (first["dataset"], first["strategy"], first["seed"]) == ("cifar10", "none", 0)
    assert [record["test_accuracy"] for record in first["epochs"]] == [20.0, 40.0, 61.25]
    assert first["after_epoch"] == {"1": 20.0, "2": 40.0}
    assert first["first_fitted_epoch"] == 2
    (claim,) = content["claims"]
    assert (claim["id"], claim["verdict"], claim["reported"]) == ("ops-t5-ops-standard", "inconclusive", 15.56)
    assert claim["measured"] == [15.0, None], "not finite"


def test_the_environment_names_hardware_and_versions_and_neither_host_nor_paths() -> None:
    environment = describe_environment(torch.device("cpu"))
    assert {"device", "processor", "cores", "system", "python", "torch", "numpy", "ule-datasets"} <= set(environment)
    assert environment["torch"] == torch.__version__
    assert not any(str(Path.home()) in value or str(Path.cwd()) in value for value in environment.values())


def test_claims_of_no_paper_have_a_table_too() -> None:
    own = Claim(
        id="mine",
        paper="own",
        table="1",
        metric="clean test accuracy, %",
        value=12.0,
        train_dataset="ops-digits",
        test_dataset="digits-test",
        model=MODEL,
        strategy="none",
        regime=Regime.COLLAPSED,
    )
    (table,) = paper_tables((ClaimResult(claim=own, level=OPEN, effect=OPEN),))
    assert (table.paper, table.columns) == ("own", (("ops-digits", ""),))
    assert table.rows[0][0] == ("no augmentation", "")
    assert table.about == f"{MODEL}, digits-test, clean test accuracy, %"
