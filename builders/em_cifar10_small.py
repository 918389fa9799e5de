"""em-cifar10-small: em-cifar10 on 3,000 images with a small surrogate, a reduced setting for a CPU."""

from dataclasses import replace

from builders.em_cifar10 import RECIPE as EM_CIFAR10
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.methods.error_minimizing import ErrorMinimizing

RECIPE = replace(
    EM_CIFAR10,
    name="em-cifar10-small",
    title="EM CIFAR-10, small",
    summary=(
        "3,000 training images of CIFAR-10 with error-minimising noise of at most 8/255: a noise of its own for each, "
        "made against a small convolutional network."
    ),
    methods=(ErrorMinimizing(surrogate=SurrogateSettings(model="convnet3-w32")),),
    limit_per_class=300,
    reduced="300 training images of each class, a small surrogate (ConvNet-3 of width 32)",
)
