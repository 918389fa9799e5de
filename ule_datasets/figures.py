"""Pictures for the card: what was changed, and where."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ule_datasets.perturbation import NOWHERE, Overwrite, Perturbation, Support
from ule_datasets.split import Split

CLASSES_SHOWN = 10
PER_CLASS = 3
TILE = 96
"""Side of a shown image, in pixels."""
GAP, MARGIN, TEXT = 4, 14, 13
INK, PAPER, MARK = (32, 32, 32), (255, 255, 255), (220, 30, 30)


@dataclass(frozen=True, slots=True)
class Figure:
    """A PNG file and the sentence under it."""

    name: str
    caption: str
    png: bytes


def draw_figures(train: Split, perturbation: Perturbation, class_names: Sequence[str]) -> tuple[Figure, ...]:
    """The contact sheet, and for class-wise pixels a map of them."""
    figures = [contact_sheet(train, perturbation, class_names)]
    for layer in perturbation.layers:
        if isinstance(layer, Overwrite) and layer.support is Support.CLASS:
            figures.append(shortcut_map(train, layer, class_names))
    return tuple(figures)


def contact_sheet(train: Split, perturbation: Perturbation, class_names: Sequence[str]) -> Figure:
    """For the first classes, a few images: clean, poisoned, and the difference amplified."""
    rows = _rows_to_show(train.labels, perturbation.is_poisoned(train.keys), len(class_names))
    indices = np.concatenate(rows)
    clean, labels = train.images[indices], train.labels[indices]
    poisoned = perturbation.apply(clean, labels, [train.keys[i] for i in indices.tolist()])
    difference = poisoned.astype(np.int16) - clean
    gain = max(1, int(127 // max(1, np.abs(difference).max())))
    amplified = np.clip(128 + gain * difference, 0, 255).astype(np.uint8)
    widths = max(len(part) for part in rows)
    name_width = max(_text_width(class_names[number]) for number in range(len(rows))) + MARGIN
    group = widths * (TILE + GAP) + MARGIN
    sheet = _Sheet(MARGIN + name_width + 3 * group, MARGIN + TEXT + len(rows) * (TILE + GAP) + MARGIN)
    for column, title in enumerate(("clean", "poisoned", f"difference x {gain}" if gain > 1 else "difference")):
        sheet.text(MARGIN + name_width + column * group, MARGIN // 2, title)
    position = 0
    for line, part in enumerate(rows):
        top = MARGIN + TEXT + line * (TILE + GAP)
        sheet.text(MARGIN, top + TILE // 2 - TEXT // 2, class_names[int(train.labels[part[0]])])
        for offset in range(len(part)):
            for column, images in enumerate((clean, poisoned, amplified)):
                left = MARGIN + name_width + column * group + offset * (TILE + GAP)
                sheet.image(left, top, images[position])
            position += 1
    amplification = f", amplified {gain} times" if gain > 1 else ""
    caption = f"Clean images, the same images poisoned, and the difference (mid grey: none{amplification})."
    return Figure("contact_sheet.png", caption, sheet.png())


def shortcut_map(train: Split, layer: Overwrite, class_names: Sequence[str]) -> Figure:
    """Per class the mean clean image with the pixels that are overwritten, in their colours."""
    numbers = [n for n in range(len(class_names)) if (layer.rows[n] != NOWHERE).any()][: 4 * CLASSES_SHOWN]
    per_line = 5
    tile, line_height = TILE + TILE // 2, TILE + TILE // 2 + 3 * TEXT + GAP
    lines = -(-len(numbers) // per_line)
    sheet = _Sheet(2 * MARGIN + per_line * (tile + MARGIN), 2 * MARGIN + lines * line_height)
    height, width = train.images.shape[1:3]
    for index, number in enumerate(numbers):
        left = MARGIN + index % per_line * (tile + MARGIN)
        top = MARGIN + index // per_line * line_height
        mean = train.images[train.labels == number].mean(axis=0).astype(np.uint8)
        pixels = [p for p in range(layer.rows.shape[1]) if layer.rows[number, p] != NOWHERE]
        for p in pixels:
            mean[layer.rows[number, p], layer.columns[number, p]] = layer.colours[number, p]
        sheet.image(left, top, mean, tile)
        for p in pixels:
            row, column = int(layer.rows[number, p]), int(layer.columns[number, p])
            sheet.box(
                left + column * tile // width - 2,
                top + row * tile // height - 2,
                left + (column + 1) * tile // width + 1,
                top + (row + 1) * tile // height + 1,
            )
        sheet.text(left, top + tile + 1, class_names[number])
        first = pixels[0]
        place = f"({layer.rows[number, first]}, {layer.columns[number, first]})"
        colour = "#" + bytes(layer.colours[number, first].tolist()).hex()
        more = f" +{len(pixels) - 1}" if len(pixels) > 1 else ""
        sheet.text(left, top + tile + 1 + TEXT, f"{place} {colour}{more}")
    caption = "Mean clean image of each class with the overwritten pixel marked: (row, column) and colour."
    return Figure("shortcut_pixels.png", caption, sheet.png())


class _Sheet:
    """A canvas with small text and nearest-neighbour images."""

    def __init__(self, width: int, height: int) -> None:
        self._canvas = Image.new("RGB", (width, height), PAPER)
        self._draw = ImageDraw.Draw(self._canvas)

    def image(self, left: int, top: int, pixels: np.ndarray, side: int = TILE) -> None:
        height, width = pixels.shape[:2]
        how = Image.Resampling.NEAREST if max(height, width) <= side else Image.Resampling.BOX
        scale = side / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        self._canvas.paste(Image.fromarray(pixels).resize(size, how), (left, top))

    def text(self, left: int, top: int, text: str) -> None:
        self._draw.text((left, top), text, fill=INK, font=_FONT)

    def box(self, left: int, top: int, right: int, bottom: int) -> None:
        self._draw.rectangle((left, top, right, bottom), outline=MARK)

    def png(self) -> bytes:
        stream = io.BytesIO()
        self._canvas.save(stream, "PNG", optimize=True)
        return stream.getvalue()


_FONT = ImageFont.load_default(size=11)


def _text_width(text: str) -> int:
    return int(_FONT.getlength(text))


def _rows_to_show(labels: np.ndarray, poisoned: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Indices of the first poisoned images of the first classes that have any."""
    rows: list[np.ndarray] = []
    for number in range(num_classes):
        members = np.flatnonzero((labels == number) & poisoned)[:PER_CLASS]
        if len(members) and len(rows) < CLASSES_SHOWN:
            rows.append(members)
    return rows
