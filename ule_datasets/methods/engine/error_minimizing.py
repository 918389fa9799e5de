"""Error-minimising noise, both kinds: rounds of a model phase, a noise phase and a check (see the method's module).

Images and noise stay on the device. The noise lives on a grid of whole units (``Grid``), so that clipping and
projecting are exact; only the signs of gradients depend on the device.
"""

from __future__ import annotations

import math
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ule_datasets.base.checkpoint import State
from ule_datasets.base.errors import InputError
from ule_datasets.compute.devices import (
    describe_device,
    deterministic_algorithms,
    median_seconds,
    pick_device,
    products_in,
    resident,
)
from ule_datasets.data.quantization import quantize
from ule_datasets.methods.engine.records import (
    GPU_FLOPS,
    SECONDS_BETWEEN_CHECKPOINTS,
    continued,
    duration,
    environment,
)
from ule_datasets.methods.engine.settings import ErrorAverage, Grid
from ule_datasets.methods.engine.surrogate import FrozenSurrogate, Surrogate
from ule_datasets.models.architectures import build_model

if TYPE_CHECKING:
    from ule_datasets.data.split import Split
    from ule_datasets.methods.error_minimizing import ClasswiseErrorMinimizing, ErrorMinimizing
    from ule_datasets.methods.method import Context

IMAGES_AT_ONCE = {"cpu": 128, "cuda": 1024}
"""Images that are optimised together: what fits a CPU's caches; what fills a GPU. Not part of the method."""
IMAGES_TIMED = 32
"""Of a training step, for the estimate: it should not need more memory than the work itself."""
ROWS_AT_ONCE = 4096
"""Images whose noise is converted or summed up at a time."""


class _Rounds(ABC):
    """The alternation that both kinds share; subclasses say which images see which noise."""

    usual_rounds: ClassVar[int]
    """For the estimate only: nobody knows beforehand."""

    def __init__(
        self, method: ErrorMinimizing | ClasswiseErrorMinimizing, train: Split, context: Context,
        *, images_at_once: int | None = None,
    ) -> None:  # fmt: skip
        self.method, self.context = method, context
        self.device = pick_device(context.device)
        self.grid = Grid.of(method.epsilon, method.step_size)
        self.images_at_once = images_at_once or IMAGES_AT_ONCE[self.device.type]
        self.images, self.labels = resident(train.pixels(), self.device), resident(train.labels, self.device)
        seed = context.seed.integer32(method.identifier, "initialisation")
        model = build_model(method.surrogate.model, context.num_classes, seed=seed)
        self.surrogate = Surrogate(model, method.surrogate, device=self.device)
        self.noise = self.start()
        self.trace: list[dict[str, Any]] = []
        self.phase, self.position = "model", 0
        self.environments = [environment(self.device)]
        self.model_record = {"loss": math.nan, "accuracy": math.nan}
        self._saved_at = time.monotonic()

    # --- what a kind of noise says ---

    @abstractmethod
    def start(self) -> Tensor:
        """The noise before the first round, in units, on the device."""

    @abstractmethod
    def model_rows(self, step: int) -> Tensor:
        """The images of a model step, int64 [B]; steps count on from round to round."""

    @abstractmethod
    def parts(self, position: int) -> range:
        """Where the parts of the noise phase begin that are left from a position on."""

    @abstractmethod
    def improve(self, frozen: FrozenSurrogate, part: int) -> None:
        """Do the part of the noise phase that begins here."""

    @abstractmethod
    def judged(self, frozen: FrozenSurrogate) -> tuple[Tensor, Tensor]:
        """Of each image of the noise phase, with its new noise: is the surrogate right (bool), and its loss (float)."""

    @abstractmethod
    def noise_of(self, rows: Tensor) -> Tensor:
        """The noise of some images, float32 units [B, H, W, C]."""

    # --- the alternation ---

    def run(self) -> dict[str, Any]:
        """Alternate until the stop rule is met; what happened, as JSON values."""
        with deterministic_algorithms(), products_in(self.method.precision):
            self._resume()
            if not self._finished():
                self._announce()
            while not self._finished():
                if self.phase == "model":
                    self._model_phase()
                self._noise_phase()
        reached = self._reached()
        if not reached:
            self.context.reporter.warn(
                f"{self.method.title}: after {len(self.trace)} rounds the surrogate's accuracy is "
                f"{self.trace[-1]['accuracy']:.2f} %, the stop rule ({100 * self.method.stop_accuracy:g} %) is not met"
            )
        return {
            "rounds": len(self.trace), "stop_rule_met": reached, "trace": self.trace, "environments": self.environments,
        }  # fmt: skip

    def _finished(self) -> bool:
        return self.phase == "model" and (self._reached() or len(self.trace) >= self.method.max_rounds)

    def _reached(self) -> bool:
        if not self.trace:
            return False
        return self.method.stop_rule.reached(self.trace[-1]["accuracy"] / 100, self.method.stop_accuracy)

    def _model_phase(self) -> None:
        """Train the surrogate for a few steps on the images with the noise as it is."""
        first = len(self.trace) * self.method.steps_per_round
        totals, count = torch.zeros(2, dtype=torch.float64, device=self.device), 0
        for step in self._tracked(range(first, first + self.method.steps_per_round), "model phase", "step"):
            rows = self.model_rows(step)
            totals += self.surrogate.step(self._inputs(self._units(rows) + self.noise_of(rows)), self.labels[rows])
            count += len(rows)
        loss, correct = (totals / count).tolist()
        self._check_finite(loss)
        self.model_record = {"loss": loss, "accuracy": 100 * correct}
        self.phase, self.position = "noise", 0
        self._save()

    def _noise_phase(self) -> None:
        """Optimise the noise against the frozen surrogate, then check."""
        frozen = self.surrogate.frozen(self.method.precision)
        parts = self.parts(self.position)
        for part in self._tracked(parts, "noise phase", "chunk"):
            self.improve(frozen, part)
            self.position = part + parts.step
            if time.monotonic() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                self._save()
        right, losses = self.judged(frozen)
        self._check_finite(float(losses.double().sum()))
        self.trace.append(self._record(self._accuracy(right), float(losses.double().mean())))
        self.phase, self.position = "model", 0
        self._save()
        last = self.trace[-1]
        self.context.reporter.say(
            f"round {last['round']}: surrogate {last['accuracy']:.2f} % right on the perturbed images, "
            f"loss {last['loss']:.3f} ({last['model_loss']:.3f} while it was trained); "
            f"noise {last['mean_abs']:.2f}/255 on average, {last['at_bound']:.0f} % at the bound"
        )

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise InputError(
                f"{self.method.title}: the surrogate's loss is not finite in round {len(self.trace) + 1}; "
                "a smaller learning_rate or gradient_clip helps"
            )

    def _accuracy(self, right: Tensor) -> float:
        """Share of right answers (0 .. 1), averaged as the method says."""
        if self.method.error_average is ErrorAverage.IMAGES:
            return float(right.double().mean())
        return statistics.fmean(
            float(part.double().mean()) for part in torch.split(right, self.method.surrogate.batch_size)
        )

    def _record(self, accuracy: float, loss: float) -> dict[str, Any]:
        """A line of the trace; deterministic, so without times."""
        size, at_bound, length = 0.0, 0.0, 0.0
        for part in torch.split(self.noise, ROWS_AT_ONCE):
            flat = part.reshape(len(part), -1).double()
            size += float(flat.abs().sum())
            at_bound += float((flat.abs() >= self.grid.bound).sum())
            length += float(flat.square().sum(dim=1).sqrt().sum())
        per_level, count = self.grid.per_level, self.noise.numel()
        return {
            "round": len(self.trace) + 1,
            "model_loss": round(self.model_record["loss"], 6),
            "model_accuracy": round(self.model_record["accuracy"], 4),
            "loss": round(loss, 6),
            "accuracy": round(100 * accuracy, 6),
            "mean_abs": round(size / count / per_level, 4),
            "l2": round(length / len(self.noise) / self.grid.white, 4),
            "at_bound": round(100 * at_bound / count, 3),
        }

    # --- arithmetic on the grid ---

    def _units(self, rows: Tensor) -> Tensor:
        """Clean images in units, float32 [B, H, W, C]."""
        return self.images[rows].float() * self.grid.per_level

    def _inputs(self, units: Tensor) -> Tensor:
        """What the model sees: float32 [B, C, H, W] in units of 1, channels-last in memory."""
        return (units / self.grid.white).permute(0, 3, 1, 2)

    def descend(self, frozen: FrozenSurrogate, clean: Tensor, noise: Tensor, labels: Tensor, num_steps: int) -> Tensor:
        """Signed gradient steps down the loss, projected on the bound; all in units, [B, H, W, C]."""
        grid = self.grid
        shown = (clean + noise).clamp_(0, grid.white)
        for _ in range(num_steps):
            gradient, _ = frozen.input_gradient(self._inputs(shown), labels)
            moved = shown - gradient.sign_().permute(0, 2, 3, 1).mul_(grid.step)
            noise = moved.sub_(clean).clamp_(-grid.bound, grid.bound)
            shown = (clean + noise).clamp_(0, grid.white)
        return noise

    # --- checkpoints, progress, the estimate ---

    def tensors(self) -> dict[str, Tensor]:
        """What changes besides the surrogate."""
        return {"noise": self.noise}

    def _save(self) -> None:
        facts = {
            "phase": self.phase, "position": self.position, "model_record": self.model_record, "trace": self.trace,
            "environments": self.environments,
        }  # fmt: skip
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.tensors().items()}
        arrays.update(self.surrogate.arrays())
        self.context.checkpoint.save(State(arrays=arrays, facts=facts))
        self._saved_at = time.monotonic()

    def _resume(self) -> None:
        state = self.context.checkpoint.load()
        if state is None:
            return
        for name, tensor in self.tensors().items():
            tensor.copy_(torch.from_numpy(state.arrays[name]))
        self.surrogate.restore(state.arrays)
        self.phase, self.position = state.facts["phase"], state.facts["position"]
        self.model_record, self.trace = state.facts["model_record"], state.facts["trace"]
        if self._finished():
            self.environments = state.facts["environments"]
            return
        self.environments = continued(state.facts["environments"], self.environments[0], self.context.reporter)
        self.context.reporter.say(f"continuing in round {len(self.trace) + 1}, {self.phase} phase")

    def _tracked(self, numbers: range, phase: str, unit: str) -> Iterator[int]:
        label = f"round {len(self.trace) + 1}, {phase}"
        return self.context.reporter.track(numbers, total=len(numbers), label=label, unit=unit)

    def _announce(self) -> None:
        """Say where the work will be done and how long it may take, from a short timing."""
        model, noise, flops = self._seconds_per_round()
        seconds = self.usual_rounds * (model + noise)
        text = (
            f"{self.method.title} on {describe_device(self.device)}: about {duration(model + noise)} a round "
            f"(model {duration(model)}, noise {duration(noise)}), "
            f"{duration(seconds)} if it takes {self.usual_rounds} rounds"
        )
        if self.device.type == "cpu" and seconds > 600:
            gpu = duration(self.usual_rounds * flops / GPU_FLOPS)
            text += f"; on a GPU that sustains {GPU_FLOPS / 1e12:.0f} TFLOP/s {gpu}"
        self.context.reporter.say(text)

    def _seconds_per_round(self) -> tuple[float, float, float]:
        """Estimated seconds of a model phase and of a noise phase with its check, and FLOP of both."""
        trial = self.surrogate.copy()
        rows = self.model_rows(0)
        few = rows[: self.images_at_once]
        clean, labels = self._units(few), self.labels[few]
        part = slice(0, IMAGES_TIMED)
        step = median_seconds(lambda _: trial.step(self._inputs(clean[part]), labels[part]), 2, self.device)
        model = step / len(labels[part]) * len(rows) * self.method.steps_per_round
        frozen = self.surrogate.frozen(self.method.precision)
        still = torch.zeros_like(clean)
        step = median_seconds(lambda _: self.descend(frozen, clean, still, labels, 1), 3, self.device) / len(few)
        counter = FlopCounterMode(display=False)
        with counter:
            frozen.judge(self._inputs(clean[:1]), labels[:1])
        forward, gradients, checks = counter.get_total_flops(), *self.work()
        noise = step * (gradients + checks / 2)
        flops = forward * (3 * len(rows) * self.method.steps_per_round + 2 * gradients + checks)
        return model, noise, flops

    @abstractmethod
    def work(self) -> tuple[int, int]:
        """How many image gradients and how many further forward passes of an image a noise phase and check take."""


class SampleWise(_Rounds):
    """One noise per image. Integers on the grid, in the canonical order of the images."""

    usual_rounds = 10
    """On CIFAR-10 with the paper's settings, by the official notebook."""

    def start(self) -> Tensor:
        """Zeros, or uniform over the grid where the recipe asks for a random start."""
        self.right = torch.zeros(len(self.images), dtype=torch.bool, device=self.device)
        self.losses = torch.zeros(len(self.images), device=self.device)
        kind = torch.int8 if self.grid.bound <= 127 else torch.int16
        noise = torch.zeros(self.images.shape, dtype=kind)
        if self.method.random_start:
            generator = torch.Generator().manual_seed(self.context.seed.integer32(self.method.identifier, "start"))
            noise.random_(-self.grid.bound, self.grid.bound + 1, generator=generator)
        return noise.to(self.device)

    def model_rows(self, step: int) -> Tensor:
        """Batches in order, the last one of a pass smaller; the next pass starts anew.

        A single image left over takes the one before it along: batch statistics need two.
        """
        count, size = len(self.images), self.method.surrogate.batch_size
        first = step % -(-count // size) * size
        return torch.arange(max(0, min(first, count - 2)), min(first + size, count), device=self.device)

    def parts(self, position: int) -> range:
        """By their first image."""
        return range(position, len(self.images), self.images_at_once)

    def work(self) -> tuple[int, int]:
        """Every image takes all steps and is checked once."""
        return len(self.images) * self.method.num_steps, len(self.images)

    def improve(self, frozen: FrozenSurrogate, part: int) -> None:
        """All steps of some images, and whether the surrogate is right about the result.

        Every batch is filled up to the same size, so that all images go through the same kernels. The answers
        are final: the noise of an image changes only here, and the surrogate not at all.
        """
        done = slice(part, min(part + self.images_at_once, len(self.images)))
        count = done.stop - done.start
        rows = (part + torch.arange(self.images_at_once, device=self.device)).clamp_(max=len(self.images) - 1)
        clean, labels = self._units(rows), self.labels[rows]
        noise = self.descend(frozen, clean, self.noise_of(rows), labels, self.method.num_steps)
        right, losses = frozen.judge(self._inputs(clean + noise), labels)
        self.noise[done] = noise[:count].to(self.noise.dtype)
        self.right[done], self.losses[done] = right[:count], losses[:count]

    def judged(self, frozen: FrozenSurrogate) -> tuple[Tensor, Tensor]:
        """Found while improving."""
        return self.right, self.losses

    def tensors(self) -> dict[str, Tensor]:
        """The noise, and the answers so far."""
        return {"noise": self.noise, "right": self.right, "losses": self.losses}

    def noise_of(self, rows: Tensor) -> Tensor:
        """The images' own."""
        return self.noise[rows].float()

    def levels(self) -> np.ndarray:
        """The noise as whole grey levels, int8 or int16 [N, H, W, C]."""
        bound = self.grid.bound
        table = quantize(np.arange(-bound, bound + 1) / self.grid.per_level, self.method.quantize, self.method.apply)
        levels = np.empty(self.noise.shape, dtype=table.dtype)
        for first in range(0, len(levels), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            levels[rows] = table[self.noise[rows].cpu().numpy().astype(np.int16) + bound]
        return levels


class ClassWise(_Rounds):
    """One noise per class: the mean of what its images would step to. Real numbers, in units."""

    usual_rounds = 20
    """What ``em-c-cifar10-small`` takes."""

    def __init__(
        self, method: ClasswiseErrorMinimizing, train: Split, context: Context, *, images_at_once: int | None = None
    ) -> None:
        self._seed, self._keys = context.seed, train.keys
        self._num_classes = context.num_classes
        self._subset = train.stratified_rows(method.subset, context.seed, method.identifier, "subset")
        self._order: tuple[tuple[Any, ...], np.ndarray] = ((), np.empty(0, dtype=np.int64))
        super().__init__(method, train, context, images_at_once=images_at_once)

    def start(self) -> Tensor:
        """Zeros, or uniform between the bounds where the recipe asks for a random start."""
        noise = torch.zeros(self._num_classes, *self.images.shape[1:])
        if self.method.random_start:
            generator = torch.Generator().manual_seed(self._seed.integer32(self.method.identifier, "start"))
            noise.uniform_(-self.grid.bound, self.grid.bound, generator=generator)
        return noise.to(self.device)

    def model_rows(self, step: int) -> Tensor:
        """Shuffled batches of all images; a smaller last one is dropped."""
        size, per_pass = self._batches(len(self._keys))
        order = self._shuffled(np.arange(len(self._keys)), "model order", step // per_pass)
        return self._rows(order, step % per_pass, size)

    def parts(self, position: int) -> range:
        """Batches of the subset by number, a smaller last one dropped."""
        return range(position, self._batches(len(self._subset))[1])

    def work(self) -> tuple[int, int]:
        """The subset takes all steps once and is checked once."""
        size, count = self._batches(len(self._subset))
        return size * count * self.method.num_steps, len(self._subset)

    def improve(self, frozen: FrozenSurrogate, part: int) -> None:
        """Steps of a batch of images from their classes' noise; each class moves to its images' mean."""
        size, _ = self._batches(len(self._subset))
        rows = self._rows(self._shuffled(self._subset, "noise order", len(self.trace)), part, size)
        labels = self.labels[rows]
        sums = torch.zeros(self.noise.shape, dtype=torch.float64, device=self.device)
        for some in torch.split(rows, self.images_at_once):
            moved = self.descend(
                frozen, self._units(some), self.noise_of(some), self.labels[some], self.method.num_steps
            )
            sums.index_add_(0, self.labels[some], moved.double())
        counts = torch.bincount(labels, minlength=self._num_classes)
        means = (sums / counts.clamp(min=1)[:, None, None, None]).float().clamp_(-self.grid.bound, self.grid.bound)
        self.noise = torch.where((counts > 0)[:, None, None, None], means, self.noise)

    def judged(self, frozen: FrozenSurrogate) -> tuple[Tensor, Tensor]:
        """On the subset, with the noise after the whole pass."""
        parts = torch.split(torch.from_numpy(self._subset).to(self.device), self.images_at_once)
        answers = [
            frozen.judge(self._inputs(self._units(rows) + self.noise_of(rows)), self.labels[rows]) for rows in parts
        ]
        return torch.cat([right for right, _ in answers]), torch.cat([losses for _, losses in answers])

    def noise_of(self, rows: Tensor) -> Tensor:
        """Their classes'."""
        return self.noise[self.labels[rows]]

    def levels(self) -> np.ndarray:
        """The noise as whole grey levels, int8 or int16 [K, H, W, C]."""
        exact = self.noise.cpu().numpy().astype(np.float64) / self.grid.per_level
        return quantize(exact, self.method.quantize, self.method.apply)

    def _batches(self, count: int) -> tuple[int, int]:
        """Size and number of the batches of a pass; fewer images than a batch make a single smaller one."""
        size = min(self.method.surrogate.batch_size, count)
        return size, count // size

    def _shuffled(self, rows: np.ndarray, purpose: str, number: int) -> np.ndarray:
        """Rows in the order of a pass."""
        name = (purpose, number)
        if self._order[0] != name:
            keys = [self._keys[row] for row in rows.tolist()]
            self._order = (name, rows[self._seed.order(keys, self.method.identifier, *name)])
        return self._order[1]

    def _rows(self, order: np.ndarray, batch: int, size: int) -> Tensor:
        return torch.from_numpy(order[batch * size : (batch + 1) * size]).to(self.device)
