"""Images on disk as raw bytes, read where they are needed, so that memory does not grow with their number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ule_datasets.base.errors import InputError


@dataclass(frozen=True, eq=False, slots=True)
class SpooledImages:
    """Images in spool files, in any order: behaves like a read-only uint8 array [N, H, W, C].

    A spool file is such an array, byte by byte, without any header.

    As with NumPy a slice is a view, which reads nothing, and an array of indices gives a copy: the pixels, from disk.
    ``np.asarray`` reads everything. Pickles as file names and places, so that a worker reads what it needs itself.
    """

    files: tuple[Path, ...]
    image_shape: tuple[int, int, int]
    file: np.ndarray
    """int32, [N]: which file."""
    place: np.ndarray
    """int64, [N]: which image of the file."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    @classmethod
    def in_files(cls, files: Sequence[tuple[Path, int]], image_shape: tuple[int, int, int]) -> SpooledImages:
        """All images of some files, given with the number of images in each, in the order in which they stand."""
        counts = [count for _, count in files]
        return cls(
            files=tuple(path for path, _ in files),
            image_shape=image_shape,
            file=np.repeat(np.arange(len(files), dtype=np.int32), counts),
            place=np.concatenate([np.arange(count, dtype=np.int64) for count in counts] or [np.empty(0, np.int64)]),
        )

    def __len__(self) -> int:
        return len(self.file)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, H, W, C."""
        return len(self), *self.image_shape

    @property
    def nbytes(self) -> int:
        """Bytes of pixels, all of them on disk."""
        return len(self) * self._image_bytes

    def view(self, rows: slice | np.ndarray) -> SpooledImages:
        """Some of the images, in the order of ``rows``; nothing is read."""
        used, file = np.unique(self.file[rows], return_inverse=True)
        return SpooledImages(
            files=tuple(self.files[index] for index in used.tolist()),
            image_shape=self.image_shape,
            file=file.astype(np.int32),
            place=self.place[rows],
        )

    def sequential(self) -> SpooledImages:
        """These images in the order in which they lie on disk, for what does not depend on their order."""
        return self.view(np.lexsort((self.place, self.file)))

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            return self.view(rows)
        if isinstance(rows, int | np.integer):
            return self._read(np.array([rows]))[0]
        chosen = np.asarray(rows)
        return self._read(np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("spooled images have to be read, which makes a copy")
        pixels = self._read(np.arange(len(self)))
        return pixels if dtype is None else pixels.astype(dtype, copy=False)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """The pixels of some images; each file is opened once, and read in the order in which it lies on disk."""
        pixels = np.empty((len(rows), *self.image_shape), dtype=np.uint8)
        flat = pixels.reshape(len(rows), self._image_bytes)
        files, places = self.file[rows], self.place[rows]
        order = np.lexsort((places, files))
        bounds = np.flatnonzero(np.diff(files[order])) + 1
        for part in np.split(order, bounds) if len(rows) else []:
            with self.files[int(files[part[0]])].open("rb", buffering=0) as stream:
                for start, stop in _runs(places[part]):
                    stream.seek(int(places[part[start]]) * self._image_bytes)
                    self._fill(flat, part[start:stop], stream)
        return pixels

    def _fill(self, flat: np.ndarray, rows: np.ndarray, stream: Any) -> None:
        """Images that follow each other in a file, to wherever they belong."""
        ahead = len(rows) == 1 or bool((np.diff(rows) == 1).all())
        target = flat[rows[0] : rows[-1] + 1] if ahead else np.empty((len(rows), self._image_bytes), dtype=np.uint8)
        wanted = target.data.cast("B")
        done = 0
        while done < len(wanted):
            count = stream.readinto(wanted[done:])
            if not count:
                raise InputError(f"{stream.name} ends too early: it was changed during the build; build again")
            done += count
        if not ahead:
            flat[rows] = target

    @property
    def _image_bytes(self) -> int:
        return math.prod(self.image_shape)


Images = np.ndarray | SpooledImages
"""What holds the images of a split: memory or disk."""


def view(images: Images, rows: slice | np.ndarray) -> Images:
    """Some of the images: of spooled ones nothing is read, of an array it is what indexing gives."""
    return images.view(rows) if isinstance(images, SpooledImages) else images[rows]


def _runs(places: np.ndarray, most: int = 64) -> list[tuple[int, int]]:
    """Ranges of neighbours in ascending places, of at most ``most`` each."""
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    edges = [0, *breaks.tolist(), len(places)]
    return [
        (start, min(start + most, stop))
        for first, stop in itertools.pairwise(edges)
        for start in range(first, stop, most)
    ]
