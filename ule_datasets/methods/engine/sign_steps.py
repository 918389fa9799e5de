"""Projected sign steps: images and noise on the device, in whole units of a grid.

Clipping and projecting are exact on the grid (``Grid``); only the signs of gradients depend on the device.
"""

from __future__ import annotations

import copy
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from ule_datasets.base.lazy import lazy
from ule_datasets.compute.devices import median_seconds, resident
from ule_datasets.compute.precision import Precision
from ule_datasets.data.quantization import Apply, Quantize, quantize
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.settings import Grid
from ule_datasets.methods.engine.surrogate import FrozenSurrogate, Surrogate

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

IMAGES_AT_ONCE = {"cpu": 128, "cuda": 1024}
"""Images that are optimised together: what fits a CPU's caches; what fills a GPU. Not part of any method."""
IMAGES_TIMED = 32
"""Of a training step, for an estimate: it should not need more memory than the work itself."""
ROWS_AT_ONCE = 4096
"""Images whose noise is converted or summed up at a time."""


class Start(StrEnum):
    """The noise before the first step."""

    NORMAL = "normal"
    """Normally distributed with the bound as deviation, cut off at the bound (official code of TAP)."""
    UNIFORM = "uniform"
    """Uniform between the bounds (the REM paper's code)."""

    def drawn(self, shape: tuple[int, ...], bound: int, generator: torch.Generator) -> Tensor:
        """In whole units of a grid, float32 of this shape on the CPU."""
        if self is Start.NORMAL:
            drawn = torch.randn(shape, generator=generator)
        else:
            drawn = 2 * torch.rand(shape, generator=generator) - 1
        return (drawn * bound).round_().clamp_(-bound, bound)


class SignSteps:
    """Training images, and steps of their noise against a frozen surrogate."""

    def __init__(self, train: Split, grid: Grid, device: torch.device, *, images_at_once: int | None = None) -> None:
        self.grid, self.device = grid, device
        self.images_at_once = images_at_once or IMAGES_AT_ONCE[device.type]
        self.up = False
        """Whether noise goes up the loss instead of down."""
        self.images, self.labels = resident(train.pixels(), device), resident(train.labels, device)

    def __len__(self) -> int:
        return len(self.images)

    def within(self, grid: Grid, *, up: bool = False) -> SignSteps:
        """The same images, with noise of other bounds and steps, up the loss or down; they share their memory."""
        other = copy.copy(self)
        other.grid, other.up = grid, up
        return other

    def units(self, rows: Tensor | slice) -> Tensor:
        """Clean images in units, float32 [B, H, W, C]."""
        return self.images[rows].float() * self.grid.per_level

    def inputs(self, units: Tensor) -> Tensor:
        """What a model sees: float32 [B, C, H, W] in units of 1, channels-last in memory."""
        return (units / self.grid.white).permute(0, 3, 1, 2)

    def filled(self, first: int) -> tuple[Tensor, int]:
        """Images from one on that are optimised together, int64, and how many of them count.

        Filled up to the same size, so that all images go through the same kernels.
        """
        rows = (first + torch.arange(self.images_at_once, device=self.device)).clamp_(max=len(self) - 1)
        return rows, min(self.images_at_once, len(self) - first)

    def descend(self, frozen: FrozenSurrogate, clean: Tensor, noise: Tensor, labels: Tensor, num_steps: int) -> Tensor:
        """Noise of clean images after signed gradient steps down the loss (or up), projected on the bound.

        All in units, [B, H, W, C]; labels are the classes that the images are to be taken for (or not).
        """
        grid, step = self.grid, -self.grid.step if self.up else self.grid.step
        shown = (clean + noise).clamp_(0, grid.white)
        for _ in range(num_steps):
            gradient, _ = frozen.input_gradient(self.inputs(shown), labels)
            moved = shown - gradient.sign_().permute(0, 2, 3, 1).mul_(step)
            noise = moved.sub_(clean).clamp_(-grid.bound, grid.bound)
            shown = (clean + noise).clamp_(0, grid.white)
        return noise

    def table(self, rule: Quantize, apply: Apply = Apply.SIGNED) -> np.ndarray:
        """What grey levels become of noise of -bound .. bound units, int8 or int16 [2 bound + 1]."""
        return quantize(np.arange(-self.grid.bound, self.grid.bound + 1) / self.grid.per_level, rule, apply)

    def levels(self, noise: Tensor, rule: Quantize, apply: Apply) -> np.ndarray:
        """Noise in whole units as whole grey levels, int8 or int16 [M, H, W, C]."""
        bound, table = self.grid.bound, self.table(rule, apply)
        levels = np.empty(noise.shape, dtype=table.dtype)
        for first in range(0, len(levels), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            levels[rows] = table[noise[rows].cpu().numpy().astype(np.int16) + bound]
        return levels

    def costs(self, surrogate: Surrogate, precision: Precision) -> tuple[float, float, float]:
        """What an image takes, from a short timing that leaves the surrogate as it is.

        Seconds in a step of the surrogate and in a step of its noise, and the FLOP of a forward pass; a step of the
        surrogate takes three of these, a step of noise two.
        """
        from torch.utils.flop_counter import FlopCounterMode

        few = torch.arange(min(self.images_at_once, len(self)), device=self.device)
        clean, labels = self.units(few), self.labels[few]
        part, trial = slice(0, IMAGES_TIMED), copy.deepcopy(surrogate)
        step = median_seconds(lambda _: trial.step(self.inputs(clean[part]), labels[part]), 2, self.device)
        frozen, still = surrogate.frozen(precision), torch.zeros_like(clean)
        moves = median_seconds(lambda _: self.descend(frozen, clean, still, labels, 1), 3, self.device)
        with FlopCounterMode(display=False) as counter:
            frozen.judge(self.inputs(clean[:1]), labels[:1])
        return step / len(labels[part]), moves / len(few), counter.get_total_flops()

    def sizes(self, noise: Tensor) -> dict[str, float]:
        """For a trace: mean size in levels, mean l2 norm in units of 1, and how many values are at the bound, in %."""
        size, at_bound, length = 0.0, 0.0, 0.0
        for part in torch.split(noise, ROWS_AT_ONCE):
            flat = part.reshape(len(part), -1).double()
            size += float(flat.abs().sum())
            at_bound += float((flat.abs() >= self.grid.bound).sum())
            length += float(flat.square().sum(dim=1).sqrt().sum())
        return {
            "mean_abs": round(size / noise.numel() / self.grid.per_level, 4),
            "l2": round(length / len(noise) / self.grid.white, 4),
            "at_bound": round(100 * at_bound / noise.numel(), 3),
        }
