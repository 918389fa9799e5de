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

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Random choices for ``count`` images, as for ``cut`` in the padded image, from a CPU generator."""
        offsets = torch.randint(0, 2 * self.crop_padding + 1, (2, count), generator=generator)
        mirrored = torch.randint(0, 2, (count,), generator=generator)
        return torch.stack([*offsets, mirrored if self.flip else torch.zeros_like(mirrored)])

    def move(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Crop and mirror a batch at random: uint8 or float32 [B, H, W, C] on any device to the same.

        The generator is on the CPU, and advanced by the same amount for every augmentation.
        """
        draws = self.draw(len(images), generator)
        return self.transform(images, draws) if self.crop_padding or self.flip else images

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Crop, mirror and convert a batch at random: float32 [B, C, H, W] in [0, 1], channels-last in memory."""
        return to_float(self.move(images, generator))

    def transform(self, images: Tensor, draws: Tensor) -> Tensor:
        """Apply given draws; uint8 or float32 [B, H, W, C] to the same shape and type."""
        pad = self.crop_padding
        padded = torch.nn.functional.pad(images, (0, 0, pad, pad, pad, pad))
        return cut(padded, draws, images.shape[1], images.shape[2])


def cut(canvas: Tensor, draws: Tensor, height: int, width: int) -> Tensor:
    """A window of each image, mirrored where its draw says so: one gather.

    From uint8 or float32 [B, at least H, at least W, C] on any device to the same type there, [B, H, W, C]. Draws are
    the first row and the first column of each window and whether it is mirrored (1, else 0): int64 [3, B] on the CPU.
    """
    count, rows, columns, channels = canvas.shape
    device = canvas.device
    top, left, mirrored = to_device(draws, device)[:, :, None]
    down = top + torch.arange(height, device=device)
    across = torch.arange(width, device=device)
    across = left + torch.where(mirrored.bool(), width - 1 - across, across)
    first = torch.arange(count, device=device)[:, None] * rows  # of each image's rows among all
    pixels = (first + down)[:, :, None] * columns + across[:, None, :]
    # Whole pixels out of one long list of them: on a CPU several times faster than by image, row and column.
    found = canvas.reshape(-1, channels).index_select(0, pixels.reshape(-1))
    return found.reshape(count, height, width, channels)


def to_float(images: Tensor) -> Tensor:
    """Levels, uint8 or float32 [B, H, W, C], over 255: float32 [B, C, H, W], channels-last in memory.

    Bytes come into [0, 1]. Floats may be written to.
    """
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last).div_(255)
