"""Convolution of images with a small random filter of their class: CUDA, which is no matter of graphics processors.

Vinu Sankar Sadasivan, Mahdi Soltanolkotabi, Soheil Feizi, "CUDA: Convolution-based Unlearnable Datasets", CVPR 2023,
arXiv 2303.04278, section 3.3. Every class has a filter of k x k parameters, the same for all channels: one of them,
at a random place, is 1, the others are uniform in 0 .. p_b. A protected image in [0, 1] is

    blurred / max(blurred),    blurred = image * filter

A network learns to tell the filters apart. Nothing is added within a bound: blurring changes edges by any amount, a 1
beside the middle shifts the image, and the division makes each image as bright as bytes can be.

Beyond the border images are black, as in the convolution matrix of the paper's section 4. How values become bytes it
does not say. No published code was used; the single filters are others than those of its authors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.data.bounds import Budget, Unbounded
from ule_datasets.data.perturbation import Additive, Support
from ule_datasets.data.quantization import Quantize, quantize
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.drawn import BLOCK, uniforms
from ule_datasets.methods.method import Context, Crafted, Method, Repeats

ONE = 2**22
"""Parameters of a filter are whole numbers of this part of 1, so that no sum is ever rounded."""
LARGEST = 99
"""Rows and columns of a filter at most: 255 times a blurred value then is a whole number below 2**53."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassConvolution(Method):
    """A random filter for each class, with which its images are convolved (CUDA)."""

    identifier: ClassVar[str] = "class_convolution"
    title: ClassVar[str] = "Class-wise convolution"
    citation: ClassVar[str] = "sadasivan2023cuda"
    repeats: ClassVar[Repeats] = Repeats.EXACT
    needs_labels: ClassVar[bool] = True

    size: int = 3
    """Rows and columns of a filter, odd (the paper's k: 3 for 32 x 32 pixels, 9 for 224 x 224)."""
    blur: float = 0.3
    """Upper end of the random parameters (the paper's p_b: 0.3 with 3 x 3, 0.06 with 9 x 9 parameters)."""
    quantize: Quantize = Quantize.HALF_UP
    """How a blurred image becomes bytes; the paper does not say, this is ours."""

    def __post_init__(self) -> None:
        if not (3 <= self.size <= LARGEST and self.size % 2 == 1):
            raise InputError(f"{type(self).__name__}: size is {self.size}, must be odd and from 3 to {LARGEST}")
        if not 0 < self.blur <= 1:
            raise InputError(f"{type(self).__name__}: blur is {self.blur}, must be above 0 and at most 1")

    @property
    def bounds(self) -> Budget:
        """None."""
        return (Unbounded(),)

    def generate(self, train: Split, context: Context) -> Crafted:
        """What blurring changes: an exact layer with an entry for every image, which depends on it and its class."""
        levels = np.empty(train.images.shape, dtype=np.int16)
        for number in np.unique(train.labels).tolist():
            own = self.drawn_filter(context.seed, number)
            rows = np.flatnonzero(train.labels == number)
            for first in range(0, len(rows), BLOCK):
                some = rows[first : first + BLOCK]
                clean = train.pixels(some)
                levels[some] = quantize(convolved(clean, own) - clean, self.quantize)
        return Crafted(layers=(Additive(levels=levels, support=Support.SAMPLE, keys=train.keys),))

    def drawn_filter(self, seed: Seed, number: int) -> np.ndarray:
        """The filter of a class, in parts of ``ONE``: whole numbers as float64 [size, size]."""
        drawn = uniforms(seed, (self.size, self.size), self.identifier, "filter", number)
        parameters: np.ndarray = np.floor((drawn + 1) * (self.blur * ONE / 2))
        parameters.flat[seed.integer(self.size**2, self.identifier, "one", number)] = ONE
        return parameters


def convolved(images: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] convolved with one filter, black beyond their border, each divided by its largest value.

    Grey levels up to 255, float64 of the same shape. Black images stay black.
    """
    from scipy import ndimage  # type: ignore[import-untyped]

    blurred = ndimage.convolve(images, parameters[None, :, :, None], output=np.float64, mode="constant")
    largest = blurred.max(axis=(1, 2, 3), keepdims=True)
    levels: np.ndarray = 255 * blurred / np.maximum(largest, 1)
    return levels
