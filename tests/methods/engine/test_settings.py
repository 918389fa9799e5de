"""Bounds and steps become whole numbers exactly, or are refused; stop rules differ at equality only."""

from fractions import Fraction
from math import gcd

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ule_datasets.base.errors import InputError
from ule_datasets.methods.engine.settings import FINEST, Grid, StopRule, SurrogateSettings, common_grids

HUNDREDTHS = st.integers(1, 25_500).map(lambda number: number / 100)


@pytest.mark.parametrize(
    ("epsilon", "step_size", "expected"),
    [
        (8, 0.8, Grid(per_level=5, bound=40, step=4)),
        (16, 1.6, Grid(per_level=5, bound=80, step=8)),
        (8, 2, Grid(per_level=1, bound=8, step=2)),
        (8.0, 2.0, Grid(per_level=1, bound=8, step=2)),
        (0.5, 0.125, Grid(per_level=8, bound=4, step=1)),
        (0.5, 0.2, Grid(per_level=10, bound=5, step=2)),
        (255, 0.0078125, Grid(per_level=128, bound=32_640, step=1)),
        (np.float64(8), np.float64(0.8), Grid(per_level=5, bound=40, step=4)),
    ],
)
def test_the_grid_is_the_coarsest_that_holds_bound_and_step(epsilon: float, step_size: float, expected: Grid) -> None:
    assert Grid.of(epsilon, step_size) == expected


def test_white_is_255_grey_levels() -> None:
    assert Grid.of(8, 0.8).white == 1275
    assert Grid.of(8, 2).white == 255


@given(HUNDREDTHS, HUNDREDTHS)
def test_bound_and_step_are_exact_in_units_and_no_coarser_grid_would_do(epsilon: float, step_size: float) -> None:
    grid = Grid.of(epsilon, step_size)
    assert Fraction(grid.bound, grid.per_level) == Fraction(str(epsilon))
    assert Fraction(grid.step, grid.per_level) == Fraction(str(step_size))
    assert gcd(grid.per_level, grid.bound, grid.step) == 1


def test_on_the_finest_grid_everything_that_is_added_is_exact_in_float32() -> None:
    grid = Grid.of(255, 255 + 1 / FINEST)
    assert grid.per_level == FINEST
    largest = grid.white + grid.bound + grid.step
    assert int(np.float32(largest)) == largest
    assert np.float32(largest) + np.float32(1) == largest + 1


@pytest.mark.parametrize(
    ("epsilon", "step_size"),
    [(0, 0.8), (-8, 0.8), (8, 0), (8, -0.8), (255.5, 0.8), (256, 1), (float("nan"), 0.8), (8, float("inf"))],
)
def test_a_bound_or_step_that_is_not_in_range_is_refused(epsilon: float, step_size: float) -> None:
    with pytest.raises(InputError, match=f"epsilon {epsilon} and step_size {step_size} are in units of 1/255"):
        Grid.of(epsilon, step_size)


@pytest.mark.parametrize(
    ("epsilon", "step_size", "needed"), [(8, 0.001, 1000), (0.3, 0.03125, 160), (1 / 3, 1, r"\d+")]
)
def test_a_bound_or_step_with_too_many_decimals_is_refused(epsilon: float, step_size: float, needed: int | str) -> None:
    with pytest.raises(InputError, match=rf"need {needed} steps to a grey level, at most {FINEST}"):
        Grid.of(epsilon, step_size)


def test_the_papers_bound_given_as_a_share_of_1_is_refused() -> None:
    with pytest.raises(InputError, match=r"give them with fewer decimals \(in units of 1/255\)"):
        Grid.of(8 / 255, 0.8 / 255)


@pytest.mark.parametrize(
    ("accuracy", "at_least", "above"), [(0.98, False, False), (0.99, True, False), (0.991, True, True)]
)
def test_stop_rules_differ_at_equality_only(accuracy: float, at_least: bool, above: bool) -> None:
    assert StopRule.AT_LEAST.reached(accuracy, 0.99) is at_least
    assert StopRule.ABOVE.reached(accuracy, 0.99) is above


def test_the_surrogate_is_trained_as_in_the_official_cifar10_settings_unless_told_otherwise() -> None:
    defaults = SurrogateSettings()
    assert (defaults.model, defaults.batch_size, defaults.gradient_clip) == ("resnet18", 512, 5.0)
    assert (defaults.learning_rate, defaults.momentum, defaults.weight_decay) == (0.1, 0.9, 5e-4)


@pytest.mark.parametrize("batch_size", [1, 0, -3])
def test_a_batch_of_fewer_than_two_images_is_refused(batch_size: int) -> None:
    with pytest.raises(InputError, match=f"SurrogateSettings: batch_size is {batch_size}, must be at least 2"):
        SurrogateSettings(batch_size=batch_size)
    assert SurrogateSettings(batch_size=2).batch_size == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", -0.1),
        ("learning_rate", float("nan")),
        ("gradient_clip", 0.0),
        ("gradient_clip", -5.0),
        ("momentum", -0.1),
        ("weight_decay", -1e-4),
    ],
)
def test_a_surrogate_that_cannot_be_trained_is_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"SurrogateSettings: {field} is {value}, must be"):
        SurrogateSettings(**{field: value})


def test_bounds_and_steps_of_two_loops_get_the_same_unit() -> None:
    assert common_grids((8, 1.6), (4, 0.5)) == (
        Grid(per_level=10, bound=80, step=16),
        Grid(per_level=10, bound=40, step=5),
    )
    finest = common_grids((8, 1.6), (4, 0.8), finest=True)
    assert finest == (Grid(per_level=125, bound=1000, step=200), Grid(per_level=125, bound=500, step=100))
    assert common_grids((8, 2), finest=True) == (Grid(per_level=128, bound=1024, step=256),)


def test_bounds_and_steps_without_a_common_unit_are_refused() -> None:
    with pytest.raises(InputError, match=r"bounds and steps 8 and 0\.04; 4 and 0\.0625 need 400 steps to a grey level"):
        common_grids((8, 0.04), (4, 0.0625))
