"""Where independent pieces of work run: in this process, or in several local ones."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def available_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LocalExecutor:
    """Maps a function over tasks with ``workers`` processes; with one worker, in this process.

    Functions and tasks must be picklable. Results come in the order of the tasks, whatever the number of
    workers, and at most two tasks per worker are held at a time.
    """

    def __init__(self, workers: int = 1, *, preload: tuple[str, ...] = ()) -> None:
        self.workers = workers
        self._preload = preload
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is None:
            return
        if error is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None

    def start(self) -> None:
        """Start the workers ahead of the first task, so that their imports overlap with other work."""
        if self.workers > 1:
            self._started().submit(_nothing)

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Apply ``function`` to every task; lazily, in order."""
        if self.workers == 1:
            yield from map(function, tasks)
            return
        pool, pending = self._started(), deque[Future[Result]]()
        for task in tasks:
            pending.append(pool.submit(function, task))
            if len(pending) >= 2 * self.workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # forkserver: one process imports the libraries once and never runs a thread, so forking it is safe.
            method = "forkserver" if sys.platform == "linux" else "spawn"
            context = multiprocessing.get_context(method)
            if method == "forkserver":
                context.set_forkserver_preload([__name__, *self._preload])
            self._pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_prepare_worker)
        return self._pool


def _nothing() -> None:
    return None


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone, even if it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()


def _exit_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
