"""Reference models by name. A new one is a module here and a row in ``MODELS``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from ule_datasets.errors import InputError
from ule_datasets.models.resnet import ResNet18

ModelFactory = Callable[[int], nn.Module]
"""From the number of classes to an initialised model: float32 [B, 3, H, W] in, logits [B, classes] out."""

MODELS: dict[str, ModelFactory] = {
    "resnet18": partial(ResNet18, width=64),
    "resnet18-w8": partial(ResNet18, width=8),
}


def build_model(name: str, num_classes: int) -> nn.Module:
    """A new model, initialised by torch's global generator.

    Raises:
        InputError: no model has this name.
    """
    if name not in MODELS:
        raise InputError(f"no model {name!r}; the models are {', '.join(MODELS)}")
    return MODELS[name](num_classes)
