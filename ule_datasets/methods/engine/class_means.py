"""Means over the images of each class, with gradients that repeat on CPU and CUDA.

They are matrix products; scattered additions would not repeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ule_datasets.base.lazy import lazy

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")


def membership(labels: Tensor, num_classes: int) -> Tensor:
    """Which image is of which class, bool [B, K]; of labels int64 [B]."""
    return labels[:, None] == torch.arange(num_classes, device=labels.device)


def class_means(outputs: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Means over the images of each class, through which gradients flow.

    Args:
        outputs: float [B, C, H, W].
        labels: int64 [B].
        num_classes: K.

    Returns:
        The means, float [K, C, H, W], channels-last in memory, zeros for a class without images; and which classes
        have some, bool [K].
    """
    members = membership(labels, num_classes).to(outputs.dtype)
    counts = members.sum(dim=0)
    rows = outputs.permute(0, 2, 3, 1)
    means = members.T @ rows.flatten(1) / counts.clamp(min=1)[:, None]
    return means.view(num_classes, *rows.shape[1:]).permute(0, 3, 1, 2), counts > 0


def given_to(means: Tensor, targets: Tensor) -> Tensor:
    """The perturbation of each image's target, ``means[targets]``; its gradient repeats on CPU and CUDA.

    Args:
        means: float [K, C, H, W].
        targets: int64 [B].

    Returns:
        Float [B, C, H, W], channels-last in memory.
    """
    members = membership(targets, len(means)).to(means.dtype)
    rows = means.permute(0, 2, 3, 1)
    return (members @ rows.flatten(1)).view(len(targets), *rows.shape[1:]).permute(0, 3, 1, 2)
