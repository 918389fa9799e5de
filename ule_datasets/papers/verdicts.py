"""What measured accuracies say about a printed claim: its level, its effect, and statements over several cells.

Pure functions on numbers; nothing is trained or read here. Accuracies are percentages on the 0 to 100 scale, and an
interval is always the two-sided 95 % Student interval unless another confidence is given. The rules never ask which
verdict would be welcome: too few runs, a control that did not learn or an open gate end in *inconclusive* or
*not comparable*, with the numbers in the reason.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy.special import nctdtr, stdtrit  # type: ignore[import-untyped]

from ule_datasets.base.errors import InputError
from ule_datasets.papers.claims import Claim, Regime, all_claims, papers

CONFIDENCE = 0.95
LEARNED = 0.25
"""A control has learned when it covers this share of the way from chance to 100 %."""
COLLAPSED = 0.25
"""A protection holds up to this share of the way from chance to the control."""
FAILED = 0.5
"""From this share on a protection has failed."""
RESTORED = 0.85
"""From this share on a countermeasure restores."""
FITTED = 99.0
"""Training accuracy that standard training reaches at the length of the papers, %."""
FITTED_SHORT = 90.0
"""The same for shortened schedules, on protected data: below it, the shortcut was not learned to the end."""
COST_FACTOR = 3.0
"""A time agrees with the printed one within this factor, on similar hardware."""
SEEDS_FOR_CONSISTENCY = 3
"""As many runs as a shortened profile trains."""


class Verdict(StrEnum):
    """What is said about a claim or a statement."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"
    NOT_RUN = "not run"
    CONSISTENT = "consistent"
    """A shortened profile agrees with the number; it cannot confirm it."""
    NOT_CONSISTENT = "not consistent"
    """A shortened profile disagrees with the number; it cannot refute it."""
    NOT_COMPARABLE = "not comparable"
    """The runs say nothing about this claim: a gate failed, or they are of another kind."""


class Power(StrEnum):
    """What a profile may say about a printed number; effects may be judged with any of them."""

    FULL = "full"
    """The paper's protocol: confirmed or refuted."""
    CONSISTENCY = "consistency"
    """A shortened schedule: at most consistent or not consistent."""
    NONE = "none"
    """Another network, or part of the data: nothing."""


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
            kind = "baseline, wide" if _is_wide(claim) else "baseline"
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


def _is_wide(claim: Claim) -> bool:
    adversarial = any(part.startswith(("linf-at", "l2-at", "at-rho")) for part in claim.strategy.split("+"))
    return adversarial or claim.model == "lenet5" or claim.test_dataset not in NARROW_TESTS


@dataclass(frozen=True, slots=True)
class Estimate:
    """Results of repeated runs.

    Raises:
        InputError: there is none, or one of them is not finite.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or not _all_finite(self.values):
            raise InputError(f"an estimate needs finite values, at least one; got {list(self.values)}")

    @property
    def n(self) -> int:
        """How many runs."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """Sample standard deviation; ``None`` for a single run."""
        return statistics.stdev(self.values) if self.n > 1 else None

    def half_width_of_mean(self, confidence: float = CONFIDENCE, floor: float = 0.0) -> float | None:
        """Half of the mean's Student interval, the deviation taken to be at least ``floor``; ``None`` for one run."""
        sd = self.sd
        return None if sd is None else _quantile(self.n - 1, confidence) * max(sd, floor) / math.sqrt(self.n)

    def half_width_of_new(self, confidence: float = CONFIDENCE, floor: float = 0.0) -> float | None:
        """Half of the prediction interval for one further run, as a printed number is one; ``None`` for one run."""
        sd = self.sd
        return None if sd is None else _quantile(self.n - 1, confidence) * max(sd, floor) * math.sqrt(1 + 1 / self.n)

    def interval(self, confidence: float = CONFIDENCE, floor: float = 0.0) -> tuple[float, float] | None:
        """Student interval of the mean, the deviation taken to be at least ``floor``; ``None`` for one run."""
        half = self.half_width_of_mean(confidence, floor)
        return None if half is None else (self.mean - half, self.mean + half)

    def __str__(self) -> str:
        spread = "" if self.sd is None else f" ± {self.sd:.2f}"
        return f"{self.mean:.2f}{spread} ({self.n} run{'s' if self.n > 1 else ''})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A verdict and the numbers behind it."""

    verdict: Verdict
    reason: str
    """One sentence."""


def _judged(verdict: Verdict, reason: str) -> Judged:
    return Judged(verdict=verdict, reason=reason)


def _all_finite(values: Sequence[float]) -> bool:
    return all(math.isfinite(value) for value in values)


def _quantile(degrees: float, confidence: float) -> float:
    """Student's t that encloses a share ``confidence`` between minus and plus itself."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}, must be between 0 and 1")
    return float(stdtrit(degrees, (1 + confidence) / 2))


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

    Args:
        claim: the printed number.
        values: one result per seed, last epoch, in the claim's unit. Analyses: one per model, mean over permutations.
        power: what the profile may say.
        tolerance: instead of ``tolerance_of(claim)``.
    """
    if not values:
        return _judged(Verdict.NOT_RUN, "no run was made")
    if not _all_finite(values):
        return _judged(Verdict.INCONCLUSIVE, f"a result is not finite: {list(values)}")
    tolerance = tolerance or tolerance_of(claim)
    if claim.regime is Regime.SIZE:
        return _judge_size(claim, values, tolerance)
    if power is Power.NONE:
        return _judged(Verdict.NOT_COMPARABLE, "the profile says nothing about a printed number")
    if claim.regime is Regime.COST:
        return _judge_cost(claim, values, tolerance)
    if len(values) == 1:
        return _judged(Verdict.INCONCLUSIVE, f"one seed: {values[0]:.2f} measured, {claim.value:g} printed")
    estimate = Estimate(tuple(values))
    compare = _against_one_run if claim.std is None or claim.runs is None else _against_series
    agrees, differs, reason = compare(claim, estimate, tolerance)
    seeds = tolerance.seeds if power is Power.FULL else min(tolerance.seeds, SEEDS_FOR_CONSISTENCY)
    if estimate.n < seeds:
        return _judged(Verdict.INCONCLUSIVE, f"{reason}; at least {seeds} seeds are needed")
    full = power is Power.FULL
    if agrees:
        return _judged(Verdict.CONFIRMED if full else Verdict.CONSISTENT, reason)
    if differs:
        return _judged(Verdict.REFUTED if full else Verdict.NOT_CONSISTENT, reason)
    return _judged(Verdict.INCONCLUSIVE, reason)


def _against_one_run(claim: Claim, estimate: Estimate, tolerance: Tolerance) -> tuple[bool, bool, str]:
    """(agrees, differs, the numbers) for a number that is a single run."""
    distance = abs(estimate.mean - claim.value)
    of_mean, of_new = (
        estimate.half_width_of_mean(floor=tolerance.floor),
        estimate.half_width_of_new(floor=tolerance.floor),
    )
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
    low, high = _welch(estimate.mean, sd, estimate.n, claim.value, claim.std, claim.runs)
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
    return _judged(Verdict.CONFIRMED if agrees else Verdict.REFUTED, reason)


def _judge_cost(claim: Claim, values: Sequence[float], tolerance: Tolerance) -> Judged:
    if not claim.metric.endswith(", s"):
        return _judged(Verdict.NOT_COMPARABLE, f"{claim.metric}: only times are compared")
    if min(values) <= 0:
        raise InputError(f"{claim.id}: times must be above 0, got {list(values)}")
    if len(values) < tolerance.seeds:
        return _judged(Verdict.INCONCLUSIVE, f"{len(values)} timing(s); at least {tolerance.seeds} are needed")
    factor = statistics.geometric_mean(values) / claim.value
    reason = f"{statistics.geometric_mean(values):.3g} s measured, {claim.value:g} s printed: {factor:.3g} times"
    if abs(math.log(factor)) <= tolerance.delta:
        return _judged(Verdict.CONFIRMED, reason)
    return _judged(Verdict.INCONCLUSIVE, f"{reason}, which hardware and code may explain")


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
    of a line depends on how well c is known.

    Args:
        claim: gives the regime and the tolerance.
        protected: clean test accuracies of models trained on the claim's dataset.
        control: those of the same model and strategy trained on clean data; not used for baselines.
        chance: accuracy of guessing, %.
    """
    _check_chance(chance)
    if claim.regime in (Regime.ANALYSIS, Regime.COST, Regime.SIZE):
        return _judged(Verdict.NOT_COMPARABLE, f"a claim of kind {claim.regime} has a level and no effect")
    if not protected:
        return _judged(Verdict.NOT_RUN, "no run was made")
    baseline = claim.regime is Regime.BASELINE
    if not _all_finite(protected) or (not baseline and not _all_finite(control)):
        return _judged(Verdict.INCONCLUSIVE, "a result is not finite")
    if not baseline and (unlearned := _not_learned(control, chance)):
        return _judged(Verdict.INCONCLUSIVE, unlearned)
    estimate = Estimate(tuple(protected))
    bounds = estimate.interval(floor=tolerance_of(claim).floor)
    if bounds is None:
        return _judged(Verdict.INCONCLUSIVE, f"one seed: {estimate.mean:.2f}")
    low, high = bounds
    found = f"{estimate}, from {low:.2f} to {high:.2f}"
    if baseline:
        line = _line(chance, 100, LEARNED)
        if low >= line:
            return _judged(Verdict.CONFIRMED, f"the model learns: {found}, above {line:.2f}")
        return _judged(Verdict.INCONCLUSIVE, f"the control did not learn: {found}, not surely above {line:.2f}")
    reference = statistics.fmean(control)
    collapsed, failed, restored = (_line(chance, reference, share) for share in (COLLAPSED, FAILED, RESTORED))
    match claim.regime:
        case Regime.COLLAPSED:
            verdict = _between(high <= collapsed, low >= failed)
            words = {
                Verdict.CONFIRMED: f"protection holds, at most {collapsed:.2f}",
                Verdict.REFUTED: f"protection fails, at least {failed:.2f}",
                Verdict.INCONCLUSIVE: f"partial, between {collapsed:.2f} and {failed:.2f} or across a line",
            }
        case Regime.RECOVERED:
            verdict = _between(low >= restored, high < restored)
            words = {
                Verdict.CONFIRMED: f"restored, at least {restored:.2f}",
                Verdict.REFUTED: f"not restored, below {restored:.2f}",
                Verdict.INCONCLUSIVE: f"across the line of {restored:.2f}",
            }
        case _:
            verdict = _between(collapsed < low and high < restored, high <= collapsed or low >= restored)
            words = {
                Verdict.CONFIRMED: f"partial, between {collapsed:.2f} and {restored:.2f}",
                Verdict.REFUTED: f"not partial, not between {collapsed:.2f} and {restored:.2f}",
                Verdict.INCONCLUSIVE: f"across a line, {collapsed:.2f} or {restored:.2f}",
            }
    return _judged(verdict, f"{words[verdict]}: {found}; control {reference:.2f}")


def _check_chance(chance: float) -> None:
    if not 0 <= chance < 100:
        raise InputError(f"chance is {chance}, must be a percentage from 0 to below 100")


def _line(chance: float, top: float, share: float) -> float:
    return chance + share * (top - chance)


def _between(confirmed: bool, refuted: bool) -> Verdict:
    assert not (confirmed and refuted)
    return Verdict.CONFIRMED if confirmed else Verdict.REFUTED if refuted else Verdict.INCONCLUSIVE


def _not_learned(control: Sequence[float], chance: float) -> str:
    """Why nothing can be said about protected data; empty if the control has learned."""
    line = _line(chance, 100, LEARNED)
    if not control:
        return "there is no control: the same model and strategy on clean data"
    if not _all_finite(control):
        return "a result of the control is not finite"
    mean = statistics.fmean(control)
    return f"the control did not learn: {mean:.2f}, below {line:.2f}" if mean < line else ""


# Gates


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """A condition that runs must meet before they say anything about a claim."""

    name: str
    passed: bool
    """If not, the runs are not comparable."""
    detail: str
    """What was found, and what is wanted."""
    caps: bool = False
    """The level verdict can at most be inconclusive."""


def gates(
    claim: Claim,
    *,
    train_accuracies: Sequence[float],
    control_values: Sequence[float] | None,
    finite: bool,
    num_parameters: int,
    expected_parameters: int | None,
    fingerprint_ok: bool,
    power: Power,
) -> tuple[Gate, ...]:
    """The conditions of a claim, each with what was found.

    Training accuracy: with full power standard training must reach 99 %, otherwise it fails; any other strategy that
    falls short caps the level. A shortened schedule must reach 90 % on protected data under standard training.
    Clean baseline: with full power the control's mean must not lie below the paper's by more than 1.5 points (3 for
    LeNet, adversarial training and other images than CIFAR, 5 for l_2 adversarial training); a better one passes and
    is mentioned. In a shortened profile it caps the level instead, so that effects can still be judged.

    Args:
        claim: what the runs were made for.
        train_accuracies: training accuracy of each run's last epoch, %.
        control_values: clean test accuracies of the same model and strategy on clean data; ``None``: none were made.
        finite: whether every loss stayed finite.
        num_parameters: of the model that was trained.
        expected_parameters: of the model that the claim names; ``None``: not known.
        fingerprint_ok: whether training and test set are the published ones.
        power: what the profile may say about the number.
    """
    count = Gate(
        name="parameters",
        passed=expected_parameters in (None, num_parameters),
        detail=f"{num_parameters:,} counted, "
        + ("no count to compare with" if expected_parameters is None else f"{expected_parameters:,} wanted"),
    )
    if claim.regime is Regime.SIZE:
        return (count,)
    fingerprint = Gate(
        name="fingerprint",
        passed=fingerprint_ok,
        detail=f"training and test set are {'the published ones' if fingerprint_ok else 'not the published ones'}",
    )
    loss = Gate(name="finite loss", passed=finite, detail=f"every loss was {'' if finite else 'not '}finite")
    if claim.regime is Regime.COST:
        return fingerprint, count, loss
    found = [fingerprint, count, loss, _training_gate(claim, train_accuracies, power)]
    if claim.regime is not Regime.BASELINE:
        found.append(_baseline_gate(claim, control_values, power))
    return tuple(found)


def after_gates(judged: Judged, gates: Sequence[Gate], *, level: bool) -> Judged:
    """A verdict as the gates leave it.

    A failed gate makes it *not comparable*; a gate that caps makes a verdict on the level (``level``) inconclusive
    and leaves one on the effect as it is. What was not run stays so.
    """
    if judged.verdict in (Verdict.NOT_RUN, Verdict.NOT_COMPARABLE):
        return judged
    failed = [f"{gate.name} ({gate.detail})" for gate in gates if not gate.passed]
    if failed:
        return _judged(Verdict.NOT_COMPARABLE, f"failed: {'; '.join(failed)}; otherwise: {judged.reason}")
    capped = [f"{gate.name} ({gate.detail})" for gate in gates if gate.caps]
    if level and capped:
        return _judged(Verdict.INCONCLUSIVE, f"{judged.reason}; capped by {'; '.join(capped)}")
    return judged


def printed_baseline(claim: Claim) -> float | None:
    """The clean value that a control of the claim can be compared with, or ``None`` if its paper prints none.

    It is ``clean_reference``, but in the catalogue's papers only where the paper prints it for this very model and
    strategy: elsewhere that field falls back on standard training, or on another model.
    """
    if claim.paper not in papers():
        return claim.clean_reference
    wanted = (claim.paper, Regime.BASELINE, claim.test_dataset, claim.model, claim.strategy)
    printed = {
        other.value
        for other in all_claims().values()
        if (other.paper, other.regime, other.test_dataset, other.model, other.strategy) == wanted
    }
    return claim.clean_reference if claim.clean_reference in printed else None


def _training_gate(claim: Claim, accuracies: Sequence[float], power: Power) -> Gate:
    name = "training accuracy"
    if not accuracies:
        return Gate(name=name, passed=False, detail="not recorded")
    standard, lowest = claim.strategy == "standard", min(accuracies)
    detail = f"{lowest:.2f} at the last epoch"
    if power is Power.FULL:
        reached = lowest >= FITTED
        return Gate(name=name, passed=reached or not standard, detail=f"{detail}, {FITTED:g} wanted", caps=not reached)
    if standard and claim.regime is not Regime.BASELINE:
        return Gate(name=name, passed=lowest >= FITTED_SHORT, detail=f"{detail}, {FITTED_SHORT:g} wanted")
    return Gate(name=name, passed=True, detail=detail)


def _baseline_gate(claim: Claim, control: Sequence[float] | None, power: Power) -> Gate:
    name, printed = "clean baseline", printed_baseline(claim)
    if printed is None:
        return Gate(name=name, passed=True, detail="the paper prints none for this model and strategy")
    if power is Power.NONE:
        return Gate(name=name, passed=True, detail="not compared: the profile says nothing about a printed number")
    full = power is Power.FULL
    if not control:
        return Gate(name=name, passed=not full, detail=f"not run; {printed:g} printed", caps=True)
    mean, tolerance = statistics.fmean(control), _baseline_tolerance(claim)
    detail = f"{mean:.2f} measured, {printed:g} printed, tolerance {tolerance:g}"
    if mean > printed + tolerance:
        return Gate(name=name, passed=True, detail=f"{detail}: better than the paper's")
    close = mean >= printed - tolerance  # false for NaN
    return Gate(name=name, passed=close or not full, detail=detail, caps=not close)


def _baseline_tolerance(claim: Claim) -> float:
    if any(part.startswith("l2-at") for part in claim.strategy.split("+")):
        return 5.0
    return TOLERANCES["baseline, wide" if _is_wide(claim) else "baseline"].delta


# Comparisons and statements


def interval_of_difference(a: Sequence[float], b: Sequence[float], *, paired: bool) -> tuple[float, float] | None:
    """95 % interval of mean(a) - mean(b).

    Args:
        a: finite values, at least one.
        b: likewise.
        paired: the i-th of both belong together (the same seed); otherwise Welch's interval.

    Returns:
        Lower and upper bound; ``None`` if a single value leaves no deviation.

    Raises:
        InputError: paired samples of different length; no values, or values that are not finite.
    """
    if paired:
        if len(a) != len(b):
            raise InputError(f"paired comparison of {len(a)} and {len(b)} runs: the numbers must be equal")
        return Estimate(tuple(x - y for x, y in zip(a, b, strict=True))).interval()
    first, second = Estimate(tuple(a)), Estimate(tuple(b))
    if first.sd is None or second.sd is None:
        return None
    return _welch(first.mean, first.sd, first.n, second.mean, second.sd, second.n)


def _welch(mean: float, sd: float, n: int, mean2: float, sd2: float, n2: int) -> tuple[float, float]:
    """95 % interval of the difference of two means, deviations not assumed equal (Welch-Satterthwaite)."""
    difference, share, share2 = mean - mean2, sd**2 / n, sd2**2 / n2
    total = share + share2
    if total == 0:
        return difference, difference
    # Shares of the variance, not the variances themselves: squares of tiny ones would vanish.
    degrees = 1 / ((share / total) ** 2 / (n - 1) + (share2 / total) ** 2 / (n2 - 1))
    half = _quantile(degrees, CONFIDENCE) * math.sqrt(total)
    return difference - half, difference + half


def below(a: Sequence[float], b: Sequence[float], *, paired: bool) -> Judged:
    """Whether A lies below B.

    Confirmed if the 95 % interval of the mean difference A - B lies below 0, refuted if it lies above.

    Args:
        a: one result per run.
        b: likewise.
        paired: runs at the same position share a seed that fixes initialisation and order; otherwise Welch's test.
    """
    return _difference_below(a, b, 0.0, paired=paired)


def _difference_below(a: Sequence[float], b: Sequence[float], bound: float, *, paired: bool) -> Judged:
    """Whether mean(a) - mean(b) is below a bound."""
    if open_ := _unusable(a, b):
        return open_
    bounds = interval_of_difference(a, b, paired=paired)
    difference = statistics.fmean(a) - statistics.fmean(b)
    if bounds is None:
        return _judged(Verdict.INCONCLUSIVE, f"one seed: difference {difference:+.2f}")
    low, high = bounds
    reason = f"difference {difference:+.2f}, from {low:+.2f} to {high:+.2f}"
    return _judged(_between(high < bound, low > bound), reason + (f" (line {bound:+g})" if bound else ""))


def _difference_within(a: Sequence[float], b: Sequence[float], bound: float, *, paired: bool) -> Judged:
    """Whether |mean(a) - mean(b)| is at most a bound."""
    if open_ := _unusable(a, b):
        return open_
    bounds = interval_of_difference(a, b, paired=paired)
    difference = statistics.fmean(a) - statistics.fmean(b)
    if bounds is None:
        return _judged(Verdict.INCONCLUSIVE, f"one seed: difference {difference:+.2f}")
    low, high = bounds
    reason = f"difference {difference:+.2f}, from {low:+.2f} to {high:+.2f} (line ±{bound:g})"
    return _judged(_between(-bound <= low and high <= bound, low > bound or high < -bound), reason)


def _mean_below(values: Sequence[float], bound: float) -> Judged:
    """Whether a mean is below a bound."""
    if open_ := _unusable(values):
        return open_
    estimate = Estimate(tuple(values))
    bounds = estimate.interval()
    if bounds is None:
        return _judged(Verdict.INCONCLUSIVE, f"one seed: {estimate.mean:.2f} (line {bound:g})")
    low, high = bounds
    return _judged(_between(high < bound, low > bound), f"{estimate}, from {low:.2f} to {high:.2f} (line {bound:g})")


def _deviations_below(a: Sequence[float], b: Sequence[float], count: float) -> Judged:
    """Whether mean(a) lies more than ``count`` standard deviations of b below mean(b).

    The number of deviations is itself uncertain. If it were exactly ``count``, the one found would follow a
    noncentral t distribution (the ratio of both deviations taken as found); confirmed or refuted if what was found is
    among the upper or lower 2.5 % of it.
    """
    if open_ := _unusable(a, b):
        return open_
    first, second = Estimate(tuple(a)), Estimate(tuple(b))
    if first.sd is None or second.sd is None:
        return _judged(Verdict.INCONCLUSIVE, "one seed or one draw has no deviation")
    if second.sd == 0:
        return _judged(Verdict.INCONCLUSIVE, f"all {second.n} draws are equal, which leaves no deviation to count in")
    found = (second.mean - first.mean) / second.sd
    scale = 1 / math.sqrt(1 / second.n + (first.sd / second.sd) ** 2 / first.n)
    within = min(max(found, 0.0), 1000.0)  # where the distribution is computed well; no verdict changes beyond
    share_below = float(nctdtr(second.n - 1, scale * count, scale * within))
    tail = (1 - CONFIDENCE) / 2
    reason = (
        f"{first} against {second}: {found:.2f} deviations; if there were {count:g}, "
        f"{100 * share_below:.1f} % of such series would show fewer"
    )
    return _judged(_between(share_below > 1 - tail, share_below < tail), reason)


def _unusable(*samples: Sequence[float]) -> Judged | None:
    """Why samples cannot be compared at all, or ``None``."""
    if not all(samples):
        return _judged(Verdict.NOT_RUN, "no run was made")
    if not all(_all_finite(sample) for sample in samples):
        return _judged(Verdict.INCONCLUSIVE, "a result is not finite")
    return None


Cell = tuple[str, str, str]
"""(dataset, model, strategy)."""
Cells = Mapping[Cell, Sequence[float]]
"""Clean test accuracies of each cell over seeds; those at one position in different cells share a seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """One of the comparisons that make up a statement."""

    words: str
    cells: tuple[Cell, ...]
    judge: Callable[..., Judged]
    """Takes the accuracies of the cells, in their order."""
    control: Cell | None = None
    """Must have learned; otherwise the comparison says nothing."""


MEASURED_ELSEWHERE: dict[str, str] = {
    "ops-q-train-acc": "training accuracy epoch by epoch",
    "ops-q-displacement": "the distance of the parameters from their start",
    "ops-q-landscape": "the loss around the trained parameters",
    "ops-q-finetune": "fine-tuning from a clean model",
}
"""Statements that are judged by the analysis, and what they need besides accuracies."""
GENERATOR = "resnet18"
"""The architecture that crafted the error-minimising noise."""
TRANSFER_MODELS = ("lenet5", "cvt-7-4", "cct-7-3x1", "densenet121", "resnet18", "wrn-28-10")
TABLE_5_STRATEGIES = (
    "standard",
    "mixup",
    "cutout",
    "randaugment",
    "randaugment+cutout",
    "linf-at",
    "linf-at+mixup",
    "linf-at+cutout",
    "linf-at+randaugment",
)
PIXELS = ("cifar10", "ops-cifar10", "ops-cifar10-k2", "ops-cifar10-k3", "ops-cifar10-k4")
"""Datasets by the number of perturbed pixels, from 0 on."""
NEAR_CHANCE = 2.0
"""Points above chance below which more pixels cannot lower the accuracy further."""


def cells_of_statement(statement_id: str) -> tuple[Cell, ...]:
    """The cells that a statement speaks of, controls included, in the catalogue's slugs; each once.

    Raises:
        InputError: no such statement, or one that is judged by an analysis.
    """
    return tuple(dict.fromkeys(cell for part in _parts(statement_id, chance=0.0) for cell in _needs(part)))


def judge_statement(statement_id: str, cells: Cells, *, chance: float, roles: Mapping[str, str]) -> Judged:
    """A statement over several cells, as the conjunction of its comparisons.

    Confirmed if every comparison is confirmed and no cell is missing; refuted if one comparison is; not run if no
    cell is there; otherwise inconclusive, naming what is missing or open. Comparisons that need a control
    say nothing while the control has not learned. Intervals have no floor of the deviation here.

    Args:
        statement_id: of one of the statements in ``ule_datasets.papers.claims``.
        cells: accuracies by (dataset, model, strategy).
        chance: accuracy of guessing, %.
        roles: catalogue slug to the dataset or model that was measured in its place; those not named stand for
            themselves. With other names a verdict speaks of the stand-ins, and its reason says so.

    Raises:
        InputError: no such statement.
    """
    _check_chance(chance)
    if statement_id in MEASURED_ELSEWHERE:
        return _judged(Verdict.NOT_RUN, f"judged by the analysis: needs {MEASURED_ELSEWHERE[statement_id]}")
    parts = _parts(statement_id, chance)
    measured = {cell: tuple(cells.get(_actual(cell, roles), ())) for part in parts for cell in _needs(part)}
    missing = [" / ".join(_actual(cell, roles)) for cell, values in measured.items() if not values]
    if len(missing) == len(measured):
        return _judged(Verdict.NOT_RUN, f"none of its {len(measured)} cells was measured")
    found = {
        part.words: _judge_part(part, measured, chance) for part in parts if all(measured[c] for c in _needs(part))
    }
    used = sorted({slug for cell in measured for slug in cell[:2] if roles.get(slug, slug) != slug})
    note = f" [{', '.join(f'{slug} = {roles[slug]}' for slug in used)}]" if used else ""
    for verdict in (Verdict.REFUTED, Verdict.INCONCLUSIVE):
        which = [f"{words}: {judged.reason}" for words, judged in found.items() if judged.verdict is verdict]
        absent = [f"missing {', '.join(missing)}"] if missing else []
        if which or (verdict is Verdict.INCONCLUSIVE and missing):
            return _judged(verdict, "; ".join(which + absent) + note)
    return _judged(Verdict.CONFIRMED, f"all {len(found)} comparisons hold{note}")


def _parts(statement_id: str, chance: float) -> list[_Part]:
    if statement_id not in _STATEMENTS:
        known = ", ".join([*_STATEMENTS, *MEASURED_ELSEWHERE])
        raise InputError(f"no statement {statement_id!r} can be judged; there are: {known}")
    return _STATEMENTS[statement_id](chance)


def _actual(cell: Cell, roles: Mapping[str, str]) -> Cell:
    dataset, model, strategy = cell
    return roles.get(dataset, dataset), roles.get(model, model), strategy


def _needs(part: _Part) -> tuple[Cell, ...]:
    return part.cells if part.control is None else (*part.cells, part.control)


def _judge_part(part: _Part, measured: Mapping[Cell, Sequence[float]], chance: float) -> Judged:
    if part.control is not None and (unlearned := _not_learned(measured[part.control], chance)):
        return _judged(Verdict.INCONCLUSIVE, unlearned)
    return part.judge(*(measured[cell] for cell in part.cells))


def _same_seeds(a: Sequence[float], b: Sequence[float]) -> bool:
    """Positions belong together; without as many of both, the comparison falls back on Welch's."""
    return len(a) == len(b)


def _seedwise_below(a: Sequence[float], b: Sequence[float]) -> Judged:
    return below(a, b, paired=_same_seeds(a, b))


def _em_transfer(chance: float) -> list[_Part]:
    ops_below_em = [
        _Part(
            words=f"OPS below EM on {model}",
            cells=(("ops-cifar10", model, "standard"), ("em-cifar10", model, "standard")),
            judge=_seedwise_below,
        )
        for model in TRANSFER_MODELS
    ]
    strongest = [
        _Part(
            words=f"EM on {GENERATOR} below EM on {model}",
            cells=(("em-cifar10", GENERATOR, "standard"), ("em-cifar10", model, "standard")),
            judge=lambda a, b: below(a, b, paired=False),
        )
        for model in TRANSFER_MODELS
        if model != GENERATOR
    ]
    return ops_below_em + strongest


def _linf_at(chance: float) -> list[_Part]:
    clean, em, ops = ((name, "resnet18", "linf-at") for name in ("cifar10", "em-cifar10", "ops-cifar10"))
    return [
        _Part(
            words="EM at most 2 points below clean",
            cells=(clean, em),
            judge=lambda a, b: _difference_below(a, b, 2.0, paired=_same_seeds(a, b)),
            control=clean,
        ),
        _Part(
            words="OPS at most 15 points above chance",
            cells=(ops,),
            judge=lambda values: _mean_below(values, chance + 15),
            control=clean,
        ),
    ]


def _fewer_with_more_pixels(chance: float) -> list[_Part]:
    def falls(more: Sequence[float], fewer: Sequence[float]) -> Judged:
        if open_ := _unusable(more, fewer):
            return open_
        at_chance = max(statistics.fmean(more), statistics.fmean(fewer)) < chance + NEAR_CHANCE
        return _difference_below(more, fewer, 1.0 if at_chance else 0.0, paired=_same_seeds(more, fewer))

    return [
        _Part(
            words=f"{count} below {count - 1} pixels under {strategy}",
            cells=((PIXELS[count], "resnet18", strategy), (PIXELS[count - 1], "resnet18", strategy)),
            judge=falls,
        )
        for strategy in ("standard", "mixup", "cutout", "randaugment")
        for count in range(1, len(PIXELS))
    ]


def _l2_crossover(chance: float) -> list[_Part]:
    half, one, two = (("ops-cifar10", "resnet18", f"l2-at-eps{radius}") for radius in ("0.5", "1", "2"))
    clean = ("cifar10", "resnet18", "l2-at-eps2")
    return [
        _Part(words="OPS at radius 0.5 below radius 1", cells=(half, one), judge=_seedwise_below),
        _Part(words="OPS at radius 1 below radius 2", cells=(one, two), judge=_seedwise_below),
        _Part(
            words="OPS within 3 points of clean at radius 2",
            cells=(two, clean),
            judge=lambda a, b: _difference_within(a, b, 3.0, paired=_same_seeds(a, b)),
            control=clean,
        ),
    ]


def _three_sigma(chance: float) -> list[_Part]:
    return [
        _Part(
            words="OPS more than 3 deviations below RandPix",
            cells=(("ops-cifar10", "resnet18", "standard"), ("randpix-cifar10", "resnet18", "standard")),
            judge=lambda a, b: _deviations_below(a, b, 3.0),
        )
    ]


def _cifar10s_below_50(chance: float) -> list[_Part]:
    return [
        _Part(
            words=f"below 50 % under {strategy}",
            cells=(("cifar10-s", "resnet18", strategy),),
            judge=lambda values: _mean_below(values, 50.0),
            control=("cifar10", "resnet18", strategy),
        )
        for strategy in TABLE_5_STRATEGIES
    ]


_STATEMENTS: dict[str, Callable[[float], list[_Part]]] = {
    "ops-q-em-transfer": _em_transfer,
    "ops-q-randpix-3sigma": _three_sigma,
    "ops-q-linf-at-em": _linf_at,
    "ops-q-multipixel-monotone": _fewer_with_more_pixels,
    "ops-q-l2-crossover": _l2_crossover,
    "ops-q-cifar10s-below-50": _cifar10s_below_50,
}
"""By id: takes chance (%), gives the comparisons."""
