"""A surrogate that is trained on the clean images first, as usual, and frozen then."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from ule_datasets.base.checkpoint import State
from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.methods.engine.settings import SurrogateSettings, check_at_least
from ule_datasets.methods.engine.shifts import ShiftRule, Shifts
from ule_datasets.methods.engine.sign_steps import ROWS_AT_ONCE, SignSteps
from ule_datasets.methods.engine.stepwise import Phase, Stepwise
from ule_datasets.methods.engine.surrogate import FrozenSurrogate, Surrogate

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch, nn = lazy("torch"), lazy("torch.nn")


class Scale(StrEnum):
    """In what units a surrogate sees images."""

    UNIT = "unit"
    """0 .. 1."""
    CENTRED = "centred"
    """-0.5 .. 0.5."""
    STATISTICS = "statistics"
    """Each channel with mean 0 and deviation 1 over the training images."""


class Beginning(StrEnum):
    """What the weights of a surrogate's convolutions are before training."""

    USUAL = "usual"
    """As torch begins."""
    FAN_OUT = "fan_out"
    """Normal by the number of outputs, for ReLU (official code of TAP)."""

    def apply(self, model: nn.Module, generator: torch.Generator) -> None:
        """Draw them anew where it is not as torch begins, on the CPU."""
        if self is Beginning.FAN_OUT:
            for module in model.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanTraining:
    """How a surrogate is trained on clean images."""

    surrogate: SurrogateSettings = field(default_factory=SurrogateSettings)
    epochs: int = 60
    milestones: tuple[int, ...] = ()
    """After so many epochs the rate falls to a tenth; none: along half a cosine, epoch by epoch."""
    shifts: ShiftRule = ShiftRule.WHOLE
    scale: Scale = Scale.UNIT
    beginning: Beginning = Beginning.USUAL

    def __post_init__(self) -> None:
        check_at_least(1, self, "epochs")
        if list(self.milestones) != sorted(set(self.milestones)) or not all(
            0 < m < self.epochs for m in self.milestones
        ):
            raise InputError(
                f"CleanTraining: milestones are {self.milestones}, must ascend and lie within the {self.epochs} epochs"
            )

    def rate(self, epoch: int) -> float:
        """The learning rate in an epoch, counted from 0."""
        first = self.surrogate.learning_rate
        if not self.milestones:
            return first * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        return float(first * 0.1 ** sum(epoch >= milestone for milestone in self.milestones))


class Sight:
    """How a surrogate sees images that are given in units of a grid."""

    def __init__(self, training: CleanTraining, steps: SignSteps) -> None:
        self._white, self._first = steps.grid.white, training.shifts is ShiftRule.WHOLE
        channels = steps.images.shape[-1]
        mean, deviation = torch.zeros(channels), torch.ones(channels)
        if training.scale is Scale.STATISTICS:
            mean, deviation = statistics_of(steps.images)
        elif training.scale is Scale.CENTRED:
            mean = torch.full((channels,), 0.5)
        self._mean, self._deviation = (part.to(steps.device)[:, None, None] for part in (mean, deviation))

    def of(self, units: Tensor, shifts: Shifts | None = None) -> Tensor:
        """What the surrogate sees of images, float [B, C, H, W] in units, perhaps shifted; channels-last in memory."""
        seen = units / self._white
        if shifts is not None and self._first:
            seen = shifts.apply(seen)
        seen = (seen - self._mean) / self._deviation
        if shifts is not None and not self._first:
            seen = shifts.apply(seen)
        return seen.contiguous(memory_format=torch.channels_last)


def statistics_of(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel in units of 1, float32 [C], of uint8 [N, H, W, C]; the same on every device.

    A channel without any deviation counts as one of deviation 1.
    """
    channels = images.shape[-1]
    sums, squares, count = np.zeros(channels, np.int64), np.zeros(channels, np.int64), 0
    for part in torch.split(images, ROWS_AT_ONCE):
        values = part.reshape(-1, channels).long()
        sums += values.sum(dim=0).cpu().numpy()
        squares += values.square().sum(dim=0).cpu().numpy()
        count += len(values)
    mean = sums / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    deviation[deviation == 0] = 255
    return torch.from_numpy(mean / 255).float(), torch.from_numpy(deviation / 255).float()


class Learner:
    """The training of a surrogate on clean images, a batch at a time."""

    def __init__(self, training: CleanTraining, surrogate: Surrogate, steps: SignSteps, count: int) -> None:
        self.training, self.surrogate, self._steps = training, surrogate, steps
        self.sight = Sight(training, steps)
        self.batch = min(training.surrogate.batch_size, count)
        self.batches = range(-(-count // self.batch))
        """Of an epoch; the last one may be smaller."""
        self._count = count
        self.totals = torch.zeros(2, dtype=torch.float64, device=steps.device)
        """Over an epoch: the summed loss, and how many images the surrogate is right about."""

    def learn(self, order: Tensor, epoch: int, batch: int, generator: torch.Generator) -> None:
        """One step on a batch of an order of images (int64, on the device), shifted at random.

        A single image left over takes the one before it along: batch statistics need two.
        """
        first = max(0, min(batch * self.batch, self._count - 2))
        rows = order[first : batch * self.batch + self.batch]
        units = self._steps.units(rows).permute(0, 3, 1, 2)
        shifts = Shifts.drawn(self.training.shifts, len(rows), units.shape[2], units.shape[3], generator)
        seen = self.sight.of(units, shifts.to(units.device, units.dtype))
        self.surrogate.set_rate(self.training.rate(epoch))
        self.totals += self.surrogate.step(seen, self._steps.labels[rows])

    def finished(self) -> dict[str, Any]:
        """What came of an epoch, as JSON values; begins the next one."""
        loss, right = (self.totals / self._count).tolist()
        self.totals.zero_()
        return {"loss": round(loss, 6), "accuracy": round(100 * right, 4)}


class CleanFirst(Stepwise):
    """A craft whose first phases are the epochs of its method's ``training``; whose surrogate is frozen then."""

    method: Any
    surrogate: Surrogate
    learner: Learner
    epochs: list[dict[str, Any]]
    """What came of those that have ended."""

    def learn_first(self, steps: SignSteps, keys: Sequence[str], rows: np.ndarray) -> None:
        """Say from which images the surrogate learns, by their places among all that have these keys."""
        self._training: CleanTraining = self.method.training
        self.learner = Learner(self._training, self.surrogate, steps, len(rows))
        self.epochs = []
        self._learned = torch.from_numpy(rows).to(self.device)
        self._learned_keys = tuple(keys[row] for row in rows.tolist())
        self._frozen: FrozenSurrogate | None = None

    @property
    def learning(self) -> bool:
        """Whether there are epochs left."""
        return len(self.epochs) < self._training.epochs

    @property
    def epoch_label(self) -> str:
        """Which one is next, or at work."""
        return f"epoch {len(self.epochs) + 1} of the surrogate"

    @property
    def images_left(self) -> int:
        """How many images the epochs that are left show to the surrogate, for an estimate."""
        return (self._training.epochs - len(self.epochs)) * len(self._learned)

    def epoch(self) -> Phase:
        """The next one."""
        return Phase(label=self.epoch_label, unit="step", steps=self.learner.batches, step=self.learn, end=self._learnt)

    def frozen(self) -> FrozenSurrogate:
        """The surrogate after its epochs, made once."""
        self._frozen = self._frozen or self.surrogate.frozen(self.precision)
        return self._frozen

    def facts(self) -> dict[str, Any]:
        """What came of the epochs."""
        return {"epochs": self.epochs}

    def restore(self, state: State) -> None:
        """Take over the epochs too."""
        self.epochs = state.facts["epochs"]
        super().restore(state)

    def notes(self) -> dict[str, Any]:
        """Also how well the surrogate had learned the clean images."""
        return {**super().notes(), "surrogate": self.epochs[-1]}

    def learn(self, step: int) -> None:
        """Train the surrogate on a batch of clean images in an order of the epoch's own, shifted at random."""
        epoch = len(self.epochs)
        order = self._learned[self.shuffled(self._learned_keys, "epoch", epoch)]
        self.learner.learn(order, epoch, step, self._drawn("shifts", epoch, step))

    def _learnt(self) -> str:
        self.epochs.append(self.learner.finished())
        clipped = self._training.surrogate.gradient_clip is not None
        self.check_finite(
            self.epochs[-1]["loss"], "surrogate", "learning_rate or gradient_clip" if clipped else "learning_rate"
        )
        return told(self.epochs, self._training.epochs)


def told(epochs: Sequence[dict[str, Any]], of: int) -> str:
    """What to say after an epoch: every tenth one and the last."""
    if len(epochs) % 10 and len(epochs) != of:
        return ""
    last = epochs[-1]
    return f"surrogate after {len(epochs)} of {of} epochs: {last['accuracy']:.2f} % right on the clean images"
