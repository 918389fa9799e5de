"""CIFAR-100 and SVHN, in miniature, from official files to a report: built, imported, verified by the commands."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import encode, run_build
from miniatures import SPECS, SPLITS, miniature, official, recipe_file

from ule_datasets.cli.verify import main as verify
from ule_datasets.dataset.loading import load
from ule_datasets.experiments.profiles import PROFILES
from ule_datasets.sources import spec as specs

NUM_CLASSES = {"cifar100": 100, "svhn": 10}


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is pinned, and the smoke profile trains for an epoch on a few images."""
    monkeypatch.setattr(specs, "pinned", dict)
    brief = dataclasses.replace(PROFILES["smoke"], epochs=1, max_train_images=200, max_test_images=50)
    monkeypatch.setitem(PROFILES, "smoke", brief)
    monkeypatch.setenv("ULE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", SPECS)
def test_a_recipe_is_built_and_verified_with_all_its_classes(name: str, tmp_path: Path) -> None:
    folder = official(name, tmp_path / "official")
    recipe = recipe_file(tmp_path / "small.py", f"lsp-{name}", miniature(name, folder))
    out = tmp_path / "built"
    outcome = run_build(recipe, "--source", folder, "--out", out)
    assert outcome.code == 0, outcome.stderr
    assert len(load(out).class_names) == NUM_CLASSES[name]
    assert verify([str(out), "--workers", "1", "--strategies", "none", "--seeds", "1"]) == 0
    report = json.loads((out / "verification" / "report.json").read_text())
    assert report["intact"]
    (row,) = report["comparisons"]
    assert (row["dataset"], row["control"]) == ("small", name)
    assert row["num_train"] == min(200, len(SPLITS[name]["train"].labels))


def test_all_claims_are_planned_without_any_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(["--claims", "*", "--dry-run", "--quiet", "--device", "cpu"]) == 0
    plan = capsys.readouterr().out
    for dataset in ("cifar10", "cifar100", "svhn", "lsp-cifar10", "lsp-cifar100", "lsp-svhn"):
        assert f"\n  {dataset}, resnet18-w8, gray: 1 run of 1 epoch on 200 images, " in plan


@pytest.mark.parametrize("name", SPECS)
def test_what_others_have_released_is_imported_and_verified(name: str, tmp_path: Path) -> None:
    folder = official(name, tmp_path / "official")
    recipe = recipe_file(tmp_path / "small.py", f"imported-{name}", miniature(name, folder))
    images = SPLITS[name]["train"].images
    noise = np.random.default_rng(0).integers(-8, 9, images.shape)
    released = np.clip(images + noise, 0, 255).astype(np.uint8)
    (tmp_path / "released").mkdir()
    for number, image in enumerate(released[::-1]):
        (tmp_path / "released" / f"{number}.png").write_bytes(encode(image))
    words = ("--import", tmp_path / "released", "--source", folder, "--out", tmp_path / "built")
    outcome = run_build(recipe, *words)
    assert outcome.code == 0, outcome.stderr
    built = load(tmp_path / "built")
    assert sorted(map(bytes, built.tensors()[0].numpy())) == sorted(map(bytes, released))
    labelled = dict(zip(map(bytes, released), SPLITS[name]["train"].labels.tolist(), strict=True))
    assert [labelled[bytes(image)] for image in built.tensors()[0].numpy()] == built.labels
    assert verify([str(tmp_path / "built"), "--integrity-only", "--source", str(folder)]) == 0
    words = ["--lint", str(tmp_path / "released"), str(recipe), "--source", str(folder)]
    assert verify([*words, "--report", str(tmp_path / "lint")]) == 0
