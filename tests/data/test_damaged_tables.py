"""Parquet files that contradict themselves are rows or one refusal, within bounds of memory; the process goes on.

They are read in a process of their own, whose memory is limited: asked about such a file, a library may also take the
process with it.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ule_datasets.base.errors import InputError
from ule_datasets.base.limits import Limit
from ule_datasets.data import parquet_pages, thrift
from ule_datasets.data.parquet_pages import PageError, opened
from ule_datasets.data.thrift import I32, I64, DamagedError
from ule_datasets.dataset.shards import parquet as shards
from ule_datasets.sources.reading import find_form
from ule_datasets.sources.unusable import Unusable

FEW, MANY = 300, 20_000
MEBIBYTES = 4096
"""Of addresses, beyond what the process has before it reads anything."""
NAMES = ("ant", "bee")


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_damaged_tables_are_rows_or_one_refusal(count: int, tried: Callable[..., None]) -> None:
    here = Path(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parents[1]), *sys.path])}
    done = subprocess.run([sys.executable, str(here), str(count)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(found.values()) == count
    assert found["refused"] > count // 4
    assert found["rows"] > count // 20
    tried("changed bytes in Parquet files", count)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed where a file describes itself, or anywhere."""
    changed = bytearray(data)
    begin = rng.choice((len(data) - 8 - int.from_bytes(data[-8:-4], "little"), 4))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place = rng.randrange(begin, len(data) - 8)
        changed[place] = rng.choice(
            (rng.randrange(256), 0, 255, changed[place] ^ 1 << rng.randrange(8), (changed[place] + 1) % 256)
        )
    return bytes(changed)


def written(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, row_group_size=3)
    return sink.getvalue()


def a_source() -> bytes:
    """Some rows of what is no image, in two groups."""
    rows = [{"bytes": bytes([number] * 40), "path": f"{number}.png"} for number in range(6)]
    return written(image=rows, label=[0, 1, 0, 1, 0, 1])


def a_shard(folder: Path) -> bytes:
    table = shards.table_of([bytes(40)] * 6, [0, 1] * 3, list("abcdef"), np.zeros(6, bool), NAMES)
    shards.write(table, folder / "shard.parquet")
    return (folder / "shard.parquet").read_bytes()


def read_all(path: Path) -> int:
    chunks = find_form(str(path)).chunks["train"]
    return sum(not isinstance(raw, Unusable) for chunk in chunks for raw in chunk.samples())


def main(count: int) -> None:
    outcomes = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        readers = {
            a_source(): read_all,
            a_shard(Path(folder)): lambda path: len(shards.read(path, NAMES).keys),
        }
        path = Path(folder, "train.parquet")
        for data, read in readers.items():
            path.write_bytes(data)
            assert read(path) == 6
        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEBIBYTES * 2**20,) * 2)
        for number in range(count):
            data, read = list(readers.items())[number % 2]
            path.write_bytes(damaged(data, random.Random(number)))
            try:
                read(path)
                outcomes["rows"] += 1
            except InputError as error:
                outcomes["refused" if str(path) in str(error) else f"refused: {error}"] += 1
    print(json.dumps(outcomes))


# --- what is read of a file's end -----------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["NONE", "SNAPPY"])
@pytest.mark.parametrize("look", [2**16, 64])
def test_a_file_says_the_same_to_its_library(codec: str, look: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_pages, "FOOTER_LOOK", look)
    sink = io.BytesIO()
    table = pa.table({"a.b": list(range(50)), "text": ["x", None] * 25, "struct": [{"c": 1.0, "d": [True]}] * 50})
    pq.write_table(table, sink, row_group_size=20, compression=codec, use_dictionary=["text"], write_page_index=True)
    found = opened(sink)
    metadata = found.file.metadata
    assert [group.num_rows for group in found.groups] == [20, 20, 10]
    for number, group in enumerate(found.groups):
        theirs = metadata.row_group(number)
        assert group.unpacked == theirs.total_byte_size
        for place, (name, column) in enumerate(found.columns(number)):
            its = theirs.column(place)
            start = its.dictionary_page_offset if its.has_dictionary_page else its.data_page_offset
            assert name == its.path_in_schema == metadata.schema.column(place).path
            assert (column.start, column.packed) == (start, its.total_compressed_size)
            assert column.codec == {"NONE": 0, "SNAPPY": 1}[codec]
    assert found.file.read().equals(table)


def test_a_description_beyond_the_limit_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_pages, "TABLE_FOOTER", Limit("ULE_MAX_TABLE_FOOTER", 1))
    table = pa.table({"x": [1]}).replace_schema_metadata({"much": "x" * 2**20})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    with pytest.raises(PageError, match=r"itself takes \d MiB, allowed are 1: ULE_MAX_TABLE_FOOTER"):
        opened(sink)


def test_a_list_of_more_than_there_is_takes_no_memory() -> None:
    claims = b"\x49\xfc\xff\xff\xff\x0f" + b"\x00" * 20
    end = claims + len(claims).to_bytes(4, "little") + b"PAR1"
    tracemalloc.start()
    try:
        with pytest.raises(PageError, match="its description of itself"):
            opened(io.BytesIO(b"PAR1" + end))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


# --- Thrift ---------------------------------------------------------------------------------------------------

THRIFT: dict[str, tuple[bytes, Any]] = {
    "numbers": (b"\x15\x02\x16\x03\x00", {1: 1, 2: -2}),
    "a field that is given by its number": (b"\x05\x02\x02\x00", {1: 1}),
    "others between": (b"\x58\x02xx\x06\x04\x02\x00", {2: 1}),
    "a list of structures": (b"\x39\x2c\x15\x02\x00\x15\x04\x00\x00", {3: [{1: 1}, {1: 2}]}),
    "an end with a number": (b"\x15\x02\x10", {1: 1}),
    "a true, a list and a map passed over": (b"\xb1\x19\x25\x02\x02\x1b\x01\x58\x02\x01x\x1b\x00\x00", {}),
    "a list of trues": (b"\xb9\x31\x01\x02\x01\x00", {}),
    "twice": (b"\x15\x02\x05\x02\x02\x00", "a field twice"),
    "a wrong type": (b"\x16\x02\x00", "another type"),
    "a list of numbers": (b"\x39\x25\x02\x02\x00", "another type"),
    "beyond its type": (b"\x15\xff\xff\xff\xff\x7f\x00", "beyond its type"),
    "no end of a number": (b"\x15" + b"\xff" * 11, "without an end"),
    "no number of a field": (b"\x15\x02\x05\x00\x02\x00", "no number"),
    "an unknown type": (b"\xbe\x00", "unknown type"),
    "a deep structure": (b"\xbc" + b"\x1c" * 40, "within structures"),
    "a deep list": (b"\xb9" + b"\x19" * 40, "within structures"),
    "cut": (b"\x15", IndexError),
    "a text that is cut": (b"\xb8\x7fx", IndexError),
    "a list of more than there is": (b"\x39\xfc\xff\xff\xff\x0f", IndexError),
    "a list of trues of more than there is": (b"\xb9\xf1\xff\xff\xff\x0f", IndexError),
}


@pytest.mark.parametrize("name", THRIFT)
def test_wanted_fields_are_read_and_the_others_passed_over(name: str) -> None:
    data, expected = THRIFT[name]
    wanted = {1: I32, 2: I64, 3: [{1: I32}]}
    if isinstance(expected, dict):
        assert thrift.read(data, 0, wanted) == (expected, len(data))
    elif isinstance(expected, str):
        with pytest.raises(DamagedError, match=expected):
            thrift.read(data, 0, wanted)
    else:
        with pytest.raises(expected):
            thrift.read(data, 0, wanted)


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_damage(data: bytes) -> None:
    try:
        _, end = thrift.read(data, 0, {1: I32, 2: I64, 3: [{1: I32}]})
        assert end <= len(data)
    except (DamagedError, IndexError):
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]))
