"""How a model is trained: everything that a result depends on besides data and seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from ule_datasets.base.errors import InputError
from ule_datasets.compute.precision import Precision
from ule_datasets.victims.strategy import Strategy

ALWAYS_TESTED = 5
"""Epochs at either end of a run after each of which clean test accuracy is taken: shortcuts are learned in the first
ones, and the mean of the last ones is reported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sgd:
    """Gradient descent with momentum, without damping: the papers' choice for convolutional networks."""

    kind: ClassVar = "sgd"
    learning_rate: float = 0.1
    """The schedule's highest."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False
    """Whether the gradient is taken where the momentum leads; no paper says so."""

    def over(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Torch's optimiser of these parameters."""
        return torch.optim.SGD(
            parameters,
            self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            fused=parameters[0].is_cuda,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamW:
    """Adam with decoupled weight decay: the OPS paper's choice for the compact transformers (section 4.1)."""

    kind: ClassVar = "adamw"
    learning_rate: float = 5e-4
    """The schedule's highest."""
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 3e-2

    def over(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Torch's optimiser of these parameters."""
        return torch.optim.AdamW(
            parameters,
            self.learning_rate,
            (self.beta1, self.beta2),
            weight_decay=self.weight_decay,
            fused=parameters[0].is_cuda,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class OneCycle:
    """Half a cosine up to the peak, half a cosine down to nearly nothing; the momentum stays as it is."""

    kind: ClassVar = "one-cycle"
    warm_up: float = 0.3
    """Share of the steps before the peak."""
    start: float = 1 / 25
    """Of the peak, at the first step."""
    end: float = 1 / 250_000
    """Of the peak, after the last step."""

    def factor(self, step: int, num_steps: int) -> float:
        """Learning rate of a step (from 0) as a share of the peak."""
        peak = self.warm_up * num_steps
        if step < peak:
            return _cosine(self.start, 1.0, step / peak)
        return _cosine(1.0, self.end, (step - peak) / (num_steps - peak))


@dataclass(frozen=True, kw_only=True, slots=True)
class Triangle:
    """A straight line up to the peak and one down to nothing; the momentum stays as it is."""

    kind: ClassVar = "triangle"
    warm_up: float = 0.2
    """Share of the steps before the peak."""
    start: float = 0.2
    """Of the peak, at the first step."""

    def factor(self, step: int, num_steps: int) -> float:
        """Learning rate of a step (from 0) as a share of the peak."""
        peak = self.warm_up * num_steps
        if step < peak:
            return self.start + (1 - self.start) * step / peak
        return (num_steps - step) / (num_steps - peak)


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiStep:
    """Constant, and lower by a factor from the first and from the second milestone on.

    The papers say "multi-step" for 200 epochs; the milestones are those of the OPS paper's code: 100 and 150.
    """

    kind: ClassVar = "multi-step"
    first: float = 0.5
    """Share of the epochs before the first drop."""
    second: float = 0.75
    """Share of the epochs before the second."""
    drop: float = 0.1

    def factor(self, step: int, num_steps: int) -> float:
        """Learning rate of a step (from 0) as a share of the highest."""
        done = step / num_steps
        return self.drop ** ((done >= self.first) + (done >= self.second))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cosine:
    """Half a cosine down from the highest; what the OPS paper's code does for the transformers."""

    kind: ClassVar = "cosine"
    end: float = 0.0
    """Of the highest, after the last step."""

    def factor(self, step: int, num_steps: int) -> float:
        """Learning rate of a step (from 0) as a share of the highest."""
        return _cosine(1.0, self.end, step / num_steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How much is trained."""

    epochs: int
    """From random weights."""
    schedule: OneCycle | Triangle | MultiStep
    """From random weights."""
    precision: Precision
    """Numbers inside products."""
    fine_tuning_epochs: int = 60
    """From trained weights, at a hundredth of the learning rate; 60 is BAIT's."""
    test_interval: int | None = None
    """As in ``TrainingProtocol``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingProtocol:
    """How a victim trains: all layers, images in [0, 1], the last epoch counts."""

    model: str
    """A name in ``ule_datasets.victims.table.VICTIMS``."""
    epochs: int
    strategy: Strategy
    batch_size: int = 128
    optimiser: Sgd | AdamW = Sgd()
    schedule: OneCycle | Triangle | MultiStep | Cosine = OneCycle()
    gradient_clip: float | None = None
    """Before every step, gradients whose norm (l_2, of all parameters together) is larger are scaled down to it;
    ``None``: they stay as they are."""
    normalise: bool = False
    """Whether the model itself shifts and scales images as those that its trained weights were made with; else it
    gets them in [0, 1] as they are."""
    precision: Precision = Precision.FLOAT32
    compiled: bool = False
    """Whether the model goes through ``torch.compile``; on CUDA with graphs of the kernel launches."""
    test_interval: int | None = None
    """Clean test accuracy is taken after every so many epochs, and after each of the first and of the last
    ``ALWAYS_TESTED``; ``None``: after every one."""
    start: str = ""
    """Digest of the weights that training starts from (sha256 of their file, or the identity of the run that made
    them); empty: random ones, from the seed."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2)):
            if getattr(self, name) < least:
                raise InputError(f"TrainingProtocol: {name} is {getattr(self, name)}, must be at least {least}")
        if self.gradient_clip is not None and not 0 < self.gradient_clip < math.inf:
            raise InputError(
                f"TrainingProtocol: gradient_clip is {self.gradient_clip}, must be finite and above 0, or None"
            )
        if self.test_interval is not None and self.test_interval < 2:
            raise InputError(f"TrainingProtocol: test_interval is {self.test_interval}, must be at least 2, or None")

    @property
    def tested_epochs(self) -> frozenset[int]:
        """The epochs, counted from 1, after which clean test accuracy is taken if the loss stays finite."""
        ends = {*range(1, ALWAYS_TESTED + 1), *range(self.epochs + 1 - ALWAYS_TESTED, self.epochs + 1)}
        every = range(0, self.epochs + 1, self.test_interval or 1)
        return frozenset({*ends, *every} & {*range(1, self.epochs + 1)})

    def steps_per_epoch(self, num_images: int, ranks: int = 1) -> int:
        """How many batches an epoch has, in which every image is once, with so many processes sharing each.

        Batch statistics need two images in every process: where the last batch has fewer, it joins the one before.
        """
        whole, rest = divmod(num_images, self.batch_size)
        return max(1, whole + (rest >= 2 * ranks))

    def __str__(self) -> str:
        return f"{self.model}, {self.strategy.name}"


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
