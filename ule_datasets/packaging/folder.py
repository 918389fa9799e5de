"""The dataset folder while it is being built: staged in ``.build``, resumable, then moved into place.

Until a build is complete the folder holds nothing that a loader could mistake for a dataset. Publishing
moves the files out of ``.build`` and the manifest last; every step can be interrupted and repeated, by the loss of
power as well: a note is on the disk after what it vouches for, and before what it announces.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ule_datasets.base import sealed
from ule_datasets.base.errors import InputError, UnusableImagesError
from ule_datasets.base.files import PARTIAL, expanded, make_folder, refuse_links, remove, remove_tree, sync
from ule_datasets.base.names import RelativePath
from ule_datasets.base.options import REPLACED_VERIFICATION, VERIFICATION
from ule_datasets.base.shown import few
from ule_datasets.compute.executor import Executor
from ule_datasets.dataset.manifest import FILE_NAME, DamagedManifestError, FileRecord, Manifest
from ule_datasets.dataset.reading import refuse_while_verified
from ule_datasets.dataset.shards import file_record

STAGING = ".build"
DONE = ".build.done"
IDENTITY = "identity"
"""The note on what is being built; all others are worth something only together with it."""
DISCARDED = {"discarded": True}
"""Its content while the rest is deleted."""
PREVIOUS = "previous"
"""The note on an older dataset's files that are to go; true whatever is built."""

REFUSED = "refused"
"""A mark on decoded images of which some could not be used."""


Note = TypeVar("Note")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileNote:
    """What a file was when it was written, as ``file_record`` tells it."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CompleteNote:
    """All of the dataset is made."""

    manifest: FileNote


@dataclass(frozen=True, kw_only=True, slots=True)
class PathsNote:
    """Files below the root: those of an older dataset that are to go, or this one's on their way to their places."""

    paths: tuple[RelativePath, ...]


@dataclass(frozen=True, slots=True)
class BuildFolder:
    """A dataset folder that this process may write to."""

    root: Path
    scratch: Path | None = None
    """A folder elsewhere, for decoded images; ``None``: they stand in the staging folder."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What is built here."""

    @property
    def staging(self) -> Path:
        """Where everything is made."""
        return self.root / STAGING

    @property
    def files(self) -> Path:
        """The dataset-to-be; same layout as the finished folder."""
        return self.staging / "files"

    @property
    def spool(self) -> Path:
        """Where decoded images stand until the build is complete; no other ``root`` has the same place."""
        if self.scratch is None:
            return self.staging / "spool"
        root = expanded(self.root).resolve()
        return self.scratch / f"ule-{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"

    def clear_spool(self) -> None:
        """Delete the decoded images."""
        remove_tree(self.spool)

    def read_note(self, name: str, kind: type[Note]) -> Note | None:
        """A note of this build from before it was interrupted; ``None``: none is whole, and of the kind."""
        return sealed.read_note(kind, self._note(name), self._key)

    def write_note(self, name: str, **content: Any) -> None:
        """Remember something until the build is complete."""
        sealed.write_note(self._note(name), self._key, content)

    def is_beyond_reading(self) -> bool:
        """Whether more is here than decoded images."""
        return self.files.exists() or any(self.staging.glob("craft-*"))

    def note_complete(self) -> None:
        """Remember that the dataset, as its manifest describes it, only has to be put into its place."""
        self.write_note("complete", manifest=file_record(self.files / FILE_NAME))

    def is_complete(self, executor: Executor, *, sent: bool = False) -> bool:
        """Whether that was noted, and every file is still what the manifest says, here or in its place.

        With ``sent`` files that are not on this machine are elsewhere, where others look after them.
        """
        noted = self.read_note("complete", CompleteNote)
        if noted is None:
            return False
        path = self._place_of(FILE_NAME)
        if not _is_intact((path, asdict(noted.manifest))):
            return False
        places = ((self._place_of(record.path), record) for record in Manifest.read(path.parent).files)
        tasks = [(place, _as_written(record)) for place, record in places if not (sent and not place.exists())]
        return all(executor.map(_is_intact, tasks))

    def manifest(self) -> Manifest:
        """Of the complete dataset, moved or not."""
        return Manifest.read(self._place_of(FILE_NAME).parent)

    def reopen(self) -> None:
        """Take back what was noted as complete, to make what is damaged again: as before ``note_complete``."""
        if (moving := self.read_note("moving", PathsNote)) is not None:
            self.refuse_links(moving.paths)
            back = [path for path in moving.paths if (self.root / path).is_file()]
            for path in back:
                if not (self.files / path).exists():
                    make_folder((self.files / path).parent)
                    (self.root / path).replace(self.files / path)
            for folder in sorted({(self.files / path).parent for path in back}):
                sync(folder)
        for name in ("complete", "moving"):  # in this order: what was complete is moved once
            remove(self._note(name))

    def drop_note(self, name: str) -> None:
        """Forget something."""
        self._note(name).unlink(missing_ok=True)
        sync(self.staging)

    def start_over(self) -> None:
        """Delete all that was made here, by this build or another one, and note what is built from now on."""
        self.reopen()  # what was moved already
        if self._note(PREVIOUS).exists() and not (self.root / FILE_NAME).exists():
            self._remove_previous()  # nothing but the note knows what is left of it
        _clear(self)
        sealed.write_note(self._note(IDENTITY), IDENTITY, self.identity)

    def publish(self) -> None:
        """Move the complete dataset into place; the manifest goes last and makes it valid."""
        if (self.files / FILE_NAME).exists():
            paths = [record.path for record in Manifest.read(self.files).files]
            self.refuse_links(paths)
            if self.read_note("moving", PathsNote) is None:
                self._remove_previous({path for path in paths if not (self.files / path).exists()})
                self.write_note("moving", paths=[*paths, FILE_NAME])
            for path in paths:
                if (self.files / path).exists():
                    make_folder((self.root / path).parent)
                    (self.files / path).replace(self.root / path)
            for folder in sorted({(self.root / path).parent for path in paths}):
                sync(folder)
            (self.files / FILE_NAME).replace(self.root / FILE_NAME)
            sync(self.root)
        self.discard()
        remove_leftovers(self.root, self.scratch)

    def discard(self) -> None:
        """Delete the staging folder of a finished build: all of it, or nothing that its notes are still good for."""
        self.staging.replace(self.root / DONE)
        sync(self.root)
        remove_leftovers(self.root)

    @property
    def _key(self) -> str:
        return json.dumps(self.identity, sort_keys=True)

    def _note(self, name: str) -> Path:
        return self.staging / f"{name}.json"

    def _place_of(self, path: str) -> Path:
        """Where a file of the complete dataset is: still here, or moved."""
        return self.files / path if (self.files / path).exists() else self.root / path

    def _remove_previous(self, moved: Collection[str] = ()) -> None:
        """Delete an older dataset: its manifest first, then the files that it lists; none of ours.

        Reports on it are put aside before, where nobody takes them for the new dataset's.

        Raises:
            InputError: a verification of it is at work, or the note on what is left of it is damaged.
        """
        refuse_while_verified(self.root)
        note = self._note(PREVIOUS)
        previous = sealed.read_note(PathsNote, note, PREVIOUS)
        if previous is None:
            if note.exists():
                raise InputError(
                    f"{note}, the list of an older dataset's files in {self.root}, is damaged; "
                    "delete it and that, and run the same command again"
                )
            old = Manifest.read(self.root).files if (self.root / FILE_NAME).exists() else ()
            previous = PathsNote(paths=tuple(record.path for record in old))
            sealed.write_note(note, PREVIOUS, {"paths": previous.paths})
        self.refuse_links(previous.paths)
        self._put_reports_aside()
        remove(self.root / FILE_NAME)
        for path in set(previous.paths) - set(moved):
            (self.root / path).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty yet, or the root itself
                (self.root / path).parent.rmdir()

    def _put_reports_aside(self) -> None:
        """Move the reports on an older dataset to a folder that is named after it."""
        reports = self.root / VERIFICATION
        if not os.path.lexists(reports):
            return
        known = (self.root / FILE_NAME).exists()
        old = Manifest.read(self.root) if known else None
        wanted = "unknown" if old is None else f"{old.name}-{old.version}-{old.perturbation_digest[:12]}"
        aside = self.root / REPLACED_VERIFICATION
        refuse_links(aside)
        make_folder(aside)
        place, number = aside / wanted, 2
        while os.path.lexists(place):
            place, number = aside / f"{wanted}-{number}", number + 1
        reports.replace(place)
        sync(aside)
        sync(self.root)

    def refuse_links(self, paths: Iterable[str]) -> None:
        """Refuse paths below the root on whose way a folder is a link: what is behind it is somebody else's."""
        for parent in {parent for path in paths for parent in PurePosixPath(path).parents}:
            if parent.name:
                refuse_links(self.root / parent)


def _as_written(record: FileRecord) -> dict[str, Any]:
    return {"size": record.size, "sha256": record.sha256}


def _is_intact(task: tuple[Path, dict[str, Any]]) -> bool:
    """Whether a file is there, and is what was written."""
    path, written = task
    return path.is_file() and file_record(path) == written


def remove_leftovers(root: Path, scratch: Path | None = None) -> None:
    """Delete what a finished build no longer needs."""
    if scratch is not None:
        BuildFolder(root, scratch).clear_spool()
    remove_tree(root / DONE)


def tidy(root: Path, identity: Mapping[str, Any], scratch: Path | None = None) -> None:
    """Delete what is left beside a finished dataset by the build of it; that of another one is left alone."""
    folder = BuildFolder(root, scratch, identity)
    remove_leftovers(root, scratch)
    noted = folder.read_note("complete", CompleteNote)
    if noted is not None and _is_intact((root / FILE_NAME, asdict(noted.manifest))):
        with contextlib.suppress(InputError):
            _check_links(root)
            with _locked(folder.staging / "lock", root):
                folder.discard()
    for leftover in root.glob(f".*{PARTIAL}"):
        leftover.unlink(missing_ok=True)


@contextmanager
def open_folder(
    root: Path, identity: dict[str, Any], *, overwrite: bool, scratch: Path | None = None
) -> Iterator[BuildFolder]:
    """Lock a folder for building: a new one, or the interrupted build of the same thing.

    Decoded images stand in ``scratch`` where it is given; they are kept and deleted with the rest.

    Raises:
        InputError: the folder holds something else, or another build is at work in it.
    """
    check_ours(root)
    folder, root_is_new = BuildFolder(root, scratch, identity), not root.exists()
    _check_links(root)
    if overwrite:
        refuse_while_verified(root)  # now, when nothing is written yet, rather than when all is made
    make_folder(folder.staging)
    with _locked(folder.staging / "lock", root):
        remove_leftovers(root)
        refused = folder.staging / REFUSED
        previous = sealed.read_note(dict[str, Any], folder.staging / f"{IDENTITY}.json", IDENTITY)
        if previous != identity:
            if not overwrite and previous != DISCARDED and not refused.exists():
                _refuse_other(folder, previous)
            if previous is not None:
                BuildFolder(root, scratch, previous).reopen()  # its files in their places are known to nobody else
            folder.start_over()
        refused.unlink(missing_ok=True)
        try:
            yield folder
        except UnusableImagesError:
            if not folder.is_beyond_reading():
                refused.touch()  # to be continued by the same command with another option, or to make way for any other
            raise
        except BaseException as error:
            begun = folder.is_beyond_reading() or any(folder.spool.glob("*.json"))
            if not begun or (previous != identity and isinstance(error, InputError)):
                folder.clear_spool()
                folder.discard()  # nothing here is worth continuing: leave no trace
                if root_is_new:
                    root.rmdir()
            else:
                for half in folder.files.rglob(f".*{PARTIAL}"):  # of workers that were ended because another failed
                    half.unlink(missing_ok=True)
            raise


def _clear(folder: BuildFolder) -> None:
    """Delete another build's work; whenever that is interrupted, what is left stays known as ours to delete."""
    note = folder.staging / f"{IDENTITY}.json"
    if note.exists():
        sealed.write_note(note, IDENTITY, DISCARDED)
    others = [entry for entry in folder.staging.iterdir() if entry.name not in ("lock", note.name)]
    for entry in others:
        remove_tree(entry)
    if others:
        sync(folder.staging)
    folder.clear_spool()


def _refuse_other(folder: BuildFolder, previous: Mapping[str, Any] | None) -> None:
    """Refuse to go on where another build left off."""
    advice = "choose another --out, or discard it with --overwrite"
    if previous is not None:
        raise InputError(
            f"{folder.root} holds an unfinished build of {previous.get('name')} with other settings; "
            f"finish it with the same command, {advice}"
        )
    if (folder.staging / f"{IDENTITY}.json").exists():
        raise InputError(
            f"{folder.root} holds an unfinished build that cannot be continued (an earlier version began it, or its "
            f"notes are damaged); {advice}"
        )


def check_ours(root: Path) -> None:
    """Refuse, and leave untouched, a folder that holds anything but a dataset, finished or not, of this tool."""
    if not root.exists():
        return
    if not root.is_dir():
        raise InputError(f"--out {root} is a file; give a folder that is new, empty or a dataset of ours")
    if (root / FILE_NAME).exists():
        try:
            Manifest.read(root)
        except DamagedManifestError as error:
            raise InputError(
                f"{error}; so nothing says for certain which files are the dataset's, and --overwrite replaces none: "
                f"move {root} away, or choose another --out"
            ) from error
        return
    if (root / STAGING / f"{IDENTITY}.json").exists():
        return
    others = sorted(entry.name for entry in root.iterdir() if entry.name not in (STAGING, DONE))
    if (root / STAGING).is_dir():  # a build killed in its first moments left a lock, and perhaps half a note
        others += [
            f"{STAGING}/{p.name}" for p in (root / STAGING).iterdir() if p.name != "lock" and p.suffix != PARTIAL
        ]
    if others:
        raise InputError(f"{root} holds something else ({few(others)}); choose a folder that is new or empty")


def _check_links(root: Path) -> None:
    """Before anything is written to a dataset folder: the folders in it are folders, and a build made no links."""
    if root.is_dir():
        refuse_links(*(entry for entry in root.iterdir() if entry.name != VERIFICATION and entry.is_dir()))
    refuse_links(root / STAGING, *(root / STAGING).rglob("*"))


@contextmanager
def _locked(path: Path, root: Path) -> Iterator[None]:
    """Hold an advisory lock; it ends with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows: builds work, without protection against a second one in the same folder
        yield
        return
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another build is at work in {root}; wait for it, or choose another --out") from error
        yield
