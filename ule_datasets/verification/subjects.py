"""The datasets under verification: read from their folders and proven, or made in memory from recipes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.files import cache_folder
from ule_datasets.base.progress import Reporter
from ule_datasets.base.version import __version__
from ule_datasets.compute.executor import Executor
from ule_datasets.data.split import positions_of
from ule_datasets.dataset import integrity
from ule_datasets.dataset.local import remembered_source
from ule_datasets.dataset.manifest import FILE_NAME, Manifest
from ule_datasets.definition import PublishedRecipe, Recipe
from ule_datasets.experiments.subject import Samples, Subject
from ule_datasets.methods.method import Repeats
from ule_datasets.packaging.crafting import CraftCache, Workshop, craft
from ule_datasets.papers import claims
from ule_datasets.sources.given import Given
from ule_datasets.sources.reading import Source, read_source
from ule_datasets.sources.spec import EMBEDDED, Preprocess

Catalogue = Mapping[str, Recipe]
NOT_PINNED = "not yet pinned"
"""In a plan, instead of the digest of images that nobody has told: none of their runs is known to be finished."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Examined:
    """A dataset folder, what checking it gave, and its content where that may be trained on."""

    manifest: Manifest
    title: str
    recipe_digest: str
    manifest_digest: str
    checks: tuple[integrity.Check, ...]
    subject: Subject | None
    """``None``: it is not intact, nothing is to be trained, or nothing can be."""
    untrained: str = ""
    """Why nothing can be trained on it, however intact it is; empty: it can, or nothing is to be trained."""


class SourceReader:
    """Reads each clean source once, however many datasets come from it."""

    def __init__(self, given: Given, executor: Executor, reporter: Reporter, scratch: Path | None = None) -> None:
        """Read nothing yet; ``given`` is settled; ``scratch``: a folder for pixels, ``None``: they stay in memory."""
        self.executor, self.reporter, self.scratch = executor, reporter, scratch
        self._given = given
        self._read: dict[tuple[str, Preprocess | None, str], Source] = {}

    def at_hand(self, recipe: Recipe | PublishedRecipe, folder: Path | None) -> str | None:
        """Where the clean images are on this machine; ``None``: they would have to be fetched."""
        remembered = None if folder is None else remembered_source(folder, Manifest.read(folder))
        embedded = EMBEDDED if recipe.source.default_location == EMBEDDED else None
        return self._given.where(recipe.source) or remembered or embedded

    def location(self, recipe: Recipe | PublishedRecipe, folder: Path | None = None) -> str:
        """Where the clean images of a recipe are; refused where nobody said it."""
        location = self.at_hand(recipe, folder)
        if location is None:
            self._given.refuse_left_out(recipe.source)
            location = recipe.source.default_location
        if location is None:
            raise InputError(
                f"the clean control needs {recipe.source.title}: say where the images are with --source, or use "
                "--integrity-only"
            )
        return location

    def read(self, recipe: Recipe | PublishedRecipe, folder: Path | None = None) -> Source:
        """The clean images of a recipe; refused where nobody said where they are, or they are others."""
        location = self.location(recipe, folder)
        key = recipe.source.name, recipe.source.preprocess, location
        if key not in self._read:
            self._read[key] = read_source(
                recipe.source,
                location,
                executor=self.executor,
                reporter=self.reporter,
                spool=None if self.scratch is None else self.scratch / f"source-{len(self._read)}",
                skip_unusable=True,
            )
        return self._read[key]


def examine(root: Path, *, sources: SourceReader, training: bool, catalogue: Catalogue) -> Examined:
    """Prove a dataset folder's integrity; where it holds and something is to be trained, give its content.

    Raises:
        InputError: not a dataset, or no clean source to train a control with.
        DamagedManifestError: the manifest itself was changed.
    """
    manifest, reporter, scratch = Manifest.read(root), sources.reporter, sources.scratch
    untrained = _why_untrained(manifest) if training else ""
    training = training and not untrained
    spool = None if scratch is None else scratch / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]

    def find_source(recipe: PublishedRecipe, intact: bool) -> Source | None:
        if (training and intact) or sources.at_hand(recipe, root) is not None:
            return sources.read(recipe, root)
        reporter.say("not compared with the clean source: give it with --source")
        return None

    found = integrity.examine(
        root, manifest, sources.executor, reporter, find_source=find_source, catalogue=catalogue, spool=spool
    )
    subject = None
    if training and found.intact and found.folder is not None and found.source is not None:
        known = _of_folder(root, manifest, found.folder.recipe, catalogue)
        train, test = found.splits["train"], found.splits["test"]
        samples = Samples(
            poisoned=np.asarray(train.images),
            clean=found.source.train.pixels(positions_of(train.keys, found.source.train.keys)),
            labels=train.labels,
            keys=train.keys,
            perturbation=found.folder.perturbation,
            test_images=np.asarray(test.images),
            test_labels=test.labels,
        )
        subject = _with_samples(known, samples, catalogue.get(known.name), found.source, Reporter(silent=True))
    if training and subject is None:
        reporter.say(f"nothing is trained on {manifest.name}: it is not intact")
    if untrained:
        reporter.say(f"nothing is trained on {manifest.name}: {untrained}")
    return Examined(
        untrained=untrained,
        manifest=manifest,
        title=manifest.name if found.folder is None else found.folder.recipe.title,
        recipe_digest=manifest.recipe_digest,
        manifest_digest=hashlib.sha256((root / FILE_NAME).read_bytes()).hexdigest(),
        checks=tuple(found.checks),
        subject=subject,
    )


def plan(root: Path, *, sources: SourceReader, training: bool, catalogue: Catalogue) -> Examined:
    """What a dataset folder says of itself; nothing is checked, and no image is read.

    Raises:
        InputError: not a dataset, or no clean source to train a control with.
        DamagedManifestError: the manifest itself was changed.
    """
    manifest = Manifest.read(root)
    recipe = PublishedRecipe.read(root)
    untrained, subject = _why_untrained(manifest) if training else "", None
    if training and not untrained:
        sources.location(recipe, root)
        subject = _of_folder(root, manifest, recipe, catalogue)
    return Examined(
        manifest=manifest,
        title=recipe.title,
        recipe_digest=manifest.recipe_digest,
        manifest_digest=hashlib.sha256((root / FILE_NAME).read_bytes()).hexdigest(),
        checks=(),
        subject=subject,
        untrained=untrained,
    )


def plan_in_memory(recipe: Recipe, reporter: Reporter) -> Subject | None:
    """What ``make`` would give, as far as the recipe tells; no image is read."""
    spec = recipe.source
    counts, classes, size = dict(spec.num_images or ()), spec.class_names, spec.image_size
    digests = spec.known_digests or (dict.fromkeys(counts, NOT_PINNED) if spec.unpinned else {})
    if not digests or not counts or classes is None or size is None:
        reporter.say(f"{recipe.name} is left out of the plan: its images have to be read first")
        return None
    if "test" not in counts or not _at_hand(recipe, digests["train"]):
        return None
    return _made_by(recipe, digests, counts, size, len(classes), drawn_by=recipe)


def may_be_made(recipe: Recipe) -> bool:
    """Whether ``make`` needs the images of a recipe: its perturbation takes seconds, or was crafted of some."""
    cache = CraftCache(cache_folder())
    return all(
        method.repeats == Repeats.EXACT or cache.has_any(digest)
        for method, digest in zip(recipe.methods, recipe.craft_digests, strict=True)
    )


def make(recipe: Recipe, *, sources: SourceReader) -> Subject | None:
    """A dataset of the catalogue in memory; ``None`` where its noise would first have to be crafted for long."""
    source, reporter = sources.read(recipe), sources.reporter
    if "test" not in source.splits or not _at_hand(recipe, source.train.digest):
        return None
    reporter.say(f"making {recipe.name} in memory")
    perturbation = craft(recipe, source, Workshop(reporter=reporter, device="cpu", cache=CraftCache(cache_folder())))
    train, test = source.train, source.splits["test"]
    clean = train.pixels()
    samples = Samples(
        poisoned=perturbation.apply(clean, train.labels, train.keys),
        clean=clean,
        labels=train.labels,
        keys=train.keys,
        perturbation=perturbation,
        test_images=test.pixels(),
        test_labels=test.labels,
    )
    digests = {name: split.digest for name, split in source.splits.items()}
    counts = {name: len(split) for name, split in source.splits.items()}
    known = _made_by(recipe, digests, counts, clean.shape[1], len(source.class_names), drawn_by=recipe)
    return _with_samples(known, samples, recipe, source, reporter)


def expects_collapse(name: str) -> bool:
    """Whether the paper reports a collapse for a ResNet-18 trained on this dataset; yes where it reports nothing."""
    reported = claims.headline(name)
    return reported is None or reported.regime is claims.Regime.COLLAPSED


def why_unjudged(name: str, recipe_digest: str, reduced: str | None, catalogue: Catalogue) -> str:
    """Why a dataset's results are not compared with a paper's; empty where they are."""
    if reduced is not None:
        return f"measured, but not judged against the paper: {name} is reduced ({reduced})"
    if name not in catalogue:
        return f"measured, but not judged against a paper: {name} is not in the catalogue"
    if catalogue[name].digest != recipe_digest:
        return f"measured, but not judged against the paper: it is not what the catalogue's recipe {name} makes"
    return ""


def _why_untrained(manifest: Manifest) -> str:
    """Why no model can be trained on a dataset and measured; empty: one can."""
    if "test" not in manifest.splits:
        return "it has no clean test split to measure on; build it from a source that has one (SOURCE/test/CLASS/...)"
    return "its images are all of one class" if len(manifest.class_names) < 2 else ""


def _of_folder(root: Path, manifest: Manifest, recipe: PublishedRecipe, catalogue: Catalogue) -> Subject:
    """What is known of a dataset folder without its samples."""
    unjudged = why_unjudged(manifest.name, manifest.recipe_digest, manifest.reduced, catalogue)
    own = catalogue.get(manifest.name)
    known, ours = None if unjudged else own, own is not None and own.digest == manifest.recipe_digest
    counts = {name: split.num_examples for name, split in manifest.splits.items()}
    size, num_classes = manifest.image_shape[0], len(manifest.class_names)
    return dataclasses.replace(
        _made_by(recipe, manifest.source_digests, counts, size, num_classes, drawn_by=known),
        name=manifest.name,
        version=manifest.version,
        reduced=manifest.reduced,
        recipe_digest=manifest.recipe_digest,
        manifest_digest=hashlib.sha256((root / FILE_NAME).read_bytes()).hexdigest(),
        poison_digest=manifest.perturbation_digest,
        unjudged=unjudged,
        stands_for=_stands_for(manifest, catalogue) if manifest.reduced else "",
        remake=_nothing_was_read if own is not None and ours and _soon_made(own) else None,
    )


def _made_by(
    recipe: Recipe | PublishedRecipe,
    digests: Mapping[str, str],
    counts: Mapping[str, int],
    image_size: int,
    num_classes: int,
    *,
    drawn_by: Recipe | None,
) -> Subject:
    """What is known of a recipe's dataset without its samples; ``drawn_by`` could make other draws of it."""
    redrawable = drawn_by is not None and all(method.redrawable for method in drawn_by.methods)
    return Subject(
        name=recipe.name,
        title=recipe.title,
        version=recipe.version,
        reduced=recipe.reduced,
        source=recipe.source.name,
        limit_per_class=recipe.limit_per_class,
        recipe_digest=recipe.digest,
        manifest_digest=None,
        clean_digest=f"{digests['train']} {digests['test']}",
        poison_digest=f"{recipe.digest} by {__version__}",
        num_train=counts["train"],
        num_test=counts["test"],
        image_size=image_size,
        num_classes=num_classes,
        flippable=recipe.source.flippable,
        collapse_expected=not recipe.learnable and expects_collapse(recipe.name),
        learnable=recipe.learnable,
        samples=_nothing_was_read,
        redraw=_nothing_was_read if redrawable else None,
        remake=_nothing_was_read if drawn_by is not None and _soon_made(drawn_by) else None,
    )


def _with_samples(
    known: Subject, samples: Samples, recipe: Recipe | None, source: Source, reporter: Reporter
) -> Subject:
    """The subject with its images, with other draws of a recipe whose methods are random draws, and made again."""

    def drawn(seed: int) -> np.ndarray:
        assert recipe is not None
        return made(recipe.with_seed(seed), reporter)

    def made(recipe: Recipe, reporter: Reporter) -> np.ndarray:
        train = source.train
        crafted = craft(recipe, source, Workshop(reporter=reporter, device="cpu"))
        return crafted.apply(train.pixels(), train.labels, train.keys)

    def remade() -> np.ndarray:
        assert recipe is not None
        return made(recipe, Reporter(silent=True))

    return dataclasses.replace(
        known,
        samples=lambda: samples,
        redraw=None if known.redraw is None else drawn,
        remake=None if known.remake is None else remade,
    )


def _nothing_was_read(*_: object) -> NoReturn:
    raise AssertionError("what is only planned has no samples")


def _soon_made(recipe: Recipe) -> bool:
    """Whether all methods of a recipe take seconds."""
    return all(method.repeats == Repeats.EXACT for method in recipe.methods)


def _at_hand(recipe: Recipe, source_digest: str) -> bool:
    """Whether the recipe's perturbation needs no long craft."""
    cache = CraftCache(cache_folder())
    return all(
        method.repeats == Repeats.EXACT or cache.get(digest, source_digest) is not None
        for method, digest in zip(recipe.methods, recipe.craft_digests, strict=True)
    )


def _stands_for(manifest: Manifest, catalogue: Catalogue) -> str:
    """The whole dataset that a reduced one is made like: from which it was derived, else with the same methods."""
    made_from = manifest.name.partition("-trial")[0]
    if made_from in catalogue and made_from != manifest.name:
        return made_from
    own = catalogue.get(manifest.name)
    if own is None:
        return ""

    def kind(recipe: Recipe) -> tuple[object, ...]:
        return recipe.source.name, recipe.budget, *(method.identifier for method in recipe.methods)

    return next((one.name for one in catalogue.values() if one.reduced is None and kind(one) == kind(own)), "")
