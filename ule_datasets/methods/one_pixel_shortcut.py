"""One-Pixel Shortcut: per class, the one pixel and colour that the images of the class differ from most evenly.

Shutong Wu, Sizhe Chen, Cihang Xie, Xiaolin Huang, "One-Pixel Shortcut: On the Learning Preference of Deep
Neural Networks", ICLR 2023, arXiv 2205.12141, equation 4 and algorithm 1.

The search is exact. With a target channel t in {0, 255} the distance of a byte x is ``t + s x`` with
s = 1 or -1, so the sums that both objectives need follow from the integer moments of the class, and
candidates compare as fractions of integers. No float decides anything but which candidates are close
enough to the best to be compared exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.data.bounds import L0, Budget, LInf
from ule_datasets.data.perturbation import NOWHERE, Additive, Overwrite, Support
from ule_datasets.data.quantization import Quantize
from ule_datasets.data.split import Split
from ule_datasets.data.spool import view
from ule_datasets.methods.engine.moments import Moments, moments_by_class
from ule_datasets.methods.method import Context, Crafted, Method, Repeats

CORNERS = np.array([[(v >> 2) & 1, (v >> 1) & 1, v & 1] for v in range(8)], dtype=np.int64)
"""The eight corners of the RGB cube; colour index v = 4 R + 2 G + B."""
MOST_IMAGES_PER_CLASS = 3_900_000
"""Up to here every sum, and n times the largest of them, fits int64."""
CLOSE = 1e-12
"""Candidates whose float64 scores lie within this share of the best are compared as exact fractions."""


class Objective(StrEnum):
    """What the search maximises."""

    MEAN_OVER_STD = "mean_over_std"
    """The official code: mean over standard deviation, pooled over images and channels."""
    MEAN_OVER_VAR = "mean_over_var"
    """The paper's formula: mean over variance of the distance summed over channels."""


class Upload(StrEnum):
    """What happens to the images that a partial search did not see (paper, appendix C)."""

    CLEAN = "clean"
    """Nothing but the pixel."""
    NOISY = "noisy"
    """Uniform noise first, then the pixel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A pixel position and colour, and how good it is for its class."""

    row: int
    column: int
    colour: int
    """Index into ``CORNERS``."""
    score: Fraction | None
    """Exact; orders like the objective. ``None``: infinite, all images have the same distance from the colour."""

    @property
    def pair(self) -> tuple[int, int, int]:
        """What the exclusion rule compares."""
        return self.row, self.column, self.colour

    def describe(self) -> dict[str, Any]:
        """For the perturbation's provenance record."""
        score = "infinite" if self.score is None else str(self.score)
        rgb = [int(255 * channel) for channel in CORNERS[self.colour]]
        return {"row": self.row, "column": self.column, "colour": rgb, "score": score}


@dataclass(frozen=True, kw_only=True, slots=True)
class OnePixelShortcut(Method):
    """The OPS perturbation; field defaults are the official code's choices (which made the paper's tables)."""

    identifier: ClassVar[str] = "ops"
    title: ClassVar[str] = "One-Pixel Shortcut"
    citation: ClassVar[str] = "wu2023onepixel"
    repeats: ClassVar[Repeats] = Repeats.EXACT
    needs_labels: ClassVar[bool] = True

    num_pixels: int = 1
    objective: Objective = Objective.MEAN_OVER_STD
    exclude_used: bool = True
    """A (position, colour) pair taken by an earlier class is not available to later ones (official code)."""
    allow_same_position: bool = False
    """Let two pixels of one class fall on one position, the later winning (official code); else distinct."""
    margin: int = 0
    """Rows and columns at every border that get no pixel (ours, off by default: the paper searches the whole image).
    A crop with padding then never cuts the pixel off where it is at most as wide; and images whose borders are empty
    in all classes do not draw the pixels of all classes into one corner."""
    search_fraction: float = 1.0
    """Share of each class that the search sees, drawn by the seed."""
    upload: Upload = Upload.CLEAN
    noise_levels: int = 8
    """Noise of the ``noisy`` upload, in units of 1/255."""
    quantize: Quantize = Quantize.TRUNC

    def __post_init__(self) -> None:
        if self.num_pixels < 1:
            raise InputError(f"OnePixelShortcut: num_pixels is {self.num_pixels}, must be at least 1")
        if self.margin < 0:
            raise InputError(f"OnePixelShortcut: margin is {self.margin}, must be at least 0")
        if not 0 < self.search_fraction <= 1:
            raise InputError(f"OnePixelShortcut: search_fraction is {self.search_fraction}, not in (0, 1]")
        if self.upload is Upload.NOISY and not 1 <= self.noise_levels <= 127:
            raise InputError(f"OnePixelShortcut: noise_levels is {self.noise_levels}, not in 1 .. 127")

    @property
    def draws(self) -> bool:
        """What the search sees, and the noise of a noisy upload; the search itself is exact."""
        return self.search_fraction < 1 or self.upload is Upload.NOISY

    @property
    def bounds(self) -> Budget:
        """Of the pixels, and before it of the noise where there is some."""
        pixels = L0(pixels=self.num_pixels)
        return (pixels,) if self.upload is Upload.CLEAN else (LInf(levels=self.noise_levels), pixels)

    def generate(self, train: Split, context: Context) -> Crafted:
        """Search the clean training images; an overwrite layer, after a noise layer where asked for."""
        searched, classes = self.searched_rows(train, context.seed), context.num_classes
        images = train.images if len(searched) == len(train) else view(train.images, searched)
        cross = self.objective is Objective.MEAN_OVER_VAR
        moments = moments_by_class(images, train.labels[searched], classes, cross=cross, executor=context.executor)
        moments = context.reporter.track(moments, total=classes, label="searching", unit="class")
        chosen = self.search(moments)
        if empty := [number for number, pixels in enumerate(chosen) if not pixels]:
            which = f"class {empty[0]} has" if len(empty) == 1 else f"{len(empty):,} classes (first {empty[0]}) have"
            context.reporter.warn(f"{which} no images to search, and no pixel")
        notes = {"pixels": [[pixel.describe() for pixel in pixels] for pixels in chosen]}
        layer = overwrite_layer(chosen, self.num_pixels)
        if self.upload is Upload.CLEAN:
            return Crafted(layers=(layer,), notes=notes)
        unseen = np.setdiff1d(np.arange(len(train)), searched)
        return Crafted(layers=(self._noise_layer(train, unseen, context.seed), layer), notes=notes)

    def search(self, classes: Iterable[Moments]) -> list[list[Candidate]]:
        """The chosen pixels of every class, best first, from its moments; none for a class without images.

        ``mean_over_var`` needs the moments' cross products.
        """
        taken: set[tuple[int, int, int]] = set()
        chosen: list[list[Candidate]] = []
        for moments in classes:
            height, width = (max(0, side - 2 * self.margin) for side in moments.sums.shape[:2])
            if self.num_pixels > height * width:
                inside = f" with a margin of {self.margin}" if self.margin else ""
                raise InputError(
                    f"num_pixels is {self.num_pixels}, the images have only {height * width} pixels{inside}"
                )
            if moments.count > MOST_IMAGES_PER_CLASS:
                raise InputError(f"a class has {moments.count} images; sums stay exact up to {MOST_IMAGES_PER_CLASS}")
            pixels = self._search_class(moments, len(chosen), taken if self.exclude_used else set())
            taken.update(pixel.pair for pixel in pixels)
            chosen.append(pixels)
        return chosen

    def searched_rows(self, train: Split, seed: Seed) -> np.ndarray:
        """Indices (int64, ascending) of the images that the search sees: a seeded share of each class."""
        if self.search_fraction == 1.0:
            return np.arange(len(train))
        return train.stratified_rows(self.search_fraction, seed, "ops", "search fraction")

    def _search_class(self, moments: Moments, number: int, taken: set[tuple[int, int, int]]) -> list[Candidate]:
        if moments.count == 0:
            return []
        distance, spread = _scores(moments, self.objective)
        free = np.zeros(distance.shape, dtype=bool)
        inside = slice(self.margin, -self.margin or None)
        free[inside, inside] = True
        for pair in taken:
            free[pair] = False
        pixels: list[Candidate] = []
        while len(pixels) < self.num_pixels:
            best = _best(distance, spread, free, power=2 if self.objective is Objective.MEAN_OVER_STD else 1)
            if best is None:
                raise InputError(
                    f"class {number}: no pixel is left that changes anything; earlier classes took them all"
                )
            pixels.append(best)
            free[best.pair if self.allow_same_position else best.pair[:2]] = False
        return pixels

    def _noise_layer(self, train: Split, rows: np.ndarray, seed: Seed) -> Additive:
        """Noise on some images, each drawn from its key; int8 levels."""
        keys = tuple(train.keys[i] for i in rows.tolist())
        levels = np.empty((len(keys), *train.images.shape[1:]), dtype=np.int8)
        for own, key in zip(levels, keys, strict=True):
            own.flat = uniform_levels(seed, self.noise_levels, self.quantize, own.size, key)
        return Additive(levels=levels, support=Support.SAMPLE, keys=keys)


def uniform_levels(seed: Seed, levels: int, quantize: Quantize, size: int, key: str) -> np.ndarray:
    """Integer noise (int8, [size]): what uniform noise in [-levels, levels] becomes in bytes.

    Bytes that would make the draw uneven are rejected, so the distribution is exact for every ``levels``.
    """
    outcomes = 2 * levels if quantize is Quantize.TRUNC else 4 * levels
    width = 1 if outcomes <= 256 else 2
    limit = 256**width // outcomes * outcomes
    drawn, attempt = np.empty(0, dtype=np.int64), 0
    while len(drawn) < size:
        raw = seed.bytes(width * 2 * size, "ops", "upload noise", key, attempt)
        values = np.frombuffer(raw, dtype=f">u{width}").astype(np.int64)
        drawn, attempt = np.concatenate([drawn, values[values < limit] % outcomes]), attempt + 1
    whole = drawn[:size] if quantize is Quantize.TRUNC else (drawn[:size] + 1) // 2
    return (whole - levels).astype(np.int8)


def overwrite_layer(chosen: list[list[Candidate]], num_pixels: int) -> Overwrite:
    """The class-wise layer that writes the chosen pixels, as 0 or 255 in every channel."""
    rows = np.full((len(chosen), num_pixels), NOWHERE, dtype=np.int32)
    columns = rows.copy()
    colours = np.zeros((*rows.shape, 3), dtype=np.uint8)
    for number, pixels in enumerate(chosen):
        for index, pixel in enumerate(pixels):
            rows[number, index], columns[number, index] = pixel.row, pixel.column
            colours[number, index] = 255 * CORNERS[pixel.colour]
    return Overwrite(rows=rows, columns=columns, colours=colours, support=Support.CLASS)


def _scores(moments: Moments, objective: Objective) -> tuple[np.ndarray, np.ndarray]:
    """Closed forms of one class for every position and corner: total distance A and spread V, int64 [H, W, 8].

    The objective orders like A**2 / V (``mean_over_std``; V = 3 n B - A**2) or A / V (``mean_over_var``;
    V = n Q - A**2), where B sums the squared distances and Q the squares of their sums over the channels.
    """
    count, corner, sign = moments.count, CORNERS, 1 - 2 * CORNERS
    sums = moments.sums[..., None, :]
    distance = (255 * count * corner + sign * sums).sum(axis=-1)
    squares = (65025 * count * corner - 510 * corner * sums + moments.squares[..., None, :]).sum(axis=-1)
    if objective is Objective.MEAN_OVER_STD:
        return distance, 3 * count * squares - distance**2
    assert moments.cross is not None
    cross = moments.cross[..., None, :]
    mixed = np.zeros_like(distance)
    for c, e, index in ((0, 1, 0), (1, 2, 1), (0, 2, 2)):
        linear = corner[:, c] * sign[:, e] * sums[..., e] + corner[:, e] * sign[:, c] * sums[..., c]
        mixed += 65025 * count * corner[:, c] * corner[:, e] + 255 * linear
        mixed += sign[:, c] * sign[:, e] * cross[..., index]
    return distance, count * (squares + 2 * mixed) - distance**2


def _best(distance: np.ndarray, spread: np.ndarray, free: np.ndarray, power: int) -> Candidate | None:
    """The best free candidate; ties go to the smaller row, column and colour. ``None``: only no-ops are left."""
    usable = free & (distance > 0)
    if not usable.any():
        return None
    constant = usable & (spread == 0)
    if constant.any():
        exact = np.argwhere(constant & (distance == distance[constant].max()))
    else:
        score = np.where(usable, distance.astype(np.float64) ** power / np.where(usable, spread, 1), -1.0)
        exact = np.argwhere(score >= score.max() * (1 - CLOSE))
    candidates = [_candidate(distance, spread, power, *position) for position in exact.tolist()]
    return max(candidates, key=lambda c: (c.score is None, c.score or 0))


def _candidate(distance: np.ndarray, spread: np.ndarray, power: int, row: int, column: int, colour: int) -> Candidate:
    numerator, denominator = int(distance[row, column, colour]), int(spread[row, column, colour])
    score = Fraction(numerator**power, denominator) if denominator else None
    return Candidate(row=row, column=column, colour=colour, score=score)
