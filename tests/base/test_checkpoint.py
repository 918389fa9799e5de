"""A state comes back as it was saved, or not at all; a failure never costs the state before it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from ule_datasets.base import checkpoint as checkpoint_module
from ule_datasets.base.checkpoint import Checkpoint, FileCheckpoint, MemoryCheckpoint, State
from ule_datasets.base.tensors import read_tensors, write_tensors

FACTS = {"phase": "noise", "position": 3, "trace": [{"round": 1, "loss": 0.1 + 0.2}], "none": None}
ARRAYS: dict[str, np.ndarray] = {
    "int8": np.arange(-4, 8, dtype=np.int8).reshape(3, 4),
    "int16": np.array([-300, 300], dtype=np.int16),
    "float32": np.array([[0.1, np.inf, -0.0]], dtype=np.float32),
    "int64": np.array([2**40], dtype=np.int64),
    "bool": np.array([True, False, True]),
    "empty": np.zeros((0, 3), dtype=np.float32),
}


def checkpoint(folder: Path, identity: str = "this craft") -> FileCheckpoint:
    return FileCheckpoint(folder / "work" / "state.safetensors", identity)


def same(state: State | None, other: State) -> bool:
    return (
        state is not None
        and state.facts == other.facts
        and state.arrays.keys() == other.arrays.keys()
        and all(
            (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
            for a, b in ((state.arrays[name], other.arrays[name]) for name in other.arrays)
        )
    )


def state(number: int = 0) -> State:
    return State(arrays={"x": np.full(1000, number, dtype=np.int64)}, facts={"number": number})


def content_of(kept: FileCheckpoint) -> list[str]:
    return sorted(path.name for path in kept.path.parent.iterdir())


def test_arrays_and_facts_come_back_as_they_were(tmp_path: Path) -> None:
    kept = checkpoint(tmp_path)
    assert kept.load() is None
    kept.save(State(arrays=ARRAYS, facts=FACTS))
    assert same(checkpoint(tmp_path).load(), State(arrays=ARRAYS, facts=FACTS))
    assert content_of(kept) == ["state.safetensors"]


def test_an_array_without_dimensions_keeps_its_shape(tmp_path: Path) -> None:
    single = State(arrays={"count": np.array(7, dtype=np.int64)})
    checkpoint(tmp_path).save(single)
    assert same(checkpoint(tmp_path).load(), single)


def test_an_array_that_is_not_contiguous_comes_back_in_order(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
    checkpoint(tmp_path).save(State(arrays={"x": array}))
    assert same(checkpoint(tmp_path).load(), State(arrays={"x": np.ascontiguousarray(array)}))


@given(
    shapes=st.dictionaries(st.text(max_size=5), st.lists(st.integers(0, 3), max_size=3), max_size=5),
    kinds=st.lists(st.sampled_from(["?", "u1", "i1", "u2", "<i2", ">i4", "u8", "f2", "f4", ">f8"]), min_size=5),
    text=st.text(),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_library_reads_what_is_written(
    shapes: dict[str, list[int]], kinds: list[str], text: str, tmp_path: Path
) -> None:
    shapes.pop("__metadata__", None)
    arrays = {name: np.ones(shape, kind) for (name, shape), kind in zip(shapes.items(), kinds, strict=False)}
    write_tensors(tmp_path / "x", arrays, {"text": text})
    metadata, again = read_tensors(tmp_path / "x")
    assert metadata == {"text": text}
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype.newbyteorder("=")
        assert np.array_equal(again[name], array)
        assert again[name].shape == array.shape


def test_only_the_latest_state_is_kept(tmp_path: Path) -> None:
    kept = checkpoint(tmp_path)
    for number in range(3):
        kept.save(state(number))
    assert same(kept.load(), state(2))
    assert content_of(kept) == ["state.safetensors"]


def test_what_was_loaded_survives_the_next_save(tmp_path: Path) -> None:
    kept = checkpoint(tmp_path)
    kept.save(state(1))
    loaded = kept.load()
    kept.save(state(2))
    assert same(loaded, state(1))


def test_the_state_of_another_craft_is_not_loaded(tmp_path: Path) -> None:
    checkpoint(tmp_path).save(state())
    assert checkpoint(tmp_path, "another craft").load() is None
    assert same(checkpoint(tmp_path).load(), state())
    checkpoint(tmp_path, "another craft").save(state(1))
    assert checkpoint(tmp_path).load() is None


@pytest.mark.parametrize("damage", ["truncated", "header", "empty", "text", "folder"])
def test_a_damaged_file_counts_as_absent_and_can_be_replaced(tmp_path: Path, damage: str) -> None:
    kept = checkpoint(tmp_path)
    kept.save(state())
    content = kept.path.read_bytes()
    if damage == "folder":
        kept.path.unlink()
        kept.path.mkdir()
    else:
        wrong_header = content[:8] + b"\xff" + content[9:]
        replacements = {"truncated": content[:-1], "header": wrong_header, "empty": b"", "text": b"no\n" * 99}
        kept.path.write_bytes(replacements[damage])
    assert kept.load() is None
    if damage == "folder":
        kept.path.rmdir()
    kept.save(state(1))
    assert same(kept.load(), state(1))


@pytest.mark.parametrize("place", ["arrays", "facts", "zeroed", "no digest", "another craft"])
def test_a_changed_file_that_can_be_read_counts_as_absent_and_is_named(tmp_path: Path, place: str) -> None:
    told: list[str] = []
    kept = FileCheckpoint(tmp_path / "state.safetensors", "this craft", on_refused=told.append)
    kept.save(state(1))
    whole = kept.path.read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    header = {"identity": "this craft", "facts": {"number": 1}}
    changed = {
        "arrays": whole[:-1] + b"\x01",
        "facts": whole.replace(b'number\\": 1', b'number\\": 2'),
        "zeroed": whole[:length] + bytes(len(whole) - length),
        "no digest": save({"x": np.full(1000, 1, dtype=np.int64)}, metadata={"ule": json.dumps(header)}),
        "another craft": whole.replace(b"this craft", b"that craft"),
    }[place]
    assert changed != whole
    kept.path.write_bytes(changed)
    assert kept.load() is None
    (line,) = told
    assert line.startswith(f"an interrupted craft begins anew: {kept.path} cannot be continued from (")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"other": "{}"},
        {"ule": "{"},
        {"ule": "[]"},
        {"ule": "1"},
        {"ule": json.dumps({"facts": {}})},
        {"ule": json.dumps({"identity": "this craft"})},
        {"ule": json.dumps({"identity": "this craft", "facts": [], "digest": ""})},
        {"ule": json.dumps({"identity": "this craft", "facts": {}, "digest": 1})},
        {"ule": '{"facts": ' + "[" * 100_000},
        {"ule": '{"identity": "this craft", "facts": {"x": NaN}, "digest": ""}'},
    ],
)
def test_safetensors_of_others_count_as_absent(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    kept = checkpoint(tmp_path)
    kept.path.parent.mkdir()
    save_file({"x": np.zeros(3)}, kept.path, metadata=metadata)
    assert kept.load() is None


def leave_behind(kept: FileCheckpoint) -> None:
    """What killed processes have left, and a file of somebody else."""
    kept.path.parent.mkdir(exist_ok=True)
    for name in (".state.safetensors.123.partial", ".state.safetensors.99999.partial", ".other.safetensors.1.partial"):
        (kept.path.parent / name).write_bytes(b"half")


def test_loading_removes_what_a_killed_process_left_half_written(tmp_path: Path) -> None:
    kept = checkpoint(tmp_path)
    kept.save(state())
    leave_behind(kept)
    assert same(kept.load(), state())
    assert content_of(kept) == [".other.safetensors.1.partial", "state.safetensors"]


def test_clearing_removes_the_state_and_what_was_left_half_written(tmp_path: Path) -> None:
    kept = checkpoint(tmp_path)
    kept.save(state())
    leave_behind(kept)
    kept.clear()
    assert content_of(kept) == [".other.safetensors.1.partial"]
    assert kept.load() is None
    kept.clear()
    assert content_of(kept) == [".other.safetensors.1.partial"]


def test_clearing_where_nothing_ever_was_is_no_error(tmp_path: Path) -> None:
    checkpoint(tmp_path).clear()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_keeps_the_state_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    kept = checkpoint(tmp_path)
    kept.save(state(1))

    def fail_half_way(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
        write_tensors(path, arrays, metadata)
        os.truncate(path, path.stat().st_size // 2)
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_module, "write_tensors", fail_half_way)
        with pytest.raises(type(error)):
            kept.save(state(2))
    assert content_of(kept) == ["state.safetensors"]
    assert same(kept.load(), state(1))
    kept.save(state(3))
    assert same(kept.load(), state(3))


def test_facts_that_are_not_json_are_an_error_and_keep_the_state_before(tmp_path: Path) -> None:
    kept = checkpoint(tmp_path)
    kept.save(state(1))
    with pytest.raises(TypeError, match="not JSON serializable"):
        kept.save(State(arrays={}, facts={"array": np.zeros(1)}))
    assert same(kept.load(), state(1))


def test_memory_keeps_the_latest_state_until_it_is_gone() -> None:
    kept: Checkpoint = MemoryCheckpoint()
    assert kept.load() is None
    for number in range(2):
        kept.save(state(number))
    assert same(kept.load(), state(1))
    assert MemoryCheckpoint().load() is None
