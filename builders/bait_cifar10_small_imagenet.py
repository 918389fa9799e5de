"""bait-cifar10-small-imagenet: bait-cifar10 on 3,000 images against EfficientNet-Lite0, for a CPU."""

from dataclasses import replace

from builders.bait_cifar10 import RECIPE as BAIT_CIFAR10
from ule_datasets.methods.bait import Bait
from ule_datasets.models.weights import WEIGHTS

RECIPE = replace(
    BAIT_CIFAR10,
    name="bait-cifar10-small-imagenet",
    title="BAIT CIFAR-10, small, ImageNet prior",
    summary=(
        "3,000 training images of CIFAR-10 with noise of at most 8/255, one for each class, bound to the class against "
        "what an ImageNet-pretrained EfficientNet-Lite0 knows (BAIT)."
    ),
    methods=(Bait(prior=WEIGHTS["efficientnet-lite0@imagenet"], generator_width=4),),
    limit_per_class=300,
    reduced="300 training images of each class, a small prior (EfficientNet-Lite0), a generator of a quarter of the "
    "width",
)
