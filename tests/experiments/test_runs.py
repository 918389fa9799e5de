"""Runs as tasks: what makes two of them one, what is found again, and what an accident costs."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers import run_python
from made_up import PROTOCOL, Listener, make_history, make_task
from tiny_weights import TINY, register_tiny_weights

from ule_datasets.base.errors import InputError
from ule_datasets.compute.executor import Lost
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.experiments import runs
from ule_datasets.experiments.runs import Finished, RunStore, RunTask, run_task, time_task, work_off
from ule_datasets.models.architectures import forward_flop
from ule_datasets.victims.history import RunHistory
from ule_datasets.victims.protocol import Sgd

pytestmark = pytest.mark.usefixtures("one_thread")


def work(tasks: list[RunTask], folder: Path, *, workers: int = 1) -> tuple[dict[int, RunHistory | Lost], Listener]:
    listener = Listener()
    with LocalExecutor(workers, preload=("ule_datasets.experiments.runs",)) as executor:
        return work_off(tasks, RunStore(folder), executor, listener), listener


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the runs that are really made, as they are made in this process."""
    seeds: list[int] = []

    def noted(task: RunTask) -> Finished:
        seeds.append(task.seed)
        return run_task(task)

    monkeypatch.setattr(runs, "run_task", noted)
    return seeds


# Identity


@pytest.mark.parametrize(
    "change",
    [
        {"data": dataclasses.replace(make_task().data, digest="other")},
        {"seed": 1},
        {"device": torch.device("cuda")},
        {"ranks": 2},
        {"protocol": dataclasses.replace(PROTOCOL, epochs=3)},
        {"protocol": dataclasses.replace(PROTOCOL, optimiser=Sgd(learning_rate=0.05))},
        {"protocol": dataclasses.replace(PROTOCOL, strategy=parse_strategy("cutout"))},
        {"protocol": dataclasses.replace(PROTOCOL, start="abc")},
        {"protocol": dataclasses.replace(PROTOCOL, gradient_clip=5.0)},
        {"protocol": dataclasses.replace(PROTOCOL, normalise=True)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_the_result_depends_on_is_in_the_identity(change: dict[str, Any]) -> None:
    assert dataclasses.replace(make_task(), **change).identity != make_task().identity


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "other"},
        {"threads": 7},
        {"log": Path("log")},
        {"unfinished": Path("unfinished")},
        {"keep_weights": True},
        {"start": Path("elsewhere")},
        {"device": torch.device("cpu", 0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_nothing_else_is(change: dict[str, Any]) -> None:
    assert dataclasses.replace(make_task(), **change).identity == make_task().identity


def test_other_versions_make_other_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = make_task().identity
    monkeypatch.setattr(torch, "__version__", "1.0")
    assert make_task().identity != before
    monkeypatch.undo()
    assert make_task().identity == before
    monkeypatch.setattr(runs, "code_digest", lambda *_: "other")
    assert make_task().identity != before


# What a run costs


def test_arithmetic_of_a_run() -> None:
    forward = forward_flop("convnet3-w16", 2, 8)
    assert make_task().flop == forward * 2 * (3 * 40 + 24)
    longer = dataclasses.replace(PROTOCOL, epochs=40, test_interval=10)
    assert make_task(protocol=longer).flop == forward * (40 * 3 * 40 + 13 * 24), "tests after 1-5, 10, 20, 30, 36-40"
    attacked = make_task(protocol=dataclasses.replace(PROTOCOL, strategy=parse_strategy("linf-at")))
    assert attacked.flop == forward * 2 * ((3 + 2 * 10) * 40 + 24)


def test_fine_tuning_costs_what_the_architecture_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = register_tiny_weights(monkeypatch, tmp_path)
    task = make_task(protocol=dataclasses.replace(PROTOCOL, model=TINY, start=file.sha256), start=file.path)
    assert task.flop == make_task().flop
    assert time_task(task) > 0


def test_time_is_positive_and_threads_are_left_alone() -> None:
    torch.set_num_threads(2)
    assert time_task(make_task(threads=1)) > 0
    assert run_task(make_task(threads=1)).history.threads == 1
    assert torch.get_num_threads() == 2


def test_ranks_share_only_batches_that_are_large_enough() -> None:
    assert make_task(ranks=8).ranks == 8
    with pytest.raises(InputError, match="batches of 16 images cannot be shared by 9 ranks"):
        make_task(ranks=9)


def test_a_task_reads_as_what_it_is() -> None:
    assert str(make_task(3)) == "d, convnet3-w16, standard, seed 3"


# The store


def test_a_finished_run_is_found_again(tmp_path: Path, trained: list[int]) -> None:
    first, listener = work([make_task(0), make_task(1)], tmp_path)
    assert trained == [0, 1]
    assert [line.partition(":")[0] for line in listener.said] == [str(make_task(0)), str(make_task(1))]
    second, listener = work([make_task(0), make_task(2), make_task(1)], tmp_path)
    assert trained == [0, 1, 2]
    assert (second[0], second[2]) == (first[0], first[1])
    assert listener.warned == []
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json"] * 3


@pytest.mark.parametrize("damage", ["torn", "empty", "not text", "of another run"])
def test_a_damaged_run_is_named_and_made_again(damage: str, tmp_path: Path, trained: list[int]) -> None:
    first, _ = work([make_task()], tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    others = make_history(50.0).to_json().encode()
    path.write_bytes({"torn": whole[:200], "empty": b"", "not text": b"\xff\xfe\x00", "of another run": others}[damage])
    second, listener = work([make_task()], tmp_path)
    assert trained == [0, 0]
    assert second == first
    assert len(listener.warned) == 1
    assert listener.warned[0].startswith(f"{path} is run again: ")
    assert json.loads(path.read_text())["seed"] == 0
    work([make_task()], tmp_path)
    assert trained == [0, 0]


def test_a_run_with_changed_numbers_or_under_another_name_is_named_and_made_again(
    tmp_path: Path, trained: list[int]
) -> None:
    first, _ = work([make_task(0)], tmp_path)
    store = RunStore(tmp_path)
    path = store.path(make_task(0))
    values = json.loads(path.read_text())
    values["epochs"][-1]["test_accuracy"] = 99.0
    for changed in (
        re.sub(r'"test_accuracy": [\d.]+', '"test_accuracy": 99.0', path.read_text()),
        json.dumps(values, indent=1),
        make_history_of(seed=1, folder=tmp_path / "other"),
    ):
        path.write_text(changed)
        again, listener = work([make_task(0)], tmp_path)
        assert again == first
        assert listener.warned == [f"{path} is run again: it was changed after it was written, or is of another run"]
    assert sorted(trained) == [0, 0, 0, 0, 1]


def make_history_of(*, seed: int, folder: Path) -> str:
    """The file of a finished run."""
    work([make_task(seed)], folder)
    return RunStore(folder).path(make_task(seed)).read_text()


def test_changed_weights_that_are_wanted_are_trained_again(tmp_path: Path, trained: list[int]) -> None:
    wanting = make_task(keep_weights=True)
    work([wanting], tmp_path)
    weights = RunStore(tmp_path).weights(wanting)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + bytes(4))
    _, listener = work([make_task()], tmp_path)
    assert (trained, listener.warned) == ([0], [])
    _, listener = work([wanting], tmp_path)
    assert trained == [0, 0]
    assert listener.warned[0].endswith("is run again: its weights were changed after they were written")
    assert weights.read_bytes() == whole


def test_a_run_that_an_earlier_version_kept_is_taken_once_as_it_is_and_sealed(
    tmp_path: Path, trained: list[int]
) -> None:
    first, _ = work([make_task()], tmp_path)
    path = RunStore(tmp_path).path(make_task())
    path.write_text(first[0].to_json())  # type: ignore[union-attr]
    again, listener = work([make_task()], tmp_path)
    assert again == first
    assert listener.warned == [f"{path}: an earlier version kept this run without a seal; delete it to run it again"]
    _, listener = work([make_task()], tmp_path)
    assert (trained, listener.warned) == ([0], [])


def test_weights_that_are_wanted_and_not_there_are_trained(tmp_path: Path, trained: list[int]) -> None:
    work([make_task()], tmp_path)
    store, wanting = RunStore(tmp_path), make_task(keep_weights=True)
    assert not store.weights(wanting).exists()
    work([wanting], tmp_path)
    work([wanting], tmp_path)
    assert trained == [0, 0]
    state = safetensors.torch.load_file(store.weights(wanting))
    assert "classifier.weight" in state
    store.weights(wanting).unlink()
    work([make_task()], tmp_path)
    assert trained == [0, 0]
    work([wanting], tmp_path)
    assert trained == [0, 0, 0]
    assert store.weights(wanting).exists()


def test_names_of_files_keep_runs_apart(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    tasks = [
        make_task(protocol=dataclasses.replace(PROTOCOL, strategy=parse_strategy(f"l2-at-eps{radius}")))
        for radius in ("0.5", "0.25", "1")
    ]
    names = {path for task in tasks for path in (store.path(task), store.weights(task))}
    assert len(names) == 6
    assert all(path.parent == tmp_path for path in names)
    assert store.path(tasks[0]).name.startswith("d-l2-at-eps0.5-seed0-")


# Accidents


def die_once_or_always(task: RunTask) -> Finished:
    """Seed 1 dies at its first attempt, seed 2 at every one."""
    attempt = task.log.with_suffix(".attempts")
    with attempt.open("a") as file:
        file.write("x")
    if task.seed == 2 or (task.seed == 1 and len(attempt.read_text()) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return run_task(task)


def fail_with_seed_1(task: RunTask) -> Finished:
    if task.seed == 1:
        raise ValueError("seed 1")
    return run_task(task)


def test_a_lost_run_is_tried_again_and_then_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "run_task", die_once_or_always)
    tasks = [make_task(seed) for seed in range(3)]
    found, listener = work(tasks, tmp_path / "runs", workers=2)
    assert sorted(found) == [0, 1, 2]
    lost = found[2]
    assert isinstance(lost, Lost)
    assert "signal 9" in lost.reason
    assert listener.warned == [f"{tasks[2]}: lost, {lost.reason}"]
    attempts = {path.name.split("seed")[1][0]: path.read_text() for path in (tmp_path / "runs").glob("*.attempts")}
    assert attempts == {"0": "x", "1": "xx", "2": "xx"}
    monkeypatch.undo()
    alone, _ = work(tasks[:2], tmp_path / "alone")
    assert [found[0], found[1]] == [alone[0], alone[1]]
    assert not RunStore(tmp_path / "runs").path(tasks[2]).exists()


def test_an_error_of_ones_own_ends_the_work_and_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "run_task", fail_with_seed_1)
    with pytest.raises(ValueError, match="seed 1"):
        work([make_task(0), make_task(1), make_task(2)], tmp_path)
    assert [path.name.split("seed")[1][0] for path in tmp_path.iterdir()] == ["0"]


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_runs import *

class Killer(Listener):
    def say(self, text):
        if "clean test accuracy" in text:
            os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
with LocalExecutor(1) as executor:
    work_off([make_task(seed) for seed in range(3)], RunStore(Path(sys.argv[1])), executor, Killer())
"""


def test_what_was_finished_survives_a_kill(tmp_path: Path, trained: list[int]) -> None:
    program = KILLED.format(tests=str(Path(__file__).parent))
    paths = os.pathsep.join(sys.path)
    assert run_python(program, tmp_path, environment={"PYTHONPATH": paths}).code == -signal.SIGKILL
    assert len(list(tmp_path.glob("*.json"))) == 1
    tasks = [make_task(seed) for seed in range(3)]
    again, listener = work(tasks, tmp_path)
    assert trained == [1, 2]
    assert listener.warned == []
    whole, _ = work(tasks, tmp_path / "uninterrupted")
    assert again == whole
    assert len(list(tmp_path.glob("*.json"))) == 3


def test_epochs_are_shown_while_others_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr("ule_datasets.base.progress.SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("ule_datasets.base.progress.OF_THE_TIME", 0.0)
    longer = dataclasses.replace(PROTOCOL, epochs=20)
    found, listener = work([make_task(seed, protocol=longer) for seed in (1, 0)], tmp_path, workers=2)
    assert [found[index].seed for index in range(2)] == [1, 0]  # type: ignore[union-attr]
    assert any(line.startswith("training: ") and " of 40 epochs" in line for line in listener.said)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json"] * 2
