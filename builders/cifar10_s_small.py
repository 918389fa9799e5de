"""cifar10-s-small: cifar10-s on 3,000 images with a small surrogate, a reduced setting for a CPU."""

from dataclasses import replace

from builders.cifar10_s import RECIPE as CIFAR10_S
from builders.em_cifar10_small import RECIPE as EM_CIFAR10_SMALL
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut

RECIPE = replace(
    CIFAR10_S,
    name="cifar10-s-small",
    title="CIFAR-10-S, small",
    summary=(
        "3,000 training images of CIFAR-10 with error-minimising noise of at most 8/255, made against a small "
        "convolutional network, and one pixel per class overwritten on top of it (One-Pixel Shortcut)."
    ),
    methods=(*EM_CIFAR10_SMALL.methods, OnePixelShortcut()),
    limit_per_class=EM_CIFAR10_SMALL.limit_per_class,
    reduced=EM_CIFAR10_SMALL.reduced,
)
