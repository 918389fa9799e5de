"""Files that are either absent (or old) or complete, whenever the process or the power ends; folders that stay small.

What is complete is also on the disk: its content before it takes its name, its name before anything that vouches for
it can be written. That costs two waits for the disk a file, one for its content and one for its folder, and one for
each folder that is made; ``SYNCS`` counts them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ule_datasets.base.errors import InputError

PARTIAL = ".partial"
"""Suffix of a file that is being written."""
ABANDONED = 86_400.0
"""Seconds after which a file that a killed process left half written is deleted."""
NO_SYNC_OF_FOLDERS = frozenset({errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOTSUP, errno.EPERM})
"""How systems say that they cannot be asked to keep a folder (Windows, some network disks): they do it as they like."""


@dataclass(slots=True)
class Syncs:
    """How often, and for how many seconds, this process has waited for a disk."""

    files: int = 0
    folders: int = 0
    seconds: float = 0.0


SYNCS = Syncs()


def sync(path: Path) -> None:
    """Wait until a file's content, or which names a folder holds, would outlast a loss of power."""
    is_folder, started = path.is_dir(), time.perf_counter()
    try:
        handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if not is_folder or error.errno not in NO_SYNC_OF_FOLDERS:
            raise
    SYNCS.seconds += time.perf_counter() - started
    if is_folder:
        SYNCS.folders += 1
    else:
        SYNCS.files += 1


def make_folder(path: Path) -> None:
    """Make a folder, and those that it is in; what is new is on the disk.

    Raises:
        NotADirectoryError: there is a file where a folder should be.
    """
    if not path.is_dir():
        make_folder(path.parent)
        try:
            path.mkdir(exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error
        sync(path.parent)


@contextmanager
def replacing(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """A path to write to that becomes ``path`` when the block ends, and vanishes when it fails.

    After the block it is on the disk; of a file that is not ``lasting``, and goes with this process, nobody waits for
    that.
    """
    make_folder(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    partial.unlink(missing_ok=True)  # a link would be written through
    try:
        yield partial
        if lasting:
            sync(partial)
        partial.replace(path)
        if lasting:
            sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def remove(path: Path) -> None:
    """Delete a file, if it is there, before anything else happens."""
    if path.exists():
        path.unlink()
        sync(path.parent)


def remove_tree(path: Path) -> None:
    """Delete whatever stands at a path; of a link the link, and nothing of what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):  # a read-only disk refuses to delete even what is not there
        path.unlink(missing_ok=True)


def refuse_links(*paths: Path) -> None:
    """Refuse links where something is about to be written or deleted behind them.

    Raises:
        InputError: one of the paths is a link.
    """
    for path in paths:
        if path.is_symlink():
            raise InputError(
                f"{path} is a link to {path.readlink()}: nothing is written or deleted behind it; remove the link, or "
                "choose another folder"
            )


def refuse_unwritable(folder: Path, option: str) -> None:
    """Refuse a folder, there or to be made, that nothing can be written to, before there is something to write.

    Raises:
        InputError: a file is in its place, or this user may not write there; names the option that chooses another.
    """
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return
    why = "is no folder" if not there.is_dir() else "is read-only"
    raise InputError(f"nothing can be written to {folder}: {there} {why}; choose another folder with {option}")


def expanded(where: str | Path) -> Path:
    """A path whose ``~`` or ``~user`` is the folder of that user.

    Raises:
        InputError: there is no such user.
    """
    try:
        return Path(where).expanduser()
    except RuntimeError as error:
        raise InputError(f"{where}: there is no user of that name on this machine") from error


def cache_folder() -> Path:
    """``$ULE_CACHE``, else ``ule-datasets`` in the user's cache folder."""
    if chosen := os.environ.get("ULE_CACHE"):
        return expanded(chosen)
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ule-datasets"


def mark_used(path: Path) -> None:
    """Let ``make_room`` keep a file for longer."""
    with contextlib.suppress(OSError):  # a folder that others maintain may be read-only
        if not path.is_symlink():
            os.utime(path)


def sweep(folder: Path, pattern: str = f".*{PARTIAL}", *, after: float = ABANDONED) -> None:
    """Delete what killed processes left in a folder, half written or for themselves, once it is certainly nobody's.

    That is so many seconds after it was last written to.
    """
    for leftover in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # another process sweeps as well
            if time.time() - leftover.lstat().st_mtime > after:
                remove_tree(leftover)


def make_room(newest: Path, largest: int) -> None:
    """Delete those that were not used for longest of the files with one suffix beside a new one, beyond some bytes.

    What killed processes left half written there goes too.
    """
    sweep(newest.parent)
    kept = newest.stat().st_size
    others = [(file.lstat(), file) for file in newest.parent.glob(f"*{newest.suffix}") if file != newest]
    for state, file in sorted(others, key=lambda entry: -entry[0].st_mtime):
        kept += state.st_size
        if kept > largest:
            file.unlink(missing_ok=True)
