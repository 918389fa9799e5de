"""Keys, canonical order and digests do not depend on the order of the samples."""

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ule_datasets.split import Split, canonical_order, keys_from_digests, order_free_digest, sample_digest


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
