"""Sizes of images that a model can take."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from ule_datasets.base.errors import InputError

SMALL: Final = 32
"""Rows and columns of the images of CIFAR-10."""


def small_images(images: Tensor) -> Tensor:
    """The images as they are, float [B, 3, 32, 32], for a model whose layers have shapes for this size only.

    A module that calls it inside ``forward`` names it in ``torch.fx.wrap``, so that the model can be traced.

    Raises:
        InputError: the images have another size.
    """
    height, width = images.shape[-2:]
    if (height, width) != (SMALL, SMALL):
        raise InputError(f"images are {height} x {width}, this model takes {SMALL} x {SMALL} only")
    return images
