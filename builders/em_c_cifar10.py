"""em-c-cifar10: error-minimising noise for every class of CIFAR-10."""

from ule_datasets.methods.error_minimizing import ClasswiseErrorMinimizing
from ule_datasets.recipe import Claim, LInf, Recipe
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
    claims=(
        Claim(
            id="le-t1-em-c-cifar10-vanilla", table="1", model="resnet18", strategy="standard", accuracy=20.7, paper="le"
        ),
        Claim(id="le-t1-em-c-cifar10-at", table="1", model="resnet18", strategy="linf-at", accuracy=85, paper="le"),
        Claim(id="le-t1-em-c-cifar10-le", table="1", model="resnet18", strategy="le", accuracy=94, paper="le"),
    ),
)
