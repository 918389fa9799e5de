"""Crafted datasets through the command line: what their images are, that they repeat, and that nothing is lost."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Outcome, data_files, read, run_build, run_build_process

from builders import RECIPES
from ule_datasets.base.progress import Reporter
from ule_datasets.building import BuildOptions, build
from ule_datasets.data.bounds import LInf
from ule_datasets.data.perturbation import FILE_NAME, Additive, Overwrite, Perturbation, Support
from ule_datasets.data.split import positions_of
from ule_datasets.dataset.loading import load
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.definition import Recipe
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.methods.error_minimizing import ClasswiseErrorMinimizing, ErrorMinimizing
from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.sources.digits import DIGITS
from ule_datasets.sources.reading import Source

TRIAL = ("digits-s", "--limit", "12")
NAME = "digits-s-trial12"
NOISE_ALONE, PIXEL_ALONE = (
    f"""
from dataclasses import replace
from builders import RECIPES

DIGITS_S = RECIPES["digits-s"]
RECIPE = replace(DIGITS_S, name="{name}", methods=DIGITS_S.methods[{part}], budget=DIGITS_S.budget[{part}])
"""
    for name, part in (("my-noise", ":1"), ("my-pixel", "1:"))
)
"""A user's recipe files: the noise of digits-s without the pixel, and the pixel without the noise."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial of digits-s, crafted here; never to be written to."""
    folder = tmp_path_factory.mktemp("crafted") / "trial"
    outcome = run_build(*TRIAL, "--out", folder, "--no-cache")
    assert outcome.code == 0, outcome.stderr
    return folder


def check_images(folder: Path, source: Source, levels: int) -> None:
    """The class's pixel is exactly as chosen; all others are within the bound; the test split is untouched."""
    train, test = load(folder), load(folder, split="test")
    noise, pixels = Perturbation.load(folder / FILE_NAME).layers
    assert isinstance(noise, Additive)
    assert isinstance(pixels, Overwrite)
    images, labels = (tensor.numpy() for tensor in train.tensors())
    rows = positions_of(train.keys, source.train.keys)
    clean = source.train.images[rows]
    each = np.arange(len(images))
    row, column = pixels.rows[labels, 0], pixels.columns[labels, 0]
    assert np.array_equal(images[each, row, column], pixels.colours[labels, 0])
    assert set(np.unique(images[each, row, column])) <= {0, 255}
    difference = images.astype(np.int16) - clean
    difference[each, row, column] = 0
    largest = np.abs(difference).max()
    assert largest == levels if noise.support is Support.SAMPLE else levels // 2 < largest <= levels, "uses its bound"
    entries = labels if noise.support is Support.CLASS else positions_of(train.keys, noise.keys)
    expected = np.clip(clean.astype(np.int16) + noise.levels[entries], 0, 255)
    expected[each, row, column] = images[each, row, column]
    assert np.array_equal(images, expected)
    test_rows = positions_of(test.keys, source.splits["test"].keys)
    assert np.array_equal(test.tensors()[0].numpy(), source.splits["test"].images[test_rows])


def test_digits_s_is_noise_within_its_bound_and_one_exact_pixel(trial: Path) -> None:
    (noise, _), (bound, _) = RECIPES["digits-s"].methods, RECIPES["digits-s"].budget
    assert isinstance(noise, ClasswiseErrorMinimizing)
    assert isinstance(bound, LInf)
    assert noise.epsilon == bound.levels
    check_images(trial, read("digits", DIGITS), bound.levels)


def test_cifar10_s_is_noise_within_8_levels_and_one_exact_pixel(cifar10_folder: Path, tmp_path: Path) -> None:
    noise, pixel = RECIPES["cifar10-s"].methods
    assert isinstance(noise, ErrorMinimizing)
    surrogate = SurrogateSettings(model="convnet3-w16", batch_size=64)
    quick = dataclasses.replace(noise, surrogate=surrogate, steps_per_round=2, max_rounds=1)
    recipe = dataclasses.replace(RECIPES["cifar10-s"].as_trial(40), methods=(quick, pixel))
    build(recipe, BuildOptions(out=tmp_path / "x", source=str(cifar10_folder), cache=False), Reporter(silent=True))
    check_images(tmp_path / "x", read(cifar10_folder, CIFAR10), 8)


def test_the_noise_of_cifar10_s_is_that_of_em_cifar10_and_the_pixel_that_of_ops_cifar10() -> None:
    alone = RECIPES["em-cifar10"].craft_digests + RECIPES["ops-cifar10"].craft_digests
    assert RECIPES["cifar10-s"].craft_digests == alone


def test_crafting_again_gives_the_same_files(trial: Path, tmp_path: Path) -> None:
    assert run_build(*TRIAL, "--out", tmp_path / "x", "--no-cache").code == 0
    assert data_files(tmp_path / "x") == data_files(trial)


def test_two_saved_perturbations_make_the_same_files_as_one_build(trial: Path, tmp_path: Path) -> None:
    for name, recipe in (("noise", NOISE_ALONE), ("pixel", PIXEL_ALONE)):
        (tmp_path / f"{name}.py").write_text(recipe)
        assert run_build(tmp_path / f"{name}.py", "--limit", "12", "--out", tmp_path / name).code == 0
    both = ("--perturbation", tmp_path / "pixel", "--perturbation", tmp_path / "noise" / FILE_NAME)
    outcome = run_build(*TRIAL, "--out", tmp_path / "x", *both)
    assert outcome.code == 0, outcome.stderr
    assert data_files(tmp_path / "x") == data_files(trial)
    again = run_build(*TRIAL, "--out", tmp_path / "x", *both)
    assert "nothing to do" in again.stdout
    missing = run_build(*TRIAL, "--out", tmp_path / "y", "--perturbation", tmp_path / "noise")
    assert missing.code == 2
    assert "made by my-noise-trial12: other methods or settings than digits-s-trial12's" in missing.stderr
    assert not (tmp_path / "y").exists()


def test_a_finished_craft_is_used_again_by_other_recipes_and_formats(
    trial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULE_CACHE", str(tmp_path / "cache"))
    assert "crafted before" not in run_build(*TRIAL, "--out", tmp_path / "a").stderr
    (tmp_path / "noise.py").write_text(NOISE_ALONE)
    outcome = run_build(tmp_path / "noise.py", "--limit", "12", "--out", tmp_path / "b", "--format", "parquet")
    assert "class-wise: crafted before on" in outcome.stderr
    assert "round 1" not in outcome.stderr
    repackaged = run_build(*TRIAL, "--out", tmp_path / "c", "--overwrite")
    assert "class-wise: crafted before on" in repackaged.stderr
    assert data_files(tmp_path / "a") == data_files(tmp_path / "c") == data_files(trial)
    other_seed = run_build(*TRIAL, "--seed", "1", "--out", tmp_path / "d")
    assert "crafted before" not in other_seed.stderr


def test_a_device_that_is_not_there_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    outcome = run_build(*TRIAL, "--out", tmp_path / "x", "--device", "cuda:99")
    assert outcome.code == 2
    assert "device 'cuda:99': on this machine it can be auto, cpu" in outcome.stderr
    assert not (tmp_path / "x").exists()


def test_manifest_and_card_say_what_the_result_depends_on(trial: Path) -> None:
    manifest = Manifest.read(trial)
    noise, pixel = manifest.craft
    assert (noise["identifier"], noise["repeats"]) == ("em_c", "device")
    assert (pixel["identifier"], pixel["repeats"], pixel["environments"]) == ("ops", "exact", [])
    (environment,) = noise["environments"]
    assert environment["torch"] == torch.__version__
    card = (trial / "README.md").read_text(encoding="utf-8")
    assert f"{environment['device']} (cpu_capability" in card
    assert "| round | surrogate right on the perturbed images, % |" in card
    assert "figures/trace_em_c.png" in card
    assert "**Reduced setting.**" in card


class Craft:
    """A build of the trial in a process of its own, with a cache of its own."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.environment = {**os.environ, "ULE_CACHE": str(out.parent / "no-cache"), "OMP_NUM_THREADS": "1"}

    def start(self) -> subprocess.Popen[str]:
        words = [*TRIAL, "--out", str(self.out), "--workers", "1", "--no-cache"]
        command = [sys.executable, "-m", "ule_datasets.cli.build", *words]
        return subprocess.Popen(command, env=self.environment, stderr=subprocess.PIPE, text=True)

    def finish(self) -> Outcome:
        words = [*TRIAL, "--out", str(self.out), "--workers", "1", "--no-cache"]
        return run_build_process(*words, environment=self.environment)


@pytest.mark.slow
def test_killed_at_random_moments_of_the_craft_and_rerun_gives_the_same_files(trial: Path, tmp_path: Path) -> None:
    craft, generator = Craft(tmp_path / "x"), random.Random(3)
    continued = 0
    for attempt in range(4):
        process = craft.start()
        assert process.stderr is not None
        for line in process.stderr:
            continued += "continuing in round" in line
            if "a round" in line:  # the craft begins
                break
        time.sleep(generator.uniform(0.0, 1.5) * (1 if continued else 1 + attempt))  # longer on a busy machine
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
    outcome = craft.finish()
    assert outcome.code == 0, outcome.stderr
    assert continued + ("continuing in round" in outcome.stderr) > 0
    assert data_files(craft.out) == data_files(trial)
    assert not (craft.out / ".build").exists()


def test_ctrl_c_while_crafting_keeps_what_was_done(trial: Path, tmp_path: Path) -> None:
    craft = Craft(tmp_path / "x")
    process = craft.start()
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("round 1:"):
            break
    process.send_signal(signal.SIGINT)
    assert process.stderr.read().splitlines()[-1].endswith("interrupted; the same command continues where it stopped")
    assert process.wait() == 130
    outcome = craft.finish()
    assert "continuing in round" in outcome.stderr
    assert data_files(craft.out) == data_files(trial)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10-s-small"])
def test_the_small_cifar10_s_reaches_its_stop_rule(name: str, cifar10_folder: Path, tmp_path: Path) -> None:
    recipe: Recipe = RECIPES[name]
    build(recipe, BuildOptions(out=tmp_path / "x", source=str(cifar10_folder), workers=2), Reporter(silent=True))
    noise, _ = Perturbation.load(tmp_path / "x" / FILE_NAME).about["methods"]
    assert noise["notes"]["stop_rule_met"]
    assert noise["notes"]["trace"][-1]["accuracy"] >= 99
    check_images(tmp_path / "x", read(cifar10_folder, CIFAR10), 8)
