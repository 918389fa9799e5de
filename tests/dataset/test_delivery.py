"""A dataset that goes to a URL is the one that would stand in a folder, and is complete only with its manifest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import data_files, run_build, snapshot

from ule_datasets.dataset.manifest import Manifest

TRIAL = ("ops-digits", "--limit", "12")
"""120 training and 360 test images."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "bucket" / "digits"


def url(place: Path) -> str:
    return f"file://{place}"


def deliver(place: Path, *arguments: str | Path, scratch: Path | None = None) -> str:
    outcome = run_build(*TRIAL, "--out", url(place), "--scratch", scratch or place.parents[1] / "scratch", *arguments)
    assert outcome.code == 0, outcome.stderr
    return outcome.stdout


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_files_are_those_of_a_folder_and_nothing_stays_here(place: Path, tmp_path: Path, workers: str) -> None:
    assert f"in {url(place)}" in deliver(place, "--workers", workers)
    assert run_build(*TRIAL, "--out", tmp_path / "folder").code == 0
    assert data_files(place) == data_files(tmp_path / "folder")
    assert Manifest.read(place).files == Manifest.read(tmp_path / "folder").files
    assert not list((tmp_path / "scratch").iterdir())
    assert not any(path.is_file() for path in (place / ".build").rglob("*"))


def test_again_nothing_happens(place: Path, tmp_path: Path) -> None:
    deliver(place)
    before = snapshot(place)
    said = deliver(place)
    assert "already holds ops-digits-trial12 1.0.0, finished earlier; nothing to do (nothing was verified)" in said
    assert snapshot(place) == before
    assert not list((tmp_path / "scratch").iterdir())


def test_another_dataset_there_is_refused_until_it_may_be_replaced(place: Path, tmp_path: Path) -> None:
    deliver(place)
    before = snapshot(place)
    other = ("ops-digits", "--limit", "11", "--out", url(place), "--scratch", tmp_path / "scratch")
    outcome = run_build(*other)
    assert outcome.code == 2
    assert "holds ops-digits-trial12 1.0.0" in outcome.stderr
    assert snapshot(place) == before
    assert run_build(*other, "--overwrite", "--format", "parquet").code == 0
    assert Manifest.read(place).name == "ops-digits-trial11"
    listed = {record.path for record in Manifest.read(place).files} | {"manifest.json"}
    assert {path for path in snapshot(place) or {} if (place / path).is_file()} == listed


def test_a_place_with_something_else_is_never_touched(place: Path, tmp_path: Path) -> None:
    place.mkdir(parents=True)
    (place / "thesis.tex").write_text("mine")
    for more in ((), ("--overwrite",)):
        outcome = run_build(*TRIAL, "--out", url(place), "--scratch", tmp_path / "scratch", *more)
        assert outcome.code == 2
        assert "holds something else (thesis.tex)" in outcome.stderr
    assert snapshot(place) == {"thesis.tex": (snapshot(place) or {})["thesis.tex"]}


def test_killed_while_sending_and_continued(place: Path, tmp_path: Path) -> None:
    arguments = [*TRIAL, "--out", url(place), "--scratch", str(tmp_path / "scratch"), "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ule_datasets.cli.build", *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and not list(place.glob("data/*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (place / "manifest.json").exists(), "it was killed too late to show anything"
    assert json.loads((place / ".build" / "identity.json").read_text())["name"] == "ops-digits-trial12"
    deliver(place)
    assert run_build(*TRIAL, "--out", tmp_path / "folder").code == 0
    assert data_files(place) == data_files(tmp_path / "folder")


def test_publishing_from_a_url_is_refused(place: Path) -> None:
    outcome = run_build(*TRIAL, "--out", url(place), "--push-to-hub")
    assert outcome.code == 2
    assert f"publishing starts from a folder: --out {url(place)} is a URL" in outcome.stderr.replace("\n", " ")
    assert not place.exists()
