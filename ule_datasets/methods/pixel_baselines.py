"""The OPS paper's own comparisons: OPS-Position, OPS-Color (appendix A) and RandPix (appendix B).

Wu et al., "One-Pixel Shortcut", ICLR 2023, arXiv 2205.12141. No code was published for them; where the text
is silent the field says what was chosen.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.data.bounds import L0, Budget
from ule_datasets.data.perturbation import NOWHERE, Overwrite, Support
from ule_datasets.data.split import Split
from ule_datasets.methods.method import Context, Crafted, Method, Repeats
from ule_datasets.methods.one_pixel_shortcut import CORNERS, OnePixelShortcut

ROWS_PER_BLOCK = 256
ENDS = (0, 255)


class _OnePixel(Method):
    """What the three have in common."""

    __slots__ = ()

    citation: ClassVar[str] = "wu2023onepixel"
    repeats: ClassVar[Repeats] = Repeats.EXACT
    needs_labels: ClassVar[bool] = True

    @property
    def bounds(self) -> Budget:
        """One pixel."""
        return (L0(pixels=1),)


class Colours(StrEnum):
    """From which colours a random one is drawn; the paper does not say."""

    CORNERS = "corners"
    """The eight corners of the RGB cube."""
    ALL = "all"
    """All 256**3 colours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OPSPosition(_OnePixel):
    """OPS-Position: the searched position of the class, and a random colour for every image."""

    identifier: ClassVar[str] = "ops_position"
    title: ClassVar[str] = "OPS-Position"

    search: OnePixelShortcut = field(default_factory=OnePixelShortcut)
    colours: Colours = Colours.ALL

    def generate(self, train: Split, context: Context) -> Crafted:
        """Positions from the search, colours drawn from each sample's key."""
        found = self.search.generate(train, context)
        (positions,) = found.layers
        if not isinstance(positions, Overwrite) or positions.rows.shape[1] != 1:
            raise InputError("OPSPosition: the search must be for one pixel, with a clean upload")
        drawn = [context.seed.bytes(3, "ops_position", "colour", key) for key in train.keys]
        colours: np.ndarray = np.frombuffer(b"".join(drawn), dtype=np.uint8).reshape(-1, 1, 3)
        if self.colours is Colours.CORNERS:
            colours = (colours >> 7) * np.uint8(255)
        rows, columns = positions.rows[train.labels], positions.columns[train.labels]
        layer = Overwrite(rows=rows, columns=columns, colours=colours, support=Support.SAMPLE, keys=train.keys)
        return Crafted(layers=(layer,), notes=found.notes)


@dataclass(frozen=True, kw_only=True, slots=True)
class OPSColor(_OnePixel):
    """OPS-Color: a fixed colour per class, written where the image is farthest from it (l2)."""

    identifier: ClassVar[str] = "ops_color"
    title: ClassVar[str] = "OPS-Color"

    palette: tuple[tuple[int, int, int], ...] = (*itertools.product(ENDS, ENDS, ENDS), (128, 128, 128), (255, 128, 0))
    """Colour of class k, the RGB cube's corners first, which are the paper's; the last two, not named there, are ours.

    Corners are in the order of their bits: black, blue, green, cyan, red, magenta, yellow, white.
    """

    @property
    def draws(self) -> bool:
        """Nothing: the colours are given, the places searched."""
        return False

    def generate(self, train: Split, context: Context) -> Crafted:
        """Integer distances; ties go to the first pixel in raster order."""
        if context.num_classes > len(self.palette):
            raise InputError(
                f"OPSColor: {context.num_classes} classes, but the palette has {len(self.palette)} colours"
            )
        palette = np.array(self.palette, dtype=np.uint8)
        height, width = train.images.shape[1:3]
        positions = np.empty(len(train), dtype=np.int64)
        for start in range(0, len(train), ROWS_PER_BLOCK):
            block = slice(start, start + ROWS_PER_BLOCK)
            target = palette[train.labels[block]].astype(np.int32)[:, None, None, :]
            distance = ((np.asarray(train.images[block]) - target) ** 2).sum(axis=-1).reshape(-1, height * width)
            positions[block] = distance.argmax(axis=1)
        rows, columns = (part.astype(np.int32)[:, None] for part in np.divmod(positions, width))
        colours = palette[train.labels][:, None, :]
        layer = Overwrite(rows=rows, columns=columns, colours=colours, support=Support.SAMPLE, keys=train.keys)
        return Crafted(layers=(layer,))


@dataclass(frozen=True, kw_only=True, slots=True)
class RandPix(_OnePixel):
    """RandPix: a random position and colour per class; no two classes share the pair."""

    identifier: ClassVar[str] = "randpix"
    title: ClassVar[str] = "RandPix"
    redrawable: ClassVar[bool] = True

    colours: Colours = Colours.CORNERS

    def generate(self, train: Split, context: Context) -> Crafted:
        """Everything from the seed; of the images only the size and the labels matter."""
        height, width = train.images.shape[1:3]
        num_colours = len(CORNERS) if self.colours is Colours.CORNERS else 256**3
        if context.num_classes > height * width * num_colours:
            raise InputError(f"RandPix: fewer distinct pixels than the {context.num_classes} classes")
        present = set(train.labels.tolist())
        rows = np.full((context.num_classes, 1), NOWHERE, dtype=np.int32)
        columns, colours = rows.copy(), np.zeros((context.num_classes, 1, 3), dtype=np.uint8)
        used: set[tuple[int, int]] = set()
        for number in range(context.num_classes):
            for attempt in itertools.count():
                position = context.seed.integer(height * width, "randpix", "position", number, attempt)
                colour = context.seed.integer(num_colours, "randpix", "colour", number, attempt)
                if (position, colour) not in used:
                    break
            used.add((position, colour))
            if number in present:
                rows[number], columns[number] = divmod(position, width)
                corners = self.colours is Colours.CORNERS
                colours[number] = 255 * CORNERS[colour] if corners else list(colour.to_bytes(3, "big"))
        layer = Overwrite(rows=rows, columns=columns, colours=colours, support=Support.CLASS)
        return Crafted(layers=(layer,))
