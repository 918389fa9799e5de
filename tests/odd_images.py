"""Images of every format that is read, and every way in which one of them is more, or less, than plain 8-bit RGB."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

SIDE = 16
PIXELS = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
OTHER = PIXELS[::-1].copy()
GREY16 = np.random.default_rng(4).integers(0, 2**16, (SIDE, SIDE), dtype=np.uint16)
ALPHA = np.dstack([PIXELS, PIXELS[..., 0]])


def save(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def png(depth: int, colour: int, rows: np.ndarray, *more: bytes) -> bytes:
    """A PNG by hand, from rows of bytes (uint8 [H, bytes]), with further chunks before the pixels."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"".join((b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *more, chunk(b"IDAT", pixels), chunk(b"IEND", b"")))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(colour: int, channels: int) -> bytes:
    rows = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE * channels * 2), dtype=np.uint8)
    return png(16, colour, rows)


def deep_tiff() -> bytes:
    """16-bit RGB, uncompressed: Pillow reads such files but does not write them."""
    pixels = PIXELS.astype("<u2") * 257
    tags = [
        (256, 3, 1, SIDE),
        (257, 3, 1, SIDE),
        (258, 3, 3, 8 + 2 + 9 * 12 + 4),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8 + 2 + 9 * 12 + 4 + 6),
        (277, 3, 1, 3),
        (278, 3, 1, SIDE),
        (279, 4, 1, pixels.nbytes),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0\x08\0\0\0" + directory + struct.pack("<HHH", 16, 16, 16) + pixels.tobytes()


def frames(kind: str, **options: Any) -> bytes:
    more = [Image.fromarray(OTHER)]
    return save(PIXELS, kind, save_all=True, append_images=more, **options)


PLAIN: dict[str, bytes] = {
    "PNG": save(PIXELS, "PNG"),
    "PNG with text": png(8, 2, PIXELS.reshape(SIDE, -1), chunk(b"tEXt", b"Comment\0of no importance")),
    "JPEG": save(PIXELS, "JPEG", quality=95),
    "progressive JPEG": save(PIXELS, "JPEG", progressive=True),
    "JPEG with previews": save(PIXELS, "MPO", save_all=True, append_images=[Image.fromarray(OTHER)]),
    "WebP": save(PIXELS, "WEBP", lossless=True),
    "lossy WebP": save(PIXELS, "WEBP"),
    "BMP": save(PIXELS, "BMP"),
    "TIFF": save(PIXELS, "TIFF"),
    "deflated TIFF": save(PIXELS, "TIFF", compression="tiff_deflate"),
    "big TIFF": save(PIXELS, "TIFF", big_tiff=True),
    "PPM": save(PIXELS, "PPM"),
    "plain PPM": b"P3 16 16 255\n" + b" ".join(b"%d" % value for value in PIXELS.ravel().tolist()),
    "JPEG 2000": save(PIXELS, "JPEG2000"),
    "JPEG 2000 codestream": save(PIXELS, "JPEG2000", no_jp2=True),
    "AVIF": save(PIXELS, "AVIF"),
}
"""Images that need no conversion."""


class Odd(NamedTuple):
    """An image that is taken only where a step says how."""

    data: bytes
    named: str
    """What a refusal says about it."""
    mode: str
    """Its Pillow mode."""
    changed: tuple[str, ...] = ()
    """What else is counted when it is converted."""


GREY, PALETTE = Image.fromarray(PIXELS).convert("L"), Image.fromarray(PIXELS).convert("P")
DEEP, CLEAR, MANY = "more than 8 bits a channel", "transparency", "several frames"
TO_8, OPAQUE, FIRST = "depth reduced to 8 bits", "alpha dropped", "first of several frames"
ODD: dict[str, Odd] = {
    "grey PNG": Odd(save(GREY, "PNG"), "mode L", "L"),
    "grey JPEG": Odd(save(GREY, "JPEG"), "mode L", "L"),
    "grey TIFF": Odd(save(GREY, "TIFF"), "mode L", "L"),
    "grey PPM": Odd(save(GREY, "PPM"), "mode L", "L"),
    "black and white PNG": Odd(save(GREY.convert("1"), "PNG"), "mode 1", "1"),
    "black and white PPM": Odd(save(GREY.convert("1"), "PPM"), "mode 1", "1"),
    "palette PNG": Odd(save(PALETTE, "PNG"), "mode P", "P"),
    "palette BMP": Odd(save(PALETTE, "BMP"), "mode P", "P"),
    "palette TIFF": Odd(save(PALETTE, "TIFF"), "mode P", "P"),
    "GIF": Odd(save(PALETTE, "GIF"), "mode P", "P"),
    "CMYK JPEG": Odd(save(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"), "mode CMYK", "CMYK"),
    "CMYK TIFF": Odd(save(Image.fromarray(PIXELS).convert("CMYK"), "TIFF"), "mode CMYK", "CMYK"),
    "PNG with alpha": Odd(save(ALPHA, "PNG"), f"mode RGBA, {CLEAR}", "RGBA", (OPAQUE,)),
    "grey PNG with alpha": Odd(save(GREY.convert("LA"), "PNG"), f"mode LA, {CLEAR}", "LA", (OPAQUE,)),
    "WebP with alpha": Odd(save(ALPHA, "WEBP", lossless=True), f"mode RGBA, {CLEAR}", "RGBA", (OPAQUE,)),
    "TIFF with alpha": Odd(save(ALPHA, "TIFF"), f"mode RGBA, {CLEAR}", "RGBA", (OPAQUE,)),
    "AVIF with alpha": Odd(save(ALPHA, "AVIF"), f"mode RGBA, {CLEAR}", "RGBA", (OPAQUE,)),
    "JPEG 2000 with alpha": Odd(save(ALPHA, "JPEG2000"), f"mode RGBA, {CLEAR}", "RGBA", (OPAQUE,)),
    "PNG with a colour key": Odd(
        save(PIXELS, "PNG", transparency=tuple(PIXELS[0, 0].tolist())), CLEAR, "RGB", (OPAQUE,)
    ),
    "grey PNG with a key": Odd(save(GREY, "PNG", transparency=7), f"mode L, {CLEAR}", "L", (OPAQUE,)),
    "palette PNG with a key": Odd(save(PALETTE, "PNG", transparency=7), f"mode P, {CLEAR}", "P", (OPAQUE,)),
    "palette PNG with alphas": Odd(
        save(PALETTE, "PNG", transparency=bytes(range(256))), f"mode P, {CLEAR}", "P", (OPAQUE,)
    ),
    "GIF with a key": Odd(
        save(PALETTE, "GIF", transparency=PALETTE.getpixel((0, 0))), f"mode P, {CLEAR}", "P", (OPAQUE,)
    ),
    "16-bit PNG": Odd(deep_png(2, 3), DEEP, "RGB", (TO_8,)),
    "16-bit grey PNG": Odd(save(GREY16, "PNG"), f"mode I;16, {DEEP}", "I;16", (TO_8,)),
    "16-bit PNG with alpha": Odd(deep_png(6, 4), f"mode RGBA, {CLEAR}, {DEEP}", "RGBA", (OPAQUE, TO_8)),
    "16-bit grey PNG with alpha": Odd(deep_png(4, 2), f"mode RGBA, {CLEAR}, {DEEP}", "RGBA", (OPAQUE, TO_8)),
    "16-bit TIFF": Odd(deep_tiff(), DEEP, "RGB", (TO_8,)),
    "16-bit grey TIFF": Odd(save(GREY16, "TIFF"), f"mode I;16, {DEEP}", "I;16", (TO_8,)),
    "16-bit PPM": Odd(b"P6 16 16 65535\n" + (PIXELS.astype(">u2") * 257).tobytes(), DEEP, "RGB", (TO_8,)),
    "12-bit PPM": Odd(b"P6 16 16 4095\n" + (PIXELS.astype(">u2") * 16).tobytes(), DEEP, "RGB", (TO_8,)),
    "16-bit grey PPM": Odd(b"P5 16 16 65535\n" + GREY16.astype(">u2").tobytes(), f"mode I;16, {DEEP}", "I;16", (TO_8,)),
    "16-bit grey JPEG 2000": Odd(save(GREY16, "JPEG2000"), f"mode I;16, {DEEP}", "I;16", (TO_8,)),
    "animated GIF": Odd(frames("GIF"), f"mode P, {MANY}", "P", (FIRST,)),
    "animated WebP": Odd(frames("WEBP", lossless=True), MANY, "RGB", (FIRST,)),
    "animated PNG": Odd(frames("PNG"), MANY, "RGB", (FIRST,)),
    "animated AVIF": Odd(frames("AVIF"), MANY, "RGB", (FIRST,)),
    "TIFF of two pages": Odd(frames("TIFF"), MANY, "RGB", (FIRST,)),
}
"""Images that are converted where a step says so."""

NEVER: dict[str, tuple[bytes, str]] = {
    "floating point TIFF": (save(np.ones((SIDE, SIDE), np.float32), "TIFF"), f"mode F, {DEEP}"),
    "32-bit TIFF": (save(np.ones((SIDE, SIDE), np.int32), "TIFF"), f"mode I, {DEEP}"),
    "LAB TIFF": (save(Image.new("LAB", (SIDE, SIDE)), "TIFF"), "mode LAB"),
}
"""Images whose conversion would be a guess, and what a refusal says about them."""

FOREIGN: dict[str, tuple[bytes, str]] = {
    "text": (b"this is no image", "is not a readable image: unknown image format"),
    "nothing": (b"", "is not a readable image: empty: an incomplete download?"),
    "PostScript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
        "is PostScript, a format that is not read: convert it to PNG",
    ),
    "PostScript in DOS": (
        b"\xc5\xd0\xd3\xc6" + bytes(64),
        "is PostScript, a format that is not read: convert it to PNG",
    ),
    "PDF": (b"%PDF-1.7\n", "is not a readable image: a PDF document"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is SVG, a format that is not read: convert it to PNG"),
    "web page": (b"<!DOCTYPE html><html>", "is not a readable image: a web page, perhaps of an error"),
    "Photoshop": (b"8BPS\0\1" + bytes(64), "is Photoshop, a format that is not read: convert it to PNG"),
    "ICO": (save(PIXELS, "ICO"), "is ICO, a format that is not read: convert it to PNG"),
    "DDS": (save(PIXELS, "DDS"), "is DDS, a format that is not read: convert it to PNG"),
    "BLP": (save(PALETTE, "BLP"), "is BLP, a format that is not read: convert it to PNG"),
    "QOI": (save(PIXELS, "QOI"), "is QOI, a format that is not read: convert it to PNG"),
    "JPEG XL": (b"\xff\x0a" + bytes(64), "is JPEG XL, a format that is not read: convert it to PNG"),
    "SPIDER": (save(np.ones((SIDE, SIDE), np.float32), "SPIDER"), "is not a readable image: unknown image format"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "is not a readable image: a pointer of Git LFS"),
}
"""What is no image, or of a format that is not read, and what is said about it."""

TURNABLE: dict[str, Callable[[bytes], bytes]] = {
    "JPEG": lambda tag: save(PIXELS, "JPEG", quality=100, subsampling=0, exif=tag),
    "PNG": lambda tag: save(PIXELS, "PNG", exif=tag),
    "WebP": lambda tag: save(PIXELS, "WEBP", lossless=True, exif=tag),
    "TIFF": lambda tag: save(PIXELS, "TIFF", exif=tag),
    "AVIF": lambda tag: save(PIXELS, "AVIF", quality=100, exif=tag),
}
"""Formats that can say how an image is to be turned."""
