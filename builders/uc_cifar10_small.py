"""uc-cifar10-small: uc-cifar10 on 3,000 images with small generators, for a CPU."""

from dataclasses import replace

from builders.uc_cifar10 import RECIPE as UC_CIFAR10
from ule_datasets.methods.unlearnable_clusters import CropRule, UnlearnableClusters
from ule_datasets.models.weights import WEIGHTS

RECIPE = replace(
    UC_CIFAR10,
    name="uc-cifar10-small",
    title="UC CIFAR-10, small",
    summary=(
        "3,000 training images of CIFAR-10 with noise of at most 16/255, one for each of ten clusters that were found "
        "without labels, made against a ResNet-20 trained on CIFAR-10 (Unlearnable Clusters)."
    ),
    methods=(
        UnlearnableClusters(
            surrogate=WEIGHTS["resnet20@cifar10"],
            augmentation=CropRule.PAD,
            epochs=10,
            batch_size=128,
            learning_rate=1e-3,
            generator_width=16,
        ),
    ),
    limit_per_class=300,
    reduced="300 training images of each class, images of 32 x 32 pixels, a small surrogate (ResNet-20, trained on "
    "CIFAR-10 itself), generators of a quarter of the width, 10 epochs in batches of 128 at ten times the rate",
)
