"""What a model is trained and tested on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ule_datasets.base.errors import InputError


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class TrainingData:
    """What a model is trained and tested on."""

    images: np.ndarray
    """uint8, [N, H, W, 3]."""
    labels: np.ndarray
    """int64, [N]."""
    test_images: np.ndarray
    """uint8, [M, H, W, 3]."""
    test_labels: np.ndarray
    """int64, [M]."""
    num_classes: int
    learned: tuple[np.ndarray, ...] = ()
    """What those parts of a strategy that change whole images know of these, in their order; empty: nothing, and they
    leave them alone."""

    def __post_init__(self) -> None:
        _check("training", self.images, self.labels, self.num_classes, at_least=2)
        _check("test", self.test_images, self.test_labels, self.num_classes, at_least=1)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class TrainingSet:
    """What is known of training data before any of it is read, and how to get it."""

    digest: str
    """Its identity: results are filed under it."""
    num_train: int
    num_test: int
    image_size: int
    """Rows and columns."""
    num_classes: int
    load: Callable[[], TrainingData]
    """The data; the same arrays each time."""

    @classmethod
    def of(cls, data: TrainingData, digest: str) -> TrainingSet:
        """Data that is here already; can be sent to another process."""
        return cls(
            digest=digest,
            num_train=len(data.images),
            num_test=len(data.test_images),
            image_size=data.images.shape[1],
            num_classes=data.num_classes,
            load=partial(_itself, data),
        )


def _itself(data: TrainingData) -> TrainingData:
    return data


def _check(what: str, images: np.ndarray, labels: np.ndarray, num_classes: int, *, at_least: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(f"{what} images are {images.dtype} {list(images.shape)}; expected uint8 [N, H, W, 3]")
    if len(images) < at_least or labels.dtype != np.int64 or labels.shape != (len(images),):
        raise InputError(
            f"{len(images)} {what} images with labels {labels.dtype} {list(labels.shape)}; "
            f"expected at least {at_least}, with int64 labels [N]"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(f"{what} labels lie in {labels.min()} .. {labels.max()}; expected 0 .. {num_classes - 1}")
