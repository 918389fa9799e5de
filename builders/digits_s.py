"""digits-s: the composition of CIFAR-10-S on the embedded digits, a reduced setting that needs no download."""

from ule_datasets.data.bounds import L0, LInf
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.methods.error_minimizing import ErrorMinimizing
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.recipe import Recipe
from ule_datasets.sources.digits import DIGITS

SMALL = SurrogateSettings(model="convnet3-w16", batch_size=128)

RECIPE = Recipe(
    name="digits-s",
    title="Digits-S (the composition of CIFAR-10-S on handwritten digits)",
    summary=(
        "Handwritten digits with error-minimising noise of at most 16/255 in every training image, and one pixel per "
        "class overwritten on top of it (One-Pixel Shortcut)."
    ),
    source=DIGITS,
    methods=(ErrorMinimizing(epsilon=16, step_size=1.6, surrogate=SMALL), OnePixelShortcut()),
    budget=(LInf(levels=16), L0(pixels=1)),
    version="1.0.0",
    reduced="handwritten digits, a small surrogate (ConvNet-3 of width 16, batches of 128), noise of up to 16/255",
)
