"""One training run in several processes, by torch's own launcher: each gets a rank, and on CUDA a GPU."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import distributed

from ule_datasets.base.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")
Work = Callable[[Task, int, torch.device | None], Result]
"""(task, rank, the rank's own device or ``None`` for the task's) to a result; rank 0's counts."""


def on_ranks(work: Work[Task, Result], task: Task, *, ranks: int, on_cuda: bool) -> Result:
    """Do the work in ``ranks`` processes that form a process group; with one, in this process and without a group.

    Raises:
        InputError: there are fewer GPUs than ranks.
    """
    if ranks == 1:
        return work(task, 0, None)
    if on_cuda and ranks > torch.cuda.device_count():
        raise InputError(f"{ranks} ranks need a GPU each; there are {torch.cuda.device_count()}")
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        start_method="spawn",
    )
    results: dict[int, Result] = elastic_launch(config, _in_group)(work, task, on_cuda)
    return results[0]


def _in_group(work: Work[Task, Result], task: Task, on_cuda: bool) -> Result | None:
    rank = int(os.environ["RANK"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_cuda else None
    if device is not None:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_cuda else "gloo")
    result = work(task, rank, device)
    distributed.destroy_process_group()  # not after an error: the others would fail first, and hide it
    return result if rank == 0 else None
