"""What a Parquet file says it will take, read from its end and its pages' headers before any page is unpacked.

The libraries trust these numbers: a page of a few bytes may become two gigabytes, and a dictionary of one image may
stand for any number of rows. Where a file contradicts itself, ``pyarrow`` ends the process when it is asked about a
column of a row group; so it never is, and the same bytes are read here. What it would take otherwise than it is taken
here is refused.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from ule_datasets.base.limits import TABLE_FOOTER
from ule_datasets.data import thrift
from ule_datasets.data.thrift import I32, I64

UNCOMPRESSED, SNAPPY = 0, 1
"""Codecs."""
DICTIONARY = 2
"""The type of a page with the values that other pages number."""
END = b"PAR1"
LAST_BYTES = 8
"""Of a file: how long the description before them is, and ``END``."""
FOOTER_LOOK = 2**16
"""Bytes of the end of a file that are read at first, which is enough for most."""
FIRST_LOOK, LONGEST_HEADER = 256, 2**24
"""Bytes of a page's header; statistics in it may be long."""
_PAGE = {1: I32, 2: I32, 3: I32}
_COLUMN = {3: {4: I32, 7: I64, 9: I64, 11: I64}}
_FOOTER = {4: [{1: [_COLUMN], 2: I64, 3: I64}]}


class Column(NamedTuple):
    """Where a column of a row group lies."""

    codec: int
    start: int
    packed: int
    """Bytes in the file from there."""


class Group(NamedTuple):
    """A row group."""

    num_rows: int
    unpacked: int
    """Bytes in memory, as the file says."""
    columns: tuple[Column, ...]
    """In the order of the schema's leaves."""


class Table(NamedTuple):
    """A Parquet file that is open."""

    file: Any
    """``pyarrow``'s."""
    names: tuple[str, ...]
    """Of the schema's leaves, each from the root, with dots between."""
    groups: tuple[Group, ...]

    def columns(self, group: int) -> Iterator[tuple[str, Column]]:
        """The columns of a row group with their names.

        Raises:
            PageError: they are more or fewer than the schema's leaves.
        """
        found = self.groups[group].columns
        if len(found) != len(self.names):
            raise PageError(f"row group {group} has {len(found)} columns, not {len(self.names)}")
        return zip(self.names, found, strict=True)


class Page(NamedTuple):
    """What a header says."""

    kind: int
    unpacked: int
    """Bytes in memory."""
    packed: int
    """Bytes in the file after the header."""


class PageError(ValueError):
    """What a file says of itself is damaged."""


def opened(stream: BinaryIO) -> Table:
    """A file, nothing of which is read but its end.

    Raises:
        PageError: what it says of itself is damaged, or beyond a limit.
        OSError, pyarrow.ArrowException: it is not a Parquet file, or cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    end, is_one = _end(stream)
    described = _described(end) if is_one else ()  # first: a library takes memory for what a list says that it has
    metadata = pq.read_metadata(pa.BufferReader(end))
    names = tuple(metadata.schema.column(number).path for number in range(metadata.num_columns))
    return Table(pq.ParquetFile(stream, metadata=metadata), names, described)


def _end(file: BinaryIO) -> tuple[bytes, bool]:
    """What a file says of itself with what is behind it, and True; or else what there is at its end."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - FOOTER_LOOK))
    end = file.read(FOOTER_LOOK)
    length = LAST_BYTES + int.from_bytes(end[-LAST_BYTES : -len(END)], "little")
    if length > size or not end.endswith(END):
        return end, False
    if length <= len(end):
        return end[len(end) - length :], True
    if problem := TABLE_FOOTER.problem(length):
        raise PageError(f"its description of itself {problem}")
    file.seek(size - length)
    return file.read(length - len(end)) + end, True


@functools.lru_cache(maxsize=2)
def _described(end: bytes) -> tuple[Group, ...]:
    """The row groups of a file; kept, because they are read one by one, each by whoever opens the file anew."""
    try:
        found, _ = thrift.read(end, 0, _FOOTER)
        return tuple(_group(values) for values in found[4])
    except (IndexError, KeyError) as error:
        raise PageError("its description of itself is cut off") from error
    except thrift.DamagedError as error:
        raise PageError(f"its description of itself holds {error}") from error


def _group(values: dict[int, Any]) -> Group:
    if min(values[2], values[3]) < 0:
        raise PageError("a row group of negative size")
    return Group(values[3], values[2], tuple(_column(column[3]) for column in values[1]))


def _column(values: dict[int, Any]) -> Column:
    codec, packed, start, dictionary = values[4], values[7], values[9], values.get(11, 0)
    if 0 < dictionary < start:
        start = dictionary
    if min(start, packed) < 0:
        raise PageError("a column of negative size")
    return Column(codec, start, packed)


def pages(file: BinaryIO, column: Column) -> Iterator[Page]:
    """The pages of a column of a row group.

    Raises:
        PageError: a header is damaged.
    """
    place, stop = column.start, column.start + column.packed
    while place < stop:
        page, length = _header(file, place, stop)
        yield page
        place += length + page.packed


def _header(file: BinaryIO, place: int, stop: int) -> tuple[Page, int]:
    """The header at a place, and its length; it ends before the column does."""
    size = FIRST_LOOK
    while True:
        file.seek(place)
        data = file.read(min(size, stop - place))
        try:
            found, length = thrift.read(data, 0, _PAGE)
            kind, unpacked, packed = (found[field] for field in (1, 2, 3))
            if min(kind, unpacked, packed) < 0:
                raise PageError("a page with a negative size")
            return Page(kind, unpacked, packed), length
        except IndexError as error:
            if len(data) < size or size >= LONGEST_HEADER:
                raise PageError("a page's header is cut off") from error
            size *= 8
        except KeyError as error:
            raise PageError("a page without a size") from error
        except thrift.DamagedError as error:
            raise PageError(f"a page's header holds {error}") from error
