"""Where independent pieces of work run: in this process, in several local ones, or on a Ray cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from ule_datasets.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")
Handle = TypeVar("Handle", bound=Hashable)

EXECUTORS = ("local", "ray")
"""What ``open_executor`` knows."""


def available_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """Stands for the result of a task that was given up, because its worker died in every attempt."""

    reason: str
    """How the last one died, in words."""


def _say_nothing(_: object) -> None:
    return None


class Executor(Protocol):
    """Somewhere to run one function on many independent tasks."""

    @property
    def workers(self) -> int:
        """How many tasks run at a time."""

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Apply ``function`` to every task; lazily, in order.

        Raises:
            BrokenExecutor: (of ``concurrent.futures``) a worker died.
        """

    def unordered(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        *,
        attempts: int = 2,
        on_lost: Callable[[Task], None] = _say_nothing,
    ) -> Iterator[tuple[int, Result | Lost]]:
        """Apply ``function`` to every task; results come as they are ready, each with the index of its task.

        Every attempt has a process of its own, so a worker that dies (killed, out of memory, its node gone)
        costs only what it was doing; the others go on and no attempt of theirs is counted. Stopping early, by an
        exception or by leaving the executor, ends the tasks that run.

        Args:
            function: must be importable where it runs, or picklable by the executor.
            tasks: picklable.
            attempts: how often a task is tried in all, at least 1; after the last, its result is ``Lost``.
            on_lost: called here with the task each time its worker died, before it is tried again or given up.

        Raises:
            InputError: ``attempts`` is below 1.
            BaseException: whatever ``function`` raises; that is no lost worker, and is not tried again.
        """


def open_executor(
    name: str, workers: int, *, gpus_per_task: float = 0.0, preload: tuple[str, ...] = ()
) -> AbstractContextManager[Executor]:
    """The executor of that name, to be used in a ``with`` statement.

    Args:
        name: ``local`` (processes of this machine) or ``ray`` (the cluster that ``RayExecutor`` finds or starts).
        workers: how many tasks run at a time, at least 1.
        gpus_per_task: what Ray sets aside for each task; local processes share the GPUs there are.
        preload: modules that local workers find imported.

    Raises:
        InputError: another name, or fewer than one worker.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}, must be at least 1")
    if name == "local":
        return LocalExecutor(workers, preload=preload)
    if name == "ray":
        from ule_datasets.ray_executor import RayExecutor

        return RayExecutor(workers, gpus_per_task=gpus_per_task)
    raise InputError(f"no executor is called {name!r}; there are: {', '.join(EXECUTORS)}")


class LocalExecutor:
    """Maps a function over tasks with ``workers`` processes; with one worker, in this process.

    Functions and tasks must be picklable. Results of ``map`` come in the order of the tasks, whatever the number
    of workers, and at most two tasks per worker are held at a time.
    """

    def __init__(self, workers: int = 1, *, preload: tuple[str, ...] = (), isolated: bool = False) -> None:
        """Start nothing yet.

        Args:
            workers: how many processes.
            preload: modules that they find imported.
            isolated: give each task of ``unordered`` a process of its own even with one worker, so that it may
                be lost and tried again; without it, one worker is this process.
        """
        self.workers = workers
        self._preload = preload
        self._in_this_process = workers == 1 and not isolated
        self._pool: ProcessPoolExecutor | None = None
        self._unfinished: list[Generator[Any, None, None]] = []

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close_all(self._unfinished)
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

    def unordered(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        *,
        attempts: int = 2,
        on_lost: Callable[[Task], None] = _say_nothing,
    ) -> Iterator[tuple[int, Result | Lost]]:
        """As ``Executor.unordered`` says: a new process for every attempt, each sent its own copy of the task.

        With one worker (and not ``isolated``) the tasks run in this process, in order: nothing can be lost.
        """
        check_attempts(attempts)
        if self._in_this_process:
            return ((index, function(task)) for index, task in enumerate(tasks))
        launcher = _ProcessLauncher[Task, Result](function, self._context())
        results = run_unordered(launcher, tasks, workers=self.workers, attempts=attempts, on_lost=on_lost)
        self._unfinished.append(results)
        return results

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.workers, mp_context=self._context(), initializer=_prepare_worker)
        return self._pool

    def _context(self) -> BaseContext:
        # forkserver: one process imports the libraries once and never runs a thread, so forking it is safe.
        method = "forkserver" if sys.platform == "linux" else "spawn"
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([__name__, *self._preload])
        return context


class Launcher(ABC, Generic[Task, Result, Handle]):
    """Starts attempts at tasks, and says how each of them ended."""

    @abstractmethod
    def start(self, task: Task) -> Handle:
        """Begin an attempt."""

    @abstractmethod
    def first_ended(self, handles: Sequence[Handle]) -> Handle:
        """Wait until at least one of these attempts has ended, and name it."""

    @abstractmethod
    def outcome(self, handle: Handle) -> Result | Lost:
        """What an attempt that has ended gave; raises what the function raised."""

    @abstractmethod
    def stop(self, handle: Handle) -> None:
        """End an attempt that has not been asked for its outcome."""


def check_attempts(attempts: int) -> None:
    """Raise ``InputError`` for fewer than one attempt."""
    if attempts < 1:
        raise InputError(f"attempts is {attempts}, must be at least 1")


def run_unordered(
    launcher: Launcher[Task, Result, Handle],
    tasks: Sequence[Task],
    *,
    workers: int,
    attempts: int,
    on_lost: Callable[[Task], None],
) -> Generator[tuple[int, Result | Lost], None, None]:
    """Keep ``workers`` attempts going until every task has its result or has been lost ``attempts`` times.

    A lost task goes to the end of the queue. Closing the generator stops what runs.
    """
    waiting = deque((index, 1) for index in range(len(tasks)))
    running: dict[Handle, tuple[int, int]] = {}

    def fill() -> None:
        while waiting and len(running) < workers:
            index, attempt = waiting.popleft()
            running[launcher.start(tasks[index])] = index, attempt

    try:
        fill()
        while running:
            handle = launcher.first_ended(list(running))
            index, attempt = running.pop(handle)
            outcome = launcher.outcome(handle)
            if isinstance(outcome, Lost):
                on_lost(tasks[index])
                if attempt < attempts:
                    waiting.append((index, attempt + 1))
                    fill()
                    continue
            fill()
            yield index, outcome
    finally:
        for handle in running:
            launcher.stop(handle)


def close_all(generators: list[Generator[Any, None, None]]) -> None:
    """Close and forget them."""
    while generators:
        generators.pop().close()


class _Child:
    """A process for one task, which comes and goes through a pipe.

    Both are pickled plainly: the reductions of ``multiprocessing`` would leave tensors in memory that goes
    away with the process.
    """

    def __init__(self, context: BaseContext, content: bytes) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,))  # type: ignore[attr-defined]
        self.process.start()
        theirs.close()
        # A process that is gone already is found by its end, like one that dies later.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send_bytes(content)

    def answer(self) -> bytes | None:
        """What it sent before it ended; ``None``: nothing, or not all of it."""
        try:
            # Where it started processes of its own, these may hold the pipe open: ask before reading.
            message = self.pipe.recv_bytes() if self.pipe.poll() else None
        except (EOFError, OSError):
            message = None
        self.process.join()
        self.pipe.close()
        return message

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()


class _ProcessLauncher(Launcher[Task, Result, _Child]):
    """A local process for every attempt."""

    def __init__(self, function: Callable[[Task], Result], context: BaseContext) -> None:
        self._function = function
        self._context = context

    def start(self, task: Task) -> _Child:
        return _Child(self._context, pickle.dumps((self._function, task), pickle.HIGHEST_PROTOCOL))

    def first_ended(self, handles: Sequence[_Child]) -> _Child:
        signs = [sign for child in handles for sign in (child.pipe, child.process.sentinel)]
        ready = multiprocessing.connection.wait(signs)
        return next(child for child in handles if child.pipe in ready or child.process.sentinel in ready)

    def outcome(self, handle: _Child) -> Result | Lost:
        answer = handle.answer()
        if answer is None:
            return Lost(reason=_how_it_ended(handle.process.exitcode))
        done, content = pickle.loads(answer)  # noqa: S301 (from our own process)
        if not done:
            raise content
        result: Result = content
        return result

    def stop(self, handle: _Child) -> None:
        handle.stop()


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed (signal {-code}), perhaps for want of memory"
    return f"its process ended by itself (exit code {code})"


def _serve(pipe: Connection) -> None:
    """Main function of a ``_Child``."""
    _prepare_worker()
    try:
        function, task = pickle.loads(pipe.recv_bytes())  # noqa: S301 (from our own parent)
        answer = pickle.dumps((True, function(task)), pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        answer = pickle.dumps((False, _portable(error)))
    pipe.send_bytes(answer)


def _portable(error: BaseException) -> BaseException:
    """The error with its traceback as a note; where it cannot be pickled, one that says the same."""
    error.add_note(f"\nin a worker process:\n{''.join(traceback.format_exception(error))}")
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


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
