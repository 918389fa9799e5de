"""How much memory there is, as far as the system tells it, and what does not fit."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from ule_datasets.base.errors import InputError
from ule_datasets.base.limits import number_given

VARIABLE = "ULE_MEMORY"
"""Mebibytes that there are, where the system does not know, or does not know better."""
TORCH = 200 * 2**20
"""Bytes that a process takes that trains with torch on a CPU, besides what it shares with others (docs/scale.md)."""
_INFORMATION = Path("/proc/meminfo")
_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_EVENTS = Path("/proc/vmstat")


class TooLittleMemoryError(InputError):
    """Something is refused that may be intact: there is too little memory for it, or nobody can say how much."""


def available() -> int | None:
    """Bytes that can be taken without pushing anything out; ``None`` where the system does not say."""
    if os.environ.get(VARIABLE, "").strip():
        try:
            return 2**20 * number_given(VARIABLE, 1, "mebibytes")
        except InputError as error:
            raise TooLittleMemoryError(str(error)) from error
    free = [amount for amount in (_of_the_system(), _of_the_group()) if amount is not None]
    return min(free, default=None)


def check_fits(size: int, what: str) -> None:
    """Refuse to take more memory than there is.

    Raises:
        TooLittleMemoryError: it is more.
    """
    free = available()
    if free is not None and size > free:
        raise TooLittleMemoryError(
            f"{beside(size, what)}: free some, use a machine with more, or say with {VARIABLE} (in MiB) how much there "
            "is"
        )


def beside(size: int, what: str) -> str:
    """In words, what takes so much memory, and how much there is."""
    free = available()
    return f"{what} takes {_shown(size)} of memory, {'?' if free is None else _shown(free)} are available"


def kills() -> int | None:
    """How many processes the system has killed for want of memory so far; ``None`` where it does not say."""
    try:
        lines = _EVENTS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _shown(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**29 else f"{size / 2**20:,.1f} MiB"


def _of_the_system() -> int | None:
    try:
        lines = _INFORMATION.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _of_the_group() -> int | None:
    """What a container has left; limits of the groups that it lies in are its own too."""
    try:
        lines = [line.split(":", 2) for line in _OWN_GROUPS.read_text("utf-8").splitlines()]
    except (OSError, ValueError):
        return None
    found = []
    for _, controllers, place in (line for line in lines if len(line) == 3):
        if controllers == "memory":  # of version 1
            root, names = _GROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        elif not controllers:
            root, names = _GROUPS, ("memory.max", "memory.current", "inactive_file")
        else:
            continue
        own = PurePosixPath(place.lstrip("/"))
        found += [_left(root / group, *names) for group in (own, *own.parents)]
    return min((left for left in found if left is not None), default=None)


def _left(folder: Path, limit: str, usage: str, inactive: str) -> int | None:
    """What a group may take, less what it has taken and could not give back."""
    try:
        most = int((folder / limit).read_text("ascii"))  # "max" is no number
        taken = int((folder / usage).read_text("ascii"))
        lines = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
        return max(0, most - taken + int(lines.get(inactive, 0)))
    except (OSError, ValueError):
        return None
