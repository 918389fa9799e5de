"""Mixup and CutMix: images of a batch are combined with those of the same batch in another order.

Hongyi Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. Sangdoo Yun et al., "CutMix:
Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.compute.devices import to_device
from ule_datasets.victims.strategy import Countermeasure, Mixed

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

_LEAST_ALPHA = 0.1  # below, draws from the beta distribution are no longer accurate


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixup(Countermeasure):
    """Each image becomes ``weight * image + (1 - weight) * other``; the weight is drawn from Beta(alpha, alpha)."""

    word: ClassVar[str] = "mixup"
    citation: ClassVar[str] = "zhang2018mixup"
    place: ClassVar[str] = "mixing"

    alpha: float = 1.0
    """Of the beta distribution; 1: weights are uniform in [0, 1]."""

    def __post_init__(self) -> None:
        _check_alpha("Mixup", self.alpha)

    def mix(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Mixed:
        """Mix a batch, all images with one weight."""
        order = _order(images, generator)
        weight = torch.full((), _beta(self.alpha, generator), dtype=torch.float32, device=images.device)
        return Mixed(images * weight + images[order] * (1 - weight), labels, labels[order], weight)


@dataclass(frozen=True, kw_only=True, slots=True)
class CutMix(Countermeasure):
    """A box of each image is replaced by the same box of another; one box for the batch.

    The box has the image's proportions and a share of ``1 - w`` of its area, w drawn from Beta(alpha, alpha);
    its centre is uniform over the image, and what lies beyond the border is cut off. The weight of the labels
    is the share of the area that is really kept.
    """

    word: ClassVar[str] = "cutmix"
    citation: ClassVar[str] = "yun2019cutmix"
    place: ClassVar[str] = "mixing"

    alpha: float = 1.0
    """Of the beta distribution; 1: areas are uniform."""
    probability: float = 0.5
    """With which a batch is mixed at all; otherwise it stays as it is, with weight 1."""

    def __post_init__(self) -> None:
        _check_alpha("CutMix", self.alpha)
        if not 0 <= self.probability <= 1:
            raise InputError(f"CutMix: probability is {self.probability}, must be from 0 to 1")

    def mix(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Mixed:
        """Mix a batch, or leave it; the generator is advanced alike."""
        height, width = images.shape[2:]
        order = _order(images, generator)
        side = math.sqrt(1 - _beta(self.alpha, generator))
        used = torch.rand((), generator=generator).item() < self.probability
        rows = _interval(height, side, generator)
        columns = _interval(width, side, generator)
        kept = 1.0
        if used:
            images = images.clone()
            images[:, :, rows, columns] = images[:, :, rows, columns][order]
            kept = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        weight = torch.full((), kept, dtype=torch.float32, device=images.device)
        return Mixed(images, labels, labels[order], weight)


def _check_alpha(owner: str, alpha: float) -> None:
    if not _LEAST_ALPHA <= alpha < math.inf:
        raise InputError(f"{owner}: alpha is {alpha}, must be finite and at least {_LEAST_ALPHA}")


def _order(images: Tensor, generator: torch.Generator) -> Tensor:
    """Which image is mixed into which: a permutation of the rows, on the device of the images."""
    return to_device(torch.randperm(len(images), generator=generator), images.device)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """A draw from Beta(alpha, alpha)."""
    return torch._sample_dirichlet(torch.full((2,), alpha, dtype=torch.float64), generator=generator)[0].item()


def _interval(length: int, share: float, generator: torch.Generator) -> slice:
    """A share of a side, rounded down to whole pixels, around a uniformly drawn pixel and cut off at both ends."""
    size = int(length * share)
    first = int(torch.randint(0, length, (), generator=generator)) - size // 2
    return slice(max(first, 0), min(first + size, length))
