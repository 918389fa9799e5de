"""What the pages of a Parquet file say they will take, read from their headers before any of them is unpacked.

The libraries trust these headers: a page of a few bytes may become two gigabytes, and a dictionary of one image may
stand for any number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

DICTIONARY = 2
"""The type of a page with the values that other pages number."""
FIRST_LOOK, LONGEST_HEADER = 256, 2**24
"""Bytes of a header; statistics in it may be long."""
_DEEPEST = 8
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12


class Page(NamedTuple):
    """What a header says."""

    kind: int
    unpacked: int
    """Bytes in memory."""
    packed: int
    """Bytes in the file after the header."""


class PageError(ValueError):
    """A header is damaged."""


def pages(file: BinaryIO, column: Any) -> Iterator[Page]:
    """The pages of a column chunk, given its metadata as ``pyarrow`` reads it.

    Raises:
        PageError: a header is damaged.
    """
    place = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset is not None:
        place = min(place, column.dictionary_page_offset)
    stop = place + column.total_compressed_size
    while place < stop:
        page, length = _header(file, place)
        yield page
        place += length + page.packed


def _header(file: BinaryIO, place: int) -> tuple[Page, int]:
    """The header at a place, and its length."""
    size = FIRST_LOOK
    while True:
        file.seek(place)
        data = file.read(size)
        try:
            found, length = _struct(data, 0, 0)
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


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, int], int]:
    """The numbers directly in a structure of Thrift's compact protocol by their fields, and where it ends."""
    if depth > _DEEPEST:
        raise PageError("a page's header is nested too deeply")
    found: dict[int, int] = {}
    field = 0
    while (first := data[at]) != _STOP:
        at += 1
        if first >> 4:
            field += first >> 4
        else:
            field, at = _number(data, at)
        value, at = _value(data, at, first & 15, depth)
        found[field] = value
    return found, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[int, int]:
    """A number, or 0 for anything else, and where it ends."""
    if kind in (_TRUE, _FALSE):
        return 0, at
    if kind == _STRUCT:
        return 0, _struct(data, at, depth + 1)[1]
    if kind == _BINARY:
        length, at = _varint(data, at)
        return 0, _within(data, at + length)
    if kind == _DOUBLE:
        return 0, _within(data, at + 8)
    if kind == _BYTE:
        return data[at], at + 1
    if kind in (_LIST, _SET, _MAP):
        raise PageError("a page's header holds what none holds")
    return _number(data, at)


def _within(data: bytes, at: int) -> int:
    if at > len(data):
        raise IndexError
    return at


def _number(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return value >> 1 ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 128:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if shift > 63:
            raise PageError("a number in a page's header has no end")
    return value | data[at] << shift, at + 1
