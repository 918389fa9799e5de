"""ops-imagenet100: One-Pixel Shortcut on the first hundred classes of ImageNet (paper, Table 4)."""

from ule_datasets.data.bounds import L0
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.recipe import Recipe
from ule_datasets.sources.imagenet import IMAGENET100

RECIPE = Recipe(
    name="ops-imagenet100",
    title="OPS ImageNet-100",
    summary=(
        "The first hundred classes of ImageNet, 224 x 224 pixels, with one pixel per class overwritten in every "
        "training image (One-Pixel Shortcut)."
    ),
    source=IMAGENET100,
    methods=(OnePixelShortcut(),),
    budget=(L0(pixels=1),),
    version="1.0.0",
    shard_mebibytes=256,
)
