"""What papers print about a dataset beside what was measured on it: one table, in which every number stands once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ule_datasets.base.shown import counted, joined
from ule_datasets.papers.claims import Claim

NOTHING = "–"


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow:
    """One way of training: what is printed of it, and one measurement; either may be missing."""

    model: str
    strategy: str
    reported: str = NOTHING
    where: str = ""
    measured: str = NOTHING
    control: str = NOTHING
    how: str = ""
    """Profile, seeds and hardware."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """What a card has of papers and measurements."""

    rows: tuple[ResultRow, ...]
    apart: tuple[ResultRow, ...]
    """Measured on another craft of the same recipe, or on one of an older recipe."""
    verdicts: tuple[dict[str, Any], ...]
    """On printed numbers, by measurements on this very perturbation."""
    commands: tuple[str, ...]
    """Those that measured, in order; each once."""


def results_of(claims: Iterable[Claim], measured: Sequence[Mapping[str, Any]], perturbation: str | None) -> Results:
    """Printed and measured accuracies; ``perturbation`` is the digest of the one that the card is about.

    Where that is not known yet (``None``), all measurements count as of it.
    """
    printed = _printed(claims)
    own = [row for row in measured if perturbation in (None, row.get("perturbation_digest"))]
    others = [row for row in measured if row not in own]
    rows: list[ResultRow] = []
    for (model, strategy), numbers in printed.items():
        runs = [_measured(row) for row in own if (row["model"], row["strategy"]) == (model, strategy)]
        for index in range(max(len(numbers), len(runs))):
            told = dict(zip(("reported", "where"), numbers[index], strict=True)) if index < len(numbers) else {}
            rows.append(ResultRow(model=model, strategy=strategy, **told, **(runs[index] if index < len(runs) else {})))
    rows += [_alone(row) for row in own if (row["model"], row["strategy"]) not in printed]
    rows.sort(key=lambda row: not row.how)  # what was measured is what is looked for
    verdicts = tuple(
        {"profile": row["profile"], **claim}
        for row in own
        for claim in row.get("claims", ())
        if "reason" in claim and not claim["stand_in"]
    )
    return Results(
        rows=tuple(rows),
        apart=tuple(_alone(row) for row in others),
        verdicts=verdicts,
        commands=tuple(dict.fromkeys(row["command"] for row in (*own, *others))),
    )


def _printed(claims: Iterable[Claim]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """By model and strategy: (number, where it is printed), each number of a paper once."""
    found: dict[tuple[str, str], dict[tuple[str, str], dict[str, None]]] = {}
    for claim in claims:
        _, _, model, strategy = claim.experiment
        places = found.setdefault((model, strategy), {}).setdefault((claim.paper, claim.printed), {})
        places[claim.table] = None
    return {
        how: [(number, _where(paper, list(places))) for (paper, number), places in numbers.items()]
        for how, numbers in found.items()
    }


def _where(paper: str, tables: Sequence[str]) -> str:
    """``OPS paper, Tables 2 and 5``."""
    numbered = [table for table in tables if table != "text"]
    words = [f"Table{'s' if numbered[1:] else ''} {joined(numbered)}"] if numbered else []
    return f"{paper.upper()} paper, {' and '.join([*words, *(['text'] if 'text' in tables else [])])}"


def _measured(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "measured": _mean(row["poisoned"], row["poisoned_sd"]),
        "control": _mean(row["clean"], row["clean_sd"]),
        "how": f"{row['profile']}, {counted(len(row['seeds']), 'seed')}, {row['hardware']}",
    }


def _alone(row: Mapping[str, Any]) -> ResultRow:
    return ResultRow(model=row["model"], strategy=row["strategy"], **_measured(row))


def _mean(value: float, sd: float | None) -> str:
    return f"{value:.1f}" + ("" if sd is None else f" ± {sd:.1f}")
