"""One module per published dataset: a typed ``RECIPE``, no logic."""

from builders import (
    cifar10_s,
    cifar10_s_small,
    digits_s,
    em_c_cifar10,
    em_c_cifar10_small,
    em_cifar10,
    em_cifar10_small,
    ops,
    ops_cifar10,
    ops_cifar10_k2,
    ops_cifar10_k3,
    ops_cifar10_k4,
    ops_color_cifar10,
    ops_digits,
    ops_position_cifar10,
    ops_search1pct_cifar10,
    ops_search1pct_noisy_cifar10,
    ops_search10pct_cifar10,
    ops_search10pct_noisy_cifar10,
    ops_var_cifar10,
    randpix_cifar10,
)
from ule_datasets.recipe import Recipe

RECIPES: dict[str, Recipe] = {
    module.RECIPE.name: module.RECIPE
    for module in (
        digits_s,
        ops_digits,
        cifar10_s,
        em_cifar10,
        em_c_cifar10,
        cifar10_s_small,
        em_cifar10_small,
        em_c_cifar10_small,
        ops_cifar10,
        ops_cifar10_k2,
        ops_cifar10_k3,
        ops_cifar10_k4,
        ops_var_cifar10,
        ops_position_cifar10,
        ops_color_cifar10,
        randpix_cifar10,
        ops_search1pct_cifar10,
        ops_search10pct_cifar10,
        ops_search1pct_noisy_cifar10,
        ops_search10pct_noisy_cifar10,
        ops,
    )
}
"""The catalogue, in the order in which it is listed."""
