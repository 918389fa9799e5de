"""Folders of image files: ``train/<class>/*`` and ``test/<class>/*``, or ``<class>/*`` for training alone.

Without class folders, ``train/*`` and ``test/*``, or ``*`` for training alone, the images have no labels. Validation
images of ImageNet may lie beside each other (``val/*``), as in its official archives, where a list gives their labels.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ule_datasets.base.errors import InputError
from ule_datasets.places.remote_path import RemotePath, each
from ule_datasets.sources.forms import SPLIT_WORDS, UNLABELLED, Form, Place, RawSample
from ule_datasets.sources.imagenet import LABEL_LISTS, validation_labels

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif"}
FILES_PER_CHUNK = 512
ADVICE = "give class folders (train/<class>/*)"
ARCHIVE = Path("ILSVRC", "Data", "CLS-LOC")
"""Where ImageNet's archive from Kaggle has the folders of its splits."""
SHOWN = 3

Labelled = list[tuple[str, str]]
"""Image files, by their path in the folder of their split, with their classes."""


@dataclass(frozen=True, slots=True)
class Files:
    """Some image files and their labels."""

    folder: Place
    names: tuple[str, ...]
    """Paths below ``folder``."""
    labels: tuple[int, ...]
    state: str = ""
    """Changes with the content of any of the files; empty where the listing did not say."""

    @property
    def paths(self) -> tuple[Place, ...]:
        """The files."""
        return tuple(self.folder / name for name in self.names)

    def samples(self) -> Iterator[RawSample]:
        """Read the files in order: one by one, or from a URL several at a time."""
        contents = (each if isinstance(self.folder, RemotePath) else map)(_read, self.paths)
        for path, label, content in zip(self.paths, self.labels, contents, strict=True):
            yield RawSample(content, label, str(path), path.stem)


def _read(path: Place) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def find(root: Place, only: Collection[str] | None = None) -> Form | None:
    """Image files below ``root``, in class folders or in none, or ``None``.

    ``root`` is the folder of the splits, of the classes, or of ImageNet's archive (``ILSVRC/Data/CLS-LOC`` is in it).
    Class folders that ``only`` does not name are not listed; ``None``: all are.

    Raises:
        InputError: two folders for one split, images both in class folders and outside of them, validation images
            outside of class folders without a list of their labels, or none of the classes of ``only``.
    """
    if not root.is_dir():
        return None
    wanted = None if only is None else frozenset(only)
    top = root / ARCHIVE if (root / ARCHIVE).is_dir() else root
    roots = _split_roots(top)
    entries = {split: _entries(folder) for split, folder in roots.items()}
    in_classes: dict[str, Labelled] = {}
    for split, listed in entries.items():
        folders = [name for name, is_folder in listed if is_folder and (wanted is None or name in wanted)]
        in_classes[split] = [(path, name) for name in folders for path in _images_below(roots[split], name)]
    loose = {split: [name for name, is_folder in listed if not is_folder] for split, listed in entries.items()}
    if wanted is not None and not any(in_classes.values()):
        _refuse_other_classes(roots, entries, wanted)
    if in_classes.get("train") and loose.get("test") and not in_classes["test"]:
        in_classes["test"] = _in_list(roots["test"], loose.pop("test"), root, wanted)
    first_in_class = next((roots[split] / files[0][0] for split, files in in_classes.items() if files), None)
    first_loose = next((roots[split] / names[0] for split, names in loose.items() if names), None)
    if first_in_class is None and first_loose is None:
        return None
    if first_in_class is not None and first_loose is not None:
        raise InputError(
            f"{top} has images in class folders ({first_in_class}) and outside of them ({first_loose}): "
            "move all into class folders, or none"
        )
    if first_loose is not None:
        in_classes = {split: [(name, UNLABELLED[0]) for name in names] for split, names in loose.items()}
    class_names = tuple(sorted({name for files in in_classes.values() for _, name in files}))
    numbers = {name: number for number, name in enumerate(class_names)}
    chunks = {split: tuple(_chunks(roots[split], files, numbers)) for split, files in in_classes.items()}
    return Form("an image folder", chunks, class_names if first_loose is None else UNLABELLED, ADVICE)


def _split_roots(root: Place) -> dict[str, Place]:
    """The folder of each split; ``root`` itself holds training images if no folder is named like a split."""
    entries = _entries(root)
    roots: dict[str, Place] = {}
    for name in _without_withheld(root, [name for name, is_folder in entries if is_folder]):
        split = SPLIT_WORDS[name.lower()]
        if split in roots:
            raise InputError(f"{root} has two folders for the {split} split: {roots[split].name}, {name}")
        roots[split] = root / name
    beside = [name for name, is_folder in entries if not is_folder] if roots else []
    if beside:
        raise InputError(
            f"{root} has images ({root / beside[0]}) beside its folder {next(iter(roots.values())).name}: "
            "move them into the folder of their split"
        )
    return roots or {"train": root}


def _without_withheld(root: Place, folders: list[str]) -> list[str]:
    """The folders that are named like a split, without a test split whose labels are withheld.

    That is one without class folders, beside a validation split, where the training split has class folders.
    """
    named = [name for name in folders if name.lower() in SPLIT_WORDS]
    tests = [name for name in named if SPLIT_WORDS[name.lower()] == "test" and not name.lower().startswith("val")]
    others = [name for name in named if name not in tests]
    by_class = [name for name in others if SPLIT_WORDS[name.lower()] == "train" and _has_folders(root / name)]
    validated = any(SPLIT_WORDS[name.lower()] == "test" for name in others)
    if not (by_class and validated):
        return named
    return [name for name in named if name in others or _has_folders(root / name)]


def _in_list(folder: Place, names: list[str], root: Place, wanted: frozenset[str] | None) -> Labelled:
    """Image files of a split without class folders, by a list of labels."""
    places = dict.fromkeys((root, folder.parent, folder))
    found = validation_labels(cast("Iterable[Path]", places))  # a RemotePath has all of Path that this needs
    if found is None:
        raise InputError(
            f"{folder} has images outside of class folders, and the training images are in class folders: move them "
            f"into class folders, or put ImageNet's list of their labels ({' or '.join(LABEL_LISTS)}) into {root}"
        )
    path, labels = found
    missing = next((name for name in names if name.rpartition(".")[0] not in labels), None)
    if missing is not None:
        raise InputError(f"{path} has no label for {folder / missing}")
    pairs = [(name, labels[name.rpartition(".")[0]]) for name in names]
    return [(name, label) for name, label in pairs if wanted is None or label in wanted]


def _refuse_other_classes(
    roots: Mapping[str, Place], entries: Mapping[str, list[tuple[str, bool]]], wanted: frozenset[str]
) -> None:
    """Where there are class folders, but none that is wanted, say so: "no images" would mislead."""
    for split, listed in entries.items():
        folders = [name for name, is_folder in listed if is_folder]
        if folders:
            raise InputError(
                f"{roots[split]} has none of the class folders that are wanted ({_some(sorted(wanted))}), "
                f"but {_some(folders)}"
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _chunks(folder: Place, files: Labelled, numbers: Mapping[str, int]) -> Iterator[Files]:
    """Files with their labels, in pieces for one worker each."""
    for start in range(0, len(files), FILES_PER_CHUNK):
        names, labels = zip(*files[start : start + FILES_PER_CHUNK], strict=True)
        state = folder.state_of(names) if isinstance(folder, RemotePath) else ""
        yield Files(folder, names, tuple(numbers[label] for label in labels), state)


def _images_below(root: Place, path: str) -> Iterator[str]:
    """Image files in a folder and the folders in it, in order; links to further folders are not followed."""
    for name, is_folder in _entries(root / path, follow_links=False):
        inner = f"{path}/{name}"
        if is_folder:
            yield from _images_below(root, inner)
        else:
            yield inner


def _is_image(name: str) -> bool:
    return name[name.rfind(".") :].lower() in SUFFIXES


def _has_folders(folder: Place) -> bool:
    return any(is_folder for _, is_folder in _entries(folder))


def _entries(folder: Place, *, follow_links: bool = True) -> list[tuple[str, bool]]:
    """Names of image files (``False``) and folders (``True``) directly in a folder, sorted, without hidden ones.

    What kind an entry is comes with the listing, so that no file is looked at.
    """
    if isinstance(folder, RemotePath):
        visible = [(name, entry) for name, entry in folder.entries().items() if not name.startswith(".")]
        return sorted((name, is_folder) for name, (is_folder, *_) in visible if is_folder or _is_image(name))
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_image(entry.name) and entry.is_file():
                    found.append((entry.name, False))
                elif entry.is_dir(follow_symlinks=follow_links):
                    found.append((entry.name, True))
    except OSError as error:
        raise InputError(f"cannot list {folder}: {error.strerror}") from error
    return sorted(found)
