"""Datasets that go to an object store: every file is sent when it is complete, the manifest last.

Nothing can be renamed there, so a build is staged on this machine as usual; shards go out as they are written and take
no room here. Until the manifest is there, the place holds no dataset, only what the same build will continue from.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ule_datasets.base import records
from ule_datasets.base.errors import InputError
from ule_datasets.dataset.manifest import FILE_NAME, Manifest
from ule_datasets.places.urls import RemoteFolder
from ule_datasets.sources.identity import Identity

IDENTITY = ".build/identity.json"
"""There while a build is at work, or has been interrupted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """What a build makes."""

    name: str
    recipe_digest: str
    formats: tuple[str, ...]
    given: tuple[str, ...] = ()
    """Digests of the perturbations that it is assembled from."""
    images: Identity | None = None
    """What it is made from; ``None``: that is not known yet, or the recipe says it."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where a dataset goes; workers get it with their shards."""

    to: RemoteFolder
    files: Path
    """Where the files stand on this machine, laid out as they will be there."""

    def begin(self, identity: Begun, *, overwrite: bool) -> Manifest | None:
        """Take the place, or return the manifest of a finished dataset there; refuse what holds anything else."""
        self.to.check()
        text = self.to.read(FILE_NAME)
        previous = None if text is None else Manifest.parse(text, f"{self.to}/{FILE_NAME}")
        if previous is not None and not overwrite:
            return previous
        begun = self._begun()
        if begun is None and previous is None and (others := self.to.names()):
            raise InputError(f"{self.to} holds something else ({others[0]}); choose a place that is new or empty")
        if begun is not None and dataclasses.replace(begun, images=None) != identity and not overwrite:
            raise InputError(
                f"{self.to} holds an unfinished build with other settings; "
                "finish it with the same command, choose another --out, or discard it with --overwrite"
            )
        if begun is None or overwrite:
            self._begin(identity)
        self.to.remove(FILE_NAME)
        return None

    def check_images(self, images: Identity) -> None:
        """Bind the place to the images that a build is made from; refuse if it was begun with others."""
        begun = self._begun()
        if begun is not None and begun.images not in (None, images):
            raise InputError(
                f"{self.to} holds an unfinished build from {begun.images}, not from {images}; finish it with the same "
                "images, choose another --out, or discard it with --overwrite"
            )
        if begun is not None and begun.images is None:
            self._begin(dataclasses.replace(begun, images=images))

    def send(self, path: Path) -> None:
        """Send a complete file, and delete it here."""
        self.to.send(path, path.relative_to(self.files).as_posix())
        path.unlink()

    def has(self, path: Path, size: int) -> bool:
        """Whether a file has been sent before."""
        return self.to.size(path.relative_to(self.files).as_posix()) == size

    def complete(self) -> Manifest:
        """Send what has not been sent, and the manifest at the very end; its presence means complete."""
        manifest = Manifest.read(self.files)
        for record in manifest.files:
            path = self.files / record.path
            if path.exists():
                self.send(path)
        missing = [record.path for record in manifest.files if self.to.size(record.path) != record.size]
        if missing:
            raise InputError(f"{self.to} has lost {missing[0]} meanwhile; build again with --overwrite")
        for name in set(self.to.names()) - {record.path for record in manifest.files} - {IDENTITY}:
            self.to.remove(name)
        self.to.send(self.files / FILE_NAME, FILE_NAME)
        self.to.remove(IDENTITY)
        return manifest

    def _begun(self) -> Begun | None:
        text = self.to.read(IDENTITY)
        return None if text is None else records.parse(Begun, text, f"{self.to}/{IDENTITY}")

    def _begin(self, begun: Begun) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "to-send"
            path.write_text(json.dumps(dataclasses.asdict(begun)), encoding="utf-8")
            self.to.send(path, IDENTITY)
