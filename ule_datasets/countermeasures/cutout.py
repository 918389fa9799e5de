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
        """Blank one square of each image.

        Args:
            images: float32 [B, 3, H, W] on any device; left alone.
            generator: on the CPU.

        Returns:
            The images with their squares at zero; same shape, type, device and memory layout.
        """
        count, _, height, width = images.shape
        return self.transform(images, *self.draw(count, height, width, generator))

    def draw(self, count: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows and columns of the centres: int64 [B] each, on the CPU."""
        rows = torch.randint(0, height, (count,), generator=generator)
        columns = torch.randint(0, width, (count,), generator=generator)
        return rows, columns

    def transform(self, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Blank the squares around given centres."""
        rows, columns = to_device(torch.stack([rows, columns]), images.device)
        inside = squares(rows, columns, torch.full_like(rows, self.size), *images.shape[2:])
        return images.clone().masked_fill_(inside[:, None], 0)


def squares(rows: Tensor, columns: Tensor, sizes: Tensor, height: int, width: int) -> Tensor:
    """Where squares are: bool [B, height, width].

    A square of side s around pixel c covers c - s // 2 up to, but not including, c - s // 2 + s.

    Args:
        rows: of the centres, int64 [B].
        columns: of the centres, int64 [B].
        sizes: sides of the squares, int64 [B]; 0: nothing.
        height: of the image.
        width: of the image.
    """
    first = sizes // 2
    down = torch.arange(height, device=rows.device) - (rows - first)[:, None]
    across = torch.arange(width, device=rows.device) - (columns - first)[:, None]
    covered_rows = (down >= 0) & (down < sizes[:, None])
    covered_columns = (across >= 0) & (across < sizes[:, None])
    return covered_rows[:, :, None] & covered_columns[:, None, :]
