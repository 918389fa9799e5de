"""What others have released, taken from their files with ``--import``: on CIFAR-10, and on any other images."""

from dataclasses import replace

from ule_datasets.definition import Recipe
from ule_datasets.methods.imported import Imported
from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.sources.own_images import OWN_IMAGES

IMPORTED_CIFAR10 = Recipe(
    name="imported-cifar10",
    title="Imported CIFAR-10",
    summary="CIFAR-10 as somebody else's released perturbation makes it.",
    source=CIFAR10,
    methods=(Imported(),),
    version="1.0.0",
)

RECIPES = (IMPORTED_CIFAR10,)

RECIPE = replace(
    IMPORTED_CIFAR10,
    name="imported",
    title="Imported perturbation of any images",
    summary="Images as somebody else's released perturbation makes them.",
    source=OWN_IMAGES,
)
