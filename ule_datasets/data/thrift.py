"""Some numbers out of what is written in Thrift's compact protocol; everything else is passed over, and takes nothing.

    read(data, 0, {1: I32, 4: [{3: I64}]})   # field 1, and field 3 of each structure of the list that is field 4

What the protocol's own readers would take otherwise than it is taken here (a field twice, a number of another type,
or beyond its type) is refused, so that what was checked is what they see.
See https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

I32, I64 = 5, 6
DEEPEST = 16
"""Structures and lists within each other."""
_STOP, _TRUE, _FALSE, _BYTE, _I16, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12
_BITS = {I32: 32, I64: 64}
_LENGTHS = {_TRUE: 1, _FALSE: 1, _BYTE: 1, _DOUBLE: 8}
"""Bytes of an element of a list."""
_LAST_FIELD = 2**15 - 1


class DamagedError(ValueError):
    """It is not what is said, or not the protocol."""


def read(data: bytes, at: int, wanted: Mapping[int, Any], depth: int = 0) -> tuple[dict[int, Any], int]:
    """The wanted fields of a structure, as far as it has them, and where it ends.

    Raises:
        DamagedError: it is damaged.
        IndexError: it goes on beyond the data.
    """
    _check(depth)
    found: dict[int, Any] = {}
    field = 0
    while kind := (first := data[at]) & 15:
        at += 1
        if first >> 4:
            field += first >> 4
        else:
            number, at = _varint(data, at)
            field = number >> 1 ^ -(number & 1)
        if not 0 < field <= _LAST_FIELD:
            raise DamagedError("a field that has no number")
        if field not in wanted:
            at = at if kind in (_TRUE, _FALSE) else _skip(data, at, kind, depth)
        elif field in found:
            raise DamagedError("a field twice")
        else:
            found[field], at = _value(data, at, kind, wanted[field], depth)
    return found, at + 1


def _value(data: bytes, at: int, kind: int, wanted: Any, depth: int) -> tuple[Any, int]:
    if isinstance(wanted, int) and kind == wanted:
        number, at = _varint(data, at)
        if number >> _BITS[kind]:
            raise DamagedError("a number beyond its type")
        return number >> 1 ^ -(number & 1), at
    if isinstance(wanted, dict) and kind == _STRUCT:
        return read(data, at, wanted, depth + 1)
    if isinstance(wanted, list) and kind == _LIST:
        size, element, at = _list(data, at)
        if element == _STRUCT or not size:
            values = []
            for _ in range(size):
                value, at = read(data, at, wanted[0], depth + 1)
                values.append(value)
            return values, at
    raise DamagedError("a field of another type")


def _skip(data: bytes, at: int, kind: int, depth: int) -> int:
    """Where a value ends."""
    if kind in (_I16, I32, I64):
        return _varint(data, at)[1]
    if kind == _BINARY:
        length, at = _varint(data, at)
        return _within(data, at + length)
    if kind == _STRUCT:
        return read(data, at, {}, depth + 1)[1]
    if kind in (_LIST, _SET):
        size, element, at = _list(data, at)
        return _skip_all(data, at, (element,), size, depth)
    if kind == _MAP:
        size, at = _varint(data, at)
        return _skip_all(data, at + 1, (data[at] >> 4, data[at] & 15), size, depth) if size else at
    if kind in _LENGTHS:
        return _within(data, at + _LENGTHS[kind])
    raise DamagedError("a value of unknown type")


def _skip_all(data: bytes, at: int, kinds: tuple[int, ...], size: int, depth: int) -> int:
    _check(depth)
    if all(kind in _LENGTHS for kind in kinds):
        return _within(data, at + size * sum(_LENGTHS[kind] for kind in kinds))
    for _ in range(size):
        for kind in kinds:
            at = _skip(data, at, kind, depth + 1)
    return at


def _check(depth: int) -> None:
    if depth > DEEPEST:
        raise DamagedError("structures within structures")


def _list(data: bytes, at: int) -> tuple[int, int, int]:
    """How many elements a list has, of which type, and where they begin."""
    size, element = data[at] >> 4, data[at] & 15
    if size < 15:
        return size, element, at + 1
    size, at = _varint(data, at + 1)
    return size, element, at


def _within(data: bytes, at: int) -> int:
    if at > len(data):
        raise IndexError
    return at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 128:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if shift > 63:
            raise DamagedError("a number without an end")
    return value | data[at] << shift, at + 1
