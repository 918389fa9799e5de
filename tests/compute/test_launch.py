"""One run in two processes: the steps of one, the same parameters everywhere, and errors that come back."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from made_up import CPU, bright_or_dark, make_task
from torch import distributed
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from ule_datasets.base.checkpoint import FileCheckpoint, Forgetful, Keeper
from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.ranks import on_ranks
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.experiments import runs
from ule_datasets.experiments.runs import RunTask, run_task
from ule_datasets.victims.history import RunHistory
from ule_datasets.victims.loop import _Run
from ule_datasets.victims.protocol import Sgd, TrainingProtocol
from ule_datasets.victims.supervised import Supervised

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = TrainingProtocol(
    model="lenet5", epochs=2, batch_size=16, strategy=parse_strategy("none"), optimiser=Sgd(learning_rate=0.05)
)
"""Neither batch statistics nor augmentation: the number of processes must not matter at all."""
USUAL = dataclasses.replace(PLAIN, model="convnet3-w16", epochs=4, strategy=parse_strategy("mixup"))
DATA = bright_or_dark(70, size=32)
"""Batches of 16, 16, 16, 16 and 6."""


def task(protocol: TrainingProtocol, **changes: Any) -> RunTask:
    fields = {"seed": 0, "device": CPU, "keep_weights": True, **changes}
    return make_task(data=DATA, protocol=protocol, **fields)


class Stopped(Exception):  # noqa: N818 (no error)
    """Stands for the end of a process."""


class Pausing:
    """Keeps the state at one of the times that it is asked, and ends the run at the next, in all processes."""

    def __init__(self, file: FileCheckpoint, moment: int) -> None:
        self.load, self.save, self.moment, self.asked = file.load, file.save, moment, 0

    def due(self) -> bool:
        self.asked += 1
        if self.asked == self.moment + 1:
            raise Stopped
        return self.asked == self.moment


def resumed(file: Path) -> list[bool]:
    """Whether a run that was interrupted gives the same history: after the first and the last window of an epoch."""
    protocol = dataclasses.replace(USUAL, epochs=2, strategy=parse_strategy("linf-at+mixup"))

    def train(keeper: Keeper) -> RunHistory:
        silent: dict[str, Any] = {"on_epoch": lambda record: None}
        return Supervised(name=USUAL.model).train(DATA, protocol, seed=5, device=CPU, keeper=keeper, **silent)

    whole, alike = train(Forgetful()), []
    for moment in (1, 5, 6):
        checkpoint = FileCheckpoint(file.with_name(str(moment)), "x", alone=False)
        with contextlib.suppress(Stopped):
            train(Pausing(checkpoint, moment))
            raise AssertionError
        alike.append(checkpoint.load() is not None and train(Pausing(checkpoint, -1)) == whole)
    return alike


def both(given: RunTask, rank: int, device: torch.device | None) -> dict[str, Any]:
    """The run as it is; and then a usual one, with what all processes have in the end; and one that goes on."""
    finished = runs._train(given, rank, device)
    victim = Supervised(name=USUAL.model)
    state = _Run(victim._first_model(DATA, USUAL, 0, None), victim.losses, DATA, USUAL, Seed(0), CPU)
    records = [dataclasses.replace(state.epoch(number), seconds=0.0) for number in range(1, USUAL.epochs + 1)]
    own = torch.cat([parameter.detach().flatten() for parameter in state.model.parameters()])
    gathered = [torch.empty_like(own) for _ in range(state.ranks)]
    distributed.all_gather(gathered, own)
    counted: list[Any] = [None] * state.ranks
    distributed.all_gather_object(counted, records)
    return {
        "finished": finished,
        "parameters": gathered,
        "records": counted,
        "device": device,
        "resumed": resumed(given.log),
    }


def fail_in_one(text: str, rank: int, device: torch.device | None) -> None:
    """The other waits for it."""
    if rank == 1:
        raise InputError(text)
    distributed.barrier()


def die_in_one(text: str, rank: int, device: torch.device | None) -> None:
    if rank == 1:
        os._exit(7)
    distributed.barrier()


def whoami(text: str, rank: int, device: torch.device | None) -> tuple[str, int, torch.device | None, int]:
    return text, rank, device, os.getpid()


def test_one_rank_is_this_process_without_a_group() -> None:
    assert on_ranks(whoami, "x", ranks=1, on_cuda=False) == ("x", 0, None, os.getpid())
    assert not distributed.is_initialized()


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    found = on_ranks(both, task(PLAIN, ranks=2, log=tmp_path / "log"), ranks=2, on_cuda=False)
    assert not distributed.is_initialized()
    assert found["device"] is None, "the task's own"

    shared, alone = found["finished"], run_task(task(PLAIN))
    assert (shared.history.ranks, alone.history.ranks) == (2, 1)
    assert len((tmp_path / "log").read_text().splitlines()) == PLAIN.epochs, "one process writes"
    ours, theirs = safetensors.torch.load(shared.weights), safetensors.torch.load(alone.weights)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-5)
    for one, other in zip(shared.history.epochs, alone.history.epochs, strict=True):
        assert [window.step for window in one.windows] == [window.step for window in other.windows]
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.train_accuracy == pytest.approx(other.train_accuracy)
        assert one.test_accuracy == pytest.approx(other.test_accuracy)
        assert one.displacement == pytest.approx(other.displacement, rel=1e-4)

    assert found["resumed"] == [True] * 3
    first, second = found["parameters"]
    assert torch.equal(first, second)
    assert found["records"][0] == found["records"][1]
    shared_last, alone_last = found["records"][0][-1], run_task(task(USUAL)).history.last
    assert shared_last.windows[-1].step == alone_last.windows[-1].step == 5 * USUAL.epochs
    assert shared_last.test_accuracy == pytest.approx(alone_last.test_accuracy, abs=10)
    assert shared_last.test_accuracy > 85
    assert shared_last.train_loss != alone_last.train_loss, "each process mixes its own part"


def test_an_error_in_one_process_ends_all() -> None:
    with pytest.raises(ChildFailedError, match="no such luck"):
        on_ranks(fail_in_one, "no such luck", ranks=2, on_cuda=False)
    assert not distributed.is_initialized()


@pytest.mark.slow
def test_the_death_of_one_process_ends_all() -> None:
    with pytest.raises(ChildFailedError, match=r"exitcode\s*: 7"):
        on_ranks(die_in_one, "", ranks=2, on_cuda=False)


def wait(folder: Path, rank: int, device: torch.device | None) -> None:
    (folder / str(rank)).touch()
    time.sleep(100)


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_and_leaves_signals_as_they_were(tmp_path: Path) -> None:
    def press(*_: object) -> None:
        if len(list(tmp_path.iterdir())) == 2:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGALRM, press), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            on_ranks(wait, tmp_path, ranks=2, on_cuda=False)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before[1:]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before[0])


def test_a_run_takes_its_own_kind_of_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is a GPU that nobody asked for."""
    asked: list[tuple[int, bool]] = []

    def noted(work: Callable[..., Any], given: RunTask, *, ranks: int, on_cuda: bool) -> None:
        asked.append((ranks, on_cuda))

    monkeypatch.setattr(runs, "on_ranks", noted)
    run_task(task(PLAIN, ranks=2))
    run_task(task(PLAIN, ranks=3, device=torch.device("cuda")))
    assert asked == [(2, False), (3, True)]


def test_more_ranks_than_gpus_are_refused() -> None:
    with pytest.raises(InputError, match="1000 ranks need a GPU each; there are "):
        on_ranks(whoami, "", ranks=1000, on_cuda=True)
