"""A surrogate learns clean images by the schedule, the scale and the beginning that are asked for."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.methods.test_one_pixel_shortcut import split_of
from ule_datasets.base.errors import InputError
from ule_datasets.methods.adversarial_poisoning import CLEAN, OF_REM
from ule_datasets.methods.engine.clean_training import Beginning, CleanTraining, Learner, Scale, Sight, statistics_of
from ule_datasets.methods.engine.settings import Grid, SurrogateSettings
from ule_datasets.methods.engine.shifts import ShiftRule, Shifts
from ule_datasets.methods.engine.sign_steps import SignSteps
from ule_datasets.methods.engine.surrogate import Surrogate
from ule_datasets.models.architectures import build_model

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def steps_of(count: int = 48) -> SignSteps:
    rng = np.random.default_rng(3)
    labels = np.arange(count) % 3
    images = np.clip(rng.integers(-60, 61, (count, 16, 16, 3)) + 40 + 80 * labels[:, None, None, None], 0, 255)
    return SignSteps(split_of(images.astype(np.uint8), labels), Grid.of(8, 0.8), CPU)


def test_rates_fall_as_the_papers_have_them() -> None:
    rates = [CLEAN.rate(epoch) for epoch in range(40)]
    assert [rates.index(rate) for rate in sorted(set(rates), reverse=True)] == [0, 14, 24, 35]
    assert rates[0] == 0.1
    assert rates[-1] == pytest.approx(1e-4)
    cosine = CleanTraining(epochs=60)
    assert cosine.rate(0) == 0.1
    assert cosine.rate(30) == pytest.approx(0.05)
    assert cosine.rate(59) == pytest.approx(0.05 * (1 + math.cos(math.pi * 59 / 60)))


@pytest.mark.parametrize("milestones", [(3, 2), (2, 2), (0, 2), (2, 5)])
def test_milestones_out_of_order_or_out_of_the_epochs_are_refused(milestones: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"CleanTraining: milestones are .* within the 5 epochs"):
        CleanTraining(epochs=5, milestones=milestones)


def test_statistics_are_those_of_all_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 5, 4, 3), dtype=np.uint8)
    images[..., 2] = 7
    mean, deviation = statistics_of(torch.from_numpy(images))
    assert np.allclose(mean, images.mean(axis=(0, 1, 2)) / 255)
    assert np.allclose(deviation[:2], images[..., :2].std(axis=(0, 1, 2)) / 255)
    assert deviation[2] == 1, "nothing to divide by"


@pytest.mark.parametrize(("scale", "expected"), [(Scale.UNIT, (0, 1)), (Scale.CENTRED, (-0.5, 0.5))])
def test_a_surrogate_sees_images_in_its_units(scale: Scale, expected: tuple[float, float]) -> None:
    steps = steps_of()
    sight = Sight(CleanTraining(scale=scale), steps)
    ends = torch.tensor([0.0, steps.grid.white]).expand(2, 3, 16, 2)
    assert sight.of(ends)[0, 0, 0].tolist() == list(expected)


def test_what_shifts_bring_in_is_the_mean_colour_or_black() -> None:
    steps = steps_of()
    units = steps.units(slice(0, 8)).permute(0, 3, 1, 2)
    for rule, colour in ((ShiftRule.SMOOTH, 0.0), (ShiftRule.WHOLE, -0.5)):
        sight = Sight(dataclasses.replace(OF_REM.training, shifts=rule), steps)
        beyond = Shifts(rows=torch.zeros(8, 16, 16), columns=torch.zeros(8, 16, 16))
        assert (sight.of(units, beyond) == colour).all()


def test_convolutions_begin_by_the_number_of_outputs_where_asked_for() -> None:
    model = build_model("resnet18", 10, seed=0)
    before = [parameter.clone() for parameter in model.parameters()]
    Beginning.USUAL.apply(model, torch.Generator().manual_seed(0))
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    Beginning.FAN_OUT.apply(model, torch.Generator().manual_seed(0))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            outputs = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert float(module.weight.detach().std()) == pytest.approx(math.sqrt(2 / outputs), rel=0.1)


@pytest.mark.parametrize("scale", Scale)
def test_a_surrogate_learns_the_images(scale: Scale) -> None:
    steps = steps_of()
    settings = SurrogateSettings(model="convnet3-w16", batch_size=16, nesterov=True, gradient_clip=None)
    training = CleanTraining(surrogate=settings, epochs=12, scale=scale)
    surrogate = Surrogate(build_model("convnet3-w16", 3, seed=0), settings, device=CPU)
    learner = Learner(training, surrogate, steps, 48)
    lines = []
    for epoch in range(training.epochs):
        for batch in learner.batches:
            learner.learn(torch.arange(48), epoch, batch, torch.Generator().manual_seed(100 * epoch + batch))
        lines.append(learner.finished())
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    assert lines[-1]["accuracy"] > 90


def test_a_single_image_left_over_takes_the_one_before_it_along() -> None:
    steps = steps_of(33)
    settings = SurrogateSettings(model="convnet3-w16", batch_size=16)
    surrogate = Surrogate(build_model("convnet3-w16", 3, seed=0), settings, device=CPU)
    learner = Learner(CleanTraining(surrogate=settings), surrogate, steps, 33)
    assert list(learner.batches) == [0, 1, 2]
    for batch in learner.batches:
        learner.learn(torch.arange(33), 0, batch, torch.Generator().manual_seed(batch))
    assert math.isfinite(learner.finished()["loss"])
