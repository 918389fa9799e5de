"""Reference models by name. A new one is a module here and a row in ``MODELS``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from ule_datasets.errors import InputError
from ule_datasets.models.convnet import ConvNet3
from ule_datasets.models.resnet import ResNet18

ModelFactory = Callable[[int], nn.Module]
"""From the number of classes to an initialised model: float32 [B, 3, H, W] in, logits [B, classes] out."""

MODELS: dict[str, ModelFactory] = {
    "resnet18": partial(ResNet18, width=64),
    "resnet18-w16": partial(ResNet18, width=16),
    "resnet18-w8": partial(ResNet18, width=8),
    "convnet3": partial(ConvNet3, width=64),
    "convnet3-w32": partial(ConvNet3, width=32),
    "convnet3-w16": partial(ConvNet3, width=16),
}


def build_model(name: str, num_classes: int, *, seed: int) -> nn.Module:
    """A new model with torch's default initialisation, from the seed alone; made on the CPU, in float32.

    Torch's global generator is left as it was.

    Raises:
        InputError: no model has this name.
    """
    if name not in MODELS:
        raise InputError(f"no model {name!r}; the models are {', '.join(MODELS)}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return MODELS[name](num_classes)
