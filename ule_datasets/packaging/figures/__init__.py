"""Pictures for the card: what was changed, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ule_datasets.data.perturbation import NOWHERE, Additive, Overwrite, Perturbation, Support
from ule_datasets.data.split import Split
from ule_datasets.packaging.figures.contact import (
    CLASSES_SHOWN,
    HIGHEST,
    MIDDLE,
    PROTECTED,
    cluster_names,
    contact_sheet,
    strongest,
)
from ule_datasets.packaging.figures.sheet import GAP, MARGIN, SCALE, TEXT, TILE, Figure, Sheet, shortened
from ule_datasets.packaging.figures.trace import drawn_of, trace_figure

ROWS_PER_BLOCK = 256


def draw_figures(
    train: Split, perturbation: Perturbation, class_names: Sequence[str], changed: str = PROTECTED
) -> tuple[Figure, ...]:
    """The contact sheet; maps of pixels and noise per class or cluster; for methods in rounds how they went.

    ``changed`` says what was done to the images.
    """
    figures = [contact_sheet(train, perturbation, class_names, changed)]
    for layer in perturbation.layers:
        if isinstance(layer, Overwrite) and layer.support is Support.CLASS:
            figures.append(_shortcut_map(train, layer, class_names))
    return (*figures, *draw_figures_without_images(perturbation, class_names))


def draw_figures_without_images(perturbation: Perturbation, class_names: Sequence[str]) -> tuple[Figure, ...]:
    """Those of ``draw_figures`` that hold no pixel of the source, clean or perturbed."""
    noise = [
        _noise_map(layer, class_names if layer.support is Support.CLASS else cluster_names(layer), layer.support)
        for layer in perturbation.layers
        if isinstance(layer, Additive) and layer.support in (Support.CLASS, Support.CLUSTER)
    ]
    traces = [(r["identifier"], r["notes"].get("trace")) for r in perturbation.about.get("methods", [])]
    drawn = [trace_figure(name, trace) for name, trace in traces if drawn_of(trace or ())]
    return (*noise, *drawn)


def class_sheet(values: np.ndarray, names: Sequence[str]) -> Sheet:
    """A picture for each of the first classes (float [classes, H, W, 3]), on a scale of its own, with their names.

    Zero is mid grey; what is farthest from it is black or white.
    """
    levels = []
    for one in values[:CLASSES_SHOWN]:
        largest = max(float(np.abs(one).max()), float(np.finfo(np.float32).tiny))
        levels.append(strongest((MIDDLE + np.rint(HIGHEST * (one / largest))).astype(np.uint8), TILE * SCALE))
    return _tiles(levels, {f"class {number}": names[number] for number in range(len(levels))})


def _noise_map(layer: Additive, names: Sequence[str], whose: Support) -> Figure:
    """The noise of each class (or cluster) that has one, amplified."""
    numbers = np.flatnonzero(layer.levels.any(axis=(1, 2, 3))).tolist()[: 4 * CLASSES_SHOWN]
    largest = max(1, int(np.abs(layer.levels.astype(np.int16)).max()))
    levels = [128 + 127 * layer.levels[number].astype(np.int32) // largest for number in numbers]
    named = {f"{whose} {number}": names[number] for number in numbers}
    sheet = _tiles([np.clip(each, 0, 255).astype(np.uint8) for each in levels], named)
    caption = f"Noise of each {whose}; mid grey: none, black and white: {largest}/255 darker and brighter."
    return sheet.figure(f"{whose}_noise", caption)


def _shortcut_map(train: Split, layer: Overwrite, class_names: Sequence[str]) -> Figure:
    """Per class the mean clean image with the pixels that are overwritten, in their colours."""
    numbers = [n for n in range(len(class_names)) if (layer.rows[n] != NOWHERE).any()][: 4 * CLASSES_SHOWN]
    tile = TILE + TILE // 2
    sheet, places = _grid(len(numbers), tile, 3 * TEXT + GAP)
    height, width = train.images.shape[1:3]
    for number, (left, top) in zip(numbers, places, strict=True):
        mean = _mean(train, np.flatnonzero(train.labels == number)).astype(np.uint8)
        pixels = [p for p in range(layer.rows.shape[1]) if layer.rows[number, p] != NOWHERE]
        for p in pixels:
            mean[layer.rows[number, p], layer.columns[number, p]] = layer.colours[number, p]
        sheet.image(left, top, mean, tile)
        for p in pixels:
            row, column = int(layer.rows[number, p]), int(layer.columns[number, p])
            unit = tile / max(height, width)
            sheet.frame(left + column * unit, top + row * unit, unit, unit)
        sheet.text(left, top + tile + 1, shortened(class_names[number], tile), otherwise=f"class {number}")
        place = f"({layer.rows[number, pixels[0]]}, {layer.columns[number, pixels[0]]})"
        colour = "#" + bytes(layer.colours[number, pixels[0]].tolist()).hex()
        more = f" +{len(pixels) - 1}" if len(pixels) > 1 else ""
        sheet.text(left, top + tile + 1 + TEXT, f"{place} {colour}{more}")
    caption = "Mean clean image of each class with the overwritten pixel marked: (row, column) and colour."
    return sheet.figure("shortcut_pixels", caption)


def _tiles(pictures: Sequence[np.ndarray], names: Mapping[str, str]) -> Sheet:
    """Pictures (uint8 [H, W, 3]) with their names below, by what stands for a name that cannot be drawn."""
    sheet, places = _grid(len(pictures), TILE, TEXT + 2 * GAP)
    for picture, (otherwise, name), (left, top) in zip(pictures, names.items(), places, strict=True):
        sheet.image(left, top, picture)
        sheet.text(left, top + TILE + 1, shortened(name, TILE), otherwise=otherwise)
    return sheet


def _grid(count: int, side: int, below: int) -> tuple[Sheet, list[tuple[int, int]]]:
    """A sheet with five tiles in a line, each with room below it, and where they stand."""
    sheet = Sheet(2 * MARGIN + 5 * (side + MARGIN), 2 * MARGIN + -(-count // 5) * (side + below))
    return sheet, [(MARGIN + n % 5 * (side + MARGIN), MARGIN + n // 5 * (side + below)) for n in range(count)]


def _mean(train: Split, rows: np.ndarray) -> np.ndarray:
    """The mean of some images, float64 [H, W, 3], of which a block at a time is in memory."""
    total = np.zeros(train.images.shape[1:], dtype=np.int64)
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        total += train.pixels(rows[start : start + ROWS_PER_BLOCK]).sum(axis=0, dtype=np.int64)
    return total / len(rows)
