"""randpix-cifar10: a random position and colour per class (paper, appendix B); run r is ``--seed r``."""

from dataclasses import replace

from builders.ops_cifar10 import RECIPE as OPS_CIFAR10
from ule_datasets.methods.pixel_baselines import RandPix

RECIPE = replace(
    OPS_CIFAR10,
    name="randpix-cifar10",
    title="RandPix CIFAR-10",
    summary="CIFAR-10 with one pixel per class overwritten, at a random position in a random colour.",
    methods=(RandPix(),),
)
