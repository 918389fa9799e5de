"""Adversarial training: the textbook's steps, inside the ball at every step, and a model that notices nothing."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from ule_datasets.base.errors import InputError
from ule_datasets.countermeasures.adversarial import L2Attack, LInfAttack
from ule_datasets.models.architectures import build_model
from ule_datasets.victims.strategy import Progress

pytestmark = pytest.mark.usefixtures("one_thread")

Attack = LInfAttack | L2Attack
FIRST = Progress(epoch=1, epochs=1)
BOTH = (LInfAttack(), L2Attack(radius=0.5))
both_kinds = pytest.mark.parametrize("attack", BOTH, ids=["linf", "l2"])
CLASSES, ROUNDING = 3, 2e-6


def batch(count: int = 8, *, size: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images in [0, 1], some values at its ends, channels-last; brightness tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    images = torch.rand(count, 3, size, size, generator=generator) * 1.2 - 0.3 + 0.2 * labels[:, None, None, None]
    return images.clamp(0, 1).contiguous(memory_format=torch.channels_last), labels


def trained_model(steps: int = 30) -> nn.Module:
    """Batch norm has seen something, gradients are there, one layer is frozen and in evaluation mode."""
    model = build_model("convnet3-w16", CLASSES, seed=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for number in range(steps):
        images, labels = batch(32, seed=100 + number)
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    first = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    first.eval().requires_grad_(False)
    return model


MODEL = trained_model()


class Watched(nn.Module):
    """Remembers what it was asked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        return self.model(images)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def textbook(attack: Attack, model: nn.Module, position: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """The steps from a position on, by ``backward`` on a copy of the model; projections written out."""
    model = copy.deepcopy(model).eval()
    change = (position - images).clone()
    for _ in range(attack.steps):
        leaf = (images + change).clone().requires_grad_(True)
        functional.cross_entropy(model(leaf), labels).backward()
        gradient = leaf.grad
        assert gradient is not None
        for row in range(len(images)):
            if isinstance(attack, LInfAttack):
                moved = change[row] + attack.step * torch.sign(gradient[row])
                moved = torch.maximum(torch.minimum(moved, torch.tensor(attack.radius)), torch.tensor(-attack.radius))
            else:
                length = gradient[row].square().sum().sqrt()
                moved = change[row] + attack.radius * attack.step * gradient[row] / length
                if moved.square().sum().sqrt() > attack.radius:
                    moved = attack.radius * moved / moved.square().sum().sqrt()
            change[row] = (images[row] + moved).clip(0, 1) - images[row]
    return images + change


def lengths(change: Tensor, attack: Attack) -> Tensor:
    flat = change.flatten(1)
    return flat.abs().amax(dim=1) if isinstance(attack, LInfAttack) else flat.square().sum(dim=1).sqrt()


@pytest.mark.usefixtures("in_float64")
@both_kinds
def test_its_steps_are_the_textbooks(attack: Attack) -> None:
    attack = dataclasses.replace(attack, steps=4)
    plain, (images, labels) = copy.deepcopy(MODEL).double(), batch()
    model = Watched(copy.deepcopy(plain))
    result = attack.attack(images, labels, model, generator(), FIRST)
    expected = textbook(attack, plain, model.seen[0], images, labels)
    assert (result - expected).abs().max() < 1e-9


@settings(deadline=None, max_examples=40)
@given(
    radius=st.floats(1e-3, 3),
    step=st.floats(1e-3, 2),
    euclidean=st.booleans(),
    shape=st.tuples(st.integers(1, 5), st.integers(4, 9)),
    seed=st.integers(0, 2**31),
)
def test_every_step_stays_in_the_ball_and_in_range(
    radius: float, step: float, euclidean: bool, shape: tuple[int, int], seed: int
) -> None:
    kind = L2Attack if euclidean else LInfAttack
    attack = kind(radius=radius, step=step, steps=4)
    (images, labels), model = batch(shape[0], size=shape[1], seed=seed), Watched(MODEL)
    before = images.clone()
    result = attack.attack(images, labels, model, generator(seed), FIRST)
    assert len(model.seen) == 4
    for position in (*model.seen, result):
        assert 0 <= float(position.min()) <= float(position.max()) <= 1
        assert float(lengths(position - images, attack).max()) <= radius + ROUNDING
    assert torch.equal(images, before)


@both_kinds
def test_the_loss_rises_far_more_than_by_chance(attack: Attack) -> None:
    (images, labels), model = batch(64), copy.deepcopy(MODEL).eval()
    result = attack.attack(images, labels, model, generator(), FIRST)
    noise = torch.randn(images.shape, generator=generator())
    noise = attack.radius * (noise.sign() if isinstance(attack, LInfAttack) else noise / lengths(noise, attack).amin())
    by_chance = (images + noise).clamp(0, 1)
    with torch.no_grad():
        logits = [model(given) for given in (images, by_chance, result)]
    clean, chance, attacked = (functional.cross_entropy(some, labels).item() for some in logits)
    assert attacked - clean > max(0.15, 5 * (chance - clean))
    assert (logits[2].argmax(1) == labels).sum() < (logits[0].argmax(1) == labels).sum() - 5


@both_kinds
def test_the_budget_is_used(attack: Attack) -> None:
    images, labels = batch(16)
    middle = images * 0.2 + 0.4
    change = attack.attack(middle, labels, MODEL, generator(), FIRST) - middle
    assert lengths(change, attack) == pytest.approx(torch.full((16,), attack.radius), rel=1e-3)


Flags = tuple[list[bool], list[bool]]


def flags_of(model: nn.Module) -> Flags:
    return [module.training for module in model.modules()], [taken.requires_grad for taken in model.parameters()]


def changed_tensors(model: nn.Module, before: nn.Module) -> set[str]:
    after = model.state_dict()
    return {name for name, tensor in before.state_dict().items() if not torch.equal(after[name], tensor)}


@pytest.mark.parametrize("training", [False, True])
@both_kinds
def test_the_model_is_left_as_it_was(attack: Attack, training: bool) -> None:
    (images, labels), model = batch(), copy.deepcopy(MODEL)
    if not training:
        model.eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 0.5) if number % 2 else None
    gradients, flags, before = [p.grad for p in model.parameters()], flags_of(model), copy.deepcopy(model)
    dataclasses.replace(attack, steps=2).attack(images, labels, model, generator(), FIRST)
    assert flags_of(model) == flags
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is gradient
        assert gradient is None or bool((gradient == 0.5).all())
    assert changed_tensors(model, before) == set()


class Broken(nn.Module):
    """Fails in the middle of an attack."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("out of memory, say")
        return self.model(images)


@both_kinds
def test_also_when_the_model_fails(attack: Attack) -> None:
    model = Broken(copy.deepcopy(MODEL))
    flags = flags_of(model)
    with pytest.raises(RuntimeError, match="out of memory, say"):
        attack.attack(*batch(), model, generator(), FIRST)
    assert flags_of(model) == flags


@both_kinds
def test_parameters_take_no_gradients_during_the_attack(attack: Attack) -> None:
    seen = []
    model = copy.deepcopy(MODEL)
    model.register_forward_hook(lambda *_: seen.append(any(taken.requires_grad for taken in model.parameters())))
    attack.attack(*batch(), model, generator(), FIRST)
    assert seen == [False] * 10


@both_kinds
def test_the_result_is_detached_even_without_gradients_around(attack: Attack) -> None:
    images, labels = batch()
    with torch.no_grad():
        result = attack.attack(images, labels, MODEL, generator(), FIRST)
        assert not torch.is_grad_enabled()
    assert not result.requires_grad
    assert result.dtype is torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(result, attack.attack(images, labels, MODEL, generator(), FIRST))
    assert not torch.equal(result, attack.attack(images, labels, MODEL, generator(1), FIRST))


def test_under_autocast_only_the_model_is_rounded() -> None:
    (images, labels), kinds = batch(), set()
    model = copy.deepcopy(MODEL)
    model.register_forward_hook(lambda module, given, logits: kinds.add((given[0].dtype, logits.dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        watched = Watched(model)
        result = LInfAttack(radius=1, steps=3).attack(images, labels, watched, generator(), FIRST)
        shorter = L2Attack(radius=1, steps=8).attack(images, labels, model, generator(), FIRST)
    assert kinds == {(torch.float32, torch.bfloat16)}
    assert result.dtype is shorter.dtype is torch.float32
    steps = (result - watched.seen[0]) / (2 / 255)
    free = (result > 0.05) & (result < 0.95)
    assert (steps - steps.round())[free].abs().max() < 1e-4, "whole steps, not bfloat16 ones"
    assert lengths(shorter - images, L2Attack(radius=1)).max() <= 1 + ROUNDING


@both_kinds
def test_the_start_is_uniform(attack: Attack) -> None:
    images, labels = torch.full((3000, 3, 4, 4), 0.5), torch.zeros(3000, dtype=torch.int64)
    model = Watched(nn.Sequential(nn.Flatten(), nn.Linear(48, CLASSES)))
    dataclasses.replace(attack, steps=1).attack(images, labels, model, generator(), FIRST)
    start = model.seen[0] - images
    assert start.mean().abs() < 1e-3
    far = lengths(start, attack) if isinstance(attack, L2Attack) else start.abs().flatten()
    assert far.mean().item() == pytest.approx(attack.radius / 2, rel=0.03)
    assert far.square().mean().item() == pytest.approx(attack.radius**2 / 3, rel=0.04)


WAITING = {
    torch.ops.aten.item.default,
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.unique_dim.default,
}


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the processor wait for a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in WAITING, f"{func} waits for the device"
        if func is torch.ops.aten.index.Tensor:
            assert all(index is None or index.dtype is torch.int64 for index in args[1]), "a mask waits for the device"
        return func(*args, **(kwargs or {}))


@both_kinds
def test_nothing_is_read_back_from_the_device(attack: Attack) -> None:
    images, labels = batch()
    with NoWaiting():
        dataclasses.replace(attack, steps=2).attack(images, labels, MODEL, generator(), FIRST)
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        images.max().item()


@pytest.mark.parametrize("make", [LInfAttack, L2Attack])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": 0.0}, "radius is 0.0, must be finite and above 0"),
        ({"radius": math.inf}, "radius is inf, must be finite and above 0"),
        ({"radius": 1.0, "step": -0.1}, "step is -0.1, must be finite and above 0"),
        ({"radius": 1.0, "steps": 0}, "steps is 0, must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(make: Callable[..., Attack], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(**settings)


@pytest.mark.gpu
@both_kinds
def test_a_gpu_is_not_waited_for(attack: Attack) -> None:
    (images, labels), model = batch(64), copy.deepcopy(MODEL).cuda()
    images, labels, draws = images.cuda(), labels.cuda(), torch.Generator("cuda").manual_seed(0)
    attack.attack(images, labels, model, draws, FIRST)  # kernels are loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = attack.attack(images, labels, model, draws, FIRST)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert float(lengths(result - images, attack).max()) <= attack.radius + ROUNDING
    assert 0 <= float(result.min()) <= float(result.max()) <= 1
