"""The moments are exact sums, whatever way they are taken."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ule_datasets.methods.moments import moments_of


def direct(images: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, ...]:
    wide = images.astype(np.int64)
    red, green, blue = wide[..., 0], wide[..., 1], wide[..., 2]
    cross = np.stack([red * green, green * blue, red * blue], axis=-1)
    members = [labels == number for number in range(num_classes)]
    return (
        np.array([m.sum() for m in members]),
        np.stack([wide[m].sum(axis=0) for m in members]),
        np.stack([(wide[m] ** 2).sum(axis=0) for m in members]),
        np.stack([cross[m].sum(axis=0) for m in members]),
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 40),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    num_classes=st.integers(1, 4),
    workers=st.sampled_from([1, 2, 7]),
)
def test_moments_equal_direct_integer_sums(
    seed: int, count: int, height: int, width: int, num_classes: int, workers: int
) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    labels = rng.integers(0, num_classes, count)
    moments = moments_of(images, labels, num_classes, workers=workers)
    expected = direct(images, labels, num_classes)
    for found, wanted in zip((moments.count, moments.sums, moments.squares, moments.cross), expected, strict=True):
        assert found is not None
        assert found.dtype == np.int64
        assert np.array_equal(found, wanted)
    plain = moments_of(images, labels, num_classes, cross=False, workers=workers)
    assert plain.cross is None
    assert np.array_equal(plain.sums, moments.sums)
    assert np.array_equal(plain.squares, moments.squares)


@pytest.mark.parametrize("value", [0, 255])
def test_blocks_of_extreme_values_stay_exact(value: int) -> None:
    images = np.full((1000, 2, 2, 3), value, dtype=np.uint8)
    moments = moments_of(images, np.zeros(1000, dtype=np.int64), 1)
    assert (moments.sums == 1000 * value).all()
    assert (moments.squares == 1000 * value * value).all()
    assert moments.cross is not None
    assert (moments.cross == 1000 * value * value).all()


def test_moments_of_shards_add_up_in_any_order_and_subtract() -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (700, 4, 6, 3), dtype=np.uint8)
    labels = rng.integers(0, 3, 700)
    whole = moments_of(images, labels, 3)
    shards = [moments_of(images[part], labels[part], 3) for part in np.array_split(rng.permutation(700), 7)]
    total = shards[3]
    for index in (6, 0, 5, 1, 4, 2):
        total = total + shards[index]
    without_first = total - shards[0]
    for name in ("count", "sums", "squares", "cross"):
        assert np.array_equal(getattr(total, name), getattr(whole, name))
        assert np.array_equal(getattr(without_first + shards[0], name), getattr(whole, name))
        assert not np.array_equal(getattr(without_first, name), getattr(whole, name))
