"""Which images a build is made of: it may go on with them from any place and in any form, and with no others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ule_datasets.base.errors import InputError
from ule_datasets.base.options import BuildOptions
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.executor import Executor
from ule_datasets.dataset.local import LocalNote, as_remembered
from ule_datasets.dataset.manifest import Manifest, other_decoder
from ule_datasets.definition import Recipe
from ule_datasets.packaging.folder import BuildFolder
from ule_datasets.places.urls import shown
from ule_datasets.sources.forms import Form
from ule_datasets.sources.identity import Identity, listing
from ule_datasets.sources.reading import find_form, read_identity

NOTE = "source"
ADVICE = "choose another --out, or replace it with --overwrite"


@dataclass(frozen=True, kw_only=True, slots=True)
class Noted:
    """What an interrupted build has noted of its source."""

    place: str
    listing: str
    images: Identity | None = None
    """``None``: they have not all been read."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Origin:
    """Where the images of a build are, and what is there, before any of them is read."""

    recipe: Recipe
    options: BuildOptions
    where: str
    form: Form
    listing: str
    """The same as long as nothing has changed there; empty where that cannot be told."""

    @classmethod
    def of(cls, recipe: Recipe, options: BuildOptions) -> Origin | None:
        """``None`` where no other images can get in, as the recipe has their digests, or where nobody names any."""
        where = options.source or recipe.source.default_location
        if recipe.source.digests is not None or where is None:
            return None
        form = find_form(where, recipe.source)
        return cls(recipe=recipe, options=options, where=where, form=form, listing=listing(form))

    @property
    def place(self) -> str:
        """Where they are, for messages and notes."""
        return as_remembered(self.where) or shown(self.where)

    def is_known(self, manifest: Manifest, note: Path) -> bool:
        """Whether this machine has made or compared a finished dataset with just what is there."""
        known = LocalNote.read(note, manifest)
        return known is not None and known.listing == self.listing != ""

    def check_finished(
        self, manifest: Manifest, note: Path, place: str, executor: Executor, reporter: Reporter
    ) -> None:
        """Compare the images with those of a finished dataset, and remember that they are the same.

        Raises:
            InputError: it was made from others.
        """
        made_from = Identity(
            digests=manifest.source_digests,
            class_names=manifest.class_names,
            counts={name: split.num_examples for name, split in manifest.splits.items()},
        )
        reporter.say(f"comparing the images of {place} with those of {shown(self.where)}")
        found = self._read(executor, reporter, skip_unusable="left_out" in manifest.source_about)
        if found != made_from:
            known = LocalNote.read(note, manifest)
            others = _others("" if known is None else known.source, made_from, self.place, found)
            raise InputError(
                f"{place} holds {manifest.name} {manifest.version} made from {others}"
                f"{other_decoder(manifest.environment)}; {ADVICE}"
            )
        self.remember(note, manifest)

    def remember(self, note: Path, manifest: Manifest) -> None:
        """Leave a note for this machine that a finished dataset was made from what is there."""
        LocalNote(source=as_remembered(self.where) or "", listing=self.listing).write(note, manifest)

    def check_begun(self, folder: BuildFolder, executor: Executor, reporter: Reporter) -> None:
        """Go on with an interrupted build of the same images; discard one of others, if it may be overwritten.

        Raises:
            InputError: it is one of others, and may not.
        """
        noted = _noted(folder)
        images = None if noted is None else noted.images
        if noted is not None and not noted.listing == self.listing != "":
            found = None if images is None else self._read(executor, reporter)
            if found != images or (images is None and noted.place != self.place):
                if not self.options.overwrite:
                    others = _others(noted.place, images, self.place, found)
                    raise InputError(
                        f"{folder.root} holds an unfinished build from {others}; finish it with the same images, or "
                        f"{ADVICE}"
                    )
                folder.start_over()
                images = None
        self.note(folder, images)

    def note(self, folder: BuildFolder, images: Identity | None) -> None:
        """Note in an unfinished build where its images are and, once they have all been read, which they are."""
        folder.write_note(NOTE, **dataclasses.asdict(Noted(place=self.place, listing=self.listing, images=images)))

    def refused(self, folder: BuildFolder) -> None:
        """Let others be tried after a source that could not be used, as long as nothing was made from it."""
        noted = _noted(folder)
        if noted is not None and noted.images is None:
            folder.drop_note(NOTE)

    def _read(self, executor: Executor, reporter: Reporter, *, skip_unusable: bool = False) -> Identity:
        return read_identity(
            self.recipe.source,
            self.where,
            self.form,
            executor=executor,
            reporter=reporter,
            skip_unusable=skip_unusable or self.options.skip_unusable,
            limit_per_class=self.recipe.limit_per_class,
        )


def _others(place: str, images: Identity | None, now: str, found: Identity | None) -> str:
    """Which images a build is of, and which others are given; a place that is unknown is empty, and is not named."""
    if place == now:
        return f"{now} as it was ({images}), and that has changed ({found})"
    before = f"{place} ({images})" if place and images is not None else place or str(images)
    return f"{before}, not from {now if found is None else f'{now} ({found})'}"


def _noted(folder: BuildFolder) -> Noted | None:
    return folder.read_note(NOTE, Noted)  # one of another version says nothing
