"""What the folders of an image folder mean: which hold splits, which hold classes, and what is neither."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ule_datasets.base.errors import InputError
from ule_datasets.base.regular import open_file
from ule_datasets.base.shown import counted, few
from ule_datasets.data.image_formats import HEAD, PLAIN_TO_SEE, recognise
from ule_datasets.sources.forms import Wanted
from ule_datasets.sources.splits import WORDS, UnknownSplitError, is_nameless, split_of, splits_in, subject_of
from ule_datasets.sources.tree import Listing, Tally, Tree, in_order, join, kind_of, suffix_of

_IMAGES = "png jpg jpeg jpe jfif bmp webp tif tiff ppm gif jp2 avif heic heif"
_NO_IMAGES = """
    txt md rst html htm pdf tex bib csv tsv json jsonl yaml yml toml xml ini cfg log py ipynb sh m mat npy npz pkl pt
    pth h5 hdf5 db sqlite lmdb parquet arrow tar tar.gz tgz gz bz2 xz zst zip 7z rar md5 sha1 sha256
    crc lnk url exe mp3 wav mp4 mov avi mkv webm svg cls lbl label lock psd eps ps ai aae xmp
    thm dng nef nrw cr2 cr3 crw arw sr2 srf orf rw2 raf pef srw x3f 3fr iiq mrw
"""
SUFFIXES = frozenset(f".{end}" for end in _IMAGES.split())
"""What the names of image files end with."""
OTHERS = frozenset(f".{end}" for end in _NO_IMAGES.split())
"""What the names of files end with that are never images, so that nobody needs to look into them.

Raw photographs are among them: they begin like TIFF files, and what can be read of them are previews.
"""
ARCHIVE = "ILSVRC/Data/CLS-LOC"
"""Where ImageNet's archive from Kaggle has the folders of its splits."""
SHOWN = 3


@dataclass(frozen=True, eq=False, slots=True)
class Images:
    """The image files of a tree."""

    tree: Tree
    names: dict[str, list[str]]
    """By folder, those directly in it; only folders that have some."""
    filled: set[str]
    """Folders with an image at any depth."""

    @classmethod
    def of(cls, tree: Tree, tally: Tally) -> Images:
        """Tell images from other files, which are tallied."""
        names: dict[str, list[str]] = {}
        filled: set[str] = set()
        for folder, listing in tree.folders.items():
            images = [
                name
                for name in listing.files
                if name[name.rfind(".") :].lower() in SUFFIXES or is_image(tree, join(folder, name))
            ]
            if len(images) < len(listing.files):
                for name in sorted(set(listing.files).difference(images)):
                    tally.add(kind_of(name), join(folder, name))
            if images:
                names[folder] = listing.files if len(images) == len(listing.files) else images
                while folder not in filled:
                    filled.add(folder)
                    folder = folder.rpartition("/")[0]
        return cls(tree, names, filled)

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in one that hold images."""
        return [name for name in self.tree.folders[folder].folders if join(folder, name) in self.filled]

    def loose(self, folder: str) -> list[str]:
        """Names of the images directly in a folder."""
        return self.names.get(folder, [])

    def below(self, folder: str, shown: str = "") -> Iterator[str]:
        """Images at any depth in the order of their paths, which begin with ``shown`` instead of the folder's."""
        return in_order(folder, shown, lambda path: Listing(self.loose(path), self.folders(path)))


def is_image(tree: Tree, path: str) -> bool:
    """Whether a file is an image: by its name, or of a file here whose name says nothing, by how it begins."""
    suffix = suffix_of(path)
    if suffix in SUFFIXES or suffix in OTHERS:
        return suffix in SUFFIXES
    place = tree.at(path)
    if not isinstance(place, Path):
        return False
    try:
        with open_file(place) as file:
            return recognise(file.read(HEAD)) in PLAIN_TO_SEE
    except (OSError, InputError):
        return False


def top_folder(images: Images, wanted: Wanted) -> str:
    """The folder of the splits, or of the classes: the source itself, or further in, where one folder holds all."""
    if ARCHIVE in images.filled:
        return ARCHIVE
    top = folder = ""
    while not images.loose(folder) and len(inner := images.folders(folder)) == 1:
        if inner[0] in wanted.class_folders | wanted.classes or _known(inner[0]):
            return folder
        folder = join(folder, inner[0])
        top = folder if len(images.folders(folder)) > 1 and not images.loose(folder) else top
    return top


def split_folders(images: Images, top: str, wanted: Wanted) -> dict[str, str]:
    """The folder of each split in one; none where its folders are classes.

    Raises:
        InputError: other folders or images would be left over, two folders are for one split, or a name looks like a
            split and is not known, or speaks of several.
    """
    place, there = images.tree.at(top), images.folders(top)
    if unseen := sorted(wanted.class_folders.difference(there)):
        raise InputError(f"{place} has no folder {unseen[0]!r} with images that could be a class; it has {few(there)}")
    names = [name for name in there if name not in wanted.class_folders]
    like = _called_like_splits(images, top, names)
    unknown = [name for name in names if splits_in(name) and not _known(name)]
    if unknown and (like or (len(unknown) > 1 and unknown == names)):
        raise UnknownSplitError(f"{place}: {unknown[0]}", min(splits_in(unknown[0])))
    if not like:
        _refuse_nameless(place, names, wanted)
        return {}
    if others := [name for name in there if name not in like]:
        raise _unclear(place, like, others)
    if loose := images.loose(top):
        raise InputError(
            f"{place} has images ({images.tree.at(join(top, loose[0]))}) beside its folder {like[0]}: "
            "move them into the folder of their split"
        )
    found: dict[str, str] = {}
    for name in like:
        split = split_of(name, f"{place}: {name}")
        assert split is not None
        if split in found:
            raise InputError(
                f"{place} has two folders for the {split} split: {found[split]}, {name}; give one of them another "
                f"name, or move it out of the source; {_or_classes(like)}"
            )
        found[split] = name
    return {split: _unwrapped(images, join(top, name), name) for split, name in found.items()}


def _known(name: str) -> bool:
    """Whether a name speaks of a split of ours."""
    return not splits_in(name).isdisjoint(WORDS.values())


def _called_like_splits(images: Images, top: str, names: list[str]) -> list[str]:
    """Those of some folders that are splits.

    A name that is nothing but a split's (``train_images``) is one, and then all are that speak of one. A name with a
    subject (``bullet_train``) is one where there is another of the same subject (``flowers_train``, ``flowers_test``),
    or where nothing else holds classes; otherwise it is a class.
    """
    like = [name for name in names if _known(name)]
    by_subject: dict[tuple[str, ...], set[str]] = {}
    for name in like:
        by_subject.setdefault(subject_of(name), set()).update(splits_in(name))
    if () in by_subject or any(len(splits) > 1 for splits in by_subject.values()):
        return like
    if len(by_subject) > 1 and like == names and len(set.union(*by_subject.values())) > 1:
        raise _unclear(images.tree.at(top), like, [])
    alone = len(names) == len(like) == 1 and not images.loose(join(top, like[0]))
    return like if alone and len(images.folders(join(top, like[0]))) > 1 else []


def _refuse_nameless(place: object, names: list[str], wanted: Wanted) -> None:
    """Refuse a folder that is called like what is in it, and not like a class, among others."""
    nameless = [name for name in names if is_nameless(name) and name not in wanted.classes]
    if nameless and len(names) > 1:
        others = [name for name in names if name not in nameless] or nameless[1:]
        raise InputError(
            f"{place} has a folder {nameless[0]}, which is the name of no class, beside others with images "
            f"({few(others)}): give --source the one with the images; {_or_classes(nameless)}"
        )


def declared_folders(images: Images) -> dict[str, str]:
    """The folder of each split that a card says the files of: what is in folders there is in class folders.

    Raises:
        InputError: two splits have images of one folder; each must have its own.
    """
    found: dict[str, str] = {}
    inside = {split: {posixpath.dirname(path) for path in paths} for split, paths in images.tree.splits.items()}
    by_class = any(len(folders) > 1 for folders in inside.values())
    for split, folders in inside.items():
        root = posixpath.commonpath(folders) if len(folders) > 1 or not by_class else posixpath.dirname(*folders)
        found[split] = root
    for split, root in found.items():
        others = [path for name, paths in images.tree.splits.items() if name != split for path in paths]
        if clash := next((path for path in others if f"{path}/".startswith(f"{root}/" if root else "")), None):
            raise InputError(
                f"{images.tree.root}: the card gives {clash} to another split than {split}, within one folder: "
                "give each split a folder of its own"
            )
    return found


def refuse_splits_in_classes(images: Images, folder: str, classes: list[str]) -> None:
    """Refuse classes that are divided into splits: training and test images would be mixed.

    Raises:
        InputError: a class is; it is named.
    """
    for name in classes:
        inside = [inner for inner in images.folders(join(folder, name)) if not subject_of(inner)]
        if len({split for inner in inside for split in splits_in(inner)}) > 1:
            raise InputError(
                f"{images.tree.at(join(folder, name))} has folders called like splits ({few(inside)}) within a class: "
                "put the folders of classes into those of splits (train/<class>/*)"
            )


def nested(images: Images, folder: str, classes: Collection[str]) -> str:
    """What there is to say about folders with images within classes; nothing where there are none.

    All their images are of the class that they are in; where all classes have the same ones, these may be the classes.
    """
    with_images = [name for name in sorted(classes) if join(folder, name) in images.filled]
    inside = {name: images.folders(join(folder, name)) for name in with_images}
    within = {name: inner for name, inner in inside.items() if inner}
    if not within:
        return ""
    first = next(iter(within.values()))
    mixed = any(images.loose(join(folder, name)) for name in inside)
    if len(inside) > 1 and len(first) > 1 and not mixed and all(inner == first for inner in inside.values()):
        return f"its classes ({few(list(inside))}) have all the same folders in them ({few(first)})"
    example = join(folder, join(next(iter(within)), first[0]))
    having = counted(len(within), "class has", "classes have")
    return f"{having} images in further folders (first {example}), which are images of the class all the same"


def _unclear(place: object, like: list[str], others: list[str]) -> InputError:
    beside = f" beside others with images ({few(others)})" if others else " and like classes"
    return InputError(
        f"{place} has folders called like splits ({few(like)}){beside}: if the former are splits, move the others "
        f"out of the source; {_or_classes(like)}"
    )


def _or_classes(like: list[str]) -> str:
    return f"if they are classes, add {' '.join(f'--class-folder {name}' for name in like[:SHOWN])}"


def _unwrapped(images: Images, folder: str, name: str) -> str:
    """Where everything is one folder further in, of the same name (as archives are unpacked) or of no class's."""
    while not images.loose(folder) and len(inner := images.folders(folder)) == 1:
        alike = splits_in(inner[0]) == splits_in(name) and subject_of(inner[0]) in ((), subject_of(name))
        if not alike and not is_nameless(inner[0]):
            break
        folder = join(folder, inner[0])
    return folder
