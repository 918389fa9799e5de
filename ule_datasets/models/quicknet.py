"""The quick reference network, of no publication: a small one, to learn all of CIFAR-10 within minutes on two cores.

Its kind is that of Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (airbench): a 2 x 2 convolution and
three blocks of two 3 x 3 convolutions. Which of that paper's means it should take, and what each is worth, is the
question of the study in ``benchmarks/quick_study.py``, which is not finished: ``benchmarks/README.md`` has what was
measured.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

SMOOTH, EDGE, CROSS = 0.8, 0.15, 0.06
"""Standard deviations of the grey part of natural images in [0, 1] under the four 2 x 2 Haar filters (rounded)."""
GREY, BLUE, GREEN = 1.0, 0.25, 0.11
"""Standard deviations of the grey and of the two opponent colours, over that of grey (rounded)."""


class QuickNet(nn.Module):
    """A 2 x 2 convolution, three ``Block``s, the largest answer of each channel, and one linear layer; GELU or ReLU.

    0.11 GFLOP for a forward pass of a 32 x 32 image at widths of 64, 128 and 128, 0.10 at 48, 128 and 192.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        widths: tuple[int, int, int] = (64, 128, 128),
        fixed: bool = False,
        identity: bool = True,
        shift_rate: float = 8.0,
        scale: float = 1 / 9,
        relu: bool = False,
    ) -> None:
        """Random weights.

        Args:
            num_classes: logits.
            widths: channels of the blocks.
            fixed: the first layer's filters are those of ``haar_filters`` and stay so; else random and trained.
            identity: the first filters of every 3 x 3 convolution hand their input on.
            shift_rate: the shifts of batch normalisation are so many times what is trained, which makes their
                learning rate the square of it.
            scale: of the logits.
            relu: ReLU throughout instead of GELU.
        """
        super().__init__()
        first: nn.Module = Haar() if fixed else nn.Conv2d(3, 24, 2)
        channels = (24, *widths)
        activation = nn.ReLU if relu else nn.GELU
        blocks = [Block(a, b, identity, shift_rate, activation) for a, b in pairwise(channels)]
        self.features = nn.Sequential(first, activation(), *blocks)
        self.classifier = nn.Linear(widths[-1], num_classes, bias=False)
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W], H and W at least 8, to logits [B, classes]."""
        logits: Tensor = self.scale * self.classifier(self.features(images).amax(dim=(2, 3)))
        return logits


class Block(nn.Sequential):
    """Convolution, 2 x 2 max pooling, batch norm, activation; convolution, batch norm, activation."""

    def __init__(
        self, inputs: int, outputs: int, identity: bool, shift_rate: float, activation: type[nn.Module]
    ) -> None:
        super().__init__(
            _convolution(inputs, outputs, identity),
            _Pooling(),
            _normalisation(outputs, shift_rate),
            activation(),
            _convolution(outputs, outputs, identity),
            _normalisation(outputs, shift_rate),
            activation(),
        )


class Haar(nn.Module):
    """A 2 x 2 convolution whose filters are fixed, with a trained bias: 3 channels to 24."""

    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", haar_filters())
        self.bias = nn.Parameter(torch.zeros(24))

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] in [0, 1] to [B, 24, H - 1, W - 1]."""
        return functional.conv2d(images - 0.5, self.filters, self.bias)


def haar_filters() -> Tensor:
    """Float32 [24, 3, 2, 2]: mean, two edges and cross of grey and two opponent colours, and the same negated.

    Each is divided by the deviation that its answers have on natural images, so that all matter alike from the first
    step on. They depend on no data: what a dataset hides cannot shape them.
    """
    places = torch.tensor([[[1, 1], [1, 1]], [[1, -1], [1, -1]], [[1, 1], [-1, -1]], [[1, -1], [-1, 1]]]) / 2
    colours = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]])
    colours = colours / colours.norm(dim=1, keepdim=True)
    deviations = torch.tensor([SMOOTH, EDGE, EDGE, CROSS])[:, None] * torch.tensor([GREY, BLUE, GREEN])
    filters = torch.einsum("pij,kc->pkcij", places, colours) / deviations[:, :, None, None, None]
    filters = filters.flatten(0, 1)
    return torch.cat([filters, -filters])


class _Pooling(nn.Module):
    """2 x 2 max pooling, of which a single pixel stays as it is: so small images go through."""

    def forward(self, images: Tensor) -> Tensor:
        return functional.max_pool2d(images, min(2, *images.shape[2:]))


class _Times(nn.Module):
    """What is trained, times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, trained: Tensor) -> Tensor:
        return self.factor * trained


def _convolution(inputs: int, outputs: int, identity: bool) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    if identity:
        nn.init.dirac_(layer.weight.data[:inputs])
    return layer


def _normalisation(channels: int, shift_rate: float) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels)
    if shift_rate != 1:
        parametrize.register_parametrization(layer, "bias", _Times(shift_rate))
    return layer
