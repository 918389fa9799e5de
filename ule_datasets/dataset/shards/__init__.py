"""Shards: which samples go where, and writing one of them in every format from one encoding per image."""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.files import replacing
from ule_datasets.base.names import RelativePath
from ule_datasets.base.regular import open_file
from ule_datasets.base.shown import counted
from ule_datasets.data.bounds import Budget
from ule_datasets.data.codec import encode_png
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.data.split import Split, sample_digest
from ule_datasets.dataset.shards import parquet, webdataset

if TYPE_CHECKING:
    from ule_datasets.dataset.delivery import Delivery

BLOCK_BYTES = 16 * 2**20
"""Of raw pixels that are perturbed and encoded at a time."""
PATTERNS = {
    "parquet": "data/{split}-{index:05d}-of-{count:05d}.parquet",
    "webdataset": "webdataset/{split}-{index:06d}.tar",
}


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ShardTask:
    """Everything a worker needs to write one shard."""

    clean: Split
    """The shard's samples, unperturbed."""
    perturbation: Perturbation | None
    """The part that concerns these samples; ``None`` for a split that stays clean."""
    budget: Budget
    class_names: tuple[str, ...]
    paths: tuple[tuple[str, Path], ...]
    """(format, where to write)."""
    delivery: Delivery | None = None
    """Where to send the files once they are written; ``None``: they stay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardResult:
    """What is known about a written shard; plain values, stored as JSON beside it until the build ends."""

    files: tuple[dict[str, Any], ...]
    """``format``, ``size`` (bytes) and ``sha256`` of each file."""
    sample_digests: tuple[str, ...]
    """Hex, of the written pixels and labels."""
    num_poisoned: int
    arrow_bytes: int
    """Size of the table in memory, which dataset cards call ``num_bytes``."""


def shard_rows(num_samples: int, sample_bytes: int, mebibytes: float) -> list[range]:
    """Split ``range(num_samples)`` into equal consecutive ranges of at most ``mebibytes`` of raw pixels."""
    at_most = max(1, int(mebibytes * 2**20 / sample_bytes))
    count = max(1, math.ceil(num_samples / at_most))
    bounds = [num_samples * index // count for index in range(count + 1)]
    return [range(start, stop) for start, stop in itertools.pairwise(bounds)]


def shard_path(file_format: str, split: str, index: int, count: int) -> RelativePath:
    """Where a shard stands in the dataset folder."""
    return RelativePath(PATTERNS[file_format].format(split=split, index=index, count=count))


def write_shard(task: ShardTask) -> ShardResult:
    """Perturb, check the budget, encode each image once, and write every format atomically.

    An image is encoded as soon as it is perturbed: of the pixels only a block is in memory.
    """
    encoded: list[bytes] = []
    digests: list[bytes] = []
    flags = [np.zeros(0, dtype=bool)]
    for block in task.clean.batches(max(1, BLOCK_BYTES // math.prod(task.clean.images.shape[1:]))):
        images, poisoned = _perturb(task, block)
        encoded += map(encode_png, images)
        digests += map(sample_digest, images, block.labels.tolist())
        flags.append(poisoned)
    poisoned = np.concatenate(flags)
    labels = task.clean.labels.tolist()
    files, arrow_bytes = [], 0
    for file_format, path in task.paths:
        with replacing(path) as partial:
            if file_format == "parquet":
                table = parquet.table_of(encoded, labels, task.clean.keys, poisoned, task.class_names)
                arrow_bytes = table.nbytes
                parquet.write(table, partial)
            else:
                webdataset.write(partial, encoded, labels, task.clean.keys, poisoned, task.class_names)
            files.append({"format": file_format, **file_record(partial)})
    if task.delivery is not None:
        for _, path in task.paths:
            task.delivery.send(path)
    return ShardResult(
        files=tuple(files),
        sample_digests=tuple(digest.hex() for digest in digests),
        num_poisoned=int(poisoned.sum()),
        arrow_bytes=arrow_bytes,
    )


def _perturb(task: ShardTask, clean: Split) -> tuple[np.ndarray, np.ndarray]:
    """The final images of some of a shard's samples, and which of them are poisoned; refused beyond the budget."""
    pixels = clean.pixels()
    if task.perturbation is None:
        return pixels, np.zeros(len(clean), dtype=bool)
    images = task.perturbation.apply(pixels, clean.labels, clean.keys)
    exceeding = task.perturbation.exceeding(pixels, images, clean.labels, clean.keys, task.budget)
    if exceeding:
        bounds = ", ".join(map(str, task.budget))
        raise InputError(
            f"the perturbation exceeds its budget ({bounds}) on {counted(len(exceeding), 'image')}, "
            f"first {clean.keys[exceeding[0]]}"
        )
    return images, task.perturbation.is_poisoned(clean.keys)


def file_record(path: Path) -> dict[str, Any]:
    """Size in bytes and sha256 of a file."""
    with open_file(path) as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
