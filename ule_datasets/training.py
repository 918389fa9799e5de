"""The one training loop: images resident on the device, augmented there in batches, nothing read back per step."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ule_datasets.augmentation import Augmentation, to_float
from ule_datasets.errors import InputError
from ule_datasets.models import build_model
from ule_datasets.seeds import Seed

EVALUATION_BATCH = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class OneCycle:
    """Half a cosine up to the peak, half a cosine down to nearly nothing; the momentum stays as it is."""

    warm_up: float = 0.3
    """Share of the steps before the peak."""
    start: float = 1 / 25
    """Of the peak, at the first step."""
    end: float = 1 / 250_000
    """Of the peak, after the last step."""

    def factor(self, step: int, num_steps: int) -> float:
        """Learning rate of a step (from 0) as a share of the peak."""
        peak = self.warm_up * num_steps
        if step < peak:
            return _cosine(self.start, 1.0, step / peak)
        return _cosine(1.0, self.end, (step - peak) / (num_steps - peak))


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingProtocol:
    """How a target model is trained: SGD on cross entropy, images in [0, 1] without normalisation."""

    model: str
    """A name in ``ule_datasets.models.MODELS``."""
    epochs: int
    augmentation: Augmentation
    batch_size: int = 128
    peak_learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: OneCycle = OneCycle()

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2)):
            if getattr(self, name) < least:
                raise InputError(f"TrainingProtocol: {name} is {getattr(self, name)}, must be at least {least}")


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class TrainingData:
    """What a model is trained and tested on."""

    images: np.ndarray
    """uint8, [N, H, W, 3]."""
    labels: np.ndarray
    """int64, [N]."""
    test_images: np.ndarray
    """uint8, [M, H, W, 3]."""
    test_labels: np.ndarray
    """int64, [M]."""
    num_classes: int

    def __post_init__(self) -> None:
        _check("training", self.images, self.labels, self.num_classes, at_least=2)
        _check("test", self.test_images, self.test_labels, self.num_classes, at_least=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRecord:
    """What one epoch gave; accuracies in percent."""

    epoch: int
    """Counted from 1."""
    train_loss: float | None
    """Mean over the epoch's images; ``None``: it was not finite."""
    train_accuracy: float
    """Running average over the epoch, in training mode, on the augmented images."""
    test_accuracy: float
    """Clean test accuracy after the epoch, in evaluation mode."""
    seconds: float = field(compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunHistory:
    """One training run. Two runs compare equal when everything but their times does."""

    protocol: TrainingProtocol
    seed: int
    device: str
    """Name of the hardware."""
    threads: int
    """CPU threads of torch; on a CPU the last digits depend on them."""
    epochs: tuple[EpochRecord, ...]
    """Fewer than the protocol's when the loss was not finite: training stops there."""
    seconds: float = field(compare=False)

    @property
    def finite(self) -> bool:
        """Whether the loss stayed finite."""
        return self.epochs[-1].train_loss is not None

    @property
    def last(self) -> EpochRecord:
        """The last epoch: the headline."""
        return self.epochs[-1]

    @property
    def best(self) -> EpochRecord:
        """The (first) epoch with the best test accuracy: chosen by looking at the test set, never the headline."""
        return max(self.epochs, key=lambda record: record.test_accuracy)

    def to_json(self) -> str:
        """Indented JSON; strict, because a loss that is not finite is ``null``."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, protocol: TrainingProtocol) -> RunHistory:
        """Read what ``to_json`` wrote for a run of this protocol.

        Raises:
            InputError: it is something else, or of another protocol.
        """
        try:
            content = json.loads(text)
            if content["protocol"] != dataclasses.asdict(protocol):
                raise ValueError(f"it has another protocol, {content['protocol']}")
            epochs = tuple(EpochRecord(**record) for record in content["epochs"])
            return cls(**{**content, "protocol": protocol, "epochs": epochs})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is not the history of such a run: {error!r}") from error


def pick_device(name: str) -> torch.device:
    """The device for ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:INDEX``.

    Raises:
        InputError: it is none of these, or this machine does not have it.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    allowed = ["auto", "cpu", *(["cuda"] if available else []), *(f"cuda:{i}" for i in range(available))]
    if name not in allowed:
        raise InputError(f"device {name!r}: on this machine it can be {', '.join(allowed)}")
    if name == "auto":
        name = "cuda" if available else "cpu"
    return torch.device(name)


def describe_device(device: torch.device) -> str:
    """The hardware's name, e.g. ``AMD EPYC 7763 (CPU)`` or ``NVIDIA H200``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_model()} (CPU)"


def cpu_model() -> str:
    """The processor's name, as far as the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def train(
    data: TrainingData,
    *,
    protocol: TrainingProtocol,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[EpochRecord], None],
) -> RunHistory:
    """Train a new model and test it after every epoch.

    The seed fixes initialisation, order and augmentation independently of each other and of the data, so
    runs on different data with one seed are paired. Repeating a run on the same device and number of threads
    gives the same history. No global random state is used or changed.

    Args:
        data: copied to the device once.
        protocol: how to train.
        seed: any integer.
        device: where to train.
        on_epoch: called after every epoch.
    """
    with deterministic_algorithms():
        run = _Run(data, protocol, Seed(seed), device)
        started, records = time.perf_counter(), []
        for epoch in range(1, protocol.epochs + 1):
            records.append(run.epoch(epoch))
            on_epoch(records[-1])
            if records[-1].train_loss is None:
                break
    return RunHistory(
        protocol=protocol,
        seed=seed,
        device=describe_device(device),
        threads=torch.get_num_threads(),
        epochs=tuple(records),
        seconds=time.perf_counter() - started,
    )


def time_run(data: TrainingData, *, protocol: TrainingProtocol, device: torch.device, steps: int = 7) -> float:
    """Seconds that a run of this protocol will take, from the median of a few real steps and test batches."""
    with deterministic_algorithms():
        run = _Run(data, protocol, Seed(0), device)
        batches = run.batches()
        step = median_seconds(lambda number: run.step(batches[number % len(batches)], number), steps, device)
        test = median_seconds(lambda number: run.evaluate(EVALUATION_BATCH), 3, device)
    rows = len(data.test_images)
    return protocol.epochs * (step * len(batches) + test * rows / min(rows, EVALUATION_BATCH))


def median_seconds(work: Callable[[int], Tensor], times: int, device: torch.device) -> float:
    """Median of ``work(1)``, ``work(2)``, ...; a first ``work(0)`` pays for allocations and is not counted."""
    seconds = []
    for number in range(times + 1):
        started = time.perf_counter()
        work(number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Let torch use only algorithms that repeat; restores its settings afterwards."""
    enabled, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark = torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats only with this, read when it starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


class _Run:
    """The state of one run: data and model on the device, the optimiser, the three random streams."""

    def __init__(self, data: TrainingData, protocol: TrainingProtocol, seed: Seed, device: torch.device) -> None:
        self._protocol, self._device = protocol, device
        self._images, self._labels = resident(data.images, device), resident(data.labels, device)
        self._test_images, self._test_labels = (resident(a, device) for a in (data.test_images, data.test_labels))
        self._model = build_model(protocol.model, data.num_classes, seed=seed.integer32("initialisation")).to(device)
        self._model.to(memory_format=torch.channels_last)
        self._optimiser = torch.optim.SGD(
            self._model.parameters(),
            lr=protocol.peak_learning_rate,
            momentum=protocol.momentum,
            weight_decay=protocol.weight_decay,
        )
        self._order = torch.Generator().manual_seed(seed.integer32("order"))
        self._augmentation = torch.Generator().manual_seed(seed.integer32("augmentation"))

    def epoch(self, number: int) -> EpochRecord:
        """Train on every image once and test; the device is read once, at the end."""
        started = time.perf_counter()
        batches = self.batches()
        first = (number - 1) * len(batches)
        totals = torch.zeros(2, dtype=torch.float64, device=self._device)
        self._model.train()
        for index, rows in enumerate(batches):
            totals += self.step(rows, first + index)
        correct = self.evaluate(len(self._test_images))
        loss, train_correct, test_correct = torch.cat([totals, correct[None]]).tolist()
        return EpochRecord(
            epoch=number,
            train_loss=loss / len(self._images) if math.isfinite(loss) else None,
            train_accuracy=100 * train_correct / len(self._images),
            test_accuracy=100 * test_correct / len(self._test_images),
            seconds=time.perf_counter() - started,
        )

    def batches(self) -> tuple[Tensor, ...]:
        """The rows of a freshly shuffled epoch, int64 on the device, batch by batch; the last may be smaller.

        A single image left over joins the batch before it: batch statistics need two.
        """
        order = _sent(torch.randperm(len(self._images), generator=self._order), self._device)
        batches = torch.split(order, self._protocol.batch_size)
        if len(batches) > 1 and len(batches[-1]) == 1:
            return (*batches[:-2], torch.cat(batches[-2:]))
        return batches

    def step(self, rows: Tensor, number: int) -> Tensor:
        """One step; summed loss and number of correct answers, float64 [2] on the device."""
        images = self._protocol.augmentation.apply(self._images[rows], self._augmentation)
        labels = self._labels[rows]
        logits = self._model(images)
        loss = functional.cross_entropy(logits, labels)
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        num_steps = self._protocol.epochs * self._steps_per_epoch
        factor = self._protocol.schedule.factor(number, num_steps)
        for group in self._optimiser.param_groups:
            group["lr"] = self._protocol.peak_learning_rate * factor
        self._optimiser.step()
        correct = (logits.detach().argmax(dim=1) == labels).sum()
        return torch.stack([loss.detach().double() * len(rows), correct.double()])

    @torch.no_grad()
    def evaluate(self, count: int) -> Tensor:
        """Number of the first ``count`` test images that are classified correctly, float64 on the device."""
        self._model.eval()
        correct = torch.zeros((), dtype=torch.float64, device=self._device)
        for start in range(0, count, EVALUATION_BATCH):
            stop = min(start + EVALUATION_BATCH, count)
            answers = self._model(to_float(self._test_images[start:stop])).argmax(dim=1)
            correct += (answers == self._test_labels[start:stop]).sum()
        return correct

    @property
    def _steps_per_epoch(self) -> int:
        count, size = len(self._images), self._protocol.batch_size
        return count // size + (count % size > 1)


def resident(array: np.ndarray, device: torch.device) -> Tensor:
    """An array on the device; on a CPU it shares the array's memory where it can, so never write to it."""
    shareable = array.flags.writeable and array.flags.c_contiguous
    return torch.from_numpy(array if shareable else np.array(array)).to(device)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device, without waiting for it."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _check(what: str, images: np.ndarray, labels: np.ndarray, num_classes: int, *, at_least: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(f"{what} images are {images.dtype} {list(images.shape)}; expected uint8 [N, H, W, 3]")
    if len(images) < at_least or labels.dtype != np.int64 or labels.shape != (len(images),):
        raise InputError(
            f"{len(images)} {what} images with labels {labels.dtype} {list(labels.shape)}; "
            f"expected at least {at_least}, with int64 labels [N]"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(f"{what} labels lie in {labels.min()} .. {labels.max()}; expected 0 .. {num_classes - 1}")
