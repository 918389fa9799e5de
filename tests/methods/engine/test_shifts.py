"""Shifts are those of torch's grids, and their gradients those of autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ule_datasets.methods.engine.shifts import REACH, ShiftRule, Shifts

COUNT, SIZE = 40, (11, 14)


def drawn(rule: ShiftRule, seed: int = 0, count: int = COUNT) -> Shifts:
    return Shifts.drawn(rule, count, *SIZE, torch.Generator().manual_seed(seed)).to(torch.device("cpu"), torch.float64)


def images(count: int = COUNT) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def restated(rule: ShiftRule, seed: int) -> Tensor:
    """By the same draws, sampled along a grid: corners aligned, zero outside."""
    generator = torch.Generator().manual_seed(seed)
    if rule is ShiftRule.SMOOTH:
        down, across = (2 * torch.rand(2, COUNT, generator=generator) - 1) * REACH
    else:
        down, across = torch.randint(-REACH, REACH + 1, (2, COUNT), generator=generator).float()
    mirrored = torch.rand(COUNT, generator=generator) < 0.5
    rows = torch.arange(SIZE[0]) + down.double()[:, None]
    columns = torch.arange(SIZE[1]) + across.double()[:, None]
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    scaled = [2 * places / (size - 1) - 1 for places, size in zip((rows, columns), SIZE, strict=True)]
    grid = torch.stack([scaled[1][:, None, :].expand(-1, *SIZE), scaled[0][:, :, None].expand(-1, *SIZE)], dim=-1)
    return functional.grid_sample(images(), grid, mode="bilinear", padding_mode="zeros", align_corners=True)


@pytest.mark.parametrize("rule", ShiftRule)
def test_images_are_sampled_along_a_grid(rule: ShiftRule) -> None:
    moved = drawn(rule).apply(images())
    assert torch.allclose(moved, restated(rule, 0), atol=1e-6)
    assert moved.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("rule", ShiftRule)
def test_gradients_go_back_as_autograd_has_them(rule: ShiftRule) -> None:
    shifts, shown = drawn(rule), images().requires_grad_(True)
    weights = torch.rand(COUNT, 3, *SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (expected,) = torch.autograd.grad((shifts.apply(shown) * weights).sum(), shown)
    assert torch.allclose(shifts.back(weights), expected, atol=1e-12)


def test_whole_shifts_move_pixels_as_they_are_and_all_of_them_occur() -> None:
    shifts = drawn(ShiftRule.WHOLE, count=4000)
    assert set(shifts.rows.unique().tolist()) == {0.0, 1.0}
    places = {tuple(matrix.sum(dim=0).tolist()) for matrix in shifts.columns.unique(dim=0)}
    assert len(places) == 2 * REACH + 1
    assert len(shifts.columns.unique(dim=0)) == 2 * (2 * REACH + 1), "mirrored and not"
    assert len(shifts.rows.unique(dim=0)) == 2 * REACH + 1


def test_smooth_shifts_reach_as_far_and_half_of_the_images_are_mirrored() -> None:
    shifts = drawn(ShiftRule.SMOOTH, count=4000)
    middle = (shifts.rows[:, 5] * torch.arange(SIZE[0])).sum(dim=1) - 5
    assert middle.min() < -0.97 * REACH
    assert middle.max() > 0.97 * REACH
    assert abs(float(middle.mean())) < 0.2
    centre = torch.arange(SIZE[1], dtype=torch.float64)
    mirrored = (shifts.columns[:, 6] @ centre) > (shifts.columns[:, 7] @ centre)
    assert 0.45 < float(mirrored.double().mean()) < 0.55


def test_a_part_is_that_of_its_images() -> None:
    shifts = drawn(ShiftRule.SMOOTH)
    assert torch.equal(shifts.part(3, 9).apply(images()[3:9]), shifts.apply(images())[3:9])
