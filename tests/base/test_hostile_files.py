"""Files that somebody else made: what is no file is not waited for, and what is too large takes no memory."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import class_names, complaint, make_images, read, run_build, write_image_folder
from safetensors.numpy import save_file

from ule_datasets.base import memory
from ule_datasets.base.checkpoint import FileCheckpoint, State
from ule_datasets.base.errors import InputError
from ule_datasets.base.regular import check_file, open_file, read_file
from ule_datasets.base.tensors import read_tensors
from ule_datasets.cli.verify import main as verify
from ule_datasets.data import codec
from ule_datasets.data.perturbation import Additive, Perturbation, Support


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket may not be long
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS: dict[str, Callable[[Path], None]] = {
    "a named pipe": a_pipe,
    "a socket": a_socket,
    "a folder": a_folder,
    "a device": a_device,
}


@pytest.fixture(autouse=True)
def impatience() -> Iterator[None]:
    """Whatever waits is ended."""

    def give_up(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", [open_file, read_file, check_file])
def test_what_is_no_file_is_refused_at_once(function: Any, kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / "x")
    assert complaint(lambda: function(tmp_path / "x")) == f"{tmp_path / 'x'} is {kind}, where a file is expected"


def test_files_and_links_to_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("x")
    assert read_file(tmp_path / "link") == b"abc"
    with open_file(tmp_path / "x", buffering=2) as file:
        assert (file.read(1), file.seek(2), file.read()) == (b"a", 2, b"c")
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "absent")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz", "s.parquet", "s.png", "cifar-10-python.tar.gz", "s.zip", "s"])
def test_a_source_that_is_no_file_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / name)
    message = complaint(lambda: read(tmp_path / name))
    refusals = f"{name} is {kind}, where a file is expected", "no images found there", "s.png is a single image"
    assert any(refusal in message for refusal in refusals), message
    assert "no images found there" in complaint(lambda: read(tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_beside_images_it_is_passed_over(kind: str, tmp_path: Path) -> None:
    write_image_folder(tmp_path, {"train": make_images(2, 2, 8)}, ("a", "b"))
    for name in ("x.png", "x.tar"):
        KINDS[kind](tmp_path / "train" / "a" / name)
    assert len(read(tmp_path).train) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_perturbation_a_recipe_and_weights_that_are_no_files_are_refused(kind: str, tmp_path: Path) -> None:
    for name in ("p.safetensors", "r.py"):
        KINDS[kind](tmp_path / name)
    out = ("--source", "digits", "--out", tmp_path / "out")
    outcome = run_build("ops", "--perturbation", tmp_path / "p.safetensors", *out)
    a_file = f"is {kind}, where a file is expected"
    wanted = "the folder has no perturbation.safetensors" if kind == "a folder" else a_file
    assert (outcome.code, wanted in outcome.stderr) == (2, True), outcome.stderr
    assert run_build(tmp_path / "r.py", *out).code == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ["README.md", "manifest.json", "recipe.json", ".safetensors", ".parquet", ".tar"])
def test_a_dataset_with_something_that_is_no_file_fails_and_ends(
    ending: str, kind: str, built_digits: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(built_digits, tmp_path / "copy"))
    path = next(path for path in sorted(copy.rglob(f"*{ending}")) if path.is_file())
    path.unlink()
    KINDS[kind](path)
    assert verify([str(copy), "--integrity-only", "--workers", "1"]) in (1, 2)


# --- safetensors ----------------------------------------------------------------------------------------------


def shaped(path: Path, *shapes: tuple[int, ...], size: int | None = None, **metadata: str) -> Path:
    """A file whose header speaks of arrays of bytes of these shapes; ``size``: of what comes after it."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for index, shape in enumerate(shapes):
        end = at + int(np.prod(shape, dtype=object))
        header[f"a{index}"] = {"dtype": "U8", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + (at if size is None else size))
    return path


@pytest.mark.parametrize(
    ("shapes", "size"),
    [
        (((2**40,),), 100),
        (((2**62, 4),), 0),
        (((2**40, 0),), None),
        (((0, 2**62),), None),
        (((3,), (2**17, 0, 7)), None),
        (((10,),), 9),
        (((10,),), 11),
    ],
)
def test_shapes_that_the_file_cannot_hold_are_refused(shapes: Any, size: int | None, tmp_path: Path) -> None:
    path = shaped(tmp_path / "p.safetensors", *shapes, size=size)
    with pytest.raises(ValueError, match=r"shape|[Hh]eader|[Oo]ffset|[Bb]uffer|deserializ"):
        read_tensors(path)
    with pytest.raises(InputError, match="not an intact perturbation file"):
        Perturbation.load(path)


def test_a_file_of_a_terabyte_of_holes_takes_no_memory(tmp_path: Path) -> None:
    path = shaped(tmp_path / "p.safetensors", (2**40,))
    message = complaint(lambda: Perturbation.load(path))
    assert "takes 1,024.0 GiB of memory" in message
    assert "ULE_MEMORY" in message


def test_memory_is_what_a_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.safetensors"
    checkpoint = FileCheckpoint(path, "me")
    checkpoint.save(State(arrays={"a": np.zeros(2**21, dtype=np.uint8)}))
    assert checkpoint.load() is not None
    monkeypatch.setenv("ULE_MEMORY", "1")
    assert "state.safetensors takes 2.0 MiB of memory, 1.0 MiB are available" in complaint(checkpoint.load)
    assert path.exists(), "what is intact is kept for a time with more memory"
    monkeypatch.setenv("ULE_MEMORY", "much")
    assert complaint(checkpoint.load) == "ULE_MEMORY is 'much', must be a number of mebibytes"


def test_what_the_system_says_about_memory_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = tmp_path / "meminfo"
    monkeypatch.setattr(memory, "_INFORMATION", information)
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "group")
    assert memory.available() is None
    information.write_text("MemTotal: 9 kB\nMemAvailable:    1000 kB\n")
    assert memory.available() == 1_024_000


GROUPS: dict[str, tuple[str, dict[str, tuple[str, str, int]], int | None]] = {
    "no limit": ("0::/a", {"a": ("max", "700000", 5)}, None),
    "its own limit": ("0::/a", {"a": ("900000", "700000", 5)}, 200_005),
    "a limit of what it lies in": ("0::/a/b", {"a/b": ("max", "5", 0), "a": ("900000", "700000", 0)}, 200_000),
    "the smaller of two": ("0::/a/b", {"a/b": ("6", "5", 0), "a": ("900000", "700000", 0)}, 1),
    "more than its limit": ("0::/", {".": ("900000", "950000", 0)}, 0),
    "a group that is not to be seen": ("0::/docker/x", {".": ("900000", "700000", 0)}, 200_000),
    "version 1": ("4:memory:/a\n0::/", {"memory/a": ("900000", "700000", 5)}, 200_005),
    "no group": ("", {".": ("900000", "700000", 0)}, None),
    "nonsense": ("0", {".": ("x", "y", 0)}, None),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_limits_of_containers_are_kept(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, groups, left = GROUPS[kind]
    information, groups_of = tmp_path / "meminfo", tmp_path / "cgroup"
    information.write_text("MemAvailable: 2000 kB\n")
    groups_of.write_text(own + "\n")
    for name, (limit, usage, inactive) in groups.items():
        first = name.startswith("memory")
        folder = tmp_path / "groups" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ("memory.limit_in_bytes" if first else "memory.max")).write_text(limit)
        (folder / ("memory.usage_in_bytes" if first else "memory.current")).write_text(usage)
        (folder / "memory.stat").write_text(f"anon 3\n{'total_' if first else ''}inactive_file {inactive}\n")
    monkeypatch.setattr(memory, "_INFORMATION", information)
    monkeypatch.setattr(memory, "_OWN_GROUPS", groups_of)
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "groups")
    assert memory.available() == (2_048_000 if left is None else left)


@pytest.mark.parametrize(
    ("mebibytes", "code", "line"),
    [
        (12, 0, "warning: 1 of 2 workers at a time: a worker that writes shards takes 8.4 MiB of memory, 12.0 MiB are"),
        (8, 2, "ule-build: a worker that writes shards takes 8.4 MiB of memory, 8.0 MiB are available: free some"),
    ],
)
def test_a_build_uses_the_workers_that_there_is_memory_for(
    mebibytes: int, code: int, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULE_MEMORY", str(mebibytes))
    outcome = run_build("ops-digits", "--workers", "2", "--out", tmp_path / "x")
    assert outcome.code == code, outcome.stderr
    assert any(said.startswith(line) for said in outcome.stderr.splitlines()), outcome.stderr


def test_an_image_for_which_there_is_too_little_memory_is_not_taken_for_a_bad_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image_folder(tmp_path / "source", {"train": make_images(2, 2, 600)}, class_names(2))
    monkeypatch.setattr(codec, "LARGE", 599 * 600)
    monkeypatch.setenv("ULE_MEMORY", "1")
    outcome = run_build("ops", "--source", tmp_path / "source", "--out", tmp_path / "x", "--skip-unusable")
    assert outcome.code == 2
    assert re.search(r"\.png, decoded, takes 1\.4 MiB of memory, 1\.0 MiB are available", outcome.stderr), (
        outcome.stderr
    )


@pytest.mark.parametrize("keys", [b"\n" * 50, b"a\n\nb", b"a\nb\nc\nd", b"a", b"a\n"])
def test_keys_that_are_not_those_of_the_entries_are_refused_unread(keys: bytes, tmp_path: Path) -> None:
    layer = Additive(levels=np.zeros((3, 2, 2, 3), dtype=np.int8), support=Support.SAMPLE, keys=("a", "b", "c"))
    path = tmp_path / "p.safetensors"
    Perturbation(layers=(layer,), source_digest="0" * 64, about={}).save(path)
    metadata, arrays = read_tensors(path)
    save_file({**arrays, "layers.0.keys": np.frombuffer(keys, dtype=np.uint8)}, path, metadata=metadata)
    with pytest.raises(InputError, match=r"keys for 3 entries|a key in it is empty"):
        Perturbation.load(path)


def test_a_pointer_of_git_lfs_in_place_of_an_image_is_named(tmp_path: Path) -> None:
    write_image_folder(tmp_path, {"train": make_images(1, 2, 8)}, ("a",))
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    (tmp_path / "train" / "a" / "x.png").write_bytes(pointer)
    assert "run git lfs pull" in complaint(lambda: read(tmp_path))
