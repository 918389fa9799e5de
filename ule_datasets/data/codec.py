"""Images as bytes: the one encoder, lossless PNG with fixed settings, the one strict decoder, and one size for all.

Pillow is imported by the functions, because recipes import sources, and listing recipes must be quick.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from ule_datasets.base.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

COMPRESS_LEVEL = 1
"""On CIFAR-10 level 1 is a tenth faster than the highest and 2 % larger (benchmarks/assembly.py)."""
CONVERTIBLE = ("1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr")
"""Pillow modes of 8 bits or less that become RGB where a recipe says so; transparency is dropped."""


def encode_png(image: np.ndarray) -> bytes:
    """PNG bytes of a uint8 [H, W, 3] image."""
    from PIL.Image import fromarray

    stream = io.BytesIO()
    fromarray(image).save(stream, "PNG", compress_level=COMPRESS_LEVEL)
    return stream.getvalue()


def decode_rgb(
    data: bytes, origin: str, *, convert: bool = False, resize: int | None = None, crop: int | None = None
) -> tuple[np.ndarray, str]:
    """Decode any image format that Pillow knows, by what the bytes are and not by a file name.

    Args:
        data: the encoded image.
        origin: where it comes from, for messages.
        convert: turn images of the modes in ``CONVERTIBLE`` into RGB, as ``PIL.Image.convert`` does.
        resize: as ``resize_and_crop`` says.
        crop: as there; ``None``: the image as it is.

    Returns:
        uint8 [H, W, 3], and the mode in which the image was stored.

    Raises:
        InputError: not a readable image, not RGB where a conversion would be a guess, or smaller than the crop.
    """
    from PIL import UnidentifiedImageError
    from PIL.Image import DecompressionBombError
    from PIL.Image import open as open_image

    try:
        with open_image(io.BytesIO(data)) as image:
            mode = image.mode
            image.load()
    except UnidentifiedImageError:
        raise InputError(f"{origin} is not a readable image: unknown image format") from None
    except (OSError, SyntaxError, ValueError, TypeError, DecompressionBombError) as error:
        raise InputError(f"{origin} is not a readable image: {error}") from error
    if mode != "RGB" and not (convert and mode in CONVERTIBLE):
        raise InputError(f"{origin} is not an RGB image (mode {mode}); convert it to RGB first")
    rgb: Image = image if mode == "RGB" else image.convert("RGB")
    return np.asarray(rgb if crop is None else _cut(rgb, resize, crop, origin)), mode


def resize_and_crop(image: np.ndarray, resize: int | None, crop: int, origin: str) -> np.ndarray:
    """The shorter side to ``resize`` pixels, then the centre ``crop`` x ``crop`` (uint8 [H, W, 3] in and out).

    Pillow's bilinear filter, widened where an image becomes smaller (antialiasing); lengths and offsets are rounded
    as torchvision's ``Resize`` and ``CenterCrop`` round them, so that the pixels are theirs. With ``resize=None``
    nothing is resized.

    Raises:
        InputError: the image is smaller than the crop; it is not padded.
    """
    from PIL.Image import fromarray

    return np.asarray(_cut(fromarray(image), resize, crop, origin))


def _cut(image: Image, resize: int | None, crop: int, origin: str) -> Image:
    from PIL.Image import Resampling

    width, height = image.size
    if resize is not None and min(height, width) != resize:
        shorter = min(height, width)
        height, width = resize * height // shorter, resize * width // shorter
        image = image.resize((width, height), Resampling.BILINEAR)
    if min(height, width) < crop:
        raise InputError(f"{origin} is {width}x{height} pixels, smaller than the crop of {crop}x{crop}")
    top, left = round((height - crop) / 2), round((width - crop) / 2)
    return image.crop((left, top, left + crop, top + crop))


def encoder_versions() -> dict[str, str]:
    """What the bytes depend on, and as ``jpeg`` what decodes a source's JPEG files: on that their pixels depend."""
    import PIL
    from PIL.features import version

    zlib, turbo = version("zlib_ng"), version("libjpeg_turbo")
    deflate = {"zlib-ng": str(zlib)} if zlib else {"zlib": str(version("zlib"))}
    jpeg = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {version('jpg')}"
    return {"pillow": PIL.__version__, **deflate, "png_level": str(COMPRESS_LEVEL), "jpeg": jpeg}
