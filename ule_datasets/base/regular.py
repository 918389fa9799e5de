"""Files that somebody else named: opened only where they are files, and never waited for."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import cast

from ule_datasets.base.errors import InputError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)


def open_file(path: str | Path, buffering: int = -1) -> BufferedReader:
    """A file for reading; whoever waits for a pipe that nobody writes to waits for ever.

    Raises:
        InputError: it is a folder, a pipe, a socket or a device.
        OSError: it is not there, or may not be read.
    """
    return cast("BufferedReader", open(path, "rb", buffering, opener=_open_regular))


def read_file(path: str | Path) -> bytes:
    """All of a file, as ``open_file`` opens it."""
    with open_file(path) as file:
        return file.read()


def check_file(path: str | Path) -> None:
    """Refuse what ``open_file`` refuses, before a library opens it.

    Raises:
        InputError: it is a folder, a pipe, a socket or a device.
        OSError: it is not there.
    """
    _check(path, Path(path).stat().st_mode)


def _open_regular(path: str, flags: int) -> int:
    if not _NO_WAITING:
        check_file(path)
    try:
        descriptor = os.open(path, flags | _NO_WAITING)
    except OSError:
        check_file(path)  # a socket cannot be opened at all
        raise
    try:
        _check(path, os.fstat(descriptor).st_mode)
    except InputError:
        os.close(descriptor)
        raise
    return descriptor


def _check(path: str | Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is {KINDS.get(stat.S_IFMT(mode), 'no file')}, where a file is expected")
