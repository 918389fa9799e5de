"""Models by name: those of ``MODELS``, ``timm:NAME`` and ``open_clip:NAME``.

A new reference model is a module here and a row in ``MODELS``.
"""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ule_datasets.base.errors import InputError
from ule_datasets.models.cifar_resnet import CifarResNet
from ule_datasets.models.compact_transformer import cct, cvt
from ule_datasets.models.convnet import ConvNet3
from ule_datasets.models.densenet import DenseNet
from ule_datasets.models.initialisation import ModelFactory, initialised
from ule_datasets.models.lenet import LeNet5
from ule_datasets.models.libraries import is_library_model, library_model, torchvision_model
from ule_datasets.models.quicknet import QuickNet
from ule_datasets.models.resnet import ResNet18
from ule_datasets.models.vgg import VGG11
from ule_datasets.models.wide_resnet import WideResNet

MODELS: dict[str, ModelFactory] = {
    "resnet18": partial(ResNet18, width=64),
    "resnet18-w16": partial(ResNet18, width=16),
    "resnet18-w8": partial(ResNet18, width=8),
    "resnet20": partial(CifarResNet, blocks=3),
    "resnet56": partial(CifarResNet, blocks=9),
    "convnet3": partial(ConvNet3, width=64),
    "convnet3-w32": partial(ConvNet3, width=32),
    "convnet3-w16": partial(ConvNet3, width=16),
    "quicknet": partial(QuickNet, widths=(48, 128, 192), fixed=True),
    "lenet5": LeNet5,
    "vgg11-neck2": partial(VGG11, width=64, neck=2),
    "densenet121": partial(DenseNet, growth=32, blocks=(6, 12, 24, 16)),
    "cvt-7-4": partial(cvt, width=256, num_layers=7, patch=4),
    "cct-7-3x1": partial(cct, width=256, num_layers=7),
    "wrn-28-1": partial(WideResNet, factor=1, blocks=4),
    "wrn-28-2": partial(WideResNet, factor=2, blocks=4),
    "wrn-28-4": partial(WideResNet, factor=4, blocks=4),
    "wrn-28-8": partial(WideResNet, factor=8, blocks=4),
    "wrn-28-10": partial(WideResNet, factor=10, blocks=4),
    "wrn-28-16": partial(WideResNet, factor=16, blocks=4),
    "wrn-28-20": partial(WideResNet, factor=20, blocks=4),
    "resnet18-224": partial(torchvision_model, "resnet18"),
    "resnet50-224": partial(torchvision_model, "resnet50"),
}

SMALLEST_IMAGE = 8
"""Rows and columns of the smallest images that any model takes."""


def build_model(name: str, num_classes: int, *, seed: int) -> nn.Module:
    """A new model of a name in ``MODELS``, ``timm:NAME`` or ``open_clip:NAME``, ``initialised`` from the seed.

    It has ``num_classes`` outputs; a vision tower of open_clip gives its embedding, whatever this is.

    Raises:
        InputError: no model has this name, or its library is not installed.
    """
    return initialised(partial(model_factory(name), num_classes), seed=seed)


@cache
def num_parameters(name: str, num_classes: int) -> int:
    """How many numbers are trained; counted without memory for them.

    Raises:
        InputError: as from ``build_model``.
    """
    return sum(parameter.numel() for parameter in _without_memory(name, num_classes).parameters())


@cache
def forward_flop(name: str, num_classes: int, image_size: int) -> float:
    """Floating-point operations of the forward pass of one image, in evaluation mode; nothing is computed.

    Convolutions and matrix products, attention's included; a multiplication with its addition counts as two.
    Normalisation, activations and pooling are left out.

    Raises:
        InputError: as from ``build_model``, or the model does not take images of this size.
    """
    if image_size < SMALLEST_IMAGE:
        raise InputError(
            f"images are {image_size} x {image_size}, must be at least {SMALLEST_IMAGE} x {SMALLEST_IMAGE}"
        )
    model = _without_memory(name, num_classes).eval()
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.no_grad():
            model(torch.empty(1, 3, image_size, image_size, device="meta"))
    except (AssertionError, RuntimeError) as error:
        if not is_library_model(name):
            raise
        raise InputError(f"{name} does not take images of {image_size} x {image_size}: {error}") from error
    return float(counter.get_total_flops())


def model_factory(name: str) -> ModelFactory:
    """What makes the models of a name.

    Raises:
        InputError: as from ``build_model``.
    """
    if is_library_model(name):
        return library_model(name)
    if name not in MODELS:
        raise InputError(f"no model {name!r}; the models are {', '.join(MODELS)}, timm:NAME, open_clip:NAME")
    return MODELS[name]


def _without_memory(name: str, num_classes: int) -> nn.Module:
    """A model whose tensors have shapes but no values."""
    factory = model_factory(name)
    with torch.device("meta"):
        return factory(num_classes)
