"""uc-cifar10: Unlearnable Clusters on CIFAR-10, which the paper does not have."""

from ule_datasets.data.bounds import LInf
from ule_datasets.methods.unlearnable_clusters import CropRule, UnlearnableClusters
from ule_datasets.models.weights import WEIGHTS
from ule_datasets.recipe import Recipe
from ule_datasets.sources.cifar10 import CIFAR10

RECIPE = Recipe(
    name="uc-cifar10",
    title="UC CIFAR-10",
    summary=(
        "CIFAR-10 with noise of at most 16/255 in every training image, one for each of ten clusters that were found "
        "without labels, made against a ResNet-20 trained on CIFAR-10 (Unlearnable Clusters)."
    ),
    source=CIFAR10,
    methods=(UnlearnableClusters(surrogate=WEIGHTS["resnet20@cifar10"], augmentation=CropRule.PAD),),
    budget=(LInf(levels=16),),
    version="1.0.0",
    reduced="images of 32 x 32 pixels, where the paper has 224 x 224, and a small surrogate (ResNet-20, trained on "
    "CIFAR-10 itself)",
)
