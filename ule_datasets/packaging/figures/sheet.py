"""A canvas for small text, images and lines, which is written as PNG and as SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from ule_datasets.base import shown
from ule_datasets.packaging.figures.fonts import legible, split_by_font

TILE = 96
"""Side of a shown image."""
GAP, MARGIN, TEXT = 4, 14, 15
SIZE = 12
"""Of the letters."""
SCALE = 2
"""Pixels of the PNG a unit, for screens and printers that have them."""
Colour = tuple[int, int, int]
INK, PAPER, RULE = (32, 32, 32), (255, 255, 255), (205, 205, 205)
MARK, HALO = (213, 94, 0), (255, 255, 255)
"""A frame around what is to be seen, and the line on both sides of it: one of them stands out on every image."""
_SVG_INK = "currentColor"
_LONGEST = 200
"""Letters of a text that are looked at when it is shortened."""
_NO_XML = {0xFFFE: None, 0xFFFF: None}
"""The two letters that XML cannot hold, besides those that are written out everywhere."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture in two files, and the sentence under it."""

    stem: str
    """Their name without its ending."""
    caption: str
    png: bytes
    svg: str
    """A whole file: white, with dark text."""
    about_craft: bool = False
    """Shows how the perturbation was made, not what it does."""

    @property
    def name(self) -> str:
        """Of the PNG file."""
        return f"{self.stem}.png"

    @property
    def files(self) -> dict[str, bytes]:
        """Content by name."""
        return {self.name: self.png, f"{self.stem}.svg": self.svg.encode()}


@dataclass(slots=True)
class Sheet:
    """A canvas; everything is placed in units, of which a PNG has ``SCALE`` pixels, and drawn in the order given."""

    width: int
    height: int
    _parts: list[tuple[Callable[[ImageDraw.ImageDraw, Image.Image], object], str]] = field(default_factory=list)
    """Each as something that draws it, and as SVG."""
    _replaced: dict[str, str] = field(default_factory=dict)
    """Texts that no font here can write, by what stands for them."""

    def image(self, left: float, top: float, pixels: np.ndarray, side: int = TILE) -> None:
        """An image (uint8 [H, W, 3]), enlarged without smoothing or reduced by averages to ``side``."""
        height, width = pixels.shape[:2]
        scale = side / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        picture = Image.fromarray(pixels)
        if scale < 1:
            picture = picture.resize((size[0] * SCALE, size[1] * SCALE), Image.Resampling.BOX, reducing_gap=None)
        large = picture.resize((size[0] * SCALE, size[1] * SCALE), Image.Resampling.NEAREST)
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        data = base64.b64encode(stream.getvalue()).decode()
        self._add(
            lambda _, canvas: canvas.paste(large, (round(left * SCALE), round(top * SCALE))),
            f'<image x="{left:g}" y="{top:g}" width="{size[0]}" height="{size[1]}" preserveAspectRatio="none" '
            f'image-rendering="optimizeSpeed" style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>',
        )

    def text(self, left: float, top: float, text: str, *, right: bool = False, otherwise: str = "?") -> None:
        """A line of small text that begins, or with ``right`` ends, at ``left``.

        In the PNG ``otherwise`` stands for a text whose letters no font here has; an SVG is written by the reader's.
        """
        drawn = legible(text, otherwise)
        if drawn == otherwise != text:
            self._replaced[otherwise] = text

        def write(draw: ImageDraw.ImageDraw, _: Image.Image) -> None:
            x = left * SCALE - (_width(drawn, SIZE * SCALE) if right else 0)
            for font, part in split_by_font(drawn, SIZE * SCALE):
                draw.text((x, (top + SIZE) * SCALE), part, fill=INK, font=font, anchor="ls")
                x += font.getlength(part)

        anchor = ' text-anchor="end"' if right else ""
        self._add(write, f'<text x="{left:g}" y="{top + SIZE:g}"{anchor}>{_xml(text)}</text>')

    def frame(self, left: float, top: float, width: float, height: float) -> None:
        """A frame around something small, seen on every ground."""
        for colour, thick, out in ((HALO, 3.0, 1.0), (MARK, 1.5, 1.0)):
            box = (left - out, top - out, left + width + out, top + height + out)
            self._box(box, colour, thick)

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, width: float, dash: float = 0) -> None:
        """A line through points; with ``dash``, of pieces of that length."""
        pieces = _dashes(points, dash) if dash else [points]

        def draw_line(draw: ImageDraw.ImageDraw, _: Image.Image) -> None:
            for piece in pieces:
                draw.line([(x * SCALE, y * SCALE) for x, y in piece], colour, round(width * SCALE), "curve")

        dashes = f' stroke-dasharray="{dash:g}"' if dash else ""
        places = " ".join(f"{x:.4g},{y:.4g}" for x, y in points)
        how = f'fill="none" stroke="{_hex(colour)}" stroke-width="{width:g}" stroke-linejoin="round"{dashes}'
        self._add(draw_line, f'<polyline points="{places}" {how}/>')

    def dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A filled circle."""
        box = [(x - radius) * SCALE, (y - radius) * SCALE, (x + radius) * SCALE, (y + radius) * SCALE]
        self._add(
            lambda draw, _: draw.ellipse(box, fill=colour),
            f'<circle cx="{x:.4g}" cy="{y:.4g}" r="{radius:g}" fill="{_hex(colour)}"/>',
        )

    def png(self) -> bytes:
        """The file, on white."""
        canvas = Image.new("RGB", (self.width * SCALE, self.height * SCALE), PAPER)
        pen = ImageDraw.Draw(canvas)
        for draw, _ in self._parts:
            draw(pen, canvas)
        stream = io.BytesIO()
        canvas.save(stream, "PNG")
        return stream.getvalue()

    def svg(self, title: str, *, alone: bool = True) -> str:
        """The same as SVG: ``alone``, a file on white; else a part of a page, with text in that one's colour."""
        ink, ground = _SVG_INK, ""
        if alone:
            ink, ground = _hex(INK), f'<rect width="{self.width}" height="{self.height}" fill="{_hex(PAPER)}"/>\n'
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-family="sans-serif" font-size="{SIZE}" fill="{ink}">\n'
        )
        parts = "\n".join(part for _, part in self._parts)
        return f"{head}<title>{_xml(title)}</title>\n{ground}{parts}\n</svg>\n"

    def figure(self, stem: str, caption: str, *, about_craft: bool = False) -> Figure:
        """Both files; where something stands for a text in the picture, the sentence says what for."""
        stand = ", ".join(f"{short} is {text}" for short, text in self._replaced.items() if short)
        told = f"{caption} For want of a font: {stand}." if stand else caption
        return Figure(stem, told, self.png(), self.svg(caption), about_craft)

    def _box(self, box: tuple[float, float, float, float], colour: Colour, thick: float) -> None:
        left, top, right, bottom = box
        scaled = [(left - thick / 2) * SCALE, (top - thick / 2) * SCALE]
        scaled += [(right + thick / 2) * SCALE - 1, (bottom + thick / 2) * SCALE - 1]
        self._add(
            lambda draw, _: draw.rectangle([round(x) for x in scaled], outline=colour, width=round(thick * SCALE)),
            f'<rect x="{left:.5g}" y="{top:.5g}" width="{right - left:.5g}" height="{bottom - top:.5g}" fill="none" '
            f'stroke="{_hex(colour)}" stroke-width="{thick:g}"/>',
        )

    def _add(self, draw: Callable[[ImageDraw.ImageDraw, Image.Image], object], svg: str) -> None:
        self._parts.append((draw, svg))


def text_width(text: str) -> int:
    """Units that a text takes."""
    return round(_width(legible(text, text), SIZE * SCALE) / SCALE)


def shortened(text: str, width: int) -> str:
    """A text cut so that it takes no more than ``width``."""
    if len(text) <= _LONGEST and text_width(text) <= width:
        return text
    return next(
        (cut for end in range(min(len(text) - 1, _LONGEST), 0, -1) if text_width(cut := f"{text[:end]}..") <= width),
        "..",
    )


def _width(text: str, size: int) -> float:
    return sum(font.getlength(part) for font, part in split_by_font(text, size))


def _xml(text: str) -> str:
    return str(shown.html(text)).translate(_NO_XML)


def _hex(colour: Colour) -> str:
    return f"#{bytes(colour).hex()}"


def _dashes(points: Sequence[tuple[float, float]], dash: float) -> list[list[tuple[float, float]]]:
    """Every other piece of a line, each ``dash`` long."""
    places = np.array(points, dtype=float)
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(places, axis=0).T))])
    pieces = []
    for start in np.arange(0, lengths[-1], 2 * dash):
        ends = [start, *lengths[(lengths > start) & (lengths < start + dash)], min(start + dash, lengths[-1])]
        pieces.append(
            [(float(np.interp(e, lengths, places[:, 0])), float(np.interp(e, lengths, places[:, 1]))) for e in ends]
        )
    return pieces
