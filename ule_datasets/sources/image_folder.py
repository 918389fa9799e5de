"""Folders of image files: ``train/<class>/*`` and ``test/<class>/*``, or ``<class>/*`` for training alone.

Without class folders, ``train/*`` and ``test/*``, or ``*`` for training alone, the images have no labels. Validation
images of ImageNet may lie beside each other (``val/*``), as in its official archives, where a list gives their labels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ule_datasets.base.errors import InputError
from ule_datasets.base.regular import read_file
from ule_datasets.base.shown import few
from ule_datasets.places.remote_path import RemotePath, each
from ule_datasets.sources.forms import UNLABELLED, Form, Place, RawSample, Wanted
from ule_datasets.sources.imagenet import LABEL_LISTS, validation_labels
from ule_datasets.sources.layout import (
    ARCHIVE,
    OTHERS,
    SUFFIXES,
    Images,
    declared_folders,
    is_image,
    nested,
    refuse_splits_in_classes,
    split_folders,
    top_folder,
)
from ule_datasets.sources.splits import TEST, TRAIN, choose, refuse_other_spellings
from ule_datasets.sources.tree import Tally, Tree, as_text, join

FILES_PER_CHUNK = 512
ADVICE = "give class folders (train/<class>/*)"


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
        return path.read_bytes() if isinstance(path, RemotePath) else read_file(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def find(tree: Tree, wanted: Wanted) -> Form | None:
    """The image files of a source, in class folders or in none, or ``None``.

    It holds the folders of the splits, or of the classes, or one folder (in one folder ...) with them.

    Raises:
        InputError: folders or images would be left over, images are both in class folders and outside of them,
            validation images are outside of class folders without a list of their labels, or there is none of the
            classes that are wanted.
    """
    tally = Tally(tree.passed_over)
    images = Images.of(tree, tally)
    if not images.filled:
        return None
    if tree.is_file:
        raise InputError(f"{tree.root} is a single image: give the folder that it is in")
    top = "" if tree.splits else top_folder(images, wanted)
    if top == ARCHIVE:
        tally.add_all(f"outside of {top}", (path for path in images.below("") if not path.startswith(f"{top}/")))
    roots = declared_folders(images) or split_folders(images, top, wanted) or {TRAIN: top}
    by_class = TRAIN in roots and bool(images.folders(roots[TRAIN]))
    chosen = choose(roots, tree.at(top), wanted.test_split, lambda r: not by_class or bool(images.folders(r)))
    if unused := roots.get(chosen.unused):
        tally.add_all(f"the {chosen.unused} split, which is not used", images.below(unused, unused))
    parts = {split: _by_class(images, root, wanted, tally) for split, root in chosen.splits.items()}
    if wanted.only is not None and not any(part.classes for part in parts.values()):
        _refuse_other_classes(images, chosen.splits, wanted.only)
    loose = {split: _unlabelled(images, root) for split, root in chosen.splits.items()}
    if by_class and TEST in parts and loose[TEST].names and not parts[TEST].classes:
        parts[TEST], loose[TEST] = _in_list(tree, loose[TEST], wanted, tally), parts[TEST]
    in_classes = next((part.example(tree) for part in parts.values() if part.names), None)
    outside = next((part.example(tree) for part in loose.values() if part.names), None)
    if in_classes is not None and outside is not None:
        raise InputError(
            f"{tree.at(top)} has images in class folders ({in_classes}) and outside of them ({outside}): "
            "move all into class folders, or none"
        )
    names = {s: root for s, root in chosen.splits.items() if root not in (s, top)}
    used = parts if outside is None else loose
    refuse_other_spellings({split: part.classes for split, part in used.items()}, tree.at(top))
    class_names = tuple(sorted({name for part in used.values() for name in part.classes}))
    if strange := [name for name in class_names if as_text(name) != name]:
        raise InputError(f"{tree.at(top)}: the name of its folder {as_text(strange[0])!r} is not UTF-8; rename it")
    numbers = {name: number for number, name in enumerate(class_names)}
    chunks = {split: tuple(_chunks(tree.at(part.root), part, numbers)) for split, part in used.items()}
    notes = [*([f"all images are in {top}"] if top else []), *chosen.notes]
    notes += [note for part in used.values() if (note := nested(images, part.root, part.classes))]
    return Form("an image folder", chunks, class_names, ADVICE, tally.found, tuple(notes), names)


def example(tree: Tree) -> str | None:
    """The first image file of a source, if there is one."""
    named = next((path for suffix, path in tree.first.items() if suffix in SUFFIXES), None)
    if named is not None or tree.first.keys() <= OTHERS:
        return named
    return next((path for path in tree.below() if is_image(tree, path)), None)


def expected(tree: Tree, wanted: Wanted) -> bool:
    """Whether there are folders of the classes that a recipe names: then the images in them are its source."""
    return any(folder.rpartition("/")[2] in wanted.classes for folder in tree.folders)


@dataclass(frozen=True, slots=True)
class _Part:
    """The images of a split."""

    root: str
    """The folder of the split."""
    classes: Collection[str]
    """Of all its images."""
    names: Sequence[str]
    """The images, by their paths below the folder."""
    listed: Mapping[str, str] | None = None
    """The class of each image, where it is not the folder that the image is in."""

    def class_of(self, name: str) -> str:
        """The class of an image."""
        return name.partition("/")[0] if self.listed is None else self.listed[name]

    def example(self, tree: Tree) -> str:
        """The first image."""
        return f"{tree.at(self.root)}/{self.names[0]}"


def _by_class(images: Images, root: str, wanted: Wanted, tally: Tally) -> _Part:
    """The images in the class folders of a split."""
    there = images.folders(root)
    classes = [name for name in there if wanted.only is None or name in wanted.only]
    refuse_splits_in_classes(images, root, classes)
    for name in sorted(set(there).difference(classes)):
        tally.add_all("images of other classes", images.below(join(root, name), join(root, name)))
    empty = sorted(set(images.tree.folders[root].folders).difference(there))
    tally.add_all("folders without images", (join(root, name) for name in empty))
    return _Part(root, classes, [path for name in classes for path in images.below(join(root, name), name)])


def _unlabelled(images: Images, root: str) -> _Part:
    """The images of a split that are in no class folder."""
    names = images.loose(root)
    return _Part(root, UNLABELLED if names else (), names, dict.fromkeys(names, UNLABELLED[0]))


def _in_list(tree: Tree, loose: _Part, wanted: Wanted, tally: Tally) -> _Part:
    """Image files of a split without class folders, by a list of labels."""
    folder = tree.at(loose.root)
    places = dict.fromkeys((tree.root, folder.parent, folder))
    found = validation_labels(cast("Iterable[Path]", places))  # a RemotePath has all of Path that this needs
    if found is None:
        raise InputError(
            f"{folder} has images outside of class folders, and the training images are in class folders: move them "
            f"into class folders, or put ImageNet's list of their labels ({' or '.join(LABEL_LISTS)}) into {tree.root}"
        )
    path, labels = found
    missing = next((name for name in loose.names if name.rpartition(".")[0] not in labels), None)
    if missing is not None:
        raise InputError(f"{path} has no label for {folder / missing}")
    class_of = {name: labels[name.rpartition(".")[0]] for name in loose.names}
    names = [name for name, label in class_of.items() if wanted.only is None or label in wanted.only]
    others = (join(loose.root, name) for name, label in class_of.items() if wanted.only and label not in wanted.only)
    tally.add_all("images of other classes", others)
    return _Part(loose.root, {class_of[name] for name in names}, names, class_of)


def _refuse_other_classes(images: Images, roots: Mapping[str, str], wanted: Collection[str]) -> None:
    """Where there are class folders, but none that is wanted, say so: "no images" would mislead."""
    for root in roots.values():
        if folders := images.folders(root):
            raise InputError(
                f"{images.tree.at(root)} has none of the class folders that are wanted ({few(sorted(wanted))}), "
                f"but {few(folders)}"
            )


def _chunks(folder: Place, part: _Part, numbers: Mapping[str, int]) -> Iterator[Files]:
    """Files with their labels, in pieces for one worker each."""
    for start in range(0, len(part.names), FILES_PER_CHUNK):
        names = tuple(part.names[start : start + FILES_PER_CHUNK])
        state = folder.state_of(names) if isinstance(folder, RemotePath) else ""
        yield Files(folder, names, tuple(numbers[part.class_of(name)] for name in names), state)
