"""Reading built shards back: encoded images, labels, keys, poisoned flags, in the order in which they stand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.data.codec import FINISHED, decode_rgb
from ule_datasets.dataset.shards.parquet import COLUMNS
from ule_datasets.sources.webdataset import read_shard


@dataclass(frozen=True, eq=False, slots=True)
class ShardContent:
    """One shard, images still encoded."""

    encoded: list[bytes]
    labels: list[int]
    keys: list[str]
    poisoned: list[bool]


def read_parquet_shard(path: Path) -> ShardContent:
    """Read a Parquet shard; refused if it cannot be read, or has other columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        if tuple(table.schema.names) != COLUMNS:
            raise InputError(f"{path}: columns {table.schema.names}, expected {list(COLUMNS)}")
        encoded = [image["bytes"] for image in table["image"].to_pylist()]
        labels, keys, poisoned = (table[name].to_pylist() for name in COLUMNS[1:])
        return ShardContent(encoded, labels, keys, poisoned)
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a readable Parquet shard: {str(error).splitlines()[0]}") from error


def read_tar_shard(path: Path) -> ShardContent:
    """Read a WebDataset shard; refused if it cannot be read, or has other members."""
    content = ShardContent([], [], [], [])
    for key, parts in read_shard(path):
        try:
            about = json.loads(parts["json"])
            content.encoded.append(parts["png"])
            content.labels.append(int(parts["cls"]))
            content.poisoned.append(bool(about["poisoned"]))
            content.keys.append(key)
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path}: {key} has members {sorted(parts)}: {error!r}") from error
    return content


def decode_images(encoded: list[bytes], origin: str) -> np.ndarray:
    """Decode to uint8 [N, H, W, 3]; refused if one is not a plain RGB PNG, or of another size than the first."""
    images: list[np.ndarray] = []
    for row, data in enumerate(encoded):
        pixels = decode_rgb(data, f"{origin}: image {row}", FINISHED).pixels
        if images and pixels.shape != images[0].shape:
            raise InputError(f"{origin}: image {row} has another size than the first")
        images.append(pixels)
    return np.stack(images) if images else np.empty((0, 0, 0, 3), dtype=np.uint8)
