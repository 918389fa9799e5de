"""What every form of a source (Parquet, image folder, tar shards, ...) turns into: chunks of raw samples."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

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


def split_of(path: Path, root: Path) -> str:
    """The split that a file belongs to, from the words in its name, else in its folders; ``train`` if none."""
    for part in reversed(path.relative_to(root).with_suffix("").parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
    return "train"
