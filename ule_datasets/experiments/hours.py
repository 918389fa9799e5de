"""How long planned runs may take, said without training or reading an image.

From what finished runs of the same kind took here; where there are none, from the rate of large matrix products, which
no training exceeds and small networks do not come near: a lower bound, and called one.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ule_datasets.base import records
from ule_datasets.base.content import content
from ule_datasets.base.errors import InputError
from ule_datasets.base.shown import counted
from ule_datasets.compute.devices import cpu_threads, describe_device, median_seconds, products_in
from ule_datasets.compute.precision import Precision
from ule_datasets.experiments.runs import RunTask
from ule_datasets.victims.history import EpochRecord

LOOKED_AT = 200
"""The newest finished runs, at most."""

_Kind = tuple[Any, ...]


def expected_hours(tasks: Sequence[RunTask], done: Sequence[float], folder: Path) -> str:
    """The time of what is left of tasks that all run in one way on one device, and what that was worked out from.

    Args:
        tasks: at least one that is not done.
        done: how much of each is behind it, from 0 to 1.
        folder: of finished runs.
    """
    first, earlier = tasks[0], _seconds_per_epoch(folder)
    on_gpu = first.device.type == "cuda"
    shared_by = first.ranks * (1 if on_gpu else first.threads)
    hours, bound = 0.0, 0.0
    taken: dict[str, int] = {}
    for task, share in zip(tasks, done, strict=True):
        known = earlier.get(_kind_of(task))
        if known is None:
            bound += (1 - share) * task.flop
        elif share < 1:
            taken[task.protocol.model] = len(known)
            hours += (1 - share) * task.protocol.epochs * statistics.median(known) * shared_by / 3600
    reasons = [f"{model} as {counted(count, 'earlier run')} took" for model, count in taken.items()]
    if bound:
        rate = product_rate(first.device, first.protocol.precision)
        hours += bound / rate / 3600
        others = "the others " if taken else ""
        each = f"{rate / 1e9:,.0f} GFLOP/s {'' if on_gpu else 'a core'}".rstrip()
        reasons.append(f"{others}at the rate of large matrix products, {each}, which no run exceeds")
    amount = f"{'at least' if bound else 'about'} {_of_a('GPU' if on_gpu else 'core', hours)}"
    return f"{amount} on {describe_device(first.device)}: {'; '.join(reasons)}"


def _of_a(what: str, hours: float) -> str:
    """``4.5 core hours``, ``23 core seconds``."""
    if hours >= 0.5:
        return f"{hours:.2g} {what} hours"
    minutes = 60 * hours
    return f"{minutes:.2g} {what} minutes" if minutes >= 2 else f"{60 * minutes:.2g} {what} seconds"


def measured_seconds(tasks: Sequence[RunTask], done: Sequence[float], folder: Path) -> list[float | None]:
    """Seconds that what is left of each task takes by the median of finished runs of its kind; ``None``: there is none.

    Args:
        tasks: what is trained.
        done: how much of each is behind it, from 0 to 1.
        folder: of finished runs.
    """
    earlier = _seconds_per_epoch(folder)

    def seconds(task: RunTask, share: float) -> float | None:
        known = earlier.get(_kind_of(task))
        return None if known is None else (1 - share) * task.protocol.epochs * statistics.median(known)

    return [seconds(task, share) for task, share in zip(tasks, done, strict=True)]


def _seconds_per_epoch(folder: Path) -> dict[_Kind, list[float]]:
    """Of finished runs, by what decides their speed; files that are no such runs are passed over."""
    found: dict[_Kind, list[float]] = defaultdict(list)
    newest = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)[-LOOKED_AT:]
    for path in newest:
        try:
            run = records.read(_Run, path)
            kind = _kind(run.protocol, run.epochs[0].windows[-1].step, (run.device, run.threads, run.ranks))
            found[kind].append(run.seconds / len(run.epochs))
        except (OSError, InputError, LookupError, TypeError):
            continue
    return dict(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """What counts of a run that is kept."""

    protocol: dict[str, Any]
    device: str
    threads: int
    ranks: int
    epochs: tuple[EpochRecord, ...]
    seconds: float


def _kind(protocol: dict[str, Any], steps: int, setting: tuple[object, ...]) -> _Kind:
    names = ("model", "batch_size", "precision", "compiled")
    return *(protocol.get(name) for name in names), protocol["strategy"]["name"], steps, *setting


def _kind_of(task: RunTask) -> _Kind:
    steps = task.protocol.steps_per_epoch(task.data.num_train, task.ranks)
    return _kind(content(task.protocol), steps, _setting(task))


def _setting(task: RunTask) -> tuple[object, ...]:
    return describe_device(task.device), task.threads, task.ranks


def product_rate(device: torch.device, precision: Precision) -> float:
    """FLOP/s of a large matrix product, the fastest of five, on a device; a multiply-add counts as two.

    On a CPU that of one thread, by the time that it had a core: what else the machine does makes no difference.
    """
    on_cpu = device.type == "cpu"
    side = 1024 if on_cpu else 8192
    kind = torch.bfloat16 if precision is Precision.BFLOAT16 else torch.float32
    left, right = torch.ones(2, side, side, dtype=kind, device=device)
    with products_in(precision), cpu_threads(1):
        if not on_cpu:
            return 2 * side**3 / min(median_seconds(lambda _: left @ right, 1, device) for _ in range(5))
        seconds = []
        for _ in range(6):
            started = time.thread_time()
            left @ right
            seconds.append(time.thread_time() - started)
    return 2 * side**3 / min(seconds[1:])
