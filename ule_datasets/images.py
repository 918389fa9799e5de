"""Images as bytes: the one encoder, lossless PNG with fixed settings, and the one strict decoder.

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


def encoder_versions() -> dict[str, str]:
    """What the bytes (never the pixels) depend on."""
    import PIL
    from PIL import features

    zlib = features.version("zlib_ng")
    name = "zlib-ng" if zlib else "zlib"
    return {
        "pillow": PIL.__version__,
        name: str(zlib or features.version("zlib")),
        "png_level": str(COMPRESS_LEVEL),
    }
