"""Cutout: one square of each image is blanked.

Terrance DeVries and Graham W. Taylor, "Improved Regularization of Convolutional Neural Networks with
Cutout", 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.compute.devices import to_device
from ule_datasets.victims.strategy import Countermeasure

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutout(Countermeasure):
    """A square of zeros around a uniformly drawn pixel of every image, cut off at the border; always applied."""

    word: ClassVar[str] = "cutout"
    citation: ClassVar[str] = "devries2017improved"

    size: int = 16
    """Side of the square in pixels."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"Cutout: size is {self.size}, must be at least 1")

    def on_floats(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Blank one square of each image; their memory layout stays."""
        count, _, height, width = images.shape
        rows, columns = to_device(self.draw(count, height, width, generator), images.device)
        inside = squares(rows, columns, torch.full_like(rows, self.size), *images.shape[2:])
        return images.clone().masked_fill_(inside[:, None], 0)

    def draw(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Rows and columns of the centres: int64 [2, B], on the CPU."""
        return torch.stack([torch.randint(0, size, (count,), generator=generator) for size in (height, width)])


def squares(rows: Tensor, columns: Tensor, sizes: Tensor, height: int, width: int) -> Tensor:
    """Where squares are: bool [B, height, width].

    A square of side s around pixel c covers c - s // 2 up to, but not including, c - s // 2 + s. Rows and columns of
    the centres and the sides are int64 [B]; side 0: nothing.
    """
    first = sizes // 2
    down = torch.arange(height, device=rows.device) - (rows - first)[:, None]
    across = torch.arange(width, device=rows.device) - (columns - first)[:, None]
    covered_rows = (down >= 0) & (down < sizes[:, None])
    covered_columns = (across >= 0) & (across < sizes[:, None])
    return covered_rows[:, :, None] & covered_columns[:, None, :]
