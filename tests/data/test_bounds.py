"""A bound says of final bytes whether they moved too far: exactly at its limit, in any norm, whatever the shape."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ule_datasets.base.errors import InputError
from ule_datasets.data.bounds import BOUNDS, L0, L2, Bound, LInf, Unbounded, parse_bound

DIFFERENCES = arrays.arrays(
    np.uint8, arrays.array_shapes(min_dims=4, max_dims=4, max_side=5), elements=st.integers(0, 9)
)


def largest(difference: np.ndarray) -> np.ndarray:
    return difference.reshape(len(difference), -1).max(axis=1)


def changed_pixels(difference: np.ndarray) -> np.ndarray:
    return difference.any(axis=-1).reshape(len(difference), -1).sum(axis=1)


def norm(difference: np.ndarray) -> np.ndarray:
    return np.sqrt((difference.reshape(len(difference), -1).astype(np.int64) ** 2).sum(axis=1))


@settings(max_examples=60, deadline=None)
@given(DIFFERENCES)
def test_what_reaches_a_bound_exactly_keeps_it_and_the_least_more_does_not(difference: np.ndarray) -> None:
    for index, (level, pixels, length) in enumerate(
        zip(largest(difference).tolist(), changed_pixels(difference).tolist(), norm(difference).tolist(), strict=True)
    ):
        kept = (LInf(levels=level), L0(pixels=pixels), L2(levels=length), Unbounded())
        assert not any(bound.exceeded(difference)[index] for bound in kept)
        if level:
            over = (LInf(levels=level - 1), L0(pixels=pixels - 1), L2(levels=math.nextafter(length, 0)))
            assert all(bound.exceeded(difference)[index] for bound in over)


@settings(max_examples=60, deadline=None)
@given(DIFFERENCES, st.integers(0, 9), st.integers(0, 5), st.floats(0, 40), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_change_that_is_smaller_everywhere_keeps_every_bound_that_the_larger_keeps(
    difference: np.ndarray, levels: int, pixels: int, length: float, rounding: float
) -> None:
    smaller = difference // 2
    for bound in (LInf(levels=levels), L0(pixels=pixels), L2(levels=length, rounding=rounding), Unbounded()):
        assert not (bound.exceeded(smaller) & ~bound.exceeded(difference)).any()


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float64, (3, 4, 4, 3), elements=st.floats(-20, 20)), st.integers(0, 2**32 - 1))
def test_noise_within_its_norm_keeps_the_bound_however_it_is_rounded_to_bytes(noise: np.ndarray, seed: int) -> None:
    clean = np.random.default_rng(seed).integers(0, 256, noise.shape).astype(np.float64)
    longest = max(float(np.sqrt((noise[i] ** 2).sum())) for i in range(len(noise)))
    for rule, rounding in ((np.floor, 1.0), (np.ceil, 1.0), (np.trunc, 1.0), (np.rint, 0.5)):
        final = np.clip(clean + rule(noise), 0, 255)
        difference = np.abs(final - clean).astype(np.uint8)
        assert not L2(levels=longest * (1 + 1e-12), rounding=rounding).exceeded(difference).any()


def test_rounding_may_lengthen_noise_so_the_plain_norm_of_the_bytes_is_a_bound_of_its_own() -> None:
    noise = np.full((1, 2, 2, 1), 2.5)
    difference = np.ceil(noise).astype(np.uint8)
    assert L2(levels=5).exceeded(difference).all(), "four times 3 have norm 6"
    assert not L2(levels=6).exceeded(difference).any()
    assert not L2(levels=5, rounding=0.5).exceeded(difference).any()
    assert L2(levels=4.9, rounding=0.5).exceeded(difference).all(), "noise of norm 4.9 never becomes four times 3"


def test_a_root_mean_square_is_the_norm_for_images_of_any_size() -> None:
    for size in (2, 7):
        difference = np.full((1, size, size + 1, 3), 6, dtype=np.uint8)
        assert not L2(levels=6, per_value=True).exceeded(difference).any()
        assert L2(levels=5.999, per_value=True).exceeded(difference).all()
        assert not L2(levels=5, rounding=1, per_value=True).exceeded(difference).any()
        assert L2(levels=4.999, rounding=1, per_value=True).exceeded(difference).all()


def test_a_large_image_is_measured_without_overflow() -> None:
    difference = np.full((1, 300, 300, 3), 255, dtype=np.uint8)
    length = 255 * math.sqrt(300 * 300 * 3)
    assert not L2(levels=length + 1e-6).exceeded(difference).any()
    assert L2(levels=length - 1e-6).exceeded(difference).all()
    assert not L0(pixels=300 * 300).exceeded(difference).any()


@pytest.mark.parametrize("bound", [LInf(levels=0), L0(pixels=0), L2(levels=0), Unbounded()], ids=str)
def test_no_image_exceeds_a_bound_where_there_are_no_images_and_none_that_did_not_change(bound: Bound) -> None:
    assert bound.exceeded(np.zeros((0, 2, 2, 3), dtype=np.uint8)).shape == (0,)
    assert bound.exceeded(np.zeros((4, 2, 2, 3), dtype=np.uint8)).tolist() == [False] * 4


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        (LInf(levels=8), "l_inf 8/255"),
        (L0(pixels=1), "l_0 1 pixel"),
        (L0(pixels=3), "l_0 3 pixels"),
        (L2(levels=255), "l_2 255/255"),
        (L2(levels=332.553, rounding=1), "l_2 332.553/255 before rounding"),
        (L2(levels=6, rounding=1, per_value=True), "root mean square 6/255 before rounding"),
        (Unbounded(), "unbounded"),
    ],
    ids=str,
)
def test_a_bound_says_what_it_is_and_comes_back_from_its_json(bound: Bound, text: str) -> None:
    assert str(bound) == text
    assert dataclasses.is_dataclass(bound)
    content = {"type": type(bound).__name__, **dataclasses.asdict(bound)}
    assert parse_bound(json.loads(json.dumps(content)), "recipe") == bound


def test_equal_norms_have_the_same_json() -> None:
    assert json.dumps(dataclasses.asdict(L2(levels=8, rounding=1))) == json.dumps(
        dataclasses.asdict(L2(levels=8.0, rounding=1.0))
    )


def test_every_bound_is_in_the_table_under_its_name() -> None:
    assert [BOUNDS[name].__name__ for name in BOUNDS] == ["LInf", "L0", "L2", "Unbounded"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"type": "LInf", "levels": -1}, "recipe: LInf: levels is -1, must be at least 0"),
        ({"type": "L0", "pixels": -1}, "recipe: L0: pixels is -1, must be at least 0"),
        ({"type": "L2", "levels": math.nan}, "recipe: L2: levels is nan, must be at least 0"),
        ({"type": "L2", "levels": 1, "rounding": 2}, "recipe: L2: rounding is 2.0, not in 0 .. 1"),
    ],
)
def test_an_impossible_bound_is_refused(content: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_bound(content, "recipe")
