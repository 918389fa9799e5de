"""ops-position-cifar10: the searched position per class, a random colour per image (paper, appendix A)."""

from dataclasses import replace

from builders.ops_cifar10 import RECIPE as OPS_CIFAR10
from ule_datasets.methods.pixel_baselines import OPSPosition

RECIPE = replace(
    OPS_CIFAR10,
    name="ops-position-cifar10",
    title="OPS-Position CIFAR-10",
    summary="CIFAR-10 with the pixel of each class's One-Pixel Shortcut overwritten in a random colour per image.",
    methods=(OPSPosition(),),
)
