"""The generator network of image-to-image translation work, which Unlearnable Clusters take over.

Justin Johnson, Alexandre Alahi, Li Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV
2016, in the form that Jun-Yan Zhu, Taesung Park, Phillip Isola, Alexei Efros, "Unpaired Image-to-Image Translation
using Cycle-Consistent Adversarial Networks", ICCV 2017, gave it, with batch normalisation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALLEST_IMAGE = 8
"""Rows and columns: what lies between the blocks is a quarter of it, and reflections need two."""


class Reflection(nn.Module):
    """Reflection padding made of flips: torch's own has no gradient on a GPU that repeats."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, H + 2 width, W + 2 width]; H and W must be larger than the width."""
        for axis in (2, 3):
            before = images.narrow(axis, 1, self.width).flip(axis)
            after = images.narrow(axis, images.shape[axis] - 1 - self.width, self.width).flip(axis)
            images = torch.cat([before, images, after], dim=axis)
        return images


class Block(nn.Module):
    """A residual block of two 3 x 3 convolutions, with no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first = Reflection(1), nn.Conv2d(channels, channels, 3, bias=False), _norm(channels), nn.ReLU()
        second = Reflection(1), nn.Conv2d(channels, channels, 3, bias=False), _norm(channels)
        self.layers = nn.Sequential(*first, *second)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        outputs: Tensor = inputs + self.layers(inputs)
        return outputs


class TranslationGenerator(nn.Module):
    """Images to images of the same size, in (-1, 1).

    A 7 x 7 convolution to ``width`` channels, two of 3 x 3 and stride 2 that double them, residual blocks, two
    transposed convolutions back, a 7 x 7 convolution with bias, and tanh. Normalisation is always by the statistics of
    what comes in: no averages are kept, and a network behaves the same in training and in evaluation mode.
    """

    def __init__(self, *, width: int, blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [Reflection(3), nn.Conv2d(3, width, 7, bias=False), _norm(width), nn.ReLU()]
        for channels in (width, 2 * width):
            layers += [nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False), _norm(2 * channels)]
            layers += [nn.ReLU()]
        layers += [Block(4 * width) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            up = nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1, bias=False)
            layers += [up, _norm(channels // 2), nn.ReLU()]
        layers += [Reflection(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Float32 [B, 3, H, W] to the same shape; H and W are multiples of 4, and at least ``SMALLEST_IMAGE``."""
        outputs: Tensor = self.layers(inputs)
        return outputs


def build_generator(*, width: int, blocks: int, seed: int) -> TranslationGenerator:
    """A new generator with torch's initialisation, from the seed alone; made on the CPU.

    Torch's global generator is left as it was.

    Args:
        width: channels after the first convolution; the blocks have four times as many.
        blocks: number of residual blocks.
        seed: of the initialisation.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return TranslationGenerator(width=width, blocks=blocks)


def _norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, track_running_stats=False)
