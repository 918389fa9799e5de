"""cifar10-s: error-minimising noise, then the One-Pixel Shortcut, on CIFAR-10 (Wu et al., section 4.4)."""

from ule_datasets.data.bounds import L0, LInf
from ule_datasets.methods.error_minimizing import ErrorMinimizing
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.recipe import Recipe
from ule_datasets.sources.cifar10 import CIFAR10

RECIPE = Recipe(
    name="cifar10-s",
    title="CIFAR-10-S",
    summary=(
        "CIFAR-10 with error-minimising noise of at most 8/255 in every training image, and one pixel per class "
        "overwritten on top of it (One-Pixel Shortcut, searched on the clean images)."
    ),
    source=CIFAR10,
    methods=(ErrorMinimizing(), OnePixelShortcut()),
    budget=(LInf(levels=8), L0(pixels=1)),
    version="1.0.0",
)
