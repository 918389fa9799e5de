"""Executors by name."""

from __future__ import annotations

from ule_datasets.base.errors import InputError
from ule_datasets.compute.executor import Executor
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.compute.ray import RayExecutor

EXECUTORS = ("local", "ray")
"""What ``open_executor`` knows."""


def open_executor(name: str, workers: int, *, gpus_per_task: float = 0.0, preload: tuple[str, ...] = ()) -> Executor:
    """The executor of that name, to be used in a ``with`` statement.

    ``local``: processes of this machine, which find the modules of ``preload`` imported and share the GPUs there are.
    ``ray``: the cluster that ``RayExecutor`` finds or starts, which sets ``gpus_per_task`` aside.

    Raises:
        InputError: another name, or fewer than one worker.
    """
    if name == "local":
        return LocalExecutor(workers, preload=preload)
    if name == "ray":
        return RayExecutor(workers, gpus_per_task=gpus_per_task)
    raise InputError(f"no executor is called {name!r}; there are: {', '.join(EXECUTORS)}")
