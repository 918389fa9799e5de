"""Parquet shards as the Hugging Face libraries write them: features in the schema, images stored as they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ule_datasets.base.errors import InputError
from ule_datasets.base.regular import open_file
from ule_datasets.data.parquet_pages import DICTIONARY, SNAPPY, UNCOMPRESSED, PageError, Table, opened, pages
from ule_datasets.dataset.shards.content import ShardContent

ROWS_PER_GROUP = 1000
"""The unit in which readers stream and filter; 2 to 3 MB of 32 x 32 images."""
CHUNKING = {"min_chunk_size": 256 * 1024, "max_chunk_size": 1024 * 1024, "norm_level": 0}
"""Content-defined page boundaries, as ``datasets`` sets them: an edited dataset re-uploads only what changed."""
ROWS_AT_A_TIME = 100
EXPANDED, SMALL = 4, 2**20
"""So many times the bytes of a file, and so many more, are as much as its rows take in memory; keys are compressed."""
COLUMNS = ("image", "label", "key", "poisoned")
UNPACKED, NUMBERED = "image.bytes", "label"
"""The column that is stored as it is, and the one whose values are numbered."""
DESCRIBED_BY = {b"ARROW:schema", b"huggingface"}
"""Keys of a file's metadata."""


def features(class_names: Sequence[str]) -> dict[str, Any]:
    """The columns in the notation of the Hugging Face metadata."""
    return {
        "image": {"_type": "Image"},
        "label": {"names": list(class_names), "_type": "ClassLabel"},
        "key": {"dtype": "string", "_type": "Value"},
        "poisoned": {"dtype": "bool", "_type": "Value"},
    }


def schema(class_names: Sequence[str]) -> pa.Schema:
    """The Arrow schema with the features in its metadata."""
    fields = [
        pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])),
        pa.field("label", pa.int64()),
        pa.field("key", pa.string()),
        pa.field("poisoned", pa.bool_()),
    ]
    info = json.dumps({"info": {"features": features(class_names)}})
    return pa.schema(fields, metadata={"huggingface": info})


def table_of(
    encoded: Sequence[bytes],
    labels: Sequence[int],
    keys: Sequence[str],
    poisoned: np.ndarray,
    class_names: Sequence[str],
) -> pa.Table:
    """The shard as an Arrow table."""
    paths = pa.array([f"{key}.png" for key in keys], pa.string())
    image = pa.StructArray.from_arrays([pa.array(encoded, pa.binary()), paths], ["bytes", "path"])
    columns = [image, pa.array(labels, pa.int64()), pa.array(keys, pa.string()), pa.array(poisoned)]
    return pa.Table.from_arrays(columns, schema=schema(class_names))


def write(table: pa.Table, path: Path) -> None:
    """Write a table; PNG bytes are not compressed again."""
    pq.write_table(
        table,
        path,
        row_group_size=ROWS_PER_GROUP,
        compression={UNPACKED: "NONE", **dict.fromkeys(("image.path", *COLUMNS[1:]), "SNAPPY")},
        use_dictionary=[NUMBERED],
        write_page_index=True,
        use_content_defined_chunking=CHUNKING,
    )


def read(path: Path, class_names: Sequence[str]) -> ShardContent:
    """Read a shard back.

    Raises:
        InputError: it is unreadable, or not exactly what ``write`` makes of samples of these classes.
    """
    try:
        with open_file(path) as stream:
            file = opened(stream)
            _check_described(file.file, path, class_names)
            _check_bounded(file, path, stream)
            table = _rows(file, path)
            table.validate(full=True)  # that text is UTF-8 is not asked before it is looked at
    except (OSError, pa.ArrowException, UnicodeDecodeError, PageError) as error:
        raise InputError(f"{path} is not a readable Parquet shard: {str(error).splitlines()[0]}") from error
    if not table.num_rows:
        return ShardContent()
    image, label, key, poisoned = (table[name].chunk(0) for name in COLUMNS)
    encoded, names = image.field("bytes"), image.field("path")
    if any(column.null_count for column in (image, label, key, poisoned, encoded, names)):
        raise InputError(f"{path} has rows without an image, image path, label, key or flag")
    wrong = pc.not_equal(names, pc.binary_join_element_wise(key, "png", "."))
    if (first := pc.index(wrong, True).as_py()) >= 0:
        raise InputError(
            f"{path}: {key[first]} has the image path {names[first].as_py()[:100]!r}, not its key and .png"
        )
    return ShardContent(*(column.to_pylist() for column in (encoded, label, key, poisoned)))


def _rows(table: Table, path: Path) -> pa.Table:
    """All rows; refused where they take much more memory than the file has bytes, before they have taken it.

    Images are stored as they are, so they cannot.
    """
    most, batches, held = EXPANDED * path.stat().st_size + SMALL, [], 0
    if sum(group.unpacked for group in table.groups) <= most:
        for batch in table.file.iter_batches(ROWS_AT_A_TIME, use_threads=False):
            held += batch.nbytes
            if held > most:
                break
            batches.append(batch)
        else:
            return pa.Table.from_batches(batches, table.file.schema_arrow).combine_chunks()
    raise InputError(f"{path} stands for more than {most / 2**20:,.0f} MiB, which no shard of its size does")


def _check_described(file: pq.ParquetFile, path: Path, class_names: Sequence[str]) -> None:
    """Refuse other columns, types, class names or features than the writer's, before any row is read."""
    found, wanted = file.schema_arrow, schema(class_names)
    if not found.equals(wanted, check_metadata=False):
        columns = ", ".join(f"{field.name} {field.type}" for field in found)
        raise InputError(f"{path} has other columns than a dataset of ours: {columns[:200]}")
    others = set(file.metadata.metadata or {}) - DESCRIBED_BY
    if others or not found.equals(wanted, check_metadata=True):
        raise InputError(f"{path} has other class names or features in its metadata than the manifest says")


def _check_bounded(table: Table, path: Path, stream: BinaryIO) -> None:
    """Refuse what would take far more memory than the file has bytes, before any row is read.

    Every image takes bytes of the file, since none is packed or stands for several rows.
    """
    packed = InputError(f"{path} is packed otherwise than the writer of its format does it")
    if sum(group.num_rows for group in table.groups) * 4 > path.stat().st_size:  # each image has a length
        raise packed
    for group in range(len(table.groups)):
        for name, column in table.columns(group):
            if column.codec != (UNCOMPRESSED if name == UNPACKED else SNAPPY):
                raise packed
            if name != NUMBERED and any(page.kind == DICTIONARY for page in pages(stream, column)):
                raise packed
