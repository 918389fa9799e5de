"""Targeted adversarial poisoning (TAP, AdvPoison): adversarial examples of a trained model, with their true labels.

Liam Fowl, Micah Goldblum, Ping-yeh Chiang, Jonas Geiping, Wojciech Czaja, Tom Goldstein, "Adversarial Examples Make
Strong Poisons", NeurIPS 2021, arXiv 2106.10807. A surrogate is trained on the clean images. Then it stays as it is, and
each image gets noise that makes it be taken for the class after its own:

    min over |delta| <= epsilon of E over shifts t of CE(f(t(x + delta)), (y + 1) mod K)

by signed gradient steps, each for another shift and mirror image t. All of it is done from several random starts, and
the noise of the one with the smallest loss is kept. Untargeted noise goes up the loss of the true class instead.

Field defaults are those of the official code for CIFAR-10; ``of_rem`` and ``of_apbench`` are the settings of two other
repositories. Random starts are rounded to the grid of bound and step, on which the rest is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from ule_datasets.methods.engine.clean_training import Beginning, CleanFirst, CleanTraining, Scale
from ule_datasets.methods.engine.settings import ErrorAverage, Grid, SurrogateSettings, check_at_least
from ule_datasets.methods.engine.shifts import ShiftRule, Shifts
from ule_datasets.methods.engine.sign_steps import SignSteps, Start
from ule_datasets.methods.engine.stepwise import Estimate, Phase
from ule_datasets.methods.engine.surrogate import FrozenSurrogate, Surrogate
from ule_datasets.methods.method import BoundedNoise, Context, Crafted

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ule_datasets.models import architectures
else:
    torch, architectures = lazy("torch"), lazy("ule_datasets.models.architectures")

LEAST_TAKEN = 25.0
"""Percent of the perturbed images that the surrogate should mistake as intended; with fewer, little is reached."""


CLEAN = CleanTraining(
    surrogate=SurrogateSettings(batch_size=128, gradient_clip=None, nesterov=True),
    epochs=40,
    milestones=(14, 24, 35),
    shifts=ShiftRule.SMOOTH,
    scale=Scale.STATISTICS,
    beginning=Beginning.FAN_OUT,
)
"""How the official code trains its surrogate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarialPoisoning(BoundedNoise):
    """One perturbation for every training image, that makes a trained model take it for another class (TAP)."""

    identifier: ClassVar[str] = "tap"
    title: ClassVar[str] = "Targeted adversarial poisoning"
    citation: ClassVar[str] = "fowl2021adversarial"
    needs_labels: ClassVar[bool] = True
    round_name: ClassVar[str] = "start"

    epsilon: float = 8
    """Bound on every channel of every pixel, in units of 1/255."""
    step_size: float = 0.4
    """Of one signed gradient step, in units of 1/255: a twentieth of the bound."""
    num_steps: int = 250
    """Steps of every image from each start."""
    restarts: int = 8
    """Random starts, the best of which is kept for all images together (README of the official code: 1 may do)."""
    untargeted: bool = False
    """Up the loss of the true class, which is weaker (APBench)."""
    target_offset: int = 1
    """Images of class y are to be taken for class (y + offset) mod K."""
    training: CleanTraining = CLEAN
    """Of the surrogate; its shifts, and how it sees images, are those of the crafting too."""
    start: Start = Start.NORMAL
    batch_size: int = 512
    """Images whose noise is computed together; what is drawn, and the mean of the loss, depend on it."""
    error_average: ErrorAverage = ErrorAverage.BATCHES
    """How the loss is averaged by which the best start is found."""
    apply: Apply = Apply.SIGNED
    """What the dataset uses of the noise; it is computed with both signs in any case."""
    quantize: Quantize = Quantize.HALF_UP
    precision: Precision = Precision.FLOAT32

    def __post_init__(self) -> None:
        Grid.of(self.epsilon, self.step_size)
        check_at_least(1, self, "num_steps", "restarts", "target_offset", "batch_size")

    def shortfall(self, notes: Mapping[str, Any]) -> str:
        """The surrogate takes few images for what they should be taken for."""
        success = max((float(line["success"]) for line in notes.get("trace", ())), default=0.0)
        if success >= LEAST_TAKEN:
            return ""
        how = "wrong about" if self.untargeted else "led to the intended class by"
        return (
            f"the surrogate is {how} {success:.1f} % of the perturbed images; more steps (num_steps), or a surrogate "
            "that learns better (training), help"
        )

    def generate(self, train: Split, context: Context) -> Crafted:
        """Train the surrogate on ``context.device``, then craft from each start; a layer with an entry per image.

        Raises:
            InputError: there is only one class, or the target would be the true class.
        """
        if not self.untargeted and self.target_offset % context.num_classes == 0:
            raise InputError(
                f"AdversarialPoisoning: target_offset is {self.target_offset}: with {context.num_classes} classes the "
                "target would be the true class"
            )
        starts = Starts(self, train, context)
        notes = starts.run()
        return Crafted(layers=(Additive(levels=starts.levels(), support=Support.SAMPLE, keys=train.keys),), notes=notes)


OF_REM = AdversarialPoisoning(
    step_size=0.064,
    restarts=1,
    training=CleanTraining(
        surrogate=SurrogateSettings(batch_size=128, gradient_clip=None),
        epochs=102,
        milestones=(41, 82),
        shifts=ShiftRule.WHOLE,
        scale=Scale.CENTRED,
    ),
    start=Start.UNIFORM,
    quantize=Quantize.DELTA_INT8,
)
"""The settings of the REM paper's own TAP on CIFAR-10: 40,000 steps of the surrogate are 102 epochs here."""
OF_APBENCH = AdversarialPoisoning(untargeted=True)
"""What APBench calls TAP: untargeted."""


class Starts(CleanFirst):
    """The epochs of the surrogate, then the noise of all images from one start after the other."""

    method: AdversarialPoisoning
    one_thread = False

    def __init__(
        self, method: AdversarialPoisoning, train: Split, context: Context, *, images_at_once: int | None = None
    ) -> None:
        super().__init__(method, context, method.precision)
        self.grid = Grid.of(method.epsilon, method.step_size)
        self.steps = SignSteps(train, self.grid, self.device, images_at_once=images_at_once)
        seed, settings = self._number("initialisation"), method.training.surrogate
        model = architectures.build_model(settings.model, context.num_classes, seed=seed)
        method.training.beginning.apply(model, self._drawn("convolutions"))
        self.surrogate = Surrogate(model, settings, device=self.device)
        self.learn_first(self.steps, train.keys, np.arange(len(train)))
        kind = torch.int8 if self.grid.bound <= 127 else torch.int16
        self.noise = torch.zeros(self.steps.images.shape, dtype=kind, device=self.device)
        self.best = torch.zeros_like(self.noise)
        """The noise of the best start so far."""
        self.taken = torch.zeros(len(train), dtype=torch.bool, device=self.device)
        self.losses = torch.zeros(len(train), device=self.device)
        """Of each image in the last step, before it."""

    # --- the life cycle ---

    def parts(self) -> dict[str, Part]:
        """The noise, what it reached, and the surrogate."""
        own = {"noise": self.noise, "best": self.best, "taken": self.taken, "losses": self.losses}
        return {**own, "epoch": self.learner.totals, **self.surrogate.parts()}

    def following(self) -> Phase | None:
        """An epoch of the surrogate, or all images from the next start."""
        if self.learning:
            return self.epoch()
        number = len(self.trace)
        if number == self.method.restarts:
            return None
        batches = range(0, len(self.steps), self.method.batch_size)
        step = partial(self.craft, self.frozen())
        label = f"start {number + 1} of {self.method.restarts}"
        return Phase(label=label, unit="batch", steps=batches, step=step, end=self._crafted)

    def standing(self) -> str:
        """In an epoch or a start."""
        if self.learning:
            return f" in {self.epoch_label}"
        return f" in start {len(self.trace) + 1} of {self.method.restarts}"

    def notes(self) -> dict[str, Any]:
        """Also which start was the best."""
        losses = [line["loss"] for line in self.trace]
        return {**super().notes(), "best": losses.index(min(losses)) + 1}

    def estimate(self) -> Estimate:
        """From a short timing of a step of the surrogate and one of the noise."""
        method, count = self.method, len(self.steps)
        training, gradient, forward = self.steps.costs(self.surrogate, self.precision)
        starts = method.restarts - len(self.trace)
        first, each = training * self.images_left, gradient * method.num_steps * count
        text = (
            f"about {duration(first)} for the surrogate, and {duration(starts * each)} for {counted(starts, 'start')}"
        )
        flop = forward * (3 * self.images_left + 2 * starts * method.num_steps * count)
        return Estimate(text=text, seconds=first + starts * each, flop=flop)

    def levels(self) -> np.ndarray:
        """The noise of the best start as whole grey levels, int8 or int16 [N, H, W, C]; after ``run``."""
        return self.steps.levels(self.best, self.method.quantize, self.method.apply)

    # --- the steps ---

    def craft(self, frozen: FrozenSurrogate, first: int) -> None:
        """All steps of a batch of images, and what the surrogate takes them for at the end."""
        number, size = len(self.trace), self.method.batch_size
        rows = torch.arange(first, min(first + size, len(self.steps)), device=self.device)
        clean = self.steps.units(rows).permute(0, 3, 1, 2)
        labels = self.steps.labels[rows]
        if not self.method.untargeted:
            labels = (labels + self.method.target_offset) % self.context.num_classes
        generator = self._drawn("start", number, first)
        noise = self.method.start.drawn(tuple(clean.shape), self.grid.bound, generator).to(self.device)
        noise = ((clean + noise).clamp_(0, self.grid.white) - clean).contiguous(memory_format=torch.channels_last)
        for _ in range(self.method.num_steps):
            rule = self.method.training.shifts
            shifts = Shifts.drawn(rule, len(rows), clean.shape[2], clean.shape[3], generator)
            noise = self.step(frozen, clean, noise, labels, shifts.to(self.device, clean.dtype), rows)
        right = torch.cat(
            [
                frozen.judge(self.learner.sight.of(part), wanted)[0]
                for part, wanted in zip(self._split(clean + noise), self._split(labels), strict=True)
            ]
        )
        self.taken[rows] = ~right if self.method.untargeted else right
        self.noise[rows] = noise.permute(0, 2, 3, 1).to(self.noise.dtype)

    def step(
        self, frozen: FrozenSurrogate, clean: Tensor, noise: Tensor, labels: Tensor, shifts: Shifts, rows: Tensor
    ) -> Tensor:
        """Noise after one step, in units, [B, C, H, W]; its images' losses before the step are kept."""
        moved, size = [], self.steps.images_at_once
        length = -self.grid.step if self.method.untargeted else self.grid.step
        for first in range(0, len(clean), size):
            some = slice(first, first + size)
            part = shifts.part(first, first + size)
            seen = self.learner.sight.of(clean[some] + noise[some], part)
            gradient, losses = frozen.gradients(seen, labels[some])
            changed = noise[some] - part.back(gradient).sign_() * length
            changed.clamp_(-self.grid.bound, self.grid.bound)
            moved.append((clean[some] + changed).clamp_(0, self.grid.white) - clean[some])
            self.losses[rows[some]] = losses
        return torch.cat(moved)

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        return torch.split(values, self.steps.images_at_once)

    def _crafted(self) -> str:
        """Keep the noise if it is the best so far."""
        batches = self.method.error_average is ErrorAverage.BATCHES
        parts = torch.split(self.losses, self.method.batch_size if batches else len(self.losses))
        mean = float(torch.stack([part.double().mean() for part in parts]).mean())
        self.check_finite(mean, "surrogate", "learning_rate")
        loss = round(-mean if self.method.untargeted else mean, 6)
        if not self.trace or loss < min(line["loss"] for line in self.trace):
            self.best.copy_(self.noise)
        success = round(100 * float(self.taken.double().mean()), 4)
        record = {"round": len(self.trace) + 1, "loss": loss, "success": success, **self.steps.sizes(self.noise)}
        self.trace.append(record)
        what = "mistaken" if self.method.untargeted else "taken for their target"
        return (
            f"start {record['round']} of {self.method.restarts}: {success:.2f} % of the perturbed images are {what}, "
            f"loss {loss:.3f}; noise {record['mean_abs']:.2f}/255 on average"
        )
