"""Is a dataset folder what its manifest says, and did only happen to the source what the perturbation says?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.files import replacing
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.executor import Executor
from ule_datasets.data.bounds import Budget
from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION_FILE
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.data.split import Split, canonical_order, order_free_digest, positions_of, sample_digest
from ule_datasets.data.spool import Images, SpooledImages, view
from ule_datasets.dataset.manifest import FileRecord, Manifest, other_decoder
from ule_datasets.dataset.shards import file_record
from ule_datasets.dataset.shards.parquet import schema
from ule_datasets.dataset.shards.reading import decode_images, read_parquet_shard, read_tar_shard
from ule_datasets.recipe import PublishedRecipe
from ule_datasets.sources.reading import Source

COMPARED_BYTES = 32 * 2**20
"""Of raw pixels that a worker compares at a time."""
SHOWN = 3
"""How many offenders a message names."""


@dataclass(frozen=True, slots=True)
class Check:
    """One integrity check."""

    name: str
    passed: bool
    detail: str
    """What was found; when the check failed, what is wrong."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class BuiltSplit(Split):
    """A split of the dataset under test, decoded, in the order in which it stands there."""

    poisoned: np.ndarray


@dataclass(frozen=True, slots=True)
class Folder:
    """A dataset folder with everything that describes it."""

    root: Path
    manifest: Manifest
    recipe: PublishedRecipe
    perturbation: Perturbation


@dataclass(frozen=True, slots=True)
class _ShardPair:
    """The files that hold one shard: one or both formats."""

    split: str
    parquet: Path | None
    tar: Path | None
    class_names: tuple[str, ...]
    spool: Path | None
    """Where the decoded pixels go; ``None``: they stay in memory."""


@dataclass(frozen=True, eq=False, slots=True)
class _ShardState:
    """What reading a shard showed."""

    problems: list[str]
    images: np.ndarray | None = None
    """uint8 [N, H, W, 3]; ``None``: they are in the spool file."""
    image_shape: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()
    poisoned: tuple[bool, ...] = ()
    digests: tuple[bytes, ...] = ()


Compared = tuple[Split, Images, np.ndarray, Perturbation, Budget]
"""For one worker: clean samples, what became of them, which of these are flagged, and what should have happened."""


def check_files(root: Path, manifest: Manifest, executor: Executor) -> list[Check]:
    """Every listed file is there with its size and sha256, and no shard is there that is not listed."""
    tasks = [(root, record) for record in manifest.files]
    wrong = [problem for problem in executor.map(_file_problem, tasks) if problem]
    listed = {record.path for record in manifest.files}
    found = [p for folder in ("data", "webdataset") for p in sorted((root / folder).rglob("*")) if p.is_file()]
    strays = [f"{path} is not in the manifest" for p in found if (path := p.relative_to(root).as_posix()) not in listed]
    return [
        _check("files", wrong, f"{len(manifest.files)} files have the size and sha256 of the manifest"),
        _check("no other shards", strays, "data folders hold nothing else"),
    ]


def open_dataset(root: Path, manifest: Manifest) -> tuple[Folder | None, list[Check]]:
    """Read recipe and perturbation; ``None`` where one of them is not what the manifest says."""
    problems = []
    recipe = perturbation = None
    try:
        recipe = PublishedRecipe.parse((root / "recipe.json").read_text(encoding="utf-8"))
        if recipe.digest != manifest.recipe_digest:
            problems.append(f"recipe.json has digest {recipe.digest}, the manifest says {manifest.recipe_digest}")
        perturbation = Perturbation.load(root / PERTURBATION_FILE)
        if perturbation.digest != manifest.perturbation_digest:
            problems.append(f"{PERTURBATION_FILE} has another digest than the manifest says")
    except (InputError, OSError, UnicodeDecodeError) as error:
        problems.append(str(error))
    check = _check("recipe and perturbation", problems, "recipe.json and perturbation.safetensors have their digests")
    if recipe is None or perturbation is None or problems:
        return None, [check]
    return Folder(root, manifest, recipe, perturbation), [check]


def check_content(
    folder: Folder, executor: Executor, reporter: Reporter, spool: Path | None = None
) -> tuple[dict[str, BuiltSplit], list[Check]]:
    """Schema, counts, keys, order, agreement of the formats, and the digest of pixels and labels.

    With ``spool``, a folder that all workers see, the decoded pixels stand there instead of in memory.
    """
    pairs = list(_pairs(folder.root, folder.manifest, spool))
    states = executor.map(_read_pair, pairs, on_lost=reporter.warn)
    by_split: dict[str, list[tuple[_ShardPair, _ShardState]]] = {name: [] for name in folder.manifest.splits}
    label, unit = "reading shards", "shard"
    states = reporter.track(states, total=len(pairs), label=label, unit=unit, images=lambda state: len(state.keys))
    for pair, state in zip(pairs, states, strict=True):
        by_split[pair.split].append((pair, state))
    splits, checks = {}, []
    for name, parts in by_split.items():
        problems = [problem for _, state in parts for problem in state.problems]
        shapes = {state.image_shape for _, state in parts}
        if not problems and len(shapes) > 1:
            problems = [f"shards have images of different sizes: {sorted(shapes)}"]
        if problems or not parts:
            checks.append(_check(f"{name}: shards", problems or ["no shards"], ""))
        else:
            splits[name] = _joined(name, parts)
            checks += _content_checks(splits[name], folder.manifest)
    return splits, checks


def _joined(name: str, parts: Sequence[tuple[_ShardPair, _ShardState]]) -> BuiltSplit:
    states = [state for _, state in parts]
    images: Images
    if parts[0][0].spool is None:
        images = np.concatenate([state.images for state in states if state.images is not None])
    else:
        height, width, channels = states[0].image_shape
        files = [(pair.spool, len(state.keys)) for pair, state in parts if pair.spool is not None]
        images = SpooledImages.in_files(files, (height, width, channels))
    return BuiltSplit(
        name=name,
        images=images,
        labels=np.array([label for state in states for label in state.labels], dtype=np.int64),
        keys=tuple(key for state in states for key in state.keys),
        digest=order_free_digest(digest for state in states for digest in state.digests),
        poisoned=np.array([flag for state in states for flag in state.poisoned], dtype=bool),
    )


def check_against_source(
    folder: Folder, splits: dict[str, BuiltSplit], source: Source, executor: Executor
) -> list[Check]:
    """Labels untouched, only what the perturbation says changed, budget kept, test split clean."""
    checks = []
    reason = other_decoder(folder.manifest.environment) if source.spec.digests is None else ""
    for name, split in splits.items():
        clean = source.splits.get(name)
        if clean is None:
            checks.append(Check(f"{name}: source", False, f"the source has no {name} split"))
            continue
        if name == "train" and folder.recipe.limit_per_class is not None:
            clean = clean.first_per_class(folder.recipe.limit_per_class)
        rows = positions_of(split.keys, clean.keys)
        unknown = _at(split.keys, rows < 0)
        missing = sorted(set(clean.keys) - set(split.keys))
        if unknown or missing:
            problems = _about(unknown, f"is not in the source{reason}") + _about(missing, "of the source is missing")
            checks.append(_check(f"{name}: samples of the source", problems, ""))
            continue
        relabelled = _about(_at(split.keys, clean.labels[rows] != split.labels), "has another label than in the source")
        checks.append(_check(f"{name}: labels", relabelled, "as in the source"))
        found = list(executor.map(_compare, _comparisons(folder, split, clean, rows)))
        differ, flags, exceeding = ([key for part in found for key in part[what]] for what in range(3))
        if name != "train":
            checks.append(_check(f"{name}: images", _about(differ, f"differs from the source{reason}"), "untouched"))
            continue
        bounds = ", then ".join(map(str, folder.recipe.budget))
        checks += [
            _check(
                "train: images",
                _about(differ, f"is not its clean original plus the perturbation{reason}"),
                "each is its clean original plus exactly the perturbation",
            ),
            _check("train: poisoned flags", _about(flags, "is wrongly flagged"), "as the perturbation says"),
            _check("train: budget", _about(exceeding, f"exceeds {bounds}"), f"kept by every image: {bounds}"),
        ]
    return checks


def _comparisons(folder: Folder, split: BuiltSplit, clean: Split, rows: np.ndarray) -> Iterator[Compared]:
    """The split in pieces beside the rows of the source that they come from."""
    at_once = max(1, COMPARED_BYTES * len(split.keys) // max(1, split.images.nbytes))
    parts = [slice(start, start + at_once) for start in range(0, len(split.keys), at_once)]
    of_parts = folder.perturbation.parts(split.keys[part] for part in parts)
    for part, perturbation in zip(parts, of_parts, strict=True):
        originals = Split(
            name=split.name,
            images=view(clean.images, rows[part]),
            labels=clean.labels[rows[part]],
            keys=split.keys[part],
            digest=clean.digest,
        )
        yield originals, view(split.images, part), split.poisoned[part], perturbation, folder.recipe.budget


def _compare(task: Compared) -> tuple[list[str], list[str], list[str]]:
    """Keys of images that are not what the perturbation alone makes of them, of wrong flags, and of those beyond it."""
    originals, found, flagged, perturbation, budget = task
    clean, images, labels, keys = originals.pixels(), np.asarray(found), originals.labels, originals.keys
    if originals.name != "train":
        return _at(keys, (clean != images).any(axis=(1, 2, 3))), [], []
    return (
        _at(keys, (perturbation.apply(clean, labels, keys) != images).any(axis=(1, 2, 3))),
        _at(keys, perturbation.is_poisoned(keys) != flagged),
        [keys[index] for index in perturbation.exceeding(clean, images, labels, keys, budget)],
    )


def _content_checks(split: BuiltSplit, manifest: Manifest) -> list[Check]:
    name, record, count, twice = split.name, manifest.splits[split.name], len(split), len(split) - len(set(split.keys))
    numbers = [] if count == record.num_examples else [f"{count} images, the manifest says {record.num_examples}"]
    if twice:
        numbers.append(f"{twice} keys appear twice")
    ordered = bool((canonical_order(split.keys) == np.arange(count)).all())
    wrong = [] if split.digest == record.digest else [f"digest {split.digest}, the manifest says {record.digest}"]
    return [
        _check(f"{name}: samples", numbers, f"{count:,}, each key once"),
        _check(f"{name}: order", [] if ordered else ["samples do not stand in order of their keys"], "canonical"),
        _check(f"{name}: pixels and labels", wrong, f"digest {split.digest}"),
    ]


def _pairs(root: Path, manifest: Manifest, spool: Path | None) -> Iterator[_ShardPair]:
    """The shards of every split; both formats hold the same samples in the same shards."""
    for name in manifest.splits:
        by_format = [
            sorted(record.path for record in manifest.shards(f"{folder}/{name}-")) for folder in ("data", "webdataset")
        ]
        for index in range(max(map(len, by_format))):
            parquet, tar = (root / paths[index] if index < len(paths) else None for paths in by_format)
            decoded = None if spool is None else spool / f"{name}-{index:06d}.rgb"
            yield _ShardPair(name, parquet, tar, manifest.class_names, decoded)


def _read_pair(pair: _ShardPair) -> _ShardState:
    """Read one shard in both formats, compare them, decode once."""
    import pyarrow.parquet as pq

    try:
        contents = []
        if pair.parquet is not None:
            contents.append(read_parquet_shard(pair.parquet))
            if not pq.read_schema(pair.parquet).equals(schema(pair.class_names), check_metadata=False):
                raise InputError(f"{pair.parquet} has another schema than a dataset of ours")
        if pair.tar is not None:
            contents.append(read_tar_shard(pair.tar))
        first = contents[0]
        images = decode_images(first.encoded, str(pair.parquet or pair.tar))
    except InputError as error:
        return _ShardState([str(error)])
    problems = [
        f"{pair.parquet} and {pair.tar} differ in their {what}"
        for other in contents[1:]
        for what in ("keys", "labels", "poisoned", "encoded")
        if getattr(first, what) != getattr(other, what)
    ]
    if first.labels and not 0 <= min(first.labels) <= max(first.labels) < len(pair.class_names):
        problems.append(f"{pair.parquet or pair.tar} has labels outside 0 .. {len(pair.class_names) - 1}")
        return _ShardState(problems)
    if pair.spool is not None:
        with replacing(pair.spool, lasting=False) as partial:
            images.tofile(partial)
    return _ShardState(
        problems=problems,
        images=images if pair.spool is None else None,
        image_shape=images.shape[1:],
        labels=tuple(first.labels),
        keys=tuple(first.keys),
        poisoned=tuple(first.poisoned),
        digests=tuple(map(sample_digest, images, first.labels)),
    )


def _file_problem(task: tuple[Path, FileRecord]) -> str | None:
    root, record = task
    path = root / record.path
    if not path.is_file():
        return f"{record.path} is missing"
    found = file_record(path)
    if found["size"] != record.size:
        return f"{record.path} has {found['size']} bytes, the manifest says {record.size}"
    return None if found["sha256"] == record.sha256 else f"{record.path} has another sha256 than the manifest says"


def _at(keys: Sequence[str], wrong: np.ndarray) -> list[str]:
    return [keys[index] for index in np.flatnonzero(wrong).tolist()]


def _about(keys: list[str], what: str) -> list[str]:
    return [f"{key} {what}" for key in keys]


def _check(name: str, problems: list[str], good: str) -> Check:
    """A check that passes when there are no problems; names the first few."""
    if not problems:
        return Check(name, True, good)
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return Check(name, False, "; ".join(problems[:SHOWN]) + more)
