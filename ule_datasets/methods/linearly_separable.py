"""Linearly separable synthetic perturbations: noise that has nothing to do with images and still is a shortcut.

Da Yu, Huishuai Zhang, Wei Chen, Jian Yin, Tie-Yan Liu, "Availability Attacks Create Shortcuts", KDD 2022, arXiv
2111.00898. An image is divided into patches, and every patch and channel gets one value. The values of an
image are a point of its class's cloud in the space of all patches and channels:

    point = z W + centre,    z normal,    W uniform in -1 .. 1, one for each class,    centre a corner of a cube

so that a linear classifier tells the classes apart. Each image's noise is scaled to the same Euclidean norm.

The official code takes points of scikit-learn's ``make_classification``, with a random generator of the process; nobody
can draw the same ones. Here all come from the seed, with the same bits on every machine. The order of the features,
which that function shuffles, makes no difference to what may be drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.data.bounds import L2, Budget
from ule_datasets.data.quantization import Quantize, quantize
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.drawn import BLOCK, drawn_for_each, normals, ordered_sum, uniforms
from ule_datasets.methods.engine.settings import check_at_least
from ule_datasets.methods.method import Context, Crafted, Method, Repeats


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearlySeparable(Method):
    """Flat patches for every image, drawn from its class's cloud (LSP)."""

    identifier: ClassVar[str] = "lsp"
    title: ClassVar[str] = "Linearly separable perturbations"
    citation: ClassVar[str] = "yu2022shortcuts"
    repeats: ClassVar[Repeats] = Repeats.EXACT
    needs_labels: ClassVar[bool] = True

    epsilon: float = 6
    """Root mean square of the noise over all values of an image, in units of 1/255: its Euclidean norm, divided by the
    square root of their number. With images in [0, 1] of 32 x 32 pixels 6/255 is a norm of 1.30."""
    patch: int = 8
    """Rows and columns of a patch (APBench for 224 x 224 pixels: 32). Where it does not divide an image, the last one
    is cut off; the official code fails there."""
    per_side: int = 0
    """Patches along an image's shorter side, for images of any size, in place of ``patch``; 0: not used."""
    separation: float = 10
    """How far a centre lies from the middle in every coordinate; within a class they scatter by 4 (32 x 32 pixels)."""
    quantize: Quantize = Quantize.TRUNC

    def __post_init__(self) -> None:
        check_at_least(1, self, "patch")
        check_at_least(0, self, "per_side")
        for name in ("epsilon", "separation"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"{type(self).__name__}: {name} is {value}, must be above 0")

    @property
    def bounds(self) -> Budget:
        """The root mean square before rounding."""
        return (L2(levels=self.epsilon, rounding=self.quantize.largest_shift, per_value=True),)

    def generate(self, train: Split, context: Context) -> Crafted:
        """Draw points for the images of each class, in canonical order.

        Raises:
            InputError: images have too few patches for so many classes.
        """
        clouds = Clouds(self, context.seed, context.num_classes, train.images.shape[1:])
        return Crafted(layers=(drawn_for_each(train, clouds.levels),))

    def patch_of(self, height: int, width: int) -> int:
        """Rows and columns of a patch in images of a size."""
        return -(-min(height, width) // self.per_side) if self.per_side else self.patch


class Clouds:
    """The classes' clouds of points, and the noise that they make for images of one shape."""

    def __init__(self, method: LinearlySeparable, seed: Seed, num_classes: int, shape: tuple[int, ...]) -> None:
        self._method, self._seed, self._shape = method, seed, shape
        height, width, channels = shape
        self._patch = method.patch_of(height, width)
        sides = [_lengths(size, self._patch) for size in (height, width)]
        self._grid = (len(sides[0]), len(sides[1]), channels)
        self._counts = np.repeat(np.multiply.outer(*sides).ravel(), channels).astype(np.float64)
        """Pixels of each feature."""
        features = math.prod(self._grid)
        if num_classes > 2**features:
            raise InputError(
                f"{type(method).__name__}: {features} patches and channels of an image have fewer corners than the "
                f"{num_classes} classes; a smaller patch helps"
            )
        self._mix: tuple[int, np.ndarray] = (-1, np.empty(0))
        """That of the latest class."""
        self._centres = method.separation * _corners(seed, features, num_classes, method.identifier)

    def levels(self, number: int, block: int) -> np.ndarray:
        """Noise for the images of a block of a class, int8 or int16 [BLOCK, H, W, C] in grey levels."""
        points = self.points(number, block)
        norms = np.sqrt(ordered_sum((points * points * self._counts).T))
        scale = self._method.epsilon * math.sqrt(math.prod(self._shape)) / norms
        flat = quantize(points * scale[:, None], self._method.quantize).reshape(-1, *self._grid)
        height, width, _ = self._shape
        patch = self._patch
        return flat.repeat(patch, axis=1)[:, :height].repeat(patch, axis=2)[:, :, :width]

    def points(self, number: int, block: int) -> np.ndarray:
        """Points of a class, float64 [BLOCK, features]."""
        centre, mix = self._centres[number], self._mixed(number)
        draws = normals(self._seed, (BLOCK, len(centre)), self._method.identifier, "point", number, block)
        points: np.ndarray = draws[:, :1] * mix[0]
        for feature in range(1, len(centre)):
            points += draws[:, feature : feature + 1] * mix[feature]
        points += centre
        return points

    def _mixed(self, number: int) -> np.ndarray:
        if self._mix[0] != number:
            features = self._centres.shape[1]
            mix = uniforms(self._seed, (features, features), self._method.identifier, "mix", number)
            self._mix = (number, mix)
        return self._mix[1]


def _lengths(size: int, patch: int) -> np.ndarray:
    """Of the patches along a side; only the last one may be shorter."""
    return np.minimum(patch, size - np.arange(0, size, patch))


def _corners(seed: Seed, features: int, count: int, identifier: str) -> np.ndarray:
    """Different corners of the cube with coordinates -1 and 1, float64 [count, features]."""
    corners: dict[bytes, None] = {}
    attempt = 0
    while len(corners) < count:
        bits = np.unpackbits(
            np.frombuffer(seed.bytes(-(-features // 8), identifier, "centre", attempt), dtype=np.uint8)
        )
        corners[bits[:features].tobytes()] = None
        attempt += 1
    return np.array([np.frombuffer(corner, dtype=np.uint8) for corner in corners]) * 2.0 - 1
