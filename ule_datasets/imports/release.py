"""What a release holds, in one form whatever it was stored in, and what a recipe may state about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.data.quantization import Quantize
from ule_datasets.data.spool import Images


class Content(StrEnum):
    """What the numbers of a release are."""

    IMAGES = "images"
    """Perturbed images, whole."""
    NOISE = "noise"
    """What is to be added to the clean images."""


class Order(StrEnum):
    """Which training image each entry of noise is for."""

    SOURCE = "source"
    """In the order of the files of the source: of CIFAR-10 that of the five original batches, if these are given."""
    CANONICAL = "canonical"
    """In the order of the keys, as this library's datasets are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stated:
    """What a recipe says about a release, where its numbers do not say it or say something else."""

    entry: str = ""
    """Which of several arrays, by its path: ``model.delta``."""
    content: Content | None = None
    unit: str = ""
    """``1``, ``255`` or ``epsilon``: of what its real numbers are multiples."""
    epsilon: float = 0.0
    """Grey levels that a unit ``epsilon`` is."""
    order: Order | None = None
    """Of noise for single images; ``None``: that of the source, if the noise itself shows that it is."""
    quantize: Quantize | None = None
    """How real numbers become bytes; ``None``: rounded down, as most official code does."""

    def __post_init__(self) -> None:
        if self.unit not in ("", "1", "255", "epsilon"):
            raise InputError(f"Stated: unit is {self.unit!r}, must be '1', '255' or 'epsilon'")
        if not 0 <= self.epsilon <= 255:
            raise InputError(f"Stated: epsilon is {self.epsilon}, must be 0 to 255 grey levels")

    @property
    def rule(self) -> Quantize:
        """How real numbers become bytes."""
        return self.quantize or Quantize.TRUNC


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Release:
    """What was read from a file or folder, before it is held against the clean images."""

    convention: str
    """How it was stored, in words: ``PNG files without labels``, ``float32 [N, 3, 32, 32] in units of 1``."""
    content: Content
    values: Images | np.ndarray
    """Images: uint8 [N, H, W, 3]. Noise: real or whole numbers [M, H, W, 3] in grey levels, units of 1/255."""
    names: Sequence[str]
    """What each entry is called in messages: its file, or ``entry 17``."""
    labels: np.ndarray | None = None
    """int64 [N], as the release has them; ``None``: it has none."""
    members: np.ndarray | None = None
    """int64, the entry of each training image in the release's order, where images share noise by groups."""
    test: np.ndarray | None = None
    """Test images that were released with it, uint8 [N, H, W, 3]; they should be the clean ones."""
    remarks: tuple[str, ...] = field(default=())
    """What the reader passed over, and what it found wrong with single entries."""

    def __len__(self) -> int:
        return len(self.values)
