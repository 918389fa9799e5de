"""Does protected data spoil a model that was already good? Fine-tuning from a model trained on clean data.

The One-Pixel Shortcut paper says so in one sentence (section 3.3), without numbers or settings; the settings here are
this project's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ule_datasets.base.errors import InputError
from ule_datasets.papers.rules import COLLAPSED, FAILED, LEARNED
from ule_datasets.papers.statistics import Estimate, Judged, Verdict
from ule_datasets.victims.history import RunHistory
from ule_datasets.victims.protocol import MultiStep, TrainingProtocol

FINETUNING_RATES = (0.1, 0.01, 0.001)
NEEDED_RATES = (0.1, 0.01)
"""Without these two the statement stays open."""
SHARE_OF_EPOCHS = 4
"""One in so many of the base protocol's epochs: 50 of 200."""
LEAST_EPOCHS = 3
SEEDS_FOR_A_VERDICT = 3


def finetuning_protocol(base: TrainingProtocol, *, learning_rate: float, start: str) -> TrainingProtocol:
    """How to fine-tune what ``base`` trains.

    A quarter of the epochs, at least three; constant, then a tenth of the learning rate after one half and a
    hundredth after three quarters; everything else as in the base protocol.

    Args:
        base: how the model was trained on clean data.
        learning_rate: the highest.
        start: digest of the weights to start from.

    Raises:
        InputError: the learning rate is not above 0, or there is nothing to start from.
    """
    if not 0 < learning_rate < math.inf:
        raise InputError(f"learning_rate is {learning_rate}, must be finite and above 0")
    if not start:
        raise InputError("start is empty: fine-tuning needs the digest of the weights that it starts from")
    return dataclasses.replace(
        base,
        epochs=max(LEAST_EPOCHS, base.epochs // SHARE_OF_EPOCHS),
        optimiser=dataclasses.replace(base.optimiser, learning_rate=learning_rate),
        schedule=MultiStep(),
        start=start,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RateResult:
    """Fine-tuning with one learning rate."""

    learning_rate: float
    seeds: tuple[int, ...]
    accuracies: tuple[tuple[float, ...], ...]
    """Clean test accuracy, percent: per run, epoch by epoch."""
    train_accuracies: tuple[float, ...]
    """Of the last epoch, percent; one per run."""
    mean: float
    """Clean test accuracy after the last epoch."""
    sd: float | None
    """Sample deviation over runs; ``None`` for a single one."""
    judged: Judged
    """Whether the model ends badly with this learning rate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuningResult:
    """The statement over all learning rates that were tried."""

    start_accuracy: float
    """Clean test accuracy before fine-tuning, percent."""
    chance: float
    """Accuracy of guessing, percent."""
    rates: tuple[RateResult, ...]
    """From the highest learning rate to the lowest."""
    judged: Judged
    """Whether fine-tuning still ends in the badly generalising solution."""


def summarise(
    histories: Mapping[float, Sequence[RunHistory]], *, start_accuracy: float, chance: float
) -> FinetuningResult:
    """Whether models fine-tuned on protected data end badly.

    With c the accuracy before fine-tuning and k chance, a learning rate *ends badly* if the upper 95 % bound of the
    mean last accuracy is at most k + 0.25 (c - k), and *does not* if the lower bound is at least k + 0.5 (c - k);
    three runs are needed. The statement is confirmed if every learning rate ends badly, refuted if none does,
    inconclusive otherwise, and whenever 0.1 or 0.01 was not tried.

    Args:
        histories: by learning rate, one run per seed; a rate without runs was not tried.
        start_accuracy: of the model (mean over models, if there are several) that fine-tuning started from, percent.
        chance: accuracy of guessing, percent.

    Raises:
        InputError: a run has another learning rate or no start, runs of different protocols are mixed, a seed occurs
            twice, or an accuracy is not a percentage.
    """
    if not 0 < chance < 100 or not 0 <= start_accuracy <= 100:
        raise InputError(
            f"chance is {chance}, must be between 0 and 100; start_accuracy is {start_accuracy}, must be from 0 to 100"
        )
    tried = {rate: tuple(histories[rate]) for rate in sorted(histories, reverse=True) if histories[rate]}
    _check(tried)
    rates = tuple(_summarised(rate, runs, start_accuracy, chance) for rate, runs in tried.items())
    return FinetuningResult(
        start_accuracy=start_accuracy,
        chance=chance,
        rates=rates,
        judged=_judge(rates, start_accuracy, chance),
    )


def _judge(rates: Sequence[RateResult], start_accuracy: float, chance: float) -> Judged:
    if not rates:
        return Judged(verdict=Verdict.NOT_RUN, reason="no run was made")
    reasons = [f"start {start_accuracy:.2f}", *(f"rate {each.learning_rate:g}: {each.judged.reason}" for each in rates)]
    verdicts = {each.judged.verdict for each in rates}
    verdict = verdicts.pop() if len(verdicts) == 1 else Verdict.INCONCLUSIVE
    missing = [f"{rate:g}" for rate in NEEDED_RATES if rate not in [each.learning_rate for each in rates]]
    if missing:
        verdict = Verdict.INCONCLUSIVE
        reasons.append(f"learning rate {' and '.join(missing)} not tried")
    if start_accuracy < (least := chance + LEARNED * (100 - chance)):
        verdict = Verdict.INCONCLUSIVE
        reasons.append(f"the model had not learned before (line {least:.2f})")
    return Judged(verdict=verdict, reason="; ".join(reasons))


def _summarised(rate: float, runs: Sequence[RunHistory], start_accuracy: float, chance: float) -> RateResult:
    estimate = Estimate(tuple(run.last.test_accuracy for run in runs))
    diverged = [run.seed for run in runs if not run.finite]
    return RateResult(
        learning_rate=rate,
        seeds=tuple(run.seed for run in runs),
        accuracies=tuple(tuple(record.test_accuracy for record in run.epochs) for run in runs),
        train_accuracies=tuple(run.last.train_accuracy for run in runs),
        mean=estimate.mean,
        sd=estimate.sd,
        judged=_judge_rate(estimate, diverged, start_accuracy, chance),
    )


def _judge_rate(estimate: Estimate, diverged: Sequence[int], start_accuracy: float, chance: float) -> Judged:
    bad, good = (chance + share * (start_accuracy - chance) for share in (COLLAPSED, FAILED))
    bounds, reason = estimate.interval(), f"ends at {estimate} (lines {bad:.2f} and {good:.2f})"
    verdict = Verdict.INCONCLUSIVE
    if diverged:
        reason += f", loss not finite with seed {', '.join(str(seed) for seed in diverged)}"
    elif bounds is None or estimate.n < SEEDS_FOR_A_VERDICT:
        reason += f", at least {SEEDS_FOR_A_VERDICT} runs are needed"
    elif bounds[1] <= bad:
        verdict = Verdict.CONFIRMED
    elif bounds[0] >= good:
        verdict = Verdict.REFUTED
    return Judged(verdict=verdict, reason=reason)


def _check(tried: Mapping[float, Sequence[RunHistory]]) -> None:
    first = None
    for rate, runs in tried.items():
        seeds = [run.seed for run in runs]
        if len(set(seeds)) < len(seeds):
            raise InputError(f"every seed must occur once; learning rate {rate:g} has {seeds}")
        for run in runs:
            found = run.protocol.optimiser.learning_rate
            if found != rate:
                raise InputError(f"a run filed under learning rate {rate:g} has {found:g}")
            if not run.protocol.start:
                raise InputError(f"the run with seed {run.seed} started from random weights: that is no fine-tuning")
            # Runs may start from different models of one kind.
            optimiser = dataclasses.replace(run.protocol.optimiser, learning_rate=1.0)
            kind = dataclasses.replace(run.protocol, optimiser=optimiser, start="")
            first = first or kind
            if kind != first:
                raise InputError("runs that differ in more than learning rate, start and seed cannot be summarised")
