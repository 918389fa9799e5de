"""Linearly separable perturbations are what the paper and its code describe."""

from __future__ import annotations

import numpy as np
import pytest

from tests.methods.test_one_pixel_shortcut import context, split_of
from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.data.perturbation import Additive, Support
from ule_datasets.data.quantization import Quantize
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.drawn import BLOCK, normals, uniforms
from ule_datasets.methods.linearly_separable import Clouds, LinearlySeparable
from ule_datasets.verification.separability import linear_separability


def random_split(shape: tuple[int, int] = (32, 32), count: int = 200, num_classes: int = 4) -> Split:
    rng = np.random.default_rng(21)
    return split_of(rng.integers(0, 256, (count, *shape, 3), dtype=np.uint8), rng.integers(0, num_classes, count))


def only_layer(method: LinearlySeparable, train: Split, num_classes: int = 4, seed: int = 0) -> Additive:
    (layer,) = method.generate(train, context(num_classes, seed=seed)).layers
    assert isinstance(layer, Additive)
    return layer


@pytest.mark.parametrize(
    ("method", "shape"),
    [
        (LinearlySeparable(), (32, 32)),
        (LinearlySeparable(patch=5, epsilon=16), (16, 23)),
        (LinearlySeparable(per_side=7), (32, 40)),
        (LinearlySeparable(quantize=Quantize.HALF_UP, separation=2), (24, 16)),
    ],
    ids=str,
)
def test_noise_is_that_of_a_plain_restatement(method: LinearlySeparable, shape: tuple[int, int]) -> None:
    """A point of the class's cloud, spread over blocks, cut to the image and scaled to the norm; then bytes."""
    train = random_split(shape)
    layer = only_layer(method, train)
    height, width = shape
    patch = -(-min(shape) // 7) if method.per_side else method.patch
    rows, columns = -(-height // patch), -(-width // patch)
    features = rows * columns * 3
    clouds = Clouds(method, Seed(0), 4, (height, width, 3))
    for number in range(4):
        own = layer.levels[train.labels == number]
        mix = uniforms(Seed(0), (features, features), "lsp", "mix", number)
        draws = normals(Seed(0), (BLOCK, features), "lsp", "point", number, 0)
        for noise, draw in zip(own, draws, strict=False):
            point = (draw @ mix + clouds._centres[number]).reshape(rows, columns, 3)
            image = np.kron(point, np.ones((patch, patch, 1)))[:height, :width]
            image *= method.epsilon * np.sqrt(image.size) / np.linalg.norm(image)
            exact = np.floor(image) if method.quantize is Quantize.TRUNC else np.floor(image + 0.5)
            assert np.array_equal(noise, exact)


def test_clouds_have_the_size_and_place_that_the_official_code_gives_them() -> None:
    clouds = Clouds(LinearlySeparable(), Seed(0), 10, (32, 32, 3))
    points = np.stack([np.concatenate([clouds.points(number, block) for block in range(8)]) for number in range(10)])
    assert np.allclose(np.abs(clouds._centres), 10)
    assert len(np.unique(clouds._centres, axis=0)) == 10
    scatter = points - clouds._centres[:, None]
    assert scatter.std() == pytest.approx(np.sqrt(48 / 3), rel=0.03)
    levels = clouds.levels(0, 0)
    assert levels.shape == (BLOCK, 32, 32, 3)
    assert 12 <= np.abs(levels.astype(np.int16)).max() <= 18


def test_a_linear_classifier_is_right_about_all_images() -> None:
    train = random_split(count=400)
    layer = only_layer(LinearlySeparable(), train)
    changed = np.clip(train.images.astype(np.int16) + layer.levels, 0, 255).astype(np.uint8)
    found = linear_separability(train.pixels(), changed, train.labels)
    assert found is not None
    assert found.held_out == 100.0
    assert layer.support is Support.SAMPLE


def test_every_image_has_its_own_noise_and_another_seed_gives_other_noise() -> None:
    train = random_split()
    levels = only_layer(LinearlySeparable(), train).levels
    assert len(np.unique(levels.reshape(len(levels), -1), axis=0)) == len(train)
    assert not np.array_equal(levels, only_layer(LinearlySeparable(), train, seed=1).levels)


def test_more_classes_than_corners_are_refused() -> None:
    with pytest.raises(InputError, match=r"3 patches and channels of an image have fewer corners than the 9 classes"):
        LinearlySeparable(patch=32).generate(random_split(num_classes=9), context(9))
    assert len(only_layer(LinearlySeparable(patch=32), random_split(num_classes=8), 8).levels) == 200


@pytest.mark.parametrize("change", [{"epsilon": 0}, {"separation": float("nan")}, {"per_side": -1}, {"patch": 0}])
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match=rf"LinearlySeparable: {next(iter(change))} is "):
        LinearlySeparable(**change)  # type: ignore[arg-type]
