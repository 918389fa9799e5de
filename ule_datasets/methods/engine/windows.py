"""Random windows of images, as generators of perturbations see them while they are trained."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from ule_datasets.base.lazy import lazy
from ule_datasets.methods.engine.clustering import to_levels

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ule_datasets.victims import augmentation
else:
    torch, augmentation = lazy("torch"), lazy("ule_datasets.victims.augmentation")


class CropRule(StrEnum):
    """The canvas from which generators see random windows of the images' own size, mirrored half of the time."""

    PAD = "pad"
    """The image with 4 pixels of black on every side: usual for 32 x 32 pixels."""
    ENLARGE = "enlarge"
    """The image enlarged to 8/7 (bilinear): windows of 224 from 256 pixels, as the official code has it."""

    def canvas(self, size: int) -> int:
        """Rows (or columns) of the canvas for images of so many."""
        return size + 8 if self is CropRule.PAD else round(size * 8 / 7)


def windows(images: Tensor, rule: CropRule, generator: torch.Generator) -> Tensor:
    """Random windows of images uint8 [B, H, W, C] on any device, in the same shape there, by a generator on the CPU."""
    count, height, width, _ = images.shape
    size = rule.canvas(height), rule.canvas(width)
    below = size[0] - height + 1, size[1] - width + 1, 2
    draws = [torch.randint(0, limit, (count,), generator=generator) for limit in below]
    if rule is CropRule.ENLARGE:
        larger = torch.nn.functional.interpolate(to_levels(images), size=size, mode="bilinear", align_corners=False)
        canvas = larger.round_().to(torch.uint8).permute(0, 2, 3, 1)
    else:
        down, across = (size[0] - height) // 2, (size[1] - width) // 2
        canvas = torch.nn.functional.pad(images, (0, 0, across, across, down, down))
    return augmentation.cut(canvas, torch.stack(draws), height, width)
