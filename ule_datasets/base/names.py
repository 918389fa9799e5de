"""Names and paths that come from files or servers, checked before any path is formed with them.

What a manifest, a recipe, a server or an archive calls something is a ``Name`` (one part of a path) or a
``RelativePath`` (parts joined by ``/``). Both are text, so they are used, compared and written as such; making one is
the check, so a value of these types can be joined to a folder without leaving it, on every system. What is read by
``ule_datasets.base.records`` is checked by declaring the field with the type.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Self

from ule_datasets.base.errors import InputError
from ule_datasets.base.shown import joined

FEW = 6
"""So many names are all told to whoever gives another one."""
NEAR = 3
"""So many that are like it, at most, of more names."""
LIKE = 0.6
"""How like a name another one must be, of ``difflib``'s 0 to 1."""
LONGEST_NAME = 200
"""Bytes: file systems take 255, and names are lengthened (``.NAME.1234.partial``)."""
LONGEST_PATH = 1000
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\ud800-\udfff\u2028\u2029]')
"""Separators, and what Windows or a terminal takes for something else; half characters, which no file can hold."""
_DATASET = re.compile(r"[a-z0-9]([a-z0-9.-]{0,94}[a-z0-9])?")
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE | re.DOTALL)
"""What Windows opens a device for, with any ending."""


class Name(str):
    """Text that is one part of a path: not empty, not ``.`` or ``..``, without separators, no device."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check the text.

        Raises:
            InputError: it cannot be one; says why.
        """
        if (problem := _problem(text)) is not None:
            raise InputError(f"{_cut(text)} cannot be a name: {problem}")
        return super().__new__(cls, text)


class DatasetName(Name):
    """What a dataset, like its recipe, may be called: lower-case words, as the Hub accepts them for a repository."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check the text.

        Raises:
            InputError: it cannot be one; says why.
        """
        if not _DATASET.fullmatch(text):
            raise InputError(
                f"recipe name {_cut(text)}: lower-case letters, digits, '-' and '.', at most 96 characters"
            )
        return super().__new__(cls, text)


class RelativePath(str):
    """A path below a folder: names joined by ``/``."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check every part.

        Raises:
            InputError: it leads out of the folder, or has a part that cannot be a name.
        """
        problem = f"it has more than {LONGEST_PATH} characters" if len(text) > LONGEST_PATH else None
        for part in text.split("/"):
            problem = problem or _problem(part)
        if problem is not None:
            raise InputError(f"{_cut(text)} cannot be a path within a folder: {problem}")
        return super().__new__(cls, text)


def unknown(complaint: str, given: str, known: Iterable[str], others: str) -> InputError:
    """The error for a name that is none of the ``known``: with those that are like it, or with all if they are few.

    ``complaint`` says what was given, and ``others`` how to see all that is known, or what else would do.
    """
    names = list(known)
    if len(names) <= FEW:
        return InputError(f"{complaint}: choose from {', '.join(names)}")
    near = nearest(given, names)
    hint = f"did you mean {joined(near, 'or')}? " if near else ""
    return InputError(f"{complaint}; {hint}{others}")


def nearest(given: str, known: Iterable[str]) -> list[str]:
    """Of some names those that are like another one, the most like first."""
    folded = {name.lower(): name for name in known}
    return [folded[name] for name in difflib.get_close_matches(given.lower(), folded, n=NEAR, cutoff=LIKE)]


def _problem(part: str) -> str | None:
    if not part:
        return "it is empty, or begins, ends or has two slashes in a row"
    if part in (".", ".."):
        return f"{part!r} leads to another folder"
    if found := _FORBIDDEN.search(part):
        return f"it holds {found[0]!r}"
    if len(part.encode()) > LONGEST_NAME:
        return f"it is longer than {LONGEST_NAME} bytes"
    if part[-1] in ". " or part[0] == " ":
        return "it ends with a dot, or begins or ends with a space"
    return f"{part!r} is a device on Windows" if _DEVICE.fullmatch(part) else None


def _cut(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
