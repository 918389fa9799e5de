"""What a pickle would take, seen from its operations before any of them is carried out."""

from __future__ import annotations

import pickletools

MOST_OPERATIONS = 2**20
"""Each makes one value, of some hundred bytes at most besides its own; a batch of CIFAR-100 has 250,000."""
_LINE, _LINES = pickletools.UP_TO_NEWLINE, -100
_COUNTS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
"""Bytes that say how many follow."""
_SIZES = {ord(each.code): each.arg.n if each.arg else 0 for each in pickletools.opcodes}
"""By operation: bytes of what it is given, or how that is told."""
_SIZES |= dict.fromkeys(b"ci", _LINES)
_STOP, _LONG_PUT = b".r"
_PUTS = frozenset(b"pr")
"""Operations that keep a value under a number, as far as that number may be large."""


def check_pickle(data: bytes) -> None:
    """Refuse what would take much more memory than the data has bytes, whatever it holds.

    That leaves what it calls: an unpickler must know each of these functions, and what they may take.

    Raises:
        ValueError: it is too much, cut off, or no pickle.
    """
    at = 0
    for _ in range(MOST_OPERATIONS):
        if at >= len(data):
            break
        code = data[at]
        size = _SIZES.get(code)
        if size is None:
            raise ValueError("it is no pickle")
        start = at + 1
        at = start + size if size >= 0 else _end(data, start, size)
        if code == _STOP:
            return
        if code in _PUTS and _number(data[start:at], code) > MOST_OPERATIONS:
            raise ValueError("it counts beyond its values")
    raise ValueError("it is cut off" if at >= len(data) else f"it has more than {MOST_OPERATIONS:,} values")


def _end(data: bytes, at: int, size: int) -> int:
    """Where an argument ends that tells so itself."""
    if size in _COUNTS:
        begin = at + _COUNTS[size]
        return begin + int.from_bytes(data[at:begin], "little")
    for _ in range(1 if size == _LINE else 2):
        at = data.find(b"\n", at) + 1 or len(data) + 1
    return at


def _number(argument: bytes, code: int) -> int:
    return int.from_bytes(argument, "little") if code == _LONG_PUT else int(argument)
