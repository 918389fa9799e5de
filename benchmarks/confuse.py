"""DeepConfuse: our trial against the published loop, plainly re-stated, on the same device.

    python benchmarks/confuse.py --source DIR [--width 64] [--classifier vgg11-neck2] [--images 1024] [--device cpu]

Both sides start from the same generators and the same classifier, and take the same batches of 256, in turn: the steps
of a trial of several passes, without the test that follows. The plain loop makes a new module for every virtual step,
runs the generator that stays as it is on every batch, with a graph, so that its gradients are computed and thrown away,
and uses torch's own layers in the usual order of memory. A second row has the plain loop without that graph. Ours
runs the generator once for all passes. On a CPU everything runs in one thread, as a craft does, and the
processor's time counts.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from common import finish, interleaved, parser, read_cifar10, seconds_of, table, wall
from torch import Tensor, nn
from torch.nn import functional

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
from ule_datasets.methods.deepconfuse import DeepConfuse, Trials
from ule_datasets.methods.engine.generators import ConfusingGenerator
from ule_datasets.methods.method import Context
from ule_datasets.models.architectures import build_model
from ule_datasets.victims.augmentation import to_float


class PlainGenerator(nn.Module):
    """The same blocks, enlarged by torch's own interpolation."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        assert isinstance(ours, ConfusingGenerator)
        self.blocks = copy.deepcopy(ours)
        self.larger = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] to the same shape."""
        maps, passed = self.blocks.down[0](images), []
        for block in self.blocks.down[1:]:
            passed.append(maps)
            maps = block(functional.avg_pool2d(maps, 2))
        for block in self.blocks.up:
            maps = block(torch.cat([self.larger(maps), passed.pop()], dim=1))
        return torch.tanh(self.blocks.last(maps))


class PlainLoop:
    """The published trial, written down in the most direct way."""

    def __init__(self, ours: Trials, batches: list[tuple[Tensor, Tensor]], *, graph: bool) -> None:
        self.method, self.bound, self.batches, self.graph = ours.method, ours.bound, batches, graph
        self.num_classes, self.device = ours.context.num_classes, ours.device
        usual = partial(nn.Module.to, memory_format=torch.contiguous_format)
        self.fixed = usual(PlainGenerator(ours.frozen)).eval()
        self.learner = usual(PlainGenerator(ours.learner.network)).train()
        model = ours.classifier.parts()["model"]
        assert isinstance(model, nn.Module)
        self.classifier = usual(copy.deepcopy(model)).train()
        self.adam = torch.optim.Adam(self.learner.parameters(), lr=self.method.generator_rate)
        self.sgd = torch.optim.SGD(self.classifier.parameters(), lr=self.method.learning_rate)

    def shown(self, generator: nn.Module, images: Tensor) -> Tensor:
        """Images with a generator's noise."""
        return torch.clamp(images + self.bound * generator(images), 0, 1)

    def steps(self) -> None:
        """All batches."""
        for images, labels in self.batches:
            self.virtual_step(images, labels)
            with nullcontext() if self.graph else torch.no_grad():
                shown = self.shown(self.fixed, images)
            self.sgd.zero_grad()
            torch.autograd.backward(functional.cross_entropy(self.classifier(shown), labels))
            self.sgd.step()

    def virtual_step(self, images: Tensor, labels: Tensor) -> None:
        """The learning generator's step."""
        ahead = build_model(self.method.classifier, self.num_classes, seed=0).to(self.device)
        loss = functional.cross_entropy(self.classifier(self.shown(self.learner, images)), labels)
        parameters = dict(self.classifier.named_parameters())
        gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
            place, _, own = name.rpartition(".")
            module = ahead.get_submodule(place)
            delattr(module, own)
            setattr(module, own, parameter - self.method.learning_rate * gradient)
        self.adam.zero_grad()
        torch.autograd.backward(-functional.cross_entropy(ahead(images), labels))
        self.adam.step()


def measure(train: Split, method: DeepConfuse, device: torch.device, repeats: int) -> dict[str, Any]:
    """Time all sides, and compare what ours and the plain loop come to after the first steps."""
    context = Context(num_classes=10, seed=Seed(0), device=str(device), reporter=Reporter(silent=True))
    ours = Trials(method, train, context)
    ours.done = 1
    places = [ours.places("order", step) for step in range(method.epochs * len(ours.batches))]
    rows = [ours.learned[some] for some in places]
    batches = [(to_float(ours.images[some]).contiguous(), ours.labels[some]) for some in rows]
    plain, without = (PlainLoop(ours, batches, graph=graph) for graph in (True, False))

    def our_steps() -> None:
        ours._shown = None
        with deterministic_algorithms():  # torch cannot do what the plain loop does repeatably on CUDA
            for step in range(len(places)):
                ours.learn(step)

    def timed(work: Callable[[], None]) -> Callable[[], float]:
        def seconds() -> float:
            # Of the processor: one thread does it all, and other programs may be at work.
            started = time.process_time()
            work()
            return time.process_time() - started

        def whole() -> None:
            work()
            torch.cuda.synchronize(device)

        return wall(whole) if device.type == "cuda" else seconds

    plain.steps()
    without.steps()
    our_steps()
    pairs = zip(plain.learner.parameters(), ours.learner.network.parameters(), strict=True)
    difference = max((one - other).abs().max().item() for one, other in pairs)
    sides = {"plain": timed(plain.steps), "without graph": timed(without.steps), "ours": timed(our_steps)}
    timings = interleaved(sides, repeats)
    return {
        "images": sum(len(some) for some in rows),
        "seconds": seconds_of(timings),
        "median": {name: timing.median for name, timing in timings.items()},
        "largest_difference": difference,
    }


def main() -> int:
    """Measure and print."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--width", type=int, default=64, help="channels of the generator (default: %(default)s)")
    options.add_argument("--classifier", default="vgg11-neck2", help="which is trained (default: %(default)s)")
    options.add_argument("--images", type=int, default=1024, help="images of a pass and a ninth (default: %(default)s)")
    options.add_argument("--epochs", type=int, default=20, help="passes of a trial (default: %(default)s)")
    options.add_argument("--batch", type=int, default=256, help="images of a step (default: %(default)s)")
    options.add_argument("--device", default="auto")
    chosen = options.parse_args()
    device = pick_device(chosen.device)
    train = read_cifar10(chosen.source).train.rows(0, chosen.images)
    method = DeepConfuse(
        classifier=chosen.classifier,
        generator_width=chosen.width,
        epochs=chosen.epochs,
        batch_size=chosen.batch,
    )
    with products_in(Precision.FLOAT32), cpu_threads(1) if device.type == "cpu" else nullcontext():
        results = measure(train, method, device, chosen.repeats)
    median = results["median"]
    table(
        f"width {chosen.width}, {chosen.classifier}, {chosen.epochs} passes, float32, {describe_device(device)}",
        ["", "milliseconds an image", "times as fast as the plain loop"],
        [
            [name, f"{1000 * seconds / results['images']:.3f}", f"{median['plain'] / seconds:.2f}"]
            for name, seconds in median.items()
        ],
    )
    print(f"\nparameters of the learning generators differ by {results['largest_difference']:.1e} at most")
    about = {"device": describe_device(device), "torch": torch.__version__}
    finish(chosen.json, {**about, "width": chosen.width, "classifier": chosen.classifier, **results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
