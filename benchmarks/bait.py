"""BAIT: our generator pass against the published loop, plainly re-stated, and the device.

    python benchmarks/bait.py --source DIR [--width 16] [--images 512] [--device cpu]

Both sides train a generator with the same start on the same augmented batches of 512 (fewer images are one smaller
batch), against the same surrogate, an untrained ResNet-18 of torchvision's kind, in turn. The plain loop makes class
means and picks classes image by image, lets autograd compute the surrogate's parameter gradients too, and uses torch's
own layers in the usual order of memory; like ours it evaluates the generator again after each step. Its batches are
ready beforehand, ours are augmented on the way. The limit is the device's own rate for large float32 matrix products.
On a CPU everything runs in one thread, as a craft does.
"""

from __future__ import annotations

import copy
import hashlib
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from common import finish, interleaved, parser, read_cifar10, seconds_of, table, wall
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.devices import (
    cpu_threads,
    describe_device,
    deterministic_algorithms,
    pick_device,
    products_in,
)
from ule_datasets.compute.precision import Precision
from ule_datasets.data.split import Split
from ule_datasets.methods.bait import Bait, Rounds
from ule_datasets.methods.engine.generators import BaitGenerator, InstanceNorm, Reflection
from ule_datasets.methods.method import Context
from ule_datasets.models.architectures import build_model
from ule_datasets.models.weights import Weights

SURROGATE = "resnet18-224"
EPSILON = 8 / 255


def untrained(folder: Path) -> tuple[Weights, Path]:
    """Weights of the surrogate as it is initialised: their values do not matter to the time."""
    path = folder / "untrained.pt"
    torch.save(build_model(SURROGATE, 1000, seed=0).state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    weights = Weights(
        name=f"{SURROGATE}@nothing",
        architecture=SURROGATE,
        num_outputs=1000,
        origin=f"file:{path.name}",
        sha256=digest,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    return weights, path


class Ours(Rounds):
    """One generator pass of ours at a time."""

    def one_pass(self, ahead: nn.Module) -> None:
        """All batches of the first round."""
        for batch in range(self.batches()[1]):
            self.step(ahead, 0, batch)


class PlainLoop:
    """The published pass, written down in the most direct way."""

    def __init__(
        self, ours: Ours, start: BaitGenerator, ahead: nn.Module, batches: list[tuple[Tensor, Tensor]]
    ) -> None:
        self.batches, self.num_classes = batches, ours.context.num_classes
        self.generator = with_torch_layers(copy.deepcopy(start)).to(memory_format=torch.contiguous_format)
        self.ahead = copy.deepcopy(ahead).requires_grad_(True).to(memory_format=torch.contiguous_format)
        self.adam = torch.optim.Adam(self.generator.parameters(), lr=ours.method.generator_rate)
        self.noise = torch.zeros(self.num_classes, 3, *ours.images.shape[1:3], device=ours.device)

    def noise_by_class(self, images: Tensor, labels: Tensor) -> Tensor:
        """Means over the images of each class, one mask after the other."""
        outputs = self.generator(images)
        noise = []
        for k in range(self.num_classes):
            mask = torch.tensor([int(label) == k for label in labels.cpu()], device=images.device)
            noise.append(EPSILON * outputs[mask].mean(dim=0) if mask.any() else torch.zeros_like(images[0]))
        return torch.stack(noise)

    def one_pass(self) -> None:
        """All batches."""
        for images, labels in self.batches:
            noise = self.noise_by_class(images, labels)
            targets = []
            for row, label in zip(self.ahead(images), labels, strict=True):
                others = row.detach().cpu().clone()
                others[int(label)] = -float("inf")
                targets.append(int(others.argmax()))
            baited = torch.stack(
                [torch.clamp(image + noise[k], 0, 1) for image, k in zip(images, targets, strict=True)]
            )
            loss = functional.cross_entropy(self.ahead(baited), torch.tensor(targets, device=images.device))
            self.adam.zero_grad()
            torch.autograd.backward(loss)
            self.adam.step()
            with torch.no_grad():
                noise = self.noise_by_class(images, labels).clamp(-EPSILON, EPSILON)
                for k in set(labels.tolist()):
                    self.noise[k] = noise[k]


def with_torch_layers(generator: BaitGenerator) -> BaitGenerator:
    """The generator with torch's own instance normalisation and reflection."""
    channels = 3
    for name, module in list(generator.named_modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            channels = module.out_channels
        elif isinstance(module, InstanceNorm):
            generator.set_submodule(name, nn.InstanceNorm2d(channels))
        elif isinstance(module, Reflection):
            generator.set_submodule(name, nn.ReflectionPad2d(1))
    return generator


def matmul_rate(device: torch.device) -> float:
    """Float32 FLOP/s of a large matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = torch.rand(size, size, device=device), torch.rand(size, size, device=device)
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def flops_per_image(width: int, blocks: int) -> float:
    """FLOP that a pass needs for an image: twice the generator, its gradients; twice the surrogate, an image's."""
    forward = []
    for model in (BaitGenerator(width, blocks), build_model(SURROGATE, 10, seed=0)):
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            model.eval()(torch.rand(1, 3, 32, 32))
        forward.append(counter.get_total_flops())
    return float(4 * forward[0] + 3 * forward[1])


def measure(train: Split, method: Bait, weights: Path, device: torch.device, repeats: int) -> dict[str, Any]:
    """Time both sides, and compare what they come to after a first pass."""

    def synchronised(work: object) -> None:
        work()  # type: ignore[operator]
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    context = Context(num_classes=10, seed=Seed(0), device=str(device), weights=weights, reporter=Reporter(silent=True))
    ours = Ours(method, train, context)
    ahead = ours.ahead(0)
    size, count = ours.batches()
    plain = PlainLoop(ours, ours.generator._network, ahead, [ours.generator_batch(0, batch) for batch in range(count)])

    def our_pass() -> None:
        with deterministic_algorithms():  # torch cannot do what the plain loop does repeatably on CUDA
            ours.one_pass(ahead)

    plain.one_pass()
    our_pass()
    difference = 255 * (EPSILON * ours.carried - plain.noise).abs()
    sides = {"plain": wall(lambda: synchronised(plain.one_pass)), "ours": wall(lambda: synchronised(our_pass))}
    timings = interleaved(sides, repeats)
    return {
        "batch": size,
        "batches": count,
        "seconds": seconds_of(timings),
        "median": {name: timing.median for name, timing in timings.items()},
        "matmul_flops": matmul_rate(device),
        "mean_difference": float(difference.mean()),
        "mean_noise": float(255 * plain.noise.abs().mean()),
    }


def main() -> int:
    """Measure and print."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--width", type=int, default=16, help="channels of the generator (default: %(default)s)")
    options.add_argument("--blocks", type=int, default=8, help="residual blocks (default: %(default)s)")
    options.add_argument("--images", type=int, default=512, help="images of a pass (default: %(default)s)")
    options.add_argument("--device", default="auto")
    chosen = options.parse_args()
    device = pick_device(chosen.device)
    train = read_cifar10(chosen.source).train.rows(0, chosen.images)
    threads = cpu_threads(1) if device.type == "cpu" else nullcontext()
    with tempfile.TemporaryDirectory() as folder, products_in(Precision.FLOAT32), threads:
        weights, path = untrained(Path(folder))
        method = Bait(prior=weights, generator_width=chosen.width, generator_blocks=chosen.blocks)
        results = measure(train, method, path, device, chosen.repeats)
    median, limit = results["median"], results["matmul_flops"]
    work = flops_per_image(chosen.width, chosen.blocks) * results["batch"] * results["batches"]
    ratios = median["plain"] / median["ours"], work / median["ours"] / limit, work / median["plain"] / limit
    table(
        f"width {chosen.width}, {chosen.blocks} blocks, {results['batches']} x {results['batch']} images, float32, "
        f"{describe_device(device)}",
        ["", "faster than the plain loop", "FLOP/s over a matrix product's, ours", "the plain loop's"],
        [["generator pass", *(f"{ratio:.2f}" for ratio in ratios)]],
    )
    print(
        f"\nnoise of the two sides after a first pass differs by {results['mean_difference']:.4f}/255 on average; "
        f"it is {results['mean_noise']:.2f}/255 itself"
    )
    print(f"seconds of a pass: plain {median['plain']:.3f}, ours {median['ours']:.3f}")
    if device.type == "cuda":
        print(f"peak device memory: {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB")
    about = {"device": describe_device(device), "torch": torch.__version__}
    finish(chosen.json, {**about, "width": chosen.width, "blocks": chosen.blocks, "flops": work, **results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
