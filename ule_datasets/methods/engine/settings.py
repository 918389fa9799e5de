"""Settings that gradient-based methods share: how the surrogate is trained, and in which numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from ule_datasets.base.errors import InputError

FINEST = 128
"""A grey level is divided into at most so many steps; all sums then stay exact in float32."""


def check_at_least(least: int, settings: object, *names: str) -> None:
    """Refuse settings of these names that are below a number, or not finite."""
    for name in names:
        value = getattr(settings, name)
        if not least <= value < math.inf:
            raise InputError(f"{type(settings).__name__}: {name} is {value}, must be at least {least}")


class StopRule(StrEnum):
    """When an alternating method has reached its accuracy."""

    AT_LEAST = "at_least"
    """Accuracy >= the threshold: the official script, which goes on while the error is above 1 - threshold."""
    ABOVE = "above"
    """Accuracy > the threshold: the official notebook."""

    def reached(self, accuracy: float, threshold: float) -> bool:
        """Whether ``accuracy`` (both in 0 .. 1) ends the work."""
        return accuracy >= threshold if self is StopRule.AT_LEAST else accuracy > threshold


class ErrorAverage(StrEnum):
    """How the surrogate's accuracy over the whole set is averaged."""

    IMAGES = "images"
    """Over images."""
    BATCHES = "batches"
    """Over the accuracies of the batches, a smaller last one counting as much as the others (official code)."""


SMALL_MODELS = ("convnet3-w16",)
"""Surrogates for whom a CPU is enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SurrogateSettings:
    """The model that a perturbation is computed with, and how it is trained: SGD at a constant rate.

    The official EM code builds a cosine schedule and never steps it.
    """

    model: str = "resnet18"
    """A name in ``ule_datasets.models.architectures.MODELS``."""
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    gradient_clip: float | None = 5.0
    """Largest l2 norm of the gradient of all parameters together; ``None``: any."""
    batch_size: int = 512
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_at_least(2, self, "batch_size")
        check_at_least(0, self, "learning_rate", "momentum", "weight_decay")
        if self.gradient_clip is not None and not 0 < self.gradient_clip < math.inf:
            raise InputError(f"SurrogateSettings: gradient_clip is {self.gradient_clip}, must be above 0")

    @property
    def small(self) -> bool:
        """Whether a CPU takes the model through tens of thousands of images in minutes."""
        return self.model in SMALL_MODELS


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Whole numbers for a projected sign-gradient method: ``per_level`` units make one grey level.

    Images, bound and steps are all multiples of one unit, and so is everything that adding, clipping and
    projecting make of them. Kept as such, in float32 or integers, no rounding ever occurs.
    """

    per_level: int
    bound: int
    """The l_inf bound, in units."""
    step: int
    """One step of a sample's perturbation, in units."""

    @classmethod
    def of(cls, epsilon: float, step_size: float) -> Grid:
        """The coarsest grid for a bound and a step in units of 1/255.

        Raises:
            InputError: one of them is not positive, or no grid is fine enough for them.
        """
        if not (0 < epsilon <= 255 and 0 < step_size < math.inf):
            raise InputError(f"epsilon {epsilon} and step_size {step_size} are in units of 1/255: above 0, at most 255")
        bound, step = Fraction(str(epsilon)), Fraction(str(step_size))
        per_level = math.lcm(bound.denominator, step.denominator)
        if per_level > FINEST:
            raise InputError(
                f"epsilon {epsilon} and step_size {step_size} need {per_level} steps to a grey level, at most {FINEST} "
                "are possible; give them with fewer decimals (in units of 1/255)"
            )
        return cls(per_level=per_level, bound=int(bound * per_level), step=int(step * per_level))

    @property
    def white(self) -> int:
        """The brightest value of an image, in units."""
        return 255 * self.per_level

    def finer(self, factor: int) -> Grid:
        """The same bound and step in units that are so many times smaller."""
        return Grid(per_level=factor * self.per_level, bound=factor * self.bound, step=factor * self.step)


def common_grids(*sizes: tuple[float, float], finest: bool = False) -> tuple[Grid, ...]:
    """Grids of several bounds and steps, in units of 1/255, that all have the same unit.

    It is the largest that there is, or the smallest for numbers that are drawn at random.

    Raises:
        InputError: one of them is not positive, or no unit is small enough.
    """
    grids = [Grid.of(*size) for size in sizes]
    per_level = math.lcm(*(grid.per_level for grid in grids))
    if per_level > FINEST:
        pairs = "; ".join(f"{epsilon} and {step_size}" for epsilon, step_size in sizes)
        raise InputError(
            f"bounds and steps {pairs} need {per_level} steps to a grey level together, at most {FINEST} are possible; "
            "give them with fewer decimals (in units of 1/255)"
        )
    per_level *= FINEST // per_level if finest else 1
    return tuple(grid.finer(per_level // grid.per_level) for grid in grids)
