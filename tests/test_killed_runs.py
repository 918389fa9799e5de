"""``ule-verify`` that is killed at random moments, or told to end: the same command gives the same figures."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
LESS = """
import dataclasses
import ule_datasets.base.checkpoint as checkpoint
checkpoint.SECONDS_BETWEEN_CHECKPOINTS = {seconds}
from ule_datasets.experiments.profiles import PROFILES
PROFILES["smoke"] = dataclasses.replace(PROFILES["smoke"], epochs=4, max_train_images=200)
"""
"""Every process imports it by itself: less work, and perhaps more checkpoints."""


class Command:
    """``ule-verify`` of a dataset with a cache of its own."""

    def __init__(self, dataset: Path, folder: Path, *arguments: str, often: bool = True) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(LESS.format(seconds=0.1 if often else 60.0))
        self.folder, self.runs = folder, folder / "cache" / "runs"
        self.arguments = [str(dataset), "--report", str(folder / "report"), *arguments]

    def start(self) -> subprocess.Popen[str]:
        paths = os.pathsep.join([str(self.folder), str(ROOT)])
        environment = {**os.environ, "PYTHONPATH": paths, "ULE_CACHE": str(self.folder / "cache")}
        command = [sys.executable, "-m", "ule_datasets.cli.verify", *self.arguments]
        log = (self.folder / "log").open("w")
        return subprocess.Popen(command, env=environment, stderr=log, stdout=log, start_new_session=True)

    def said(self) -> str:
        return (self.folder / "log").read_text()

    def finish(self) -> None:
        assert self.start().wait() == 0, self.said()

    def train(self, *, logs: int, seconds: float) -> subprocess.Popen[str]:
        """Start, and come back so many seconds after so many runs had an epoch behind them, or when all is over."""
        for log in self.runs.glob("*.log"):  # of one that was killed
            log.unlink()
        process = self.start()
        while process.poll() is None and len(list(self.runs.glob("*.log"))) < logs:
            time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return process

    def figures(self) -> dict[str, Any]:
        """All numbers of the report that are no times."""
        return without_times(json.loads((self.folder / "report" / "report.json").read_text()))


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        left_out = ("seconds", "reused", "command", "date", "environment")
        return {name: without_times(item) for name, item in value.items() if name not in left_out}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def ended(process: subprocess.Popen[str], number: int) -> bool:
    """Send a signal, and wait for the end; whether it was not over already."""
    if process.poll() is None:
        process.send_signal(number)
    return process.wait(timeout=300) != 0


MIXED = ("--strategies", "linf-at+mixup", "--workers", "2")
PLAIN = ("--strategies", "standard", "--workers")


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_gives_the_same_figures(built_digits: Path, tmp_path: Path) -> None:
    whole = Command(built_digits, tmp_path / "whole", *MIXED)
    whole.finish()
    generator, kills, rounds, continued = random.Random(0), 0, 0, 0
    while kills < 20:
        command = Command(built_digits, tmp_path / f"killed{rounds}", *MIXED)
        rounds += 1
        while kills < 20 and ended(command.train(logs=1, seconds=generator.uniform(0.0, 2.0)), signal.SIGKILL):
            kills += 1
            continued += command.said().count("continuing an interrupted run")
            assert len(list(command.runs.glob("*.unfinished"))) <= 2, "one for each worker"
        command.finish()
        assert command.figures() == whole.figures()
        assert [path.name for path in command.runs.iterdir() if path.suffix != ".json"] == []
        shutil.rmtree(command.folder)
    assert continued > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "arguments"),
    [
        (signal.SIGTERM, 143, (*PLAIN, "2")),
        (signal.SIGINT, 130, (*PLAIN, "2")),
        (signal.SIGTERM, 143, (*PLAIN, "1")),
        (signal.SIGINT, 130, (*PLAIN, "1")),
    ],
    ids=["SIGTERM, two workers", "SIGINT, two workers", "SIGTERM, one", "SIGINT, one"],
)
def test_a_signal_writes_a_checkpoint_and_one_line(
    number: int, code: int, arguments: Sequence[str], built_digits: Path, tmp_path: Path
) -> None:
    """Long before a minute is over."""
    command = Command(built_digits, tmp_path / "signalled", *arguments, often=False)
    process = command.train(logs=int(arguments[-1]), seconds=0.3)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(timeout=100) == code
    assert command.said().splitlines()[-1] == "ule-verify: interrupted; the same command continues where it stopped"
    begun = len(list(command.runs.glob("*.unfinished")))
    assert begun == int(arguments[-1])
    command.finish()
    assert command.said().count("continuing an interrupted run: ") == begun
    whole = Command(built_digits, tmp_path / "whole", *arguments, often=False)
    whole.finish()
    assert command.figures() == whole.figures()


@pytest.mark.slow
def test_ranks_that_are_interrupted_end_in_one_line_and_go_on_from_the_last_minute(
    built_digits: Path, tmp_path: Path
) -> None:
    arguments = (*PLAIN, "1", "--ranks", "2")
    command = Command(built_digits, tmp_path / "ranks", *arguments)
    process = command.train(logs=1, seconds=2.0)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=100) == 130
    assert command.said().splitlines()[-1] == "ule-verify: interrupted; the same command continues where it stopped"
    assert len(list(command.runs.glob("*.unfinished"))) == 1
    command.finish()
    assert command.said().count("continuing an interrupted run: ") == 1
    whole = Command(built_digits, tmp_path / "whole", *arguments)
    whole.finish()
    assert command.figures() == whole.figures()
