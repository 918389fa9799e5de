"""What measured accuracies say about a printed claim: its level, its effect, and the gates that runs must pass.

Pure functions on numbers; nothing is trained or read here. Accuracies are percentages on the 0 to 100 scale. The rules
never ask which verdict would be welcome: too few runs, a control that did not learn or an open gate end in
*inconclusive* or *not comparable*, with the numbers in the reason.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ule_datasets.base.errors import InputError
from ule_datasets.papers.claims import WITHOUT_EFFECT, Claim, Regime
from ule_datasets.papers.statistics import Estimate, Judged, Verdict, all_finite, verdict_of, welch

LEARNED = 0.25
"""A control has learned when it covers this share of the way from chance to 100 %."""
COLLAPSED = 0.25
"""A protection holds up to this share of the way from chance to the control."""
FAILED = 0.5
"""From this share on a protection has failed."""
RESTORED = 0.85
"""From this share on a countermeasure restores."""
COST_FACTOR = 3.0
"""A time agrees with the printed one within this factor, on similar hardware."""
SEEDS_FOR_CONSISTENCY = 3
"""Runs that a shortened profile trains."""


class Power(StrEnum):
    """What a profile may say about a printed number; effects may be judged with any of them."""

    FULL = "full"
    """The paper's protocol: confirmed or refuted."""
    CONSISTENCY = "consistency"
    """A shortened schedule: at most consistent or not consistent."""
    EFFECTS = "effects"
    """Another network, which learns all of the data: nothing; but of effects, how much is recovered too."""
    NONE = "none"
    """Part of the data: nothing; of effects, whether there is a collapse."""

    @property
    def judges_numbers(self) -> bool:
        """Whether anything may be said about a printed number."""
        return self in (Power.FULL, Power.CONSISTENCY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """How far a measured mean may lie from a printed number; all in the unit of the number."""

    delta: float
    """Up to this distance they agree."""
    slack: float
    """Beyond ``delta`` plus this they disagree."""
    floor: float
    """The sample deviation is not taken below this."""
    seeds: int
    """Runs needed, at least."""

    def __post_init__(self) -> None:
        if min(self.delta, self.slack, self.floor) < 0 or self.seeds < 1:
            raise InputError(f"{self}: delta, slack and floor must be at least 0, seeds at least 1")


TOLERANCES: dict[str, Tolerance] = {
    "baseline": Tolerance(delta=1.5, slack=0.5, floor=0.2, seeds=3),
    "baseline, wide": Tolerance(delta=3, slack=1, floor=0.5, seeds=3),
    "recovered": Tolerance(delta=3, slack=1, floor=0.5, seeds=3),
    "partial": Tolerance(delta=8, slack=3, floor=2, seeds=5),
    "collapsed": Tolerance(delta=6, slack=2, floor=1.5, seeds=5),
    "collapsed, at chance": Tolerance(delta=1.5, slack=2, floor=0.5, seeds=5),
    "analysis, at the ends": Tolerance(delta=1, slack=2, floor=0.2, seeds=3),
    "analysis, low": Tolerance(delta=6, slack=2, floor=0.5, seeds=3),
    "analysis": Tolerance(delta=10, slack=2, floor=0.5, seeds=3),
    "printed with spread": Tolerance(delta=12, slack=0, floor=2, seeds=5),
    "size": Tolerance(delta=0.005, slack=0, floor=0, seeds=1),
    "cost": Tolerance(delta=math.log(COST_FACTOR), slack=0, floor=0, seeds=3),
}
"""By kind of claim, see ``tolerance_of``. Sizes are in millions, costs are compared by their natural logarithms."""
NARROW_TESTS = ("cifar10-test", "cifar100-test")
"""Where clean accuracy hardly varies between runs."""
AT_CHANCE = (9.7, 11.1)
"""Accuracies on ten classes that are no better than guessing."""


def tolerance_of(claim: Claim) -> Tolerance:
    """The tolerance of a printed number, by regime.

    Clean baselines are *wide* for adversarial training, LeNet and anything that is not tested on CIFAR; collapsed
    values from 9.7 to 11.1 on ten classes are *at chance*; analyses are at an end (such a value, or above 99),
    *low* (up to 30) or neither. The deviation's floor of the two narrowest rows is lowered from their regime's,
    because with that floor the smallest allowed number of runs could never confirm a claim.
    """
    low, high = AT_CHANCE
    match claim.regime:
        case Regime.SIZE | Regime.COST | Regime.RECOVERED:
            kind = str(claim.regime)
        case Regime.BASELINE:
            kind = "baseline, wide" if is_wide(claim) else "baseline"
        case Regime.ANALYSIS if low <= claim.value <= high or claim.value > 99:
            kind = "analysis, at the ends"
        case Regime.ANALYSIS:
            kind = "analysis, low" if claim.value <= 30 else "analysis"
        case _ if claim.std is not None and claim.runs is not None:
            kind = "printed with spread"
        case Regime.COLLAPSED if claim.chance == 10 and low <= claim.value <= high:
            kind = "collapsed, at chance"
        case _:
            kind = str(claim.regime)
    return TOLERANCES[kind]


def is_wide(claim: Claim) -> bool:
    """Whether clean accuracy varies much between runs: adversarial training, LeNet, other tests than CIFAR's."""
    adversarial = any(part.startswith(("linf-at", "l2-at", "at-rho")) for part in claim.strategy.split("+"))
    return adversarial or claim.model == "lenet5" or claim.test_dataset not in NARROW_TESTS


# Level


def judge_level(claim: Claim, values: Sequence[float], *, power: Power, tolerance: Tolerance | None = None) -> Judged:
    """Whether the printed number comes out.

    With m the mean of n runs, D its distance to the number, h_mean and h_new the half widths of the mean's and of a
    further run's 95 % interval (the deviation not below the tolerance's floor): *confirmed* if D <= delta and
    h_mean <= delta; *refuted* if D > delta + slack and D > h_new; else *inconclusive*. A number printed with its own
    spread is compared as two samples by Welch's test: confirmed if the interval of the difference lies within delta,
    refuted if it excludes 0 and D > delta + slack. Parameter counts must agree to the last printed digit, whatever
    the power. Times are compared by their logarithms and never refuted, because they depend on hardware and code.

    With ``Power.CONSISTENCY`` the same rules give *consistent* and *not consistent*, from three runs on.

    A refutation speaks of the protocol that was run. Where the paper leaves choices open, they are the caller's to try.
    Values are one result per seed, last epoch, in the claim's unit; of analyses one per model, mean over permutations.
    """
    if not values:
        return Judged(Verdict.NOT_RUN, "no run was made")
    if not all_finite(values):
        return Judged(Verdict.INCONCLUSIVE, f"a result is not finite: {list(values)}")
    tolerance = tolerance or tolerance_of(claim)
    if claim.regime is Regime.SIZE:
        return _judge_size(claim, values, tolerance)
    if not power.judges_numbers:
        return Judged(Verdict.NOT_COMPARABLE, "the profile says nothing about a printed number")
    if claim.regime is Regime.COST:
        return _judge_cost(claim, values, tolerance, power)
    if len(values) == 1:
        return Judged(Verdict.INCONCLUSIVE, f"one seed: {values[0]:.2f} measured, {claim.value:g} printed")
    estimate = Estimate(tuple(values))
    compare = _against_one_run if claim.std is None or claim.runs is None else _against_series
    agrees, differs, reason = compare(claim, estimate, tolerance)
    seeds = tolerance.seeds if power is Power.FULL else min(tolerance.seeds, SEEDS_FOR_CONSISTENCY)
    if estimate.n < seeds:
        return Judged(Verdict.INCONCLUSIVE, f"{reason}; at least {seeds} seeds are needed")
    full = power is Power.FULL
    if agrees:
        return Judged(Verdict.CONFIRMED if full else Verdict.CONSISTENT, reason)
    if differs:
        return Judged(Verdict.REFUTED if full else Verdict.NOT_CONSISTENT, reason)
    return Judged(Verdict.INCONCLUSIVE, reason)


def _against_one_run(claim: Claim, estimate: Estimate, tolerance: Tolerance) -> tuple[bool, bool, str]:
    """(agrees, differs, the numbers) for a number that is a single run."""
    distance = abs(estimate.mean - claim.value)
    of_mean, of_new = estimate.half_width_of_mean(tolerance.floor), estimate.half_width_of_new(tolerance.floor)
    assert of_mean is not None
    assert of_new is not None
    agrees = distance <= tolerance.delta and of_mean <= tolerance.delta
    differs = distance > tolerance.delta + tolerance.slack and distance > of_new
    reason = (
        f"{estimate} measured, {claim.value:g} printed: {distance:.2f} apart (tolerance {tolerance.delta:g} + "
        f"{tolerance.slack:g}; mean known to {of_mean:.2f}, one further run to {of_new:.2f})"
    )
    return agrees, differs, reason


def _against_series(claim: Claim, estimate: Estimate, tolerance: Tolerance) -> tuple[bool, bool, str]:
    """(agrees, differs, the numbers) for a number that is a mean over runs, with their deviation."""
    assert claim.std is not None
    assert claim.runs is not None
    assert estimate.sd is not None
    sd = max(estimate.sd, tolerance.floor)
    low, high = welch(estimate.mean, sd, estimate.n, claim.value, claim.std, claim.runs)
    difference = estimate.mean - claim.value
    agrees = -tolerance.delta <= low and high <= tolerance.delta
    differs = (low > 0 or high < 0) and abs(difference) > tolerance.delta + tolerance.slack
    reason = (
        f"{estimate} measured, {claim.value:g} ± {claim.std:g} ({claim.runs} runs) printed: difference "
        f"{difference:+.2f}, from {low:+.2f} to {high:+.2f} (tolerance {tolerance.delta:g})"
    )
    return agrees, differs, reason


def _judge_size(claim: Claim, values: Sequence[float], tolerance: Tolerance) -> Judged:
    if len(set(values)) > 1:
        raise InputError(f"{claim.id}: a model has one size, got {list(values)}")
    agrees = abs(values[0] - claim.value) <= tolerance.delta + 1e-9
    reason = f"{values[0]:.6f} million counted, {claim.value:g} printed"
    return Judged(Verdict.CONFIRMED if agrees else Verdict.REFUTED, reason)


def _judge_cost(claim: Claim, values: Sequence[float], tolerance: Tolerance, power: Power) -> Judged:
    if not claim.metric.endswith(", s"):
        return Judged(Verdict.NOT_COMPARABLE, f"{claim.metric}: only times are compared")
    if min(values) <= 0:
        raise InputError(f"{claim.id}: times must be above 0, got {list(values)}")
    if len(values) < tolerance.seeds:
        return Judged(Verdict.INCONCLUSIVE, f"{len(values)} timing(s); at least {tolerance.seeds} are needed")
    factor = statistics.geometric_mean(values) / claim.value
    reason = f"{statistics.geometric_mean(values):.3g} s measured, {claim.value:g} s printed: {factor:.3g} times"
    if abs(math.log(factor)) <= tolerance.delta:
        return Judged(Verdict.CONFIRMED if power is Power.FULL else Verdict.CONSISTENT, reason)
    return Judged(Verdict.INCONCLUSIVE, f"{reason}, which hardware and code may explain")


# Effect


def judge_effect(claim: Claim, protected: Sequence[float], control: Sequence[float], *, chance: float) -> Judged:
    """Whether the statement behind the number holds, whatever the number.

    With c the mean of the control and k chance, by the regime of the claim:

    * *collapsed*: confirmed if the upper bound of the mean is at most k + 0.25 (c - k); refuted if the lower bound is
      at least k + 0.5 (c - k).
    * *recovered*: confirmed if the lower bound is at least k + 0.85 (c - k); refuted if the upper bound is below that.
    * *partial*: confirmed if the interval lies strictly between the lines of 0.25 and 0.85; refuted if it lies outside.
    * *baseline*: confirmed if the lower bound is at least k + 0.25 (100 - k).

    Everything else is inconclusive; so is any protected set whose control is itself below k + 0.25 (100 - k), any
    single run and any result that is not finite. The deviation is not taken below the floor of the claim's tolerance.
    c is taken as the control's mean: its own uncertainty does not widen the interval, so a verdict at the border
    of a line depends on how well c is known. ``control`` is of the same model and strategy as ``protected``, both are
    clean test accuracies; baselines need none.
    """
    _check_chance(chance)
    if claim.regime in WITHOUT_EFFECT:
        return Judged(Verdict.NOT_COMPARABLE, f"a claim of kind {claim.regime} has a level and no effect")
    if not protected:
        return Judged(Verdict.NOT_RUN, "no run was made")
    baseline = claim.regime is Regime.BASELINE
    if not all_finite(protected) or (not baseline and not all_finite(control)):
        return Judged(Verdict.INCONCLUSIVE, "a result is not finite")
    if not baseline and (unlearned := _not_learned(control, chance)):
        return Judged(Verdict.INCONCLUSIVE, unlearned)
    estimate = Estimate(tuple(protected))
    bounds = estimate.interval(floor=tolerance_of(claim).floor)
    if bounds is None:
        return Judged(Verdict.INCONCLUSIVE, f"one seed: {estimate.mean:.2f}")
    low, high = bounds
    found = f"{estimate}, from {low:.2f} to {high:.2f}"
    if not baseline:
        reference = statistics.fmean(control)
        verdict, words = _between_lines(claim.regime, low, high, chance, reference)
        return Judged(verdict, f"{words}: {found}; control {reference:.2f}")
    line = line_at(LEARNED, chance)
    if low >= line:
        return Judged(Verdict.CONFIRMED, f"the model learns: {found}, above {line:.2f}")
    return Judged(Verdict.INCONCLUSIVE, f"the control did not learn: {found}, not surely above {line:.2f}")


def _between_lines(regime: Regime, low: float, high: float, chance: float, control: float) -> tuple[Verdict, str]:
    """Where an interval lies on the way from chance to the control, as the regime would have it, and in words."""
    collapsed, failed, restored = (line_at(share, chance, control) for share in (COLLAPSED, FAILED, RESTORED))
    match regime:
        case Regime.COLLAPSED:
            verdict = verdict_of(confirmed=high <= collapsed, refuted=low >= failed)
            holds, fails = f"protection holds, at most {collapsed:.2f}", f"protection fails, at least {failed:.2f}"
            between = f"partial, between {collapsed:.2f} and {failed:.2f} or across a line"
        case Regime.RECOVERED:
            verdict = verdict_of(confirmed=low >= restored, refuted=high < restored)
            holds, fails = f"restored, at least {restored:.2f}", f"not restored, below {restored:.2f}"
            between = f"across the line of {restored:.2f}"
        case _:
            inside = collapsed < low and high < restored
            verdict = verdict_of(confirmed=inside, refuted=high <= collapsed or low >= restored)
            holds = f"partial, between {collapsed:.2f} and {restored:.2f}"
            fails = f"not {holds.replace('between', 'not between')}"
            between = f"across a line, {collapsed:.2f} or {restored:.2f}"
    return verdict, {Verdict.CONFIRMED: holds, Verdict.REFUTED: fails}.get(verdict, between)


def _check_chance(chance: float) -> None:
    if not 0 <= chance < 100:
        raise InputError(f"chance is {chance}, must be a percentage from 0 to below 100")


def line_at(share: float, chance: float, top: float = 100.0) -> float:
    """The accuracy that covers a share of the way from chance to the top."""
    return chance + share * (top - chance)


def _not_learned(control: Sequence[float], chance: float) -> str:
    """Why nothing can be said about protected data; empty if the control has learned."""
    line = line_at(LEARNED, chance)
    if not control:
        return "there is no control: the same model and strategy on clean data"
    if not all_finite(control):
        return "a result of the control is not finite"
    mean = statistics.fmean(control)
    return f"the control did not learn: {mean:.2f}, below {line:.2f}" if mean < line else ""


# Statements over several cells

Cell = tuple[str, str, str]
"""(dataset, model, strategy)."""
Cells = Mapping[Cell, Sequence[float]]
"""Clean test accuracies of each cell over seeds; those at one position in different cells share a seed."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of the comparisons that make up a statement."""

    words: str
    cells: tuple[Cell, ...]
    judge: Callable[..., Judged]
    """Takes the accuracies of the cells, in their order."""
    control: Cell | None = None
    """Must have learned; otherwise the comparison says nothing."""

    @property
    def needs(self) -> tuple[Cell, ...]:
        """The cells, and the control."""
        return self.cells if self.control is None else (*self.cells, self.control)


Parts = Callable[[float], Sequence[Part]]
"""Takes the accuracy of guessing (%), gives the comparisons of a statement."""


def judge_parts(parts: Sequence[Part], cells: Cells, *, chance: float, roles: Mapping[str, str]) -> Judged:
    """A statement over several cells, as the conjunction of its comparisons.

    Confirmed if every comparison is confirmed and no cell is missing; refuted if one comparison is; not run if no
    cell is there; otherwise inconclusive, naming what is missing or open. Comparisons that need a control say nothing
    while the control has not learned. Intervals have no floor of the deviation here. ``roles`` are the datasets or
    models that were measured in place of a catalogue slug's: a verdict speaks of those, and its reason says so.
    """
    _check_chance(chance)
    actual = {
        cell: (roles.get(cell[0], cell[0]), roles.get(cell[1], cell[1]), cell[2])
        for part in parts
        for cell in part.needs
    }
    measured = {cell: tuple(cells.get(there, ())) for cell, there in actual.items()}
    missing = [" / ".join(actual[cell]) for cell, values in measured.items() if not values]
    if len(missing) == len(measured):
        return Judged(Verdict.NOT_RUN, f"none of its {len(measured)} cells was measured")
    found = {
        part.words: _judge_part(part, measured, chance) for part in parts if all(measured[cell] for cell in part.needs)
    }
    used = sorted({slug for cell in measured for slug in cell[:2] if roles.get(slug, slug) != slug})
    note = f" [{', '.join(f'{slug} = {roles[slug]}' for slug in used)}]" if used else ""
    for verdict in (Verdict.REFUTED, Verdict.INCONCLUSIVE):
        which = [f"{words}: {judged.reason}" for words, judged in found.items() if judged.verdict is verdict]
        absent = [f"missing {', '.join(missing)}"] if missing else []
        if which or (verdict is Verdict.INCONCLUSIVE and missing):
            return Judged(verdict, "; ".join(which + absent) + note)
    return Judged(Verdict.CONFIRMED, f"all {len(found)} comparisons hold{note}")


def _judge_part(part: Part, measured: Cells, chance: float) -> Judged:
    if part.control is not None and (unlearned := _not_learned(measured[part.control], chance)):
        return Judged(Verdict.INCONCLUSIVE, unlearned)
    return part.judge(*(measured[cell] for cell in part.cells))
