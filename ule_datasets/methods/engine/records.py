"""What long crafts have in common: the record of where they ran, how often they save, and words for an estimate."""

from __future__ import annotations

import torch

from ule_datasets.base.progress import Reporter
from ule_datasets.compute.devices import describe_device

SECONDS_BETWEEN_CHECKPOINTS = 60.0
"""Within a phase, a round or a generator; one is always written at its end."""
GPU_FLOPS = 50e12
"""What one large GPU sustains on small convolutions, for the estimate."""


def environment(device: torch.device) -> dict[str, str]:
    """What a result depends on besides recipe and source: the device, and the library that computed on it."""
    versions = {"device": describe_device(device), "torch": torch.__version__}
    if device.type == "cuda":
        return {
            **versions,
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        }
    return {**versions, "cpu_capability": torch.backends.cpu.get_cpu_capability()}


def continued(before: list[dict[str, str]], now: dict[str, str], reporter: Reporter) -> list[dict[str, str]]:
    """The environments of a craft that goes on: one more, with a warning, where it was begun in another one."""
    if before[-1] == now:
        return before
    reporter.warn(
        f"this craft was begun elsewhere or with other versions ({_listed(before[-1])}; now {_listed(now)}): "
        "it will not repeat bit for bit"
    )
    return [*before, now]


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in versions.items())
