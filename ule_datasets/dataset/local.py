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

from ule_datasets.base.files import cache_folder, write_atomically
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.places import hub
from ule_datasets.places.urls import is_remote, shown

FILE_NAME = ".local.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalNote:
    """Where the images of a dataset are, for whoever asks on this machine."""

    source: str
    """As ``--source`` takes it; a path is absolute."""

    @classmethod
    def read(cls, folder: Path, manifest: Manifest) -> LocalNote | None:
        """The note in a dataset's folder, if this machine wrote it for a dataset of the same images."""
        try:
            content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
            note = cls(**{name: content[name] for name in cls.__dataclass_fields__})
            signed = hmac.compare_digest(content["signature"], note._signature(manifest))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return note if signed else None

    def write(self, folder: Path, manifest: Manifest) -> None:
        """Leave it in the folder, for as long as the cache folder of this machine is kept."""
        with contextlib.suppress(OSError):  # a cache that cannot be written to: nothing is remembered
            signature = self._signature(manifest)
            write_atomically(folder / FILE_NAME, json.dumps({**asdict(self), "signature": signature}))

    def _signature(self, manifest: Manifest) -> str:
        images = {"digests": manifest.source_digests, "class_names": manifest.class_names}
        content = json.dumps({**asdict(self), **images}, sort_keys=True)
        return hmac.new(_key(), content.encode(), hashlib.sha256).hexdigest()


def remembered_source(folder: Path, manifest: Manifest) -> str | None:
    """Where the build on this machine took a dataset's images from, if they are still there."""
    note = LocalNote.read(folder, manifest)
    if note is None:
        return None
    anywhere = note.source.startswith(hub.PREFIX) or is_remote(note.source)
    return note.source if anywhere or Path(note.source).exists() else None


def as_remembered(where: str) -> str | None:
    """A location that means the same from another working folder; ``None`` where it holds what nothing may keep."""
    if shown(where) != where:  # a URL with a password
        return None
    path = Path(where).expanduser()
    return str(path.resolve()) if path.exists() else where


def _key() -> bytes:
    """This machine's own, made when it is first needed."""
    path = cache_folder() / "key"
    if not path.exists():
        write_atomically(path, secrets.token_bytes(32))
        path.chmod(0o600)
    return path.read_bytes()
