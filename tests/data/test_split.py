"""Keys, canonical order and digests do not depend on the order of the samples."""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import spooled

from ule_datasets.base.seeds import Seed
from ule_datasets.data.split import Split, canonical_order, keys_from_digests, order_free_digest, sample_digest


def samples(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, list[bytes]]:
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 2, (count, 1, 1, 3), dtype=np.uint8), rng.integers(0, 2, count)
    return images, labels, [sample_digest(image, int(label)) for image, label in zip(images, labels, strict=True)]


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40))
def test_a_split_is_the_same_for_any_order_of_its_samples_duplicates_included(seed: int, count: int) -> None:
    images, labels, digests = samples(seed, count)
    order = np.random.default_rng(seed + 1).permutation(count)
    first = Split.from_samples("train", images, labels, digests)
    second = Split.from_samples("train", images[order], labels[order], [digests[i] for i in order])
    assert first.keys == second.keys
    assert first.digest == second.digest
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.labels, second.labels)
    assert len(set(first.keys)) == count


def test_exact_duplicates_get_a_counter() -> None:
    digest = hashlib.sha256(b"x").digest()
    prefix = digest.hex()[:16]
    assert keys_from_digests([digest, digest, digest]) == [prefix, f"{prefix}-1", f"{prefix}-2"]


def test_sample_digest_is_that_of_pixels_and_one_label_byte() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert sample_digest(image, 9) == hashlib.sha256(bytes(range(12)) + b"\x09").digest()
    assert sample_digest(image, 300) == hashlib.sha256(bytes(range(12)) + b"\x01\x2c").digest()


def test_order_free_digest_sorts() -> None:
    parts = [hashlib.sha256(bytes([n])).digest() for n in range(5)]
    assert order_free_digest(parts) == order_free_digest(reversed(parts))
    assert order_free_digest(parts) == hashlib.sha256(b"".join(sorted(parts))).hexdigest()


def test_canonical_order_mixes_classes() -> None:
    keys = [f"class{n // 100}-{n}" for n in range(200)]
    first_half = [n // 100 for n in canonical_order(keys)[:100].tolist()]
    assert 30 < sum(first_half) < 70


def test_first_per_class_takes_the_first_of_each_class_and_has_its_own_digest() -> None:
    images, labels, digests = samples(3, 40)
    split = Split.from_samples("train", images, labels, digests)
    trial = split.first_per_class(5)
    assert np.bincount(trial.labels).tolist() == [5, 5]
    assert trial.digest != split.digest
    positions = [split.keys.index(key) for key in trial.keys]
    assert positions == sorted(positions)


def test_batches_cover_the_split_in_order() -> None:
    images, labels, digests = samples(4, 23)
    split = Split.from_samples("train", images, labels, digests)
    assert tuple(key for batch in split.batches(5) for key in batch.keys) == split.keys
    assert [len(batch) for batch in split.batches(5)] == [5, 5, 5, 5, 3]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 60),
    per_class=st.integers(1, 20),
    size=st.integers(1, 70),
    limits=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_a_split_on_disk_equals_the_one_in_memory(
    seed: int, count: int, per_class: int, size: int, limits: tuple[int, int]
) -> None:
    images, labels, digests = samples(seed, count)
    memory = Split.from_samples("train", images, labels, digests)
    with tempfile.TemporaryDirectory() as folder:
        disk = Split.from_samples("train", spooled(images, Path(folder)), labels, digests)
        assert_same(disk, memory)
        assert_same(disk.rows(*limits), memory.rows(*limits))
        batches = list(disk.batches(size))
        assert len(batches) == -(-count // size)
        for batch, wanted in zip(batches, memory.batches(size), strict=True):
            assert_same(batch, wanted)
        assert_same(disk.first_per_class(per_class), memory.first_per_class(per_class))
        rows = disk.stratified_rows(0.3, Seed(seed), "test")
        assert np.array_equal(rows, memory.stratified_rows(0.3, Seed(seed), "test"))
        assert np.array_equal(disk.pixels(rows), memory.pixels(rows))
        assert np.array_equal(disk.pixels(rows), images[np.array([digests.index(d) for d in digests_of(memory, rows)])])


def assert_same(disk: Split, memory: Split) -> None:
    assert not isinstance(disk.images, np.ndarray)
    assert isinstance(memory.images, np.ndarray)
    assert (disk.name, disk.keys, disk.digest) == (memory.name, memory.keys, memory.digest)
    assert disk.images.shape == memory.images.shape
    assert np.array_equal(disk.labels, memory.labels)
    assert np.array_equal(disk.pixels(), memory.pixels())


def digests_of(split: Split, rows: np.ndarray) -> list[bytes]:
    return [sample_digest(split.pixels()[row], int(split.labels[row])) for row in rows.tolist()]
