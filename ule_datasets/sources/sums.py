"""Whether a file is the one that its owners give out: by its md5, which is all that they say of it."""

from __future__ import annotations

import hashlib
from typing import IO

from ule_datasets.base.errors import InputError

PIECE = 2**20


def refuse_other(data: bytes, md5: str, origin: object) -> None:
    """Refuse content that has another md5; any will do where none is said.

    Raises:
        InputError: it is damaged, or another file.
    """
    if md5:
        _compare(hashlib.md5(data, usedforsecurity=False).hexdigest(), md5, origin)


def refuse_other_file(file: IO[bytes], md5: str, origin: object) -> None:
    """Refuse an open file that has another md5, a piece in memory at a time; it is at its start again afterwards.

    Raises:
        InputError: it is damaged, or another file.
    """
    if not md5:
        return
    found = hashlib.md5(usedforsecurity=False)
    while piece := file.read(PIECE):
        found.update(piece)
    file.seek(0)
    _compare(found.hexdigest(), md5, origin)


def _compare(found: str, md5: str, origin: object) -> None:
    if found != md5:
        raise InputError(f"{origin} is not the official file: its md5 is {found}, expected {md5}; download it again")
