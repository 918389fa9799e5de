"""Wide residual networks for small images.

Sergey Zagoruyko and Nikos Komodakis, "Wide Residual Networks", BMVC 2016, in the variant that the One-Pixel
Shortcut was measured with: every convolution has a bias, and the statistics of the last batch norm follow the
latest batches.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

_STEM: Final = 16  # channels before the first group
_LAST_MOMENTUM: Final = 0.9  # weight of the latest batch in the last batch norm's statistics; torch's default is 0.1


class WideBlock(nn.Module):
    """Batch norm, ReLU and 3 x 3 convolution, twice, beside a shortcut; the second convolution has the stride.

    The shortcut takes the input as it comes: the identity, or a 1 x 1 convolution without batch norm where the
    shape changes. The dropout between the convolutions has probability 0, so it is left out.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride=stride, padding=1)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride)

    def forward(self, features: Tensor) -> Tensor:
        """Float [B, inputs, H, W] to float [B, outputs, H / stride, W / stride], rounded up."""
        hidden = self.conv1(functional.relu(self.norm1(features), inplace=True))
        hidden = self.conv2(functional.relu(self.norm2(hidden), inplace=True))
        result: Tensor = hidden + self.shortcut(features)
        return result


class WideResNet(nn.Module):
    """Three groups of ``blocks`` blocks with 16, 32 and 64 times ``factor`` channels; the last two halve the size.

    Four blocks make 28 layers: 36,489,290 parameters for factor 10 and 10 classes.
    """

    def __init__(self, num_classes: int, *, factor: int, blocks: int) -> None:
        super().__init__()
        channels = _STEM
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        layers: list[nn.Module] = []
        for group in range(3):
            outputs = _STEM * 2**group * factor
            for index in range(blocks):
                layers.append(WideBlock(channels, outputs, 2 if group and not index else 1))
                channels = outputs
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(channels, momentum=_LAST_MOMENTUM)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] of any size to logits, float [B, num_classes]."""
        features = functional.relu(self.norm(self.blocks(self.stem(images))), inplace=True)
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits
