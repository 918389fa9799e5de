"""Whether the samples are what the manifest says, in every format, and whether the perturbation can have made them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.files import replacing
from ule_datasets.base.options import FORMATS
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.executor import Executor
from ule_datasets.data.split import KEY_DIGITS, Split, canonical_order, order_free_digest, poisoned_keys, sample_digest
from ule_datasets.data.spool import Images, SpooledImages
from ule_datasets.dataset.integrity.check import Check, about, at, differing
from ule_datasets.dataset.integrity.description import Folder
from ule_datasets.dataset.integrity.files import shards_of
from ule_datasets.dataset.shards.reading import SampleForm, check_samples, decode_images, read_shard


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class BuiltSplit(Split):
    """A split of the dataset under test, decoded, in the order in which it stands there."""

    poisoned: np.ndarray
    strange: tuple[str, ...]
    """Keys of samples that were left alone, and are not the images that their keys tell of."""


@dataclass(frozen=True, slots=True)
class _ShardPair:
    """The files that hold one shard: one or both formats."""

    split: str
    paths: tuple[Path, ...]
    form: SampleForm
    spool: Path | None
    """Where the decoded pixels go; ``None``: they stay in memory."""


@dataclass(frozen=True, eq=False, slots=True)
class _ShardState:
    """What reading a shard showed."""

    problems: list[str]
    images: np.ndarray | None = None
    """uint8 [N, H, W, 3]; ``None``: they are in the spool file."""
    labels: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()
    poisoned: tuple[bool, ...] = ()
    digests: tuple[bytes, ...] = ()


def check_content(
    folder: Folder, executor: Executor, reporter: Reporter, spool: Path | None = None
) -> tuple[dict[str, BuiltSplit], list[Check]]:
    """Encoding, schema, counts, keys, order, flags, agreement of the formats, and the digest of pixels and labels.

    With ``spool``, a folder that all workers see, the decoded pixels stand there instead of in memory.
    """
    pairs = list(_pairs(folder, spool))
    states = executor.map(_read_pair, pairs, on_lost=reporter.warn)
    by_split: dict[str, list[tuple[_ShardPair, _ShardState]]] = {name: [] for name in folder.manifest.splits}
    label, unit = "reading shards", "shard"
    states = reporter.track(states, total=len(pairs), label=label, unit=unit, images=lambda state: len(state.keys))
    for pair, state in zip(pairs, states, strict=True):
        by_split[pair.split].append((pair, state))
    splits, checks = {}, []
    for name, parts in by_split.items():
        problems = [problem for _, state in parts for problem in state.problems]
        if problems or not parts:
            checks.append(Check.of(f"{name}: shards", problems or ["no shards"], ""))
        else:
            splits[name] = _joined(name, parts)
            checks += _content_checks(splits[name], folder)
    return splits, checks


def _pairs(folder: Folder, spool: Path | None) -> Iterator[_ShardPair]:
    """The shards of every split; both formats hold the same samples in the same shards."""
    manifest = folder.manifest
    form = SampleForm(class_names=manifest.class_names, image_shape=manifest.image_shape)
    for name in manifest.splits:
        by_format = [shards_of(manifest, file_format, name) for file_format in FORMATS]
        for index in range(max(map(len, by_format))):
            paths = tuple(folder.root / paths[index] for paths in by_format if index < len(paths))
            decoded = None if spool is None else spool / f"{name}-{index:06d}.rgb"
            yield _ShardPair(name, paths, form, decoded)


def _read_pair(pair: _ShardPair) -> _ShardState:
    """Read one shard in both formats, compare them, decode once."""
    first = pair.paths[0]
    try:
        content, *others = (read_shard(path, pair.form.class_names) for path in pair.paths)
        check_samples(content, pair.form, str(first))
        images = decode_images(content.encoded, str(first))
    except InputError as error:
        return _ShardState([str(error)])
    problems = [
        f"{first} and {path} differ in their {what}"
        for path, other in zip(pair.paths[1:], others, strict=True)
        for what in ("keys", "labels", "poisoned", "encoded")
        if getattr(content, what) != getattr(other, what)
    ]
    if pair.spool is not None:
        with replacing(pair.spool, lasting=False) as partial:
            images.tofile(partial)
    return _ShardState(
        problems=problems,
        images=images if pair.spool is None else None,
        labels=tuple(content.labels),
        keys=tuple(content.keys),
        poisoned=tuple(content.poisoned),
        digests=tuple(map(sample_digest, images, content.labels)),
    )


def _joined(name: str, parts: Sequence[tuple[_ShardPair, _ShardState]]) -> BuiltSplit:
    states = [state for _, state in parts]
    images: Images
    if parts[0][0].spool is None:
        images = np.concatenate([state.images for state in states if state.images is not None])
    else:
        files = [(pair.spool, len(state.keys)) for pair, state in parts if pair.spool is not None]
        images = SpooledImages.in_files(files, parts[0][0].form.image_shape)
    return BuiltSplit(
        name=name,
        images=images,
        labels=np.array([label for state in states for label in state.labels], dtype=np.int64),
        keys=tuple(key for state in states for key in state.keys),
        digest=order_free_digest(digest for state in states for digest in state.digests),
        poisoned=np.array([flag for state in states for flag in state.poisoned], dtype=bool),
        strange=tuple(strange for state in states for strange in _strange(state)),
    )


def _strange(state: _ShardState) -> Iterator[str]:
    """Keys of unperturbed samples that do not begin with the digest of pixels and label."""
    for key, flag, digest in zip(state.keys, state.poisoned, state.digests, strict=True):
        if not flag and key.partition("-")[0] != digest.hex()[:KEY_DIGITS]:
            yield key


def _content_checks(split: BuiltSplit, folder: Folder) -> list[Check]:
    name, record, count = split.name, folder.manifest.splits[split.name], len(split)
    numbers = differing(count, record.num_examples, "images, in number:")
    numbers += differing(int(split.poisoned.sum()), record.num_poisoned, "poisoned images, in number:")
    if twice := count - len(set(split.keys)):
        numbers.append(f"{twice} keys appear twice")
    ordered = bool((canonical_order(split.keys) == np.arange(count)).all())
    wrong = differing(split.digest, record.digest, "digest is")
    if name != "train":
        wrong += differing(split.digest, folder.manifest.source_digests.get(name), "digest, as of the clean split, is")
    if folder.recipe.source.keyed_by is None:
        wrong += about(split.strange, "is not the clean image, or has not the label, that its key tells of")
    return [
        Check.of(f"{name}: samples", numbers, f"{count:,}, each key once"),
        Check.of(f"{name}: order", [] if ordered else ["samples do not stand in order of their keys"], "canonical"),
        Check.of(f"{name}: pixels and labels", wrong, f"digest {split.digest}"),
        Check.of(f"{name}: poisoned flags", _flag_problems(split, folder), "as the perturbation says"),
    ]


def _flag_problems(split: BuiltSplit, folder: Folder) -> list[str]:
    """Samples that are flagged otherwise than the perturbation tells, and what it perturbs although it is not there."""
    if split.name != "train":
        return about(at(split.keys, split.poisoned), "is wrongly flagged")
    perturbation, here = folder.perturbation, set(split.keys)
    named = {key for layer in perturbation.layers for key in layer.keys}.union(perturbation.poisoned or ())
    chosen = poisoned_keys(split.keys, folder.recipe.poison_rate, Seed(folder.recipe.seed))
    others = set(split.keys if chosen is None else chosen) ^ set(perturbation.poisoned or split.keys)
    return [
        *about(sorted(others), "is poisoned in one of recipe and perturbation only"),
        *about(at(split.keys, perturbation.is_poisoned(split.keys) != split.poisoned), "is wrongly flagged"),
        *about(sorted(named - here), "is perturbed, but missing"),
    ]
