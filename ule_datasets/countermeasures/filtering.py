"""Low-pass filters on the training images, as exploiters of protected images use them.

The four that Shaopeng Fu et al., "Robust Unlearnable Examples: Protecting Data Privacy Against Adversarial Learning",
ICLR 2022, train under, on 8-bit images in rows and columns. All arithmetic is of integers: the same bytes on every
machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from ule_datasets.base.seeds import Seed
from ule_datasets.victims.strategy import EachImage

_DIAMETER, _DEVIATION = 9, 75.0  # of the bilateral filter: the deviation in grey levels and in pixels alike
_ONE = 2**16  # the weight of a pixel itself in that filter
_AT_ONCE = 2**17  # pixels: what they need stays in the processor's cache


class _Filter(EachImage):
    __slots__ = ()

    citation: ClassVar[str] = "fu2022robust"

    def changed(self, images: np.ndarray, seed: Seed) -> np.ndarray:
        """As many at a time as the processor's cache holds."""
        some = max(1, _AT_ONCE // (images.shape[1] * images.shape[2]))
        return np.concatenate([self.filtered(images[first : first + some]) for first in range(0, len(images), some)])

    def filtered(self, images: np.ndarray) -> np.ndarray:
        """A few images: uint8 [n, H, W, 3] to the same."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class Mean3(_Filter):
    """The mean of 3 x 3 pixels, rounded; beyond the border images go on as in a mirror, without the border itself."""

    word: ClassVar[str] = "mean3"

    def filtered(self, images: np.ndarray) -> np.ndarray:
        """A few images: uint8 [n, H, W, 3] to the same."""
        return _weighted_mean(images, (1,) * 9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gaussian3(_Filter):
    """Weights of 1/4, 1/2 and 1/4 along both axes, rounded: OpenCV's kernel of size 3 where it chooses the width.

    Beyond the border images go on as in a mirror, without the border itself.
    """

    word: ClassVar[str] = "gaussian3"

    def filtered(self, images: np.ndarray) -> np.ndarray:
        """A few images: uint8 [n, H, W, 3] to the same."""
        return _weighted_mean(images, (1, 2, 1, 2, 4, 2, 1, 2, 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Median3(_Filter):
    """The median of 3 x 3 pixels, channel by channel; beyond the border its pixels are repeated.

    No pixel that differs from all around it is left, as One-Pixel Shortcut writes them.
    """

    word: ClassVar[str] = "median3"

    def filtered(self, images: np.ndarray) -> np.ndarray:
        """A few images: uint8 [n, H, W, 3] to the same."""
        rows = _sorted_three(*_along(images, axis=1))
        low, middle, high = (_along(each, axis=2) for each in rows)
        # Of three sorted triples, the middle of the greatest low, the median middle and the least high.
        least_high = np.minimum(np.minimum(high[0], high[1]), high[2])
        greatest_low = np.maximum(np.maximum(low[0], low[1]), low[2])
        return _sorted_three(greatest_low, _sorted_three(*middle)[1], least_high)[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bilateral(_Filter):
    """A mean of the pixels in a circle of diameter 9, weighted by how near they are and how alike.

    The weights are normal densities with a deviation of 75, of the distance in pixels and of the sum over the channels
    of the differences in levels; they are rounded to 1/65536, and the mean to whole levels. Beyond the border images go
    on as in a mirror, without the border itself.
    """

    word: ClassVar[str] = "bilateral"

    def filtered(self, images: np.ndarray) -> np.ndarray:
        """A few images: uint8 [n, H, W, 3] to the same."""
        centre = images.astype(np.int16)
        sums, total = np.zeros(images.shape, dtype=np.int32), np.zeros(images.shape[:3], dtype=np.int32)
        for weights, neighbour in zip(_bilateral_weights(), _around(images, _DIAMETER // 2), strict=True):
            if weights is None:
                continue
            unlike = np.abs(centre - neighbour).sum(axis=-1, dtype=np.int16)
            weight = weights[unlike]
            total += weight
            sums += weight[..., None] * neighbour
        return ((2 * sums + total[..., None]) // (2 * total[..., None])).astype(np.uint8)


def _weighted_mean(images: np.ndarray, weights: tuple[int, ...]) -> np.ndarray:
    """The mean of 3 x 3 pixels by whole weights, row by row, rounded with halves upwards."""
    total = np.zeros(images.shape, dtype=np.uint16)
    for weight, neighbour in zip(weights, _around(images, 1), strict=True):
        total += np.uint16(weight) * neighbour
    return ((2 * total + sum(weights)) // (2 * sum(weights))).astype(np.uint8)


def _around(images: np.ndarray, radius: int) -> Iterator[np.ndarray]:
    """Every image moved to all places of a square, row by row, mirrored beyond its borders: uint8 [n, H, W, 3]."""
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (radius, radius), (radius, radius), (0, 0)), mode="reflect")
    for down in range(2 * radius + 1):
        for across in range(2 * radius + 1):
            yield padded[:, down : down + height, across : across + width]


def _along(images: np.ndarray, *, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The neighbours before, the pixels themselves and those after along an axis; borders are repeated."""
    last = images.shape[axis] - 1
    before, after = np.arange(-1, last).clip(0), np.arange(1, last + 2).clip(max=last)
    return images.take(before, axis=axis), images, images.take(after, axis=axis)


def _sorted_three(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The least, the median and the greatest of three, value by value."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    return np.minimum(low, c), np.maximum(low, np.minimum(high, c)), np.maximum(high, c)


@cache
def _bilateral_weights() -> tuple[np.ndarray | None, ...]:
    """For each place of the square, by the difference in levels: int32 [766]; ``None``: outside the circle."""
    radius = _DIAMETER // 2
    unlike = np.arange(3 * 255 + 1, dtype=np.float64)
    squares = [down**2 + across**2 for down in range(-radius, radius + 1) for across in range(-radius, radius + 1)]
    return tuple(
        np.rint(_ONE * np.exp(-(unlike**2 + square) / (2 * _DEVIATION**2))).astype(np.int32)
        if square <= radius**2
        else None
        for square in squares
    )
