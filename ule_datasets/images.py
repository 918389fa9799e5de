"""Images as bytes: the one encoder, lossless PNG with fixed settings, the one strict decoder, and one size for all.

Pillow is imported by the functions, because recipes import sources, and listing recipes must be quick.
"""

import io

import numpy as np

from ule_datasets.errors import InputError

COMPRESS_LEVEL = 1
"""On CIFAR-10 level 1 is a tenth faster than the highest and 2 % larger (benchmarks/assembly.py)."""


def encode_png(image: np.ndarray) -> bytes:
    """PNG bytes of a uint8 [H, W, 3] image."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=COMPRESS_LEVEL)
    return stream.getvalue()


def decode_rgb(data: bytes, origin: str) -> np.ndarray:
    """Decode any image format that Pillow knows to uint8 [H, W, 3].

    Raises:
        InputError: not a readable image, or not RGB: a conversion would be a guess, and is not made.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode == "RGB":
                return np.asarray(image)
            reason = f"is not an RGB image (mode {image.mode}); convert it to RGB first"
    except UnidentifiedImageError:
        reason = "is not a readable image: unknown image format"
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError) as error:
        reason = f"is not a readable image: {error}"
    raise InputError(f"{origin} {reason}")


def resize_and_crop(image: np.ndarray, resize: int | None, crop: int, origin: str) -> np.ndarray:
    """The shorter side to ``resize`` pixels, then the centre ``crop`` x ``crop`` (uint8 [H, W, 3] in and out).

    Pillow's bilinear filter, widened where an image becomes smaller (antialiasing); lengths and offsets are rounded
    as torchvision's ``Resize`` and ``CenterCrop`` round them, so that the pixels are theirs. With ``resize=None``
    nothing is resized.

    Raises:
        InputError: the image is smaller than the crop; it is not padded.
    """
    from PIL import Image

    height, width = image.shape[:2]
    if resize is not None and min(height, width) != resize:
        shorter = min(height, width)
        height, width = resize * height // shorter, resize * width // shorter
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    if min(height, width) < crop:
        raise InputError(f"{origin} is {width}x{height} pixels, smaller than the crop of {crop}x{crop}")
    top, left = round((height - crop) / 2), round((width - crop) / 2)
    return np.ascontiguousarray(image[top : top + crop, left : left + crop])


def encoder_versions() -> dict[str, str]:
    """What the bytes depend on, and as ``jpeg`` what decodes a source's JPEG files: on that their pixels depend."""
    import PIL
    from PIL import features

    zlib = features.version("zlib_ng")
    name = "zlib-ng" if zlib else "zlib"
    turbo = features.version("libjpeg_turbo")
    jpeg = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    return {
        "pillow": PIL.__version__,
        name: str(zlib or features.version("zlib")),
        "png_level": str(COMPRESS_LEVEL),
        "jpeg": jpeg,
    }
