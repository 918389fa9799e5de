"""What others have released, taken from their files with ``--import``: on CIFAR-10, CIFAR-100, SVHN, and any others."""

from dataclasses import replace

from ule_datasets.definition import Recipe
from ule_datasets.methods.imported import Imported
from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.sources.cifar100 import CIFAR100
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.svhn import SVHN

IMPORTED_CIFAR10 = Recipe(
    name="imported-cifar10",
    title="Imported CIFAR-10",
    summary="CIFAR-10 as somebody else's released perturbation makes it.",
    source=CIFAR10,
    methods=(Imported(),),
    version="1.0.0",
)

RECIPES = (
    IMPORTED_CIFAR10,
    *(
        replace(
            IMPORTED_CIFAR10,
            name=f"imported-{source.name}",
            title=f"Imported {source.title}",
            summary=IMPORTED_CIFAR10.summary.replace("CIFAR-10", source.title),
            source=source,
        )
        for source in (CIFAR100, SVHN)
    ),
)

RECIPE = replace(
    IMPORTED_CIFAR10,
    name="imported",
    title="Imported perturbation of any images",
    summary="Images as somebody else's released perturbation makes them.",
    source=OWN_IMAGES,
)
