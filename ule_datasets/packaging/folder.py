"""The dataset folder while it is being built: staged in ``.build``, resumable, then moved into place.

Until a build is complete the folder holds nothing that a loader could mistake for a dataset. Publishing
moves the files out of ``.build`` and the manifest last; every step can be interrupted and repeated.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ule_datasets.base.errors import InputError
from ule_datasets.base.files import PARTIAL, write_atomically
from ule_datasets.base.options import VERIFICATION
from ule_datasets.dataset.manifest import FILE_NAME, Manifest

STAGING = ".build"
DONE = ".build.done"


@dataclass(frozen=True, slots=True)
class BuildFolder:
    """A dataset folder that this process may write to."""

    root: Path
    scratch: Path | None = None
    """A folder elsewhere, for decoded images; ``None``: they stand in the staging folder."""

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
        root = self.root.expanduser().resolve()
        return self.scratch / f"ule-{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"

    def clear_spool(self) -> None:
        """Delete the decoded images."""
        if self.spool.exists():
            shutil.rmtree(self.spool)

    def read_note(self, name: str) -> Any:
        """A note of an interrupted build, or ``None``; torn notes count as absent."""
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return json.loads((self.staging / f"{name}.json").read_text(encoding="utf-8"))
        return None

    def write_note(self, name: str, content: Any) -> None:
        """Remember something until the build is complete."""
        write_atomically(self.staging / f"{name}.json", json.dumps(content))

    def publish(self) -> None:
        """Move the complete dataset into place; the manifest goes last and makes it valid."""
        if (self.files / FILE_NAME).exists():
            if self.read_note("moving") is None:
                self._remove_previous()
                self.write_note("moving", True)
            for record in Manifest.read(self.files).files:
                if (self.files / record.path).exists():
                    (self.root / record.path).parent.mkdir(parents=True, exist_ok=True)
                    (self.files / record.path).replace(self.root / record.path)
            (self.files / FILE_NAME).replace(self.root / FILE_NAME)
        self.staging.replace(self.root / DONE)
        remove_leftovers(self.root, self.scratch)

    def _remove_previous(self) -> None:
        """Delete an older dataset: its manifest first, then exactly the files that it lists, and its reports."""
        previous = self.read_note("previous")
        if previous is None:
            old = Manifest.read(self.root).files if (self.root / FILE_NAME).exists() else ()
            previous = [record.path for record in old]
            self.write_note("previous", previous)
        (self.root / FILE_NAME).unlink(missing_ok=True)
        for path in previous:
            (self.root / path).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty yet, or the root itself
                (self.root / path).parent.rmdir()
        if (self.root / VERIFICATION).exists():
            shutil.rmtree(self.root / VERIFICATION)


def remove_leftovers(root: Path, scratch: Path | None = None) -> None:
    """Delete what a finished build no longer needs."""
    if scratch is not None:
        BuildFolder(root, scratch).clear_spool()
    if (root / DONE).exists():
        shutil.rmtree(root / DONE)


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
    folder, root_is_new = BuildFolder(root, scratch), not root.exists()
    folder.staging.mkdir(parents=True, exist_ok=True)
    with _locked(folder.staging / "lock", root):
        remove_leftovers(root)
        previous = folder.read_note("identity")
        if previous is not None and previous != identity:
            if not overwrite:
                raise InputError(
                    f"{root} holds an unfinished build of {previous['name']} with other settings; "
                    "finish it with the same command, choose another --out, or discard it with --overwrite"
                )
            for entry in folder.staging.iterdir():
                if entry.name != "lock":
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            folder.clear_spool()
        folder.write_note("identity", identity)
        try:
            yield folder
        except BaseException as error:
            begun = folder.files.exists() or any(folder.staging.glob("craft-*")) or any(folder.spool.glob("*.json"))
            if not begun or (previous != identity and isinstance(error, InputError)):
                folder.clear_spool()
                shutil.rmtree(folder.staging)  # nothing here is worth continuing: leave no trace
                if root_is_new:
                    root.rmdir()
            raise


def check_ours(root: Path) -> None:
    """Refuse, and leave untouched, a folder that holds anything but a dataset, finished or not, of this tool."""
    if not root.exists():
        return
    if not root.is_dir():
        raise InputError(f"--out {root} is a file; give a folder that is new, empty or a dataset of ours")
    if (root / FILE_NAME).exists():
        Manifest.read(root)
        return
    if (root / STAGING / "identity.json").exists():
        return
    others = sorted(entry.name for entry in root.iterdir() if entry.name not in (STAGING, DONE))
    if (root / STAGING).is_dir():  # a build killed in its first moments left a lock, and perhaps half a note
        others += [
            f"{STAGING}/{p.name}" for p in (root / STAGING).iterdir() if p.name != "lock" and p.suffix != PARTIAL
        ]
    if others:
        raise InputError(
            f"{root} holds something else ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''}); "
            "choose a folder that is new or empty"
        )


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
