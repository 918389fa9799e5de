"""One contract for every method; a new one is covered by a row of ``METHODS``."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import json
import pkgutil
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers import Stopping
from made_up import Noisy
from tiny_weights import save_tiny_weights

import cards
from builders import RECIPES
from ule_datasets import methods
from ule_datasets.base.checkpoint import FileCheckpoint, MemoryCheckpoint, State
from ule_datasets.base.content import is_off
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.countermeasures import Cutout
from ule_datasets.data.codec import encode_png
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.data.quantization import Apply, Quantize, largest_level
from ule_datasets.data.split import Split, sample_digest
from ule_datasets.definition import Recipe
from ule_datasets.methods import purified
from ule_datasets.methods.adversarial_poisoning import AdversarialPoisoning
from ule_datasets.methods.autoregressive import Autoregressive
from ule_datasets.methods.bait import Bait
from ule_datasets.methods.class_convolution import ClassConvolution
from ule_datasets.methods.deepconfuse import DeepConfuse
from ule_datasets.methods.engine import stepwise
from ule_datasets.methods.engine.clean_training import CleanTraining, Scale
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.methods.engine.shifts import ShiftRule
from ule_datasets.methods.error_maximizing import ClasswiseErrorMaximizing, ErrorMaximizing
from ule_datasets.methods.error_minimizing import ClasswiseErrorMinimizing, ErrorMinimizing
from ule_datasets.methods.imported import Imported
from ule_datasets.methods.linearly_separable import LinearlySeparable
from ule_datasets.methods.method import Context, Crafted, Method, Repeats
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut, Upload
from ule_datasets.methods.pixel_baselines import OPSColor, OPSPosition, RandPix
from ule_datasets.methods.purified import Purified
from ule_datasets.methods.robust_error_minimizing import RobustErrorMinimizing, SimplifiedRobustErrorMinimizing
from ule_datasets.methods.synthetic_perturbations import SyntheticPerturbations
from ule_datasets.methods.unlearnable_clusters import CropRule, UnlearnableClusters
from ule_datasets.models.weights import Weights
from ule_datasets.sources.own_images import OWN_IMAGES

SMALL_EM: dict[str, Any] = {
    "surrogate": SurrogateSettings(model="convnet3-w16", batch_size=16),
    "num_steps": 2,
    "steps_per_round": 2,
    "max_rounds": 2,
}
BRIEFLY = CleanTraining(surrogate=SurrogateSettings(model="convnet3-w16", batch_size=20), epochs=2)
SMALL_EMAX: dict[str, Any] = {"training": BRIEFLY, "num_steps": 2, "max_rounds": 2, "stop_error": 1.0}
SMALL_TAP: dict[str, Any] = {
    "training": dataclasses.replace(BRIEFLY, milestones=(1,), shifts=ShiftRule.SMOOTH, scale=Scale.STATISTICS),
    "num_steps": 2,
    "restarts": 2,
    "batch_size": 20,
}
SMALL_REM: dict[str, Any] = {
    "surrogate": SurrogateSettings(model="convnet3-w16", batch_size=16, gradient_clip=None),
    "num_steps": 2,
    "num_samples": 2,
    "attack_steps": 2,
    "train_steps": 3,
}
SMALL_GENERATOR: dict[str, Any] = {"batch_size": 16, "generator_width": 1, "generator_blocks": 1}
SMALL_DC: dict[str, Any] = {
    "trials": 2,
    "epochs": 1,
    "batch_size": 20,
    "classifier": "convnet3-w16",
    "generator_width": 1,
}
SMALL_SYNPER: dict[str, Any] = {
    "num_clusters": 2,
    "kmeans_restarts": 1,
    "feature_batch": 16,
    "noise": LinearlySeparable(),
}
SMALL_UC: dict[str, Any] = {"num_clusters": 2, "kmeans_restarts": 1, "epochs": 1, "augmentation": CropRule.PAD}


class Row(NamedTuple):
    """A small instance, from the tiny weights where it takes any, and settings that are out of range."""

    make: Callable[[Weights], Method]
    wrong: dict[str, Any]


METHODS: dict[str, Row] = {
    "em": Row(lambda _: ErrorMinimizing(**SMALL_EM), {"num_steps": 0}),
    "em-c": Row(lambda _: ClasswiseErrorMinimizing(**SMALL_EM, subset=0.6), {"subset": 0}),
    "emaxn": Row(lambda _: ErrorMaximizing(**SMALL_EMAX), {"stop_error": 0}),
    "emaxn-c": Row(lambda _: ClasswiseErrorMaximizing(**SMALL_EMAX, subset=0.6), {"subset": 0}),
    "tap": Row(lambda _: AdversarialPoisoning(**SMALL_TAP), {"restarts": 0}),
    "tap, untargeted": Row(lambda _: AdversarialPoisoning(**SMALL_TAP, untargeted=True), {"num_steps": 0}),
    "rem": Row(lambda _: RobustErrorMinimizing(**SMALL_REM), {"num_samples": 0}),
    "rem, simplified": Row(lambda _: SimplifiedRobustErrorMinimizing(**SMALL_EM), {"ascent_steps": 0}),
    "bait": Row(lambda w: Bait(prior=w, **SMALL_GENERATOR, stages=(1, 0, 1)), {"stages": (0, 0, 0)}),
    "dc": Row(lambda _: DeepConfuse(**SMALL_DC), {"held_out": 1}),
    "uc": Row(lambda w: UnlearnableClusters(surrogate=w, **SMALL_GENERATOR, **SMALL_UC), {"num_clusters": 1}),
    "ops": Row(lambda _: OnePixelShortcut(num_pixels=2), {"num_pixels": 0}),
    "ops, noisy": Row(lambda _: OnePixelShortcut(search_fraction=0.5, upload=Upload.NOISY), {"noise_levels": 128}),
    "ops-position": Row(lambda _: OPSPosition(), {"search": OnePixelShortcut(num_pixels=2)}),
    "ops-color": Row(lambda _: OPSColor(), {"palette": ()}),
    "randpix": Row(lambda _: RandPix(), {}),
    "lsp": Row(lambda _: LinearlySeparable(), {"patch": 0}),
    "convolution": Row(lambda _: ClassConvolution(), {"size": 4}),
    "ar": Row(lambda _: Autoregressive(least_response=0), {"most_candidates": 2}),
    "synper": Row(lambda w: SyntheticPerturbations(surrogate=w, **SMALL_SYNPER), {"num_clusters": 1}),
    "imported": Row(lambda _: Imported(), {"bound": 300}),
    "purified": Row(lambda _: Purified(countermeasure=Noisy()), {"countermeasure": Cutout()}),
}
NUM_CLASSES, COUNT, SIZE = 3, 36, 16

each = pytest.mark.parametrize("name", METHODS)
pytestmark = pytest.mark.usefixtures("one_thread")


def make_split() -> Split:
    """Noise around a brightness per class; some pixels are black, some white."""
    generator = np.random.default_rng(0)
    labels = np.arange(COUNT, dtype=np.int64) % NUM_CLASSES
    noise = generator.integers(-150, 151, (COUNT, SIZE, SIZE, 3))
    images = np.clip(noise + 60 + 60 * labels[:, None, None, None], 0, 255).astype(np.uint8)
    digests = [sample_digest(image, label) for image, label in zip(images, labels.tolist(), strict=True)]
    return Split.from_samples("train", images, labels, digests)


SPLIT = make_split()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, Path]:
    folder = tmp_path_factory.mktemp("weights")
    (folder / "release").mkdir()
    for number, image in enumerate(SPLIT.images):
        (folder / "release" / f"{number}.png").write_bytes(encode_png(255 - np.maximum(255 - image, 2)))
    return save_tiny_weights(folder)


class Bench:
    """Crafts of one method of the table."""

    def __init__(self, name: str, tiny: tuple[Weights, Path]) -> None:
        self.method, self._weights = METHODS[name].make(tiny[0]), tiny[1]

    def craft(self, split: Split = SPLIT, **context: Any) -> Crafted:
        usual = {"num_classes": NUM_CLASSES, "seed": Seed(0), "reporter": Reporter(silent=True)}
        given = {"weights": self._weights, "release": self._weights.parent / "release"}
        return self.method.generate(split, Context(**{**usual, **given, **context}))


@pytest.fixture
def bench(name: str, tiny: tuple[Weights, Path]) -> Bench:
    return Bench(name, tiny)


def digest(crafted: Crafted) -> str:
    """Of layers and notes."""
    layers = Perturbation(layers=crafted.layers, source_digest=SPLIT.digest).digest
    return layers + hashlib.sha256(json.dumps(crafted.notes, sort_keys=True).encode()).hexdigest()


def test_every_method_has_a_row() -> None:
    modules = [f"{methods.__name__}.{module.name}" for module in pkgutil.iter_modules(methods.__path__)]
    classes = [kind for module in modules for kind in vars(importlib.import_module(module)).values()]
    subclasses = {kind for kind in classes if inspect.isclass(kind) and Method in kind.__mro__}
    known = {kind for kind in subclasses if hasattr(kind, "identifier")}  # what some share has none
    weights = RECIPES["uc-cifar10"].methods[0].weights[0]
    assert {type(row.make(weights)) for row in METHODS.values()} == known


# --- what it makes ---


@each
def test_it_gives_the_same_twice_unless_the_seed_is_another_and_changes_nothing_around_it(bench: Bench) -> None:
    split, first = make_split(), digest(bench.craft())
    assert (digest(bench.craft(seed=Seed(1))) != first) == bench.method.draws
    torch.manual_seed(5)  # after the first craft: libraries may draw when they are imported
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    assert digest(bench.craft(split)) == first
    assert np.array_equal(split.images, SPLIT.images)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]
    assert random.getstate() == before[2]


@each
def test_it_gives_the_same_with_any_number_of_workers_and_threads(bench: Bench) -> None:
    alone = digest(bench.craft())
    torch.set_num_threads(2)  # "one_thread" restores it
    with LocalExecutor(2) as executor:
        assert digest(bench.craft(executor=executor)) == alone
    assert torch.get_num_threads() == 2


@each
def test_it_gives_the_same_when_resumed_from_any_checkpoint(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (stepwise, purified):
        monkeypatch.setattr(module, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    watching = Stopping(MemoryCheckpoint(), -1)
    whole = digest(bench.craft(checkpoint=watching))
    assert bool(watching.count) == (bench.method.repeats is Repeats.DEVICE), "what takes long can be resumed"
    for at in range(1, watching.count + 1):
        file = FileCheckpoint(tmp_path / f"{at}", "this craft")
        with pytest.raises(KeyboardInterrupt):
            bench.craft(checkpoint=Stopping(file, at))
        again = Stopping(file, -1)
        assert digest(bench.craft(checkpoint=again)) == whole, at
        assert again.count == watching.count - at, "nothing is done again"


@each
def test_what_another_version_saved_is_not_used(bench: Bench) -> None:
    checkpoint = MemoryCheckpoint()
    checkpoint.save(State(arrays={"noise": np.zeros(3)}, facts={"phase": "noise", "position": 1, "trace": [{}]}))
    assert digest(bench.craft(checkpoint=checkpoint)) == digest(bench.craft())


@each
def test_no_layer_changes_an_image_beyond_its_bound(bench: Bench) -> None:
    layers, bounds = bench.craft().layers, bench.method.bounds
    assert len(layers) == len(bounds)
    for layer, bound in zip(layers, bounds, strict=True):
        alone = Perturbation(layers=(layer,), source_digest=SPLIT.digest)
        changed = alone.apply(SPLIT.images, SPLIT.labels, SPLIT.keys)
        difference = np.abs(changed.astype(np.int16) - SPLIT.images).astype(np.uint8)
        assert difference.any()
        assert not bound.exceeded(difference).any()


@each
def test_what_it_notes_is_strict_json(bench: Bench) -> None:
    notes = bench.craft().notes
    assert json.loads(json.dumps(notes, allow_nan=False)) == notes


# --- mistakes ---


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.wrong])
def test_a_setting_out_of_range_is_refused_in_one_line_that_names_the_method(name: str, bench: Bench) -> None:
    def craft() -> None:
        bench.method = dataclasses.replace(bench.method, **METHODS[name].wrong)  # type: ignore[type-var]
        bench.craft()

    with pytest.raises(InputError, match=rf"^{type(bench.method).__name__}: .") as caught:
        craft()
    assert "\n" not in str(caught.value)


@each
def test_weights_that_are_nowhere_are_refused_by_name(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ULE_WEIGHTS", raising=False)
    for weights in bench.method.weights:
        with pytest.raises(InputError, match=re.escape(weights.name)):
            bench.craft(weights=tmp_path)


# --- what it declares ---


@each
def test_what_it_declares_is_so(bench: Bench) -> None:
    method, crafted = bench.method, bench.craft()
    assert re.fullmatch(r"[a-z0-9_]+", method.identifier)
    assert method.title
    unlabelled = dataclasses.replace(SPLIT, labels=np.zeros(COUNT, dtype=np.int64))
    if not method.needs_labels:
        alike = bench.craft(unlabelled, num_classes=1)
        assert digest(Crafted(layers=alike.layers)) == digest(Crafted(layers=crafted.layers))
    assert bool(crafted.notes.get("environments")) == (method.repeats is Repeats.DEVICE)
    assert [weights.name for weights in method.weights] == [
        notes["name"] for notes in [crafted.notes.get("weights")] if notes
    ]
    if method.redrawable:
        other = bench.craft(seed=Seed(1))
        assert digest(Crafted(layers=other.layers)) != digest(Crafted(layers=crafted.layers))


@each
def test_its_settings_make_its_identity(bench: Bench) -> None:
    method = bench.method
    assert dataclasses.is_dataclass(method)
    fields = dataclasses.fields(method)
    assert all(field.kw_only for field in fields)
    assert hash(method) == hash(dataclasses.replace(method))
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        method.title = "another"  # type: ignore[misc]
    recipe = Recipe(
        name="mine",
        title="Mine",
        summary="Mine.",
        source=OWN_IMAGES,
        methods=(method,),
        budget=method.bounds,
        version="1.0.0",
    )
    (content,) = json.loads(recipe.to_json())["methods"]
    assert set(content) >= {"type", *(field.name for field in fields if not is_off(method, field))}
    assert all(f'"name":"{weights.name}"' in recipe.to_json() for weights in method.weights)
    assert ('"type":"Weights"' in recipe.to_json()) == bool(method.weights)


@pytest.mark.parametrize(
    "name", [name for name in METHODS if name not in ("purified", "imported")]
)  # that of a countermeasure or of others is
def test_its_paper_is_named_where_it_is_defined(bench: Bench) -> None:
    kind = type(bench.method)
    text = inspect.getdoc(sys.modules[kind.__module__]) or ""
    paper = cards.paper(bench.method.citation)
    assert paper is not None
    assert re.sub(r"\W+", " ", paper["title"].split(":")[0]).lower() in re.sub(r"\W+", " ", text).lower()
    assert re.search(r"\b[A-Z][A-Za-z]+ 20\d\d\b", text), "the venue"
    assert re.search(r"arXiv\s\d{4}\.\d{5}", text)
    formula = re.search(r"^ {4}\S.*$", text, flags=re.MULTILINE)
    assert formula or re.search(r"equation|algorithm|appendix|section", text), "what it implements"
    assert inspect.getdoc(kind)
    assert kind.__doc__ != kind.__base__.__doc__


def test_modules_of_methods_import_without_torch() -> None:
    names = sorted({type(row.make(RECIPES["uc-cifar10"].methods[0].weights[0])).__module__ for row in METHODS.values()})
    code = f"import sys, {', '.join(names)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- the catalogue ---


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_s_budget_is_the_bounds_of_its_methods(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.budget == tuple(bound for method in recipe.methods for bound in method.bounds)


def test_only_random_pixels_are_drawn_anew_for_every_repetition() -> None:
    redrawn = [recipe.name for recipe in RECIPES.values() if any(method.redrawable for method in recipe.methods)]
    assert redrawn == ["randpix-cifar10"]


@pytest.mark.parametrize(
    ("epsilon", "rule", "apply", "expected"),
    [
        (8, Quantize.TRUNC, Apply.SIGNED, 8),
        (7.5, Quantize.TRUNC, Apply.SIGNED, 8),
        (7.5, Quantize.TRUNC, Apply.POSITIVE_PART, 7),
        (7.5, Quantize.HALF_UP, Apply.POSITIVE_PART, 8),
        (7.4, Quantize.HALF_UP, Apply.SIGNED, 7),
        (255, Quantize.DELTA_INT8, Apply.SIGNED, 255),
    ],
)
def test_the_largest_level_is_that_of_either_sign(epsilon: float, rule: Quantize, apply: Apply, expected: int) -> None:
    assert largest_level(epsilon, rule, apply) == expected
