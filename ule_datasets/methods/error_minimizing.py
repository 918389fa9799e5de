"""Error-minimising noise: small noise that leaves a model nothing to learn from an image.

Hanxun Huang, Xingjun Ma, Sarah Monazam Erfani, James Bailey, Yisen Wang, "Unlearnable Examples: Making Personal
Data Unexploitable", ICLR 2021, arXiv 2101.04898, equation 2 and algorithm 1:

    min over theta of E over (x, y) of min over |delta| <= epsilon of CE(f_theta(x + delta), y)

solved in rounds. A *model phase* trains the surrogate f for a few batches on the images with the noise as it is. A
*noise phase* freezes the surrogate and lets the noise take signed gradient steps down the loss, projected on the
bound. A *check* measures the surrogate's accuracy on the images with their noise, and ends the rounds when it is right
about nearly all of them.

Field defaults are those for CIFAR-10. Nothing is random but the surrogate's initialisation (and for class-wise noise
the order of the images). Settings where paper and official code differ are named options; see each field.
"""

from __future__ import annotations

import statistics
from abc import abstractmethod
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
from ule_datasets.data.quantization import Apply, Quantize, quantize
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.settings import ErrorAverage, Grid, StopRule, SurrogateSettings, check_at_least
from ule_datasets.methods.engine.sign_steps import SignSteps
from ule_datasets.methods.engine.stepwise import Estimate, Phase, Stepwise
from ule_datasets.methods.engine.surrogate import FrozenSurrogate, Surrogate
from ule_datasets.methods.method import BoundedNoise, Context, Crafted

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ule_datasets.models import architectures
else:
    torch, architectures = lazy("torch"), lazy("ule_datasets.models.architectures")


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorMinimizing(BoundedNoise):
    """Sample-wise noise (EM, EMN, EMinN): one perturbation for every training image."""

    identifier: ClassVar[str] = "em_s"
    title: ClassVar[str] = "Error-minimising noise, sample-wise"
    citation: ClassVar[str] = "huang2021unlearnable"
    needs_labels: ClassVar[bool] = True

    epsilon: float = 8
    """Bound on every channel of every pixel, in units of 1/255 (ImageNet: 16)."""
    step_size: float = 0.8
    """Of one signed gradient step, in units of 1/255: a tenth of the bound."""
    num_steps: int = 20
    """Steps of every image in a noise phase."""
    steps_per_round: int = 10
    """Batches that the surrogate is trained on in a model phase (CIFAR-100: 20, ImageNet: 100)."""
    surrogate: SurrogateSettings = field(default_factory=SurrogateSettings)
    stop_accuracy: float = 0.99
    """Accuracy of the surrogate on the perturbed images, 0 .. 1, that ends the rounds (ImageNet: 0.9)."""
    stop_rule: StopRule = StopRule.AT_LEAST
    error_average: ErrorAverage = ErrorAverage.IMAGES
    max_rounds: int = 100
    """Not in the paper: where rounds end although the accuracy is not reached, with a warning and a note."""
    random_start: bool = False
    """Uniform noise instead of none before the first round (an option of the official code)."""
    apply: Apply = Apply.SIGNED
    """What the dataset uses of the noise; it is computed with both signs in any case."""
    quantize: Quantize = Quantize.TRUNC
    precision: Precision = Precision.FLOAT32

    def __post_init__(self) -> None:
        _check(self)

    @property
    def heavy(self) -> bool:
        """With a small surrogate it is not."""
        return not self.surrogate.small

    def shortfall(self, notes: Mapping[str, Any]) -> str:
        """The stop rule is far."""
        return _shortfall(self, notes)

    def generate(self, train: Split, context: Context) -> Crafted:
        """Alternate on ``context.device`` until the stop rule is met; an additive layer with an entry per image."""
        rounds = SampleWise(self, train, context)
        notes = rounds.run()
        return Crafted(layers=(Additive(levels=rounds.levels(), support=Support.SAMPLE, keys=train.keys),), notes=notes)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClasswiseErrorMinimizing(BoundedNoise):
    """Class-wise noise (EM-C): one perturbation for all images of a class, from a fixed part of them."""

    identifier: ClassVar[str] = "em_c"
    title: ClassVar[str] = "Error-minimising noise, class-wise"
    citation: ClassVar[str] = "huang2021unlearnable"
    needs_labels: ClassVar[bool] = True

    epsilon: float = 8
    """Bound on every channel of every pixel, in units of 1/255 (ImageNet: 16)."""
    step_size: float = 0.8
    """Of one signed gradient step of one image, in units of 1/255; a class moves by the mean over its images."""
    num_steps: int = 1
    """Steps of every image before its class's noise is updated."""
    steps_per_round: int = 10
    """Batches that the surrogate is trained on in a model phase (ImageNet: 100)."""
    subset: float = 0.2
    """Stratified share of the images, drawn once by the seed, that noise phase and check use."""
    surrogate: SurrogateSettings = field(default_factory=SurrogateSettings)
    stop_accuracy: float = 0.99
    """Accuracy of the surrogate on the perturbed images, 0 .. 1 (official scripts; their README says 0.9)."""
    stop_rule: StopRule = StopRule.AT_LEAST
    error_average: ErrorAverage = ErrorAverage.IMAGES
    max_rounds: int = 400
    """Not in the paper: where rounds end although the accuracy is not reached, with a warning and a note."""
    random_start: bool = False
    """Uniform noise instead of none before the first round (an option of the official code)."""
    apply: Apply = Apply.SIGNED
    """What the dataset uses of the noise; it is computed with both signs in any case."""
    quantize: Quantize = Quantize.TRUNC
    precision: Precision = Precision.FLOAT32

    def __post_init__(self) -> None:
        _check(self)
        if not 0 < self.subset <= 1:
            raise InputError(f"ClasswiseErrorMinimizing: subset is {self.subset}, not in (0, 1]")

    def shortfall(self, notes: Mapping[str, Any]) -> str:
        """The stop rule is far."""
        return _shortfall(self, notes)

    def generate(self, train: Split, context: Context) -> Crafted:
        """Alternate on ``context.device`` until the stop rule is met; an additive layer with an entry per class."""
        rounds = ClassWise(self, train, context)
        notes = rounds.run()
        return Crafted(layers=(Additive(levels=rounds.levels(), support=Support.CLASS),), notes=notes)


_Method = ErrorMinimizing | ClasswiseErrorMinimizing


def _check(method: _Method) -> None:
    Grid.of(method.epsilon, method.step_size)
    check_at_least(1, method, "num_steps", "steps_per_round", "max_rounds")
    if not 0 < method.stop_accuracy <= 1:
        raise InputError(f"{type(method).__name__}: stop_accuracy is {method.stop_accuracy}, not in (0, 1]")


def _shortfall(method: _Method, notes: Mapping[str, Any]) -> str:
    """That the surrogate was not brought even half way to where the rounds should end."""
    trace = notes.get("trace") or [{"accuracy": 0.0}]
    reached, wanted = float(trace[-1]["accuracy"]), 100 * method.stop_accuracy
    if notes.get("stop_rule_met") or reached >= wanted / 2:
        return ""
    return (
        f"after {counted(len(trace), 'round')} the surrogate is right about {reached:.1f} % of the perturbed images, "
        f"the rounds should end at {wanted:g} %; more rounds (max_rounds) or a surrogate that learns faster help"
    )


class Rounds(Stepwise):
    """The alternation that both kinds share; subclasses say which images see which noise."""

    method: Any
    """An ``ErrorMinimizing`` or ``ClasswiseErrorMinimizing``, or one that has what of them is not overridden."""
    one_thread = False
    usual_rounds: ClassVar[int]
    """For the estimate only: nobody knows beforehand."""

    def __init__(self, method: Any, train: Split, context: Context, *, images_at_once: int | None = None) -> None:
        super().__init__(method, context, method.precision)
        self.grid = self.chosen_grid()
        self.steps = SignSteps(train, self.grid, self.device, images_at_once=images_at_once)
        self.surrogate = Surrogate(self.built(), method.surrogate, device=self.device)
        self.noise = self.start()
        self.totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        """Over a model phase: the summed loss, how many images the surrogate is right about, and how many there are."""

    # --- what a kind of noise says ---

    def chosen_grid(self) -> Grid:
        """That of the noise."""
        return Grid.of(self.method.epsilon, self.method.step_size)

    def built(self) -> nn.Module:
        """The surrogate's model, untrained, on the CPU."""
        model, seed = self.method.surrogate.model, self._number("initialisation")
        return architectures.build_model(model, self.context.num_classes, seed=seed)

    @abstractmethod
    def start(self) -> Tensor:
        """The noise before the first round, in units, on the device."""

    @abstractmethod
    def model_rows(self, step: int) -> Tensor:
        """The images of a model step, int64 [B]; steps count on from round to round."""

    @abstractmethod
    def chunks(self) -> range:
        """Where the parts of the noise phase begin."""

    @abstractmethod
    def improve(self, frozen: FrozenSurrogate, chunk: int) -> None:
        """Do the part of the noise phase that begins here."""

    @abstractmethod
    def judged(self, frozen: FrozenSurrogate) -> tuple[Tensor, Tensor]:
        """Of each image of the noise phase, with its new noise: is the surrogate right (bool), and its loss (float)."""

    @abstractmethod
    def noise_of(self, rows: Tensor) -> Tensor:
        """The noise of some images, float32 units [B, H, W, C]."""

    @abstractmethod
    def work(self) -> tuple[int, int]:
        """How many image gradients and how many further forward passes of an image a noise phase and check take."""

    # --- the alternation ---

    def parts(self) -> dict[str, Part]:
        """The noise, the surrogate, and how its training goes."""
        return {"noise": self.noise, "totals": self.totals, **self.surrogate.parts()}

    def following(self) -> Phase | None:
        """A model phase, then a noise phase, until the stop rule is met."""
        if self.done % 2 == 0:
            if self._reached() or len(self.trace) >= self.method.max_rounds:
                return None
            steps = range(self.method.steps_per_round)
            return Phase(label=self._label(), unit="step", steps=steps, step=self.train, end=self._trained)
        frozen = self.surrogate.frozen(self.method.precision)
        step, end = partial(self.improve, frozen), partial(self._checked, frozen)
        return Phase(label=self._label(), unit="chunk", steps=self.chunks(), step=step, end=end)

    def standing(self) -> str:
        """The round and the phase."""
        return f" in {self._label()}"

    def notes(self) -> dict[str, Any]:
        """Also whether the rounds ended as they should."""
        return {**super().notes(), "stop_rule_met": self._reached()}

    def run(self) -> dict[str, Any]:
        """Warn if they did not."""
        notes = super().run()
        if not self._reached():
            self.context.reporter.warn(
                f"{self.method.title}: after {counted(len(self.trace), 'round')} the surrogate's accuracy is "
                f"{self.trace[-1]['accuracy']:.2f} %, the stop rule ({self._goal()}) is not met"
            )
        return notes

    def train(self, step: int) -> None:
        """Train the surrogate on a batch of images with the noise as it is."""
        rows = self.model_rows(len(self.trace) * self.method.steps_per_round + step)
        shown = self.steps.inputs(self.steps.units(rows) + self.noise_of(rows))
        self.totals[:2] += self.surrogate.step(shown, self.steps.labels[rows])
        self.totals[2] += len(rows)

    def _label(self) -> str:
        return f"round {len(self.trace) + 1}, {('model', 'noise')[self.done % 2]} phase"

    def _reached(self) -> bool:
        method, trace = self.method, self.trace
        return bool(trace) and method.stop_rule.reached(trace[-1]["accuracy"] / 100, method.stop_accuracy)

    def _goal(self) -> str:
        return f"{100 * self.method.stop_accuracy:g} %"

    def _trained(self) -> str:
        self.check_finite(float(self.totals[0]), "surrogate", "learning_rate or gradient_clip")
        return ""

    def _checked(self, frozen: FrozenSurrogate) -> str:
        right, losses = self.judged(frozen)
        self.check_finite(float(losses.double().sum()), "surrogate", "learning_rate or gradient_clip")
        last = self._record(self._accuracy(right), float(losses.double().mean()))
        self.trace.append(last)
        self.totals.zero_()
        training = f" ({last['model_loss']:.3f} while it was trained)" if "model_loss" in last else ""
        return (
            f"round {last['round']}: surrogate {last['accuracy']:.2f} % right on the perturbed images, "
            f"loss {last['loss']:.3f}{training}; "
            f"noise {last['mean_abs']:.2f}/255 on average, {last['at_bound']:.0f} % at the bound"
        )

    def _accuracy(self, right: Tensor) -> float:
        """Share of right answers (0 .. 1), averaged as the method says."""
        batches = self.method.error_average is ErrorAverage.BATCHES
        parts = torch.split(right, self.method.surrogate.batch_size if batches else len(right))
        return statistics.fmean(float(part.double().mean()) for part in parts)

    def _record(self, accuracy: float, loss: float) -> dict[str, Any]:
        """A line of the trace; deterministic, so without times."""
        model_loss, model_right = (self.totals[:2] / self.totals[2]).tolist()
        return {
            "round": len(self.trace) + 1,
            "model_loss": round(model_loss, 6),
            "model_accuracy": round(100 * model_right, 4),
            "loss": round(loss, 6),
            "accuracy": round(100 * accuracy, 6),
            **self.steps.sizes(self.noise),
        }

    def estimate(self) -> Estimate:
        """From a short timing of both phases."""
        training, gradient, forward = self.steps.costs(self.surrogate, self.precision)
        trained = len(self.model_rows(0)) * self.method.steps_per_round
        gradients, checks = self.work()
        model, noise = training * trained, gradient * (gradients + checks / 2)
        flop = forward * (3 * trained + 2 * gradients + checks)
        usual = min(self.usual_rounds, self.method.max_rounds)
        rounds = max(1, usual - len(self.trace))
        many = counted(rounds, "more round" if self.trace else "round")
        text = (
            f"about {duration(model + noise)} a round (model {duration(model)}, noise {duration(noise)}), "
            f"{duration(rounds * (model + noise))} if it takes {many}"
        )
        return Estimate(text=text, seconds=rounds * (model + noise), flop=rounds * flop, rounds=rounds)


class SampleWise(Rounds):
    """One noise per image. Integers on the grid, in the canonical order of the images."""

    usual_rounds = 10
    """On CIFAR-10 with the paper's settings, by the official notebook."""

    def start(self) -> Tensor:
        """Zeros, or uniform over the grid where the recipe asks for a random start."""
        self.right = torch.zeros(len(self.steps), dtype=torch.bool, device=self.device)
        self.losses = torch.zeros(len(self.steps), device=self.device)
        kind = torch.int8 if self.grid.bound <= 127 else torch.int16
        noise = torch.zeros(self.steps.images.shape, dtype=kind, device=self.device)
        if self.method.random_start:
            noise = noise.cpu().random_(-self.grid.bound, self.grid.bound + 1, generator=self._drawn("start"))
        return noise.to(self.device)

    def parts(self) -> dict[str, Part]:
        """Also the answers so far."""
        return {**super().parts(), "right": self.right, "losses": self.losses}

    def model_rows(self, step: int) -> Tensor:
        """Batches in order, the last one of a pass smaller; the next pass starts anew.

        A single image left over takes the one before it along: batch statistics need two.
        """
        count, size = len(self.steps), self.method.surrogate.batch_size
        first = step % -(-count // size) * size
        return torch.arange(max(0, min(first, count - 2)), min(first + size, count), device=self.device)

    def chunks(self) -> range:
        """By their first image."""
        return range(0, len(self.steps), self.steps.images_at_once)

    def work(self) -> tuple[int, int]:
        """Every image takes all steps and is checked once."""
        return len(self.steps) * self.method.num_steps, len(self.steps)

    def improve(self, frozen: FrozenSurrogate, chunk: int) -> None:
        """All steps of some images, and whether the surrogate is right about the result.

        The answers are final: the noise of an image changes only here, and the surrogate not at all.
        """
        rows, count = self.steps.filled(chunk)
        clean, labels = self.steps.units(rows), self.steps.labels[rows]
        start = self.descent_start(frozen, rows, count)
        noise = self.steps.descend(frozen, clean, start, labels, self.method.num_steps)
        right, losses = frozen.judge(self.steps.inputs(clean + noise), labels)
        done = slice(chunk, chunk + count)
        self.noise[done] = noise[:count].to(self.noise.dtype)
        self.right[done], self.losses[done] = right[:count], losses[:count]

    def descent_start(self, frozen: FrozenSurrogate, rows: Tensor, count: int) -> Tensor:
        """The noise from which images take their steps, of which so many count: what they have."""
        del frozen, count
        return self.noise_of(rows)

    def judged(self, frozen: FrozenSurrogate) -> tuple[Tensor, Tensor]:
        """Found while improving."""
        return self.right, self.losses

    def noise_of(self, rows: Tensor) -> Tensor:
        """The images' own."""
        return self.noise[rows].float()

    def levels(self) -> np.ndarray:
        """The noise as whole grey levels, int8 or int16 [N, H, W, C]."""
        return self.steps.levels(self.noise, self.method.quantize, self.method.apply)


class ClassWise(Rounds):
    """One noise per class: the mean of what its images would step to. Real numbers, in units."""

    method: Any
    usual_rounds = 20
    """What ``em-c-cifar10-small`` takes."""

    def __init__(self, method: Any, train: Split, context: Context, *, images_at_once: int | None = None) -> None:
        super().__init__(method, train, context, images_at_once=images_at_once)
        self._keys = train.keys
        self._subset = train.stratified_rows(method.subset, context.seed, method.identifier, "subset")
        self._subset_keys = tuple(train.keys[row] for row in self._subset.tolist())

    def start(self) -> Tensor:
        """Zeros, or uniform between the bounds where the recipe asks for a random start."""
        noise = torch.zeros(self.context.num_classes, *self.steps.images.shape[1:])
        if self.method.random_start:
            noise.uniform_(-self.grid.bound, self.grid.bound, generator=self._drawn("start"))
        return noise.to(self.device)

    def model_rows(self, step: int) -> Tensor:
        """Shuffled batches of all images; a smaller last one is dropped."""
        size, per_pass = self._batches(len(self._keys))
        number, batch = divmod(step, per_pass)
        return self.shuffled(self._keys, "model order", number)[batch * size : (batch + 1) * size]

    def chunks(self) -> range:
        """Batches of the subset by number, a smaller last one dropped."""
        return range(self._batches(len(self._subset))[1])

    def work(self) -> tuple[int, int]:
        """The subset takes all steps once and is checked once."""
        size, count = self._batches(len(self._subset))
        return size * count * self.method.num_steps, len(self._subset)

    def improve(self, frozen: FrozenSurrogate, chunk: int) -> None:
        """Steps of a batch of images from their classes' noise; each class moves to its images' mean."""
        size, _ = self._batches(len(self._subset))
        order = self.shuffled(self._subset_keys, "noise order", len(self.trace))
        rows = torch.from_numpy(self._subset).to(self.device)[order[chunk * size : (chunk + 1) * size]]
        labels = self.steps.labels[rows]
        sums = torch.zeros(self.noise.shape, dtype=torch.float64, device=self.device)
        for some in torch.split(rows, self.steps.images_at_once):
            own = self.steps.labels[some]
            moved = self.steps.descend(frozen, self.steps.units(some), self.noise_of(some), own, self.method.num_steps)
            sums.index_add_(0, own, moved.double())
        counts = torch.bincount(labels, minlength=self.context.num_classes)
        means = (sums / counts.clamp(min=1)[:, None, None, None]).float().clamp_(-self.grid.bound, self.grid.bound)
        self.noise = torch.where((counts > 0)[:, None, None, None], means, self.noise)

    def judged(self, frozen: FrozenSurrogate) -> tuple[Tensor, Tensor]:
        """On the subset, with the noise after the whole pass."""
        steps = self.steps
        parts = torch.split(torch.from_numpy(self._subset).to(self.device), steps.images_at_once)
        answers = [
            frozen.judge(steps.inputs(steps.units(rows) + self.noise_of(rows)), steps.labels[rows]) for rows in parts
        ]
        return torch.cat([right for right, _ in answers]), torch.cat([losses for _, losses in answers])

    def noise_of(self, rows: Tensor) -> Tensor:
        """Their classes'."""
        return self.noise[self.steps.labels[rows]]

    def levels(self) -> np.ndarray:
        """The noise as whole grey levels, int8 or int16 [K, H, W, C]."""
        exact = self.noise.cpu().numpy().astype(np.float64) / self.grid.per_level
        return quantize(exact, self.method.quantize, self.method.apply)

    def _batches(self, count: int) -> tuple[int, int]:
        """Size and number of the batches of a pass; fewer images than a batch make a single smaller one."""
        size = min(self.method.surrogate.batch_size, count)
        return size, count // size
