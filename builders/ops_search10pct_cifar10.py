"""ops-search10pct-cifar10: the shortcut searched on 10 % of CIFAR-10 (paper, appendix C)."""

from dataclasses import replace

from builders.ops_cifar10 import RECIPE as OPS_CIFAR10
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut

RECIPE = replace(
    OPS_CIFAR10,
    name="ops-search10pct-cifar10",
    title="OPS CIFAR-10, searched on 10 %",
    summary=(
        "CIFAR-10 with one pixel per class overwritten in every training image (One-Pixel Shortcut), "
        "searched on 10 % of the images of each class."
    ),
    methods=(OnePixelShortcut(search_fraction=0.1),),
)
