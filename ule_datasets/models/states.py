"""Parameters and buffers in files: read without running anything in them, and written as safetensors."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ule_datasets.base.errors import InputError
from ule_datasets.base.files import replacing
from ule_datasets.base.memory import check_fits
from ule_datasets.base.pickles import check_pickle
from ule_datasets.base.regular import check_file
from ule_datasets.base.tensors import check_tensors
from ule_datasets.places import hub

_NESTED = ("state_dict", "model", "model_state_dict")  # where training scripts put the weights in what they save
_COUNTER = "num_batches_tracked"  # batch normalisation's updates, without effect on any model here
_STORED = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}  # what scripted models call the types of their numbers


def save_weights(model: nn.Module, path: Path) -> None:
    """Write parameters and buffers as safetensors."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as partial:
        safetensors.torch.save_file(state, partial)


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model with what ``save_weights`` wrote.

    Raises:
        InputError: the file is missing, damaged, or of another model.
    """
    try:
        check_tensors(path)
        model.load_state_dict(safetensors.torch.load_file(path))
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} does not hold the weights of this model: {str(error).splitlines()[0]}") from error


def read_state(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers by name, on the CPU; from safetensors, a file of torch, or a scripted model.

    Nothing in the file is run. What a training script saved beside the weights is left out, as is ``module.``
    before the names.

    Raises:
        InputError: it is none of these, damaged, or would have to be run.
    """
    try:
        check_file(path)
        if path.suffix == ".safetensors":
            check_tensors(path)
            content: object = safetensors.torch.load_file(path)
        elif _is_torchscript(path):
            content = _scripted_state(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle fails in any way that its operations can fail
        raise InputError(f"{path} holds no weights that can be read safely: {hub.first_line(error)}") from error
    for key in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no weights, but {type(content).__name__}")
    state = {str(name).removeprefix("module."): value for name, value in content.items()}
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors or len(tensors) < len(state):
        raise InputError(f"{path} holds no weights: {len(tensors)} of its {len(state)} entries are tensors")
    return tensors


def load_in_order(model: nn.Module, path: Path, what: str) -> None:
    """Fill a model with the tensors that ``read_state`` finds in a file, in their order, whatever their names.

    ``what`` is said of the model.

    Raises:
        InputError: the file cannot be read safely, or its tensors are not those of the model.
    """
    state, wanted = read_state(path), dict(model.state_dict())
    wanted = expected(wanted, state)
    if len(state) != len(wanted):
        raise InputError(f"{path} does not hold {what}: it has {len(state)} tensors, expected {len(wanted)}")
    state = dict(zip(wanted, state.values(), strict=True))
    if wrong := misfits(state, wanted):
        raise InputError(f"{path} does not hold {what}: {misfit_told(wrong, state, wanted)}")
    model.load_state_dict(state)


def expected(wanted: dict[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a model's tensors should be matched by; old files lack the counters of batch normalisation."""
    if any(name.endswith(_COUNTER) for name in state):
        return wanted
    return {name: tensor for name, tensor in wanted.items() if not name.endswith(_COUNTER)}


def misfits(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Names of what has another shape than in the model, or integers in place of floats; any floats will do."""
    return [name for name in wanted if name in state and _kind(state[name]) != _kind(wanted[name])]


def misfit_told(wrong: Sequence[str], state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """What to say of them."""
    found, awaited = (_described(tensors[wrong[0]]) for tensors in (state, wanted))
    return (
        f"{len(wrong)} of its tensors have another shape or type, the first {wrong[0]!r} with {found} in place of "
        f"{awaited}"
    )


def _kind(tensor: Tensor) -> tuple[torch.Size, bool]:
    return tensor.shape, tensor.is_floating_point()


def _described(tensor: Tensor) -> str:
    return f"{'x'.join(map(str, tensor.shape)) or 'one'} {str(tensor.dtype).removeprefix('torch.')}"


def _is_torchscript(path: Path) -> bool:
    """Whether it is an archive of a scripted model, which has its constants in a file of its own."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        check_fits(sum(member.file_size for member in archive.infolist()), str(path))
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _scripted_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a scripted model: the tree of its modules is read, their code is not.

    (torch's own loader runs what the code does with the state, and is about to be removed.)
    """
    with zipfile.ZipFile(path) as archive:
        folder = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
        data = archive.read(f"{folder}data.pkl")
        check_pickle(data)
        return _tensors(_ScriptReader(BytesIO(data), archive, folder).load(), "")


class _Module:
    """Whatever class of a scripted model: its attributes alone."""


class _ScriptReader(pickle.Unpickler):
    """Knows modules, tensors, and lists that carry a type; refuses everything else."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> object:
        """What may stand for a name."""
        match module.partition(".")[0], module, name:
            case "__torch__", _, _:
                return _Module
            case _, "torch._utils", "_rebuild_tensor_v2":
                return _rebuild
            case _, "torch.jit._pickle", _:
                return lambda value, *_: value
            case _, "collections", "OrderedDict":
                return OrderedDict
            case _, "torch", _ if name in _STORED:
                return _STORED[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, reference: tuple[str, torch.dtype, str, str, int]) -> Tensor:
        """The numbers of a tensor, which stand in a file of their own."""
        _, dtype, key, _, _ = reference
        content = bytearray(self._archive.read(f"{self._folder}data/{key}"))
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _rebuild(flat: Tensor, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> Tensor:
    return flat.as_strided(shape, strides, offset).clone()


def _tensors(module: _Module, prefix: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            found[prefix + name] = value
        elif isinstance(value, _Module):
            found |= _tensors(value, f"{prefix}{name}.")
    return found
