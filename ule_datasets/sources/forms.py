"""What every form of a source (Parquet, image folder, tar shards, ...) turns into: chunks of raw samples."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ule_datasets.errors import InputError

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "test",
    "valid": "test",
    "validation": "test",
}
"""Words in file and folder names, and the split they mean (a validation split serves as the test split)."""

UNLABELLED = ("unlabelled",)
"""The class names of a source without labels: one class, number 0."""


@dataclass(frozen=True, slots=True)
class RawSample:
    """One sample as a form stores it."""

    image: bytes | np.ndarray
    """An encoded image, or uint8 [H, W, 3] pixels."""
    label: int
    origin: str
    """Where it comes from, for messages."""


class Chunk(Protocol):
    """A piece of a split that one worker reads at a time; picklable."""

    def samples(self) -> Iterator[RawSample]:
        """The chunk's samples.

        Raises:
            InputError: the file cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Form:
    """A source found at some location."""

    kind: str
    """How it is stored, for messages."""
    chunks: Mapping[str, tuple[Chunk, ...]]
    """By split name."""
    class_names: tuple[str, ...] | None
    """In the form's own label order; ``None`` where it stores numbers only."""
    advice: str = ""
    """What would give it labels, where it has none; for messages."""

    @property
    def labelled(self) -> bool:
        """Whether the images have labels."""
        return self.class_names != UNLABELLED


def files_by_split(root: Path, suffix: str) -> dict[str, list[Path]]:
    """Files with a suffix at or below ``root``, sorted, by the split that their names speak of.

    Raises:
        InputError: there are both a validation and a test split, and only one can be the test split.
    """
    paths = [root] if root.suffix == suffix else sorted(root.rglob(f"*{suffix}"))
    base = root.parent if root.suffix == suffix else root
    found: dict[str, list[Path]] = {}
    words: set[str] = set()
    for path in filter(Path.is_file, paths):
        word = _split_word(path, base)
        words.add("validation" if word.startswith("val") else SPLIT_WORDS[word])
        found.setdefault(SPLIT_WORDS[word], []).append(path)
    if {"validation", "test"} <= words:
        raise InputError(f"{root} has both a validation and a test split: give a folder with one of them")
    return found


def _split_word(path: Path, root: Path) -> str:
    """The word for a split in a file's name, else in its folders; ``train`` if there is none."""
    for part in reversed(path.relative_to(root).with_suffix("").parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPLIT_WORDS:
                return word
    return "train"
