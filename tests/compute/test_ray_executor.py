"""On Ray the results are the local ones, and a lost worker costs only what it was doing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ule_datasets.base.errors import InputError
from ule_datasets.compute import ray as ray_executor
from ule_datasets.compute.executor import Lost, available_cpus
from ule_datasets.compute.opening import open_executor
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.compute.ray import SHARED_FROM, RayExecutor

if TYPE_CHECKING:
    import torch  # otherwise late, because every worker imports this module

ray = pytest.importorskip("ray")

SMALL = 80 * 2**20
"""Bytes for the object store; Ray wants at least 75 MiB."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Job:
    """Something to compute from an array that several jobs hold."""

    seed: int
    images: np.ndarray
    labels: torch.Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Mortal:
    """Dies where it is asked to, on the first attempt only or on all."""

    number: int
    folder: Path
    deaths: int = 0

    def __call__(self) -> int:
        tries = self.folder / f"{self.number}"
        with tries.open("a") as file:
            file.write("x")
        if tries.stat().st_size <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.number * self.number


def call(task: Mortal) -> int:
    return task()


def fit(job: Job) -> tuple[int, np.ndarray]:
    """A few steps of least squares in torch: seed, weights."""
    import torch

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(job.seed)
    rows = torch.randint(len(job.images), (64,), generator=generator)
    features = torch.from_numpy(job.images).flatten(1)[rows].float() / 255
    weights = torch.randn(features.shape[1], 1, generator=generator)
    for _ in range(5):
        weights -= 1e-3 * features.T @ (features @ weights - job.labels[rows, None])
    return job.seed, weights.numpy()


def fail(number: int) -> int:
    raise InputError(f"no {number}")


def fail_unpicklably(_: int) -> None:
    error = ValueError("holds a lock")
    error.generator = (n for n in range(3))  # type: ignore[attr-defined]
    raise error


def threads(_: int) -> tuple[str | None, bool, int, int]:
    """``OMP_NUM_THREADS``, whether torch was there before, torch's threads, the process."""
    before = "torch" in sys.modules
    import torch

    return os.environ.get("OMP_NUM_THREADS"), before, torch.get_num_threads(), os.getpid()


def variable_and_process(_: int) -> tuple[str | None, int]:
    return os.environ.get("OMP_NUM_THREADS"), os.getpid()


def overwrite(job: Job) -> tuple[int, bool, bool]:
    """Write into what was sent: sum before, and whether arrays and tensors are one's own."""
    total = int(job.images.sum())
    job.images[:] = 0
    job.labels[:] = 0
    return total, job.images.flags.writeable, bool(job.labels.sum() == 0)


def stay(folder: Path | None) -> None:
    if folder is None:
        return
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def jobs(count: int) -> list[Job]:
    import torch

    images = np.random.default_rng(0).integers(0, 256, (512, 32, 32, 3), dtype=np.uint8)
    labels = torch.linspace(0, 1, SHARED_FROM // 4)
    assert images.nbytes >= SHARED_FROM
    assert labels.nbytes >= SHARED_FROM
    return [Job(seed=seed, images=images, labels=labels) for seed in range(count)]


def commands_naming(text: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended meanwhile
            continue
        if text in command:
            found.append(command)
    return found


def gone(process: int) -> bool:
    deadline = time.monotonic() + 20
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not Path(f"/proc/{process}").exists()


@pytest.fixture(scope="module")
def executor() -> Iterator[RayExecutor]:
    """A private cluster with two CPUs, ended again without a trace."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("OMP_NUM_THREADS", raising=False)  # so that Ray sets it for its workers
        with RayExecutor(2, address="local", object_store_bytes=SMALL) as opened:
            folder = Path(ray._private.worker._global_node.get_temp_dir_path())
            assert folder.name.startswith("ule-ray-")
            assert commands_naming(str(folder))
            yield opened
    assert not ray.is_initialized()
    assert not commands_naming(str(folder))
    assert not folder.exists()


@pytest.mark.usefixtures("one_thread")
def test_results_are_the_local_ones_and_shared_arrays_are_stored_once(
    executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[object] = []
    put = ray.put
    monkeypatch.setattr(ray, "put", lambda value: (stored.append(value), put(value))[1])
    tasks = jobs(2)
    with LocalExecutor(1) as local:
        expected = dict(local.unordered(fit, tasks))
    results = dict(executor.unordered(fit, tasks))
    assert [id(value) for value in stored] == [id(tasks[0].images), id(tasks[0].labels)]
    assert sorted(results) == sorted(expected) == [0, 1]
    for index, outcome in results.items():
        other = expected[index]
        assert not isinstance(outcome, Lost)
        assert not isinstance(other, Lost)
        assert outcome[0] == other[0] == index
        assert np.array_equal(outcome[1], other[1])
        assert outcome[1].flags.writeable


def test_map_gives_results_in_order(executor: RayExecutor) -> None:
    assert list(executor.map(lambda number: number * 2, iter(range(3)))) == [0, 2, 4]
    assert list(executor.map(abs, [])) == []


def test_a_task_has_its_own_copy(executor: RayExecutor) -> None:
    [task] = jobs(1)
    total = int(task.images.sum())
    assert list(executor.unordered(overwrite, [task])) == [(0, (total, True, True))]
    assert int(task.images.sum()) == total


def test_workers_are_fresh_and_take_the_threads_of_this_process(
    executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    [(_, first)] = executor.unordered(threads, [0])
    assert not isinstance(first, Lost)
    assert first[:3] == ("2", False, min(2, available_cpus()))
    monkeypatch.delenv("OMP_NUM_THREADS")
    [(_, second)] = executor.unordered(variable_and_process, [0])
    assert not isinstance(second, Lost)
    assert second[0] is None
    assert second[1] != first[3]


@pytest.mark.slow
def test_map_keeps_its_processes_for_as_long_as_they_take_the_threads_of_this_one(
    executor: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    executor.start()
    two = next(executor.map(threads, [0]))
    assert two[:3] == ("2", False, min(2, available_cpus()))
    kept = set(executor.map(variable_and_process, range(30)))
    assert {variable for variable, _ in kept} == {"2"}
    assert len({process for _, process in kept}) <= 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert next(executor.map(threads, [0]))[:3] == ("1", False, 1)
    [(_, fresh)] = executor.unordered(variable_and_process, [0])
    assert fresh not in {("1", process) for _, process in kept}
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert next(executor.map(variable_and_process, [0]))[0] is None


def test_a_lost_worker_is_tried_again_or_given_up_and_the_rest_is_unharmed(
    executor: RayExecutor, tmp_path: Path
) -> None:
    deaths = [0, 1, 9, 0]
    tasks = [Mortal(number=number, folder=tmp_path, deaths=count) for number, count in enumerate(deaths)]
    lost: list[int] = []
    results = dict(executor.unordered(call, tasks, on_lost=lambda task: lost.append(task.number)))
    given_up = results.pop(2)
    assert isinstance(given_up, Lost)
    assert given_up.reason.startswith("WorkerCrashedError: ")
    assert results == {0: 0, 1: 1, 3: 9}
    assert sorted(lost) == [1, 2, 2]
    assert [(tmp_path / str(number)).stat().st_size for number in range(4)] == [1, 2, 2, 1]


def test_a_lost_worker_costs_map_only_what_it_was_doing(executor: RayExecutor, tmp_path: Path) -> None:
    deaths = [0, 1, 0, 9, 0]
    tasks = [Mortal(number=number, folder=tmp_path, deaths=count) for number, count in enumerate(deaths)]
    lost: list[str] = []
    results = executor.map(call, tasks, on_lost=lost.append)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(BrokenExecutor, match=r"^task 3 lost its worker in attempt 3 of 3: WorkerCrashedError: "):
        next(results)
    begun = [words.rpartition(": WorkerCrashedError")[0] for words in lost]
    attempts = [(1, 1), (3, 1), (3, 2), (3, 3)]
    assert sorted(begun) == [f"task {task} lost its worker in attempt {number} of 3" for task, number in attempts]
    assert [(tmp_path / str(number)).stat().st_size for number in range(4)] == [1, 2, 1, 3]


@pytest.mark.slow
def test_a_lost_node_costs_map_only_what_it_was_doing(tmp_path: Path) -> None:
    """In a process of its own, because Ray connects a process to one cluster only."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RAY_AUTH_TOKEN": ray_executor._token(),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    script = f"import pathlib, tests.compute.test_ray_executor as t; t.lose_node(pathlib.Path({str(tmp_path)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def lose_node(folder: Path) -> None:
    """Map on a cluster of two nodes on this machine; one of them is taken away while it has something to do."""
    node: dict[str, object] = {"num_cpus": 1, "object_store_memory": SMALL}
    with tempfile.TemporaryDirectory(dir=ray_executor._short_root(), ignore_cleanup_errors=True) as home:
        os.environ["RAY_TMPDIR"] = home
        Path(home, "ray").mkdir()  # only `ray start` makes it
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        try:
            second = cluster.add_node(**node)

            def visits() -> Iterator[Visit]:
                for number in range(12):
                    if number == 6:
                        assert appears(folder / "there")
                        cluster.remove_node(second, allow_graceful=False)
                    yield Visit(number=number, folder=folder, unsafe=second.node_id)

            lost: list[str] = []
            with RayExecutor(address=cluster.address) as executor:
                assert executor.workers == 2
                before = list(executor.map(visit, [Visit(number=n, folder=folder) for n in range(6)]))
                after = list(executor.map(visit, visits(), on_lost=lost.append))
            assert [number for number, _ in before] == list(range(6))
            assert len({place for _, place in before}) == 2
            assert [number for number, _ in after] == list(range(12))
            assert {place for _, place in after[6:]} == {cluster.head_node.node_id}
            assert lost
            assert all(words.startswith("task ") for words in lost)
        finally:
            cluster.shutdown()


@dataclass(frozen=True, kw_only=True, slots=True)
class Visit:
    """A task that tells where it ran, and does not come back from the unsafe node."""

    number: int
    folder: Path
    unsafe: str = ""


def visit(task: Visit) -> tuple[int, str]:
    place = ray.get_runtime_context().get_node_id()
    if place == task.unsafe:
        (task.folder / "there").touch()
        time.sleep(600)
    time.sleep(0.2)
    return task.number, place


def appears(path: Path) -> bool:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return path.exists()


def test_an_error_reaches_the_caller_as_it_was(executor: RayExecutor) -> None:
    with pytest.raises(InputError, match=r"^no 1$"):
        list(executor.unordered(fail, [1]))
    with pytest.raises(InputError, match=r"^no 1$"):
        list(executor.map(fail, [1]))
    with pytest.raises(Exception, match="holds a lock"):
        list(executor.unordered(fail_unpicklably, [1]))


@pytest.mark.parametrize("how", ["map", "unordered"])
def test_tasks_end_when_nobody_waits_for_them(how: str, executor: RayExecutor, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    with RayExecutor(address="local") as second:
        assert second.workers == 2
        results: Iterator[object] = getattr(second, how)(stay, [None, *folders])
        assert next(results) == {"map": None, "unordered": (0, None)}[how]
        deadline = time.monotonic() + 30
        while not all(list(folder.iterdir()) for folder in folders) and time.monotonic() < deadline:
            time.sleep(0.05)
        processes = [int(path.name) for folder in folders for path in folder.iterdir()]
        assert len(processes) == 2
    assert all(gone(process) for process in processes)
    assert ray.is_initialized(), "the cluster of the outer executor goes on"


def test_what_no_node_can_hold_is_refused(executor: RayExecutor) -> None:
    with pytest.raises(InputError, match=r"a task takes 1 CPUs and 64 GPUs, more than any node .* has \(2 CPUs, "):
        RayExecutor(1, gpus_per_task=64).__enter__()
    assert ray.is_initialized()


def test_a_running_cluster_is_joined_and_left_running(executor: RayExecutor) -> None:
    script = (
        "import ray\n"
        "from ule_datasets.compute.ray import RayExecutor\n"
        "with RayExecutor() as executor:\n"
        "    print(executor.workers, list(executor.map(abs, [-1])), sorted(executor.unordered(abs, [-2, 3])))\n"
        "assert not ray.is_initialized()\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        "RAY_AUTH_TOKEN": ray_executor._token(),
    }
    command = [sys.executable, "-c", script]
    joined = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert joined.stdout == "2 [1] [(0, 2), (1, 3)]\n", joined.stderr
    assert list(executor.map(abs, [-4])) == [4]


def test_the_cluster_of_ray_start_is_found_only_while_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert ray_executor._address_of_ray_start() is None
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
        assert ray_executor._address_of_ray_start() == address
    assert ray_executor._address_of_ray_start() is None
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for wrong in (address, "somewhere"):
        with pytest.raises(InputError, match=f"no Ray cluster at '{wrong}': nothing answers there; allowed: HOST:PORT"):
            RayExecutor(2, address=wrong).__enter__()


def test_outside_of_with_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(InputError, match="to be used in a 'with' statement"):
        RayExecutor(2).unordered(abs, [1])


def test_wrong_numbers_are_refused(executor: RayExecutor) -> None:
    with pytest.raises(InputError, match="workers is 0, must be at least 1"):
        RayExecutor(0)
    with pytest.raises(InputError, match=r"gpus_per_task is 1\.5, must be between 0 and 1, or a whole number"):
        RayExecutor(1, gpus_per_task=1.5)
    with pytest.raises(InputError, match="attempts is 0, must be at least 1"):
        executor.unordered(abs, [1], attempts=0)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'ule-datasets\[ray\]'"), open_executor("ray", 2):
        pass
