"""Estimates and comparisons against scipy, on every path."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from ule_datasets.base.errors import InputError
from ule_datasets.papers.statistics import Estimate, Judged, Verdict, below, interval_of_difference

ACCURACIES = st.lists(st.floats(0, 100, allow_subnormal=False), min_size=2, max_size=12)
FAST = settings(deadline=None, max_examples=60)


def spread(values: Sequence[float]) -> bool:
    return statistics.stdev(values) > 1e-6


# Estimates


@FAST
@given(values=ACCURACIES)
def test_the_interval_is_students(values: list[float]) -> None:
    assume(spread(values))
    estimate = Estimate(tuple(values))
    expected = stats.t.interval(0.95, len(values) - 1, loc=estimate.mean, scale=stats.sem(values))
    assert estimate.interval() == pytest.approx(tuple(expected), rel=1e-9, abs=1e-7)
    quantile = stats.t.ppf(0.975, len(values) - 1)
    new = quantile * statistics.stdev(values) * math.sqrt(1 + 1 / len(values))
    assert estimate.half_width_of_new() == pytest.approx(new, rel=1e-9)


@FAST
@given(values=ACCURACIES, floor=st.floats(0, 50))
def test_a_floor_widens_and_never_narrows(values: list[float], floor: float) -> None:
    estimate = Estimate(tuple(values))
    plain, floored = estimate.half_width_of_mean(), estimate.half_width_of_mean(floor=floor)
    assert plain is not None
    assert floored is not None
    assert floored >= plain
    assert estimate.sd is not None
    assert floored == pytest.approx(Estimate(tuple(values)).half_width_of_mean(floor=max(floor, estimate.sd)))


def test_one_run_has_a_mean_and_nothing_else() -> None:
    estimate = Estimate((15.0,))
    assert (estimate.n, estimate.mean, estimate.sd, estimate.interval()) == (1, 15.0, None, None)
    assert estimate.half_width_of_mean() is estimate.half_width_of_new() is None
    assert str(estimate) == "15.00 (1 run)"
    assert str(Estimate((14.0, 16.0))) == "15.00 ± 1.41 (2 runs)"


@pytest.mark.parametrize("values", [(), (math.nan,), (1.0, math.inf)])
def test_an_estimate_needs_finite_values(values: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="needs finite values"):
        Estimate(values)


# Differences


@FAST
@given(a=ACCURACIES, b=ACCURACIES)
def test_unpaired_differences_are_welchs(a: list[float], b: list[float]) -> None:
    assume(spread(a) and spread(b))
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert interval_of_difference(a, b, paired=False) == pytest.approx(tuple(expected), rel=1e-7, abs=1e-7)


@FAST
@given(pairs=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=12))
def test_paired_differences_are_of_the_pairs(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    assume(spread([x - y for x, y in pairs]))
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert interval_of_difference(a, b, paired=True) == pytest.approx(tuple(expected), rel=1e-7, abs=1e-7)


def test_differences_without_a_spread() -> None:
    assert interval_of_difference([3, 3], [1, 1], paired=False) == (2, 2)
    assert interval_of_difference([3], [1, 2], paired=False) is None
    assert interval_of_difference([3], [1], paired=True) is None
    with pytest.raises(InputError, match="2 and 3 runs"):
        interval_of_difference([1, 2], [1, 2, 3], paired=True)


@FAST
@given(a=ACCURACIES, b=ACCURACIES)
def test_below_is_antisymmetric(a: list[float], b: list[float]) -> None:
    opposite = {Verdict.CONFIRMED: Verdict.REFUTED, Verdict.REFUTED: Verdict.CONFIRMED}
    forward, backward = below(a, b, paired=False).verdict, below(b, a, paired=False).verdict
    assert backward is opposite.get(forward, forward)


def test_below_on_every_path() -> None:
    low, high = [10.0, 11.0, 12.0], [20.0, 22.0, 21.0]
    assert below(low, high, paired=True).verdict is below(low, high, paired=False).verdict is Verdict.CONFIRMED
    assert below(high, low, paired=False).verdict is Verdict.REFUTED
    assert below(low, [9.0, 14.0, 12.0], paired=False).verdict is Verdict.INCONCLUSIVE
    assert below([1.0], [2.0], paired=True) == Judged(verdict=Verdict.INCONCLUSIVE, reason="one seed: difference -1.00")
    assert below([1.0, math.nan], [2.0, 3.0], paired=True).verdict is Verdict.INCONCLUSIVE
    assert below([], [2.0], paired=False).verdict is Verdict.NOT_RUN


def test_pairing_sees_what_the_seeds_share() -> None:
    a, b = [10.0, 20.0, 30.0], [11.0, 21.2, 30.9]
    assert below(a, b, paired=True).verdict is Verdict.CONFIRMED
    assert below(a, b, paired=False).verdict is Verdict.INCONCLUSIVE
