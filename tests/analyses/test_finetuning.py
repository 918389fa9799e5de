"""Fine-tuning: its protocol, and what histories made by hand say."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ule_datasets.analyses.finetuning import FINETUNING_RATES, finetuning_protocol, summarise
from ule_datasets.base.errors import InputError
from ule_datasets.experiments.profiles import PROFILES
from ule_datasets.papers.statistics import Verdict
from ule_datasets.victims.history import EpochRecord, RunHistory
from ule_datasets.victims.protocol import AdamW, MultiStep

BASE = PROFILES["paper"].protocol("resnet18", "standard", flippable=True)
BAD, GOOD, BETWEEN = [60.0, 20.0, 12.0], [93.0, 92.0, 91.0], [80.0, 60.0, 42.0]
"""Clean test accuracy over the epochs."""


def history(rate: float, accuracies: list[float], *, seed: int, model: str = "resnet18") -> RunHistory:
    base = dataclasses.replace(BASE, model=model, epochs=4 * len(accuracies))
    records = tuple(
        EpochRecord(
            epoch=epoch,
            train_loss=0.1,
            train_accuracy=99.0,
            test_accuracy=accuracy,
            displacement=1.0,
            windows=(),
            seconds=0.0,
        )
        for epoch, accuracy in enumerate(accuracies, start=1)
    )
    return RunHistory(
        protocol=finetuning_protocol(base, learning_rate=rate, start=f"weights of {seed}"),
        seed=seed,
        device="",
        threads=1,
        ranks=1,
        num_parameters=1,
        epochs=records,
        seconds=0.0,
    )


def runs(rate: float, accuracies: list[float], count: int = 3) -> list[RunHistory]:
    """One per seed; accuracies differ a little."""
    return [history(rate, [value + 0.2 * seed for value in accuracies], seed=seed) for seed in range(count)]


def verdict_of(curves: dict[float, list[float]], **options: float) -> Verdict:
    histories = {rate: runs(rate, curve) for rate, curve in curves.items()}
    return summarise(histories, start_accuracy=94.0, chance=10.0, **options).judged.verdict


@pytest.mark.parametrize(("profile", "epochs"), [("paper", 50), ("fast", 5), ("smoke", 3)])
def test_a_quarter_of_the_epochs(profile: str, epochs: int) -> None:
    base = PROFILES[profile].protocol("resnet18", "standard", flippable=True)
    tuned = finetuning_protocol(base, learning_rate=0.01, start="digest")
    assert tuned.epochs == epochs
    assert tuned.optimiser == dataclasses.replace(base.optimiser, learning_rate=0.01)
    assert tuned.start == "digest"
    kept = ("model", "strategy", "batch_size", "precision", "compiled")
    assert [getattr(tuned, name) for name in kept] == [getattr(base, name) for name in kept]


def test_the_learning_rate_drops_at_one_half_and_three_quarters() -> None:
    tuned = finetuning_protocol(BASE, learning_rate=0.1, start="digest")
    assert tuned.schedule == MultiStep()
    rates = [tuned.optimiser.learning_rate * tuned.schedule.factor(step, 100) for step in (0, 49, 50, 74, 75, 99)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_other_optimisers_keep_their_kind() -> None:
    base = PROFILES["paper"].protocol("cvt-7-4", "standard", flippable=True)
    tuned = finetuning_protocol(base, learning_rate=0.01, start="digest")
    assert tuned.optimiser == AdamW(learning_rate=0.01)


def test_mistakes_in_a_protocol_are_named() -> None:
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="learning_rate is"):
            finetuning_protocol(BASE, learning_rate=rate, start="digest")
    with pytest.raises(InputError, match="start is empty"):
        finetuning_protocol(BASE, learning_rate=0.1, start="")


@pytest.mark.parametrize(
    ("curves", "verdict"),
    [
        ({0.1: BAD, 0.01: BAD, 0.001: BAD}, Verdict.CONFIRMED),
        ({0.1: BAD, 0.01: BAD}, Verdict.CONFIRMED),
        ({0.1: GOOD, 0.01: GOOD, 0.001: GOOD}, Verdict.REFUTED),
        ({0.1: BAD, 0.01: BAD, 0.001: GOOD}, Verdict.INCONCLUSIVE),
        ({0.1: BAD, 0.01: GOOD}, Verdict.INCONCLUSIVE),
        ({0.1: BAD, 0.01: BETWEEN}, Verdict.INCONCLUSIVE),
        ({0.1: BETWEEN, 0.01: BETWEEN}, Verdict.INCONCLUSIVE),
        ({0.1: BAD, 0.001: BAD}, Verdict.INCONCLUSIVE),
        ({0.01: GOOD}, Verdict.INCONCLUSIVE),
        ({}, Verdict.NOT_RUN),
    ],
)
def test_the_statement_needs_every_learning_rate(curves: dict[float, list[float]], verdict: Verdict) -> None:
    assert verdict_of(curves) is verdict


def test_the_lines_lie_at_a_quarter_and_one_half_of_the_way() -> None:
    for value, verdict in ((30.9, Verdict.CONFIRMED), (31.1, Verdict.INCONCLUSIVE)):
        constant = {rate: [history(rate, [value], seed=seed) for seed in range(3)] for rate in (0.1, 0.01)}
        assert summarise(constant, start_accuracy=94.0, chance=10.0).judged.verdict is verdict
    for value, verdict in ((51.9, Verdict.INCONCLUSIVE), (52.1, Verdict.REFUTED)):
        constant = {rate: [history(rate, [value], seed=seed) for seed in range(3)] for rate in (0.1, 0.01)}
        assert summarise(constant, start_accuracy=94.0, chance=10.0).judged.verdict is verdict


def test_the_result_has_the_curves() -> None:
    histories = {rate: runs(rate, curve) for rate, curve in zip(FINETUNING_RATES[::-1], (GOOD, BAD, BAD), strict=True)}
    result = summarise(histories, start_accuracy=94.0, chance=10.0)
    assert [each.learning_rate for each in result.rates] == [0.1, 0.01, 0.001]
    last = result.rates[2]
    assert last.accuracies[1] == pytest.approx((93.2, 92.2, 91.2))
    assert last.mean == pytest.approx(91.2)
    assert last.sd == pytest.approx(0.2)
    assert last.seeds == (0, 1, 2)
    assert last.train_accuracies == (99.0, 99.0, 99.0)
    for words in ("start 94.00", "rate 0.1: ends at 12.20", "rate 0.001: ends at 91.20"):
        assert words in result.judged.reason
    content = json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))
    assert content["rates"][0]["judged"]["verdict"] == "confirmed"


def test_two_runs_are_too_few() -> None:
    result = summarise({rate: runs(rate, BAD, 2) for rate in (0.1, 0.01)}, start_accuracy=94.0, chance=10.0)
    assert result.judged.verdict is Verdict.INCONCLUSIVE
    assert "at least 3 runs are needed" in result.judged.reason


def test_a_start_that_had_not_learned_says_nothing() -> None:
    result = summarise({rate: runs(rate, BAD) for rate in (0.1, 0.01)}, start_accuracy=30.0, chance=10.0)
    assert result.judged.verdict is Verdict.INCONCLUSIVE
    assert "had not learned" in result.judged.reason


def test_a_run_whose_loss_was_not_finite_leaves_its_rate_open() -> None:
    histories = {rate: runs(rate, BAD) for rate in (0.1, 0.01)}
    broken = dataclasses.replace(histories[0.1][1].last, train_loss=None, displacement=None)
    histories[0.1][1] = dataclasses.replace(histories[0.1][1], epochs=(broken,))
    result = summarise(histories, start_accuracy=94.0, chance=10.0)
    assert result.rates[0].judged.verdict is Verdict.INCONCLUSIVE
    assert "not finite with seed 1" in result.judged.reason
    assert result.judged.verdict is Verdict.INCONCLUSIVE


def test_runs_that_do_not_belong_together_are_refused() -> None:
    run = history(0.1, BAD, seed=0)
    random_start = dataclasses.replace(run, protocol=dataclasses.replace(run.protocol, start=""))
    cases = [
        ({0.01: [run]}, "filed under learning rate 0.01 has 0.1"),
        ({0.1: [run, run]}, r"learning rate 0.1 has \[0, 0\]"),
        ({0.1: [random_start]}, "started from random weights"),
        ({0.1: [run, history(0.1, BAD, seed=1, model="lenet5")]}, "more than learning rate, start and seed"),
        ({0.1: [run], 0.01: [history(0.01, [*BAD, 12.0], seed=0)]}, "more than learning rate, start and seed"),
    ]
    for histories, message in cases:
        with pytest.raises(InputError, match=message):
            summarise(histories, start_accuracy=94.0, chance=10.0)
    with pytest.raises(InputError, match="chance is 0"):
        summarise({}, start_accuracy=94.0, chance=0)
