"""Images on disk behave as the array that they were made from."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import spooled

from ule_datasets.base.errors import InputError
from ule_datasets.data.spool import SpooledImages, view


def random_images(rng: np.random.Generator, count: int, shape: tuple[int, int, int]) -> np.ndarray:
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.lists(st.integers(0, 9), max_size=6),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    start=st.integers(-50, 50),
    stop=st.integers(-50, 50),
    step=st.sampled_from([None, 1, 2, 7, -1, -3]),
)
def test_they_equal_the_array_however_they_are_asked_for(
    seed: int, counts: list[int], height: int, width: int, start: int, stop: int, step: int | None
) -> None:
    rng = np.random.default_rng(seed)
    array = random_images(rng, sum(counts), (height, width, 3))
    count = len(array)
    with tempfile.TemporaryDirectory() as folder:
        images = spooled(array, Path(folder), counts)
        assert len(images) == count
        assert images.shape == array.shape
        assert images.nbytes == array.nbytes
        assert (images.dtype, images.ndim) == (array.dtype, array.ndim)
        same(np.asarray(images), array)
        same(np.array(images, dtype=np.int16), array.astype(np.int16))

        part = slice(start, stop, step)
        assert isinstance(images[part], SpooledImages), "a slice reads nothing"
        same(np.asarray(images[part]), array[part])
        rows = rng.integers(0, count, 2 * count) if count else np.empty(0, dtype=np.int64)
        for chosen in (rows, rows.astype(np.int32), rows - count, rows.tolist(), np.sort(rows)):
            same(images[chosen], array[np.asarray(chosen, dtype=np.int64)])
        mask = rng.integers(0, 2, count).astype(bool)
        same(images[mask], array[mask])
        for index in rows[:3].tolist():
            same(images[index], array[index])
            same(images[np.int64(index)], array[index])
        assert [image.tobytes() for image in images] == [image.tobytes() for image in array]

        order = rng.permutation(count)
        ordered = view(images, order)
        assert isinstance(ordered, SpooledImages)
        same(np.asarray(ordered), array[order])
        inner = view(ordered, part)
        same(np.asarray(inner), view(array[order], part))
        assert set(inner.files) <= set(images.files)
        same(np.asarray(inner[::2]), array[order][part][::2])
        again = rng.permutation(len(inner))
        same(inner[again], array[order][part][again])
        same(np.asarray(pickle.loads(pickle.dumps(inner))), array[order][part])


def same(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    assert np.array_equal(found, wanted)


def test_long_runs_of_neighbours_are_read_in_any_direction_and_more_than_once(tmp_path: Path) -> None:
    array = random_images(np.random.default_rng(1), 500, (2, 3, 3))
    images = spooled(array, tmp_path, [200, 300])
    forth = np.arange(500)
    for rows in (
        forth,
        forth[::-1],
        np.repeat(forth, 2),
        np.concatenate([forth, forth]),
        forth.reshape(2, -1).T.ravel(),
    ):
        assert np.array_equal(images[rows], array[rows])


def test_an_image_out_of_range_is_an_error_as_with_arrays(tmp_path: Path) -> None:
    images = spooled(random_images(np.random.default_rng(2), 4, (2, 2, 3)), tmp_path)
    for rows in (4, -5, np.array([0, 4])):
        with pytest.raises(IndexError):
            images[rows]


def test_they_are_read_only_and_reading_is_never_free(tmp_path: Path) -> None:
    images = spooled(random_images(np.random.default_rng(3), 4, (2, 2, 3)), tmp_path)
    with pytest.raises(TypeError):
        images[0] = 0  # type: ignore[index]
    with pytest.raises(ValueError, match="have to be read"):
        images.__array__(copy=False)


def test_pickles_hold_places_and_no_pixels(tmp_path: Path) -> None:
    sizes = {}
    for side in (1, 224):
        images = SpooledImages.in_files([(tmp_path / f"{n:03d}.rgb", 1000) for n in range(20)], (side, side, 3))
        sizes[side] = len(pickle.dumps(images))
        assert sizes[side] < 13 * len(images) + 2000, "twelve bytes for each image"
        shard = pickle.dumps(images[4990:5010])
        assert len(shard) < 1500, "and only of those that are sent"
        assert [path.name for path in pickle.loads(shard).files] == ["004.rgb", "005.rgb"]
    assert abs(sizes[224] - sizes[1]) < 10


def test_a_file_that_ends_too_early_is_an_error_that_names_it(tmp_path: Path) -> None:
    array = random_images(np.random.default_rng(4), 12, (3, 3, 3))
    images = spooled(array, tmp_path, [5, 7])
    damaged = images.files[1]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert np.array_equal(images[:11][np.arange(11)], array[:11]), "what is there is there"
    for rows in (np.array([11]), np.array([0, 11, 6]), np.arange(12)):
        with pytest.raises(InputError, match=f"{damaged} ends too early: it was changed during the build; build again"):
            images[rows]
    damaged.write_bytes(b"")
    with pytest.raises(InputError, match="ends too early"):
        np.asarray(images)
