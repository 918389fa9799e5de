"""What was sealed comes back under its key as it was, and not at all when anything else was done to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ule_datasets.base.sealed import is_sealed, read_note, seal, unseal, write_note

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(content=st.dictionaries(st.text(), VALUES, min_size=1), key=st.text(), indent=st.sampled_from([None, 1]))
def test_what_was_sealed_comes_back_under_its_key_only(content: dict[str, object], key: str, indent: int) -> None:
    text = seal(json.dumps(content, indent=indent), key)
    assert json.loads(text).keys() == content.keys() | {"sealed"}
    assert is_sealed(text)
    found = unseal(text, key)
    assert found is not None
    assert json.loads(found) == content
    assert unseal(text, key + "x") is None


def test_no_changed_byte_passes(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    write_note(path, "key", {"accuracy": 12.5, "names": ["a"]})
    whole = path.read_bytes()
    assert read_note(dict[str, Any], path, "key") == {"accuracy": 12.5, "names": ["a"]}
    damaged = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    damaged += [whole[:at] for at in range(len(whole))] + [bytes(len(whole)), json.dumps(json.loads(whole)).encode()]
    for content in damaged:
        path.write_bytes(content)
        assert read_note(dict[str, Any], path, "key") is None, content


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"a": 1}'])
def test_what_has_no_seal_is_no_note(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "note.json").write_bytes(content)
    assert read_note(dict[str, Any], tmp_path / "note.json", "") is None
    assert read_note(dict[str, Any], tmp_path / "absent.json", "") is None
