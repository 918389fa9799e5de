"""Numbers of repeated runs: their mean, how well it is known, and what a comparison of such numbers says.

An interval is the two-sided 95 % Student interval. No comparison asks which verdict would be welcome: too few runs, or
a result that is not finite, end in *inconclusive*, with the numbers in the reason.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy.special import nctdtr, stdtrit  # type: ignore[import-untyped]

from ule_datasets.base.errors import InputError
from ule_datasets.base.shown import counted

TAIL = 0.025
"""On either side of an interval."""


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


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict and the numbers behind it."""

    verdict: Verdict
    reason: str
    """One sentence."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Results of repeated runs.

    Raises:
        InputError: there is none, or one of them is not finite.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or not all_finite(self.values):
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

    @property
    def percent(self) -> str:
        """Mean ± deviation of percentages, without their number."""
        return f"{self.mean:.1f}{'' if self.sd is None else f' ± {self.sd:.1f}'} %"

    def half_width_of_mean(self, floor: float = 0.0) -> float | None:
        """Half of the mean's Student interval, the deviation taken to be at least ``floor``; ``None`` for one run."""
        sd = self.sd
        return None if sd is None else _quantile(self.n - 1) * max(sd, floor) / math.sqrt(self.n)

    def half_width_of_new(self, floor: float = 0.0) -> float | None:
        """Half of the prediction interval for one further run, as a printed number is one; ``None`` for one run."""
        sd = self.sd
        return None if sd is None else _quantile(self.n - 1) * max(sd, floor) * math.sqrt(1 + 1 / self.n)

    def interval(self, floor: float = 0.0) -> tuple[float, float] | None:
        """Student interval of the mean, the deviation taken to be at least ``floor``; ``None`` for one run."""
        half = self.half_width_of_mean(floor)
        return None if half is None else (self.mean - half, self.mean + half)

    def __str__(self) -> str:
        spread = "" if self.sd is None else f" ± {self.sd:.2f}"
        return f"{self.mean:.2f}{spread} ({counted(self.n, 'run')})"


def spread(values: Sequence[float]) -> str:
    """Mean ± deviation (how many); says so where a value is not finite, a dash where there is none."""
    broken = sum(not math.isfinite(value) for value in values)
    if not values or broken:
        return f"not finite in {broken} of {len(values)}" if broken else "–"
    estimate = Estimate(tuple(values))
    deviation = "" if estimate.sd is None else f" ± {estimate.sd:.2f}"
    return f"{estimate.mean:.2f}{deviation} ({estimate.n})"


def all_finite(values: Sequence[float]) -> bool:
    """Whether none of the values is infinite or not a number."""
    return all(math.isfinite(value) for value in values)


def verdict_of(*, confirmed: bool, refuted: bool) -> Verdict:
    """Confirmed, refuted or inconclusive; never both of the first two."""
    assert not (confirmed and refuted)
    return Verdict.CONFIRMED if confirmed else Verdict.REFUTED if refuted else Verdict.INCONCLUSIVE


def verdict_of_all(verdicts: Iterable[Verdict]) -> Verdict:
    """Of a conjunction: refuted if one is, confirmed if all are."""
    found = set(verdicts)
    return verdict_of(confirmed=found == {Verdict.CONFIRMED}, refuted=Verdict.REFUTED in found)


def interval_of_difference(a: Sequence[float], b: Sequence[float], *, paired: bool) -> tuple[float, float] | None:
    """95 % interval of mean(a) - mean(b); ``None`` if a single value leaves no deviation.

    ``paired``: the i-th of both belong together (the same seed); otherwise it is Welch's interval.
    """
    if paired:
        if len(a) != len(b):
            raise InputError(f"paired comparison of {len(a)} and {len(b)} runs: the numbers must be equal")
        return Estimate(tuple(x - y for x, y in zip(a, b, strict=True))).interval()
    first, second = Estimate(tuple(a)), Estimate(tuple(b))
    if first.sd is None or second.sd is None:
        return None
    return welch(first.mean, first.sd, first.n, second.mean, second.sd, second.n)


def welch(mean: float, sd: float, n: int, mean2: float, sd2: float, n2: int) -> tuple[float, float]:
    """95 % interval of the difference of two means, deviations not assumed equal (Welch-Satterthwaite)."""
    difference, share, share2 = mean - mean2, sd**2 / n, sd2**2 / n2
    total = share + share2
    if total == 0:
        return difference, difference
    # Shares of the variance, not the variances themselves: squares of tiny ones would vanish.
    degrees = 1 / ((share / total) ** 2 / (n - 1) + (share2 / total) ** 2 / (n2 - 1))
    half = _quantile(degrees) * math.sqrt(total)
    return difference - half, difference + half


def below(a: Sequence[float], b: Sequence[float], bound: float = 0.0, *, paired: bool) -> Judged:
    """Whether A lies below B, or above it by less than a bound.

    Confirmed if the 95 % interval of the mean difference A - B lies below the bound, refuted if it lies above.
    ``paired``: runs at the same position share a seed that fixes initialisation and order; otherwise Welch's test.
    """
    line = f" (line {bound:+g})" if bound else ""
    return _difference(a, b, paired, lambda low, high: (high < bound, low > bound), line)


def within(a: Sequence[float], b: Sequence[float], bound: float, *, paired: bool) -> Judged:
    """Whether A and B differ by at most a bound in either direction, by the 95 % interval of their mean difference."""
    return _difference(
        a,
        b,
        paired,
        lambda low, high: (-bound <= low and high <= bound, low > bound or high < -bound),
        f" (line ±{bound:g})",
    )


def mean_below(values: Sequence[float], bound: float) -> Judged:
    """Whether a mean is below a bound, by its 95 % interval."""
    if open_ := unusable(values):
        return open_
    estimate = Estimate(tuple(values))
    bounds = estimate.interval()
    if bounds is None:
        return Judged(Verdict.INCONCLUSIVE, f"one seed: {estimate.mean:.2f} (line {bound:g})")
    low, high = bounds
    verdict = verdict_of(confirmed=high < bound, refuted=low > bound)
    return Judged(verdict, f"{estimate}, from {low:.2f} to {high:.2f} (line {bound:g})")


def deviations_below(a: Sequence[float], b: Sequence[float], count: float) -> Judged:
    """Whether mean(a) lies more than ``count`` standard deviations of b below mean(b).

    The number of deviations is itself uncertain. If it were exactly ``count``, the one found would follow a
    noncentral t distribution (the ratio of both deviations taken as found); confirmed or refuted if what was found is
    among the upper or lower 2.5 % of it.
    """
    if open_ := unusable(a, b):
        return open_
    first, second = Estimate(tuple(a)), Estimate(tuple(b))
    if first.sd is None or second.sd is None:
        return Judged(Verdict.INCONCLUSIVE, "one seed or one draw has no deviation")
    if second.sd == 0:
        return Judged(Verdict.INCONCLUSIVE, f"all {second.n} draws are equal, which leaves no deviation to count in")
    found = (second.mean - first.mean) / second.sd
    scale = 1 / math.sqrt(1 / second.n + (first.sd / second.sd) ** 2 / first.n)
    inside = min(max(found, 0.0), 1000.0)  # where the distribution is computed well; no verdict changes beyond
    share_below = float(nctdtr(second.n - 1, scale * count, scale * inside))
    reason = (
        f"{first} against {second}: {found:.2f} deviations; if there were {count:g}, "
        f"{100 * share_below:.1f} % of such series would show fewer"
    )
    return Judged(verdict_of(confirmed=share_below > 1 - TAIL, refuted=share_below < TAIL), reason)


def unusable(*samples: Sequence[float]) -> Judged | None:
    """Why samples cannot be compared at all, or ``None``."""
    if not all(samples):
        return Judged(Verdict.NOT_RUN, "no run was made")
    if not all(all_finite(sample) for sample in samples):
        return Judged(Verdict.INCONCLUSIVE, "a result is not finite")
    return None


def _difference(
    a: Sequence[float], b: Sequence[float], paired: bool, judge: Callable[[float, float], tuple[bool, bool]], line: str
) -> Judged:
    """What the interval of mean(a) - mean(b) says; ``judge`` takes its ends, and gives (confirmed, refuted)."""
    if open_ := unusable(a, b):
        return open_
    bounds = interval_of_difference(a, b, paired=paired)
    difference = statistics.fmean(a) - statistics.fmean(b)
    if bounds is None:
        return Judged(Verdict.INCONCLUSIVE, f"one seed: difference {difference:+.2f}")
    low, high = bounds
    confirmed, refuted = judge(low, high)
    reason = f"difference {difference:+.2f}, from {low:+.2f} to {high:+.2f}{line}"
    return Judged(verdict_of(confirmed=confirmed, refuted=refuted), reason)


def _quantile(degrees: float) -> float:
    """Student's t that encloses 95 % between minus and plus itself."""
    return float(stdtrit(degrees, 1 - TAIL))
