"""ops-color-cifar10: a fixed colour per class, written where the image is farthest from it (paper, appendix A)."""

from dataclasses import replace

from builders.ops_cifar10 import RECIPE as OPS_CIFAR10
from ule_datasets.methods.pixel_baselines import OPSColor

RECIPE = replace(
    OPS_CIFAR10,
    name="ops-color-cifar10",
    title="OPS-Color CIFAR-10",
    summary="CIFAR-10 with one pixel per image overwritten in its class's colour, where the image is farthest from it.",
    methods=(OPSColor(),),
)
