"""The one training loop: images resident on the device, augmented there in batches, nothing read back per step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from ule_datasets.base.seeds import Seed
from ule_datasets.compute.devices import (
    describe_device,
    deterministic_algorithms,
    median_seconds,
    products_in,
    resident,
    to_device,
)
from ule_datasets.compute.precision import Precision
from ule_datasets.models.states import save_weights
from ule_datasets.victims.augmentation import to_float
from ule_datasets.victims.data import TrainingData
from ule_datasets.victims.history import EpochRecord, RunHistory, Window
from ule_datasets.victims.protocol import TrainingProtocol
from ule_datasets.victims.strategy import Countermeasure, Mixed, Progress

EVALUATION_BATCH = 500
WINDOWS = 5
"""An epoch's training accuracy and displacement are noted at so many places."""


_Losses = Callable[[Tensor, Tensor], Tensor]


def train(
    model: nn.Module,
    losses: _Losses,
    data: TrainingData,
    protocol: TrainingProtocol,
    *,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[EpochRecord], None],
    weights: Path | None = None,
) -> RunHistory:
    """Train a model from where it is by the losses of its answers, as ``Victim.train`` says.

    The seed fixes order, augmentation, attack and dropout independently of each other. Processes of a
    group share every batch, with batch normalisation over each one's own part.
    """
    with _repeatable(protocol.precision, device):
        run = _Run(model, losses, data, protocol, Seed(seed), device)
        started, records = time.perf_counter(), []
        for epoch in range(1, protocol.epochs + 1):
            records.append(run.epoch(epoch))
            on_epoch(records[-1])
            if records[-1].train_loss is None:
                break
        if weights is not None and run.rank == 0:
            save_weights(run.model, weights)
    return RunHistory(
        protocol=protocol,
        seed=seed,
        device=describe_device(device),
        threads=torch.get_num_threads(),
        ranks=run.ranks,
        num_parameters=sum(parameter.numel() for parameter in run.model.parameters()),
        epochs=tuple(records),
        seconds=time.perf_counter() - started,
    )


def time_run(
    model: nn.Module, losses: _Losses, data: TrainingData, protocol: TrainingProtocol, *, device: torch.device
) -> float:
    """Seconds that a run of this protocol will take, from the median of a few real steps and test batches."""
    with _repeatable(protocol.precision, device):
        run = _Run(model, losses, data, protocol, Seed(0), device)
        batches = run.batches()
        step = median_seconds(lambda number: run.step(batches[number % len(batches)], number), 3, device)
        test = median_seconds(lambda number: run.evaluate(EVALUATION_BATCH), 3, device)
    rows = len(data.test_images)
    return protocol.epochs * (step * len(batches) + test * rows / min(rows, EVALUATION_BATCH))


@contextmanager
def _repeatable(precision: Precision, device: torch.device) -> Iterator[None]:
    """Kernels that repeat, the protocol's numbers, and a random state of our own."""
    devices = [device] if device.type == "cuda" else []
    with deterministic_algorithms(), products_in(precision), torch.random.fork_rng(devices=devices):
        yield


class _Run:
    """The state of one run: data and model on the device, the optimiser, the random streams."""

    def __init__(
        self,
        model: nn.Module,
        losses: _Losses,
        data: TrainingData,
        protocol: TrainingProtocol,
        seed: Seed,
        device: torch.device,
    ) -> None:
        self._losses, self._protocol, self._device = losses, protocol, device
        grouped = distributed.is_available() and distributed.is_initialized()
        self.ranks, self.rank = (distributed.get_world_size(), distributed.get_rank()) if grouped else (1, 0)
        own = (self.rank,) if grouped else ()
        self._images, self._labels = resident(data.images, device), resident(data.labels, device)
        self._test_images, self._test_labels = (resident(a, device) for a in (data.test_images, data.test_labels))
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self._parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._tensors: list[Tensor] = [parameter.detach() for parameter in self._parameters]
        self._first = [tensor.clone() for tensor in self._tensors]
        self._optimiser = protocol.optimiser.over(self._parameters)
        self._forward: nn.Module = self.model
        if grouped:
            self._forward = nn.parallel.DistributedDataParallel(self.model)
        if protocol.compiled:
            mode = "reduce-overhead" if device.type == "cuda" else "default"
            self._forward = torch.compile(self._forward, mode=mode)  # type: ignore[assignment]
        self._order = torch.Generator().manual_seed(seed.integer32("order"))
        self._augmentation = torch.Generator().manual_seed(seed.integer32("augmentation", *own))
        self._attack = torch.Generator(device).manual_seed(seed.integer32("attack", *own))
        torch.manual_seed(seed.integer32("dropout", *own))

    def epoch(self, number: int) -> EpochRecord:
        """Train on every image once and test; the device is read once, at the end."""
        started = time.perf_counter()
        batches = self.batches()
        first = (number - 1) * len(batches)
        ends = {len(batches) * part // WINDOWS for part in range(1, WINDOWS + 1)} - {0}
        totals = torch.zeros(3, dtype=torch.float64, device=self._device)
        states, steps = [], []
        self.model.train()
        for index, rows in enumerate(batches, start=1):
            totals += self.step(rows, first + index - 1)
            if index in ends:
                states.append(torch.cat([self._over_ranks(totals.clone()), self._displacement()]))
                steps.append(first + index)
        correct = self._over_ranks(self.evaluate(len(self._test_images)))
        *noted, (test_correct, *_) = torch.stack([*states, correct.expand(4)]).tolist()
        loss, train_correct, seen, displacement = noted[-1]
        finite = math.isfinite(loss) and math.isfinite(displacement)
        return EpochRecord(
            epoch=number,
            train_loss=loss / seen if finite else None,
            train_accuracy=100 * train_correct / seen,
            test_accuracy=100 * test_correct / len(self._test_images),
            displacement=displacement if finite else None,
            windows=_windows(steps, noted) if finite else (),
            seconds=time.perf_counter() - started,
        )

    def batches(self) -> tuple[Tensor, ...]:
        """The rows of a freshly shuffled epoch, int64 on the device, batch by batch; the last may be smaller.

        Batch statistics need two images in every process: where the last batch has fewer, it joins the one before.
        """
        order = to_device(torch.randperm(len(self._images), generator=self._order), self._device)
        batches = torch.split(order, self._protocol.batch_size)
        if len(batches) > 1 and len(batches[-1]) < 2 * self.ranks:
            batches = (*batches[:-2], torch.cat(batches[-2:]))
        return batches

    def step(self, rows: Tensor, number: int) -> Tensor:
        """One step; summed loss, number of correct answers, number of images: float64 [3] on the device."""
        num_steps = self._protocol.epochs * self._steps_per_epoch
        factor = self._protocol.schedule.factor(number, num_steps)
        for group in self._optimiser.param_groups:
            group["lr"] = self._protocol.optimiser.learning_rate * factor
        whole, rows = len(rows), rows[self.rank :: self.ranks]
        batch = self._batch(rows, Progress(1 + number // self._steps_per_epoch, self._protocol.epochs))
        with self._autocast():
            logits = self._forward(batch.images)
        logits = logits.float()
        weight, labels, other = batch.weight, batch.labels, batch.other_labels
        losses = weight * self._losses(logits, labels)
        if self._protocol.strategy.having("mix"):
            losses = losses + (1 - weight) * self._losses(logits, other)
        self._optimiser.zero_grad()
        torch.autograd.backward(losses.sum() * (self.ranks / whole))  # processes average their gradients
        if self._protocol.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._protocol.gradient_clip)
        self._optimiser.step()
        with torch.no_grad():
            answers = logits.argmax(dim=1)
            correct = weight * (answers == labels) + (1 - weight) * (answers == other)
            count = torch.full((), len(rows), dtype=torch.float64, device=self._device)
            return torch.stack([losses.double().sum(), correct.double().sum(), count])

    def _batch(self, rows: Tensor, progress: Progress) -> Mixed:
        """Images and labels as the strategy makes them: crop and flip, then the hooks of its parts."""
        strategy, draws = self._protocol.strategy, self._augmentation
        images, labels = strategy.augmentation.move(self._images[rows], draws), self._labels[rows]
        for part in strategy.parts:
            images = part.on_bytes(images, draws)
        images = to_float(images)
        for part in strategy.parts:
            images = part.on_floats(images, draws)
        with self._autocast():
            for part in strategy.parts:
                images = part.attack(images, labels, self.model, self._attack, progress)
        mixing = (*strategy.having("mix"), Countermeasure())[0]
        return mixing.mix(images, labels, draws)

    @torch.no_grad()
    def evaluate(self, count: int) -> Tensor:
        """How many of this process's share of the first ``count`` test images are right; float64 [1] on the device."""
        if self.ranks > 1:
            for buffer in self.model.buffers():
                distributed.broadcast(buffer, 0)
        self.model.eval()
        correct = torch.zeros(1, dtype=torch.float64, device=self._device)
        for start in range(self.rank * EVALUATION_BATCH, count, self.ranks * EVALUATION_BATCH):
            stop = min(start + EVALUATION_BATCH, count)
            with self._autocast():
                answers = self.model(to_float(self._test_images[start:stop])).argmax(dim=1)
            correct += (answers == self._test_labels[start:stop]).sum()
        return correct

    @torch.no_grad()
    def _displacement(self) -> Tensor:
        """Distance of the parameters from their first values, float64 [1] on the device."""
        norms = torch._foreach_norm(torch._foreach_sub(self._tensors, self._first))
        return torch.stack(norms).double().square().sum().sqrt()[None]

    def _over_ranks(self, totals: Tensor) -> Tensor:
        if self.ranks > 1:
            distributed.all_reduce(totals)
        return totals

    def _autocast(self) -> torch.autocast:
        enabled = self._protocol.precision is Precision.BFLOAT16
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=enabled)

    @property
    def _steps_per_epoch(self) -> int:
        count, size = len(self._images), self._protocol.batch_size
        return max(1, count // size + (count % size >= 2 * self.ranks))


def _windows(steps: list[int], states: list[list[float]]) -> tuple[Window, ...]:
    """From totals at the windows' ends (loss, correct, seen, displacement) to each window's own accuracy."""
    before, windows = (0.0, 0.0), []
    for step, (_, correct, seen, displacement) in zip(steps, states, strict=True):
        accuracy = 100 * (correct - before[0]) / (seen - before[1])
        windows.append(Window(step=step, train_accuracy=accuracy, displacement=displacement))
        before = correct, seen
    return tuple(windows)
