"""What training on a dataset does beside training on its clean control: collapse shown, in part, or not."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ule_datasets.victims.loop import RunHistory

LEARNED = 0.25
"""A control has learned when it covers this share of the way from chance to 100 %."""
COLLAPSED = 0.25
"""A model has collapsed when it covers at most this share of the way from chance to the control."""
PARTLY = 0.5
"""Up to this share of the way it has collapsed in part; beyond, it has not."""
MARGIN = 25.0
"""Points that a model lies below the control, at least, to have collapsed even in part."""
FITTED = 90.0
"""Training accuracy on the poisoned images (percent) from which the shortcut counts as fully fitted."""


class Collapse(StrEnum):
    """What the runs under one strategy say."""

    SHOWN = "collapse shown"
    PARTIAL = "partial collapse"
    """Far below the control, and far above chance."""
    NOT_SHOWN = "collapse not shown"
    INCONCLUSIVE = "inconclusive"
    """The control did not learn, or a loss was not finite: nothing can be said about the poisoned images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """A percentage over several seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """Sample standard deviation; ``None`` for a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        spread = "" if self.sd is None else f" ± {self.sd:.1f}"
        return f"{self.mean:.1f}{spread} %"


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What the runs of one model under one strategy say; accuracies after the last epoch, judged on means over seeds.

    It needs no more than one seed and speaks of no printed number: the rules of claims are in ``verdicts``.
    """

    dataset: str
    control: str
    """Name of the clean images."""
    model: str
    strategy: str
    collapse: Collapse
    clean: Summary
    """Test accuracy of the control."""
    poisoned: Summary
    """Test accuracy of the model trained on the poisoned images."""
    poisoned_best: Summary
    """Its test accuracy after the best epoch: an oracle's."""
    poisoned_train: Summary
    """Its training accuracy."""
    notes: tuple[str, ...]

    @property
    def fully_fitted(self) -> bool:
        """Whether the training accuracy on the poisoned images reached ``FITTED``."""
        return self.poisoned_train.mean >= FITTED


def compare(
    clean_runs: Sequence[RunHistory], poisoned_runs: Sequence[RunHistory], *, dataset: str, control: str, chance: float
) -> Comparison:
    """Compare models trained on poisoned images with their controls, by the thresholds of this module."""
    clean = Summary(values=tuple(run.last.test_accuracy for run in clean_runs))
    poisoned = Summary(values=tuple(run.last.test_accuracy for run in poisoned_runs))
    best = Summary(values=tuple(run.best.test_accuracy for run in poisoned_runs))
    fitted = Summary(values=tuple(run.last.train_accuracy for run in poisoned_runs))
    broken = [run for run in (*clean_runs, *poisoned_runs) if not run.finite]
    needed = chance + LEARNED * (100 - chance)
    notes = [f"seed {run.seed}: the loss was not finite in epoch {run.last.epoch}, training stopped" for run in broken]
    if clean.mean < needed:
        notes.append(f"the control did not learn: {clean} clean test accuracy, at least {needed:.1f} % needed")
    if fitted.mean < FITTED:
        notes.append(f"not fully fitted: {fitted} training accuracy on the poisoned images, below {FITTED:.0f} %")
    share = (poisoned.mean - chance) / (clean.mean - chance) if clean.mean > chance else 1.0
    if broken or clean.mean < needed:
        collapse = Collapse.INCONCLUSIVE
    elif clean.mean - poisoned.mean < MARGIN or share > PARTLY:
        collapse = Collapse.NOT_SHOWN
    else:
        collapse = Collapse.SHOWN if share <= COLLAPSED else Collapse.PARTIAL
    protocol = poisoned_runs[0].protocol
    return Comparison(
        dataset=dataset, control=control, model=protocol.model, strategy=protocol.strategy.name, collapse=collapse,
        clean=clean, poisoned=poisoned, poisoned_best=best, poisoned_train=fitted, notes=tuple(notes),
    )  # fmt: skip
