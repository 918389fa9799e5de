"""Supervised training from random weights: what the papers' tables report."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

from torch import nn

from ule_datasets.base.errors import InputError
from ule_datasets.models.architectures import model_factory
from ule_datasets.models.initialisation import initialised
from ule_datasets.models.states import load_weights
from ule_datasets.victims.protocol import AdamW, Effort, Sgd, TrainingProtocol
from ule_datasets.victims.strategy import Strategy
from ule_datasets.victims.victim import Victim


@dataclass(frozen=True, kw_only=True, slots=True)
class Supervised(Victim):
    """A model of ``MODELS`` from its own random weights, trained as in Wu et al., "One-Pixel Shortcut", ICLR 2023."""

    source: ClassVar[str] = "Wu et al., ICLR 2023, section 4.1"

    name: str = field()
    """A name in ``ule_datasets.models.architectures.MODELS``."""
    batch_size: int = 128
    optimiser: Sgd | AdamW = field(default_factory=Sgd)

    @property
    def architecture(self) -> str:
        """Its name."""
        return self.name

    def protocol(self, effort: Effort, strategy: Strategy, *, compiled: bool = False) -> TrainingProtocol:
        """All of the effort's epochs, with its schedule."""
        return TrainingProtocol(
            model=self.name,
            epochs=effort.epochs,
            strategy=strategy,
            batch_size=self.batch_size,
            optimiser=self.optimiser,
            schedule=effort.schedule,
            test_interval=effort.test_interval,
            precision=effort.precision,
            compiled=compiled,
        )

    def model(self, protocol: TrainingProtocol, num_classes: int, *, seed: int, start: Path | None) -> nn.Module:
        """The model with weights from the seed; or those that an earlier run kept."""
        if protocol.normalise:
            raise InputError(f"TrainingProtocol: normalise is for models of trained weights, and {self.name} is none")
        model = initialised(partial(model_factory(self.architecture), num_classes), seed=seed)
        if start is not None:
            load_weights(model, start)
        return model
