"""What every form of a source (Parquet, image folder, tar shards, ...) turns into: chunks of raw samples."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from ule_datasets.sources.splits import Chosen, by_split, choose, gaps
from ule_datasets.sources.tree import PassedOver, Tally, Tree, kind_of
from ule_datasets.sources.tree import Place as Place
from ule_datasets.sources.unusable import Unusable
from ule_datasets.sources.wanted import Wanted as Wanted

SINGLE_FILES = (".parquet", ".tar", ".tar.gz", ".tgz")
"""Suffixes of files that are sources by themselves."""
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

    def samples(self) -> Iterator[RawSample | Unusable]:
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
    passed_over: tuple[PassedOver, ...] = ()
    """Everything there that is no part of it."""
    notes: tuple[str, ...] = ()
    """How it was taken where it could have been taken otherwise."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What it calls the splits that have another name there."""

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


def chosen_files(
    tree: Tree, is_shard: Callable[[str], bool], wanted: Wanted, tally: Tally, has_labels: Callable[[Place], bool]
) -> Chosen[list[str]]:
    """Files of some kind by split, ``train`` and the one that serves as ``test``; all others are tallied.

    ``has_labels`` tells whether a file's labels are public: those of many test splits are not.

    Raises:
        InputError: as ``by_split`` and ``choose`` do.
    """
    files: list[str] = []
    for path in tree.below():
        if is_shard(path):
            files.append(path)
        else:
            tally.add(kind_of(path), path)
    said = {split: [path for path in files if path in listed] for split, listed in tree.splits.items()}
    found = {split: paths for split, paths in said.items() if paths} or by_split(
        files, tree.root, complete=not tree.is_file
    )
    chosen = choose(found, tree.root, wanted.test_split, lambda paths: any(has_labels(tree.at(p)) for p in paths))
    if chosen.unused:
        tally.add_all(f"the {chosen.unused} split, which is not used", found[chosen.unused])
    return replace(chosen, gaps=tuple(gap for split in chosen.splits.values() for gap in gaps(split)))
