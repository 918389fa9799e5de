"""A small convolutional network of no publication: the surrogate of reduced settings, and a quick reference model."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class ConvNet3(nn.Module):
    """Three 3 x 3 convolutions of ``width``, 2 ``width`` and 4 ``width`` channels, each with batch norm and ReLU.

    2 x 2 max pooling after the first two, the average over what is left, one linear layer; 0.08 GFLOP for a
    forward pass of a 32 x 32 image at width 64.
    """

    def __init__(self, num_classes: int, *, width: int) -> None:
        super().__init__()
        channels = (3, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise(channels)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            if index < 2:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W], H and W at least 4, to logits [B, classes]."""
        logits: Tensor = self.classifier(self.features(images).mean(dim=(2, 3)))
        return logits
