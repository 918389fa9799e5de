"""The files in CONTRIBUTING.md are whole, and what they add works."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_images
from made_up import make_history, make_profile
from torch import nn

from ule_datasets.analyses.analysis import Analysis
from ule_datasets.base.seeds import Seed
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.data.split import Split, sample_digest
from ule_datasets.methods.method import Context
from ule_datasets.papers.claims import listed
from ule_datasets.sources.spec import SourceSpec
from ule_datasets.victims.preparation import PieceFiles, Preparation
from ule_datasets.victims.strategy import Strategy

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```python\n# ule_datasets/(\S+)\.py\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))


@pytest.fixture
def module(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example with this path, imported."""
    name = request.param.replace("/", "_")
    (tmp_path / f"{name}.py").write_text(FILES[request.param], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, made)
    spec.loader.exec_module(made)
    return made


def example(path: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("module", [path], indirect=True, ids=[""])


def test_every_example_is_tried_here() -> None:
    rooms = sorted(path.partition("/")[0] for path in FILES)
    assert rooms == ["analyses", "countermeasures", "methods", "models", "sources", "victims"]


@example("methods/class_noise")
def test_the_method_keeps_its_bound_and_repeats(module: Any) -> None:
    images, labels = make_images(3, 5, 16)
    digests = [sample_digest(image, label) for image, label in zip(images, labels.tolist(), strict=True)]
    split = Split.from_samples("train", images, labels, digests)
    method = module.ClassNoise()
    first, second = (method.generate(split, Context(num_classes=3, seed=Seed(0))) for _ in range(2))
    made = [Perturbation(layers=each.layers, source_digest=split.digest) for each in (first, second)]
    assert made[0].digest == made[1].digest
    final = made[0].apply(split.pixels(), split.labels, split.keys)
    assert not made[0].exceeding(split.pixels(), final, split.labels, split.keys, method.bounds)
    assert len(np.unique(first.layers[0].levels)) == 17


@example("countermeasures/shrinking")
def test_the_countermeasure_prepares_images_and_is_named_by_its_options(module: Any, tmp_path: Path) -> None:
    images, labels = make_images(2, 3, 16)
    pieces = PieceFiles(folder=tmp_path, image_shape=(16, 16, 3))
    prepared = module.Shrunk().prepare(images, labels, Preparation(pieces=pieces, seed=Seed(0)))
    assert prepared.shape == images.shape
    assert not np.array_equal(np.asarray(prepared), images)
    assert (module.Shrunk().name, module.Shrunk.parse("shrunk-f4")) == ("shrunk", module.Shrunk(factor=4))


@example("victims/smoothed")
def test_the_victim_has_losses_of_its_own_on_the_usual_model(module: Any) -> None:
    victim = module.Smoothed()
    outputs, labels = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    assert victim.losses(outputs, labels) > nn.functional.cross_entropy(outputs, labels)
    protocol = victim.protocol(make_profile(), Strategy(name="standard", augmentation=None))  # type: ignore[arg-type]
    assert protocol.model == victim.name == "resnet18-smoothed"
    assert isinstance(victim.model(protocol, 3, seed=0, start=None), nn.Module)


@example("models/perceptron")
def test_the_model_gives_logits(module: Any) -> None:
    assert module.Perceptron(5, width=8)(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


@example("analyses/overfitting")
def test_the_analysis_looks_and_tells(module: Any) -> None:
    class Material:
        def beside_controls(self) -> list[Any]:
            return [("x", (make_history(90.0),), (make_history(20.0), make_history(30.0)))]

    analysis = module.Overfitting()
    assert isinstance(analysis, Analysis)
    found = analysis.run(Material())  # type: ignore[arg-type]
    assert found == {"x": (80.0, 70.0)}
    assert "80.0" in str(analysis.tell(found, None))  # type: ignore[arg-type]


@example("sources/flowers")
def test_the_source_says_which_images_it_has(module: Any) -> None:
    assert isinstance(module.FLOWERS, SourceSpec)


def test_the_paper_is_read_like_those_that_are_here(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    claims, _ = listed(["mine-*"], tmp_path / "mine.toml")
    assert [(claim.value, claim.strategy, claim.model) for claim in claims] == [
        (94.5, "cutout", "resnet18"),
        (20.5, "cutout", "resnet18"),
    ]
