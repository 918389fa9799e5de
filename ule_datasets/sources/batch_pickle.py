"""Reading the pickle of a CIFAR batch: nothing of it is run, and it takes little more memory than it has bytes."""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np

from ule_datasets.base.limits import BATCH_FILE
from ule_datasets.base.pickles import check_pickle

_BYTES = ("u1", "|u1", "uint8", "B")
"""What NumPy's pickles call its type."""


def load(data: bytes) -> Any:
    """The dictionaries, lists, numbers and byte strings in a pickle; arrays as ``pixels`` takes them.

    Raises:
        Exception: it is damaged (it may fail in any way that its operations can), asks for anything else, or takes too
            much memory.
    """
    check_pickle(data)
    return Restricted(io.BytesIO(data), encoding="bytes").load()


def pixels(array: Any) -> np.ndarray | None:
    """An array of bytes (uint8, read-only, as it was pickled); ``None``: it is something else."""
    if not isinstance(array, Array) or not isinstance(array.state, tuple) or len(array.state) != 5:
        return None
    _, shape, kind, transposed, content = array.state
    if not (
        isinstance(kind, Type)
        and kind.name in _BYTES
        and isinstance(content, bytes)
        and isinstance(shape, tuple)
        and all(isinstance(length, int) and length >= 0 for length in shape)
        and math.prod(shape) == len(content)
    ):
        return None
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if transposed else "C")


class Array:
    """What stands for an array: what NumPy would make it of, not looked at."""

    __slots__ = ("state",)

    def __init__(self, *_: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class Type:
    """What stands for the type of an array: its name."""

    __slots__ = ("name",)

    def __init__(self, name: object, *_: object) -> None:
        self.name = name.decode("latin1") if isinstance(name, bytes) else name

    def __setstate__(self, _: object) -> None:
        """The order of the bytes of a number, which single bytes do not have."""


class _Encode:
    """What stands for the function that makes bytes of text, as Python 3 pickles them for Python 2."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = BATCH_FILE.bytes

    def __call__(self, text: str, encoding: str = "latin1") -> bytes:
        self._left -= len(text)
        if self._left < 0 or encoding not in ("latin1", b"latin1"):
            raise pickle.UnpicklingError("it makes more or other bytes of texts than a batch has")
        return text.encode("latin1")

    def __setstate__(self, _: object) -> None:
        raise pickle.UnpicklingError("it changes a function")


class Restricted(pickle.Unpickler):
    """Knows exactly what a NumPy array of bytes needs; anything else in the file is refused."""

    _ALLOWED = {"_reconstruct": Array, "ndarray": Array, "dtype": Type}  # noqa: RUF012
    _MODULES = frozenset({"numpy", "numpy.core.multiarray", "numpy._core.multiarray"})

    def __init__(self, file: io.BytesIO, *, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self._encode = _Encode()

    def find_class(self, module: str, name: str) -> object:
        """What may stand for a name."""
        if module in self._MODULES and name in self._ALLOWED:
            return self._ALLOWED[name]
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
