"""One contract for every recipe of the catalogue."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import jinja2
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from helpers import Samples, class_names, encode, make_images, run_build, write_image_folder
from tiny_recipes import on_small_images, tiny_weights

import builders
import cards
from builders import RECIPES
from cards import render
from ule_datasets.base.errors import InputError
from ule_datasets.base.options import FORMATS
from ule_datasets.base.progress import Reporter
from ule_datasets.building import BuildOptions, build, settle
from ule_datasets.data.bounds import L0, L2
from ule_datasets.data.codec import encode_png
from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION_FILE
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.dataset.loading import load
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.dataset.shards.parquet import features, schema
from ule_datasets.definition import PublishedRecipe, Recipe
from ule_datasets.interface.recipes import find_recipe
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.methods.unlearnable_clusters import UnlearnableClusters
from ule_datasets.papers import claims
from ule_datasets.sources.digits import DIGITS
from ule_datasets.sources.spec import Preprocess

NAMES = list(RECIPES)


@pytest.fixture(scope="module")
def small_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet source of ten classes with forty 32 x 32 training images each, and a test split."""
    import pyarrow as pa

    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("source")
    for split, count in (("train", 400), ("test", 50)):
        coarse = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
        images = [{"bytes": encode_png(i.repeat(8, 0).repeat(8, 1)), "path": None} for i in coarse]
        labels = [n % 10 for n in range(count)]
        pq.write_table(pa.table({"img": images, "label": labels}), folder / f"{split}.parquet")
    return folder


def build_small(recipe: Recipe, source: Path, out: Path, workers: int) -> Manifest:
    options = BuildOptions(out=out, source=str(source), workers=workers, cache=False, weights=tiny_weights()[1])
    small = dataclasses.replace(on_small_images(recipe), name=f"{recipe.name}-test")
    if any(method.unsettled for method in small.methods):
        options = dataclasses.replace(options, release=write_release(source, out.parent / "released"))
        small = settle(small, options, Reporter(silent=True))
    return build(small, options, Reporter(silent=True)).manifest


def write_release(source: Path, folder: Path) -> Path:
    """The training images of a source, a level darker, as PNG files by number."""
    folder.mkdir(exist_ok=True)
    for number, (image, _) in enumerate(original_samples(source)[1]):
        (folder / f"{number}.png").write_bytes(encode(np.maximum(image, 1) - 1))
    return folder


def crafted_before(name: str) -> bool:
    """Whether an earlier recipe is made by the same kinds of methods."""
    made = [type(method) for method in RECIPES[name].methods]
    earlier = (RECIPES[other].methods for other in NAMES[: NAMES.index(name)])
    return any([type(method) for method in methods] == made for methods in earlier)


def takes_long(name: str) -> bool:
    """Small builds of Unlearnable Clusters still take ten seconds each."""
    return crafted_before(name) and UnlearnableClusters in map(type, RECIPES[name].methods)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if takes_long(name) else ()) for name in NAMES]
)
def test_recipe_meets_the_contract(name: str, small_images: Path, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    manifest = build_small(recipe, small_images, tmp_path / "a", workers=1)
    assert manifest.formats == FORMATS
    check_images(recipe, manifest, small_images, tmp_path / "a")
    check_card(recipe, manifest, tmp_path / "a")
    if not crafted_before(name):
        second = build_small(recipe, small_images, tmp_path / "b", workers=2)
        assert manifest.files == second.files, "same bytes, whatever the workers"


def check_images(recipe: Recipe, manifest: Manifest, source: Path, folder: Path) -> None:
    perturbation = Perturbation.load(folder / PERTURBATION_FILE)
    assert perturbation.digest == manifest.perturbation_digest
    assert len(perturbation.layers) == len(recipe.budget)
    original = dict(zip(*original_samples(source), strict=True))
    train, test = load(folder), load(folder, split="test")
    assert len(train) == 400
    assert len(test) == 50
    assert set(train.keys) == set(original)
    clean = np.stack([original[key][0] for key in train.keys])
    labels = np.array([original[key][1] for key in train.keys])
    assert train.labels == labels.tolist(), "labels are kept"
    expected = perturbation.apply(clean, labels, train.keys)
    assert np.array_equal(train.tensors()[0].numpy(), expected), "images are clean plus perturbation"
    assert not np.array_equal(expected, clean)
    assert not test.poisoned.any()


def check_card(recipe: Recipe, manifest: Manifest, folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    content = yaml.safe_load(front)
    assert content["license"] in {"unknown", "cc-by-4.0", "cc-by-sa-4.0", "other"}
    assert content["configs"][0]["data_files"][0] == {"split": "train", "path": "data/train-*"}
    declared = {f["name"]: f["dtype"] for f in content["dataset_info"]["features"]}
    assert list(declared) == list(features(manifest.class_names))
    assert list(declared["label"]["class_label"]["names"].values()) == list(manifest.class_names)
    splits = {s["name"]: s["num_examples"] for s in content["dataset_info"]["splits"]}
    assert splits == {"train": 400, "test": 50}
    for needed in (manifest.recipe_digest, manifest.perturbation_digest, manifest.splits["train"].digest):
        assert needed in body
    for method in recipe.methods:
        assert method.title in body
        assert not method.citation or cards.citation(method.citation) in body
    assert "{{" not in body
    assert "{%" not in body
    for figure in (folder / "figures").iterdir():
        assert f"(figures/{figure.name})" in body


def original_samples(folder: Path) -> tuple[list[str], list[tuple[np.ndarray, int]]]:
    from ule_datasets.compute.processes import LocalExecutor
    from ule_datasets.sources.own_images import OWN_IMAGES
    from ule_datasets.sources.reading import read_source

    with LocalExecutor() as executor:
        train = read_source(OWN_IMAGES, str(folder), executor=executor, reporter=Reporter(silent=True)).train
    return list(train.keys), list(zip(train.images, train.labels.tolist(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_card_of_recipe_can_be_rendered_without_building(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    render.main([name, "--out", str(tmp_path)])
    _, front, body = (tmp_path / f"{name}.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(front)["pretty_name"] == recipe.title
    assert recipe.summary in body
    assert jinja2.Template(cards.about(name) or "").render(recipe=recipe) in body
    assert recipe.digest in body
    told = [claim for claim in claims.for_dataset(name) if claim.metric == claims.CLEAN_ACCURACY]
    numbers = {(claim.model, claim.strategy, claim.variant, claim.value, claim.std) for claim in told}
    assert len(re.findall(r" paper, (?:Table|text)", body)) == len(numbers), "each once, with all its places"
    for claim in told:
        strategy = f"{claim.strategy} ({claim.variant})" if claim.variant else claim.strategy
        assert f"| {claim.model} | {strategy} | {claim.value:g}" in body
    for key in {method.citation for method in recipe.methods} - {""}:
        paper = cards.paper(key)
        assert paper is not None
        assert f"[{paper['title']}]({paper['url']})" in body
    for _, count in recipe.source.num_images or ():
        assert recipe.limit_per_class is not None or f"{count:,}" in body
    assert "{{" not in body
    assert "{%" not in body


class Unpublished(OnePixelShortcut):
    citation: ClassVar[str] = ""


class Misquoted(OnePixelShortcut):
    citation: ClassVar[str] = "nobody1999"


def test_the_card_of_a_method_that_nobody_published_asks_for_no_citation() -> None:
    text = render.preview(dataclasses.replace(RECIPES["ops"], methods=(Unpublished(),)))
    assert "Please cite" not in text
    assert "bibtex" not in text
    assert text.rstrip().endswith(RECIPES["ops"].source.licence.text)
    with pytest.raises(InputError, match=r"citations\.bib has no entry 'nobody1999'"):
        render.preview(dataclasses.replace(RECIPES["ops"], methods=(Misquoted(),)))


def test_rendering_the_card_of_an_unknown_recipe_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recipe 'nothing'; known: digits-s, "):
        render.main(["nothing", "--out", str(tmp_path)])


def test_prose_and_measured_results_are_about_datasets_of_the_catalogue_each_once() -> None:
    root = Path(cards.__file__).parent
    headings = re.findall(
        r"^# (.*)$", "\n".join(p.read_text("utf-8") for p in (root / "prose").iterdir()), re.MULTILINE
    )
    assert sorted(name for heading in headings for name in heading.split(", ")) == sorted(RECIPES)
    assert {path.stem for path in (root / "measured").iterdir()} <= set(RECIPES)


@pytest.mark.parametrize("name", NAMES)
def test_recipe_has_prose_and_valid_json(name: str) -> None:
    recipe = RECIPES[name]
    prose = cards.about(name)
    assert prose is not None
    assert "## Known weaknesses" in prose or "## What to know" in prose
    parsed = PublishedRecipe.parse(recipe.to_json() + "\n")
    assert parsed.digest == recipe.digest
    assert parsed.source == recipe.source
    assert parsed.budget == recipe.budget
    json.loads(recipe.to_json())


def test_names_titles_and_summaries_are_unique_across_the_catalogue() -> None:
    for values in (
        [recipe.title for recipe in RECIPES.values()],
        [recipe.summary for recipe in RECIPES.values()],
        [recipe.digest for recipe in RECIPES.values()],
    ):
        assert len(set(values)) == len(values)


def test_every_recipe_of_every_module_of_builders_is_in_the_catalogue() -> None:
    modules = {path.stem for path in Path(builders.__file__).parent.glob("*.py")} - {"__init__"}
    families = [import_module(f"builders.{module}") for module in sorted(modules)]
    own = [family.RECIPE for family in families if hasattr(family, "RECIPE")]
    found = [*own, *(recipe for family in families for recipe in family.RECIPES)]
    assert sorted(recipe.name for recipe in found) == sorted(RECIPES)
    assert all(RECIPES[recipe.name] is recipe for recipe in found)
    assert [recipe.source.name for recipe in own] == ["own-images"] * 4


def test_recipe_modules_hold_no_logic() -> None:
    for path in Path(builders.__file__).parent.glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        assert not any(isinstance(node, ast.FunctionDef | ast.If | ast.For | ast.While) for node in nodes), path


def test_the_recipe_file_of_the_tutorial_still_runs(tmp_path: Path) -> None:
    text = (Path(builders.__file__).parent.parent / "docs/tutorials/own-method.md").read_text(encoding="utf-8")
    (block,) = (part for part in text.split("```python\n") if part.startswith("# mine.py"))
    (tmp_path / "mine.py").write_text(block.partition("```")[0], encoding="utf-8")
    recipe = find_recipe(str(tmp_path / "mine.py"))
    images, labels = make_images(3, 8, 12)
    outcome = run_build(
        tmp_path / "mine.py",
        "--source",
        write_image_folder(tmp_path / "photos", {"train": Samples(images, labels)}, class_names(3)),
        "--out",
        tmp_path / "x",
    )
    assert outcome.code == 0, outcome.stderr
    assert (recipe.name, recipe.budget, recipe.poison_rate) == ("my-photos", (L0(pixels=2),), 0.8)
    assert load(tmp_path / "x").poisoned.mean() == pytest.approx(0.8, abs=0.05)


def test_the_names_of_the_first_recipes_are_imported_as_before() -> None:
    """What people's own recipe files begin with."""
    assert import_module("builders.ops").RECIPE is RECIPES["ops"]
    assert import_module("builders.uc").RECIPE is RECIPES["uc"]


@pytest.mark.parametrize("name", NAMES)
def test_the_budget_is_that_of_the_methods_unless_it_is_narrowed(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.budget == tuple(bound for method in recipe.methods for bound in method.bounds)
    other = dataclasses.replace(recipe, methods=(OnePixelShortcut(num_pixels=3),))
    assert other.budget == (L0(pixels=3),), "other methods, other bounds"
    narrowed = dataclasses.replace(recipe, budget=(L2(levels=1),) * len(recipe.budget))
    assert dataclasses.replace(narrowed, name="x", methods=(OnePixelShortcut(),)).budget == narrowed.budget
    assert json.loads(narrowed.to_json())["budget"][0] == {"type": "L2", "levels": 1.0}
    assert PublishedRecipe.parse(narrowed.to_json()).budget == narrowed.budget


def grown(value: Any) -> Any:
    """An object as it would be after an option, off by default, was added to it and to everything in it."""
    if isinstance(value, tuple):
        return tuple(map(grown, value))
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    off: tuple[tuple[Any, Any], ...] = ((bool, False), (float | None, None), (str, ""), (int, 0))
    options = [(f"later{i}", kind, dataclasses.field(default=default)) for i, (kind, default) in enumerate(off)]
    kind: Any = dataclasses.make_dataclass(
        type(value).__name__, options, bases=(type(value),), frozen=True, kw_only=True, slots=True
    )
    return kind(**{field.name: grown(getattr(value, field.name)) for field in dataclasses.fields(value)})


@pytest.mark.parametrize("name", NAMES)
def test_an_option_that_is_added_to_anything_in_a_recipe_changes_no_digest_until_it_is_used(name: str) -> None:
    recipe = RECIPES[name]
    later = grown(recipe)
    assert (later.digest, later.craft_digests) == (recipe.digest, recipe.craft_digests)
    method = dataclasses.replace(later.methods[0], later0=True)
    used = dataclasses.replace(later, methods=(method, *later.methods[1:]))
    assert used.digest != recipe.digest
    assert used.craft_digests[0] != recipe.craft_digests[0]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """A setting whose default is not to be off."""

    rate: float = 0.5


def test_another_default_is_another_recipe() -> None:
    source = dataclasses.replace(DIGITS, preprocess=Rate())
    content = json.loads(dataclasses.replace(RECIPES["ops"], source=source).to_json())
    assert content["source"]["preprocess"] == {"type": "Rate", "rate": 0.5}


def test_a_reduced_recipe_has_the_images_that_its_summary_counts() -> None:
    for recipe in RECIPES.values():
        if recipe.limit_per_class is not None:
            assert recipe.summary.startswith(f"{recipe.num_images['train']:,} training images")
    assert RECIPES["ops-digits"].as_trial(12).num_images == {"train": 120, "test": 360}
    assert RECIPES["ops-digits"].as_trial(10**6).num_images == RECIPES["ops-digits"].num_images


def test_preprocessing_is_in_the_json_of_recipes_that_use_it_and_of_no_other() -> None:
    plain = RECIPES["ops"]
    source = dataclasses.replace(plain.source, preprocess=Preprocess(resize=256, crop=224))
    resized = dataclasses.replace(plain, source=source)
    assert "preprocess" not in json.loads(plain.to_json())["source"]
    assert json.loads(resized.to_json())["source"]["preprocess"] == {"type": "Preprocess", "resize": 256, "crop": 224}
    assert resized.digest != plain.digest
    for recipe in (plain, resized):
        assert PublishedRecipe.parse(recipe.to_json()).source == recipe.source


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resize": 256, "crop": 0}, "crop is 0, must be at least 1"),
        ({"resize": 100, "crop": 224}, "resize is 100, must be at least the crop of 224, or None"),
    ],
)
def test_impossible_preprocessing_is_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocess(**settings)


def test_the_schema_carries_the_features_of_the_datasets_library() -> None:
    import datasets

    names = ["a", "b"]
    expected = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=names),
            "key": datasets.Value("string"),
            "poisoned": datasets.Value("bool"),
        }
    )
    assert datasets.Features.from_arrow_schema(schema(names)) == expected
    assert schema(names).remove_metadata() == expected.arrow_schema.remove_metadata()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Upper Case"}, "lower-case letters"),
        ({"poison_rate": 0.0}, r"poison_rate is 0.0, not in \(0, 1\]"),
        ({"poison_rate": 1.5}, "poison_rate is 1.5"),
        ({"methods": ()}, "methods is empty"),
        ({"version": "1"}, "not MAJOR.MINOR.PATCH"),
        ({"shard_mebibytes": 0}, "shard_mebibytes is 0"),
    ],
)
def test_a_recipe_with_an_impossible_setting_is_refused(change: dict[str, object], message: str) -> None:
    fields: dict[str, object] = {
        "name": "mine",
        "title": "Mine",
        "summary": "Mine.",
        "source": DIGITS,
        "methods": (OnePixelShortcut(),),
        "budget": (L0(pixels=1),),
        "version": "1.0.0",
    }
    with pytest.raises(InputError, match=message):
        Recipe(**{**fields, **change})  # type: ignore[arg-type]


def test_a_budget_with_too_few_bounds_is_refused(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPES["ops-digits"], name="mine", budget=())
    with pytest.raises(InputError, match="0 bounds in budget for 1 layers"):
        build(recipe, BuildOptions(out=tmp_path / "x"), Reporter(silent=True))
