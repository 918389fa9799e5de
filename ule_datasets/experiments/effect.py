"""What training on a dataset does beside training on its clean control: collapse shown, in part, or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ule_datasets.base.shown import counted
from ule_datasets.papers.gates import FITTED_SHORT
from ule_datasets.papers.rules import COLLAPSED, FAILED, LEARNED, line_at
from ule_datasets.papers.statistics import Estimate
from ule_datasets.victims.history import RunHistory

MARGIN = 25.0
"""Points that a model lies below the control, at least, to have collapsed even in part."""
FEWEST_TESTED = 100
"""Test images, at least, from whose accuracies something follows: of a hundred one is a point, of ten it is ten."""


class Collapse(StrEnum):
    """What the runs under one strategy say."""

    SHOWN = "collapse shown"
    PARTIAL = "partial collapse"
    """Far below the control, and far above chance."""
    NOT_SHOWN = "collapse not shown"
    INCONCLUSIVE = "inconclusive"
    """The control did not learn, a loss was not finite, or test images were few: nothing can be said about the
    poisoned images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What the runs of one model under one strategy say; accuracies after the last epoch, judged on means over seeds.

    It needs no more than one seed and speaks of no printed number: the rules of claims are in ``ule_datasets.papers``.
    """

    dataset: str
    control: str
    """Name of the clean images."""
    model: str
    strategy: str
    collapse: Collapse
    clean: Estimate
    """Test accuracy of the control."""
    poisoned: Estimate
    """Test accuracy of the model trained on the poisoned images."""
    poisoned_best: Estimate
    """Its test accuracy after the best epoch: an oracle's."""
    poisoned_train: Estimate
    """Its training accuracy."""
    notes: tuple[str, ...]

    @property
    def fully_fitted(self) -> bool:
        """Whether the training accuracy on the poisoned images reached ``FITTED_SHORT``."""
        return self.poisoned_train.mean >= FITTED_SHORT


def too_few_tested(num_test: int) -> str:
    """Why nothing follows from accuracies on so many test images; empty: something may."""
    if num_test >= FEWEST_TESTED:
        return ""
    return f"tested on {counted(num_test, 'image')}: at least {FEWEST_TESTED} are needed for a verdict"


def compare(
    clean_runs: Sequence[RunHistory],
    poisoned_runs: Sequence[RunHistory],
    *,
    dataset: str,
    control: str,
    chance: float,
    num_test: int,
) -> Comparison:
    """Compare models trained on poisoned images with their controls, by the papers' lines and ``MARGIN``.

    All were tested on the same ``num_test`` images.
    """
    clean = Estimate(tuple(run.test_accuracy for run in clean_runs))
    poisoned = Estimate(tuple(run.test_accuracy for run in poisoned_runs))
    best = Estimate(tuple(run.best.accuracy for run in poisoned_runs))
    fitted = Estimate(tuple(run.last.train_accuracy for run in poisoned_runs))
    broken = [run for run in (*clean_runs, *poisoned_runs) if not run.finite]
    needed = line_at(LEARNED, chance)
    notes = [f"seed {run.seed}: the loss was not finite in epoch {run.last.epoch}, training stopped" for run in broken]
    if clean.mean < needed:
        notes.append(f"the control did not learn: {clean.percent} clean test accuracy, at least {needed:.1f} % needed")
    if fitted.mean < FITTED_SHORT:
        told = f"{fitted.percent} training accuracy on the poisoned images, below {FITTED_SHORT:.0f} %"
        notes.append(f"not fully fitted: {told}")
    if few := too_few_tested(num_test):
        notes.append(few)
    if broken or clean.mean < needed or few:
        collapse = Collapse.INCONCLUSIVE
    elif clean.mean - poisoned.mean < MARGIN or poisoned.mean > line_at(FAILED, chance, clean.mean):
        collapse = Collapse.NOT_SHOWN
    else:
        collapse = Collapse.SHOWN if poisoned.mean <= line_at(COLLAPSED, chance, clean.mean) else Collapse.PARTIAL
    protocol = poisoned_runs[0].protocol
    return Comparison(
        dataset=dataset,
        control=control,
        model=protocol.model,
        strategy=protocol.strategy.name,
        collapse=collapse,
        clean=clean,
        poisoned=poisoned,
        poisoned_best=best,
        poisoned_train=fitted,
        notes=tuple(notes),
    )
