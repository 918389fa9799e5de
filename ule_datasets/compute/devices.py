"""Where torch computes, and how exactly: devices, threads, kernels that repeat, numbers inside products."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.compute.precision import Precision

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")


def pick_device(name: str) -> torch.device:
    """The device for ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:INDEX``.

    Raises:
        InputError: it is none of these, or this machine does not have it.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    allowed = ["auto", "cpu", *(["cuda"] if available else []), *(f"cuda:{i}" for i in range(available))]
    if name not in allowed:
        raise InputError(f"device {name!r}: on this machine it can be {', '.join(allowed)}")
    if name == "auto":
        name = "cuda" if available else "cpu"
    return torch.device(name)


def describe_device(device: torch.device) -> str:
    """The hardware's name, e.g. ``AMD EPYC 7763 (CPU)`` or ``NVIDIA H200``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_model()} (CPU)"


def describe_machine(device: torch.device) -> dict[str, str]:
    """What the bits of a result depend on besides code, seeds and threads: the hardware, and what computes on it."""
    versions = {"device": describe_device(device), "torch": torch.__version__}
    if device.type == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        return {**versions, "cuda": str(torch.version.cuda), "cudnn": str(cudnn)}
    return {**versions, "cpu_capability": torch.backends.cpu.get_cpu_capability()}


def cpu_model() -> str:
    """The processor's name, as far as the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Let torch use only algorithms that repeat; restores its settings afterwards."""
    enabled, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    debugging: Any = torch.utils.deterministic
    benchmark, fill = torch.backends.cudnn.benchmark, debugging.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats only with this, read when it starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    debugging.fill_uninitialized_memory = False  # a debugging aid that writes every tensor twice
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        debugging.fill_uninitialized_memory = fill


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Let CUDA's float32 products use TF32 only if the precision says so; restores torch's settings afterwards."""
    wanted = "tf32" if precision is Precision.TF32 else "ieee"
    cudnn: Any = torch.backends.cudnn
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv)
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = wanted
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use so many CPU threads; restores the number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def median_seconds(work: Callable[[int], Tensor], times: int, device: torch.device) -> float:
    """Median of ``work(1)``, ``work(2)``, ...; a first ``work(0)`` pays for allocations and is not counted."""
    seconds = []
    for number in range(times + 1):
        started = time.perf_counter()
        work(number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device; the copy to a GPU starts from pinned memory, so nothing waits."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def resident(array: np.ndarray, device: torch.device) -> Tensor:
    """An array on the device; on a CPU it shares the array's memory where it can, so never write to it."""
    shareable = array.flags.writeable and array.flags.c_contiguous
    return torch.from_numpy(array if shareable else np.array(array)).to(device)
