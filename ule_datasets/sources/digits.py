"""Scikit-learn's handwritten digits: a small set of real images that needs no download."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ule_datasets.recipe import Licence, SourceSpec
from ule_datasets.sources.forms import Form, RawSample
from ule_datasets.split import sample_digest

SCALE = 4
"""Each of the 8 x 8 pixels becomes a 4 x 4 block."""
TEST_SHARE = 5
"""One in five digits of each class is a test image."""

DIGITS = SourceSpec(
    name="digits",
    title="Optical Recognition of Handwritten Digits (scikit-learn's copy of the UCI test set)",
    url="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    class_names=tuple(str(digit) for digit in range(10)),
    digests=(
        ("train", "5fca31ee3d76e9b39a5cd156d4ba41d7f1248f3b837e2d382267e10c72bf9070"),
        ("test", "9acee6c20090948e1e78e526e4be383953b0d50d95c1fbb8e839f2f5f5a2b7f4"),
    ),
    num_images=(("train", 1_437), ("test", 360)),
    default_location="digits",
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
        grey = ((raw.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)
        images = np.repeat(grey.repeat(SCALE, axis=1).repeat(SCALE, axis=2)[..., None], 3, axis=3)
        labels = raw.target.astype(int).tolist()
        digests = [sample_digest(image, label) for image, label in zip(images, labels, strict=True)]
        ranked = sorted(range(len(labels)), key=lambda i: (labels[i], hashlib.sha256(digests[i]).digest()))
        position = {index: rank for rank, index in enumerate(ranked)}
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            if (position[index] % TEST_SHARE == 0) == (self.split == "test"):
                yield RawSample(image, label, f"digit {index}")


def find() -> Form:
    """Both splits."""
    return Form("the embedded digits", {s: (Digits(s),) for s in ("train", "test")}, DIGITS.class_names)
