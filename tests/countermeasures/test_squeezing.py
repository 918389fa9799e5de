"""Image Shortcut Squeezing: against Pillow and value by value, and what it does to images it should hardly change."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageOps

from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.countermeasures.squeezing import BitDepth, Gray, Jpeg

BATCHES = arrays.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.just(3)))
SEED = Seed(0)


@settings(deadline=None, max_examples=60)
@given(images=BATCHES)
def test_gray_is_pillow_s(images: np.ndarray) -> None:
    expected = [np.asarray(Image.fromarray(image).convert("L").convert("RGB")) for image in images]
    assert np.array_equal(Gray().changed(images, SEED), expected)


def test_gray_is_pillow_s_for_every_primary_and_many_mixtures() -> None:
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    image = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, len(levels), 3)
    expected = np.asarray(Image.fromarray(image[0]).convert("L").convert("RGB"))
    assert np.array_equal(Gray().changed(image, SEED)[0], expected)


@settings(deadline=None, max_examples=60)
@given(images=BATCHES, bits=st.integers(1, 8))
def test_bit_depth_is_pillow_s_posterisation_and_done_twice_changes_nothing(images: np.ndarray, bits: int) -> None:
    reduced = BitDepth(bits=bits).changed(images, SEED)
    assert np.array_equal(reduced, [np.asarray(ImageOps.posterize(Image.fromarray(i), bits)) for i in images])
    assert np.array_equal(BitDepth(bits=bits).changed(reduced, SEED), reduced)
    assert len(np.unique(reduced)) <= 2**bits


@settings(deadline=None, max_examples=40)
@given(images=BATCHES, quality=st.integers(1, 95))
def test_jpeg_is_each_image_through_pillow_s_encoder_by_itself(images: np.ndarray, quality: int) -> None:
    expected = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        expected.append(np.asarray(Image.open(io.BytesIO(file.getvalue()))))
    assert np.array_equal(Jpeg(quality=quality).changed(images, SEED), expected)


@settings(deadline=None, max_examples=60)
@given(levels=arrays.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.just(1))))
def test_jpeg_of_quality_100_hardly_changes_grey_images(levels: np.ndarray) -> None:
    images = np.repeat(levels, 3, axis=-1)
    change = np.abs(Jpeg(quality=100).changed(images, SEED).astype(int) - images)
    assert change.max() <= 3


def test_lower_qualities_lose_more() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    lost = [np.abs(Jpeg(quality=q).changed(images, SEED).astype(int) - images).mean() for q in (100, 75, 50, 10)]
    assert lost == sorted(lost)
    assert lost[0] < lost[-1]


def test_settings_that_cannot_be_are_refused() -> None:
    for quality in (0, 101):
        with pytest.raises(InputError, match=f"Jpeg: quality is {quality}, must be 1 to 100"):
            Jpeg(quality=quality)
    for bits in (0, 9):
        with pytest.raises(InputError, match=f"BitDepth: bits is {bits}, must be 1 to 8"):
            BitDepth(bits=bits)


def test_names_and_their_order() -> None:
    assert parse_strategy("jpeg-q50+gray").name == "gray+jpeg-q50"
    assert parse_strategy("jpeg-q10").name == "jpeg"
    assert parse_strategy("bdr-3").parts == (BitDepth(bits=3),)
    assert BitDepth.form() == "bdr[-B] (with a number of bits B from 1 to 8)"


def test_the_oracle_is_no_strategy_and_says_of_what_it_is_the_best() -> None:
    with pytest.raises(
        InputError, match="'iss' is an oracle's choice, the best of gray and jpeg by clean test accuracy"
    ):
        parse_strategy("iss")
