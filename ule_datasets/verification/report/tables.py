"""The tables of a report: what training showed, and the papers' tables with measurements beside what they print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ule_datasets.analyses.telling import Column, Marked, Named, Row, Table, numbers
from ule_datasets.analyses.telling import words as text_columns
from ule_datasets.experiments.effect import MARGIN
from ule_datasets.papers.claims import Claim
from ule_datasets.papers.rules import COLLAPSED, FAILED
from ule_datasets.verification.judging import ClaimResult
from ule_datasets.verification.report.content import Report, strategy_words
from ule_datasets.verification.report.words import collapse_tone

WIDE = 8
"""Tables of a paper with more datasets than this have them as rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A number in a paper's table."""

    result: ClaimResult

    @property
    def claim(self) -> Claim:
        """What the paper says."""
        return self.result.claim

    @property
    def measured(self) -> bool:
        """Whether there is a measurement beside it."""
        return bool(self.result.measured)


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperTable:
    """A table of a paper, with what was measured beside what it prints."""

    paper: str
    """The paper's key."""
    number: str
    """``text``: sentences, not a table."""
    about: str
    """What all its numbers share."""
    corner: str
    """What its rows are."""
    columns: tuple[tuple[str, str], ...]
    """(dataset or other slug, what else tells this column from the others); by rows where there are many datasets."""
    rows: tuple[tuple[tuple[str, str], tuple[tuple[Entry, ...], ...]], ...]
    """(head like those of the columns, entries column by column)."""

    @property
    def measured(self) -> int:
        """How many of its numbers have a measurement."""
        return sum(entry.measured for _, cells in self.rows for cell in cells for entry in cell)


ROW_FIELDS = {
    "strategy": "strategy",
    "variant": "variant",
    "model": "model",
    "test_dataset": "evaluated on",
    "metric": "metric",
}
"""Fields of a claim that may tell the rows of a table apart, and their heads."""


def effect_legend(report: Report) -> str:
    """What the table of effects has in its columns."""
    best = "Best epoch: the protected model's, chosen by looking at the test images. "
    return (
        "Protected, clean control: how many clean test images a model gets right that was trained on the protected "
        f"images, and on the same images before, after the last epoch. {'' if report.profile.own else best}Fitted: how "
        "much of its own training images it gets right. Over several seeds: mean ± standard deviation. Collapse shown: "
        f"at least {MARGIN:g} points below the control, and at most {100 * COLLAPSED:g} % of the way from chance to "
        f"it; partial collapse: at most {100 * FAILED:g} % of it."
    )


def effect_table(report: Report) -> Table:
    """What training on each dataset showed; a column that would say one thing is left out."""
    if report.result is None:
        return Table([], [])
    several = {what: len({getattr(one, what) for one in report.comparisons}) > 1 for what in ("dataset", "model")}
    several["dataset"] |= len(report.datasets) > 1
    columns: list[Column] = [
        *(text_columns("dataset") if several["dataset"] else []),
        *text_columns("strategy"),
        *(text_columns("model") if several["model"] else []),
        *text_columns("result"),
        *numbers("protected", strong=True),
        *numbers("clean control", "chance", *([] if report.profile.own else ["best epoch"]), "fitted"),
    ]
    rows: list[Row] = [
        (
            *([Named(one.dataset)] if several["dataset"] else []),
            strategy_words(one.strategy),
            *([one.model] if several["model"] else []),
            Marked(str(one.collapse), collapse_tone(report, one)),
            one.poisoned.percent,
            one.clean.percent,
            f"{report.result.chance(one.dataset):.1f} %",
            *([] if report.profile.own else [one.poisoned_best.percent]),
            one.poisoned_train.percent,
        )
        for one in report.comparisons
    ]
    return Table(columns, rows)


def paper_tables(claims: Sequence[ClaimResult]) -> tuple[PaperTable, ...]:
    """The papers' tables, laid out as printed, with the rows and columns of these claims.

    Columns are the datasets trained on; rows are what varies among claims on the same one.
    """
    tables: dict[tuple[str, str], list[Entry]] = {}
    for result in claims:
        tables.setdefault((result.claim.paper, result.claim.table), []).append(Entry(result=result))
    return tuple(_paper_table(entries) for entries in tables.values())


def _paper_table(entries: Sequence[Entry]) -> PaperTable:
    claims = [entry.claim for entry in entries]
    by_dataset: dict[str, list[Claim]] = {}
    for claim in claims:
        by_dataset.setdefault(claim.train_dataset, []).append(claim)
    varying = [
        name for name in ROW_FIELDS if any(len({getattr(c, name) for c in own}) > 1 for own in by_dataset.values())
    ]
    if not varying and any(claim.train_dataset != "none" for claim in claims):
        varying = ["strategy"]  # a row has a head
    metrics = len({claim.metric for claim in claims}) > 1 and "metric" not in varying
    cells: dict[tuple[tuple[str, str], tuple[str, str]], list[Entry]] = {}
    for entry in entries:
        claim = entry.claim
        words = {name: getattr(claim, name) or "as the paper proposes" for name in varying}
        row = " · ".join(strategy_words(word) if name == "strategy" else word for name, word in words.items()), ""
        dataset = "" if claim.train_dataset == "none" else claim.train_dataset
        column = dataset, claim.metric if metrics or not dataset else ""
        cells.setdefault((row, column), []).append(entry)
    rows, columns = (list(dict.fromkeys(place[axis] for place in cells)) for axis in (0, 1))
    corner = " · ".join(ROW_FIELDS[name] for name in varying)
    turned = len(columns) > WIDE and len(columns) > len(rows)
    lines, heads = (columns, rows) if turned else (rows, columns)
    return PaperTable(
        paper=claims[0].paper,
        number=claims[0].table,
        about=", ".join(_shared(claims, [name for name in ROW_FIELDS if name not in varying])),
        corner="trained on" if turned else corner,
        columns=tuple(heads),
        rows=tuple(
            (line, tuple(tuple(cells.get((head, line) if turned else (line, head), ())) for head in heads))
            for line in lines
        ),
    )


def _shared(claims: Sequence[Claim], names: Iterable[str]) -> list[str]:
    """The values that all claims have in common, of those fields; nothing for what no claim has."""
    trained = any(claim.train_dataset != "none" for claim in claims)
    found = [list(dict.fromkeys(getattr(claim, name) for claim in claims)) for name in names]
    values = [each[0] for each in found if len(each) == 1 and each[0]]
    return [strategy_words(value) if trained else value for value in values if trained or value != "none"]
