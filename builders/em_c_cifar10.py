"""em-c-cifar10: error-minimising noise for every class of CIFAR-10."""

from ule_datasets.data.bounds import LInf
from ule_datasets.methods.error_minimizing import ClasswiseErrorMinimizing
from ule_datasets.recipe import Recipe
from ule_datasets.sources.cifar10 import CIFAR10

RECIPE = Recipe(
    name="em-c-cifar10",
    title="EM CIFAR-10, class-wise",
    summary=(
        "CIFAR-10 with error-minimising noise of at most 8/255 in every training image: one noise for each class, "
        "made against a ResNet-18."
    ),
    source=CIFAR10,
    methods=(ClasswiseErrorMinimizing(),),
    budget=(LInf(levels=8),),
    version="1.0.0",
)
