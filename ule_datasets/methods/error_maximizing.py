"""Error-maximising noise: adversarial noise of a trained model, kept with the true labels.

A baseline of the papers on unlearnable examples; the setting is the mode ``min-max`` of the official code of Hanxun
Huang, Xingjun Ma, Sarah Monazam Erfani, James Bailey, Yisen Wang, "Unlearnable Examples: Making Personal Data
Unexploitable", ICLR 2021, arXiv 2101.04898:

    max over |delta| <= epsilon of CE(f_theta(x + delta), y),    theta trained on the clean images

A surrogate is trained on the clean images until it has learned them. Then it stays as it is, and in each round the
noise takes signed gradient steps up its loss, until it is wrong about most of the perturbed images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.base.progress import duration
from ule_datasets.base.shown import counted
from ule_datasets.compute.parts import Part
from ule_datasets.compute.precision import Precision
from ule_datasets.data.perturbation import Additive, Support
from ule_datasets.data.quantization import Apply, Quantize
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.clean_training import CleanFirst, CleanTraining, Scale
from ule_datasets.methods.engine.settings import ErrorAverage, Grid, SurrogateSettings, check_at_least
from ule_datasets.methods.engine.stepwise import Estimate, Phase
from ule_datasets.methods.error_minimizing import ClassWise, Rounds, SampleWise
from ule_datasets.methods.method import BoundedNoise, Context, Crafted

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch")


class _Maximizing(BoundedNoise):
    """What both kinds have in common."""

    __slots__ = ()

    citation: ClassVar[str] = "huang2021unlearnable"
    needs_labels: ClassVar[bool] = True
    random_start: ClassVar[bool] = False
    training: CleanTraining
    stop_error: float
    step_size: float
    num_steps: int
    max_rounds: int

    def __post_init__(self) -> None:
        name = type(self).__name__
        Grid.of(self.epsilon, self.step_size)
        check_at_least(1, self, "num_steps", "max_rounds")
        if not 0 < self.stop_error <= 1:
            raise InputError(f"{name}: stop_error is {self.stop_error}, not in (0, 1]")
        if self.training.scale is not Scale.UNIT:
            raise InputError(f"{name}: the surrogate sees images as they are: scale is {self.training.scale}, not unit")

    @property
    def surrogate(self) -> SurrogateSettings:
        """The model, and how it takes a step."""
        return self.training.surrogate

    def shortfall(self, notes: Mapping[str, Any]) -> str:
        """The surrogate is not wrong about half as many images as it should be."""
        trace = notes.get("trace") or [{"accuracy": 100.0}]
        reached, wanted = 100 - float(trace[-1]["accuracy"]), 100 * self.stop_error
        if notes.get("stop_rule_met") or reached >= wanted / 2:
            return ""
        return (
            f"after {counted(len(trace), 'round')} the surrogate is wrong about {reached:.1f} % of the perturbed "
            f"images, the rounds should end at {wanted:g} %; more rounds (max_rounds) help"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorMaximizing(_Maximizing):
    """Sample-wise noise (EMaxN): one perturbation for every training image."""

    identifier: ClassVar[str] = "emax_s"
    title: ClassVar[str] = "Error-maximising noise, sample-wise"

    epsilon: float = 8
    """Bound on every channel of every pixel, in units of 1/255."""
    step_size: float = 0.8
    """Of one signed gradient step, in units of 1/255."""
    num_steps: int = 20
    """Steps of every image in a round."""
    training: CleanTraining = field(default_factory=CleanTraining)
    """Of the surrogate, before the first round."""
    stop_error: float = 0.9
    """Share of the perturbed images, 0 .. 1, about which the surrogate is wrong, that ends the rounds."""
    error_average: ErrorAverage = ErrorAverage.IMAGES
    max_rounds: int = 20
    """Not in the paper: where rounds end although that share is not reached, with a warning and a note."""
    apply: Apply = Apply.SIGNED
    """What the dataset uses of the noise; it is computed with both signs in any case."""
    quantize: Quantize = Quantize.TRUNC
    precision: Precision = Precision.FLOAT32

    def generate(self, train: Split, context: Context) -> Crafted:
        """Train the surrogate on ``context.device``, then move every image's noise; a layer with an entry per image."""
        rounds = MaximizingSampleWise(self, train, context)
        notes = rounds.run()
        return Crafted(layers=(Additive(levels=rounds.levels(), support=Support.SAMPLE, keys=train.keys),), notes=notes)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClasswiseErrorMaximizing(_Maximizing):
    """Class-wise noise (EMaxN): one perturbation for all images of a class, from a fixed part of them."""

    identifier: ClassVar[str] = "emax_c"
    title: ClassVar[str] = "Error-maximising noise, class-wise"

    epsilon: float = 8
    """Bound on every channel of every pixel, in units of 1/255."""
    step_size: float = 0.8
    """Of one signed gradient step of one image, in units of 1/255; a class moves by the mean over its images."""
    num_steps: int = 1
    """Steps of every image before its class's noise is updated."""
    subset: float = 0.2
    """Stratified share of the images, drawn once by the seed, that rounds and their check use."""
    surrogate_on_subset: bool = False
    """Whether the surrogate, too, is trained on that share alone (official code)."""
    training: CleanTraining = field(default_factory=CleanTraining)
    """Of the surrogate, before the first round."""
    stop_error: float = 0.8
    """Share of the perturbed images, 0 .. 1, about which the surrogate is wrong, that ends the rounds."""
    error_average: ErrorAverage = ErrorAverage.IMAGES
    max_rounds: int = 50
    """Not in the paper: where rounds end although that share is not reached, with a warning and a note."""
    apply: Apply = Apply.SIGNED
    """What the dataset uses of the noise; it is computed with both signs in any case."""
    quantize: Quantize = Quantize.TRUNC
    precision: Precision = Precision.FLOAT32

    def __post_init__(self) -> None:
        # Dataclasses with slots are made anew, so that super() without arguments does not find them.
        _Maximizing.__post_init__(self)
        if not 0 < self.subset <= 1:
            raise InputError(f"ClasswiseErrorMaximizing: subset is {self.subset}, not in (0, 1]")

    def generate(self, train: Split, context: Context) -> Crafted:
        """Train the surrogate on ``context.device``, then move every class's noise; a layer with an entry per class."""
        rounds = MaximizingClassWise(self, train, context)
        notes = rounds.run()
        return Crafted(layers=(Additive(levels=rounds.levels(), support=Support.CLASS),), notes=notes)


class _Up(CleanFirst, Rounds):
    """Rounds without model phases, after a surrogate was trained on the clean images."""

    def _prepare(self, train: Split, rows: np.ndarray) -> None:
        """Which images the surrogate learns from, by their places."""
        self.steps.up = True
        self.learn_first(self.steps, train.keys, rows)

    def built(self) -> nn.Module:
        """Begun as the training says."""
        model = super().built()
        self.method.training.beginning.apply(model, self._drawn("convolutions"))
        return model

    def parts(self) -> dict[str, Part]:
        """Also the sums of the epoch."""
        return {**super().parts(), "epoch": self.learner.totals}

    def following(self) -> Phase | None:
        """The epochs of the surrogate, then rounds until it is wrong about enough images."""
        if self.learning:
            return self.epoch()
        if self._reached() or len(self.trace) >= self.method.max_rounds:
            return None
        frozen = self.frozen()
        step, end = partial(self.improve, frozen), partial(self._checked, frozen)
        return Phase(label=self._label(), unit="chunk", steps=self.chunks(), step=step, end=end)

    def _label(self) -> str:
        if self.learning:
            return self.epoch_label
        return f"round {len(self.trace) + 1}"

    def _reached(self) -> bool:
        # By the wrong answers of a hundred: 1 - 0.9 is a little less than 0.1.
        return bool(self.trace) and 100 - self.trace[-1]["accuracy"] >= 100 * self.method.stop_error

    def _goal(self) -> str:
        return f"{100 * (1 - self.method.stop_error):g} % at most"

    def _record(self, accuracy: float, loss: float) -> dict[str, Any]:
        """A line of the trace; deterministic, so without times."""
        return {
            "round": len(self.trace) + 1,
            "loss": round(loss, 6),
            "accuracy": round(100 * accuracy, 6),
            **self.steps.sizes(self.noise),
        }

    def estimate(self) -> Estimate:
        """From a short timing of a step of the surrogate and one of the noise."""
        training, gradient, forward = self.steps.costs(self.surrogate, self.precision)
        left = self.images_left
        gradients, checks = self.work()
        seconds, one = training * left, gradient * (gradients + checks / 2)
        flop = forward * (3 * left + 2 * gradients + checks)
        text = f"about {duration(seconds)} for the surrogate, and {duration(one)} a round"
        return Estimate(text=text, seconds=seconds + one, flop=flop)


class MaximizingSampleWise(_Up, SampleWise):
    """One noise per image."""

    method: ErrorMaximizing

    def __init__(
        self, method: ErrorMaximizing, train: Split, context: Context, *, images_at_once: int | None = None
    ) -> None:
        super().__init__(method, train, context, images_at_once=images_at_once)
        self._prepare(train, np.arange(len(train)))


class MaximizingClassWise(_Up, ClassWise):
    """One noise per class."""

    method: ClasswiseErrorMaximizing

    def __init__(
        self, method: ClasswiseErrorMaximizing, train: Split, context: Context, *, images_at_once: int | None = None
    ) -> None:
        super().__init__(method, train, context, images_at_once=images_at_once)
        self._prepare(train, self._subset if method.surrogate_on_subset else np.arange(len(train)))
