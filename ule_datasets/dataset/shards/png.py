"""What an image of a dataset is: a PNG file of one size, 8-bit RGB, that says nothing besides its pixels."""

from __future__ import annotations

import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
RGB_8_BIT = bytes((8, 2, 0, 0, 0))
"""Bits, colours, compression, filters, no interlacing: the end of the header's content."""
END = b"\0\0\0\0IEND" + zlib.crc32(b"IEND").to_bytes(4, "big")
AROUND = 12
"""Bytes of a chunk besides its content: length, kind, check sum."""


def png_problem(data: bytes, height: int, width: int) -> str:
    """Why these bytes are not an image as ``encode_png`` writes it; empty where they are.

    Anything but pixels is refused, since loaders act upon it: some turn an image as its orientation says, some correct
    its colours, some show another frame. The check sums are compared because not every decoder does.
    """
    if not data.startswith(SIGNATURE):
        return "is not a PNG file"
    start = SIGNATURE + _chunk(b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + RGB_8_BIT)
    if not data.startswith(start):
        return f"is not an 8-bit RGB image of {width}x{height} pixels"
    at, end, content = len(start), len(data) - len(END), memoryview(data)
    while at < end:
        size, kind = int.from_bytes(content[at : at + 4], "big"), bytes(content[at + 4 : at + 8])
        if kind != b"IDAT":
            return f"holds more than pixels: {kind!r}"
        after = at + AROUND + size
        if zlib.crc32(content[at + 4 : after - 4]) != int.from_bytes(content[after - 4 : after], "big"):
            return "is damaged: a check sum does not agree"
        at = after
    return "" if at == end and data.endswith(END) else "does not end as a PNG file does"


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
