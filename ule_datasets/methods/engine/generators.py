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
