"""DenseNet for small images: a 3 x 3 stem without pooling.

Gao Huang et al., "Densely Connected Convolutional Networks", CVPR 2017. Unlike the definition for ImageNet,
neither batch norm nor ReLU follows the stem, and transitions have no ReLU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class DenseLayer(nn.Module):
    """A bottleneck whose ``growth`` new channels are appended to its input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Float [B, inputs, H, W] to float [B, inputs + growth, H, W]."""
        hidden = self.conv1(functional.relu(self.norm1(features), inplace=True))
        new = self.conv2(functional.relu(self.norm2(hidden), inplace=True))
        return torch.cat((features, new), dim=1)


class Transition(nn.Sequential):
    """Batch norm, a 1 x 1 convolution to half the channels, 2 x 2 average pooling; no ReLU.

    Float [B, inputs, H, W] to float [B, inputs // 2, H // 2, W // 2].
    """

    def __init__(self, inputs: int) -> None:
        super().__init__(nn.BatchNorm2d(inputs), nn.Conv2d(inputs, inputs // 2, 1, bias=False), nn.AvgPool2d(2))


class DenseNet(nn.Module):
    """Blocks of dense layers with transitions between them.

    ``growth`` 32 and ``blocks`` (6, 12, 24, 16) are DenseNet-121: 6,956,298 parameters for 10 classes.
    """

    def __init__(self, num_classes: int, *, growth: int, blocks: tuple[int, ...]) -> None:
        super().__init__()
        channels = 2 * growth
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        layers: list[nn.Module] = []
        for index, count in enumerate(blocks):
            if index:
                layers.append(Transition(channels))
                channels //= 2
            for _ in range(count):
                layers.append(DenseLayer(channels, growth))
                channels += growth
        self.layers = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] of any size that the transitions can halve (of four blocks: from 8 x 8) to logits."""
        features = functional.relu(self.norm(self.layers(self.stem(images))), inplace=True)
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits
