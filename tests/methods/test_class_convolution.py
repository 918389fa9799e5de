"""Class-wise convolution does what the paper describes, in exact arithmetic."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.methods.test_one_pixel_shortcut import context, split_of
from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.data.perturbation import Additive, Perturbation, Support
from ule_datasets.data.quantization import Quantize
from ule_datasets.data.split import Split
from ule_datasets.methods import class_convolution
from ule_datasets.methods.class_convolution import LARGEST, ONE, ClassConvolution, convolved

METHOD = ClassConvolution()


def random_split(shape: tuple[int, int] = (9, 12), count: int = 40, num_classes: int = 4, seed: int = 21) -> Split:
    rng = np.random.default_rng(seed)
    return split_of(rng.integers(0, 256, (count, *shape, 3), dtype=np.uint8), rng.integers(0, num_classes, count))


def only_layer(method: ClassConvolution, train: Split, seed: int = 0) -> Additive:
    (layer,) = method.generate(train, context(int(train.labels.max()) + 1, seed=seed)).layers
    assert isinstance(layer, Additive)
    return layer


def protected(method: ClassConvolution, train: Split, seed: int = 0) -> np.ndarray:
    """The images as bytes."""
    perturbation = Perturbation(layers=(only_layer(method, train, seed),), source_digest=train.digest)
    return perturbation.apply(train.pixels(), train.labels, train.keys)


def restated(image: np.ndarray, parameters: np.ndarray, rule: Quantize) -> np.ndarray:
    """The definition, pixel by pixel, in fractions."""
    (height, width), size = image.shape[:2], len(parameters)
    blurred: dict[tuple[int, int, int], Fraction] = {}
    for row, column, channel in np.ndindex(image.shape):
        total = Fraction(0)
        for down, right in itertools.product(range(size), repeat=2):
            above, left = row - down + size // 2, column - right + size // 2
            if 0 <= above < height and 0 <= left < width:
                total += Fraction(int(parameters[down, right]), ONE) * int(image[above, left, channel])
        blurred[row, column, channel] = total
    largest = max(blurred.values())
    result = np.zeros(image.shape, dtype=np.uint8)
    for place, value in blurred.items():
        level = 255 * value / largest if largest else Fraction(0)
        result[place] = floor(level + Fraction(1, 2)) if rule is Quantize.HALF_UP else floor(level)
    return result


@settings(max_examples=30, deadline=None)
@given(
    size=st.sampled_from([3, 5, 9]),
    blur=st.floats(0, 1, exclude_min=True),
    rule=st.sampled_from([Quantize.HALF_UP, Quantize.TRUNC]),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    brightest=st.sampled_from([0, 1, 3, 255]),
    seed=st.integers(0, 2**32 - 1),
)
def test_images_are_those_of_the_definition(
    size: int, blur: float, rule: Quantize, height: int, width: int, brightest: int, seed: int
) -> None:
    method = ClassConvolution(size=size, blur=blur, quantize=rule)
    rng = np.random.default_rng(seed)
    images = rng.integers(0, brightest + 1, (4, height, width, 3), dtype=np.uint8)
    train = split_of(images, np.arange(4) % 2)
    found = protected(method, train, seed)
    for image, label, result in zip(train.pixels(), train.labels.tolist(), found, strict=True):
        assert np.array_equal(result, restated(image, method.drawn_filter(Seed(seed), label), rule))


def test_no_sum_is_rounded_even_with_the_largest_filter() -> None:
    """Otherwise it would depend on the order of its terms, and so on the library that forms it."""
    method = ClassConvolution(size=LARGEST, blur=1)
    image = np.full((6, 5, 3), 255, dtype=np.uint8)
    parameters = method.drawn_filter(Seed(3), 0)
    found = protected(method, split_of(image[None], np.zeros(1)), seed=3)[0]
    assert np.array_equal(found, restated(image, parameters, Quantize.HALF_UP))
    assert 255 * 255 * ONE * LARGEST**2 < 2**53


# --- filters ---


@pytest.mark.parametrize("method", [METHOD, ClassConvolution(size=9, blur=0.06)], ids=str)
def test_filters_are_drawn_as_the_paper_says(method: ClassConvolution) -> None:
    filters = np.stack([method.drawn_filter(Seed(0), number) for number in range(2000)]) / ONE
    others = filters[filters != 1]
    assert len(others) == len(filters) * (method.size**2 - 1), "one parameter is 1"
    assert others.min() >= 0
    assert others.max() < method.blur
    assert others.mean() == pytest.approx(method.blur / 2, rel=0.02)
    assert others.std() == pytest.approx(method.blur / np.sqrt(12), rel=0.02)
    places = (filters == 1).sum(axis=0)
    assert places.std() < 2 * np.sqrt(places.mean()), "at any place alike"
    assert len(np.unique(filters.reshape(len(filters), -1), axis=0)) == len(filters)


def test_each_class_has_a_filter_of_its_own_and_another_seed_gives_others() -> None:
    image = random_split(count=1).pixels()
    same = split_of(np.repeat(image, 3, axis=0), np.array([0, 1, 1]))
    images = protected(METHOD, same)
    for one, other in itertools.combinations(range(3), 2):
        assert np.array_equal(images[one], images[other]) == (same.labels[one] == same.labels[other])
    assert not np.array_equal(images, protected(METHOD, same, seed=1))


def test_channels_have_the_same_filter() -> None:
    train = random_split()
    gray = split_of(np.repeat(train.pixels()[..., :1], 3, axis=-1), train.labels)
    images = protected(METHOD, gray)
    assert (images == images[..., :1]).all()


# --- images ---


def test_each_image_is_as_bright_as_can_be_and_a_black_one_stays_black() -> None:
    train = random_split()
    dark = np.concatenate([train.pixels() // 100, np.zeros((2, 9, 12, 3), dtype=np.uint8)])
    dark[2:4] = 0
    dark[3, 0, 0, 1] = 1  # where a filter may shift it out of the image
    labels = np.concatenate([train.labels, [0, 1]])
    both = split_of(dark, labels)
    brightest = both.pixels().max(axis=(1, 2, 3))
    assert {0, 1} <= set(brightest.tolist())
    assert np.array_equal(protected(METHOD, both).max(axis=(1, 2, 3)), np.where(brightest > 0, 255, 0))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_filter_gives_a_mirrored_image_its_mirrored_result(axis: int) -> None:
    images, parameters = random_split().pixels(), METHOD.drawn_filter(Seed(0), 2)
    mirrored = convolved(np.flip(images, axis + 1), np.flip(parameters, axis))
    assert np.array_equal(mirrored, np.flip(convolved(images, parameters), axis + 1))


def test_a_filter_that_is_1_in_its_middle_alone_only_brightens() -> None:
    images = random_split().pixels()
    parameters = np.zeros((3, 3))
    parameters[1, 1] = ONE
    largest = images.max(axis=(1, 2, 3), keepdims=True)
    assert np.array_equal(convolved(images, parameters), 255.0 * images / largest)


# --- what it depends on ---


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_images_are_the_same_in_blocks_of_any_size(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    train = random_split()
    expected = only_layer(METHOD, train).levels
    monkeypatch.setattr(class_convolution, "BLOCK", block)
    assert np.array_equal(only_layer(METHOD, train).levels, expected)


def test_an_image_depends_on_itself_and_its_class_alone() -> None:
    train = random_split()
    layer = only_layer(METHOD, train)
    some = train.rows(5, 25)
    assert layer.support is Support.SAMPLE
    assert layer.keys == train.keys
    assert np.array_equal(protected(METHOD, some), protected(METHOD, train)[5:25])


@pytest.mark.parametrize(
    "change",
    [{"size": 1}, {"size": 4}, {"size": LARGEST + 2}, {"size": 3.5}, {"blur": 0}, {"blur": 1.1}, {"blur": np.nan}],
)
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match=rf"^ClassConvolution: {next(iter(change))} is "):
        ClassConvolution(**change)  # type: ignore[arg-type]
