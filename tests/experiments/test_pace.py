"""In which numbers this machine trains faster: measured once, and noted."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from made_up import CPU, make_profile

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.precision import Precision
from ule_datasets.experiments import pace
from ule_datasets.experiments.pace import settled
from ule_datasets.experiments.profiles import PROFILES, Profile
from ule_datasets.victims.table import VICTIMS

FLOAT32, BFLOAT16 = Precision.FLOAT32, Precision.BFLOAT16
OPEN = make_profile(faster_of=(FLOAT32, BFLOAT16))
QUIET = Reporter(silent=True)


def settle(profile: Profile, folder: Path, **options: Any) -> Profile:
    return settled(profile, device=CPU, threads=1, notes=folder, reporter=QUIET, **options)


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What every measurement finds from now on."""
    found = {FLOAT32: 2.0, BFLOAT16: 1.0}
    monkeypatch.setattr(pace, "_measured", lambda *_: dict(found))
    return found  # type: ignore[return-value]


@pytest.mark.parametrize(("bfloat16", "chosen"), [(1.0, BFLOAT16), (1.66, BFLOAT16), (1.7, FLOAT32), (4.0, FLOAT32)])
def test_bfloat16_is_taken_where_it_is_clearly_faster(
    bfloat16: float, chosen: Precision, seconds: dict[str, float], tmp_path: Path
) -> None:
    seconds[BFLOAT16] = bfloat16
    assert settle(OPEN, tmp_path) == dataclasses.replace(OPEN, precision=chosen)


def test_a_machine_is_measured_once(seconds: dict[str, float], tmp_path: Path) -> None:
    assert settle(OPEN, tmp_path).precision is BFLOAT16
    seconds[FLOAT32] = 0.1
    assert settle(OPEN, tmp_path).precision is BFLOAT16
    (note,) = tmp_path.iterdir()
    assert json.loads(note.read_text())["seconds"] == {"float32": 2.0, "bfloat16": 1.0}
    for damaged in ("{}", "[" * 100_000, '{"seconds": {"float32": "fast", "bfloat16": 1}}', '{"seconds": {}}'):
        note.write_text(damaged)
        assert settle(OPEN, tmp_path).precision is FLOAT32, "a note that says nothing is written anew"
    assert settled(OPEN, device=CPU, threads=2, notes=tmp_path, reporter=QUIET).precision is FLOAT32
    assert len(list(tmp_path.iterdir())) == 2, "another number of threads is another race"


def test_nothing_is_measured_in_a_dry_run_or_for_a_profile_that_names_its_precision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pace, "_measured", lambda *_: pytest.fail("measured"))
    assert settle(OPEN, tmp_path, measure=False) == OPEN
    for profile in PROFILES.values():
        if not profile.faster_of:
            assert settle(profile, tmp_path) is profile
    assert not list(tmp_path.iterdir())


def test_real_steps_are_timed_in_every_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_STEPS", 1)
    monkeypatch.setattr(pace, "_REPEATS", 1)
    narrow = dataclasses.replace(OPEN, stand_in="convnet3-w16")
    found = pace._measured(narrow, CPU, threads=1)
    assert list(found) == [FLOAT32, BFLOAT16]
    assert all(value > 0 for value in found.values())


def test_what_is_asked_for_is_taken_without_a_measurement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pace, "_measured", lambda *_: pytest.fail("measured"))
    for precision in OPEN.faster_of:
        assert settle(OPEN, tmp_path, asked=precision) == dataclasses.replace(OPEN, precision=precision)
    paper = PROFILES["paper"]
    assert settle(paper, tmp_path, asked=str(paper.precision)) == paper
    with pytest.raises(InputError, match=f"^--precision bfloat16: profile paper computes in {paper.precision}$"):
        settle(paper, tmp_path, asked="bfloat16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("times", "timed"), [((1, 1.9), "1212"), ((1, 2.1), "121"), ((3, 1), "122")])
def test_what_is_hopelessly_slow_is_timed_once(
    times: tuple[float, float], timed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Timed:
        def seconds(self, _data: object, protocol: Any, **_: object) -> float:
            seen.append(str(1 + OPEN.faster_of.index(protocol.precision)))
            return times[int(seen[-1]) - 1]

    monkeypatch.setattr(pace, "VICTIMS", dict.fromkeys(VICTIMS, Timed()))
    assert pace._measured(OPEN, CPU, threads=1) == dict(zip(OPEN.faster_of, times, strict=True))
    assert "".join(seen) == timed
