"""Error-minimising noise: our noise pass and model phase against the published loop, plainly re-stated, and the device.

    python benchmarks/noise.py --source DIR [--model resnet18] [--images 512] [--device cpu]

Both sides work on the same images with the same surrogate weights and number of steps, in turn. The plain loop takes
batches of 512 from a DataLoader, collects and stores the noise image by image through NumPy, and lets autograd compute
parameter gradients in the noise phase too. The limit is the device's own rate for large float32 matrix products.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from common import finish, interleaved, parser, read_cifar10, seconds_of, table, wall
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.devices import describe_device, deterministic_algorithms, pick_device, products_in
from ule_datasets.compute.precision import Precision
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.methods.error_minimizing import ErrorMinimizing, SampleWise
from ule_datasets.methods.method import Context
from ule_datasets.models.architectures import build_model

EPSILON, STEP = 8 / 255, 0.8 / 255


class Images(Dataset[tuple[torch.Tensor, int]]):
    """Images and labels one at a time, as floats, channels first."""

    def __init__(self, train: Split) -> None:
        self.train = train

    def __len__(self) -> int:
        return len(self.train)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = torch.from_numpy(self.train.images[index].transpose(2, 0, 1).copy()).float().div(255)
        return image, int(self.train.labels[index])


class PlainLoop:
    """The published alternation, written down in the most direct way."""

    def __init__(self, train: Split, settings: SurrogateSettings, num_steps: int, device: torch.device) -> None:
        self.device, self.num_steps, self.settings = device, num_steps, settings
        self.model = build_model(settings.model, 10, seed=0).to(device)
        self.optimiser = torch.optim.SGD(
            self.model.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.loader = DataLoader(Images(train), batch_size=settings.batch_size, shuffle=False)
        self.noise = np.zeros((len(train), 3, *train.images.shape[1:3]), dtype=np.float32)

    def collected(self, first: int, count: int) -> torch.Tensor:
        """The noise of a batch, image by image."""
        return torch.stack([torch.from_numpy(self.noise[first + k]) for k in range(count)]).to(self.device)

    def model_phase(self, num_batches: int) -> None:
        """Train on the first batches."""
        self.model.train()
        for index, (images, labels) in enumerate(self.loader):
            if index == num_batches:
                break
            images, labels = images.to(self.device), labels.to(self.device)
            self.optimiser.zero_grad()
            loss = functional.cross_entropy(
                self.model(images + self.collected(index * self.settings.batch_size, len(images))), labels
            )
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip or float("inf"))
            self.optimiser.step()

    def noise_pass(self) -> None:
        """Optimise the noise of all images."""
        self.model.eval()
        first = 0
        for images, labels in self.loader:
            images, labels = images.to(self.device), labels.to(self.device)
            shown = (images + self.collected(first, len(images))).clamp(0, 1)
            noise = torch.zeros_like(images)
            for _ in range(self.num_steps):
                shown = shown.detach().requires_grad_(True)
                self.optimiser.zero_grad()
                torch.autograd.backward(functional.cross_entropy(self.model(shown), labels))
                assert shown.grad is not None
                noise = torch.clamp(shown.detach() - STEP * shown.grad.sign() - images, -EPSILON, EPSILON)
                shown = torch.clamp(images + noise, 0, 1)
            for k in range(len(images)):
                self.noise[first + k] = noise[k].cpu().numpy()
            first += len(images)


class Ours(SampleWise):
    """One phase of ours at a time."""

    def noise_pass(self) -> None:
        """Optimise the noise of all images."""
        frozen = self.surrogate.frozen(self.method.precision)
        for chunk in self.chunks():
            self.improve(frozen, chunk)

    def model_phase(self, num_batches: int) -> None:
        """Train on the first batches."""
        for step in range(num_batches):
            self.train(step)


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


def forward_flops(name: str) -> float:
    """FLOP of one image's forward pass."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        build_model(name, 10, seed=0).eval()(torch.rand(1, 3, 32, 32))
    return float(counter.get_total_flops())


def main() -> int:
    """Measure and print."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--model", default="resnet18", help="surrogate (default: %(default)s)")
    options.add_argument("--images", type=int, default=512, help="images of a noise pass (default: %(default)s)")
    options.add_argument("--steps", type=int, default=20, help="steps of a noise pass (default: %(default)s)")
    options.add_argument("--batches", type=int, default=1, help="batches of a model phase (default: %(default)s)")
    options.add_argument("--precision", type=Precision, default=Precision.FLOAT32, choices=list(Precision))
    options.add_argument("--device", default="auto")
    chosen = options.parse_args()
    device = pick_device(chosen.device)
    train = read_cifar10(chosen.source).train.rows(0, chosen.images)

    def synchronised(work: object) -> None:
        work()  # type: ignore[operator]
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    settings = SurrogateSettings(model=chosen.model)
    method = ErrorMinimizing(num_steps=chosen.steps, surrogate=settings, precision=chosen.precision)
    context = Context(num_classes=10, seed=Seed(0), device=str(device), reporter=Reporter(silent=True))
    plain, ours = PlainLoop(train, settings, chosen.steps, device), Ours(method, train, context)
    plain.model.load_state_dict(ours.surrogate.parts()["model"].state_dict())
    with deterministic_algorithms(), products_in(chosen.precision):
        plain.noise_pass()
        ours.noise_pass()
        units = ours.noise.cpu().numpy() / ours.grid.per_level
        agreement = np.mean(np.abs(units - plain.noise.transpose(0, 2, 3, 1) * 255) < 0.01)
        sides = {
            "plain noise": wall(lambda: synchronised(plain.noise_pass)),
            "our noise": wall(lambda: synchronised(ours.noise_pass)),
            "plain model": wall(lambda: synchronised(lambda: plain.model_phase(chosen.batches))),
            "our model": wall(lambda: synchronised(lambda: ours.model_phase(chosen.batches))),
        }
        timings = interleaved(sides, chosen.repeats)
        limit = matmul_rate(device)
    forward = forward_flops(chosen.model)
    noise = forward * 2 * chosen.steps * len(train)
    trained = forward * 3 * settings.batch_size * chosen.batches
    rows = []
    for name, work in (("noise", noise), ("model", trained)):
        theirs, mine = timings[f"plain {name}"].median, timings[f"our {name}"].median
        rows.append(
            [f"{name} phase", f"{theirs / mine:.2f}", f"{work / mine / limit:.2f}", f"{work / theirs / limit:.2f}"]
        )
    table(
        f"{chosen.model}, {len(train):,} images, {chosen.steps} steps, {chosen.precision}, {describe_device(device)}",
        ["", "faster than the plain loop", "FLOP/s over a matrix product's, ours", "the plain loop's"],
        rows,
    )
    print(f"\nnoise values equal on both sides after a pass from the same weights: {100 * agreement:.3f} %")
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
            "precision": chosen.precision,
            "matmul_flops": limit,
            "equal_noise_values": float(agreement),
            "seconds": seconds_of(timings),
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
