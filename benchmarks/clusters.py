"""Unlearnable Clusters: our step of a generator against the published loop, plainly re-stated, and the device.

    python benchmarks/clusters.py [--size 32] [--images 512] [--model resnet20] [--device cpu]

Both sides pass once over the same images with the same surrogate, in turn. The plain loop takes PIL images from a
DataLoader, transforms them with torchvision, and lets autograd compute gradients of the surrogate's parameters too. On
a CPU both have one thread, which is what one generator of ours is given; the published loop trains one after another.
The limit is the device's own rate for large float32 matrix products.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import finish, interleaved, seconds_of, table, wall
from noise import matmul_rate
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from ule_datasets.base.seeds import Seed
from ule_datasets.compute.devices import describe_device, pick_device
from ule_datasets.methods.engine.clustering import Clustering
from ule_datasets.methods.engine.generators import Reflection, TranslationGenerator
from ule_datasets.methods.engine.stepwise import repeatable
from ule_datasets.methods.unlearnable_clusters import CropRule, GeneratorTraining, UnlearnableClusters, Work, Workbench
from ule_datasets.models.architectures import build_model, forward_flop
from ule_datasets.models.pretrained import build_features
from ule_datasets.models.weights import IMAGENET_MEAN, IMAGENET_STD, Weights


class Pictures(Dataset[torch.Tensor]):
    """Images one at a time, through PIL."""

    def __init__(self, images: np.ndarray, transform: transforms.Compose) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        transformed: torch.Tensor = self.transform(Image.fromarray(self.images[index]))
        return transformed


class Reflected(nn.Module):
    """A network with torch's own reflection padding in place of ours."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for name, module in list(network.named_modules()):
            if isinstance(module, Reflection):
                network.set_submodule(name, nn.ReflectionPad2d(module.width))
        self.network = network

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """What the network makes of them."""
        outputs: torch.Tensor = self.network(inputs)
        return outputs


class PlainLoop:
    """The published training of a generator, written down in the most direct way."""

    def __init__(self, work: Work, images: np.ndarray, device: torch.device, loader_workers: int) -> None:
        method, size = work.method, images.shape[1]
        crop = [transforms.RandomCrop(size, padding=4)]
        if method.augmentation is CropRule.ENLARGE:
            crop = [transforms.Resize(round(size * 8 / 7)), transforms.RandomCrop(size)]
        transform = transforms.Compose([*crop, transforms.RandomHorizontalFlip(), transforms.ToTensor()])
        pictures = Pictures(images, transform)
        self.loader = DataLoader(pictures, batch_size=method.batch_size, num_workers=loader_workers)
        self.surrogate = build_features(method.surrogate, work.weights, normalise=True).to(device)
        self.generator = Reflected(TranslationGenerator(64, 6)).to(device)
        self.input = torch.rand(1, 3, size, size, device=device)
        self.target = torch.from_numpy(work.clustering.centres[1]).to(device)
        self.optimiser = torch.optim.Adam(self.generator.parameters(), lr=1e-4, weight_decay=5e-4)
        self.criterion = nn.KLDivLoss(reduction="batchmean")
        self.device, self.epsilon = device, method.epsilon / 255

    def epoch(self) -> None:
        """Pass over all images once."""
        for images in self.loader:
            images = images.to(self.device)
            noise = self.generator(self.input).repeat(len(images), 1, 1, 1).clamp(-self.epsilon, self.epsilon)
            features = self.surrogate((images + noise).clamp(0, 1))
            anchors = self.target.repeat(len(images), 1)
            loss = self.criterion(features.log_softmax(dim=-1), anchors.softmax(dim=-1))
            self.surrogate.zero_grad()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            loss.item()


def random_weights(model: str, folder: Path) -> tuple[Weights, Path]:
    """An untrained surrogate: what it has learned makes no difference to its speed."""
    path = folder / "untrained.safetensors"
    network = build_model(model, 10, seed=0)
    save_file(network.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    weights = Weights(
        name=f"{model}@nothing",
        architecture=model,
        num_outputs=10,
        origin=f"file:{path.name}",
        sha256=digest,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    return weights, path


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", type=int, default=32, help="rows and columns of the images (default: %(default)s)")
    options.add_argument("--images", type=int, default=512, help="images of a pass (default: %(default)s)")
    options.add_argument("--batch", type=int, default=256, help="images of a step (default: %(default)s)")
    options.add_argument("--model", help="surrogate (default: resnet20, from 64 pixels on resnet50-224)")
    options.add_argument("--augmentation", type=CropRule, choices=list(CropRule), default=CropRule.ENLARGE)
    options.add_argument("--loader-workers", type=int, default=0, help="of the plain loop (default: %(default)s)")
    options.add_argument("--device", default="auto")
    options.add_argument("--repeats", type=int, default=3, help="repetitions (default: %(default)s)")
    options.add_argument("--json", type=Path, help="also write every number to this file")
    chosen = options.parse_args()
    device = pick_device(chosen.device)
    model = chosen.model or ("resnet20" if chosen.size < 64 else "resnet50-224")
    images = np.random.default_rng(0).integers(0, 256, (chosen.images, chosen.size, chosen.size, 3), dtype=np.uint8)

    def synchronise() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with tempfile.TemporaryDirectory() as folder:
        weights, path = random_weights(model, Path(folder))
        method = UnlearnableClusters(
            surrogate=weights, num_clusters=2, epochs=1_000, batch_size=chosen.batch, augmentation=chosen.augmentation
        )
        with torch.no_grad():
            probe = build_features(weights, path, normalise=True)(torch.rand(2, 3, chosen.size, chosen.size))
        members = np.zeros(len(images), dtype=np.int32)
        clustering = Clustering(members=members, centres=probe.numpy(), inertia=0.0)
        work = Work(method=method, weights=path, seed=Seed(0), device=str(device), clustering=clustering)
        plain = PlainLoop(work, images, device, chosen.loader_workers)
        ours = GeneratorTraining(Workbench(work, images), 0)

    def our_epoch() -> None:
        with repeatable(device, method.precision, one_thread=True):
            for step in range(ours.steps // method.epochs):
                ours.advance(step)
        synchronise()

    def plain_epoch() -> None:
        plain.epoch()
        synchronise()

    if device.type == "cpu":
        torch.set_num_threads(1)
    plain_epoch()
    our_epoch()
    timings = interleaved({"plain": wall(plain_epoch), "ours": wall(our_epoch)}, chosen.repeats)
    limit = matmul_rate(device)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        TranslationGenerator(64, 6)(torch.rand(1, 3, chosen.size, chosen.size))
    forward = forward_flop(model, 10, chosen.size)
    steps = ours.steps // method.epochs
    flop = 2 * forward * len(images) + 3 * counter.get_total_flops() * steps
    theirs, mine = timings["plain"].median, timings["ours"].median
    table(
        f"{model}, {len(images):,} images of {chosen.size} x {chosen.size}, {steps} steps, {describe_device(device)}",
        ["", "seconds", "FLOP/s (of what is needed) over a matrix product's"],
        [
            [name, f"{seconds:.3f}", f"{flop / seconds / limit:.2f}"]
            for name, seconds in (("plain loop", theirs), ("ours", mine))
        ],
    )
    print(f"\nfaster than the plain loop: {theirs / mine:.2f}")
    if device.type == "cuda":
        print(f"peak device memory: {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB")
    finish(
        chosen.json,
        {
            "device": describe_device(device),
            "torch": torch.__version__,
            "model": model,
            "size": chosen.size,
            "images": len(images),
            "batch": chosen.batch,
            "augmentation": chosen.augmentation,
            "loader_workers": chosen.loader_workers,
            "flop": flop,
            "matmul_flops": limit,
            "seconds": seconds_of(timings),
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
