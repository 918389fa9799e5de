"""Folders of image files, one for each perturbed image, as TAP, AR and APBench are released: any names, no labels."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.memory import check_fits
from ule_datasets.base.progress import Reporter
from ule_datasets.base.regular import read_file
from ule_datasets.base.shown import counted, few
from ule_datasets.compute.executor import Executor
from ule_datasets.data.codec import decode_rgb
from ule_datasets.imports.release import Content, Release, Stated
from ule_datasets.sources.layout import SUFFIXES

FILES_AT_ONCE = 250
TRAIN, TEST = "train", "test"
"""Folders of training and of test images."""
LOSSY = frozenset((".jpg", ".jpeg", ".webp"))
"""Endings of files whose pixels may not be those that were perturbed."""


def recognised(path: Path) -> bool:
    """Whether there are image files right in a folder."""
    return path.is_dir() and any(is_image(each) for each in path.iterdir())


def read(path: Path, executor: Executor, reporter: Reporter, stated: Stated) -> Release:
    """All images of a folder, in the order of the numbers in their names.

    Raises:
        InputError: one cannot be decoded, is no plain RGB, or has another size than the first; more than fit memory.
    """
    del stated
    files = sorted(filter(is_image, path.iterdir()), key=by_number)
    passed_over = sorted(each.name for each in path.iterdir() if not is_image(each) and not each.name.startswith("."))
    images = decoded(files, executor, reporter, f"reading {path}")
    remarks = [f"{counted(len(passed_over), 'file')} passed over: {few(passed_over)}"] if passed_over else []
    if lossy := [each.name for each in files if each.suffix.lower() in LOSSY]:
        remarks.append(f"{counted(len(lossy), 'file')} may have lost what was released: {few(lossy)}")
    return Release(
        convention=f"{counted(len(files), 'image file')} without labels",
        content=Content.IMAGES,
        values=images,
        names=tuple(each.name for each in files),
        remarks=tuple(remarks),
    )


def in_class_folders(path: Path) -> bool:
    """Whether there are image files in the folders of a folder."""
    return path.is_dir() and any(recognised(each) for each in path.iterdir() if not each.name.startswith("."))


def read_class_folders(path: Path, executor: Executor, reporter: Reporter, stated: Stated) -> Release:
    """All images of the folders of a folder, each labelled with the place of its folder in the order of their names.

    Raises:
        InputError: as ``read`` does.
    """
    del stated
    folders = sorted(each for each in path.iterdir() if each.is_dir() and recognised(each))
    of_each = [sorted(filter(is_image, folder.iterdir()), key=by_number) for folder in folders]
    files = [file for some in of_each for file in some]
    return Release(
        convention=f"{counted(len(files), 'image file')} in {counted(len(folders), 'class folder')}",
        content=Content.IMAGES,
        values=decoded(files, executor, reporter, f"reading {path}"),
        names=tuple(file.relative_to(path).as_posix() for file in files),
        labels=np.repeat(np.arange(len(folders)), [len(some) for some in of_each]),
    )


def in_splits(path: Path) -> bool:
    """Whether a folder has one of training images, in whatever folders."""
    train = path / TRAIN
    return train.is_dir() and (recognised(train) or in_class_folders(train))


def read_splits(path: Path, executor: Executor, reporter: Reporter, stated: Stated) -> Release:
    """The training images of a folder, and its test images, if it has any.

    Raises:
        InputError: as ``read`` does.
    """

    def part(folder: Path) -> Release:
        read_it = read if recognised(folder) else read_class_folders
        return read_it(folder, executor, reporter, stated)

    train, test = part(path / TRAIN), path / TEST
    if not (test.is_dir() and (recognised(test) or in_class_folders(test))):
        return train
    images = part(test).values
    convention = f"{train.convention}, and {counted(len(images), 'test image')}"
    return replace(train, convention=convention, test=np.asarray(images))


def is_image(path: Path) -> bool:
    """Whether a file is called like an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def by_number(path: Path) -> tuple[list[int], str]:
    """Sorts files by the numbers in their names, as people count."""
    return [int(each) for each in re.findall(r"\d{1,18}", path.name)], path.name


def decoded(files: list[Path], executor: Executor, reporter: Reporter, label: str) -> np.ndarray:
    """Images of one size in the order given: uint8 [N, H, W, 3].

    Raises:
        InputError: as ``read`` does.
    """
    parts = [files[start : start + FILES_AT_ONCE] for start in range(0, len(files), FILES_AT_ONCE)]
    made = reporter.track(executor.map(_decoded, parts), total=len(parts), label=label, unit="part", images=len)
    images: np.ndarray | None = None
    done = 0
    for part in made:
        if images is None:
            check_fits(len(files) * part[0].nbytes, f"{label}: all images together")
            images = np.empty((len(files), *part[0].shape), np.uint8)
        if part.shape[1:] != images.shape[1:]:
            raise InputError(_other_size(files[done], part[0], images[0]))
        images[done : done + len(part)] = part
        done += len(part)
    assert images is not None, "there is a file"
    return images


def _decoded(files: list[Path]) -> np.ndarray:
    images = [decode_rgb(read_file(file), str(file)).pixels for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(_other_size(file, image, images[0]))
    return np.stack(images)


def _other_size(file: Path, image: np.ndarray, first: np.ndarray) -> str:
    sizes = [f"{each.shape[1]} x {each.shape[0]}" for each in (image, first)]
    return f"{file} has {sizes[0]} pixels, others {sizes[1]}: all images of a release have one size"
