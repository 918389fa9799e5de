"""The papers' tables, with what was measured beside what they print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ule_datasets.papers.claims import Claim, all_claims
from ule_datasets.verification.judging import ClaimResult
from ule_datasets.verification.report.content import strategy_words

WIDE = 8
"""Tables of a paper with more datasets than this have them as rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A number in a paper's table."""

    claim: Claim
    result: ClaimResult | None
    """``None``: the report does not speak of it."""

    @property
    def measured(self) -> bool:
        """Whether there is a measurement beside it."""
        return self.result is not None and bool(self.result.measured)


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


def paper_tables(claims: Sequence[ClaimResult]) -> tuple[PaperTable, ...]:
    """Every table that the report has a claim of, whole and laid out as the paper has it.

    Columns are the datasets trained on; rows are what varies among claims on the same one.
    """
    results = {result.claim.id: result for result in claims}
    wanted = {(result.claim.paper, result.claim.table) for result in claims}
    tables: dict[tuple[str, str], list[Entry]] = {}
    for claim in {**all_claims(), **{result.claim.id: result.claim for result in claims}}.values():
        if (claim.paper, claim.table) in wanted:
            entry = Entry(claim=claim, result=results.get(claim.id))
            tables.setdefault((claim.paper, claim.table), []).append(entry)
    return tuple(_paper_table(entries) for entries in tables.values())


def _paper_table(entries: Sequence[Entry]) -> PaperTable:
    claims = [entry.claim for entry in entries]
    by_dataset: dict[str, list[Claim]] = {}
    for claim in claims:
        by_dataset.setdefault(claim.train_dataset, []).append(claim)
    varying = [
        name for name in ROW_FIELDS if any(len({getattr(c, name) for c in own}) > 1 for own in by_dataset.values())
    ]
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
