"""LeNet-5 with ReLU and max pooling, for colour images.

Yann LeCun et al., "Gradient-Based Learning Applied to Document Recognition", Proceedings of the IEEE 1998;
the activations and the pooling are today's.
"""

from __future__ import annotations

import torch.fx
from torch import Tensor, nn

from ule_datasets.models.sizes import small_images

torch.fx.wrap("small_images")


class LeNet5(nn.Module):
    """Two 5 x 5 convolutions, each with ReLU and 2 x 2 max pooling, and three linear layers; no padding.

    62,006 parameters for 10 classes. Pooled before ReLU: the same values and gradients, bit for bit, from a quarter
    of the ReLUs.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU()
        )
        self.classifier = nn.Sequential(
            nn.Linear(16 * 5 * 5, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, 32, 32] to logits, float [B, num_classes].

        Raises:
            InputError: the images have another size.
        """
        logits: Tensor = self.classifier(self.features(small_images(images)).flatten(1))
        return logits
