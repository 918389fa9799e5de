"""What a training run gave, epoch by epoch; kept as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from ule_datasets.base.content import content
from ule_datasets.base.errors import InputError
from ule_datasets.victims.protocol import TrainingProtocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A part of an epoch."""

    step: int
    """The last step of the window, counted from 1 over the whole run."""
    train_accuracy: float
    """Over the window's images, as they were augmented, in training mode; percent."""
    displacement: float
    """Distance of the parameters from where they started, after that step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRecord:
    """What one epoch gave; accuracies in percent."""

    epoch: int
    """Counted from 1."""
    train_loss: float | None
    """Mean over the epoch's images; ``None``: it was not finite."""
    train_accuracy: float
    """Running average over the epoch, in training mode, on the augmented images; mixed labels by their weights."""
    test_accuracy: float
    """Clean test accuracy after the epoch, in evaluation mode."""
    displacement: float | None
    """Root of the summed squares of all trainable parameters minus their first values; ``None``: it was not finite."""
    windows: tuple[Window, ...]
    """The epoch in parts; empty where the loss was not finite."""
    seconds: float = field(compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunHistory:
    """One training run. Two runs compare equal when everything but their times does."""

    protocol: TrainingProtocol
    seed: int
    device: str
    """Name of the hardware."""
    threads: int
    """CPU threads of torch; on a CPU the last digits depend on them."""
    ranks: int
    """Processes that shared the run, each with a part of every batch."""
    num_parameters: int
    """Trainable ones."""
    epochs: tuple[EpochRecord, ...]
    """Fewer than the protocol's when the loss was not finite: training stops there."""
    seconds: float = field(compare=False)

    @property
    def finite(self) -> bool:
        """Whether the loss stayed finite."""
        return self.epochs[-1].train_loss is not None

    @property
    def last(self) -> EpochRecord:
        """The last epoch: the headline."""
        return self.epochs[-1]

    @property
    def best(self) -> EpochRecord:
        """The (first) epoch with the best test accuracy: chosen by looking at the test set, never the headline."""
        return max(self.epochs, key=lambda record: record.test_accuracy)

    @property
    def last_five(self) -> float:
        """Mean clean test accuracy of the last five epochs."""
        last = self.epochs[-5:]
        return sum(record.test_accuracy for record in last) / len(last)

    def fitted(self, threshold: float = 90.0) -> EpochRecord | None:
        """The first epoch whose training accuracy (percent) reached the threshold."""
        return next((record for record in self.epochs if record.train_accuracy >= threshold), None)

    def to_json(self) -> str:
        """Indented JSON; strict, because a loss that is not finite is ``null``."""
        values = {**dataclasses.asdict(self), "protocol": content(self.protocol)}
        return json.dumps(values, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, protocol: TrainingProtocol) -> RunHistory:
        """Read what ``to_json`` wrote for a run of this protocol.

        Raises:
            InputError: it is something else, or of another protocol.
        """
        try:
            values = json.loads(text)
            if values["protocol"] != content(protocol):
                raise ValueError(f"it has another protocol, {values['protocol']}")
            epochs = tuple(_epoch(record) for record in values["epochs"])
            if not epochs:
                raise ValueError("it has no epochs")
            return cls(**{**values, "protocol": protocol, "epochs": epochs})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is not the history of such a run: {error!r}") from error


def _epoch(values: dict[str, Any]) -> EpochRecord:
    return EpochRecord(**{**values, "windows": tuple(Window(**window) for window in values["windows"])})
