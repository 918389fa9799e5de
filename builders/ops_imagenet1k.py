"""ops-imagenet1k: One-Pixel Shortcut on all of ImageNet, in the setting of ops-imagenet100."""

from dataclasses import replace

from builders.ops_imagenet100 import RECIPE as OPS_IMAGENET100
from ule_datasets.sources.imagenet import IMAGENET1K

RECIPE = replace(
    OPS_IMAGENET100,
    name="ops-imagenet1k",
    title="OPS ImageNet-1k",
    summary=(
        "ImageNet-1k, 224 x 224 pixels, with one pixel per class overwritten in every training image (One-Pixel "
        "Shortcut)."
    ),
    source=IMAGENET1K,
)
