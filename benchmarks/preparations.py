"""Preparations of a training set: ours in pieces, and the usual loop over images with Pillow, OpenCV and torch.

    python benchmarks/preparations.py --source DIR [--images 5000]

Both sides change the same images on one core; times are of the processor, for 50,000 images. The limit is what the
libraries take for the same bytes (the same within a level for the bilateral filter). What ``op`` learns is compared
with a layer and an optimiser of torch, its projection of batches of 128 with one of each image.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from common import finish, interleaved, parser, read_cifar10, seconds_of, table
from PIL import Image, ImageOps

from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.countermeasures.filtering import Bilateral, Gaussian3, Mean3, Median3
from ule_datasets.countermeasures.projection import OrthogonalProjection
from ule_datasets.countermeasures.squeezing import BitDepth, Gray, Jpeg
from ule_datasets.victims.preparation import Change, PieceFiles, Preparation
from ule_datasets.victims.seen import Seen

ALL = 50_000
OURS: dict[str, Change] = {
    kind.word: kind.changed for kind in (Gray(), BitDepth(), Mean3(), Gaussian3(), Median3(), Bilateral(), Jpeg())
}
USUAL: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gray": lambda image: np.asarray(Image.fromarray(image).convert("L").convert("RGB")),
    "bdr": lambda image: np.asarray(ImageOps.posterize(Image.fromarray(image), 2)),
    "mean3": lambda image: np.asarray(cv2.blur(image, (3, 3))),
    "gaussian3": lambda image: np.asarray(cv2.GaussianBlur(image, (3, 3), 0)),
    "median3": lambda image: np.asarray(cv2.medianBlur(image, 3)),
    "bilateral": lambda image: np.asarray(cv2.bilateralFilter(image, 9, 75, 75)),
    "jpeg": lambda image: through_jpeg(image),
}
LEARNED, PROJECTED = "op, what it learns", "op, in each epoch"
PREPARATION = Preparation(pieces=PieceFiles(Path("none"), (32, 32, 3)), seed=Seed(0), reporter=Reporter(silent=True))


def main() -> int:
    """Compare, and print a table."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--images", type=int, default=5_000, help="that are changed (default: %(default)s)")
    arguments = options.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    train = read_cifar10(arguments.source).train
    images, labels = np.asarray(train.pixels()[: arguments.images]), train.labels[: arguments.images]
    sides: dict[str, Callable[[], float]] = {}
    for word, change in OURS.items():
        difference = np.abs(change(images, Seed(0)).astype(int) - one_by_one(USUAL[word], images))
        assert difference.max() <= (1 if word == "bilateral" else 0), word
        sides[word] = partial(processor, partial(change, images, Seed(0)))
        sides[f"{word}, usual"] = partial(processor, partial(one_by_one, USUAL[word], images))
    sides |= projection(images, labels)
    timings = interleaved(sides, arguments.repeats)
    rows = []
    for word in [*OURS, LEARNED, PROJECTED]:
        ours, usual = (timings[name].median * ALL / len(images) for name in (word, f"{word}, usual"))
        rows.append([word, f"{ours:.2f} s", f"{usual:.2f} s", f"{usual / ours:.2f}"])
    table(f"{ALL:,} images of 32 x 32, one core", ["", "ours", "one by one", "times as fast"], rows)
    print(f"\nload before and while measuring: {os.getloadavg()[0]:.1f}")
    finish(arguments.json, {"seconds": seconds_of(timings), "images": len(images)})
    return 0


def projection(images: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], float]]:
    """Both sides of what ``op`` learns once, and of what it does in every epoch."""
    learn = partial(OrthogonalProjection().learn, images, labels, PREPARATION)
    by_layer = partial(learned_by_layer, images, labels)
    directions, others = (found().reshape(-1, images[0].size) for found in (learn, by_layer))
    assert np.abs(directions.T @ directions - others.T @ others).max() < 1e-3
    seen = Seen(torch.from_numpy(images.copy()), parse_strategy("op"), [learn()])
    batches = torch.split(torch.arange(len(images)), 128)
    in_batches, single = partial(all_of, seen, batches), partial(each_projected, images, directions)
    assert np.abs(in_batches().numpy() - single()).max() < 0.1
    sides: dict[str, Callable[[], object]] = {
        LEARNED: learn,
        f"{LEARNED}, usual": by_layer,
        PROJECTED: in_batches,
        f"{PROJECTED}, usual": single,
    }
    return {name: partial(processor, function) for name, function in sides.items()}


def learned_by_layer(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same directions by torch's layer, optimiser and schedule, of floats that are all in memory."""
    inputs, wanted = torch.from_numpy(images).float().div(255).flatten(1), torch.from_numpy(labels)
    inputs -= inputs.mean(dim=0)
    layer = torch.nn.Linear(inputs.shape[1], int(labels.max()) + 1, bias=False)
    torch.nn.init.zeros_(layer.weight)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [10, 15])
    generator = torch.Generator().manual_seed(PREPARATION.seed.integer32("order", "op"))
    order = torch.randperm(len(images), generator=generator)
    for _ in range(20):
        for rows in torch.split(order, 1024):
            optimiser.zero_grad()
            torch.autograd.backward(torch.nn.functional.cross_entropy(layer(inputs[rows]), wanted[rows]))
            optimiser.step()
        schedule.step()
    weights = layer.weight.detach().double()
    basis, strengths, _ = torch.linalg.svd((weights / weights.norm(dim=1, keepdim=True)).T, full_matrices=False)
    directions: np.ndarray = basis[:, strengths > 1e-3].T.float().numpy()
    return directions


def all_of(seen: Seen, batches: Sequence[torch.Tensor]) -> torch.Tensor:
    """Every image, as an epoch sees it."""
    return torch.cat([seen[rows] for rows in batches])


def each_projected(images: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """One image after another."""
    flat = (image.reshape(-1).astype(np.float32) for image in images)
    return np.stack([values - directions.T @ (directions @ values) for values in flat]).reshape(images.shape)


def processor(function: Callable[[], object]) -> float:
    """Seconds of the processor that it takes: other programs are at work on most machines."""
    started = time.process_time()
    function()
    return time.process_time() - started


def one_by_one(change: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """As a loop over a dataset does it."""
    return np.stack([change(image) for image in images])


def through_jpeg(image: np.ndarray) -> np.ndarray:
    """Written and read again."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=10)
    return np.asarray(Image.open(file))


if __name__ == "__main__":
    sys.exit(main())
