"""Images before and after: clean, protected, and what was changed, so that the smallest change is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ule_datasets.data.perturbation import Additive, Perturbation
from ule_datasets.data.split import Split, positions_of
from ule_datasets.packaging.figures.sheet import (
    GAP,
    MARGIN,
    SCALE,
    TEXT,
    TILE,
    Figure,
    Sheet,
    shortened,
    text_width,
)

PROTECTED, RESTORED = "protected", "made learnable again"
"""What was done to the images: by protections alone, or with a countermeasure after them."""
CLASSES_SHOWN = 10
PER_CLASS = 3
SAMPLES_SHOWN = 6
NAME_WIDTH = 150
"""Units that the name of a class takes at most."""
MARKED = 8
"""Pixels of an image that are framed at most; where more stand out, no frame is needed to see them."""
FRAMED_BELOW, MAGNIFIED_BELOW = 4.0, 2.0
"""Units to a pixel of the image, below which its changed pixels are framed, and shown magnified besides."""
INSET, AROUND = 36, 3
"""Side of the magnified part, in units, and how many pixels it shows on each side of the changed one."""
MIDDLE, HIGHEST = 128, 127


@dataclass(frozen=True, eq=False, slots=True)
class Compared:
    """Some images before and after, and their difference in a scale in which nothing is cut off."""

    clean: np.ndarray
    """uint8 [N, H, W, 3]."""
    protected: np.ndarray
    difference: np.ndarray
    """uint8 [N, H, W, 3]; mid grey: none."""
    standing_out: np.ndarray
    """bool [N, H, W]: pixels changed by more than noise changes any."""
    scale: str
    """How the difference was scaled, for the reader."""

    @property
    def unit(self) -> float:
        """Units to a pixel."""
        height, width = self.clean.shape[1:3]
        return float(TILE / max(height, width))

    @property
    def marks(self) -> bool:
        """Whether pixels are framed on some image."""
        return self.unit < FRAMED_BELOW and any(self.places(row) for row in range(len(self.clean)))

    def places(self, row: int) -> list[tuple[int, int]]:
        """Rows and columns of the pixels to frame in one image; none where many stand out."""
        found = np.argwhere(self.standing_out[row]).tolist()
        return [(y, x) for y, x in found] if len(found) <= MARKED else []


def compare(clean: np.ndarray, protected: np.ndarray, noise: int) -> Compared:
    """Images uint8 [N, H, W, 3] before and after; ``noise``: by how many levels noise changes a pixel at most, 0: none.

    What is changed by more has a scale of its own.
    """
    difference = protected.astype(np.int16) - clean
    largest = np.abs(difference).max(axis=-1, initial=0)
    standing_out = largest > noise
    below, above = (int(largest[part].max(initial=0)) for part in (~standing_out, standing_out))
    shown = np.where(standing_out[..., None], _scaled(difference, above), _scaled(difference, below))
    words = [word for word in (_words(below), _words(above)) if word]
    scale = words[0] if len(set(words)) == 1 else f"noise {words[0]}, other pixels {words[1]}" if words else "x 1"
    return Compared(clean, protected, (MIDDLE + shown).astype(np.uint8), standing_out, scale)


def largest_noise(perturbation: Perturbation) -> int:
    """By how many levels the noise of a perturbation changes a pixel at most; 0: it has none."""
    layers = [layer.levels for layer in perturbation.layers if isinstance(layer, Additive)]
    return sum(max(int(levels.max(initial=0)), -int(levels.min(initial=0))) for levels in layers)


def contact_sheet(
    train: Split, perturbation: Perturbation, class_names: Sequence[str], changed: str = PROTECTED
) -> Figure:
    """For the first classes, or clusters, a few images: clean, ``changed``, and the difference."""
    groups, names = _groups(train, perturbation, class_names)
    rows = rows_to_show(groups, perturbation.is_poisoned(train.keys), len(names))
    indices = np.concatenate(rows)
    clean, labels = train.images[indices], train.labels[indices]
    protected = perturbation.apply(clean, labels, [train.keys[i] for i in indices.tolist()])
    compared = compare(clean, protected, largest_noise(perturbation))
    numbers = [int(groups[part[0]]) for part in rows]
    shown = [shortened(names[number], NAME_WIDTH) for number in numbers]
    name_width = max(map(text_width, shown)) + MARGIN
    group = max(len(part) for part in rows) * (TILE + GAP) + MARGIN
    sheet = Sheet(MARGIN + name_width + 3 * group, MARGIN + 2 * TEXT + len(rows) * (TILE + GAP) + MARGIN)
    titles = ("clean", changed, f"difference ({compared.scale})")
    for column, title in enumerate(titles):
        sheet.text(MARGIN + name_width + column * group, MARGIN // 2, title)
    position = 0
    for line, part in enumerate(rows):
        top = MARGIN + 2 * TEXT - GAP + line * (TILE + GAP)
        sheet.text(MARGIN, top + TILE // 2 - TEXT // 2, shown[line], otherwise=f"class {numbers[line]}")
        for offset in range(len(part)):
            for column in range(3):
                left = MARGIN + name_width + column * group + offset * (TILE + GAP)
                _tile(sheet, left, top, compared, position, column)
            position += 1
    return sheet.figure("contact_sheet", _caption(compared, changed))


def sample_sheet(
    clean: np.ndarray, protected: np.ndarray, noise: int, names: Sequence[str], changed: str = PROTECTED
) -> Sheet:
    """Some images (uint8 [N, H, W, 3]) with their names: a row clean, one ``changed``, one of differences."""
    compared = compare(clean, protected, noise)
    titles = ("clean", changed, "difference")
    left = MARGIN + max(map(text_width, (*titles, compared.scale))) + MARGIN
    sheet = Sheet(left + len(clean) * (TILE + GAP) + MARGIN, TEXT + GAP + 3 * (TILE + GAP) + MARGIN)
    for line, title in enumerate(titles):
        top = TEXT + 2 * GAP + line * (TILE + GAP)
        sheet.text(MARGIN, top + TILE // 2 - TEXT, title)
        if line == 2:
            sheet.text(MARGIN, top + TILE // 2, compared.scale)
        for number in range(len(clean)):
            _tile(sheet, left + number * (TILE + GAP), top, compared, number, line)
    for number, name in enumerate(names):
        sheet.text(left + number * (TILE + GAP), 0, shortened(name, TILE), otherwise="")
    return sheet


def rows_to_show(groups: np.ndarray, poisoned: np.ndarray, num_groups: int) -> list[np.ndarray]:
    """Indices of the first poisoned images of the first groups (int64 [N]: each image's) that have any."""
    rows: list[np.ndarray] = []
    for number in range(num_groups):
        members = np.flatnonzero((groups == number) & poisoned)[:PER_CLASS]
        if len(members) and len(rows) < CLASSES_SHOWN:
            rows.append(members)
    return rows


def cluster_names(layer: Additive) -> list[str]:
    """What clusters are called."""
    return [f"cluster {number}" for number in range(len(layer.levels))]


def _tile(sheet: Sheet, left: int, top: int, compared: Compared, row: int, column: int) -> None:
    """The clean image (``column`` 0), the protected one or the difference, with what is too small to be seen."""
    pictures = (compared.clean, compared.protected, compared.difference)[column][row]
    reduced = strongest(pictures, TILE * SCALE) if column == 2 else pictures
    sheet.image(left, top, reduced)
    if column == 0 or compared.unit >= FRAMED_BELOW:
        return
    places, unit = compared.places(row), compared.unit
    for y, x in places:
        sheet.frame(left + x * unit, top + y * unit, unit, unit)
    if places and unit < MAGNIFIED_BELOW:
        y, x = places[0]
        height, width = (round(length * unit) for length in pictures.shape[:2])
        right, lower = x * unit < width / 2, y * unit < height / 2  # in the corner that is farthest from it
        at = left + (width - INSET if right else 0), top + (height - INSET if lower else 0)
        sheet.image(*at, _around(pictures, y, x), INSET)
        sheet.frame(*at, INSET, INSET)


def _around(pixels: np.ndarray, y: int, x: int) -> np.ndarray:
    """A square part of an image around a pixel, moved inwards at the borders."""
    side = min(2 * AROUND + 1, *pixels.shape[:2])
    top, left = (min(max(0, at - AROUND), length - side) for at, length in ((y, pixels.shape[0]), (x, pixels.shape[1])))
    return pixels[top : top + side, left : left + side]


def strongest(pixels: np.ndarray, side: int) -> np.ndarray:
    """A picture of differences reduced so that of every block the largest stays, and a single one does not fade."""
    step = -(-max(pixels.shape[:2]) // side)
    if step == 1:
        return pixels
    height, width = (-(-length // step) for length in pixels.shape[:2])
    levels = np.zeros((height * step, width * step, 3), dtype=np.int16)
    levels[: pixels.shape[0], : pixels.shape[1]] = pixels.astype(np.int16) - MIDDLE
    blocks = levels.reshape(height, step, width, step, 3).swapaxes(1, 2).reshape(height, width, step * step, 3)
    chosen = np.abs(blocks).argmax(axis=2, keepdims=True)
    return (MIDDLE + np.take_along_axis(blocks, chosen, axis=2)[:, :, 0]).astype(np.uint8)


def _scaled(difference: np.ndarray, largest: int) -> np.ndarray:
    """Times a whole number, or halved, so that the largest is at most 127."""
    return np.trunc(difference / 2).astype(np.int16) if largest > HIGHEST else difference * (HIGHEST // max(1, largest))


def _words(largest: int) -> str:
    return "" if largest == 0 else "x 1/2" if largest > HIGHEST else f"x {HIGHEST // largest}"


def _caption(compared: Compared, changed: str) -> str:
    framed = " Changed pixels are framed" + (", and magnified in a corner." if compared.unit < MAGNIFIED_BELOW else ".")
    return (
        f"Clean images, the same images {changed}, and the difference "
        f"(mid grey: none; {compared.scale}).{framed if compared.marks else ''}"
    )


def _groups(train: Split, perturbation: Perturbation, class_names: Sequence[str]) -> tuple[np.ndarray, Sequence[str]]:
    """What images are shown by, int64 [N], and its names: the cluster where noise goes by clusters, else the class."""
    for layer in perturbation.layers:
        if isinstance(layer, Additive) and layer.members is not None:
            return layer.members[positions_of(train.keys, layer.keys)], cluster_names(layer)
    return train.labels, class_names
