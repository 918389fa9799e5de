"""Images as bytes: the one encoder, lossless PNG with fixed settings, the one strict decoder, and one size for all.

Every image that this library opens, a source's or its own, is opened here and nowhere else. Pillow is imported by the
functions, because recipes import sources, and listing recipes must be quick.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.limits import number_given
from ule_datasets.base.memory import check_fits
from ule_datasets.data.image_formats import READ, bits_per_channel, reader_of, recognise

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

COMPRESS_LEVEL = 1
"""On CIFAR-10 level 1 is a tenth faster than the highest and 2 % larger (benchmarks/assembly.py)."""
CONVERTIBLE = frozenset(("1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "I;16", "I;16B", "I;16L"))
"""Pillow modes that become RGB where a recipe says so; whatever else there is would have to be guessed."""
LARGE = 2**24
"""Pixels of an image from which on it is asked, before it is decoded, whether there is memory for it."""
MAX_PIXELS = 178_956_970
"""Of one image, where ``ULE_MAX_PIXELS`` says nothing else: what Pillow opens at most."""
CODING = 2
"""Raised whenever the same file gives other pixels than before: what was decoded earlier is not used then."""

ORIENTATION = 0x0112
"""The EXIF tag that says how a photograph is to be turned."""
TURNS: dict[Any, Any] = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""By its value: ``PIL.Image.Transpose``. Any other value leaves the photograph as it is."""
ON_THEIR_SIDE = frozenset((5, 6, 7, 8))
"""Those of its values that stand for a quarter of a turn."""
METADATA = frozenset(("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"))
"""Under which names Pillow keeps what may hold that tag."""
START = 4096
"""Bytes of a file in which its head says how many bits a channel has."""
TILE = (322, 323)
"""The TIFF tags with the width and height of a tile."""
MAX_SCANS = 100
"""Of a progressive JPEG file; usual are ten."""
NEW_SUBFILE_TYPE = 254
"""The TIFF tag whose first bit says that there is a larger image elsewhere in the file."""
TURNED, AS_STORED = "turned upright", "used as stored although marked as turned"
TRANSPARENCY, DEPTH, FRAMES = "transparency", "more than 8 bits a channel", "several frames"
DONE_ABOUT = {TRANSPARENCY: "alpha dropped", DEPTH: "depth reduced to 8 bits", FRAMES: "first of several frames"}
"""What conversion makes of what is odd about an image besides its mode."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """Which images are taken, and what is done to them."""

    formats: tuple[str, ...] = tuple(READ)
    convert: bool = False
    """Turn images of the modes in ``CONVERTIBLE`` into RGB as Pillow does, drop transparency, keep eight
    bits of more, take the first frame; otherwise all that is refused."""
    orientation: Literal["apply", "ignore", "refuse"] = "apply"
    """What to do about an EXIF tag that says how to turn the image (TIFF and HEIF are always turned)."""
    resize: int | None = None
    """As ``resize_and_crop`` says."""
    crop: int | None = None
    """As there; ``None``: the image as it is."""
    max_pixels: int = MAX_PIXELS
    """Rows times columns; a larger image is refused before memory is taken for it."""
    advice: str = "convert it to RGB first"
    """About images that could be converted."""


PLAIN = Rules()
FINISHED = Rules(formats=("PNG",), orientation="refuse")
"""For what this library has written itself."""


class Picture(NamedTuple):
    """A decoded image."""

    pixels: np.ndarray
    """uint8 [H, W, 3]."""
    mode: str
    """The Pillow mode in which it was stored."""
    changed: tuple[str, ...]
    """What else was done to it: of ``DONE_ABOUT``, ``TURNED`` and ``AS_STORED``."""
    size: tuple[int, int]
    """Width and height before anything was cut."""


def max_pixels() -> int:
    """How many pixels an image of a source may have: ``ULE_MAX_PIXELS``, else ``MAX_PIXELS``.

    Raises:
        InputError: the variable is no such number.
    """
    return number_given("ULE_MAX_PIXELS", MAX_PIXELS, "pixels")


@contextmanager
def only_our_bounds(max_pixels: int) -> Iterator[None]:
    """Within, Pillow's own bound, which some decoders keep to before they take memory, is ours; it warns of nothing.

    For one thread at a time, as in a worker: what it sets is the process's.
    """
    import PIL.Image

    before = PIL.Image.MAX_IMAGE_PIXELS
    PIL.Image.MAX_IMAGE_PIXELS = max(1, max_pixels // 2)  # up to twice as many are only warned of
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = before


def encode_png(image: np.ndarray) -> bytes:
    """PNG bytes of a uint8 [H, W, 3] image."""
    from PIL.Image import fromarray

    stream = io.BytesIO()
    fromarray(image).save(stream, "PNG", compress_level=COMPRESS_LEVEL)
    return stream.getvalue()


def decode_rgb(data: bytes, origin: str, rules: Rules = PLAIN) -> Picture:
    """Decode an image, known by what its bytes are and not by a file name.

    Args:
        data: the encoded image.
        origin: where it comes from, for messages.
        rules: which images are taken, and what is done to them.

    Raises:
        InputError: not a readable image, not plain RGB where nothing says to convert it, too large, or smaller than
            the crop.
    """
    image, mode, changed = open_image(data, origin, rules)
    cut = image if rules.crop is None else _cut(image, rules.resize, rules.crop, origin)
    return Picture(np.asarray(cut), mode, changed, image.size)


def head_of(file: IO[bytes], origin: str, rules: Rules = PLAIN) -> tuple[str, tuple[int, int], str]:
    """The Pillow mode of an image, its width and height, and why it would be refused although it can be read, if so.

    Nothing is decoded, and little more read than says so. Width and height are those of ``Picture.size``, but for a PNG
    file whose EXIF tags follow its pixels.

    Raises:
        InputError: it cannot be read, as far as heads of images tell.
    """
    start = file.read(START)
    file.seek(0)
    try:
        head = _opened(file, start, origin, rules)
        size = _size_upright(head) if rules.orientation == "apply" else head.image.size
    except InputError:
        raise
    except Exception as error:
        raise _undecodable(origin, error) from error
    return head.mode, size, _not_plain(head, origin, rules) or too_small(size, rules, origin)


def open_image(data: bytes, origin: str, rules: Rules = PLAIN) -> tuple[Image, str, tuple[str, ...]]:
    """``decode_rgb`` before anything is cut: a Pillow image of mode RGB, the mode it had, and what else was changed."""
    try:
        head = image, kind, mode, odd = _opened(io.BytesIO(data), data, origin, rules)
        if refusal := _not_plain(head, origin, rules):
            raise InputError(refusal)
        turned = _turned_by_decoder(image, kind)
        _load(image)
        turn = _turn(image)
        if turn and rules.orientation == "refuse":
            raise InputError(f"{origin} is marked as turned (EXIF orientation {turn})")
        rgb = image if mode == "RGB" else _converted(image)
        if turn and rules.orientation == "apply":
            rgb, turned = rgb.transpose(TURNS[turn]), True
    except InputError:
        raise
    except Exception as error:
        raise _undecodable(origin, error) from error
    changed = [DONE_ABOUT[what] for what in odd]
    if turned or turn:
        changed.append(TURNED if turned else AS_STORED)
    return rgb, mode, tuple(changed)


class _Head(NamedTuple):
    """An image that is open, and of which nothing is decoded."""

    image: ImageFile
    kind: str
    mode: str
    odd: list[str]
    """Of ``DONE_ABOUT``."""


def _opened(file: IO[bytes], start: bytes, origin: str, rules: Rules) -> _Head:
    """Open an image that begins with ``start``; refuse what is not read, and what would take too much."""
    kind = recognise(start)
    if kind in READ and kind not in rules.formats:
        raise InputError(f"{origin} is a {kind} image, expected {' or '.join(rules.formats)}")
    image = reader_of(kind, start, origin)(file)
    _check_bounds(image, kind, start, origin, rules)
    if kind == "TIFF" and image.tag_v2.get(NEW_SUBFILE_TYPE, 0) & 1:  # type: ignore[attr-defined]
        raise InputError(f"{origin} shows a preview only, as raw photographs of cameras do: develop it to PNG")
    return _Head(image, kind, _mode(image, kind), _oddities(image, kind, start))


def _undecodable(origin: str, error: Exception) -> InputError:
    """What any error of a decoder means; they raise whatever comes to them."""
    return InputError(f"{origin} cannot be decoded: {str(error) or type(error).__name__}")


def _check_bounds(image: ImageFile, kind: str, data: bytes, origin: str, rules: Rules) -> None:
    """Refuse what would take more memory, or time, than an image may; seen without decoding it."""
    sizes = [image.size]
    if kind == "TIFF":  # a tile is decoded whole, however little of it the image needs
        sizes.append(tuple(image.tag_v2.get(tag, 1) for tag in TILE))  # type: ignore[attr-defined]
    for width, height in sizes:
        if width * height > rules.max_pixels:
            raise InputError(
                f"{origin} has {width:,} x {height:,} pixels, more than {rules.max_pixels:,}: make it smaller, or "
                f"allow for it with ULE_MAX_PIXELS={width * height}"
            )
    if image.width * image.height > LARGE:
        check_fits(4 * image.width * image.height, f"{origin}, decoded,")  # Pillow has four bytes for any pixel
    if "progressive" in image.info and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise InputError(f"{origin} is a JPEG file of {scans} scans, each of which is a whole image: save it again")


def _mode(image: ImageFile, kind: str) -> str:
    """Pillow's, but one name for 16 bits of grey: in some formats they are opened as 32."""
    return "I;16" if image.mode == "I" and kind in ("PNG", "PPM") else image.mode


def _oddities(image: ImageFile, kind: str, data: bytes) -> list[str]:
    """What is odd about an image besides its mode, of ``DONE_ABOUT``; seen without decoding it."""
    odd = []
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        odd.append(TRANSPARENCY)
    if bits_per_channel(image, kind, data) > 8:
        odd.append(DEPTH)
    if getattr(image, "is_animated", False):
        odd.append(FRAMES)
    return odd


def _not_plain(head: _Head, origin: str, rules: Rules) -> str:
    """Why an image is refused that is not plain RGB; empty where it is, or is to be converted and can be."""
    convertible = head.mode in ("RGB", *CONVERTIBLE)
    if (head.mode == "RGB" and not head.odd) or (rules.convert and convertible):
        return ""
    what = ", ".join([f"mode {head.mode}"] * (head.mode != "RGB") + head.odd)
    return f"{origin} is not a plain RGB image ({what}); {rules.advice if convertible else PLAIN.advice}"


def _load(image: ImageFile) -> None:
    import PIL.ImageFile

    if PIL.ImageFile.LOAD_TRUNCATED_IMAGES:
        raise InputError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: halves of images would be read as if they were whole; unset it"
        )
    image.load()


def _turned_by_decoder(image: ImageFile, kind: str) -> bool:
    """Whether a decoder that turns images itself will turn this one."""
    if kind == "TIFF":
        return image.tag_v2.get(ORIENTATION) in TURNS  # type: ignore[attr-defined]
    return image.info.get("original_orientation") in TURNS  # HEIF


def _turn(image: ImageFile) -> int:
    """How a loaded image is still to be turned, of ``TURNS``; 0: not at all, or by nothing that can be read."""
    if METADATA.isdisjoint(image.info):
        return 0
    try:
        turn: Any = image.getexif().get(ORIENTATION)
    except Exception:  # whatever a damaged tag makes of it: the pixels are whole
        return 0
    return int(turn) if turn in TURNS else 0


def _size_upright(head: _Head) -> tuple[int, int]:
    """Width and height of an image that is not loaded, once it is turned."""
    width, height = head.image.size
    on_its_side = width != height and head.kind != "TIFF" and _turn(head.image) in ON_THEIR_SIDE
    return (height, width) if on_its_side else (width, height)


def _converted(image: Image) -> Image:
    """An image of another mode as RGB; of 16 bits the upper eight, as Pillow takes them from 16-bit RGB."""
    from PIL.Image import fromarray

    if image.mode.startswith("I"):
        image = fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


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


def too_small(size: tuple[int, int], rules: Rules, origin: str) -> str:
    """Why an image of some width and height is refused that nothing can be cut from; empty where something can."""
    width, height = _resized(size, rules.resize)
    if rules.crop is None or min(height, width) >= rules.crop:
        return ""
    return f"{origin} is {width}x{height} pixels, smaller than the crop of {rules.crop}x{rules.crop}"


def _resized(size: tuple[int, int], resize: int | None) -> tuple[int, int]:
    """Width and height when the shorter one is ``resize``, if it is not ``None``."""
    shorter = min(size)
    if resize is None or shorter == resize:
        return size
    width, height = size
    return resize * width // shorter, resize * height // shorter


def _cut(image: Image, resize: int | None, crop: int, origin: str) -> Image:
    from PIL.Image import Resampling

    if refusal := too_small(image.size, Rules(resize=resize, crop=crop), origin):
        raise InputError(refusal)
    width, height = _resized(image.size, resize)
    if (width, height) != image.size:
        image = image.resize((width, height), Resampling.BILINEAR)
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
