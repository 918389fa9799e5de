"""Unlearnable Clusters (UC): on the Oxford-IIIT pets as in the paper, on CIFAR-10, and on one's own images."""

from dataclasses import replace

from ule_datasets.definition import Recipe
from ule_datasets.methods.unlearnable_clusters import CropRule, UnlearnableClusters
from ule_datasets.models.weights import WEIGHTS
from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.pets import PETS
from ule_datasets.sources.spec import Preprocess

UC_CIFAR10 = Recipe(
    name="uc-cifar10",
    title="UC CIFAR-10",
    summary=(
        "CIFAR-10 with noise of at most 16/255 in every training image, one for each of ten clusters that were found "
        "without labels, made against a ResNet-20 trained on CIFAR-10 (Unlearnable Clusters)."
    ),
    source=CIFAR10,
    methods=(UnlearnableClusters(surrogate=WEIGHTS["resnet20@cifar10"], augmentation=CropRule.PAD),),
    version="1.0.0",
    reduced="images of 32 x 32 pixels, where the paper has 224 x 224, and a small surrogate (ResNet-20, trained on "
    "CIFAR-10 itself)",
)
UC_PETS = Recipe(
    name="uc-pets",
    title="UC Pets",
    summary=(
        "The Oxford-IIIT pets, 224 x 224 pixels, with noise of at most 16/255 in every training image, one for each of "
        "ten clusters that were found without labels, made against an ImageNet-pretrained ResNet-50 (Unlearnable "
        "Clusters)."
    ),
    source=PETS,
    methods=(UnlearnableClusters(surrogate=WEIGHTS["resnet50@imagenet"]),),
    version="1.0.0",
)

RECIPES = (
    UC_CIFAR10,
    replace(
        UC_CIFAR10,
        name="uc-cifar10-small",
        title="UC CIFAR-10, small",
        summary=(
            "3,000 training images of CIFAR-10 with noise of at most 16/255, one for each of ten clusters that were "
            "found without labels, made against a ResNet-20 trained on CIFAR-10 (Unlearnable Clusters)."
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
    ),
    UC_PETS,
    replace(
        UC_PETS,
        name="uc-clip-pets",
        title="UC-CLIP Pets",
        summary=(
            "The Oxford-IIIT pets, 224 x 224 pixels, with noise of at most 16/255 in every training image, one for "
            "each of ten clusters that were found without labels, made against the image tower of CLIP ResNet-50 "
            "(UC-CLIP)."
        ),
        methods=(UnlearnableClusters(surrogate=WEIGHTS["clip-rn50@openai"]),),
    ),
)

RECIPE = Recipe(
    name="uc",
    title="Unlearnable Clusters on my images",
    summary=(
        "Images of 224 x 224 pixels with noise of at most 16/255 in every training image, one for each of ten clusters "
        "that were found without labels, made against an ImageNet-pretrained ResNet-50 (Unlearnable Clusters)."
    ),
    source=replace(OWN_IMAGES, preprocess=Preprocess(resize=256, crop=224)),
    methods=(UnlearnableClusters(surrogate=WEIGHTS["resnet50@imagenet"]),),
    version="1.0.0",
)
