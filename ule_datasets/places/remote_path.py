"""Sources at URLs: what readers of local files and folders need, done with ranged requests and whole listings."""

from __future__ import annotations

import errno
import hashlib
import html
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePath, PurePosixPath
from posixpath import join
from typing import IO, Any, NamedTuple, TypeVar
from urllib.parse import unquote

from ule_datasets.base.errors import InputError
from ule_datasets.places.urls import TRIES, TRIES_AT_FIRST, attempt, is_http, shown

THREADS = 16
"""Requests at a time, where many are needed."""
BLOCK = 8 * 2**20
"""Bytes that are asked for at a time."""
GAP = 2**13
"""Bytes that are rather fetched as well than left out by another request."""
VERSION_FIELDS = (
    "ETag", "etag", "md5Hash", "Content-MD5", "Digest", "content_settings", "blob_id", "generation",
    "mtime", "LastModified", "Last-Modified", "last_modified", "updated", "modified",
)  # fmt: skip
"""Where the backends say which version of a file it is; the first that is there counts."""

Result = TypeVar("Result")
Item = TypeVar("Item")


def each(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``map`` by ``THREADS`` threads, in order: for functions that mostly wait for answers."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(function, items)


class Entry(NamedTuple):
    """A file or folder as a listing has it."""

    is_folder: bool
    size: int | None
    """Bytes; ``None`` where the listing does not say."""
    version: str
    """Changes with the content; empty where the listing does not say."""


Tree = Mapping[str, Mapping[str, Entry]]
"""By folder, what is directly in it, by name; folders are paths below a common one, which is the empty path."""


@dataclass(frozen=True, slots=True, repr=False)
class RemotePath:
    """A file or folder at a URL, with what readers of sources need of ``pathlib.Path``; immutable, picklable.

    Every method raises ``InputError`` in one line where there is no success after some tries.
    """

    url: str
    """Of the folder that was listed, or of a single file; may hold credentials."""
    inner: str = ""
    """The path below it."""
    size: int | None = None
    """Of a file, in bytes; ``None`` where that is not known yet."""
    version: str = ""
    """Of a file; empty where that is not known yet."""
    tree: Tree | None = field(default=None, compare=False)
    """All that is below the folder that was listed, not taken along to other processes; ``None``: a file."""

    @classmethod
    def at(cls, url: str, file_suffixes: tuple[str, ...]) -> RemotePath:
        """What there is: one file, or a folder with all that is below it.

        Not every server can tell them apart: files have one of ``file_suffixes``.
        """
        place = cls(url)
        if place.name.lower().endswith(file_suffixes):
            size, version = place._looked_up(TRIES_AT_FIRST)
            return cls(url, "", size, version)
        return cls(url, tree=_walk(url))

    def __reduce__(self) -> tuple[type[RemotePath], tuple[str, str, int | None, str]]:
        return RemotePath, (self.url, self.inner, self.size, self.version)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r}, {self.size}, {self.version!r})"

    def __str__(self) -> str:
        place = shown(self.url)
        return f"{place.rstrip('/')}/{self.inner}" if self.inner else place

    def __truediv__(self, other: str | PurePath) -> RemotePath:
        inner = join(self.inner, other if isinstance(other, str) else other.as_posix())
        known = self._entry(inner)
        return RemotePath(self.url, inner, known.size if known else None, known.version if known else "", self.tree)

    @property
    def parts(self) -> tuple[str, ...]:
        """Components of the path as it is shown, for an order."""
        return PurePosixPath(str(self)).parts

    @property
    def name(self) -> str:
        """The last component."""
        path = self.inner or shown(self.url)
        return PurePosixPath(path if self.inner or not is_http(self.url) else unquote(path)).name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The end of the name from its last dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        """The folder that this is in; of the folder that was listed, itself."""
        return RemotePath(self.url, self.inner.rpartition("/")[0], tree=self.tree)

    def relative_to(self, folder: RemotePath) -> PurePosixPath:
        """The path below a folder of the same listing."""
        return PurePosixPath(self.inner).relative_to(folder.inner)

    def is_dir(self) -> bool:
        """Whether the listing has this folder."""
        return self.tree is not None and self.inner in self.tree

    def is_file(self) -> bool:
        """Whether the listing has this file."""
        known = self._entry(self.inner)
        return self.tree is None or (known is not None and not known.is_folder)

    def entries(self) -> Mapping[str, Entry]:
        """What is directly in this folder, by name."""
        return {} if self.tree is None else self.tree.get(self.inner, {})

    def files(self, suffix: str) -> list[RemotePath]:
        """Files with a suffix at any depth below the folder that was listed, sorted."""
        found = [
            join(folder, name)
            for folder, entries in (self.tree or {}).items()
            for name, entry in entries.items()
            if name.endswith(suffix) and not entry.is_folder
        ]
        top = RemotePath(self.url, tree=self.tree)
        return [top / inner for inner in sorted(found, key=lambda path: path.split("/"))]

    def state_of(self, names: Iterable[str]) -> str:
        """A digest of sizes and versions of files below this folder; empty where the listing lacks any."""
        known = [self / name for name in names]
        if any(path.size is None or not path.version for path in known):
            return ""
        return hashlib.sha256(repr([(path.size, path.version) for path in known]).encode()).hexdigest()

    def identity(self) -> tuple[str, int | None, str]:
        """Name, size and version of the file; asks for them where they are not known."""
        size, version = (self.size, self.version) if self.version else self._looked_up()
        return self.name, size, version

    def open(self, mode: str = "rb") -> IO[bytes]:
        """The file for reading from any position, nothing of which is read but what is asked for, in blocks."""
        assert mode == "rb"
        return io.BufferedReader(self.open_unbuffered(), BLOCK)

    def open_unbuffered(self) -> RemoteFile:
        """The file for reading without blocks, for a reader that knows which parts it needs."""
        size = self._looked_up()[0] if self.size is None else self.size
        if size is None:
            raise InputError(f"cannot read {self}: the server does not say how large it is")
        return RemoteFile(self, size)

    def read_bytes(self) -> bytes:
        """All of the file."""
        data: bytes = attempt(self.url, self.inner, "read", lambda system, path: system.cat_file(path))
        if self.size is not None and len(data) != self.size:
            raise InputError(f"cannot read {self}: it has {len(data)} bytes, {self.size} when it was listed")
        return data

    def read_text(self, encoding: str) -> str:
        """All of the file, as text."""
        return self.read_bytes().decode(encoding)

    def read_range(self, start: int, stop: int) -> bytes:
        """Its bytes from ``start`` to ``stop``, which is not beyond its end."""

        def read(system: Any, path: str) -> bytes:
            data: bytes = system.cat_file(path, start=start, end=stop)
            if len(data) > stop - start:
                raise InputError(f"cannot read {self} in parts: its server ignores ranges; download it first")
            if len(data) < stop - start:
                raise OSError(errno.EIO, f"{len(data)} bytes came where {stop - start} were expected")
            return data

        return attempt(self.url, self.inner, "read", read)

    def _entry(self, inner: str) -> Entry | None:
        folder, _, name = inner.rpartition("/")
        return (self.tree or {}).get(folder, {}).get(name)

    def _looked_up(self, tries: int = TRIES) -> tuple[int | None, str]:
        info = attempt(self.url, self.inner, "read", lambda system, path: system.info(path), tries=tries)
        return info.get("size"), _version(info)


class RemoteFile(io.RawIOBase):
    """A file at a URL, open for reading; every read fetches just what is asked for and not yet there."""

    def __init__(self, path: RemotePath, size: int) -> None:
        super().__init__()
        self._path, self._size, self._position = path, size, 0
        self._held: list[tuple[int, memoryview]] = []

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always: it is read in any order."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, which may be beyond the end; nothing is asked for."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the file goes."""
        start = self._position
        view = memoryview(buffer).cast("B")[: max(0, self._size - start)]
        for at, held in self._held:
            if at <= start and start + len(view) <= at + len(held):
                view[:] = held[start - at : start - at + len(view)]
                break
        else:
            self._fill([(start, view)])
        self._position = start + len(view)
        return len(view)

    def fetch(self, spans: Iterable[tuple[int, int]]) -> None:
        """Have some parts of the file at hand, in place of those of the call before: from where, to before where."""
        joined: list[tuple[int, int]] = []
        for start, stop in sorted((start, min(stop, self._size)) for start, stop in spans):
            if joined and start <= joined[-1][1] + GAP:
                start, stop = joined[-1][0], max(stop, joined.pop()[1])
            joined.append((start, max(start, stop)))
        self._held = []
        parts = [(start, memoryview(bytearray(stop - start))) for start, stop in joined]
        self._fill(parts)
        self._held = parts

    def _fill(self, parts: Sequence[tuple[int, memoryview]]) -> None:
        """Read parts of the file, several blocks at a time."""
        pieces = [(start + at, view[at : at + BLOCK]) for start, view in parts for at in range(0, len(view), BLOCK)]

        def fill(piece: tuple[int, memoryview]) -> None:
            at, view = piece
            view[:] = self._path.read_range(at, at + len(view))

        for _ in (each if len(pieces) > 1 else map)(fill, pieces):
            pass


def _walk(url: str) -> Tree:
    """All that is below a folder, level by level, many folders at a time."""
    tree = {"": _listed(url, "", TRIES_AT_FIRST)}
    level = [""]
    while level:
        level = [join(folder, name) for folder in level for name, entry in tree[folder].items() if entry.is_folder]
        tree.update(zip(level, each(lambda inner: _listed(url, inner), level), strict=True))
    return tree


def _listed(url: str, inner: str, tries: int = TRIES) -> dict[str, Entry]:
    """What is directly in a folder, by name."""

    def listed(system: Any, path: str) -> dict[str, Entry]:
        if is_http(url):
            place, mark, query = path.partition("?")
            path = f"{place.rstrip('/')}/{mark}{query}"
        top = path.rstrip("/") + "/"
        found = {}
        for info in system.ls(path, detail=True):
            name = info["name"].removeprefix(top).rstrip("/")
            name = unquote(html.unescape(name)) if is_http(url) else name
            if not re.search(r"[/?]|^\.{0,2}$", name):
                found[name] = Entry(info["type"] == "directory", info.get("size"), _version(info))
        return found

    return attempt(url, inner, "list", listed, tries=tries)


def _version(info: Mapping[str, Any]) -> str:
    return next((f"{name}={info[name]}" for name in VERSION_FIELDS if info.get(name)), "")
