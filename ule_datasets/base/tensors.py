"""Arrays in safetensors files, checked by their header before memory is taken for any of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ule_datasets.base.memory import check_fits
from ule_datasets.base.regular import check_file

if TYPE_CHECKING:
    import numpy as np

NAMES = {"b": "BOOL", "u": "U{}", "i": "I{}", "f": "F{}"}
"""What the format calls kinds of numbers, of so many bits."""
LONGEST_AXIS = 2**16
"""Of an array without content, which might have any; others have at most as many entries as their file has bytes."""


def check_tensors(path: Path) -> None:
    """Refuse what cannot be read into memory, before a library tries to.

    Raises:
        InputError: it is no file, or takes more memory than there is.
        OSError: it is not there.
        ValueError: it is not a safetensors file, is cut off, or its arrays have impossible shapes.
    """
    from safetensors import SafetensorError, safe_open

    check_file(path)
    size = path.stat().st_size
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                shape = file.get_slice(name).get_shape()
                longest = max(shape, default=1)
                if longest > max(size, LONGEST_AXIS) or (math.prod(shape) == 0 and longest > LONGEST_AXIS):
                    raise ValueError(f"{name[:80]} has shape {shape}, in a file of {size:,} bytes")
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    check_fits(size, str(path))


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and arrays of a safetensors file.

    Raises:
        InputError, OSError, ValueError: as ``check_tensors`` does.
    """
    from safetensors import SafetensorError, safe_open

    check_tensors(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError) as error:
        raise ValueError(str(error)) from error


def read_metadata(path: Path) -> dict[str, str]:
    """What stands beside the arrays of a safetensors file; none of them is read.

    Raises:
        InputError, OSError, ValueError: as ``check_tensors`` does.
    """
    from safetensors import SafetensorError, safe_open

    check_tensors(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write contiguous arrays as a safetensors file, straight from where they are.

    The library copies all of them three times, or writes to a file beside this one under a name of its own.

    Raises:
        OSError: they cannot be written.
    """
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # so that each is aligned
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        array = arrays[name]
        begin, end = end, end + array.nbytes
        kind = NAMES[array.dtype.kind].format(8 * array.itemsize)
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            little = arrays[name].dtype.newbyteorder("<")
            file.write(arrays[name].astype(little, copy=False).data)
