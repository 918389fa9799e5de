"""Networks that turn an image into a perturbation."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (1, 2, 1, 2, 1, 2)
"""Of the encoder's convolutions; the decoder undoes them in the opposite order."""
SHRINKS = 8
"""By what the encoder divides rows and columns."""
SMALLEST_IMAGE = 2 * SHRINKS
"""Rows and columns below which there is nothing to reflect at the border of the smallest map."""


class BaitGenerator(nn.Module):
    """The generator of BAIT: an encoder, residual blocks at an eighth of the size, a decoder, tanh.

    Six 3 x 3 convolutions of ``width``, 2, 4, 8, 16 and 32 times ``width`` channels with strides 1, 2, 1, 2, 1, 2,
    each with instance normalisation and ReLU; ``blocks`` residual blocks of two 3 x 3 convolutions with reflected
    borders and batch normalisation; six transposed convolutions back, with instance normalisation and ReLU between
    them. 40.9 million parameters with width 16 and 8 blocks, as published.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        channels = (3, *(width * 2**step for step in range(len(STRIDES))))
        layers: list[nn.Module] = []
        for (inputs, outputs), stride in zip(pairwise(channels), STRIDES, strict=True):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), InstanceNorm(), nn.ReLU()]
        layers += [_Block(channels[-1]) for _ in range(blocks)]
        for (outputs, inputs), stride in reversed(list(zip(pairwise(channels), STRIDES, strict=True))):
            upwards = {"stride": stride, "padding": 1, "output_padding": stride - 1}
            layers += [nn.ConvTranspose2d(inputs, outputs, 3, **upwards, bias=False), InstanceNorm(), nn.ReLU()]
        layers[-2:] = [nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] in [0, 1], H and W multiples of 8 from 16 on, to the same shape in [-1, 1]."""
        perturbations: Tensor = self.layers(images)
        return perturbations


def build_bait_generator(width: int, blocks: int, *, seed: int) -> BaitGenerator:
    """A new generator with torch's default initialisation, from the seed alone; on the CPU, in float32.

    Torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return BaitGenerator(width, blocks)


class InstanceNorm(nn.Module):
    """Each channel of each image to mean 0 and deviation 1, without parameters or running statistics.

    Group normalisation with groups of one channel: the same numbers as torch's instance normalisation, which
    would leave the channels-last order of memory on a CPU.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Float [B, C, H, W] to the same shape."""
        return functional.group_norm(maps, maps.shape[1])


class ReflectedBorder(nn.Module):
    """One more row and column on each side, those next to the border mirrored.

    Like ``nn.ReflectionPad2d(1)``, whose gradient torch cannot compute repeatably on CUDA.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Float [B, C, H, W], H and W at least 2, to [B, C, H + 2, W + 2]."""
        tall = torch.cat([maps[:, :, 1:2], maps, maps[:, :, -2:-1]], dim=2)
        return torch.cat([tall[:, :, :, 1:2], tall, tall[:, :, :, -2:-1]], dim=3)


class _Block(nn.Module):
    """Two convolutions around which the input is added; nothing after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ReflectedBorder(),
            nn.Conv2d(channels, channels, 3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            ReflectedBorder(),
            nn.Conv2d(channels, channels, 3, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = self.layers(maps)
        return maps + changed
