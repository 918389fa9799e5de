"""In which format an image is, by what its bytes are and never by a name, and the one list of formats that are read.

No format is on the list whose decoder starts a program or leaves the file, as that of PostScript does.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ule_datasets.base.errors import InputError
from ule_datasets.base.signatures import HEAD as LOOKED_AT
from ule_datasets.base.signatures import mistaken

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

READ = {
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "WebP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "PPM": ("PIL.PpmImagePlugin", "PpmImageFile"),
    "JPEG 2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "HEIF": ("pillow_heif", "HeifImageFile"),
}
"""Every format that is read: the class that does it, which is called by itself, so that no other is ever tried.

Of a JPEG file this reads the photograph and not the previews that telephones put behind it.
"""
PLAIN_TO_SEE = READ.keys() - {"BMP", "PPM"}
"""Formats whose files begin as nothing else does."""
INSTALL = {
    "HEIF": "pip install 'ule-datasets[heif]'",
    "WebP": "install a Pillow that has it",
    "JPEG 2000": "install a Pillow that has it",
    "AVIF": "install a Pillow that has it (11.3 or later)",
}
"""What to do for the formats whose decoders are not there everywhere."""
FEATURES = {"WebP": "webp", "JPEG 2000": "jpg_2000", "AVIF": "avif"}
"""What Pillow calls those of its decoders that may be missing."""
BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0\x10\0\0\0CR", "a raw photograph"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    *((b"P%d" % number, "PPM") for number in range(1, 7)),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"%!", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"<svg", "SVG"),
    (b"<?xml", "SVG"),
    (b"8BPS", "Photoshop"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"DDS ", "DDS"),
    (b"BLP", "BLP"),
    (b"qoif", "QOI"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
)
"""How files begin, and in which format they are then; formats that are not read are there to be named."""
BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF"
)
"""What a file of ISO's base format (``ftyp``) says that it is; ``mif1`` may stand before either."""
HEAD = 64
"""Bytes at the beginning of a file from which ``recognise`` tells its format."""


def recognise(data: bytes) -> str:
    """The format of an image, or of what is there instead of one; empty where it is unknown."""
    for beginning, name in BEGINNINGS:
        if data.startswith(beginning):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        box = min(int.from_bytes(data[:4], "big"), HEAD)
        brands = [data[8:12], *(data[start : start + 4] for start in range(16, box, 4))]
        names = [BRANDS[brand] for brand in brands if brand in BRANDS]
        return "AVIF" if "AVIF" in names and brands[0] in (b"mif1", b"msf1") else "".join(names[:1])
    return ""


def reader_of(name: str, data: bytes, origin: str) -> type[ImageFile]:
    """The class that reads a format, which some data was recognised to be in.

    Raises:
        InputError: it is not read, or not here: what it is, and what to do.
    """
    if not name:
        what = mistaken(data[:LOOKED_AT])
        raise InputError(f"{origin} is not a readable image: {what or 'unknown image format'}")
    if name not in READ:
        raise InputError(f"{origin} is {name}, a format that is not read: convert it to PNG")
    reader = _reader(name)
    if reader is None:
        raise InputError(f"{origin} is of the format {name}, which cannot be read here: {INSTALL[name]}, or convert it")
    return reader


@cache
def _reader(name: str) -> type[ImageFile] | None:
    """``None`` where the decoder is not installed."""
    from PIL import features

    if name in FEATURES and not features.check(FEATURES[name]):
        return None
    module, kind = READ[name]
    try:
        found: Any = getattr(import_module(module), kind)
    except ImportError:
        return None
    return found  # type: ignore[no-any-return]


def bits_per_channel(image: ImageFile, kind: str, data: bytes) -> int:
    """As an image is stored, before Pillow makes eight of them; seen without decoding it."""
    found: Any = 8
    match kind:
        case "PNG":
            found = data[24]
        case "TIFF":
            found = max(image.tag_v2.get(258, (1,)))  # type: ignore[attr-defined]
        case "PPM":
            arguments = image.tile[0].args
            found = 16 if image.mode == "I" or (isinstance(arguments, tuple) and int(arguments[1]) > 255) else 8
        case "JPEG 2000":
            found = 1 + (data[data.find(b"\xff\x4f\xff\x51") + 42] & 0x7F)
        case "AVIF":
            found = 10 if data[data.find(b"av1C") + 6] & 0x40 else 8
        case "HEIF":
            found = image.info.get("bit_depth", 8)
    return int(found)
