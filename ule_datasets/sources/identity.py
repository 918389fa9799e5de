"""Which images a source holds: said by digests, for certain, and by a listing, which tells whether to look again."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ule_datasets.base.shown import counted, few
from ule_datasets.places.remote_path import RemotePath
from ule_datasets.sources.decode import files_of, paths_of
from ule_datasets.sources.forms import Chunk, Form

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
        images += " image" if sum(self.counts.values()) == 1 else " images"
        digest = self.digests.get("train", "")[:8]
        classes = counted(len(self.class_names), "class")
        return f"{images}, digest {digest}, {classes}: {few(self.class_names, SHOWN)}"


def listing(form: Form) -> str:
    """A digest of which files a source consists of, where, of what size and from when; nothing is read.

    Empty where that cannot be told without asking a server for every file.
    """
    digest = hashlib.sha256(repr((form.kind, form.class_names)).encode())
    folders: dict[Path, str] = {}  # one place may be spelled in several ways
    seen: set[str] = set()
    for split, chunks in form.chunks.items():
        for chunk in chunks:
            if _is_unknown(chunk):
                return ""
            files = [file for file in _files(chunk, folders) if file not in seen]
            seen.update(files)
            states = [(state.st_size, state.st_mtime_ns) for state in map(os.stat, files)]
            digest.update(repr((split, _without_paths(chunk), files, states)).encode())
    return digest.hexdigest()


def _is_unknown(chunk: Chunk) -> bool:
    """Whether a server would have to be asked for the versions of a chunk's files."""
    if getattr(chunk, "state", "") or isinstance(getattr(chunk, "folder", None), Path):
        return False
    return any(isinstance(path, RemotePath) and not path.version for path in paths_of(chunk))


def _files(chunk: Chunk, folders: dict[Path, str]) -> list[str]:
    """The files of this machine that a chunk reads; there may be a million, so that paths are no objects."""

    def real(folder: Path) -> str:
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        return folders[folder]

    if isinstance(folder := getattr(chunk, "folder", None), Path):
        return [f"{real(folder)}{os.sep}{name}" for name in getattr(chunk, "names", ())]
    return [f"{real(path.parent)}{os.sep}{path.name}" for path in files_of(chunk)]


def _without_paths(chunk: Any) -> list[Any]:
    """What a chunk says besides its paths on this machine."""
    values = [getattr(chunk, field.name) for field in dataclasses.fields(chunk)]
    return [value for value in values if not isinstance(value, Path)]
