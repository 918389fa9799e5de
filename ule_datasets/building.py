"""From a recipe to a dataset folder: read the source, craft, assemble, describe, publish."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ule_datasets.base import records
from ule_datasets.base.errors import InputError
from ule_datasets.base.files import PARTIAL, cache_folder, refuse_unwritable, replacing, write_atomically
from ule_datasets.base.names import RelativePath
from ule_datasets.base.options import FORMATS
from ule_datasets.base.options import BuildOptions as BuildOptions
from ule_datasets.base.progress import Reporter
from ule_datasets.base.shown import counted, few, terminal
from ule_datasets.compute.executor import Executor
from ule_datasets.compute.opening import EXECUTORS, open_executor
from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION_FILE
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.dataset.delivery import Begun, Delivery
from ule_datasets.dataset.integrity.files import unlisted
from ule_datasets.dataset.local import LocalNote, as_remembered, note_of
from ule_datasets.dataset.manifest import FILE_NAME, LEFT_OUT, FileRecord, Manifest
from ule_datasets.dataset.shards import file_record
from ule_datasets.definition import Recipe
from ule_datasets.packaging.assembly import Assembly
from ule_datasets.packaging.card import write_card
from ule_datasets.packaging.crafting import (
    CraftCache,
    Workshop,
    clear_checkpoints,
    craft,
    join,
    labels_for,
    settled,
    shortfalls,
    unsettled,
)
from ule_datasets.packaging.croissant import croissant_json
from ule_datasets.packaging.figures import draw_figures
from ule_datasets.packaging.figures.contact import PROTECTED, RESTORED
from ule_datasets.packaging.folder import BuildFolder, FileNote, check_ours, open_folder, tidy
from ule_datasets.packaging.origin import Origin
from ule_datasets.packaging.planning import BuildPlan
from ule_datasets.places import hub
from ule_datasets.places.urls import RemoteFolder, is_remote, shown
from ule_datasets.sources.known import known_location
from ule_datasets.sources.reading import Source, find_form, look_at, read_source

WORKER_MODULES: tuple[str, ...] = (
    "ule_datasets.dataset.shards",
    "ule_datasets.sources.reading",
    "PIL.PngImagePlugin",
    "pyarrow.parquet",
)
"""Imported once, before the workers start."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A complete dataset folder."""

    folder: Path | None
    """``None``: it was delivered elsewhere."""
    place: str
    """The folder or the URL."""
    manifest: Manifest
    already_complete: bool
    """Nothing was done: the folder held exactly this dataset."""
    shortfalls: tuple[str, ...] = ()
    """Why the dataset that was built now hardly protects; empty: no reason is known."""


def build(recipe: Recipe, options: BuildOptions, reporter: Reporter | None = None) -> BuildResult:
    """Build a dataset, continue an interrupted build of it, or find that it is complete.

    With ``workers > 1`` call this under ``if __name__ == "__main__"``, as for any process pool.

    Raises:
        InputError: an unusable source, recipe, perturbation or output folder; the folder is left as it was.
    """
    reporter = reporter or Reporter()
    _check(options)
    if unsettled(recipe) is not None:
        raise InputError(f"{recipe.name} is for what others have released: name the file or folder with --import")
    given = [Perturbation.load(path) for path in options.perturbations]
    identity = _identity(recipe, options, given)
    check_ours(options.out)
    delivery = None
    if options.deliver_to is None:
        finished = None if options.overwrite else _finished(options.out, identity)
    else:
        delivery = Delivery(RemoteFolder(options.deliver_to), BuildFolder(options.out).files)
        finished = delivery.begin(records.convert(Begun, identity, "identity"), overwrite=options.overwrite)
        if finished is not None:
            _check_same(finished, identity, str(delivery.to))
    if finished is not None:
        _check_images(recipe, options, finished, reporter)
        return _finished_before(options, finished, identity)
    _check_writable(options)
    reporter.say(_announcement(recipe, options))
    # The executor within: its workers are gone before the folder is put in order after an error.
    with (
        open_folder(options.out, identity, overwrite=options.overwrite, scratch=options.scratch) as folder,
        open_executor(options.executor, options.workers, preload=WORKER_MODULES) as executor,
    ):
        executor.start()
        origin = Origin.of(recipe, options)
        if origin is not None:
            origin.check_begun(folder, executor, reporter)
        fell_short: list[str] = []
        if options.overwrite or not folder.is_complete(executor, sent=delivery is not None):
            folder.reopen()
            fell_short = _Making(recipe, options, origin, given, folder, delivery, executor, reporter).run()
            folder.note_complete()
        manifest = folder.manifest()
        _remember(recipe, options, origin, manifest)  # before the dataset is there: nobody reads the images once more
        if delivery is not None:
            delivery.complete()
            folder.clear_spool()
            folder.discard()
            shutil.rmtree(folder.root)
        else:
            folder.publish()
            if strays := unlisted(options.out, manifest):
                also = f"{options.out} also holds {few(strays)}"
                reporter.warn(f"{also}, not of this dataset: ule-verify will not pass with it")
    for reason in fell_short:
        reporter.warn(reason)  # the last that is said
    return dataclasses.replace(_result(options, manifest, already_complete=False), shortfalls=tuple(fell_short))


def _check_images(recipe: Recipe, options: BuildOptions, finished: Manifest, reporter: Reporter) -> None:
    """Refuse a finished dataset of other images than those that the user names."""
    if options.source is not None and recipe.source.digests is not None:
        if not (options.source.startswith(hub.PREFIX) or is_remote(options.source)):  # else looking takes long
            find_form(options.source, recipe.source)
        reporter.say(f"{_place(options)} is finished: the images of --source {shown(options.source)} are not read")
    note = note_of(options.deliver_to or options.out)
    origin = None if options.source is None else Origin.of(recipe, options)
    if origin is None or origin.is_known(finished, note):
        return
    with open_executor(options.executor, options.workers, preload=WORKER_MODULES) as executor:
        executor.start()
        origin.check_finished(finished, note, _place(options), executor, reporter)


def _remember(recipe: Recipe, options: BuildOptions, origin: Origin | None, manifest: Manifest) -> None:
    """Note for this machine where the images were, unless everybody knows it."""
    note, where = note_of(options.deliver_to or options.out), options.source or recipe.source.default_location
    if origin is not None:
        origin.remember(note, manifest)
    elif where != known_location(recipe.source.name) and (source := as_remembered(where or "")):
        LocalNote(source=source).write(note, manifest)


def settle(recipe: Recipe, options: BuildOptions, reporter: Reporter | None = None) -> Recipe:
    """The recipe for what ``options.release`` holds: read, matched to the clean images, and kept for ``build``.

    Raises:
        InputError: the recipe imports nothing, the images are unusable, or the release is, or belongs to others.
    """
    reporter = reporter or Reporter()
    _check(options)
    if not any(getattr(method, "imports", False) for method in recipe.methods):
        raise InputError(f"{recipe.name} imports nothing; --import is for imported-cifar10, imported and the like")
    if (index := unsettled(recipe)) is None:
        return recipe
    with (
        tempfile.TemporaryDirectory(prefix="ule-import-", dir=options.scratch) as spool,
        open_executor(options.executor, options.workers, preload=WORKER_MODULES) as executor,
        reporter.phase("import"),
    ):
        executor.start()
        source = read_source(
            recipe.source,
            options.source,
            executor=executor,
            reporter=reporter,
            labels_for=labels_for(recipe),
            spool=Path(spool),
            skip_unusable=options.skip_unusable,
        )
        cache = CraftCache(cache_folder()) if options.cache else None
        workshop = Workshop(reporter=reporter, executor=executor, release=options.release, cache=cache)
        return settled(recipe, index, limited(recipe, source), workshop)


def limited(recipe: Recipe, source: Source) -> Source:
    """The source with those training images that the recipe takes."""
    if recipe.limit_per_class is None:
        return source
    train = source.train.first_per_class(recipe.limit_per_class)
    return dataclasses.replace(source, splits={**source.splits, "train": train})


def plan_build(recipe: Recipe, options: BuildOptions, reporter: Reporter) -> BuildPlan:
    """What ``build`` would do, and what its images look like; nothing is written, crafted or decoded.

    Why a build would refuse the images, if that can be told, is ``look.refusal``.

    Raises:
        InputError: nothing usable there, other images than the recipe needs, a folder that a build would refuse, or
            a device or weights that are not here.
    """
    _check(options)
    check_ours(options.out)
    here = options.deliver_to is None and not options.overwrite
    given = [Perturbation.load(path) for path in options.perturbations]
    finished = here and _finished(options.out, _identity(recipe, options, given)) is not None
    if not finished:
        _check_writable(options)
    with open_executor(options.executor, options.workers, preload=WORKER_MODULES) as executor:
        executor.start()
        look = look_at(
            recipe.source,
            options.source,
            executor=executor,
            reporter=reporter,
            labels_for=labels_for(recipe),
            skip_unusable=options.skip_unusable,
        )
    return BuildPlan.of(recipe, options, look, _place(options), finished=finished)


def _identity(recipe: Recipe, options: BuildOptions, given: Sequence[Perturbation]) -> dict[str, Any]:
    """What a folder belongs to."""
    return {
        "name": recipe.name,
        "recipe_digest": recipe.digest,
        "formats": [name for name in FORMATS if name in options.formats],
        "given": sorted(perturbation.digest for perturbation in given),
    }


def _check(options: BuildOptions) -> None:
    """Refuse what this machine or this version does not have, before anything is done."""
    unknown = sorted(set(options.formats) - set(FORMATS))
    if unknown or not options.formats:
        raise InputError(f"--format {', '.join(unknown)}: choose from {', '.join(FORMATS)}")
    if options.workers < 1:
        raise InputError(f"--workers {options.workers}: must be at least 1")
    if options.executor not in EXECUTORS:
        raise InputError(f"--executor {options.executor}: choose from {', '.join(EXECUTORS)}")
    if options.weights is not None and not options.weights.exists():
        raise InputError(f"--weights {options.weights}: no such file or folder")
    if options.release is not None and not options.release.exists():
        raise InputError(f"--import {options.release}: no such file or folder")
    if options.device not in ("auto", "cpu"):
        from ule_datasets.compute.devices import pick_device

        pick_device(options.device)


def _check_writable(options: BuildOptions) -> None:
    """Refuse a folder of the user's that nothing can be written to, before the images are read."""
    if options.deliver_to is None:
        refuse_unwritable(options.out, "--out")


def _finished_before(options: BuildOptions, manifest: Manifest, identity: dict[str, Any]) -> BuildResult:
    """Nothing is left to do but to tidy up."""
    tidy(options.out, identity, options.scratch)
    if options.deliver_to is not None and options.out.exists():
        shutil.rmtree(options.out)
    return _result(options, manifest, already_complete=True)


def _result(options: BuildOptions, manifest: Manifest, *, already_complete: bool) -> BuildResult:
    folder = options.out if options.deliver_to is None else None
    return BuildResult(folder, _place(options), manifest, already_complete)


def _place(options: BuildOptions) -> str:
    return str(options.out) if options.deliver_to is None else shown(options.deliver_to)


def _announcement(recipe: Recipe, options: BuildOptions) -> str:
    reduced = f" [{recipe.reduced}]" if recipe.reduced else ""
    where = options.source or recipe.source.default_location or "(no source given)"
    processes = counted(options.workers, "process")
    return f"building {recipe.name} {recipe.version}{reduced} from {shown(where)} into {_place(options)}, {processes}"


def _finished(out: Path, identity: dict[str, Any]) -> Manifest | None:
    """The manifest of a folder that already holds what is asked for; ``None`` if it is not finished."""
    if not (out / FILE_NAME).exists():
        return None
    manifest = Manifest.read(out)
    _check_same(manifest, identity, str(out))
    if (lost := manifest.damaged(out)) is not None:
        raise InputError(f"{out} is damaged: {lost.path} is missing or has another size; add --overwrite to rebuild")
    return manifest


def _check_same(manifest: Manifest, identity: dict[str, Any], place: str) -> None:
    """Refuse another dataset than the one asked for."""
    wanted = identity["recipe_digest"], identity["formats"]
    same = (manifest.recipe_digest, list(manifest.formats)) == wanted
    # Several perturbations have no common digest before they are joined: then the recipe must do.
    if not same or (len(identity["given"]) == 1 and identity["given"] != [manifest.perturbation_digest]):
        raise InputError(
            f"{place} holds {manifest.name} {manifest.version} ({', '.join(manifest.formats)}; recipe "
            f"{manifest.recipe_digest[:12]}), which is not what was asked for; choose another --out or add --overwrite"
        )


@dataclass(frozen=True, eq=False, slots=True)
class _Making:
    """A dataset in the making: writes all of it into the staging folder."""

    recipe: Recipe
    options: BuildOptions
    origin: Origin | None
    given: Sequence[Perturbation]
    folder: BuildFolder
    delivery: Delivery | None
    executor: Executor
    reporter: Reporter

    def run(self) -> list[str]:
        """Make everything; returns why it hardly protects, if there are such reasons."""
        recipe, reporter, files = self.recipe, self.reporter, self.folder.files
        with reporter.phase("read source"):
            source = self._source()
        with reporter.phase("craft"):
            perturbation = self._perturbation(source)
        with reporter.phase("assemble"):
            assembly = Assembly(recipe, self.options.formats, source, perturbation, self.folder, self.delivery)
            manifest = assembly.manifest(assembly.run(self.executor, reporter))
        with reporter.phase("figures"):
            changed = RESTORED if recipe.learnable else PROTECTED
            figures = draw_figures(source.train, perturbation, source.class_names, changed)
            for figure in figures:
                for name, content in figure.files.items():
                    write_atomically(files / "figures" / name, content)
        with reporter.phase("card"):
            write_atomically(files / "recipe.json", recipe.to_json() + "\n")
            if source.findings.left_out:
                left_out = "".join(f"{split}\t{terminal(problem)}\n" for split, problem in source.findings.left_out)
                write_atomically(files / LEFT_OUT, left_out)
            write_atomically(files / "craft.json", json.dumps(perturbation.about, indent=1) + "\n")
            write_atomically(files / "croissant.json", croissant_json(recipe, manifest))
            write_atomically(files / "README.md", write_card(recipe, manifest, perturbation, figures))
            noted = self.folder.read_note("crafted", _CraftedNote)
            known = {} if noted is None else {PERTURBATION_FILE: dataclasses.asdict(noted.file)}
            others = _other_files(files, known)
        timings = {name: round(seconds, 3) for name, seconds in reporter.seconds.items()}
        manifest = dataclasses.replace(manifest, files=(*manifest.files, *others), timings=timings)
        write_atomically(files / FILE_NAME, manifest.to_json())
        return shortfalls(recipe, perturbation)

    def _source(self) -> Source:
        try:
            source = self._read()
        except InputError:
            if self.origin is not None:
                self.origin.refused(self.folder)
            raise
        source = limited(self.recipe, source)
        if self.origin is not None:
            if self.delivery is not None:
                self.delivery.check_images(source.identity)
            self.origin.note(self.folder, source.identity)
        return source

    def _read(self) -> Source:
        return read_source(
            self.recipe.source,
            self.options.source,
            executor=self.executor,
            reporter=self.reporter,
            labels_for=labels_for(self.recipe),
            spool=self.folder.spool,
            skip_unusable=self.options.skip_unusable,
            form=None if self.origin is None else self.origin.form,
        )

    def _perturbation(self, source: Source) -> Perturbation:
        """The perturbation: given, left by an interrupted build, or crafted now; in any case saved."""
        path = self.folder.files / PERTURBATION_FILE
        if not self.given and self._was_crafted(source):
            return Perturbation.load(path)
        workshop = Workshop(
            reporter=self.reporter,
            executor=self.executor,
            device=self.options.device,
            weights=self.options.weights,
            release=self.options.release,
            checkpoints=self.folder.staging,
            cache=CraftCache(cache_folder()) if self.options.cache else None,
        )
        result = join(self.recipe, self.given, source) if self.given else craft(self.recipe, source, workshop)
        with replacing(path) as partial:
            result.save(partial)
        self.folder.write_note("crafted", source=source.train.digest, file=file_record(path))
        clear_checkpoints(self.recipe, workshop)
        return result

    def _was_crafted(self, source: Source) -> bool:
        """Whether an interrupted build left the perturbation of these images, and the file is still what it was."""
        note, path = self.folder.read_note("crafted", _CraftedNote), self.folder.files / PERTURBATION_FILE
        if note is None or note.source != source.train.digest or not path.is_file():
            return False
        return bool(file_record(path) == dataclasses.asdict(note.file))


@dataclass(frozen=True, kw_only=True, slots=True)
class _CraftedNote:
    """The perturbation of some images is in the folder."""

    source: str
    file: FileNote


def _other_files(folder: Path, known: dict[str, dict[str, Any]]) -> list[FileRecord]:
    """Of everything but the shards and the manifest; some are known."""
    others = [path for path in sorted(folder.rglob("*")) if path.parent.name not in ("data", "webdataset")]
    return [
        FileRecord(
            path=RelativePath(path.relative_to(folder).as_posix()), **(known.get(path.name) or file_record(path))
        )
        for path in others
        if path.is_file() and path.suffix != PARTIAL and path.name != FILE_NAME
    ]
