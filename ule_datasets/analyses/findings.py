"""Analyses made and asked: whatever they are, by what they all have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ule_datasets.analyses import ANALYSES
from ule_datasets.analyses.analysis import Analysis, Material
from ule_datasets.analyses.telling import Section
from ule_datasets.experiments.grid import GridResult
from ule_datasets.papers.claims import Claim
from ule_datasets.papers.statistics import Judged, Verdict

OPTIONAL = tuple(name for name, analysis in ANALYSES.items() if not analysis.always)
"""Analyses that are made where they are asked for."""
ROLES = tuple(dict.fromkeys(slug for analysis in ANALYSES.values() for slug in analysis.roles))
"""Datasets, in the papers' names, whose models analyses look at."""
FIGURES = tuple(name for name, analysis in ANALYSES.items() if analysis.draws)
"""Those that draw a chart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What the analyses found."""

    roles: Mapping[str, str] = field(default_factory=dict)
    """The papers' names of datasets to those that were looked at."""
    found: Mapping[str, Any] = field(default_factory=dict)
    """By the analysis' name; those that are not in it were not made."""

    def judged(self, statement: str) -> Judged:
        """The verdict on a statement that an analysis judges."""
        analysis = judging(statement)
        assert analysis is not None, f"no analysis judges {statement}"
        found = self.found.get(analysis.name, analysis.nothing)
        if not found and not analysis.always:
            return Judged(Verdict.NOT_RUN, "the analysis was not run")
        return analysis.judge(found, statement, self.roles)

    def values(self, claim: Claim) -> tuple[float, ...]:
        """What an analysis measured for a claim, one value per seed; none: it was not made."""
        analysis = measuring(claim)
        found = None if analysis is None else self.found.get(analysis.name)
        return analysis.values(found, claim, self.roles) if analysis is not None and found else ()

    @property
    def content(self) -> dict[str, Any]:
        """What report.json has of them, by the key of the analysis."""
        return {"roles": self.roles, **{a.key: self.found.get(name, a.nothing) for name, a in ANALYSES.items()}}

    def sections(self, result: GridResult) -> dict[str, Section]:
        """What a report tells, by the analysis' name."""
        return {name: a.tell(found, result) for name, a in ANALYSES.items() if (found := self.found.get(name))}


def analyse(material: Material, names: Iterable[str]) -> Findings:
    """Make the analyses of these names, and those that come with every run."""
    asked = frozenset(names)
    made = {name: a.run(material) for name, a in ANALYSES.items() if a.always or name in asked}
    return Findings(roles=dict(material.roles), found=made)


def judging(statement: str) -> Analysis[Any] | None:
    """The analysis that judges a statement; ``None``: it is one over accuracies."""
    return next((analysis for analysis in ANALYSES.values() if statement in analysis.statements), None)


def measuring(claim: Claim) -> Analysis[Any] | None:
    """The analysis that measures a claim's number; ``None``: it is an accuracy, or something else."""
    return next((analysis for analysis in ANALYSES.values() if analysis.speaks_of(claim)), None)
