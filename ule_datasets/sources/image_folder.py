"""Folders of image files: ``train/<class>/*`` and ``test/<class>/*``, or ``<class>/*`` for training alone.

Without class folders, ``train/*`` and ``test/*``, or ``*`` for training alone, the images have no labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ule_datasets.errors import InputError
from ule_datasets.sources.forms import SPLIT_WORDS, UNLABELLED, Form, RawSample

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif"}
FILES_PER_CHUNK = 512
ADVICE = "give class folders (train/<class>/*)"


@dataclass(frozen=True, slots=True)
class Files:
    """Some image files and their labels."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def samples(self) -> Iterator[RawSample]:
        """Read the files one by one."""
        for path, label in zip(self.paths, self.labels, strict=True):
            try:
                yield RawSample(path.read_bytes(), label, str(path))
            except OSError as error:
                raise InputError(f"cannot read {path}: {error.strerror}") from error


def find(root: Path) -> Form | None:
    """Image files below ``root``, in class folders or in none, or ``None``.

    Raises:
        InputError: two folders for one split, or images both in class folders and outside of them.
    """
    if not root.is_dir():
        return None
    roots = _split_roots(root)
    in_classes = {split: _class_files(folder) for split, folder in roots.items()}
    loose = {split: _image_files(folder) for split, folder in roots.items()}
    first_in_class = next((files[0] for classes in in_classes.values() for files in classes.values()), None)
    first_loose = next((files[0] for files in loose.values() if files), None)
    if first_in_class is None and first_loose is None:
        return None
    if first_in_class is not None and first_loose is not None:
        raise InputError(
            f"{root} has images in class folders ({first_in_class}) and outside of them ({first_loose}): "
            "move all into class folders, or none"
        )
    if first_loose is not None:
        unlabelled = {split: [(path, 0) for path in files] for split, files in loose.items()}
        return Form("an image folder", _chunks(unlabelled), UNLABELLED, ADVICE)
    class_names = tuple(sorted({name for classes in in_classes.values() for name in classes}))
    labelled = {
        split: [(path, class_names.index(name)) for name in sorted(classes) for path in classes[name]]
        for split, classes in in_classes.items()
    }
    return Form("an image folder", _chunks(labelled), class_names, ADVICE)


def _split_roots(root: Path) -> dict[str, Path]:
    """The folder of each split; ``root`` itself holds training images if no folder is named like a split."""
    roots: dict[str, Path] = {}
    for folder in (p for p in _subfolders(root) if p.name.lower() in SPLIT_WORDS):
        split = SPLIT_WORDS[folder.name.lower()]
        if split in roots:
            raise InputError(f"{root} has two folders for the {split} split: {roots[split].name}, {folder.name}")
        roots[split] = folder
    beside = _image_files(root) if roots else []
    if beside:
        raise InputError(
            f"{root} has images ({beside[0]}) beside its folder {next(iter(roots.values())).name}: "
            "move them into the folder of their split"
        )
    return roots or {"train": root}


def _chunks(files: dict[str, list[tuple[Path, int]]]) -> dict[str, tuple[Files, ...]]:
    """Files with their labels, by split, in pieces for one worker each."""
    chunks = {}
    for split, pairs in files.items():
        pieces = [pairs[i : i + FILES_PER_CHUNK] for i in range(0, len(pairs), FILES_PER_CHUNK)]
        chunks[split] = tuple(Files(tuple(p for p, _ in piece), tuple(n for _, n in piece)) for piece in pieces)
    return chunks


def _subfolders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    """Image files directly in a folder, without hidden ones."""
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    )


def _class_files(root: Path) -> dict[str, list[Path]]:
    """Image files by class folder; a class folder without any image is left out."""
    classes = {}
    for folder in _subfolders(root):
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if files:
            classes[folder.name] = files
    return classes
