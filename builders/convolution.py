"""Class-wise convolution (CUDA) on CIFAR-10, at the paper's settings."""

from ule_datasets.definition import Recipe
from ule_datasets.methods.class_convolution import ClassConvolution
from ule_datasets.sources.cifar10 import CIFAR10

RECIPES = (
    Recipe(
        name="convolution-cifar10",
        title="Class-wise convolution (CUDA) CIFAR-10",
        summary=(
            "CIFAR-10 with every training image convolved with a random 3 x 3 filter of its class and divided by its "
            "largest value (CUDA, a convolution-based unlearnable dataset). How values become bytes is ours: rounded."
        ),
        source=CIFAR10,
        methods=(ClassConvolution(),),
        version="1.0.0",
    ),
)
