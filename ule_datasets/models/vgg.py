"""VGG-11 for small images with batch normalisation, as DeepConfuse trains it.

Karen Simonyan, Andrew Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015; the
head is that of the official code of Feng et al., "Learning to Confuse", NeurIPS 2019.
"""

from __future__ import annotations

from torch import Tensor, nn

STAGES = ((1,), (2,), (4, 4), (8, 8), (8, 8))
"""Channels of the convolutions, in units of the width; after each stage the size is halved."""


class VGG11(nn.Module):
    """Eight 3 x 3 convolutions, each with batch norm and ReLU, in five stages that end in 2 x 2 max pooling.

    A 1 x 1 convolution then leaves ``neck`` numbers at every place, whose mean a linear layer turns into logits; with
    32 x 32 pixels there is one place. 9,227,040 parameters with width 64, a neck of 2 and 10 classes.
    """

    def __init__(self, num_classes: int, *, width: int, neck: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for stage in STAGES:
            for outputs in (width * factor for factor in stage):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers, nn.Conv2d(inputs, neck, 1))
        self.classifier = nn.Linear(neck, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] of any size to logits, float [B, num_classes]."""
        logits: Tensor = self.classifier(self.features(images).mean(dim=(2, 3)))
        return logits
