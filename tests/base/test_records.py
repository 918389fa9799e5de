"""JSON is read as a dataclass or refused in one line that names file and field."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ule_datasets.base import records
from ule_datasets.base.errors import InputError
from ule_datasets.base.names import Name, RelativePath


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    path: RelativePath
    size: int

    def __post_init__(self) -> None:
        if self.size < 0:
            raise InputError(f"size is {self.size}, not 0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    name: Name
    files: tuple[File, ...]
    about: dict[str, Any]
    share: float = 1.0


GOOD = {"name": "x", "files": [{"path": "data/x", "size": 3}], "about": {"any": [1, None]}, "later": "passed over"}


def parse(text: bytes | str) -> Note:
    return records.parse(Note, text, "note.json")


def test_json_becomes_the_dataclass() -> None:
    note = Note(name=Name("x"), files=(File(path=RelativePath("data/x"), size=3),), about={"any": [1, None]})
    assert parse(json.dumps(GOOD)) == note == records.convert(Note, GOOD, "note.json")
    assert isinstance(parse(json.dumps(GOOD)).files[0].path, RelativePath)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "name: expected Name, got int"),
        ({"name": "../x"}, "name: '../x' cannot be a name"),
        ({"files": {}}, "files: expected array, got object"),
        ({"files": [{"path": "/x", "size": 1}]}, "files[0].path: '/x' cannot be a path"),
        ({"files": [{"path": "x", "size": "1"}]}, "files[0].size: expected int, got str"),
        ({"files": [{"path": "x", "size": -1}]}, "files[0]: size is -1, not 0 or more"),
        ({"files": [{"path": "x"}]}, "files[0]: object missing required field size"),
        ({"about": None}, "about: expected object, got null"),
        ({"share": True}, "share: expected float, got bool"),
    ],
)
def test_errors_name_the_field(changes: dict[str, Any], message: str) -> None:
    for read in (lambda values: parse(json.dumps(values)), lambda values: records.convert(Note, values, "note.json")):
        with pytest.raises(InputError) as error:
            read({**GOOD, **changes})
        assert str(error.value).startswith("note.json: ")
        assert message in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        *(
            b"",
            b"{",
            b"null",
            b"[1]",
            b"\xff",
            b'{"name": "\xff"}',
            b'{"name": "\\ud800"}',
            b"NaN",
            b"{}x",
            b"\x00",
            b'"',
        ),
        *(opening * depth for opening in (b"[", b'{"about":', b"]") for depth in (1, 60, 100_000)),
        *(b'{"about":' * depth + b"1" + b"}" * depth for depth in (60, 100_000)),
        *(b'{"name": ' + b"9" * digits + b"}" for digits in (30, 5000)),
    ],
)
def test_what_is_no_such_json_is_refused_in_one_line(text: bytes) -> None:
    with pytest.raises(InputError, match=r"\Anote\.json[^\n]*\Z"):
        parse(text)


def test_brackets_in_text_and_allowed_depth_are_no_matter() -> None:
    deep: Any = "[[[" * 100
    for _ in range(records.DEEPEST - 3):
        deep = [deep, '\\"[', {}]
    assert parse(json.dumps({**GOOD, "about": {"deep": deep}})).about == {"deep": deep}
    with pytest.raises(InputError, match="brackets within brackets"):
        parse(json.dumps({**GOOD, "about": {"deep": [[deep]]}}))


def test_size_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(records, "LARGEST", 100)
    (tmp_path / "note.json").write_text(json.dumps(GOOD).ljust(1000))
    with pytest.raises(InputError, match=r"note\.json has more than"):
        records.read(Note, tmp_path / "note.json")


def test_a_pipe_or_folder_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InputError, match="where a file is expected"):
            records.read(Note, path)
    with pytest.raises(FileNotFoundError):
        records.read(Note, tmp_path / "nothing")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["name", "files", "about", "share"]), JSON)
def test_any_value_in_any_field_is_read_or_refused(field: str, value: Any) -> None:
    with contextlib.suppress(InputError):
        parse(json.dumps({**GOOD, field: value}))
