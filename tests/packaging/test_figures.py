"""Figures: every change can be seen, nothing is cut off, and names are written by letters."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ule_datasets.data.perturbation import Additive, Layer, Overwrite, Perturbation, Support
from ule_datasets.data.split import Split
from ule_datasets.dataset.integrity.drawings import drawing_problem
from ule_datasets.packaging.figures import class_sheet, draw_figures, fonts
from ule_datasets.packaging.figures.contact import RESTORED, compare, contact_sheet, sample_sheet
from ule_datasets.packaging.figures.sheet import MARGIN, MARK, TILE, Sheet, shortened, text_width

NAMES = ("cat", "Grüße", "<&'\"猫>")
TRACE = [{"accuracy": 10.0 * number, "mean_abs": 0.5 * number} for number in range(9)]


def split_of(size: int, count: int = 3) -> Split:
    y, x = np.mgrid[0:size, 0:size]
    images = np.stack([np.stack([x + 9 * n, y, (x + y) // 2], -1) % 200 for n in range(count)]).astype(np.uint8)
    return Split(
        name="train",
        images=images,
        labels=np.arange(count) % len(NAMES),
        keys=tuple(f"key{number}" for number in range(count)),
        digest="0" * 64,
    )


def one_pixel(size: int) -> Overwrite:
    place = np.full((3, 1), size // 3, dtype=np.int32)
    return Overwrite(rows=place, columns=place, colours=np.full((3, 1, 3), 255, np.uint8), support=Support.CLASS)


def noise(size: int, level: int = 8) -> Additive:
    levels = np.random.default_rng(0).integers(-level, level + 1, (3, size, size, 3)).astype(np.int8)
    return Additive(levels=levels, support=Support.CLASS)


def perturbation(*layers: Layer) -> Perturbation:
    about = {"methods": [{"identifier": "em_s", "notes": {"trace": TRACE}}]}
    return Perturbation(layers=layers, source_digest="0" * 64, about=about)


def pixels_of(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("size", [8, 32, 224])
def test_every_figure_is_a_png_and_a_mere_drawing_of_the_same_shape(size: int) -> None:
    figures = draw_figures(split_of(size), perturbation(noise(size), one_pixel(size)), NAMES)
    assert [each.stem for each in figures] == ["contact_sheet", "shortcut_pixels", "class_noise", "trace_em_s"]
    for figure in figures:
        assert list(figure.files) == [f"{figure.stem}.png", f"{figure.stem}.svg"]
        assert drawing_problem(figure.files[f"{figure.stem}.svg"]) is None
        (box,) = re.findall(r'viewBox="0 0 (\d+) (\d+)"', figure.svg)
        height, width, _ = pixels_of(figure.png).shape
        assert (width, height) == (2 * int(box[0]), 2 * int(box[1]))
    assert draw_figures(split_of(size), perturbation(noise(size), one_pixel(size)), NAMES) == figures


def test_a_drawing_that_runs_something_or_leads_elsewhere_is_none() -> None:
    start, end = b'<svg xmlns="http://www.w3.org/2000/svg">', b"</svg>"
    assert drawing_problem(start + b"<title>a &lt; b</title>" + end) is None
    for content in (
        b"<script/>",
        b"<g/>",
        b'<rect onload="x()"/>',
        b'<image href="http://example.org/x.png"/>',
        b'<image href="data:image/svg+xml;base64,AAAA"/>',
        b'<rect style="fill:url(http://example.org)"/>',
        b'<rect fill="url(#x)"/>',
        b"<!ENTITY a 'b'>",
        b"<?xml-stylesheet href='x'?>",
        b"<rect>",
    ):
        assert drawing_problem(start + content + end) is not None, content
    assert drawing_problem((start + end).decode().encode("utf-16")) is not None
    assert drawing_problem(b'<!DOCTYPE svg [<!ENTITY a "b">]>' + start + end) is not None


@pytest.mark.parametrize("size", [64, 224, 500])
def test_one_changed_pixel_of_a_large_image_is_framed_and_magnified(size: int) -> None:
    figure = contact_sheet(split_of(size), perturbation(one_pixel(size)), NAMES)
    assert "framed, and magnified" in figure.caption
    marked = (pixels_of(figure.png) == MARK).all(axis=-1)
    assert marked.any()
    inset = 2 * 36 * 0.9
    runs = marked.sum(axis=1).max()
    assert runs > inset, "the frame of the magnified part"


def test_a_small_image_needs_no_magnifying_and_dense_noise_no_frame() -> None:
    assert "magnified" not in contact_sheet(split_of(32), perturbation(one_pixel(32)), NAMES).caption
    assert "framed" in contact_sheet(split_of(32), perturbation(one_pixel(32)), NAMES).caption
    plain = contact_sheet(split_of(224), perturbation(noise(224)), NAMES)
    assert "framed" not in plain.caption
    assert "x 15" in plain.caption
    assert not (pixels_of(plain.png) == MARK).all(axis=-1).any()


def test_what_was_done_to_the_images_is_said() -> None:
    for changed, words in (((), "protected"), ((RESTORED,), "made learnable again")):
        figure = contact_sheet(split_of(32), perturbation(one_pixel(32)), NAMES, *changed)
        assert figure.caption.startswith(f"Clean images, the same images {words}, and the difference ")
        assert f">{words}</text>" in figure.svg


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 255), st.integers(0, 255), st.integers(-40, 40), st.integers(0, 40))
def test_no_difference_is_cut_off_and_the_larger_looks_larger(start: int, pixel: int, level: int, bound: int) -> None:
    clean = np.full((1, 4, 4, 3), start, dtype=np.uint8)
    protected = np.clip(clean.astype(int) + np.sign(level) * min(abs(level), bound), 0, 255).astype(np.uint8)
    protected[0, 1, 2] = pixel
    found = compare(clean, protected, bound)
    difference = protected.astype(int) - clean
    shown = found.difference.astype(int) - 128
    assert shown.min() >= -127
    assert shown.max() <= 127
    assert (np.sign(shown) == np.sign(difference)).all() or np.abs(difference).max() > 127
    for part in (found.standing_out, ~found.standing_out):
        ratios = {int(s / d) for s, d in zip(shown[part].flat, difference[part].flat, strict=True) if d}
        assert len(ratios) <= 1, "one scale"


def test_a_name_is_written_by_a_font_that_has_its_letters_or_without_their_signs_or_by_other_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fonts, "_installed", lambda: ())
    fonts._font_of.cache_clear()
    try:
        assert fonts.legible("plain", "class 0") == "plain"
        assert fonts.legible("Café", "class 0") == "Cafe"
        assert fonts.legible("猫", "class 7") == "class 7"
        sheet = Sheet(100, 40)
        sheet.text(0, 0, "猫", otherwise="class 7")
        assert sheet.figure("x", "A cat.").caption == "A cat. For want of a font: class 7 is 猫."
        assert ">猫</text>" in sheet.svg("x"), "the reader has one"
    finally:
        fonts._font_of.cache_clear()
    monkeypatch.undo()
    sheet = Sheet(100, 40)
    sheet.text(0, 0, "Grüße, кошка", otherwise="class 0")
    pytest.importorskip("matplotlib")
    assert fonts.legible("Grüße, кошка", "class 0") == "Grüße, кошка", "matplotlib brings a font"
    assert "Grüße, кошка" in sheet.svg("x")
    assert (pixels_of(sheet.png()) < 128).any()


def test_no_font_that_stands_in_for_all_letters_is_taken() -> None:
    assert not [path for path in fonts._installed() if path.name.startswith(fonts.STAND_INS)]
    assert not fonts._has(fonts._own(11), chr(0x10FFFE))


def test_strange_names_are_drawn_too() -> None:
    for name in ("a\x00\x1b[31m\ud800\ufffe\uffff<b>&\"'", "x" * 100_000, "\u202e", ""):
        sheet = Sheet(100, 40)
        sheet.text(0, 0, shortened(name, 60), otherwise="class 0")
        assert sheet.png()
        assert drawing_problem(sheet.svg(name[:300]).encode()) is None


def test_a_long_name_is_cut_to_its_place() -> None:
    assert shortened("short", 100) == "short"
    cut = shortened("a very long name that goes on and on", 60)
    assert cut.endswith("..")
    assert text_width(cut) <= 60


def test_samples_have_a_row_for_each_kind_in_the_colour_of_a_page() -> None:
    split = split_of(32)
    protected = perturbation(one_pixel(32)).apply(split.images, split.labels, split.keys)
    svg = sample_sheet(split.images, protected, 0, NAMES).svg("Samples", alone=False)
    assert svg.count("<image ") == 9
    assert 'fill="currentColor"' in svg
    for words in ("clean", "protected", "difference", "cat"):
        assert f">{words}</text>" in svg


def test_pictures_of_any_sign_have_grey_for_nothing_and_a_scale_of_their_own() -> None:
    values = np.zeros((3, 8, 8, 3), dtype=np.float32)
    values[0, :, 4:], values[1, 0, :4] = -1e-3, 1e-6
    pixels = pixels_of(class_sheet(values, NAMES).png())
    shown = [
        pixels[30:50, left : left + 2 * TILE : 2 * TILE - 4, 0].tolist() for left in (30, 30 + 2 * (TILE + MARGIN))
    ]
    assert {tuple(row) for row in shown[0]} == {(128, 1)}
    assert {tuple(row) for row in shown[1]} == {(255, 128)}
