"""Folders of image files: ``train/<class>/*`` and ``test/<class>/*``, or ``<class>/*`` for training alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ule_datasets.errors import InputError
from ule_datasets.sources.forms import SPLIT_WORDS, Form, RawSample

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif"}
FILES_PER_CHUNK = 512


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
    """Image files in class folders below ``root``, or ``None``."""
    if not root.is_dir():
        return None
    split_folders = [p for p in _subfolders(root) if p.name.lower() in SPLIT_WORDS]
    if split_folders:
        roots: dict[str, Path] = {}
        for folder in split_folders:
            split = SPLIT_WORDS[folder.name.lower()]
            if split in roots:
                raise InputError(f"{root} has two folders for the {split} split: {roots[split].name}, {folder.name}")
            roots[split] = folder
    else:
        roots = {"train": root}
    found = {split: _class_files(folder) for split, folder in roots.items()}
    class_names = tuple(sorted({name for classes in found.values() for name in classes}))
    if not class_names:
        return None
    chunks = {}
    for split, classes in found.items():
        files = [(path, class_names.index(name)) for name in sorted(classes) for path in classes[name]]
        pieces = [files[i : i + FILES_PER_CHUNK] for i in range(0, len(files), FILES_PER_CHUNK)]
        chunks[split] = tuple(Files(tuple(p for p, _ in piece), tuple(n for _, n in piece)) for piece in pieces)
    return Form("an image folder", chunks, class_names)


def _subfolders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _class_files(root: Path) -> dict[str, list[Path]]:
    """Image files by class folder; a class folder without any image is left out."""
    classes = {}
    for folder in _subfolders(root):
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if files:
            classes[folder.name] = files
    return classes
