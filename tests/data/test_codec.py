"""Images are opened in one place: known formats only, plain RGB unless a step says otherwise, turned, and in bounds."""

from __future__ import annotations

import ast
import io
import struct
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL.ImageFile
import pytest
from helpers import complaint
from odd_images import FOREIGN, NEVER, ODD, PIXELS, PLAIN, SIDE, TURNABLE, chunk, exif, save
from PIL import Image, ImageOps

import ule_datasets
from ule_datasets.base.errors import InputError
from ule_datasets.data import image_formats
from ule_datasets.data.codec import (
    FINISHED,
    MAX_PIXELS,
    TURNED,
    Rules,
    decode_rgb,
    encode_png,
    head_of,
    max_pixels,
    only_our_bounds,
)
from ule_datasets.data.image_formats import READ, recognise

CONVERT = Rules(convert=True)


def by_pillow(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


# --- what is taken, and what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("rules", [Rules(), CONVERT, Rules(orientation="ignore")])
def test_plain_images_of_every_format_have_the_pixels_that_pillow_gives(name: str, rules: Rules) -> None:
    picture = decode_rgb(PLAIN[name], "it", rules)
    assert (picture.mode, picture.changed) == ("RGB", ())
    assert picture.pixels.dtype == np.uint8
    assert np.array_equal(picture.pixels, np.asarray(by_pillow(PLAIN[name])))


@pytest.mark.parametrize("name", ODD)
def test_odd_images_are_refused_by_name_with_advice(name: str) -> None:
    found = complaint(lambda: decode_rgb(ODD[name].data, "it"))
    assert found == f"it is not a plain RGB image ({ODD[name].named}); convert it to RGB first"
    advice = Rules(advice="do something")
    assert complaint(lambda: decode_rgb(ODD[name].data, "it", advice)).endswith("; do something")


@pytest.mark.parametrize("name", ODD)
def test_odd_images_are_converted_where_that_is_asked_for_and_it_is_said_what_was_lost(name: str) -> None:
    odd = ODD[name]
    picture = decode_rgb(odd.data, "it", CONVERT)
    assert (picture.mode, picture.changed) == (odd.mode, odd.changed)
    assert picture.pixels.shape == (SIDE, SIDE, 3)
    if not odd.mode.startswith("I"):
        assert np.array_equal(picture.pixels, np.asarray(by_pillow(odd.data).convert("RGB")))


def test_of_sixteen_bits_of_grey_the_upper_eight_remain_in_every_format() -> None:
    first, *others = (
        decode_rgb(ODD[f"16-bit grey {kind}"].data, "it", CONVERT).pixels for kind in ("PNG", "TIFF", "PPM")
    )
    for other in others:
        assert np.array_equal(first, other)
    assert len(np.unique(first)) > 100, "not cut off at 255"


@pytest.mark.parametrize("name", [*ODD, *PLAIN, *NEVER, *FOREIGN])
@pytest.mark.parametrize("rules", [Rules(), CONVERT])
def test_a_look_at_heads_tells_what_decoding_would(name: str, rules: Rules) -> None:
    odd = {name: odd.data for name, odd in ODD.items()}
    data = {**odd, **PLAIN, **{name: data for name, (data, _) in (*NEVER.items(), *FOREIGN.items())}}[name]
    try:
        expected: object = (decode_rgb(data, "it", rules).mode, (SIDE, SIDE))
    except InputError as error:
        expected = str(error)
    try:
        mode, size, refusal = head_of(io.BytesIO(data), "it", rules)
        found: object = refusal or (mode, size)
    except InputError as error:
        found = str(error)
    assert found == expected


@pytest.mark.parametrize("orientation", ["apply", "ignore"])
@pytest.mark.parametrize("turn", [0, 1, 3, 5, 6, 8, 9])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_look_at_heads_tells_the_size_of_what_is_turned(kind: str, turn: int, orientation: Any) -> None:
    data = save(PIXELS[:, : SIDE // 2], kind, exif=exif(turn))
    rules = Rules(orientation=orientation)
    assert head_of(io.BytesIO(data), "it", rules)[1] == decode_rgb(data, "it", rules).size


@pytest.mark.parametrize("resize", [None, 20])
@pytest.mark.parametrize("crop", [15, 16, 17, 20])
def test_a_look_at_heads_tells_what_is_too_small_to_be_cut(crop: int, resize: int | None) -> None:
    if resize is not None and resize < crop:
        return
    data, rules = save(PIXELS[:, : SIDE // 2], "PNG"), Rules(crop=crop, resize=resize)
    refusal = head_of(io.BytesIO(data), "it", rules)[2]
    if refusal:
        assert complaint(lambda: decode_rgb(data, "it", rules)) == refusal
    else:
        assert decode_rgb(data, "it", rules).pixels.shape == (crop, crop, 3)


@pytest.mark.parametrize("name", NEVER)
def test_what_could_only_be_guessed_is_never_converted(name: str) -> None:
    data, named = NEVER[name]
    rules = Rules(convert=True, advice="do something")
    assert complaint(lambda: decode_rgb(data, "it", rules)) == (
        f"it is not a plain RGB image ({named}); convert it to RGB first"
    )


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_of_no_format_that_is_read_is_named(name: str) -> None:
    data, said = FOREIGN[name]
    assert f"it {said}" in complaint(lambda: decode_rgb(data, "it", CONVERT))


@pytest.mark.parametrize("name", [name for name in PLAIN if "PNG" not in name])
def test_finished_datasets_hold_png_alone(name: str) -> None:
    kind = recognise(PLAIN[name])
    assert complaint(lambda: decode_rgb(PLAIN[name], "it", FINISHED)) == f"it is a {kind} image, expected PNG"
    assert np.array_equal(decode_rgb(encode_png(PIXELS), "it", FINISHED).pixels, PIXELS)


@pytest.mark.parametrize("name", ["grey PNG", "PNG with a colour key", "16-bit PNG", "animated PNG", "PNG with alpha"])
def test_and_of_png_the_plain_ones_alone(name: str) -> None:
    assert "is not a plain RGB image" in complaint(lambda: decode_rgb(ODD[name].data, "it", FINISHED))


# --- orientation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TURNABLE)
@pytest.mark.parametrize("turn", range(1, 9))
def test_photographs_are_turned_as_pillow_and_datasets_turn_them(kind: str, turn: int) -> None:
    from datasets import Image as Feature

    data = TURNABLE[kind](exif(turn))
    picture = decode_rgb(data, "it")
    assert picture.changed == ((TURNED,) if turn > 1 else ())
    shown = ImageOps.exif_transpose(by_pillow(data))
    assert np.array_equal(picture.pixels, np.asarray(shown))
    assert np.array_equal(picture.pixels, np.asarray(Feature().decode_example({"bytes": data, "path": None})))
    if turn > 1:
        assert not np.array_equal(picture.pixels, decode_rgb(TURNABLE[kind](exif(1)), "it").pixels)


@pytest.mark.parametrize("turn", [1, 3, 6])
def test_or_they_are_used_as_stored_and_that_is_said(turn: int) -> None:
    data = TURNABLE["JPEG"](exif(turn))
    picture = decode_rgb(data, "it", Rules(orientation="ignore"))
    assert picture.changed == (("used as stored although marked as turned",) if turn > 1 else ())
    assert np.array_equal(picture.pixels, np.asarray(by_pillow(data)))


def test_a_finished_image_that_viewers_would_turn_is_refused() -> None:
    data = TURNABLE["PNG"](exif(3))
    assert complaint(lambda: decode_rgb(data, "it", FINISHED)) == "it is marked as turned (EXIF orientation 3)"


@pytest.mark.parametrize(
    "tag", [exif(0), exif(9), exif(600), b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*"]
)
def test_an_orientation_that_says_nothing_changes_nothing(tag: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode_rgb(save(PIXELS, "PNG", exif=tag), "it").changed == ()


def test_an_image_is_turned_before_it_is_cut() -> None:
    pixels = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
    pixels[:, :SIDE] = 255
    data = save(pixels, "PNG", exif=exif(8))
    assert decode_rgb(data, "it", Rules(crop=2)).pixels.mean(axis=(1, 2)).tolist() == [0, 255]


# --- bounds ---------------------------------------------------------------------------------------------------


def header_only(width: int, height: int) -> dict[str, bytes]:
    """Images of many pixels in few bytes: what makes up the pixels is missing."""
    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    vp8x = b"VP8X\x0a\0\0\0\0\0\0\0" + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    whole = save(np.zeros((1, 1, 3), np.uint8), "JPEG")
    frame = whole.index(b"\xff\xc0") + 5
    jpeg = whole[:frame] + struct.pack(">HH", min(height, 65535), min(width, 65535)) + whole[frame + 4 :]
    bmp = bytearray(save(np.zeros((1, 1, 3), np.uint8), "BMP"))
    bmp[18:26] = struct.pack("<ii", width, height)
    return {
        "PNG": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", b"x\x9c\x03\0\0\0\0\1"),
        "WebP": b"RIFF\x16\0\0\0WEBP" + vp8x,
        "JPEG": jpeg,
        "GIF": b"GIF89a"
        + struct.pack("<HH", min(width, 65535), min(height, 65535))
        + b"\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
        "BMP": bytes(bmp),
        "PPM": b"P6 %d %d 255\n" % (width, height),
    }


@pytest.mark.parametrize("kind", header_only(1, 1))
def test_many_pixels_are_refused_before_there_is_memory_for_them(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = header_only(1_000_000, 1_000_000)[kind]
        found = complaint(lambda: decode_rgb(data, "it", CONVERT))
    assert "more than 178,956,970" in found or "it cannot be decoded: " in found


def test_the_bound_is_said_with_its_option_and_holds_at_its_value() -> None:
    data = PLAIN["PNG"]
    assert decode_rgb(data, "it", Rules(max_pixels=SIDE * SIDE)).pixels.shape == (SIDE, SIDE, 3)
    assert complaint(lambda: decode_rgb(data, "it", Rules(max_pixels=SIDE * SIDE - 1))) == (
        "it has 16 x 16 pixels, more than 255: make it smaller, or allow for it with ULE_MAX_PIXELS=256"
    )


@pytest.mark.parametrize(("text", "most"), [("", MAX_PIXELS), ("1000", 1000), (" 256 ", 256), (str(2**40), 2**40)])
def test_the_bound_is_moved_by_a_variable(text: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULE_MAX_PIXELS", text)
    assert max_pixels() == most


@pytest.mark.parametrize("text", ["0", "-1", "many", "1e6", "1_000", str(2**40 + 1), "\u0663"])
def test_a_variable_that_is_no_number_of_pixels_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULE_MAX_PIXELS", text)
    assert complaint(max_pixels) == f"ULE_MAX_PIXELS is {text!r}, must be a number of pixels"


def test_a_tile_is_as_large_as_an_image_may_be() -> None:
    entries = [
        (256, 16),
        (257, 16),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, 2**16),
        (323, 2**14),
        (324, 8),
        (325, 8),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in entries)
    data = b"II*\0\x08\0\0\0" + directory + bytes(4)
    assert "it has 65,536 x 16,384 pixels, more than 178,956,970" in complaint(lambda: decode_rgb(data, "it", CONVERT))


def test_a_jpeg_file_of_many_scans_is_refused_since_each_takes_the_time_of_an_image() -> None:
    whole = PLAIN["progressive JPEG"]
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    few, many = (whole[:-2] + scan * count + b"\xff\xd9" for count in (20, 200))
    assert np.array_equal(decode_rgb(few, "it").pixels, by_pillow(few))
    assert complaint(lambda: decode_rgb(many, "it")).startswith("it is a JPEG file of 210 scans, each of which is")


def test_an_image_between_pillows_warning_and_its_error_is_read_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with only_our_bounds(SIDE * SIDE):
            for data in PLAIN.values():
                decode_rgb(data, "it", Rules(max_pixels=SIDE * SIDE))
    assert Image.MAX_IMAGE_PIXELS == 1
    assert MAX_PIXELS == 178_956_970, "what Pillow reads when it is left alone"


# --- damage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["PNG", "JPEG", "progressive JPEG", "WebP", "BMP", "TIFF", "PPM", "AVIF"])
def test_half_an_image_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    half = PLAIN[name][: len(PLAIN[name]) // 2]
    assert complaint(lambda: decode_rgb(half, "it")).startswith("it cannot be decoded: ")
    monkeypatch.setattr(PIL.ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for data in (half, PLAIN[name]):
        with pytest.raises(InputError, match=r"LOAD_TRUNCATED_IMAGES is set|cannot be decoded"):
            decode_rgb(data, "it")


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), struct.error("x"), IndexError(), OverflowError(), MemoryError(), RecursionError(), EOFError()],
)
@pytest.mark.parametrize("when", ["__init__", "load"])
def test_whatever_a_decoder_raises_is_an_image_that_cannot_be_decoded(
    error: Exception, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(image_formats._reader("PNG"), when, broken)
    assert complaint(lambda: decode_rgb(PLAIN["PNG"], "it")).startswith("it cannot be decoded: ")


def test_previews_of_raw_photographs_are_no_images() -> None:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    tags[254] = 1
    data = save(PIXELS, "TIFF", tiffinfo=tags)
    assert complaint(lambda: decode_rgb(data, "it", CONVERT)).startswith("it shows a preview only, as raw photographs")
    canon = b"II*\0\x10\0\0\0CR\2\0" + bytes(64)
    assert (
        complaint(lambda: decode_rgb(canon, "it"))
        == "it is a raw photograph, a format that is not read: convert it to PNG"
    )


def test_an_interruption_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(image_formats._reader("PNG"), "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decode_rgb(PLAIN["PNG"], "it")


# --- which decoders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "how"), [("HEIF", r"pip install 'ule-datasets\[heif\]'"), ("AVIF", "install a Pillow")]
)
def test_a_decoder_that_is_missing_is_named(kind: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_formats, "_reader", lambda _: None)
    data = {"HEIF": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "AVIF": PLAIN["AVIF"]}[kind]
    with pytest.raises(InputError, match=f"^it is of the format {kind}, which cannot be read here: {how}"):
        decode_rgb(data, "it")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", "HEIF"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1miaf", "AVIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1avif", "HEIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp41avc1", ""),
        (b"RIFF\0\0\0\0WAVE", ""),
        (b"P7\n", ""),
    ],
)
def test_containers_are_known_by_what_they_say_they_hold(data: bytes, kind: str) -> None:
    assert recognise(data) == kind


def test_heif_photographs_are_read_where_their_decoder_is_installed() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")

    def heif(*images: np.ndarray, turn: int = 1) -> bytes:
        stream = io.BytesIO()
        file = pillow_heif.HeifFile()
        for image in images:
            file.add_from_pillow(Image.fromarray(image))
        file.save(stream, quality=-1, chroma=444, exif=exif(turn))
        return stream.getvalue()

    large = np.kron(PIXELS, np.ones((4, 2, 1), np.uint8))
    picture = decode_rgb(heif(large), "it")
    assert (picture.pixels.shape, picture.mode, picture.changed) == (large.shape, "RGB", ())
    assert np.abs(picture.pixels.astype(int) - large).max() <= 2
    turned = decode_rgb(heif(large, turn=6), "it")
    assert (turned.pixels.shape, turned.changed) == ((32, 64, 3), (TURNED,))
    for data, named in (
        (heif(np.dstack([large, large[..., 0]])), "mode RGBA, transparency"),
        (heif(large, large[::-1].copy()), "several frames"),
    ):
        assert f"is not a plain RGB image ({named});" in complaint(lambda data=data: decode_rgb(data, "it"))  # type: ignore[misc]


def test_no_decoder_is_read_that_starts_programs_and_all_of_them_are_there() -> None:
    assert not {"EPS", "PostScript", "PDF"} & set(READ)
    assert all(image_formats._reader(name) for name in READ if name != "HEIF")


def test_images_are_opened_here_and_nowhere_else() -> None:
    root = Path(ule_datasets.__file__).parent
    opening = {"imread", "imdecode", "decode_image", "decode_png", "decode_jpeg", "read_image", "pil_loader"}
    found = []
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "PIL.Image":
                found += [f"{path}: {alias.name}" for alias in node.names if alias.name == "open"]
            if isinstance(node, ast.Attribute) and node.attr in opening:
                found.append(f"{path}: {node.attr}")
            if isinstance(node, ast.Attribute) and node.attr == "open" and ast.unparse(node.value).endswith("Image"):
                found.append(f"{path}: {ast.unparse(node)}")
    assert found == []


def test_postscript_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mark"
    ghost = tmp_path / "gs"
    ghost.write_text(f"#!{sys.executable}\nopen({str(mark)!r}, 'w')\n")
    ghost.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name in ("PostScript", "PostScript in DOS"):
        for rules in (Rules(), CONVERT, FINISHED):
            complaint(lambda name=name, rules=rules: decode_rgb(FOREIGN[name][0], "it", rules))  # type: ignore[misc]
    assert not mark.exists()
