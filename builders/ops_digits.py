"""ops-digits: One-Pixel Shortcut on scikit-learn's handwritten digits; small, and needs no download."""

from ule_datasets.data.bounds import L0
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.recipe import Recipe
from ule_datasets.sources.digits import DIGITS

RECIPE = Recipe(
    name="ops-digits",
    title="OPS Digits",
    summary=(
        "The 1,797 handwritten digits that come with scikit-learn, upsampled to 32 x 32, with one pixel per class "
        "overwritten in every training image (One-Pixel Shortcut)."
    ),
    source=DIGITS,
    methods=(OnePixelShortcut(),),
    budget=(L0(pixels=1),),
    version="1.0.0",
    reduced="a small stand-in for the paper's datasets: 1,437 training images of 10 handwritten digits",
)
