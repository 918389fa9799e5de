"""The shards of a dataset, and the manifest that lists them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ule_datasets.base.names import DatasetName
from ule_datasets.base.options import FORMATS
from ule_datasets.base.progress import Reporter
from ule_datasets.base.shown import plain
from ule_datasets.compute.executor import Executor, Need
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.data.split import Split, order_free_digest
from ule_datasets.dataset.declaration import craft_declaration
from ule_datasets.dataset.delivery import Delivery
from ule_datasets.dataset.manifest import FileRecord, Manifest, SplitRecord, build_environment
from ule_datasets.dataset.shards import ShardResult, ShardTask, file_record, shard_path, shard_rows, write_shard
from ule_datasets.definition import Recipe
from ule_datasets.packaging.folder import BuildFolder
from ule_datasets.sources.reading import Source

_COPIES = 2
"""Of the pixels of a shard, that writing it takes at the least: clean, and perturbed."""
Paths = tuple[tuple[str, Path], ...]
"""Of a shard, by format."""


@dataclass(frozen=True, eq=False, slots=True)
class Assembly:
    """What shards are made of, and where they go."""

    recipe: Recipe
    formats: tuple[str, ...]
    source: Source
    perturbation: Perturbation
    folder: BuildFolder
    delivery: Delivery | None = None
    """Sends them elsewhere as they are written."""

    def run(self, executor: Executor, reporter: Reporter) -> dict[str, list[ShardResult]]:
        """Write every shard that an interrupted build has not left intact; all of them, by split."""
        inputs = self._fingerprint()
        names, tasks, results = [], [], {}
        for split, index, count, rows in self._plan():
            name = f"{split}-{index:05d}"
            paths = tuple(
                (f, self.folder.files / shard_path(f, split, index, count)) for f in FORMATS if f in self.formats
            )
            done = self._finished(name, inputs, paths)
            if done is not None:
                results[name] = done
                continue
            names.append(name)
            tasks.append((self.source.splits[split].rows(rows.start, rows.stop), split == "train", paths))
        pixels = max((part.images.nbytes for part, _, _ in tasks), default=0)
        need = Need(what="a worker that writes shards", task=_COPIES * pixels, tell=reporter.warn)
        made = executor.map(write_shard, self._tasks(tasks), on_lost=reporter.warn, need=need)
        if results:
            reporter.say(f"continuing: {len(results)} of {len(results) + len(tasks)} shards are already written")
        label, unit = "assembling", "shard"
        made = reporter.track(made, total=len(tasks), label=label, unit=unit, images=lambda r: len(r.sample_digests))
        for name, result in zip(names, made, strict=True):
            self.folder.write_note(f"shard-{name}", inputs=inputs, result=dataclasses.asdict(result))
            results[name] = result
        by_split: dict[str, list[ShardResult]] = {split: [] for split in self.source.splits}
        for split, index, _, _ in self._plan():
            by_split[split].append(results[f"{split}-{index:05d}"])
        return by_split

    def manifest(self, results: dict[str, list[ShardResult]]) -> Manifest:
        """The manifest as far as the card needs it: with the shards, without the other files and timings."""
        recipe, source = self.recipe, self.source
        files = [
            FileRecord(path=shard_path(r["format"], split, index, count), size=r["size"], sha256=r["sha256"])
            for split, index, count, _ in self._plan()
            for r in results[split][index].files
        ]
        height, width, channels = source.train.images.shape[1:]
        return Manifest(
            name=DatasetName(recipe.name),
            version=recipe.version,
            reduced=recipe.reduced,
            recipe_digest=recipe.digest,
            source_name=recipe.source.name,
            source_digests={name: split.digest for name, split in source.splits.items()},
            source_about=source.findings.about(),
            perturbation_digest=self.perturbation.digest,
            craft=craft_declaration(self.perturbation),
            class_names=source.class_names,
            image_shape=(height, width, channels),
            formats=tuple(name for name in FORMATS if name in self.formats),
            splits={name: _split_record(parts) for name, parts in results.items()},
            files=tuple(sorted(files, key=lambda record: record.path)),
            environment=build_environment(),
            timings={},
            look={} if source.look is None else plain(source.look.about()),
        )

    def _plan(self) -> Iterator[tuple[str, int, int, range]]:
        """Split, index, number of shards and rows of every shard."""
        for name, split in self.source.splits.items():
            ranges = shard_rows(len(split), split.images.nbytes // len(split), self.recipe.shard_mebibytes)
            for index, rows in enumerate(ranges):
                yield name, index, len(ranges), rows

    def _tasks(self, parts: Sequence[tuple[Split, bool, Paths]]) -> Iterator[ShardTask]:
        """Made one at a time: a task carries its images and its part of the perturbation."""
        of_shards = self.perturbation.parts(part.keys for part, poison, _ in parts if poison)
        for part, poison, paths in parts:
            yield ShardTask(
                clean=part,
                perturbation=next(of_shards) if poison else None,
                budget=self.recipe.budget,
                class_names=self.source.class_names,
                paths=paths,
                delivery=self.delivery,
            )

    def _fingerprint(self) -> str:
        """Changes whenever a shard's bytes might."""
        digests = {name: split.digest for name, split in self.source.splits.items()}
        images = [digests, self.source.class_names]
        parts = [self.recipe.digest, sorted(self.formats), images, self.perturbation.digest, build_environment()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _finished(self, name: str, inputs: str, paths: Paths) -> ShardResult | None:
        """What an interrupted build noted about a shard, if its files are still what the note says."""
        note = self.folder.read_note(f"shard-{name}", _ShardNote)
        if note is None or note.inputs != inputs or len(note.result.files) != len(paths):
            return None
        result = note.result
        for (file_format, path), record in zip(paths, result.files, strict=True):
            if self.delivery is not None and self.delivery.has(path, record.get("size", -1)):
                continue
            if not path.exists() or {"format": file_format, **file_record(path)} != record:
                return None
        return result


@dataclass(frozen=True, kw_only=True, slots=True)
class _ShardNote:
    inputs: str
    result: ShardResult


def _split_record(parts: list[ShardResult]) -> SplitRecord:
    digests = [bytes.fromhex(digest) for part in parts for digest in part.sample_digests]
    return SplitRecord(
        num_examples=len(digests),
        num_poisoned=sum(part.num_poisoned for part in parts),
        digest=order_free_digest(digests),
        num_bytes=sum(part.arrow_bytes for part in parts),
    )
