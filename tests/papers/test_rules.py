"""Verdicts against scipy, on every path, and in the directions in which they must be monotone."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from ule_datasets.base.content import content
from ule_datasets.base.errors import InputError
from ule_datasets.experiments.profiles import PROFILES
from ule_datasets.papers import claims
from ule_datasets.papers.claims import Fitting, Protocol, Regime, all_claims
from ule_datasets.papers.gates import Gate, Trained, after_gates, gates, power_for, printed_baseline
from ule_datasets.papers.rules import TOLERANCES, Power, Tolerance, judge_effect, judge_level, tolerance_of
from ule_datasets.papers.statistics import Judged, Verdict
from ule_datasets.victims.protocol import Cosine

CLAIMS = all_claims()
OPS = CLAIMS["ops-t2-resnet18-ops"]  # collapsed, 15.56
CLEAN = CLAIMS["ops-t2-resnet18-clean"]  # 94.01
RANDPIX = CLAIMS["ops-tb-randpix"]  # 50.67 ± 11.29 over 10
MIXUP = CLAIMS["ops-t5-ops-mixup"]  # partial, 33.13
RECOVERED = CLAIMS["ops-t5-em-linf_at"]  # 83.02, clean 82.72
ACCURACIES = st.lists(st.floats(0, 100, allow_subnormal=False), min_size=2, max_size=12)
POWERS = st.sampled_from(list(Power))
FAST = settings(deadline=None, max_examples=60)


# Tolerances


@pytest.mark.parametrize(
    ("id", "kind"),
    [
        ("ops-t2-resnet18-clean", "baseline"),
        ("ops-t2-cvt-7-4-clean", "baseline"),
        ("ops-t5-clean-mixup", "baseline"),
        ("ops-t2-lenet5-clean", "baseline, wide"),
        ("ops-t4-resnet18-224-clean", "baseline, wide"),
        ("ops-t5-clean-linf_at-mixup", "baseline, wide"),
        ("ops-td-clean-l2_at_eps1", "baseline, wide"),
        ("uc-tat-clean-rho1", "baseline, wide"),
        ("uc-t1-clean-pets-resnet18-224", "baseline, wide"),
        ("ops-t5-em-linf_at", "recovered"),
        ("ops-t5-ops-mixup", "partial"),
        ("ops-t2-resnet18-ops", "collapsed"),
        ("ops-t6-k4-mixup", "collapsed, at chance"),
        ("ops-t5-ops-linf_at", "collapsed, at chance"),
        ("ops-t2-densenet121-ops", "collapsed"),
        ("ops-t4-resnet50-224-ops", "collapsed"),  # 10.38, but of a hundred classes
        ("ops-t1-train_clean-test_clean", "analysis, at the ends"),
        ("ops-t1-train_clean-test_ops_shuffled", "analysis, at the ends"),
        ("ops-t1-train_em-test_clean", "analysis, low"),
        ("ops-t1-train_clean-test_em", "analysis"),
        ("le-text-linprobe-le", "analysis"),
        ("ops-tb-randpix", "printed with spread"),
        ("ops-t3-wrn_28_1-params", "size"),
        ("ops-text-cost-em", "cost"),
    ],
)
def test_every_claim_has_the_tolerance_of_its_kind(id: str, kind: str) -> None:
    assert tolerance_of(CLAIMS[id]) == TOLERANCES[kind]


def test_every_tolerance_lets_the_smallest_number_of_runs_confirm() -> None:
    used = {tolerance_of(claim) for claim in CLAIMS.values()}
    assert used == set(TOLERANCES.values()), "no row is dead"
    for kind, tolerance in TOLERANCES.items():
        if kind in ("size", "cost"):
            continue
        half = stats.t.ppf(0.975, tolerance.seeds - 1) * tolerance.floor / math.sqrt(tolerance.seeds)
        assert half <= tolerance.delta, kind


def test_a_tolerance_is_not_negative() -> None:
    with pytest.raises(InputError, match="at least 0"):
        Tolerance(delta=1, slack=-1, floor=0, seeds=1)


# Level


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([14, 15, 16, 17, 18], Verdict.CONFIRMED),
        ([36, 36.5, 37, 36, 37], Verdict.REFUTED),
        ([22, 23, 22, 23, 22.5], Verdict.INCONCLUSIVE),  # between delta and delta plus slack
        ([0, 30, 0, 30, 18], Verdict.INCONCLUSIVE),  # mean right, but hardly known
        ([5, 60, 5, 60, 15], Verdict.INCONCLUSIVE),  # far, but a further run may be anywhere
        ([14, 15, 16, 17], Verdict.INCONCLUSIVE),  # too few
        ([80, 80.5, 81, 80], Verdict.INCONCLUSIVE),  # too few, however far
        ([15.56], Verdict.INCONCLUSIVE),
        ([15, math.nan, 15, 15, 15], Verdict.INCONCLUSIVE),
        ([], Verdict.NOT_RUN),
    ],
)
def test_level_with_full_power(values: list[float], verdict: Verdict) -> None:
    judged = judge_level(OPS, values, power=Power.FULL)
    assert judged.verdict is verdict, judged.reason


def test_level_reasons_carry_the_numbers() -> None:
    reason = judge_level(OPS, [14, 15, 16, 17], power=Power.FULL).reason
    assert reason.startswith("15.50 ± 1.29 (4 runs) measured, 15.56 printed: 0.06 apart (tolerance 6 + 2;")
    assert reason.endswith("at least 5 seeds are needed")
    assert judge_level(OPS, [15.0], power=Power.FULL).reason == "one seed: 15.00 measured, 15.56 printed"


def test_a_shortened_profile_is_at_most_consistent() -> None:
    assert judge_level(OPS, [14, 15, 16], power=Power.CONSISTENCY).verdict is Verdict.CONSISTENT
    assert judge_level(OPS, [36, 36.5, 37], power=Power.CONSISTENCY).verdict is Verdict.NOT_CONSISTENT
    assert judge_level(OPS, [22, 23, 22.5], power=Power.CONSISTENCY).verdict is Verdict.INCONCLUSIVE
    assert judge_level(OPS, [15, 16], power=Power.CONSISTENCY).verdict is Verdict.INCONCLUSIVE
    assert judge_level(OPS, [15.56], power=Power.CONSISTENCY).verdict is Verdict.INCONCLUSIVE


def test_another_network_says_nothing_about_a_number() -> None:
    assert judge_level(OPS, [15.5] * 9, power=Power.NONE).verdict is Verdict.NOT_COMPARABLE


@FAST
@given(
    values=st.lists(st.floats(0, 100), min_size=1, max_size=8),
    power=POWERS,
    id=st.sampled_from([id for id, claim in CLAIMS.items() if claim.regime not in (Regime.SIZE, Regime.COST)]),
)
def test_only_full_power_confirms_or_refutes(values: list[float], power: Power, id: str) -> None:
    verdict = judge_level(CLAIMS[id], values, power=power).verdict
    if power is not Power.FULL or len(values) < tolerance_of(CLAIMS[id]).seeds:
        assert verdict not in (Verdict.CONFIRMED, Verdict.REFUTED)
    if power is not Power.CONSISTENCY:
        assert verdict not in (Verdict.CONSISTENT, Verdict.NOT_CONSISTENT)


@FAST
@given(
    values=st.lists(st.floats(0, 60), min_size=3, max_size=9),
    delta=st.floats(0.1, 30),
    slack=st.floats(0, 10),
    more=st.floats(0, 10),
    claim=st.sampled_from([OPS, RANDPIX]),
)
def test_more_slack_never_refutes_and_more_delta_never_unconfirms(
    values: list[float], delta: float, slack: float, more: float, claim: claims.Claim
) -> None:
    tight = Tolerance(delta=delta, slack=slack, floor=0.5, seeds=3)
    first = judge_level(claim, values, power=Power.FULL, tolerance=tight).verdict
    slacker = dataclasses.replace(tight, slack=slack + more)
    second = judge_level(claim, values, power=Power.FULL, tolerance=slacker).verdict
    assert second is first or (first, second) == (Verdict.REFUTED, Verdict.INCONCLUSIVE)
    wider = judge_level(
        claim, values, power=Power.FULL, tolerance=dataclasses.replace(tight, delta=delta + more)
    ).verdict
    assert not (first is Verdict.CONFIRMED and wider is not Verdict.CONFIRMED)
    assert not (first is not Verdict.REFUTED and wider is Verdict.REFUTED)


def test_the_floor_keeps_equal_runs_from_refuting_too_easily() -> None:
    tolerance = Tolerance(delta=1, slack=0, floor=5, seeds=3)
    assert judge_level(OPS, [20, 20, 20], power=Power.FULL, tolerance=tolerance).verdict is Verdict.INCONCLUSIVE
    bare = dataclasses.replace(tolerance, floor=0)
    assert judge_level(OPS, [20, 20, 20], power=Power.FULL, tolerance=bare).verdict is Verdict.REFUTED


SERIES = [40.0, 62, 55, 47, 38, 66, 51, 45, 58, 52, 49, 50, 53, 48, 54, 46]


def test_a_number_with_its_spread_is_compared_by_welch() -> None:
    expected = stats.ttest_ind_from_stats(
        statistics.fmean(SERIES), statistics.stdev(SERIES), len(SERIES), 50.67, 11.29, 10, equal_var=False
    )
    judged = judge_level(RANDPIX, SERIES, power=Power.FULL)
    assert judged.verdict is Verdict.CONFIRMED, judged.reason
    assert expected.pvalue > 0.5
    up = [value + 30 for value in SERIES]
    assert judge_level(RANDPIX, up, power=Power.FULL).verdict is Verdict.REFUTED
    assert judge_level(RANDPIX, [value + 9 for value in SERIES], power=Power.FULL).verdict is Verdict.INCONCLUSIVE
    assert judge_level(RANDPIX, SERIES[:4], power=Power.FULL).verdict is Verdict.INCONCLUSIVE
    assert judge_level(RANDPIX, SERIES[:4], power=Power.CONSISTENCY).verdict is not Verdict.CONFIRMED


@FAST
@given(values=st.lists(st.floats(0, 100), min_size=5, max_size=12))
def test_refuting_a_number_with_spread_needs_a_significant_difference(values: list[float]) -> None:
    assume(statistics.stdev(values) > 2)  # above the floor
    sd, mean = statistics.stdev(values), statistics.fmean(values)
    p = stats.ttest_ind_from_stats(mean, sd, len(values), 50.67, 11.29, 10, equal_var=False).pvalue
    assume(abs(p - 0.05) > 1e-6)
    refuted = judge_level(RANDPIX, values, power=Power.FULL).verdict is Verdict.REFUTED
    assert refuted == (p < 0.05 and abs(mean - 50.67) > 12)


@pytest.mark.parametrize("power", list(Power))
def test_sizes_are_exact_for_any_power(power: Power) -> None:
    sizes = {
        "1": 370_506,
        "2": 1_469_642,
        "4": 5_853_098,
        "8": 23_362_922,
        "16": 93_354_218,
        "20": 145_835_690,
    }
    for factor, count in sizes.items():
        claim = CLAIMS[f"ops-t3-wrn_28_{factor}-params"]
        assert judge_level(claim, [count / 1e6], power=power).verdict is Verdict.CONFIRMED
    without_biases = judge_level(CLAIMS["ops-t3-wrn_28_16-params"], [93.3435], power=power)
    assert without_biases.verdict is Verdict.REFUTED
    with pytest.raises(InputError, match="one size"):
        judge_level(CLAIMS["ops-t3-wrn_28_1-params"], [0.37, 0.38], power=power)


def test_times_agree_within_a_factor_and_are_never_refuted() -> None:
    cost = CLAIMS["ops-text-cost-ops"]  # 30 s
    assert judge_level(cost, [11, 12, 11], power=Power.FULL).verdict is Verdict.CONFIRMED
    assert judge_level(cost, [80, 85, 88], power=Power.FULL).verdict is Verdict.CONFIRMED
    assert judge_level(cost, [11, 12, 11], power=Power.CONSISTENCY).verdict is Verdict.CONSISTENT
    for values in ([9, 9, 9], [100, 100, 100], [30, 30]):
        for power in (Power.FULL, Power.CONSISTENCY):
            assert judge_level(cost, values, power=power).verdict is Verdict.INCONCLUSIVE
    with pytest.raises(InputError, match="above 0"):
        judge_level(cost, [0, 1, 1], power=Power.FULL)
    saved = judge_level(CLAIMS["le-text-train-time-reduction"], [70, 70, 70], power=Power.FULL)
    assert saved.verdict is Verdict.NOT_COMPARABLE


# Effect: with a control of 94 and chance 10 the lines are 31, 52 and 81.4

CONTROL = [93.9, 94.0, 94.1]


@pytest.mark.parametrize(
    ("claim", "values", "verdict"),
    [
        (OPS, [14, 15, 16, 17, 18], Verdict.CONFIRMED),
        (OPS, [60, 61, 62], Verdict.REFUTED),
        (OPS, [40, 41, 42], Verdict.INCONCLUSIVE),
        (OPS, [25, 30, 33], Verdict.INCONCLUSIVE),
        (OPS, [15.0], Verdict.INCONCLUSIVE),
        (OPS, [15.0, math.inf], Verdict.INCONCLUSIVE),
        (OPS, [], Verdict.NOT_RUN),
        (RECOVERED, [90, 91, 92], Verdict.CONFIRMED),
        (RECOVERED, [60, 61, 62], Verdict.REFUTED),
        (RECOVERED, [80, 81, 83], Verdict.INCONCLUSIVE),
        (MIXUP, [50, 51, 52, 53, 54], Verdict.CONFIRMED),
        (MIXUP, [10, 11, 10, 11, 10], Verdict.REFUTED),
        (MIXUP, [92, 93, 92, 93, 92], Verdict.REFUTED),
        (MIXUP, [30, 31, 32, 30, 31], Verdict.INCONCLUSIVE),
        (RANDPIX, [45, 50, 55, 60, 40], Verdict.CONFIRMED),
    ],
)
def test_effects(claim: claims.Claim, values: list[float], verdict: Verdict) -> None:
    judged = judge_effect(claim, values, CONTROL, chance=10)
    assert judged.verdict is verdict, judged.reason


def test_effect_reasons_carry_the_numbers() -> None:
    judged = judge_effect(OPS, [14, 15, 16], CONTROL, chance=10)
    assert judged.reason == "protection holds, at most 31.00: 15.00 ± 1.00 (3 runs), from 11.27 to 18.73; control 94.00"


@FAST
@given(values=st.lists(st.floats(0, 100), min_size=1, max_size=6), claim=st.sampled_from([OPS, MIXUP, RECOVERED]))
def test_without_a_control_that_learned_nothing_is_said(values: list[float], claim: claims.Claim) -> None:
    for control in ([], [32.4, 32.4], [94.0, math.nan]):
        judged = judge_effect(claim, values, control, chance=10)
        assert judged.verdict is Verdict.INCONCLUSIVE, judged.reason
    assert "did not learn" in judge_effect(claim, values, [32.4], chance=10).reason
    assert "did not learn" not in judge_effect(claim, values, [32.6], chance=10).reason


@FAST
@given(values=st.lists(st.floats(0, 100), min_size=2, max_size=8), shift=st.floats(0, 40))
def test_higher_accuracy_never_helps_a_protection(values: list[float], shift: float) -> None:
    order = [Verdict.CONFIRMED, Verdict.INCONCLUSIVE, Verdict.REFUTED]
    before = judge_effect(OPS, values, CONTROL, chance=10).verdict
    after = judge_effect(OPS, [value + shift for value in values], CONTROL, chance=10).verdict
    assert order.index(after) >= order.index(before)


def test_the_effect_of_a_baseline_is_that_it_learns() -> None:
    assert judge_effect(CLEAN, [94, 94.1, 94.2], [], chance=10).verdict is Verdict.CONFIRMED
    low = judge_effect(CLEAN, [30, 31, 32], [94.0], chance=10)
    assert low.verdict is Verdict.INCONCLUSIVE
    assert "did not learn" in low.reason
    assert judge_effect(CLEAN, [94.0], [], chance=10).verdict is Verdict.INCONCLUSIVE


def test_other_kinds_have_no_effect_and_chance_is_a_percentage() -> None:
    for id in ("ops-t1-train_em-test_em", "ops-text-cost-em", "ops-t3-wrn_28_1-params"):
        assert judge_effect(CLAIMS[id], [1.0, 2.0], [1.0], chance=10).verdict is Verdict.NOT_COMPARABLE
    with pytest.raises(InputError, match="chance"):
        judge_effect(OPS, [1.0], [1.0], chance=100)


# Gates


def gates_of(
    claim: claims.Claim = OPS,
    *,
    train: Sequence[float] = (99.9, 99.8),
    training: Sequence[Trained] | None = None,
    clean: Sequence[Trained] | None = (Trained(accuracies=(99.9,), epochs=1),),
    control: Sequence[float] | None = (94.0, 94.2),
    finite: bool = True,
    parameters: tuple[int, int | None] = (11_173_962, 11_173_962),
    fingerprint: bool = True,
    power: Power = Power.FULL,
) -> dict[str, Gate]:
    found = gates(
        claim,
        training=[Trained(accuracies=(value,), epochs=1) for value in train] if training is None else training,
        control_training=clean,
        control_values=control,
        finite=finite,
        num_parameters=parameters[0],
        expected_parameters=parameters[1],
        fingerprint_ok=fingerprint,
        power=power,
    )
    return {gate.name: gate for gate in found}


def failed(found: dict[str, Gate]) -> list[str]:
    return [name for name, gate in found.items() if not gate.passed]


def test_good_runs_pass_every_gate() -> None:
    found = gates_of()
    assert list(found) == ["fingerprint", "parameters", "finite loss", "training accuracy", "clean baseline"]
    assert not failed(found)
    assert not any(gate.caps for gate in found.values())
    assert "clean baseline" not in gates_of(CLEAN, control=None)
    assert list(gates_of(CLAIMS["ops-t3-wrn_28_1-params"])) == ["parameters"]


def test_each_gate_fails_alone() -> None:
    assert failed(gates_of(fingerprint=False)) == ["fingerprint"]
    assert failed(gates_of(parameters=(11_173_963, 11_173_962))) == ["parameters"]
    assert failed(gates_of(parameters=(5, None))) == []
    assert failed(gates_of(finite=False)) == ["finite loss"]
    assert failed(gates_of(train=(99.9, 98.9))) == ["training accuracy"]
    assert failed(gates_of(train=())) == ["training accuracy"]
    assert failed(gates_of(control=(92.4, 92.4))) == ["clean baseline"]
    assert failed(gates_of(control=None)) == ["clean baseline"]


def curve(*last: float, end: float | None = None, epochs: int = 200, done: int = 200) -> Trained:
    """A run that ends with these training accuracies, after ten times ``end``."""
    accuracies = (*[50.0] * 190, *[end or last[-1]] * 10)[: done - len(last)]
    return Trained(accuracies=(*accuracies, *last), epochs=epochs)


FLAT = "flat over the last 10 epochs (±0.5)"
LENET = CLAIMS["ops-t2-lenet5-ops"]
LENET_CLEAN = CLAIMS["ops-t2-lenet5-clean"]


@pytest.mark.parametrize(
    ("runs", "clean", "passed", "says"),
    [
        # Every run reaches the line: nothing else is asked.
        ([curve(99.2), curve(99.9)], [curve(60.0)], True, "99.20 at the last epoch, 99 wanted"),
        ([curve(99.2, end=40.0, done=12)], [], True, "99.20 at the last epoch, 99 wanted"),
        # The clean control reaches it, so it is asked.
        ([curve(98.9), curve(99.9)], [curve(99.1)], False, "98.90 at the last epoch, 99 wanted: the clean control re"),
        ([curve(60.0)], [curve(99.1)] * 3, False, "60.00 at the last epoch, 99 wanted: the clean control reaches it"),
        # Nobody knows whether this network could.
        ([curve(90.1)], [], False, "90.10 at the last epoch, 99 wanted: there is no clean control to show that this"),
        # It cannot: whole schedule, flat, at least the control.
        (
            [curve(90.1)],
            [curve(60.8)],
            True,
            "99 not wanted because the clean control ends at 60.80; kept: the whole s",
        ),
        ([curve(90.1)], [curve(99.5), curve(98.9)], False, "missed: a mean of at least the clean control's (90.10)"),
        ([curve(90.1, done=150)], [curve(60.8)], False, "; missed: the whole schedule"),
        ([curve(90.1, end=88.0)], [curve(60.8)], False, f"; missed: {FLAT}"),
        ([curve(90.0), curve(90.1, end=88.0)], [curve(60.8)], False, f"; missed: {FLAT}"),
        ([curve(90.4, 89.6, 90.0)], [curve(60.8)], True, "; kept: the whole schedule; flat"),
        ([curve(90.6, 89.4, 90.0)], [curve(60.8)], False, f"; missed: {FLAT}"),
        ([curve(60.7)], [curve(60.8)], False, "; missed: a mean of at least the clean control's (60.70)"),
        ([curve(60.7), curve(60.9)], [curve(60.8)], True, "a mean of at least the clean control's (60.80)"),
        ([curve(55.0, end=30.0, done=12)], [curve(60.8)], False, f"missed: the whole schedule; {FLAT}; a mean of"),
        # A schedule that is shorter than the end that must be flat.
        ([Trained(accuracies=(90.1,) * 9, epochs=9)], [curve(60.8)], False, f"; missed: {FLAT}"),
        ([Trained(accuracies=(90.1,) * 10, epochs=10)], [curve(60.8)], True, "; kept: the whole schedule"),
        # Runs on clean data are their own control.
        (
            [curve(60.8)],
            None,
            True,
            "99 not wanted because on clean data this network ends there; kept: the whole sch",
        ),
        ([curve(60.8, end=58.0)], None, False, f"; missed: {FLAT}"),
        ([curve(60.8, done=100)], None, False, "; missed: the whole schedule"),
        ([], None, False, "not recorded"),
    ],
)
def test_how_far_training_data_must_be_fitted(
    runs: list[Trained], clean: list[Trained] | None, passed: bool, says: str
) -> None:
    claim, control = (LENET_CLEAN, None) if clean is None else (LENET, (70.0,))
    gate = gates_of(claim, training=runs, clean=clean, control=control)["training accuracy"]
    assert gate.passed is passed, gate.detail
    assert says in gate.detail
    assert gate.caps is (not passed and bool(runs))
    mixed = dataclasses.replace(claim, strategy="mixup")
    other = gates_of(mixed, training=runs, clean=clean, control=control)["training accuracy"]
    assert (other.passed, other.caps, other.detail) == (bool(runs), gate.caps, gate.detail), "others are capped"


@FAST
@given(
    end=st.lists(st.floats(0, 98), min_size=10, max_size=10),
    clean=st.floats(0, 98),
    within=st.floats(0, 50),
)
def test_the_end_of_a_schedule_is_flat_around_its_mean(end: list[float], clean: float, within: float) -> None:
    claim = dataclasses.replace(LENET, fitting=Fitting(flat_within=within))
    gate = gates_of(claim, training=[curve(*end)], clean=[curve(clean)], control=(70.0,))["training accuracy"]
    apart = [abs(value - statistics.fmean(end)) for value in end]
    assume(all(abs(value - within) > 1e-9 for value in apart))
    assert gate.passed == (max(apart) <= within and end[-1] >= clean), gate.detail
    higher = [min(value + 1, 99) for value in end]
    if gate.passed and max(higher) < 99:
        shifted = gates_of(claim, training=[curve(*higher)], clean=[curve(clean)], control=(70.0,))
        assert shifted["training accuracy"].passed, "a better fit is never worse"


@pytest.mark.parametrize("power", [Power.CONSISTENCY, Power.NONE])
def test_a_shortened_schedule_must_fit_protected_data_under_standard_training(power: Power) -> None:
    short = {a: gates_of(train=(a,), power=power)["training accuracy"] for a in (89.9, 90.0)}
    assert (short[89.9].passed, short[90.0].passed, short[90.0].caps) == (False, True, False)
    assert short[89.9].detail == "89.90 at the last epoch, 90 wanted after a shortened schedule"
    for claim in (CLEAN, MIXUP):
        gate = gates_of(claim, train=(62.0,), power=power)["training accuracy"]
        assert (gate.passed, gate.caps, gate.detail) == (True, False, "62.00 at the last epoch, nothing wanted")


UC, LE = CLAIMS["uc-t1-uc-pets-resnet18-224"], CLAIMS["le-t1-em-cifar10-vanilla"]
TRAINED: dict[str, object] = {"epochs": 200, "batch_size": 128, "schedule": {"is": "MultiStep", "drop": 0.1}}


def test_runs_of_another_protocol_than_the_papers_are_at_most_consistent() -> None:
    for claim, ends in (
        (UC, ", scaled to [-1, 1]) was not trained, epochs 200 instead of 90, batch_size 128 instead of 512, "),
        (LE, "that is not public) was not trained, its recipe is not known"),
    ):
        power, why = power_for(claim, Power.FULL, TRAINED)
        assert power is Power.CONSISTENCY
        assert why.startswith("at most consistent: the paper's own protocol (")
        assert ends in why
    assert (
        "schedule.is MultiStep instead of Cosine, schedule.end none instead of 1e-05"
        in power_for(UC, Power.FULL, TRAINED)[1]
    )
    assert power_for(OPS, Power.FULL, TRAINED) == (Power.FULL, "")


@pytest.mark.parametrize("power", [Power.CONSISTENCY, Power.NONE])
def test_a_protocol_gives_no_more_than_the_profile(power: Power) -> None:
    for claim in (UC, LE, OPS):
        assert power_for(claim, power, TRAINED) == (power, "")


def test_runs_of_the_papers_own_protocol_have_full_power() -> None:
    protocol = Protocol(words="w", settings=(("epochs", 200), ("schedule.is", "MultiStep")))
    own = dataclasses.replace(UC, protocol=protocol)
    assert power_for(own, Power.FULL, TRAINED) == (Power.FULL, "")
    assert power_for(own, Power.FULL, {**TRAINED, "schedule": "MultiStep"})[0] is Power.CONSISTENCY
    assert UC.protocol is not None
    whole: dict[str, object] = {}
    for path, value in UC.protocol.settings:
        *parents, name = path.split(".")
        table: dict[str, object] = whole
        for parent in parents:
            table = table.setdefault(parent, {})  # type: ignore[assignment]
        table[name] = value
    assert power_for(UC, Power.FULL, whole) == (Power.FULL, "")


def test_what_papers_ask_of_a_protocol_is_written_as_runs_write_it() -> None:
    """So that a victim of that protocol, once there is one, is recognised."""
    sgd = content(PROFILES["paper"].protocol("resnet18", "standard", flippable=True))["optimiser"]
    assert UC.protocol is not None
    asked = dict(UC.protocol.settings)
    assert {path.removeprefix("optimiser."): value for path, value in asked.items() if "optimiser" in path} == sgd
    assert (asked["schedule.is"], asked["schedule.end"]) == (content(Cosine(end=1e-5))["is"], 1e-5)


def test_a_better_baseline_passes_and_is_mentioned() -> None:
    better = gates_of(control=(95.6, 95.6))["clean baseline"]
    assert better.passed
    assert not better.caps
    assert better.detail.endswith("better than the paper's")
    assert "better" not in gates_of(control=(95.4,))["clean baseline"].detail


def test_the_baseline_gate_by_kind_and_power() -> None:
    at, l2 = CLAIMS["ops-t5-ops-linf_at"], CLAIMS["ops-td-ops-l2_at_eps1"]  # 82.72, 82.58
    assert not failed(gates_of(at, control=(80.0,)))
    assert failed(gates_of(at, control=(79.5,))) == ["clean baseline"]
    assert not failed(gates_of(l2, control=(78.0,)))
    assert failed(gates_of(l2, control=(77.0,))) == ["clean baseline"]
    shortened = gates_of(control=(90.0,), power=Power.CONSISTENCY)["clean baseline"]
    assert (shortened.passed, shortened.caps) == (True, True)
    absent = gates_of(control=None, power=Power.CONSISTENCY)["clean baseline"]
    assert (absent.passed, absent.caps) == (True, True)
    for power in (Power.NONE, Power.EFFECTS):
        another = gates_of(control=(60.0,), power=power)["clean baseline"]
        assert (another.passed, another.caps) == (True, False)


def test_a_baseline_is_that_of_the_same_model_and_strategy() -> None:
    assert printed_baseline(OPS) == 94.01
    assert printed_baseline(RECOVERED) == 82.72
    assert printed_baseline(CLAIMS["ops-t3-wrn_28_4-acc"]) is None, "the table prints none; the field is LeNet's"
    assert printed_baseline(CLAIMS["le-t1-em-cifar10-at"]) is None, "the field is that of standard training"
    assert printed_baseline(dataclasses.replace(OPS, paper="mine", clean_reference=80.0)) == 80.0
    assert gates_of(CLAIMS["ops-t3-wrn_28_4-acc"], control=(95.0,))["clean baseline"].detail.startswith(
        "the paper prints"
    )


def test_what_gates_do_to_a_verdict() -> None:
    confirmed = Judged(verdict=Verdict.CONFIRMED, reason="all is well")
    good = Gate(name="a", passed=True, detail="fine")
    bad = Gate(name="b", passed=False, detail="5 of 6")
    cap = Gate(name="c", passed=True, detail="low", caps=True)
    assert after_gates(confirmed, [good], level=True) == confirmed
    left_out = after_gates(confirmed, [good, bad, cap], level=False)
    assert left_out.verdict is Verdict.NOT_COMPARABLE
    assert left_out.reason == "failed: b (5 of 6); otherwise: all is well"
    assert after_gates(confirmed, [good, cap], level=True).verdict is Verdict.INCONCLUSIVE
    assert after_gates(confirmed, [good, cap], level=False) == confirmed
    not_run = Judged(verdict=Verdict.NOT_RUN, reason="no run was made")
    assert after_gates(not_run, [bad], level=True) == not_run
