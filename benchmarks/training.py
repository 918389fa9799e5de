"""Training: our loop against the usual one, beside what the device does in a large matrix product.

    python benchmarks/training.py                                     # resnet18-w8, all strategies: minutes
    python benchmarks/training.py --models resnet18 --strategies standard --steps 1
    python benchmarks/training.py --ours float32 bfloat16 float32+compiled --strategies standard
    python benchmarks/training.py --models quicknet --strategies standard --ours float32 bfloat16 --threads 1 --cpu
    python benchmarks/training.py --device cuda --models resnet18 --json result.json

The usual loop: a DataLoader whose worker processes transform PIL images one by one (RandomCrop(32, padding=4),
RandomHorizontalFlip, ToTensor, and Cutout or torchvision's RandAugment where the strategy has them), float32, channels
first, torch.optim.SGD, loss and accuracy read with .item() after every step; under linf-at every step of the attack
computes the parameters' gradients too. Torch's settings are as it starts, which on a GPU means TF32 in convolutions,
and cudnn.benchmark is on. Ours is ``ule_datasets.victims.loop`` as a run uses it.

Both sides train the same model on the same images in batches of its victim's size, 128 for most, in turn. Warm-up is
not counted: compilation and first steps of ours; of the usual loop the start of its workers and the batches that these
had ready, so that it is timed with its queue as it is in the middle of an epoch. Matrix products are timed in between
as well. FLOP are those of the convolutions and matrix products that an image needs: three forward passes, and two for
every step of an attack. On a machine that does other things too, more and shorter measurements (``--repeats``,
``--steps``) help, or ``--cpu``: seconds that this process computed instead of those of the clock. The usual loop then
has its workers free.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import finish, interleaved, read_cifar10, seconds_of, table
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from ule_datasets.base.seeds import Seed
from ule_datasets.compute.devices import describe_device, pick_device
from ule_datasets.compute.executor import available_cpus
from ule_datasets.compute.precision import Precision
from ule_datasets.countermeasures.adversarial import LInfAttack
from ule_datasets.experiments.profiles import PROFILES
from ule_datasets.models.architectures import build_model, forward_flop
from ule_datasets.victims.data import TrainingData
from ule_datasets.victims.loop import _repeatable, _Run
from ule_datasets.victims.protocol import TrainingProtocol
from ule_datasets.victims.supervised import Supervised

STRATEGIES = ("standard", "cutout", "randaugment", "mixup", "linf-at")
CLASSES, TRAIN_IMAGES, TEST_IMAGES = 10, 50_000, 10_000
Clock = Callable[[], float]
WARM_UP = 5
"""Steps of ours before anything is timed: compilation, recording of graphs, allocation."""
ATTACKED = 5
"""A measurement under an attack takes this many times fewer steps."""
EPOCHS = {PROFILES[name].epochs: name for name in ("fast", "paper")}


@dataclass(frozen=True)
class Setting:
    """A way to run our loop."""

    precision: Precision
    compiled: bool

    @classmethod
    def parse(cls, text: str) -> Setting:
        """From ``PRECISION`` or ``PRECISION+compiled``."""
        precision, _, suffix = text.partition("+")
        if suffix not in ("", "compiled"):
            raise ValueError(text)
        return cls(Precision(precision), bool(suffix))

    def __str__(self) -> str:
        return f"{self.precision}{'+compiled' if self.compiled else ''}"


class SquareCutout:
    """Zeros in a square of 16 pixels around a random pixel, of one image at a time."""

    def __call__(self, image: Tensor) -> Tensor:
        """Float [3, H, W] to the same."""
        row, column = (int(torch.randint(side, ())) for side in image.shape[1:])
        mask = torch.ones_like(image)
        mask[:, max(row - 8, 0) : row + 8, max(column - 8, 0) : column + 8] = 0
        return image * mask


class Images(Dataset[tuple[Tensor, int]]):
    """Images and labels one at a time, transformed as PIL images."""

    def __init__(self, data: TrainingData, strategy: str) -> None:
        self.data = data
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                *([transforms.RandAugment()] if strategy == "randaugment" else []),
                transforms.ToTensor(),
                *([SquareCutout()] if strategy == "cutout" else []),
            ]
        )

    def __len__(self) -> int:
        return len(self.data.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data.images[index])), int(self.data.labels[index])


class UsualLoop:
    """What one writes first."""

    def __init__(
        self, data: TrainingData, protocol: TrainingProtocol, strategy: str, device: torch.device, chosen: Any
    ) -> None:
        self.device, self.strategy, self.workers = device, strategy, int(chosen.workers)
        self.clock: Clock = chosen.clock
        self.model = build_model(protocol.model, CLASSES, seed=0).to(device)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        self.loader = DataLoader(
            Images(data, strategy),
            batch_size=protocol.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
        )

    def seconds(self, steps: int) -> float:
        """Of so many steps in the middle of an epoch; the workers live only during this call."""
        before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
        batches, clock = self._batches(), self.clock
        try:
            for _ in range(1 if self.strategy == "linf-at" else 2 * self.workers + 1):
                self.step(*next(batches))
            started = clock()
            for _ in range(steps):
                self.step(*next(batches))
            return clock() - started
        finally:
            batches.close()
            torch.backends.cudnn.benchmark = before

    def _batches(self) -> Generator[tuple[Tensor, Tensor], None, None]:
        while True:
            yield from self.loader

    def step(self, images: Tensor, labels: Tensor) -> tuple[float, float]:
        """Loss and number of correct answers of a batch, after training on it."""
        self.model.train()
        images, labels = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        if self.strategy == "linf-at":
            images = self.attacked(images, labels)
        other, share = labels, 1.0
        if self.strategy == "mixup":
            share, order = np.random.beta(1.0, 1.0), torch.randperm(len(images), device=self.device)
            images, other = share * images + (1 - share) * images[order], labels[order]
        logits = self.model(images)
        loss = functional.cross_entropy(logits, labels)
        if self.strategy == "mixup":
            loss = share * loss + (1 - share) * functional.cross_entropy(logits, other)
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.optimiser.step()
        return loss.item(), (logits.argmax(dim=1) == labels).sum().item()

    def attacked(self, images: Tensor, labels: Tensor) -> Tensor:
        """PGD with the numbers of ours, through ``backward``: the parameters get gradients too."""
        attack = LInfAttack()
        self.model.eval()
        noise = torch.empty_like(images).uniform_(-attack.radius, attack.radius)
        shown = (images + noise).clamp(0, 1)
        for _ in range(attack.steps):
            shown = shown.detach().requires_grad_(True)
            self.model.zero_grad()
            torch.autograd.backward(functional.cross_entropy(self.model(shown), labels))
            assert shown.grad is not None
            moved = shown.detach() + attack.step * shown.grad.sign()
            shown = (images + (moved - images).clamp(-attack.radius, attack.radius)).clamp(0, 1)
        self.model.train()
        return shown.detach()


class OurLoop:
    """A run of the library, a few steps at a time."""

    def __init__(self, data: TrainingData, protocol: TrainingProtocol, device: torch.device, clock: Clock) -> None:
        self.protocol, self.device, self.clock = protocol, device, clock
        before = _allocated(device)
        with _repeatable(protocol.precision, device):
            victim = Supervised(name=protocol.model)
            model = victim.model(protocol, data.num_classes, seed=0, start=None)
            self.run = _Run(model, victim.losses, data, protocol, Seed(0), device)
        self.batches, self.number = self.run.batches()[: len(data.images) // protocol.batch_size], 0
        self.seconds(WARM_UP if device.type == "cuda" or protocol.compiled else 1)
        self.peak = _peak(device) - before
        """Bytes on the GPU, the images included; 0 on a CPU."""

    def seconds(self, steps: int) -> float:
        """Of so many steps, after one that is not counted; the totals are read once, as at the end of an epoch."""
        with _repeatable(self.protocol.precision, self.device):
            self.run.model.train()
            totals = self._step()
            _synchronise(self.device)
            started = self.clock()
            for _ in range(steps):
                totals += self._step()
            totals.tolist()
            return self.clock() - started

    def test_seconds(self) -> float:
        """Of a test after an epoch."""
        with _repeatable(self.protocol.precision, self.device):
            self.run.evaluate(TEST_IMAGES).tolist()
            started = self.clock()
            self.run.evaluate(TEST_IMAGES).tolist()
            return self.clock() - started

    def _step(self) -> Tensor:
        totals = self.run.step(self.batches[self.number % len(self.batches)], self.number)
        self.number += 1
        return totals


class Product:
    """A large matrix product."""

    def __init__(self, device: torch.device, precision: Precision, clock: Clock) -> None:
        self.device, self.precision, self.clock = device, precision, clock
        size = 8192 if device.type == "cuda" else 2048
        kind = torch.bfloat16 if precision is Precision.BFLOAT16 else torch.float32
        self.left, self.right = (torch.rand(size, size, device=device).to(kind) for _ in range(2))
        self.flop = 2 * size**3

    def seconds(self) -> float:
        """Of the fastest of three."""
        seconds = []
        with _repeatable(self.precision, self.device):
            for _ in range(3):
                _synchronise(self.device)
                started = self.clock()
                self.left @ self.right
                _synchronise(self.device)
                seconds.append(self.clock() - started)
        return min(seconds)


@dataclass(frozen=True)
class Comparison:
    """What was measured for one model and strategy."""

    rates: dict[str, float]
    """Images per second, ``usual`` and by setting of ours; medians."""
    products: dict[Precision, float]
    """FLOP/s of a large matrix product; medians."""
    whole_run: dict[str, dict[str, float]]
    """By setting, on a GPU: peak bytes, and seconds of an epoch of 50,000 images with its test on 10,000."""
    seconds: dict[str, list[float]]
    steps: int


def compare(data: TrainingData, model: str, strategy: str, device: torch.device, chosen: Any) -> Comparison:
    """Measure all sides in turn."""
    usually = PROFILES["paper"].protocol(model, strategy, flippable=True)
    steps = max(2, chosen.steps // ATTACKED) if usually.strategy.having("attack") else chosen.steps
    usual = UsualLoop(data, usually, strategy, device, chosen)
    runs = {}
    for setting in chosen.ours:
        protocol = replace(usually, precision=setting.precision, compiled=setting.compiled)
        runs[str(setting)] = OurLoop(data, protocol, device, chosen.clock)
    precisions = dict.fromkeys([usual_precision(device), *(setting.precision for setting in chosen.ours)])
    products = {precision: Product(device, precision, chosen.clock) for precision in precisions}
    timings = interleaved(
        {
            "usual": partial(usual.seconds, steps),
            **{name: partial(run.seconds, steps) for name, run in runs.items()},
            **{f"product, {precision}": product.seconds for precision, product in products.items()},
        },
        chosen.repeats,
    )
    rates = {name: usually.batch_size * steps / timings[name].median for name in ("usual", *runs)}
    return Comparison(
        rates=rates,
        products={kind: product.flop / timings[f"product, {kind}"].median for kind, product in products.items()},
        whole_run={
            name: {"peak_bytes": run.peak, "seconds_of_an_epoch": TRAIN_IMAGES / rates[name] + run.test_seconds()}
            for name, run in runs.items()
            if device.type == "cuda"
        },
        seconds=seconds_of(timings),
        steps=steps,
    )


def usual_precision(device: torch.device) -> Precision:
    """What convolutions are computed in when nothing is set."""
    return Precision.TF32 if device.type == "cuda" else Precision.FLOAT32


def work(model: str, strategy: str) -> float:
    """FLOP that training on one image takes."""
    passes = 3 + (2 * LInfAttack().steps if strategy == "linf-at" else 0)
    return passes * forward_flop(model, CLASSES, 32)


def read_data(source: str | None, count: int) -> TrainingData:
    """Images of a source, or random ones, which take as long."""
    if source is not None:
        splits = read_cifar10(source).splits
        train, test = splits["train"], splits["test"]
        return TrainingData(
            images=train.pixels()[:count],
            labels=train.labels[:count],
            test_images=test.pixels(),
            test_labels=test.labels,
            num_classes=CLASSES,
        )
    random = np.random.default_rng(0)
    return TrainingData(
        images=random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        labels=random.integers(0, CLASSES, count),
        test_images=random.integers(0, 256, (TEST_IMAGES, 32, 32, 3), dtype=np.uint8),
        test_labels=random.integers(0, CLASSES, TEST_IMAGES),
        num_classes=CLASSES,
    )


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _allocated(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--source", help="CIFAR-10 in any form that ule-build reads (default: random images)")
    options.add_argument("--images", type=int, default=TRAIN_IMAGES, help="training images (default: %(default)s)")
    options.add_argument("--models", nargs="+", default=["resnet18-w8"])
    options.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    options.add_argument(
        "--ours",
        nargs="+",
        type=Setting.parse,
        metavar="PRECISION[+compiled]",
        help=f"of ours: {', '.join(Precision)} (default: float32; on a GPU tf32 and bfloat16, each also compiled)",
    )
    options.add_argument("--steps", type=int, help="steps of a measurement (default: 8, on a GPU 150)")
    options.add_argument("--repeats", type=int, default=5, help="measurements of each side (default: %(default)s)")
    options.add_argument("--threads", type=int, default=available_cpus(), help="of torch (default: %(default)s)")
    options.add_argument(
        "--workers",
        type=int,
        default=min(8, available_cpus()),
        help="processes of the usual loop's DataLoader (default: %(default)s)",
    )
    options.add_argument("--device", default="auto")
    options.add_argument(
        "--cpu",
        dest="clock",
        action="store_const",
        const=time.process_time,
        default=time.perf_counter,
        help="seconds of the processor instead of the clock",
    )
    options.add_argument("--json", type=Path, help="also write every number to this file")
    chosen = options.parse_args()
    device = pick_device(chosen.device)
    cuda = device.type == "cuda"
    chosen.steps = chosen.steps or (150 if cuda else 8)
    defaults = ["tf32", "bfloat16", "tf32+compiled", "bfloat16+compiled"] if cuda else ["float32"]
    chosen.ours = chosen.ours or [Setting.parse(text) for text in defaults]
    torch.set_num_threads(chosen.threads)
    data = read_data(chosen.source, chosen.images)
    rows, lasting, results = [], [], []
    for model in chosen.models:
        for strategy in chosen.strategies:
            found = compare(data, model, strategy, device, chosen)
            flop, theirs = work(model, strategy), found.rates["usual"]
            for setting in chosen.ours:
                ours = found.rates[str(setting)]
                rows.append(
                    [
                        f"{model}, {strategy}, {setting}",
                        f"{ours / theirs:.2f}",
                        f"{ours * flop / found.products[setting.precision]:.2f}",
                        f"{theirs * flop / found.products[usual_precision(device)]:.2f}",
                        f"{ours:,.0f}",
                        f"{theirs:,.0f}",
                    ]
                )
            for name, run in found.whole_run.items():
                minutes = [f"{epochs * run['seconds_of_an_epoch'] / 60:.1f}" for epochs in EPOCHS]
                lasting.append([f"{model}, {strategy}, {name}", f"{run['peak_bytes'] / 2**30:.2f}", *minutes])
            results.append({"model": model, "strategy": strategy, "flop_per_image": flop, **asdict(found)})
            print(f"{model}, {strategy}: done", file=sys.stderr)
    workers = f"{chosen.workers} workers for the usual loop"
    table(
        f"{describe_device(device)}, {torch.get_num_threads()} threads, {workers}, torch {torch.__version__}",
        [
            "",
            "faster than the usual loop",
            "FLOP/s over a matrix product's, ours",
            "the usual loop's",
            "images/s, ours",
            "the usual loop's",
        ],
        rows,
    )
    if lasting:
        header = [f"minutes of {epochs} epochs ({name})" for epochs, name in EPOCHS.items()]
        table("50,000 images, 10,000 to test on after every epoch", ["", "peak device memory, GiB", *header], lasting)
    finish(
        chosen.json,
        {
            "device": describe_device(device),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "workers": chosen.workers,
            "clock": chosen.clock.__name__,
            "usual_precision": usual_precision(device),
            "measured": results,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
