"""The datasets under verification: read from their folders and proven, or made in memory from recipes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.executor import Executor
from ule_datasets.data.split import positions_of
from ule_datasets.dataset.integrity import (
    BuiltSplit,
    Check,
    Folder,
    check_against_source,
    check_content,
    check_files,
    open_dataset,
)
from ule_datasets.dataset.manifest import FILE_NAME, Manifest
from ule_datasets.experiments.grid import Subject
from ule_datasets.methods.method import Repeats
from ule_datasets.packaging.craft_cache import CraftCache, cache_folder
from ule_datasets.packaging.crafting import Workshop, craft
from ule_datasets.packaging.folder import LOCAL_NOTE
from ule_datasets.papers import claims
from ule_datasets.places.urls import is_remote
from ule_datasets.recipe import PublishedRecipe, Recipe
from ule_datasets.sources import Source, read_source
from ule_datasets.sources.spec import Preprocess

Catalogue = Mapping[str, Recipe]
COLLAPSED = (claims.Regime.COLLAPSED,)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Examined:
    """A dataset folder, what checking it gave, and its content where that may be trained on."""

    manifest: Manifest
    title: str
    recipe_digest: str
    manifest_digest: str
    checks: tuple[Check, ...]
    subject: Subject | None
    """``None``: it is not intact, or nothing is to be trained."""


class SourceReader:
    """Reads each clean source once, however many datasets come from it."""

    def __init__(self, given: str | None, executor: Executor, reporter: Reporter, scratch: Path | None = None) -> None:
        """Read nothing yet; ``scratch``: a folder for pixels, ``None``: they stay in memory."""
        self._given, self._executor, self._reporter = given, executor, reporter
        self._scratch = scratch
        self._read: dict[tuple[str, Preprocess | None, str], Source] = {}

    def at_hand(self, recipe: Recipe | PublishedRecipe, folder: Path | None) -> str | None:
        """Where the clean images are on this machine; ``None``: they would have to be fetched."""
        remembered = None if folder is None else _remembered(folder)
        embedded = "digits" if recipe.source.default_location == "digits" else None
        return self._given or remembered or embedded

    def read(self, recipe: Recipe | PublishedRecipe, folder: Path | None = None) -> Source:
        """The clean images of a recipe.

        Raises:
            InputError: nobody said where they are, or they are others.
        """
        location = self.at_hand(recipe, folder) or recipe.source.default_location
        if location is None:
            raise InputError(
                f"the clean control needs {recipe.source.title}: say where the images are with --source, or use "
                "--integrity-only"
            )
        key = recipe.source.name, recipe.source.preprocess, location
        if key not in self._read:
            self._read[key] = read_source(
                recipe.source,
                location,
                executor=self._executor,
                reporter=self._reporter,
                spool=None if self._scratch is None else self._scratch / f"source-{len(self._read)}",
                skip_unusable=True,
            )
        return self._read[key]


def examine(
    root: Path, *, sources: SourceReader, training: bool, catalogue: Catalogue, executor: Executor,
    reporter: Reporter, scratch: Path | None = None,
) -> Examined:  # fmt: skip
    """Prove a dataset folder's integrity; where it holds and something is to be trained, give its content.

    Raises:
        InputError: not a dataset, no clean source to train a control with, or no test split to measure on.
        DamagedManifestError: the manifest itself was changed.
    """
    manifest = Manifest.read(root)
    checks = _said(check_files(root, manifest, executor), reporter)
    folder, more = open_dataset(root, manifest)
    checks += _said(more, reporter)
    subject = None
    if folder is not None:
        spool = None if scratch is None else scratch / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        splits, more = check_content(folder, executor, reporter, spool)
        checks += _said(more, reporter)
        trainable = training and all(check.passed for check in checks)
        source = None
        if trainable or sources.at_hand(folder.recipe, root) is not None:
            source = sources.read(folder.recipe, root)
            checks += _said(check_against_source(folder, splits, source, executor), reporter)
        else:
            reporter.say("not compared with the clean source: give it with --source")
        if trainable and source is not None and all(check.passed for check in checks):
            subject = _from_folder(folder, splits, source, catalogue)
    if training and subject is None:
        reporter.say(f"nothing is trained on {manifest.name}: it is not intact")
    return Examined(
        manifest=manifest,
        title=manifest.name if folder is None else folder.recipe.title,
        recipe_digest=manifest.recipe_digest,
        manifest_digest=hashlib.sha256((root / FILE_NAME).read_bytes()).hexdigest(),
        checks=tuple(checks),
        subject=subject,
    )


def make(recipe: Recipe, *, sources: SourceReader, reporter: Reporter) -> Subject | None:
    """A dataset of the catalogue in memory; ``None`` where its noise would first have to be crafted for long."""
    source = sources.read(recipe)
    workshop = Workshop(reporter=reporter, device="cpu", cache=CraftCache(cache_folder()))
    if not all(
        method.repeats == Repeats.EXACT or CraftCache(cache_folder()).get(digest, source.train.digest) is not None
        for method, digest in zip(recipe.methods, recipe.craft_digests, strict=True)
    ):
        return None
    reporter.say(f"making {recipe.name} in memory")
    perturbation = craft(recipe, source, workshop)
    train, test = source.train, source.splits.get("test")
    if test is None:
        return None
    clean = train.pixels()
    return Subject(
        name=recipe.name, title=recipe.title, version=recipe.version, reduced=recipe.reduced,
        source=recipe.source.name, limit_per_class=recipe.limit_per_class, recipe_digest=recipe.digest,
        perturbation_digest=perturbation.digest, manifest_digest=None,
        poisoned_images=perturbation.apply(clean, train.labels, train.keys), clean_images=clean,
        labels=train.labels, keys=train.keys, perturbation=perturbation,
        test_images=test.pixels(), test_labels=test.labels, num_classes=len(source.class_names),
        flippable=recipe.source.flippable, collapse_expected=expects_collapse(recipe.name),
        redraw=_redraw(recipe, source, reporter),
    )  # fmt: skip


def expects_collapse(name: str) -> bool:
    """Whether the paper reports a collapse for a ResNet-18 trained on this dataset; yes where it reports nothing."""
    reported = claims.headline(name)
    return reported is None or reported.regime in COLLAPSED


def why_unjudged(name: str, recipe_digest: str, reduced: str | None, catalogue: Catalogue) -> str:
    """Why a dataset's results are not compared with a paper's; empty where they are."""
    if reduced is not None:
        return f"measured, but not judged against the paper: {name} is reduced ({reduced})"
    if name not in catalogue:
        return f"measured, but not judged against a paper: {name} is not in the catalogue"
    if catalogue[name].digest != recipe_digest:
        return f"measured, but not judged against the paper: it is not what the catalogue's recipe {name} makes"
    return ""


def _from_folder(folder: Folder, splits: dict[str, BuiltSplit], source: Source, catalogue: Catalogue) -> Subject:
    if "test" not in splits:
        raise InputError(f"{folder.root} has no test split to measure on: use --integrity-only")
    if len(folder.manifest.class_names) < 2:
        raise InputError(f"{folder.root} has images of one class, nothing to train a model on: use --integrity-only")
    train, test, recipe, manifest = splits["train"], splits["test"], folder.recipe, folder.manifest
    unjudged = why_unjudged(manifest.name, manifest.recipe_digest, manifest.reduced, catalogue)
    known = catalogue.get(manifest.name)
    return Subject(
        name=manifest.name, title=recipe.title, version=manifest.version, reduced=manifest.reduced,
        source=recipe.source.name, limit_per_class=recipe.limit_per_class, recipe_digest=manifest.recipe_digest,
        perturbation_digest=manifest.perturbation_digest,
        manifest_digest=hashlib.sha256((folder.root / FILE_NAME).read_bytes()).hexdigest(),
        poisoned_images=np.asarray(train.images),
        clean_images=source.train.pixels(positions_of(train.keys, source.train.keys)), labels=train.labels,
        keys=train.keys, perturbation=folder.perturbation, test_images=np.asarray(test.images), test_labels=test.labels,
        num_classes=len(manifest.class_names), flippable=recipe.source.flippable,
        collapse_expected=expects_collapse(manifest.name), unjudged=unjudged,
        stands_for=_stands_for(manifest, catalogue) if manifest.reduced else "",
        redraw=_redraw(known, source, Reporter(silent=True)) if known is not None and not unjudged else None,
    )  # fmt: skip


def _stands_for(manifest: Manifest, catalogue: Catalogue) -> str:
    """The whole dataset that a reduced one is made like: from which it was derived, else with the same methods."""
    made_from = manifest.name.partition("-trial")[0]
    if made_from in catalogue and made_from != manifest.name:
        return made_from
    own = catalogue.get(manifest.name)
    if own is None:
        return ""
    methods = [method.identifier for method in own.methods]
    alike = [
        recipe.name
        for recipe in catalogue.values()
        if recipe.reduced is None
        and recipe.source.name == own.source.name
        and [method.identifier for method in recipe.methods] == methods
        and recipe.budget == own.budget
    ]
    return alike[0] if alike else ""


def _redraw(recipe: Recipe, source: Source, reporter: Reporter) -> Callable[[int], np.ndarray] | None:
    """Where the method is a random draw, another one."""
    if not all(method.redrawable for method in recipe.methods):
        return None

    def drawn(seed: int) -> np.ndarray:
        train = source.train
        other = craft(recipe.with_seed(seed), source, Workshop(reporter=reporter, device="cpu"))
        return other.apply(train.pixels(), train.labels, train.keys)

    return drawn


def _remembered(folder: Path) -> str | None:
    """Where the build on this machine took its images from, if they are still there."""
    note = folder / LOCAL_NOTE
    if not note.exists():
        return None
    location = json.loads(note.read_text(encoding="utf-8")).get("source")
    is_place = isinstance(location, str) and (
        location.startswith("hub:") or is_remote(location) or Path(location).exists()
    )
    return location if is_place else None


def _said(checks: list[Check], reporter: Reporter) -> list[Check]:
    """Show the checks as they are made."""
    for check in checks:
        reporter.say(f"{'ok    ' if check.passed else 'FAILED'} {check.name}: {check.detail}")
    return checks
