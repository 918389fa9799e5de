"""First and second moments of the pixels of each class, as exact integers.

They are sums, so they can be taken in any order, on any number of machines, and added up: the whole
One-Pixel-Shortcut search needs one pass over the images and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

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
    """Pixel moments per class and position; additive over disjoint sets of images."""

    count: np.ndarray
    """int64, [K]: images per class."""
    sums: np.ndarray
    """int64, [K, H, W, 3]: sum of R, G, B."""
    squares: np.ndarray
    """int64, [K, H, W, 3]: sum of RR, GG, BB."""
    cross: np.ndarray | None
    """int64, [K, H, W, 3]: sum of RG, GB, RB; ``None`` where they were not asked for."""

    @classmethod
    def of_none(cls, image_shape: tuple[int, ...], *, cross: bool) -> Moments:
        """One class without images."""
        zeros = np.zeros((1, *image_shape), dtype=np.int64)
        return cls(np.zeros(1, dtype=np.int64), zeros, zeros, zeros if cross else None)

    def of_class(self, number: int) -> Moments:
        """The moments of one class, with a first axis of length 1."""
        one = slice(number, number + 1)
        cross = None if self.cross is None else self.cross[one]
        return Moments(self.count[one], self.sums[one], self.squares[one], cross)

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
    """Moments of uint8 images [N, H, W, 3] in memory, with labels [N] in ``range(num_classes)``.

    Args:
        images: the images.
        labels: their classes.
        num_classes: how many classes there are; some may be empty.
        cross: whether to take the products of different channels too, which costs as much again.
        workers: threads that take classes in turn; the result does not depend on their number.
    """
    assert images.shape[3] == 3
    members = [np.flatnonzero(labels == number) for number in range(num_classes)]
    with ThreadPoolExecutor(workers) as pool:
        per_class = list(pool.map(lambda indices: _sums(images, indices, 3 if cross else 1), members))
    return _moments([len(indices) for indices in members], per_class, images.shape[1:], cross=cross)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class MomentsTask:
    """Some images of one class."""

    number: int
    """Of the class."""
    images: Images
    cross: bool


def moments_by_class(
    images: Images, labels: np.ndarray, num_classes: int, *, cross: bool, executor: Executor
) -> Iterator[Moments]:
    """Moments of one class after the other, each with a first axis of length 1; those of no other are in memory.

    Images (uint8 [N, H, W, 3]) that stand on disk are read by the workers. A large class is taken in pieces, so
    that it keeps no worker longer than others.
    """
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(num_classes + 1)).tolist()

    def tasks() -> Iterator[MomentsTask]:
        for number in range(num_classes):
            for start in range(starts[number], starts[number + 1], IMAGES_PER_TASK):
                rows = order[start : min(start + IMAGES_PER_TASK, starts[number + 1])]
                yield MomentsTask(number=number, images=view(images, rows), cross=cross)

    image_shape, following = images.shape[1:], 0
    results = executor.map(task_moments, tasks(), ahead=AHEAD)
    for number, parts in groupby(results, key=lambda pair: pair[0]):
        yield from (Moments.of_none(image_shape, cross=cross) for _ in range(following, number))
        total = Moments.of_none(image_shape, cross=cross)
        for _, part in parts:
            total = total + part
        yield total
        following = number + 1
    yield from (Moments.of_none(image_shape, cross=cross) for _ in range(following, num_classes))


def task_moments(task: MomentsTask) -> tuple[int, Moments]:
    """The class of some images, and their moments."""
    height, width, channels = task.images.shape[1:]
    images = task.images if isinstance(task.images, np.ndarray) else task.images.sequential()
    totals = _sums(images, np.arange(len(images)), 3 if task.cross else 1)
    return task.number, _moments([len(task.images)], [totals], (height, width, channels), cross=task.cross)


def _moments(
    counts: Sequence[int], totals: Sequence[np.ndarray], image_shape: tuple[int, ...], *, cross: bool
) -> Moments:
    """From what ``_sums`` gives for every class."""
    sums, squares, next_one, next_but_one = (
        np.stack([each[index] for each in totals]).reshape(len(totals), *image_shape) for index in range(4)
    )
    return Moments(
        count=np.array(counts, dtype=np.int64),
        sums=sums,
        squares=squares,
        cross=np.concatenate([next_one[..., :2], next_but_one[..., :1]], axis=-1) if cross else None,
    )


def _sums(images: Images, indices: np.ndarray, num_shifts: int) -> np.ndarray:
    """Sums over some images (uint8, [N, H, W, 3]): of the values, and of their products with later ones.

    Channels stay interleaved, so that every operation runs over contiguous memory: the product with the
    value itself is RR, GG, BB, with the next value RG and GB (and one that is not needed), with the next but
    one RB. Returns int64 [4, D] for D values of an image; products with later values than asked for are zero.
    """
    size = int(np.prod(images.shape[1:]))
    at_once = max(1, min(IMAGES_PER_BLOCK, VALUES_PER_BLOCK // size))
    totals = np.zeros((4, size), dtype=np.int64)
    raw = np.empty((at_once, *images.shape[1:]), dtype=np.uint8)
    width = min(size, VALUES_PER_TILE // at_once)
    tile = np.empty((at_once, width + num_shifts - 1), dtype=np.float32)
    for start in range(0, len(indices), at_once):
        rows = indices[start : start + at_once]
        if isinstance(images, np.ndarray):
            part = raw[: len(rows)]
            np.take(images, rows, axis=0, out=part, mode="clip")  # "clip" writes to ``out`` directly
        else:
            part = images[rows]
        flat = part.reshape(len(rows), size)
        totals[0] += np.add.reduce(flat, axis=0, dtype=np.uint16)
        for first in range(0, size, width):
            part = flat[:, first : first + tile.shape[1]]
            values = tile[: len(rows), : part.shape[1]]
            values[...] = part
            for shift in range(num_shifts):
                count = min(width, part.shape[1] - shift)
                products = np.einsum("ij,ij->j", values[:, :count], values[:, shift : count + shift])
                totals[1 + shift, first : first + count] += products.astype(np.int64)
    return totals
