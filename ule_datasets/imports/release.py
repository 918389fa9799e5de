"""What a release holds, in one form whatever it was stored in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from ule_datasets.data.spool import Images


class Content(StrEnum):
    """What the numbers of a release are."""

    IMAGES = "images"
    """Perturbed images, whole."""
    NOISE = "noise"
    """What is to be added to the clean images."""


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
    remarks: tuple[str, ...] = field(default=())
    """What the reader passed over, and what it found wrong with single entries."""

    def __len__(self) -> int:
        return len(self.values)
