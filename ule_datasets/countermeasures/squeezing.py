"""Image Shortcut Squeezing: training images keep too little for noise within a small bound to survive.

Zhuoran Liu, Zhengyu Zhao and Martha Larson, "Image Shortcut Squeezing: Countering Perturbative Availability Poisons
with Compression", ICML 2023. Each image is changed by itself, before crop and flip; test images stay as they are.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.base.seeds import Seed
from ule_datasets.data.codec import decode_rgb
from ule_datasets.victims.strategy import EachImage, Option

if TYPE_CHECKING:
    from PIL import Image
else:
    Image = lazy("PIL.Image")

_LUMINANCE = np.array([19595, 38470, 7471], dtype=np.uint32)  # of ITU-R 601, in 65536ths, as Pillow has them


class _Squeezing(EachImage):
    __slots__ = ()

    citation: ClassVar[str] = "liu2023squeezing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gray(_Squeezing):
    """The luminance of ITU-R 601 in all three channels, the very bytes that Pillow gives."""

    word: ClassVar[str] = "gray"

    def changed(self, images: np.ndarray, seed: Seed) -> np.ndarray:
        """Uint8 [n, H, W, 3] to the same."""
        weighted = images.astype(np.uint32) @ _LUMINANCE
        luminance = ((weighted + (1 << 15)) >> 16).astype(np.uint8)
        return np.repeat(luminance[..., None], images.shape[-1], axis=-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Jpeg(_Squeezing):
    """Every image is written as JPEG by Pillow and read again, with colours at half the resolution (4:2:0).

    The bytes are those of libjpeg-turbo, which Pillow brings; another version of it may round otherwise.
    """

    word: ClassVar[str] = "jpeg"
    options: ClassVar[tuple[Option, ...]] = (Option("q", "quality", "a quality Q from 1 to 100"),)

    quality: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise InputError(f"Jpeg: quality is {self.quality}, must be 1 to 100")

    def changed(self, images: np.ndarray, seed: Seed) -> np.ndarray:
        """Uint8 [n, H, W, 3] to the same."""
        results = np.empty_like(images)
        for image, result in zip(images, results, strict=True):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=self.quality, subsampling="4:2:0")
            result[...] = decode_rgb(file.getvalue(), "an image compressed here").pixels
        return results


@dataclass(frozen=True, kw_only=True, slots=True)
class BitDepth(_Squeezing):
    """Of every value only the highest bits are kept, the others become zero (posterisation).

    The paper calls it bit depth reduction and leaves the number of bits open; 2 are APBench's.
    """

    word: ClassVar[str] = "bdr"
    options: ClassVar[tuple[Option, ...]] = (Option("", "bits", "a number of bits B from 1 to 8"),)

    bits: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise InputError(f"BitDepth: bits is {self.bits}, must be 1 to 8")

    def changed(self, images: np.ndarray, seed: Seed) -> np.ndarray:
        """Uint8 [n, H, W, 3] to the same."""
        return images & np.uint8(256 - 2 ** (8 - self.bits))
