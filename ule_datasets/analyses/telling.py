"""What an analysis tells in a report, without saying how that is written: text, tables, verdicts and charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ule_datasets.papers.statistics import Judged


@dataclass(frozen=True, slots=True)
class Named:
    """A dataset, which the report calls by its name and whatever must be said with it."""

    dataset: str


@dataclass(frozen=True, slots=True)
class Marked:
    """Words that stand out."""

    words: str
    tone: str
    """``good``, ``part``, ``bad`` or ``open``."""


Cell = str | Named | Judged | Marked | tuple[str, ...]
"""Text, a dataset, a verdict with its reason, what stands out, or several lines of which the first is the main one."""
Row = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """Of a table."""

    head: str
    number: bool = False
    """Aligned to the right."""
    strong: bool = False
    """What the table is about."""
    dataset: str = ""
    """Named after the head."""


def words(*heads: str) -> list[Column]:
    """Columns of text, datasets and verdicts."""
    return [Column(head) for head in heads]


def numbers(*heads: str, strong: bool = False) -> list[Column]:
    """Columns of numbers."""
    return [Column(head, number=True, strong=strong) for head in heads]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with a cell for each column."""

    columns: Sequence[Column]
    rows: Sequence[Row]

    def __post_init__(self) -> None:
        for row in self.rows:
            assert len(row) == len(self.columns), f"{row} has another number of cells than {self.columns}"


@dataclass(frozen=True, slots=True)
class Said:
    """A verdict beside a table; on one of several datasets, with what tells it from the others."""

    judged: Judged
    dataset: str = ""
    words: str = ""


FILLED, HOLLOW = "filled", "hollow"


@dataclass(frozen=True, slots=True)
class Trace:
    """A curve of a dataset's runs, or marks on it."""

    dataset: str
    x: Sequence[float]
    y: Sequence[float]
    sign: str = ""
    """``FILLED`` or ``HOLLOW``; empty: a curve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """Over the epochs; a panel for each dataset, its control's curves included."""

    alt: str
    """What it shows, for those who do not see it."""
    y: str
    """What the curves are of."""
    filled: str
    """What such marks mean."""
    hollow: str
    panels: Mapping[str, Sequence[Trace]]


@dataclass(frozen=True, slots=True)
class Plane:
    """Values on a square grid; ``None`` where there is none."""

    title: str
    dataset: str
    """Named before the title; empty: none."""
    grid: Sequence[float]
    values: Sequence[Sequence[float | None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contours:
    """Planes side by side, with the same levels in a row; a row without two different values above 0 is left out."""

    alt: str
    x: str
    y: str
    rows: Sequence[Sequence[Plane]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """What stands below a heading of the report, in this order."""

    about: str = ""
    """How to read the table; words between asterisks stand out."""
    table: Table
    note: str = ""
    verdicts: Sequence[Said] = ()
    chart: Curves | Contours | None = None


def number(value: float | None, form: str = ".1f") -> str:
    """A number as the tables have it, percentages with one digit; a dash for ``None``."""
    return "–" if value is None else format(value, form)


def listed(values: Sequence[float | None], none: str = "") -> str:
    """Values of several seeds in one cell."""
    return ", ".join(none if v is None else number(v) if isinstance(v, float) else str(v) for v in values)
