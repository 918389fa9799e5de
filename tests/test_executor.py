"""Work is done in order, in this process or in others, and a lost worker is said in plain words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ule_datasets.cli import run
from ule_datasets.executor import LocalExecutor


def square(number: int) -> int:
    return number * number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    raise ValueError(f"no {number}")


def process_of(_: int) -> int:
    return os.getpid()


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

    def tasks() -> object:
        for number in range(100):
            taken.append(number)
            yield number

    with LocalExecutor(2) as executor:
        results = executor.map(square, tasks())  # type: ignore[arg-type]
        next(results)
        assert len(taken) <= 6


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_worker_reaches_the_caller(workers: int) -> None:
    with pytest.raises(ValueError, match="no 0"), LocalExecutor(workers) as executor:
        list(executor.map(fail, range(4)))


def test_a_killed_worker_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def work(_: list[str]) -> int:
        with LocalExecutor(2) as executor:
            return sum(executor.map(die, range(4)))

    assert run("ule-build", work, []) == 2
    assert capsys.readouterr().err.startswith("ule-build: a worker process was killed, perhaps for want of memory")


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from tests.test_executor import process_of\n"
        "from ule_datasets.executor import LocalExecutor\n"
        "if __name__ == '__main__':\n"
        "    with LocalExecutor(2) as executor:\n"
        "        print(*set(executor.map(process_of, range(8))), flush=True)\n"
        "        time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert workers
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
