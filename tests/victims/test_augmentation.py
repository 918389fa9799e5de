"""Augmentation of batches against a slow reference that works on one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ule_datasets.base.errors import InputError
from ule_datasets.victims.augmentation import Augmentation, to_float

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))


def random_images(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).integers(1, 256, (count, height, width, 3), dtype=np.uint8)
    return torch.from_numpy(values)


def reference(images: Tensor, draws: Tensor, padding: int) -> Tensor:
    """Pad, cut out, mirror: one image after another."""
    results = []
    for image, top, left, mirrored in zip(images.numpy(), *draws, strict=True):
        height, width, _ = image.shape
        padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        window = padded[int(top) : int(top) + height, int(left) : int(left) + width]
        results.append(window[:, ::-1] if mirrored else window)
    return torch.from_numpy(np.stack(results))


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, padding=st.integers(0, 5), flip=st.booleans(), seed=st.integers(0, 2**31))
def test_a_batch_is_augmented_as_image_by_image(
    shape: tuple[int, int, int], padding: int, flip: bool, seed: int
) -> None:
    augmentation = Augmentation(crop_padding=padding, flip=flip)
    images = random_images(*shape, seed=seed)
    draws = augmentation.draw(len(images), torch.Generator().manual_seed(seed))
    expected = reference(images, draws, padding)
    assert torch.equal(augmentation.transform(images, draws), expected)
    applied = augmentation.apply(images, torch.Generator().manual_seed(seed))
    assert torch.equal(applied, expected.permute(0, 3, 1, 2).float() / 255)


@settings(deadline=None, max_examples=30)
@given(shape=SHAPES, seed=st.integers(0, 2**31))
def test_without_crop_and_flip_it_is_only_a_conversion(shape: tuple[int, int, int], seed: int) -> None:
    images = random_images(*shape, seed=seed)
    result = Augmentation(crop_padding=0, flip=False).apply(images, torch.Generator())
    assert torch.equal(result, torch.from_numpy(np.moveaxis(images.numpy(), 3, 1) / np.float32(255)))


@settings(deadline=None, max_examples=30)
@given(padding=st.integers(0, 6), flip=st.booleans(), seed=st.integers(0, 2**31))
def test_draws_stay_in_range(padding: int, flip: bool, seed: int) -> None:
    draws = Augmentation(crop_padding=padding, flip=flip).draw(200, torch.Generator().manual_seed(seed))
    *both, mirrored = draws
    for offsets in both:
        assert 0 <= int(offsets.min()) <= int(offsets.max()) <= 2 * padding
    assert set(mirrored.tolist()) <= ({0, 1} if flip else {0})


def test_every_offset_and_both_sides_occur_equally_often() -> None:
    draws = Augmentation(crop_padding=4, flip=True).draw(90_000, torch.Generator().manual_seed(0))
    *both, mirrored = draws
    for offsets in both:
        assert np.bincount(offsets.numpy(), minlength=9) == pytest.approx(np.full(9, 10_000), rel=0.05)
    assert mirrored.double().mean().item() == pytest.approx(0.5, abs=0.01)
    assert abs(np.corrcoef(*both)[0, 1]) < 0.02


def test_images_of_one_batch_are_augmented_differently() -> None:
    same = random_images(1, 16, 16).expand(32, -1, -1, -1)
    result = Augmentation(crop_padding=4, flip=True).apply(same, torch.Generator().manual_seed(0))
    assert len(torch.unique(result, dim=0)) > 16


@pytest.mark.parametrize("augmentation", [Augmentation(crop_padding=p, flip=f) for p in (0, 4) for f in (False, True)])
def test_results_are_floats_in_channels_last_memory(augmentation: Augmentation) -> None:
    result = augmentation.apply(random_images(4, 8, 12), torch.Generator())
    assert result.dtype is torch.float32
    assert result.shape == (4, 3, 8, 12)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert float(result.max()) <= 1
    assert to_float(random_images(4, 8, 12)).is_contiguous(memory_format=torch.channels_last)


def test_the_images_given_are_left_alone() -> None:
    images = random_images(4, 8, 8)
    before = images.clone()
    Augmentation(crop_padding=2, flip=True).apply(images, torch.Generator())
    assert torch.equal(images, before)


def test_a_negative_padding_is_refused() -> None:
    with pytest.raises(InputError, match="crop_padding is -1, must be at least 0"):
        Augmentation(crop_padding=-1, flip=False)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_images() -> None:
    images, augmentation = random_images(64, 32, 32), Augmentation(crop_padding=4, flip=True)
    on_cpu = augmentation.apply(images, torch.Generator().manual_seed(3))
    on_gpu = augmentation.apply(images.cuda(), torch.Generator().manual_seed(3))
    assert torch.equal(on_gpu.cpu(), on_cpu)
