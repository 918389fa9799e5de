"""First and second moments of the pixels of each class, as exact integers.

They are sums, so they can be taken in any order, on any number of machines, and added up: the whole
One-Pixel-Shortcut search needs one pass over the images and nothing else.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

IMAGES_PER_BLOCK = 256
"""Products of two bytes are below 2**16, so float32 sums of 256 of them are below 2**24: exact."""


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """Pixel moments per class and position; additive over disjoint sets of images."""

    count: np.ndarray
    """int64, [K]: images per class."""
    sums: np.ndarray
    """int64, [K, H, W, 3]: sum of R, G, B."""
    products: np.ndarray
    """int64, [K, H, W, 6]: sum of RR, GG, BB, RG, GB, RB."""

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.sums + other.sums, self.products + other.products)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.count - other.count, self.sums - other.sums, self.products - other.products)


def moments_of(images: np.ndarray, labels: np.ndarray, num_classes: int, *, workers: int = 1) -> Moments:
    """Moments of uint8 images [N, H, W, 3] with labels [N] in ``range(num_classes)``.

    ``workers`` threads take classes in turn; the result does not depend on their number.
    """
    height, width, channels = images.shape[1:]
    assert channels == 3
    flat = images.reshape(len(images), height * width * channels)
    members = [np.flatnonzero(labels == number) for number in range(num_classes)]
    with ThreadPoolExecutor(workers) as pool:
        per_class = list(pool.map(lambda indices: _class_moments(flat, indices), members))
    grid = (num_classes, height, width)
    return Moments(
        count=np.array([len(indices) for indices in members], dtype=np.int64),
        sums=np.stack([sums for sums, _ in per_class]).reshape(*grid, 3),
        products=np.stack([products for _, products in per_class]).reshape(*grid, 6),
    )


def _class_moments(flat: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums [H*W*3] and products [H*W, 6] over some rows of ``flat`` (uint8, [N, H*W*3]).

    Channels stay interleaved, so that every operation runs over contiguous memory: the product with the
    next value is RG and GB (and one that is not needed), with the next but one it is RB.
    """
    size = flat.shape[1]
    totals = [np.zeros(size, dtype=np.int64) for _ in range(4)]
    block = np.zeros((IMAGES_PER_BLOCK, size + 2), dtype=np.float32)
    ones = np.ones(IMAGES_PER_BLOCK, dtype=np.float32)
    for start in range(0, len(indices), IMAGES_PER_BLOCK):
        rows = indices[start : start + IMAGES_PER_BLOCK]
        part = block[: len(rows)]
        part[:, :size] = flat[rows]
        pixels = part[:, :size]
        totals[0] += (ones[: len(rows)] @ pixels).astype(np.int64)
        for shift in range(3):
            totals[1 + shift] += np.einsum("ij,ij->j", pixels, part[:, shift : size + shift]).astype(np.int64)
    squares, next_one, next_but_one = (total.reshape(-1, 3) for total in totals[1:])
    products = np.concatenate([squares, next_one[:, :2], next_but_one[:, :1]], axis=1)
    return totals[0], products
