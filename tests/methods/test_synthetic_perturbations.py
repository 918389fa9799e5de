"""Synthetic perturbations are linearly separable ones for clusters in place of classes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tiny_weights import save_tiny_weights

from tests.methods.test_one_pixel_shortcut import split_of
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.data.perturbation import Additive
from ule_datasets.data.split import Split
from ule_datasets.methods.linearly_separable import LinearlySeparable
from ule_datasets.methods.method import Context, Crafted
from ule_datasets.methods.synthetic_perturbations import SyntheticPerturbations
from ule_datasets.verification.separability import linear_separability

pytestmark = pytest.mark.usefixtures("one_thread")
NOISE = LinearlySeparable(epsilon=16, patch=8)


def bright_and_dark(count: int = 80) -> Split:
    """Images of two kinds that labels do not tell apart."""
    rng = np.random.default_rng(5)
    kinds = np.arange(count) % 2
    images = rng.integers(0, 40, (count, 16, 16, 3)) + 200 * kinds[:, None, None, None]
    return split_of(images.astype(np.uint8), np.arange(count) // 2 % 2)


def craft(train: Split, folder: Path, num_clusters: int = 2) -> Crafted:
    weights, path = save_tiny_weights(folder)
    method = SyntheticPerturbations(
        surrogate=weights, num_clusters=num_clusters, kmeans_restarts=1, feature_batch=32, noise=NOISE
    )
    silent = Reporter(silent=True)
    return method.generate(train, Context(num_classes=2, seed=Seed(0), weights=path, reporter=silent))


def test_the_kind_of_an_image_is_the_class_of_its_noise(tmp_path: Path) -> None:
    train = bright_and_dark()
    crafted = craft(train, tmp_path)
    (layer,) = crafted.layers
    assert isinstance(layer, Additive)
    bright = (np.asarray(train.images).mean(axis=(1, 2, 3)) > 120).astype(np.int64)
    grouped = [NOISE.generate(dataclasses.replace(train, labels=kinds), context()) for kinds in (bright, 1 - bright)]
    assert any(np.array_equal(layer.levels, each.layers[0].levels) for each in grouped)  # type: ignore[union-attr]
    assert sorted(crafted.notes["sizes"]) == [40, 40]
    assert crafted.notes["agreement_with_labels"] < 0.2
    changed = np.clip(train.images.astype(np.int16) + layer.levels, 0, 255).astype(np.uint8)
    found = linear_separability(train.pixels(), changed, bright)
    assert found is not None
    assert found.held_out == 100.0


def context() -> Context:
    return Context(num_classes=2, seed=Seed(0), reporter=Reporter(silent=True))


def test_too_few_images_for_the_clusters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="4 images, too few for 5 clusters"):
        craft(bright_and_dark(4), tmp_path, num_clusters=5)
