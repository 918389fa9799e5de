"""Targeted adversarial poisoning (TAP) on CIFAR-10 and -100 and SVHN. The small one is for a CPU."""

from dataclasses import replace

from ule_datasets.definition import Recipe
from ule_datasets.methods.adversarial_poisoning import CLEAN, AdversarialPoisoning
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.sources.cifar100 import CIFAR100
from ule_datasets.sources.svhn import SVHN

TAP_CIFAR10 = Recipe(
    name="tap-cifar10",
    title="TAP CIFAR-10",
    summary=(
        "CIFAR-10 with noise of at most 8/255 in every training image that makes a ResNet-18, trained on the clean "
        "images, take it for the next class; the best of eight random starts (targeted adversarial poisoning)."
    ),
    source=CIFAR10,
    methods=(AdversarialPoisoning(),),
    version="1.0.0",
)

OURS = "; by the settings for CIFAR-10, which is a choice of this project."

RECIPES = (
    TAP_CIFAR10,
    *(
        replace(
            TAP_CIFAR10,
            name=f"tap-{source.name}",
            title=f"TAP {source.title}",
            summary=TAP_CIFAR10.summary.replace("CIFAR-10", source.title).removesuffix(".") + OURS,
            source=source,
        )
        for source in (CIFAR100, SVHN)
    ),
    replace(
        TAP_CIFAR10,
        name="tap-cifar10-start1",
        title="TAP CIFAR-10, one start",
        summary=(
            "CIFAR-10 with noise of at most 8/255 in every training image that makes a ResNet-18, trained on the clean "
            "images, take it for the next class; from one random start (targeted adversarial poisoning)."
        ),
        methods=(AdversarialPoisoning(restarts=1),),
        reduced="one random start instead of the best of eight",
    ),
    replace(
        TAP_CIFAR10,
        name="tap-cifar10-small",
        title="TAP CIFAR-10, small",
        summary=(
            "3,000 training images of CIFAR-10 with noise of at most 8/255 that makes a small convolutional network, "
            "trained on the clean images, take each for the next class (targeted adversarial poisoning)."
        ),
        methods=(
            AdversarialPoisoning(
                restarts=1,
                training=replace(
                    CLEAN,
                    surrogate=SurrogateSettings(
                        model="convnet3-w32", batch_size=128, gradient_clip=None, nesterov=True
                    ),
                ),
            ),
        ),
        limit_per_class=300,
        reduced="300 training images of each class, a small surrogate (ConvNet-3 of width 32), one random start",
    ),
)
