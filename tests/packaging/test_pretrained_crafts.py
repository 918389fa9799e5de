"""BAIT and Unlearnable Clusters through the command line: own recipes, images without labels, kills, bad input."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from helpers import Outcome, data_files, encode, make_images, run_build
from tiny_weights import save_tiny_weights

from ule_datasets.data.perturbation import FILE_NAME, Additive, Perturbation, Support
from ule_datasets.methods.engine.stepwise import Stepwise
from ule_datasets.models.architectures import build_model
from ule_datasets.models.weights import Weights

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPES = """
from dataclasses import replace
from builders import RECIPES
from ule_datasets.methods.bait import Bait
from ule_datasets.methods.unlearnable_clusters import CropRule, UnlearnableClusters
from ule_datasets.models.weights import Weights

TINY = {weights!r}
RECIPE = replace(RECIPES["{other}"], name="mine", methods=({method},))
"""
BAIT = "Bait(prior=TINY, generator_width=1, generator_blocks=1, stages=(2, 2, 2), batch_size=64)"
CLUSTERS = (
    "UnlearnableClusters(surrogate=TINY, augmentation=CropRule.PAD, generator_width=4, generator_blocks=1, "
    "num_clusters=3, epochs={epochs}, batch_size=64)"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, Path]:
    return save_tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def pile(tmp_path: Path) -> Path:
    """Thirty images without class folders."""
    return write_pile(tmp_path / "pile", 30)


def write_pile(folder: Path, count: int, size: int = 16) -> Path:
    folder.mkdir()
    for number, image in enumerate(make_images(3, -(-count // 3), size).images[:count]):
        (folder / f"{number}.png").write_bytes(encode(image))
    return folder


def bait(folder: Path, weights: Weights, *, method: str = BAIT) -> Path:
    """A recipe file on the digits."""
    path = folder / "bait.py"
    path.write_text(RECIPES.format(other="ops-digits", weights=weights, method=method))
    return path


def clusters(folder: Path, weights: Weights, *, method: str = CLUSTERS, epochs: int = 2) -> Path:
    """A recipe file on images of one's own, which are not resized."""
    path = folder / "clusters.py"
    path.write_text(
        RECIPES.format(other="ops", weights=weights, method=method.format(epochs=epochs)),
    )
    return path


def refused(outcome: Outcome) -> str:
    """The one line that says why."""
    assert outcome.code == 2, outcome.stderr
    lines = [line for line in outcome.stderr.splitlines() if line.startswith("ule-build:")]
    assert len(lines) == 1, outcome.stderr
    return lines[0]


def test_clusters_of_images_without_labels(pile: Path, tiny: tuple[Weights, Path], tmp_path: Path) -> None:
    weights, file = tiny
    outcome = run_build(clusters(tmp_path, weights), "--source", pile, "--out", tmp_path / "x", "--weights", file)
    assert outcome.code == 0, outcome.stderr
    perturbation = Perturbation.load(tmp_path / "x" / FILE_NAME)
    (layer,) = perturbation.layers
    assert isinstance(layer, Additive)
    assert (layer.support, len(layer.levels), len(layer.keys)) == (Support.CLUSTER, 3, 30)
    assert 0 < np.abs(layer.levels.astype(int)).max() <= 16
    assert layer.members is not None
    assert set(layer.members.tolist()) == {0, 1, 2}
    record = perturbation.about["methods"][0]["notes"]["weights"]
    assert (record["name"], record["sha256"]) == (weights.name, weights.sha256)
    assert str(file.parent) not in (tmp_path / "x" / "manifest.json").read_text(), "no path of this machine"

    from datasets import load_dataset

    train = load_dataset(str(tmp_path / "x"), split="train")
    assert train.features["label"].names == ["unlabelled"]
    assert train["label"] == [0] * 30
    card = (tmp_path / "x" / "README.md").read_text()
    assert "| cluster | images | pulled to the centre of cluster |" in card
    assert weights.name in card
    assert (tmp_path / "x" / "figures" / "cluster_noise.png").exists()
    again = run_build(clusters(tmp_path, weights), "--source", pile, "--out", tmp_path / "y", "--weights", file.parent)
    assert again.code == 0
    assert data_files(tmp_path / "x") == data_files(tmp_path / "y")


@pytest.mark.parametrize("kind", ["bait", pytest.param("clusters", marks=pytest.mark.slow)])
def test_killed_while_crafting_and_run_again_gives_the_same_files(
    kind: str, tiny: tuple[Weights, Path], tmp_path: Path
) -> None:
    weights, file = tiny
    if kind == "bait":
        recipe, begun, continued = bait(tmp_path, weights), "round 1 of", "continuing"
    else:
        recipe, begun, continued = clusters(tmp_path, weights, epochs=5), "generator 1 of 3: loss", "continuing"
    words = [recipe, "--source", "digits", "--limit", "20", "--weights", file, "--no-cache", "--workers", "1"]
    whole = run_build(*words, "--out", tmp_path / "whole")
    assert whole.code == 0, whole.stderr
    program = "import sys; from ule_datasets.cli.build import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, [*words, "--out", tmp_path / "x"])],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=dict(os.environ),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(begun):
            break
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    outcome = run_build(*words, "--out", tmp_path / "x")
    assert outcome.code == 0, outcome.stderr
    assert continued in outcome.stderr
    assert data_files(tmp_path / "x") == data_files(tmp_path / "whole")


def test_weights_of_another_architecture_or_number_of_classes(tiny: tuple[Weights, Path], tmp_path: Path) -> None:
    weights, _ = tiny
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file(build_model("resnet20", 3, seed=0).state_dict(), other)
    classes = tmp_path / "classes.safetensors"
    safetensors.torch.save_file(build_model(weights.architecture, 7, seed=0).state_dict(), classes)
    for file, message in (
        (other, f"does not hold {weights.architecture}"),
        (classes, f"is {weights.architecture} with 7 outputs, the weights {weights.name} have 3"),
    ):
        named = Weights(
            name=weights.name,
            architecture=weights.architecture,
            num_outputs=3,
            origin=f"file:{file.name}",
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            mean=weights.mean,
            std=weights.std,
        )
        for recipe, source in ((bait(tmp_path, named), "digits"), (clusters(tmp_path, named), "digits")):
            outcome = run_build(recipe, "--source", source, "--out", tmp_path / "x", "--weights", file)
            assert message in refused(outcome)
            assert not (tmp_path / "x" / "manifest.json").exists()


@pytest.mark.parametrize("kind", ["bait", "clusters"])
def test_weights_that_are_nowhere_or_not_the_recipe_s(
    kind: str, tiny: tuple[Weights, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ULE_WEIGHTS", raising=False)
    weights, file = tiny
    recipe = (bait if kind == "bait" else clusters)(tmp_path, weights)
    words = [recipe, "--source", "digits", "--limit", "5", "--out", tmp_path / "x"]
    for planned in ([], ["--dry-run"]):
        assert "with --weights or $ULE_WEIGHTS" in refused(run_build(*words, *planned))
        absent = run_build(*words, *planned, "--weights", tmp_path / "absent")
        assert f"--weights {tmp_path / 'absent'}: no such file or folder" in refused(absent)
    damaged = tmp_path / file.name
    damaged.write_bytes(file.read_bytes()[:-100])
    for planned in ([], ["--dry-run"]):
        outcome = run_build(*words, *planned, "--weights", damaged)
        assert f"is not the weights {weights.name}: its sha256" in refused(outcome)
    assert run_build(*words, "--dry-run", "--weights", file).code == 0
    monkeypatch.setenv("ULE_WEIGHTS", str(file.parent))
    assert run_build(*words).code == 0


def test_more_clusters_than_images_and_a_folder_without_any(tiny: tuple[Weights, Path], tmp_path: Path) -> None:
    weights, file = tiny
    recipe = clusters(tmp_path, weights)
    words = [recipe, "--out", tmp_path / "x", "--weights", file, "--source"]
    two = write_pile(tmp_path / "two", 2)
    for planned in ([], ["--dry-run"]):
        assert "2 images, too few for 3 clusters" in refused(run_build(*words, two, *planned))
    (tmp_path / "empty").mkdir()
    assert "no images found there" in refused(run_build(*words, tmp_path / "empty"))
    odd = write_pile(tmp_path / "odd", 6, size=18)
    assert "sides are multiples of 4" in refused(run_build(*words, odd))


def test_bait_needs_labels(pile: Path, tiny: tuple[Weights, Path], tmp_path: Path) -> None:
    weights, file = tiny
    recipe = bait(tmp_path, weights)
    recipe.write_text(recipe.read_text().replace("ops-digits", "ops"))
    outcome = run_build(recipe, "--source", pile, "--out", tmp_path / "x", "--weights", file)
    assert "label" in refused(outcome)


@pytest.mark.parametrize(("library", "architecture"), [("timm", "timm:resnet18"), ("open_clip", "open_clip:RN50")])
def test_a_missing_extra_is_named(
    library: str,
    architecture: str,
    tiny: tuple[Weights, Path],
    pile: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights, file = tiny
    monkeypatch.setitem(sys.modules, library, None)
    named = Weights(
        name="other@tiny",
        architecture=architecture,
        num_outputs=3,
        origin=f"file:{file.name}",
        sha256=weights.sha256,
        mean=weights.mean,
        std=weights.std,
    )
    outcome = run_build(clusters(tmp_path, named), "--source", pile, "--out", tmp_path / "x", "--weights", file)
    assert 'pip install "ule-datasets[pretrained]"' in refused(outcome)


class StoppedError(Exception):
    """The moment of a craft's interruption."""


def test_a_dry_run_tells_how_far_a_begun_craft_is(
    tiny: tuple[Weights, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULE_CACHE", str(tmp_path / "cache"))  # other tests make the same craft
    weights, file = tiny
    words = ["--source", "digits", "--limit", "5", "--out", tmp_path / "x", "--weights", file]
    recipe = clusters(tmp_path, weights)
    save = Stepwise.save

    def stop(self: Stepwise) -> None:
        save(self)
        if len(self.trace) == 2:
            raise StoppedError

    assert "crafted on" in run_build(recipe, *words, "--dry-run").stdout
    with monkeypatch.context() as patched:
        patched.setattr(Stepwise, "save", stop)
        stopped = run_build(recipe, *words)
    assert "StoppedError" in stopped.stderr, stopped.stderr
    begun = run_build(recipe, *words, "--dry-run").stdout
    assert "plan: Unlearnable Clusters: continued after 2 generators on" in begun
    assert "crafted on" in run_build(recipe, *words, "--dry-run", "--overwrite").stdout
    assert "crafted on" in run_build(recipe, *words, "--dry-run", "--seed", "7").stdout, "another craft"


def test_a_device_that_is_not_here_is_refused_in_a_dry_run_too() -> None:
    for device in ("cuda:99", "abacus"):
        assert f"device '{device}'" in refused(run_build("ops-digits", "--dry-run", "--device", device))
