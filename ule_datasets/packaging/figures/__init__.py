"""Pictures for the card: what was changed, and where."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ule_datasets.data.perturbation import NOWHERE, Additive, Overwrite, Perturbation, Support
from ule_datasets.data.split import Split, positions_of
from ule_datasets.packaging.figures.sheet import GAP, MARGIN, MARK, TEXT, TILE, Figure, Sheet, text_width
from ule_datasets.packaging.figures.trace import drawn_of, trace_figure

CLASSES_SHOWN = 10
PER_CLASS = 3
ROWS_PER_BLOCK = 256


def draw_figures(train: Split, perturbation: Perturbation, class_names: Sequence[str]) -> tuple[Figure, ...]:
    """The contact sheet; maps of pixels and noise per class or cluster; for methods in rounds how they went."""
    figures = [_contact_sheet(train, perturbation, class_names)]
    for layer in perturbation.layers:
        if isinstance(layer, Overwrite) and layer.support is Support.CLASS:
            figures.append(_shortcut_map(train, layer, class_names))
    return (*figures, *draw_figures_without_images(perturbation, class_names))


def draw_figures_without_images(perturbation: Perturbation, class_names: Sequence[str]) -> tuple[Figure, ...]:
    """Those of ``draw_figures`` that hold no pixel of the source, clean or perturbed."""
    noise = [
        _noise_map(layer, class_names if layer.support is Support.CLASS else _cluster_names(layer), layer.support)
        for layer in perturbation.layers
        if isinstance(layer, Additive) and layer.support in (Support.CLASS, Support.CLUSTER)
    ]
    traces = [(r["identifier"], r["notes"].get("trace")) for r in perturbation.about.get("methods", [])]
    drawn = [trace_figure(name, trace) for name, trace in traces if drawn_of(trace or ())]
    return (*noise, *drawn)


def _contact_sheet(train: Split, perturbation: Perturbation, class_names: Sequence[str]) -> Figure:
    """For the first classes, or clusters, a few images: clean, poisoned, and the difference amplified."""
    groups, names = _groups(train, perturbation, class_names)
    rows = _rows_to_show(groups, perturbation.is_poisoned(train.keys), len(names))
    indices = np.concatenate(rows)
    clean, labels = train.images[indices], train.labels[indices]
    poisoned = perturbation.apply(clean, labels, [train.keys[i] for i in indices.tolist()])
    difference = poisoned.astype(np.int16) - clean
    gain = _gain(perturbation, difference)
    amplified = np.clip(128 + gain * difference, 0, 255).astype(np.uint8)
    widths = max(len(part) for part in rows)
    name_width = max(text_width(names[groups[part[0]]]) for part in rows) + MARGIN
    group = widths * (TILE + GAP) + MARGIN
    sheet = Sheet(MARGIN + name_width + 3 * group, MARGIN + TEXT + len(rows) * (TILE + GAP) + MARGIN)
    for column, title in enumerate(("clean", "poisoned", f"difference x {gain}" if gain > 1 else "difference")):
        sheet.text(MARGIN + name_width + column * group, MARGIN // 2, title)
    position = 0
    for line, part in enumerate(rows):
        top = MARGIN + TEXT + line * (TILE + GAP)
        sheet.text(MARGIN, top + TILE // 2 - TEXT // 2, names[groups[part[0]]])
        for offset in range(len(part)):
            for column, images in enumerate((clean, poisoned, amplified)):
                left = MARGIN + name_width + column * group + offset * (TILE + GAP)
                sheet.image(left, top, images[position])
            position += 1
    amplification = f", amplified {gain} times" if gain > 1 else ""
    caption = f"Clean images, the same images poisoned, and the difference (mid grey: none{amplification})."
    return Figure("contact_sheet.png", caption, sheet.png())


def _groups(train: Split, perturbation: Perturbation, class_names: Sequence[str]) -> tuple[np.ndarray, Sequence[str]]:
    """What images are shown by, int64 [N], and its names: the cluster where noise goes by clusters, else the class."""
    for layer in perturbation.layers:
        if isinstance(layer, Additive) and layer.members is not None:
            return layer.members[positions_of(train.keys, layer.keys)], _cluster_names(layer)
    return train.labels, class_names


def _cluster_names(layer: Additive) -> list[str]:
    return [f"cluster {number}" for number in range(len(layer.levels))]


def _gain(perturbation: Perturbation, difference: np.ndarray) -> int:
    """How often to amplify so that noise fills the range; overwritten pixels are cut off there."""
    noise = [
        max(layer.levels.max(initial=0), -int(layer.levels.min(initial=0)))
        for layer in perturbation.layers
        if isinstance(layer, Additive)
    ]
    largest = max(noise) if noise else np.abs(difference).max()
    return max(1, int(127 // max(1, largest)))


def _noise_map(layer: Additive, names: Sequence[str], whose: Support) -> Figure:
    """The noise of each class (or cluster) that has one, amplified."""
    numbers = np.flatnonzero(layer.levels.any(axis=(1, 2, 3))).tolist()[: 4 * CLASSES_SHOWN]
    largest = max(1, int(np.abs(layer.levels.astype(np.int16)).max()))
    sheet, places = _grid(len(numbers), TILE, TEXT + 2 * GAP)
    for number, (left, top) in zip(numbers, places, strict=True):
        levels = 128 + 127 * layer.levels[number].astype(np.int32) // largest
        sheet.image(left, top, np.clip(levels, 0, 255).astype(np.uint8))
        sheet.text(left, top + TILE + 1, names[number])
    caption = f"Noise of each {whose}; mid grey: none, black and white: {largest}/255 darker and brighter."
    return Figure(f"{whose}_noise.png", caption, sheet.png())


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
            first = left + column * tile // width - 2, top + row * tile // height - 2
            last = left + (column + 1) * tile // width + 1, top + (row + 1) * tile // height + 1
            sheet.draw.rectangle((first, last), outline=MARK)
        sheet.text(left, top + tile + 1, class_names[number])
        place = f"({layer.rows[number, pixels[0]]}, {layer.columns[number, pixels[0]]})"
        colour = "#" + bytes(layer.colours[number, pixels[0]].tolist()).hex()
        more = f" +{len(pixels) - 1}" if len(pixels) > 1 else ""
        sheet.text(left, top + tile + 1 + TEXT, f"{place} {colour}{more}")
    caption = "Mean clean image of each class with the overwritten pixel marked: (row, column) and colour."
    return Figure("shortcut_pixels.png", caption, sheet.png())


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


def _rows_to_show(labels: np.ndarray, poisoned: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Indices of the first poisoned images of the first classes that have any."""
    rows: list[np.ndarray] = []
    for number in range(num_classes):
        members = np.flatnonzero((labels == number) & poisoned)[:PER_CLASS]
        if len(members) and len(rows) < CLASSES_SHOWN:
            rows.append(members)
    return rows
