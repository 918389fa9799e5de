"""Files of weights in every form, read without running anything in them."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from helpers import complaint
from torch import Tensor, nn

from ule_datasets.base.errors import InputError
from ule_datasets.models.states import read_state


class Tiny(nn.Module):
    """Parameters, buffers, submodules in a list, a constant list of integers, and an empty tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 4), nn.BatchNorm1d(4)])
        self.scale = nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
        self.register_buffer("nothing", torch.empty(0))
        self.sizes = [1, 2]

    def forward(self, values: Tensor) -> Tensor:
        for layer in self.layers:
            values = layer(values)
        return values


def scripted(model: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of its scripts
        torch.jit.save(torch.jit.script(model), path)
    return path


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_every_form_gives_the_same_tensors(tmp_path: Path, dtype: torch.dtype) -> None:
    model = Tiny().to(dtype)
    expected = dict(model.state_dict())
    safetensors.torch.save_file(
        {name: value.contiguous() for name, value in expected.items()}, tmp_path / "s.safetensors"
    )
    torch.save(expected, tmp_path / "plain.pt")
    torch.save(expected, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for key in ("state_dict", "model", "model_state_dict"):
        torch.save({key: expected, "epoch": 3, "best": 0.5}, tmp_path / f"nested {key}.pt")
    torch.save({f"module.{name}": value for name, value in expected.items()}, tmp_path / "parallel.pt")
    scripted(model, tmp_path / "scripted.pt")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 8
    for path in files:
        assert_same(read_state(path), expected)


def test_published_classifiers_were_saved_from_several_devices(weights_folder: Path) -> None:
    state = read_state(weights_folder / "resnet20-12fca82f.th")
    assert len(state) == 97
    assert next(iter(state)) == "conv1.weight"
    assert all(tensor.device.type == "cpu" for tensor in state.values())


def test_reading_scripts_gives_no_warning(tmp_path: Path) -> None:
    path = scripted(Tiny(), tmp_path / "scripted.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_state(path)) == 9


class Malicious:
    """Pickled, it creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def in_a_script(content: object, path: Path) -> None:
    """A scripted model, with its tree of modules replaced by another pickle."""
    original = scripted(Tiny(), path.with_suffix(".original"))
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, pickle.dumps(content) if name.endswith("/data.pkl") else source.read(name))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_what_would_have_to_be_run_is_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    content = {"weight": torch.zeros(2), "more": Malicious(trace)}
    pickle.loads(pickle.dumps(Malicious(trace)))
    assert trace.exists(), "the file would do something"
    trace.unlink()
    torch.save(content, tmp_path / "new.pt")
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Malicious(trace)))
    in_a_script(Malicious(trace), tmp_path / "script.pt")
    for name in ("new", "old", "pickle", "script"):
        message = complaint(lambda name=name: read_state(tmp_path / f"{name}.pt"))
        assert "holds no weights that can be read safely" in message
        assert not trace.exists(), name


@pytest.mark.parametrize("form", ["plain", "old", "script", "safetensors"])
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, form: str) -> None:
    whole = tmp_path / "whole"
    if form == "script":
        scripted(Tiny(), whole)
    elif form == "safetensors":
        safetensors.torch.save_file({"a": torch.zeros(9)}, whole)
    else:
        torch.save({"a": torch.zeros(9)}, whole, _use_new_zipfile_serialization=form == "plain")
    content = whole.read_bytes()
    path = tmp_path / ("damaged.safetensors" if form == "safetensors" else "damaged.pt")
    for length in (0, 1, 40, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:length])
        assert complaint(lambda: read_state(path)).startswith(f"{path} holds no weights")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_flipped_bits_never_end_in_another_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(9)}, buffer, _use_new_zipfile_serialization=False)
    path, refused = tmp_path / "damaged.pt", 0
    for position in range(0, len(buffer.getvalue()), 3):
        content = bytearray(buffer.getvalue())
        content[position] ^= 0x24
        path.write_bytes(content)
        try:
            read_state(path)
        except InputError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([torch.zeros(2)], "holds no weights, but list"),
        ({}, "0 of its 0 entries are tensors"),
        ({"a": torch.zeros(2), "b": 3}, "1 of its 2 entries are tensors"),
        ({"state_dict": {"epoch": 3}}, "0 of its 1 entries are tensors"),
    ],
)
def test_something_else_than_weights(tmp_path: Path, content: object, reason: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert reason in complaint(lambda: read_state(tmp_path / "a.pt"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file" in complaint(lambda: read_state(tmp_path / "a.pt"))
