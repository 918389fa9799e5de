"""Files and folders of others: which convention they follow, read without running anything in them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.base.regular import open_file
from ule_datasets.base.shown import few
from ule_datasets.compute.executor import Executor
from ule_datasets.imports import arrays, image_files
from ule_datasets.imports.release import Release, Stated


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """How releases of one convention are known and read."""

    recognised: Callable[[Path], bool]
    """Whether a file or folder looks like it; what is in files is not asked."""
    read: Callable[[Path, Executor, Reporter, Stated], Release]
    """All of it; raises ``InputError``."""


READERS: dict[str, Reader] = {
    "image files": Reader(recognised=image_files.recognised, read=image_files.read),
    "folders train and test of image files": Reader(recognised=image_files.in_splits, read=image_files.read_splits),
    "class folders of image files": Reader(
        recognised=image_files.in_class_folders, read=image_files.read_class_folders
    ),
    "arrays (.npy, .npz, .pt, .pkl, safetensors)": Reader(recognised=arrays.recognised, read=arrays.read),
}
"""By what they read; the first that recognises a file or folder reads it."""


NOTHING = Stated()


def read_release(path: Path, executor: Executor, reporter: Reporter, stated: Stated = NOTHING) -> Release:
    """What was released as a file or folder.

    Raises:
        InputError: nothing is there, nobody reads what is there, it is damaged, or it would have to be run.
    """
    if not path.exists():
        raise InputError(f"--import {path}: no such file or folder")
    for reader in READERS.values():
        if reader.recognised(path):
            return reader.read(path, executor, reporter, stated)
    names = sorted(each.name for each in path.iterdir()) if path.is_dir() else []
    there = f", but {few(names)}" if names else ""
    raise InputError(f"--import {path}: nothing that is read here{there}; there are readers for {', '.join(READERS)}")


def release_digest(path: Path) -> str:
    """Sha256 of a file; of a folder, that of the lines ``SHA256  PATH`` of its files, sorted by their paths.

    The latter is what ``sha256sum`` prints. Hidden files do not count.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if not path.is_dir():
            return _digest(path)
        files = {each.relative_to(path).as_posix(): each for each in path.rglob("*") if each.is_file()}
        visible = {name: each for name, each in files.items() if not any(p.startswith(".") for p in name.split("/"))}
        lines = (f"{_digest(visible[name])}  {name}\n" for name in sorted(visible))
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {error.strerror}") from error


def _digest(path: Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
