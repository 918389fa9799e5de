"""Scikit-learn's handwritten digits: a small set of real images that needs no download.

They are 8 x 8 with 17 grey levels; here they are 32 x 32 RGB, interpolated bilinearly in exact integers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ule_datasets.data.split import sample_digest
from ule_datasets.sources.forms import Form, RawSample
from ule_datasets.sources.spec import EMBEDDED, Licence, SourceSpec
from ule_datasets.sources.splits import choose
from ule_datasets.sources.wanted import ANYTHING, Wanted

SCALE = 4
"""From 8 x 8 to 32 x 32."""
TEST_SHARE = 5
"""One in five digits of each class is a test image."""

DIGITS = SourceSpec(
    name="digits",
    title="Handwritten digits (scikit-learn)",
    url="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    class_names=tuple(str(digit) for digit in range(10)),
    digests=(
        ("train", "2142e8f8bce5f72c641c0143a4251eaea011f551595dd45654718086045e456e"),
        ("test", "6a8e612e0bfbabaa4fe5a2b7bac8d4b9fe16480feb2f2758f09fa257d1e0097c"),
    ),
    num_images=(("train", 1_437), ("test", 360)),
    default_location=EMBEDDED,
    flippable=False,
    licence=Licence(
        hub_id="cc-by-4.0",
        text="The digits are distributed by the UCI Machine Learning Repository under CC BY 4.0.",
        redistributable=True,
    ),
    citation="alpaydin1998digits",
)


@dataclass(frozen=True, slots=True)
class Digits:
    """One split of the digits, upsampled to 32 x 32 RGB."""

    split: str

    def samples(self) -> Iterator[RawSample]:
        """The split: within each class, every fifth digit in order of a hash of its pixels is a test image."""
        from sklearn.datasets import load_digits

        raw = load_digits()
        images = np.repeat(enlarge(raw.images.astype(np.int64))[..., None], 3, axis=3)
        labels = raw.target.astype(int).tolist()
        digests = [sample_digest(image, label) for image, label in zip(images, labels, strict=True)]
        ranked = sorted(range(len(labels)), key=lambda i: (labels[i], hashlib.sha256(digests[i]).digest()))
        position = {index: rank for rank, index in enumerate(ranked)}
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            if (position[index] % TEST_SHARE == 0) == (self.split == "test"):
                yield RawSample(image, label, f"digit {index}")


def enlarge(levels: np.ndarray) -> np.ndarray:
    """Four times as large (uint8, [N, 4 H, 4 W]) from levels 0 .. 16 (int64, [N, H, W]), bilinearly."""
    for axis in (1, 2):
        size = levels.shape[axis]
        eighths = 2 * np.arange(SCALE * size) + 1 - SCALE  # centre of each new pixel, in eighths of an old one
        below = np.clip(eighths // 8, 0, size - 1)
        above = np.clip(eighths // 8 + 1, 0, size - 1)
        shape = [1, 1, 1]
        shape[axis] = -1
        weight = (eighths % 8).reshape(shape)
        levels = levels.take(below, axis) * (8 - weight) + levels.take(above, axis) * weight
    return ((255 * levels + 512) // 1024).astype(np.uint8)


def find(wanted: Wanted = ANYTHING) -> Form:
    """Both splits."""
    splits = {name: (Digits(name),) for name in ("train", "test")}
    chosen = choose(splits, "digits", wanted.test_split, lambda _: True)
    return Form("the embedded digits", chosen.splits, DIGITS.class_names)
