"""Pickles and files of torch, read without running anything in them: numbers, texts, arrays, and what holds these.

What training scripts save beside (command lines, paths, settings) is passed over: nothing of its class is made.
Anything that is asked for besides is refused, by name.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.memory import check_fits
from ule_datasets.base.pickles import check_pickle
from ule_datasets.base.regular import check_file, open_file, read_file
from ule_datasets.sources.batch_pickle import Array, Restricted, Type

SUFFIXES = frozenset((".pkl", ".pickle", ".pt", ".pth", ".tar", ".p"))
"""Endings of their names; ``.pth.tar`` is no archive of tar."""
ZIP = b"PK\x03\x04"
TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files begin that torch wrote before version 1.6."""
PASSED_OVER = frozenset(
    {
        ("argparse", "Namespace"),
        ("types", "SimpleNamespace"),
        ("easydict", "EasyDict"),
        ("torch", "device"),
        ("torch", "dtype"),
        *(("pathlib", name) for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
        *(("pathlib._local", name) for name in ("Path", "PosixPath", "WindowsPath")),
        *(("omegaconf.dictconfig", name) for name in ("DictConfig",)),
        *(("omegaconf.listconfig", name) for name in ("ListConfig",)),
        *(("yacs.config", name) for name in ("CfgNode",)),
    }
)
"""Settings, which say nothing about images."""
STORED = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "ShortStorage": "<i2",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
    "BoolStorage": "?",
}
"""What torch calls the types of numbers, and what NumPy calls them."""
KINDS = frozenset("biuf")
DEEPEST = 12
"""Lists in lists, at most."""


class Skipped:
    """Stands for an object whose class is passed over; whatever is done to it changes nothing."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...

    def __setitem__(self, _: object, __: object) -> None: ...

    def append(self, _: object) -> None:
        """As lists do."""

    def extend(self, _: object) -> None:
        """As lists do."""


def read_pickle(path: Path) -> Any:
    """What is in a pickle or a file of torch: dictionaries, lists, texts, bytes, numbers, and arrays of NumPy.

    Raises:
        InputError: it is damaged, would have to be run, or takes more memory than there is.
    """
    try:
        check_file(path)
        with open_file(path) as file:
            head = file.read(len(TORCH_MAGIC))
        if head.startswith(ZIP):
            return plain(_archived(path))
        check_fits(2 * path.stat().st_size, str(path))
        if head == TORCH_MAGIC:
            return plain(_legacy(path))
        data = read_file(path)
        check_pickle(data)
        return plain(_Reader(io.BytesIO(data)).load())
    except InputError:
        raise
    except Exception as error:  # a damaged pickle fails in any way that its operations can fail
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path} cannot be read safely: {reason}") from error


class _Number(Type):
    """The type of an array, with the order of its bytes."""

    __slots__ = ("order",)

    def __init__(self, name: object, *rest: object) -> None:
        super().__init__(name, *rest)
        self.order: object = "<"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1:
            self.order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """What NumPy makes of it, if it is a type of plain numbers."""
        dtype = np.dtype(str(self.name))
        if dtype.kind not in KINDS:
            raise ValueError(f"its numbers are of the type {dtype}")
        return dtype.newbyteorder(">") if self.order == ">" else dtype


class _Tensor:
    """What stands for a tensor: its numbers."""

    __slots__ = ("values",)

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __setstate__(self, _: object) -> None:
        """Hooks and the like."""


class _Storage:
    """What stands for the type of a tensor's numbers."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


class _Call:
    """A function of ours that a pickle may call, and not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)

    def __setstate__(self, _: object) -> None:
        raise pickle.UnpicklingError("it changes a function")


class _Reader(Restricted):
    """Knows what arrays and tensors need, and passes over settings; refuses anything else."""

    def __init__(self, file: io.BytesIO, archive: zipfile.ZipFile | None = None, folder: str = "") -> None:
        super().__init__(file, encoding="latin1")
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> object:
        """What may stand for a name."""
        top = module.replace("numpy._core", "numpy.core")
        known: dict[tuple[str, str], object] = {
            ("numpy", "dtype"): _Number,
            ("numpy.core.numeric", "_frombuffer"): _Call(_from_buffer),
            ("numpy.core.multiarray", "scalar"): _Call(_scalar),
            ("collections", "OrderedDict"): OrderedDict,
            ("builtins", "set"): list,
            ("__builtin__", "set"): list,
            ("builtins", "bytearray"): bytearray,
            ("torch", "Size"): tuple,
            ("torch._utils", "_rebuild_tensor_v2"): _Call(_rebuilt),
            ("torch._utils", "_rebuild_parameter"): _Call(_first),
        }
        if (found := known.get((top, name))) is not None:
            return found
        if (module, name) in PASSED_OVER:
            return Skipped
        if module == "torch" and name in STORED:
            return _Storage(STORED[name])
        return super().find_class(module, name)

    def persistent_load(self, reference: Any) -> np.ndarray:
        """The numbers of a tensor, which stand in a file of their own."""
        kind, stored, key, *_ = reference
        if self._archive is None or kind != "storage" or not isinstance(stored, _Storage):
            raise pickle.UnpicklingError("it has numbers elsewhere")
        return np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), stored.dtype)


def _archived(path: Path) -> Any:
    """The pickle within a file of torch."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it is a compressed archive, which torch does not write")
        size = sum(member.file_size for member in members)
        if size > path.stat().st_size:
            raise ValueError("its members overlap")
        check_fits(2 * size, str(path))
        folders = [
            member.filename.removesuffix("data.pkl") for member in members if member.filename.endswith("/data.pkl")
        ]
        if len(folders) != 1:
            raise ValueError("it is an archive, but none of torch")
        data = archive.read(f"{folders[0]}data.pkl")
        check_pickle(data)
        return _Reader(io.BytesIO(data), archive, folders[0]).load()


def _legacy(path: Path) -> Any:
    """A file of an old torch, by torch's own reader of plain tensors."""
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)

    def numbers(value: Any, depth: int = 0) -> Any:
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")
        if isinstance(value, torch.Tensor):
            return value.detach().numpy()
        if isinstance(value, dict):
            return {key: numbers(each, depth + 1) for key, each in value.items()}
        return [numbers(each, depth + 1) for each in value] if isinstance(value, list | tuple) else value

    return numbers(content)


def _from_buffer(data: object, kind: object, shape: object, order: object, axes: object = None) -> np.ndarray:
    """An array as NumPy pickles it from protocol 5 on; ``axes``: what is then done to its axes."""
    if not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("it has an array without numbers")
    array = _shaped(bytes(data), kind, shape, fortran=order in ("F", b"F"))
    if axes is None:
        return array
    if not isinstance(axes, tuple) or sorted(axes) != list(range(array.ndim)):
        raise pickle.UnpicklingError("it has an array with odd axes")
    return array.transpose(axes)


def _scalar(kind: object, data: object = b"") -> object:
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(raw, bytes):
        raise pickle.UnpicklingError("it has a number without bytes")
    return _shaped(raw, kind, (), fortran=False).item()


def _shaped(data: bytes, kind: object, shape: object, *, fortran: bool) -> np.ndarray:
    if (
        not isinstance(kind, _Number)
        or not isinstance(shape, tuple)
        or not all(type(n) is int and n >= 0 for n in shape)
    ):
        raise pickle.UnpicklingError("it has an array of no shape or type")
    if math.prod(shape) * kind.dtype.itemsize != len(data):
        raise pickle.UnpicklingError(f"it has an array of shape {shape} and {len(data):,} bytes")
    return np.frombuffer(data, kind.dtype).reshape(shape, order="F" if fortran else "C")


def _rebuilt(flat: object, offset: object, shape: object, strides: object, *_: object) -> _Tensor:
    """A tensor from its numbers, where each has a number of its own."""
    if not isinstance(flat, np.ndarray) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise pickle.UnpicklingError("it has a tensor without numbers")
    sizes = (offset, *shape, *strides)
    if not all(type(size) is int and size >= 0 for size in sizes) or len(shape) != len(strides):
        raise pickle.UnpicklingError("it has a tensor of no shape")
    last = int(str(offset)) + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if math.prod(shape) > len(flat) or (math.prod(shape) and last >= len(flat)):
        raise pickle.UnpicklingError(f"it has a tensor of shape {shape} and {len(flat):,} numbers")
    itemsize = flat.dtype.itemsize
    begin = flat[int(str(offset)) :]
    return _Tensor(
        np.lib.stride_tricks.as_strided(begin, shape, [step * itemsize for step in strides], writeable=False)
    )


def _first(value: object, *_: object) -> object:
    return value


def plain(value: Any, depth: int = 0) -> Any:
    """The same with arrays instead of what stands for them, and without what was passed over."""
    if depth > DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(value, Array):
        return _from_state(value.state)
    if isinstance(value, _Tensor):
        return value.values
    if isinstance(value, dict):
        kept = {key: plain(each, depth + 1) for key, each in value.items() if not isinstance(each, Skipped)}
        return {key: each for key, each in kept.items() if isinstance(key, str | int | bytes)}
    if isinstance(value, list | tuple):
        return [plain(each, depth + 1) for each in value if not isinstance(each, Skipped)]
    return value


def _from_state(state: object) -> np.ndarray:
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("it has an array without numbers")
    _, shape, kind, fortran, data = state
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(data, bytes):
        raise ValueError("it has an array of objects")
    return _shaped(data, kind, shape, fortran=bool(fortran))
