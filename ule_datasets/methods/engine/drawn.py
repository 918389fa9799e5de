"""Random real numbers and sums that have the same bits on every machine, and noise that is drawn for every image.

Only additions, products, quotients and square roots of float64 are used, one at a time and in a fixed order: IEEE 754
says what each of them gives. Logarithms of libraries, their sums and matrix products differ from machine to machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ule_datasets.base.seeds import Seed
from ule_datasets.data.perturbation import Additive, Support
from ule_datasets.data.split import Split

BLOCK = 256
"""Images of a class whose noise is drawn at a time; part of what a seed gives."""
LN2 = 0.6931471805599453
SERIES = 12
"""Terms of the logarithm's series, enough for all digits."""


def uniforms(seed: Seed, shape: tuple[int, ...], *purpose: str | int) -> np.ndarray:
    """Uniform in [-1, 1), in steps of 2**-52: float64 of this shape."""
    drawn = np.frombuffer(seed.bytes(8 * math.prod(shape), *purpose), dtype="<u8")
    return ((drawn >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1).reshape(shape)


def normals(seed: Seed, shape: tuple[int, ...], *purpose: str | int) -> np.ndarray:
    """Normally distributed, mean 0 and deviation 1, by the polar method of Marsaglia: float64 of this shape."""
    count = math.prod(shape)
    parts = [np.empty(0)]
    while (got := sum(map(len, parts))) < count:
        # A point of the square gives two numbers, if it lies in the circle, as 79 % do.
        pairs = uniforms(seed, ((count - got) * 2 // 3 + 16, 2), *purpose, len(parts))
        squares = pairs[:, 0] * pairs[:, 0] + pairs[:, 1] * pairs[:, 1]
        inside = (squares > 0) & (squares < 1)
        radii = squares[inside]
        parts.append((pairs[inside] * np.sqrt(-2 * logarithm(radii) / radii)[:, None]).ravel())
    return np.concatenate(parts)[:count].reshape(shape)


def logarithm(values: np.ndarray) -> np.ndarray:
    """The natural logarithm of positive float64, in the same shape; right to within a few units of the last digit."""
    fractions, exponents = np.frexp(values)
    low = fractions < math.sqrt(0.5)
    fractions = np.where(low, 2 * fractions, fractions)
    exponents = exponents - low
    ratio = (fractions - 1) / (fractions + 1)
    square = ratio * ratio
    series = np.zeros_like(ratio)
    for odd in range(2 * SERIES - 1, 0, -2):
        series = series * square + 1 / odd
    result: np.ndarray = exponents * LN2 + 2 * ratio * series
    return result


def ordered_sum(values: np.ndarray) -> np.ndarray:
    """Sum over the first axis, one entry after the other: float64 of the other axes' shape."""
    total: np.ndarray = np.array(values[0], dtype=np.float64)
    for value in values[1:]:
        total += value
    return total


def drawn_for_each(train: Split, draw: Callable[[int, int], np.ndarray]) -> Additive:
    """An additive layer with an entry for every image: its class's draws, in the canonical order of its images.

    ``draw`` takes a class and the number of a block, and returns levels, int8 or int16 [BLOCK, H, W, C]. Which draw an
    image gets depends on its class's images alone.
    """
    levels: np.ndarray = np.empty(train.images.shape, dtype=np.int8)
    for number in np.unique(train.labels).tolist():
        rows = np.flatnonzero(train.labels == number)
        for first in range(0, len(rows), BLOCK):
            some = rows[first : first + BLOCK]
            drawn = draw(number, first // BLOCK)[: len(some)]
            if drawn.dtype != levels.dtype:
                levels = levels.astype(np.int16, copy=False)
            levels[some] = drawn
    return Additive(levels=levels, support=Support.SAMPLE, keys=train.keys)
