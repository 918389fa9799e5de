"""Autoregressive perturbations (AR) on CIFAR-10, by filters that are drawn here and not those of the paper."""

from ule_datasets.definition import Recipe
from ule_datasets.methods.autoregressive import Autoregressive
from ule_datasets.sources.cifar10 import CIFAR10

RECIPES = (
    Recipe(
        name="ar-cifar10",
        title="AR CIFAR-10",
        summary=(
            "CIFAR-10 with noise of Euclidean norm 1 in every training image, in which each value follows from its "
            "neighbours by the filter of the class; filters are drawn here by the paper's rules (autoregressive "
            "perturbations)."
        ),
        source=CIFAR10,
        methods=(Autoregressive(),),
        version="1.0.0",
    ),
)
