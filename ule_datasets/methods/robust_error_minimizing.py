"""Robust error-minimising noise (REM): noise that leaves nothing to learn to adversarial training either.

Shaopeng Fu, Fengxiang He, Yang Liu, Li Shen, Dacheng Tao, "Robust Unlearnable Examples: Protecting Data Privacy Against
Adversarial Learning", ICLR 2022, arXiv 2203.14533:

    min over theta of E over (x, y) of min over |delta| <= epsilon of E over shifts t of
        max over |alpha| <= attack_epsilon of CE(f_theta(t(x + delta) + alpha), y)

A surrogate is trained adversarially on noise that is made anew for each batch: from a random start, signed gradient
steps down the loss of the attacked image, its gradient averaged over random shifts and mirror images t and carried back
through them as if the attack alpha did not depend on them. In the end all images get noise against the surrogate as it
is then.

Field defaults are those of the official code for CIFAR-10. Random starts are rounded to the finest grid that holds
bounds and steps, here 1/125 of a grey level, on which the rest is exact. The setting for ImageNet crops at
random scales instead of shifting, which is not here. ``SimplifiedRobustErrorMinimizing`` is what APBench calls REM.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ule_datasets.base.checkpoint import State
from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.base.progress import duration
from ule_datasets.base.shown import counted
from ule_datasets.compute.parts import Part
from ule_datasets.compute.precision import Precision
from ule_datasets.data.perturbation import Additive, Support
from ule_datasets.data.quantization import Apply, Quantize, largest_level
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.settings import Grid, StopRule, SurrogateSettings, check_at_least, common_grids
from ule_datasets.methods.engine.shifts import ShiftRule, Shifts
from ule_datasets.methods.engine.sign_steps import SignSteps, Start
from ule_datasets.methods.engine.stepwise import Estimate, Phase, Stepwise
from ule_datasets.methods.engine.surrogate import FrozenSurrogate, Surrogate
from ule_datasets.methods.error_minimizing import ErrorMinimizing, SampleWise
from ule_datasets.methods.method import BoundedNoise, Context, Crafted

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ule_datasets.models import architectures, pretrained
else:
    torch, nn = lazy("torch"), lazy("torch.nn")
    architectures, pretrained = lazy("ule_datasets.models.architectures"), lazy("ule_datasets.models.pretrained")

LEAST_LEARNED = 50.0
"""Percent of the perturbed images that the surrogate should be right about in the end."""
ADVERSARIAL = SurrogateSettings(batch_size=128, gradient_clip=None)
"""How the official code trains its surrogate."""
USUAL = SurrogateSettings(batch_size=128)
"""How APBench trains its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RobustErrorMinimizing(BoundedNoise):
    """One perturbation for every training image, made against a surrogate that is trained adversarially (REM, REMN)."""

    identifier: ClassVar[str] = "rem"
    title: ClassVar[str] = "Robust error-minimising noise"
    citation: ClassVar[str] = "fu2022robust"
    needs_labels: ClassVar[bool] = True
    round_name: ClassVar[str] = "pass"

    epsilon: float = 8
    """Bound on every channel of every pixel, in units of 1/255."""
    step_size: float = 1.6
    """Of one signed gradient step of the noise, in units of 1/255: a fifth of the bound."""
    num_steps: int = 10
    """Steps of an image's noise, each time that it is made."""
    num_samples: int = 5
    """Random shifts over which the gradient of a step is averaged (expectation over transformations; fewer are quicker,
    and another method)."""
    attack_epsilon: float = 4
    """Bound of the attack on what the surrogate sees, in units of 1/255; below ``epsilon``."""
    attack_step_size: float = 0.8
    """Of one signed gradient step of the attack, in units of 1/255: a fifth of its bound."""
    attack_steps: int = 10
    """Of each attack: there is one for each sample of each step of the noise, and one in each step of the surrogate."""
    surrogate: SurrogateSettings = ADVERSARIAL
    train_steps: int = 5000
    """Batches that the surrogate is trained on, each with new noise."""
    decay_every: int = 2000
    """After so many batches the learning rate falls to a tenth, again and again."""
    leave_last_batch: bool = False
    """Official code: what is left of a shuffled pass after its last whole batch (80 images of CIFAR-10) gets no new
    noise in the end, and keeps that of an earlier step, if it had any."""
    apply: Apply = Apply.SIGNED
    """What the dataset uses of the noise; it is computed with both signs in any case."""
    quantize: Quantize = Quantize.DELTA_INT8
    """How noise becomes whole grey levels, which the surrogate is trained on too; its steps are taken before that."""
    precision: Precision = Precision.FLOAT32

    def __post_init__(self) -> None:
        self.grids()
        check_at_least(1, self, "num_steps", "num_samples", "attack_steps", "train_steps", "decay_every")
        if self.attack_epsilon >= self.epsilon:
            raise InputError(
                f"RobustErrorMinimizing: attack_epsilon is {self.attack_epsilon}, must be below epsilon, {self.epsilon}"
            )

    def grids(self) -> tuple[Grid, ...]:
        """Of the noise and of the attack."""
        own, attack = (self.epsilon, self.step_size), (self.attack_epsilon, self.attack_step_size)
        return common_grids(own, attack, finest=True)

    def shortfall(self, notes: Mapping[str, Any]) -> str:
        """The surrogate hardly learned what the noise shows."""
        passes, reached = len(notes.get("trace", ())), float(notes.get("final", {}).get("accuracy", 0))
        if reached >= LEAST_LEARNED:
            return ""
        return (
            f"after {counted(passes, 'pass')} the surrogate is right about {reached:.1f} % of the perturbed images; "
            "more steps (train_steps), or a surrogate that learns faster, help"
        )

    def generate(self, train: Split, context: Context) -> Crafted:
        """Train the surrogate on ``context.device``, then make the noise; an additive layer with an entry per image."""
        defence = Defence(self, train, context)
        notes = defence.run()
        levels = defence.levels()
        return Crafted(layers=(Additive(levels=levels, support=Support.SAMPLE, keys=train.keys),), notes=notes)


@dataclass(frozen=True, kw_only=True, slots=True)
class SimplifiedRobustErrorMinimizing(ErrorMinimizing):
    """What APBench (Qin et al., TMLR 2024) calls REM: error-minimising rounds whose steps start from adversarial noise.

    In each noise phase an image's noise first goes up the loss within a smaller bound, from where it came to like that
    in the phase before, and then down from there. The surrogate is trained as usual, not adversarially, and nothing is
    shifted: another method, and far cheaper.
    """

    identifier: ClassVar[str] = "rem_apbench"
    title: ClassVar[str] = "Robust error-minimising noise, APBench's simplification"
    citation: ClassVar[str] = "fu2022robust"

    step_size: float = 1.6
    """Of one signed gradient step down, in units of 1/255: a fifth of the bound."""
    num_steps: int = 5
    """Steps down of every image in a noise phase."""
    ascent_epsilon: float = 4
    """Bound of the steps up, in units of 1/255: half of the other one."""
    ascent_step_size: float = 0.8
    """Of one signed gradient step up, in units of 1/255: a tenth of the bound."""
    ascent_steps: int = 5
    """Steps up of every image before those down."""
    surrogate: SurrogateSettings = USUAL
    stop_rule: StopRule = StopRule.ABOVE
    quantize: Quantize = Quantize.HALF_UP

    def __post_init__(self) -> None:
        # Dataclasses with slots are made anew, so that super() without arguments does not find them.
        ErrorMinimizing.__post_init__(self)
        self.grids()
        check_at_least(1, self, "ascent_steps")

    def grids(self) -> tuple[Grid, ...]:
        """Of the steps down and up."""
        return common_grids((self.epsilon, self.step_size), (self.ascent_epsilon, self.ascent_step_size))

    def generate(self, train: Split, context: Context) -> Crafted:
        """Alternate on ``context.device`` until the stop rule is met; an additive layer with an entry per image."""
        rounds = FirstUp(self, train, context)
        notes = rounds.run()
        return Crafted(layers=(Additive(levels=rounds.levels(), support=Support.SAMPLE, keys=train.keys),), notes=notes)


class Defence(Stepwise):
    """Passes of training on noise that is made on the way, then noise for all images."""

    method: RobustErrorMinimizing
    one_thread = False

    def __init__(
        self,
        method: RobustErrorMinimizing,
        train: Split,
        context: Context,
        *,
        images_at_once: int | None = None,
    ) -> None:
        super().__init__(method, context, method.precision)
        self.grid, attack = method.grids()
        self.steps = SignSteps(train, self.grid, self.device, images_at_once=images_at_once)
        self.attack = self.steps.within(attack, up=True)
        largest = largest_level(method.epsilon, method.quantize)
        self.whole = self.steps.within(Grid(per_level=1, bound=largest, step=1))
        """Noise in whole grey levels."""
        self.surrogate = Surrogate(self.built(), method.surrogate, device=self.device)
        self._keys = train.keys
        self._levels = torch.from_numpy(self.steps.table(method.quantize)).to(self.device)
        self.kept = torch.zeros(self.steps.images.shape, dtype=self._levels.dtype, device=self.device)
        """Each image's latest noise, in whole grey levels."""
        self.right = torch.zeros(len(train), dtype=torch.bool, device=self.device)
        self.losses = torch.zeros(len(train), device=self.device)
        self.totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        """Over a pass: the summed loss, and how many attacked images the surrogate is right about."""
        self.final: dict[str, Any] = {}

    def built(self) -> nn.Module:
        """The surrogate's model, untrained, on the CPU; its images are -0.5 .. 0.5 inside."""
        model, seed = self.method.surrogate.model, self._number("initialisation")
        centred = pretrained.Normalise((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
        own = architectures.build_model(model, self.context.num_classes, seed=seed)
        return nn.Sequential(OrderedDict(centred=centred, model=own))

    # --- the life cycle ---

    @property
    def batch(self) -> int:
        """Images of a batch: fewer images than that make a single smaller one."""
        return min(self.method.surrogate.batch_size, len(self.steps))

    @property
    def per_pass(self) -> int:
        """Batches of a pass; a smaller last one is dropped."""
        return len(self.steps) // self.batch

    @property
    def num_passes(self) -> int:
        """Of the training; the last one may end early."""
        return -(-self.method.train_steps // self.per_pass)

    def parts(self) -> dict[str, Part]:
        """The noise, what is known of it, and the surrogate."""
        own = {"kept": self.kept, "right": self.right, "losses": self.losses, "totals": self.totals}
        return {**own, **self.surrogate.parts()}

    def following(self) -> Phase | None:
        """The rest of the passes, then noise for all images."""
        if self.done < self.num_passes:
            steps = range(min(self.per_pass, self.method.train_steps - self.done * self.per_pass))
            return Phase(label=self._label(), unit="step", steps=steps, step=self.train, end=self._trained)
        if self.done > self.num_passes:
            return None
        batches = range(self.per_pass if self.method.leave_last_batch else -(-len(self.steps) // self.batch))
        step = partial(self.protect, self.surrogate.frozen(self.precision))
        return Phase(label=self._label(), unit="batch", steps=batches, step=step, end=self._protected)

    def standing(self) -> str:
        """In a pass or at the end."""
        return f" in {self._label()}"

    def facts(self) -> dict[str, Any]:
        """What came of the noise in the end."""
        return {"final": self.final}

    def restore(self, state: State) -> None:
        """Take that over too."""
        self.final = state.facts["final"]
        super().restore(state)

    def notes(self) -> dict[str, Any]:
        """Also what the surrogate makes of all images with their noise, without an attack."""
        return {**super().notes(), "final": self.final}

    def estimate(self) -> Estimate:
        """From a short timing of a step of the surrogate and one of the noise."""
        method = self.method
        training, gradient, forward = self.steps.costs(self.surrogate, self.precision)
        each = method.num_steps * method.num_samples * (method.attack_steps + 1)
        passes = max(0, self.num_passes - self.done)
        shown = max(0, method.train_steps - self.done * self.per_pass) * self.batch
        gradients = shown * (each + method.attack_steps) + len(self.steps) * each
        seconds = training * shown + gradient * gradients
        text = f"about {duration(seconds)} for {counted(passes, 'pass')} and the noise of all images"
        flop = forward * (3 * shown + 2 * gradients)
        return Estimate(text=text, seconds=seconds, flop=flop, rounds=passes + 1, unit="pass")

    def levels(self) -> np.ndarray:
        """The noise as whole grey levels, int8 or int16 [N, H, W, C]; after ``run``."""
        return self.whole.levels(self.kept, self.method.quantize, self.method.apply)

    # --- the steps ---

    def train(self, step: int) -> None:
        """New noise for a batch of images, and a step of the surrogate on it, shifted and attacked."""
        method, number = self.method, self.done * self.per_pass + step
        rows = self.shuffled(self._keys, "pass", self.done)[step * self.batch : (step + 1) * self.batch]
        frozen = self.surrogate.frozen(self.precision)
        self.kept[rows] = self.defended(frozen, rows, "noise", number)
        shifts, start = self._surroundings(self._drawn("attack", number), len(rows))
        # Before the shift is as good as after it: pixels are moved whole, and what comes in is black.
        shown = self._shown(rows).clamp_(0, self.grid.white)
        labels = self.steps.labels[rows]
        attacked = torch.cat(
            [
                self.attacked(frozen, shown[some], labels[some], shifts.part(some.start, some.stop), start[some])
                for some in self._pieces(len(rows))
            ]
        )
        self.surrogate.set_rate(method.surrogate.learning_rate * 0.1 ** (number // method.decay_every))
        self.totals += self.surrogate.step(self.steps.inputs(attacked), labels)

    def protect(self, frozen: FrozenSurrogate, batch: int) -> None:
        """The noise of some images against the final surrogate, and what this makes of the result."""
        some = slice(batch * self.batch, (batch + 1) * self.batch)
        if self.method.leave_last_batch:
            rows = self.shuffled(self._keys, "last pass")[some]
        else:
            rows = torch.arange(len(self.steps), device=self.device)[some]
        self.kept[rows] = self.defended(frozen, rows, "last noise", batch)
        for part in torch.split(rows, self.steps.images_at_once):
            shown = self._shown(part).clamp_(0, self.grid.white)
            self.right[part], self.losses[part] = frozen.judge(self.steps.inputs(shown), self.steps.labels[part])

    def defended(self, frozen: FrozenSurrogate, rows: Tensor, *purpose: str | int) -> Tensor:
        """New noise for some images, in whole grey levels, [B, H, W, C]."""
        clean, generator = self.steps.units(rows), self._drawn(*purpose)
        noise = Start.UNIFORM.drawn(tuple(clean.shape), self.grid.bound, generator).to(self.device)
        for _ in range(self.method.num_steps):
            shifts, starts = self._surroundings(generator, len(rows) * self.method.num_samples)
            gradient = self.gradient(frozen, clean, noise, self.steps.labels[rows], shifts, starts)
            noise = (noise - gradient.sign_().mul_(self.grid.step)).clamp_(-self.grid.bound, self.grid.bound)
        return self._levels[(noise + self.grid.bound).long()]

    def gradient(
        self, frozen: FrozenSurrogate, clean: Tensor, noise: Tensor, labels: Tensor, shifts: Shifts, starts: Tensor
    ) -> Tensor:
        """Of the attacked loss with respect to the noise, summed over the samples.

        Clean images and noise in units, [B, H, W, C]. Shifts and starts of attacks are those of the first sample of all
        images, then of the second one, and so on.
        """
        count, shown, parts = len(clean), clean + noise, []
        inside = (shown >= 0) & (shown <= self.grid.white)
        shown.clamp_(0, self.grid.white)
        for some in self._pieces(len(starts)):
            rows = torch.arange(some.start, some.stop, device=self.device) % count
            moves = shifts.part(some.start, some.stop)
            attacked = self.attacked(frozen, shown[rows], labels[rows], moves, starts[some])
            gradient, _ = frozen.input_gradient(self.steps.inputs(attacked), labels[rows])
            parts.append(moves.back(gradient).permute(0, 2, 3, 1))
        return torch.cat(parts).view(-1, *clean.shape).sum(dim=0) * inside

    def attacked(self, frozen: FrozenSurrogate, shown: Tensor, labels: Tensor, shifts: Shifts, start: Tensor) -> Tensor:
        """Images shifted, and attacked from some noise on, in units, [B, H, W, C] as before."""
        moved = shifts.apply(shown.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        noise = self.attack.descend(frozen, moved, start, labels, self.method.attack_steps)
        return (moved + noise).clamp_(0, self.grid.white)

    def _shown(self, rows: Tensor) -> Tensor:
        """Images with the noise that is kept, in units."""
        return self.steps.units(rows) + self.kept[rows].float() * self.grid.per_level

    def _surroundings(self, generator: torch.Generator, count: int) -> tuple[Shifts, Tensor]:
        """Shifts of so many images, and where attacks on them start."""
        shape = tuple(self.steps.images.shape[1:])
        shifts = Shifts.drawn(ShiftRule.WHOLE, count, shape[0], shape[1], generator)
        start = Start.UNIFORM.drawn((count, *shape), self.attack.grid.bound, generator).to(self.device)
        return shifts.to(self.device, start.dtype), start

    def _pieces(self, count: int) -> list[slice]:
        size = self.steps.images_at_once
        return [slice(first, min(first + size, count)) for first in range(0, count, size)]

    # --- what is told ---

    def _label(self) -> str:
        if self.done < self.num_passes:
            return f"pass {self.done + 1} of {self.num_passes}"
        return "the noise of all images"

    def _trained(self) -> str:
        seen = self.batch * min(self.per_pass, self.method.train_steps - self.done * self.per_pass)
        loss, right = (self.totals / seen).tolist()
        self.totals.zero_()
        self.check_finite(loss, "surrogate", "learning_rate")
        record = {
            "round": self.done + 1,
            "surrogate_loss": round(loss, 6),
            "surrogate_accuracy": round(100 * right, 4),
            **self.whole.sizes(self.kept),
        }
        self.trace.append(record)
        return (
            f"{self._label()}: surrogate {record['surrogate_accuracy']:.2f} % right on the attacked images, "
            f"loss {loss:.3f}; noise {record['mean_abs']:.2f}/255 on average"
        )

    def _protected(self) -> str:
        count = self.batch * self.per_pass if self.method.leave_last_batch else len(self.steps)
        loss, right = float(self.losses.double().sum()) / count, float(self.right.double().sum()) / count
        self.final = {"loss": round(loss, 6), "accuracy": round(100 * right, 4), **self.whole.sizes(self.kept)}
        return (
            f"noise of all images: surrogate {self.final['accuracy']:.2f} % right on them, loss {loss:.3f}; "
            f"noise {self.final['mean_abs']:.2f}/255 on average"
        )


class FirstUp(SampleWise):
    """Rounds in whose noise phase images go up the loss before they go down."""

    method: SimplifiedRobustErrorMinimizing

    def chosen_grid(self) -> Grid:
        """That of the steps down, which has the unit of the steps up."""
        return self.method.grids()[0]

    def start(self) -> Tensor:
        """Also of the noise that goes up."""
        noise = super().start()
        self.ascent = self.steps.within(self.method.grids()[1], up=True)
        self.raised = noise.clone()
        return noise

    def parts(self) -> dict[str, Part]:
        """Also how far up the noise has come."""
        return {**super().parts(), "raised": self.raised}

    def work(self) -> tuple[int, int]:
        """Every image takes steps up too."""
        gradients, checks = super().work()
        return gradients + len(self.steps) * self.method.ascent_steps, checks

    def descent_start(self, frozen: FrozenSurrogate, rows: Tensor, count: int) -> Tensor:
        """Up from where the phase before had come to."""
        clean, labels = self.steps.units(rows), self.steps.labels[rows]
        noise = self.ascent.descend(frozen, clean, self.raised[rows].float(), labels, self.method.ascent_steps)
        self.raised[rows[:count]] = noise[:count].to(self.raised.dtype)
        return noise
