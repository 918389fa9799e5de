"""No name leads anywhere but to a file or folder right below the one that it is joined to."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ule_datasets.base.errors import InputError
from ule_datasets.base.names import LONGEST_NAME, DatasetName, Name, RelativePath

HOSTILE = [
    *("", ".", "..", "/", "/etc/passwd", "../x", "a/../../x", "a//b", "a/"),
    *("a\\b", "..\\x", "C:", "C:x", "C:\\x", "\\\\host\\share"),
    *("CON", "nul", "aux.png", "com1", "LPT9.tar.gz", "com¹", "x.", "x ", " x"),
    *("a\0b", "a\nb", "a\x1b[31mb", "a\x85b", "\udcff", "a\u2028b"),
    *("a?b", "a*b", "<a>", "a|b", 'a"b', "a" * (LONGEST_NAME + 1), "ä" * LONGEST_NAME),
]
GOOD = [
    *("train", "x.png", ".hidden", "a b", "ops-t5", "Ünlü", "猫", "con-trial"),
    *("a" * LONGEST_NAME, "..x", "data-00000-of-00001"),
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"\A[^\n\x1b]*cannot be a name: [^\n\x1b]*\Z"):
        Name(text)
    for path in (f"data/{text}", f"{text}/x", f"data/{text}/x"):
        if not set(text) & set("/"):
            with pytest.raises(InputError, match=r"\A[^\n\x1b]*cannot be a path within a folder: [^\n\x1b]*\Z"):
                RelativePath(path)


@pytest.mark.parametrize("text", GOOD)
def test_an_ordinary_name_stays_the_text_that_it_is(text: str) -> None:
    assert Name(text) == text == RelativePath(text)
    assert isinstance(pickle.loads(pickle.dumps(Name(text))), Name)
    assert isinstance(copy.deepcopy(Name(text)), Name)


@given(st.text(max_size=300))
def test_whatever_is_accepted_stays_within_on_every_system(text: str) -> None:
    try:
        path = RelativePath(text)
    except InputError:
        return
    assert ".." not in path.split("/")
    assert not PurePosixPath(path).is_absolute()
    assert PureWindowsPath(path).as_posix() == path
    assert not PureWindowsPath(path).drive
    assert (Path("/folder") / path).as_posix() == f"/folder/{path}"
    assert path.isprintable() or all(letter.isprintable() or not letter.isascii() for letter in path)


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "CON", "nul", "a/b", "Big", "a_b", "$x$", "x" * 97, "a.", "ä", "a\n"]
)
def test_a_dataset_is_not_called_so(name: str) -> None:
    with pytest.raises(InputError):
        DatasetName(name)
