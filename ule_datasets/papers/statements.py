"""The statements of all papers that are comparisons between cells; those that analyses judge are not here."""

from __future__ import annotations

from collections.abc import Mapping

from ule_datasets.base.errors import InputError
from ule_datasets.papers import ops
from ule_datasets.papers.rules import Cell, Cells, Parts, judge_parts
from ule_datasets.papers.statistics import Judged

COMPARISONS: dict[str, Parts] = {**ops.STATEMENTS}
"""By the statement's id; a paper's own are in its module here."""


def cells_of_statement(statement_id: str) -> tuple[Cell, ...]:
    """The cells that a statement speaks of, controls included, in the catalogue's slugs; each once."""
    return tuple(dict.fromkeys(cell for part in _parts(statement_id)(0.0) for cell in part.needs))


def judge_statement(statement_id: str, cells: Cells, *, chance: float, roles: Mapping[str, str]) -> Judged:
    """What accuracies say about a statement, see ``judge_parts``."""
    return judge_parts(_parts(statement_id)(chance), cells, chance=chance, roles=roles)


def _parts(statement_id: str) -> Parts:
    if statement_id not in COMPARISONS:
        raise InputError(f"no statement {statement_id!r} compares cells; there are: {', '.join(COMPARISONS)}")
    return COMPARISONS[statement_id]
