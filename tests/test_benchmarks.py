"""Every benchmark still runs, on next to nothing: what it measures there means nothing."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest
import torch
from helpers import make_images

from ule_datasets.data.split import Split, sample_digest
from ule_datasets.experiments.profiles import PROFILES
from ule_datasets.models.architectures import MODELS, build_model
from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.sources.reading import Source

FOLDER = Path(__file__).parent.parent / "benchmarks"
SLOW = pytest.mark.slow
SOURCE, ONCE, ONE_WORKER = ("--source", "made-up"), ("--repeats", "1"), ("--workers", "1")
FEW = ("--formats", "parquet", "--limit-images", "4")
CASES: dict[str, tuple[str, ...]] = {
    "assembly": (*SOURCE, *ONCE, "--images", "40", "--work", "{here}"),
    "bait": (*SOURCE, *ONCE, "--width", "2", "--blocks", "1", "--images", "4"),
    "clusters": (*ONCE, "--images", "8", "--batch", "4", "--model", "resnet20"),
    "confuse": (
        *(*SOURCE, *ONCE, "--width", "1", "--classifier", "convnet3-w16"),
        *("--images", "40", "--epochs", "1", "--batch", "20"),
    ),
    "decode": ("{photographs}", *ONCE, *ONE_WORKER, "--images", "4", "--work", "{here}"),
    "demonstration": ("--results", "{here}/runs.jsonl", "--table"),
    "durability": ("--source", "digits", "--recipe", "ops-digits", *ONCE, "--workers", "1", "--work", "{here}"),
    "memory": ("--recipe", "ops-digits", "--source", "digits", *ONCE, *ONE_WORKER),
    "noise": (*SOURCE, *ONCE, "--model", "convnet3-w16", "--images", "16", "--steps", "2"),
    "poisoning": (*SOURCE, *ONCE, "--model", "convnet3-w16", "--images", "16", "--steps", "2"),
    "preparations": (*SOURCE, *ONCE, "--images", "40"),
    "publishing": ("--folder", "{digits}", *ONCE),
    "quick_study": (*SOURCE, "--only", "short", "--images", "64", "--threads", "1", "--results", "{here}/runs.jsonl"),
    "robust_noise": (
        *SOURCE,
        *ONCE,
        "--model",
        "convnet3-w16",
        "--images",
        "8",
        "--samples",
        "2",
        "--attack-steps",
        "1",
    ),
    "scale": ("{photographs}", *ONE_WORKER, *FEW, "--images", "12", "--work", "{here}"),
    "search": (*SOURCE, *ONCE, "--sample", "20"),
    "training": (*ONCE, "--images", "256", "--strategies", "standard", "--steps", "1", "--threads", "1"),
}
WORK_LISTS = ("worklist", "gpu", "effects")
"""Tested in tests/test_worklists.py."""
MANY_PROCESSES = ("memory", "publishing", "scale")
"""These start programs of their own, or train for minutes."""


def cifar10(*_: object, **__: object) -> Source:
    """Made-up images of the same kind."""
    images, labels = make_images(10, 20, 32)
    digests = [sample_digest(image, label) for image, label in zip(images, labels.tolist(), strict=True)]
    splits = {name: Split.from_samples(name, images, labels, digests) for name in ("train", "test")}
    return Source(CIFAR10, "made-up", "made-up", tuple(f"class {number}" for number in range(10)), splits)


def run(name: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``python benchmarks/NAME.py WORDS`` does, but that CIFAR-10 is made up."""
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module(name)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(module, "read_cifar10", cifar10, raising=False)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    assert not module.main()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ImageNet's, made by a benchmark too."""
    folder = tmp_path_factory.mktemp("photographs") / "all"
    with pytest.MonkeyPatch.context() as patch:
        run("synthetic_images", (str(folder), "--classes", "2", "--images", "12", *ONE_WORKER), patch)
    return folder


def test_every_benchmark_is_here() -> None:
    names = {path.stem for path in FOLDER.glob("*.py")}
    assert names == {*CASES, "common", "synthetic_images", *WORK_LISTS}


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW) if n in MANY_PROCESSES else n for n in CASES])
def test_a_benchmark_runs(
    name: str, photographs: Path, built_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"here": tmp_path, "photographs": photographs, "digits": built_digits}
    run(name, tuple(word.format(**places) for word in CASES[name]), monkeypatch)


def test_the_quick_profile_is_the_setting_that_the_study_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    study = importlib.import_module("quick_study")
    setting, quick = study.SETTINGS[study.CHOSEN], PROFILES["quick"]
    own = quick.protocol("quicknet", "standard", flippable=True)
    studied = study.protocol_of(setting, quick.precision)
    assert dataclasses.replace(studied, model="quicknet") == own
    assert (setting.data, setting.label_smoothing) == ("clean", 0.0)
    network = build_model("quicknet", 10, seed=1).state_dict()
    study.victim_of(setting)
    theirs = build_model(study.MODEL, 10, seed=1).state_dict()
    MODELS.pop(study.MODEL)
    assert network.keys() == theirs.keys()
    assert all(torch.equal(network[name], theirs[name]) for name in network)
