"""WebDataset tar shards: adjacent members ``<key>.png`` (or another image type) and ``<key>.cls``.

Without any ``.cls`` member the images have no labels.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ule_datasets.base.errors import InputError
from ule_datasets.base.limits import IMAGE_FILE, LABEL_FILE
from ule_datasets.base.shown import few
from ule_datasets.sources import tar
from ule_datasets.sources.cifar_batches import is_archive
from ule_datasets.sources.forms import UNLABELLED, Form, Place, RawSample, Wanted, chosen_files
from ule_datasets.sources.layout import SUFFIXES
from ule_datasets.sources.tree import Tally, Tree, suffix_of
from ule_datasets.sources.unusable import Unusable

LABEL = "cls"
LONGEST_NUMBER = 19
SHOWN = 6
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
"""Key and extension, as the webdataset library splits a name: at the first dot of the file's name."""
_META = re.compile(r"__[^/]*__(/|$)|(.*/)?(__MACOSX|\.[^./][^/]*)/")
"""What that library leaves out, and folders that are no part of any dataset."""


@dataclass(slots=True)
class Sample:
    """Adjacent members of one key."""

    key: str
    parts: dict[str, bytes] = field(default_factory=dict)
    """By extension in lower case; empty what was not wanted."""
    problem: str = ""
    """Why it cannot be used; empty: nothing is wrong with its members."""

    @property
    def images(self) -> list[str]:
        """Extensions of images."""
        return [extension for extension in self.parts if f".{extension}" in SUFFIXES]


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar file, read as a stream; nothing is extracted."""

    path: Place
    labelled: bool = True

    def samples(self) -> Iterator[RawSample | Unusable]:
        """Every sample of the shard, and at the end what is wrong with the shard as a whole."""
        seen: set[str] = set()
        for sample in read_shard(self.path, lambda extension: extension == LABEL or f".{extension}" in SUFFIXES):
            if isinstance(sample, Unusable):
                yield sample
                continue
            if sample.key in seen:
                sample.problem = "its members are in the archive a second time"
            seen.add(sample.key)
            yield self._sample(sample)

    def _sample(self, sample: Sample) -> RawSample | Unusable:
        origin, images = f"{self.path} ({sample.key})", sample.images
        if sample.problem:
            return Unusable(origin, f": {sample.problem}")
        if len(images) != 1 or (LABEL in sample.parts) != self.labelled:
            wanted = "a .cls member" if self.labelled else "no .cls member, as in the samples before"
            found = few([repr(name) for name in sorted(sample.parts)], SHOWN)
            return Unusable(origin, f": {_dots(sample) or f'expected one image and {wanted}, found [{found}]'}")
        text = sample.parts[LABEL].strip() if self.labelled else b"0"
        if not text.isdigit() or len(text) > LONGEST_NUMBER:
            return Unusable(origin, f": the .cls member holds {text[:20]!r}, not a class number")
        return RawSample(sample.parts[images[0]], int(text), origin, sample.key.rpartition("/")[2])


def read_shard(path: Place, wanted: Callable[[str], bool] = lambda _: True) -> Iterator[Sample | Unusable]:
    """The samples of a shard in order, with those members that are wanted by their extensions.

    Raises:
        InputError: the file cannot be read at all, or is something else.
    """
    current: Sample | None = None
    damage = ""
    try:
        with tar.opened(path) as members:
            for member in members:
                match = None if _META.match(member.name) else _MEMBER.fullmatch(member.name)
                if match is None:
                    continue
                key, extension = match[1], match[2].lower()
                if current is None or key != current.key:
                    if current is not None:
                        yield current
                    current = Sample(key)
                _add(current, extension, member, wanted=wanted(extension))
    except tar.DamagedError as error:
        damage = str(error)
    if current is not None:
        yield current
    if damage:
        yield Unusable(str(path), f" is not a whole tar archive: {damage}")


def _add(sample: Sample, extension: str, member: tar.Member, *, wanted: bool) -> None:
    """Read a member, if it is wanted and can be."""
    limit = LABEL_FILE if extension == LABEL else IMAGE_FILE
    problem = ""
    if extension in sample.parts:
        problem = "is in the archive twice"
    elif wanted:
        problem = member.problem or limit.problem(member.size)
    if problem:
        sample.problem = sample.problem or f"{member.name} {problem}"
    sample.parts[extension] = member.read() if wanted and not problem else b""


def _dots(sample: Sample) -> str:
    """What is wrong with names that have a dot within the key."""
    longer = [extension for extension in sample.parts if f".{extension.rpartition('.')[2]}" in SUFFIXES]
    if sample.images or not longer:
        return ""
    return (
        f"WebDataset takes a name up to its first dot for the key, so that {sample.key}.{longer[0]} has key "
        f"{sample.key!r}: rename the members so that only the last dot is left"
    )


def example(tree: Tree) -> str | None:
    """The first tar shard of a source, if there is one."""
    if not any(suffix in tree.first for suffix in tar.SUFFIXES):
        return None
    return next(filter(_is_shard, tree.below()), None)


def _is_shard(path: str) -> bool:
    return suffix_of(path) in tar.SUFFIXES and not is_archive(path)


def find(tree: Tree, wanted: Wanted) -> Form | None:
    """The tar shards of a source, or ``None``.

    Raises:
        InputError: they hold no images.
    """
    if example(tree) is None:
        return None
    tally = Tally(tree.passed_over)
    chosen = chosen_files(tree, _is_shard, wanted, tally, lambda path: _first_sample([path])[1])
    shards = {name: [tree.at(path) for path in paths] for name, paths in chosen.splits.items()}
    first, labelled = _first_sample([path for paths in shards.values() for path in paths])
    chunks = {name: tuple(Shard(path, labelled) for path in paths) for name, paths in shards.items()}
    advice = "give every sample a .cls member"
    if "/" in first.key:
        advice += ", or unpack the archive if its folders are the classes"
    names = tree.class_names.get(LABEL) if labelled else UNLABELLED
    return Form("WebDataset shards", chunks, names, advice, tally.found, chosen.notes, chosen.names)


def _first_sample(paths: Sequence[Place]) -> tuple[Sample, bool]:
    """The first sample with an image, and whether samples of its shard have labels.

    Raises:
        InputError: no shard has any.
    """
    damage = found = ""
    for path in paths:
        samples = read_shard(path, LABEL.__eq__)
        for sample in samples:
            if isinstance(sample, Unusable):
                damage = damage or str(sample)
            elif sample.images:
                rest = (other for other in samples if isinstance(other, Sample))
                return sample, any(LABEL in other.parts for other in itertools.chain([sample], rest))
            else:
                found = found or f"{path} ({sample.key}): {_dots(sample) or 'no image, as its extension would tell'}"
    raise InputError(damage or found or f"{paths[0]} has no members that could be samples (KEY.png, KEY.cls)")
