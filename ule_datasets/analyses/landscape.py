"""The loss around trained parameters, on a plane of two random directions.

Hao Li, Zheng Xu, Gavin Taylor, Christoph Studer, Tom Goldstein, "Visualizing the Loss Landscape of Neural Nets",
NeurIPS 2018: each filter of a direction has the norm of the model's filter, so that models whose weights have other
sizes can be compared.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ule_datasets.analyses.analysis import RUNS_FOR_A_VERDICT, Analysis, Material
from ule_datasets.analyses.evaluation import FixedImages, evaluating, still_copy
from ule_datasets.analyses.telling import Contours, Named, Plane, Row, Said, Section, Table, number, numbers, words
from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.precision import Precision
from ule_datasets.experiments.grid import GridResult
from ule_datasets.papers.ops import CLEAN, OPS, ROLES
from ule_datasets.papers.rules import Power
from ule_datasets.papers.statistics import Judged, Verdict, below

Direction = dict[str, Tensor]
"""By name of the parameter, of its shape; float32 on the CPU."""

CIRCLE_RADIUS = 0.5
CIRCLE_POINTS = 16
POINTS, IMAGES = 25, 10_000
"""Of a surface: points of the grid's side, images that the loss is measured on."""
FEW_POINTS, FEW_IMAGES = 9, 500
"""For profiles of a part of the data."""


def directions(model: nn.Module, generator: torch.Generator) -> tuple[Direction, Direction]:
    """Two Gaussian directions, every filter rescaled to the norm of the model's; zero for biases and normalisation.

    A filter is one entry of the first axis of a parameter with two axes or more; parameters with fewer are biases
    or belong to a normalisation. Models of one architecture and CPU generators of one seed start from the same numbers.
    """
    return _direction(model, generator), _direction(model, generator)


def _direction(model: nn.Module, generator: torch.Generator) -> Direction:
    result = {}
    for name, parameter in model.named_parameters():
        weights = parameter.detach().cpu().float()
        if weights.ndim < 2:
            result[name] = torch.zeros(weights.shape)
            continue
        drawn = torch.randn(weights.shape, generator=generator)
        axes = tuple(range(1, weights.ndim))
        wanted, has = (torch.linalg.vector_norm(each, dim=axes, keepdim=True) for each in (weights, drawn))
        result[name] = drawn * (wanted / has)
    return result


@dataclass(frozen=True, kw_only=True, slots=True)
class Surface:
    """Mean cross entropy in evaluation mode around a model; ``None`` wherever it is not finite."""

    grid: tuple[float, ...]
    """Multiples of either direction, [P]."""
    losses: tuple[tuple[float | None, ...], ...]
    """[P, P]; row: multiple of the first direction, column: of the second."""
    centre: float | None
    """At the model itself."""
    circle: tuple[float | None, ...]
    """At equally spaced points of the circle with ``CIRCLE_RADIUS``."""
    increase: float | None
    """Mean over the circle minus the centre: the less, the flatter."""
    num_images: int


def loss_surface(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    directions: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    *,
    points: int,
    device: torch.device,
    precision: Precision = Precision.FLOAT32,
) -> Surface:
    """Measure the loss on a square grid from -1 to 1 and on the circle of ``CIRCLE_RADIUS``.

    Running statistics stay those of the model. The model itself is not touched; a copy moves. The images, uint8
    [N, H, W, 3], are those it was trained on, as many as time allows; an odd number of points per axis has the model
    in the middle.

    Raises:
        InputError: the directions are of another model, or there are too few points.
    """
    if points < 2:
        raise InputError(f"points is {points}, must be at least 2")
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    if any({name: step.shape for name, step in direction.items()} != shapes for direction in directions):
        raise InputError("the directions are of another model: names or shapes differ from those of its parameters")
    grid = tuple((2 * index - (points - 1)) / (points - 1) for index in range(points))
    angles = [2 * math.pi * index / CIRCLE_POINTS for index in range(CIRCLE_POINTS)]
    circle = [(CIRCLE_RADIUS * math.cos(angle), CIRCLE_RADIUS * math.sin(angle)) for angle in angles]
    places = [(0.0, 0.0), *circle, *((a, b) for a in grid for b in grid)]
    loss = _loss_around(model, FixedImages(images, labels, device), directions, device)
    with evaluating(precision):
        losses = [loss(*place) for place in places]
    centre, on_circle, on_grid = losses[0], losses[1 : 1 + CIRCLE_POINTS], losses[1 + CIRCLE_POINTS :]
    return Surface(
        grid=grid,
        losses=tuple(tuple(on_grid[row * points : (row + 1) * points]) for row in range(points)),
        centre=centre,
        circle=tuple(on_circle),
        increase=_increase(centre, on_circle),
        num_images=len(images),
    )


def _loss_around(
    model: nn.Module, images: FixedImages, directions: Sequence[Mapping[str, Tensor]], device: torch.device
) -> Callable[[float, float], float | None]:
    """Mean cross entropy at the model plus such multiples of the directions; ``None``: not finite."""
    moved = still_copy(model, device)
    ways = [
        (parameter, parameter.detach().clone(), *(direction[name].to(device) for direction in directions))
        for name, parameter in moved.named_parameters()
    ]

    def loss(first: float, second: float) -> float | None:
        for parameter, origin, one, other in ways:
            parameter.copy_(origin + first * one + second * other)
        total = torch.zeros((), dtype=torch.float64, device=device)
        for batch, labels in images.batches():
            total += functional.cross_entropy(moved(batch).float(), labels, reduction="none").double().sum()
        mean = float(total) / len(images)
        return mean if math.isfinite(mean) else None

    return loss


def _increase(centre: float | None, circle: Sequence[float | None]) -> float | None:
    finite = [loss for loss in circle if loss is not None]
    return None if centre is None or len(finite) < len(circle) else statistics.fmean(finite) - centre


def compare_surfaces(protected: Sequence[Surface], clean: Sequence[Surface]) -> Judged:
    """Whether the loss rises less around models trained on protected data than around those trained on clean data.

    Confirmed if the paired 95 % interval of the difference of ``increase`` lies below 0, refuted if it lies above;
    inconclusive with fewer than three pairs. Each model is on its own training images; both sides have the same order
    of seeds, and the same seeds of directions.

    Raises:
        InputError: the surfaces are no pairs, or were measured with different numbers of images.
    """
    if len(protected) != len(clean):
        raise InputError(f"{len(protected)} and {len(clean)} surfaces are no pairs: the numbers must be equal")
    counts = sorted({surface.num_images for surface in (*protected, *clean)})
    if len(counts) > 1:
        raise InputError(f"surfaces on {counts} images; all must have the same number")
    if not clean:
        return Judged(Verdict.NOT_RUN, "no surface was measured")
    increases = [
        [math.nan if surface.increase is None else surface.increase for surface in side] for side in (protected, clean)
    ]
    judged = below(increases[0], increases[1], paired=True)
    protected_words, clean_words = (", ".join(f"{value:.3g}" for value in side) for side in increases)
    reason = f"increase of the loss at radius {CIRCLE_RADIUS:g}: protected {protected_words}; clean {clean_words}; "
    reason += judged.reason
    if len(clean) < RUNS_FOR_A_VERDICT:
        return Judged(Verdict.INCONCLUSIVE, f"{reason}; at least {RUNS_FOR_A_VERDICT} pairs are needed")
    return Judged(judged.verdict, reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """The loss around two models of one seed, each on its own training images (Figure 3)."""

    seed: int
    dataset: str
    protected: Surface
    clean: Surface


class Landscape(Analysis[tuple[Pair, ...]]):
    """Whether the loss is flatter around models trained on OPS data than around those trained on clean data."""

    name, key, title = "landscape", "landscapes", "Loss landscape"
    roles = ROLES
    statements: ClassVar = {"ops-q-landscape": (CLEAN, OPS)}
    draws = True

    def run(self, material: Material) -> tuple[Pair, ...]:
        """Both surfaces of every seed, on the same directions."""
        grid, found = material.grid, []
        points, images = (FEW_POINTS, FEW_IMAGES) if grid.profile.power is Power.NONE else (POINTS, IMAGES)
        for seed in grid.seeds:
            protected, clean = material.task(OPS, seed), material.task(CLEAN, seed)
            if protected is None or clean is None:
                continue
            surfaces = []
            for task in (protected, clean):
                material.reporter.say(f"loss landscape of {task}: {points} x {points} points on {images:,} images")
                model, data = material.model(task), task.data.load()
                planes = directions(model, torch.Generator().manual_seed(Seed(seed).integer32("landscape")))
                surfaces.append(
                    loss_surface(
                        model,
                        data.images[:images],
                        data.labels[:images],
                        planes,
                        points=points,
                        device=grid.device,
                        precision=material.precision,
                    )
                )
            found.append(Pair(seed=seed, dataset=protected.dataset, protected=surfaces[0], clean=surfaces[1]))
        return tuple(found)

    def judge(self, found: tuple[Pair, ...], statement: str, roles: Mapping[str, str]) -> Judged:
        """By the pairs of all seeds."""
        return compare_surfaces([each.protected for each in found], [each.clean for each in found])

    def tell(self, found: tuple[Pair, ...], result: GridResult) -> Section:
        """A row for each seed."""
        heads = f"increase at radius {CIRCLE_RADIUS:g}, protected", "clean"
        columns = words("dataset") + numbers("seed", "loss at the model, protected", "clean")
        columns += numbers(*heads, strong=True) + numbers("images")
        rows: list[Row] = []
        for each in found:
            losses = (each.protected.centre, each.clean.centre, each.protected.increase, each.clean.increase)
            told = (number(loss, ".4g") for loss in losses)
            rows.append((Named(each.dataset), str(each.seed), *told, f"{each.protected.num_images:,}"))
        return Section(
            table=Table(columns, rows),
            verdicts=[Said(self.judge(found, "", {}))],
            chart=Contours(
                alt="Loss around the trained parameters, protected and clean",
                x="second direction",
                y="first direction",
                rows=[
                    (
                        Plane(f"seed {each.seed}", each.dataset, each.protected.grid, each.protected.losses),
                        Plane(f"clean control, seed {each.seed}", "", each.clean.grid, each.clean.losses),
                    )
                    for each in found
                ],
            ),
        )
