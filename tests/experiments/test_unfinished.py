"""A run that is stopped anywhere and started again gives the same history; what is kept of it is bounded."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Pausing, StoppedError, run_python
from made_up import CPU, PROTOCOL, Listener, bright_or_dark, make_task
from torch import nn

from ule_datasets.base.checkpoint import FileCheckpoint, Forgetful, Pace, State
from ule_datasets.base.files import PARTIAL as PARTIAL
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.precision import Precision
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.compute.stopping import ending_later
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.experiments import unfinished
from ule_datasets.experiments.grid import shares_done
from ule_datasets.experiments.runs import RunStore, RunTask, run_task, work_off
from ule_datasets.models.architectures import MODELS
from ule_datasets.victims.history import EpochRecord, RunHistory
from ule_datasets.victims.protocol import AdamW, Cosine, Sgd, TrainingProtocol
from ule_datasets.victims.supervised import Supervised
from ule_datasets.victims.table import VICTIMS

pytestmark = pytest.mark.usefixtures("one_thread")


def train(
    protocol: TrainingProtocol, keeper: Any = None, told: list[EpochRecord] | None = None, **more: Any
) -> RunHistory:
    told = [] if told is None else told
    options = {"seed": 3, "device": CPU, "on_epoch": told.append, **more}
    if keeper is not None:
        options["keeper"] = keeper
    return VICTIMS[protocol.model].train(bright_or_dark(70), protocol, **options)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {"strategy": parse_strategy("none"), "optimiser": Sgd(momentum=0.0)},
    "mixed": {"strategy": parse_strategy("linf-at+randaugment+cutout+mixup"), "batch_size": 35},
    "adamw": {"optimiser": AdamW(), "schedule": Cosine(), "gradient_clip": 1.0, "strategy": parse_strategy("cutmix")},
    "bfloat16": {"precision": Precision.BFLOAT16},
    "untested": {"epochs": 13, "batch_size": 70, "test_interval": 7},
}
"""Each with a batch normalisation, five steps an epoch at most."""


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_at_any_moment_it_gives_the_same_history(kind: str, tmp_path: Path) -> None:
    """Between steps, between test batches, between epochs."""
    protocol = dataclasses.replace(PROTOCOL, **{"epochs": 2, **KINDS[kind]})
    counting = Pausing(FileCheckpoint(tmp_path / "none", "x"))
    told: list[EpochRecord] = []
    whole = train(protocol, counting, told)
    assert whole == train(protocol)
    for moment in range(1, counting.asked + 1, 1 if kind == "plain" else 4):
        file = FileCheckpoint(tmp_path / str(moment), "x")
        first: list[EpochRecord] = []
        with pytest.raises(StoppedError):
            train(protocol, Pausing(file, moment), first)
        later: list[EpochRecord] = []
        again = train(protocol, Pausing(file), later)
        assert again == whole, moment
        assert again.seconds >= sum(record.seconds for record in again.epochs[:1]) > 0
        assert [*first, *later] == told, "an epoch is told once"


def test_stopped_again_and_again_or_before_anything_is_written_it_goes_on_from_the_last_state(tmp_path: Path) -> None:
    whole, file = train(PROTOCOL), FileCheckpoint(tmp_path / "x", "x")
    for moments, when in (((2, 4), "after"), ((2, 3), "before"), ((1, 3), "after"), ((1,), "before"), ((2,), "after")):
        with pytest.raises(StoppedError):
            train(PROTOCOL, Pausing(file, *moments, when=when))
    assert train(PROTOCOL, Pausing(file)) == whole


class Dropping(nn.Module):
    """Half of what it sees it drops."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(48, num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(images)
        return logits


def test_dropout_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drawn from torch's own generator, which is left alone outside."""
    monkeypatch.setitem(MODELS, "dropping", Dropping)
    monkeypatch.setitem(VICTIMS, "dropping", Supervised(name="dropping"))
    protocol, file = dataclasses.replace(PROTOCOL, model="dropping"), FileCheckpoint(tmp_path / "x", "x")
    whole, before = train(protocol), torch.get_rng_state()
    with pytest.raises(StoppedError):
        train(protocol, Pausing(file, 3))
    assert torch.equal(torch.get_rng_state(), before)
    assert train(protocol, Pausing(file)) == whole


def test_a_loss_that_is_not_finite_ends_a_run_that_went_on(tmp_path: Path) -> None:
    protocol = dataclasses.replace(PROTOCOL, epochs=20, test_interval=20, optimiser=Sgd(learning_rate=1e30))
    whole, file = train(protocol), FileCheckpoint(tmp_path / "x", "x")
    assert (len(whole.epochs), whole.finite) == (1, False)
    with pytest.raises(StoppedError):
        train(protocol, Pausing(file, 6))
    assert train(protocol, Pausing(file)) == whole


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("precision", list(Precision))
def test_on_a_gpu_too(precision: Precision, compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "dropping", Dropping)
    monkeypatch.setitem(VICTIMS, "dropping", Supervised(name="dropping"))
    how = {"precision": precision, "compiled": compiled, "strategy": parse_strategy("linf-at+cutmix")}
    for model in ("dropping", "convnet3-w16"):
        protocol, file = dataclasses.replace(PROTOCOL, model=model, **how), FileCheckpoint(tmp_path / model, "x")
        whole = train(protocol, device=torch.device("cuda"))
        with pytest.raises(StoppedError):
            train(protocol, Pausing(file, 7), device=torch.device("cuda"))
        assert train(protocol, Pausing(file), device=torch.device("cuda")) == whole


# Runs of a store


LONGER = dataclasses.replace(PROTOCOL, epochs=6)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is due whenever a run asks."""
    monkeypatch.setattr(unfinished, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)


def work(tasks: list[RunTask], folder: Path) -> tuple[dict[int, Any], Listener]:
    listener = Listener()
    with LocalExecutor(1) as executor:
        return work_off(tasks, RunStore(folder), executor, listener), listener


def interrupt(
    task: RunTask, folder: Path, monkeypatch: pytest.MonkeyPatch, *, saves: int, ends: Any = StoppedError
) -> None:
    """Begin a run of a store, and end it after so many checkpoints."""
    save, count = FileCheckpoint.save, 0

    def counted(self: FileCheckpoint, state: State) -> None:
        nonlocal count
        save(self, state)
        count += 1
        if count == saves:
            raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(FileCheckpoint, "save", counted)
        with pytest.raises(StoppedError):
            work([task], folder)


@pytest.mark.usefixtures("always")
def test_the_same_work_goes_on_says_so_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, other = make_task(protocol=LONGER), make_task(1, protocol=LONGER)
    store = RunStore(tmp_path / "runs")
    interrupt(task, store.folder, monkeypatch, saves=17)
    kept = store.unfinished(task)
    assert [path.name for path in store.folder.iterdir()] == [kept.name]
    assert kept.stat().st_size < 300_000
    standing = store.standing(task)
    assert standing is not None
    assert len(standing.epochs) == 3
    assert 3 < standing.done < 4
    assert shares_done([task, other], store, known=()) == [standing.done / 6, 0.0]
    assert shares_done([task, other], store, known=(1,)) == [standing.done / 6, 1.0]
    tracked: dict[str, Any] = {}

    def track(self: Reporter, items: Iterable[Any], **how: Any) -> Iterator[Any]:
        tracked.update(how)
        return iter(items)

    monkeypatch.setattr(Reporter, "track", track)
    found, listener = work([task, other], store.folder)
    assert listener.said[0] == f"continuing an interrupted run: {task}, from epoch 4 of 6"
    assert not any("continuing" in line for line in listener.said[1:])
    assert (tracked["total"], tracked["before"]) == (12, 3)
    alone, _ = work([task, other], tmp_path / "alone")
    assert found == alone
    assert sorted(path.suffix for path in store.folder.iterdir()) == [".json"] * 2


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("threads", "it was begun on another machine, with other versions or with another number of threads"),
        ("machine", "it was begun on another machine, with other versions or with another number of threads"),
        ("torn", "Error while deserializing header"),
        ("changed", "its digest does not agree"),
        ("other work", ""),
    ],
)
def test_what_cannot_be_gone_on_from_is_named_and_begun_anew(
    change: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, store = make_task(protocol=LONGER), RunStore(tmp_path)
    interrupt(task, tmp_path, monkeypatch, saves=17)
    kept = store.unfinished(task)
    if change == "threads":
        task = dataclasses.replace(task, threads=2)
    elif change == "machine":
        monkeypatch.setattr(unfinished, "describe_machine", lambda _: {"device": "another"})
    elif change == "torn":
        kept.write_bytes(kept.read_bytes()[:100])
    elif change == "changed":
        kept.write_bytes(kept.read_bytes()[:-4] + b"abcd")
    else:
        task = make_task(protocol=dataclasses.replace(LONGER, epochs=5))
    found, listener = work([task], tmp_path)
    assert found[0] == run_task(task).history
    assert [line.startswith(f"an interrupted run begins anew: {kept} cannot be") for line in listener.warned] == (
        [True] if why else []
    )
    assert all(why in line for line in listener.warned)
    assert kept.exists() == (change == "other work")


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_step_and_a_checkpoint(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "SECONDS_BETWEEN_CHECKPOINTS", 1e9)
    task, due, asked = make_task(protocol=LONGER), unfinished._RunKeeper.due, 0

    def press(self: Any) -> bool:
        nonlocal asked
        asked += 1
        if asked == 9:
            signal.raise_signal(number)
        return due(self)

    def raise_it(*_: object) -> None:
        raise StoppedError

    before = signal.signal(number, raise_it)
    try:
        monkeypatch.setattr(unfinished._RunKeeper, "due", press)
        with pytest.raises(StoppedError):
            work([task], tmp_path)
        monkeypatch.setattr(unfinished._RunKeeper, "due", due)
        assert signal.getsignal(number) == raise_it, "as it was"
    finally:
        signal.signal(number, before)
    standing = RunStore(tmp_path).standing(task)
    assert standing is not None
    assert asked == 9
    assert standing.done > 1
    found, _ = work([task], tmp_path)
    assert found[0] == run_task(task).history


def test_without_a_place_nothing_is_kept_and_signals_do_what_they_do(tmp_path: Path) -> None:
    for path in (None, tmp_path / "nowhere" / "x.unfinished"):
        task = make_task(protocol=LONGER, unfinished=path)
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        with unfinished.keeper_of(task.checkpoint(), until_signalled=True) as keeper:
            assert isinstance(keeper, Forgetful)
            assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        assert run_task(task).history == run_task(make_task(protocol=LONGER)).history


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C is heard also where whoever started the tests ignores it, as shells do for what runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_does_not_wait(heard: None) -> None:
    with ending_later() as ending:
        assert not ending.wanted
        signal.raise_signal(signal.SIGINT)
        assert ending.wanted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            ending.now()


def test_old_and_half_written_files_go(tmp_path: Path) -> None:
    ages = {"a.unfinished": 31 * 86_400, ".b.unfinished.7.partial": 3600, "c.unfinished": 86_400, "d.json": 1e9}
    for name, age in {**ages, ".e.unfinished.7.partial": 5}.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    unfinished.tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".e.unfinished.7.partial", "c.unfinished", "d.json"]


def test_checkpoints_come_a_minute_apart_and_cost_no_more_than_one_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    now, wait = 0.0, 60.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace = Pace(60.0)
    for cost, following in ((0.1, 60.0), (0.6, 60.0), (3.0, 300.0), (0.5, 60.0), (6.0, 600.0)):
        now += wait - 1
        assert not pace.due()
        now += 1.5
        assert pace.due()
        now += cost
        pace.saved()
        wait = following
    pace.saved()
    now += 60.5
    assert pace.due(), "one that nobody had to wait for costs nothing"


KILLED = """
import os, signal, sys
sys.path[:0] = [{tests!r}, {here!r}]
from test_unfinished import *

unfinished.SECONDS_BETWEEN_CHECKPOINTS = 0.0
count, replace = 0, Path.replace

def dying(self, target):
    global count
    count += self.name.endswith(PARTIAL) and ".unfinished" in self.name
    if count == 11:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)

Path.replace = dying
torch.set_num_threads(1)
work([make_task(protocol=LONGER)], Path(sys.argv[1]))
"""


def test_a_process_that_is_killed_while_it_writes_goes_on_from_the_state_before(tmp_path: Path) -> None:
    here = Path(__file__).parent
    program = KILLED.format(tests=str(here.parent), here=str(here))
    done = run_python(program, tmp_path, environment={"PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.code == -signal.SIGKILL, done.stderr
    task, store = make_task(protocol=LONGER), RunStore(tmp_path)
    assert sorted(path.name.startswith(".") for path in tmp_path.iterdir() if path.suffix != ".log") == [False, True]
    standing = store.standing(task)
    assert standing is not None
    assert len(standing.epochs) == 2
    found, listener = work([task], tmp_path)
    assert listener.said[0] == f"continuing an interrupted run: {task}, from epoch 3 of 6"
    assert found[0] == run_task(task).history
