"""bait-cifar10-small: bait-cifar10 on 3,000 images with a small prior and generator, a reduced setting for a CPU."""

from dataclasses import replace

from builders.bait_cifar10 import RECIPE as BAIT_CIFAR10
from ule_datasets.methods.bait import Bait
from ule_datasets.models.weights import WEIGHTS

RECIPE = replace(
    BAIT_CIFAR10,
    name="bait-cifar10-small",
    title="BAIT CIFAR-10, small",
    summary=(
        "3,000 training images of CIFAR-10 with noise of at most 8/255, one for each class, bound to the class against "
        "what a ResNet-20 trained on CIFAR-10 knows (BAIT)."
    ),
    methods=(Bait(prior=WEIGHTS["resnet20@cifar10"], normalise=True, stages=(15, 15, 15), generator_width=4),),
    limit_per_class=300,
    reduced="300 training images of each class, a small prior (ResNet-20, trained on CIFAR-10 itself), a generator of "
    "a quarter of the width, half of the rounds",
)
