"""uc: Unlearnable Clusters on one's own images, with or without labels."""

from dataclasses import replace

from ule_datasets.data.bounds import LInf
from ule_datasets.methods.unlearnable_clusters import UnlearnableClusters
from ule_datasets.models.weights import WEIGHTS
from ule_datasets.recipe import Recipe
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.spec import Preprocess

RECIPE = Recipe(
    name="uc",
    title="Unlearnable Clusters on my images",
    summary=(
        "Images of 224 x 224 pixels with noise of at most 16/255 in every training image, one for each of ten clusters "
        "that were found without labels, made against an ImageNet-pretrained ResNet-50 (Unlearnable Clusters)."
    ),
    source=replace(OWN_IMAGES, preprocess=Preprocess(resize=256, crop=224)),
    methods=(UnlearnableClusters(surrogate=WEIGHTS["resnet50@imagenet"]),),
    budget=(LInf(levels=16),),
    version="1.0.0",
)
