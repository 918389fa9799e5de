"""Random crops and flips of whole batches, on the device where the images are.

The draws come from a CPU generator, so they are the same whatever device trains; applying them is one
gather, without a loop over images and without waiting for the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.compute.devices import to_device

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")


@dataclass(frozen=True, slots=True)
class Draws:
    """The random choices of one batch: int64 [B] each, on the CPU."""

    top: Tensor
    """First row of the crop, counted in the padded image: ``crop_padding`` is the image itself."""
    left: Tensor
    """First column of the crop, counted in the padded image."""
    mirrored: Tensor
    """1 where the image is mirrored, else 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """Random crop with zero padding, then random mirroring; without either, only the conversion to floats."""

    crop_padding: int
    """Pixels of zeros around the image before a window of its own size is cut out; 0: no crop."""
    flip: bool
    """Mirror left and right with probability one half."""

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise InputError(f"Augmentation: crop_padding is {self.crop_padding}, must be at least 0")

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Random choices for ``count`` images, from a CPU generator."""
        offsets = torch.randint(0, 2 * self.crop_padding + 1, (2, count), generator=generator)
        mirrored = torch.randint(0, 2, (count,), generator=generator)
        return Draws(offsets[0], offsets[1], mirrored if self.flip else torch.zeros_like(mirrored))

    def move(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Crop and mirror a batch at random: uint8 [B, H, W, C] on any device to the same.

        The generator is on the CPU, and advanced by the same amount for every augmentation.
        """
        draws = self.draw(len(images), generator)
        return self.transform(images, draws) if self.crop_padding or self.flip else images

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Crop, mirror and convert a batch at random: float32 [B, C, H, W] in [0, 1], channels-last in memory."""
        return to_float(self.move(images, generator))

    def transform(self, images: Tensor, draws: Draws) -> Tensor:
        """Apply given draws; uint8 [B, H, W, C] to the same shape and type."""
        pad = self.crop_padding
        padded = torch.nn.functional.pad(images, (0, 0, pad, pad, pad, pad))
        return cut(padded, draws, images.shape[1], images.shape[2])


def cut(canvas: Tensor, draws: Draws, height: int, width: int) -> Tensor:
    """A window of each image, mirrored where its draw says so: one gather.

    From uint8 [B, at least H, at least W, C] on any device to uint8 [B, H, W, C] there.
    """
    device = canvas.device
    packed = to_device(torch.stack([draws.top, draws.left, draws.mirrored]), device)
    top, left, mirrored = packed[:, :, None]
    down = torch.arange(height, device=device)
    across = torch.arange(width, device=device).expand(len(canvas), width)
    across = torch.where(mirrored.bool(), width - 1 - across, across)
    batch = torch.arange(len(canvas), device=device)
    return canvas[batch[:, None, None], (top + down)[:, :, None], (left + across)[:, None, :]]


def to_float(images: Tensor) -> Tensor:
    """Uint8 [B, H, W, C] to float32 [B, C, H, W] in [0, 1], channels-last in memory; no mean, no deviation."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last).div_(255)
