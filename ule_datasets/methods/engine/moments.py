"""First and second moments of the pixels of each class, as exact integers.

They are sums, so they can be taken in any order, on any number of machines, and added up: the whole
One-Pixel-Shortcut search needs one pass over the images and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial, reduce
from itertools import groupby, pairwise
from operator import add, itemgetter

import numpy as np

from ule_datasets.compute.executor import Executor
from ule_datasets.data.spool import Images, view

IMAGES_PER_BLOCK = 256
"""Products of two bytes are below 2**16, so float32 sums of 256 of them are below 2**24, and uint16 sums of 256
bytes do not overflow: everything is exact."""
VALUES_PER_BLOCK = 2**22
"""Fewer images where they are large."""
VALUES_PER_TILE = 2**20
"""Products are taken of so many float32 values at a time, 4 MiB, which stay in the cache."""
IMAGES_PER_TASK = 8192
"""Images of one class that a worker takes at a time."""
AHEAD = 4
"""Results per worker that may wait: for large images each has megabytes."""


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """Of some images of one class, at every position; additive over disjoint sets of images."""

    count: int
    """How many images."""
    sums: np.ndarray
    """int64, [H, W, 3]: sum of R, G, B."""
    squares: np.ndarray
    """int64, [H, W, 3]: sum of RR, GG, BB."""
    cross: np.ndarray | None
    """int64, [H, W, 3]: sum of RG, GB, RB; ``None`` where they were not asked for."""

    def __add__(self, other: Moments) -> Moments:
        cross = None if self.cross is None or other.cross is None else self.cross + other.cross
        return Moments(self.count + other.count, self.sums + other.sums, self.squares + other.squares, cross)


def moments_by_class(
    images: Images, labels: np.ndarray, num_classes: int, *, cross: bool, executor: Executor
) -> Iterator[Moments]:
    """Moments of one class after the other, of which those of no other are in memory.

    Images (uint8 [N, H, W, 3]) that stand on disk are read by the workers. A large class is taken in pieces, so
    that it keeps no worker longer than others. The products of different channels cost as much again as the others.
    """
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(num_classes + 1)).tolist()

    def tasks() -> Iterator[tuple[int, Images]]:
        for number, (first, stop) in enumerate(pairwise(starts)):
            for start in range(first, max(stop, first + 1), IMAGES_PER_TASK):  # one of no images for an empty class
                yield number, view(images, order[start : min(start + IMAGES_PER_TASK, stop)])

    results = executor.map(partial(_moments, cross), tasks(), ahead=AHEAD)
    for _, parts in groupby(results, key=itemgetter(0)):
        yield reduce(add, (part for _, part in parts))


def _moments(cross: bool, task: tuple[int, Images]) -> tuple[int, Moments]:
    """The class of some images, and their moments."""
    number, images = task
    images = images if isinstance(images, np.ndarray) else images.sequential()
    sums, squares, next_one, next_but_one = _sums(images, 3 if cross else 1).reshape(4, *images.shape[1:])
    products = np.concatenate([next_one[..., :2], next_but_one[..., :1]], axis=-1) if cross else None
    return number, Moments(len(images), sums, squares, products)


def _sums(images: Images, num_shifts: int) -> np.ndarray:
    """Sums over images (uint8, [N, H, W, 3]): of the values, and of their products with later ones.

    Channels stay interleaved, so that every operation runs over contiguous memory: the product with the
    value itself is RR, GG, BB, with the next value RG and GB (and one that is not needed), with the next but
    one RB. Returns int64 [4, D] for D values of an image; products with later values than asked for are zero.
    """
    size = int(np.prod(images.shape[1:]))
    at_once = max(1, min(IMAGES_PER_BLOCK, VALUES_PER_BLOCK // size))
    totals = np.zeros((4, size), dtype=np.int64)
    width = min(size, VALUES_PER_TILE // at_once)
    tile = np.empty((at_once, width + num_shifts - 1), dtype=np.float32)
    for start in range(0, len(images), at_once):
        block = np.asarray(images[start : start + at_once])
        flat = block.reshape(len(block), size)
        totals[0] += np.add.reduce(flat, axis=0, dtype=np.uint16)
        for first in range(0, size, width):
            part = flat[:, first : first + tile.shape[1]]
            values = tile[: len(part), : part.shape[1]]
            values[...] = part
            for shift in range(num_shifts):
                count = min(width, part.shape[1] - shift)
                products = np.einsum("ij,ij->j", values[:, :count], values[:, shift : count + shift])
                totals[1 + shift, first : first + count] += products.astype(np.int64)
    return totals
