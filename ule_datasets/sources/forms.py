"""What every form of a source (Parquet, image folder, tar shards, ...) turns into: chunks of raw samples."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol, TypeAlias

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.places.remote_path import RemotePath

Place: TypeAlias = Path | RemotePath
"""A file or folder of a source: on this machine, or at a URL."""

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

_NAME_WITH_CLASS = re.compile(r"(n\d{8}_\d+|ILSVRC2012_val_\d{8})_n\d{8}")


@dataclass(frozen=True, slots=True)
class RawSample:
    """One sample as a form stores it."""

    image: bytes | np.ndarray
    """An encoded image, or uint8 [H, W, 3] pixels."""
    label: int
    origin: str
    """Where it comes from, for messages."""
    name: str = ""
    """Its file's name without folder and suffix; empty where the form keeps none."""


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


def official_name(name: str) -> str:
    """The name that an image has in the official archive of its dataset.

    The Hub's copy of ImageNet appends the class: ``n01440764_10026_n01440764`` is ``n01440764_10026``. Any other
    name is official already.
    """
    match = _NAME_WITH_CLASS.fullmatch(name)
    return match[1] if match else name


def files_by_split(
    root: Place, suffix: str, is_withheld: Callable[[Place], bool] | None = None
) -> dict[str, list[Place]]:
    """Files with a suffix (in this case) at or below ``root``, sorted, by the split that their names speak of.

    Where there is a validation split as well, those of a test split are left out whose labels are not public.

    Raises:
        InputError: there are both a validation and a test split, and only one can be the test split.
    """
    paths = [root] if root.suffix == suffix else _files_below(root, suffix)
    found: dict[str, list[Place]] = {"train": [], "validation": [], "test": []}
    for path in paths:
        if not path.is_file():
            continue
        word = _split_word(PurePath(root.name) if root.suffix == suffix else path.relative_to(root))  # type: ignore[arg-type]
        found["validation" if word.startswith("val") else SPLIT_WORDS[word]].append(path)
    if found["validation"] and is_withheld is not None:
        found["test"] = [path for path in found["test"] if not is_withheld(path)]
    if found["validation"] and found["test"]:
        raise InputError(f"{root} has both a validation and a test split: give a folder with one of them")
    splits = {"train": found["train"], "test": found["validation"] or found["test"]}
    filled = [(split, files) for split, files in splits.items() if files]
    return dict(sorted(filled, key=lambda item: item[1][0].parts))


def _files_below(root: Place, suffix: str) -> Sequence[Place]:
    """Sorted; without a look at files of other suffixes, of which there may be a million."""
    if isinstance(root, RemotePath):
        return root.files(suffix)
    return sorted(Path(folder, name) for folder, _, names in os.walk(root) for name in names if name.endswith(suffix))


def _split_word(path: PurePath) -> str:
    """The word for a split in a file's name, else in its folders; ``train`` if there is none."""
    for part in reversed(path.with_suffix("").parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPLIT_WORDS:
                return word
    return "train"
