"""How far the parameters have moved when the training data is fitted, and how soon that is.

Figure 4 of the One-Pixel Shortcut paper: a shortcut is found close to the initial parameters. Weight decay and a
longer way move parameters too, so that only runs of one protocol are compared. Everything is read off histories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ule_datasets.base.errors import InputError
from ule_datasets.papers.gates import FITTED
from ule_datasets.papers.statistics import Estimate, Judged, Verdict, below
from ule_datasets.victims.history import RunHistory

THRESHOLD = 90.0
"""Training accuracy (percent) at which the paper compares."""
SEEDS_FOR_A_VERDICT = 3
"""Runs of each kind; fewer are shown, and left open."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing:
    """Where a run first reached a training accuracy."""

    seed: int
    epoch: int
    """Counted from 1."""
    step: int
    """The last step of the epoch or window, counted from 1 over the whole run."""
    train_accuracy: float
    """Running average over that epoch or window, on the augmented images, in training mode; percent."""
    displacement: float
    """Distance of the trainable parameters from their first values, after that step."""
    by: str
    """``epoch`` or ``window``, a fifth of an epoch."""


def crossing(history: RunHistory, threshold: float = THRESHOLD) -> Crossing | None:
    """The first epoch whose training accuracy (percent) reached the threshold; ``None``: none did.

    The paper's statistic. An epoch whose loss was not finite does not count.
    """
    for record in history.epochs:
        if record.train_accuracy >= threshold and record.displacement is not None:
            return Crossing(
                seed=history.seed,
                epoch=record.epoch,
                step=record.windows[-1].step,
                train_accuracy=record.train_accuracy,
                displacement=record.displacement,
                by="epoch",
            )
    return None


def first_window(history: RunHistory, threshold: float = THRESHOLD) -> Crossing | None:
    """The first fifth of an epoch whose training accuracy (percent) reached the threshold; ``None``: none did.

    A shortcut may be found inside the first epochs, where an average over a whole epoch comes late.
    """
    for record in history.epochs:
        for window in record.windows:
            if window.train_accuracy >= threshold:
                return Crossing(
                    seed=history.seed,
                    epoch=record.epoch,
                    step=window.step,
                    train_accuracy=window.train_accuracy,
                    displacement=window.displacement,
                    by="window",
                )
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossings:
    """Where all runs first reached the threshold, found in one way."""

    clean: tuple[Crossing, ...]
    protected: tuple[Crossing, ...]
    clean_never: tuple[int, ...]
    """Seeds of the runs on clean data that never reached it."""
    protected_never: tuple[int, ...]
    judged: Judged
    """Whether the displacement is smaller on protected data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DisplacementResult:
    """The statement of Figure 4 on runs of one protocol."""

    threshold: float
    by_epoch: Crossings
    """As the paper has it."""
    by_window: Crossings
    """The same with a finer look at where the threshold was reached."""

    @property
    def judged(self) -> Judged:
        """The verdict, by epoch."""
        return self.by_epoch.judged


def compare(
    clean: Sequence[RunHistory], protected: Sequence[RunHistory], threshold: float = THRESHOLD
) -> DisplacementResult:
    """Whether parameters have moved less on protected than on clean data when the training accuracy is reached.

    Confirmed if Welch's 95 % interval of the difference lies below 0, refuted if it lies above; inconclusive with
    fewer than three runs of each kind that reached the threshold. Those that did not are named.

    Args:
        clean: one run per seed.
        protected: likewise, of the same protocol.
        threshold: training accuracy, percent.

    Raises:
        InputError: the runs differ in protocol or in steps per epoch, a seed occurs twice, or the threshold is not a
            percentage above 0.
    """
    _check_comparable(clean, protected, threshold)
    return DisplacementResult(
        threshold=threshold,
        by_epoch=_compared(clean, protected, threshold, crossing),
        by_window=_compared(clean, protected, threshold, first_window),
    )


def _compared(
    clean: Sequence[RunHistory],
    protected: Sequence[RunHistory],
    threshold: float,
    find: Callable[[RunHistory, float], Crossing | None],
) -> Crossings:
    reached, never = [], []
    for runs in (clean, protected):
        found = [(run.seed, find(run, threshold)) for run in runs]
        reached.append(tuple(each for _, each in found if each is not None))
        never.append(tuple(seed for seed, each in found if each is None))
    judged = _judge_displacement(*([each.displacement for each in side] for side in reached))
    if not clean or not protected:
        judged = Judged(verdict=Verdict.NOT_RUN, reason="no run was made on one of the two")
    unreached = [
        f"{len(seeds)} of {len(runs)} runs on {kind} data never reached {threshold:g} % (seeds {_listed(seeds)})"
        for kind, runs, seeds in zip(("clean", "protected"), (clean, protected), never, strict=True)
        if seeds
    ]
    return Crossings(
        clean=reached[0],
        protected=reached[1],
        clean_never=never[0],
        protected_never=never[1],
        judged=Judged(verdict=judged.verdict, reason="; ".join([judged.reason, *unreached])),
    )


def _judge_displacement(clean: Sequence[float], protected: Sequence[float]) -> Judged:
    if not clean or not protected:
        return Judged(verdict=Verdict.INCONCLUSIVE, reason="nothing to compare")
    judged = below(protected, clean, paired=False)
    reason = f"protected {Estimate(tuple(protected))}, clean {Estimate(tuple(clean))}: {judged.reason}"
    if min(len(clean), len(protected)) < SEEDS_FOR_A_VERDICT:
        return Judged(verdict=Verdict.INCONCLUSIVE, reason=f"{reason}; {_too_few()}")
    return Judged(verdict=judged.verdict, reason=reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class FittingResult:
    """How completely and how soon runs of one protocol fit their training data."""

    threshold: float
    clean_final: tuple[float, ...]
    """Training accuracy of the last epoch, percent; one per run."""
    protected_final: tuple[float, ...]
    clean_first: tuple[int | None, ...]
    """The first epoch at the threshold, one per run; ``None``: never."""
    protected_first: tuple[int | None, ...]
    ends_fitted: Judged
    """Whether every run ends near 100 %."""
    earlier: Judged
    """Whether protected data reaches the threshold in an earlier epoch."""
    judged: Judged
    """Both."""


def compare_fitting(
    clean: Sequence[RunHistory],
    protected: Sequence[RunHistory],
    threshold: float = THRESHOLD,
    *,
    paper_length: bool,
) -> FittingResult:
    """Whether every run ends near 100 % training accuracy, and protected data is fitted earlier than clean data.

    *Ends near 100 %*: confirmed if every run's last epoch has at least 99 %, refuted if the 95 % interval of the mean
    of either kind lies below; runs shorter than the paper's leave it open instead. *Earlier*: Welch's interval of the
    difference of the first epochs at the threshold. A run that never got there counts as one epoch longer than it was,
    the least it can be; where that would favour the verdict it is inconclusive. No verdict below three runs each.

    Args:
        clean: one run per seed.
        protected: likewise, of the same protocol.
        threshold: training accuracy, percent.
        paper_length: whether the runs are as long as the paper's.

    Raises:
        InputError: the runs cannot be compared (see ``compare``), or their strategy cannot be expected to fit: mixing,
            an attack, or RandAugment with Cutout.
    """
    _check_comparable(clean, protected, threshold)
    for run in (*clean, *protected):
        strategy = run.protocol.strategy
        if strategy.having("mix") or strategy.having("attack") or len(strategy.parts) > 1:
            raise InputError(
                f"runs under {strategy} cannot be expected to fit their data; this statement is about strategies "
                "without mixing, attack, or RandAugment together with Cutout"
            )
    sides = (clean, protected)
    final = [tuple(run.last.train_accuracy for run in side) for side in sides]
    firsts = [tuple(None if (at := crossing(run, threshold)) is None else at.epoch for run in side) for side in sides]
    if not clean or not protected:
        ends = earlier = judged = Judged(verdict=Verdict.NOT_RUN, reason="no run was made on one of the two")
    else:
        ends = _ends_fitted(final, paper_length=paper_length)
        earlier = _earlier(firsts, clean[0].protocol.epochs + 1)
        judged = Judged(verdict=_both(ends.verdict, earlier.verdict), reason=f"{ends.reason}; {earlier.reason}")
        if min(len(clean), len(protected)) < SEEDS_FOR_A_VERDICT:
            judged = Judged(verdict=Verdict.INCONCLUSIVE, reason=f"{judged.reason}; {_too_few()}")
    return FittingResult(
        threshold=threshold,
        clean_final=final[0],
        protected_final=final[1],
        clean_first=firsts[0],
        protected_first=firsts[1],
        ends_fitted=ends,
        earlier=earlier,
        judged=judged,
    )


def _ends_fitted(final: Sequence[tuple[float, ...]], *, paper_length: bool) -> Judged:
    clean, protected = (Estimate(values) for values in final)
    reason = f"last training accuracy clean {clean}, protected {protected} (line {FITTED:g})"
    if all(value >= FITTED for values in final for value in values):
        return Judged(verdict=Verdict.CONFIRMED, reason=reason)
    bounds = [each.interval() for each in (clean, protected)]
    if any(bound is not None and bound[1] < FITTED for bound in bounds):
        if paper_length:
            return Judged(verdict=Verdict.REFUTED, reason=reason)
        reason += ", after fewer epochs than the paper's"
    return Judged(verdict=Verdict.INCONCLUSIVE, reason=reason)


def _earlier(firsts: Sequence[tuple[int | None, ...]], least: int) -> Judged:
    clean, protected = ([float(least if epoch is None else epoch) for epoch in side] for side in firsts)
    judged = below(protected, clean, paired=False)
    reason = f"first fitted epoch, protected minus clean: {judged.reason}"
    never = [side.count(None) for side in firsts]
    if any(never):
        reason += f"; never fitted: {never[0]} clean, {never[1]} protected, counted as epoch {least}"
    unsafe = (judged.verdict is Verdict.CONFIRMED and never[1]) or (judged.verdict is Verdict.REFUTED and never[0])
    return Judged(verdict=Verdict.INCONCLUSIVE if unsafe else judged.verdict, reason=reason)


def _both(first: Verdict, second: Verdict) -> Verdict:
    if Verdict.REFUTED in (first, second):
        return Verdict.REFUTED
    return Verdict.CONFIRMED if first is second is Verdict.CONFIRMED else Verdict.INCONCLUSIVE


def _check_comparable(clean: Sequence[RunHistory], protected: Sequence[RunHistory], threshold: float) -> None:
    if not 0 < threshold <= 100:
        raise InputError(f"threshold is {threshold}, must be a percentage above 0 and at most 100")
    runs = (*clean, *protected)
    for run in runs[1:]:
        mine, first = run.protocol.content(), runs[0].protocol.content()
        different = [name for name in {**first, **mine} if mine.get(name) != first.get(name)]
        if different:
            raise InputError(f"runs of one protocol are compared; these differ in {', '.join(different)}")
    steps = {run.epochs[0].windows[-1].step for run in runs if run.epochs[0].windows}
    if len(steps) > 1:
        raise InputError(f"runs of one length are compared; these have {_listed(sorted(steps))} steps per epoch")
    for kind, side in (("clean", clean), ("protected", protected)):
        seeds = [run.seed for run in side]
        if len(set(seeds)) < len(seeds):
            raise InputError(f"every seed must occur once; the runs on {kind} data have {_listed(seeds)}")


def _too_few() -> str:
    return f"at least {SEEDS_FOR_A_VERDICT} runs of each kind are needed"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
