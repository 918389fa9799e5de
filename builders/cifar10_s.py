"""cifar10-s: error-minimising noise, then the One-Pixel Shortcut, on CIFAR-10 (Wu et al., section 4.4)."""

from ule_datasets.methods.error_minimizing import ErrorMinimizing
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.recipe import L0, Claim, LInf, Recipe
from ule_datasets.sources.cifar10 import CIFAR10

RECIPE = Recipe(
    name="cifar10-s",
    title="CIFAR-10-S",
    summary=(
        "CIFAR-10 with error-minimising noise of at most 8/255 in every training image, and one pixel per class "
        "overwritten on top of it (One-Pixel Shortcut, searched on the clean images)."
    ),
    source=CIFAR10,
    methods=(ErrorMinimizing(), OnePixelShortcut()),
    budget=(LInf(levels=8), L0(pixels=1)),
    version="1.0.0",
    claims=(
        Claim(id="ops-t5-cifar10s-standard", table="5", model="resnet18", strategy="standard", accuracy=16.67),
        Claim(id="ops-t5-cifar10s-mixup", table="5", model="resnet18", strategy="mixup", accuracy=23.23),
        Claim(id="ops-t5-cifar10s-cutout", table="5", model="resnet18", strategy="cutout", accuracy=24.38),
        Claim(id="ops-t5-cifar10s-randaugment", table="5", model="resnet18", strategy="randaugment", accuracy=39.62),
        Claim(
            id="ops-t5-cifar10s-randaugment-cutout",
            table="5",
            model="resnet18",
            strategy="randaugment+cutout",
            accuracy=33.85,
        ),
        Claim(id="ops-t5-cifar10s-linf_at", table="5", model="resnet18", strategy="linf-at", accuracy=10.61),
        Claim(
            id="ops-t5-cifar10s-linf_at-mixup", table="5", model="resnet18", strategy="linf-at+mixup", accuracy=13.77
        ),
        Claim(
            id="ops-t5-cifar10s-linf_at-cutout", table="5", model="resnet18", strategy="linf-at+cutout", accuracy=23.78
        ),
        Claim(
            id="ops-t5-cifar10s-linf_at-randaugment",
            table="5",
            model="resnet18",
            strategy="linf-at+randaugment",
            accuracy=46.23,
        ),
    ),
)
