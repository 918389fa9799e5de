"""What a victim may do to the images while it trains on them: the stages of a strategy, and a mixed batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ule_datasets.victims.augmentation import Augmentation


@dataclass(frozen=True, eq=False, slots=True)
class Mixed:
    """A batch to train on with the loss ``weight * CE(labels) + (1 - weight) * CE(other_labels)`` of each image."""

    images: Tensor
    """Float32 [B, 3, H, W]."""
    labels: Tensor
    """The batch's own, int64 [B]."""
    other_labels: Tensor
    """Of the images that were mixed in, int64 [B]."""
    weight: Tensor
    """Share of ``labels``, from 0 to 1: float32, a scalar for the batch or [B], on the device of the images."""


class ByteStage(Protocol):
    """Changes images after crop and flip, while they are bytes."""

    @property
    def name(self) -> str:
        """Its part of a strategy's name."""
        ...

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Uint8 [B, H, W, 3] to the same; the generator is on the CPU."""
        ...


class FloatStage(Protocol):
    """Changes images after their conversion to [0, 1]."""

    @property
    def name(self) -> str:
        """Its part of a strategy's name."""
        ...

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Float32 [B, 3, H, W] to the same; the generator is on the CPU."""
        ...


class Attack(Protocol):
    """Moves images to where the model is wrong."""

    @property
    def steps(self) -> int:
        """How often it asks for a gradient."""
        ...

    @property
    def name(self) -> str:
        """Its part of a strategy's name."""
        ...

    def perturb(self, images: Tensor, labels: Tensor, model: nn.Module, generator: torch.Generator) -> Tensor:
        """Adversarial images.

        Args:
            images: float32 [B, 3, H, W] in [0, 1].
            labels: int64 [B].
            model: images to logits; its training flags, ``requires_grad`` and ``.grad`` stay as they were.
            generator: on the device of the images.

        Returns:
            Detached float32 [B, 3, H, W] in [0, 1].
        """
        ...


class Mixing(Protocol):
    """Combines the images of a batch, and their labels."""

    @property
    def name(self) -> str:
        """Its part of a strategy's name."""
        ...

    def apply(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Mixed:
        """Mix float32 [B, 3, H, W] and int64 [B]; the generator is on the CPU."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    """How the images of a training run are changed, step by step; ``dataclasses.asdict`` of it is plain JSON."""

    name: str
    """Its slug in canonical order, e.g. ``standard`` or ``linf-at+randaugment+cutout``."""
    augmentation: Augmentation
    """Crop and flip, first of all."""
    on_bytes: ByteStage | None = None
    on_floats: FloatStage | None = None
    attack: Attack | None = None
    """Against the hard labels, before mixing."""
    mixing: Mixing | None = None

    def __str__(self) -> str:
        return self.name
