"""Supervised training of all layers from trained weights: what BAIT was made against."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from torch import nn

from ule_datasets.base.errors import InputError
from ule_datasets.models.pretrained import build_pretrained
from ule_datasets.models.weights import Weights
from ule_datasets.victims.protocol import Cosine, Effort, Sgd, TrainingProtocol
from ule_datasets.victims.strategy import Strategy
from ule_datasets.victims.victim import Victim


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuned(Victim):
    """A trained model with a new last layer, as the code of Li et al., "When Priors Backfire", ICLR 2026, trains it."""

    source: ClassVar[str] = "Li et al., ICLR 2026, code"

    weights: Weights = field()

    @property
    def name(self) -> str:
        """That of the weights."""
        return self.weights.name

    @property
    def architecture(self) -> str:
        """That of the weights."""
        return self.weights.architecture

    @property
    def normalise(self) -> bool:
        """Whether the model gets its images as those that its weights were trained on.

        BAIT's code gives ImageNet classifiers the images in [0, 1] as they are, and so does this. It speaks of no
        other weights: a CIFAR-10 classifier, say, would lose what it knows.
        """
        return not self.name.endswith("@imagenet")

    def protocol(self, effort: Effort, strategy: Strategy, *, compiled: bool = False) -> TrainingProtocol:
        """A hundredth of the usual learning rate, which falls to nothing, with clipped gradients."""
        return TrainingProtocol(
            model=self.name,
            epochs=effort.fine_tuning_epochs,
            strategy=strategy,
            optimiser=Sgd(learning_rate=0.001),
            schedule=Cosine(),
            gradient_clip=5.0,
            normalise=self.normalise,
            test_interval=effort.test_interval,
            precision=effort.precision,
            compiled=compiled,
        )

    def model(self, protocol: TrainingProtocol, num_classes: int, *, seed: int, start: Path | None) -> nn.Module:
        """The model with the weights of the file, and a last layer from the seed."""
        if start is None:
            raise InputError(f"{self.name} starts from trained weights, and their file is not given")
        return build_pretrained(self.weights, start, num_classes, seed=seed, normalise=protocol.normalise)
