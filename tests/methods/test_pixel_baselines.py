"""OPS-Position, OPS-Color and RandPix do what their descriptions say."""

import numpy as np
import pytest

from tests.methods.test_one_pixel_shortcut import context, split_of
from ule_datasets.base.errors import InputError
from ule_datasets.data.perturbation import Overwrite, Support
from ule_datasets.data.split import Split
from ule_datasets.methods.method import Crafted
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.methods.pixel_baselines import Colours, OPSColor, OPSPosition, RandPix


def random_split(count: int = 200, num_classes: int = 4) -> Split:
    rng = np.random.default_rng(21)
    return split_of(rng.integers(0, 256, (count, 5, 6, 3), dtype=np.uint8), rng.integers(0, num_classes, count))


def only_layer(crafted: Crafted) -> Overwrite:
    (layer,) = crafted.layers
    assert isinstance(layer, Overwrite)
    return layer


def test_ops_position_keeps_the_searched_position_and_draws_a_colour_per_image() -> None:
    train = random_split()
    layer = only_layer(OPSPosition().generate(train, context(4)))
    searched = only_layer(OnePixelShortcut().generate(train, context(4)))
    assert layer.support is Support.SAMPLE
    assert np.array_equal(layer.rows, searched.rows[train.labels])
    assert np.array_equal(layer.columns, searched.columns[train.labels])
    assert len(np.unique(layer.colours[:, 0], axis=0)) > 190


def test_ops_position_draws_from_the_key_not_from_the_place_in_the_split() -> None:
    train = random_split()
    whole = only_layer(OPSPosition().generate(train, context(4)))
    part = only_layer(OPSPosition().generate(train.rows(50, 120), context(4)))
    assert np.array_equal(part.colours, whole.colours[50:120])
    other_seed = only_layer(OPSPosition().generate(train, context(4, seed=1)))
    assert not np.array_equal(other_seed.colours, whole.colours)


def test_ops_position_can_draw_corners_only() -> None:
    layer = only_layer(OPSPosition(colours=Colours.CORNERS).generate(random_split(), context(4)))
    assert set(np.unique(layer.colours)) == {0, 255}


def test_ops_color_writes_the_class_colour_where_the_image_is_farthest() -> None:
    train = random_split(60)
    method = OPSColor()
    layer = only_layer(method.generate(train, context(4)))
    for index in range(len(train)):
        colour = np.array(method.palette[train.labels[index]], dtype=np.int64)
        distance = ((train.images[index].astype(np.int64) - colour) ** 2).sum(axis=-1)
        row, column = np.unravel_index(distance.argmax(), distance.shape)
        assert (layer.rows[index, 0], layer.columns[index, 0]) == (row, column)
        assert layer.colours[index, 0].tolist() == colour.tolist()


def test_ops_color_refuses_more_classes_than_colours() -> None:
    with pytest.raises(InputError, match="11 classes, but the palette has 10"):
        OPSColor().generate(random_split(), context(11))


def test_randpix_pairs_are_distinct_seeded_and_leave_empty_classes_alone() -> None:
    train = random_split()
    layer = only_layer(RandPix().generate(train, context(6)))
    pairs = {tuple(row) for row in np.hstack([layer.rows, layer.columns, layer.colours[:, 0]]).tolist()}
    assert len(pairs) == 5  # four classes with images, and (-1, -1, 0, 0, 0) for the two without
    assert (layer.rows[4:] == -1).all()
    again = only_layer(RandPix().generate(train, context(6)))
    assert np.array_equal(again.rows, layer.rows)
    other = only_layer(RandPix().generate(train, context(6, seed=3)))
    assert not (np.array_equal(other.rows, layer.rows) and np.array_equal(other.columns, layer.columns))


def test_randpix_draws_every_corner_and_position_about_equally_often() -> None:
    rng = np.random.default_rng(0)
    train = split_of(rng.integers(0, 256, (1, 2, 2, 3), dtype=np.uint8), np.array([0]))
    drawn = [only_layer(RandPix().generate(train, context(1, seed=seed))) for seed in range(800)]
    places = np.bincount([int(layer.rows[0, 0]) * 2 + int(layer.columns[0, 0]) for layer in drawn], minlength=4)
    assert places.min() > 150
    colours = {tuple(layer.colours[0, 0].tolist()) for layer in drawn}
    assert len(colours) == 8


def test_randpix_finds_distinct_pairs_even_when_nearly_all_are_needed() -> None:
    rng = np.random.default_rng(0)
    train = split_of(rng.integers(0, 256, (8, 1, 1, 3), dtype=np.uint8), np.arange(8))
    layer = only_layer(RandPix().generate(train, context(8)))
    assert len({tuple(colour.tolist()) for colour in layer.colours[:, 0]}) == 8
    with pytest.raises(InputError, match="fewer distinct pixels"):
        RandPix().generate(train, context(9))
