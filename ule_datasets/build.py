"""From a recipe to a dataset folder: read the source, craft, assemble, describe, publish."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ule_datasets.base.errors import InputError
from ule_datasets.base.files import PARTIAL, replacing, write_atomically
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.executor import Executor
from ule_datasets.compute.opening import EXECUTORS, open_executor
from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION_FILE
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.data.split import Split, order_free_digest
from ule_datasets.dataset.delivery import Delivery
from ule_datasets.dataset.manifest import FILE_NAME, LEFT_OUT, FileRecord, Manifest, SplitRecord, build_environment
from ule_datasets.dataset.shards import (
    FORMATS,
    ShardResult,
    ShardTask,
    file_record,
    shard_path,
    shard_rows,
    write_shard,
)
from ule_datasets.packaging.card import write_card
from ule_datasets.packaging.craft_cache import CraftCache, cache_folder
from ule_datasets.packaging.crafting import Workshop, clear_checkpoints, craft, join, labels_for
from ule_datasets.packaging.croissant import croissant_json
from ule_datasets.packaging.figures import draw_figures
from ule_datasets.packaging.folder import (
    LOCAL_NOTE,
    BuildFolder,
    check_ours,
    open_folder,
    remove_leftovers,
)
from ule_datasets.places.urls import RemoteFolder, shown
from ule_datasets.recipe import Recipe
from ule_datasets.sources import Source, read_source

WORKER_MODULES = ("ule_datasets.dataset.shards", "ule_datasets.sources", "PIL.PngImagePlugin", "pyarrow.parquet")
"""Imported once, before the workers start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildOptions:
    """Where and how to build; nothing here changes the pixels."""

    out: Path
    """The dataset folder; where it is delivered elsewhere, the folder that it is made in, which is deleted then."""
    deliver_to: str | None = None
    """A URL that the files are sent to as they are written, instead of staying in ``out``."""
    source: str | None = None
    """See ``ule_datasets.sources.LOCATIONS``; ``None``: the recipe's own."""
    formats: tuple[str, ...] = FORMATS
    perturbations: tuple[Path, ...] = ()
    """Assemble from these saved perturbations instead of crafting: one, or one for each method."""
    workers: int = 1
    executor: str = "local"
    """Where pieces of the work run: ``local`` processes or a ``ray`` cluster, whose machines all see ``out``."""
    skip_unusable: bool = False
    """Leave images out that cannot be used, and list them, instead of building nothing."""
    scratch: Path | None = None
    """A folder for the decoded images while the build lasts, as large as they are; ``None``: within ``out``."""
    device: str = "auto"
    """Where methods that use gradients are crafted: ``auto``, ``cpu``, ``cuda`` or ``cuda:INDEX``."""
    weights: Path | None = None
    """A file of pretrained weights, or a folder of them, for the methods that start from some."""
    cache: bool = True
    """Take crafts that were finished before from ``ule_datasets.packaging.craft_cache``, and keep new ones there."""
    overwrite: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(set(self.formats) - set(FORMATS))
        if unknown or not self.formats:
            raise InputError(f"--format {', '.join(unknown)}: choose from {', '.join(FORMATS)}")
        if self.workers < 1:
            raise InputError(f"--workers {self.workers}: must be at least 1")
        if self.executor not in EXECUTORS:
            raise InputError(f"--executor {self.executor}: choose from {', '.join(EXECUTORS)}")


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


def build(recipe: Recipe, options: BuildOptions, reporter: Reporter | None = None) -> BuildResult:
    """Build a dataset, continue an interrupted build of it, or find that it is complete.

    With ``workers > 1`` call this under ``if __name__ == "__main__"``, as for any process pool.

    Raises:
        InputError: an unusable source, recipe, perturbation or output folder; the folder is left as it was.
    """
    reporter = reporter or Reporter()
    given = [Perturbation.load(path) for path in options.perturbations]
    if options.device not in ("auto", "cpu"):
        _check_device(options.device)
    identity = {
        "name": recipe.name,
        "recipe_digest": recipe.digest,
        "formats": [name for name in FORMATS if name in options.formats],
        "given": sorted(perturbation.digest for perturbation in given),
    }
    check_ours(options.out)
    delivery = None
    if options.deliver_to is None:
        finished = None if options.overwrite else _finished(options.out, identity)
    else:
        delivery = Delivery(RemoteFolder(options.deliver_to), BuildFolder(options.out).files)
        finished = delivery.begin(identity, overwrite=options.overwrite)
        if finished is not None:
            _check_same(finished, identity, str(delivery.to))
    if finished is not None:
        return _finished_before(options, finished)
    reporter.say(_announcement(recipe, options))
    # The executor within: its workers are gone before the folder is put in order after an error.
    with (
        open_folder(options.out, identity, overwrite=options.overwrite, scratch=options.scratch) as folder,
        open_executor(options.executor, options.workers, preload=WORKER_MODULES) as executor,
    ):
        if folder.read_note("complete") is None:
            executor.start()
            _make(recipe, options, given, folder, delivery, executor, reporter)
            folder.write_note("complete", True)
        if delivery is not None:
            manifest = delivery.complete()
            folder.discard()
            return BuildResult(None, _place(options), manifest, already_complete=False)
        folder.publish()
    if options.source and shown(options.source) == options.source:  # a URL with a password is written nowhere
        write_atomically(options.out / LOCAL_NOTE, json.dumps({"source": _absolute(options.source)}))
    return BuildResult(options.out, _place(options), Manifest.read(options.out), already_complete=False)


def _finished_before(options: BuildOptions, manifest: Manifest) -> BuildResult:
    """Nothing is left to do but to tidy up."""
    remove_leftovers(options.out, options.scratch)
    if options.deliver_to is None:
        return BuildResult(options.out, _place(options), manifest, already_complete=True)
    if options.out.exists():
        shutil.rmtree(options.out)
    return BuildResult(None, _place(options), manifest, already_complete=True)


def _place(options: BuildOptions) -> str:
    return str(options.out) if options.deliver_to is None else shown(options.deliver_to)


def _check_device(name: str) -> None:
    """Refuse a device that this machine does not have, before anything is done."""
    from ule_datasets.compute.devices import pick_device

    pick_device(name)


def _announcement(recipe: Recipe, options: BuildOptions) -> str:
    reduced = f" [{recipe.reduced}]" if recipe.reduced else ""
    where = options.source or recipe.source.default_location or "(no source given)"
    processes = f"{options.workers} process{'es' if options.workers > 1 else ''}"
    return f"building {recipe.name} {recipe.version}{reduced} from {shown(where)} into {_place(options)}, {processes}"


def _finished(out: Path, identity: dict[str, Any]) -> Manifest | None:
    """The manifest of a folder that already holds what is asked for; ``None`` if it is not finished."""
    if not (out / FILE_NAME).exists():
        return None
    manifest = Manifest.read(out)
    _check_same(manifest, identity, str(out))
    damaged = [f.path for f in manifest.files if not _has_size(out / f.path, f.size)]
    if damaged:
        raise InputError(f"{out} is damaged: {damaged[0]} is missing or has another size; add --overwrite to rebuild")
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


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _make(
    recipe: Recipe, options: BuildOptions, given: Sequence[Perturbation], folder: BuildFolder,
    delivery: Delivery | None, executor: Executor, reporter: Reporter,
) -> None:  # fmt: skip
    """Write the whole dataset into the staging folder."""
    with reporter.phase("read source"):
        source = read_source(
            recipe.source, options.source, executor=executor, reporter=reporter, labels_for=labels_for(recipe),
            spool=folder.spool, skip_unusable=options.skip_unusable,
        )  # fmt: skip
        source = _limited(source, recipe.limit_per_class)
    with reporter.phase("craft"):
        perturbation = _perturbation(recipe, options, given, source, folder, executor, reporter)
    with reporter.phase("assemble"):
        results = _assemble(recipe, options.formats, source, perturbation, folder, delivery, executor, reporter)
    with reporter.phase("figures"):
        figures = draw_figures(source.train, perturbation, source.class_names)
        for figure in figures:
            write_atomically(folder.files / "figures" / figure.name, figure.png)
    with reporter.phase("card"):
        write_atomically(folder.files / "recipe.json", recipe.to_json() + "\n")
        if source.findings.left_out:
            left_out = "".join(f"{split}\t{problem}\n" for split, problem in source.findings.left_out)
            write_atomically(folder.files / LEFT_OUT, left_out)
        write_atomically(folder.files / "craft.json", json.dumps(perturbation.about, indent=1) + "\n")
        manifest = _manifest(recipe, options.formats, source, perturbation, results)
        write_atomically(folder.files / "croissant.json", croissant_json(recipe, manifest))
        write_atomically(folder.files / "README.md", write_card(recipe, manifest, perturbation, figures))
        others = [
            FileRecord(path=path.relative_to(folder.files).as_posix(), **file_record(path))
            for path in sorted(folder.files.rglob("*"))
            if path.is_file()
            and path.parent.name not in ("data", "webdataset")
            and path.suffix != PARTIAL
            and path.name != FILE_NAME
        ]
    timings = {name: round(seconds, 3) for name, seconds in reporter.seconds.items()}
    manifest = dataclasses.replace(manifest, files=(*manifest.files, *others), timings=timings)
    write_atomically(folder.files / FILE_NAME, manifest.to_json())


def _limited(source: Source, limit_per_class: int | None) -> Source:
    if limit_per_class is None:
        return source
    return dataclasses.replace(source, splits={**source.splits, "train": source.train.first_per_class(limit_per_class)})


def _perturbation(
    recipe: Recipe, options: BuildOptions, given: Sequence[Perturbation], source: Source, folder: BuildFolder,
    executor: Executor, reporter: Reporter,
) -> Perturbation:  # fmt: skip
    """The perturbation: given, left by an interrupted build, or crafted now; in any case saved."""
    path = folder.files / PERTURBATION_FILE
    if not given and folder.read_note("crafted") == source.train.digest and path.exists():
        return Perturbation.load(path)
    workshop = Workshop(
        reporter=reporter,
        executor=executor,
        device=options.device,
        weights=options.weights,
        checkpoints=folder.staging,
        cache=CraftCache(cache_folder()) if options.cache else None,
    )
    result = join(recipe, given, source) if given else craft(recipe, source, workshop)
    with replacing(path) as partial:
        result.save(partial)
    folder.write_note("crafted", source.train.digest)
    clear_checkpoints(recipe, workshop)
    return result


def _assemble(
    recipe: Recipe, formats: tuple[str, ...], source: Source, perturbation: Perturbation, folder: BuildFolder,
    delivery: Delivery | None, executor: Executor, reporter: Reporter,
) -> dict[str, list[ShardResult]]:  # fmt: skip
    """Write every shard that an interrupted build has not left intact."""
    inputs = _fingerprint(recipe, formats, source, perturbation)
    names, tasks, results = [], [], {}
    for split, index, count, rows in _plan(recipe, source):
        name = f"{split}-{index:05d}"
        paths = tuple((f, folder.files / shard_path(f, split, index, count)) for f in FORMATS if f in formats)
        done = _finished_shard(folder.read_note(f"shard-{name}"), inputs, paths, delivery)
        if done is not None:
            results[name] = done
            continue
        names.append(name)
        part = source.splits[split].rows(rows.start, rows.stop)
        tasks.append((part, split == "train", paths))
    made = executor.map(write_shard, _shard_tasks(tasks, recipe, source, perturbation, delivery), on_lost=reporter.warn)
    if results:
        reporter.say(f"continuing: {len(results)} of {len(results) + len(tasks)} shards are already written")
    progress = reporter.track(
        made, total=len(tasks), label="assembling", unit="shard", images=lambda result: len(result.sample_digests)
    )
    for name, result in zip(names, progress, strict=True):
        folder.write_note(f"shard-{name}", {"inputs": inputs, "result": dataclasses.asdict(result)})
        results[name] = result
    by_split: dict[str, list[ShardResult]] = {split: [] for split in source.splits}
    for split, index, _, _ in _plan(recipe, source):
        by_split[split].append(results[f"{split}-{index:05d}"])
    return by_split


def _plan(recipe: Recipe, source: Source) -> Iterator[tuple[str, int, int, range]]:
    """Split, index, number of shards and rows of every shard."""
    for name, split in source.splits.items():
        ranges = shard_rows(len(split), split.images.nbytes // len(split), recipe.shard_mebibytes)
        for index, rows in enumerate(ranges):
            yield name, index, len(ranges), rows


def _shard_tasks(
    parts: Sequence[tuple[Split, bool, tuple[tuple[str, Path], ...]]], recipe: Recipe, source: Source,
    perturbation: Perturbation, delivery: Delivery | None,
) -> Iterator[ShardTask]:  # fmt: skip
    """Made one at a time: a task carries its images and its part of the perturbation."""
    of_shards = perturbation.parts(part.keys for part, poison, _ in parts if poison)
    for part, poison, paths in parts:
        yield ShardTask(
            clean=part,
            perturbation=next(of_shards) if poison else None,
            budget=recipe.budget,
            class_names=source.class_names,
            paths=paths,
            delivery=delivery,
        )


def _fingerprint(recipe: Recipe, formats: tuple[str, ...], source: Source, perturbation: Perturbation) -> str:
    """Changes whenever a shard's bytes might."""
    digests = {name: split.digest for name, split in source.splits.items()}
    parts = [recipe.digest, sorted(formats), digests, perturbation.digest, build_environment()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _finished_shard(
    note: Any, inputs: str, paths: tuple[tuple[str, Path], ...], delivery: Delivery | None
) -> ShardResult | None:
    """What an interrupted build noted about a shard, if its files are still what the note says."""
    if note is None or note["inputs"] != inputs:
        return None
    result = ShardResult(**{**note["result"], "files": tuple(note["result"]["files"])})
    for (file_format, path), record in zip(paths, result.files, strict=True):
        if delivery is not None and delivery.has(path, record["size"]):
            continue
        if not path.exists() or {"format": file_format, **file_record(path)} != record:
            return None
    return result


def _manifest(
    recipe: Recipe, formats: tuple[str, ...], source: Source, perturbation: Perturbation,
    results: dict[str, list[ShardResult]],
) -> Manifest:  # fmt: skip
    """The manifest as far as the card needs it: with the shards, without the other files and timings."""
    files = []
    for split, index, count, _ in _plan(recipe, source):
        for record in results[split][index].files:
            path = shard_path(record["format"], split, index, count)
            files.append(FileRecord(path=path, size=record["size"], sha256=record["sha256"]))
    height, width, channels = source.train.images.shape[1:]
    return Manifest(
        name=recipe.name,
        version=recipe.version,
        reduced=recipe.reduced,
        recipe_digest=recipe.digest,
        source_name=recipe.source.name,
        source_digests={name: split.digest for name, split in source.splits.items()},
        source_about=source.findings.about(),
        perturbation_digest=perturbation.digest,
        craft=_craft_record(perturbation),
        class_names=source.class_names,
        image_shape=(height, width, channels),
        formats=tuple(name for name in FORMATS if name in formats),
        splits={name: _split_record(parts) for name, parts in results.items()},
        files=tuple(sorted(files, key=lambda record: record.path)),
        environment=build_environment(),
        timings={},
    )


def _craft_record(perturbation: Perturbation) -> tuple[dict[str, Any], ...]:
    """What each method's layers depend on."""
    kept = ("identifier", "repeats", "craft_digest")
    return tuple(
        {**{name: record[name] for name in kept}, "environments": record["notes"].get("environments", [])}
        for record in perturbation.about["methods"]
    )


def _split_record(parts: list[ShardResult]) -> SplitRecord:
    digests = [bytes.fromhex(digest) for part in parts for digest in part.sample_digests]
    return SplitRecord(
        num_examples=len(digests),
        num_poisoned=sum(part.num_poisoned for part in parts),
        digest=order_free_digest(digests),
        num_bytes=sum(part.arrow_bytes for part in parts),
    )


def _absolute(source: str) -> str:
    """A path that still means the same from another working folder."""
    return str(Path(source).expanduser().resolve()) if Path(source).expanduser().exists() else source
