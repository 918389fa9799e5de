"""ops-cifar10-k3: One-Pixel Shortcut with 3 pixels per image (paper, Table 6)."""

from dataclasses import replace

from builders.ops_cifar10 import RECIPE as OPS_CIFAR10
from ule_datasets.data.bounds import L0
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut

RECIPE = replace(
    OPS_CIFAR10,
    name="ops-cifar10-k3",
    title="OPS CIFAR-10, 3 pixels",
    summary="CIFAR-10 with 3 pixels per class overwritten in every training image (One-Pixel Shortcut).",
    methods=(OnePixelShortcut(num_pixels=3),),
    budget=(L0(pixels=3),),
)
