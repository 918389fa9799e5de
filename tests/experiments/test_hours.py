"""Hours of planned runs: from what earlier runs took here, or a bound that says it is one."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from made_up import PROTOCOL, bright_or_dark, make_task

from ule_datasets.compute.devices import describe_device
from ule_datasets.compute.precision import Precision
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.experiments import grid, hours
from ule_datasets.experiments.grid import estimate_left
from ule_datasets.experiments.hours import expected_hours, product_rate
from ule_datasets.experiments.runs import Finished, RunStore, RunTask, run_task
from ule_datasets.victims.history import RunHistory

pytestmark = pytest.mark.usefixtures("one_thread")
LONG = dataclasses.replace(PROTOCOL, epochs=3600)


@pytest.fixture(autouse=True)
def known_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """One TFLOP/s."""
    monkeypatch.setattr(hours, "product_rate", lambda device, precision: 1e12)


@cache
def trained() -> RunHistory:
    return run_task(make_task()).history


def kept(folder: Path, *seconds: float, **changes: Any) -> None:
    """Finished runs of ``make_task``, whose epochs took so long."""
    store, history = RunStore(folder), trained()
    for seed, each in enumerate(seconds):
        found = dataclasses.replace(history, seconds=each * len(history.epochs), seed=seed, **changes)
        store.put(make_task(seed), Finished(history=found, weights=None))


def test_what_earlier_runs_of_the_kind_took_is_expected(tmp_path: Path) -> None:
    kept(tmp_path, 2.0, 5.0, 3.0)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text('{"protocol": 3}')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    two = [make_task(protocol=LONG, threads=2)]
    assert "at least" in expected_hours(two, [0.0], tmp_path), "with other threads"
    told = expected_hours([make_task(protocol=LONG), make_task(5, protocol=LONG)], [0.0, 0.5], tmp_path)
    device = describe_device(make_task().device)
    assert told == f"about 4.5 core hours on {device}: convnet3-w16 as 3 earlier runs took"
    assert expected_hours([make_task(protocol=LONG), make_task()], [0.5, 1.0], tmp_path).startswith("about 1.5 core")


@pytest.mark.parametrize(
    "other",
    [
        make_task(protocol=dataclasses.replace(PROTOCOL, model="resnet18-w8")),
        make_task(protocol=dataclasses.replace(PROTOCOL, batch_size=20)),
        make_task(protocol=dataclasses.replace(PROTOCOL, strategy=parse_strategy("mixup"))),
        make_task(protocol=dataclasses.replace(PROTOCOL, precision=Precision.BFLOAT16)),
        make_task(data=bright_or_dark(400)),
        make_task(threads=2),
    ],
)
def test_runs_of_another_kind_say_nothing_and_a_bound_is_called_one(tmp_path: Path, other: RunTask) -> None:
    kept(tmp_path, 2.0)
    told = expected_hours([other], [0.5], tmp_path)
    assert told.startswith("at least ")
    assert told.endswith(": at the rate of large matrix products, 1,000 GFLOP/s a core, which no run exceeds")
    amount = float(re.findall(r"at least (\S+) core seconds", told)[0])
    assert amount == pytest.approx(0.5 * other.flop / 1e12, rel=0.05)


def test_runs_on_other_hardware_say_nothing_and_both_bases_are_told(tmp_path: Path) -> None:
    kept(tmp_path, 2.0, device="another one")
    assert expected_hours([make_task()], [0.0], tmp_path).startswith("at least")
    kept(tmp_path, 2.0)
    other = make_task(protocol=dataclasses.replace(PROTOCOL, batch_size=20))
    told = expected_hours([make_task(), other], [0.0, 0.0], tmp_path)
    assert "convnet3-w16 as 1 earlier run took; the others at the rate of large matrix products" in told
    assert expected_hours([make_task()], [0.0], tmp_path / "nowhere").startswith("at least")


def test_a_verification_that_trains_is_announced_by_what_earlier_runs_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(tmp_path, 2.0, 5.0, 3.0)
    tasks = [make_task(protocol=LONG), make_task(5, protocol=LONG)]
    with monkeypatch.context() as patched:
        patched.setattr(grid, "time_task", lambda _: pytest.fail("timed, though it is known"))
        assert estimate_left(tasks, [0.0, 0.5], tmp_path) == (16_200.0, "the time of earlier runs")
    other = make_task(protocol=dataclasses.replace(PROTOCOL, batch_size=20))
    monkeypatch.setattr(grid, "time_task", lambda _: 40.0)
    both = "the time of earlier runs and the time of a few steps"
    assert estimate_left([*tasks, other], [0.0, 0.5, 0.25], tmp_path) == (16_230.0, both)
    assert estimate_left([other], [0.0], tmp_path / "nowhere") == (40.0, "the time of a few steps")


def test_the_rate_of_a_device_is_measured() -> None:
    assert product_rate(make_task().device, Precision.FLOAT32) > 1e8


@pytest.mark.parametrize(
    ("seconds", "words"), [(3.0, "6 core seconds"), (59.0, "1.2e+02 core seconds"), (60.0, "2 core minutes")]
)
def test_short_times_are_told_in_smaller_units(tmp_path: Path, seconds: float, words: str) -> None:
    kept(tmp_path, seconds)
    assert expected_hours([make_task()], [0.0], tmp_path).startswith(f"about {words} on ")
