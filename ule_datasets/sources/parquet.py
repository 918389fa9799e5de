"""Parquet shards with an encoded-image column and usually a label column, as the Hub stores image datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ule_datasets.base import records
from ule_datasets.base.errors import InputError
from ule_datasets.base.limits import IMAGE_FILE, TABLE_PAGE
from ule_datasets.base.memory import check_fits
from ule_datasets.base.regular import open_file
from ule_datasets.base.shown import few
from ule_datasets.base.signatures import HEAD, mistaken
from ule_datasets.data.parquet_pages import Column, PageError, Table, opened, pages
from ule_datasets.places.remote_path import RemoteFile, RemotePath, each
from ule_datasets.sources.forms import UNLABELLED, Chunk, Form, Place, RawSample, Wanted, chosen_files
from ule_datasets.sources.own import refuse_perturbed_table
from ule_datasets.sources.splits import TRAIN, refuse_other_spellings
from ule_datasets.sources.tree import Tally, Tree, stem_of, suffix_of
from ule_datasets.sources.unusable import Unusable

IMAGE_COLUMNS = ("image", "img")
SUFFIX = ".parquet"
LABEL_COLUMNS = ("label", "labels", "fine_label")
MOST_CLASSES = 2**16
"""Of labels that are texts; captions are more."""
MOST_ROWS = 1000
"""In memory at a time."""
ROWS_AT_A_TIME = 64
"""That become Python's values together, which is twice as fast as one by one."""
SHOWN = 6
"""Columns that are named."""
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
    class_names: tuple[str, ...] | None = None
    """In the order of their numbers, where labels are texts."""

    def samples(self) -> Iterator[RawSample | Unusable]:
        """Decode nothing: hand out the image bytes as they stand in the file, a few rows in memory at a time."""
        columns = [name for name in (self.image_column, self.label_column) if name is not None]
        numbers = {name: number for number, name in enumerate(self.class_names or ())}
        place, most = f"{self.path} (row group {self.index}, row", IMAGE_FILE.bytes
        with _opened(self.path) as file:
            rows = (row for batch in file.batches(self.index, columns) for row in _rows(batch, columns))
            for row, values in enumerate(rows):
                origin = f"{place} {row})"
                if values is None:
                    yield Unusable(origin, " has a name or label that is not UTF-8")
                else:
                    yield self._sample(origin, most, numbers, *values)

    def _sample(
        self, origin: str, most: int, numbers: Mapping[str, int], content: Any, path: Any, label: Any = 0
    ) -> RawSample | Unusable:
        if content is None and path:
            return Unusable(origin, " has no image bytes: the file points to images on another machine")
        if content is None:
            return Unusable(origin, f" has no image: {self.image_column!r} is null")
        if label is None or label == "":
            return Unusable(origin, f" has no label: {self.label_column!r} is {'null' if label is None else 'empty'}")
        number = _number(label, numbers)
        if number is None:
            return Unusable(origin, f" has label {label!r}; labels must be class numbers")
        if len(content) > most:
            return Unusable(origin, f": its image {IMAGE_FILE.problem(len(content))}")
        # Some tools store bytes as lists of numbers.
        return RawSample(bytes(content), number, origin, stem_of(path) if isinstance(path, str) else "")


def _number(label: Any, numbers: Mapping[str, int]) -> int | None:
    """The number of a class; ``None``: it is none."""
    if isinstance(label, str):
        return numbers.get(label) if numbers or not _is_number(label) else int(label)
    return int(label) if isinstance(label, int | float) and label == label // 1 else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20


def _rows(batch: Any, columns: Sequence[str]) -> Iterator[tuple[Any, ...] | None]:
    """Of each row the image's bytes and path, and the label; ``None`` for one with a text that is none.

    Some rows become Python's values at a time.
    """
    image, *label = (batch[name] for name in columns)
    parts = [*_bytes_and_path(image), *label]
    for start in range(0, batch.num_rows, ROWS_AT_A_TIME):
        some = [values.slice(start, ROWS_AT_A_TIME) for values in parts]
        try:
            yield from zip(*(values.to_pylist() for values in some), strict=True)
        except UnicodeDecodeError:
            for values in zip(*some, strict=True):
                try:
                    yield tuple(value.as_py() for value in values)
                except UnicodeDecodeError:
                    yield None


def _bytes_and_path(image: Any) -> tuple[Any, Any]:
    """The two columns that an image column is made of, where no struct becomes a dictionary; it may lack paths."""
    import pyarrow as pa

    absent = pa.nulls(len(image))
    if not pa.types.is_struct(image.type):
        return image, absent
    fields = dict(zip((field.name for field in image.type), image.flatten(), strict=True))  # null where the struct is
    return fields["bytes"], fields.get("path", absent)


@dataclass(frozen=True, slots=True)
class _File:
    """What a file says about itself."""

    path: Place
    num_row_groups: int
    image_column: str
    label_column: str | None
    class_names: tuple[str, ...] | None
    """By its metadata."""
    texts: bool
    """Whether its labels are texts."""
    columns: tuple[str, ...]


def example(tree: Tree) -> str | None:
    """The first Parquet file of a source."""
    return tree.first.get(SUFFIX)


def find(tree: Tree, wanted: Wanted) -> Form | None:
    """The Parquet files of a source, or ``None``.

    Of a validation and a test split, the test split is left out if its labels are withheld (all -1, or missing).

    Raises:
        InputError: one is unreadable or has no images, or they disagree about the classes or on having labels.
    """
    if SUFFIX not in tree.first:
        return None
    tally = Tally(tree.passed_over)
    chosen = chosen_files(tree, _is_shard, wanted, tally, lambda path: not _labels_are_withheld(path))
    places = [(split, tree.at(path)) for split, paths in chosen.splits.items() for path in paths]
    looked_at = list((each if isinstance(tree.root, RemotePath) else map)(_look, [path for _, path in places]))
    class_names = _agreed(tree, [(split, file) for (split, _), file in zip(places, looked_at, strict=True)])
    texts = class_names if looked_at[0].texts else None
    shards: dict[str, list[Chunk]] = {name: [] for name in chosen.splits}
    for (split, path), file in zip(places, looked_at, strict=True):
        if split == TRAIN:
            refuse_perturbed_table(file.columns, path)
        groups = range(file.num_row_groups)
        shards[split] += (RowGroup(path, index, file.image_column, file.label_column, texts) for index in groups)
    notes = (*_columns_used(looked_at), *chosen.notes)
    advice = f"give a label column (one of {LABEL_COLUMNS}; found {list(looked_at[0].columns)})"
    chunks = {name: tuple(groups) for name, groups in shards.items()}
    return Form("Parquet shards", chunks, class_names, advice, tally.found, notes, chosen.names)


def _columns_used(files: Sequence[_File]) -> Iterator[str]:
    """Which columns hold images and labels, where there are others that could."""
    others: dict[tuple[str, str | None], dict[str, None]] = {}
    for file in files:
        used = file.image_column, file.label_column
        others.setdefault(used, {}).update((name, None) for name in file.columns if name not in used)
    for (image, label), names in others.items():
        if names:
            labels = "there are no labels" if label is None else f"labels are in {label!r}"
            unused = few([repr(name) for name in names], SHOWN)
            yield f"images are in the column {image!r}, {labels}; not used: {unused}"


def _is_shard(path: str) -> bool:
    return suffix_of(path) == SUFFIX


def _agreed(tree: Tree, by_split: Sequence[tuple[str, _File]]) -> tuple[str, ...] | None:
    """The class names: what is said of the column elsewhere, or by all files; ``None`` where they have numbers only."""
    files = [file for _, file in by_split]
    labels = {file.label_column is not None: file.path for file in files}
    if len(labels) > 1:
        raise InputError(f"{labels[True]} has a label column, {labels[False]} has none of {LABEL_COLUMNS}")
    kinds = {file.texts: file.path for file in files}
    if len(kinds) > 1:
        raise InputError(f"{kinds[True]} has labels that are texts, {kinds[False]} has numbers")
    if files[0].label_column is None:
        return UNLABELLED
    names = tree.class_names.get(files[0].label_column)
    if files[0].texts:
        texts: dict[str, set[str]] = {}
        for split, file in by_split:
            _add_texts(texts.setdefault(split, set()), file)
        refuse_other_spellings(texts, tree.root)
        found = sorted(set[str]().union(*texts.values()))
        numbers = all(map(_is_number, found))
        if names is not None and (numbers or set(found) <= set(names)):
            return names
        return None if numbers else tuple(found)
    if names is not None:
        return names
    class_names: tuple[str, ...] | None = None
    for file in files:
        if class_names is not None and file.class_names is not None and file.class_names != class_names:
            raise InputError(f"{file.path} has other class names than the files before it: {file.class_names}")
        class_names = file.class_names or class_names
    return class_names


def _add_texts(found: set[str], file: _File) -> None:
    """Add all classes that the labels of a file speak of."""
    import pyarrow.compute as pc

    assert file.label_column is not None
    with _opened(file.path) as it:
        for group in range(file.num_row_groups):
            for batch in it.batches(group, [file.label_column]):
                try:
                    found |= set(pc.unique(batch[file.label_column]).to_pylist()) - {None, ""}
                except UnicodeDecodeError as error:
                    raise InputError(f"{file.path}: {file.label_column!r} has a text that is not UTF-8") from error
            if len(found) > MOST_CLASSES:
                raise InputError(
                    f"{file.path}: {file.label_column!r} has more than {MOST_CLASSES:,} different texts, which are "
                    "no classes (captions?): give a column of class numbers or names"
                )


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file that is open."""

    path: Place
    stream: Any
    table: Table

    def batches(self, group: int, columns: Sequence[str]) -> Iterator[Any]:
        """Rows, so few at a time that a dictionary of some images cannot stand for more than memory holds.

        Raises:
            InputError: a page takes more than is allowed, or its header is damaged.
        """
        if self.table.groups[group].num_rows == 0:  # it has no pages to look at
            return
        wanted = [column for name, column in self.table.columns(group) if name.split(".")[0] in columns]
        if isinstance(self.stream, RemoteFile):
            check_fits(sum(column.packed for column in wanted), f"row group {group} of {self.path}")
            self.stream.fetch((column.start, column.start + column.packed) for column in wanted)
        largest = self._largest_page(wanted)
        if problem := TABLE_PAGE.problem(largest):
            raise InputError(f"{self.path}: a page of row group {group} {problem}")
        at_a_time = min(MOST_ROWS, max(1, BATCH_BYTES // largest))
        yield from self.table.file.iter_batches(at_a_time, row_groups=[group], columns=columns, use_threads=False)

    def _largest_page(self, columns: Sequence[Column]) -> int:
        """Its bytes, at least 1; no value is larger than the page that it is in."""
        found = (page.unpacked for column in columns for page in pages(self.stream, column))
        return max(found, default=0) or 1


@contextmanager
def _opened(path: Place) -> Iterator[_Opened]:
    """The file, nothing of which is read but its end and what is asked for."""
    import pyarrow as pa

    try:
        there: Any = path.open_unbuffered() if isinstance(path, RemotePath) else open_file(path)
        with there as stream:
            try:
                yield _Opened(path, stream, opened(stream))
            except (OSError, PageError, UnicodeDecodeError, pa.ArrowException) as error:
                stream.seek(0)
                kind = mistaken(stream.read(HEAD) or b"")
                if kind is not None and not kind.startswith("a Parquet"):
                    raise InputError(f"{path} is not a Parquet file, but {kind}") from error
                raise
    except PageError as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a readable Parquet file: it has a name that is not UTF-8") from error
    except (OSError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path} is not a readable Parquet file (truncated download?): {reason}") from error


def _look(path: Place) -> _File:
    """What a file says about itself.

    Raises:
        InputError: it is unreadable, or has no images.
    """
    with _opened(path) as file:
        schema, num_row_groups = file.table.file.schema_arrow, len(file.table.groups)
    image_column, label_column = _image_column(path, schema), _find_column(schema, LABEL_COLUMNS)
    names = None if label_column is None else _class_names(path, schema, label_column)
    kind = None if label_column is None else schema.field(label_column).type
    texts = kind is not None and _is_text(kind)
    if kind is not None and not (texts or _is_number_type(kind)):
        raise InputError(f"{path}: column {label_column!r} holds {kind}; labels must be class numbers or names")
    return _File(path, num_row_groups, image_column, label_column, names, texts, tuple(schema.names))


def _is_text(kind: Any) -> bool:
    """Whether an Arrow type is that of texts."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _is_number_type(kind: Any) -> bool:
    """Whether values of an Arrow type may be class numbers, or nothing at all."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_number_type(kind.value_type)
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    return any(test(kind) for test in tests)


def _labels_are_withheld(path: Place) -> bool:
    """Whether a file has a column of class numbers, and -1 or nothing in all of it."""
    import pyarrow as pa

    with _opened(path) as file:
        schema = file.table.file.schema_arrow
        name = _find_column(schema, LABEL_COLUMNS)
        kind = None if name is None else schema.field(name).type
        if name is None or not (pa.types.is_integer(kind) or pa.types.is_null(kind)):
            return False
        batches = (batch for group in range(len(file.table.groups)) for batch in file.batches(group, [name]))
        return all(label in (None, -1) for batch in batches for label in batch[name].to_pylist())


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
    origin = f"{path}: the Hugging Face metadata in its schema is damaged"
    features = records.parse(_Metadata, text, origin).info.features
    if label_column not in features:
        raise InputError(f"{origin}: it has no {label_column!r}")
    return records.convert(_Feature, features[label_column], f"{origin}: {label_column}").names or None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Feature:
    names: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Info:
    features: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Metadata:
    """As ``datasets`` writes it, as far as class names are concerned."""

    info: _Info
