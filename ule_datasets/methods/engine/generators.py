"""Networks that make perturbations, and what is made of their outputs; without torch's kernels that do not repeat."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (1, 2, 1, 2, 1, 2)
"""Of the convolutions of BAIT's encoder; its decoder undoes them in the opposite order."""
SHRINKS = 8
"""By what that encoder divides rows and columns."""
SMALLEST_BAIT_IMAGE = 2 * SHRINKS
"""Rows and columns below which there is nothing to reflect at the border of the smallest map."""
CONFUSING_SHRINKS = 8
"""By what DeepConfuse's generator divides rows and columns."""
SMALLEST_TRANSLATED_IMAGE = 8
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


class InstanceNorm(nn.Module):
    """Each channel of each image to mean 0 and deviation 1, without parameters or running statistics.

    Group normalisation with groups of one channel: the same numbers as torch's instance normalisation, which
    would leave the channels-last order of memory on a CPU.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Float [B, C, H, W] to the same shape."""
        return functional.group_norm(maps, maps.shape[1])


class Residual(nn.Module):
    """Two 3 x 3 convolutions with reflected borders around which the input is added, with nothing after the sum."""

    def __init__(self, channels: int, *, running: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [Reflection(1), nn.Conv2d(channels, channels, 3, bias=False)]
            layers += [nn.BatchNorm2d(channels, track_running_stats=running), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        changed: Tensor = self.layers(maps)
        return maps + changed


class BaitGenerator(nn.Module):
    """The generator of BAIT: an encoder, residual blocks at an eighth of the size, a decoder, tanh.

    Six 3 x 3 convolutions of ``width``, 2, 4, 8, 16 and 32 times ``width`` channels with strides 1, 2, 1, 2, 1, 2,
    each with instance normalisation and ReLU; ``blocks`` residual blocks with batch normalisation; six transposed
    convolutions back, with instance normalisation and ReLU between them. 40.9 million parameters with width 16 and
    8 blocks, as published.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        channels = (3, *(width * 2**step for step in range(len(STRIDES))))
        layers: list[nn.Module] = []
        for (inputs, outputs), stride in zip(pairwise(channels), STRIDES, strict=True):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), InstanceNorm(), nn.ReLU()]
        layers += [Residual(channels[-1], running=True) for _ in range(blocks)]
        for (outputs, inputs), stride in reversed(list(zip(pairwise(channels), STRIDES, strict=True))):
            upwards = {"stride": stride, "padding": 1, "output_padding": stride - 1}
            layers += [nn.ConvTranspose2d(inputs, outputs, 3, **upwards, bias=False), InstanceNorm(), nn.ReLU()]
        layers[-2:] = [nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] in [0, 1], H and W multiples of 8 from 16 on, to the same shape in [-1, 1]."""
        perturbations: Tensor = self.layers(images)
        return perturbations


class TranslationGenerator(nn.Module):
    """Images to images of the same size, in (-1, 1): of image-to-image translation work, taken over by UC.

    Justin Johnson, Alexandre Alahi, Li Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution",
    ECCV 2016, in the form that Jun-Yan Zhu, Taesung Park, Phillip Isola, Alexei Efros, "Unpaired Image-to-Image
    Translation using Cycle-Consistent Adversarial Networks", ICCV 2017, gave it, with batch normalisation.

    A 7 x 7 convolution to ``width`` channels, two of 3 x 3 and stride 2 that double them, residual blocks, two
    transposed convolutions back, a 7 x 7 convolution with bias, and tanh. Normalisation is always by the statistics of
    what comes in: no averages are kept, and a network behaves the same in training and in evaluation mode.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [Reflection(3), nn.Conv2d(3, width, 7, bias=False), *_normalised(width)]
        for channels in (2 * width, 4 * width):
            down = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False)
            layers += [down, *_normalised(channels)]
        layers += [Residual(4 * width, running=False) for _ in range(blocks)]
        for channels in (2 * width, width):
            up = nn.ConvTranspose2d(2 * channels, channels, 3, stride=2, padding=1, output_padding=1, bias=False)
            layers += [up, *_normalised(channels)]
        layers += [Reflection(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Float32 [B, 3, H, W] to the same shape; H and W are multiples of 4, from 8 on."""
        outputs: Tensor = self.layers(inputs)
        return outputs


class ConfusingGenerator(nn.Module):
    """The generator of DeepConfuse, an auto-encoder with connections past its middle: images to noise in (-1, 1).

    Olaf Ronneberger, Philipp Fischer, Thomas Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
    MICCAI 2015, in the form of the official code of Feng et al., "Learning to Confuse", NeurIPS 2019.

    Blocks of two 3 x 3 convolutions with batch normalisation and ReLU: with ``width``, 2, 4 and 8 times ``width``
    channels, each of half the size of the one before (averages of 2 x 2 pixels); then with 4, 2 and 1 times ``width``
    channels, of what is enlarged and what the block of the same size made on the way down. A 1 x 1 convolution with
    batch normalisation, and tanh. 7,788,681 parameters with width 64, as published; parameters and buffers come in the
    order of the published files.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = [3, *(width * 2**step for step in range(4))]
        self.down = nn.ModuleList(_twice(inputs, outputs) for inputs, outputs in pairwise(channels))
        self.up = nn.ModuleList(_twice(below + beside, beside) for beside, below in reversed([*pairwise(channels[1:])]))
        self.last = nn.Sequential(nn.Conv2d(width, 3, 1), nn.BatchNorm2d(3))

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] in [0, 1], H and W multiples of 8, to the same shape."""
        maps, passed = self.down[0](images), []
        for block in self.down[1:]:
            passed.append(maps)
            maps = block(functional.avg_pool2d(maps, 2))
        for block in self.up:
            maps = block(torch.cat([enlarged(maps), passed.pop()], dim=1))
        noise: Tensor = self.last(maps).tanh()
        return noise


def enlarged(maps: Tensor) -> Tensor:
    """Twice as many rows and columns, between them linearly, corners on corners: float [B, C, H, W], channels-last.

    As products with small matrices, whose gradients repeat on CPU and CUDA; those of torch's own interpolation do not.
    """
    rows, columns = (_stretching(size, maps) for size in maps.shape[2:])
    wide = columns @ maps.permute(0, 2, 3, 1)
    tall = rows @ wide.flatten(2)
    return tall.view(len(maps), len(rows), len(columns), -1).permute(0, 3, 1, 2)


def _stretching(size: int, like: Tensor) -> Tensor:
    """The matrix [2 size, size] that enlarges an axis, of the type and on the device of a tensor."""
    places = torch.arange(size, device=like.device, dtype=like.dtype)
    wanted = torch.arange(2 * size, device=like.device, dtype=like.dtype) * ((size - 1) / (2 * size - 1))
    return (1 - (wanted[:, None] - places).abs()).clamp(min=0)


def _twice(inputs: int, outputs: int) -> nn.Module:
    first, second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
    return nn.Sequential(first, nn.BatchNorm2d(outputs), nn.ReLU(), second, nn.BatchNorm2d(outputs), nn.ReLU())


def _normalised(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels, track_running_stats=False), nn.ReLU()


def membership(labels: Tensor, num_classes: int) -> Tensor:
    """Which image is of which class, bool [B, K]; of labels int64 [B]."""
    return labels[:, None] == torch.arange(num_classes, device=labels.device)


def class_means(outputs: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Means of float [B, C, H, W] over the images of each class, of labels int64 [B], and which classes have images.

    Float [K, C, H, W], channels-last in memory, zeros for a class without images; and bool [K]. They are matrix
    products, whose gradients repeat on CPU and CUDA; scattered additions would not.
    """
    members = membership(labels, num_classes).to(outputs.dtype)
    counts = members.sum(dim=0)
    rows = outputs.permute(0, 2, 3, 1)
    means = members.T @ rows.flatten(1) / counts.clamp(min=1)[:, None]
    return means.view(num_classes, *rows.shape[1:]).permute(0, 3, 1, 2), counts > 0


def given_to(means: Tensor, targets: Tensor) -> Tensor:
    """The perturbation of each image's target, ``means[targets]``; its gradient repeats on CPU and CUDA.

    Of means float [K, C, H, W] and targets int64 [B]: float [B, C, H, W], channels-last in memory.
    """
    members = membership(targets, len(means)).to(means.dtype)
    rows = means.permute(0, 2, 3, 1)
    return (members @ rows.flatten(1)).view(len(targets), *rows.shape[1:]).permute(0, 3, 1, 2)
