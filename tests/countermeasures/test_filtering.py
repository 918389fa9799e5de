"""Low-pass filters pixel by pixel and against OpenCV, and what a median leaves of a pixel by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import read
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.countermeasures.filtering import Bilateral, Gaussian3, Mean3, Median3
from ule_datasets.data.perturbation import Overwrite, Perturbation
from ule_datasets.methods.method import Context
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.victims.strategy import Countermeasure

SEED = Seed(0)
BATCHES = arrays.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(2, 12), st.integers(2, 12), st.just(3)))
LARGER = arrays.arrays(np.uint8, st.tuples(st.integers(1, 2), st.integers(9, 40), st.integers(9, 40), st.just(3)))
FILTERS = (Mean3(), Gaussian3(), Median3(), Bilateral())


def mirrored(place: int, length: int) -> int:
    """Without the border itself, as often as it takes."""
    place = abs(place) % (2 * length - 2)
    return min(place, 2 * length - 2 - place)


def repeated(place: int, length: int) -> int:
    return min(max(place, 0), length - 1)


def slowly(image: np.ndarray, radius: int, beyond: Callable[[int, int], int], value: Callable[..., list[int]]) -> None:
    """Every pixel from the list of those around it, in place: (down, across, the three values)."""
    height, width, _ = image.shape
    given = image.astype(int).tolist()
    reach = range(-radius, radius + 1)
    for y in range(height):
        for x in range(width):
            around = [
                (down, across, given[beyond(y + down, height)][beyond(x + across, width)])
                for down in reach
                for across in reach
            ]
            image[y, x] = value(around)


def rounded(value: Fraction) -> int:
    """Halves upwards."""
    return math.floor(value + Fraction(1, 2))


def weighted(around: list[tuple[int, int, list[int]]], weights: list[int]) -> list[int]:
    sums = [sum(w * place[2][c] for w, place in zip(weights, around, strict=True)) for c in range(3)]
    return [rounded(Fraction(each, sum(weights))) for each in sums]


def bilateral(around: list[tuple[int, int, list[int]]]) -> list[int]:
    centre = next(values for down, across, values in around if down == across == 0)
    weights = []
    for down, across, values in around:
        unlike = sum(abs(a - b) for a, b in zip(values, centre, strict=True))
        exponent = (unlike**2 + down**2 + across**2) / (2 * 75**2)
        weights.append(round(65536 * math.exp(-exponent)) if down**2 + across**2 <= 16 else 0)
    return weighted(around, weights)


SLOW: dict[str, tuple[int, Callable[[int, int], int], Callable[..., list[int]]]] = {
    "mean3": (1, mirrored, lambda around: weighted(around, [1] * 9)),
    "gaussian3": (1, mirrored, lambda around: weighted(around, [1, 2, 1, 2, 4, 2, 1, 2, 1])),
    "median3": (1, repeated, lambda around: [sorted(place[2][c] for place in around)[4] for c in range(3)]),
    "bilateral": (4, mirrored, bilateral),
}
OPENCV: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "mean3": (lambda image: cv2.blur(image, (3, 3)), 0),
    "gaussian3": (lambda image: cv2.GaussianBlur(image, (3, 3), 0), 0),
    "median3": (lambda image: cv2.medianBlur(image, 3), 0),
    "bilateral": (lambda image: cv2.bilateralFilter(image, 9, 75, 75), 1),  # its weights are of 32 bits
}
each = pytest.mark.parametrize("kind", FILTERS, ids=lambda kind: kind.word)


@each
@settings(deadline=None, max_examples=25)
@given(images=BATCHES)
def test_a_filter_is_what_it_says_pixel_by_pixel(kind: Countermeasure, images: np.ndarray) -> None:
    expected = images.copy()
    for image in expected:
        slowly(image, *SLOW[kind.word])
    assert np.array_equal(kind.changed(images, SEED), expected)  # type: ignore[attr-defined]


@each
@settings(deadline=None, max_examples=25)
@given(images=LARGER)
def test_a_filter_is_opencv_s(kind: Countermeasure, images: np.ndarray) -> None:
    function, within = OPENCV[kind.word]
    theirs = np.stack([function(np.ascontiguousarray(image)) for image in images])
    ours = kind.changed(images, SEED)  # type: ignore[attr-defined]
    assert np.abs(ours.astype(int) - theirs).max() <= within


@each
def test_flat_images_stay(kind: Countermeasure) -> None:
    images = np.stack([np.full((9, 9, 3), level, dtype=np.uint8) for level in (0, 1, 128, 255)])
    assert np.array_equal(kind.changed(images, SEED), images)  # type: ignore[attr-defined]


@settings(deadline=None, max_examples=60)
@given(row=st.integers(1, 10), column=st.integers(1, 10), colour=st.tuples(*[st.integers(0, 255)] * 3))
def test_a_median_removes_a_pixel_by_itself(row: int, column: int, colour: tuple[int, int, int]) -> None:
    smooth = np.full((1, 12, 12, 3), 100, dtype=np.uint8)
    marked = smooth.copy()
    marked[0, row, column] = colour
    assert np.array_equal(Median3().changed(marked, SEED), smooth)


def test_a_median_removes_the_pixel_of_one_pixel_shortcut_from_cifar10(cifar10_folder: Path) -> None:
    """It is gone from every image where one of its extreme values occurs nowhere in the eight pixels around it."""
    train = read(str(cifar10_folder), CIFAR10).train
    context = Context(num_classes=10, seed=SEED, reporter=Reporter(silent=True))
    (layer,) = OnePixelShortcut().generate(train, context).layers
    assert isinstance(layer, Overwrite)
    perturbation = Perturbation(layers=(layer,), source_digest=train.digest)
    marked = perturbation.apply(train.pixels(), train.labels, train.keys)
    filtered = Median3().changed(marked, SEED)
    isolated = left = 0
    for image, result, label in zip(marked, filtered, train.labels, strict=True):
        row, column = int(layer.rows[label, 0]), int(layer.columns[label, 0])
        around = image[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].reshape(-1, 3)
        alone = bool(((around == image[row, column]).sum(axis=0) == 1).any())  # in one of its channels at least
        isolated += alone
        left += alone and np.array_equal(result[row, column], image[row, column])
    assert isolated == 49_841
    assert left == 0
