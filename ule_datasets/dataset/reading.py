"""Who reads a finished dataset, so that nobody replaces it meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ule_datasets.base.errors import InputError
from ule_datasets.dataset.manifest import FILE_NAME


@contextmanager
def being_verified(folder: Path) -> Iterator[None]:
    """Hold a shared advisory lock on a dataset's manifest; it ends with the process, however that ends.

    Nothing is written, so it may stand on a read-only disk. Where there are no locks, none is held.
    """
    try:
        import fcntl
    except ImportError:  # Windows: see BuildFolder's own lock
        yield
        return
    if not (folder / FILE_NAME).is_file():  # no dataset, which whoever reads it says
        yield
        return
    with (folder / FILE_NAME).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # a build asks at this moment, or the disk knows no locks: reading goes on without one
            yield
            return
        yield


def refuse_while_verified(folder: Path) -> None:
    """Refuse to replace a dataset while a verification of it is at work on this machine.

    Raises:
        InputError: one is.
    """
    try:
        import fcntl
    except ImportError:
        return
    path = folder / FILE_NAME
    if not path.is_file():
        return
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"a verification of {folder} is at work; wait for it to end, or choose another --out"
            ) from error
        except OSError:  # the disk knows no locks, so nobody holds one
            return
