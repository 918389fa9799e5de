"""The dataset card: front matter that the Hub accepts, and a body rendered from the recipe and the manifest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import yaml
from markupsafe import Markup

import cards
from ule_datasets.base import shown
from ule_datasets.base.templates import environment
from ule_datasets.data.perturbation import NOWHERE, Overwrite, Perturbation, Support
from ule_datasets.dataset.declaration import card_declaration
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.definition import Recipe
from ule_datasets.methods.method import Repeats
from ule_datasets.packaging.figures.sheet import Figure
from ule_datasets.packaging.figures.trace import trace_table
from ule_datasets.packaging.results import results_of
from ule_datasets.papers.claims import CLEAN_ACCURACY, for_dataset
from ule_datasets.sources.forms import UNLABELLED
from ule_datasets.sources.imagenet import ENGLISH

NAMESPACE = "ule"
"""The Hub organisation of the published datasets."""
SIZE_CATEGORIES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
CLASSES_LISTED = 100
ROUNDS_LISTED = 20


def write_card(
    recipe: Recipe,
    manifest: Manifest,
    perturbation: Perturbation,
    figures: Sequence[Figure],
    *,
    with_images: bool = True,
) -> str:
    """README.md of a dataset; depends on nothing but its arguments and the texts in ``cards``.

    ``with_images=False``: for a repository that holds the perturbation but no images.
    """
    markdown = environment(shown.markdown)
    about = markdown.from_string(cards.about(recipe.derived_from or recipe.name) or "").render(recipe=recipe)
    keys = citation_keys(recipe)
    tars = manifest.shards("webdataset/train-")
    front_matter = _front_matter(recipe, manifest, with_images=with_images)
    text: str = markdown.from_string(cards.template()).render(
        front_matter=Markup(yaml.safe_dump(front_matter, sort_keys=False, allow_unicode=True)),  # noqa: S704 (YAML)
        with_images=with_images,
        labelled=manifest.class_names != UNLABELLED,
        jpeg=""
        if recipe.source.known_digests
        else manifest.environment.get("jpeg", ""),  # digests say what pixels must be
        recipe=recipe,
        learnable=recipe.learnable,
        manifest=manifest,
        class_names=[_readable(name) for name in manifest.class_names],
        figures=figures,
        about=Markup(about),  # noqa: S704 (a template of ours, rendered)
        repository=f"{NAMESPACE}/{recipe.name}",
        has_webdataset=bool(tars),
        num_train_tars=len(tars),
        methods=[{"title": method.title, "fields": _settings(method, "")} for method in recipe.methods],
        exact=all(method.repeats == Repeats.EXACT for method in recipe.methods),
        crafts=_crafts(perturbation),
        imported=_imported(perturbation),
        pixels=_pixels(perturbation, manifest.class_names),
        digests=_digests(manifest),
        known=bool(perturbation.layers),
        results=results_of(
            [claim for claim in for_dataset(recipe.name) if claim.metric == CLEAN_ACCURACY],
            cards.measured(recipe.name),
            manifest.perturbation_digest if perturbation.layers else None,
        ),
        citations=[cards.citation(key) for key in keys],
        papers=[paper for key in keys if (paper := cards.paper(key)) is not None],
        rebuild=_rebuild_command(recipe),
    )
    return text


def _front_matter(recipe: Recipe, manifest: Manifest, *, with_images: bool) -> dict[str, Any]:
    """The card's YAML."""
    total = sum(split.num_examples for split in manifest.splits.values())
    source = recipe.source.hub_id
    labelled = manifest.class_names != UNLABELLED
    identifiers = dict.fromkeys(method.identifier.replace("_", "-") for method in recipe.methods)
    known = ["unlearnable-examples", *(["learnable-examples"] if recipe.learnable else [])]
    tasks = {"task_categories": ["image-classification"], "task_ids": ["multi-class-image-classification"]}
    content: dict[str, Any] = {
        "pretty_name": recipe.title,
        "license": recipe.source.licence.hub_id,
        **(tasks if labelled else {}),
        "size_categories": [next((name for limit, name in SIZE_CATEGORIES.items() if total < limit), "10M<n<100M")],
        "source_datasets": [source] if source else ["original"],
        "annotations_creators": ["found" if labelled else "no-annotation"],
        "tags": ["image", *known, "data-poisoning", "shortcut-learning", *identifiers],
    }
    return {**content, **card_declaration(manifest)} if with_images else content


def citation_keys(recipe: Recipe) -> list[str]:
    """Keys of the method papers and of the source, each once."""
    keys = [*(method.citation for method in recipe.methods), recipe.source.citation or ""]
    return [key for key in dict.fromkeys(keys) if key]


def _readable(class_name: str) -> str:
    """With what a WordNet identifier means."""
    return f"{class_name} ({ENGLISH[class_name]})" if class_name in ENGLISH else class_name


def _settings(value: Any, prefix: str) -> list[tuple[str, str]]:
    """Names and values of a method's settings, nested ones with dotted names."""
    rows = []
    for field in dataclasses.fields(value):
        setting = getattr(value, field.name)
        if dataclasses.is_dataclass(setting):
            rows += _settings(setting, f"{prefix}{field.name}.")
        else:
            rows.append((f"{prefix}{field.name}", str(setting)))
    return rows


def _digests(manifest: Manifest) -> list[tuple[str, str]]:
    """What is known by a digest: in lists, whose lines break anywhere, unlike those of tables."""
    source = [(f"source, {name}", digest) for name, digest in sorted(manifest.source_digests.items())]
    made = [("recipe", manifest.recipe_digest), ("perturbation", manifest.perturbation_digest)]
    return [*source, *made, *((f"dataset, {name}", split.digest) for name, split in manifest.splits.items())]


def _crafts(perturbation: Perturbation) -> list[dict[str, Any]]:
    """How the methods that work in rounds (or cluster by cluster) went, from what, and on what machine."""
    crafts = []
    for record in perturbation.about["methods"]:
        notes = record["notes"]
        parts = notes.get("trace") or notes.get("clusters")
        if parts:
            headings, rows = trace_table(parts)
            crafts.append(
                {
                    "identifier": record["identifier"],
                    "rounds": notes.get("rounds"),
                    "ended_early": not notes.get("stop_rule_met", True),
                    "machines": [_machine(each) for each in notes.get("environments", [])],
                    "weights": notes.get("weights"),
                    "agreement": notes.get("agreement_with_labels"),
                    "headings": headings,
                    "rows": rows if len(rows) <= ROUNDS_LISTED else [*rows[: ROUNDS_LISTED - 1], rows[-1]],
                }
            )
    return crafts


def _imported(perturbation: Perturbation) -> list[dict[str, Any]]:
    """What others have released: which file, and what was found."""
    found = [notes for record in perturbation.about["methods"] if (notes := record["notes"].get("imported"))]
    told = ("support", "order", "plausibility", "rounding", "matched", "not_sure", "clean_without_release")
    return [
        {"lint": (), **each, "settings": [(name.replace("_", " "), each[name]) for name in told if name in each]}
        for each in found
    ]


def _machine(environment: dict[str, str]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in sorted(environment.items()) if name != "device")
    return f"{environment.get('device', 'an unknown device')} ({versions})"


def _pixels(perturbation: Perturbation, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Positions and colours of a class-wise overwrite, for the table."""
    for layer in perturbation.layers:
        if isinstance(layer, Overwrite) and layer.support is Support.CLASS:
            count = layer.rows.shape[1]
            return [
                {"name": _readable(name), "places": [_place(layer, number, pixel) for pixel in range(count)]}
                for number, name in enumerate(class_names[:CLASSES_LISTED])
            ]
    return []


def _place(layer: Overwrite, number: int, pixel: int) -> dict[str, str]:
    row, column = int(layer.rows[number, pixel]), int(layer.columns[number, pixel])
    if row == NOWHERE:
        return {"position": "none", "colour": "none"}
    colour = bytes(layer.colours[number, pixel].tolist()).hex()
    return {"position": f"({row}, {column})", "colour": f"#{colour}"}


def _rebuild_command(recipe: Recipe) -> str:
    """The command that makes this dataset again."""
    words = [recipe.derived_from or recipe.name]
    if recipe.source.default_location is None:
        words.append("--source FOLDER")
    if recipe.derived_from and "-seed" in recipe.name:
        words.append(f"--seed {recipe.seed}")
    if recipe.derived_from and recipe.source.preprocess is not None and not recipe.source.url:
        step = recipe.source.preprocess
        words += [f"--crop {step.crop}", *([] if step.resize is None else [f"--resize {step.resize}"])]
    if recipe.limit_per_class:
        words.append(f"--limit {recipe.limit_per_class}")
    return " ".join(words)
