"""WebDataset tar shards: plain USTAR with fixed times, owners and modes, so that equal samples give equal bytes.

The headers are made here and not by ``tarfile``: three members per sample would otherwise take longer than
encoding the images (benchmarks/assembly.py).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ule_datasets.base.errors import InputError

BLOCK = tarfile.BLOCKSIZE
SIZE, CHECKSUM = slice(124, 136), slice(148, 156)


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
    encoded, size = name.encode(), b"%011o\0" % len(data)
    if len(encoded) > 100:
        raise InputError(f"{name}: names in a tar shard may have at most 100 bytes")
    header = bytearray(_HEADER)
    header[: len(encoded)] = encoded
    header[SIZE] = size
    header[CHECKSUM] = b"%06o\0 " % (_HEADER_SUM + sum(encoded) + sum(size))
    return b"".join((header, data, bytes(-len(data) % BLOCK)))


def write(
    path: Path,
    encoded: Sequence[bytes],
    labels: Sequence[int],
    keys: Sequence[str],
    poisoned: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Write a shard with ``<key>.png``, ``<key>.cls`` and ``<key>.json`` for every sample."""
    shared = {
        (label, flag): json.dumps({"label": label, "class": name, "poisoned": flag}, ensure_ascii=False)
        for label, name in enumerate(class_names)
        for flag in (False, True)
    }
    with path.open("wb", buffering=2**20) as file:
        for image, label, key, flag in zip(encoded, labels, keys, poisoned.tolist(), strict=True):
            about = f'{{"key": {json.dumps(key)}, {shared[label, flag][1:]}'
            file.write(member(f"{key}.png", image))
            file.write(member(f"{key}.cls", b"%d" % label))
            file.write(member(f"{key}.json", about.encode()))
        file.write(bytes(2 * BLOCK))
        file.write(bytes(-file.tell() % tarfile.RECORDSIZE))
