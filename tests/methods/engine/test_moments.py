"""The moments are exact sums, whatever way they are taken, and what is searched in them is the best there is."""

import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import spooled

from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.codec import Rules, decode_rgb
from ule_datasets.data.spool import Images, SpooledImages
from ule_datasets.methods.engine import moments as module
from ule_datasets.methods.engine.moments import Moments, moments_by_class
from ule_datasets.methods.one_pixel_shortcut import CORNERS, Objective, OnePixelShortcut


def direct(images: np.ndarray) -> Moments:
    """Of the images of one class, by the definition."""
    wide = images.astype(np.int64)
    red, green, blue = wide[..., 0], wide[..., 1], wide[..., 2]
    cross = np.stack([red * green, green * blue, red * blue], axis=-1)
    return Moments(len(images), wide.sum(axis=0), (wide**2).sum(axis=0), cross.sum(axis=0))


def equal(found: Moments, wanted: Moments, *, cross: bool = True) -> bool:
    names = ("sums", "squares", "cross") if cross else ("sums", "squares")
    pairs = [(getattr(found, name), getattr(wanted, name)) for name in names]
    return (
        found.count == wanted.count
        and all(one.dtype == np.int64 and np.array_equal(one, other) for one, other in pairs)
        and (cross or found.cross is None)
    )


@pytest.mark.parametrize("value", [0, 255])
def test_blocks_of_extreme_values_stay_exact(value: int) -> None:
    images = np.full((1000, 2, 2, 3), value, dtype=np.uint8)
    (moments,) = moments_by_class(images, np.zeros(1000, dtype=np.int64), 1, cross=True, executor=LocalExecutor())
    assert (moments.sums == 1000 * value).all()
    assert (moments.squares == 1000 * value * value).all()
    assert moments.cross is not None
    assert (moments.cross == 1000 * value * value).all()


def test_moments_of_shards_add_up_in_any_order() -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (700, 4, 6, 3), dtype=np.uint8)
    shards = [direct(images[part]) for part in np.array_split(rng.permutation(700), 7)]
    total = shards[3]
    for index in (6, 0, 5, 1, 4, 2):
        total = total + shards[index]
    assert equal(total, direct(images))


def assert_by_class(images: Images, array: np.ndarray, labels: np.ndarray, num_classes: int, workers: int) -> None:
    with LocalExecutor(workers) as executor:
        for cross in (True, False):
            found = list(moments_by_class(images, labels, num_classes, cross=cross, executor=executor))
            assert len(found) == num_classes
            for number, moments in enumerate(found):
                assert equal(moments, direct(array[labels == number]), cross=cross), number


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.lists(st.sampled_from([0, 0, 1, 2, 5, 11]), min_size=1, max_size=6),
    per_task=st.integers(1, 6),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    on_disk=st.booleans(),
)
def test_by_class_they_are_the_same_whatever_classes_are_empty_and_however_they_are_cut(
    seed: int, counts: list[int], per_task: int, shape: tuple[int, int], on_disk: bool
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    array = rng.integers(0, 256, (len(labels), *shape, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "IMAGES_PER_TASK", per_task)
        images = spooled(array, Path(folder)) if on_disk else array
        assert_by_class(images, array, labels, len(counts), workers=1)


@pytest.mark.parametrize("on_disk", [False, True])
def test_by_class_they_are_the_same_from_two_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_disk: bool
) -> None:
    monkeypatch.setattr(module, "IMAGES_PER_TASK", 7)
    rng = np.random.default_rng(12)
    labels = rng.permutation(np.repeat([1, 2, 5, 6], [20, 1, 33, 14]))  # of nine: empty at the ends and between
    array = rng.integers(0, 256, (len(labels), 5, 4, 3), dtype=np.uint8)
    images = spooled(array, tmp_path) if on_disk else array
    assert_by_class(images, array, labels, 9, workers=2)


def test_by_class_nothing_is_read_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    plain = SpooledImages._read
    monkeypatch.setattr(SpooledImages, "_read", lambda self, rows: (read.append(len(rows)), plain(self, rows))[1])
    monkeypatch.setattr(module, "IMAGES_PER_TASK", 10)
    labels = np.repeat(np.arange(4), 25)
    images = spooled(np.zeros((100, 2, 2, 3), dtype=np.uint8), tmp_path)
    with LocalExecutor() as executor:
        classes = moments_by_class(images, labels, 4, cross=False, executor=executor)
        assert read == []
        assert next(classes).count == 25
        assert sum(read) <= 35, "one task beyond the first class tells that it has ended"


def objective(images: np.ndarray, rows: np.ndarray, columns: np.ndarray, kind: Objective) -> list[list[Fraction]]:
    """The definition in whole numbers, exactly: for M places and each corner what orders like the objective."""
    values = images[:, rows, columns].astype(np.int64)  # [N, M, 3]
    scores = []
    for corner in CORNERS:
        distance = np.abs(values - 255 * corner)
        if kind is Objective.MEAN_OVER_VAR:
            distance = distance.sum(axis=-1, keepdims=True)
        count = distance.shape[0] * distance.shape[2]
        total, squares = distance.sum(axis=(0, 2)), (distance**2).sum(axis=(0, 2))
        spread = count * squares - total**2
        assert (spread > 0).all()
        power = 2 if kind is Objective.MEAN_OVER_STD else 1
        scores.append([Fraction(int(a) ** power, int(v)) for a, v in zip(total, spread, strict=True)])
    return [list(column) for column in zip(*scores, strict=True)]


@pytest.fixture(scope="module")
def photographs(imagenet_folder: Path) -> np.ndarray:
    """Sixty images of ImageNet, cut as its recipes cut them: uint8 [60, 224, 224, 3]."""
    paths = sorted((imagenet_folder / "train").rglob("*.JPEG"))[:60]
    assert len(paths) == 60
    rules = Rules(convert=True, resize=256, crop=224)
    return np.stack([decode_rgb(path.read_bytes(), path.name, rules).pixels for path in paths])


@pytest.mark.parametrize("kind", Objective)
@pytest.mark.parametrize("side", [24, 224])
def test_on_photographs_the_pixels_found_are_the_best_by_the_definition(
    photographs: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Objective, side: int
) -> None:
    """Against all places of a region, and against 2000 places of the whole; in three classes of twenty."""
    monkeypatch.setattr(module, "IMAGES_PER_TASK", 8)
    rng, first = np.random.default_rng(9), (224 - side) // 2
    array = np.ascontiguousarray(photographs[:, first : first + side, first : first + side])
    labels = rng.permutation(np.arange(60) % 3)
    with LocalExecutor() as executor:
        images = spooled(array, tmp_path)
        moments = moments_by_class(images, labels, 3, cross=kind is Objective.MEAN_OVER_VAR, executor=executor)
        chosen = OnePixelShortcut(objective=kind).search(moments)
    places = np.arange(side * side) if side == 24 else rng.choice(side * side, 2000, replace=False)
    rows, columns = np.divmod(places, side)
    taken: set[tuple[int, int, int]] = set()
    for number, (best,) in enumerate(chosen):
        members = array[labels == number]
        (own,) = objective(members, np.array([best.row]), np.array([best.column]), kind)
        scores = objective(members, rows, columns, kind)
        triples = (
            (score, (row, column, colour))
            for row, column, of_place in zip(rows.tolist(), columns.tolist(), scores, strict=True)
            for colour, score in enumerate(of_place)
        )
        free = [(score, pair) for score, pair in triples if pair not in taken]
        highest = max(score for score, _ in free)
        assert own[best.colour] >= highest
        if side == 24:
            assert best.pair == min(pair for score, pair in free if score == highest)
        assert best.pair not in taken
        taken.add(best.pair)
