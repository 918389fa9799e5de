"""Content that proves to be whole, and to be about what it is looked up for: a digest over both goes with it.

Against accidents and mistakes: a file that was cut, zeroed or edited, or stands under another one's name, is noticed.
Whoever wants to deceive can compute the digest as well.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ule_datasets.base import records
from ule_datasets.base.errors import InputError
from ule_datasets.base.files import write_atomically

Note = TypeVar("Note")
_SEAL = re.compile(r',\n "sealed": "([0-9a-f]{64})"\n}\n\Z')


def seal(text: str, key: str) -> str:
    """The text of a JSON object that has members, with one more: a digest over the text and its key."""
    content = text.rstrip().removesuffix("}").rstrip()
    return f'{content},\n "sealed": "{_digest(content, key)}"\n}}\n'


def is_sealed(text: str) -> bool:
    """Whether a text has a seal, intact or not."""
    return '"sealed"' in text


def unseal(text: str, key: str) -> str | None:
    """What was sealed with this key, without the seal; ``None``: it was changed, or has another key."""
    found = _SEAL.search(text)
    if found is None or found[1] != _digest(text[: found.start()], key):
        return None
    return text[: found.start()] + "\n}\n"


def write_note(path: Path, key: str, content: Mapping[str, Any]) -> None:
    """Keep some JSON values under a key; they are on the disk when this returns."""
    write_atomically(path, seal(json.dumps(content), key))


def read_note(kind: type[Note], path: Path, key: str) -> Note | None:
    """What was written there with this key; ``None``: nothing that is whole, and of the kind."""
    try:
        text = unseal(records.content(path).decode(), key)
        return None if text is None else records.parse(kind, text, str(path))
    except (FileNotFoundError, UnicodeDecodeError, InputError):
        return None


def digest_of(header: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Hex sha256 over a text and arrays with their names, types and shapes."""
    state = hashlib.sha256(header.encode())
    for name, array in sorted(arrays.items()):
        state.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def _digest(content: str, key: str) -> str:
    return hashlib.sha256(f"{key}\n{content}".encode()).hexdigest()
