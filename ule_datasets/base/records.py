"""Reading JSON that a file or a server gives, as the dataclasses of this library: typed, bounded, with plain errors.

Whatever stands in a file may have been changed or made up by anybody, so nothing is taken from it but through here:

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Note:
        path: RelativePath          # checked text: see ule_datasets.base.names
        sizes: tuple[int, ...]      # JSON arrays become tuples
        about: dict[str, Any]       # anything, where nothing is assumed of it
        comment: str | None = None  # may be missing

    note = records.read(Note, folder / "note.json")          # a file
    note = records.parse(Note, answer, "the Hub's answer")   # text or bytes; the last argument is named in errors
    note = records.convert(Note, values, "note.json: about") # a part that was parsed as dict[str, Any] before

Every dataclass is such a type as it stands; what its fields must be besides their types is checked by its own
``__post_init__``, whose ``InputError`` is passed on with the field's place. Fields that the type does not have are
passed over: a newer version may have written them. What stands in a place that is ``Any`` is checked by whoever uses
it, best by ``convert``.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.base.regular import open_file

if TYPE_CHECKING:
    import msgspec
else:
    msgspec = lazy("msgspec")

Record = TypeVar("Record")

LARGEST = 256 * 2**20
"""Bytes of JSON that are read: a hundred times what the largest of our own files has."""
DEEPEST = 50
"""Brackets within brackets."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_PLACE = re.compile(r" - at `(?:key` in `)?\$\.?(.*)`$", re.DOTALL)


def read(kind: type[Record], path: Path, origin: str = "") -> Record:
    """What a file holds; ``origin``, by default its path, is named in errors.

    Raises:
        InputError: it holds something else; one line, with the field.
        OSError: there is no such file, or it cannot be read.
    """
    return parse(kind, content(path), origin or str(path))


def content(path: Path) -> bytes:
    """A file's bytes, a little more than what ``parse`` takes at most.

    Raises:
        InputError: it is a pipe, a folder or the like, which would have to be waited for.
        OSError: there is no such file, or it cannot be read.
    """
    with open_file(path) as file:
        return file.read(LARGEST + 1)


def parse(kind: type[Record], text: bytes | str, origin: str) -> Record:
    """What JSON text says.

    Raises:
        InputError: it is too large, too deep, or something else; one line, with ``origin`` and the field.
    """
    try:
        content = text.encode() if isinstance(text, str) else text
        if len(content) > LARGEST:
            raise InputError(f"{origin} has more than {LARGEST // 2**20} MiB")
        if _too_deep(content):
            raise InputError(f"{origin} has more than {DEEPEST} brackets within brackets")
        wanted: Any = kind  # types of types are not hashable for mypy
        found: Record = _decoder(wanted).decode(content)
        return found
    except UnicodeError as error:
        raise InputError(f"{origin} is not UTF-8 text") from error
    except msgspec.MsgspecError as error:
        raise _readable(error, origin) from error


def convert(kind: type[Record], values: Any, origin: str) -> Record:
    """Values that were parsed before, as a type.

    Raises:
        InputError: they are something else; one line, with ``origin`` and the field.
    """
    try:
        return msgspec.convert(values, kind, dec_hook=_checked)
    except msgspec.MsgspecError as error:
        raise _readable(error, origin) from error


@functools.cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=_checked)


def _checked(kind: type[Any], value: Any) -> Any:
    """Values of types that check themselves, such as ``Name``."""
    if isinstance(value, str) and issubclass(kind, str):
        return kind(value)
    raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")


def _too_deep(content: bytes) -> bool:
    """Whether brackets stand in more brackets than allowed: outside of text, pairs are taken away from within."""
    left = _STRING.sub(b"", content).translate(_ONE_KIND, _NOT_BRACKETS)
    for _ in range(DEEPEST):
        if not left:
            return False
        left = left.replace(b"[]", b"")
    return b"[]" in left or len(left) > DEEPEST  # a few that do not match are the parser's to name


def _readable(error: Exception, origin: str) -> InputError:
    """One line from what the library says: ``manifest.json: files[0].size: expected int, got str``."""
    text = str(error)
    place = _PLACE.search(text)
    words = (text[: place.start()] if place else text).replace("`", "")
    field = f"{place[1]}: " if place and place[1] else ""
    name = words.partition(":")[0].isidentifier()  # of a type, as its own errors begin
    return InputError(f"{origin}: {field}{words if name else words[:1].lower() + words[1:]}")
