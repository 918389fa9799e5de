"""What publishing a dataset folder would send: checked, with the card and manifest of that repository; asks nobody."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ule_datasets.base.errors import InputError
from ule_datasets.base.names import RelativePath
from ule_datasets.base.options import PublishOptions as PublishOptions
from ule_datasets.base.shown import counted
from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.dataset.manifest import FILE_NAME as MANIFEST
from ule_datasets.dataset.manifest import LEFT_OUT, FileRecord, Manifest
from ule_datasets.dataset.shards import file_record
from ule_datasets.definition import Recipe
from ule_datasets.packaging.card import NAMESPACE, write_card
from ule_datasets.packaging.figures import draw_figures_without_images

CARD = "README.md"
NAMING = (CARD, "croissant.json")
"""Files that name the repository which they stand in."""
WITHOUT_IMAGES = (PERTURBATION, "recipe.json", "craft.json", LEFT_OUT)
"""What is published as it is when images are not; card and figures are made anew without them."""
MAIN = "main"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedFile:
    """A file of the dataset as it will stand in the repository."""

    path: RelativePath
    content: Path | bytes
    size: int
    sha256: str

    @classmethod
    def of(cls, path: str, content: Path | bytes) -> PlannedFile:
        """With size and digest of the content."""
        where = RelativePath(path)
        if isinstance(content, bytes):
            return cls(path=where, content=content, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        return cls(path=where, content=content, **file_record(content))

    def read(self) -> bytes:
        """The content itself."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    def blob_id(self) -> str:
        """What git calls a plain file with this content."""
        content = self.read()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What would go where."""

    repo_id: str
    branch: str
    private: bool
    manifest: Manifest
    files: tuple[PlannedFile, ...]
    with_images: bool

    @property
    def tag(self) -> str | None:
        """The version; only the main branch is tagged."""
        return f"v{self.manifest.version}" if self.branch == MAIN else None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def about(self) -> dict[str, Any]:
        """For programs: JSON values."""
        return {
            "repo_id": self.repo_id,
            "branch": self.branch,
            "tag": self.tag,
            "private": self.private,
            "with_images": self.with_images,
            "files": [{"path": str(file.path), "size": file.size} for file in self.files],
        }

    def describe(self) -> list[str]:
        """Lines for ``--dry-run``: every file with its size."""
        what = "" if self.with_images else " (no images: perturbation, recipe, digests, card)"
        tag = f", tag {self.tag}" if self.tag else ""
        files = f"{counted(len(self.files), 'file')}, {self.size / 2**20:.1f} MiB"
        head = f"{files}, to {self.repo_id} ({self.branch}{tag}){what}:"
        return [head, *(f"  {file.size:>12,}  {file.path}" for file in self.files)]


def plan_publication(recipe: Recipe, folder: Path, options: PublishOptions, *, catalogue: Sequence[str] = ()) -> Plan:
    """Check a complete dataset folder and say what publishing it would do; talks to nobody.

    ``recipe`` is what the folder was built from; ``catalogue`` are names that only their own datasets may have.

    Raises:
        InputError: the folder is incomplete, damaged or another dataset, or the name belongs to another one.
    """
    manifest = Manifest.read(folder)
    repo_id = options.repo_id or f"{NAMESPACE}/{manifest.name}"
    if repo_id.count("/") != 1:
        raise InputError(f"--repo-id {repo_id}: give OWNER/NAME")
    name = repo_id.split("/")[1]
    if manifest.recipe_digest != recipe.digest:
        raise InputError(f"{folder} holds {manifest.name} of another recipe; build it again with --overwrite")
    if name != manifest.name and name in catalogue:
        what = f" ({manifest.reduced})" if manifest.reduced else ""
        raise InputError(f"--repo-id {repo_id}: {manifest.name}{what} is not the dataset that is known as {name}")
    if (lost := manifest.damaged(folder)) is not None:  # digests are compared when the client has computed them
        raise damaged(lost)
    for method in recipe.methods:
        if withheld := getattr(method, "withheld", ""):  # a user's file may hold a class from before this was asked
            raise InputError(f"{manifest.name} is not published: {withheld}")
    with_images = recipe.source.licence.redistributable and not options.perturbation_only
    if with_images and "parquet" not in manifest.formats:
        raise InputError(f"{folder} has no Parquet shards, which load_dataset needs; build it with both formats")
    if with_images:
        files = [PlannedFile(content=folder / record.path, **dataclasses.asdict(record)) for record in manifest.files]
    else:
        files = _without_images(recipe, folder, manifest)
    manifest, described = _described(files, manifest, repo_id)
    return Plan(
        repo_id=repo_id,
        branch=options.revision or MAIN,
        private=options.private,
        manifest=manifest,
        files=tuple(sorted(described, key=lambda file: file.path)),
        with_images=with_images,
    )


def _described(files: Sequence[PlannedFile], manifest: Manifest, repo_id: str) -> tuple[Manifest, list[PlannedFile]]:
    """The files with a card that names this repository, and a manifest that has their digests."""
    usual = f"{NAMESPACE}/{manifest.name}"
    renamed = {file.path: _with_name(file, usual, repo_id) for file in files if file.path in NAMING}
    records = [renamed.get(record.path, record) for record in manifest.files]
    described = tuple(FileRecord(path=file.path, size=file.size, sha256=file.sha256) for file in records)
    manifest = dataclasses.replace(manifest, files=described)
    others = [file for file in files if file.path not in renamed]
    return manifest, [*others, *renamed.values(), PlannedFile.of(MANIFEST, manifest.to_json().encode())]


def _with_name(file: PlannedFile, usual: str, repo_id: str) -> PlannedFile:
    content = file.read()
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise damaged(file)
    return PlannedFile.of(file.path, content.replace(usual.encode(), repo_id.encode()))


def _without_images(recipe: Recipe, folder: Path, manifest: Manifest) -> list[PlannedFile]:
    """Nothing that holds a pixel of the source, clean or perturbed."""
    perturbation = Perturbation.load(folder / PERTURBATION)
    figures = draw_figures_without_images(perturbation, manifest.class_names)
    card = write_card(recipe, manifest, perturbation, figures, with_images=False)
    return [
        *(
            PlannedFile(content=folder / record.path, **dataclasses.asdict(record))
            for record in manifest.files
            if record.path in WITHOUT_IMAGES
        ),
        *(PlannedFile.of(f"figures/{name}", content) for figure in figures for name, content in figure.files.items()),
        PlannedFile.of(CARD, card.encode()),
    ]


def damaged(file: PlannedFile | FileRecord) -> InputError:
    """For a file that was changed after it was built."""
    return InputError(f"the dataset is damaged: {file.path} is not what the manifest says; build it again")
