"""BAIT on CIFAR-10: noise that misleads models which start from pretrained weights. The small ones are for a CPU."""

from dataclasses import replace

from ule_datasets.definition import Recipe
from ule_datasets.methods.bait import Bait
from ule_datasets.models.weights import WEIGHTS
from ule_datasets.sources.cifar10 import CIFAR10

BAIT_CIFAR10 = Recipe(
    name="bait-cifar10",
    title="BAIT CIFAR-10",
    summary=(
        "CIFAR-10 with noise of at most 8/255 in every training image, one for each class, bound to the class against "
        "what an ImageNet-pretrained ResNet-18 knows (BAIT)."
    ),
    source=CIFAR10,
    methods=(Bait(),),
    version="1.0.0",
)

RECIPES = (
    BAIT_CIFAR10,
    replace(
        BAIT_CIFAR10,
        name="bait-cifar10-small",
        title="BAIT CIFAR-10, small",
        summary=(
            "3,000 training images of CIFAR-10 with noise of at most 8/255, one for each class, bound to the class "
            "against what a ResNet-20 trained on CIFAR-10 knows (BAIT)."
        ),
        methods=(Bait(prior=WEIGHTS["resnet20@cifar10"], normalise=True, stages=(15, 15, 15), generator_width=4),),
        limit_per_class=300,
        reduced="300 training images of each class, a small prior (ResNet-20, trained on CIFAR-10 itself), a generator "
        "of a quarter of the width, half of the rounds",
    ),
    replace(
        BAIT_CIFAR10,
        name="bait-cifar10-small-imagenet",
        title="BAIT CIFAR-10, small, ImageNet prior",
        summary=(
            "3,000 training images of CIFAR-10 with noise of at most 8/255, one for each class, bound to the class "
            "against what an ImageNet-pretrained EfficientNet-Lite0 knows (BAIT)."
        ),
        methods=(Bait(prior=WEIGHTS["efficientnet-lite0@imagenet"], generator_width=4),),
        limit_per_class=300,
        reduced="300 training images of each class, a small prior (EfficientNet-Lite0), a generator of a quarter of "
        "the width",
    ),
)
