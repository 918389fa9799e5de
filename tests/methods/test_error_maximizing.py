"""Error-maximising noise misleads a trained surrogate, step by step as the specification has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import Listening
from torch.nn import functional

from tests.methods.test_one_pixel_shortcut import split_of
from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.data.perturbation import Additive
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.clean_training import CleanTraining, Scale
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.methods.error_maximizing import (
    ClasswiseErrorMaximizing,
    ErrorMaximizing,
    MaximizingClassWise,
    MaximizingSampleWise,
)
from ule_datasets.methods.method import Context

pytestmark = pytest.mark.usefixtures("one_thread")
TRAINING = CleanTraining(surrogate=SurrogateSettings(model="convnet3-w16", batch_size=16), epochs=20)
SAMPLE = ErrorMaximizing(training=TRAINING, num_steps=5, epsilon=32, step_size=6.4)
CLASS = ClasswiseErrorMaximizing(
    training=TRAINING, epsilon=48, step_size=0.5, subset=1.0, max_rounds=30, stop_error=0.6
)


def patches(count: int = 60) -> Split:
    """Three classes by the colour of a field, on grey noise: shifts and mirroring leave them what they are."""
    rng = np.random.default_rng(7)
    labels = np.arange(count) % 3
    images = rng.integers(90, 150, (count, 16, 16, 3))
    for image, label in zip(images, labels, strict=True):
        image[5:11, 5:11, label] += 40
    return split_of(images.astype(np.uint8), labels)


def context(reporter: Listening | None = None) -> Context:
    return Context(num_classes=3, seed=Seed(0), reporter=reporter or Listening())


@pytest.mark.usefixtures("in_float64")
def test_a_round_takes_the_steps_of_a_plain_restatement() -> None:
    """Sign of the gradient of each image's loss, up, then within the bound and within what bytes can hold."""
    train = patches()
    rounds = MaximizingSampleWise(SAMPLE, train, context())
    frozen = rounds.surrogate.frozen(SAMPLE.precision)
    model = rounds.surrogate.parts()["model"].eval()  # type: ignore[union-attr]
    rounds.improve(frozen, 0)
    clean = torch.from_numpy(train.pixels()).double().permute(0, 3, 1, 2) / 255
    noise = torch.zeros_like(clean)
    for _ in range(SAMPLE.num_steps):
        shown = (clean + noise).clamp(0, 1).requires_grad_(True)
        loss = functional.cross_entropy(model(shown), torch.from_numpy(train.labels), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, shown)
        noise = (shown.detach() + gradient.sign() * 6.4 / 255 - clean).clamp(-32 / 255, 32 / 255)
    expected = (noise.permute(0, 2, 3, 1) * 255 * rounds.grid.per_level).round()
    assert (rounds.noise.double() == expected).double().mean() > 0.999


def trained(rounds: MaximizingSampleWise | MaximizingClassWise) -> None:
    while len(rounds.epochs) < rounds.method.training.epochs:
        phase = rounds.following()
        assert phase is not None
        for step in phase.steps:
            phase.step(step)
        phase.end()


def test_the_surrogate_learns_the_clean_images_and_its_loss_rises_with_the_noise() -> None:
    rounds = MaximizingSampleWise(SAMPLE, patches(), context())
    trained(rounds)
    frozen = rounds.surrogate.frozen(SAMPLE.precision)
    rows = torch.arange(len(rounds.steps))
    clean = rounds.steps.inputs(rounds.steps.units(rows))
    right, before = frozen.judge(clean, rounds.steps.labels)
    assert float(right.double().mean()) > 0.9
    rounds.improve(frozen, 0)
    assert float(rounds.losses.mean()) > 2 * float(before.mean())
    assert float(rounds.right.double().mean()) < float(right.double().mean())


def craft(method: ErrorMaximizing | ClasswiseErrorMaximizing, reporter: Listening) -> tuple[Additive, dict[str, Any]]:
    crafted = method.generate(patches(), context(reporter))
    (layer,) = crafted.layers
    assert isinstance(layer, Additive)
    return layer, crafted.notes


def test_sample_wise_rounds_end_when_the_surrogate_is_wrong_about_enough() -> None:
    reporter = Listening()
    layer, notes = craft(SAMPLE, reporter)
    assert notes["stop_rule_met"]
    assert notes["trace"][-1]["accuracy"] <= 10
    assert notes["surrogate"]["accuracy"] > 80
    assert layer.levels.shape == (60, 16, 16, 3)
    assert reporter.warnings == []
    assert SAMPLE.shortfall(notes) == ""


def test_class_wise_noise_misleads_about_images_of_the_class() -> None:
    layer, notes = craft(CLASS, Listening())
    assert notes["stop_rule_met"]
    assert layer.levels.shape == (3, 16, 16, 3)
    assert len(notes["trace"]) > 1
    assert notes["trace"][-1]["loss"] > notes["trace"][0]["loss"]


def test_rounds_that_do_not_get_there_are_told() -> None:
    reporter = Listening()
    method = ErrorMaximizing(training=TRAINING, num_steps=1, epsilon=1, step_size=0.1, max_rounds=1)
    _, notes = craft(method, reporter)
    assert any("the stop rule (10 % at most) is not met" in line for line in reporter.warnings)
    assert not notes["stop_rule_met"]
    assert "the rounds should end at 90 %" in method.shortfall(notes)


def test_the_surrogate_may_learn_from_the_subset_alone() -> None:
    for alone, count in ((True, 30), (False, 60)):
        method = ClasswiseErrorMaximizing(training=TRAINING, subset=0.5, surrogate_on_subset=alone)
        rounds = MaximizingClassWise(method, patches(), context())
        rows = {int(row) for row in rounds._learned}
        assert len(rows) == count
        assert rows >= set(rounds._subset.tolist())


def test_a_scale_that_rounds_do_not_know_is_refused() -> None:
    with pytest.raises(InputError, match="scale is centred, not unit"):
        ErrorMaximizing(training=CleanTraining(scale=Scale.CENTRED))
