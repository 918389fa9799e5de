"""Robust error-minimising noise (REM) on CIFAR-10, CIFAR-100 and SVHN. The small one is a reduced setting for a CPU."""

from dataclasses import replace

from ule_datasets.definition import Recipe
from ule_datasets.methods.robust_error_minimizing import ADVERSARIAL, RobustErrorMinimizing
from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.sources.cifar100 import CIFAR100
from ule_datasets.sources.svhn import SVHN

REM_CIFAR10 = Recipe(
    name="rem-cifar10",
    title="REM CIFAR-10",
    summary=(
        "CIFAR-10 with robust error-minimising noise of at most 8/255 in every training image: a noise of its own for "
        "each, made against a ResNet-18 that was trained adversarially (l_inf 4/255)."
    ),
    source=CIFAR10,
    methods=(RobustErrorMinimizing(),),
    version="1.0.0",
)

OURS = "; by the settings for CIFAR-10, which is a choice of this project."

RECIPES = (
    REM_CIFAR10,
    *(
        replace(
            REM_CIFAR10,
            name=f"rem-{source.name}",
            title=f"REM {source.title}",
            summary=REM_CIFAR10.summary.replace("CIFAR-10", source.title).removesuffix(".") + OURS,
            source=source,
        )
        for source in (CIFAR100, SVHN)
    ),
    replace(
        REM_CIFAR10,
        name="rem-cifar10-small",
        title="REM CIFAR-10, small",
        summary=(
            "3,000 training images of CIFAR-10 with robust error-minimising noise of at most 8/255: a noise of its own "
            "for each, made against a small convolutional network that was trained adversarially (l_inf 4/255)."
        ),
        methods=(
            RobustErrorMinimizing(
                num_steps=5,
                step_size=3.2,
                num_samples=1,
                attack_steps=2,
                attack_step_size=4,
                surrogate=replace(ADVERSARIAL, model="convnet3-w32", batch_size=64),
                train_steps=460,
                decay_every=184,
            ),
        ),
        limit_per_class=300,
        reduced=(
            "300 training images of each class, a small surrogate (ConvNet-3 of width 32), 460 batches of 64 instead "
            "of 5,000 of 128, five steps of the noise instead of ten, one random shift in each instead of five, "
            "attacks of two steps instead of ten"
        ),
    ),
)
