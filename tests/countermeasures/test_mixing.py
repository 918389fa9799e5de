"""Mixup and CutMix: what is mixed with what, in which share, and that the labels say so."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ule_datasets.base.errors import InputError
from ule_datasets.countermeasures.mixing import CutMix, Mixup

SHAPES = st.tuples(st.integers(1, 8), st.integers(1, 12), st.integers(1, 12))
SEEDS = st.integers(0, 2**31)


def batch(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Image i is i + 1 everywhere, and so is its label: what is in a mixture can be told from its values."""
    labels = torch.arange(1, count + 1)
    return labels.float()[:, None, None, None].expand(-1, 3, height, width).clone(), labels


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, alpha=st.sampled_from([0.2, 1.0, 4.0]), seed=SEEDS)
def test_mixup_is_the_weighted_mean_of_two_images(shape: tuple[int, int, int], alpha: float, seed: int) -> None:
    images = torch.rand(shape[0], 3, *shape[1:], generator=torch.Generator().manual_seed(seed))
    before, labels = images.clone(), torch.arange(shape[0])
    mixed = Mixup(alpha=alpha).mix(images, labels, torch.Generator().manual_seed(seed))
    assert mixed.weight.shape == ()
    assert mixed.weight.dtype is torch.float32
    assert torch.equal(mixed.labels, labels)
    assert sorted(mixed.other_labels.tolist()) == labels.tolist()
    weight = mixed.weight.item()
    assert 0 <= weight <= 1
    for index, other in enumerate(mixed.other_labels.tolist()):
        expected = weight * images[index].double().numpy() + (1 - weight) * images[other].double().numpy()
        assert mixed.images[index].numpy() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(images, before)


@settings(deadline=None, max_examples=80)
@given(shape=SHAPES, probability=st.sampled_from([0.0, 0.5, 1.0]), seed=SEEDS)
def test_cutmix_weighs_the_labels_by_the_area_they_really_have(
    shape: tuple[int, int, int], probability: float, seed: int
) -> None:
    images, labels = batch(*shape)
    before = images.clone()
    mixed = CutMix(probability=probability).mix(images, labels, torch.Generator().manual_seed(seed))
    assert sorted(mixed.other_labels.tolist()) == labels.tolist()
    assert mixed.weight.shape == ()
    assert mixed.weight.dtype is torch.float32
    boxes = []
    for image, label, other in zip(mixed.images, mixed.labels, mixed.other_labels, strict=True):
        replaced = image[0] != label
        assert torch.equal(image, torch.where(replaced, other, label).float().expand_as(image))
        if other != label:
            assert replaced.double().mean().item() == pytest.approx(1 - mixed.weight.item(), abs=1e-6)
            rows, columns = replaced.any(dim=1), replaced.any(dim=0)
            assert torch.equal(replaced, rows[:, None] & columns)
            for line in (rows, columns):
                assert line.int().diff().abs().sum() + line[0] + line[-1] in (0, 2), "one run of pixels"
            boxes.append(replaced)
    assert all(torch.equal(box, boxes[0]) for box in boxes), "one box for the batch"
    assert torch.equal(images, before)
    if probability == 0:
        assert torch.equal(mixed.images, images)
        assert mixed.weight == 1


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_weights_of_mixup_are_from_the_beta_distribution(alpha: float) -> None:
    mixing, generator, (images, labels) = Mixup(alpha=alpha), torch.Generator(), batch(2, 1, 1)
    generator.manual_seed(0)
    weights = np.array([mixing.mix(images, labels, generator).weight.item() for _ in range(4000)])
    assert weights.mean() == pytest.approx(0.5, abs=0.02)
    assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def test_the_box_of_cutmix_has_the_drawn_area_around_a_uniform_centre() -> None:
    """Of a box with sides s = sqrt(1 - w) as long as the image's, each side loses s / 4 of itself on average."""
    generator, (images, labels) = torch.Generator().manual_seed(0), batch(1, 128, 128)
    kept = [CutMix(probability=1).mix(images, labels, generator).weight.item() for _ in range(4000)]
    sides = np.sqrt(np.linspace(0, 1, 100_001))
    assert np.mean(kept) == pytest.approx(1 - np.mean((sides * (1 - sides / 4)) ** 2), abs=0.015)
    used = [CutMix().mix(images, labels, generator).weight.item() < 1 for _ in range(4000)]
    assert np.mean(used) == pytest.approx(0.5, abs=0.03)


def test_a_batch_that_is_left_alone_takes_as_many_draws() -> None:
    images, labels = batch(4, 8, 8)
    states = []
    for probability in (0.0, 1.0):
        generator = torch.Generator().manual_seed(0)
        CutMix(probability=probability).mix(images, labels, generator)
        states.append(generator.get_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("mixing", [Mixup(), CutMix(probability=1)])
def test_nothing_is_read_back_from_the_device(mixing: Mixup | CutMix) -> None:
    """A tensor on the meta device has no values: whoever wants to see one gets an error."""
    images, labels = torch.empty(8, 3, 32, 32, device="meta"), torch.empty(8, dtype=torch.int64, device="meta")
    mixed = mixing.mix(images, labels, torch.Generator().manual_seed(0))
    assert mixed.images.shape == images.shape
    assert mixed.weight.device.type == mixed.other_labels.device.type == "meta"


@pytest.mark.parametrize("mixing", [Mixup(), CutMix(probability=1)])
def test_the_memory_layout_and_the_global_generator_are_kept(mixing: Mixup | CutMix) -> None:
    images = torch.rand(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    state = torch.get_rng_state()
    mixed = mixing.mix(images, torch.arange(4), torch.Generator().manual_seed(0))
    assert mixed.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("alpha", [0.0, -1.0, 0.05, math.inf, math.nan])
@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_an_impossible_alpha_is_refused(kind: type[Mixup | CutMix], alpha: float) -> None:
    with pytest.raises(InputError, match=f"{kind.__name__}: alpha is .*, must be finite and at least 0.1"):
        kind(alpha=alpha)


def test_an_impossible_probability_is_refused() -> None:
    with pytest.raises(InputError, match=r"CutMix: probability is 1\.5, must be from 0 to 1"):
        CutMix(probability=1.5)


@pytest.mark.gpu
@pytest.mark.parametrize("mixing", [Mixup(), CutMix(probability=1)])
def test_a_gpu_gives_the_same_mixture_without_waiting(mixing: Mixup | CutMix) -> None:
    images, labels = batch(64, 32, 32)
    expected = mixing.mix(images, labels, torch.Generator().manual_seed(3))
    images, labels = images.cuda(), labels.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = mixing.mix(images, labels, torch.Generator().manual_seed(3))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.allclose(result.images.cpu(), expected.images)
    assert torch.equal(result.other_labels.cpu(), expected.other_labels)
    assert torch.equal(result.weight.cpu(), expected.weight)
