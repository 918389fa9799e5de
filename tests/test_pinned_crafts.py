"""What gradient methods craft may change only on purpose, and comes out the same when it is resumed in the middle.

Bits of such crafts depend on the processor and on the libraries: ``pinned_crafts.json`` has digests by these, which are
compared where all of that is as it was when they were taken; a craft in one go and a resumed one are compared anywhere.
``python tests/test_pinned_crafts.py`` takes those of the machine that it runs on; ``... NAME`` only some of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import sklearn
import torch
from torch import nn

from builders import RECIPES
from ule_datasets.base.checkpoint import MemoryCheckpoint, State
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.devices import cpu_model, cpu_threads
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.data.quantization import Quantize
from ule_datasets.data.split import Split, sample_digest
from ule_datasets.methods.adversarial_poisoning import AdversarialPoisoning
from ule_datasets.methods.bait import Bait, Released
from ule_datasets.methods.deepconfuse import DeepConfuse
from ule_datasets.methods.engine import stepwise
from ule_datasets.methods.engine.clean_training import CleanTraining
from ule_datasets.methods.engine.settings import ErrorAverage, SurrogateSettings
from ule_datasets.methods.error_maximizing import ClasswiseErrorMaximizing, ErrorMaximizing
from ule_datasets.methods.error_minimizing import ClasswiseErrorMinimizing, ErrorMinimizing
from ule_datasets.methods.method import Context, Method
from ule_datasets.methods.robust_error_minimizing import RobustErrorMinimizing
from ule_datasets.methods.unlearnable_clusters import BoundRule, CropRule, TrainOn, UnlearnableClusters
from ule_datasets.models.architectures import build_model
from ule_datasets.models.weights import Weights
from ule_datasets.sources.reading import read_source

PINS = Path(__file__).with_name("pinned_crafts.json")
EM: dict[str, Any] = {
    "surrogate": SurrogateSettings(model="convnet3-w16", batch_size=32),
    "num_steps": 3,
    "steps_per_round": 4,
    "max_rounds": 2,
}
TRAINED = CleanTraining(surrogate=SurrogateSettings(model="convnet3-w16", batch_size=30), epochs=2)
EMAX: dict[str, Any] = {"training": TRAINED, "num_steps": 3, "max_rounds": 2, "stop_error": 1.0}
TAP: dict[str, Any] = {"training": TRAINED, "num_steps": 4, "restarts": 2}
REM: dict[str, Any] = {
    "surrogate": SurrogateSettings(model="convnet3-w16", batch_size=32, gradient_clip=None),
    "num_steps": 2,
    "num_samples": 2,
    "attack_steps": 2,
    "train_steps": 5,
}
DC: dict[str, Any] = {
    "trials": 2,
    "epochs": 1,
    "batch_size": 30,
    "classifier": "convnet3-w16",
    "generator_width": 2,
}
BAIT: dict[str, Any] = {
    "stages": (1, 1, 1),
    "batch_size": 12,
    "generator_width": 2,
    "generator_blocks": 1,
    "crop_padding": 2,
}
UC: dict[str, Any] = {
    "num_clusters": 3,
    "epochs": 2,
    "batch_size": 16,
    "feature_batch": 8,
    "kmeans_restarts": 2,
    "generator_width": 4,
    "generator_blocks": 1,
    "learning_rate": 2e-3,
    "augmentation": CropRule.PAD,
    "bound": BoundRule.SCALE,
}
OTHER_START: dict[str, Any] = {
    "random_start": True,
    "error_average": ErrorAverage.BATCHES,
    "quantize": Quantize.HALF_UP,
    "epsilon": 2,
    "step_size": 0.8,
}
LAST: dict[str, Any] = {
    "released": Released.LAST_BATCH,
    "refresh": 1,
    "normalise": True,
    "exclude_true": True,
    "stages": (0, 1, 2),
}
OWN: dict[str, Any] = {
    "augmentation": CropRule.ENLARGE,
    "train_on": TrainOn.CLUSTER,
    "normalise": False,
    "target_offset": 2,
    "batch_size": 4,
    "epsilon": 40,
    "bound": BoundRule.CLAMP,
}


class Craft(NamedTuple):
    """A method, from the tiny weights where it takes any, and how many tiny images it is for."""

    make: Callable[[Weights], Method]
    count: int = 90


TINY: dict[str, Craft] = {
    "em": Craft(lambda _: ErrorMinimizing(**EM)),
    "em random start": Craft(lambda _: ErrorMinimizing(**{**EM, **OTHER_START})),
    "em wide": Craft(lambda _: ErrorMinimizing(**{**EM, "epsilon": 64, "step_size": 0.8, "max_rounds": 3}), 91),
    "em-c": Craft(lambda _: ClasswiseErrorMinimizing(**EM, subset=0.5)),
    "emaxn": Craft(lambda _: ErrorMaximizing(**EMAX)),
    "emaxn-c": Craft(lambda _: ClasswiseErrorMaximizing(**EMAX, subset=0.5)),
    "tap": Craft(lambda _: AdversarialPoisoning(**TAP)),
    "tap untargeted": Craft(lambda _: AdversarialPoisoning(**TAP, untargeted=True)),
    "rem": Craft(lambda _: RobustErrorMinimizing(**REM)),
    "dc": Craft(lambda _: DeepConfuse(**DC)),
    "bait": Craft(lambda weights: Bait(prior=weights, **BAIT), 40),
    "bait last batch": Craft(lambda weights: Bait(prior=weights, **{**BAIT, **LAST}), 40),
    "uc": Craft(lambda weights: UnlearnableClusters(surrogate=weights, **UC), 26),
    "uc own cluster": Craft(lambda weights: UnlearnableClusters(surrogate=weights, **{**UC, **OWN}), 26),
}
SHORTENED: dict[str, dict[str, Any]] = {
    "digits-s": {"max_rounds": 2},
    "em-cifar10-small": {"max_rounds": 1, "num_steps": 5},
    "em-c-cifar10-small": {"max_rounds": 2},
    "bait-cifar10-small": {"stages": (1, 0, 1), "refresh": 1},
    "uc-cifar10-small": {"num_clusters": 3, "epochs": 1},
    "emaxn-cifar10-small": {"max_rounds": 1, "num_steps": 2},
    "tap-cifar10-small": {"restarts": 1, "num_steps": 3},
    "rem-cifar10-small": {"train_steps": 4},
}
"""The first methods of recipes, on their own images."""


class Kept(MemoryCheckpoint):
    """Counts what is saved, and keeps one state from the middle beside."""

    def __init__(self, middle: int = -1) -> None:
        super().__init__()
        self.count, self._middle = 0, middle

    def save(self, state: State) -> None:
        self.count += 1
        if self.count == self._middle:
            super().save(state)


def environment() -> dict[str, str]:
    """What the bits depend on; crafts have one thread here."""
    versions = {"torch": torch.__version__, "numpy": np.__version__, "scikit-learn": str(sklearn.__version__)}
    return {**versions, "processor": cpu_model(), "can": instructions(), "threads": "1"}


def instructions() -> str:
    """What the processor can do, as far as the system tells it: names of processors may stand for many kinds."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    kept = [line for line in lines if line.startswith(("cpu family", "model\t", "stepping", "flags", "Features"))]
    return hashlib.sha256("\n".join(sorted(set(kept))).encode()).hexdigest()[:16]


def tiny_split(count: int) -> Split:
    generator = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int64) % 3
    noise = generator.integers(-150, 151, (count, 16, 16, 3))
    images = np.clip(noise + 60 + 60 * labels[:, None, None, None], 0, 255).astype(np.uint8)
    digests = [sample_digest(image, label) for image, label in zip(images, labels.tolist(), strict=True)]
    return Split.from_samples("train", images, labels, digests)


def tiny_weights(folder: Path) -> Weights:
    """Weights whose features are far apart: a random network with a large last normalisation."""
    path = folder / "tiny.pt"
    model = build_model("convnet3-w16", 7, seed=3)
    last = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    last.weight.data.fill_(20.0)
    torch.save(model.state_dict(), path)
    return Weights(
        name="convnet3-w16@nothing",
        architecture="convnet3-w16",
        num_outputs=7,
        origin="file:tiny.pt",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
    )


def crafted(method: Method, split: Split, num_classes: int, weights: Path, checkpoint: MemoryCheckpoint) -> str:
    """The digest of what a method makes with seed 0."""
    context = Context(
        num_classes=num_classes,
        seed=Seed(0),
        weights=weights,
        reporter=Reporter(silent=True),
        checkpoint=checkpoint,
    )
    with cpu_threads(1):
        layers = method.generate(split, context).layers
    return Perturbation(layers=layers, source_digest=split.digest).digest


def digest_of(method: Method, split: Split, num_classes: int, weights: Path) -> str:
    """Of a craft in one go, after it was found to be that of one resumed in the middle."""
    watching = Kept()
    whole = crafted(method, split, num_classes, weights, watching)
    middle = Kept((watching.count + 1) // 2)
    crafted(method, split, num_classes, weights, middle)
    assert crafted(method, split, num_classes, weights, middle) == whole, "resumed in the middle"
    return whole


def digest_of_tiny(name: str, folder: Path) -> str:
    make, count = TINY[name]
    return digest_of(make(tiny_weights(folder)), tiny_split(count), 3, folder)


def digest_of_recipe(name: str, source: str, weights: Path) -> str:
    recipe = RECIPES[name]
    method = dataclasses.replace(recipe.methods[0], **SHORTENED[name])  # type: ignore[type-var]
    with LocalExecutor() as executor:
        read = read_source(recipe.source, source, executor=executor, reporter=Reporter(silent=True))
    limit = recipe.limit_per_class
    train = read.train if limit is None else read.train.first_per_class(limit)
    return digest_of(method, train, len(read.class_names), weights)


def taken() -> list[dict[str, Any]]:
    """Environments with their digests, the newest last."""
    pins: list[dict[str, Any]] = json.loads(PINS.read_text(encoding="utf-8"))
    return pins


def taken_here() -> dict[str, str]:
    """The digests of this environment; empty: none were taken."""
    return next((dict(pins["digests"]) for pins in taken() if pins["environment"] == environment()), {})


def check_pinned(name: str, digest: str) -> None:
    assert taken_here().get(name, digest) == digest


@pytest.fixture
def saved_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepwise, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)


def test_every_craft_is_pinned() -> None:
    assert all(set(pins["digests"]) <= {*TINY, *SHORTENED} for pins in taken())
    assert set(taken()[-1]["digests"]) >= {*TINY}


@pytest.mark.usefixtures("saved_at_every_step")
@pytest.mark.parametrize("name", TINY)
def test_a_tiny_craft_changes_only_on_purpose(name: str, tmp_path: Path) -> None:
    check_pinned(name, digest_of_tiny(name, tmp_path))


@pytest.mark.slow
@pytest.mark.usefixtures("saved_at_every_step")
@pytest.mark.parametrize("name", SHORTENED)
def test_a_small_recipe_s_craft_changes_only_on_purpose(name: str, request: pytest.FixtureRequest) -> None:
    source = "digits" if name == "digits-s" else str(request.getfixturevalue("cifar10_folder"))
    needed = RECIPES[name].methods[0].weights
    weights = request.getfixturevalue("weights_folder") if needed else Path()
    check_pinned(name, digest_of_recipe(name, source, weights))


def main(names: Sequence[str]) -> None:
    """Take the digests of this machine, here and now; they become the newest."""
    import os

    digests = taken_here()
    for name in names or [*TINY, *SHORTENED]:
        if name in TINY:
            with tempfile.TemporaryDirectory() as folder:
                digests[name] = digest_of_tiny(name, Path(folder))
        else:
            source = "digits" if name == "digits-s" else os.environ["ULE_TEST_CIFAR10"]
            digests[name] = digest_of_recipe(name, source, Path(os.environ["ULE_TEST_WEIGHTS"]))
        print(name, digests[name], flush=True)
    own = {
        "environment": environment(),
        "digests": {name: digests[name] for name in [*TINY, *SHORTENED] if name in digests},
    }
    others = [pins for pins in taken() if pins["environment"] != environment()]
    PINS.write_text(json.dumps([*others, own], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
