"""Does protected data spoil a model that was already good? Fine-tuning from a model trained on clean data.

The One-Pixel Shortcut paper says so in one sentence (section 3.3), without numbers or settings; the settings here are
this project's.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ule_datasets.analyses.analysis import RUNS_FOR_A_VERDICT, Analysis, Material
from ule_datasets.analyses.telling import Row, Said, Section, Table, listed, number, numbers, words
from ule_datasets.base.errors import InputError
from ule_datasets.compute.executor import Lost
from ule_datasets.experiments.grid import GridResult
from ule_datasets.papers.ops import CLEAN, OPS, ROLES
from ule_datasets.papers.rules import COLLAPSED, FAILED, LEARNED, line_at
from ule_datasets.papers.statistics import Estimate, Judged, Verdict, spread
from ule_datasets.victims.history import RunHistory
from ule_datasets.victims.protocol import MultiStep, TrainingProtocol

FINETUNING_RATES = (0.1, 0.01, 0.001)
NEEDED_RATES = (0.1, 0.01)
"""Without these two the statement stays open."""
SHARE_OF_EPOCHS = 4
"""One in so many of the base protocol's epochs: 50 of 200."""
LEAST_EPOCHS = 3


def finetuning_protocol(base: TrainingProtocol, *, learning_rate: float, start: str) -> TrainingProtocol:
    """How to fine-tune what ``base`` trains.

    A quarter of the epochs, at least three; constant, then a tenth of the learning rate after one half and a
    hundredth after three quarters; everything else as in the base protocol. ``start`` is the digest of the weights
    to start from.
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
        test_interval=None,  # how fast it ends badly is worth knowing, and the runs are short
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
    inconclusive otherwise, and whenever 0.1 or 0.01 was not tried. A rate without runs was not tried; several models
    to start from have the mean of their accuracies.

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
        start_accuracy=start_accuracy, chance=chance, rates=rates, judged=_judge(rates, start_accuracy, chance)
    )


def _judge(rates: Sequence[RateResult], start_accuracy: float, chance: float) -> Judged:
    if not rates:
        return Judged(Verdict.NOT_RUN, "no run was made")
    reasons = [f"start {start_accuracy:.2f}", *(f"rate {each.learning_rate:g}: {each.judged.reason}" for each in rates)]
    verdicts = {each.judged.verdict for each in rates}
    verdict = verdicts.pop() if len(verdicts) == 1 else Verdict.INCONCLUSIVE
    missing = [f"{rate:g}" for rate in NEEDED_RATES if rate not in [each.learning_rate for each in rates]]
    if missing:
        verdict = Verdict.INCONCLUSIVE
        reasons.append(f"learning rate {' and '.join(missing)} not tried")
    if start_accuracy < (least := line_at(LEARNED, chance)):
        verdict = Verdict.INCONCLUSIVE
        reasons.append(f"the model had not learned before (line {least:.2f})")
    return Judged(verdict, "; ".join(reasons))


def _summarised(rate: float, runs: Sequence[RunHistory], start_accuracy: float, chance: float) -> RateResult:
    estimate = Estimate(tuple(run.test_accuracy for run in runs))
    bad, good = (line_at(share, chance, start_accuracy) for share in (COLLAPSED, FAILED))
    bounds, reason = estimate.interval(), f"ends at {estimate} (lines {bad:.2f} and {good:.2f})"
    verdict = Verdict.INCONCLUSIVE
    if diverged := [run.seed for run in runs if not run.finite]:
        reason += f", loss not finite with seed {listed(diverged)}"
    elif bounds is None or estimate.n < RUNS_FOR_A_VERDICT:
        reason += f", at least {RUNS_FOR_A_VERDICT} runs are needed"
    elif bounds[1] <= bad:
        verdict = Verdict.CONFIRMED
    elif bounds[0] >= good:
        verdict = Verdict.REFUTED
    return RateResult(
        learning_rate=rate,
        seeds=tuple(run.seed for run in runs),
        accuracies=tuple(tuple(tested.accuracy for tested in run.tested) for run in runs),
        train_accuracies=tuple(run.last.train_accuracy for run in runs),
        mean=estimate.mean,
        sd=estimate.sd,
        judged=Judged(verdict, reason),
    )


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


class Finetuning(Analysis[FinetuningResult]):
    """Whether a model that was trained on clean data ends badly when it is trained further on OPS data."""

    name, key, title = "finetune", "finetuning", "Fine-tuning a clean model on protected data"
    nothing = None
    roles = ROLES
    statements: ClassVar = {"ops-q-finetune": (CLEAN, OPS)}

    def run(self, material: Material) -> FinetuningResult | None:
        """Every clean model with every learning rate."""
        grid, roles, store = material.grid, material.roles, material.store
        if OPS not in roles or CLEAN not in roles or material.cell(roles[OPS]) not in grid.cells:
            return None
        rates, tasks, accuracies = [], [], []
        for run in material.result.runs:
            if run.cell != material.cell(roles[CLEAN]):
                continue
            accuracies.append(run.history.test_accuracy)
            clean, task = grid.task(run.cell, run.seed), grid.task(material.cell(roles[OPS]), run.seed)
            for rate in FINETUNING_RATES:
                protocol = finetuning_protocol(task.protocol, learning_rate=rate, start=clean.identity)
                name, start = f"{task.dataset}-after-{clean.dataset}-lr{rate:g}", store.weights(clean)
                tasks.append(
                    dataclasses.replace(task, dataset=name, protocol=protocol, start=start, keep_weights=False)
                )
                rates.append(rate)
        material.reporter.say(f"fine-tuning on {roles[OPS]} from models trained on {roles[CLEAN]}: {len(tasks)} runs")
        done = material.train(tasks)
        if not accuracies:
            return None
        histories = {
            rate: [each for each, at in zip(done, rates, strict=True) if at == rate and not isinstance(each, Lost)]
            for rate in FINETUNING_RATES
        }
        chance = material.result.chance(roles[CLEAN])
        return summarise(histories, start_accuracy=statistics.fmean(accuracies), chance=chance)

    def judge(self, found: FinetuningResult, statement: str, roles: Mapping[str, str]) -> Judged:
        """Over all learning rates."""
        return found.judged

    def tell(self, found: FinetuningResult, result: GridResult) -> Section:
        """A row for each learning rate."""
        columns = numbers("learning rate") + words("seeds") + numbers("clean test accuracy after", strong=True)
        columns += numbers("training accuracy") + words("ends badly")
        rows: list[Row] = []
        for rate in found.rates:
            after = spread([accuracies[-1] for accuracies in rate.accuracies])
            trained = listed(rate.train_accuracies)
            rows.append((f"{rate.learning_rate:g}", listed(rate.seeds), after, trained, rate.judged))
        before = f"Clean test accuracy before: {number(found.start_accuracy)} %; chance {number(found.chance)} %."
        return Section(about=before, table=Table(columns, rows), verdicts=[Said(found.judged)])
