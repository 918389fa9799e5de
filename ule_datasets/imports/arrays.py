"""Files of arrays: ``.npy``, ``.npz``, safetensors, pickles and files of torch, of noise or images."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.memory import check_fits
from ule_datasets.base.progress import Reporter
from ule_datasets.base.regular import check_file, open_file
from ule_datasets.base.shown import few
from ule_datasets.base.tensors import read_tensors
from ule_datasets.compute.executor import Executor
from ule_datasets.data.codec import decode_rgb
from ule_datasets.data.image_formats import HEAD, PLAIN_TO_SEE, recognise
from ule_datasets.imports import pickles
from ule_datasets.imports.numbers import interpreted
from ule_datasets.imports.release import Content, Release, Stated

SUFFIXES = frozenset((".npy", ".npz", ".safetensors", *pickles.SUFFIXES))
KINDS = "biuf"
PREFERRED = (
    "delta",
    "noise",
    "perturbation",
    "perturbations",
    "poison",
    "uap",
    "images",
    "data",
    "x_train",
    "x",
    "arr_0",
)
"""Where several arrays may be images or noise, the one of these names is; in this order, and by its last name."""
LABELS = ("labels", "targets", "y_train", "y", "label", "arr_1")
MEMBERS = ("clusters", "cluster", "members", "assignment", "assignments", "cluster_ids")
"""Names of what says which noise each image has."""
TESTS = ("x_test", "test_images", "test_data", "images_test", "data_test")
"""Names of test images."""
LARGEST_HEADER = 10_000


def recognised(path: Path) -> bool:
    """Whether a file is called like one of arrays, or a folder holds such files and no images."""
    if path.is_dir():
        return any(each.suffix.lower() in SUFFIXES and each.is_file() for each in path.iterdir())
    return path.suffix.lower() in SUFFIXES


def read(path: Path, executor: Executor, reporter: Reporter, stated: Stated) -> Release:
    """The noise or the images of a file, or of the files of a folder.

    Raises:
        InputError: it is damaged, would have to be run, takes too much memory, or several things in it may be meant.
    """
    del executor, reporter
    content = _content(path)
    if (raw := _raw(content)) is not None:
        content = raw
    arrays = dict(_arrays(content))
    name = _chosen(path, arrays, stated)
    count = len(arrays[name])
    labels = _integers(arrays, LABELS, count)
    members = _integers(arrays, MEMBERS, None)
    tests = [(each, array) for each, array in arrays.items() if _last(each) in TESTS and array.ndim == 4]
    images = replace(stated, content=Content.IMAGES, unit="", epsilon=0.0)
    test = next((interpreted(array, images, f"{path} ({each})").values for each, array in tests), None)
    release = interpreted(arrays[name], stated, f"{path}{f' ({name})' if name else ''}")
    return Release(
        convention=f"{release.convention}{f', {name}' if name else ''}",
        content=release.content,
        values=release.values,
        names=release.names,
        labels=labels,
        members=members,
        test=None if test is None else np.asarray(test),
        remarks=release.remarks,
    )


def _content(path: Path) -> Any:
    """All of a file; of a folder, by the names of its files."""
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES and each.is_file())
        return {each.stem: _content(each) for each in files}
    try:
        match path.suffix.lower():
            case ".npy":
                check_file(path)
                with open_file(path) as file:
                    return _npy(file, path.stat().st_size, str(path))
            case ".npz":
                return _npz(path)
            case ".safetensors":
                return read_tensors(path)[1]
        return pickles.read_pickle(path)
    except InputError:
        raise
    except Exception as error:  # a damaged file fails in any way that reading it can fail
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} cannot be read: {reason}") from error


def _npz(path: Path) -> dict[str, np.ndarray]:
    check_file(path)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        check_fits(sum(member.file_size for member in members), f"{path}, unpacked,")
        arrays = {}
        for member in members:
            if member.filename.endswith(".npy"):
                with archive.open(member) as file:
                    arrays[member.filename.removesuffix(".npy")] = _npy(
                        file, member.file_size, f"{path} ({member.filename})"
                    )
        return arrays


def _npy(file: IO[bytes], size: int, origin: str) -> np.ndarray:
    """One array, whose header says no more than there are bytes."""
    version = np.lib.format.read_magic(file)
    reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if reader is None:
        raise InputError(f"{origin} is of version {version} of its format, which is not read")
    shape, fortran, dtype = reader(file, max_header_size=LARGEST_HEADER)
    left = size - file.tell()
    if dtype.kind not in KINDS:
        raise InputError(f"{origin} holds {dtype}, no numbers: what it holds would have to be run")
    if math.prod(shape) * dtype.itemsize != left:
        raise InputError(f"{origin} says that its shape is {shape}, which is not that of {left:,} bytes")
    check_fits(left, origin)
    data = file.read(left)
    if len(data) != left:
        raise InputError(f"{origin} is cut off")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _raw(content: Any) -> dict[str, Any] | None:
    """Lists of images, of bytes, or of pairs of these with a label, as arrays; ``None``: it is something else."""
    if isinstance(content, dict) and content and all(isinstance(key, int) for key in content):
        content = [content[key] for key in sorted(content)]
    if not isinstance(content, list) or not content:
        return None
    if all(isinstance(each, list) and len(each) == 2 and _is_label(each[1]) for each in content):
        labels = np.array([_label(label) for _, label in content], np.int64)
        return {"images": _stacked([image for image, _ in content]), "labels": labels}
    if all(isinstance(each, bytes | bytearray | np.ndarray) for each in content):
        return {"": _stacked(content)}
    return None


def _is_label(value: object) -> bool:
    return type(value) is int or (isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "iu")


def _label(value: Any) -> int:
    return int(value.reshape(())) if isinstance(value, np.ndarray) else int(value)


def _stacked(images: Sequence[Any]) -> np.ndarray:
    """Images of one size: encoded, raw bytes of a square, or arrays."""
    parts = [
        _image(each, number) if isinstance(each, bytes | bytearray) else each for number, each in enumerate(images)
    ]
    if not all(isinstance(each, np.ndarray) and each.dtype.kind in KINDS for each in parts):
        raise InputError("a list in it has entries that are no images")
    if other := next((number for number, each in enumerate(parts) if each.shape != parts[0].shape), 0):
        raise InputError(f"entry {other} of a list in it has shape {parts[other].shape}, others {parts[0].shape}")
    return np.stack(parts)


def _image(data: bytes | bytearray, number: int) -> np.ndarray:
    if recognise(bytes(data[:HEAD])) in PLAIN_TO_SEE:
        return decode_rgb(bytes(data), f"entry {number} of a list in it").pixels
    side = math.isqrt(len(data) // 3)
    if 3 * side * side != len(data) or not side:
        raise InputError(
            f"entry {number} of a list in it is of {len(data):,} bytes: neither an image nor a square of pixels"
        )
    return np.frombuffer(bytes(data), np.uint8).reshape(side, side, 3)


def _arrays(content: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Every array in dictionaries in each other, by its path."""
    if isinstance(content, np.ndarray):
        yield name, content
    elif isinstance(content, Mapping):
        for key, each in content.items():
            word = key.decode("latin1") if isinstance(key, bytes) else str(key)
            nested = _raw(each) if isinstance(each, list) else None
            yield from _arrays(each if nested is None else nested.get("", nested), f"{name}.{word}" if name else word)
    elif isinstance(content, list) and content and all(_is_label(each) for each in content):
        yield name, np.array([_label(each) for each in content], np.int64)


def _chosen(path: Path, arrays: Mapping[str, np.ndarray], stated: Stated) -> str:
    """Which of the arrays is the noise, or the images."""
    able = [
        name
        for name, array in arrays.items()
        if (array.ndim >= 3 or (array.ndim == 2 and array.shape[1] % 3 == 0)) and _last(name) not in TESTS
    ]
    if stated.entry:
        if stated.entry in arrays:
            return stated.entry
        raise InputError(f"{path} has no array {stated.entry!r}; it has {few(list(arrays)) or 'none'}")
    if len(able) == 1:
        return able[0]
    by_last = {_last(name): name for name in reversed(able)}
    found = next((by_last[word] for word in PREFERRED if word in by_last), None)
    if found is None:
        what = f"several arrays that may be meant ({few(able)}): say which with Imported(stated=Stated(entry=...))"
        raise InputError(f"{path} has {what if able else 'no array of images or noise'}")
    return found


def _last(name: str) -> str:
    """The last part of a path."""
    return re.split(r"[./]", name)[-1].lower()


def _integers(arrays: Mapping[str, np.ndarray], names: Sequence[str], count: int | None) -> np.ndarray | None:
    """The whole numbers of the first of these names, as many as there are entries if that is known."""
    for name, array in arrays.items():
        flat = array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array
        named = _last(name) in names and flat.ndim == 1 and flat.dtype.kind in "iu"
        if named and count in (None, len(flat)):
            return flat.astype(np.int64)
    return None
