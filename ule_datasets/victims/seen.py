"""Training images as a strategy's parts change them whole, before crop and flip: made of bytes for every batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ule_datasets.compute.devices import products_in, resident
from ule_datasets.compute.precision import Precision
from ule_datasets.victims.strategy import Strategy


class Seen:
    """Stands for the images on the device where a training loop asks for the number of them, and for some rows.

    Only the bytes are kept. What other parts are promised of images they get: those that change bytes, rounded and
    clipped ones; those that change floats or attack, values within 0 to 255.
    """

    def __init__(self, images: Tensor, strategy: Strategy, learned: Sequence[np.ndarray]) -> None:
        """Of uint8 [N, H, W, 3], and what each part with ``on_levels`` has learned of them.

        Where ``learned`` is empty, because nobody has prepared the images, the parts leave them alone.
        """
        parts = strategy.having("on_levels") if learned else ()
        known = [resident(array, images.device) for array in learned]
        self._images, self._parts = images, tuple(zip(parts, known, strict=True))
        self._as_bytes = bool(strategy.having("on_bytes"))
        self._clipped = bool(strategy.having("on_floats") or strategy.having("attack"))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Images at some places (int64 [B]): [B, H, W, 3], float32 in levels, or uint8."""
        images = self._images[rows].float()
        with products_in(Precision.FLOAT32):  # in TF32 a thousandth of what is taken away would stay
            for part, learned in self._parts:
                images = part.on_levels(images, rows, learned)
        if self._as_bytes:
            return images.round().clamp(0, 255).to(torch.uint8)
        return images.clamp(0, 255) if self._clipped else images
