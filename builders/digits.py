"""Datasets of the handwritten digits that come with scikit-learn: small, and nothing is downloaded."""

from ule_datasets.definition import Recipe
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.methods.error_minimizing import ClasswiseErrorMinimizing
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.sources.digits import DIGITS

SMALL = SurrogateSettings(model="convnet3-w16", batch_size=128)

RECIPES = (
    Recipe(
        name="digits-s",
        title="Digits-S (the composition of CIFAR-10-S on handwritten digits)",
        summary=(
            "Handwritten digits with error-minimising noise of at most 32/255 in every training image, one noise for "
            "each class, and one pixel per class overwritten on top of it (One-Pixel Shortcut)."
        ),
        source=DIGITS,
        methods=(
            ClasswiseErrorMinimizing(epsilon=32, step_size=3.2, subset=1.0, surrogate=SMALL),
            OnePixelShortcut(margin=6),
        ),
        version="2.0.0",
        reduced=(
            "handwritten digits, a small surrogate (ConvNet-3 of width 16, batches of 128), noise of up to 32/255 and "
            "the same for a whole class, the pixel at least 6 pixels from the border"
        ),
    ),
    Recipe(
        name="ops-digits",
        title="OPS Digits",
        summary=(
            "The 1,797 handwritten digits that come with scikit-learn, upsampled to 32 x 32, with one pixel per class "
            "overwritten in every training image (One-Pixel Shortcut)."
        ),
        source=DIGITS,
        methods=(OnePixelShortcut(),),
        version="1.0.0",
        reduced="a small stand-in for the paper's datasets: 1,437 training images of 10 handwritten digits",
    ),
)
