"""A countermeasure as the last step of a recipe: what it makes of perturbed images, as a dataset like all others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import read
from made_up import Noisy

import cards
from builders import RECIPES, learnable
from ule_datasets.base.checkpoint import FileCheckpoint
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.building import BuildOptions, build
from ule_datasets.cli.verify import main as verify
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.countermeasures import Cutout
from ule_datasets.countermeasures.filtering import Median3
from ule_datasets.data.bounds import L0, Unbounded
from ule_datasets.data.perturbation import FILE_NAME, Additive, Perturbation
from ule_datasets.dataset.loading import load
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.definition import UNDOING, PublishedRecipe, Recipe
from ule_datasets.methods import purified
from ule_datasets.methods.method import Context, Crafted
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.methods.purified import Purified
from ule_datasets.packaging.crafting import CraftCache, Workshop, craft
from ule_datasets.sources.digits import DIGITS
from ule_datasets.sources.given import Given
from ule_datasets.verification.subjects import SourceReader, plan
from ule_datasets.victims import preparation

SOURCE = read("digits", DIGITS)
TRAIN = SOURCE.train
RECIPE = Recipe(
    name="learnable-digits",
    title="Noisy one-pixel digits",
    summary="Digits with one pixel per class, and noise on top.",
    source=DIGITS,
    methods=(OnePixelShortcut(), Purified(countermeasure=Noisy())),
    budget=(L0(pixels=1), Unbounded()),
    version="1.0.0",
)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of 400 images."""
    monkeypatch.setattr(preparation, "PIECE_BYTES", 400 * 3 * 32 * 32)
    monkeypatch.setattr(Noisy, "breaks_at", -1)
    Noisy.calls.clear()
    yield
    Noisy.calls.clear()


def expected(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Digits with their pixel, and what noise makes of them."""
    context = Context(num_classes=10, seed=Seed(seed), reporter=Reporter(silent=True))
    layers = OnePixelShortcut().generate(TRAIN, context).layers
    pixel = Perturbation(layers=layers, source_digest=TRAIN.digest).apply(TRAIN.pixels(), TRAIN.labels, TRAIN.keys)
    (noise,) = generate(dataclasses.replace(context, layers=layers)).layers
    assert isinstance(noise, Additive)
    return pixel, (pixel + noise.levels).astype(np.uint8)


def generate(context: Context) -> Crafted:
    return Purified(countermeasure=Noisy()).generate(TRAIN, context)


def test_a_purified_dataset_is_built_loaded_and_proven_like_any_other(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    options = BuildOptions(out=folder, cache=False)
    build(RECIPE, options, Reporter(silent=True))
    pixel, noisy = expected()
    built = load(folder)
    assert built.keys == TRAIN.keys
    assert np.array_equal(built.tensors()[0].numpy(), noisy)
    assert not np.array_equal(noisy, pixel)
    layers = Perturbation.load(folder / FILE_NAME)
    assert np.array_equal(layers.apply(TRAIN.pixels(), TRAIN.labels, TRAIN.keys), noisy), "clean and layers are exact"
    record = Manifest.read(folder).craft[1]
    assert (record["identifier"], record["repeats"]) == ("noisy", "device")
    assert cards.citation("zhang2018mixup") in (folder / "README.md").read_text()
    assert verify([str(folder), "--integrity-only", "--quiet"]) == 0
    assert build(RECIPE, options, Reporter(silent=True)).already_complete


def test_it_is_crafted_anew_for_other_methods_before_it_and_kept_for_the_same(tmp_path: Path) -> None:
    others = dataclasses.replace(RECIPE, methods=RECIPE.methods[1:], budget=RECIPE.budget[1:])
    assert others.craft_digests[0] != RECIPE.craft_digests[1]
    assert RECIPE.craft_digests[0] == dataclasses.replace(RECIPE, methods=RECIPE.methods[:1]).craft_digests[0]
    workshop = Workshop(reporter=Reporter(silent=True), device="cpu", cache=CraftCache(tmp_path / "cache"))
    first = craft(RECIPE, SOURCE, workshop)
    assert len(Noisy.calls) == 4
    assert craft(RECIPE, SOURCE, workshop).digest == first.digest
    assert len(Noisy.calls) == 4, "taken from the cache"
    alone = craft(others, SOURCE, workshop)
    assert len(Noisy.calls) == 8
    assert not np.array_equal(alone.layers[0].arrays()["levels"], first.layers[1].arrays()["levels"])


def test_the_seed_is_the_recipe_s() -> None:
    assert np.array_equal(expected(3)[1], expected(3)[1])
    assert not np.array_equal(expected(3)[1], expected(4)[1])


def test_an_interrupted_purification_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purified, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    whole = generate(Context(num_classes=10, seed=Seed(0), reporter=Reporter(silent=True)))
    for number in range(4):
        Noisy.calls.clear()
        monkeypatch.setattr(Noisy, "breaks_at", number)
        checkpoint = FileCheckpoint(tmp_path / f"{number}", "x")
        context = Context(num_classes=10, seed=Seed(0), reporter=Reporter(silent=True), checkpoint=checkpoint)
        with pytest.raises(KeyboardInterrupt):
            generate(context)
        monkeypatch.setattr(Noisy, "breaks_at", -1)
        resumed = generate(context)
        assert np.array_equal(resumed.layers[0].arrays()["levels"], whole.layers[0].arrays()["levels"])
        assert len(Noisy.calls) == 4, "no piece was made twice"


def test_only_what_prepares_whole_training_sets_can_purify() -> None:
    with pytest.raises(InputError, match="Purified: cutout changes images during training, not before it"):
        Purified(countermeasure=Cutout())


def test_a_recipe_names_the_countermeasure_and_its_settings() -> None:
    assert '"countermeasure":{"amount":8,"type":"Noisy"}' in RECIPE.to_json()
    assert RECIPE.methods[1].title == "purified by noisy"


@pytest.mark.parametrize("recipe", learnable.RECIPES, ids=lambda recipe: recipe.name)
def test_a_learnable_version_of_the_catalogue_is_a_protected_dataset_and_one_preparation(recipe: Recipe) -> None:
    *protecting, last = recipe.methods
    assert isinstance(last, Purified)
    name = recipe.name.removeprefix(f"{last.countermeasure.name}-")
    assert tuple(protecting) == RECIPES[name].methods
    assert type(last).__name__ == UNDOING, "as a reader of its recipe.json knows it"
    assert recipe.craft_digests[:-1] == RECIPES[name].craft_digests, "they share what is crafted"
    assert name in recipe.summary


def test_a_learnable_version_says_so_and_of_what_and_no_collapse_is_expected(tmp_path: Path) -> None:
    learnt = dataclasses.replace(RECIPE, methods=(OnePixelShortcut(), Purified(countermeasure=Median3())))
    plain = dataclasses.replace(learnt, methods=learnt.methods[:1], budget=RECIPE.budget[:1])
    for recipe, name in ((learnt, "a"), (plain, "b")):
        build(recipe, BuildOptions(out=tmp_path / name, cache=False), Reporter(silent=True))
        assert PublishedRecipe.read(tmp_path / name).learnable == recipe.learnable == (recipe is learnt)
        sources = SourceReader(Given(), LocalExecutor(1), Reporter(silent=True))
        subject = plan(tmp_path / name, sources=sources, training=True, catalogue={}).subject
        assert subject is not None
        assert subject.collapse_expected == (recipe is plain)
    card, other = ((tmp_path / name / "README.md").read_text() for name in "ab")
    assert (
        "**A learnable version.** These images were protected (One-Pixel Shortcut) and then purified by median3" in card
    )
    assert "\n- learnable-examples\n" in card
    assert "learnable version" not in other
    protected, prepared = (load(tmp_path / name).tensors()[0].numpy() for name in "ba")
    assert np.array_equal(prepared, Median3().changed(protected, Seed(0)))
