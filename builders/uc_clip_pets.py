"""uc-clip-pets: Unlearnable Clusters on the Oxford-IIIT pets, against CLIP."""

from dataclasses import replace

from builders.uc_pets import RECIPE as UC_PETS
from ule_datasets.methods.unlearnable_clusters import UnlearnableClusters
from ule_datasets.models.weights import WEIGHTS

RECIPE = replace(
    UC_PETS,
    name="uc-clip-pets",
    title="UC-CLIP Pets",
    summary=(
        "The Oxford-IIIT pets, 224 x 224 pixels, with noise of at most 16/255 in every training image, one for each of "
        "ten clusters that were found without labels, made against the image tower of CLIP ResNet-50 (UC-CLIP)."
    ),
    methods=(UnlearnableClusters(surrogate=WEIGHTS["clip-rn50@openai"]),),
)
