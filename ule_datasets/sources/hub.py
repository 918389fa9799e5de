"""Datasets on the Hugging Face Hub: the Parquet files of a repository, in the Hub's own cache."""

from __future__ import annotations

import re
from pathlib import Path

from ule_datasets.base.errors import InputError
from ule_datasets.places import hub

PREFIX = hub.PREFIX
ELSEWHERE = "or give a local copy with --source FOLDER"


def download(where: str) -> Path:
    """Fetch ``hub:OWNER/NAME[@REVISION]`` and return the local folder.

    Raises:
        InputError: no network and not in the cache, no such repository, or no Parquet files in it.
    """
    repository, _, revision = where.removeprefix(PREFIX).partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository):
        raise InputError(f"{where!r} does not name a dataset: use hub:OWNER/NAME, {ELSEWHERE}")
    folder = hub.download(repository, revision or None, ["*.parquet", "**/*.parquet"], elsewhere=ELSEWHERE)
    if not any(folder.rglob("*.parquet")):
        raise InputError(f"{repository} has no Parquet files; download it and use --source FOLDER")
    return folder
