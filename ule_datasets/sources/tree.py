"""What there is at the place of a source: one walk for all forms, and what it did not go into, by reason."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeAlias

from ule_datasets.base.errors import InputError
from ule_datasets.places.remote_path import RemotePath
from ule_datasets.sources.own import MARKS, STAGING, is_ours

Place: TypeAlias = Path | RemotePath
"""A file or folder of a source: on this machine, or at a URL."""

NOT_CONTENT = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
"""Folders that systems make beside people's files; thumbnails and deleted photographs may be in them."""
_SUFFIX = re.compile(r"\.[a-z][a-z0-9_]{0,11}")
HIDDEN = "hidden"
OWN = "made by this tool: never read as a source"
"""Why folders with its datasets and reports are passed over."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Files or folders of a source that are no part of it, for one reason."""

    reason: str
    count: int
    example: str
    """The first of them, by its path below the source."""


class Tally:
    """Counts what is passed over."""

    def __init__(self, found: Iterable[PassedOver] = ()) -> None:
        self._counts = {each.reason: each.count for each in found}
        self._examples = {each.reason: each.example for each in found}

    def add(self, reason: str, example: str, count: int = 1) -> None:
        """Count one more, or several."""
        self._counts[reason] = self._counts.get(reason, 0) + count
        self._examples.setdefault(reason, example)

    def add_all(self, reason: str, paths: Iterable[str]) -> None:
        """Count each of some paths."""
        for path in paths:
            self.add(reason, path)

    @property
    def found(self) -> tuple[PassedOver, ...]:
        """By reason, in the order in which reasons came up."""
        return tuple(PassedOver(reason, count, self._examples[reason]) for reason, count in self._counts.items())


class Listing(NamedTuple):
    """What is directly in a folder: names, sorted."""

    files: list[str]
    folders: list[str]


@dataclass(frozen=True, eq=False)
class Tree:
    """Every file of a source, by its path below the source with ``/``; without those that are passed over unread."""

    root: Place
    """The folder, or a single file."""
    folders: Mapping[str, Listing]
    """By path; the empty path is the source itself."""
    passed_over: tuple[PassedOver, ...] = ()
    links: tuple[str, ...] = ()
    """Links to folders that were followed."""
    is_file: bool = False
    """Whether the source is a single file."""
    splits: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The files of each split, where a card says it; empty: names tell."""
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names of classes by column, where a card says them."""

    def at(self, path: str) -> Place:
        """Where a file or folder is."""
        return self.root if self.is_file or not path else self.root / path

    def below(self, folder: str = "") -> Iterator[str]:
        """The files at any depth below a folder, in the order of their paths' parts."""
        return in_order(folder, folder, lambda path: self.folders[path])

    @cached_property
    def first(self) -> Mapping[str, str]:
        """A file with each suffix that there is (lower case; empty for none)."""
        found: dict[str, str] = {}
        for folder, listing in self.folders.items():
            for name in listing.files:
                if (suffix := suffix_of(name)) not in found:
                    found[suffix] = join(folder, name)
        return found


def in_order(folder: str, shown: str, listing_of: Callable[[str], Listing]) -> Iterator[str]:
    """The files at any depth below a folder, by paths that begin with ``shown``, in the order of their parts."""
    pending = [_entries(folder, shown, listing_of(folder))]
    while pending:
        for path, inner in pending[-1]:
            if inner is not None:
                pending.append(_entries(inner, path, listing_of(inner)))
                break
            yield path
        else:
            pending.pop()


def _entries(folder: str, shown: str, listing: Listing) -> Iterator[tuple[str, str | None]]:
    """Paths in a folder, sorted, with those by which its folders are listed."""
    prefix = f"{shown}/" if shown else ""
    if not listing.folders:
        return ((prefix + name, None) for name in listing.files)
    folders = set(listing.folders)
    return (
        (prefix + name, join(folder, name) if name in folders else None)
        for name in sorted([*listing.files, *listing.folders])
    )


def as_text(name: str) -> str:
    """A name with bytes of no text written out, as files may have them, so that it can be written anywhere."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def suffix_of(path: str) -> str:
    """The end of a file's name from its last dot, in lower case: ``.tar.gz`` is one; empty if there is none."""
    dot = path.rfind(".")
    if path[dot:].lower() == ".gz" and path[:dot].lower().endswith(".tar"):
        dot -= len(".tar")
    return path[dot:].lower() if dot > path.rfind("/") + 1 else ""


def stem_of(path: str) -> str:
    """A file's name without its folder and without the end from its last dot, as ``PurePosixPath`` gives it."""
    name = path.rpartition("/")[2]  # a path object would take as long as reading a small image
    dot = name.rfind(".")
    return name[:dot] if 0 < dot < len(name) - 1 else name


def kind_of(path: str) -> str:
    """What a file is called that a form has no use for; of endings that are no words there may be any number."""
    suffix = suffix_of(path)
    if not suffix:
        return "files without a suffix"
    return f"{suffix} files" if _SUFFIX.fullmatch(suffix) else "files of other suffixes"


def join(folder: str, name: str) -> str:
    """The path of something in a folder."""
    return f"{folder}/{name}" if folder else name


def walk(root: Place, only: Collection[str] | None = None) -> Tree:
    """List a source; of the class folders beside one that ``only`` names, no other is listed.

    Hidden files and folders, what systems and notebooks leave behind, this tool's own output, broken links and what
    is neither file nor folder are passed over. Links to folders are followed, unless that would never end.

    Raises:
        InputError: a folder cannot be listed.
    """
    if not root.is_dir():
        return Tree(root, {"": Listing([root.name], [])}, is_file=True)
    return _Walk(root, None if only is None else frozenset(only)).run()


class _Walk:
    """A walk in progress."""

    def __init__(self, root: Place, only: frozenset[str] | None) -> None:
        self.root, self.only = root, only
        self.tally = Tally()
        self.folders: dict[str, Listing] = {}
        self.links: list[str] = []
        self.entered: set[str] = set()
        """Real paths of folders that links led to."""

    def run(self) -> Tree:
        real = "" if isinstance(self.root, RemotePath) else os.path.realpath(self.root)
        pending: list[tuple[str, str, tuple[str, ...]]] = [("", real, ())]
        while pending:
            path, real, left = pending.pop()
            files, folders, links = self._listed(path)
            if self._is_own(path, files, folders):
                above, _, name = path.rpartition("/")
                self.folders[above].folders.remove(name)
                continue
            inside = self._used(path, sorted(self._content(path, [*folders, *links])))
            targets = {name: self._target(join(path, name), (*left, real)) for name in inside if name in links}
            inside = [name for name in inside if targets.get(name) != ""]
            self.folders[path] = Listing(sorted(self._content(path, files)), inside)
            for name in reversed(inside):
                if target := targets.get(name):
                    pending.append((join(path, name), target, (*left, real)))
                else:
                    pending.append((join(path, name), f"{real}/{name}", left))
        return Tree(self.root, self.folders, self.tally.found, tuple(self.links))

    def _listed(self, path: str) -> tuple[list[str], list[str], list[str]]:
        """Names of files, folders and links to folders; what an entry is comes with the listing."""
        folder = self.root / path
        if isinstance(folder, RemotePath):
            entries = folder.entries().items()
            named = [[name for name, (is_folder, *_) in entries if is_folder is kind] for kind in (False, True)]
            return named[0], named[1], []
        files, folders, links = [], [], []
        try:
            with os.scandir(folder) as entries_here:
                for entry in entries_here:
                    if entry.is_file():
                        files.append(entry.name)
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif entry.is_dir():
                        links.append(entry.name)
                    else:
                        reason = "broken links" if entry.is_symlink() else "neither a file nor a folder"
                        self.tally.add(reason, join(path, entry.name))
        except OSError as error:
            raise InputError(f"cannot list {folder}: {error.strerror}") from error
        return files, folders, links

    def _content(self, path: str, names: Iterable[str]) -> list[str]:
        """Without what is hidden."""
        kept = []
        for name in names:
            if name[0] == "." or name in NOT_CONTENT:
                self.tally.add(HIDDEN, join(path, name))
            else:
                kept.append(name)
        return kept

    def _is_own(self, path: str, files: list[str], folders: list[str]) -> bool:
        """Whether this tool has made a folder, or is about to; the source itself is listed nevertheless."""
        marks = (name for name in MARKS if name in files)
        own = bool(path) and (STAGING in folders or any(is_ours(self.root / path / name) for name in marks))
        if own:
            self.tally.add(OWN, path)
        return own

    def _used(self, path: str, folders: list[str]) -> list[str]:
        """Without the folders of other classes, where those of wanted ones are."""
        if self.only is None or self.only.isdisjoint(folders):
            return folders
        others = [join(path, name) for name in folders if name not in self.only]
        self.tally.add_all("folders of other classes", others)
        return [name for name in folders if name in self.only]

    def _target(self, link: str, left: tuple[str, ...]) -> str:
        """The real path that a link leads to; empty if it is not followed.

        One that leads to a folder which it is in would never end. Within what a link led to, no folder is entered a
        second time: a few links between folders would otherwise make a walk without end to speak of.
        """
        target = os.path.realpath(str(self.root / link))
        if any(f"{folder}/".startswith(f"{target.rstrip('/')}/") for folder in left):
            self.tally.add("links to a folder that they are in", link)
        elif len(left) > 1 and target in self.entered:
            self.tally.add("links to a folder that is read already", link)
        else:
            self.links.append(link)
            self.entered.add(target)
            return target
        return ""
