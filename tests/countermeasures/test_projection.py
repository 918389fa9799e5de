"""Orthogonal projection: against one image at a time, against torch's own training, and what it leaves of patterns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.countermeasures.projection import (
    OrthogonalProjection,
    OrthogonalProjectionAsReleased,
    _orthonormal,
)
from ule_datasets.data.spool import SpooledImages
from ule_datasets.methods.purified import Purified
from ule_datasets.victims.preparation import PieceFiles, Preparation
from ule_datasets.victims.seen import Seen

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 6
KINDS = (OrthogonalProjection(), OrthogonalProjectionAsReleased())
both = pytest.mark.parametrize("one", KINDS, ids=lambda one: one.word)
seeds = st.integers(0, 2**32 - 1)


def learned(one: OrthogonalProjection, images: Any, labels: np.ndarray) -> np.ndarray:
    pieces = PieceFiles(Path("nowhere"), images.shape[1:])
    return one.learn(images, labels, Preparation(pieces=pieces, seed=Seed(3), reporter=Reporter(silent=True)))


def projected(images: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """What a run sees: float32 [n, H, W, 3] in levels."""
    seen = Seen(torch.from_numpy(images), parse_strategy("op"), [directions])
    return seen[torch.arange(len(images))].numpy()


def one_by_one(images: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Each image without its part along an orthonormal basis of the directions, in float64."""
    flat = directions.reshape(len(directions), -1).astype(np.float64)
    _, strengths, basis = np.linalg.svd(flat, full_matrices=False)
    results = []
    for image in images.astype(np.float64):
        rest = image.ravel()
        for strength, axis in zip(strengths, basis, strict=True):
            if strength > 0.5:
                rest = rest - (rest @ axis) * axis
        results.append(rest.reshape(image.shape))
    return np.array(results)


def made(seed: int, classes: int = 4, count: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise with a pattern for each class: images, labels, patterns."""
    generator = np.random.default_rng(seed)
    patterns = generator.integers(-30, 31, (classes, SIDE, SIDE, 3))
    labels = generator.permutation(np.arange(count) % classes)
    noise = generator.integers(40, 216, (count, SIDE, SIDE, 3))
    return (noise + patterns[labels]).astype(np.uint8), labels, patterns


# What is done


@given(seed=seeds, classes=st.integers(1, 6), missing=st.integers(0, 2))
@settings(max_examples=25, deadline=None)
def test_each_image_loses_its_part_along_the_directions(seed: int, classes: int, missing: int) -> None:
    """As many as there are classes, or fewer."""
    images, _, _ = made(seed, count=20)
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(classes, classes + 1 - missing)) @ generator.normal(
        size=(classes + 1 - missing, 108)
    )
    directions = _orthonormal(torch.from_numpy(weights)).float().numpy().reshape(-1, *images.shape[1:])
    np.testing.assert_allclose(projected(images, directions), one_by_one(images, directions), atol=1e-2)


@given(seed=seeds, classes=st.integers(1, 6), dimensions=st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_the_directions_are_those_of_the_qr_decomposition(seed: int, classes: int, dimensions: int) -> None:
    """Of weights in so many dimensions; what is no direction among them, as rounding leaves it, is none of them."""
    generator = np.random.default_rng(seed)
    rank = min(classes, dimensions)
    weights = generator.normal(size=(classes, rank)) @ generator.normal(size=(rank, 40))
    noisy = weights + 1e-9 * generator.normal(size=weights.shape)
    found = _orthonormal(torch.from_numpy(noisy)).double().numpy()
    wanted, _ = np.linalg.qr((weights / np.linalg.norm(weights, axis=1, keepdims=True)).T[:, :rank])
    if np.linalg.cond(weights[:rank]) < 1e2:
        np.testing.assert_allclose(found.T @ found, wanted @ wanted.T, atol=1e-4)


def test_no_direction_is_learned_where_there_is_nothing_to_tell_apart() -> None:
    images, labels, _ = made(0, classes=1)
    directions = learned(OrthogonalProjection(), images, labels)
    assert not directions.any()
    assert np.array_equal(projected(images, directions), images.astype(np.float32))


# What is learned


def by_torch(one: OrthogonalProjection, images: np.ndarray, labels: np.ndarray) -> torch.Tensor:
    """The weights of a linear layer, trained by torch's own optimiser and schedule."""
    released = isinstance(one, OrthogonalProjectionAsReleased)
    count, values = len(images), images[0].size
    layer = nn.Linear(values, int(labels.max()) + 1, bias=False)
    order = torch.arange(count)
    with torch.no_grad():
        if released:
            generator = torch.Generator().manual_seed(Seed(3).integer32("weights", "op-released"))
            layer.weight.uniform_(-(values**-0.5), values**-0.5, generator=generator)
        else:
            layer.weight.zero_()
            order = torch.randperm(count, generator=torch.Generator().manual_seed(Seed(3).integer32("order", "op")))
    rate = 0.1 if released else 0.1 * 3072 / values
    optimiser = torch.optim.SGD(layer.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [10, 15])
    inputs, wanted = torch.from_numpy(images / 255).flatten(1), torch.from_numpy(labels)
    inputs = inputs if released else inputs - inputs.mean(dim=0)
    for _ in range(20):
        for rows in order.split(1024):
            optimiser.zero_grad()
            torch.autograd.backward(functional.cross_entropy(layer(inputs[rows]), wanted[rows]))
            optimiser.step()
        schedule.step()
    return layer.weight.detach()


@both
@pytest.mark.usefixtures("in_float64")
def test_it_learns_as_torch_does(one: OrthogonalProjection) -> None:
    images, labels, _ = made(1, count=1024 + 300)
    found = learned(one, images, labels).reshape(4, -1).astype(np.float64)
    weights = by_torch(one, images, labels).numpy()
    basis, strengths, _ = np.linalg.svd(
        (weights / np.linalg.norm(weights, axis=1, keepdims=True)).T, full_matrices=False
    )
    basis = basis[:, strengths > 1e-3]
    assert basis.shape[1] == (3 if one.word == "op" else 4), "from zero, the weights of all classes together are zero"
    np.testing.assert_allclose(found.T @ found, basis @ basis.T, atol=1e-5)


def test_images_of_any_size_are_learned_alike() -> None:
    """Twice as many pixels along each side that show the same: the same directions, each pixel four times."""
    images, labels, _ = made(2)
    enlarged = images.repeat(2, axis=1).repeat(2, axis=2)
    small, large = (learned(OrthogonalProjection(), each, labels) for each in (images, enlarged))
    np.testing.assert_allclose(large, small.repeat(2, axis=1).repeat(2, axis=2) / 2, atol=1e-4)


def test_classes_without_images_have_no_direction_and_change_nothing() -> None:
    images, labels, _ = made(3, classes=3)
    gaps = np.array([0, 2, 5])[labels]
    found, wanted = learned(OrthogonalProjection(), images, gaps), learned(OrthogonalProjection(), images, labels)
    assert len(found) == 6
    assert not found[[1, 3, 4]].any()
    assert np.array_equal(found[[0, 2, 5]], wanted)


def test_images_on_disk_are_learned_as_those_in_memory(tmp_path: Path) -> None:
    images, labels, _ = made(4)
    (tmp_path / "images.rgb").write_bytes(images.tobytes())
    spooled = SpooledImages.in_files([(tmp_path / "images.rgb", len(images))], images.shape[1:])
    assert np.array_equal(learned(KINDS[0], spooled, labels), learned(KINDS[0], images, labels))


# What is left


def separation(images: np.ndarray, labels: np.ndarray) -> float:
    """How far the means of the classes lie from their common mean."""
    means = np.stack([images[labels == k].mean(axis=0, dtype=np.float64) for k in np.unique(labels)])
    return float(np.linalg.norm(means - means.mean(axis=0)))


@given(seed=seeds, classes=st.integers(2, 6), count=st.integers(12, 40))
@settings(max_examples=15, deadline=None)
def test_nothing_is_left_of_patterns_that_are_the_only_signal(seed: int, classes: int, count: int) -> None:
    """However many images a class has, and whatever is the same in all of them."""
    generator = np.random.default_rng(seed)
    patterns = generator.integers(-30, 31, (classes, SIDE, SIDE, 3))
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, count)])
    images = (generator.integers(40, 216, (SIDE, SIDE, 3)) + patterns[labels]).astype(np.uint8)
    left = projected(images, learned(OrthogonalProjection(), images, labels))
    assert separation(left, labels) < 1e-4 * separation(images, labels)


def test_most_is_left_of_images_and_little_of_their_patterns() -> None:
    """Among noise that is twice as strong."""
    images, labels, patterns = made(7, count=1500)
    left = projected(images, learned(OrthogonalProjection(), images, labels))
    differences = (patterns - patterns.mean(axis=0)).reshape(len(patterns), -1)
    axes = np.linalg.svd(differences, full_matrices=False)[2][:3].T
    before, after = (each.reshape(len(each), -1) - each.mean(axis=0).ravel() for each in (images, left))
    assert np.square(after @ axes).sum() < 0.1 * np.square(before @ axes).sum()
    assert np.square(after).sum() > 0.85 * np.square(before).sum()


# Beside other parts


@pytest.mark.parametrize(
    ("strategy", "kind", "inside"),
    [
        ("op", torch.float32, False),
        ("op+cutmix", torch.float32, False),
        ("op+cutout", torch.float32, True),
        ("op+linf-at", torch.float32, True),
        ("op+randaugment", torch.uint8, True),
        ("op+linf-at+randaugment", torch.uint8, True),
    ],
)
def test_other_parts_get_the_images_that_they_are_promised(strategy: str, kind: torch.dtype, inside: bool) -> None:
    images, labels, _ = made(5)
    images[3, ::2] = 0
    directions, rows = learned(OrthogonalProjection(), images, labels), torch.tensor([7, 3, 3])
    seen = Seen(torch.from_numpy(images), parse_strategy(strategy), [directions])
    found, whole = seen[rows], projected(images, directions)[rows]
    wanted = np.clip(whole, 0, 255) if inside else whole
    assert len(seen) == len(images)
    assert found.dtype is kind
    assert whole.min() < 0, "or there is nothing to clip"
    np.testing.assert_allclose(found.numpy(), wanted.round() if kind is torch.uint8 else wanted, atol=1e-3)


def test_images_that_nobody_has_prepared_stay_as_they_are() -> None:
    images = torch.from_numpy(made(6)[0])
    assert torch.equal(Seen(images, parse_strategy("op"), ())[torch.arange(5)], images[:5].float())


def test_both_ways_to_learn_exclude_each_other_and_neither_makes_a_dataset() -> None:
    with pytest.raises(InputError, match="op and op-released exclude each other"):
        parse_strategy("op+op-released")
    for one in KINDS:
        with pytest.raises(InputError, match=f"{one.word} changes images during training, not before it"):
            Purified(countermeasure=one)
