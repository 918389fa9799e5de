"""bait-cifar10: noise that misleads models which start from pretrained weights."""

from ule_datasets.data.bounds import LInf
from ule_datasets.methods.bait import Bait
from ule_datasets.recipe import Recipe
from ule_datasets.sources.cifar10 import CIFAR10

RECIPE = Recipe(
    name="bait-cifar10",
    title="BAIT CIFAR-10",
    summary=(
        "CIFAR-10 with noise of at most 8/255 in every training image, one for each class, bound to the class against "
        "what an ImageNet-pretrained ResNet-18 knows (BAIT)."
    ),
    source=CIFAR10,
    methods=(Bait(),),
    budget=(LInf(levels=8),),
    version="1.0.0",
)
