"""BAIT: class-wise noise that overrules what a pretrained model already knows.

Zhihao Li, Gezheng Xu, Jiale Cai, Ruiyi Fang, Di Wu, Qicheng Lao, Charles Ling, Boyu Wang, "When Priors Backfire: On
the Vulnerability of Unlearnable Examples to Pretraining", ICLR 2026, arXiv 2603.04731:

    min over delta of E of CE(f_theta'(x + delta_j), j), j not the class of x
    theta' = the pretrained model theta after a step on CE(f_theta(x + delta_y), y)

An image that carries the noise of a wrong class is to be taken for that class, even by a model that has just learned
to see through the noise. The noise of a class is the mean of what a generator makes of its images. Wrong classes
follow a curriculum of three stages: the *hardest*, the one that the model takes an image for if not for its own; a
*random* one; the *most dissimilar*, the one that the model finds least likely.

A round is one step of the surrogate and one pass of the generator over all images (the official code calls it an
epoch, and has 90). The step ahead treats the noise as a constant, as the official code does, so that the outer
gradient is of first order. Fields with the defaults of the official code for CIFAR-10; where the code has oddities of
its own, or paper and code differ, a field says so.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.base.progress import duration
from ule_datasets.base.shown import counted
from ule_datasets.compute.devices import median_seconds, resident
from ule_datasets.compute.parts import Part
from ule_datasets.compute.precision import Precision
from ule_datasets.data.perturbation import Additive, Support
from ule_datasets.data.quantization import Apply, Quantize, quantize
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.settings import SurrogateSettings, check_at_least
from ule_datasets.methods.engine.stepwise import Estimate, Phase, Stepwise
from ule_datasets.methods.engine.surrogate import Surrogate
from ule_datasets.methods.method import BoundedNoise, Context, Crafted
from ule_datasets.models.weights import WEIGHTS, Weights, obtain

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

    from ule_datasets.methods.engine import generators
    from ule_datasets.models import initialisation, pretrained
    from ule_datasets.victims import augmentation
else:
    torch, functional = lazy("torch"), lazy("torch.nn.functional")
    generators = lazy("ule_datasets.methods.engine.generators")
    initialisation, pretrained = lazy("ule_datasets.models.initialisation"), lazy("ule_datasets.models.pretrained")
    augmentation = lazy("ule_datasets.victims.augmentation")

IMAGES_AT_ONCE = 512
"""Images that the finished generator takes together."""
LEAST_SUCCESS = 1.0
"""Percent of the images: with fewer, a craft has reached nothing."""
IMAGES_TIMED = {"cpu": 32, "cuda": 512}
"""Of a generator step, for the estimate; a GPU is slow with few."""


class Released(StrEnum):
    """Which noise goes into the dataset."""

    GENERATOR = "generator"
    """The mean of the generator's output in evaluation mode over all images of a class, not augmented: what the
    official code poisons with."""
    LAST_BATCH = "last_batch"
    """The noise that the surrogate was trained with last, a mean over one batch: the file that the official code
    saves as the perturbation (its loader drops what darkens: see ``apply``)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bait(BoundedNoise):
    """Class-wise noise bound to incorrect targets, against a pretrained surrogate.

    On a CPU everything runs in one thread, whatever the number of cores: sums over a batch depend on how many
    threads share them, and nearly all the work is of that kind. At the published size that takes days; a narrower
    generator and fewer rounds make a small trial.
    """

    identifier: ClassVar[str] = "bait"
    title: ClassVar[str] = "Binding artificial perturbations to incorrect targets"
    citation: ClassVar[str] = "li2026priors"
    needs_labels: ClassVar[bool] = True

    prior: Weights = field(default_factory=lambda: WEIGHTS["resnet18@imagenet"])
    """The surrogate before the first round; its head is replaced by a new one, and all of it is trained."""
    epsilon: float = 8
    """Bound on every channel of every pixel, in units of 1/255."""
    stages: tuple[int, int, int] = (30, 30, 30)
    """Rounds with the hardest, a random and the most dissimilar wrong class. The official command's default, 60
    rounds, would leave out the third; its script asks for 90. SVHN in the paper: 20 each."""
    batch_size: int = 512
    """Images of a step of surrogate or generator. A smaller last batch of a pass is dropped; fewer images than this
    are one smaller batch."""
    surrogate_rate: float = 0.1
    """Learning rate of SGD on the surrogate, constant, in the step ahead too."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    gradient_clip: float = 5.0
    """Largest l2 norm of the surrogate's gradient in the step that ends a round; the step ahead is not clipped."""
    generator_rate: float = 1e-3
    """Learning rate of Adam on the generator."""
    generator_width: int = 16
    """Channels after the generator's first convolution; 32 times as many in its residual blocks. Work grows with its
    square."""
    generator_blocks: int = 8
    """Residual blocks of the generator."""
    exclude_true: bool = False
    """Never to choose an image's own class in the third stage; the official code may."""
    normalise: bool = False
    """Whether the surrogate applies the mean and deviation of the prior to its inputs. Not so in the official code
    for CIFAR-10 and SVHN; for CIFAR-100 it does in training, but not when it poisons."""
    released: Released = Released.GENERATOR
    refresh: int | None = None
    """In how many batches of a pass, its last ones, the generator is evaluated again after its step. What the
    surrogate is trained with comes from the last batch that a class occurs in. ``None``: all, as in the official
    code; 1 saves about a quarter of the work, and changes a little the generator's running statistics."""
    crop_padding: int = 4
    """Zeros around an image before a random window is cut out, for surrogate and generator (CIFAR-10)."""
    flip: bool = True
    """Mirror half of the images, for surrogate and generator (CIFAR-10; not where left and right matter)."""
    apply: Apply = Apply.SIGNED
    """What the dataset uses of the noise; it is computed with both signs in any case."""
    quantize: Quantize = Quantize.TRUNC

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= 255:
            raise InputError(f"Bait: epsilon is {self.epsilon}, not in (0, 255] (units of 1/255)")
        if len(self.stages) != 3 or min(self.stages) < 0 or not any(self.stages):
            raise InputError(f"Bait: stages is {self.stages}; give three numbers of rounds, at least one above 0")
        check_at_least(2, self, "batch_size")
        check_at_least(1, self, "generator_width", "generator_blocks")
        names = ("surrogate_rate", "momentum", "weight_decay", "generator_rate", "crop_padding")
        check_at_least(0, self, *names)
        if not 0 < self.gradient_clip < math.inf:
            raise InputError(f"Bait: gradient_clip is {self.gradient_clip}, must be above 0")
        if self.refresh is not None and self.refresh < 1:
            raise InputError(f"Bait: refresh is {self.refresh}, must be at least 1, or None for all batches")

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The prior."""
        return (self.prior,)

    def shortfall(self, notes: Mapping[str, Any]) -> str:
        """Hardly an image is taken for the wrong class in the end."""
        trace = notes.get("trace") or [{"success": 0.0}]
        if trace[-1]["success"] >= LEAST_SUCCESS:
            return ""
        return (
            f"{trace[-1]['success']:.1f} % of the images are classified as their wrong class in the last round; more "
            "rounds (stages) help"
        )

    def generate(self, train: Split, context: Context) -> Crafted:
        """Work through the stages on ``context.device``; an additive layer with an entry per class.

        A class without images gets zeros.

        Raises:
            InputError: the images do not suit the generator, there are fewer than two classes or images, the prior
                cannot be had or is something else, or a loss is not finite.
        """
        rounds = Rounds(self, train, context)
        notes = rounds.run()
        levels = quantize(rounds.means(self.released) * self.epsilon, self.quantize, self.apply)
        return Crafted(layers=(Additive(levels=levels, support=Support.CLASS),), notes=notes)


class Stage(StrEnum):
    """Which wrong class an image is to be taken for."""

    HARDEST = "hardest"
    """The one, besides its own, that the surrogate takes the clean image for."""
    RANDOM = "random"
    """Any but its own."""
    DISSIMILAR = "dissimilar"
    """The one that the surrogate finds least likely, its own included unless that is excluded."""


class Rounds(Stepwise):
    """The whole work: rounds of a step ahead of the surrogate, a pass of the generator, a step of the surrogate.

    Everything that a batch needs at random is seeded by its round and number. Class perturbations are kept as shares
    of the bound, in [-1, 1].
    """

    method: Bait

    def __init__(self, method: Bait, train: Split, context: Context) -> None:
        _check(train, context.num_classes)
        super().__init__(method, context, Precision.FLOAT32)
        self.images, self.labels = resident(train.pixels(), self.device), resident(train.labels, self.device)
        self.members = torch.bincount(self.labels, minlength=context.num_classes)
        self._keys, self.bound = train.keys, method.epsilon / 255
        self._augmentation = augmentation.Augmentation(crop_padding=method.crop_padding, flip=method.flip)
        file = obtain(method.prior, context.weights, context.reporter)
        self.weights = file.provenance(method.prior)
        model = pretrained.build_pretrained(
            method.prior, file.path, context.num_classes, seed=self._number("head"), normalise=method.normalise
        )
        settings = SurrogateSettings(
            learning_rate=method.surrogate_rate,
            momentum=method.momentum,
            weight_decay=method.weight_decay,
            gradient_clip=method.gradient_clip,
        )
        self.surrogate = Surrogate(model, settings, device=self.device)
        self.generator = TrainedGenerator(method, context.num_classes, self.device, seed=self._number("generator"))
        shape = (context.num_classes, *self.images.shape[1:])
        self.carried = torch.zeros(shape, device=self.device).permute(0, 3, 1, 2)
        """What the surrogate's next step sees: [K, C, H, W], channels-last."""
        self.shown = self.carried.clone()
        """What the step ahead sees: the perturbations before this round, [K, C, H, W]."""
        self.sums = torch.zeros(shape, dtype=torch.float64, device=self.device)
        """After the last round: what the generator makes of the images of each class, summed up."""
        self.totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        """Over this round: the generator's summed loss, and how many images are classified as their wrong class."""

    # --- rounds ---

    def parts(self) -> dict[str, Part]:
        """Perturbations and sums, and the two networks with their optimisers."""
        tensors = {"carried": self.carried, "shown": self.shown, "sums": self.sums, "totals": self.totals}
        return {**tensors, **self.surrogate.parts(), **self.generator.parts()}

    def following(self) -> Phase | None:
        """A round; after the last one, where the recipe asks for it, the generator's output for all images."""
        number, (_, count) = len(self.trace), self.batches()
        if self._left():
            label, step = f"round {number + 1}, {self.stage(number)}", partial(self.step, self.ahead(number), number)
            end = partial(self._end_round, number)
            return Phase(label=label, unit="step", steps=range(count), step=step, end=end)
        if self.method.released is Released.GENERATOR and self.done == number:
            steps = range(0, len(self.images), IMAGES_AT_ONCE)
            return Phase(label="noise of all images", unit="chunk", steps=steps, step=self._sum_up, end=str)
        return None

    def standing(self) -> str:
        """The round, or what follows the last one."""
        return super().standing() if self._left() else " with the noise of all images"

    def notes(self) -> dict[str, Any]:
        """Also the prior's file."""
        return {**super().notes(), "weights": self.weights}

    def means(self, released: Released) -> np.ndarray:
        """A noise of each class as shares of the bound, float64 [K, H, W, C]; zeros for a class without images."""
        last = self.carried.permute(0, 2, 3, 1).double()
        every = self.sums / self.members.clamp(min=1)[:, None, None, None]
        return (every if released is Released.GENERATOR else last).cpu().numpy()

    def ahead(self, number: int) -> nn.Module:
        """The surrogate after a step on the perturbations as they are, frozen; it normalises by the batch it sees."""
        inputs, labels = self.surrogate_batch(number)
        self._reseed("ahead", number)
        return self.surrogate.ahead(inputs + self.bound * self.shown[labels], labels)

    def step(self, ahead: nn.Module, number: int, batch: int) -> None:
        """Train the generator on a batch of a round, and renew the class perturbations."""
        self._reseed("generator", number, batch)
        inputs, labels = self.generator_batch(number, batch)
        targets = self.targets(ahead, inputs, labels, number, batch)
        self.totals += self.generator.step(ahead, inputs, labels, targets)
        if self.method.refresh is None or batch >= self.batches()[1] - self.method.refresh:
            self.carried = self.generator.renewed(self.carried, inputs, labels)

    def surrogate_step(self, number: int) -> tuple[float, float]:
        """Train the surrogate on the round's batch with the new perturbations; loss and share right before that."""
        inputs, labels = self.surrogate_batch(number)
        self._reseed("surrogate", number)
        totals = self.surrogate.step(inputs + self.bound * self.carried[labels], labels)
        loss, right = (totals / len(labels)).tolist()
        return loss, right

    def _end_round(self, number: int) -> str:
        size, count = self.batches()
        generator_loss, success = (self.totals / (size * count)).tolist()
        self.check_finite(generator_loss, "generator", "generator_rate or surrogate_rate")
        loss, accuracy = self.surrogate_step(number)
        self.check_finite(loss, "surrogate", "surrogate_rate or gradient_clip")
        self.shown = self.carried.clone()
        self.totals.zero_()
        line = {
            "round": number + 1,
            "stage": str(self.stage(number)),
            "generator_loss": round(generator_loss, 6),
            "success": round(100 * success, 4),
            "surrogate_loss": round(loss, 6),
            "surrogate_accuracy": round(100 * accuracy, 4),
            "mean_abs": round(self.method.epsilon * float(self.carried[self.members > 0].abs().double().mean()), 4),
        }
        self.trace.append(line)
        return (
            f"round {line['round']} of {sum(self.method.stages)} ({line['stage']}): generator loss "
            f"{generator_loss:.3f}, {line['success']:.2f} % classified as their wrong class; surrogate "
            f"{line['surrogate_accuracy']:.2f} % right on a perturbed batch, loss {loss:.3f}; "
            f"noise {line['mean_abs']:.2f}/255 on average"
        )

    def _sum_up(self, start: int) -> None:
        """Add up the generator's output over some images."""
        rows = slice(start, start + IMAGES_AT_ONCE)
        self.sums += self.generator.sums(augmentation.to_float(self.images[rows]), self.labels[rows])

    def _left(self) -> int:
        """Rounds that are still to do."""
        return sum(self.method.stages) - len(self.trace)

    # --- what a round and a batch see ---

    def stage(self, number: int) -> Stage:
        """Of a round, counted from 0."""
        first, second, _ = self.method.stages
        if number < first:
            return Stage.HARDEST
        return Stage.RANDOM if number < first + second else Stage.DISSIMILAR

    def batches(self) -> tuple[int, int]:
        """Size and number of the batches of a pass."""
        size = min(self.method.batch_size, len(self.images))
        return size, len(self.images) // size

    def surrogate_batch(self, number: int) -> tuple[Tensor, Tensor]:
        """What the surrogate's steps of a round see: a batch a round, pass after pass; images and labels."""
        _, count = self.batches()
        rows = self._rows("surrogate order", number // count, number % count)
        return self._augmented(rows, "surrogate augmentation", number), self.labels[rows]

    def generator_batch(self, number: int, batch: int) -> tuple[Tensor, Tensor]:
        """What the generator sees: a pass a round, each in an order of its own; images and labels."""
        rows = self._rows("generator order", number, batch)
        return self._augmented(rows, "generator augmentation", number, batch), self.labels[rows]

    def targets(self, ahead: nn.Module, inputs: Tensor, labels: Tensor, number: int, batch: int) -> Tensor:
        """The wrong class of each image of a batch by the stage of the round, int64 [B]."""
        stage = self.stage(number)
        if stage is Stage.RANDOM:
            return random_wrong(labels, self.context.num_classes, self._drawn("targets", number, batch))
        with torch.no_grad():
            logits = ahead(inputs)
        if stage is Stage.HARDEST:
            return hardest(logits, labels)
        return most_dissimilar(logits, labels, exclude_true=self.method.exclude_true)

    def _rows(self, purpose: str, number: int, batch: int) -> Tensor:
        """A batch of a pass over the shuffled images, int64 [B]."""
        size, _ = self.batches()
        return self.shuffled(self._keys, purpose, number)[batch * size : (batch + 1) * size]

    def _augmented(self, rows: Tensor, *purpose: str | int) -> Tensor:
        return self._augmentation.apply(self.images[rows], self._drawn(*purpose))

    def _reseed(self, *purpose: str | int) -> None:
        """For priors with dropout, which draws from torch's own generator."""
        torch.manual_seed(self._number("dropout", *purpose))

    # --- the estimate ---

    def estimate(self) -> Estimate | None:
        """From a short timing of the generator's steps."""
        if not (left := self._left()):
            return None
        seconds, flop = self._seconds_per_round()
        text = f"about {duration(seconds)} a round, {duration(seconds * left)} for {counted(left, 'round')}"
        if self.device.type == "cpu":
            text += "; one thread does it, so that the result is the same for any number of cores"
        return Estimate(text=text, seconds=seconds * left, flop=flop * left, rounds=left)

    def _seconds_per_round(self) -> tuple[float, float]:
        """Estimated seconds of a round, and its FLOP."""
        from torch.utils.flop_counter import FlopCounterMode

        size, count = self.batches()
        renewals = min(count, self.method.refresh or count)
        number = len(self.trace)
        trial, model = copy.deepcopy(self.generator), self.ahead(number)
        inputs, labels = (part[: IMAGES_TIMED[self.device.type]] for part in self.generator_batch(number, 0))

        def step(_: int) -> Tensor:
            return trial.step(model, inputs, labels, self.targets(model, inputs, labels, number, 0))

        steps = median_seconds(step, 2, self.device)
        renewing = median_seconds(lambda _: trial.renewed(self.carried, inputs, labels), 2, self.device)
        with FlopCounterMode(display=False) as stepped:
            step(0)
        with FlopCounterMode(display=False) as renewed:
            trial.renewed(self.carried, inputs, labels)
        flop = stepped.get_total_flops() * count + renewed.get_total_flops() * renewals
        share = size / len(inputs)
        return (steps * count + renewing * renewals) * share, flop * share


class TrainedGenerator:
    """The generator with its optimiser; in training mode but for ``sums``."""

    def __init__(self, method: Bait, num_classes: int, device: torch.device, *, seed: int) -> None:
        self._bound, self._num_classes = method.epsilon / 255, num_classes
        factory = partial(generators.BaitGenerator, method.generator_width, method.generator_blocks)
        network = initialisation.initialised(factory, seed=seed)
        self._network = network.to(device).to(memory_format=torch.channels_last)
        self._optimiser = torch.optim.Adam(self._network.parameters(), lr=method.generator_rate, fused=True)

    def step(self, ahead: nn.Module, inputs: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """One step of Adam on the cross entropy of images, with their targets' perturbations, to their targets.

        Returns:
            Summed loss and number of images classified as their target before the step, float64 [2] on the device.
        """
        means, _ = generators.class_means(self._network(inputs), labels, self._num_classes)
        logits = ahead((inputs + self._bound * generators.given_to(means, targets)).clamp(0, 1))
        loss = functional.cross_entropy(logits, targets)
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        self._optimiser.step()
        reached = (logits.detach().argmax(dim=1) == targets).sum()
        return torch.stack([loss.detach().double() * len(targets), reached.double()])

    def renewed(self, carried: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        """Class perturbations, [K, C, H, W], with those of a batch's classes replaced; updates running statistics."""
        with torch.no_grad():
            means, present = generators.class_means(self._network(inputs), labels, self._num_classes)
        return torch.where(present[:, None, None, None], means.clamp(-1, 1), carried)

    def sums(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Outputs in evaluation mode, summed up over each class: float64 [K, H, W, C]."""
        self._network.eval()
        with torch.no_grad():
            outputs = self._network(inputs).permute(0, 2, 3, 1).double()
        self._network.train()
        summed: Tensor = generators.membership(labels, self._num_classes).double().T @ outputs.flatten(1)
        return summed.view(self._num_classes, *outputs.shape[1:])

    def parts(self) -> dict[str, Part]:
        """What changes, by name: see ``Stepwise.parts``."""
        return {"generator": self._network, "generator_optimiser": self._optimiser}


def hardest(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest logit but that of the label: float [B, K] and int64 [B] to int64 [B]."""
    return logits.masked_fill(generators.membership(labels, logits.shape[1]), -math.inf).argmax(dim=1)


def random_wrong(labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    """A class other than the label, each with the same probability, from a generator on the CPU: int64 [B]."""
    drawn = torch.randint(0, num_classes - 1, labels.shape, generator=generator).to(labels.device)
    return drawn + (drawn >= labels)


def most_dissimilar(logits: Tensor, labels: Tensor, *, exclude_true: bool) -> Tensor:
    """The smallest logit, with or without that of the label: float [B, K] and int64 [B] to int64 [B]."""
    if exclude_true:
        logits = logits.masked_fill(generators.membership(labels, logits.shape[1]), math.inf)
    return logits.argmin(dim=1)


def _check(train: Split, num_classes: int) -> None:
    height, width, channels = train.images.shape[1:]
    shrinks, least = generators.SHRINKS, generators.SMALLEST_BAIT_IMAGE
    if channels != 3 or any(side % shrinks or side < least for side in (height, width)):
        raise InputError(
            f"BAIT: images are {height} x {width} with {channels} channels; its generator takes RGB images whose "
            f"sides are multiples of {shrinks}, from {least} on"
        )
    if num_classes < 2:
        raise InputError("BAIT: there is one class only; a wrong one takes at least 2")
    if len(train) < 2:
        raise InputError(f"BAIT: there is {len(train)} training image; batch statistics take at least 2")
