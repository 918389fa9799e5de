"""Files that are either absent (or old) or complete, whenever the process ends; folders of them that stay small."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""Suffix of a file that is being written."""
ABANDONED = 86_400.0
"""Seconds after which a file that a killed process left half written is deleted."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to that becomes ``path`` when the block ends, and vanishes when it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file, and make sure that it has reached the disk before it takes its name."""
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def cache_folder() -> Path:
    """``$ULE_CACHE``, else ``ule-datasets`` in the user's cache folder."""
    if chosen := os.environ.get("ULE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ule-datasets"


def mark_used(path: Path) -> None:
    """Let ``make_room`` keep a file for longer."""
    with contextlib.suppress(OSError):  # a folder that others maintain may be read-only
        os.utime(path)


def make_room(newest: Path, largest: int) -> None:
    """Delete those that were not used for longest of the files with one suffix beside a new one, beyond some bytes.

    What killed processes left half written there goes too.
    """
    for leftover in newest.parent.glob(f".*{PARTIAL}"):
        if time.time() - leftover.stat().st_mtime > ABANDONED:
            leftover.unlink(missing_ok=True)
    kept = newest.stat().st_size
    others = [(file.stat(), file) for file in newest.parent.glob(f"*{newest.suffix}") if file != newest]
    for state, file in sorted(others, key=lambda entry: -entry[0].st_mtime):
        kept += state.st_size
        if kept > largest:
            file.unlink(missing_ok=True)
