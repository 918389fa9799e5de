"""Somewhere to run one function on many independent tasks, and how tasks that lose their worker are tried again."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, Self, TypeVar

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import say_nothing

Task = TypeVar("Task")
Result = TypeVar("Result")
Handle = TypeVar("Handle", bound=Hashable)

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """Memory that a worker takes at the very least; so many workers are used at a time as there is memory for."""

    what: str
    """Who takes it: ``a worker that writes shards``."""
    task: int
    """Bytes for the largest task."""
    process: int = 0
    """Bytes that a process of its own takes besides: libraries, as far as it does not share them."""
    tell: Callable[[str], None] = say_nothing
    """Told in a line where there are fewer workers for want of memory."""


class Launcher(ABC, Generic[Task, Result, Handle]):
    """Starts attempts at tasks, and says how each of them ended."""

    @abstractmethod
    def start(self, task: Task) -> Handle | Lost:
        """Begin an attempt, or say why there is none. All methods may be called from several threads."""

    @abstractmethod
    def outcome(self, handle: Handle) -> Result | Lost:
        """Wait until an attempt has ended, and say what it gave; raises what the function raised."""

    @abstractmethod
    def stop(self, handles: Sequence[Handle]) -> None:
        """End attempts whose outcomes nobody will use."""


class Executor(ABC):
    """Runs a function on tasks; to be used in a ``with`` statement, which ends what still runs.

    Functions must be importable where they run, or picklable by the executor; tasks must be picklable. A worker that
    dies (killed, out of memory, its node gone) costs only what it was doing: that task is tried again, up to
    ``attempts`` times in all, and no attempt of any other is counted. What a function raises is no lost worker, and is
    not tried again. Stopping early, by an exception or by leaving the executor, ends the tasks that run.
    """

    def __init__(self, workers: int | None) -> None:
        if workers is not None:
            _check(workers=workers)
        self._workers = workers
        self._unfinished: list[Generator[Any, None, None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._unfinished:
            self._unfinished.pop().close()

    @property
    def workers(self) -> int:
        """How many tasks run at a time; where that is left to a cluster, only known inside ``with``."""
        assert self._workers is not None, "enter the executor first"
        return self._workers

    def start(self) -> None:  # noqa: B027 (few have something to do)
        """Prepare for tasks ahead of the first one, where that takes long; does not wait for it."""

    def _fitting(self, need: Need | None) -> int:
        """How many workers there is memory for, of those there are; on other machines, that is for others to say.

        Raises:
            TooLittleMemoryError: not even for one.
        """
        return self.workers

    @abstractmethod
    def _launcher(self, function: Callable[[Task], Result], *, reused: bool) -> Launcher[Task, Result, Any] | None:
        """What starts attempts, each in a new process or in ``reused`` ones; ``None``: tasks run in this process."""

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        ahead: int = AHEAD,
        attempts: int = 3,
        on_lost: Callable[[str], None] = say_nothing,
        need: Need | None = None,
    ) -> Iterator[Result]:
        """Apply ``function`` to every task; lazily, in order.

        Worker processes are kept from task to task. They go on while the caller is busy with a result, or while
        one task takes long: up to ``ahead`` tasks per worker are taken from ``tasks``, one by one, and worked on
        before the first of them has given its result. All of these, tasks or results, are held here meanwhile.
        ``on_lost`` is told in words, in the caller's thread while it waits for a result, of every worker that died.

        Raises:
            InputError: ``ahead`` or ``attempts`` is below 1, or there is less memory than what is needed.
            BrokenExecutor: (of ``concurrent.futures``) a task lost its worker in every attempt, and the results of all
                before it were given; says which, counted from 0, and how the last one died.
            BaseException: whatever ``function`` raises, when its task's turn has come.
        """
        _check(ahead=ahead, attempts=attempts)
        workers, launcher = self._fitting(need), self._launcher(function, reused=True)
        if launcher is None:
            return map(function, tasks)
        results = _in_order(_Crew(launcher, workers, attempts), tasks, ahead * workers, on_lost)
        self._unfinished.append(results)
        return results

    def unordered(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        *,
        attempts: int = 2,
        on_lost: Callable[[Task], None] = say_nothing,
        need: Need | None = None,
    ) -> Iterator[tuple[int, Result | Lost]]:
        """Apply ``function`` to every task; results come as they are ready, each with the index of its task.

        Every attempt has a process of its own. ``on_lost`` is called here with the task each time its worker died,
        before it is tried again or given up; after its last attempt, its result is ``Lost``.

        Raises:
            InputError: ``attempts`` is below 1, or there is less memory than what is needed.
            BaseException: whatever ``function`` raises.
        """
        _check(attempts=attempts)
        workers, launcher = self._fitting(need), self._launcher(function, reused=False)
        if launcher is None:
            return ((index, function(task)) for index, task in enumerate(tasks))
        results = _as_they_come(_Crew(launcher, workers, attempts), tasks, on_lost)
        self._unfinished.append(results)
        return results


def _check(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise InputError(f"{name} is {number}, must be at least 1")


class _Crew(Generic[Task, Result, Handle]):
    """A thread for each worker, which tries tasks until they give a result, so that no worker waits for the caller."""

    def __init__(self, launcher: Launcher[Task, Result, Handle], workers: int, attempts: int) -> None:
        self.attempts = attempts
        self.news: SimpleQueue[tuple[int, int, Lost | None]] = SimpleQueue()
        """Index of a task, with an attempt and how it was lost; ``None``: the task has ended."""
        self._launcher = launcher
        self._threads = ThreadPoolExecutor(workers)
        self._running: dict[int, Handle] = {}  # by thread
        self._lock = threading.Lock()
        self._stopped = False

    def submit(self, index: int, task: Task) -> Future[Result | Lost]:
        """Have a task done; what happens to it becomes news under its index."""
        future = self._threads.submit(self._result, index, task)
        future.add_done_callback(lambda _: self.news.put((index, 0, None)))
        return future

    def close(self) -> None:
        """End what runs, and begin nothing else."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._stop()
        self._threads.shutdown()

    def _stop(self) -> None:
        self._stopped = True
        with self._lock:
            running = list(self._running.values())
            self._running.clear()
        self._launcher.stop(running)

    def _result(self, index: int, task: Task) -> Result | Lost:
        for attempt in range(1, self.attempts + 1):
            outcome = self._outcome(task)
            if not isinstance(outcome, Lost):
                break
            self.news.put((index, attempt, outcome))
            if self._stopped:
                break
        return outcome

    def _outcome(self, task: Task) -> Result | Lost:
        handle = self._launcher.start(task)
        if isinstance(handle, Lost):
            return handle
        with self._lock:
            self._running[threading.get_ident()] = handle
        if self._stopped:  # too late for whoever said so to know this one
            self._stop()
        try:
            return self._launcher.outcome(handle)
        finally:
            with self._lock:
                self._running.pop(threading.get_ident(), None)


def _in_order(
    crew: _Crew[Task, Result, Handle], tasks: Iterable[Task], most: int, on_lost: Callable[[str], None]
) -> Generator[Result, None, None]:
    """Give the results in the order of the tasks, holding at most ``most`` tasks or results."""
    window: deque[Future[Result | Lost]] = deque()

    def words(index: int, attempt: int, lost: Lost) -> str:
        return f"task {index} lost its worker in attempt {attempt} of {crew.attempts}: {lost.reason}"

    def next_result(index: int) -> Result:
        while not window[0].done() or not crew.news.empty():
            number, attempt, lost = crew.news.get()
            if lost is not None:
                on_lost(words(number, attempt, lost))
        result = window.popleft().result()
        if isinstance(result, Lost):
            raise BrokenExecutor(words(index, crew.attempts, result))
        return result

    given = 0
    try:
        for index, task in enumerate(tasks):
            window.append(crew.submit(index, task))
            if window[0].done() or len(window) == most:
                yield next_result(given)
                given += 1
        while window:
            yield next_result(given)
            given += 1
    finally:
        crew.close()


def _as_they_come(
    crew: _Crew[Task, Result, Handle], tasks: Sequence[Task], on_lost: Callable[[Task], None]
) -> Generator[tuple[int, Result | Lost], None, None]:
    """Give the results as they are ready, with the indices of their tasks."""
    try:
        futures = [crew.submit(index, task) for index, task in enumerate(tasks)]
        unfinished = len(futures)
        while unfinished:
            index, _, lost = crew.news.get()
            if lost is not None:
                on_lost(tasks[index])
            else:
                unfinished -= 1
                yield index, futures[index].result()
    finally:
        crew.close()
