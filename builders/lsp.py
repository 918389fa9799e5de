"""Linearly separable perturbations (LSP) on CIFAR-10, CIFAR-100, SVHN and one's own images.

By cluster (SynPer) on the pets.
"""

from dataclasses import replace

from ule_datasets.definition import Recipe
from ule_datasets.methods.linearly_separable import LinearlySeparable
from ule_datasets.methods.synthetic_perturbations import SyntheticPerturbations
from ule_datasets.models.weights import WEIGHTS
from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.sources.cifar100 import CIFAR100
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.pets import PETS
from ule_datasets.sources.svhn import SVHN

LSP_CIFAR10 = Recipe(
    name="lsp-cifar10",
    title="LSP CIFAR-10",
    summary=(
        "CIFAR-10 with flat patches of 8 x 8 pixels added to every training image, drawn at random from a cloud of its "
        "class that a linear classifier tells from the others (linearly separable perturbations)."
    ),
    source=CIFAR10,
    methods=(LinearlySeparable(),),
    version="1.0.0",
)

RECIPES = (
    LSP_CIFAR10,
    *(
        replace(
            LSP_CIFAR10,
            name=f"lsp-{source.name}",
            title=f"LSP {source.title}",
            summary=LSP_CIFAR10.summary.replace("CIFAR-10", source.title),
            source=source,
        )
        for source in (CIFAR100, SVHN)
    ),
    replace(
        LSP_CIFAR10,
        name="synper-pets",
        title="SynPer Pets",
        summary=(
            "The Oxford-IIIT pets, 224 x 224 pixels, with flat patches of 32 x 32 pixels added to every training "
            "image, drawn at random from a cloud of its cluster, one of ten that were found without labels (synthetic "
            "perturbations)."
        ),
        source=PETS,
        methods=(SyntheticPerturbations(surrogate=WEIGHTS["resnet50@imagenet"]),),
    ),
)

RECIPE = Recipe(
    name="lsp",
    title="Linearly separable perturbations on my images",
    summary=(
        "Labelled images with flat patches, seven along a side, added to every training image, drawn at random from a "
        "cloud of its class that a linear classifier tells from the others (linearly separable perturbations)."
    ),
    source=OWN_IMAGES,
    methods=(LinearlySeparable(per_side=7),),
    version="1.0.0",
)
