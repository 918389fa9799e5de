"""Perturbed images given back to their clean originals by their pixels alone: the nearest, surely, and each once.

A projection onto few orthonormal directions makes no distance longer. So the clean images that may be nearest are among
those whose projections are within the distance of any one of them, and only these are compared pixel by pixel: what
is found is the nearest in all pixels, not an approximation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ule_datasets.base.progress import say_nothing
from ule_datasets.data.spool import Images

MARGIN = 1.5
"""A match is sure if every other clean image is at least so many times as far."""
GRID = 4
"""Means over so many rows and columns of fields are what is projected."""
DIRECTIONS = 16
NEIGHBOURS = 4
"""Looked at first; more only where that does not prove which is nearest."""
USUAL = 2.0
"""Of several that are nearly as near, the nearest free one is taken, up to so many times the usual distance."""
AT_ONCE = 500
NOBODY = -1


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Matches:
    """Which clean image each perturbed one was made from."""

    rows: np.ndarray
    """int64 [N]: rows of the clean images, each at most once; -1: none."""
    nearest: np.ndarray
    """int64 [N]: the nearest clean image, matched or not."""
    distances: np.ndarray
    """float64 [N]: Euclidean, in grey levels, to the clean image that was taken, else to the nearest."""
    sure: np.ndarray
    """bool [N]: all other clean images are farther by the margin."""

    @property
    def unmatched(self) -> np.ndarray:
        """Perturbed images without an original, int64."""
        return np.flatnonzero(self.rows == NOBODY)


def match(released: Images, clean: Images, tell: Callable[[str], None] = say_nothing) -> Matches:
    """Find the original of every perturbed image among the clean ones; both uint8 [N, H, W, 3] of one size.

    An image is given to the nearest if all others are farther by ``MARGIN``. Where copies or near copies make that
    impossible it gets the nearest that no other has, unless it is unusually far from it.
    """
    search = _Search(clean)
    found = [each for start in range(0, len(released), AT_ONCE) for each in search.candidates(released, start)]
    nearest = np.array([rows[0] for rows, _ in found], np.int64)
    distances = np.array([far[0] for _, far in found])
    sure = np.array([len(rows) == 1 for rows, _ in found], bool)
    usual = float(np.quantile(distances[sure], 0.99)) if sure.any() else 0.0
    rows = np.full(len(found), NOBODY, np.int64)
    taken = np.zeros(len(clean), bool)
    for number in np.lexsort((np.arange(len(found)), distances, ~sure)).tolist():
        for row, far in zip(*found[number], strict=True):
            if not taken[row] and (sure[number] or far <= USUAL * usual):
                rows[number], distances[number], taken[row] = row, far, True
                break
    tell(f"{np.count_nonzero(rows >= 0):,} of {len(rows):,} images matched by their pixels")
    return Matches(rows=rows, nearest=nearest, distances=distances, sure=sure)


class _Search:
    """The clean images, so arranged that near ones are found."""

    def __init__(self, clean: Images) -> None:
        from scipy.spatial import cKDTree  # type: ignore[import-untyped]

        self._clean = clean
        fields = np.concatenate([_fields(clean[start:stop]) for start, stop in _parts(len(clean))])
        self._centre = fields.mean(axis=0)
        around = fields - self._centre
        self._directions = np.linalg.eigh(around.T @ around)[1][:, ::-1][:, :DIRECTIONS]
        self._tree = cKDTree(self._project(fields))

    def candidates(self, released: Images, start: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For some perturbed images the clean ones that are nearest within the margin, and their distances."""
        images = np.asarray(released[start : start + AT_ONCE])
        points = self._project(_fields(images))
        count = min(NEIGHBOURS, len(self._clean))
        below, rows = self._tree.query(points, k=[*range(1, count + 1)])
        exact = np.stack([self._distances(images, column) for column in rows.T], axis=1)
        bound = MARGIN * exact.min(axis=1)
        for number, point in enumerate(points):
            some, far = rows[number], exact[number]
            if below[number, -1] <= bound[number] and count < len(self._clean):  # others may be as near
                some = np.array(self._tree.query_ball_point(point, bound[number] * (1 + 1e-9) + 1e-6), np.int64)
                far = self._distances(np.broadcast_to(images[number], (len(some), *images.shape[1:])), some)
            order = np.lexsort((some, far))
            near = order[far[order] <= MARGIN * far.min()]
            yield some[near], far[near]

    def _project(self, fields: np.ndarray) -> np.ndarray:
        projected: np.ndarray = (fields - self._centre) @ self._directions
        return projected

    def _distances(self, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Of each image to the clean one of its row, float64; sums of squares of bytes are exact."""
        result = np.empty(len(rows))
        for start, stop in _parts(len(rows)):
            difference = images[start:stop].astype(np.int32) - np.asarray(self._clean[rows[start:stop]])
            result[start:stop] = np.sqrt(np.einsum("nhwc,nhwc->n", difference, difference, dtype=np.int64))
        return result


def _fields(images: Images) -> np.ndarray:
    """Sums over fields of an image, so scaled that no distance grows: float64 [n, features]."""
    pixels = np.asarray(images)
    count, height, width, channels = pixels.shape
    rows, columns = min(GRID, height), min(GRID, width)
    high, wide = height // rows, width // columns
    cut = pixels[:, : rows * high, : columns * wide].reshape(count, rows, high, columns * wide * channels)
    lines = cut.sum(axis=2, dtype=np.uint32).reshape(count, rows, columns, wide, channels)
    sums: np.ndarray = lines.sum(axis=3, dtype=np.float64).reshape(count, -1)
    return sums / math.sqrt(high * wide)


def _parts(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, AT_ONCE):
        yield start, min(start + AT_ONCE, count)
