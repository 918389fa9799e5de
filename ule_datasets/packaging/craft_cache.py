"""Finished crafts, kept so that the same layers are never computed twice: by method, settings, source and version."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ule_datasets.base.errors import InputError
from ule_datasets.base.files import make_room, mark_used, replacing
from ule_datasets.base.version import __version__
from ule_datasets.data.perturbation import Perturbation

VARIABLE = "ULE_CACHE"
LARGEST = 10 * 2**30
"""Bytes; beyond, the crafts that were not used for longest are deleted."""


def cache_folder() -> Path:
    """``$ULE_CACHE``, else ``ule-datasets`` in the user's cache folder."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ule-datasets"


@dataclass(frozen=True, slots=True)
class CraftCache:
    """A folder of perturbations, one file for the layers of one method on one set of images."""

    folder: Path
    largest: int = LARGEST

    def path(self, craft_digest: str, source_digest: str) -> Path:
        """Where a craft is or would be; another version of the library looks elsewhere."""
        return self.folder / f"{craft_digest[:24]}-{source_digest[:24]}-{__version__}.safetensors"

    def get(self, craft_digest: str, source_digest: str) -> Perturbation | None:
        """A finished craft, or ``None``; a file that is damaged is deleted."""
        path = self.path(craft_digest, source_digest)
        if not path.exists():
            return None
        try:
            found = Perturbation.load(path)
        except InputError:
            path.unlink(missing_ok=True)
            return None
        mark_used(path)
        return found if found.source_digest == source_digest else None

    def put(self, craft_digest: str, perturbation: Perturbation) -> None:
        """Keep a craft, and make room for it.

        Raises:
            OSError: the folder cannot be written to.
        """
        path = self.path(craft_digest, perturbation.source_digest)
        with replacing(path) as partial:
            perturbation.save(partial)
        make_room(path, self.largest)
