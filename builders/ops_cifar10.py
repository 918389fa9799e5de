"""ops-cifar10: CIFAR-10 with One-Pixel Shortcut, as the tables of the paper use it."""

from ule_datasets.data.bounds import L0
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.recipe import Recipe
from ule_datasets.sources.cifar10 import CIFAR10

RECIPE = Recipe(
    name="ops-cifar10",
    title="OPS CIFAR-10",
    summary="CIFAR-10 with one pixel per class overwritten in every training image (One-Pixel Shortcut).",
    source=CIFAR10,
    methods=(OnePixelShortcut(),),
    budget=(L0(pixels=1),),
    version="1.0.0",
)
