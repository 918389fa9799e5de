"""Error-maximising noise (EMaxN) on CIFAR-10, for every image or every class. The small ones are for a CPU."""

from dataclasses import replace

from ule_datasets.definition import Recipe
from ule_datasets.methods.engine.clean_training import CleanTraining
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.methods.error_maximizing import ClasswiseErrorMaximizing, ErrorMaximizing
from ule_datasets.sources.cifar10 import CIFAR10

EMAXN_CIFAR10 = Recipe(
    name="emaxn-cifar10",
    title="EMaxN CIFAR-10",
    summary=(
        "CIFAR-10 with error-maximising noise of at most 8/255 in every training image: a noise of its own for each, "
        "that misleads a ResNet-18 trained on the clean images."
    ),
    source=CIFAR10,
    methods=(ErrorMaximizing(),),
    version="1.0.0",
)
SMALL = CleanTraining(surrogate=SurrogateSettings(model="convnet3-w32", batch_size=128))
REDUCED = "300 training images of each class, a small surrogate (ConvNet-3 of width 32, batches of 128)"

RECIPES = (
    EMAXN_CIFAR10,
    replace(
        EMAXN_CIFAR10,
        name="emaxn-c-cifar10",
        title="EMaxN CIFAR-10, class-wise",
        summary=(
            "CIFAR-10 with error-maximising noise of at most 8/255 in every training image: one noise for each class, "
            "that misleads a ResNet-18 trained on the clean images."
        ),
        methods=(ClasswiseErrorMaximizing(),),
    ),
    replace(
        EMAXN_CIFAR10,
        name="emaxn-cifar10-small",
        title="EMaxN CIFAR-10, small",
        summary=(
            "3,000 training images of CIFAR-10 with error-maximising noise of at most 8/255: a noise of its own for "
            "each, that misleads a small convolutional network trained on the clean images."
        ),
        methods=(ErrorMaximizing(training=SMALL),),
        limit_per_class=300,
        reduced=REDUCED,
    ),
    replace(
        EMAXN_CIFAR10,
        name="emaxn-c-cifar10-small",
        title="EMaxN CIFAR-10, class-wise, small",
        summary=(
            "3,000 training images of CIFAR-10 with error-maximising noise of at most 8/255: one noise for each class, "
            "that misleads a small convolutional network trained on the clean images."
        ),
        methods=(ClasswiseErrorMaximizing(subset=1.0, training=SMALL),),
        limit_per_class=300,
        reduced=REDUCED,
    ),
)
