"""Trained models on fixed images: evaluation mode, nothing augmented, the model itself left as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ule_datasets.base.errors import InputError
from ule_datasets.compute.devices import deterministic_algorithms, products_in, resident
from ule_datasets.compute.precision import Precision
from ule_datasets.victims.augmentation import to_float
from ule_datasets.victims.loop import EVALUATION_BATCH


@contextmanager
def evaluating(precision: Precision) -> Iterator[None]:
    """Without gradients, with kernels that repeat; bfloat16 is refused, because nothing here runs under autocast."""
    if precision is Precision.BFLOAT16:
        raise InputError(f"precision is {precision}, an analysis can have float32 or tf32")
    with deterministic_algorithms(), products_in(precision), torch.no_grad():
        yield


def still_copy(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy in evaluation mode, on the device, channels-last in memory."""
    return copy.deepcopy(model).to(device).to(memory_format=torch.channels_last).eval()


class FixedImages:
    """Labelled images, uint8 [N, H, W, 3] and int64 [N], on a device, given out in batches."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, device: torch.device) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or len(images) == 0:
            raise InputError(f"images are {images.dtype} {list(images.shape)}; expected uint8 [N, H, W, 3], N above 0")
        if labels.dtype != np.int64 or labels.shape != (len(images),):
            raise InputError(f"labels are {labels.dtype} {list(labels.shape)}; expected int64 [{len(images)}]")
        self._images, self._labels = resident(images, device), resident(labels, device)

    def __len__(self) -> int:
        return len(self._images)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images, float32 [B, 3, H, W] in [0, 1] and channels-last; labels, int64 [B]."""
        for start in range(0, len(self), EVALUATION_BATCH):
            rows = slice(start, start + EVALUATION_BATCH)
            yield to_float(self._images[rows]), self._labels[rows]
