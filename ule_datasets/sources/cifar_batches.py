"""The original ``cifar-10-batches-py``: pickles of 10,000 images each, read with a restricted unpickler.

They are read from their folder, or from the archive in which they are published, ``cifar-10-python.tar.gz``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.limits import BATCH_FILE
from ule_datasets.base.regular import open_file
from ule_datasets.sources import batch_pickle, tar
from ule_datasets.sources.forms import Chunk, Form, Place, RawSample, Wanted
from ule_datasets.sources.splits import choose
from ule_datasets.sources.tree import Tally, Tree, join, kind_of, suffix_of

ARCHIVE = "cifar-10-python"
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILE, META_FILE = "test_batch", "batches.meta"
SPLITS = {"train": TRAIN_FILES, "test": (TEST_FILE,)}


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch file."""

    path: Path

    def samples(self) -> Iterator[RawSample]:
        """Pixels in H x W x C order with their labels."""
        yield from _samples(_content(self.path), self.path)


@dataclass(frozen=True, slots=True)
class Archived:
    """Some batch files of the archive, which is read as a stream from its start."""

    path: Place
    names: tuple[str, ...]

    def samples(self) -> Iterator[RawSample]:
        """Pixels in H x W x C order with their labels, batch by batch as the archive has them."""
        missing = set(self.names)
        for name, data in _members(self.path, self.names):
            yield from _samples(data, f"{self.path} ({name})")
            missing.discard(name)
        if missing:
            raise InputError(f"{self.path} has no {min(missing)}, as the original archive has: download it again")


def is_archive(path: str) -> bool:
    """Whether a file is called like the archive of the batches."""
    return suffix_of(path) in tar.SUFFIXES and PurePosixPath(path).name.startswith(ARCHIVE)


def example(tree: Tree) -> str | None:
    """The first batch file of a source, or the archive; batch files by themselves are not looked for at URLs."""
    if isinstance(tree.root, Path):
        names = (*TRAIN_FILES, TEST_FILE)
        files = (join(at, name) for at, here in tree.folders.items() for name in names if name in here.files)
        if (found := next(files, None)) is not None:
            return found
    if not any(suffix in tree.first for suffix in tar.SUFFIXES):
        return None
    return next(filter(is_archive, tree.below()), None)


def find(tree: Tree, wanted: Wanted) -> Form | None:
    """The batch files of a source, which lie together anywhere in it, or the archive, or ``None``."""
    first = example(tree)
    if first is None:
        return None
    used, chunks, class_names = (_in_archive if is_archive(first) else _in_folder)(tree, first)
    tally = Tally(tree.passed_over)
    for path in tree.below():
        if path not in used:
            tally.add("the batches once more" if is_archive(path) else kind_of(path), path)
    chosen = choose(chunks, tree.root, wanted.test_split, lambda _: True)
    return Form("the original CIFAR-10 batches", chosen.splits, class_names, passed_over=tally.found)


_Found: TypeAlias = tuple[set[str], dict[str, tuple[Chunk, ...]], tuple[str, ...] | None]
"""Files that are used, chunks by split, and class names."""


def _in_folder(tree: Tree, first: str) -> _Found:
    folder = first.rpartition("/")[0]
    batches, there = (*TRAIN_FILES, TEST_FILE), tree.folders[folder].files
    if missing := [name for name in batches if name not in there]:
        raise InputError(
            f"{tree.at(folder)} lacks {', '.join(missing)} of the {len(batches)} original CIFAR-10 batches: unpack "
            "their archive (cifar-10-python.tar.gz) again, or give that itself"
        )
    paths = {name: Path(str(tree.at(join(folder, name)))) for name in (*batches, META_FILE) if name in there}
    chunks: dict[str, tuple[Chunk, ...]] = {}
    for split, files in SPLITS.items():
        chunks[split] = tuple(Batch(paths[name]) for name in files)
    names = _class_names(_content(paths[META_FILE]), paths[META_FILE]) if META_FILE in paths else None
    return {join(folder, name) for name in paths}, chunks, names


def _in_archive(tree: Tree, first: str) -> _Found:
    path = tree.at(first)
    names = next((_class_names(data, path) for _, data in _members(path, (META_FILE,))), None)
    return {first}, {split: (Archived(path, files),) for split, files in SPLITS.items()}, names


def _members(path: Place, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """The contents of some files of the archive.

    Raises:
        InputError: it is cut or damaged before all of them were read.
    """
    missing = set(names)
    try:
        with tar.opened(path) as members:
            for member in members:
                name = PurePosixPath(member.name).name
                if name not in missing:
                    continue
                if problem := member.problem or BATCH_FILE.problem(member.size):
                    raise InputError(f"{path}: {member.name} {problem}")
                yield name, member.read()
                missing.remove(name)
                if not missing:
                    return
    except tar.DamagedError as error:
        raise InputError(f"{path} is not a whole tar archive: {error}") from error


def _samples(data: bytes, origin: object) -> Iterator[RawSample]:
    content = _load(data, origin)
    pixels, labels = batch_pickle.pixels(content.get(b"data")), content.get(b"labels")
    if not (
        pixels is not None
        and pixels.shape[1:] == (3072,)
        and isinstance(labels, list)
        and len(labels) == len(pixels)
        and all(isinstance(label, int) for label in labels)
    ):
        raise InputError(f"{origin} is not a CIFAR-10 batch: expected uint8 [N, 3072] data and N labels")
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield RawSample(image, label, f"{origin} (row {row})")


def _class_names(data: bytes, origin: object) -> tuple[str, ...]:
    names = _load(data, origin).get(b"label_names")
    if not isinstance(names, list) or not names:
        raise InputError(f"{origin} has no list of label names")
    return tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names)


def _content(path: Path) -> bytes:
    """All of a batch file."""
    try:
        with open_file(path) as file:
            if problem := BATCH_FILE.problem(os.fstat(file.fileno()).st_size):
                raise InputError(f"{path} {problem}")
            return file.read()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _load(data: bytes, origin: object) -> dict[bytes, Any]:
    try:
        content = batch_pickle.load(data)
    except Exception as error:  # a damaged pickle fails in any way that its operations can fail
        raise InputError(f"{origin} is not an intact CIFAR-10 batch file: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{origin} is not a CIFAR-10 batch file: it holds a {type(content).__name__}")
    return content
