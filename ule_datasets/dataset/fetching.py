"""Finding a dataset or a perturbation that the user names: a place on this machine, or a repository on the Hub."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ule_datasets.base.errors import InputError
from ule_datasets.base.files import expanded
from ule_datasets.base.names import nearest, unknown
from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION
from ule_datasets.dataset.manifest import FILE_NAME as MANIFEST
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.places.hub import download, parse_repository


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundPerturbation:
    """A saved perturbation, and the published dataset that it belongs to."""

    path: Path
    repository: str = ""
    published: Manifest | None = None
    """``None``: it comes from this machine."""

    def differences(self, built: Manifest) -> list[str]:
        """In what a dataset that was built from it differs from the published one: nothing, if both are right."""
        if self.published is None or self.published.recipe_digest != built.recipe_digest:
            return []
        ours = {name: split.digest for name, split in built.splits.items()}
        return [
            f"FAILED {name}: pixels and labels have digest {ours.get(name, '(there is no such split)')}, "
            f"those of {self.repository} have {split.digest}"
            for name, split in self.published.splits.items()
            if ours.get(name) != split.digest
        ]

    def proof(self, built: Manifest) -> str:
        """One line on what was compared."""
        assert self.published is not None
        if self.published.recipe_digest != built.recipe_digest:
            return f"the perturbation of {self.repository} ({self.published.name}) is part of {built.name}"
        ours = {file.path: file.sha256 for file in built.files}
        shards = [file for file in self.published.shards() if file.path in ours]
        same = sum(ours[file.path] == file.sha256 for file in shards)
        return (
            f"equal to {self.repository} {self.published.version}: pixels and labels of {' and '.join(built.splits)}; "
            f"{same} of {len(shards)} shards byte for byte"
        )


def find_perturbation(where: str) -> FoundPerturbation:
    """A perturbation file, the one of a dataset folder, or the one of a dataset on the Hub.

    Raises:
        InputError: there is none.
    """
    path = expanded(where)
    if path.is_dir() and not (path / PERTURBATION).exists():
        raise InputError(
            f"--perturbation {where}: the folder has no {PERTURBATION}; give the file, or the folder of a dataset that "
            "has one"
        )
    if path.exists():
        return FoundPerturbation(path=path / PERTURBATION if path.is_dir() else path)
    repository = _repository(where)
    if repository is None:
        raise InputError(f"--perturbation {where}: no such file or folder, and not OWNER/NAME on the Hub")
    name, revision = repository
    elsewhere = f"or give a file or folder: here is no {where}"
    folder = download(name, revision, [PERTURBATION, MANIFEST], elsewhere=elsewhere)
    if not (folder / PERTURBATION).exists() or not (folder / MANIFEST).exists():
        raise InputError(f"{name} is not a dataset of ours: it has no {PERTURBATION} or no {MANIFEST}")
    return FoundPerturbation(path=folder / PERTURBATION, repository=name, published=Manifest.read(folder))


def find_dataset(
    where: str | Path,
    revision: str | None = None,
    *,
    patterns: tuple[str, ...] = ("*",),
    buildable: Collection[str] | None = None,
) -> Path:
    """The folder of a dataset: given as such, as the name of one in ``./datasets``, or ``OWNER/NAME`` on the Hub.

    Of a repository ``patterns`` are fetched at ``revision``, besides what describes it. ``buildable`` names what could
    be built, for the message; ``None``: nobody knows.

    Raises:
        InputError: no finished dataset is there, or a folder, of which there is no ``revision``.
    """
    for folder in (expanded(where), Path("datasets") / where):
        if (folder / MANIFEST).exists():
            if revision is not None:
                raise InputError(f"{where} is a folder, and a revision ({revision}) is of a repository: leave it away")
            return folder
    repository = _repository(str(where))
    if repository is None:
        raise _missing(str(where), buildable)
    name, at = repository
    folder = download(
        name,
        revision or at,
        [MANIFEST, "recipe.json", *patterns],
        elsewhere=f"or build it yourself: ule-build; here is no folder {where}",
    )
    if not (folder / MANIFEST).exists():
        raise InputError(f"{name} is not a dataset of ours: it has no {MANIFEST}")
    return folder


def _repository(where: str) -> tuple[str, str | None] | None:
    """Repository and revision, where they are meant; ``None``: the text is a path on this machine.

    So it is where the folder is here that its first part names, and in ``datasets``, where datasets are built: no
    owner on the Hub is called so.
    """
    first = (*Path(where).parts, "")[0]
    if expanded(where).exists() or first == "datasets" or (first != where and expanded(first).is_dir()):
        return None
    return parse_repository(where)


def _missing(where: str, buildable: Collection[str] | None) -> InputError:
    """The error for a place without a finished dataset."""
    name = Path(where).name
    if expanded(where).is_dir():
        return InputError(f"no dataset at {where}: the folder has no {MANIFEST}, so nothing was built there to its end")
    if expanded(where).exists():
        return InputError(f"no dataset at {where}: it is a file; give the dataset's folder")
    there = [path.parent.name for path in Path("datasets").glob(f"*/{MANIFEST}")]
    near = nearest(name, there)
    said = f"no dataset at {where}: there is no such folder" + ("" if "/" in where else f", nor ./datasets/{where}")
    if near:
        return InputError(f"{said}; in ./datasets there is {', '.join(near)}")
    if buildable is None:
        return InputError(f"{said}; build it with: ule-build {name}, if ule-build --list has it")
    if name in buildable:
        return InputError(f"{said}; build it with: ule-build {name}")
    return unknown(said, name, buildable, "ule-build --list shows what can be built")


def require_images(folder: Path, manifest: Manifest, where: str | Path) -> None:
    """Refuse a dataset that was published without images, and say how to make them."""
    if not any((folder / file.path).exists() for file in manifest.shards()):
        raise InputError(
            f"{where} holds no images, only what is needed to make them: "
            f"ule-build {manifest.name} --perturbation {where} --source SOURCE"
        )


def in_hub_cache(folder: Path) -> bool:
    """Whether a folder is in the Hub's cache, where nothing may be written."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return folder.resolve().is_relative_to(Path(HF_HUB_CACHE).resolve())
