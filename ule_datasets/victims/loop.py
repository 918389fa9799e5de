"""The one training loop: images resident on the device, augmented there in batches, nothing read back per step."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from ule_datasets.base import records
from ule_datasets.base.checkpoint import Forgetful, Keeper
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.devices import (
    describe_device,
    deterministic_algorithms,
    median_seconds,
    products_in,
    resident,
    to_device,
)
from ule_datasets.compute.parts import Part
from ule_datasets.compute.pauses import Pauses
from ule_datasets.compute.precision import Precision
from ule_datasets.models.states import save_weights
from ule_datasets.victims.augmentation import to_float
from ule_datasets.victims.data import TrainingData
from ule_datasets.victims.history import EpochRecord, RunHistory, Standing, Window
from ule_datasets.victims.protocol import TrainingProtocol
from ule_datasets.victims.seen import Seen
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
    keeper: Keeper = Forgetful(),  # noqa: B008 (has no state)
) -> RunHistory:
    """Train a model from where it is by the losses of its answers, as ``Victim.train`` says.

    The seed fixes order, augmentation, attack and dropout independently of each other. Processes of a
    group share every batch, with batch normalisation over each one's own part.
    """
    with _repeatable(protocol.precision, device):
        run = _Run(model, losses, data, protocol, Seed(seed), device, keeper)
        run.go_through(on_epoch)
        if weights is not None and run.rank == 0:
            save_weights(run.model, weights)
    return RunHistory(
        protocol=protocol,
        seed=seed,
        device=describe_device(device),
        threads=torch.get_num_threads(),
        ranks=run.ranks,
        num_parameters=sum(parameter.numel() for parameter in run.model.parameters()),
        epochs=tuple(run.records),
        seconds=run.seconds,
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
    tests = len(protocol.tested_epochs) * test * rows / min(rows, EVALUATION_BATCH)
    return protocol.epochs * step * len(batches) + tests


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
        keeper: Keeper = Forgetful(),  # noqa: B008 (has no state)
    ) -> None:
        self._losses, self._protocol, self._device = losses, protocol, device
        grouped = distributed.is_available() and distributed.is_initialized()
        self.ranks, self.rank = (distributed.get_world_size(), distributed.get_rank()) if grouped else (1, 0)
        own = (self.rank,) if grouped else ()
        self._images, self._labels = resident(data.images, device), resident(data.labels, device)
        self._test_images, self._test_labels = (resident(a, device) for a in (data.test_images, data.test_labels))
        if protocol.strategy.having("on_levels"):
            self._images = Seen(self._images, protocol.strategy, data.learned)  # type: ignore[assignment]
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
        self._pauses = Pauses(keeper, device=device, ranks=self.ranks, rank=self.rank)
        self.records: list[EpochRecord] = []
        """Of the epochs that are done."""
        self._started = time.perf_counter()
        self._begin()

    @property
    def seconds(self) -> float:
        """That the run has taken."""
        return time.perf_counter() - self._started

    def go_through(self, on_epoch: Callable[[EpochRecord], None]) -> None:
        """Train from where the run stands, which its keeper may know, to the end, or until the loss is not finite."""
        self._resume()
        while len(self.records) < self._protocol.epochs and all(done.train_loss is not None for done in self.records):
            self.records.append(self.epoch(len(self.records) + 1))
            on_epoch(self.records[-1])
            self._pause()

    def _begin(self) -> None:
        """Stand before the next epoch."""
        self._steps = 0
        """Of the running epoch, that are done."""
        self._totals = torch.zeros(3, dtype=torch.float64, device=self._device)
        """Over these steps: loss, correct answers, images."""
        self._noted = self._totals.new_zeros(WINDOWS, 4)
        """At the ends of its windows: these totals over all processes, and displacement."""
        self._unshuffled = self._order.get_state()
        """Of the generator, from which the epoch's order is drawn."""
        self._epoch_started = time.perf_counter()

    def epoch(self, number: int) -> EpochRecord:
        """Train on every image once, or those that are left, and test; the device is read once, at the end."""
        batches = self.batches()
        first = (number - 1) * len(batches)
        ends = sorted({len(batches) * part // WINDOWS for part in range(1, WINDOWS + 1)} - {0})
        self.model.train()
        for index in range(self._steps, len(batches)):
            self._totals += self.step(batches[index], first + index)
            self._steps = index + 1
            if self._steps in ends:
                totals = self._over_ranks(self._totals.clone())
                self._noted[ends.index(self._steps)] = torch.cat([totals, self._displacement()])
            if self.ranks == 1 or self._steps in ends:  # processes must agree, which takes them time
                self._pause()
        asked = number in self._protocol.tested_epochs
        correct = self._test() if asked else torch.full((1,), math.nan, dtype=torch.float64, device=self._device)
        *noted, (test_correct, *_) = torch.cat([self._noted[: len(ends)], correct.expand(1, 4)]).tolist()
        loss, train_correct, seen, displacement = noted[-1]
        finite = math.isfinite(loss) and math.isfinite(displacement)
        if not finite and not asked:  # it will be the last one
            asked, test_correct = True, self._test().item()
        record = EpochRecord(
            epoch=number,
            train_loss=loss / seen if finite else None,
            train_accuracy=100 * train_correct / seen,
            test_accuracy=100 * test_correct / len(self._test_images) if asked else None,
            displacement=displacement if finite else None,
            windows=_windows([first + end for end in ends], noted) if finite else (),
            seconds=time.perf_counter() - self._epoch_started,
        )
        self._begin()
        return record

    def batches(self) -> tuple[Tensor, ...]:
        """The rows of a freshly shuffled epoch, int64 on the device, batch by batch; the last may be of another size.

        As many as ``TrainingProtocol.steps_per_epoch`` says.
        """
        order = to_device(torch.randperm(len(self._images), generator=self._order), self._device)
        batches = torch.split(order, self._protocol.batch_size)
        if len(batches) > self._steps_per_epoch:
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

    def _test(self) -> Tensor:
        """How many test images are right; float64 [1] on the device."""
        return self._over_ranks(self.evaluate(len(self._test_images)))

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
            if self.ranks == 1:
                self._pause()  # what was tested is tested again
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

    def _pause(self) -> None:
        """Have the state kept where that is due; that may end the run."""
        if self._pauses.due():
            self._pauses.take(self._parts(), self._own(), dataclasses.asdict(self._standing()))

    def _resume(self) -> None:
        """Stand where an interrupted run stood."""
        facts = self._pauses.resume(self._parts(), self._own())
        if facts is not None:
            standing, now = records.convert(Standing, facts, "a checkpoint"), time.perf_counter()
            self._started, self._epoch_started = now - standing.seconds, now - standing.epoch_seconds
            self.records, self._steps = list(standing.epochs), standing.steps
            self._order.set_state(self._unshuffled)

    def _standing(self) -> Standing:
        return Standing(
            epochs=tuple(self.records),
            steps=self._steps,
            of_steps=self._steps_per_epoch,
            seconds=self.seconds,
            epoch_seconds=time.perf_counter() - self._epoch_started,
        )

    def _parts(self) -> Mapping[str, Part]:
        """What changes, and is alike in all processes."""
        return {
            "model": self.model,
            "optimiser": self._optimiser,
            "order": self._unshuffled,
            "noted": self._noted,
        }

    def _own(self) -> Mapping[str, Part]:
        """What changes in each process by itself: its draws, its totals, its statistics of batches."""
        draws = {"augmentation": self._augmentation, "attack": self._attack, "dropout": torch.default_generator}
        if self._device.type == "cuda":
            index = torch.cuda.current_device() if self._device.index is None else self._device.index
            draws["dropout on CUDA"] = torch.cuda.default_generators[index]
        statistics = dict(self.model.named_buffers()) if self.ranks > 1 else {}
        return {**draws, "totals": self._totals, **{f"model {name}": each for name, each in statistics.items()}}

    def _autocast(self) -> torch.autocast:
        enabled = self._protocol.precision is Precision.BFLOAT16
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=enabled)

    @property
    def _steps_per_epoch(self) -> int:
        return self._protocol.steps_per_epoch(len(self._images), self.ranks)


def _windows(steps: list[int], states: list[list[float]]) -> tuple[Window, ...]:
    """From totals at the windows' ends (loss, correct, seen, displacement) to each window's own accuracy."""
    before, windows = (0.0, 0.0), []
    for step, (_, correct, seen, displacement) in zip(steps, states, strict=True):
        accuracy = 100 * (correct - before[0]) / (seen - before[1])
        windows.append(Window(step=step, train_accuracy=accuracy, displacement=displacement))
        before = correct, seen
    return tuple(windows)
