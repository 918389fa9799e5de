"""DeepConfuse (DC) on CIFAR-10. The small one is a reduced setting for a CPU."""

from dataclasses import replace

from ule_datasets.definition import Recipe
from ule_datasets.methods.deepconfuse import DeepConfuse, Normalisation
from ule_datasets.sources.cifar10 import CIFAR10

DC_CIFAR10 = Recipe(
    name="dc-cifar10",
    title="DC CIFAR-10",
    summary=(
        "CIFAR-10 with noise of at most 8/255 in every training image, from an auto-encoder that has learned from a "
        "thousand trainings of a VGG-11 what makes it wrong about clean images (DeepConfuse)."
    ),
    source=CIFAR10,
    methods=(DeepConfuse(),),
    version="1.0.0",
)

RECIPES = (
    DC_CIFAR10,
    replace(
        DC_CIFAR10,
        name="dc-cifar10-small",
        title="DC CIFAR-10, small",
        summary=(
            "3,000 training images of CIFAR-10 with noise of at most 8/255, from a small auto-encoder that has learned "
            "from a few trainings of a small convolutional network what makes it wrong about clean ones (DeepConfuse)."
        ),
        methods=(
            DeepConfuse(
                trials=5,
                epochs=6,
                batch_size=64,
                classifier="convnet3-w16",
                learning_rate=0.02,
                generator_rate=1e-3,
                generator_width=8,
                normalisation=Normalisation.BATCHES,
            ),
        ),
        limit_per_class=300,
        reduced="300 training images of each class, a small classifier (ConvNet-3 of width 16, batches of 64), a "
        "generator of an eighth of the width, 5 trials of 6 epochs instead of 1,000 of 20, higher learning rates",
    ),
)
