"""Training sets that a countermeasure prepares: made once, before training only, resumed, filed by what made them."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import CPU, DATA, PROTOCOL, Listener, Noisy, make_task

from ule_datasets import countermeasures
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.countermeasures import COUNTERMEASURES, parse_strategy
from ule_datasets.experiments import prepared
from ule_datasets.experiments.prepared import PreparedSets
from ule_datasets.experiments.runs import RunStore, RunTask, work_off
from ule_datasets.victims import preparation
from ule_datasets.victims.data import TrainingData
from ule_datasets.victims.history import RunHistory
from ule_datasets.victims.seen import Seen
from ule_datasets.victims.strategy import Countermeasure

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def noise_is_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a row of the table; pieces of ten images."""
    monkeypatch.setattr(countermeasures, "COUNTERMEASURES", (*COUNTERMEASURES, Noisy))
    monkeypatch.setattr(preparation, "PIECE_BYTES", 10 * 3 * 8 * 8)
    monkeypatch.setattr(Noisy, "breaks_at", -1)
    Noisy.calls.clear()
    yield
    Noisy.calls.clear()


def noisy_task(strategy: str = "noisy", **changes: Any) -> RunTask:
    return make_task(protocol=dataclasses.replace(PROTOCOL, strategy=parse_strategy(strategy)), **changes)


def made(folder: Path, strategy: str, data: TrainingData = DATA, digest: str = "d") -> TrainingData:
    sets = PreparedSets(folder=folder, reporter=Listener())
    return sets.of("d", data, digest, parse_strategy(strategy), device=CPU)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_strategy_without_preparation_trains_on_the_images_themselves(tmp_path: Path) -> None:
    assert made(tmp_path / "sets", "cutout").images is DATA.images
    assert not (tmp_path / "sets").exists()


def test_a_training_set_is_prepared_once_for_all_runs_on_it(tmp_path: Path) -> None:
    tasks, listener = [noisy_task(seed=seed) for seed in (0, 1)], Listener()
    done = work_off(tasks, RunStore(tmp_path / "runs"), LocalExecutor(), listener)
    assert len(done) == 2
    assert Noisy.calls == [10, 10, 10, 10]
    assert sum("d, noisy: 40 images are prepared once" in line for line in listener.said) == 1
    (file,) = files(tmp_path / "prepared")
    assert file.startswith("noisy-")
    assert file.endswith(".npy")
    work_off([noisy_task(seed=2), noisy_task("noisy+cutout")], RunStore(tmp_path / "runs"), LocalExecutor(), listener)
    assert len(Noisy.calls) == 4


def test_finished_runs_and_plans_prepare_nothing(tmp_path: Path) -> None:
    store, task, listener = RunStore(tmp_path / "runs"), noisy_task(), Listener()
    assert task.identity
    assert task.flop == make_task().flop
    assert store.get(task, listener) is None
    assert Noisy.calls == []
    work_off([task], store, LocalExecutor(), listener)
    Noisy.calls.clear()
    for file in (tmp_path / "prepared").iterdir():
        file.unlink()
    work_off([task], store, LocalExecutor(), listener)
    assert Noisy.calls == []


def test_only_training_images_change(tmp_path: Path) -> None:
    changed = made(tmp_path, "noisy")
    assert not np.array_equal(changed.images, DATA.images)
    assert int(np.abs(changed.images.astype(int) - DATA.images).max()) <= 8
    for name in ("labels", "test_images", "test_labels"):
        assert getattr(changed, name) is getattr(DATA, name)


def test_two_preparations_follow_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Inverted(Noisy):
        word = "inverted"

        def prepare(self, images: Any, labels: Any, context: Any) -> Any:
            return 255 - np.asarray(images)

    monkeypatch.setattr(countermeasures, "COUNTERMEASURES", (*COUNTERMEASURES, Noisy, Inverted))
    both = made(tmp_path, "inverted+noisy")
    assert np.array_equal(both.images, 255 - made(tmp_path, "noisy").images)
    assert len(Noisy.calls) == 4
    assert len(files(tmp_path)) == 2


def test_an_interrupted_preparation_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(tmp_path / "whole", "noisy").images
    for number in range(4):
        Noisy.calls.clear()
        monkeypatch.setattr(Noisy, "breaks_at", number)
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path / f"{number}", "noisy")
        assert not list((tmp_path / f"{number}").glob("*.npy"))
        monkeypatch.setattr(Noisy, "breaks_at", -1)
        assert np.array_equal(made(tmp_path / f"{number}", "noisy").images, whole)
        assert len(Noisy.calls) == 4, "no piece was made twice"
        assert len(files(tmp_path / f"{number}")) == 1, "the pieces are gone"


def test_another_process_may_finish_the_same_set_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, write = made(tmp_path / "whole", "noisy").images, prepared._write

    def write_after_the_other(images: Any, path: Path) -> None:
        write(images, path)
        raise FileNotFoundError(path)

    monkeypatch.setattr(prepared, "_write", write_after_the_other)
    assert np.array_equal(made(tmp_path / "sets", "noisy").images, whole)

    def fail(images: Any, path: Path) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(prepared, "_write", fail)
    with pytest.raises(FileNotFoundError):
        made(tmp_path / "none", "noisy")


def test_sets_are_filed_by_data_settings_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for strategy, digest in (("noisy", "d"), ("noisy", "e"), ("noisy-a3", "d")):
        made(tmp_path, strategy, digest=digest)
    assert len(files(tmp_path)) == 3
    monkeypatch.setattr(prepared, "code_digest", lambda *_: "other")
    made(tmp_path, "noisy")
    assert len(files(tmp_path)) == 4
    made(tmp_path, "noisy+cutout+mixup")
    assert len(files(tmp_path)) == 4


def test_sets_that_were_not_used_for_longest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "noisy")
    (first,) = tmp_path.iterdir()
    made(tmp_path, "noisy-a3")
    (second,) = set(tmp_path.iterdir()) - {first}
    for age, path in ((100, second), (200, first)):
        os.utime(path, (time.time() - age, time.time() - age))
    made(tmp_path, "noisy")
    monkeypatch.setattr(prepared, "LARGEST", 2 * first.stat().st_size)
    made(tmp_path, "noisy-a4")
    assert first.exists()
    assert not second.exists()
    assert len(files(tmp_path)) == 2


# What is learned


def test_a_training_set_is_learned_once_for_all_runs_whatever_the_workers(tmp_path: Path) -> None:
    histories = []
    for workers in (1, 2):
        listener, store = Listener(), RunStore(tmp_path / str(workers) / "runs")
        tasks = [noisy_task("op", seed=seed) for seed in (0, 1)]
        with LocalExecutor(workers) as executor:
            done = work_off(tasks, store, executor, listener)
            work_off([noisy_task("op+cutout")], store, executor, listener)
        histories.append([done[index] for index in (0, 1)])
        assert sum("d, op: learns of 40 images once" in line for line in listener.said) == 1
        (file,) = files(tmp_path / str(workers) / "prepared")
        assert file.startswith("op-")
    for one, other in zip(*histories, strict=True):
        assert isinstance(one, RunHistory)
        assert isinstance(other, RunHistory)
        assert one.epochs == other.epochs
        assert one.epochs != work_off([noisy_task("standard")], store, LocalExecutor(), Listener())[0].epochs


def test_what_is_learned_is_of_the_images_as_they_were_prepared(tmp_path: Path) -> None:
    alone, both = made(tmp_path, "op"), made(tmp_path, "op+noisy")
    assert alone.images is DATA.images
    assert np.array_equal(both.images, made(tmp_path, "noisy").images)
    ((directions,), (others,)) = (data.learned for data in (alone, both))
    assert directions.shape == others.shape == (2, 8, 8, 3)
    assert not np.array_equal(directions, others)
    assert np.array_equal(made(tmp_path, "op").learned[0], directions)
    assert len(files(tmp_path)) == 3


def test_who_learns_nothing_may_change_whole_images_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their places, for instance."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Darker(Noisy):
        word = "darker"
        options = ()
        prepare = Countermeasure.prepare

        def on_levels(self, images: Any, rows: Any, learned: Any) -> Any:
            assert learned.shape == (0,)
            return images - 0.25 * rows[:, None, None, None]

    monkeypatch.setattr(countermeasures, "COUNTERMEASURES", (*COUNTERMEASURES, Darker))
    data, rows = made(tmp_path, "darker+op"), torch.tensor([8, 2])
    seen = Seen(torch.from_numpy(data.images), parse_strategy("darker"), data.learned[1:])
    assert torch.equal(seen[rows], torch.from_numpy(data.images)[rows] - torch.tensor([2, 0.5])[:, None, None, None])
