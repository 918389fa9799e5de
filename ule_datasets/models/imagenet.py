"""torchvision's residual networks for images of 224 x 224 pixels, untrained.

Kaiming He et al., "Deep Residual Learning for Image Recognition", CVPR 2016: a 7 x 7 convolution of stride 2
and max pooling before the blocks. float32 [B, 3, 224, 224] in, logits [B, classes] out; other sizes from
8 x 8 work, the final pooling is over what is left.
"""

from __future__ import annotations

from torch import nn


def resnet18_224(num_classes: int) -> nn.Module:
    """ResNet-18 with torchvision's initialisation: 11,227,812 parameters for 100 classes."""
    from torchvision.models import resnet18

    model: nn.Module = resnet18(weights=None, num_classes=num_classes)
    return model


def resnet50_224(num_classes: int) -> nn.Module:
    """ResNet-50 with torchvision's initialisation: 23,712,932 parameters for 100 classes."""
    from torchvision.models import resnet50

    model: nn.Module = resnet50(weights=None, num_classes=num_classes)
    return model
