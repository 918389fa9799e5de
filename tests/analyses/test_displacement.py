"""Displacement and fitting on histories made by hand, and on a real one."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ule_datasets.analyses.displacement import compare, crossing, first_window
from ule_datasets.analyses.fitting import compare_fitting
from ule_datasets.base.errors import InputError
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.papers.statistics import Verdict
from ule_datasets.victims.history import EpochRecord, RunHistory, Window
from ule_datasets.victims.protocol import MultiStep, TrainingProtocol

STEPS = 10
"""Per epoch."""


def protocol(epochs: int, strategy: str = "standard") -> TrainingProtocol:
    return TrainingProtocol(model="resnet18", epochs=epochs, strategy=parse_strategy(strategy))


def history(
    accuracies: list[float], *, seed: int = 0, shift: float = 0.0, strategy: str = "standard", steps: int = STEPS
) -> RunHistory:
    """Windows rise evenly around the epoch's accuracy; the displacement is the number of the step, plus ``shift``."""
    records = []
    for epoch, accuracy in enumerate(accuracies, start=1):
        ends = [(epoch - 1) * steps + steps * part // 5 for part in range(1, 6)]
        windows = tuple(
            Window(step=end, train_accuracy=accuracy + offset, displacement=end + shift)
            for end, offset in zip(ends, (-10, -5, 0, 5, 10), strict=True)
        )
        records.append(
            EpochRecord(
                epoch=epoch,
                train_loss=1.0,
                train_accuracy=accuracy,
                test_accuracy=10.0,
                displacement=windows[-1].displacement,
                windows=windows,
                seconds=0.0,
            )
        )
    return RunHistory(
        protocol=protocol(len(accuracies), strategy),
        seed=seed,
        device="",
        threads=1,
        ranks=1,
        num_parameters=1,
        epochs=tuple(records),
        seconds=0.0,
    )


def runs(*curves: list[float], **options: object) -> list[RunHistory]:
    """One per seed; displacements of different seeds differ a little."""
    return [history(curve, seed=seed, shift=0.1 * seed, **options) for seed, curve in enumerate(curves)]


SLOW, QUICK, NEVER = [40.0, 60.0, 92.0, 99.5], [91.0, 99.0, 100.0, 100.0], [40.0, 50.0, 60.0, 70.0]


def test_the_first_epoch_at_the_threshold() -> None:
    found = crossing(history(SLOW, seed=7, shift=0.5))
    assert found is not None
    assert dataclasses.asdict(found) == {
        "seed": 7,
        "epoch": 3,
        "step": 30,
        "train_accuracy": 92.0,
        "displacement": 30.5,
        "by": "epoch",
    }
    exactly = crossing(history([60.0, 90.0, 99.5]))
    assert exactly is not None
    assert exactly.epoch == 2
    assert crossing(history(NEVER)) is None


def test_the_first_window_comes_no_later() -> None:
    found = first_window(history(SLOW, seed=7))
    assert found is not None
    assert (found.epoch, found.step, found.train_accuracy, found.displacement) == (3, 26, 92.0, 26.0)
    early = first_window(history([82.0, 91.0, 95.0, 99.0]))
    assert early is not None
    assert (early.epoch, early.step, early.by) == (1, 10, "window")
    assert first_window(history(NEVER)) is None


def test_an_epoch_whose_loss_was_not_finite_does_not_count() -> None:
    whole = history(SLOW)
    broken = dataclasses.replace(whole.epochs[2], train_loss=None, displacement=None, windows=())
    run = dataclasses.replace(whole, epochs=(*whole.epochs[:2], broken))
    assert crossing(run) is None
    assert first_window(run) is None


def test_a_smaller_displacement_is_confirmed() -> None:
    result = compare(runs(SLOW, SLOW, SLOW), runs(QUICK, QUICK, QUICK))
    assert result.judged.verdict is Verdict.CONFIRMED, result.judged.reason
    assert result.by_window.judged.verdict is Verdict.CONFIRMED
    assert [each.displacement for each in result.by_epoch.clean] == pytest.approx([30, 30.1, 30.2])
    assert [each.displacement for each in result.by_epoch.protected] == pytest.approx([10, 10.1, 10.2])
    assert [each.step for each in result.by_window.protected] == [6, 6, 6]
    assert result.by_epoch.clean_never == result.by_epoch.protected_never == ()
    content = json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))
    assert content["by_epoch"]["judged"]["verdict"] == "confirmed"


def test_a_larger_one_is_refuted_and_equal_ones_are_open() -> None:
    assert compare(runs(QUICK, QUICK, QUICK), runs(SLOW, SLOW, SLOW)).judged.verdict is Verdict.REFUTED
    assert compare(runs(SLOW, SLOW, SLOW), runs(SLOW, SLOW, SLOW)).judged.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_runs_give_numbers_and_no_verdict(count: int) -> None:
    judged = compare(runs(*[SLOW] * count), runs(*[QUICK] * 3)).judged
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "-20" in judged.reason or "-19.9" in judged.reason
    assert "at least 3 runs of each kind" in judged.reason


def test_runs_that_never_got_there_are_named() -> None:
    result = compare(runs(SLOW, NEVER, SLOW, SLOW), runs(QUICK, QUICK, QUICK))
    assert result.by_epoch.clean_never == (1,)
    assert result.judged.verdict is Verdict.CONFIRMED
    assert "1 of 4 runs on clean data never reached 90 % (seeds 1)" in result.judged.reason
    none = compare(runs(NEVER, NEVER, NEVER), runs(QUICK, QUICK, QUICK)).judged
    assert none.verdict is Verdict.INCONCLUSIVE
    assert "3 of 3 runs on clean data" in none.reason


def test_without_runs_there_is_no_verdict() -> None:
    assert compare([], runs(QUICK)).judged.verdict is Verdict.NOT_RUN
    assert compare_fitting([], []).judged.verdict is Verdict.NOT_RUN


def test_runs_that_cannot_be_compared_are_refused() -> None:
    run = history(SLOW)
    other_schedule = dataclasses.replace(run, protocol=dataclasses.replace(run.protocol, schedule=MultiStep()))
    other_model = dataclasses.replace(run, protocol=dataclasses.replace(run.protocol, model="lenet5"))
    with pytest.raises(InputError, match="differ in schedule"):
        compare([run], [other_schedule])
    with pytest.raises(InputError, match="differ in model"):
        compare([run], [other_model])
    with pytest.raises(InputError, match="differ in epochs"):
        compare([run], [history(SLOW[:3])])
    with pytest.raises(InputError, match="10, 20 steps per epoch"):
        compare([run], [history(SLOW, steps=20)])
    with pytest.raises(InputError, match="runs on clean data have 0, 0"):
        compare([run, run], [run])


# Fitting


def test_protected_data_is_fitted_earlier() -> None:
    result = compare_fitting(runs(SLOW, SLOW, SLOW), runs(QUICK, QUICK, QUICK))
    assert result.judged.verdict is Verdict.CONFIRMED, result.judged.reason
    assert (result.clean_first, result.protected_first) == ((3, 3, 3), (1, 1, 1))
    assert result.clean_final == (99.5, 99.5, 99.5)
    assert json.loads(json.dumps(dataclasses.asdict(result)))["judged"]["verdict"] == "confirmed"


def test_protected_data_that_is_fitted_later_refutes() -> None:
    result = compare_fitting(runs(QUICK, QUICK, QUICK), runs(SLOW, SLOW, SLOW))
    assert result.judged.verdict is Verdict.REFUTED


def test_runs_that_never_fit_count_against_an_unsafe_verdict_only() -> None:
    clean_never = compare_fitting(runs(NEVER, NEVER, NEVER), runs(QUICK, QUICK, QUICK))
    assert clean_never.judged.verdict is Verdict.CONFIRMED
    assert "never fitted: 3 clean, 0 protected, counted as epoch 5" in clean_never.judged.reason
    both_never = compare_fitting(
        runs(*[NEVER] * 30),
        [history(NEVER if seed < 1 else QUICK, seed=seed) for seed in range(30)],
    )
    assert both_never.judged.verdict is Verdict.INCONCLUSIVE
    protected_never = compare_fitting(runs(QUICK, QUICK, QUICK), runs(NEVER, NEVER, NEVER))
    assert protected_never.judged.verdict is Verdict.REFUTED


def test_two_runs_give_no_verdict_on_fitting() -> None:
    result = compare_fitting(runs(SLOW, SLOW), runs(QUICK, QUICK))
    assert result.judged.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("strategy", ["mixup", "linf-at", "randaugment+cutout", "cutmix"])
def test_strategies_that_cannot_fit_are_refused(strategy: str) -> None:
    run = history(SLOW, strategy=strategy)
    with pytest.raises(InputError, match="cannot be expected to fit"):
        compare_fitting([run], [run])
    compare([run], [run])


@pytest.mark.parametrize("strategy", ["none", "standard", "cutout", "randaugment"])
def test_strategies_that_can_fit_are_compared(strategy: str) -> None:
    fitted = compare_fitting(runs(SLOW, SLOW, SLOW, strategy=strategy), runs(QUICK, QUICK, QUICK, strategy=strategy))
    assert fitted.judged.verdict is Verdict.CONFIRMED
