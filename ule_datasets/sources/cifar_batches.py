"""The original ``cifar-10-batches-py``: pickles of 10,000 images each, read with a restricted unpickler."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.sources.forms import Form, RawSample, Wanted
from ule_datasets.sources.tree import Tally, Tree, join, kind_of

TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILE, META_FILE = "test_batch", "batches.meta"


class _Restricted(pickle.Unpickler):
    """Knows exactly what a NumPy array of bytes needs; anything else in the file is refused."""

    _ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype"})
    _MODULES = frozenset({"numpy", "numpy.core.multiarray", "numpy._core.multiarray"})

    def find_class(self, module: str, name: str) -> Any:
        if module in self._MODULES and name in self._ALLOWED:
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch file."""

    path: Path

    def samples(self) -> Iterator[RawSample]:
        """Pixels in H x W x C order with their labels."""
        content = _load(self.path)
        pixels, labels = content.get(b"data"), content.get(b"labels")
        if not (
            isinstance(pixels, np.ndarray)
            and pixels.dtype == np.uint8
            and pixels.shape[1:] == (3072,)
            and isinstance(labels, list)
            and len(labels) == len(pixels)
            and all(isinstance(label, int) for label in labels)
        ):
            raise InputError(f"{self.path} is not a CIFAR-10 batch: expected uint8 [N, 3072] data and N labels")
        images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield RawSample(image, label, f"{self.path} (row {row})")


def example(tree: Tree) -> str | None:
    """The first batch file of a source, if there is one; they are not looked for at URLs."""
    if not isinstance(tree.root, Path):
        return None
    found = (join(at, name) for at, here in tree.folders.items() for name in TRAIN_FILES if name in here.files)
    return next(found, None)


def find(tree: Tree, wanted: Wanted) -> Form | None:
    """The batch files of a source, which lie together anywhere in it, or ``None``."""
    first = example(tree)
    if first is None:
        return None
    folder = first.rpartition("/")[0]
    there = tree.folders[folder].files
    files = {"train": TRAIN_FILES, "test": (TEST_FILE,)}
    paths = {split: [tree.at(join(folder, n)) for n in names if n in there] for split, names in files.items()}
    chunks = {split: tuple(Batch(Path(str(path))) for path in listed) for split, listed in paths.items() if listed}
    class_names = _class_names(Path(str(tree.at(join(folder, META_FILE))))) if META_FILE in there else None
    tally, used = Tally(tree.passed_over), {join(folder, name) for name in (*TRAIN_FILES, TEST_FILE, META_FILE)}
    for path in tree.below():
        if path not in used:
            tally.add(kind_of(path), path)
    return Form("the original CIFAR-10 batches", chunks, class_names, passed_over=tally.found)


def _class_names(path: Path) -> tuple[str, ...]:
    names = _load(path).get(b"label_names")
    if not isinstance(names, list) or not names:
        raise InputError(f"{path} has no list of label names")
    return tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names)


def _load(path: Path) -> dict[bytes, Any]:
    try:
        content = _Restricted(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except (pickle.UnpicklingError, OSError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path} is not an intact CIFAR-10 batch file: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a CIFAR-10 batch file: it holds a {type(content).__name__}")
    return content
