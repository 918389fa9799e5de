"""Whether training images are what the perturbation makes of clean ones: of those of the source, or of any."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ule_datasets.compute.executor import Executor
from ule_datasets.data.bounds import Budget
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.data.split import Split, positions_of
from ule_datasets.data.spool import Images, view
from ule_datasets.dataset.integrity.check import Check, about, at, differing
from ule_datasets.dataset.integrity.content import BuiltSplit
from ule_datasets.dataset.integrity.description import Folder
from ule_datasets.dataset.manifest import other_decoder
from ule_datasets.sources.reading import Source

COMPARED_BYTES = 32 * 2**20
"""Of raw pixels that a worker compares at a time."""
Compared = tuple[Split, Images, Perturbation, Budget]
"""For one worker: clean samples, what became of them, and what should have happened."""
Imagined = tuple[Split, Perturbation]
"""For one worker: samples, and what is said to have happened to them."""
LARGEST = 255
_FITS = "each image is what it makes of some clean image; of which one, only the clean source can tell (--source)"


def check_without_source(folder: Folder, splits: dict[str, BuiltSplit], executor: Executor) -> list[Check]:
    """Whether there is a clean image for each training image that the perturbation makes it of.

    That is all that can be known without the source; for pixels that are overwritten it is whether they are.
    """
    if "train" not in splits:
        return []
    train = splits["train"]
    parts = _parts(train)
    perturbations = folder.perturbation.parts(train.keys[part] for part in parts)
    pieces = (train.rows(part.start, part.stop) for part in parts)
    found = executor.map(_impossible, zip(pieces, perturbations, strict=True))
    impossible = about((key for keys in found for key in keys), "is nothing that the perturbation makes of any image")
    return [Check.of("train: perturbation", impossible, _FITS)]


def _impossible(task: Imagined) -> list[str]:
    """Keys of images that lie outside of what the perturbation makes of a black and of a white image.

    Layers never turn a lighter value into a darker one, nor leave out a level between two that they reach: what they
    make of all images is what lies between these two.
    """
    split, perturbation = task
    images = np.asarray(split.images)
    low, high = (perturbation.apply(np.full_like(images, level), split.labels, split.keys) for level in (0, LARGEST))
    outside: np.ndarray = (images < low) | (images > high)
    return at(split.keys, np.asarray(outside.any(axis=(1, 2, 3))))


def check_against_source(
    folder: Folder, splits: dict[str, BuiltSplit], source: Source, executor: Executor
) -> list[Check]:
    """Labels and class names untouched, only what the perturbation says changed, budget kept, test split clean."""
    names = differing(folder.manifest.class_names, source.class_names, "class names are")
    absent = [f"the dataset has no {name} split" for name in source.splits if name not in folder.manifest.splits]
    checks = [Check.of("classes and splits", names + absent, "those of the source")]
    reason = other_decoder(folder.manifest.environment) if source.spec.digests is None else ""
    for name, split in splits.items():
        clean = source.splits.get(name)
        if clean is None:
            checks.append(Check(f"{name}: source", False, f"the source has no {name} split"))
            continue
        if name == "train" and folder.recipe.limit_per_class is not None:
            clean = clean.first_per_class(folder.recipe.limit_per_class)
        rows = positions_of(split.keys, clean.keys)
        unknown = at(split.keys, rows < 0)
        missing = sorted(set(clean.keys) - set(split.keys))
        if unknown or missing:
            problems = about(unknown, f"is not in the source{reason}") + about(missing, "of the source is missing")
            checks.append(Check.of(f"{name}: samples of the source", problems, ""))
            continue
        relabelled = about(at(split.keys, clean.labels[rows] != split.labels), "has another label than in the source")
        checks.append(Check.of(f"{name}: labels", relabelled, "as in the source"))
        found = list(executor.map(_compare, _comparisons(folder, split, clean, rows)))
        differ, exceeding = ([key for part in found for key in part[what]] for what in range(2))
        if name != "train":
            checks.append(Check.of(f"{name}: images", about(differ, f"differs from the source{reason}"), "untouched"))
            continue
        bounds = ", then ".join(map(str, folder.recipe.budget))
        checks += [
            Check.of(
                "train: images",
                about(differ, f"is not its clean original plus the perturbation{reason}"),
                "each is its clean original plus exactly the perturbation",
            ),
            Check.of("train: budget", about(exceeding, f"exceeds {bounds}"), f"kept by every image: {bounds}"),
        ]
    return checks


def _comparisons(folder: Folder, split: BuiltSplit, clean: Split, rows: np.ndarray) -> Iterator[Compared]:
    """The split in pieces beside the rows of the source that they come from."""
    parts = _parts(split)
    of_parts = folder.perturbation.parts(split.keys[part] for part in parts)
    for part, perturbation in zip(parts, of_parts, strict=True):
        originals = Split(
            name=split.name,
            images=view(clean.images, rows[part]),
            labels=clean.labels[rows[part]],
            keys=split.keys[part],
            digest=clean.digest,
        )
        yield originals, view(split.images, part), perturbation, folder.recipe.budget


def _parts(split: BuiltSplit) -> list[slice]:
    at_once = max(1, COMPARED_BYTES * len(split.keys) // max(1, split.images.nbytes))
    return [slice(start, start + at_once) for start in range(0, len(split.keys), at_once)]


def _compare(task: Compared) -> tuple[list[str], list[str]]:
    """Keys of images that are not what the perturbation alone makes of them, and of those beyond the budget."""
    originals, found, perturbation, budget = task
    clean, images, labels, keys = originals.pixels(), np.asarray(found), originals.labels, originals.keys
    if originals.name != "train":
        return at(keys, (clean != images).any(axis=(1, 2, 3))), []
    return (
        at(keys, (perturbation.apply(clean, labels, keys) != images).any(axis=(1, 2, 3))),
        [keys[index] for index in perturbation.exceeding(clean, images, labels, keys, budget)],
    )
