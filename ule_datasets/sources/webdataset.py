"""WebDataset tar shards: adjacent members ``<key>.png`` (or another image type) and ``<key>.cls``.

Without any ``.cls`` member the images have no labels.
"""

from __future__ import annotations

import itertools
import os
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from ule_datasets.base.errors import InputError
from ule_datasets.sources.forms import UNLABELLED, Form, Place, RawSample, Wanted, chosen_files
from ule_datasets.sources.image_folder import SUFFIXES
from ule_datasets.sources.tree import Tally, Tree

SUFFIX = ".tar"


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar file, read as a stream; nothing is extracted."""

    path: Place
    labelled: bool = True

    def samples(self) -> Iterator[RawSample]:
        """Every sample of the shard."""
        return itertools.starmap(self._sample, read_shard(self.path))

    def _sample(self, key: str, parts: dict[str, bytes]) -> RawSample:
        origin = f"{self.path} ({key})"
        images = [data for extension, data in parts.items() if f".{extension}" in SUFFIXES]
        if len(images) != 1 or ("cls" in parts) != self.labelled:
            wanted = "a .cls member" if self.labelled else "no .cls member, as in the samples before"
            raise InputError(f"{origin}: expected one image and {wanted}, found {sorted(parts)}")
        name = key.rpartition("/")[2]
        if not self.labelled:
            return RawSample(images[0], 0, origin, name)
        text = parts["cls"].strip()
        if not text.isdigit():
            raise InputError(f"{origin}: the .cls member holds {text[:20]!r}, not a class number")
        return RawSample(images[0], int(text), origin, name)


def read_shard(path: Place) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Keys and members (by extension, lower case) of a shard, in order.

    Raises:
        InputError: it is not a readable tar file.
    """
    try:
        with path.open("rb") as file, _from_start(file) as tar:
            files = ((member, *_key_and_extension(member.name)) for member in tar if member.isfile())
            for key, members in itertools.groupby(files, key=lambda file: file[1]):
                yield key, {extension: tar.extractfile(member).read() for member, _, extension in members}  # type: ignore[union-attr]
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{path} is not a readable tar file (truncated download?): {error}") from error


def _key_and_extension(path: str) -> tuple[str, str]:
    folder, name = posixpath.split(path)
    stem, _, extension = name.partition(".")
    return posixpath.join(folder, stem), extension.lower()


def _from_start(file: IO[bytes]) -> tarfile.TarFile:
    """The archive as a stream, after a look at its end.

    A tar archive ends with two empty blocks; one that was cut between two members would go unnoticed.
    """
    end = 2 * tarfile.BLOCKSIZE
    file.seek(-min(end, file.seek(0, os.SEEK_END)), os.SEEK_END)
    if file.read(end) != bytes(end):
        raise tarfile.ReadError("it does not end as a tar archive does")
    file.seek(0)
    return tarfile.open(fileobj=file, mode="r|")


def find(tree: Tree, wanted: Wanted) -> Form | None:
    """The tar shards of a source, or ``None``."""
    if SUFFIX not in tree.first:
        return None
    tally = Tally(tree.passed_over)
    chosen = chosen_files(tree, SUFFIX, wanted, tally, lambda path: _has_labels([path]))
    shards = {name: [tree.at(path) for path in paths] for name, paths in chosen.splits.items()}
    labelled = _has_labels([path for paths in shards.values() for path in paths])
    chunks = {name: tuple(Shard(path, labelled) for path in paths) for name, paths in shards.items()}
    class_names, advice = None if labelled else UNLABELLED, "give every sample a .cls member"
    return Form("WebDataset shards", chunks, class_names, advice, tally.found, chosen.notes)


def _has_labels(paths: Sequence[Place]) -> bool:
    """Whether the first shard with samples has a label; without samples there is nothing to say against it."""
    for path in paths:
        labels = ("cls" in parts for _, parts in read_shard(path))
        first = next(labels, None)
        if first is not None:
            return first or any(labels)
    return True
