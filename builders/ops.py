"""ops: One-Pixel Shortcut on one's own images."""

from ule_datasets.data.bounds import L0
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.recipe import Recipe
from ule_datasets.sources.own_images import OWN_IMAGES

RECIPE = Recipe(
    name="ops",
    title="One-Pixel Shortcut on my images",
    summary="Labelled images with one pixel per class overwritten in every training image (One-Pixel Shortcut).",
    source=OWN_IMAGES,
    methods=(OnePixelShortcut(),),
    budget=(L0(pixels=1),),
    version="1.0.0",
)
