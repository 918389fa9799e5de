"""Targeted adversarial poisoning leads a trained surrogate to the target, step by step as the specification has it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.methods.test_error_maximizing import context, patches
from ule_datasets.base.errors import InputError
from ule_datasets.data.perturbation import Additive
from ule_datasets.methods.adversarial_poisoning import CLEAN, OF_APBENCH, OF_REM, AdversarialPoisoning, Start, Starts
from ule_datasets.methods.engine.settings import ErrorAverage, Grid, SurrogateSettings
from ule_datasets.methods.engine.shifts import ShiftRule, Shifts
from ule_datasets.verification.separability import linear_separability

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = SurrogateSettings(model="convnet3-w16", batch_size=16, gradient_clip=None, nesterov=True, learning_rate=0.05)
TRAINING = dataclasses.replace(CLEAN, surrogate=SETTINGS, epochs=20, milestones=(15,))
METHOD = AdversarialPoisoning(training=TRAINING, num_steps=30, restarts=2, epsilon=32, step_size=3.2, batch_size=32)


def craft(method: AdversarialPoisoning) -> tuple[Additive, dict[str, Any]]:
    crafted = method.generate(patches(), context())
    (layer,) = crafted.layers
    assert isinstance(layer, Additive)
    return layer, crafted.notes


def trained(method: AdversarialPoisoning) -> Starts:
    starts = Starts(method, patches(), context())
    while len(starts.epochs) < method.training.epochs:
        phase = starts.following()
        assert phase is not None
        for step in phase.steps:
            phase.step(step)
        phase.end()
    return starts


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("untargeted", [False, True])
@pytest.mark.parametrize("rule", ShiftRule)
def test_a_step_is_that_of_a_plain_restatement(untargeted: bool, rule: ShiftRule) -> None:
    """Normalise, shift (the other way round where whole pixels leave black), and autograd through all of it."""
    method = dataclasses.replace(METHOD, untargeted=untargeted, training=dataclasses.replace(TRAINING, shifts=rule))
    starts = Starts(method, patches(), context())
    frozen = starts.surrogate.frozen(method.precision)
    model = starts.surrogate.parts()["model"].eval()  # type: ignore[union-attr]
    rows, per_level = torch.arange(20), starts.grid.per_level
    clean = starts.steps.units(rows).permute(0, 3, 1, 2).double()
    noise = Start.NORMAL.drawn(tuple(clean.shape), starts.grid.bound, torch.Generator().manual_seed(4)).double()
    noise = (clean + noise).clamp(0, starts.grid.white) - clean
    labels = starts.steps.labels[rows]
    shifts = Shifts.drawn(rule, 20, 16, 16, torch.Generator().manual_seed(5)).to(torch.device("cpu"), torch.float64)
    got = starts.step(frozen, clean, noise, labels, shifts, rows)

    pixels = torch.from_numpy(patches().pixels()).double() / 255
    mean, deviation = pixels.mean(dim=(0, 1, 2))[:, None, None], pixels.std(dim=(0, 1, 2), correction=0)[:, None, None]
    delta = (noise / per_level / 255).requires_grad_(True)
    shown = clean / per_level / 255 + delta
    if rule is ShiftRule.WHOLE:
        seen = (shifts.apply(shown) - mean) / deviation
    else:
        seen = shifts.apply((shown - mean) / deviation)
    losses = functional.cross_entropy(model(seen), labels, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), delta)
    sign = 1 if untargeted else -1
    moved = (delta.detach() + sign * gradient.sign() * 3.2 / 255).clamp(-32 / 255, 32 / 255)
    moved = (clean / per_level / 255 + moved).clamp(0, 1) - clean / per_level / 255
    assert ((moved * 255 * per_level).round() == got).double().mean() > 0.999
    assert torch.allclose(starts.losses[rows].double(), losses.detach(), atol=1e-4)


def test_perturbed_images_are_taken_for_the_next_class() -> None:
    train = patches()
    layer, notes = craft(METHOD)
    assert max(line["success"] for line in notes["trace"]) > 90
    assert notes["surrogate"]["accuracy"] > 80
    assert METHOD.shortfall(notes) == ""
    starts = trained(METHOD)
    frozen = starts.surrogate.frozen(METHOD.precision)
    changed = np.clip(train.images.astype(np.int16) + layer.levels, 0, 255).astype(np.uint8)
    for images, wanted in ((train.pixels(), train.labels), (changed, (train.labels + 1) % 3)):
        units = torch.from_numpy(images).float().permute(0, 3, 1, 2) * starts.grid.per_level
        right, _ = frozen.judge(starts.learner.sight.of(units), torch.from_numpy(wanted))
        assert float(right.double().mean()) > 0.85
    true, _ = frozen.judge(starts.learner.sight.of(units), starts.steps.labels)
    assert float(true.double().mean()) < 0.1, "the true class's loss has risen"
    found = linear_separability(train.pixels(), changed, train.labels)
    assert found is not None
    assert found.held_out > 90, "the noise of a class is told apart"


def test_untargeted_noise_makes_the_surrogate_wrong() -> None:
    _, notes = craft(dataclasses.replace(METHOD, untargeted=True))
    assert max(line["success"] for line in notes["trace"]) > 80


@pytest.mark.parametrize("average", ErrorAverage)
def test_the_start_with_the_smallest_loss_is_kept_for_all_images(average: ErrorAverage) -> None:
    method = dataclasses.replace(METHOD, num_steps=2, restarts=3, error_average=average)
    starts = Starts(method, patches(), context())
    kept, means = [], []
    while (phase := starts.following()) is not None:
        for step in phase.steps:
            phase.step(step)
        crafted = len(starts.epochs) == method.training.epochs and "start" in phase.label
        if crafted:
            kept.append(starts.noise.clone())
            size = 32 if average is ErrorAverage.BATCHES else 60
            means.append(np.mean([part.double().mean() for part in torch.split(starts.losses, size)]))
        phase.end()
    assert [line["loss"] for line in starts.trace] == pytest.approx(means, abs=1e-5)
    assert len({tuple(noise.flatten().tolist()) for noise in kept}) == 3
    assert torch.equal(starts.best, kept[int(np.argmin(means))])


@pytest.mark.parametrize("start", Start)
def test_starts_lie_on_the_grid_within_the_bound(start: Start) -> None:
    drawn = start.drawn((50, 3, 8, 8), 40, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, drawn.round())
    assert float(drawn.abs().max()) == 40
    at_bound = float((drawn.abs() == 40).double().mean())
    assert at_bound == pytest.approx(0.32 if start is Start.NORMAL else 0.0125, abs=0.02)


def test_the_settings_of_other_repositories_are_named() -> None:
    assert (OF_REM.step_size, OF_REM.restarts, OF_REM.start, OF_REM.untargeted) == (0.064, 1, Start.UNIFORM, False)
    assert Grid.of(OF_REM.epsilon, OF_REM.step_size) == Grid(per_level=125, bound=1000, step=8)
    assert dataclasses.replace(AdversarialPoisoning(), untargeted=True) == OF_APBENCH
    training = dataclasses.replace(OF_REM.training, surrogate=SETTINGS, epochs=2, milestones=(1,))
    method = dataclasses.replace(OF_REM, training=training, num_steps=2)
    layer, _ = craft(method)
    assert int(np.abs(layer.levels).max()) <= 8


def test_a_target_that_is_the_true_class_is_refused() -> None:
    with pytest.raises(InputError, match="with 3 classes the target would be the true class"):
        craft(dataclasses.replace(METHOD, target_offset=3))


def test_a_craft_that_misleads_nobody_is_told_to_fall_short() -> None:
    method = dataclasses.replace(METHOD, num_steps=1, epsilon=1, step_size=0.1, restarts=1)
    _, notes = craft(method)
    assert notes["trace"][0]["success"] < 25
    assert "of the perturbed images; more steps" in method.shortfall(notes)
