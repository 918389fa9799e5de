"""Robust error-minimising noise: our noise of a batch against the published loop, plainly re-stated.

    python benchmarks/robust_noise.py --source DIR [--model resnet18] [--images 128] [--device cpu]

Both sides make the noise of the same images against the same surrogate, with as many steps, samples and attack steps.
The plain loop crops and mirrors image by image, lets autograd carry the gradient through that, and runs the model as it
is trained, channels first; its parameters are frozen too. With one thread (OMP_NUM_THREADS=1) seconds are those of the
processor, so that other work on the machine counts little.
"""

from __future__ import annotations

import random
import sys
from dataclasses import replace

import torch
from common import busy, finish, interleaved, parser, read_cifar10, seconds_of, table, wall
from torch import Tensor, nn
from torch.nn import functional

from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.devices import describe_device, deterministic_algorithms, pick_device
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.shifts import REACH
from ule_datasets.methods.method import Context
from ule_datasets.methods.robust_error_minimizing import ADVERSARIAL, Defence, RobustErrorMinimizing


class PlainLoop:
    """The published loop, written down in the most direct way."""

    def __init__(self, method: RobustErrorMinimizing, train: Split, model: nn.Module, device: torch.device) -> None:
        self.method, self.model = method, model.to(device).eval().requires_grad_(False)
        self.images = torch.from_numpy(train.pixels()).permute(0, 3, 1, 2).contiguous().float().to(device)
        self.labels = torch.from_numpy(train.labels).to(device)

    def moved(self, images: Tensor) -> Tensor:
        """Each image cropped out of its padded self and perhaps mirrored, as -0.5 .. 0.5."""
        size, crops = images.shape[-1], []
        for image in functional.pad(images, (REACH,) * 4):
            down, across = random.randint(0, 2 * REACH), random.randint(0, 2 * REACH)
            crop = image[:, down : down + size, across : across + size]
            crops.append(crop.flip(2) if random.random() < 0.5 else crop)
        return torch.stack(crops) / 255 - 0.5

    def attacked(self, shown: Tensor) -> Tensor:
        """Ascent from a random start."""
        radius, step = self.method.attack_epsilon / 255, self.method.attack_step_size / 255
        attacked = (shown + (2 * torch.rand_like(shown) - 1) * radius).clamp(-0.5, 0.5)
        for _ in range(self.method.attack_steps):
            attacked.requires_grad_(True)
            loss = functional.cross_entropy(self.model(attacked), self.labels)
            (gradient,) = torch.autograd.grad(loss, attacked)
            moved = attacked.detach() + step * gradient.sign() - shown
            attacked = (shown + moved.clamp(-radius, radius)).clamp(-0.5, 0.5)
        return attacked

    def defended(self) -> Tensor:
        """The noise of all images, in whole grey levels."""
        bound, step = self.method.epsilon / 255, self.method.step_size / 255
        noise = (2 * torch.rand_like(self.images) - 1) * bound
        for _ in range(self.method.num_steps):
            noise = noise.detach().requires_grad_(True)
            for _ in range(self.method.num_samples):
                shown = self.moved((self.images + 255 * noise).clamp(0, 255))
                attacked = self.attacked(shown.detach()).requires_grad_(True)
                loss = functional.cross_entropy(self.model(attacked), self.labels)
                (gradient,) = torch.autograd.grad(loss, attacked)
                torch.autograd.backward((shown * gradient).sum())
            assert noise.grad is not None
            noise = (noise.detach() - step * noise.grad.sign()).clamp(-bound, bound)
        return (255 * noise).round().to(torch.int8)

    def loss(self, levels: Tensor) -> float:
        """Mean loss of the images with some noise, [N, C, H, W], on a shift and an attack of its own."""
        shown = self.moved((self.images + levels).clamp(0, 255))
        return float(functional.cross_entropy(self.model(self.attacked(shown)), self.labels))


def main() -> int:
    """Measure and print."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--model", default="resnet18", help="surrogate (default: %(default)s)")
    options.add_argument("--images", type=int, default=128, help="images of the batch (default: %(default)s)")
    options.add_argument("--steps", type=int, default=1, help="steps of the noise (default: %(default)s)")
    options.add_argument("--samples", type=int, default=5, help="samples of a step (default: %(default)s)")
    options.add_argument("--attack-steps", type=int, default=10, help="of each attack (default: %(default)s)")
    options.add_argument("--device", default="auto")
    chosen = options.parse_args()
    device = pick_device(chosen.device)
    train = read_cifar10(chosen.source).train.rows(0, chosen.images)
    settings = replace(ADVERSARIAL, model=chosen.model)
    method = RobustErrorMinimizing(
        surrogate=settings, num_steps=chosen.steps, num_samples=chosen.samples, attack_steps=chosen.attack_steps
    )
    context = Context(num_classes=10, seed=Seed(0), device=str(device), reporter=Reporter(silent=True))
    ours, rows = Defence(method, train, context), torch.arange(len(train), device=device)
    plain = PlainLoop(method, train, ours.built()[1], device)  # type: ignore[index]

    def synchronised(work: object) -> None:
        work()  # type: ignore[operator]
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def our_noise() -> Tensor:
        return ours.defended(ours.surrogate.frozen(method.precision), rows, "noise", 0)

    with deterministic_algorithms():
        losses = {
            "no noise": plain.loss(torch.zeros_like(plain.images)),
            "the plain loop's": plain.loss(plain.defended()),
            "ours": plain.loss(our_noise().permute(0, 3, 1, 2)),
        }
        timed = busy if device.type == "cpu" and torch.get_num_threads() == 1 else wall
        sides = {"plain": timed(lambda: synchronised(plain.defended)), "ours": timed(lambda: synchronised(our_noise))}
        timings = interleaved(sides, chosen.repeats)
    ratio = timings["plain"].median / timings["ours"].median
    table(
        f"{chosen.model}, {len(train):,} images, {chosen.steps} x {chosen.samples} x ({chosen.attack_steps} + 1) "
        f"gradients of each, {describe_device(device)}",
        ["", "faster than the plain loop"],
        [["noise of a batch", f"{ratio:.2f}"]],
    )
    print(f"\nloss of attacked images: {', '.join(f'{name} {loss:.6f}' for name, loss in losses.items())}")
    finish(
        chosen.json,
        {
            "device": describe_device(device),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "model": chosen.model,
            "images": len(train),
            "gradients": [chosen.steps, chosen.samples, chosen.attack_steps + 1],
            "losses": losses,
            "seconds": seconds_of(timings),
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
