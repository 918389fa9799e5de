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
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from ule_datasets.base.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")
Handle = TypeVar("Handle", bound=Hashable)

EXECUTORS = ("local", "ray")
"""What ``open_executor`` knows."""
AHEAD = 16
"""Tasks per worker that ``map`` takes ahead of the result it gives next."""


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

    def start(self) -> None:
        """Prepare for tasks ahead of the first one, where that takes long; does not wait for it."""

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        ahead: int = AHEAD,
        attempts: int = 3,
        on_lost: Callable[[str], None] = _say_nothing,
    ) -> Iterator[Result]:
        """Apply ``function`` to every task; lazily, in order.

        Worker processes are kept from task to task. They go on while the caller is busy with a result, or while
        one task takes long: up to ``ahead`` tasks per worker are taken from ``tasks`` and worked on before the
        first of them has given its result. All of these, tasks or results, are held here meanwhile.

        A worker that dies (killed, out of memory, its node gone) costs only what it was doing: that task is tried
        again at once, and no attempt of any other is counted. A task that loses its worker in every attempt ends
        the map when its turn has come, after the results of all tasks before it. Stopping early, by an exception
        or by leaving the executor, ends the tasks that run.

        Args:
            function: must be importable where it runs, or picklable by the executor.
            tasks: picklable; taken one by one, as there is room for them.
            ahead: at least 1.
            attempts: how often a task is tried in all, at least 1.
            on_lost: told in words, in the caller's thread while it waits for a result, of every worker that died.

        Raises:
            InputError: ``ahead`` or ``attempts`` is below 1.
            BrokenExecutor: (of ``concurrent.futures``) a task lost its worker in every attempt; says which, counted
                from 0, and how the last one died.
            BaseException: whatever ``function`` raises, when its task's turn has come; that is no lost worker, and
                is not tried again.
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
        from ule_datasets.compute.ray import RayExecutor

        return RayExecutor(workers, gpus_per_task=gpus_per_task)
    raise InputError(f"no executor is called {name!r}; there are: {', '.join(EXECUTORS)}")


class LocalExecutor:
    """Runs tasks in ``workers`` processes of this machine; with one worker, in this process.

    Functions and tasks must be picklable. To be used in a ``with`` statement, which ends the processes.
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
        self._kept: _Processes | None = None
        self._unfinished: list[Generator[Any, None, None]] = []

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close_all(self._unfinished)
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def start(self) -> None:
        """Let the process that workers are forked from import the modules, while this one does other work."""
        if self.workers > 1 and self._context().get_start_method() == "forkserver":
            forkserver.ensure_running()

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        ahead: int = AHEAD,
        attempts: int = 3,
        on_lost: Callable[[str], None] = _say_nothing,
    ) -> Iterator[Result]:
        """As ``Executor.map`` says; with one worker in this process: nothing is taken ahead, or can be lost."""
        check_attempts(attempts)
        check_ahead(ahead)
        if self.workers == 1:
            return map(function, tasks)
        if self._kept is None:
            self._kept = _Processes(self._context(), reused=True)
        launcher = _ProcessLauncher[Task, Result](function, self._kept)
        results = run_in_order(launcher, tasks, workers=self.workers, ahead=ahead, attempts=attempts, on_lost=on_lost)
        self._unfinished.append(results)
        return results

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
        launcher = _ProcessLauncher[Task, Result](function, _Processes(self._context(), reused=False))
        results = run_unordered(launcher, tasks, workers=self.workers, attempts=attempts, on_lost=on_lost)
        self._unfinished.append(results)
        return results

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
        """Begin an attempt. This method, ``outcome`` and ``stop`` may be called from several threads."""

    @abstractmethod
    def first_ended(self, handles: Sequence[Handle]) -> Handle:
        """Wait until at least one of these attempts has ended, and name it."""

    @abstractmethod
    def outcome(self, handle: Handle) -> Result | Lost:
        """Wait until an attempt has ended, and say what it gave; raises what the function raised."""

    @abstractmethod
    def stop(self, handles: Sequence[Handle]) -> None:
        """End attempts whose outcomes nobody will use."""


def check_attempts(attempts: int) -> None:
    """Raise ``InputError`` for fewer than one attempt."""
    if attempts < 1:
        raise InputError(f"attempts is {attempts}, must be at least 1")


def check_ahead(ahead: int) -> None:
    """Raise ``InputError`` for a window without room for a task."""
    if ahead < 1:
        raise InputError(f"ahead is {ahead}, must be at least 1")


def run_in_order(
    launcher: Launcher[Task, Result, Handle],
    tasks: Iterable[Task],
    *,
    workers: int,
    ahead: int,
    attempts: int,
    on_lost: Callable[[str], None],
) -> Generator[Result, None, None]:
    """Give the results in the order of the tasks, holding at most ``ahead`` tasks or results per worker.

    One thread for each worker sees attempts through, so that workers do not wait for the caller. Closing the
    generator stops what runs.
    """
    window: deque[Future[Result]] = deque()
    news: SimpleQueue[str] = SimpleQueue()  # what on_lost is to be told, and "" for every task that has ended
    attempting = _Attempting(launcher, attempts, news.put)
    threads = ThreadPoolExecutor(workers)

    def next_result() -> Result:
        while not window[0].done() or not news.empty():
            if words := news.get():
                on_lost(words)
        return window.popleft().result()

    try:
        for index, task in enumerate(tasks):
            window.append(threads.submit(attempting.result, index, task))
            window[-1].add_done_callback(lambda _: news.put(""))
            if window[0].done() or len(window) == ahead * workers:
                yield next_result()
        while window:
            yield next_result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        attempting.stop()
        threads.shutdown()


class _Attempting(Generic[Task, Result, Handle]):
    """Tries tasks until they give a result, from several threads, until it is stopped."""

    def __init__(self, launcher: Launcher[Task, Result, Handle], attempts: int, say: Callable[[str], None]) -> None:
        self._launcher = launcher
        self._attempts = attempts
        self._say = say
        self._running: dict[int, Handle] = {}  # by thread
        self._lock = threading.Lock()
        self._stopped = False

    def result(self, index: int, task: Task) -> Result:
        for attempt in range(1, self._attempts + 1):
            outcome = self._outcome(task)
            if not isinstance(outcome, Lost):
                return outcome
            words = f"task {index} lost its worker in attempt {attempt} of {self._attempts}: {outcome.reason}"
            self._say(words)
            if self._stopped:
                break
        raise BrokenExecutor(words)

    def stop(self) -> None:
        self._stopped = True
        with self._lock:
            running = list(self._running.values())
            self._running.clear()
        self._launcher.stop(running)

    def _outcome(self, task: Task) -> Result | Lost:
        handle = self._launcher.start(task)
        with self._lock:
            self._running[threading.get_ident()] = handle
        if self._stopped:  # too late for whoever said so to know this one
            self.stop()
        try:
            return self._launcher.outcome(handle)
        finally:
            with self._lock:
                self._running.pop(threading.get_ident(), None)


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
        launcher.stop(list(running))


def close_all(generators: list[Generator[Any, None, None]]) -> None:
    """Close and forget them."""
    while generators:
        generators.pop().close()


class _Worker:
    """A process for one task after another; tasks and results go through a pipe.

    Both are pickled plainly: the reductions of ``multiprocessing`` would leave tensors in memory that goes
    away with the process.
    """

    def __init__(self, context: BaseContext) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,))  # type: ignore[attr-defined]
        self.process.start()
        theirs.close()

    def ask(self, content: bytes) -> None:
        # A process that is gone already is found by its end, like one that dies later.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send_bytes(content)

    def answer(self) -> bytes | None:
        """What it sends; ``None``: it ended before it had sent all of it."""
        multiprocessing.connection.wait([self.pipe, self.process.sentinel])
        try:
            # Where it started processes of its own, these may hold the pipe open: ask before reading.
            return self.pipe.recv_bytes() if self.pipe.poll() else None
        except (EOFError, OSError):
            return None


class _Processes:
    """Starts and ends workers; with ``reused``, one that has done its task is kept for another."""

    def __init__(self, context: BaseContext, *, reused: bool) -> None:
        self._context = context
        self._reused = reused
        self._idle: list[_Worker] = []
        # Wherever a process is started or joined, multiprocessing looks for the end of all others, and two threads
        # that see the same end would disagree about its exit code.
        self._lock = threading.Lock()

    def take(self) -> _Worker:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.process.is_alive():
                    return worker
            return _Worker(self._context)

    def give_back(self, worker: _Worker) -> None:
        if self._reused:
            self._idle.append(worker)
        else:
            self.end([worker])

    def end(self, workers: Sequence[_Worker]) -> None:
        """Let them go, and wait until they are gone."""
        for worker in workers:
            worker.pipe.close()
        with self._lock:
            for worker in workers:
                worker.process.join()

    def kill(self, workers: Sequence[_Worker]) -> None:
        """End them in the middle of a task; their pipes may be in use by another thread."""
        for worker in workers:
            worker.process.terminate()
        with self._lock:
            for worker in workers:
                worker.process.join()

    def close(self) -> None:
        self.end(self._idle)
        self._idle = []


class _ProcessLauncher(Launcher[Task, Result, _Worker]):
    """A local process for every attempt, new or not."""

    def __init__(self, function: Callable[[Task], Result], processes: _Processes) -> None:
        self._function = function
        self._processes = processes

    def start(self, task: Task) -> _Worker:
        content = pickle.dumps((self._function, task), pickle.HIGHEST_PROTOCOL)
        worker = self._processes.take()
        worker.ask(content)
        return worker

    def first_ended(self, handles: Sequence[_Worker]) -> _Worker:
        signs = [sign for worker in handles for sign in (worker.pipe, worker.process.sentinel)]
        ready = multiprocessing.connection.wait(signs)
        return next(worker for worker in handles if worker.pipe in ready or worker.process.sentinel in ready)

    def outcome(self, handle: _Worker) -> Result | Lost:
        answer = handle.answer()
        if answer is None:
            self._processes.end([handle])
            return Lost(reason=_how_it_ended(handle.process.exitcode))
        self._processes.give_back(handle)
        done, content = pickle.loads(answer)  # noqa: S301 (from our own process)
        if not done:
            raise content
        result: Result = content
        return result

    def stop(self, handles: Sequence[_Worker]) -> None:
        self._processes.kill(handles)


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed (signal {-code}), perhaps for want of memory"
    return f"its process ended by itself (exit code {code})"


def _serve(pipe: Connection) -> None:
    """Main function of a ``_Worker``: until nobody holds the other end of the pipe."""
    _prepare_worker()
    while True:
        try:
            pipe.send_bytes(_answer(pipe.recv_bytes()))
        except EOFError:
            return


def _answer(content: bytes) -> bytes:
    try:
        function, task = pickle.loads(content)  # noqa: S301 (from our own parent)
        return pickle.dumps((True, function(task)), pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        return pickle.dumps((False, _portable(error)))


def _portable(error: BaseException) -> BaseException:
    """The error with its traceback as a note; where it cannot be pickled, one that says the same."""
    error.add_note(f"\nin a worker process:\n{''.join(traceback.format_exception(error))}")
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone, even if it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()


def _exit_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
