"""A canvas for small text, images and lines."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TILE = 96
"""Side of a shown image, in pixels."""
GAP, MARGIN, TEXT = 4, 14, 13
INK, PAPER, MARK, RULE = (32, 32, 32), (255, 255, 255), (220, 30, 30), (205, 205, 205)
_FONT = ImageFont.load_default(size=11)


@dataclass(frozen=True, slots=True)
class Figure:
    """A PNG file and the sentence under it."""

    name: str
    caption: str
    png: bytes
    about_craft: bool = False
    """Shows how the perturbation was made, not what it does."""


class Sheet:
    """A canvas with small text and nearest-neighbour images; for lines there is ``draw``."""

    def __init__(self, width: int, height: int) -> None:
        self._canvas = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self._canvas)

    def image(self, left: int, top: int, pixels: np.ndarray, side: int = TILE) -> None:
        """An image (uint8 [H, W, 3]), enlarged without smoothing or reduced by averages to ``side``."""
        height, width = pixels.shape[:2]
        how = Image.Resampling.NEAREST if max(height, width) <= side else Image.Resampling.BOX
        scale = side / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        self._canvas.paste(Image.fromarray(pixels).resize(size, how), (left, top))

    def text(self, left: int, top: int, text: str) -> None:
        """A line of small text."""
        self.draw.text((left, top), text, fill=INK, font=_FONT)

    def png(self) -> bytes:
        """The file."""
        stream = io.BytesIO()
        self._canvas.save(stream, "PNG", optimize=True)
        return stream.getvalue()


def text_width(text: str) -> int:
    """Pixels that a text takes."""
    return int(_FONT.getlength(text))
