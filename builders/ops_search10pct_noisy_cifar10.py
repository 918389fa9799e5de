"""ops-search10pct-noisy-cifar10: the shortcut searched on 10 % of CIFAR-10, noise on the rest (paper, appendix C)."""

from dataclasses import replace

from builders.ops_cifar10 import RECIPE as OPS_CIFAR10
from ule_datasets.data.bounds import L0, LInf
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut, Upload

RECIPE = replace(
    OPS_CIFAR10,
    name="ops-search10pct-noisy-cifar10",
    title="OPS CIFAR-10, searched on 10 %, noisy upload",
    summary=(
        "CIFAR-10 with one pixel per class overwritten in every training image (One-Pixel Shortcut), "
        "searched on 10 % of the images of each class; the other images carry uniform noise of up to 8/255."
    ),
    methods=(OnePixelShortcut(search_fraction=0.1, upload=Upload.NOISY),),
    budget=(LInf(levels=8), L0(pixels=1)),
)
