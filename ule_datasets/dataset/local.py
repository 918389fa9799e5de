"""What only this machine knows of a dataset: where its clean images are.

It stands in the dataset's folder, is in no manifest and is never published. A note counts only where this machine wrote
it: one that came with a folder from elsewhere would choose what is read here.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from ule_datasets.base import records
from ule_datasets.base.errors import InputError
from ule_datasets.base.files import cache_folder, write_atomically
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.places import hub
from ule_datasets.places.urls import is_remote, shown
from ule_datasets.sources.place import on_this_machine
from ule_datasets.sources.spec import EMBEDDED

FILE_NAME = ".local.json"
KEY_BYTES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalNote:
    """Where the images of a dataset are, for whoever asks on this machine."""

    source: str
    """As ``--source`` takes it; a path is absolute. Empty where it may not be kept."""
    listing: str = ""
    """What was there when they were read (see ``sources.identity``); empty: not known."""

    @classmethod
    def read(cls, path: Path, manifest: Manifest) -> LocalNote | None:
        """The note at a path, if this machine wrote it for a dataset of the same images."""
        try:
            signed = records.read(_Signed, path)
            same = hmac.compare_digest(signed.signature.encode(), signed.note._signature(manifest).encode())
        except (OSError, InputError):
            return None
        return signed.note if same else None

    def write(self, path: Path, manifest: Manifest) -> None:
        """Leave it there, for as long as the cache folder of this machine is kept."""
        with contextlib.suppress(OSError):  # a cache that cannot be written to: nothing is remembered
            signed = _Signed(note=self, signature=self._signature(manifest))
            write_atomically(path, json.dumps(asdict(signed)))

    def _signature(self, manifest: Manifest) -> str:
        images = {"digests": dict(manifest.source_digests), "class_names": manifest.class_names}
        content = json.dumps({**asdict(self), **images}, sort_keys=True)
        return hmac.new(_key(), content.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Signed:
    note: LocalNote
    signature: str


def note_of(place: Path | str) -> Path:
    """Where the note on a dataset is: in its folder, or for one at a URL in the cache folder."""
    if isinstance(place, Path):
        return place / FILE_NAME
    return cache_folder() / "delivered" / f"{hashlib.sha256(place.encode()).hexdigest()[:32]}.json"


def remembered_source(folder: Path, manifest: Manifest) -> str | None:
    """Where the build on this machine took a dataset's images from, if they are still there."""
    note = LocalNote.read(note_of(folder), manifest)
    if note is None or not note.source:
        return None
    anywhere = note.source.startswith(hub.PREFIX) or is_remote(note.source)
    there = anywhere or note.source == EMBEDDED or on_this_machine(note.source)[0].exists()
    return note.source if there else None


def as_remembered(where: str) -> str | None:
    """A location that means the same from another working folder; ``None`` where it holds what nothing may keep."""
    if shown(where) != where:  # a URL with a password
        return None
    if where == EMBEDDED:
        return where
    path, config = on_this_machine(where)
    return f"{path.resolve()}{f':{config}' if config else ''}" if path.exists() else where


def _key() -> bytes:
    """This machine's own, made when it is first needed."""
    path = cache_folder() / "key"
    if not path.exists() or path.stat().st_size != KEY_BYTES:
        write_atomically(path, secrets.token_bytes(KEY_BYTES))
        path.chmod(0o600)
    return path.read_bytes()
