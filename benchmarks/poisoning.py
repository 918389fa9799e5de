"""Adversarial poisoning (TAP): our steps against the published loop, plainly re-stated, and the device.

    python benchmarks/poisoning.py --source DIR [--model resnet18] [--images 512] [--steps 2] [--device cpu]

Both sides move the noise of the same images from zero against the same surrogate, in turn. The plain loop takes batches
of 512 from a DataLoader in every step, shifts and mirrors images by sampling along a grid, normalises them, and lets
autograd compute the gradients of the parameters too, channels first. The limit is the device's own rate for large
float32 matrix products. Noise that moves up the loss (EMaxN) has the same steps as error-minimising noise, without
shifts: ``benchmarks/noise.py``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import torch
from common import finish, interleaved, parser, read_cifar10, seconds_of, table, wall
from noise import Images, forward_flops, matmul_rate
from torch.nn import functional
from torch.utils.data import DataLoader

from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.devices import describe_device, deterministic_algorithms, pick_device
from ule_datasets.data.split import Split
from ule_datasets.methods.adversarial_poisoning import AdversarialPoisoning, Starts
from ule_datasets.methods.engine.clean_training import statistics_of
from ule_datasets.methods.method import Context
from ule_datasets.models.architectures import build_model

EPSILON, STEP, REACH, BATCH = 8 / 255, 0.4 / 255, 4, 512


class PlainLoop:
    """The published steps, written down in the most direct way."""

    def __init__(self, train: Split, model: str, num_steps: int, device: torch.device) -> None:
        self.device, self.num_steps = device, num_steps
        self.model = build_model(model, 10, seed=0).to(device).eval()
        self.loader = DataLoader(Images(train), batch_size=BATCH, shuffle=False)
        mean, deviation = statistics_of(torch.from_numpy(train.pixels()))
        self.mean, self.deviation = (values.float().to(device).view(1, 3, 1, 1) for values in (mean, deviation))
        self.noise = torch.zeros(len(train), 3, *train.images.shape[1:3])

    def shifted(self, images: torch.Tensor) -> torch.Tensor:
        """Moved by up to four pixels along each axis, half of them mirrored."""
        size = images.shape[-1]
        moves = (2 * torch.rand(len(images), 2, device=self.device) - 1) * 2 * REACH / (size - 1)
        mirrored = 1 - 2 * (torch.rand(len(images), device=self.device) < 0.5).float()
        transform = torch.zeros(len(images), 2, 3, device=self.device)
        transform[:, 0, 0], transform[:, 1, 1], transform[:, :, 2] = mirrored, 1, moves
        grid = functional.affine_grid(transform, list(images.shape), align_corners=True)
        return functional.grid_sample(images, grid, align_corners=True)

    def move(self) -> None:
        """All steps of all images: every step goes through the whole set."""
        for _ in range(self.num_steps):
            first = 0
            for images, labels in self.loader:
                images, labels = images.to(self.device), labels.to(self.device)
                rows = slice(first, first + len(images))
                noise = self.noise[rows].to(self.device).requires_grad_(True)
                seen = self.shifted((images + noise - self.mean) / self.deviation)
                torch.autograd.backward(functional.cross_entropy(self.model(seen), (labels + 1) % 10))
                assert noise.grad is not None
                moved = torch.clamp(noise.detach() - STEP * noise.grad.sign(), -EPSILON, EPSILON)
                self.noise[rows] = (torch.clamp(images + moved, 0, 1) - images).cpu()
                self.model.zero_grad()
                first += len(images)


def main() -> int:
    """Measure and print."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--model", default="resnet18", help="surrogate (default: %(default)s)")
    options.add_argument("--images", type=int, default=512, help="images whose noise moves (default: %(default)s)")
    options.add_argument("--steps", type=int, default=2, help="steps of each image (default: %(default)s)")
    options.add_argument("--device", default="auto")
    chosen = options.parse_args()
    device = pick_device(chosen.device)
    train = read_cifar10(chosen.source).train.rows(0, chosen.images)

    default = AdversarialPoisoning()
    surrogate = replace(default.training.surrogate, model=chosen.model)
    method = replace(default, num_steps=chosen.steps, training=replace(default.training, surrogate=surrogate))
    context = Context(num_classes=10, seed=Seed(0), device=str(device), reporter=Reporter(silent=True))
    plain, ours = PlainLoop(train, chosen.model, chosen.steps, device), Starts(method, train, context)

    def crafted() -> None:
        for first in range(0, len(train), method.batch_size):
            ours.craft(ours.frozen(), first)

    def timed(work: object) -> None:
        work()  # type: ignore[operator]
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with deterministic_algorithms():
        crafted()
    # Sampling along a grid has no gradient that repeats on a GPU: the plain loop goes without that promise.
    timings = interleaved(
        {"plain": wall(partial(timed, plain.move)), "ours": wall(partial(timed, crafted))}, chosen.repeats
    )
    limit, work = matmul_rate(device), forward_flops(chosen.model) * 2 * chosen.steps * len(train)
    theirs, mine = timings["plain"].median, timings["ours"].median
    table(
        f"{chosen.model}, {len(train):,} images, {chosen.steps} steps, float32, {describe_device(device)}",
        ["", "faster than the plain loop", "FLOP/s over a matrix product's, ours", "the plain loop's"],
        [["steps", f"{theirs / mine:.2f}", f"{work / mine / limit:.2f}", f"{work / theirs / limit:.2f}"]],
    )
    if device.type == "cuda":
        print(f"seconds: { ({name: round(timing.median, 4) for name, timing in timings.items()}) }")
        print(f"peak device memory: {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB")
    finish(
        chosen.json,
        {
            "device": describe_device(device),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "model": chosen.model,
            "images": len(train),
            "steps": chosen.steps,
            "matmul_flops": limit,
            "seconds": seconds_of(timings),
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
