"""uc-pets: Unlearnable Clusters on the Oxford-IIIT pets, as the paper makes it."""

from ule_datasets.data.bounds import LInf
from ule_datasets.methods.unlearnable_clusters import UnlearnableClusters
from ule_datasets.models.weights import WEIGHTS
from ule_datasets.recipe import Recipe
from ule_datasets.sources.pets import PETS

RECIPE = Recipe(
    name="uc-pets",
    title="UC Pets",
    summary=(
        "The Oxford-IIIT pets, 224 x 224 pixels, with noise of at most 16/255 in every training image, one for each of "
        "ten clusters that were found without labels, made against an ImageNet-pretrained ResNet-50 (Unlearnable "
        "Clusters)."
    ),
    source=PETS,
    methods=(UnlearnableClusters(surrogate=WEIGHTS["resnet50@imagenet"]),),
    budget=(LInf(levels=16),),
    version="1.0.0",
)
