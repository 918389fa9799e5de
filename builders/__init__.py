"""The catalogue: a module per family of datasets, each a literal table of recipes without logic.

``RECIPE`` of a module is the one for one's own images.
"""

from builders import bait, digits, em, ops, uc
from ule_datasets.recipe import Recipe

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (*digits.RECIPES, *em.RECIPES, *bait.RECIPES, *uc.RECIPES, *ops.RECIPES, ops.RECIPE, uc.RECIPE)
}
"""In the order in which they are listed."""
