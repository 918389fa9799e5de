"""Random choices, made on the CPU, brought to the device of the images without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(choices: Tensor, device: torch.device) -> Tensor:
    """The same numbers on another device; the copy to a GPU starts from pinned memory, so nothing waits."""
    if device.type == "cuda":
        choices = choices.pin_memory()
    return choices.to(device, non_blocking=True)
