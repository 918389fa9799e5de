"""em-c-cifar10-small: em-c-cifar10 on 3,000 images with a small surrogate, a reduced setting for a CPU."""

from dataclasses import replace

from builders.em_c_cifar10 import RECIPE as EM_C_CIFAR10
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.methods.error_minimizing import ClasswiseErrorMinimizing

RECIPE = replace(
    EM_C_CIFAR10,
    name="em-c-cifar10-small",
    title="EM CIFAR-10, class-wise, small",
    summary=(
        "3,000 training images of CIFAR-10 with error-minimising noise of at most 8/255: one noise for each class, "
        "made against a small convolutional network."
    ),
    methods=(ClasswiseErrorMinimizing(subset=1.0, surrogate=SurrogateSettings(model="convnet3-w32", batch_size=128)),),
    limit_per_class=300,
    reduced="300 training images of each class, a small surrogate (ConvNet-3 of width 32, batches of 128)",
)
