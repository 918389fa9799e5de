"""The original batches of CIFAR-10 and CIFAR-100: pickles of many images each, read with a restricted unpickler.

They are read from their folder, or from the archive in which they are published (``cifar-10-python.tar.gz``).
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
from ule_datasets.sources.sums import refuse_other, refuse_other_file
from ule_datasets.sources.tree import Tally, Tree, join, kind_of, suffix_of

AT_A_TIME = 1000
"""Images whose values are put in order together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batches:
    """What the files of one of the two are called, and what is in them."""

    title: str
    archive: str
    """How the name of their archive begins."""
    train: tuple[str, ...]
    test: str
    meta: str
    """The file with the names of the classes."""
    labels: bytes
    """The key of the class numbers in a batch."""
    names: bytes
    """The key of the class names in ``meta``."""
    least: int = 1
    """How many names of a folder must be of theirs for it to be one; names such as ``train`` say little alone."""

    @property
    def kind(self) -> str:
        """What they are called as a form."""
        return f"the original {self.title} batches"

    @property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """The files of each split."""
        return {"train": self.train, "test": (self.test,)}

    def is_archive(self, path: str) -> bool:
        """Whether a file is called like the archive of the batches."""
        return suffix_of(path) in tar.SUFFIXES and PurePosixPath(path).name.startswith(self.archive)

    def example(self, tree: Tree) -> str | None:
        """The first batch file of a source, or the archive; batch files by themselves are not looked for at URLs."""
        if isinstance(tree.root, Path):
            for at, here in tree.folders.items():
                there = {*self.train, self.test, self.meta}.intersection(here.files)
                inside = PurePosixPath(at or tree.root.name).name == self.archive
                first = next((name for name in (*self.train, self.test) if name in there), None)
                if first is not None and len(there) + inside >= self.least:
                    return join(at, first)
        if not any(suffix in tree.first for suffix in tar.SUFFIXES):
            return None
        return next(filter(self.is_archive, tree.below()), None)

    def find(self, tree: Tree, wanted: Wanted) -> Form | None:
        """The batch files of a source, which lie together anywhere in it, or the archive, or ``None``.

        Raises:
            InputError: some are missing, or are not those that are wanted.
        """
        first = self.example(tree)
        if first is None:
            return None
        used, chunks, class_names = (_in_archive if self.is_archive(first) else _in_folder)(self, tree, first, wanted)
        tally = Tally(tree.passed_over)
        for path in tree.below():
            if path not in used:
                tally.add("the batches once more" if self.is_archive(path) else kind_of(path), path)
        chosen = choose(chunks, tree.root, wanted.test_split, lambda _: True)
        return Form(self.kind, chosen.splits, class_names, passed_over=tally.found)


CIFAR10 = Batches(
    title="CIFAR-10",
    archive="cifar-10-python",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    labels=b"labels",
    names=b"label_names",
)
CIFAR100 = Batches(
    title="CIFAR-100",
    archive="cifar-100-python",
    train=("train",),
    test="test",
    meta="meta",
    labels=b"fine_labels",
    names=b"fine_label_names",
    least=2,
)


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch file."""

    path: Path
    of: Batches
    md5: str = ""
    """What it must have; empty: any."""

    def samples(self) -> Iterator[RawSample]:
        """Pixels in H x W x C order with their labels."""
        data = _content(self.path)
        refuse_other(data, self.md5, self.path)
        yield from _samples(self.of, data, self.path)


@dataclass(frozen=True, slots=True)
class Archived:
    """Some batch files of the archive, which is read as a stream from its start."""

    path: Place
    of: Batches
    names: tuple[str, ...]
    sums: tuple[str, ...]
    """The md5 that each must have; empty: any."""

    def samples(self) -> Iterator[RawSample]:
        """Pixels in H x W x C order with their labels, batch by batch as the archive has them."""
        missing = dict(zip(self.names, self.sums, strict=True))
        for name, data in _members(self.path, self.names):
            origin = f"{self.path} ({name})"
            refuse_other(data, missing.pop(name), origin)
            yield from _samples(self.of, data, origin)
        if missing:
            raise InputError(f"{self.path} has no {min(missing)}, as the original archive has: download it again")


def is_archive(path: str) -> bool:
    """Whether a file is called like the archive of the batches of one of the two."""
    return CIFAR10.is_archive(path) or CIFAR100.is_archive(path)


_Found: TypeAlias = tuple[set[str], dict[str, tuple[Chunk, ...]], tuple[str, ...] | None]
"""Files that are used, chunks by split, and class names."""


def _in_folder(of: Batches, tree: Tree, first: str, wanted: Wanted) -> _Found:
    folder = first.rpartition("/")[0]
    batches, there = (*of.train, of.test), tree.folders[folder].files
    if missing := [name for name in batches if name not in there]:
        raise InputError(
            f"{tree.at(folder)} lacks {', '.join(missing)} of the {len(batches)} original {of.title} batches: unpack "
            f"their archive ({of.archive}.tar.gz) again, or give that itself"
        )
    paths = {name: Path(str(tree.at(join(folder, name)))) for name in (*batches, of.meta) if name in there}
    chunks: dict[str, tuple[Chunk, ...]] = {}
    for split, files in of.splits.items():
        chunks[split] = tuple(Batch(paths[name], of, wanted.sum_of(name)) for name in files)
    names = None
    if of.meta in paths:
        names = _class_names(of, _content(paths[of.meta]), paths[of.meta], wanted)
    return {join(folder, name) for name in paths}, chunks, names


def _in_archive(of: Batches, tree: Tree, first: str, wanted: Wanted) -> _Found:
    path = tree.at(first)
    md5 = wanted.sum_of(PurePosixPath(first).name)
    if md5 and isinstance(path, Path):  # elsewhere what is in it is compared when it comes
        with open_file(path) as file:
            refuse_other_file(file, md5, path)
    metas = _members(path, (of.meta,))
    names = next((_class_names(of, data, f"{path} ({name})", wanted) for name, data in metas), None)
    chunks: dict[str, tuple[Chunk, ...]] = {}
    for split, files in of.splits.items():
        chunks[split] = (Archived(path, of, files, tuple(map(wanted.sum_of, files))),)
    return {first}, chunks, names


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


def _samples(of: Batches, data: bytes, origin: object) -> Iterator[RawSample]:
    content = _load(of, data, origin)
    pixels, labels = batch_pickle.pixels(content.get(b"data")), content.get(of.labels)
    if not (
        pixels is not None
        and pixels.shape[1:] == (3072,)
        and isinstance(labels, list)
        and len(labels) == len(pixels)
        and all(isinstance(label, int) for label in labels)
    ):
        raise InputError(f"{origin} is not a {of.title} batch: expected uint8 [N, 3072] data and N labels")
    for start in range(0, len(pixels), AT_A_TIME):
        some = pixels[start : start + AT_A_TIME].reshape(-1, 3, 32, 32)
        for row, image in enumerate(np.ascontiguousarray(some.transpose(0, 2, 3, 1)), start):
            yield RawSample(image, labels[row], f"{origin} (row {row})")


def _class_names(of: Batches, data: bytes, origin: object, wanted: Wanted) -> tuple[str, ...]:
    refuse_other(data, wanted.sum_of(of.meta), origin)
    names = _load(of, data, origin).get(of.names)
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


def _load(of: Batches, data: bytes, origin: object) -> dict[bytes, Any]:
    try:
        content = batch_pickle.load(data)
    except Exception as error:  # a damaged pickle fails in any way that its operations can fail
        raise InputError(f"{origin} is not an intact {of.title} batch file: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{origin} is not a {of.title} batch file: it holds a {type(content).__name__}")
    return content
