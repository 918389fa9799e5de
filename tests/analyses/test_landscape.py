"""Loss surfaces: the norms of directions, a model whose surface numpy can compute, and what must not change."""

from __future__ import annotations

import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ule_datasets.analyses.landscape import CIRCLE_POINTS, Surface, compare_surfaces, directions, loss_surface
from ule_datasets.base.errors import InputError
from ule_datasets.compute.precision import Precision
from ule_datasets.models.architectures import build_model
from ule_datasets.papers.statistics import Verdict

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(count: int, size: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8), rng.integers(0, classes, count)


@pytest.mark.parametrize("name", ["resnet18-w8", "wrn-28-1", "cct-7-3x1"])
def test_every_filter_has_the_norm_of_the_models(name: str) -> None:
    model = build_model(name, 4, seed=0)
    for direction in directions(model, generator()):
        assert list(direction) == [name for name, _ in model.named_parameters()]
        for name, parameter in model.named_parameters():
            step = direction[name]
            assert step.shape == parameter.shape
            if parameter.ndim < 2:
                assert not step.any()
                continue
            for entry in range(len(parameter)):
                assert float(step[entry].norm()) == pytest.approx(float(parameter[entry].detach().norm()), rel=1e-5)


def test_biases_and_normalisation_stay_even_where_they_are_not_zero() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 2))
    direction, _ = directions(model, generator())
    assert [name for name, step in direction.items() if step.any()] == ["0.weight", "4.weight"]


def test_the_two_directions_differ_and_come_from_the_generator() -> None:
    model = build_model("convnet3-w16", 4, seed=0)
    (first, second), (again, _) = directions(model, generator(5)), directions(model, generator(5))
    name = max(first, key=lambda each: first[each].numel())
    cosine = torch.cosine_similarity(first[name].flatten(), second[name].flatten(), 0)
    assert abs(float(cosine)) < 0.1
    assert all(torch.equal(first[name], again[name]) for name in first)
    other, _ = directions(model, generator(6))
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_models_of_one_architecture_move_along_the_same_numbers() -> None:
    one, other = (directions(build_model("convnet3-w16", 4, seed=seed), generator())[1] for seed in (0, 1))
    for name in ("features.0.weight", "classifier.weight"):
        filters = (step[name].flatten(1) for step in (one, other))
        assert torch.allclose(*(f / f.norm(dim=1, keepdim=True) for f in filters), atol=1e-6)


def linear_model(size: int, classes: int) -> nn.Module:
    torch_generator = generator(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, classes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch_generator))
    return model


def cross_entropy(weights: np.ndarray, bias: np.ndarray, images: np.ndarray, labels: np.ndarray) -> float:
    logits = np.moveaxis(images, 3, 1).reshape(len(images), -1) / 255 @ weights.T + bias
    largest = logits.max(axis=1)
    normaliser = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
    return float((normaliser - logits[np.arange(len(labels)), labels]).mean())


def test_the_surface_of_a_linear_model_is_what_numpy_computes() -> None:
    images, labels = data(703, 4, 5)
    model = linear_model(4, 5)
    pair = directions(model, generator())
    surface = loss_surface(model, images, labels, pair, points=5, device=CPU)
    weights, bias = (parameter.detach().numpy().astype(np.float64) for parameter in model.parameters())
    one, other = (direction["1.weight"].numpy().astype(np.float64) for direction in pair)

    def at(a: float, b: float) -> float:
        return cross_entropy(weights + a * one + b * other, bias, images, labels)

    assert surface.grid == (-1, -0.5, 0, 0.5, 1)
    expected = [[at(a, b) for b in surface.grid] for a in surface.grid]
    assert np.allclose(np.array(surface.losses, float), expected, rtol=1e-5)
    assert surface.centre == pytest.approx(at(0, 0), rel=1e-5)
    assert surface.losses[2][2] == surface.centre
    angles = 2 * np.pi * np.arange(CIRCLE_POINTS) / CIRCLE_POINTS
    circle = [at(math.cos(angle) / 2, math.sin(angle) / 2) for angle in angles]
    assert np.allclose(np.array(surface.circle, float), circle, rtol=1e-5)
    assert surface.increase == pytest.approx(np.mean(circle) - at(0, 0), rel=1e-3)
    assert surface.num_images == 703
    assert json.loads(json.dumps(dataclasses.asdict(surface), allow_nan=False))["losses"][1][3] == surface.losses[1][3]


class Linear0(nn.Module):
    """Logits w x and 0 with one weight: along a direction the loss is known in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[2.0]]))

    def forward(self, images: Tensor) -> Tensor:
        value = self.weight[0, 0] * images.mean(dim=(1, 2, 3))
        return torch.stack([value, torch.zeros_like(value)], dim=1)


def test_a_loss_in_closed_form() -> None:
    images, labels = np.full((3, 2, 2, 3), 255, np.uint8), np.zeros(3, np.int64)
    step = {"weight": torch.tensor([[3.0]])}, {"weight": torch.tensor([[0.0]])}
    surface = loss_surface(Linear0(), images, labels, step, points=3, device=CPU)
    for row, multiple in zip(surface.losses, surface.grid, strict=True):
        assert row == pytest.approx([math.log1p(math.exp(-(2 + 3 * multiple)))] * 3, rel=1e-5)


def test_the_model_is_left_as_it_was() -> None:
    images, labels = data(20, 8, 4)
    model = build_model("convnet3-w16", 4, seed=0).train()
    model.features.eval()
    before = copy.deepcopy(model.state_dict())
    flags = [module.training for module in model.modules()]
    addresses = [parameter.data_ptr() for parameter in model.parameters()]
    state = torch.get_rng_state()
    loss_surface(model, images, labels, directions(model, generator()), points=2, device=CPU)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name].view(-1), before[name].view(-1)) for name in before)
    assert [module.training for module in model.modules()] == flags
    assert [parameter.data_ptr() for parameter in model.parameters()] == addresses
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_measuring_twice_gives_the_same_surface() -> None:
    images, labels = data(20, 8, 4)
    model = build_model("resnet18-w8", 4, seed=0)
    surfaces = [
        loss_surface(model, images, labels, directions(model, generator()), points=2, device=CPU) for _ in range(2)
    ]
    assert surfaces[0] == surfaces[1]


def test_a_loss_that_is_not_finite_is_left_out() -> None:
    images, labels = np.full((2, 2, 2, 3), 255, np.uint8), np.ones(2, np.int64)
    step = {"weight": torch.tensor([[float("inf")]])}, {"weight": torch.tensor([[0.0]])}
    surface = loss_surface(Linear0(), images, labels, step, points=2, device=CPU)
    assert surface.increase is None
    assert surface.losses[1] == (None, None)
    json.dumps(dataclasses.asdict(surface), allow_nan=False)


def test_mistakes_are_named() -> None:
    images, labels = data(4, 4, 5)
    model, other = linear_model(4, 5), linear_model(4, 6)
    pair = directions(model, generator())
    with pytest.raises(InputError, match="directions are of another model"):
        loss_surface(model, images, labels, directions(other, generator()), points=2, device=CPU)
    with pytest.raises(InputError, match="points is 1, must be at least 2"):
        loss_surface(model, images, labels, pair, points=1, device=CPU)
    with pytest.raises(InputError, match="float32 or tf32"):
        loss_surface(model, images, labels, pair, points=2, device=CPU, precision=Precision.BFLOAT16)


# Verdicts


def surface(increase: float | None, num_images: int = 10) -> Surface:
    return Surface(grid=(), losses=(), centre=0.0, circle=(), increase=increase, num_images=num_images)


@pytest.mark.parametrize(
    ("protected", "clean", "verdict"),
    [
        ([1.0, 1.1, 0.9], [3.0, 3.2, 2.9], Verdict.CONFIRMED),
        ([3.0, 3.2, 2.9], [1.0, 1.1, 0.9], Verdict.REFUTED),
        ([1.0, 3.0, 2.0], [2.0, 1.0, 3.0], Verdict.INCONCLUSIVE),
        ([1.0, 1.1], [3.0, 3.2], Verdict.INCONCLUSIVE),
        ([1.0], [3.0], Verdict.INCONCLUSIVE),
        ([1.0, 1.1, None], [3.0, 3.2, 2.9], Verdict.INCONCLUSIVE),
        ([], [], Verdict.NOT_RUN),
    ],
)
def test_the_flatter_surface(protected: list[float | None], clean: list[float], verdict: Verdict) -> None:
    judged = compare_surfaces([surface(value) for value in protected], [surface(value) for value in clean])
    assert judged.verdict is verdict, judged.reason


def test_pairs_are_compared_not_averages() -> None:
    protected, clean = [1.0, 5.0, 9.0], [2.0, 6.1, 9.9]
    assert compare_surfaces([*map(surface, protected)], [*map(surface, clean)]).verdict is Verdict.CONFIRMED


def test_surfaces_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(InputError, match="2 and 1 surfaces"):
        compare_surfaces([surface(1), surface(2)], [surface(1)])
    with pytest.raises(InputError, match=r"\[10, 20\] images"):
        compare_surfaces([surface(1, 10)], [surface(2, 20)])
