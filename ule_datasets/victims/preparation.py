"""What a countermeasure may use to change a training set before training: workers, and a place for finished pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from ule_datasets.base.files import replacing
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.executor import Executor
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.spool import Images, SpooledImages

PIECE_BYTES = 2**22
"""Pixels of a piece; at least one image. Random choices depend on where pieces begin, so it never follows a machine."""
_AHEAD = 2  # pieces per worker that are read, or finished, before it is their turn to be kept

Change = Callable[[np.ndarray, Seed], np.ndarray]
"""From some images, uint8 [n, H, W, 3], to new ones of the same shape and type; the seed is that of these images."""


class Pieces(Protocol):
    """Where finished pieces of a training set are kept, and found again after an interruption."""

    def has(self, name: str) -> bool:
        """Whether a piece is finished."""

    def keep(self, name: str, images: np.ndarray) -> None:
        """Keep a finished piece: uint8 [n, H, W, 3]."""

    def joined(self, names: Sequence[str]) -> Images:
        """All images of some pieces, one piece after the other."""


@dataclass(frozen=True, slots=True)
class PieceFiles:
    """A file for each piece, so that memory does not grow with their number; a file that is there is whole."""

    folder: Path
    image_shape: tuple[int, int, int]
    """Rows, columns, channels."""

    def has(self, name: str) -> bool:
        """Whether its file is there."""
        return self._path(name).exists()

    def keep(self, name: str, images: np.ndarray) -> None:
        """Write its file."""
        with replacing(self._path(name)) as partial_file:
            images.tofile(partial_file)

    def joined(self, names: Sequence[str]) -> SpooledImages:
        """All images of some pieces; they are read from the files where they are needed."""
        files = [(path, path.stat().st_size // int(np.prod(self.image_shape))) for path in map(self._path, names)]
        return SpooledImages.in_files(files, self.image_shape)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.rgb"


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """What a countermeasure may use besides the images and labels."""

    pieces: Pieces
    seed: Seed
    """Never that of a training run: a training set is prepared once for all of them."""
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``cuda:INDEX``."""
    weights: Path | None = None
    """A file of trained weights, or a folder of them, to look at before downloading."""
    executor: Executor = field(default_factory=LocalExecutor)
    """Where independent pieces of work run."""
    reporter: Reporter = field(default_factory=Reporter)

    def piecewise(self, change: Change, images: Images, *, label: str) -> Images:
        """Change a training set piece by piece, on all workers; pieces that were finished before are not made again.

        The result is the same with any number of workers and however often it was interrupted.

        Args:
            change: can be pickled, as a method of a countermeasure can.
            images: uint8 [N, H, W, 3].
            label: names the work, for people and among the pieces; another one for every use in one preparation.
        """
        size = max(1, PIECE_BYTES // int(np.prod(images.shape[1:])))
        names = {first: f"{label}-{first:09d}" for first in range(0, len(images), size)}
        missing = [first for first, name in names.items() if not self.pieces.has(name)]
        seeds = {first: Seed(self.seed.integer32("preparation", label, first)) for first in missing}
        tasks = ((np.asarray(images[first : first + size]), seed) for first, seed in seeds.items())
        results = self.executor.map(partial(_changed, change), tasks, ahead=_AHEAD)
        shown = self.reporter.track(results, total=len(missing), label=label, unit="piece", images=len)
        for first, result in zip(missing, shown, strict=True):
            self.pieces.keep(names[first], result)
        return self.pieces.joined(list(names.values()))


def _changed(change: Change, task: tuple[np.ndarray, Seed]) -> np.ndarray:
    images, seed = task
    changed = change(images, seed)
    assert changed.shape == images.shape
    assert changed.dtype == np.uint8
    return changed
