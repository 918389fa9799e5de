"""Perturbations moved to other images: does a model read the perturbation or the picture?

Table 1 of the One-Pixel Shortcut paper: every image receives the perturbation of another one, and the label that
belongs to the perturbation. A model that learned the content agrees with these labels by chance only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from torch import nn

from ule_datasets.analyses.evaluation import FixedImages, evaluating, still_copy
from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.precision import Precision
from ule_datasets.data.perturbation import Overwrite, Perturbation
from ule_datasets.papers.statistics import Estimate

ROWS_AT_ONCE = 1024


class Reading(StrEnum):
    """What it means to give a perturbation to another image; the paper does not say."""

    ADDITIVE = "additive"
    """The difference is added and the sum clipped: an overwritten pixel may miss its colour."""
    RESTAMPED = "re-stamped"
    """Overwritten pixels get the colour that they have in the perturbation's own image, all others the difference."""


def shuffled(
    clean: np.ndarray,
    poisoned: np.ndarray,
    labels: np.ndarray,
    permutation: np.ndarray,
    reading: Reading,
    overwritten: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Image j receives the perturbation of image i = ``permutation[j]``, and the label of i.

    Args:
        clean: uint8 [N, H, W, C].
        poisoned: the same images with their own perturbations, uint8 [N, H, W, C].
        labels: [N].
        permutation: every number below N once, integers [N].
        reading: how a perturbation is given to another image.
        overwritten: bool [N, H, W], see ``overwritten_pixels``; used by ``Reading.RESTAMPED`` only; ``None``: nowhere.

    Returns:
        Images, uint8 [N, H, W, C], and labels, [N] of the given type.

    Raises:
        InputError: the arrays do not fit together, or it is no permutation.
    """
    _check(clean, poisoned, labels, overwritten)
    count = len(clean)
    if permutation.dtype.kind not in "iu" or not np.array_equal(np.sort(permutation), np.arange(count)):
        raise InputError(f"the permutation must hold each integer from 0 to {count - 1} once")
    result = np.empty_like(clean)
    for start in range(0, count, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        givers = permutation[rows]
        moved = clean[rows].astype(np.int16) + poisoned[givers] - clean[givers]
        result[rows] = np.clip(moved, 0, 255)
        if reading is Reading.RESTAMPED and overwritten is not None:
            stamped = overwritten[givers]
            result[rows][stamped] = poisoned[givers][stamped]
    return result, labels[permutation]


def overwritten_pixels(
    perturbation: Perturbation, labels: np.ndarray, keys: Sequence[str], shape: tuple[int, int]
) -> np.ndarray:
    """The pixels that an overwriting layer sets in each image, whether or not their colour changes.

    Args:
        perturbation: of the images with these labels and keys.
        labels: int64 [N].
        keys: N of them.
        shape: rows and columns of the images.

    Returns:
        Bool [N, H, W].

    Raises:
        InputError: a pixel lies outside images of this shape.
    """
    markers = tuple(
        dataclasses.replace(layer, colours=np.ones((*layer.rows.shape, 1), dtype=np.uint8))
        for layer in perturbation.layers
        if isinstance(layer, Overwrite)
    )
    height, width = shape
    for layer in markers:
        if layer.rows.max(initial=-1) >= height or layer.columns.max(initial=-1) >= width:
            raise InputError(f"the perturbation overwrites pixels outside images of {height} x {width}")
    marking = dataclasses.replace(perturbation, layers=markers)
    marks = marking.apply(np.zeros((len(labels), height, width, 1), dtype=np.uint8), labels, keys)
    return marks[..., 0] > 0


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class EvaluationSet:
    """Images that models are asked about: clean ones, or perturbed ones with what is needed to shuffle them."""

    images: np.ndarray
    """As they are, uint8 [N, H, W, 3]."""
    labels: np.ndarray
    """int64 [N]."""
    clean: np.ndarray | None = None
    """The same images without perturbation, uint8 [N, H, W, 3]; ``None``: there is nothing to shuffle."""
    overwritten: np.ndarray | None = None
    """Bool [N, H, W]; ``None``: no pixel is overwritten, so both readings are one."""

    def __post_init__(self) -> None:
        if self.clean is not None:
            _check(self.clean, self.images, self.labels, self.overwritten)
        elif self.overwritten is not None:
            raise InputError("EvaluationSet: overwritten is given without the clean images that shuffling needs")

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The ways to shuffle that differ."""
        if self.clean is None:
            return ()
        return (Reading.ADDITIVE,) if self.overwritten is None else (Reading.ADDITIVE, Reading.RESTAMPED)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffledCell:
    """One model on one set of images."""

    trained_on: str
    evaluated_on: str
    """The set's name, followed by ``shuffled`` where perturbations were moved."""
    reading: Reading | None
    """``None``: nothing was shuffled."""
    accuracies: tuple[float, ...]
    """Agreement with the labels, percent; one value per permutation."""
    mean: float
    sd: float | None
    """Sample deviation over permutations; ``None`` for a single value."""


def evaluate(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    device: torch.device,
    *,
    precision: Precision = Precision.FLOAT32,
) -> float:
    """How often a model agrees with the labels (percent), in evaluation mode and without augmentation.

    Args:
        model: left as it is, where it is; a copy is asked.
        images: uint8 [N, H, W, 3].
        labels: int64 [N].
        device: where to compute.
        precision: float32 or tf32.
    """
    given, asked = FixedImages(images, labels, device), still_copy(model, device)
    with evaluating(precision):
        correct = torch.zeros((), dtype=torch.int64, device=device)
        for batch, wanted in given.batches():
            correct += (asked(batch).argmax(dim=1) == wanted).sum()
    return 100 * int(correct) / len(given)


def table_of_shuffles(
    models: Mapping[str, nn.Module],
    sets: Mapping[str, EvaluationSet],
    *,
    permutations: int = 5,
    seed: Seed,
    device: torch.device,
    precision: Precision = Precision.FLOAT32,
) -> tuple[ShuffledCell, ...]:
    """Every model on every set as it is, and shuffled in every reading: the cells of Table 1.

    All models, readings and sets of one size share the permutations.

    Args:
        models: by what they were trained on.
        sets: by name.
        permutations: how many are drawn, at least 1.
        seed: fixes them.
        device: where to compute.
        precision: float32 or tf32.

    Returns:
        Cells by model, then by set.

    Raises:
        InputError: no permutation is asked for.
    """
    if permutations < 1:
        raise InputError(f"permutations is {permutations}, must be at least 1")
    found: dict[tuple[str, str, Reading | None], list[float]] = {}
    for name, each in sets.items():
        variants = [(reading, number) for reading in each.readings for number in range(permutations)]
        for reading, number in [(None, 0), *variants]:
            images, labels = each.images, each.labels
            if reading is not None:
                assert each.clean is not None
                order = _permutation(len(labels), seed, number)
                images, labels = shuffled(each.clean, images, labels, order, reading, each.overwritten)
            for trained_on, model in models.items():
                accuracy = evaluate(model, images, labels, device, precision=precision)
                found.setdefault((trained_on, name, reading), []).append(accuracy)
    ordered = [(trained_on, name, reading) for trained_on in models for name in sets for reading in (None, *Reading)]
    return tuple(_cell(*key, found[key]) for key in ordered if key in found)


def _cell(trained_on: str, name: str, reading: Reading | None, accuracies: list[float]) -> ShuffledCell:
    estimate = Estimate(tuple(accuracies))
    return ShuffledCell(
        trained_on=trained_on,
        evaluated_on=name if reading is None else f"{name} shuffled",
        reading=reading,
        accuracies=estimate.values,
        mean=estimate.mean,
        sd=estimate.sd,
    )


def _permutation(count: int, seed: Seed, number: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed.integer32("shuffled perturbations", number))
    order: np.ndarray = torch.randperm(count, generator=generator).numpy()
    return order


def _check(clean: np.ndarray, poisoned: np.ndarray, labels: np.ndarray, overwritten: np.ndarray | None) -> None:
    if clean.dtype != np.uint8 or poisoned.dtype != np.uint8 or clean.ndim != 4 or clean.shape != poisoned.shape:
        raise InputError(
            f"clean images are {clean.dtype} {list(clean.shape)}, poisoned ones {poisoned.dtype} "
            f"{list(poisoned.shape)}; expected uint8 [N, H, W, C] twice, of one shape"
        )
    if labels.shape != clean.shape[:1]:
        raise InputError(f"labels are {list(labels.shape)}; expected [{len(clean)}], one per image")
    if overwritten is not None and (overwritten.dtype != np.bool_ or overwritten.shape != clean.shape[:3]):
        raise InputError(
            f"overwritten is {overwritten.dtype} {list(overwritten.shape)}; expected bool {list(clean.shape[:3])}"
        )
