"""Whether everything that describes a dataset says the same: manifest, recipe, perturbation, card, Croissant."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ule_datasets.base import records
from ule_datasets.base.errors import InputError
from ule_datasets.base.regular import read_file
from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION_FILE
from ule_datasets.data.perturbation import NOWHERE, Additive, Perturbation, Support
from ule_datasets.dataset.declaration import card_declaration, craft_declaration, croissant_declaration
from ule_datasets.dataset.integrity.check import Check, differing
from ule_datasets.dataset.integrity.drawings import drawing_problem
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.definition import PublishedRecipe, Recipe
from ule_datasets.sources.spec import Preprocess

REST_OF_CARD = 5_000
"""Characters of front matter besides what is declared; reading many more would take long."""
DERIVED = re.compile(r"(?P<base>.+?)(-((?P<resize>\d+)-)?(?P<crop>\d+)px)?(-seed(?P<seed>\d+))?(-trial(?P<limit>\d+))?")
"""Names of what ``--crop``, ``--resize``, ``--seed`` and ``--limit`` make of a recipe."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A dataset folder with everything that describes it."""

    root: Path
    manifest: Manifest
    recipe: PublishedRecipe
    perturbation: Perturbation


def open_dataset(root: Path, manifest: Manifest) -> tuple[Folder | None, list[Check]]:
    """Read recipe and perturbation; ``None`` where one of them is not what the manifest says."""
    problems = []
    recipe = perturbation = None
    try:
        recipe = PublishedRecipe.read(root)
        if recipe.digest != manifest.recipe_digest:
            problems.append(f"recipe.json has digest {recipe.digest}, the manifest says {manifest.recipe_digest}")
        perturbation = Perturbation.load(root / PERTURBATION_FILE)
        if perturbation.digest != manifest.perturbation_digest:
            problems.append(f"{PERTURBATION_FILE} has another digest than the manifest says")
        problems += _misfits(perturbation, recipe, manifest)
    except (InputError, OSError, UnicodeDecodeError) as error:
        problems.append(str(error))
    check = Check.of("recipe and perturbation", problems, "recipe.json and perturbation.safetensors have their digests")
    if recipe is None or perturbation is None or problems:
        return None, [check]
    return Folder(root, manifest, recipe, perturbation), [check]


def check_descriptions(folder: Folder) -> list[Check]:
    """What manifest, recipe and perturbation say of each other; what card and other files tell loaders."""
    said = [
        problem
        for read in (_card_problems, _figure_problems, _croissant_problems, _craft_problems)
        for problem in read(folder)
    ]
    return [
        Check.of("manifest", _manifest_problems(folder), "it says what recipe and perturbation say"),
        Check.of("descriptions", said, "card, Croissant file and craft.json say what the manifest says"),
    ]


def check_name(manifest: Manifest, recipe: PublishedRecipe, catalogue: Mapping[str, Recipe]) -> Check:
    """A name of the catalogue, or one derived from it, belongs to what its recipe makes."""
    own = _named(manifest.name, catalogue)
    problems = []
    if own is not None and own.digest != manifest.recipe_digest:
        wider = "" if own.budget == recipe.budget else f": its budget is {_shown(recipe)}, not {_shown(own)}"
        problems = [f"{manifest.name} {manifest.version} has another recipe than {own.version} of the catalogue{wider}"]
    return Check.of("name", problems, "not of the catalogue" if own is None else "that of the catalogue's recipe")


def _shown(recipe: Recipe | PublishedRecipe) -> str:
    return ", then ".join(map(str, recipe.budget))


def _named(name: str, catalogue: Mapping[str, Recipe]) -> Recipe | None:
    """The recipe of that name, by itself or as options of the command line make it."""
    parts = DERIVED.fullmatch(name)
    if name in catalogue or parts is None or parts["base"] not in catalogue:
        return catalogue.get(name)
    recipe, number = catalogue[parts["base"]], {n: int(v) for n, v in parts.groupdict().items() if v and n != "base"}
    try:
        if "crop" in number:
            step = Preprocess(resize=number.get("resize"), crop=number["crop"], convert="RGB")
            recipe = recipe.with_preprocess(step)
        recipe = recipe.with_seed(number.get("seed", recipe.seed))
        return recipe.as_trial(number["limit"]) if "limit" in number else recipe
    except InputError:  # no option makes this
        return None


def _misfits(perturbation: Perturbation, recipe: PublishedRecipe, manifest: Manifest) -> Iterator[str]:
    """Why a perturbation cannot be applied to the images that the manifest tells of, or measured against the budget."""
    height, width, channels = manifest.image_shape
    entries = {Support.CLASS: len(manifest.class_names), Support.UNIVERSAL: 1}
    yield from differing(len(recipe.budget), len(perturbation.layers), "bounds in the budget, for as many layers:")
    for number, layer in enumerate(perturbation.layers):
        found = len(layer.levels if isinstance(layer, Additive) else layer.rows)
        yield from differing(found, entries.get(layer.support, found), f"entries of {layer.support} layer {number}:")
        if isinstance(layer, Additive):
            yield from differing(layer.levels.shape[1:], manifest.image_shape, f"pixels of layer {number}:")
            continue
        yield from differing(layer.colours.shape[2], channels, f"colours of layer {number}:")
        written = layer.rows != NOWHERE
        for what, places, size in (("rows", layer.rows, height), ("columns", layer.columns, width)):
            if places.dtype.kind != "i" or not ((places >= 0) & (places < size))[written].all():
                yield f"{what} of layer {number} are not all within the images"


def _manifest_problems(folder: Folder) -> Iterator[str]:
    """Where the manifest contradicts its recipe, the perturbation or itself."""
    manifest, recipe, spec = folder.manifest, folder.recipe, folder.recipe.source
    said = {"name": manifest.name, "version": manifest.version, "reduced": manifest.reduced}
    for what, found in said.items():
        yield from differing(found, getattr(recipe, what), f"{what} is")
    yield from differing(manifest.source_name, spec.name, "the source is")
    yield from differing(sorted(manifest.source_digests), sorted(manifest.splits), "splits of the source are")
    for split, digest in spec.digests or ():
        if split in manifest.splits and (split != "train" or recipe.limit_per_class is None):
            yield from differing(manifest.source_digests.get(split), digest, f"the source's {split} digest is")
    if spec.class_names is not None:
        yield from differing(manifest.class_names, spec.class_names, "class names are")
    if len(set(manifest.class_names)) != len(manifest.class_names):
        yield "class names are not all different"
    size = manifest.image_shape[0] if spec.image_size is None else spec.image_size
    wanted = size, manifest.image_shape[1] if spec.image_size is None else size, 3
    yield from differing(manifest.image_shape, wanted, "the image shape is")
    train = manifest.source_digests.get("train")
    yield from differing(folder.perturbation.source_digest, train, "the perturbation was made for images with digest")


def _card_problems(folder: Folder) -> Iterator[str]:
    """Where the card leads loaders elsewhere, or to other classes."""
    text = _text(folder.root / "README.md")
    front = re.match(r"---\n(.*?\n)---\n", text, re.DOTALL)
    wanted = card_declaration(folder.manifest) if folder.manifest.shards() else {}
    if front and len(front[1]) > len(yaml.safe_dump(wanted, allow_unicode=True)) + REST_OF_CARD:
        yield f"README.md has {len(front[1]):,} characters of front matter, which no card of ours has"
        return
    try:
        found = yaml.safe_load(front[1]) if front else None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        yield f"README.md has front matter that cannot be read: {str(error).splitlines()[0]}"
        return
    if not isinstance(found, dict):
        yield "README.md has no front matter"
        return
    for what in ("configs", "dataset_info"):
        yield from differing(found.get(what), wanted.get(what), f"README.md declares {what}")
    for what, known in (("pretty_name", folder.recipe.title), ("license", folder.recipe.source.licence.hub_id)):
        yield from differing(found.get(what), known, f"README.md declares {what}")


def _figure_problems(folder: Folder) -> Iterator[str]:
    """What else than a drawing an SVG picture is: it is opened by browsers, which run what is in it."""
    for record in folder.manifest.files:
        if record.path.endswith(".svg"):
            try:
                found = drawing_problem(read_file(folder.root / record.path))
            except (OSError, InputError):  # the check of the files says so
                continue
            if found is not None:
                yield f"{record.path} has {found}, which no picture of ours has"


def _croissant_problems(folder: Folder) -> Iterator[str]:
    name = "croissant.json"
    if name not in {record.path for record in folder.manifest.files}:
        if folder.manifest.shards():
            yield f"the manifest does not list {name}"
        return
    content = _json(folder.root / name)
    for what, wanted in croissant_declaration(folder.manifest).items():
        found = content.get(what) if isinstance(content, dict) else None
        yield from differing(found, wanted, f"{name} declares {what}")


def _craft_problems(folder: Folder) -> Iterator[str]:
    about, recipe = folder.perturbation.about, folder.recipe
    yield from [] if _json(folder.root / "craft.json") == about else ["craft.json is not what the perturbation says"]
    made_for = {"name": recipe.name, "version": recipe.version, "digest": recipe.digest}
    for what, wanted in {"recipe": made_for, "seed": recipe.seed, "poison_rate": recipe.poison_rate}.items():
        yield from differing(about.get(what), wanted, f"{PERTURBATION_FILE} was made for {what}")
    try:
        crafts = craft_declaration(folder.perturbation)
    except (KeyError, TypeError, AttributeError):
        yield f"{PERTURBATION_FILE} does not say by which methods it was made"
        return
    yield from differing(folder.manifest.craft, crafts, "the manifest's craft is")
    made = [craft["craft_digest"] for craft in crafts]
    if len(made) != len(recipe.craft_digests) or not all(map(operator.contains, recipe.craft_digests, made)):
        yield f"{PERTURBATION_FILE} was made with other methods or settings than the recipe's"


def _text(path: Path) -> str:
    try:
        return read_file(path).decode()
    except (OSError, InputError, UnicodeDecodeError):  # the check of the files says so
        return ""


def _json(path: Path) -> Any:
    try:
        return records.read(Any, path)
    except (OSError, InputError):
        return None
