"""Places at URLs (``s3://``, ``gs://``, ``https://``, ...) through fsspec: with patience, and errors in one line.

Credentials are those that the backend's own client finds in its environment. Nothing that this module prints or raises
shows what a URL may hold besides its place: a user's name and password, or a signed query.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from ule_datasets.base.errors import InputError
from ule_datasets.base.shown import without_credentials
from ule_datasets.places.patience import until_done

TRIES, TRIES_AT_FIRST = 6, 2
"""How often an action is tried in all; the first one at a place fails sooner, as its URL may be mistyped."""
FIRST_PAUSE = 1.0
"""Seconds before the second attempt; each further pause is twice as long."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP answers after which the same request may succeed a little later."""
LASTING = frozenset({errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENAMETOOLONG, getattr(errno, "EREMCHG", -1)})
"""Numbers of system errors that backends use for refusals: a bad request, another region, not supported."""
WITH_FOLDERS = frozenset({"file", "local", "sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs", "arrow_hdfs", "webdav"})
"""Protocols where a file's folder must be made first; on an object store that might make a bucket."""
WITH_LISTING_CACHE = frozenset({"s3", "s3a", "gs", "gcs"})
"""Protocols that would keep every listing in memory, and miss what others write."""

Result = TypeVar("Result")


def is_remote(where: str) -> bool:
    """Whether a place is a URL, such as ``s3://bucket/folder``; ``hub:OWNER/NAME`` and paths are not."""
    return re.match(r"[A-Za-z][\w+.-]*(::[\w+.-]+)*://", where) is not None


def shown(where: str) -> str:
    """A place as it may be printed: of a URL without user, password and query; anything else as it is."""
    return without_credentials(where) if is_remote(where) else where


def is_http(url: str) -> bool:
    """Whether a URL is one of the web, where every path is a URL too."""
    return _protocol(url) in ("http", "https")


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """A folder at a URL that files are sent to; picklable, any number of processes may use one.

    On an object store a file is there when it is complete, never before. Elsewhere one whose sending was killed may
    have another size than it should; sending it again replaces it. Paths are relative, with ``/``.

    Every method raises ``InputError`` in one line where there is no success after some tries.
    """

    url: str = field(repr=False)

    def __post_init__(self) -> None:
        if not is_remote(self.url):
            raise InputError(f"{self.url!r} is not a URL such as s3://bucket/folder")
        if is_http(self.url):
            raise InputError(f"{self} cannot be written to: give s3://, gs:// or another store")

    def __str__(self) -> str:
        return shown(self.url)

    def check(self) -> None:
        """Write a small file and remove it again, to learn before long work whether that is possible."""
        probe = f".ule-{os.getpid()}-{time.time_ns()}"

        def write(system: Any, base: str) -> None:
            path = f"{base.rstrip('/')}/{probe}"
            _make_folder(system, path)
            system.pipe_file(path, b"?")
            system.rm_file(path)

        attempt(self.url, "", "write to", write, tries=TRIES_AT_FIRST)

    def size(self, path: str) -> int | None:
        """Of a file, in bytes; ``None`` if there is no such file."""

        def look(system: Any, target: str) -> int | None:
            system.invalidate_cache()
            info = system.info(target)
            return None if info["type"] == "directory" else int(info["size"])

        return attempt(self.url, path, "read", _or_none(look))

    def read(self, path: str) -> bytes | None:
        """All of a file; ``None`` if there is no such file."""
        return attempt(self.url, path, "read", _or_none(lambda system, target: bytes(system.cat_file(target))))

    def send(self, local: Path, path: str) -> None:
        """Send a file, in place of what is there, and check that all of it has arrived."""
        size = local.stat().st_size

        def put(system: Any, target: str) -> None:
            _make_folder(system, target)
            system.put_file(str(local), target)
            system.invalidate_cache()
            arrived = system.info(target)["size"]
            if arrived != size:
                raise OSError(errno.EIO, f"{arrived} bytes of {size} have arrived")

        attempt(self.url, path, "write to", put)

    def names(self) -> list[str]:
        """The paths of all files at any depth, sorted; none if there is no such folder."""

        def find(system: Any, base: str) -> list[str]:
            system.invalidate_cache()
            top = base.rstrip("/") + "/"
            return sorted(name.removeprefix(top) for name in system.find(base) if name.startswith(top))

        return attempt(self.url, "", "list", _or_none(find)) or []

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""
        attempt(self.url, path, "write to", _or_none(lambda system, target: system.rm_file(target)))


def attempt(url: str, inner: str, doing: str, action: Callable[[Any, str], Result], *, tries: int = TRIES) -> Result:
    """Do something at a URL or at a path below it, up to ``tries`` times if the reason for a failure may pass.

    The action is called with fsspec's file system, and the path in it; ``doing`` says what it does, for messages, such
    as "read".

    Raises:
        InputError: no success, or the backend's package is not installed; one line without secrets.
    """
    place = f"{shown(url).rstrip('/')}/{inner}" if inner else shown(url)

    def act() -> Result:
        system, base = _file_system(url, os.getpid())
        return action(system, _joined(url, base, inner))

    def pause(raised: Exception, attempts: int) -> float:
        error = _underlying(raised)
        if isinstance(error, InputError) or not _is_foreign(error):
            raise raised
        if attempts == tries or not _may_pass(error):
            # The client's own words may hold secrets: they are not chained.
            raise InputError(_message(error, url, place, doing, attempts)) from None
        return FIRST_PAUSE * 2.0 ** (attempts - 1)

    return until_done(act, pause)


@lru_cache(maxsize=16)
def _file_system(url: str, process: int) -> tuple[Any, str]:
    """The file system of a URL, and the path in it; kept for this process, as its connections are."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise InputError(f"{shown(url)} needs fsspec: pip install 'ule-datasets[remote]'") from error
    options = {"use_listings_cache": False} if _protocol(url) in WITH_LISTING_CACHE else {}
    try:
        system, path = url_to_fs(url, **options)
    except ImportError as error:
        raise InputError(
            f"{shown(url)} needs a package that is not installed: {_words(error, url)} "
            "(pip install 'ule-datasets[remote]' brings those for s3:// and https://)"
        ) from None
    return system, path


def _protocol(url: str) -> str:
    return re.split("::|://", url, maxsplit=1)[0].lower()


def _joined(url: str, base: str, inner: str) -> str:
    """The path of something below the base; over HTTP a path is a URL, whose query stays at its end."""
    if not inner:
        return base
    if not is_http(url):
        return f"{base.rstrip('/')}/{inner}"
    place, mark, query = base.partition("?")
    return f"{place.rstrip('/')}/{quote(inner)}{mark}{query}"


def _or_none(action: Callable[[Any, str], Result]) -> Callable[[Any, str], Result | None]:
    """An action that gives ``None`` where the file is not there."""

    def tolerant(system: Any, path: str) -> Result | None:
        try:
            return action(system, path)
        except FileNotFoundError:
            return None

    return tolerant


def _make_folder(system: Any, path: str) -> None:
    protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
    if protocols & WITH_FOLDERS:
        system.makedirs(path.rpartition("/")[0], exist_ok=True)


# --- errors --------------------------------------------------------------------------------------------------


def _underlying(error: Exception) -> Exception:
    """What went wrong: fsspec's HTTP says "not found" whatever it was."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) and _library(cause) == "aiohttp":
        return cause
    return error


def _library(error: Exception) -> str:
    return type(error).__module__.partition(".")[0]


def _is_foreign(error: Exception) -> bool:
    """Whether a backend or the system raised it, not a mistake of ours."""
    return isinstance(error, (OSError, ValueError, EOFError)) or _library(error) not in ("builtins", "ule_datasets")


def _status(error: Exception) -> int | None:
    """The status of the HTTP answer that an error is about."""
    places = ((error, "status"), (getattr(error, "response", None), "status_code"), (error, "code"))
    numbers = (getattr(owner, name, None) for owner, name in places)
    return next((number for number in numbers if isinstance(number, int) and 400 <= number < 600), None)


def _may_pass(error: Exception) -> bool:
    status = _status(error)
    if status is not None:
        return status in PASSING
    if _is_missing(error) or _is_refusal(error) or isinstance(error, (ValueError, FileExistsError, IsADirectoryError)):
        return False
    if isinstance(error, OSError):
        return error.errno not in LASTING
    return "Validation" not in type(error).__name__


def _is_missing(error: Exception) -> bool:
    return isinstance(error, (FileNotFoundError, NotADirectoryError)) or _status(error) in (404, 410)


def _is_refusal(error: Exception) -> bool:
    refused = isinstance(error, PermissionError) or _status(error) in (401, 403)
    return refused or "Credential" in type(error).__name__


def _message(error: Exception, url: str, place: str, doing: str, number: int) -> str:
    words = _words(error, url)
    if _is_missing(error):
        return f"cannot {doing} {place}: nothing is there" + (f" ({words})" if " " in words else "")
    if _is_refusal(error):
        return (
            f"cannot {doing} {place}: no permission ({words}); credentials are taken from where "
            f"other programs for {_protocol(url)}:// find them (its environment variables and files)"
        )
    if _may_pass(error):
        return f"cannot {doing} {place}: no success in {number} attempts ({words}); the same command continues"
    return f"cannot {doing} {place} ({words})"


def _words(error: Exception, url: str) -> str:
    """What an error says, in one line, without what is secret in the URL."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else type(error).__name__
    words = without_credentials(text)
    for secret in _secrets(url):
        words = words.replace(secret, "***")
    return words


def _secrets(url: str) -> list[str]:
    """What a URL holds besides a place, longest first."""
    found = re.findall(r"://([^/?#\s]+)@", url)
    found += [part for user in found for part in user.split(":", 1)[1:]]
    query = urlsplit(url).query
    found += [query, *(value for _, value in parse_qsl(query) if len(value) > 3)]
    return sorted({part for text in found for part in (text, unquote(text)) if part}, key=len, reverse=True)
