"""Random numbers with the same bits everywhere are distributed as they should be."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from tests.methods.test_one_pixel_shortcut import split_of
from ule_datasets.base.seeds import Seed
from ule_datasets.methods.engine.drawn import BLOCK, drawn_for_each, logarithm, normals, ordered_sum, uniforms


def test_logarithms_are_right_to_a_few_units_of_the_last_digit() -> None:
    values = np.concatenate([np.geomspace(1e-300, 1e300, 4001), np.linspace(0.4, 2.5, 4001), [math.sqrt(0.5), 1.0]])
    found, expected = logarithm(values), np.log(values)
    assert np.abs(found - expected).max() <= 4 * np.spacing(np.abs(expected)).max()
    near = np.abs(expected) < 1
    assert np.abs(found - expected)[near].max() < 1e-15


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_normal_numbers_have_the_moments_and_tails_of_the_normal_distribution(seed: int) -> None:
    drawn = normals(Seed(seed), (400, 500), "test").ravel()
    error = 1 / math.sqrt(len(drawn))
    assert abs(drawn.mean()) < 4 * error
    assert abs((drawn**2).mean() - 1) < 4 * math.sqrt(2) * error
    assert abs((drawn**3).mean()) < 4 * math.sqrt(15) * error
    assert abs((drawn**4).mean() - 3) < 4 * math.sqrt(96) * error
    for limit in (0.5, 1, 2, 3):
        share = math.erfc(limit / math.sqrt(2))
        assert abs((np.abs(drawn) > limit).mean() - share) < 4 * math.sqrt(share) * error
    assert abs(np.corrcoef(drawn[::2], drawn[1::2])[0, 1]) < 6 * error, "the two numbers of a point"


def test_uniform_numbers_fill_the_range() -> None:
    drawn = uniforms(Seed(0), (100_000,), "test")
    assert -1 <= drawn.min() < -0.999
    assert 0.999 < drawn.max() < 1
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.var() - 1 / 3) < 0.005


def test_draws_change_only_on_purpose() -> None:
    """On any machine: this is what recipes that repeat anywhere rest on."""
    bits = (
        normals(Seed(3), (1000,), "purpose", 7).tobytes() + logarithm(uniforms(Seed(3), (1000,), "x") + 1.5).tobytes()
    )
    assert hashlib.sha256(bits).hexdigest() == "579ea42996378aad5563c1d6f45f5040f792d7224d83581a9c35ea552c51d401"


def test_purposes_and_seeds_are_independent_and_none_is_drawn_of_none() -> None:
    first = normals(Seed(0), (50,), "a")
    assert not np.isin(first, normals(Seed(0), (50,), "b")).any()
    assert not np.isin(first, normals(Seed(1), (50,), "a")).any()
    assert normals(Seed(0), (3, 0), "a").shape == (3, 0)


def test_a_sum_is_taken_from_the_first_to_the_last() -> None:
    values = np.array([1.0, 1e16, -1e16, 1.0])
    assert ordered_sum(values) == 1.0
    assert ordered_sum(values[::-1]) == 1.0 + -1e16 + 1e16 + 1.0


def test_each_image_of_a_class_gets_the_next_draw_of_it_whatever_other_classes_hold() -> None:
    labels = np.array([1] * (BLOCK + 3) + [0, 4, 4])
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 2, 2, 3), dtype=np.uint8)
    train = split_of(images, labels)

    def draw(number: int, block: int) -> np.ndarray:
        places = (np.arange(BLOCK) + 1000 * number + BLOCK * block).astype(np.int16)
        return np.broadcast_to(places[:, None, None, None], (BLOCK, 2, 2, 3))

    layer = drawn_for_each(train, draw)
    assert layer.keys == train.keys
    for number in (0, 1, 4):
        own = layer.levels[train.labels == number]
        assert own[:, 0, 0, 0].tolist() == [1000 * number + place for place in range(len(own))]


def test_levels_take_two_bytes_only_where_one_does_not_hold_them() -> None:
    train = split_of(
        np.zeros((4, 2, 2, 3), dtype=np.uint8) + np.arange(4, dtype=np.uint8)[:, None, None, None],
        np.array([0, 0, 1, 1]),
    )
    small = np.full((BLOCK, 2, 2, 3), -100, dtype=np.int8)
    large = np.full((BLOCK, 2, 2, 3), 200, dtype=np.int16)
    assert drawn_for_each(train, lambda *_: small).levels.dtype == np.int8
    mixed = drawn_for_each(train, lambda number, _: (small, large)[number]).levels
    assert mixed.dtype == np.int16
    assert sorted(np.unique(mixed).tolist()) == [-100, 200]
