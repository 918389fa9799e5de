"""Error-minimising noise (EM) on CIFAR-10, CIFAR-100 and SVHN, for every image or every class.

With one pixel on top it is CIFAR-10-S: Wu et al., section 4.4. Those for a CPU and the small ones are reduced
settings: of all images, and of a few.
"""

from dataclasses import replace

from ule_datasets.definition import Recipe
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.methods.error_minimizing import ClasswiseErrorMinimizing, ErrorMinimizing
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.sources.cifar100 import CIFAR100
from ule_datasets.sources.svhn import SVHN

CIFAR10_S = Recipe(
    name="cifar10-s",
    title="CIFAR-10-S",
    summary=(
        "CIFAR-10 with error-minimising noise of at most 8/255 in every training image, and one pixel per class "
        "overwritten on top of it (One-Pixel Shortcut, searched on the clean images)."
    ),
    source=CIFAR10,
    methods=(ErrorMinimizing(), OnePixelShortcut()),
    version="1.0.0",
)
EM_CIFAR10 = replace(
    CIFAR10_S,
    name="em-cifar10",
    title="EM CIFAR-10",
    summary=(
        "CIFAR-10 with error-minimising noise of at most 8/255 in every training image: a noise of its own for each, "
        "made against a ResNet-18."
    ),
    methods=(ErrorMinimizing(),),
)
SMALL = ErrorMinimizing(surrogate=SurrogateSettings(model="convnet3-w32"))
CPU = ErrorMinimizing(steps_per_round=100, surrogate=SurrogateSettings(model="convnet3-w16"))
REDUCED_CPU = "a small surrogate (ConvNet-3 of width 16), trained for 100 batches a round instead of 10"
REDUCED = "300 training images of each class, a small surrogate (ConvNet-3 of width 32)"

EM_C_CIFAR10 = replace(
    EM_CIFAR10,
    name="em-c-cifar10",
    title="EM CIFAR-10, class-wise",
    summary=(
        "CIFAR-10 with error-minimising noise of at most 8/255 in every training image: one noise for each class, "
        "made against a ResNet-18."
    ),
    methods=(ClasswiseErrorMinimizing(),),
)
CIFAR100_SURROGATE = SurrogateSettings(weight_decay=5e-5)
OTHERS = (
    (EM_CIFAR10, CIFAR100, ErrorMinimizing(steps_per_round=20, surrogate=CIFAR100_SURROGATE)),
    (EM_C_CIFAR10, CIFAR100, ClasswiseErrorMinimizing(surrogate=CIFAR100_SURROGATE)),
    (EM_CIFAR10, SVHN, ErrorMinimizing()),
    (EM_C_CIFAR10, SVHN, ClasswiseErrorMinimizing()),
)
"""Like which recipe, on which images, with what settings: those of the official scripts."""

RECIPES = (
    CIFAR10_S,
    EM_CIFAR10,
    EM_C_CIFAR10,
    replace(
        CIFAR10_S,
        name="cifar10-s-cpu",
        title="CIFAR-10-S, for a CPU",
        summary=(
            "CIFAR-10 with error-minimising noise of at most 8/255 in every training image, made against a small "
            "convolutional network, and one pixel per class overwritten on top of it (One-Pixel Shortcut)."
        ),
        methods=(CPU, OnePixelShortcut()),
        reduced=REDUCED_CPU,
    ),
    replace(
        EM_CIFAR10,
        name="em-cifar10-cpu",
        title="EM CIFAR-10, for a CPU",
        summary=(
            "CIFAR-10 with error-minimising noise of at most 8/255 in every training image: a noise of its own for "
            "each, made against a small convolutional network."
        ),
        methods=(CPU,),
        reduced=REDUCED_CPU,
    ),
    replace(
        CIFAR10_S,
        name="cifar10-s-small",
        title="CIFAR-10-S, small",
        summary=(
            "3,000 training images of CIFAR-10 with error-minimising noise of at most 8/255, made against a small "
            "convolutional network, and one pixel per class overwritten on top of it (One-Pixel Shortcut)."
        ),
        methods=(SMALL, OnePixelShortcut()),
        limit_per_class=300,
        reduced=REDUCED,
    ),
    replace(
        EM_CIFAR10,
        name="em-cifar10-small",
        title="EM CIFAR-10, small",
        summary=(
            "3,000 training images of CIFAR-10 with error-minimising noise of at most 8/255: a noise of its own for "
            "each, made against a small convolutional network."
        ),
        methods=(SMALL,),
        limit_per_class=300,
        reduced=REDUCED,
    ),
    replace(
        EM_CIFAR10,
        name="em-c-cifar10-small",
        title="EM CIFAR-10, class-wise, small",
        summary=(
            "3,000 training images of CIFAR-10 with error-minimising noise of at most 8/255: one noise for each class, "
            "made against a small convolutional network."
        ),
        methods=(
            ClasswiseErrorMinimizing(subset=1.0, surrogate=SurrogateSettings(model="convnet3-w32", batch_size=128)),
        ),
        limit_per_class=300,
        reduced="300 training images of each class, a small surrogate (ConvNet-3 of width 32, batches of 128)",
    ),
    *(
        replace(
            like,
            name=like.name.replace("cifar10", source.name),
            title=like.title.replace("CIFAR-10", source.title),
            summary=like.summary.replace("CIFAR-10", source.title),
            source=source,
            methods=(method,),
        )
        for like, source, method in OTHERS
    ),
)
