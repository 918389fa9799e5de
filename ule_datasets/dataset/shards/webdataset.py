"""WebDataset tar shards: plain USTAR with fixed times, owners and modes, so that equal samples give equal bytes.

The headers are made here and not by ``tarfile``: three members per sample would otherwise take longer than
encoding the images (benchmarks/assembly.py).
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.regular import open_file
from ule_datasets.dataset.shards.content import ShardContent

BLOCK = tarfile.BLOCKSIZE
NAME, SIZE, CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)
MEMBERS = ("png", "cls", "json")
"""Of every sample, in this order."""
MAX_DIGITS = 10
"""Of a class number."""


def _empty_header() -> bytes:
    """A USTAR header of a read-only file without name and size, from 1970, with blanks for a checksum."""
    info = tarfile.TarInfo()
    info.mode, info.mtime, info.uname, info.gname = 0o444, 0, "ule", "ule"
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[SIZE], header[CHECKSUM] = bytes(12), b" " * 8
    return bytes(header)


_HEADER = _empty_header()
_HEADER_SUM = sum(_HEADER)


def member(name: str, data: bytes) -> bytes:
    """One file of a tar archive: header, content, padding."""
    encoded = name.encode()
    if len(encoded) > 100:
        raise InputError(f"{name}: names in a tar shard may have at most 100 bytes")
    return b"".join((_header(encoded, len(data)), data, bytes(-len(data) % BLOCK)))


def _header(name: bytes, size: int) -> bytes:
    digits = b"%011o\0" % size
    header = bytearray(_HEADER)
    header[: len(name)] = name
    header[SIZE] = digits
    header[CHECKSUM] = b"%06o\0 " % (_HEADER_SUM + sum(name) + sum(digits))
    return bytes(header)


def write(
    path: Path,
    encoded: Sequence[bytes],
    labels: Sequence[int],
    keys: Sequence[str],
    poisoned: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Write a shard with ``<key>.png``, ``<key>.cls`` and ``<key>.json`` for every sample."""
    shared = _shared(class_names)
    with path.open("wb", buffering=2**20) as file:
        for image, label, key, flag in zip(encoded, labels, keys, poisoned.tolist(), strict=True):
            for kind, data in zip(MEMBERS, (image, b"%d" % label, _about(key, shared[label, flag])), strict=True):
                file.write(member(f"{key}.{kind}", data))
        file.write(_end(file.tell()))


def read(path: Path, class_names: Sequence[str]) -> ShardContent:
    """Read a shard back.

    Every header is compared with the one that the writer makes of its name and size: what is left for a hostile file
    are samples. Links, devices, sparse files, other members and their order, times and owners are refused.

    Raises:
        InputError: it is unreadable, or not exactly what ``write`` makes of samples of these classes.
    """
    shared, content = _shared(class_names), ShardContent()
    try:
        with open_file(path, buffering=2**20) as file:
            members = _members(file, path)
            for name, image in members:
                key, _, kind = name.partition(".")
                if kind != MEMBERS[0]:
                    raise InputError(f"{path} holds {name!r}, where the {MEMBERS[0]} member of a sample belongs")
                label, about = (_next(members, f"{key}.{kind}", path) for kind in MEMBERS[1:])
                number, flag = _told(key, label, about, shared, path)
                content.encoded.append(image)
                content.labels.append(number)
                content.keys.append(key)
                content.poisoned.append(flag)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return content


def _members(file: IO[bytes], path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every member, up to an end that is nothing but an end."""
    at, size_of_file = 0, os.fstat(file.fileno()).st_size
    while (header := file.read(BLOCK)) != bytes(BLOCK):
        name, size = header[NAME].rstrip(b"\0"), _size(header)
        shown = name.decode("utf-8", "backslashreplace")
        if len(header) != BLOCK or header != _header(name, size):
            raise InputError(
                f"{path}: the header of {shown!r} is not that of a plain file as we write it: it is a link, a device "
                "or of another kind, has another mode, time or owner, or was cut"
            )
        padding = -size % BLOCK
        at += BLOCK + size + padding
        if at > size_of_file:
            raise InputError(f"{path} was cut: it ends within {shown!r}")
        data = file.read(size)
        if any(file.read(padding)):
            raise InputError(f"{path} holds something behind {shown!r}")
        yield shown, data
    if size_of_file != at + len(end := _end(at)) or header + file.read() != end:
        raise InputError(f"{path} does not end as a tar shard does: it was cut, or holds something behind its end")


def _next(members: Iterator[tuple[str, bytes]], name: str, path: Path) -> bytes:
    """The content of the next member, which must have this name."""
    found, content = next(members, ("", b""))
    if found != name:
        raise InputError(f"{path} holds {found!r} where {name!r} belongs" if found else f"{path} ends without {name!r}")
    return content


def _told(key: str, label: bytes, about: bytes, shared: dict[tuple[int, bool], str], path: Path) -> tuple[int, bool]:
    """Label and flag of a sample, from its small members, which say both, the class and the key in one way only."""
    for flag in (False, True):
        number = int(label) if label.isdigit() and len(label) <= MAX_DIGITS else -1
        if label == b"%d" % number and (number, flag) in shared and about == _about(key, shared[number, flag]):
            return number, flag
    raise InputError(
        f"{path}: {key}.cls and {key}.json hold {label[:20]!r} and {about[:200]!r}, not one of the classes, its name, "
        "the key and whether the image is poisoned"
    )


def _size(header: bytes) -> int:
    digits = header[SIZE].rstrip(b"\0")
    return int(digits, 8) if re.fullmatch(rb"[0-7]{11}", digits) else 0


def _end(length: int) -> bytes:
    """What follows members of so many bytes: two empty blocks, up to a full record."""
    return bytes(2 * BLOCK + -(length + 2 * BLOCK) % tarfile.RECORDSIZE)


def _shared(class_names: Sequence[str]) -> dict[tuple[int, bool], str]:
    """What the ``.json`` members of all samples with one label and flag have in common."""
    return {
        (label, flag): json.dumps({"label": label, "class": name, "poisoned": flag}, ensure_ascii=False)
        for label, name in enumerate(class_names)
        for flag in (False, True)
    }


def _about(key: str, shared: str) -> bytes:
    return f'{{"key": {json.dumps(key)}, {shared[1:]}'.encode()
