"""The one image encoder: lossless PNG with fixed settings."""

import io

import numpy as np
from PIL import Image, features

COMPRESS_LEVEL = 1
"""On CIFAR-10 level 1 is a tenth faster than the highest and 2 % larger (benchmarks/assembly.py)."""


def encode_png(image: np.ndarray) -> bytes:
    """PNG bytes of a uint8 [H, W, 3] image."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=COMPRESS_LEVEL)
    return stream.getvalue()


def encoder_versions() -> dict[str, str]:
    """What the bytes (never the pixels) depend on."""
    import PIL

    zlib = features.version("zlib_ng")
    name = "zlib-ng" if zlib else "zlib"
    return {
        "pillow": PIL.__version__,
        name: str(zlib or features.version("zlib")),
        "png_level": str(COMPRESS_LEVEL),
    }
