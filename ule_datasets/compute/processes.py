"""Tasks in this process, or in several of this machine."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.util import get_temp_dir

from ule_datasets.base import memory
from ule_datasets.compute.executor import Executor, Launcher, Lost, Need, Result, Task

_UNKNOWN = 255
"""Exit code where the process that starts workers, and would know theirs, is gone."""
_NOTHING = b""
"""Sent in place of a task: there will be none."""
_SECONDS_OF_AN_END = 0.5
"""How long the system may take to close what a process held that was killed."""


class LocalExecutor(Executor):
    """Runs tasks in ``workers`` processes of this machine; with one worker in this process, where nothing can be lost.

    Functions and tasks must be picklable. Processes of ``map`` are kept from task to task; every attempt of
    ``unordered`` has a new one, which is sent its own copy of the task.
    """

    def __init__(self, workers: int = 1, *, preload: tuple[str, ...] = ()) -> None:
        """Start nothing yet; the processes will find the modules of ``preload`` imported."""
        super().__init__(workers)
        self._processes = _Processes(preload)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._processes.close()

    def start(self) -> None:
        """Let the process that workers are forked from import the modules, while this one does other work."""
        if self.workers > 1:
            self._processes.prepare()

    def _fitting(self, need: Need | None) -> int:
        free = memory.available()
        if need is None or free is None:
            return self.workers
        each = need.task + (need.process if self.workers > 1 else 0)
        if each * self.workers <= free:
            return self.workers
        memory.check_fits(each, need.what)
        need.tell(f"{free // each} of {self.workers} workers at a time: {memory.beside(each, need.what)}")
        return free // each

    def _launcher(self, function: Callable[[Task], Result], *, reused: bool) -> _ProcessLauncher[Task, Result] | None:
        return None if self.workers == 1 else _ProcessLauncher(function, self._processes, reused=reused)


class _Worker:
    """A process for one task after another; tasks and results go through a pipe.

    Both are pickled plainly: the reductions of ``multiprocessing`` would leave tensors in memory that goes
    away with the process.
    """

    def __init__(self, context: BaseContext) -> None:
        self.pipe, theirs = context.Pipe()
        # Where multiprocessing has a folder for sockets, a parent that is killed cannot delete it.
        folder = get_temp_dir() if context.get_start_method() == "forkserver" else None
        arguments = (theirs, _life()[0], folder)
        self.process = context.Process(target=_serve, args=arguments)  # type: ignore[attr-defined]
        with theirs, _deaf():
            self.process.start()

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
    """Starts and ends workers, and keeps those that may be given another task."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        self._preload = preload
        self._idle: list[_Worker] = []
        self._kills = memory.kills()
        # Wherever a process is started or joined, multiprocessing looks for the end of all others, and two threads
        # that see the same end would disagree about its exit code.
        self._lock = threading.Lock()

    def prepare(self) -> None:
        if self._context().get_start_method() == "forkserver":
            with _deaf():
                forkserver.ensure_running()

    def take(self, *, reused: bool) -> _Worker:
        """A new one, or with ``reused`` one that was kept."""
        with self._lock:
            while self._idle and reused:
                worker = self._idle.pop()
                if worker.process.is_alive():
                    return worker
            return _Worker(self._context())

    def keep(self, worker: _Worker) -> None:
        self._idle.append(worker)

    def end(self, workers: Sequence[_Worker], *, killed: bool = False) -> None:
        """Let them go, or kill them in the middle of a task, and wait until they are gone."""
        for worker in workers:
            if killed:  # and leave their pipes, which may be in use by another thread
                worker.process.terminate()
            else:
                worker.ask(_NOTHING)
                worker.pipe.close()
        try:
            with self._lock:
                for worker in workers:
                    worker.process.join()
        except BaseException:  # who interrupts this as well will not wait for what a task does before it ends
            for worker in workers:
                worker.process.kill()
            raise

    def close(self) -> None:
        self.end(self._idle)
        self._idle = []

    def ending(self, code: int | None) -> str:
        """How a worker ended, in words."""
        if code is None or 0 <= code != _UNKNOWN:
            return f"its process ended by itself (exit code {code})"
        killed = f"its process was killed (signal {-code})" if code < 0 else "the process that starts workers was lost"
        # Systems that run out of memory kill by this signal only; most count it.
        kills = memory.kills()
        memory_lost = code in (-signal.SIGKILL, _UNKNOWN) and (kills is None or kills != self._kills)
        return f"{killed}, probably for want of memory" if memory_lost else killed

    def _context(self) -> BaseContext:
        # forkserver: one process imports the libraries once and never runs a thread, so forking it is safe.
        method = "forkserver" if sys.platform == "linux" else "spawn"
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(["ule_datasets.compute.forked", __name__, *self._preload])
        return context


class _ProcessLauncher(Launcher[Task, Result, _Worker]):
    """A local process for every attempt, new or not."""

    def __init__(self, function: Callable[[Task], Result], processes: _Processes, *, reused: bool) -> None:
        self._function = function
        self._processes = processes
        self._reused = reused

    def start(self, task: Task) -> _Worker | Lost:
        content = pickle.dumps((self._function, task), pickle.HIGHEST_PROTOCOL)
        try:
            worker = self._processes.take(reused=self._reused)
        except (EOFError, ConnectionError):  # it was just asked for one
            return self._ended(_UNKNOWN)
        except OSError as error:
            return Lost(reason=f"no process could be started ({error.strerror})")
        worker.ask(content)
        return worker

    def outcome(self, handle: _Worker) -> Result | Lost:
        answer = handle.answer()
        if answer is None:
            self._processes.end([handle])
            return self._ended(handle.process.exitcode)
        if self._reused:
            self._processes.keep(handle)
        else:
            self._processes.end([handle])
        done, content = pickle.loads(answer)  # noqa: S301 (from our own process)
        if not done:
            raise content
        result: Result = content
        return result

    def stop(self, handles: Sequence[_Worker]) -> None:
        self._processes.end(handles, killed=True)

    def _ended(self, code: int | None) -> Lost:
        if code == _UNKNOWN:  # another starter is not started before the system is done with the one that was lost
            time.sleep(_SECONDS_OF_AN_END)
        return Lost(reason=self._processes.ending(code))


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started here hear no Ctrl-C, which is the parent's: not while they import, and not later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which is deaf by itself, and lets the signal through when it has started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@functools.cache
def _life() -> tuple[Connection, Connection]:
    """A pipe that this process holds until it is gone: not before, there is something to be read at its other end."""
    return multiprocessing.Pipe(duplex=False)


def _serve(pipe: Connection, life: Connection, folder: str | None) -> None:
    """Main function of a ``_Worker``: until there is nothing more to do, or nobody holds the other end of the pipe."""
    _prepare_worker(life, folder)
    try:
        while (content := pipe.recv_bytes()) != _NOTHING:
            pipe.send_bytes(_answer(content))
    except (EOFError, ConnectionError):
        _leave(life, folder)


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


def _prepare_worker(life: Connection, folder: str | None) -> None:
    """Leave Ctrl-C to the parent, and end when it is gone, even if it was killed, or has given this one up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave, args=(life, folder, parent.sentinel), daemon=True).start()


def _leave(life: Connection, folder: str | None, *waiting_for: int) -> None:
    """End here and now; where the parent is gone, its temporary folder goes too."""
    if waiting_for:
        multiprocessing.connection.wait(waiting_for)
    if folder is not None and life.poll(_SECONDS_OF_AN_END):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
