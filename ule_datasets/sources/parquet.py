"""Parquet shards with an encoded-image column and usually a label column, as the Hub stores image datasets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ule_datasets.base.errors import InputError
from ule_datasets.base.limits import IMAGE_FILE
from ule_datasets.base.regular import open_file
from ule_datasets.base.signatures import HEAD, mistaken
from ule_datasets.places.remote_path import RemotePath, each
from ule_datasets.sources.forms import UNLABELLED, Chunk, Form, Place, RawSample, Unusable, Wanted, chosen_files
from ule_datasets.sources.tree import Tally, Tree

IMAGE_COLUMNS = ("image", "img")
SUFFIX = ".parquet"
LABEL_COLUMNS = ("label", "labels", "fine_label")
MOST_ROWS = 1000
"""In memory at a time."""
BATCH_BYTES = 2**30
"""Of encoded images in memory at a time, or one image that is larger."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group of one file."""

    path: Place
    index: int
    image_column: str
    label_column: str | None
    """``None``: the images have no labels."""

    def samples(self) -> Iterator[RawSample | Unusable]:
        """Decode nothing: hand out the image bytes as they stand in the file, a few rows in memory at a time."""
        columns = [name for name in (self.image_column, self.label_column) if name is not None]
        with _opened(self.path) as file:
            at_a_time = _rows_at_a_time(file.metadata.row_group(self.index))
            batches = file.iter_batches(at_a_time, row_groups=[self.index], columns=columns, use_threads=False)
            rows = (values for batch in batches for values in zip(*(batch[name] for name in columns), strict=True))
            for row, values in enumerate(rows):
                origin = f"{self.path} (row group {self.index}, row {row})"
                try:
                    yield self._sample(origin, *(value.as_py() for value in values))
                except UnicodeDecodeError:
                    yield Unusable(f"{origin} has a name or label that is not UTF-8")

    def _sample(self, origin: str, image: Any, label: Any = 0) -> RawSample | Unusable:
        if image is None:
            return Unusable(f"{origin} has no image: {self.image_column!r} is null")
        path = image.get("path") if isinstance(image, dict) else None
        content = image["bytes"] if isinstance(image, dict) else image
        if content is None:
            return Unusable(f"{origin} has no image bytes: the file points to images on another machine")
        if label is None:
            return Unusable(f"{origin} has no label: {self.label_column!r} is null")
        if not isinstance(label, int | float) or label != label // 1:
            return Unusable(f"{origin} has label {label!r}; labels must be class numbers")
        if problem := IMAGE_FILE.problem(len(content)):
            return Unusable(f"{origin}: its image {problem}")
        # Some tools store bytes as lists of numbers.
        return RawSample(bytes(content), int(label), origin, PurePosixPath(path).stem if path else "")


def _rows_at_a_time(group: Any) -> int:
    """So few that memory is bounded, however many rows a dictionary of some images stands for."""
    columns = (group.column(index) for index in range(group.num_columns))
    largest = max((column.total_uncompressed_size for column in columns), default=0)
    return min(MOST_ROWS, max(1, BATCH_BYTES // max(1, largest)))


def find(tree: Tree, wanted: Wanted) -> Form | None:
    """The Parquet files of a source, or ``None``.

    Of a validation and a test split, the test split is left out if its labels are withheld (all -1, or missing).

    Raises:
        InputError: one is unreadable or has no images, or they disagree about the classes or on having labels.
    """
    if SUFFIX not in tree.first:
        return None
    tally = Tally(tree.passed_over)
    chosen = chosen_files(tree, (SUFFIX,), wanted, tally, lambda path: not _labels_are_withheld(path))
    chunks: dict[str, list[Chunk]] = {name: [] for name in chosen.splits}
    class_names: tuple[str, ...] | None = None
    seen: dict[bool, Place] = {}  # the first file with labels, and the first without
    advice = ""
    files = [(split, tree.at(path)) for split, paths in chosen.splits.items() for path in paths]
    opened = (each if isinstance(tree.root, RemotePath) else map)(_schema, [path for _, path in files])
    for (split, path), (schema, num_row_groups) in zip(files, opened, strict=True):
        image_column = _image_column(path, schema)
        label_column = _find_column(schema, LABEL_COLUMNS)
        seen.setdefault(label_column is not None, path)
        if len(seen) > 1:
            raise InputError(f"{seen[True]} has a label column, {seen[False]} has none of {LABEL_COLUMNS}")
        advice = f"give a label column (one of {LABEL_COLUMNS}; found {schema.names})"
        names = UNLABELLED if label_column is None else _class_names(path, schema, label_column)
        if class_names is not None and names is not None and names != class_names:
            raise InputError(f"{path} has other class names than the files before it: {names}")
        class_names = names or class_names
        chunks[split].extend(RowGroup(path, index, image_column, label_column) for index in range(num_row_groups))
    shards = {name: tuple(groups) for name, groups in chunks.items()}
    return Form("Parquet shards", shards, class_names, advice, tally.found, chosen.notes)


@contextmanager
def _opened(path: Place) -> Iterator[Any]:
    """The file, nothing of which is read but its end and what is asked for."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    remote = isinstance(path, RemotePath)
    try:
        with path.open_unbuffered() if isinstance(path, RemotePath) else open_file(path) as stream:
            try:
                yield pq.ParquetFile(stream, pre_buffer=remote)
            except (OSError, pa.ArrowException) as error:
                stream.seek(0)
                kind = mistaken(stream.read(HEAD) or b"")
                if kind is not None and not kind.startswith("a Parquet"):
                    raise InputError(f"{path} is not a Parquet file, but {kind}") from error
                raise
    except (OSError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path} is not a readable Parquet file (truncated download?): {reason}") from error


def _schema(path: Place) -> tuple[Any, int]:
    """Of a file, and how many row groups it has."""
    with _opened(path) as file:
        return file.schema_arrow, file.num_row_groups


def _labels_are_withheld(path: Place) -> bool:
    """Whether a file has a column of class numbers, and -1 or nothing in all of it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    schema, _ = _schema(path)
    name = _find_column(schema, LABEL_COLUMNS)
    if name is None or not (pa.types.is_integer(schema.field(name).type) or pa.types.is_null(schema.field(name).type)):
        return False
    with _opened(path) as file:
        return pc.max(file.read(columns=[name])[name]).as_py() in (None, -1)


def _find_column(schema: Any, candidates: tuple[str, ...]) -> str | None:
    return next((name for name in candidates if name in schema.names), None)


def _image_column(path: Place, schema: Any) -> str:
    """The image column, checked to hold encoded images."""
    import pyarrow as pa

    name = _find_column(schema, IMAGE_COLUMNS)
    if name is None:
        raise InputError(f"{path} has no image column: expected one of {IMAGE_COLUMNS}, found {schema.names}")
    kind = schema.field(name).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not _holds_bytes(kind):
        raise InputError(
            f"{path}: column {name!r} holds {kind}, not encoded images (binary, or a struct with bytes): write it anew "
            "with the contents of the image files"
        )
    return name


def _holds_bytes(kind: Any) -> bool:
    """Whether values of an Arrow type may be encoded images."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return bool(pa.types.is_uint8(kind.value_type))
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return pa.types.is_null(kind) or any(test(kind) for test in tests)


def _class_names(path: Place, schema: Any, label_column: str) -> tuple[str, ...] | None:
    """Class names from the Hugging Face metadata of the schema, if it has any."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return None
    try:
        names = json.loads(text)["info"]["features"][label_column].get("names")
        return tuple(map(str, names)) if names else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: the Hugging Face metadata in its schema is damaged: {error!r}") from error
