"""Adding the grey levels to the bytes gives exactly what the published rules make of image and real perturbation."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ule_datasets.data.quantization import Apply, Quantize, quantize

FIFTHS = st.integers(-1300, 1300).map(lambda units: Fraction(units, 5))
EIGHTHS = st.integers(-2100, 2100).map(lambda units: Fraction(units, 8))
FLOATS = st.floats(-260, 260).map(Fraction)
PERTURBATIONS = st.one_of(FIFTHS, EIGHTHS, FLOATS)
BYTES = st.integers(0, 255)


def clip(value: Fraction) -> Fraction:
    return min(max(value, Fraction(0)), Fraction(255))


def byte_by_definition(clean: int, perturbation: Fraction, rule: Quantize) -> int:
    """The poisoned byte as the papers' code defines it, in rational numbers."""
    if rule is Quantize.DELTA_INT8:
        return int(clip(Fraction(clean + round(perturbation))))  # Python rounds halves of fractions to even
    image = clip(clean + perturbation)
    if rule is Quantize.TRUNC:
        return math.floor(image)
    return int(clip(Fraction(math.floor(image + Fraction(1, 2)))))


def level(perturbation: float, rule: Quantize, apply: Apply = Apply.SIGNED) -> int:
    return int(quantize(np.array([perturbation]), rule, apply)[0])


@settings(max_examples=400, deadline=None)
@given(clean=BYTES, perturbation=PERTURBATIONS, rule=st.sampled_from(Quantize))
def test_every_rule_equals_its_definition_on_the_image(clean: int, perturbation: Fraction, rule: Quantize) -> None:
    changed = clean + level(float(perturbation), rule)
    assert min(max(changed, 0), 255) == byte_by_definition(clean, perturbation, rule)


@settings(max_examples=200, deadline=None)
@given(clean=BYTES, perturbation=PERTURBATIONS, rule=st.sampled_from(Quantize))
def test_the_positive_part_is_what_brightens_and_nothing_else(
    clean: int, perturbation: Fraction, rule: Quantize
) -> None:
    changed = clean + level(float(perturbation), rule, Apply.POSITIVE_PART)
    expected = byte_by_definition(clean, max(perturbation, Fraction(0)), rule)
    assert min(changed, 255) == expected
    assert changed >= clean


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Quantize.TRUNC, [-3, -3, -2, -1, 0, 0, 1, 2, 2]),
        (Quantize.HALF_UP, [-3, -2, -1, 0, 0, 1, 2, 3, 3]),
        (Quantize.DELTA_INT8, [-3, -2, -2, 0, 0, 0, 2, 2, 3]),
    ],
)
def test_halves_go_where_the_rule_says(rule: Quantize, expected: list[int]) -> None:
    values = np.array([-3, -2.5, -1.5, -0.5, 0, 0.5, 1.5, 2.5, 2.6])
    assert quantize(values, rule).tolist() == expected


def test_the_largest_number_below_a_half_is_not_rounded_up() -> None:
    below = np.nextafter(0.5, 0)
    assert level(below, Quantize.HALF_UP) == byte_by_definition(0, Fraction(below), Quantize.HALF_UP) == 0
    assert level(below, Quantize.DELTA_INT8) == 0


def test_five_steps_of_four_fifths_are_four_grey_levels_and_not_three() -> None:
    on_the_grid = np.arange(-5, 6) * 4 / 5
    assert quantize(on_the_grid, Quantize.TRUNC).tolist() == [-4, -4, -3, -2, -1, 0, 0, 1, 2, 3, 4]
    summed = np.float32(0)
    for _ in range(5):
        summed += np.float32(0.8 / 255)
    assert math.floor(summed * np.float32(255)) == 3, "what float32 sums, as the published code has them, come to"


@pytest.mark.parametrize("rule", Quantize)
@pytest.mark.parametrize(
    ("extremes", "dtype"),
    [((-128, 127), np.int8), ((-129, 0), np.int16), ((0, 128), np.int16), ((-255, 255), np.int16)],
)
def test_levels_are_int8_where_they_fit_and_int16_elsewhere(
    rule: Quantize, extremes: tuple[int, int], dtype: type
) -> None:
    levels = quantize(np.array(extremes, dtype=np.float32), rule)
    assert levels.dtype == dtype
    assert levels.tolist() == list(extremes)


def test_dropping_what_darkens_may_make_int8_enough() -> None:
    values = np.array([-200.0, 5.5])
    assert quantize(values, Quantize.TRUNC).dtype == np.int16
    positive = quantize(values, Quantize.TRUNC, Apply.POSITIVE_PART)
    assert positive.dtype == np.int8
    assert positive.tolist() == [0, 5]


@pytest.mark.parametrize("shape", [(0,), (0, 4, 4, 3), (2, 3, 4, 3)])
def test_the_shape_is_kept_and_the_perturbation_left_alone(shape: tuple[int, ...]) -> None:
    values = np.full(shape, -1.5)
    before = values.copy()
    levels = quantize(values, Quantize.TRUNC, Apply.POSITIVE_PART)
    assert levels.shape == shape
    assert levels.dtype == np.int8
    assert np.array_equal(values, before)
