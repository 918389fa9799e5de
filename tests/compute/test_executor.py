"""Work is done in order or as it comes, in this process or in others; a lost worker costs what it was doing."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest

from ule_datasets.base import memory
from ule_datasets.base.errors import InputError
from ule_datasets.cli.running import run
from ule_datasets.compute import executor as executor_module
from ule_datasets.compute.executor import Lost, Need, _Crew
from ule_datasets.compute.opening import EXECUTORS, open_executor
from ule_datasets.compute.processes import LocalExecutor

KILLED = "its process was killed (signal 9)"
NO_STARTER = "the process that starts workers was lost"
WANT = ", probably for want of memory"


def square(number: int) -> int:
    return number * number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    raise ValueError(f"no {number}")


def process_of(_: int) -> int:
    return os.getpid()


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempted:
    """A task that notes its attempts in a folder, and dies in the first few of them."""

    number: int
    folder: Path
    deaths: int = 0
    seconds: float = 0.0

    @property
    def attempts(self) -> list[int]:
        """The processes that tried."""
        return [int(line) for line in (self.folder / str(self.number)).read_text().split()]


def attempt(task: Attempted) -> int:
    with (task.folder / str(task.number)).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(task.seconds)
    if len(task.attempts) <= task.deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return task.number * task.number


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """A task that waits for the one with another number, and says that it is done."""

    number: int
    folder: Path
    waits_for: int | None


def wait(task: Waiting) -> int:
    deadline = time.monotonic() + 60
    while task.waits_for is not None and not (task.folder / str(task.waits_for)).exists():
        assert time.monotonic() < deadline, f"{task.number} waits for {task.waits_for} in vain"
        time.sleep(0.01)
    (task.folder / str(task.number)).touch()
    return task.number


def leave(code: int) -> None:
    os._exit(code)


def tensor_of(seed: int) -> object:
    import torch

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(2, 64, 64, generator=generator)
    return left @ right


def double(array: np.ndarray) -> np.ndarray:
    array *= 2
    return array


def fail_unpicklably(_: int) -> None:
    raise ValueError("holds a lock", threading.Lock())


def give_a_lock(_: int) -> object:
    return threading.Lock()


def gone(processes: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{process}").exists() for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(Path(f"/proc/{process}").exists() for process in processes)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    with LocalExecutor(workers) as executor:
        assert list(executor.map(square, iter(range(20)))) == [n * n for n in range(20)]
        assert list(executor.map(square, [])) == []


def test_one_worker_is_this_process_and_several_are_others() -> None:
    with LocalExecutor(1) as executor:
        assert set(executor.map(process_of, range(3))) == {os.getpid()}
    with LocalExecutor(2) as executor:
        assert os.getpid() not in set(executor.map(process_of, range(6)))


def test_tasks_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with LocalExecutor(1) as executor:
        assert [*islice(executor.map(square, tasks()), 3)] == [0, 1, 4]
        assert len(taken) == 3
    with LocalExecutor(2) as executor:
        taken.clear()
        results = executor.map(square, tasks(), ahead=3)
        assert not taken
        for count, result in enumerate(results):
            assert result == count * count
            assert len(taken) <= count + 6


def test_nobody_waits_for_a_task_that_takes_long(tmp_path: Path) -> None:
    """The first task waits for the last of its window, and the caller for that of the next."""
    tasks = [Waiting(folder=tmp_path, waits_for=5 if n == 0 else None, number=n) for n in range(9)]
    with LocalExecutor(2) as executor:
        results = executor.map(wait, tasks, ahead=3)
        assert next(results) == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "3", "4", "5"]
        assert next(results) == 1
        assert wait(Waiting(folder=tmp_path, waits_for=6, number=9)) == 9, "a worker went on by itself"
        assert list(results) == list(range(2, 9))


def test_processes_are_kept_from_map_to_map() -> None:
    with LocalExecutor(2) as executor:
        executor.start()
        processes = {*executor.map(process_of, range(50)), *executor.map(process_of, range(50))}
        assert len(processes) <= 2
        assert not processes & {process for _, process in executor.unordered(process_of, range(2))}
    assert gone([*processes])


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_worker_reaches_the_caller(workers: int) -> None:
    with pytest.raises(ValueError, match="no 0"), LocalExecutor(workers) as executor:
        list(executor.map(fail, range(4)))


def test_an_error_comes_when_its_task_has_its_turn_and_is_not_tried_again(tmp_path: Path) -> None:
    tasks = [Attempted(number=n, folder=tmp_path, seconds=0.3 if n == 0 else 0) for n in range(3)]
    lost: list[str] = []
    with LocalExecutor(2) as executor:
        results = executor.map(attempt_or_divide, [*tasks, tmp_path / "2", *tasks], on_lost=lost.append)
        assert [*islice(results, 3)] == [0, 1, 4]
        with pytest.raises(ZeroDivisionError) as caught:
            next(results)
        assert "attempt_or_divide" in "".join(caught.value.__notes__)
        assert list(executor.map(square, [3])) == [9], "the executor goes on"
    assert lost == []


def test_a_lost_worker_costs_map_only_what_it_was_doing(tmp_path: Path) -> None:
    tasks = [Attempted(number=n, folder=tmp_path, deaths=deaths) for n, deaths in enumerate([0, 1, 0, 2, 0, 0])]
    lost: list[str] = []
    with LocalExecutor(2) as executor:
        assert list(executor.map(attempt, tasks, on_lost=lost.append)) == [0, 1, 4, 9, 16, 25]
    assert [len(task.attempts) for task in tasks] == [1, 2, 1, 3, 1, 1]
    assert sorted(lost) == [
        f"task {index} lost its worker in attempt {number} of 3: {KILLED}" for index, number in [(1, 1), (3, 1), (3, 2)]
    ]


def test_a_task_that_kills_every_worker_ends_map_after_those_before_it(tmp_path: Path) -> None:
    tasks = [Attempted(number=n, folder=tmp_path, deaths=9 * (n == 1)) for n in range(6)]
    with LocalExecutor(2) as executor:
        results = executor.map(attempt, tasks, attempts=2)
        assert next(results) == 0
        with pytest.raises(BrokenExecutor, match=f"^task 1 lost its worker in attempt 2 of 2: {re.escape(KILLED)}$"):
            list(results)
    assert len(tasks[1].attempts) == 2
    assert all(len(task.attempts) == 1 for task in tasks if (tmp_path / str(task.number)).exists() and task.number != 1)


def test_a_worker_that_dies_between_two_tasks_costs_nothing() -> None:
    lost: list[str] = []
    with LocalExecutor(2) as executor:
        before = set(executor.map(process_of, range(20)))
        for process in before:
            os.kill(process, signal.SIGKILL)
        assert gone([*before])
        assert not before & set(executor.map(process_of, range(20), on_lost=lost.append))
    assert lost == []


def test_a_killed_worker_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def work(_: list[str]) -> int:
        with LocalExecutor(2) as executor:
            return sum(executor.map(die, range(4)))

    assert run("ule-build", work, []) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("ule-build: task 0 lost its worker in attempt 3 of 3: its process was killed (signal")
    assert complaint.endswith("fewer --workers need less memory; the same command continues\n")


@pytest.mark.parametrize(
    ("kills", "cause"), [((3, 3), ""), ((3, 4), WANT), ((None, None), WANT)], ids=["none", "one more", "not counted"]
)
def test_want_of_memory_is_said_where_the_system_has_killed_for_it_or_does_not_count(
    monkeypatch: pytest.MonkeyPatch, kills: tuple[int | None, int | None], cause: str
) -> None:
    counts = iter(kills)
    monkeypatch.setattr(memory, "kills", lambda: next(counts))
    with LocalExecutor(2) as executor:
        assert dict(executor.unordered(die, [0], attempts=1)) == {0: Lost(reason=KILLED + cause)}


@pytest.mark.parametrize(
    ("free", "workers", "told"),
    [
        (None, 3, None),
        (3 * 300, 3, None),
        (3 * 300 - 1, 2, "2 of 3 workers at a time: a painter takes 300.0 MiB of memory, 0.9 GiB are available"),
        (300, 1, "1 of 3 workers at a time: a painter takes 300.0 MiB of memory, 300.0 MiB are available"),
        (299, 0, "a painter takes 300.0 MiB of memory, 299.0 MiB are available: free some, use a machine with more"),
    ],
)
@pytest.mark.parametrize("kind", ["map", "unordered"])
def test_so_many_workers_are_used_as_there_is_memory_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, free: int | None, workers: int, told: str | None
) -> None:
    monkeypatch.setattr(memory, "available", lambda: None if free is None else free * 2**20)
    tasks, lines = [Attempted(number=n, folder=tmp_path, seconds=0.2) for n in range(4)], list[str]()
    need = Need(what="a painter", task=100 * 2**20, process=200 * 2**20, tell=lines.append)
    with LocalExecutor(3) as executor:
        if not workers:
            with pytest.raises(memory.TooLittleMemoryError, match=told):
                getattr(executor, kind)(attempt, tasks, need=need)
            return
        crews = []
        monkeypatch.setattr(executor_module, "_Crew", lambda *given, made=_Crew: crews.append(given[1]) or made(*given))
        assert len(list(getattr(executor, kind)(attempt, tasks, need=need))) == 4
    assert crews == [workers]
    assert lines == ([] if told is None else [told])


def test_one_worker_is_this_process_and_needs_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 150 * 2**20)
    need = Need(what="a painter", task=100 * 2**20, process=200 * 2**20)
    with LocalExecutor(1) as executor:
        assert list(executor.map(square, [3], need=need)) == [9]
        with pytest.raises(memory.TooLittleMemoryError, match=r"a painter takes 200\.0 MiB of memory, 150\.0 MiB are"):
            executor.map(square, [3], need=replace(need, task=200 * 2**20))


def kill_starter() -> None:
    """Kill the process that workers are forked from, and see it gone."""
    starter = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if starter is not None:
        os.kill(starter, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # whoever missed it has seen its end
            os.waitid(os.P_PID, starter, os.WEXITED | os.WNOWAIT)


def test_where_the_process_that_starts_workers_is_lost_another_one_takes_over(tmp_path: Path) -> None:
    lost: list[str] = []
    with LocalExecutor(2) as executor:
        assert list(executor.map(square, [1])) == [1]
        kill_starter()
        assert list(executor.map(square, [2])) == [4]
        task = Attempted(number=5, folder=tmp_path, seconds=0.5)
        killer = threading.Thread(target=lambda: (wait_for_attempts([task]), kill_starter()))
        killer.start()
        assert list(executor.map(attempt, [task], on_lost=lost.append)) == [25]
        killer.join()
    assert lost == [f"task 0 lost its worker in attempt 1 of 3: {NO_STARTER}"]


@pytest.mark.parametrize("dies", ["os.kill(os.getpid(), 9)", "raise MemoryError('no room')"])
def test_a_process_that_cannot_start_any_worker_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], dies: str
) -> None:
    """Such as one that is killed for want of memory while it imports."""
    (tmp_path / "dies_when_imported.py").write_text(f"import os\n{dies}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}")
    kill_starter()

    def work(_: list[str]) -> int:
        with LocalExecutor(2, preload=("dies_when_imported",)) as executor:
            executor.start()
            return sum(executor.map(square, range(4)))

    assert run("ule-build", work, []) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert re.match(rf"ule-build: task 0 lost its worker in attempt 3 of 3: {NO_STARTER}; ", line)


def test_what_keeps_a_process_from_being_started_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pipe(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(multiprocessing.get_context("forkserver"), "Pipe", no_pipe, raising=False)
    with LocalExecutor(2) as executor:
        results = dict(executor.unordered(square, [1], attempts=1))
    assert results == {0: Lost(reason="no process could be started (Too many open files)")}


def stay(path: Path) -> None:
    """Like a task that finishes something when it is to end, for very long."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    path.touch()
    time.sleep(100)


def test_who_interrupts_the_wait_for_a_task_that_is_to_end_has_it_killed(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        if (tmp_path / "begun").exists():
            raise KeyboardInterrupt

    started, before = time.monotonic(), signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    try:
        with LocalExecutor(2) as executor, pytest.raises(KeyboardInterrupt):
            next(executor.unordered(stay, [tmp_path / "begun"]))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 90


def save(path: Path) -> None:
    """Finishes something when it is to end."""

    def end(*_: object) -> None:
        time.sleep(1)
        path.with_name("saved").touch()
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    path.touch()
    time.sleep(100)


def test_where_all_processes_are_told_to_end_those_that_have_something_to_finish_are_waited_for(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        if (tmp_path / "begun").exists():
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.kill(forkserver._forkserver._forkserver_pid, signal.SIGTERM)  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    try:
        with LocalExecutor(2) as executor, pytest.raises(KeyboardInterrupt):
            next(executor.unordered(save, [tmp_path / "begun"]))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (tmp_path / "saved").exists()
    with LocalExecutor(2) as executor:
        assert list(executor.map(square, [3])) == [9]


def test_workers_end_when_their_parent_is_killed_and_delete_its_temporary_folder(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from tests.compute.test_executor import process_of\n"
        "from ule_datasets.compute.processes import LocalExecutor\n"
        "if __name__ == '__main__':\n"
        "    with LocalExecutor(2) as executor:\n"
        "        print(*set(executor.map(process_of, range(8))), flush=True)\n"
        "        time.sleep(600)\n"
    )
    with tempfile.TemporaryDirectory() as temporary:  # tmp_path may be too long for the name of a socket
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": temporary}
        parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert workers
        assert list(Path(temporary).glob("pymp-*"))
        parent.kill()
        parent.wait()
        assert gone(workers)
        assert not list(Path(temporary).iterdir())


@pytest.mark.parametrize("workers", [1, 2])
def test_unordered_gives_every_result_with_its_index(workers: int) -> None:
    with LocalExecutor(workers) as executor:
        assert sorted(executor.unordered(square, range(7))) == [(n, n * n) for n in range(7)]
        assert list(executor.unordered(square, [])) == []


def test_unordered_gives_what_is_ready_first_and_uses_a_process_for_each(tmp_path: Path) -> None:
    tasks = [Waiting(folder=tmp_path, waits_for=2 if n == 0 else None, number=n) for n in range(3)]
    with LocalExecutor(2) as executor:
        first, *others = [index for index, _ in executor.unordered(wait, tasks)]
        assert (first, sorted(others)) == (1, [0, 2]), "the one that waits for the last ends with it, or after it"
        assert len({process for _, process in executor.unordered(process_of, range(3))} | {os.getpid()}) == 4


@pytest.mark.usefixtures("one_thread")
def test_results_of_torch_are_the_same_anywhere() -> None:
    import torch

    with LocalExecutor(1) as here, LocalExecutor(2) as elsewhere:
        expected, results = dict(here.unordered(tensor_of, [0, 1])), dict(elsewhere.unordered(tensor_of, [0, 1]))
    assert all(torch.equal(results[index], expected[index]) for index in range(2))  # type: ignore[arg-type]


def test_a_task_larger_than_any_pipe_arrives_and_stays_as_it_was_here() -> None:
    array = np.arange(2**20, dtype=np.int64)
    with LocalExecutor(2) as executor:
        [(_, result)] = executor.unordered(double, [array])
    assert np.array_equal(result, 2 * np.arange(2**20))  # type: ignore[arg-type]
    assert array[-1] == 2**20 - 1


def test_a_lost_worker_is_tried_again_or_given_up_and_the_rest_is_unharmed(tmp_path: Path) -> None:
    tasks = [Attempted(number=n, folder=tmp_path, deaths=deaths) for n, deaths in enumerate([0, 1, 9, 0, 2])]
    lost: list[int] = []
    with LocalExecutor(2) as executor:
        results = dict(executor.unordered(attempt, tasks, attempts=3, on_lost=lambda task: lost.append(task.number)))
    assert results == {0: 0, 1: 1, 2: Lost(reason=KILLED), 3: 9, 4: 16}
    assert sorted(lost) == [1, 2, 2, 2, 4, 4]
    assert [len(task.attempts) for task in tasks] == [1, 2, 3, 1, 3]


def test_a_process_that_leaves_by_itself_is_lost_too() -> None:
    with LocalExecutor(2) as executor:
        results = dict(executor.unordered(leave, [0, 3], attempts=1))
    ends = [Lost(reason=f"its process ended by itself (exit code {code})") for code in (0, 3)]
    assert results == dict(enumerate(ends))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_task_is_not_tried_again_and_ends_the_others(workers: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no ") as raised, LocalExecutor(workers) as executor:
        list(executor.unordered(fail, range(4)))
    assert str(raised.value) in ("no 0", "no 1")
    with LocalExecutor(2) as executor:
        long = Attempted(number=1, folder=tmp_path, seconds=600)
        with pytest.raises(ZeroDivisionError) as caught:
            list(executor.unordered(attempt_or_divide, [long, tmp_path / "1"]))
        assert gone(long.attempts)
    assert "attempt_or_divide" in "".join(caught.value.__notes__)


def attempt_or_divide(task: Attempted | Path) -> float:
    """Run an attempt, or divide by zero once there is one."""
    if isinstance(task, Attempted):
        return attempt(task)
    while not task.exists() or not task.read_text():
        time.sleep(0.05)
    return 1 / 0


def test_what_cannot_be_pickled_is_said_and_not_taken_for_a_lost_worker() -> None:
    with LocalExecutor(2) as executor:
        with pytest.raises(RuntimeError, match=r"ValueError: .*holds a lock"):
            list(executor.unordered(fail_unpicklably, [1, 2]))
        with pytest.raises(TypeError, match="cannot pickle"):
            list(executor.unordered(give_a_lock, [1, 2]))


def test_leaving_early_ends_the_processes(tmp_path: Path) -> None:
    tasks = [Attempted(number=0, folder=tmp_path), Attempted(number=1, folder=tmp_path, seconds=600)]
    tasks.append(Attempted(number=2, folder=tmp_path, seconds=600))
    with LocalExecutor(2) as executor:
        results = executor.unordered(attempt, tasks)
        assert next(results) == (0, 0)
        wait_for_attempts(tasks[1:])
    assert gone(tasks[1].attempts + tasks[2].attempts)
    assert list(results) == []


def test_leaving_a_map_early_ends_its_tasks(tmp_path: Path) -> None:
    tasks = [Attempted(number=n, folder=tmp_path, seconds=600 if n else 0) for n in range(6)]
    with LocalExecutor(2) as executor:
        results = executor.map(attempt, tasks)
        assert next(results) == 0
        wait_for_attempts(tasks[1:3])
    assert gone(tasks[1].attempts + tasks[2].attempts)
    assert list(results) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"], "nothing was begun or tried again"


def wait_for_attempts(tasks: list[Attempted]) -> None:
    while not all((task.folder / str(task.number)).exists() and task.attempts for task in tasks):
        time.sleep(0.05)


def test_an_executor_is_opened_by_name() -> None:
    with open_executor("local", 2) as executor:
        assert executor.workers == 2
        assert sorted(executor.unordered(square, [2, 3])) == [(0, 4), (1, 9)]
    assert EXECUTORS == ("local", "ray")
    with pytest.raises(InputError, match="no executor is called 'slurm'; there are: local, ray"):
        open_executor("slurm", 2)
    with pytest.raises(InputError, match="workers is 0, must be at least 1"):
        open_executor("local", 0)
    with pytest.raises(InputError, match="attempts is 0, must be at least 1"):
        LocalExecutor(2).unordered(square, [1], attempts=0)
    for workers in (1, 2):
        with pytest.raises(InputError, match="attempts is 0, must be at least 1"):
            LocalExecutor(workers).map(square, [1], attempts=0)
        with pytest.raises(InputError, match="ahead is 0, must be at least 1"):
            LocalExecutor(workers).map(square, [1], ahead=0)
