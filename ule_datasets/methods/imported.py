"""A perturbation that others have released, as a method: known by its digest, and taken to bytes exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.shown import counted, few
from ule_datasets.data.bounds import Budget, LInf, Unbounded
from ule_datasets.data.perturbation import Additive, Support
from ule_datasets.data.quantization import quantize
from ule_datasets.data.split import Split
from ule_datasets.imports.matching import AT_ONCE, match
from ule_datasets.imports.ordering import rows_in_order
from ule_datasets.imports.reading import NOTHING, read_release, release_digest
from ule_datasets.imports.release import Content, Release, Stated
from ule_datasets.methods.method import Context, Crafted, Method, Repeats

SHA256 = 64
WHOLE = 1e-3
"""By so much real numbers may miss whole grey levels that they stand for."""


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
        release = read_release(path, context.executor, context.reporter, self.stated or NOTHING)
        if release.content is Content.IMAGES:
            layer, found = from_images(release, train, path)
        else:
            layer, found = from_noise(release, train, context.num_classes, self.stated or NOTHING, path)
        bound = int(np.abs(layer.levels.astype(np.int16)).max(initial=0))
        context.reporter.say(f"import: {release.convention}; l_inf {bound}/255")
        notes = {"file_name": path.name, "sha256": digest, "convention": release.convention, "bound": bound, **found}
        return Crafted(layers=(layer,), notes={self.identifier: {**notes, "remarks": list(release.remarks)}})


def from_images(release: Release, train: Split, path: Path) -> tuple[Additive, dict[str, Any]]:
    """What whole images differ by from their originals, and how these were found.

    Raises:
        InputError: images have another size than the clean ones, or no original among them.
    """
    if release.values.shape[1:] != train.images.shape[1:]:
        ours, theirs = (" x ".join(map(str, each.shape[1:])) for each in (train.images, release.values))
        raise InputError(f"{path} has images of {theirs} values, the clean ones have {ours}")
    matches = match(release.values, train.images)
    if len(lost := matches.unmatched):
        raise InputError(
            f"{path}: {len(lost):,} of {len(release):,} images have no original of their own among the {len(train):,} "
            f"clean ones: {few([release.names[number] for number in lost[:4]])}"
        )
    levels = np.empty(release.values.shape, np.int16)
    for start in range(0, len(release), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        np.subtract(release.values[part], train.images[matches.rows[part]], out=levels[part], dtype=np.int16)
    order = np.argsort(matches.rows)
    layer = Additive(
        levels=smallest(levels[order]),
        support=Support.SAMPLE,
        keys=tuple(train.keys[row] for row in matches.rows[order].tolist()),
    )
    untouched = len(train) - len(release)
    found = {
        "matched": f"{counted(len(release), 'image')}, each to its nearest clean one in all pixels",
        "not_sure": int(np.count_nonzero(~matches.sure)),
        "clean_without_release": untouched,
    }
    return layer, found


def from_noise(
    release: Release, train: Split, num_classes: int, stated: Stated, path: Path
) -> tuple[Additive, dict[str, Any]]:
    """Noise as whole grey levels: one for each image, class, group of images, or for all; and how that was found.

    Raises:
        InputError: it has values that are no numbers or beyond all images, another size than the clean images, an odd
            number of entries, or an order that nothing speaks for.
    """
    noise = np.asarray(release.values)
    if noise.shape[1:] != train.images.shape[1:]:
        ours, theirs = (" x ".join(map(str, shape[1:])) for shape in (train.images.shape, noise.shape))
        raise InputError(f"{path} has noise of {theirs} values, the clean images have {ours}")
    levels, rounding = whole_levels(release, stated, path)
    count = len(levels)
    found: dict[str, Any] = {"rounding": rounding}
    if release.members is not None:
        return _by_groups(levels, release.members, train, stated, path), {**found, "support": Support.CLUSTER}
    if count == len(train):
        order, rows, why = rows_in_order(levels, train, stated.order)
        canonical = np.argsort(rows)
        layer = Additive(levels=smallest(levels[canonical]), support=Support.SAMPLE, keys=train.keys)
        return layer, {**found, "support": Support.SAMPLE, "order": order, "plausibility": str(why)}
    support = {num_classes: Support.CLASS, 1: Support.UNIVERSAL}.get(count)
    if support is None:
        raise InputError(
            f"{path} holds noise for {count:,}: the clean images are {len(train):,} of {counted(num_classes, 'class')}"
        )
    return Additive(levels=smallest(levels), support=support), {**found, "support": support}


def whole_levels(release: Release, stated: Stated, path: Path) -> tuple[np.ndarray, str]:
    """The noise of a release as whole grey levels, int16, and in words what was done to it.

    Raises:
        InputError: there are values that are no numbers, or larger than any change of a byte.
    """
    noise = np.asarray(release.values)
    if noise.dtype.kind == "f" and not np.isfinite(noise).all():
        entries = np.flatnonzero(~np.isfinite(noise).all(axis=(1, 2, 3)))
        which = few([release.names[entry] for entry in entries[:4]])
        raise InputError(f"{path}: {counted(len(entries), 'entry', 'entries')} with NaN or infinities: {which}")
    if np.abs(noise).max(initial=0) >= 256:
        raise InputError(f"{path}: noise of up to {np.abs(noise).max():.4g} grey levels changes no byte by that much")
    if noise.dtype.kind != "f":
        return noise.astype(np.int16), "whole levels"
    nearest = np.rint(noise)
    whole = np.abs(noise - nearest) <= WHOLE
    if whole.all():
        return nearest.astype(np.int16), "whole levels"
    return quantize(np.where(whole, nearest, noise), stated.rule).astype(np.int16), f"real numbers, {stated.rule}"


def smallest(levels: np.ndarray) -> np.ndarray:
    """Int16 levels as int8, where they fit."""
    fits = levels.min(initial=0) >= -128 and levels.max(initial=0) <= 127
    return levels.astype(np.int8) if fits else levels


def _by_groups(levels: np.ndarray, members: np.ndarray, train: Split, stated: Stated, path: Path) -> Additive:
    if len(members) != len(train) or not 0 <= members.min() <= members.max() < len(levels):
        raise InputError(
            f"{path}: {len(members):,} images in groups {members.min()} to {members.max()}; there are {len(train):,} "
            f"clean images, and noise for {len(levels):,} groups"
        )
    _, rows, _ = rows_in_order(levels[members], train, stated.order)
    keys = tuple(train.keys[row] for row in rows.tolist())
    return Additive(levels=smallest(levels), support=Support.CLUSTER, keys=keys, members=members)
