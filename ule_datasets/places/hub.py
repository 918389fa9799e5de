"""The Hugging Face Hub: names of repositories, downloads into its own cache, errors in words, patience.

This module and ``publish`` are the only ones that talk to the Hub.
"""

from __future__ import annotations

import glob
import posixpath
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.places.answers import NOT_UNDERSTOOD, guard, not_understood
from ule_datasets.places.patience import until_done

PREFIX = "hub:"
REPOSITORY = re.compile(r"(?:hub:)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*?)(?:@([\w./-]+))?")
"""``OWNER/NAME[@REVISION]``, with or without ``hub:`` before it."""
PASSING = frozenset({408, 409, 412, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed a little later."""
TRIES, LONGEST_WAIT = 7, 300.0
EXACT = 500
"""Files that are asked for one by one."""
Result = TypeVar("Result")


def parse_repository(where: str) -> tuple[str, str | None] | None:
    """Repository and revision, where the text can be one; ``None`` otherwise (a path on this machine, a name)."""
    found = REPOSITORY.fullmatch(where)
    return (found[1], found[2]) if found else None


def download(repository: str, revision: str | None, patterns: Sequence[str], *, elsewhere: str = "") -> Path:
    """The local folder of the files whose paths in a dataset repository, ``OWNER/NAME``, match the patterns (globs).

    Files that are already in the cache are not fetched again, so an interrupted download goes on with the
    first file that it lacks; with ``HF_HUB_OFFLINE=1`` only the cache is used. The revision is a branch, tag or commit,
    or ``None`` for the default branch; ``elsewhere``, what else the user could do, ends the error messages.

    Raises:
        InputError: no network and not in the cache, or no such repository or revision.
    """
    from huggingface_hub import snapshot_download

    with readable_errors(repository, revision, elsewhere):
        folder = snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=list(patterns))
    return Path(folder)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A dataset repository at one commit."""

    repository: str
    folder: Path
    """Where its files are on this machine, as far as they were fetched."""
    sizes: dict[str, int]
    """Bytes of all its files, by path."""

    def fetch(self, paths: Collection[str], elsewhere: str) -> None:
        """Bring some of its files here, and perhaps others like them.

        Raises:
            InputError: there is no room for them, or as ``download`` does.
        """
        lacking = sum(self.sizes[path] for path in paths if not (self.folder / path).exists())
        there = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        if (free := shutil.disk_usage(there).free) < lacking:
            raise InputError(
                f"{self.repository} takes {lacking / 1e9:.1f} GB more, {there} has room for {free / 1e9:.1f} GB: "
                f"free some, set HF_HUB_CACHE to a folder with more, {elsewhere}"
            )
        download(self.repository, self.folder.name, _patterns(paths), elsewhere=elsewhere)


def look_up(repository: str, revision: str | None, first: Sequence[str], *, elsewhere: str = "") -> Snapshot:
    """What is in a dataset repository, of which only some files (globs) are fetched at first.

    Raises:
        InputError: as ``download`` does.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.hf_api import RepoFile

    folder = download(repository, revision, first, elsewhere=elsewhere)
    entries = _kept_listing(repository, folder.name)
    if entries is None:
        if constants.HF_HUB_OFFLINE:
            files = [path for path in folder.rglob("*") if path.is_file()]
            here = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
            return Snapshot(repository, folder, here)
        with readable_errors(repository, revision, elsewhere):
            listed = HfApi().list_repo_tree(repository, recursive=True, revision=folder.name, repo_type="dataset")
            entries = [entry for entry in listed if isinstance(entry, RepoFile)]
    return Snapshot(repository, folder, {entry.path: entry.size for entry in entries})


def _kept_listing(repository: str, commit: str) -> Iterable[Any] | None:
    """The files of a repository as the client noted them in its cache; ``None``: it did not."""
    try:
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError:  # clients before 2.4 keep none
        return None
    try:
        return get_cached_repo_tree(repository, repo_type="dataset", revision=commit)
    except CachedRepoTreeNotFoundError:  # an older client filled the cache, or it cannot be written to
        return None


def _patterns(paths: Collection[str]) -> list[str]:
    """What the Hub's client takes to mean these files; of many only folder and suffix, as it compares all with all."""
    if len(paths) <= EXACT:
        return [glob.escape(path) for path in paths]
    by_suffix: dict[str, list[str]] = {}
    for path in paths:
        by_suffix.setdefault(PurePosixPath(path).suffix, []).append(posixpath.dirname(path))
    folders = {suffix: posixpath.commonpath(found) for suffix, found in by_suffix.items()}
    return [f"{glob.escape(posixpath.join(folder, ''))}*{glob.escape(suffix)}" for suffix, folder in folders.items()]


@contextmanager
def readable_errors(
    repository: str, revision: str | None, elsewhere: str = "", *, doing: str = "download"
) -> Iterator[None]:
    """Turn the client's errors into one line each; none of them carries a token."""
    from huggingface_hub import errors

    unreachable = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, http_error(), OSError)
    also = f", {elsewhere}" if elsewhere else ""
    guard()
    try:
        yield
    except InputError:
        raise
    except errors.GatedRepoError as error:
        raise InputError(
            f"{repository} is gated: accept its terms on its page and log in with 'hf auth login'{also} "
            f"(the Hub says: {first_line(error)})"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{repository} has no revision {revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(f"the Hub has no dataset {repository!r} that you may read; check the name{also}") from error
    except errors.HFValidationError as error:
        raise InputError(f"{repository!r} does not name a dataset: use OWNER/NAME{also}") from error
    except unreachable as error:
        if status_of(error) == 403:
            raise InputError(f"the Hub does not let you {doing} {repository}: {first_line(error)}{also}") from error
        raise InputError(
            f"cannot {doing} {repository} ({first_line(error)}); run the same command again to resume{also}"
        ) from error
    except NOT_UNDERSTOOD as error:
        raise not_understood(error, f"cannot {doing} {repository}", also) from error


def check_online(doing: str) -> None:
    """Refuse at once what cannot be done offline, or with such a token."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise InputError(f"cannot {doing} while HF_HUB_OFFLINE is set: unset it first")
    guard()


def http_error() -> type[Exception]:
    """The HTTP library's own base error; which library that is depends on the version of huggingface_hub."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))


def status_of(error: Exception) -> int | None:
    """The status of the answer that an error is about; ``None``: there was no answer.

    Errors of the Xet client carry it only in their text.
    """
    response = getattr(error, "response", None)
    if response is not None:
        return int(response.status_code)
    written = re.search(r"\((\d{3}) [A-Z]", str(error))
    return int(written[1]) if written else None


def first_line(error: Exception) -> str:
    """What an error says: the server's words, else the first line that says something, else its name."""
    words = getattr(error, "server_message", None)
    lines = [line for line in str(words or error).splitlines() if line.strip() and "Request ID" not in line]
    return lines[0].strip() if lines else type(error).__name__


def patiently(action: Callable[[], Result], *, what: str, reporter: Reporter) -> Result:
    """Do something on the Hub; when it is busy, limits the rate or does not answer, wait as told and try again.

    Raises:
        InputError: still no success after some minutes; says how to continue.
    """

    def pause(raised: Exception, attempts: int) -> float:
        # The client wraps an error in a RuntimeError when its own patience has ended.
        error = raised.__cause__ if isinstance(raised, RuntimeError) else raised
        if not isinstance(error, (http_error(), ConnectionError, TimeoutError)):
            raise raised
        status = status_of(error)
        if status is not None and status not in PASSING:
            raise error from raised
        reason = f"the Hub answers {status}" if status else f"no answer ({first_line(error)})"
        if attempts == TRIES:
            raise InputError(f"{what}: {reason}; the same command continues where it stopped") from error
        seconds = min(LONGEST_WAIT, _told_to_wait(error) or 2.0 ** (attempts - 1))
        reporter.say(f"{what}: {reason}; trying again in {seconds:.0f} s")
        return seconds

    return until_done(action, pause)


def _told_to_wait(error: Exception) -> float | None:
    """Seconds that the server asks for: ``Retry-After``, or the ``t`` of its ``RateLimit`` header."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    told = response.headers.get("Retry-After", "")
    limit = re.search(r";t=(\d+)", response.headers.get("RateLimit", ""))
    if told.isdigit():
        return float(told)
    return float(limit[1]) if limit and status_of(error) == 429 else None
