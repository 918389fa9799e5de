"""Models that start from a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)
ModelFactory = Callable[[int], nn.Module]
"""From the number of classes to an initialised model: float32 [B, 3, H, W] in, logits [B, classes] out."""


def initialised(factory: Callable[[], Model], *, seed: int) -> Model:
    """What the factory makes, with its own initialisation from the seed alone; on the CPU, in float32.

    Torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return factory()
