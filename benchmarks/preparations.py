"""Preparations of a training set: ours in pieces, and the usual loop over images with Pillow and OpenCV.

    python benchmarks/preparations.py --source DIR [--images 5000]

Both sides change the same images on one core; times are of the processor, for 50,000 images. The limit is what the
libraries take for the same bytes (the same within a level for the bilateral filter).
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from common import finish, interleaved, parser, read_cifar10, seconds_of, table
from PIL import Image, ImageOps

from ule_datasets.base.seeds import Seed
from ule_datasets.countermeasures.filtering import Bilateral, Gaussian3, Mean3, Median3
from ule_datasets.countermeasures.squeezing import BitDepth, Gray, Jpeg
from ule_datasets.victims.preparation import Change

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


def main() -> int:
    """Compare, and print a table."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--images", type=int, default=5_000, help="that are changed (default: %(default)s)")
    arguments = options.parse_args()
    cv2.setNumThreads(1)
    images = np.asarray(read_cifar10(arguments.source).train.pixels()[: arguments.images])
    sides = {}
    for word, change in OURS.items():
        difference = np.abs(change(images, Seed(0)).astype(int) - one_by_one(USUAL[word], images))
        assert difference.max() <= (1 if word == "bilateral" else 0), word
        sides[word] = partial(processor, partial(change, images, Seed(0)))
        sides[f"{word}, usual"] = partial(processor, partial(one_by_one, USUAL[word], images))
    timings = interleaved(sides, arguments.repeats)
    rows = []
    for word in OURS:
        ours, usual = (timings[name].median * ALL / len(images) for name in (word, f"{word}, usual"))
        rows.append([word, f"{ours:.2f} s", f"{usual:.2f} s", f"{usual / ours:.2f}"])
    table(f"{ALL:,} images of 32 x 32, one core", ["", "ours", "one by one", "times as fast"], rows)
    print(f"\nload before and while measuring: {os.getloadavg()[0]:.1f}")
    finish(arguments.json, {"seconds": seconds_of(timings), "images": len(images)})
    return 0


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
