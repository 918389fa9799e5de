"""What a training run gave, epoch by epoch; kept as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from ule_datasets.base import records
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
    test_accuracy: float | None
    """Clean test accuracy after the epoch, in evaluation mode; ``None``: the protocol does not ask for this epoch's."""
    displacement: float | None
    """Root of the summed squares of all trainable parameters minus their first values; ``None``: it was not finite."""
    windows: tuple[Window, ...]
    """The epoch in parts; empty where the loss was not finite."""
    seconds: float = field(compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tested:
    """Clean test accuracy after an epoch."""

    epoch: int
    """Counted from 1."""
    accuracy: float
    """Percent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where a run stands that is not finished."""

    epochs: tuple[EpochRecord, ...]
    """Those that are done."""
    steps: int
    """Of the next one, that are done."""
    of_steps: int
    """That it has."""
    seconds: float
    """That the run has taken."""
    epoch_seconds: float
    """Those of them that its running epoch has."""

    @property
    def done(self) -> float:
        """Epochs with the share of the running one."""
        return len(self.epochs) + self.steps / self.of_steps


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
    """Fewer than the protocol's when the loss was not finite: training stops there. The last one is always tested."""
    seconds: float = field(compare=False)
    """Of a run that was interrupted: up to its checkpoints, without what had to be done again."""

    @property
    def finite(self) -> bool:
        """Whether the loss stayed finite."""
        return self.epochs[-1].train_loss is not None

    @property
    def last(self) -> EpochRecord:
        """The last epoch."""
        return self.epochs[-1]

    @property
    def tested(self) -> tuple[Tested, ...]:
        """Clean test accuracy wherever it was taken, in the order of the epochs."""
        return tuple(
            Tested(epoch=record.epoch, accuracy=record.test_accuracy)
            for record in self.epochs
            if record.test_accuracy is not None
        )

    @property
    def test_accuracy(self) -> float:
        """Clean test accuracy after the last epoch, percent: the headline."""
        return self.tested[-1].accuracy

    @property
    def best(self) -> Tested:
        """The (first) tested epoch with the best accuracy: chosen by looking at the test set, never the headline."""
        return max(self.tested, key=lambda tested: tested.accuracy)

    @property
    def last_five(self) -> float:
        """Mean clean test accuracy of the last five epochs; of those among them that were tested if the loss broke."""
        last = [tested.accuracy for tested in self.tested if tested.epoch > len(self.epochs) - 5]
        return sum(last) / len(last)

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
        origin = "this is not the history of such a run"
        values = records.parse(_Written, text, origin)
        if values.protocol != content(protocol):
            raise InputError(f"{origin}: it has another protocol, {values.protocol}")
        if [record.epoch for record in values.epochs] != [*range(1, len(values.epochs) + 1)] or not values.epochs:
            raise InputError(f"{origin}: epochs: they must be numbered from 1, and be at least one")
        if values.epochs[-1].test_accuracy is None:
            raise InputError(f"{origin}: epochs: the last one must be tested")
        known = {each.name: getattr(values, each.name) for each in dataclasses.fields(values)}
        return cls(**{**known, "protocol": protocol})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Written:
    """A history as it stands in JSON."""

    protocol: dict[str, Any]
    seed: int
    device: str
    threads: int
    ranks: int
    num_parameters: int
    epochs: tuple[EpochRecord, ...]
    seconds: float
