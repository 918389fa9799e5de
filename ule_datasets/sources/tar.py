"""Members of a tar archive, plain or compressed with gzip, as a stream: nothing is extracted, nothing is trusted.

``tarfile`` reads the headers but does not walk: it takes a damaged header for the end of the archive, so that what
follows would be lost without a word; it fills the holes of sparse members and reads extended headers of any size into
memory.
"""

from __future__ import annotations

import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

from ule_datasets.base.errors import InputError
from ule_datasets.base.regular import open_file
from ule_datasets.base.signatures import GZIP, HEAD, mistaken
from ule_datasets.places.remote_path import RemotePath
from ule_datasets.sources.forms import Place

SUFFIXES = (".tar", ".tar.gz", ".tgz")
BLOCK = tarfile.BLOCKSIZE
LARGEST_EXTENSION = 2**20
"""Bytes of an extended header or a long name, of which a path is a part."""
LARGEST_FILE = 2**50
LONGEST_PADDING = 2**20
"""Bytes of zeros that end an archive: the largest record that tar programs write."""
TAR = slice(257, 262)
"""Where a header says what it is, but for the oldest."""
FILES = tarfile.REGULAR_TYPES
EXTENSIONS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
NOT_FILES = {
    tarfile.LNKTYPE: "is a link to another member: archive it with --hard-dereference",
    tarfile.SYMTYPE: "is a symbolic link: archive what it leads to (tar --dereference)",
    tarfile.CHRTYPE: "is a device",
    tarfile.BLKTYPE: "is a device",
    tarfile.FIFOTYPE: "is a named pipe",
}
SPARSE = "is a sparse file: archive it without --sparse"
_RECORD = re.compile(rb"(\d{1,7}) ([^=\n]+)=")


class DamagedError(Exception):
    """The archive cannot be read from here on; says why."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member that is no folder; what it holds is there until the next one is asked for."""

    name: str
    size: int
    problem: str
    """Why it is no file with content of its own; empty: it is one."""
    stream: IO[bytes]

    def read(self) -> bytes:
        """Its content."""
        data = self.stream.read(self.size)
        if len(data) < self.size:
            raise DamagedError(f"it is cut off within {self.name} (an incomplete download?)")
        return data


@contextmanager
def opened(path: Place) -> Iterator[Iterator[Member]]:
    """The members of the archive, read on as they are asked for.

    Raises:
        DamagedError: it is not intact; those of its members that are were given before.
        InputError: the file cannot be read, or is something else.
    """
    try:
        with path.open("rb") if isinstance(path, RemotePath) else open_file(path) as file:
            head = file.read(HEAD)
            file.seek(0)
            kind = None if head[TAR] == b"ustar" or head.startswith(GZIP) else mistaken(head)
            if kind is not None:
                raise InputError(f"{path} is not a tar archive, but {kind}")
            yield members(cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if head.startswith(GZIP) else file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedError(f"its compressed data breaks off ({error}): an incomplete download?") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def members(stream: IO[bytes]) -> Iterator[Member]:
    """The members of an archive from its start; skips what is not read of them.

    Raises:
        DamagedError: it is not intact.
    """
    while (header := _header(stream)) is not None:
        info, problem = header
        size = info.size if info.type in FILES or info.type not in tarfile.SUPPORTED_TYPES else 0
        start = stream.tell()
        if not info.isdir():
            yield Member(info.name, size, problem, stream)
        stream.seek(start + _padded(size))
    _check_end(stream)


def _header(stream: IO[bytes]) -> tuple[tarfile.TarInfo, str] | None:
    """The next header with what the extended ones before it say, and what is wrong; ``None`` at the end mark."""
    extended: dict[str, str] = {}
    problem = ""
    while True:
        info = _plain_header(stream)
        if info is None:
            return None
        if info.type not in LONG and info.type not in (*EXTENSIONS, tarfile.XGLTYPE):
            break
        if info.size > LARGEST_EXTENSION:
            problem = f"is described by a header of {info.size:,} bytes, more than any name takes"
            stream.seek(_padded(info.size), os.SEEK_CUR)
        elif info.type == tarfile.XGLTYPE:
            stream.seek(_padded(info.size), os.SEEK_CUR)
        else:
            content = stream.read(_padded(info.size))[: info.size]
            extended |= _records(content) if info.type in EXTENSIONS else {LONG[info.type]: _text(content)}
    info.name = (extended.get("GNU.sparse.name") or extended.get("path", "")).rstrip("/") or info.name
    if "size" in extended:
        text = extended["size"]
        info.size = _check_size(int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1)
    if info.type == tarfile.GNUTYPE_SPARSE:
        _skip_map(stream, info)
    if info.type == tarfile.GNUTYPE_SPARSE or any(name.startswith("GNU.sparse.") for name in extended):
        return info, SPARSE
    return info, problem or ("" if info.type in FILES else NOT_FILES.get(info.type, "is no file"))


def _plain_header(stream: IO[bytes]) -> tarfile.TarInfo | None:
    """The next header as it stands; ``None`` at the end mark."""
    block = stream.read(BLOCK)
    if len(block) < BLOCK:
        raise DamagedError("it is cut off: it lacks the end mark of a tar archive (an incomplete download?)")
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if not any(block):
            return None
        place = stream.tell() - BLOCK
        raise DamagedError(
            f"a header in it is damaged at byte {place:,}" if place else "it does not begin as a tar archive does"
        ) from error
    _check_size(info.size)
    return info


def _skip_map(stream: IO[bytes], info: tarfile.TarInfo) -> None:
    """Pass over what lists further holes of a sparse member of the old kind."""
    more = bool(info._sparse_structs[1])  # type: ignore[attr-defined]
    while more:
        block = stream.read(BLOCK)
        more = len(block) == BLOCK and bool(block[504])


def _check_end(stream: IO[bytes]) -> None:
    """Refuse anything but zeros after the end mark, and more of them than fill up a record."""
    end = stream.tell() - BLOCK
    padding = 0
    while data := stream.read(2**16):
        padding += len(data)
        if data.count(0) < len(data):
            raise DamagedError(
                f"there is more after its end mark at byte {end:,} (two archives in one file?): unpack it with "
                "tar --ignore-zeros, and pack it anew"
            )
        if padding > LONGEST_PADDING:
            raise DamagedError(f"it is empty from byte {end:,} on (an incomplete download?)")


def _records(content: bytes) -> dict[str, str]:
    """What an extended header says."""
    found: dict[str, str] = {}
    place = 0
    while place < len(content) and content[place]:
        match = _RECORD.match(content, place)
        stop = place + int(match[1]) if match else 0
        if match is None or not match.end() < stop <= len(content) or content[stop - 1 : stop] != b"\n":
            raise DamagedError("an extended header in it is damaged")
        found[_text(match[2])] = _text(content[match.end() : stop - 1])
        place = stop
    return found


def _check_size(size: int) -> int:
    if not 0 <= size < LARGEST_FILE:
        raise DamagedError("a header in it is damaged: no file has such a size")
    return size


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return size + -size % BLOCK
