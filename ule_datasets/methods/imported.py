"""A perturbation that others have released, as a method: known by its digest, and taken to bytes exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.shown import counted, few
from ule_datasets.data.bounds import Budget, LInf, Unbounded
from ule_datasets.data.perturbation import Additive, Support
from ule_datasets.data.split import Split
from ule_datasets.imports.evidence import WHOLE, gather
from ule_datasets.imports.lint import Evidence, Severity, lint
from ule_datasets.imports.ordering import rows_in_order
from ule_datasets.imports.reading import NOTHING, read_release, release_digest
from ule_datasets.imports.release import Content, Stated
from ule_datasets.methods.method import Context, Crafted, Method, Repeats

SHA256 = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported(Method):
    """What a file or folder of somebody else does to the training images.

    As it stands in the catalogue it is open: ``--import`` names the file, and what is found there is written into the
    recipe, so that another file makes another dataset. A recipe that has the digest takes no other file.
    """

    identifier: ClassVar[str] = "imported"
    title: ClassVar[str] = "Imported perturbation"
    citation: ClassVar[str] = ""
    repeats: ClassVar[Repeats] = Repeats.EXACT
    needs_labels: ClassVar[bool] = False
    imports: ClassVar[bool] = True

    sha256: str = ""
    """Of the file; of a folder, see ``release_digest``. Empty: of whatever ``--import`` names."""
    bound: int | None = None
    """The largest change of a value, in grey levels; ``None``: not known before it is read."""
    stated: Stated | None = None
    """What the release does not say itself."""
    licence: str = ""
    """Under what terms its authors allow to pass it on; empty: nothing is known, and it is not published."""

    def __post_init__(self) -> None:
        if self.sha256 and (len(self.sha256) != SHA256 or not set(self.sha256) <= set("0123456789abcdef")):
            raise InputError(f"Imported: sha256 is {self.sha256!r}, expected {SHA256} hex digits")
        if self.bound is not None and not 0 <= self.bound <= 255:
            raise InputError(f"Imported: bound is {self.bound}, must be 0 to 255")

    @property
    def draws(self) -> bool:
        """Nothing: it is there."""
        return False

    @property
    def bounds(self) -> Budget:
        """What was found, once it was."""
        return (Unbounded() if self.bound is None else LInf(levels=self.bound),)

    @property
    def withheld(self) -> str:
        """It is somebody else's work."""
        return "" if self.licence else "nothing says that what others released may be passed on (Imported(licence=...))"

    @property
    def unsettled(self) -> bool:
        """Whether any file will do."""
        return not self.sha256

    def settled(self, notes: Mapping[str, Any]) -> Self:
        """The same for what was imported alone, by the notes of its craft."""
        found = notes[self.identifier]
        return replace(self, sha256=found["sha256"], bound=found["bound"])

    def generate(self, train: Split, context: Context) -> Crafted:
        """Read the release, give every image to its clean original, and take what was changed.

        Raises:
            InputError: there is no release, it is another one, it cannot be read safely, or images have no original.
        """
        path = context.release
        if path is None:
            raise InputError(f"{self.title}: give the released file or folder with --import")
        digest = release_digest(path)
        if self.sha256 not in ("", digest):
            raise InputError(f"{path} is not what this recipe imports: its sha256 is {digest}, not {self.sha256}")
        stated = self.stated or NOTHING
        release = read_release(path, context.executor, context.reporter, stated)
        evidence = gather(release, path.name, stated, train)
        make = from_images if release.content is Content.IMAGES else from_noise
        layer, found = make(evidence, train, context.num_classes, stated)
        bound = int(np.abs(layer.levels.astype(np.int16)).max(initial=0))
        context.reporter.say(f"import: {release.convention}; l_inf {bound}/255")
        findings = lint(evidence)
        for finding in findings:
            if finding.severity is not Severity.NOTE:
                context.reporter.warn(f"{path.name}: {finding.text}")
        notes = {
            "file_name": path.name,
            "sha256": digest,
            "convention": release.convention,
            "bound": bound,
            **found,
            "remarks": list(release.remarks),
            "lint": [{"check": each.check, "severity": each.severity, "text": each.text} for each in findings],
        }
        return Crafted(layers=(layer,), notes={self.identifier: notes})


def from_images(evidence: Evidence, train: Split, num_classes: int, stated: Stated) -> tuple[Additive, dict[str, Any]]:
    """What whole images differ by from their originals, and how these were found.

    Raises:
        InputError: images have no original of their own among the clean ones.
    """
    del num_classes, stated
    release, matches, changes = evidence.release, evidence.matches, evidence.changes
    assert matches is not None and changes is not None, "clean images were given"  # noqa: PT018
    if len(lost := matches.unmatched):
        raise InputError(
            f"{evidence.called}: {len(lost):,} of {len(release):,} images have no original of their own among the "
            f"{len(train):,} clean ones: {few([release.names[number] for number in lost[:4]])}"
        )
    order = np.argsort(matches.rows)
    layer = Additive(
        levels=smallest(changes[order]),
        support=Support.SAMPLE,
        keys=tuple(train.keys[row] for row in matches.rows[order].tolist()),
    )
    found = {
        "matched": f"{counted(len(release), 'image')}, each to its nearest clean one in all pixels",
        "not_sure": int(np.count_nonzero(~matches.sure)),
        "clean_without_release": len(train) - len(release),
    }
    return layer, found


def from_noise(evidence: Evidence, train: Split, num_classes: int, stated: Stated) -> tuple[Additive, dict[str, Any]]:
    """Noise as whole grey levels: one for each image, class, group of images, or for all; and how that was found.

    Raises:
        InputError: it has values that are no numbers or beyond all images, an odd number of entries, or an order that
            nothing speaks for.
    """
    called, release, levels = evidence.called, evidence.release, evidence.changes
    assert levels is not None
    if levels.dtype.kind == "f" and len(entries := np.flatnonzero(~np.isfinite(levels).all(axis=(1, 2, 3)))):
        raise InputError(f"{called}: NaN or infinities in {evidence.named(entries)}")
    if (most := np.abs(levels).max(initial=0)) >= 256:
        raise InputError(f"{called}: noise of up to {most:.4g} grey levels changes no byte by that much")
    whole = release.values.dtype.kind != "f" or np.abs(levels - release.values).max(initial=0) <= WHOLE
    found: dict[str, Any] = {"rounding": "whole levels" if whole else f"real numbers, {stated.rule}"}
    count = len(levels)
    if release.members is not None:
        return _by_groups(levels, release.members, train, stated, called), {**found, "support": Support.CLUSTER}
    if count == len(train):
        order, rows, why = rows_in_order(levels, train, stated.order)
        layer = Additive(levels=smallest(levels[np.argsort(rows)]), support=Support.SAMPLE, keys=train.keys)
        return layer, {**found, "support": Support.SAMPLE, "order": order, "plausibility": str(why)}
    support = {num_classes: Support.CLASS, 1: Support.UNIVERSAL}.get(count)
    if support is None:
        there = f"{len(train):,} of {counted(num_classes, 'class')}"
        raise InputError(f"{called} holds noise for {count:,}: the clean images are {there}")
    return Additive(levels=smallest(levels), support=support), {**found, "support": support}


def smallest(levels: np.ndarray) -> np.ndarray:
    """Int16 levels as int8, where they fit."""
    fits = levels.min(initial=0) >= -128 and levels.max(initial=0) <= 127
    return levels.astype(np.int8) if fits else levels


def _by_groups(levels: np.ndarray, members: np.ndarray, train: Split, stated: Stated, called: str) -> Additive:
    if len(members) != len(train) or not 0 <= members.min() <= members.max() < len(levels):
        raise InputError(
            f"{called}: {len(members):,} images in groups {members.min()} to {members.max()}; there are {len(train):,} "
            f"clean images, and noise for {len(levels):,} groups"
        )
    _, rows, _ = rows_in_order(levels[members], train, stated.order)
    keys = tuple(train.keys[row] for row in rows.tolist())
    return Additive(levels=smallest(levels), support=Support.CLUSTER, keys=keys, members=members)
