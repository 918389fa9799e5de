"""How soon the training data is fitted, protected and clean.

The One-Pixel Shortcut paper says (section 4.2) that protected data is fitted within a few epochs. Everything is read
off histories. How completely: ``ule_datasets.analyses.ending``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ule_datasets.analyses.analysis import RUNS_FOR_A_VERDICT, TOO_FEW, Analysis, Material
from ule_datasets.analyses.displacement import THRESHOLD, check_comparable, crossing, judge_ops_and_em
from ule_datasets.analyses.telling import Named, Row, Section, Table, listed, numbers, words
from ule_datasets.base.errors import InputError
from ule_datasets.experiments.grid import GridResult
from ule_datasets.papers.ops import CLEAN, EM, OPS
from ule_datasets.papers.statistics import Judged, Verdict, below
from ule_datasets.victims.history import RunHistory


@dataclass(frozen=True, kw_only=True, slots=True)
class FittingResult:
    """How soon runs of one protocol fit their training data."""

    threshold: float
    clean_final: tuple[float, ...]
    """Training accuracy of the last epoch, percent; one per run."""
    protected_final: tuple[float, ...]
    clean_first: tuple[int | None, ...]
    """The first epoch at the threshold, one per run; ``None``: never."""
    protected_first: tuple[int | None, ...]
    judged: Judged
    """Whether protected data reaches the threshold in an earlier epoch."""


def compare_fitting(clean: Sequence[RunHistory], protected: Sequence[RunHistory]) -> FittingResult:
    """Whether protected data is fitted earlier than clean data.

    By Welch's interval of the difference of the first epochs at ``THRESHOLD``. A run that never got there counts as one
    epoch longer than it was, the least it can be; where that would favour the verdict it is inconclusive. No verdict
    below three runs each.

    Raises:
        InputError: the runs cannot be compared (see ``compare``), or their strategy cannot be expected to fit: mixing,
            an attack, or RandAugment with Cutout.
    """
    check_comparable(clean, protected)
    for run in (*clean, *protected):
        strategy = run.protocol.strategy
        if strategy.having("mix") or strategy.having("attack") or len(strategy.parts) > 1:
            raise InputError(
                f"runs under {strategy} cannot be expected to fit their data; this statement is about strategies "
                "without mixing, attack, or RandAugment together with Cutout"
            )
    sides = (clean, protected)
    final = [tuple(run.last.train_accuracy for run in side) for side in sides]
    firsts = [tuple(None if (at := crossing(run)) is None else at.epoch for run in side) for side in sides]
    if not clean or not protected:
        judged = Judged(Verdict.NOT_RUN, "no run was made on one of the two")
    else:
        judged = _earlier(firsts, clean[0].protocol.epochs + 1)
        if min(len(clean), len(protected)) < RUNS_FOR_A_VERDICT:
            judged = Judged(Verdict.INCONCLUSIVE, f"{judged.reason}; {TOO_FEW}")
    return FittingResult(
        threshold=THRESHOLD,
        clean_final=final[0],
        protected_final=final[1],
        clean_first=firsts[0],
        protected_first=firsts[1],
        judged=judged,
    )


def _earlier(firsts: Sequence[tuple[int | None, ...]], least: int) -> Judged:
    clean, protected = ([float(least if epoch is None else epoch) for epoch in side] for side in firsts)
    judged = below(protected, clean, paired=False)
    reason = f"first fitted epoch, protected minus clean: {judged.reason}"
    never = [side.count(None) for side in firsts]
    if any(never):
        reason += f"; never fitted: {never[0]} clean, {never[1]} protected, counted as epoch {least}"
    unsafe = (judged.verdict is Verdict.CONFIRMED and never[1]) or (judged.verdict is Verdict.REFUTED and never[0])
    return Judged(Verdict.INCONCLUSIVE if unsafe else judged.verdict, reason)


class Fitting(Analysis[Mapping[str, FittingResult]]):
    """Whether protected data is fitted earlier than clean data."""

    name = key = "fitting"
    title = "Fitting the training data"
    nothing: ClassVar = {}
    always = True
    statements: ClassVar = {"ops-q-fitted-early": (CLEAN, OPS, EM)}

    def run(self, material: Material) -> dict[str, FittingResult]:
        """Every dataset beside its control, of standard training."""
        return {name: compare_fitting(clean, protected) for name, clean, protected in material.beside_controls()}

    def judge(self, found: Mapping[str, FittingResult], statement: str, roles: Mapping[str, str]) -> Judged:
        """It must hold of OPS and of EM."""
        return judge_ops_and_em({name: each.judged for name, each in found.items()}, roles)

    def tell(self, found: Mapping[str, FittingResult], result: GridResult) -> Section:
        """A row for each dataset."""
        columns = words("dataset") + numbers("last training accuracy, clean", "protected")
        columns += numbers(f"first epoch at {THRESHOLD:g} %, clean", "protected")
        columns += words("earlier than clean")
        rows: list[Row] = []
        for name, each in found.items():
            final = (listed(values) for values in (each.clean_final, each.protected_final))
            first = (listed(values, "never") for values in (each.clean_first, each.protected_first))
            rows.append((Named(name), *final, *first, each.judged))
        return Section(table=Table(columns, rows), note="One value per seed.")
