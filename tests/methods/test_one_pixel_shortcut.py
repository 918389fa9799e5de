"""The exact search agrees with the definition, decides ties and degenerate cases as documented."""

import dataclasses
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.perturbation import Additive, Overwrite, Support
from ule_datasets.data.quantization import Quantize
from ule_datasets.data.split import Split, sample_digest
from ule_datasets.methods.engine.moments import Moments, moments_by_class
from ule_datasets.methods.method import Context
from ule_datasets.methods.one_pixel_shortcut import (
    CORNERS,
    Objective,
    OnePixelShortcut,
    Upload,
    uniform_levels,
)

WHITE, BLACK = 7, 0


def split_of(images: np.ndarray, labels: np.ndarray) -> Split:
    digests = [sample_digest(image, int(label)) for image, label in zip(images, labels, strict=True)]
    return Split.from_samples("train", images, labels.astype(np.int64), digests)


def context(num_classes: int, *, seed: int = 0, warnings: list[str] | None = None) -> Context:
    reporter = Reporter(silent=True)
    if warnings is not None:
        reporter.warn = warnings.append  # type: ignore[method-assign]
    return Context(num_classes=num_classes, seed=Seed(seed), reporter=reporter)


def float_scores(images: np.ndarray, objective: Objective) -> np.ndarray:
    """The definition, in float64, for every position and corner: [H, W, 8]."""
    scores = np.empty((*images.shape[1:3], 8))
    for colour, corner in enumerate(CORNERS):
        distance = np.abs(images / 255.0 - corner)
        if objective is Objective.MEAN_OVER_STD:
            scores[..., colour] = distance.mean(axis=(0, 3)) / distance.std(axis=(0, 3))
        else:
            total = distance.sum(axis=-1)
            scores[..., colour] = total.mean(axis=0) / total.var(axis=0)
    return scores


def moments_of(images: np.ndarray, labels: np.ndarray, num_classes: int) -> list[Moments]:
    """Of each class, as builds take them."""
    return list(moments_by_class(images, labels, num_classes, cross=True, executor=LocalExecutor()))


def chosen(method: OnePixelShortcut, moments: Iterable[Moments]) -> list[list[tuple[int, int, int]]]:
    return [[pixel.pair for pixel in pixels] for pixels in method.search(moments)]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(3, 30),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    objective=st.sampled_from(Objective),
)
def test_best_pixel_equals_the_float64_definition(
    seed: int, count: int, height: int, width: int, objective: Objective
) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    moments = moments_of(images, np.zeros(count, dtype=np.int64), 1)
    scores = float_scores(images, objective)
    (best,) = OnePixelShortcut(objective=objective).search(moments)[0]
    assert scores[best.pair] >= scores.max() * (1 - 1e-9)


@pytest.mark.parametrize("objective", Objective)
def test_exact_scores_order_like_the_definition(objective: Objective) -> None:
    images = np.random.default_rng(5).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
    moments = moments_of(images, np.zeros(50, dtype=np.int64), 1)
    method = OnePixelShortcut(objective=objective, num_pixels=16)
    scores = float_scores(images, objective)
    order = [scores[pixel.pair] for pixel in method.search(moments)[0]]
    assert order == sorted(order, reverse=True)
    for pixel in method.search(moments)[0]:
        assert pixel.score is not None
        count = 50 * (3 if objective is Objective.MEAN_OVER_STD else 1)
        exact = float(pixel.score)
        value = np.sqrt(exact) if objective is Objective.MEAN_OVER_STD else 255 * 50 * exact
        assert value == pytest.approx(scores[pixel.pair], rel=1e-9), count


@pytest.mark.parametrize("objective", Objective)
def test_result_does_not_depend_on_the_order_of_images(objective: Objective) -> None:
    rng = np.random.default_rng(8)
    images, labels = rng.integers(0, 256, (90, 5, 7, 3), dtype=np.uint8), rng.integers(0, 4, 90)
    method = OnePixelShortcut(objective=objective, num_pixels=2)
    reference = chosen(method, moments_of(images, labels, 4))
    order = rng.permutation(90)
    assert chosen(method, moments_of(images[order], labels[order], 4)) == reference


def test_complementary_colours_have_equal_spread_so_the_farther_one_wins_under_the_papers_formula() -> None:
    images = np.random.default_rng(2).integers(0, 100, (20, 3, 3, 3), dtype=np.uint8)
    moments = moments_of(images, np.zeros(20, dtype=np.int64), 1)
    (pixel,) = OnePixelShortcut(objective=Objective.MEAN_OVER_VAR).search(moments)[0]
    distance = np.abs(images / 255.0 - CORNERS[pixel.colour]).sum(-1)[:, pixel.row, pixel.column]
    opposite = np.abs(images / 255.0 - (1 - CORNERS[pixel.colour])).sum(-1)[:, pixel.row, pixel.column]
    assert distance.var() == pytest.approx(opposite.var())
    assert distance.mean() >= opposite.mean()


def test_a_constant_pixel_scores_infinitely_and_larger_distances_win() -> None:
    images = np.random.default_rng(1).integers(0, 256, (10, 3, 4, 3), dtype=np.uint8)
    images[:, 1, 2] = 10  # constant grey: white is 735 away, black 30
    images[:, 2, 3] = 245
    moments = moments_of(images, np.zeros(10, dtype=np.int64), 1)
    (pixel,) = OnePixelShortcut().search(moments)[0]
    assert pixel.score is None
    assert pixel.pair == (1, 2, WHITE)


def test_a_pixel_that_already_has_the_colour_is_never_chosen() -> None:
    images = np.full((6, 2, 2, 3), 255, dtype=np.uint8)
    moments = moments_of(images, np.zeros(6, dtype=np.int64), 1)
    for objective in Objective:
        pairs = chosen(OnePixelShortcut(objective=objective, num_pixels=4), moments)[0]
        assert [pair[2] for pair in pairs] == [BLACK] * 4
        assert pairs == sorted(pairs)


def test_ties_go_to_the_smaller_row_column_and_colour() -> None:
    image = np.random.default_rng(4).integers(0, 256, (5, 1, 1, 3), dtype=np.uint8)
    images = np.broadcast_to(image, (5, 3, 3, 3)).copy()
    moments = moments_of(images, np.zeros(5, dtype=np.int64), 1)
    assert chosen(OnePixelShortcut(), moments)[0][0][:2] == (0, 0)


def test_a_pair_used_by_an_earlier_class_is_excluded_unless_told_otherwise() -> None:
    images = np.random.default_rng(6).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)
    twice, labels = np.concatenate([images, images]), np.repeat([0, 1], 10)
    moments = moments_of(twice, labels, 2)
    (first,), (second,) = chosen(OnePixelShortcut(), moments)
    assert first != second
    (first,), (second,) = chosen(OnePixelShortcut(exclude_used=False), moments)
    assert first == second


def test_k_pixels_are_distinct_positions_unless_told_otherwise() -> None:
    images = np.random.default_rng(7).integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    images[:, 0, 0] = [[3, 3, 3], [4, 4, 4], [3, 4, 3], [4, 3, 3]]
    moments = moments_of(images, np.zeros(4, dtype=np.int64), 1)
    pairs = chosen(OnePixelShortcut(num_pixels=4), moments)[0]
    assert len({pair[:2] for pair in pairs}) == 4
    pairs = chosen(OnePixelShortcut(num_pixels=4, allow_same_position=True), moments)[0]
    assert len(set(pairs)) == 4
    assert len({pair[:2] for pair in pairs}) < 4


def test_an_empty_class_gets_no_pixel_and_a_warning() -> None:
    rng = np.random.default_rng(9)
    train = split_of(rng.integers(0, 256, (6, 3, 3, 3), dtype=np.uint8), np.array([0, 2] * 3))
    warnings: list[str] = []
    (layer,) = OnePixelShortcut().generate(train, context(3, warnings=warnings)).layers
    assert isinstance(layer, Overwrite)
    assert layer.rows[1, 0] == -1
    assert (layer.rows[[0, 2], 0] >= 0).all()
    assert len(warnings) == 1
    assert "class 1" in warnings[0]


def test_more_pixels_than_the_image_has_are_refused() -> None:
    moments = moments_of(np.zeros((2, 1, 2, 3), dtype=np.uint8), np.zeros(2, dtype=np.int64), 1)
    with pytest.raises(InputError, match="only 2 pixels"):
        OnePixelShortcut(num_pixels=3).search(moments)


def test_more_classes_than_pixels_are_refused_when_pairs_run_out() -> None:
    images = np.random.default_rng(3).integers(1, 255, (9, 1, 1, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="class 8: no pixel is left"):
        OnePixelShortcut().search(moments_of(images, np.arange(9), 9))


def test_sums_beyond_int64_are_refused_instead_of_wrapping() -> None:
    moments = moments_of(np.ones((1, 1, 1, 3), dtype=np.uint8), np.zeros(1, dtype=np.int64), 1)
    with pytest.raises(InputError, match="exact up to"):
        OnePixelShortcut().search([dataclasses.replace(moments[0], count=4_000_000)])


def test_the_largest_allowed_class_does_not_overflow() -> None:
    count = 3_900_000
    sums, squares, cross = (np.zeros((1, 2, 3), dtype=np.int64) for _ in range(3))
    sums[0, 1], squares[0, 1], cross[0, 1] = 200 * count, 40_001 * count, 40_000 * count
    moments = Moments(count, sums, squares, cross)
    for objective in Objective:
        first, second = OnePixelShortcut(objective=objective, num_pixels=2).search([moments])[0]
        assert first.pair == (0, 0, WHITE)
        assert second.score is not None
        assert second.score > 0


def test_the_searched_share_is_stratified_seeded_and_nested() -> None:
    rng = np.random.default_rng(11)
    train = split_of(rng.integers(0, 256, (400, 2, 2, 3), dtype=np.uint8), np.repeat([0, 1], [100, 300]))
    one, ten = (set(OnePixelShortcut(search_fraction=f).searched_rows(train, Seed(0)).tolist()) for f in (0.01, 0.1))
    assert one < ten
    assert np.bincount(train.labels[sorted(ten)]).tolist() == [10, 30]
    assert np.bincount(train.labels[sorted(one)]).tolist() == [1, 3]
    other = OnePixelShortcut(search_fraction=0.1).searched_rows(train, Seed(1))
    assert set(other.tolist()) != ten


def test_noisy_upload_leaves_searched_images_alone_and_writes_the_pixel_last() -> None:
    rng = np.random.default_rng(12)
    train = split_of(rng.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8), np.repeat([0, 1], 30))
    method = OnePixelShortcut(search_fraction=0.1, upload=Upload.NOISY)
    noise, pixel = method.generate(train, context(2)).layers
    assert isinstance(noise, Additive)
    assert noise.support is Support.SAMPLE
    searched = {train.keys[row] for row in method.searched_rows(train, Seed(0)).tolist()}
    assert set(noise.keys) == set(train.keys) - searched
    assert isinstance(pixel, Overwrite)
    assert (noise.levels.min(), noise.levels.max()) == (-8, 7)


@pytest.mark.parametrize(("quantize", "levels"), [(Quantize.TRUNC, 8), (Quantize.HALF_UP, 8), (Quantize.TRUNC, 5)])
def test_upload_noise_has_the_distribution_of_rounded_uniform_noise(quantize: Quantize, levels: int) -> None:
    drawn = uniform_levels(Seed(0), levels, quantize, 200_000, "key")
    values, counts = np.unique(drawn, return_counts=True)
    share = counts / len(drawn)
    if quantize is Quantize.TRUNC:
        assert values.tolist() == list(range(-levels, levels))
        assert np.allclose(share, 1 / (2 * levels), atol=0.005)
    else:
        assert values.tolist() == list(range(-levels, levels + 1))
        assert np.allclose(share[1:-1], 1 / (2 * levels), atol=0.005)
        assert np.allclose(share[[0, -1]], 1 / (4 * levels), atol=0.005)


@settings(max_examples=30)
@given(data=st.data(), margin=st.integers(0, 3))
def test_with_a_margin_the_search_sees_what_is_inside_it_alone(data: st.DataObject, margin: int) -> None:
    images = np.random.default_rng(data.draw(st.integers(0, 999))).integers(0, 4, (12, 8, 8, 3), dtype=np.uint8) * 85
    labels = np.arange(12) % 3
    inside = images[:, margin : 8 - margin, margin : 8 - margin]
    shifted = [
        [(row + margin, column + margin, colour) for row, column, colour in pixels]
        for pixels in chosen(OnePixelShortcut(num_pixels=2), moments_of(inside, labels, 3))
    ]
    assert chosen(OnePixelShortcut(num_pixels=2, margin=margin), moments_of(images, labels, 3)) == shifted


def test_a_margin_that_leaves_no_pixel_is_refused() -> None:
    with pytest.raises(InputError, match="only 0 pixels with a margin of 4"):
        OnePixelShortcut(margin=4).search(moments_of(np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, np.int64), 1))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="margin is -1"):
        OnePixelShortcut(margin=-1)
    with pytest.raises(InputError, match="num_pixels is 0"):
        OnePixelShortcut(num_pixels=0)
    with pytest.raises(InputError, match="search_fraction is 0"):
        OnePixelShortcut(search_fraction=0.0)
    with pytest.raises(InputError, match="noise_levels is 200"):
        OnePixelShortcut(upload=Upload.NOISY, noise_levels=200)


CIFAR10_PIXELS = {
    Objective.MEAN_OVER_STD: [
        (4, 9, 0),
        (24, 14, 7),
        (15, 16, 7),
        (10, 12, 7),
        (20, 15, 7),
        (10, 4, 7),
        (12, 17, 3),
        (18, 16, 7),
        (29, 15, 7),
        (24, 16, 7),
    ],
    Objective.MEAN_OVER_VAR: [
        (9, 25, 2),
        (24, 14, 5),
        (15, 16, 5),
        (10, 12, 5),
        (14, 15, 5),
        (22, 18, 2),
        (12, 17, 5),
        (19, 17, 5),
        (14, 17, 2),
        (24, 17, 5),
    ],
}


@pytest.fixture(scope="module")
def cifar10_train(cifar10_folder: Path) -> Split:
    """The training images of CIFAR-10, read once for all tests."""
    from ule_datasets.base.progress import Reporter
    from ule_datasets.sources.cifar10 import CIFAR10
    from ule_datasets.sources.reading import read_source

    with LocalExecutor(2) as executor:
        return read_source(CIFAR10, str(cifar10_folder), executor=executor, reporter=Reporter(silent=True)).train


@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize("classes", [(0, 9), pytest.param(range(1, 9), marks=pytest.mark.slow)], ids=["two", "others"])
def test_cifar10_pixels_equal_the_direct_float64_evaluation(
    cifar10_train: Split, objective: Objective, classes: Sequence[int]
) -> None:
    train, method = cifar10_train, OnePixelShortcut(objective=objective)
    moments = moments_of(train.images, train.labels, 10)
    pairs = [pixels[0] for pixels in chosen(method, moments)]
    assert pairs == CIFAR10_PIXELS[objective]
    for number in classes:
        scores = float_scores(train.images[train.labels == number], objective)
        for used in pairs[:number]:
            scores[used] = 0
        assert np.unravel_index(scores.argmax(), scores.shape) == pairs[number]
    order = np.random.default_rng(0).permutation(len(train))
    shards = [moments_of(train.images[part], train.labels[part], 10) for part in np.array_split(order, 3)]
    totals = [third + first + second for first, second, third in zip(*shards, strict=True)]
    assert [pixels[0] for pixels in chosen(method, totals)] == pairs


def test_scores_are_exact_fractions_of_the_moments() -> None:
    images = np.array([[[[10, 20, 30]]], [[[20, 40, 90]]]], dtype=np.uint8)
    moments = moments_of(images, np.zeros(2, dtype=np.int64), 1)
    (pixel,) = OnePixelShortcut().search(moments)[0]
    distance = np.abs(images.reshape(-1, 3).astype(int) - 255 * CORNERS[pixel.colour])
    total, squares = int(distance.sum()), int((distance**2).sum())
    assert pixel.score == Fraction(total**2, 3 * 2 * squares - total**2)
