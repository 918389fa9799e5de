"""What this tool itself has made: it is never taken for clean images."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from ule_datasets.base import records
from ule_datasets.base.errors import InputError
from ule_datasets.base.regular import open_file
from ule_datasets.places.remote_path import RemotePath

MANIFEST = "manifest.json"
MARKS = (MANIFEST, "report.json")
"""Files that mark a folder as output of this tool, if they begin as ours do."""
PARTS = ("data", "webdataset")
"""Folders of a dataset with its images."""
COLUMNS = frozenset(("key", "poisoned"))
"""Of our Parquet files, besides image and label."""
STAGING = ".build"
"""The folder that marks an unfinished dataset."""
HEAD, BEGINNING = 200, b'"schema": "ule-datasets '


def is_ours(file: Path | RemotePath) -> bool:
    """Whether a manifest or a report is one of ours."""
    try:
        if isinstance(file, RemotePath):
            return BEGINNING in file.read_bytes()[:HEAD]
        with open_file(file) as opened:
            return BEGINNING in opened.read(HEAD)
    except (OSError, InputError):
        return False


def refuse_perturbed(root: Path | RemotePath, place: str) -> None:
    """Refuse a source that is a dataset of ours, or a part of one, whose training images are perturbed.

    Raises:
        InputError: it is; which dataset, and what to give instead.
    """
    folders: list[Path | RemotePath] = [root] if root.is_dir() else []
    if isinstance(root, Path):
        here = root.resolve()
        folders = [here, *(part.parent for part in (here, here.parent) if part.name in PARTS)]
    for folder in folders:
        file = folder / MANIFEST
        if file.is_file() and is_ours(file):
            manifest = records.parse(_Manifest, file.read_bytes(), str(file))
            if any(split.num_poisoned for split in manifest.splits.values()):
                raise InputError(
                    f"{place} is of {folder}, the dataset {manifest.name} of this tool, whose training images are "
                    "perturbed: give the clean images that it was made from"
                )


def refuse_perturbed_table(columns: Collection[str], place: object) -> None:
    """Refuse a table of training images that has the columns of our datasets.

    Raises:
        InputError: it has them.
    """
    if set(columns) >= COLUMNS:
        raise InputError(
            f"{place} has the columns {', '.join(sorted(COLUMNS))} of a dataset of this tool, whose training images "
            "are perturbed: give the clean images that it was made from"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Split:
    num_poisoned: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Manifest:
    name: str = ""
    splits: dict[str, _Split] = field(default_factory=dict)
