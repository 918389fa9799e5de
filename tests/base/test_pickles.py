"""What a pickle would take is seen before it takes it."""

from __future__ import annotations

import io
import pickle
import pickletools
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ule_datasets.base import pickles
from ule_datasets.base.limits import Limit
from ule_datasets.base.pickles import check_pickle
from ule_datasets.sources import batch_pickle

NUMBERS = st.integers()
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | st.text() | st.binary() | st.just(b"x" * 300),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner) | st.sets(st.integers())
    ),
)


@given(VALUES, st.integers(0, 5))
def test_what_was_pickled_passes_and_what_is_cut_does_not(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    check_pickle(data)
    check_pickle(data + b"anything")
    for length in {0, len(data) // 2, len(data) - 1}:
        with pytest.raises(ValueError, match=r"it is cut off|invalid literal"):
            check_pickle(data[:length])


def counted(operation: bytes, width: int, count: int = -1) -> bytes:
    """An operation that speaks of more bytes than there are."""
    return operation + (count % 2 ** (8 * width - 1)).to_bytes(width, "little")


BOMBS: dict[str, tuple[bytes, str]] = {
    "a number of a value": (b"]r\xff\xff\xff\xff.", "beyond its values"),
    "a number of a value, as text": (b"]p999999999\n.", "beyond its values"),
    "a number of a value that is none": (b"]px\n.", "invalid literal"),
    "a number of a value of many digits": (b"]p" + b"9" * 5000 + b"\n.", "digits"),
    **{
        name: (counted(operation, width), "cut off")
        for name, operation, width in [
            ("a text", b"X", 4),
            ("a long text", b"\x8d", 8),
            ("bytes", b"B", 4),
            ("long bytes", b"\x8e", 8),
            ("an array of bytes", b"\x96", 8),
            ("a string", b"T", 4),
            ("a long number", b"\x8b", 4),
        ]
    },
    "many lists": (b"(" + b"]" * 1024 + b"l.", "more than 1,024 values"),
    "no operation": (b"\xff.", "no pickle"),
    "nothing": (b"", "cut off"),
    "a line without an end": (b"Vxxx", "cut off"),
    "a name without an end": (b"cos\nsystem", "cut off"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_take_memory_is_refused_before_it_does(
    name: str, tried: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickles, "MOST_OPERATIONS", 1024)
    data, why = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=why):
            batch_pickle.load(data)
        assert tracemalloc.get_traced_memory()[1] < 2**16
    finally:
        tracemalloc.stop()
    tried("pickles that would take much memory")


def test_the_ends_of_operations_are_those_of_the_library() -> None:
    assert {each.arg.n for each in pickletools.opcodes if each.arg} - {*range(9), pickles._LINE} == {*pickles._COUNTS}
    two_lines = {each.code for each in pickletools.opcodes if each.arg and each.arg.name.endswith("pair")}
    assert {chr(code) for code, size in pickles._SIZES.items() if size == pickles._LINES} == two_lines
    kept = {each.code for each in pickletools.opcodes if "PUT" in each.name}
    assert kept == {chr(code) for code in pickles._PUTS} | {"q"}, "and q counts to 255"


# --- batches --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_bytes_come_back(order: Any, protocol: int) -> None:
    array = np.asarray(np.arange(24, dtype=np.uint8).reshape(2, 12), order=order)
    again = batch_pickle.pixels(batch_pickle.load(pickle.dumps(array, protocol)))
    assert again is not None
    assert np.array_equal(again, array)


@pytest.mark.parametrize("other", [np.zeros(3), np.array([None]), np.zeros(2, "u1,u1"), np.zeros(2, np.int8), [0], 1])
def test_other_arrays_are_none_of_bytes(other: Any) -> None:
    assert batch_pickle.pixels(batch_pickle.load(pickle.dumps(other, 2))) is None


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(tR"
TYPE = b"cnumpy\ndtype\n(U\x02u1tR"
STATES: dict[str, bytes] = {
    "more pixels than bytes": b"(I1\n(I10000000000\nt" + TYPE + b"I00\nU\x01xt",
    "a negative side": b"(I1\n(I-1\nI-1\nt" + TYPE + b"I00\nU\x01xt",
    "a side that is none": b"(I1\n(U\x01xt" + TYPE + b"I00\nU\x01xt",
    "no type": b"(I1\n(I1\ntU\x02u1I00\nU\x01xt",
    "a list of bytes": b"(I1\n(I1\nt" + TYPE + b"I00\n]t",
    "too little": b"(I1\nt",
    "a list": b"]",
}


@pytest.mark.parametrize("name", STATES)
def test_an_array_that_says_what_it_is_not_is_none(name: str) -> None:
    assert batch_pickle.pixels(batch_pickle.load(ARRAY + STATES[name] + b"b.")) is None


LONG_TEXT = b"(X\xe8\x03\x00\x00" + b"x" * 1000 + b"q\x010"
FUNCTIONS: dict[str, bytes] = {
    "many bytes of one text": LONG_TEXT + b"c_codecs\nencode\n(h\x01tR" * 2000 + b"l.",
    "another encoding": b"c_codecs\nencode\n(X\x01\x00\x00\x00xX\x04\x00\x00\x00zliktR.".replace(b"zlik", b"idna"),
    "a function is changed": b"c_codecs\nencode\n(N}U\x05_left" + b"I99999999999\nstb.",
    "a class is changed": b"cnumpy\nndarray\n(N}U\x05state" + b"I1\nstb.",
    "an array is another's": b"cnumpy\nndarray.mro\n.",
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_a_batch_may_call_gives_nothing_else(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_pickle, "BATCH_FILE", Limit("ULE_MAX_BATCH_FILE", 1))
    with pytest.raises((pickle.UnpicklingError, TypeError)):
        batch_pickle.load(FUNCTIONS[name])
    assert batch_pickle.load(b"c_codecs\nencode\n(X\x01\x00\x00\x00\x78tR.") == b"x"


def test_changed_bytes_in_a_batch_take_no_memory(tried: Callable[..., None]) -> None:
    content = {b"data": np.zeros((4, 12), np.uint8), b"labels": [0, 1, 2, 3], b"filenames": [b"a.png"] * 4}
    whole = [pickle.dumps(content, protocol) for protocol in (0, 2, 4)]
    rng = random.Random(0)
    tracemalloc.start()
    try:
        for number in range(1500):
            data = bytearray(whole[number % 3])
            for _ in range(rng.choice((1, 1, 3))):
                data[rng.randrange(len(data))] = rng.randrange(256)
            try:
                found = batch_pickle.load(io.BytesIO(data).getvalue())
            except Exception:
                continue
            batch_pickle.pixels(found)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    tried("changed bytes in batches", 1500)
