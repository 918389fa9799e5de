"""Which images a source holds: said by digests, for certain, and by a listing, which tells whether to look again."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ule_datasets.places.remote_path import RemotePath
from ule_datasets.sources.decode import files_of, paths_of
from ule_datasets.sources.forms import Form

SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Images and labels, whatever form they come in and wherever they are."""

    digests: Mapping[str, str]
    """By split: order-free digests of pixels and labels."""
    class_names: tuple[str, ...]
    counts: Mapping[str, int]
    """By split: images. Follows from the digests."""

    def __str__(self) -> str:
        images = " and ".join(f"{count:,} {split}" for split, count in self.counts.items())
        more = ", ..." if len(self.class_names) > SHOWN else ""
        names = ", ".join(self.class_names[:SHOWN]) + more
        digest = self.digests.get("train", "")[:8]
        several = "es" if len(self.class_names) > 1 else ""
        return f"{images} images, digest {digest}, {len(self.class_names):,} class{several}: {names}"


def listing(form: Form) -> str:
    """A digest of which files a source consists of, where, of what size and from when; nothing is read.

    Empty where that cannot be told without asking a server for every file.
    """
    digest = hashlib.sha256(repr((form.kind, form.class_names)).encode())
    seen: set[Path] = set()
    folders: dict[Path, Path] = {}  # one place may be spelled in several ways
    for split, chunks in form.chunks.items():
        for chunk in chunks:
            if not getattr(chunk, "state", "") and any(
                isinstance(path, RemotePath) and not path.version for path in paths_of(chunk)
            ):
                return ""
            digest.update(repr((split, _without_paths(chunk))).encode())
            for path in files_of(chunk):
                if path not in seen:
                    seen.add(path)
                    state = path.stat()
                    if path.parent not in folders:
                        folders[path.parent] = path.parent.resolve()
                    about = (str(folders[path.parent]), path.name, state.st_size, state.st_mtime_ns)
                    digest.update(repr(about).encode())
    return digest.hexdigest()


def _without_paths(chunk: Any) -> list[Any]:
    """What a chunk says besides its paths on this machine."""
    values = [getattr(chunk, field.name) for field in dataclasses.fields(chunk)]
    return [value for value in values if not isinstance(value, Path)]
