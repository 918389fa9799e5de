"""One training run in several processes, by torch's own launcher: each gets a rank, and on CUDA a GPU."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import distributed

from ule_datasets.base.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")
_HANG_UP = {getattr(signal, name) for name in ("SIGHUP", "SIGQUIT") if hasattr(signal, name)}
Work = Callable[[Task, int, torch.device | None], Result]
"""(task, rank, the rank's own device or ``None`` for the task's) to a result; rank 0's counts."""


def on_ranks(work: Work[Task, Result], task: Task, *, ranks: int, on_cuda: bool) -> Result:
    """Do the work in ``ranks`` processes that form a process group; with one, in this process and without a group.

    Raises:
        InputError: there are fewer GPUs than ranks.
        KeyboardInterrupt: Ctrl-C or another signal that ends processes came, and the ranks are gone.
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
    with _signals_left_alone():
        results: dict[int, Result] = elastic_launch(config, _in_group)(work, task, on_cuda)
    return results[0]


@contextmanager
def _signals_left_alone() -> Iterator[None]:
    """The launcher handles signals by an exception of its own, and goes on with that when it has ended."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, *_HANG_UP)}
    try:
        yield
    except SignalException as error:
        raise KeyboardInterrupt from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _in_group(work: Work[Task, Result], task: Task, on_cuda: bool) -> Result | None:
    rank = int(os.environ["RANK"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_cuda else None
    if device is not None:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_cuda else "gloo")
    result = work(task, rank, device)
    distributed.destroy_process_group()  # not after an error: the others would fail first, and hide it
    return result if rank == 0 else None
