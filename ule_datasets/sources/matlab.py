"""``train_32x32.mat`` and ``test_32x32.mat``, as SVHN's owners give it out: read as a stream, some images at a time.

These are files of MATLAB's format 5 with an array ``X`` of bytes, [32, 32, 3, N] with the rows running fastest, and the
labels ``y``, [N, 1], where 10 means the digit 0. SciPy's reader takes the memory that a file asks for: 10 GB for one
of 1 MB in which a variable is called by 2^30 zeros. Here nothing is taken in advance, and nothing else is read.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Protocol

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.regular import open_file
from ule_datasets.base.signatures import HEAD, mistaken
from ule_datasets.places.remote_path import RemotePath
from ule_datasets.sources.forms import Chunk, Form, Place, RawSample, Wanted
from ule_datasets.sources.splits import choose
from ule_datasets.sources.sums import refuse_other_file
from ule_datasets.sources.tree import Tally, Tree, join, kind_of

KIND = "SVHN's .mat files"
SUFFIX = ".mat"
SPLITS = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
EXTRA = "extra_32x32.mat"
CLASS_NAMES = tuple(str(digit) for digit in range(10))
ZERO = 10
"""The label of the digit 0."""
SHAPE = (32, 32, 3)
AT_A_TIME = 256
"""Images in memory."""
MOST_IMAGES = 2**20
"""In one file; the extra images are half as many."""
LONGEST_NAME = 63
"""Of a variable, in MATLAB."""
PIECE = 2**16
CUT_OFF = "it is cut off (an incomplete download?)"

_HEADER = 128
_INT8, _INT32, _UINT32, _UINT8 = 1, 5, 6, 2
_MATRIX, _COMPRESSED = 14, 15
_CLASS_UINT8 = 9
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""NumPy's names of the types in which numbers are stored."""


class DamagedError(Exception):
    """The file is not what it should be; says why."""


@dataclass(frozen=True, slots=True)
class Digits:
    """The images of one file."""

    path: Place
    md5: str = ""
    """What the file must have; empty: any."""

    def samples(self) -> Iterator[RawSample]:
        """Pixels in H x W x C order with their labels."""
        with _opened(self.path) as file:
            refuse_other_file(file, self.md5, self.path)
            labels = _labels(file)
            for row, image in enumerate(_images(file, len(labels))):
                yield RawSample(image, labels[row], f"{self.path} (image {row})")


def example(tree: Tree) -> str | None:
    """The first of the files, anywhere in a source."""
    if SUFFIX not in tree.first:
        return None
    return next((path for path in tree.below() if PurePosixPath(path).name in SPLITS.values()), None)


def find(tree: Tree, wanted: Wanted) -> Form | None:
    """The two files of a source, which lie together anywhere in it, or ``None``.

    Raises:
        InputError: the training images are missing.
    """
    first = example(tree)
    if first is None:
        return None
    folder = first.rpartition("/")[0]
    paths = {split: join(folder, name) for split, name in SPLITS.items() if name in tree.folders[folder].files}
    if "train" not in paths:
        raise InputError(f"{tree.at(folder)} has {SPLITS['test']} and lacks {SPLITS['train']}: give the folder of both")
    tally = Tally(tree.passed_over)
    for path in tree.below():
        if PurePosixPath(path).name == EXTRA:
            tally.add("extra images, which are not used", path)
        elif path not in paths.values():
            tally.add(kind_of(path), path)
    chunks: dict[str, tuple[Chunk, ...]] = {
        split: (Digits(tree.at(path), wanted.sum_of(SPLITS[split])),) for split, path in paths.items()
    }
    chosen = choose(chunks, tree.root, wanted.test_split, lambda _: True)
    return Form(KIND, chosen.splits, CLASS_NAMES, passed_over=tally.found)


@contextmanager
def _opened(path: Place) -> Iterator[IO[bytes]]:
    """The file.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    try:
        with path.open("rb") if isinstance(path, RemotePath) else open_file(path) as file:
            head = file.read(HEAD)
            file.seek(0)
            if not head.startswith(b"MATLAB") and (kind := mistaken(head)) is not None:
                raise InputError(f"{path} is not a MATLAB file, but {kind}")
            yield file
    except (DamagedError, zlib.error) as error:
        raise InputError(f"{path} is not an intact .mat file as SVHN has them: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


class _Stream(Protocol):
    def read(self, size: int) -> bytes: ...
    def finish(self) -> None: ...


class _Plain:
    """What stands in the file as it is."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        """So many bytes."""
        data = self._file.read(size)
        if len(data) < size:
            raise DamagedError(CUT_OFF)
        return data

    def finish(self) -> None:
        """Nothing follows that would have to be checked."""


class _Unpacked:
    """What is compressed in the file: as much of it as is asked for, and never more."""

    def __init__(self, file: IO[bytes], packed: int) -> None:
        self._file, self._left = file, packed
        self._inflate = zlib.decompressobj()

    def read(self, size: int) -> bytes:
        """So many bytes."""
        parts, wanted = list[bytes](), size
        while wanted and not self._inflate.eof:
            some = self._some(wanted)
            wanted -= len(some)
            parts.append(some)
        if wanted:
            raise DamagedError("a variable in it is shorter than it says")
        return b"".join(parts)

    def finish(self) -> None:
        """Read on to the check at the end; only padding may come before it."""
        padding = 0
        while not self._inflate.eof:
            padding += len(self._some(8))
            if padding >= 8:
                raise DamagedError("a variable in it is longer than it says")

    def _some(self, most: int) -> bytes:
        packed = self._inflate.unconsumed_tail
        if not packed:
            packed = self._file.read(min(PIECE, self._left))
            self._left -= len(packed)
        data = self._inflate.decompress(packed, most)
        if not (packed or data or self._inflate.eof):
            raise DamagedError(CUT_OFF)
        return data


@dataclass(frozen=True, slots=True)
class _Variable:
    """One variable: what it says of itself, and the stream that is at its values."""

    name: bytes
    kind: int
    """Its class."""
    shape: tuple[int, ...]
    stored_as: int
    """The type of its values in the file."""
    size: int
    """Bytes of the values."""
    order: str
    stream: _Stream


def _found(file: IO[bytes], name: bytes) -> _Variable:
    """The variable of a name, from the start of the file."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    order = _order(_Plain(file).read(_HEADER))
    while True:
        start = file.read(8)
        if not start:
            raise DamagedError(f"it has no variable {name.decode()}")
        if len(start) < 8:
            raise DamagedError(CUT_OFF)
        kind, size = struct.unpack(f"{order}II", start)
        at = file.tell()
        if at + size > end:
            raise DamagedError(CUT_OFF)
        stream: _Stream = _Plain(file)
        if kind == _COMPRESSED:
            stream = _Unpacked(file, size)
            kind, _ = struct.unpack(f"{order}II", stream.read(8))
        if kind == _MATRIX:
            variable = _variable(stream, order)
            if variable.name == name:
                return variable
        file.seek(at + size)


def _order(header: bytes) -> str:
    """In which order the bytes of a number stand, by the header of the file."""
    order = {b"IM": "<", b"MI": ">"}.get(header[126:128], "")
    if not order:
        raise DamagedError("it does not begin as files of MATLAB do")
    (version,) = struct.unpack(f"{order}H", header[124:126])
    if version != 0x0100:
        raise DamagedError(f"it is of version {version >> 8} of MATLAB's format, allowed is 1: save it with -v7")
    return order


def _variable(stream: _Stream, order: str) -> _Variable:
    """The head of a variable; the stream is at its values then."""
    flags, *_ = _array(stream, order, _UINT32, 2) or (0,)
    shape = tuple(_array(stream, order, _INT32, 8))
    name = bytes(value & 255 for value in _array(stream, order, _INT8, LONGEST_NAME))
    stored_as, size, short = _tag(stream, order)
    if short is not None:  # up to four bytes, which stand in the tag
        return _Variable(name, flags & 255, shape, stored_as, size, order, _Short(short))
    return _Variable(name, flags & 255, shape, stored_as, size, order, stream)


class _Short:
    """Values that stand in a tag."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int) -> bytes:
        """The first of them."""
        return self._data[:size]

    def finish(self) -> None:
        """They are all there."""


def _array(stream: _Stream, order: str, kind: int, most: int) -> tuple[int, ...]:
    """The whole numbers of one small element, of a type, at most so many."""
    found, size, short = _tag(stream, order)
    width = int(_NUMBERS[kind][1])
    if found != kind or size > most * width or size % width:
        raise DamagedError("a variable in it has a damaged head, or one that no array has")
    data = stream.read(size + -size % 8)[:size] if short is None else short
    return struct.unpack(f"{order}{size // width}{ {1: 'b', 4: 'i'}[width] }", data)


def _tag(stream: _Stream, order: str) -> tuple[int, int, bytes | None]:
    """Type and size of an element, and its values where they stand in the tag."""
    data = stream.read(8)
    kind, size = struct.unpack(f"{order}II", data)
    if kind >> 16:
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise DamagedError("a variable in it has a damaged head")
        return kind, size, data[4 : 4 + size]
    return kind, size, None


def _labels(file: IO[bytes]) -> list[int]:
    """The digits that the images show."""
    found = _found(file, b"y")
    count, number = math.prod(found.shape), _NUMBERS.get(found.stored_as)
    if number is None or not 0 < count <= MOST_IMAGES or max(found.shape, default=0) != count:
        raise DamagedError(f"its labels y are {_told(found)}, must be numbers [N, 1], at most {MOST_IMAGES:,}")
    _check_size("labels y", found, count * int(number[1]))
    values = np.frombuffer(found.stream.read(found.size), f"{found.order}{number}")
    found.stream.finish()
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        raise DamagedError("its labels y are not whole numbers")
    return [0 if label == ZERO else label for label in whole.tolist()]


def _images(file: IO[bytes], count: int) -> Iterator[np.ndarray]:
    """Uint8 [32, 32, 3], one after the other."""
    found = _found(file, b"X")
    expected = {(*SHAPE, count), *([SHAPE] if count == 1 else [])}  # MATLAB leaves a last length of 1 out
    if (found.kind, found.stored_as) != (_CLASS_UINT8, _UINT8) or found.shape not in expected:
        raise DamagedError(f"its images X are {_told(found)}, must be bytes [32, 32, 3, {count}], as there are labels")
    each = math.prod(SHAPE)
    _check_size("images X", found, count * each)
    for start in range(0, count, AT_A_TIME):
        some = min(AT_A_TIME, count - start)
        values = np.frombuffer(found.stream.read(some * each), np.uint8).reshape(some, *reversed(SHAPE))
        yield from np.ascontiguousarray(values.transpose(0, 3, 2, 1))
    found.stream.finish()


def _check_size(what: str, found: _Variable, expected: int) -> None:
    if found.size != expected:
        raise DamagedError(f"its {what} take {found.size:,} bytes, {_told(found)} must take {expected:,}")


def _told(variable: _Variable) -> str:
    kind = {6: "real numbers", 7: "real numbers", _CLASS_UINT8: "bytes"}.get(variable.kind, f"of class {variable.kind}")
    return f"{kind} [{', '.join(map(str, variable.shape))}]"
