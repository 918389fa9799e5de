"""Protected datasets made learnable again: what exploiters do to a training set beforehand, as datasets of their own.

The preparations are those of Image Shortcut Squeezing, and a median over 3 x 3 pixels for the single pixels of OPS.
"""

from dataclasses import replace

from builders.em import RECIPES as EM
from builders.lsp import LSP_CIFAR10
from builders.ops import OPS_CIFAR10
from builders.tap import RECIPES as TAP
from ule_datasets.countermeasures.filtering import Median3
from ule_datasets.countermeasures.squeezing import BitDepth, Gray, Jpeg
from ule_datasets.definition import Recipe
from ule_datasets.methods.purified import Purified
from ule_datasets.victims.strategy import Countermeasure

WORDS: dict[type[Countermeasure], str] = {
    Gray: "without colours",
    Jpeg: "compressed as JPEG of quality 10",
    BitDepth: "with two bits of every value",
    Median3: "with each value replaced by the median of 3 x 3 pixels",
}
"""What a preparation makes of images, for a summary."""


PREPARED: tuple[tuple[Recipe, tuple[Countermeasure, ...]], ...] = (
    (OPS_CIFAR10, (Gray(), Jpeg(), BitDepth(), Median3())),
    *(
        (recipe, (Gray(), Jpeg()))
        for recipe in (*EM, *TAP)
        if recipe.name in ("em-cifar10", "cifar10-s", "tap-cifar10")
    ),
    (LSP_CIFAR10, (Gray(), Jpeg())),
)
"""Protected datasets, and what is done to them."""

RECIPES = tuple(
    replace(
        protected,
        name=f"{preparation.name}-{protected.name}",
        title=f"{protected.title}, made learnable by {preparation.name}",
        summary=f"The training images of {protected.name} {WORDS[type(preparation)]}: a learnable version of it.",
        methods=(*protected.methods, Purified(countermeasure=preparation)),
        version="1.0.0",
    )
    for protected, preparations in PREPARED
    for preparation in preparations
)
