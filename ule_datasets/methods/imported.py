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
from ule_datasets.data.split import Split
from ule_datasets.imports.matching import AT_ONCE, match
from ule_datasets.imports.reading import read_release, release_digest
from ule_datasets.imports.release import Release
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
        release = read_release(path, context.executor, context.reporter)
        layer, found = from_images(release, train, path)
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
    fits = levels.min(initial=0) >= -128 and levels.max(initial=0) <= 127
    layer = Additive(
        levels=levels[order].astype(np.int8 if fits else np.int16),
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
