"""Shards are lossless, reproducible, and readable by everybody's tools."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ule_datasets.base.errors import InputError
from ule_datasets.data.codec import encode_png
from ule_datasets.dataset.shards import parquet, shard_rows, webdataset
from ule_datasets.dataset.shards.reading import SampleForm, check_samples, decode_images, read_shard

NAMES = ("zero", "one", "zwei, größer")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6))
def test_png_is_lossless_for_any_shape(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert np.array_equal(decode_images([encode_png(image)], "x")[0], image)
    assert encode_png(image) == encode_png(image.copy())


@given(st.integers(0, 5000), st.integers(1, 10_000), st.floats(0.01, 4))
def test_shard_ranges_cover_everything_once_and_are_equal_give_or_take_one(count: int, size: int, limit: float) -> None:
    ranges = shard_rows(count, size, limit)
    assert [row for part in ranges for row in part] == list(range(count))
    lengths = [len(part) for part in ranges]
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= max(1, limit * 2**20 / size)


def columns(count: int) -> tuple[list[bytes], list[int], list[str], np.ndarray]:
    rng = np.random.default_rng(0)
    encoded = [encode_png(image) for image in rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)]
    return encoded, [n % 3 for n in range(count)], [f"{n:016x}" for n in range(count)], rng.random(count) < 0.5


def test_both_formats_give_back_what_was_written(tmp_path: Path) -> None:
    encoded, labels, keys, poisoned = columns(25)
    parquet.write(parquet.table_of(encoded, labels, keys, poisoned, NAMES), tmp_path / "a.parquet")
    webdataset.write(tmp_path / "a.tar", encoded, labels, keys, poisoned, NAMES)
    for content in (read_shard(tmp_path / name, NAMES) for name in ("a.parquet", "a.tar")):
        check_samples(content, SampleForm(class_names=NAMES, image_shape=(8, 8, 3)), "shard")
        assert content.encoded == encoded
        assert content.labels == labels
        assert content.keys == keys
        assert content.poisoned == poisoned.tolist()


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=3000), st.text("abcdef-_0123456789/", min_size=1, max_size=90))
def test_tar_members_equal_those_of_the_standard_library(data: bytes, name: str) -> None:
    info = tarfile.TarInfo(f"{name}.png")
    info.size, info.mode, info.mtime, info.uname, info.gname = len(data), 0o444, 0, "ule", "ule"
    expected = info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)
    assert webdataset.member(f"{name}.png", data) == expected


def test_tar_shards_have_fixed_times_owners_and_padding(tmp_path: Path) -> None:
    webdataset.write(tmp_path / "a.tar", *columns(3), NAMES)
    assert (tmp_path / "a.tar").stat().st_size % tarfile.RECORDSIZE == 0
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = tar.getmembers()
    assert [m.name for m in members[:3]] == [f"{0:016x}.png", f"{0:016x}.cls", f"{0:016x}.json"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "ule", 0o444)}


def test_names_too_long_for_a_plain_header_are_refused() -> None:
    with pytest.raises(InputError, match="at most 100 bytes"):
        webdataset.member("x" * 101, b"")


def test_parquet_shards_are_stored_as_the_hub_recommends(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    parquet.write(parquet.table_of(*columns(2500), NAMES), tmp_path / "a.parquet")
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [1000, 1000, 500]
    group = {metadata.row_group(0).column(n).path_in_schema: metadata.row_group(0).column(n) for n in range(5)}
    assert group["image.bytes"].compression == "UNCOMPRESSED"
    assert group["key"].compression == "SNAPPY"
    assert all(column.has_offset_index for column in group.values())
    assert metadata.format_version == "2.6"


def test_an_image_that_cannot_be_decoded_is_named() -> None:
    with pytest.raises(InputError, match="image 0 is not a readable image"):
        decode_images([b"no image"], "shard")
