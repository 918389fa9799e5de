"""One contract for every method: what it declares of itself is true."""

from __future__ import annotations

import pytest

from builders import RECIPES
from ule_datasets.data.quantization import Apply, Quantize, largest_level
from ule_datasets.methods.method import Repeats


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_s_budget_is_the_bounds_of_its_methods(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.budget == tuple(bound for method in recipe.methods for bound in method.bounds)


@pytest.mark.parametrize("name", RECIPES)
def test_methods_that_start_from_weights_name_them_and_repeat_on_a_device_only(name: str) -> None:
    recipe = RECIPES[name]
    for method in recipe.methods:
        text = recipe.to_json()
        assert all(f'"name":"{weights.name}"' in text for weights in method.weights)
        assert ('"type":"Weights"' in text) == bool(method.weights)
        assert method.repeats is Repeats.DEVICE or not method.weights


def test_only_random_pixels_are_drawn_anew_for_every_repetition() -> None:
    assert [recipe.name for recipe in RECIPES.values() if any(m.redrawable for m in recipe.methods)] == [
        "randpix-cifar10"
    ]


@pytest.mark.parametrize(
    ("epsilon", "rule", "apply", "expected"),
    [
        (8, Quantize.TRUNC, Apply.SIGNED, 8),
        (7.5, Quantize.TRUNC, Apply.SIGNED, 8),
        (7.5, Quantize.TRUNC, Apply.POSITIVE_PART, 7),
        (7.5, Quantize.HALF_UP, Apply.POSITIVE_PART, 8),
        (7.4, Quantize.HALF_UP, Apply.SIGNED, 7),
        (255, Quantize.DELTA_INT8, Apply.SIGNED, 255),
    ],
)
def test_the_largest_level_is_that_of_either_sign(epsilon: float, rule: Quantize, apply: Apply, expected: int) -> None:
    assert largest_level(epsilon, rule, apply) == expected
