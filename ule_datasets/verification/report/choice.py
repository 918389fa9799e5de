"""What a report tells at length: all that was asked for, and of what was not asked for what its profile can judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ule_datasets.analyses.telling import Section
from ule_datasets.base.shown import counted
from ule_datasets.papers.rules import Power
from ule_datasets.papers.statistics import Verdict
from ule_datasets.verification.judging import ClaimResult, StatementResult
from ule_datasets.verification.report.content import Report

DECIDED = frozenset({Verdict.CONFIRMED, Verdict.REFUTED, Verdict.CONSISTENT, Verdict.NOT_CONSISTENT})


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What the page and the text have of a report; report.json has all of it."""

    claims: tuple[ClaimResult, ...]
    statements: tuple[StatementResult, ...]
    sections: Mapping[str, Section]
    """Of analyses, by their names."""
    left_out: str
    """What else there is, and that nobody asked for; empty: nothing."""


def told_of(report: Report) -> Told:
    """What of a report is told.

    What papers say about a dataset is told where it was measured, by a profile that can judge something of it; what
    is refuted is told in any case.
    """
    beside, judges = report.beside, report.profile.power is not Power.NONE
    claims = [one for one in report.claims if one.claim.id not in beside or one.refuted or (judges and one.measured)]
    statements = [
        one
        for one in report.statements
        if one.statement.id not in beside or one.refuted or (judges and one.judged.verdict in DECIDED)
    ]
    found = {} if report.result is None else report.findings.sections(report.result)
    sections = {name: section for name, section in found.items() if name not in beside or judges}
    numbers = {
        "printed number": len(report.claims) - len(claims),
        "statement": len(report.statements) - len(statements),
        "analysis": len(found) - len(sections),
    }
    several = {"analysis": "analyses"}
    left = [counted(number, what, several.get(what, "")) for what, number in numbers.items() if number]
    return Told(claims=tuple(claims), statements=tuple(statements), sections=sections, left_out=", ".join(left))
