"""First and second moments of the pixels of each class, as exact integers.

They are sums, so they can be taken in any order, on any number of machines, and added up: the whole
One-Pixel-Shortcut search needs one pass over the images and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

IMAGES_PER_BLOCK = 256
"""Products of two bytes are below 2**16, so float32 sums of 256 of them are below 2**24, and uint16 sums of 256
bytes do not overflow: everything is exact."""


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """Pixel moments per class and position; additive over disjoint sets of images."""

    count: np.ndarray
    """int64, [K]: images per class."""
    sums: np.ndarray
    """int64, [K, H, W, 3]: sum of R, G, B."""
    squares: np.ndarray
    """int64, [K, H, W, 3]: sum of RR, GG, BB."""
    cross: np.ndarray | None
    """int64, [K, H, W, 3]: sum of RG, GB, RB; ``None`` where they were not asked for."""

    def __add__(self, other: Moments) -> Moments:
        return self._combined(other, np.add)

    def __sub__(self, other: Moments) -> Moments:
        return self._combined(other, np.subtract)

    def _combined(self, other: Moments, operation: Callable[..., np.ndarray]) -> Moments:
        assert (self.cross is None) == (other.cross is None)
        return Moments(
            operation(self.count, other.count),
            operation(self.sums, other.sums),
            operation(self.squares, other.squares),
            None if self.cross is None else operation(self.cross, other.cross),
        )


def moments_of(
    images: np.ndarray, labels: np.ndarray, num_classes: int, *, cross: bool = True, workers: int = 1
) -> Moments:
    """Moments of uint8 images [N, H, W, 3] with labels [N] in ``range(num_classes)``.

    Args:
        images: the images.
        labels: their classes.
        num_classes: how many classes there are; some may be empty.
        cross: whether to take the products of different channels too, which costs as much again.
        workers: threads that take classes in turn; the result does not depend on their number.
    """
    height, width, channels = images.shape[1:]
    assert channels == 3
    flat = images.reshape(len(images), height * width * channels)
    members = [np.flatnonzero(labels == number) for number in range(num_classes)]
    with ThreadPoolExecutor(workers) as pool:
        per_class = list(pool.map(lambda indices: _class_moments(flat, indices, 3 if cross else 1), members))
    sums, squares, next_one, next_but_one = (
        np.stack([totals[index] for totals in per_class]).reshape(num_classes, height, width, 3) for index in range(4)
    )
    return Moments(
        count=np.array([len(indices) for indices in members], dtype=np.int64),
        sums=sums,
        squares=squares,
        cross=np.concatenate([next_one[..., :2], next_but_one[..., :1]], axis=-1) if cross else None,
    )


def _class_moments(flat: np.ndarray, indices: np.ndarray, num_shifts: int) -> np.ndarray:
    """Sums over some rows of ``flat`` (uint8, [N, D]): of the values, and of their products with later ones.

    Channels stay interleaved, so that every operation runs over contiguous memory: the product with the
    value itself is RR, GG, BB, with the next value RG and GB (and one that is not needed), with the next but
    one RB. Returns int64 [4, D]; products with later values than asked for are zero.
    """
    size = flat.shape[1]
    totals = np.zeros((4, size), dtype=np.int64)
    raw = np.empty((IMAGES_PER_BLOCK, size), dtype=np.uint8)
    block = np.zeros((IMAGES_PER_BLOCK, size + 2), dtype=np.float32)
    for start in range(0, len(indices), IMAGES_PER_BLOCK):
        rows = indices[start : start + IMAGES_PER_BLOCK]
        part = raw[: len(rows)]
        np.take(flat, rows, axis=0, out=part, mode="clip")  # "clip" writes to ``out`` directly
        totals[0] += np.add.reduce(part, axis=0, dtype=np.uint16)
        values = block[: len(rows)]
        values[:, :size] = part
        for shift in range(num_shifts):
            products = np.einsum("ij,ij->j", values[:, :size], values[:, shift : size + shift])
            totals[1 + shift] += products.astype(np.int64)
    return totals
