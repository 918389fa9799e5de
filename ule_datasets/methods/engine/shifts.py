"""Random shifts and mirror images through which gradients pass, as products with small matrices.

Sampling along a grid, as torch does it, has no gradient on a GPU that repeats. A shift along an axis is a linear map,
and so is its gradient: the product with the transposed matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from ule_datasets.base.lazy import lazy

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

REACH = 4
"""Pixels by which images are moved at most."""


class ShiftRule(StrEnum):
    """How far an image is moved, up to 4 pixels along each axis; half of the images are mirrored."""

    SMOOTH = "smooth"
    """Any real number, with values between pixels interpolated linearly; what comes in is the mean colour (official
    code of TAP)."""
    WHOLE = "whole"
    """Whole pixels; what comes in is black (the usual crop out of a padded image)."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Shifts:
    """One for each image."""

    rows: Tensor
    """Float [B, H, H]: a new row is the sum of the old ones with these weights."""
    columns: Tensor
    """Float [B, W, W], mirrored or not."""

    @classmethod
    def drawn(cls, rule: ShiftRule, count: int, height: int, width: int, generator: torch.Generator) -> Shifts:
        """For so many images, on the CPU."""
        if rule is ShiftRule.SMOOTH:
            moves = (2 * torch.rand(2, count, generator=generator) - 1) * REACH
        else:
            moves = torch.randint(-REACH, REACH + 1, (2, count), generator=generator).float()
        mirrored = torch.rand(count, generator=generator) < 0.5
        columns = _matrices(moves[1], width)
        return cls(
            rows=_matrices(moves[0], height), columns=torch.where(mirrored[:, None, None], columns.flip(1), columns)
        )

    def to(self, device: torch.device, kind: torch.dtype) -> Shifts:
        """The same shifts elsewhere."""
        return Shifts(rows=self.rows.to(device, kind), columns=self.columns.to(device, kind))

    def part(self, first: int, stop: int) -> Shifts:
        """Those of some images."""
        return Shifts(rows=self.rows[first:stop], columns=self.columns[first:stop])

    def apply(self, images: Tensor) -> Tensor:
        """Shifted images, of float [B, C, H, W]: the same shape, channels-last in memory."""
        moved = self.rows[:, None] @ images @ self.columns.mT[:, None]
        return moved.contiguous(memory_format=torch.channels_last)

    def back(self, gradients: Tensor) -> Tensor:
        """The gradient with respect to the images, of the one with respect to what ``apply`` gave."""
        return self.rows.mT[:, None] @ gradients @ self.columns[:, None]


def _matrices(moves: Tensor, size: int) -> Tensor:
    """Float [B, size, size]: place i takes what was at i + move, between two places in proportion, outside nothing."""
    places = torch.arange(size, dtype=moves.dtype)
    wanted = places[None, :, None] + moves[:, None, None]
    return (1 - (wanted - places[None, None, :]).abs()).clamp_(min=0)
