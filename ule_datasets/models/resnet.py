"""ResNet-18 for small images, as the papers on CIFAR-10 use it.

Kaiming He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with the stem that is usual
for 32 x 32 pixels: a 3 x 3 convolution of stride 1 and no max pooling.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

SAFE_INPUTS = 16
"""With fewer channels oneDNN (3.12, in torch 2.14) writes past a buffer in the backward pass of a strided 1 x 1
convolution with channels last: wrong gradients or a crash, mostly with several threads (uxlfoundation/oneDNN#6035)."""


class Subsampled(nn.Conv2d):
    """A strided 1 x 1 convolution of the pixels that it looks at, without a stride: the same products and sums."""

    def forward(self, features: Tensor) -> Tensor:
        """Float [B, inputs, H, W] to float [B, outputs, H / stride, W / stride], rounded up."""
        rows, columns = self.stride
        return functional.conv2d(features[:, :, ::rows, ::columns], self.weight, self.bias)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut: the identity, or 1 x 1 where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            pointwise = Subsampled if inputs < SAFE_INPUTS else nn.Conv2d
            self.shortcut = nn.Sequential(
                pointwise(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, features: Tensor) -> Tensor:
        """Float [B, inputs, H, W] to float [B, outputs, H / stride, W / stride], rounded up."""
        hidden = functional.relu(self.norm1(self.conv1(features)), inplace=True)
        return functional.relu(self.norm2(self.conv2(hidden)) + self.shortcut(features), inplace=True)


class ResNet18(nn.Module):
    """Four stages of two basic blocks; ``width`` channels in the first (64: 11,173,962 parameters for 10 classes).

    Each of the others halves the size and has twice the channels of the one before.
    """

    def __init__(self, num_classes: int, *, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        blocks: list[nn.Module] = []
        channels = width
        for stage, stride in enumerate((1, 2, 2, 2)):
            outputs = width * 2**stage
            blocks += [BasicBlock(channels, outputs, stride), BasicBlock(outputs, outputs, 1)]
            channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] of any size from 8 x 8 to logits, float [B, num_classes]."""
        features = self.blocks(self.stem(images))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits
