"""Autoregressive perturbations: noise in which every pixel follows from its neighbours, by a rule of the class.

Pedro Sandoval-Segura, Vasu Singla, Jonas Geiping, Micah Goldblum, Tom Goldstein, David W. Jacobs, "Autoregressive
Perturbations for Data Poisoning", NeurIPS 2022, arXiv 2206.03693. A class has a filter of 3 x 3 coefficients
b for each channel. Beginning with two rows and two columns of normal noise, an image's own, each further value is

    x[i, j] = sum over rows r and columns s below 3, but for the last of both, of b[r, s] x[i - 2 + r, j - 2 + s]

The first rows and columns are cut off, and the rest is scaled to a Euclidean norm. The convolution with the class's
filter that has -1 in the last place is zero everywhere: noise of a class is different in every image, and easily
recognised.

Where the paper is silent, sizes and rounding are those of the official code. The filters that made its datasets are
published as a file; without it, filters are drawn by the same rules, and datasets are not those of the paper.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.regular import check_file
from ule_datasets.base.seeds import Seed
from ule_datasets.data.bounds import L2, Budget
from ule_datasets.data.quantization import Quantize, quantize
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.drawn import BLOCK, drawn_for_each, normals, ordered_sum
from ule_datasets.methods.engine.settings import check_at_least
from ule_datasets.methods.method import Context, Crafted, Method, Repeats
from ule_datasets.models.weights import GivenFile

SIZE = 3
"""Rows and columns of a filter."""
TRIAL_SIZE = 32
"""Rows and columns of the noise by which filters are judged."""
TRIALS = 3
"""Starts from which a filter's noise must not grow."""
AT_ONCE = 512
"""Channels of filters that are judged at a time; part of what a seed gives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterFile(GivenFile):
    """A filter for each class, as published: float [classes, channels, 3, 3], the last coefficient of each 0.

    An array of NumPy (``.npy``), or a list of tensors, as torch saves it, of which nothing is run.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class Autoregressive(Method):
    """Noise of an autoregressive process for every image, by its class's filter (AR)."""

    identifier: ClassVar[str] = "ar"
    title: ClassVar[str] = "Autoregressive perturbations"
    citation: ClassVar[str] = "sandoval2022autoregressive"
    repeats: ClassVar[Repeats] = Repeats.EXACT
    needs_labels: ClassVar[bool] = True

    epsilon: float = 1.0
    """Euclidean norm of an image's noise, for images in [0, 1] (the paper's for 32 x 32 pixels)."""
    crop: int = 4
    """Rows and columns that the noise has more than the image, and that are cut off at its beginning."""
    filters: FilterFile | None = None
    """``None``: drawn by the rules below."""
    most_growth: float = 50
    """Of filters that are drawn: the largest norm of noise before it is scaled, from any of three starts."""
    least_response: float = 10
    """Of filters that are drawn: what those before it must make at least of its noise, if that has norm 1: the sum of
    what is positive in the convolution (official code with 100 classes: 3)."""
    most_candidates: int = 100_000
    """Not in the paper: filters that are tried before drawing is given up."""
    quantize: Quantize = Quantize.HALF_UP

    def __post_init__(self) -> None:
        check_at_least(0, self, "crop", "least_response")
        check_at_least(1, self, "most_candidates")
        for name in ("epsilon", "most_growth"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"{type(self).__name__}: {name} is {value}, must be above 0")

    @property
    def bounds(self) -> Budget:
        """The norm before rounding."""
        return (L2(levels=255 * self.epsilon, rounding=self.quantize.largest_shift),)

    def generate(self, train: Split, context: Context) -> Crafted:
        """Draw filters, unless they are given, and run each class's for its images, in canonical order.

        Raises:
            InputError: the file of filters is nowhere, or not one for these images; not enough filters could be drawn;
                the noise of a class vanishes, or grows beyond all numbers, so that the images would be black.
        """
        height, width, channels = train.images.shape[1:]
        if self.filters is None:
            filters = drawn_filters(self, context.seed, context.num_classes, channels)
            origin = {"origin": "drawn"}
        else:
            filters = self._given(context, channels)
            origin = {"origin": "file", "name": self.filters.name}
        process = Process(self, context.seed, filters, (height, width))
        layer = drawn_for_each(train, process.levels)
        digest = hashlib.sha256(filters.astype("<f8").tobytes()).hexdigest()
        return Crafted(layers=(layer,), notes={"filters": {**origin, "sha256": digest}})

    def _given(self, context: Context, channels: int) -> np.ndarray:
        assert self.filters is not None
        found = self.filters.obtain("the filters", context.weights)
        return read_filters(found.path, context.num_classes, channels)


def read_filters(path: Path, num_classes: int, channels: int) -> np.ndarray:
    """The filters of a file, float64 [num_classes, channels, 3, 3]; those of further classes are left out.

    Raises:
        InputError: it cannot be read, has other shapes, or has a filter that no process can follow.
    """
    try:
        check_file(path)
        if path.suffix == ".npy":
            content = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            import torch

            listed = torch.load(path, map_location="cpu", weights_only=True)
            content = np.stack([np.asarray(each) for each in listed])
        filters = np.array(content, dtype=np.float64)
    except Exception as error:  # a damaged file fails in any way that reading it can fail
        raise InputError(f"{path} holds no filters that can be read: {str(error).partition(chr(10))[0]}") from error
    if filters.ndim != 4 or filters.shape[1:] != (channels, SIZE, SIZE) or len(filters) < num_classes:
        raise InputError(
            f"{path} holds an array of shape {filters.shape}, expected at least {num_classes} filters of "
            f"{channels} x {SIZE} x {SIZE}"
        )
    filters = filters[:num_classes]
    for number, each in enumerate(filters):
        if not np.isfinite(each).all():
            raise InputError(f"{path}: the filter of class {number} has coefficients that are no numbers")
        if each[:, -1, -1].any():
            raise InputError(f"{path}: the filter of class {number} has a last coefficient that is not 0")
    return filters


def drawn_filters(method: Autoregressive, seed: Seed, count: int, channels: int) -> np.ndarray:
    """Filters by the rules of the official search, float64 [count, channels, 3, 3].

    Coefficients are normal, the last one is 0, and those of a channel are divided by their sum. Candidates are taken
    one after the other, if their noise does not grow and those that were taken before respond to it.

    Raises:
        InputError: there are not enough among ``most_candidates``.
    """
    taken: list[np.ndarray] = []
    candidates = _candidates(method, seed, channels)
    for filters, noise in itertools.islice(candidates, method.most_candidates):
        if all(response(earlier, noise) >= method.least_response for earlier in taken):
            taken.append(filters)
        if len(taken) == count:
            return np.stack(taken)
    raise InputError(
        f"{type(method).__name__}: {len(taken)} of {count} filters were found among {method.most_candidates:,}; "
        "a smaller least_response or more candidates (most_candidates) help"
    )


def _candidates(method: Autoregressive, seed: Seed, channels: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Filters whose noise does not grow, [channels, 3, 3], and noise of each of norm 1, [H, W, channels]; without end.

    Noise that grows in one channel does so in all together: those channels are left out first, which saves nearly all
    of the work and changes nothing about what may be drawn.
    """
    side, most = TRIAL_SIZE + method.crop, method.most_growth**2
    left: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for number in itertools.count():
        drawn = normals(seed, (SIZE, SIZE, AT_ONCE), method.identifier, "filter", number)
        drawn[-1, -1] = 0
        drawn /= ordered_sum(drawn.reshape(SIZE * SIZE, AT_ONCE))
        squares = np.empty((0, AT_ONCE))
        for trial in range(TRIALS):
            shape = (border(side, side), 1, drawn.shape[-1])
            start = normals(seed, shape, method.identifier, "trial", number, trial)
            noise = run(drawn[None], start, (side, side))[method.crop :, method.crop :]
            lately = lengths(noise) ** 2
            still = lately <= most  # not so where it is no number
            squares = np.concatenate([squares, lately[None]])[:, still]
            drawn, noise = drawn[..., still], noise[..., 0, still]
        for place in range(drawn.shape[-1]):
            left.append((drawn[..., place], squares[:, place], noise[..., place]))
            if len(left) == channels:
                filters, lengths_, parts = (np.stack(each) for each in zip(*left, strict=True))
                left.clear()
                total = ordered_sum(lengths_)
                if (total <= most).all():
                    yield filters, np.moveaxis(parts, 0, -1) / math.sqrt(total[-1])


def response(filters: np.ndarray, noise: np.ndarray) -> float:
    """How a filter [C, 3, 3], with -1 in the last place, responds to noise, float64 [H, W, C].

    The sum of what is positive in their convolution.
    """
    matching = filters.copy()
    matching[:, -1, -1] = -1
    height, width = (size - SIZE + 1 for size in noise.shape[:2])
    places = [(row, column) for row in range(SIZE) for column in range(SIZE)]
    parts = [noise[r : r + height, c : c + width] * matching[:, r, c] for r, c in places]
    sums = ordered_sum(np.moveaxis(ordered_sum(np.array(parts)), -1, 0))
    return float(ordered_sum(ordered_sum(np.maximum(sums, 0))))


class Process:
    """The classes' processes, for images of one size."""

    def __init__(self, method: Autoregressive, seed: Seed, filters: np.ndarray, size: tuple[int, int]) -> None:
        self._method, self._seed, self._filters = method, seed, filters
        self._size = (size[0] + method.crop, size[1] + method.crop)
        if min(self._size) < SIZE:
            raise InputError(f"{type(method).__name__}: images of {size[0]} x {size[1]} pixels are too small")

    def levels(self, number: int, block: int) -> np.ndarray:
        """Noise for the images of a block of a class, int8 or int16 [BLOCK, H, W, C] in grey levels."""
        method, filters = self._method, self._filters[number]
        shape = (border(*self._size), len(filters), BLOCK)
        start = normals(self._seed, shape, method.identifier, "start", number, block)
        noise = run(filters[..., None], start, self._size)[method.crop :, method.crop :]
        norms = lengths(noise)
        if not ((norms > 0) & (norms < math.inf)).all():
            raise InputError(
                f"{type(method).__name__}: the noise of class {number} vanishes or grows beyond all numbers: its "
                "images would be black; another filter is needed"
            )
        return quantize(np.moveaxis(noise * (255 * method.epsilon / norms), -1, 0), method.quantize)


def border(height: int, width: int) -> int:
    """Places in the first two rows and columns."""
    return height * width - (height - SIZE + 1) * (width - SIZE + 1)


def run(filters: np.ndarray, start: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Noise of many processes at once: float64 [H, W, C, n] from filters [C, 3, 3, n or 1] and starts [border, C, n].

    A start is what stands in the first two rows, row by row, and then in the first two columns of the others.
    """
    height, width = size
    noise = np.empty((height, width, *start.shape[1:]))
    noise[:2] = start[: 2 * width].reshape(2, width, *start.shape[1:])
    noise[2:, :2] = start[2 * width :].reshape(height - 2, 2, *start.shape[1:])
    above = [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(SIZE - 1, height):
            row = noise[i]
            row[2:] = noise[i - 2, : width - 2] * filters[:, 0, 0]
            for r, c in above:
                row[2:] += noise[i - 2 + r, c : c + width - 2] * filters[:, r, c]
            for j in range(SIZE - 1, width):
                row[j] += row[j - 2] * filters[:, 2, 0] + row[j - 1] * filters[:, 2, 1]
    return noise


def lengths(noise: np.ndarray) -> np.ndarray:
    """The Euclidean norm of each noise, float64 [n], of float64 [H, W, C, n]."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms: np.ndarray = np.sqrt(ordered_sum(ordered_sum(ordered_sum(noise * noise))))
    return norms
