"""From a recipe and its clean images to the perturbation: crafted, found in the cache, or joined from saved ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ule_datasets.base.checkpoint import Checkpoint, FileCheckpoint, MemoryCheckpoint, facts_of
from ule_datasets.base.errors import InputError
from ule_datasets.base.files import make_room, mark_used, replacing
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.base.version import __version__
from ule_datasets.compute.executor import Executor
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.perturbation import Layer, Perturbation
from ule_datasets.data.split import poisoned_keys
from ule_datasets.dataset.manifest import build_environment, other_decoder
from ule_datasets.definition import Recipe
from ule_datasets.methods.method import Context, Crafted, Method, Repeats
from ule_datasets.sources.reading import Source, no_labels

LARGEST = 10 * 2**30
"""Bytes of finished crafts; beyond, those that were not used for longest are deleted."""
SEAL = "sealed"
"""Among what a kept craft says about itself: a digest over what it is kept under and what it is."""


@dataclass(frozen=True, slots=True)
class CraftCache:
    """A folder of perturbations, one file for the layers of one method on one set of images."""

    folder: Path
    largest: int = LARGEST

    def path(self, craft_digest: str, source_digest: str) -> Path:
        """Where a craft is or would be; another version of the library looks elsewhere."""
        return self.folder / f"{craft_digest[:24]}-{source_digest[:24]}-{__version__}.safetensors"

    def has_any(self, craft_digest: str) -> bool:
        """Whether a craft is kept for any images."""
        return any(self.folder.glob(f"{craft_digest[:24]}-*-{__version__}.safetensors"))

    def get(self, craft_digest: str, source_digest: str) -> Perturbation | None:
        """A finished craft, or ``None``; a file that is damaged is deleted, one of another craft is not taken.

        One that an earlier version kept, without a seal, is taken where it says itself that it is this craft.
        """
        path = self.path(craft_digest, source_digest)
        if not path.exists():
            return None
        try:
            kept = Perturbation.load(path)
        except InputError:
            path.unlink(missing_ok=True)
            return None
        found = kept.with_about({name: value for name, value in kept.about.items() if name != SEAL})
        if SEAL in kept.about:
            ours = kept.about[SEAL] == _seal(craft_digest, source_digest, kept.digest, found.about)
        else:
            ours = kept.source_digest == source_digest and [digest for digest, _ in _parts(kept)] == [craft_digest]
        if not ours:
            return None
        mark_used(path)
        return found

    def put(self, craft_digest: str, perturbation: Perturbation) -> None:
        """Keep a craft, and make room for it; an ``OSError`` where the folder cannot be written to."""
        path = self.path(craft_digest, perturbation.source_digest)
        about = json.loads(json.dumps(perturbation.about))  # as it will come back from the file
        bound = _seal(craft_digest, perturbation.source_digest, perturbation.digest, about)
        with replacing(path) as partial:
            perturbation.with_about({**about, SEAL: bound}).save(partial)
        make_room(path, self.largest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Workshop:
    """Where and how to craft; nothing here is part of the method."""

    reporter: Reporter
    executor: Executor = field(default_factory=LocalExecutor)
    device: str = "auto"
    weights: Path | None = None
    """File or folder of weights, for methods that start from some; ``None``: ``$ULE_WEIGHTS``, or they are fetched."""
    release: Path | None = None
    """A file or folder of others, for methods that import it."""
    checkpoints: Path | None = None
    """A folder for the state of interrupted crafts; ``None``: they start again."""
    cache: CraftCache | None = None
    """For crafts that take longer than seconds; ``None``: always craft."""


def craft(recipe: Recipe, source: Source, workshop: Workshop) -> Perturbation:
    """Run the recipe's methods on the clean training images and join their layers.

    Raises:
        InputError: the images have no labels and a method needs them, or what a method finds wrong.
    """
    if not source.labelled and labels_for(recipe):
        raise no_labels(source.location, labels_for(recipe))
    check_amount(recipe, len(source.train))  # of all methods, before the first one takes hours
    made: list[Part] = []
    for index, (method, digest) in enumerate(zip(recipe.methods, recipe.craft_digests, strict=True)):
        earlier = tuple(layer for layers, _ in made for layer in layers)
        found = _cached(recipe, method, digest, source, workshop)
        made.append(found or _made(recipe, index, source, workshop, earlier))
    return _joined(recipe, made, source)


def settled(recipe: Recipe, index: int, source: Source, workshop: Workshop) -> Recipe:
    """The recipe for what ``workshop.release`` holds, which its method number ``index`` imports whatever it is.

    What was read is kept for the build that follows, so that it is read once.

    Raises:
        InputError: the release cannot be imported.
    """
    method = recipe.methods[index]
    crafted = method.generate(source.train, _context(recipe, index, source, workshop, ()))
    done = recipe.with_settled(index, method.settled(crafted.notes), str(crafted.notes[method.identifier]["sha256"]))
    if workshop.cache is not None:
        record = _record(done.methods[index], done.craft_digests[index], crafted)
        _keep(done, record, crafted, source, workshop)
    return done


def unsettled(recipe: Recipe) -> int | None:
    """Which of the recipe's methods imports whatever it is given; ``None``: none does.

    Raises:
        InputError: several do, although one thing is given.
    """
    # A method in a user's file may be any class with what a method needed before this was asked.
    found = [index for index, method in enumerate(recipe.methods) if getattr(method, "unsettled", False)]
    if len(found) > 1:
        raise InputError(f"{recipe.name} imports {len(found)} things: all but one need their digest in the recipe")
    return found[0] if found else None


def check_amount(recipe: Recipe, num_images: int) -> None:
    """Refuse too few training images for one of the methods.

    Raises:
        InputError: in the method's words.
    """
    for method in recipe.methods:
        if hasattr(method, "check_amount"):  # a user's file may hold a class from before this was asked
            method.check_amount(num_images)


def join(recipe: Recipe, given: Sequence[Perturbation], source: Source) -> Perturbation:
    """The recipe's perturbation from saved ones that between them hold the layers of its methods, each once.

    Raises:
        InputError: one was made for other images, by another method, or with other settings.
    """
    for perturbation in given:
        if perturbation.source_digest != source.train.digest:
            # A decoder is a possible reason for other pixels only where nobody knows which ones are right.
            why = other_decoder(perturbation.about.get("environment", {})) if source.spec.digests is None else ""
            raise InputError(
                f"this perturbation was made for training images with digest {perturbation.source_digest}, "
                f"{source.location} has {source.train.digest}{why}"
            )
        if perturbation.poisoned != _poisoned(recipe, source):
            raise InputError(f"this perturbation poisons other images than {recipe.name} does: another poison rate")
    found = [part for perturbation in given for part in _parts(perturbation)]
    if sorted(digest for digest, _ in found) != sorted(recipe.craft_digests):
        made_by = " and ".join(p.about.get("recipe", {}).get("name", "something else") for p in given)
        raise InputError(
            f"this perturbation was made by {made_by}: other methods or settings than {recipe.name}'s "
            f"({' + '.join(method.title for method in recipe.methods)})"
        )
    return _joined(recipe, [dict(found)[digest] for digest in recipe.craft_digests], source)


def labels_for(recipe: Recipe) -> str:
    """The first of the recipe's methods that needs labels, by its title; empty if none does."""
    return next((method.title for method in recipe.methods if method.needs_labels), "")


def shortfalls(recipe: Recipe, perturbation: Perturbation) -> list[str]:
    """What crafts of the recipe's methods fell short of so far that the dataset hardly protects."""
    found = []
    for method, (_, (_, record)) in zip(recipe.methods, _parts(perturbation), strict=False):
        # A method in a user's file may be any class with what a method needed before this was asked.
        told = getattr(method, "shortfall", None)
        if told is not None and (reason := told(record.get("notes", {}))):
            found.append(f"{method.title} reached next to nothing, so this dataset hardly protects: {reason}")
    return found


def clear_checkpoints(recipe: Recipe, workshop: Workshop) -> None:
    """Delete what an interrupted craft of the recipe left behind."""
    for index in range(len(recipe.methods)):
        if isinstance(checkpoint := _checkpoint(recipe, index, "", workshop), FileCheckpoint):
            checkpoint.clear()


Part = tuple[tuple[Layer, ...], dict[str, Any]]
"""The layers of one method, and its record for ``Perturbation.about``."""


def _made(recipe: Recipe, index: int, source: Source, workshop: Workshop, earlier: tuple[Layer, ...]) -> Part:
    method, digest = recipe.methods[index], recipe.craft_digests[index]
    crafted = method.generate(source.train, _context(recipe, index, source, workshop, earlier))
    record = _record(method, digest, crafted)
    if workshop.cache is not None and _is_kept(method):
        _keep(recipe, record, crafted, source, workshop)
    return crafted.layers, record


def _context(recipe: Recipe, index: int, source: Source, workshop: Workshop, earlier: tuple[Layer, ...]) -> Context:
    return Context(
        num_classes=len(source.class_names),
        seed=Seed(recipe.seed),
        executor=workshop.executor,
        device=workshop.device,
        weights=workshop.weights,
        release=workshop.release,
        reporter=workshop.reporter,
        checkpoint=_checkpoint(recipe, index, source.train.digest, workshop),
        layers=earlier,
    )


def _record(method: Method, digest: str, crafted: Crafted) -> dict[str, Any]:
    return {
        "identifier": method.identifier,
        "craft_digest": digest,
        "repeats": method.repeats,
        "num_layers": len(crafted.layers),
        "notes": crafted.notes,
    }


def _is_kept(method: Method) -> bool:
    """Whether its crafts are kept for later."""
    return method.repeats == Repeats.DEVICE or getattr(method, "imports", False)  # a user's file may hold any class


def _keep(recipe: Recipe, record: dict[str, Any], crafted: Crafted, source: Source, workshop: Workshop) -> None:
    assert workshop.cache is not None
    about = {"recipe": {"name": recipe.name}, "methods": [record]}
    kept = Perturbation(layers=crafted.layers, source_digest=source.train.digest, about=about)
    try:
        workshop.cache.put(record["craft_digest"], kept)
    except OSError as error:
        workshop.reporter.warn(f"the craft is not kept for later: {workshop.cache.folder}: {error.strerror}")


def _cached(recipe: Recipe, method: Method, digest: str, source: Source, workshop: Workshop) -> Part | None:
    if workshop.cache is None or not _is_kept(method):
        return None
    if (found := workshop.cache.get(digest, source.train.digest)) is None:
        return None
    ((_, part),) = _parts(found)
    device = part[1]["notes"].get("environments", [{}])[-1].get("device", "")
    where = f" on {device}" if device else ""
    workshop.reporter.say(
        f"{method.title}: crafted before{where}, taken from {workshop.cache.folder} (--no-cache crafts again)"
    )
    return part


def _seal(craft_digest: str, source_digest: str, digest: str, about: dict[str, Any]) -> str:
    """What binds a kept craft to its settings and images: its layers are known by their digest."""
    bound = [craft_digest, source_digest, __version__, digest, about]
    return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()


def _parts(perturbation: Perturbation) -> list[tuple[str, Part]]:
    """The layers of every method by craft digest; nothing for a perturbation that does not say which are whose."""
    parts, first = [], 0
    try:
        for record in perturbation.about["methods"]:
            layers = perturbation.layers[first : first + record["num_layers"]]
            parts.append((str(record["craft_digest"]), (layers, record)))
            first += record["num_layers"]
    except (KeyError, TypeError):
        return []
    return parts if first == len(perturbation.layers) else []


def _joined(recipe: Recipe, parts: Sequence[Part], source: Source) -> Perturbation:
    layers = tuple(layer for part, _ in parts for layer in part)
    if len(recipe.budget) != len(layers):
        raise InputError(f"recipe {recipe.name}: {len(recipe.budget)} bounds in budget for {len(layers)} layers")
    about = {
        "recipe": {"name": recipe.name, "version": recipe.version, "digest": recipe.digest},
        "methods": [record for _, record in parts],
        "budget": [str(bound) for bound in recipe.budget],
        "seed": recipe.seed,
        "poison_rate": recipe.poison_rate,
        "environment": build_environment(),
    }
    # As it will come back from the file, which knows no NaN.
    about = json.loads(json.dumps(about, sort_keys=True), parse_constant=lambda _: None)
    return Perturbation(
        layers=layers, source_digest=source.train.digest, poisoned=_poisoned(recipe, source), about=about
    )


def _poisoned(recipe: Recipe, source: Source) -> tuple[str, ...] | None:
    """Keys of the perturbed images, where not all are."""
    return poisoned_keys(source.train.keys, recipe.poison_rate, Seed(recipe.seed))


def _checkpoint(recipe: Recipe, index: int, source_digest: str, workshop: Workshop) -> Checkpoint:
    if workshop.checkpoints is None:
        return MemoryCheckpoint()
    identity = f"{recipe.craft_digests[index]} {source_digest}"
    return FileCheckpoint(checkpoint_path(workshop.checkpoints, index), identity, on_refused=workshop.reporter.warn)


def checkpoint_path(folder: Path, index: int) -> Path:
    """Where the state of a recipe's method, counted from 0, is kept."""
    return folder / f"craft-{index}.safetensors"


def rounds_kept(folder: Path, index: int, craft_digest: str) -> int | None:
    """How many rounds an interrupted craft has behind it; ``None``: none was begun, or of other settings.

    Only what stands beside the arrays is read: whether they are intact shows when the craft goes on.
    """
    facts = facts_of(checkpoint_path(folder, index), craft_digest)
    trace = None if facts is None else facts.get("trace")
    return len(trace) if isinstance(trace, list) else None
