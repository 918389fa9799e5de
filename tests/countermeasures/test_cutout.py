"""Cutout of whole batches against one image after another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ule_datasets.base.errors import InputError
from ule_datasets.countermeasures.cutout import Cutout

SHAPES = st.tuples(st.integers(1, 6), st.just(3), st.integers(1, 40), st.integers(1, 40))


def random_images(*shape: int, seed: int = 0) -> Tensor:
    """Nowhere zero."""
    images = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 0.9 + 0.1
    return images.contiguous(memory_format=torch.channels_last)


def reference(images: Tensor, rows: Tensor, columns: Tensor, size: int) -> np.ndarray:
    """Pixel after pixel."""
    results = images.numpy().copy()
    for image, row, column in zip(results, rows.tolist(), columns.tolist(), strict=True):
        for y in range(row - size // 2, row - size // 2 + size):
            for x in range(column - size // 2, column - size // 2 + size):
                if 0 <= y < image.shape[1] and 0 <= x < image.shape[2]:
                    image[:, y, x] = 0
    return results


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, size=st.integers(1, 24), seed=st.integers(0, 2**31))
def test_a_batch_is_cut_as_image_by_image(shape: tuple[int, int, int, int], size: int, seed: int) -> None:
    images, cutout = random_images(*shape, seed=seed), Cutout(size=size)
    before = images.clone()
    rows, columns = cutout.draw(shape[0], shape[2], shape[3], torch.Generator().manual_seed(seed))
    result = cutout.on_floats(images, torch.Generator().manual_seed(seed))
    assert np.array_equal(result.numpy(), reference(images, rows, columns, size))
    assert torch.equal(images, before)
    assert result.dtype is torch.float32
    assert result.stride() == images.stride()


def test_centres_are_uniform_over_the_whole_image() -> None:
    rows, columns = Cutout().draw(40_000, 20, 40, torch.Generator().manual_seed(0))
    assert np.bincount(rows.numpy(), minlength=20) == pytest.approx(np.full(20, 2000), rel=0.1)
    assert np.bincount(columns.numpy(), minlength=40) == pytest.approx(np.full(40, 1000), rel=0.15)
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.02


def test_the_middle_pixel_is_hidden_in_a_quarter_of_the_draws() -> None:
    hidden = Cutout().on_floats(torch.ones(20_000, 3, 32, 32), torch.Generator().manual_seed(0))[:, 0, 16, 16] == 0
    assert hidden.double().mean().item() == pytest.approx(0.25, abs=0.01)


def test_nothing_is_read_back_from_the_device() -> None:
    """A tensor on the meta device has no values: whoever wants to see one gets an error."""
    assert Cutout().on_floats(torch.empty(8, 3, 32, 32, device="meta"), torch.Generator()).shape == (8, 3, 32, 32)


def test_no_square_is_refused() -> None:
    with pytest.raises(InputError, match="Cutout: size is 0, must be at least 1"):
        Cutout(size=0)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_images_without_waiting() -> None:
    images = random_images(64, 3, 32, 32)
    expected = Cutout().on_floats(images, torch.Generator().manual_seed(3))
    on_gpu = images.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = Cutout().on_floats(on_gpu, torch.Generator().manual_seed(3))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(result.cpu(), expected)
