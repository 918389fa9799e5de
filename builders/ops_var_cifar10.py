"""ops-var-cifar10: One-Pixel Shortcut searched with the formula that the paper prints, mean over variance."""

from dataclasses import replace

from builders.ops_cifar10 import RECIPE as OPS_CIFAR10
from ule_datasets.methods.one_pixel_shortcut import Objective, OnePixelShortcut

RECIPE = replace(
    OPS_CIFAR10,
    name="ops-var-cifar10",
    title="OPS CIFAR-10, the paper's formula",
    summary=(
        "CIFAR-10 with one pixel per class overwritten in every training image, chosen by the printed objective of "
        "One-Pixel Shortcut (mean over variance) instead of the released code's (mean over standard deviation)."
    ),
    methods=(OnePixelShortcut(objective=Objective.MEAN_OVER_VAR),),
)
