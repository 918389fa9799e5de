"""BAIT's rounds: a step ahead of the surrogate, a pass of the generator, a step of the surrogate.

See the method's module for what is optimised. Everything that a batch needs at random is seeded by its round and
number, so that work that was interrupted continues within a round. Class perturbations are kept as shares of the
bound, in [-1, 1].
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ule_datasets.base.checkpoint import State
from ule_datasets.base.errors import InputError
from ule_datasets.compute.devices import (
    cpu_threads,
    describe_device,
    deterministic_algorithms,
    median_seconds,
    pick_device,
    products_in,
    resident,
)
from ule_datasets.compute.precision import Precision
from ule_datasets.methods.engine.generators import SHRINKS, SMALLEST_IMAGE, build_bait_generator
from ule_datasets.methods.engine.records import (
    GPU_FLOPS,
    SECONDS_BETWEEN_CHECKPOINTS,
    continued,
    duration,
    environment,
)
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.methods.engine.surrogate import Surrogate
from ule_datasets.models.pretrained import build_pretrained
from ule_datasets.models.weights import obtain
from ule_datasets.victims.augmentation import Augmentation, to_float

if TYPE_CHECKING:
    from ule_datasets.data.split import Split
    from ule_datasets.methods.bait import Bait
    from ule_datasets.methods.method import Context

IMAGES_AT_ONCE = 512
"""Images that the finished generator takes together."""
IMAGES_TIMED = {"cpu": 32, "cuda": 512}
"""Of a generator step, for the estimate; a GPU is slow with few."""
GENERATOR, AVERAGE, SQUARE = "generator.", "average.", "square."


class Stage(StrEnum):
    """Which wrong class an image is to be taken for."""

    HARDEST = "hardest"
    """The one, besides its own, that the surrogate takes the clean image for."""
    RANDOM = "random"
    """Any but its own."""
    DISSIMILAR = "dissimilar"
    """The one that the surrogate finds least likely, its own included unless that is excluded."""


class Rounds:
    """The whole work, with its state."""

    def __init__(self, method: Bait, train: Split, context: Context) -> None:
        _check(train, context.num_classes)
        self.method, self.context = method, context
        self.device = pick_device(context.device)
        self.images, self.labels = resident(train.pixels(), self.device), resident(train.labels, self.device)
        self.members = torch.bincount(self.labels, minlength=context.num_classes)
        self._keys = train.keys
        self._order: tuple[tuple[str, int], Tensor] = (("", 0), torch.empty(0))
        self._augmentation = Augmentation(crop_padding=method.crop_padding, flip=method.flip)
        file = obtain(method.prior, context.weights, context.reporter)
        self.weights = file.provenance(method.prior)
        seed = context.seed.integer32(method.identifier, "head")
        model = build_pretrained(method.prior, file.path, context.num_classes, seed=seed, normalise=method.normalise)
        settings = SurrogateSettings(
            model=method.prior.architecture,
            learning_rate=method.surrogate_rate,
            momentum=method.momentum,
            weight_decay=method.weight_decay,
            gradient_clip=method.gradient_clip,
            batch_size=method.batch_size,
        )
        self.surrogate = Surrogate(model, settings, device=self.device)
        self.generator = TrainedGenerator(method, context, self.device)
        shape = (context.num_classes, *self.images.shape[1:])
        self.carried = torch.zeros(shape, device=self.device).permute(0, 3, 1, 2)
        """What the surrogate's next step sees: [K, C, H, W], channels-last."""
        self.shown = self.carried.clone()
        """The same before this round, which the step ahead sees."""
        self.sums = torch.zeros(shape, dtype=torch.float64, device=self.device)
        """After the last round: what the generator makes of the images of each class, summed up."""
        self.totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        """Over this round: the generator's summed loss, and how many images are classified as their wrong class."""
        self.position = 0
        """Batches of this round, or images summed up after the last one."""
        self.trace: list[dict[str, Any]] = []
        self.environments = [environment(self.device)]
        self._saved_at = time.monotonic()

    # --- rounds ---

    def run(self, *, all_images: bool) -> dict[str, Any]:
        """Work through all rounds.

        Args:
            all_images: whether to look, afterwards, at what the generator makes of all images (``generator_means``).

        Returns:
            What happened, as JSON values.

        Raises:
            InputError: a loss is not finite.
        """
        with self._repeatable():
            self._resume(all_images)
            if self._left():
                self._announce()
            while self._left():
                self._round()
            if all_images:
                self._sum_up()
        return {
            "rounds": len(self.trace), "trace": self.trace, "environments": self.environments, "weights": self.weights,
        }  # fmt: skip

    def last_means(self) -> np.ndarray:
        """The class perturbations after the last round, as shares of the bound, float64 [K, H, W, C]."""
        means: np.ndarray = self.carried.permute(0, 2, 3, 1).double().cpu().numpy()
        return means

    def generator_means(self) -> np.ndarray:
        """Means of the generator's output in evaluation mode over all images of each class, none of them augmented.

        Returns:
            Shares of the bound, float64 [K, H, W, C]; zeros for a class without images.
        """
        assert self.position == len(self.images)
        means: np.ndarray = (self.sums / self.members.clamp(min=1)[:, None, None, None]).cpu().numpy()
        return means

    def ahead(self, number: int) -> nn.Module:
        """The surrogate as it will be after a step on the perturbations as they are, frozen.

        In training mode, so that it normalises by the statistics of each batch.
        """
        inputs, labels = self.surrogate_batch(number)
        self._reseed("ahead", number)
        return self.surrogate.ahead(inputs + self.bound * self.shown[labels], labels)

    def generator_pass(self, ahead: nn.Module, number: int) -> None:
        """Train the generator on the batches of a round that are left, and renew the class perturbations."""
        _, count = self.batches()
        label = f"round {number + 1}, {self.stage(number)}"
        for batch in self._tracked(range(self.position, count), label, "step"):
            self._reseed("generator", number, batch)
            inputs, labels = self.generator_batch(number, batch)
            targets = self.targets(ahead, inputs, labels, number, batch)
            self.totals += self.generator.step(ahead, inputs, labels, targets)
            if self.method.refresh is None or batch >= count - self.method.refresh:
                self.carried = self.generator.renewed(self.carried, inputs, labels)
            self.position = batch + 1
            if time.monotonic() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                self._save()

    def surrogate_step(self, number: int) -> tuple[float, float]:
        """Train the surrogate on the round's batch with the new perturbations; loss and share right before that."""
        inputs, labels = self.surrogate_batch(number)
        self._reseed("surrogate", number)
        totals = self.surrogate.step(inputs + self.bound * self.carried[labels], labels)
        loss, right = (totals / len(labels)).tolist()
        return loss, right

    def _round(self) -> None:
        number = len(self.trace)
        self.generator_pass(self.ahead(number), number)
        size, count = self.batches()
        generator_loss, success = (self.totals / (size * count)).tolist()
        self._check_finite(generator_loss, "generator", "generator_rate or surrogate_rate")
        loss, accuracy = self.surrogate_step(number)
        self._check_finite(loss, "surrogate", "surrogate_rate or gradient_clip")
        self.shown, self.position = self.carried.clone(), 0
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
        self._save()
        self.context.reporter.say(
            f"round {line['round']} of {sum(self.method.stages)} ({line['stage']}): generator loss "
            f"{generator_loss:.3f}, {line['success']:.2f} % classified as their wrong class; surrogate "
            f"{line['surrogate_accuracy']:.2f} % right on a perturbed batch, loss {loss:.3f}; "
            f"noise {line['mean_abs']:.2f}/255 on average"
        )

    def _sum_up(self) -> None:
        """Add up the generator's output over the images that are left."""
        count = len(self.images)
        for start in self._tracked(range(self.position, count, IMAGES_AT_ONCE), "noise of all images", "chunk"):
            rows = slice(start, start + IMAGES_AT_ONCE)
            self.sums += self.generator.sums(to_float(self.images[rows]), self.labels[rows])
            self.position = min(start + IMAGES_AT_ONCE, count)
            if self.position == count or time.monotonic() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                self._save()

    def _left(self) -> int:
        """Rounds that are still to do."""
        return sum(self.method.stages) - len(self.trace)

    def _check_finite(self, loss: float, whose: str, remedy: str) -> None:
        if not math.isfinite(loss):
            raise InputError(
                f"{self.method.title}: the {whose}'s loss is not finite in round {len(self.trace) + 1}; "
                f"a smaller {remedy} helps"
            )

    # --- what a round and a batch see ---

    @property
    def bound(self) -> float:
        """The bound on images in [0, 1]."""
        return self.method.epsilon / 255

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

    @torch.no_grad()
    def targets(self, ahead: nn.Module, inputs: Tensor, labels: Tensor, number: int, batch: int) -> Tensor:
        """The wrong class of each image of a batch by the stage of the round, int64 [B]."""
        match self.stage(number):
            case Stage.HARDEST:
                return hardest(ahead(inputs), labels)
            case Stage.RANDOM:
                return random_wrong(labels, self.context.num_classes, self._drawn("targets", number, batch))
            case Stage.DISSIMILAR:
                return most_dissimilar(ahead(inputs), labels, exclude_true=self.method.exclude_true)

    def _rows(self, purpose: str, number: int, batch: int) -> Tensor:
        """A batch of a pass over the shuffled images, int64 [B]."""
        if self._order[0] != (purpose, number):
            order = self.context.seed.order(self._keys, self.method.identifier, purpose, number)
            self._order = ((purpose, number), torch.from_numpy(order).to(self.device))
        size, _ = self.batches()
        return self._order[1][batch * size : (batch + 1) * size]

    def _augmented(self, rows: Tensor, *purpose: str | int) -> Tensor:
        return self._augmentation.apply(self.images[rows], self._drawn(*purpose))

    def _drawn(self, *purpose: str | int) -> torch.Generator:
        """A generator on the CPU for one purpose."""
        return torch.Generator().manual_seed(self.context.seed.integer32(self.method.identifier, *purpose))

    def _reseed(self, *purpose: str | int) -> None:
        """For priors with dropout, which draws from torch's own generator: see ``_repeatable``."""
        torch.manual_seed(self.context.seed.integer32(self.method.identifier, "dropout", *purpose))

    @contextmanager
    def _repeatable(self) -> Iterator[None]:
        """Kernels that repeat, exact float32 products, one thread on a CPU, a random state of our own."""
        devices = [self.device] if self.device.type == "cuda" else []
        threads = cpu_threads(1) if self.device.type == "cpu" else nullcontext()
        with (
            deterministic_algorithms(), products_in(Precision.FLOAT32), threads,
            torch.random.fork_rng(devices=devices),
        ):  # fmt: skip
            yield

    # --- checkpoints, progress, the estimate ---

    def _tensors(self) -> dict[str, Tensor]:
        """What changes besides the two networks."""
        return {"carried": self.carried, "shown": self.shown, "sums": self.sums, "totals": self.totals}

    def _save(self) -> None:
        facts = {
            "position": self.position, "steps": self.generator.steps, "trace": self.trace,
            "environments": self.environments,
        }  # fmt: skip
        arrays = {name: tensor.cpu().numpy() for name, tensor in self._tensors().items()}
        arrays.update(self.surrogate.arrays() | self.generator.arrays())
        self.context.checkpoint.save(State(arrays=arrays, facts=facts))
        self._saved_at = time.monotonic()

    def _resume(self, all_images: bool) -> None:
        state = self.context.checkpoint.load()
        if state is None:
            return
        for name, tensor in self._tensors().items():
            tensor.copy_(torch.from_numpy(state.arrays[name]))
        self.surrogate.restore(state.arrays)
        self.generator.restore(state.arrays, state.facts["steps"])
        self.position, self.trace = state.facts["position"], state.facts["trace"]
        before, (now,) = state.facts["environments"], self.environments
        self.environments = before
        if not self._left() and not (all_images and self.position < len(self.images)):
            return
        self.environments = continued(before, now, self.context.reporter)
        where = f"in round {len(self.trace) + 1}" if self._left() else "with the noise of all images"
        self.context.reporter.say(f"continuing {where}")

    def _tracked(self, numbers: range, label: str, unit: str) -> Iterator[int]:
        return self.context.reporter.track(numbers, total=len(numbers), label=label, unit=unit)

    def _announce(self) -> None:
        """Say where the work will be done and how long what is left may take, from a short timing."""
        seconds, flops = self._seconds_per_round()
        text = (
            f"{self.method.title} on {describe_device(self.device)}: about {duration(seconds)} a round, "
            f"{duration(seconds * self._left())} for {self._left()} rounds"
        )
        if self.device.type == "cpu":
            text += "; one thread does it, so that the result is the same for any number of cores"
            if seconds * self._left() > 600:
                gpu = duration(self._left() * flops / GPU_FLOPS)
                text += f"; on a GPU that sustains {GPU_FLOPS / 1e12:.0f} TFLOP/s {gpu}"
        self.context.reporter.say(text)

    def _seconds_per_round(self) -> tuple[float, float]:
        """Estimated seconds of a round, and its FLOP."""
        size, count = self.batches()
        renewals = min(count, self.method.refresh or count)
        number = len(self.trace)
        trial, model = self.generator.copy(), self.ahead(number)
        inputs, labels = self.generator_batch(number, 0)
        inputs, labels = inputs[: IMAGES_TIMED[self.device.type]], labels[: IMAGES_TIMED[self.device.type]]

        def step(_: int) -> Tensor:
            return trial.step(model, inputs, labels, self.targets(model, inputs, labels, number, 0))

        steps = median_seconds(step, 2, self.device)
        renewing = median_seconds(lambda _: trial.renewed(self.carried, inputs, labels), 2, self.device)
        counter = FlopCounterMode(display=False)
        with counter:
            step(0)
        flops = counter.get_total_flops() * count
        with counter:
            trial.renewed(self.carried, inputs, labels)
        flops += counter.get_total_flops() * renewals
        share = size / len(inputs)
        return (steps * count + renewing * renewals) * share, flops * share


class TrainedGenerator:
    """The generator with its optimiser; in training mode but for ``sums``."""

    def __init__(self, method: Bait, context: Context, device: torch.device) -> None:
        self._bound, self._num_classes = method.epsilon / 255, context.num_classes
        seed = context.seed.integer32(method.identifier, "generator")
        self._network = build_bait_generator(method.generator_width, method.generator_blocks, seed=seed).to(device)
        self._network.to(memory_format=torch.channels_last)
        self._optimiser = torch.optim.Adam(self._network.parameters(), lr=method.generator_rate, fused=True)
        self.steps = 0

    def step(self, ahead: nn.Module, inputs: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """One step of Adam on the cross entropy of the images, with their targets' perturbations, to their targets.

        Args:
            ahead: the frozen surrogate.
            inputs: float32 [B, 3, H, W] in [0, 1].
            labels: int64 [B].
            targets: int64 [B].

        Returns:
            Summed loss and number of images classified as their target before the step, float64 [2] on the device.
        """
        means, _ = class_means(self._network(inputs), labels, self._num_classes)
        logits = ahead((inputs + self._bound * given_to(means, targets)).clamp(0, 1))
        loss = functional.cross_entropy(logits, targets)
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        self._optimiser.step()
        self.steps += 1
        reached = (logits.detach().argmax(dim=1) == targets).sum()
        return torch.stack([loss.detach().double() * len(targets), reached.double()])

    @torch.no_grad()
    def renewed(self, carried: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        """Class perturbations with those of the classes in a batch replaced; updates the running statistics.

        Args:
            carried: shares of the bound, float32 [K, C, H, W].
            inputs: float32 [B, C, H, W] in [0, 1].
            labels: int64 [B].

        Returns:
            The shape of ``carried``.
        """
        means, present = class_means(self._network(inputs), labels, self._num_classes)
        return torch.where(present[:, None, None, None], means.clamp(-1, 1), carried)

    @torch.no_grad()
    def sums(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Outputs in evaluation mode, summed up over each class.

        Args:
            inputs: float32 [B, C, H, W] in [0, 1].
            labels: int64 [B].

        Returns:
            Float64 [K, H, W, C].
        """
        self._network.eval()
        outputs = self._network(inputs).permute(0, 2, 3, 1).double()
        self._network.train()
        summed: Tensor = membership(labels, self._num_classes).double().T @ outputs.flatten(1)
        return summed.view(self._num_classes, *outputs.shape[1:])

    def copy(self) -> TrainedGenerator:
        """An independent one in the same state, to try something on."""
        return copy.deepcopy(self)

    def arrays(self) -> dict[str, np.ndarray]:
        """Parameters, statistics and Adam's two averages, by name."""
        arrays = {f"{GENERATOR}{name}": _numpy(tensor) for name, tensor in self._network.state_dict().items()}
        for name, parameter in self._network.named_parameters():
            state = self._optimiser.state.get(parameter)
            if state:
                arrays[f"{AVERAGE}{name}"] = _numpy(state["exp_avg"])
                arrays[f"{SQUARE}{name}"] = _numpy(state["exp_avg_sq"])
        return arrays

    def restore(self, arrays: Mapping[str, np.ndarray], steps: int) -> None:
        """Take over a state that ``arrays`` returned, with its number of ``steps``; other names are ignored."""
        self._network.load_state_dict(
            {n.removeprefix(GENERATOR): torch.from_numpy(a) for n, a in arrays.items() if n.startswith(GENERATOR)}
        )
        self._optimiser.state.clear()
        self.steps = steps
        if steps == 0:
            return
        for name, parameter in self._network.named_parameters():
            self._optimiser.state[parameter] = {
                "step": torch.tensor(float(steps), device=parameter.device),
                "exp_avg": torch.empty_like(parameter).copy_(torch.from_numpy(arrays[f"{AVERAGE}{name}"])),
                "exp_avg_sq": torch.empty_like(parameter).copy_(torch.from_numpy(arrays[f"{SQUARE}{name}"])),
            }


def membership(labels: Tensor, num_classes: int) -> Tensor:
    """Which image is of which class, bool [B, K]; of labels int64 [B]."""
    return labels[:, None] == torch.arange(num_classes, device=labels.device)


def class_means(outputs: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Means over the images of each class, through which gradients flow.

    A matrix product, whose sums repeat on CPU and CUDA, where scattered additions would not.

    Args:
        outputs: float [B, C, H, W].
        labels: int64 [B].
        num_classes: K.

    Returns:
        The means, float [K, C, H, W], channels-last in memory, zeros for a class without images; and which classes
        have some, bool [K].
    """
    members = membership(labels, num_classes).to(outputs.dtype)
    counts = members.sum(dim=0)
    rows = outputs.permute(0, 2, 3, 1)
    means = members.T @ rows.flatten(1) / counts.clamp(min=1)[:, None]
    return means.view(num_classes, *rows.shape[1:]).permute(0, 3, 1, 2), counts > 0


def given_to(means: Tensor, targets: Tensor) -> Tensor:
    """The perturbation of each image's target, ``means[targets]``; its gradient repeats on CPU and CUDA.

    Args:
        means: float [K, C, H, W].
        targets: int64 [B].

    Returns:
        Float [B, C, H, W], channels-last in memory.
    """
    members = membership(targets, len(means)).to(means.dtype)
    rows = means.permute(0, 2, 3, 1)
    return (members @ rows.flatten(1)).view(len(targets), *rows.shape[1:]).permute(0, 3, 1, 2)


def hardest(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest logit but that of the label: float [B, K] and int64 [B] to int64 [B]."""
    return logits.masked_fill(membership(labels, logits.shape[1]), -math.inf).argmax(dim=1)


def random_wrong(labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    """A class other than the label, each with the same probability, from a generator on the CPU: int64 [B]."""
    drawn = torch.randint(0, num_classes - 1, labels.shape, generator=generator).to(labels.device)
    return drawn + (drawn >= labels)


def most_dissimilar(logits: Tensor, labels: Tensor, *, exclude_true: bool) -> Tensor:
    """The smallest logit, with or without that of the label: float [B, K] and int64 [B] to int64 [B]."""
    if exclude_true:
        logits = logits.masked_fill(membership(labels, logits.shape[1]), math.inf)
    return logits.argmin(dim=1)


def _check(train: Split, num_classes: int) -> None:
    height, width, channels = train.images.shape[1:]
    if channels != 3 or height % SHRINKS or width % SHRINKS or min(height, width) < SMALLEST_IMAGE:
        raise InputError(
            f"BAIT: images are {height} x {width} with {channels} channels; its generator takes RGB images whose "
            f"sides are multiples of {SHRINKS}, from {SMALLEST_IMAGE} on"
        )
    if num_classes < 2:
        raise InputError("BAIT: there is one class only; a wrong one takes at least 2")
    if len(train) < 2:
        raise InputError(f"BAIT: there is {len(train)} training image; batch statistics take at least 2")


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().contiguous().numpy()
    return array
