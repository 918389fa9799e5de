"""The residual networks of the CIFAR-10 experiments: three narrow stages, shortcuts without parameters.

Kaiming He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2: 6n + 2 layers with
weights, stages of 16, 32 and 64 channels. Modules have the names of the widespread trained classifiers.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

_CHANNELS: Final = (16, 32, 64)  # of the three stages; all but the first begin with stride 2


def shortcut(features: Tensor, channels: int, stride: int) -> Tensor:
    """Option A of the paper: every ``stride``-th row and column, zeros for the new channels before and after the old.

    Float [B, inputs, H, W] to float [B, channels, H / stride, W / stride], rounded up.
    """
    added = (channels - features.shape[1]) // 2
    return functional.pad(features[:, :, ::stride, ::stride], (0, 0, 0, 0, added, added))


class CifarBlock(nn.Module):
    """Two 3 x 3 convolutions around the identity, or around ``shortcut`` where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.outputs, self.stride = outputs, stride
        self.same_shape = inputs == outputs and stride == 1

    def forward(self, features: Tensor) -> Tensor:
        """Float [B, inputs, H, W] to float [B, outputs, H / stride, W / stride], rounded up."""
        hidden = functional.relu(self.bn1(self.conv1(features)), inplace=True)
        hidden = self.bn2(self.conv2(hidden))
        around = features if self.same_shape else shortcut(features, self.outputs, self.stride)
        return functional.relu(hidden + around, inplace=True)


class CifarResNet(nn.Module):
    """Three stages of ``blocks`` blocks, 6 x ``blocks`` + 2 layers with weights.

    3: ResNet-20 with 269,722 parameters for 10 classes; 9: ResNet-56 with 853,018.

    Weights start from the normal distribution that keeps variances through ReLU, biases from zero.
    """

    def __init__(self, num_classes: int, *, blocks: int) -> None:
        super().__init__()
        narrow, middle, wide = _CHANNELS
        self.conv1 = nn.Conv2d(3, narrow, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.layer1 = _stage(narrow, narrow, blocks)
        self.layer2 = _stage(narrow, middle, blocks)
        self.layer3 = _stage(middle, wide, blocks)
        self.linear = nn.Linear(wide, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] of any size from 8 x 8 to logits, float [B, num_classes]."""
        features = functional.relu(self.bn1(self.conv1(images)), inplace=True)
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: Tensor = self.linear(features.mean(dim=(2, 3)))
        return logits


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    first = CifarBlock(inputs, outputs, stride=1 if inputs == outputs else 2)
    return nn.Sequential(first, *(CifarBlock(outputs, outputs, stride=1) for _ in range(blocks - 1)))
