"""Robust error-minimising noise: attack, expectation and steps as the specification has them, image by image."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Listening
from torch import Tensor
from torch.nn import functional

from tests.methods.test_error_maximizing import context, patches
from tests.methods.test_one_pixel_shortcut import split_of
from ule_datasets.base.errors import InputError
from ule_datasets.data.perturbation import Additive, Perturbation
from ule_datasets.data.quantization import Apply, Quantize
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.settings import StopRule, SurrogateSettings
from ule_datasets.methods.engine.shifts import REACH
from ule_datasets.methods.robust_error_minimizing import (
    Defence,
    FirstUp,
    RobustErrorMinimizing,
    SimplifiedRobustErrorMinimizing,
)
from ule_datasets.verification.separability import linear_separability

pytestmark = pytest.mark.usefixtures("one_thread")
SURROGATE = SurrogateSettings(model="convnet3-w16", batch_size=8, gradient_clip=None)
METHOD = RobustErrorMinimizing(
    surrogate=SURROGATE, num_steps=3, step_size=3.2, num_samples=2, attack_steps=2, attack_step_size=2.4, train_steps=3
)
SIMPLIFIED = SimplifiedRobustErrorMinimizing(
    surrogate=dataclasses.replace(SURROGATE, gradient_clip=5.0), steps_per_round=2, max_rounds=2
)
SIDE = 12


def extreme(count: int = 20) -> Split:
    """Of three classes, many pixels black or white: there noise is clipped, and its gradient nothing."""
    rng = np.random.default_rng(3)
    images = np.clip(rng.integers(-200, 456, (count, SIDE, SIDE, 3)), 0, 255)
    return split_of(images.astype(np.uint8), np.arange(count) % 3)


def defence(method: RobustErrorMinimizing = METHOD, **options: Any) -> Defence:
    return Defence(method, extreme(), context(), **options)


# --- a plain restatement: floats in units of 1, channels first, an image at a time ---


class Plain:
    """The published loop with the weights of a craft, and with its draws as they come from the same generator."""

    def __init__(self, craft: Defence) -> None:
        self.method, self.images, self.labels = craft.method, floats(extreme()), torch.from_numpy(extreme().labels)
        self.model = craft.surrogate.parts()["model"].model  # type: ignore[union-attr]
        self.unit = 1 / 255 / craft.grid.per_level

    def drawn_noise(self, epsilon: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Uniform, and rounded to the grid, of images whose channels come last."""
        bound = round(epsilon / 255 / self.unit)
        drawn = (2 * torch.rand(shape, generator=generator) - 1) * bound
        return drawn.round().permute(0, 3, 1, 2) * self.unit

    def drawn_moves(self, count: int, generator: torch.Generator) -> list[tuple[int, int, bool]]:
        down, across = torch.randint(-REACH, REACH + 1, (2, count), generator=generator).tolist()
        mirrored = (torch.rand(count, generator=generator) < 0.5).tolist()
        return list(zip(down, across, mirrored, strict=True))

    def attack(self, shown: Tensor, labels: Tensor, start: Tensor) -> Tensor:
        """Ascent from -0.5 .. 0.5, within the ball and these."""
        self.model.eval()
        radius, step = self.method.attack_epsilon / 255, self.method.attack_step_size / 255

        def projected(attacked: Tensor) -> Tensor:
            return (shown + (attacked - shown).clamp(-radius, radius)).clamp(-0.5, 0.5)

        attacked = projected(shown + start)
        for _ in range(self.method.attack_steps):
            attacked.requires_grad_(True)
            loss = functional.cross_entropy(self.model(attacked), labels)
            (gradient,) = torch.autograd.grad(loss, attacked)
            attacked = projected(attacked.detach() + step * gradient.sign())
        return attacked

    def gradient(self, rows: Tensor, noise: Tensor, samples: list[tuple[list[Any], Tensor]]) -> Tensor:
        """By autograd through clipping and cropping; the attack counts as a constant."""
        noise = noise.clone().requires_grad_(True)
        for moves, start in samples:
            shown = moved(clipped(self.images[rows] + noise), moves) - 0.5
            attacked = self.attack(shown.detach(), self.labels[rows], start).requires_grad_(True)
            loss = functional.cross_entropy(self.model(attacked), self.labels[rows], reduction="sum")
            (found,) = torch.autograd.grad(loss, attacked)
            torch.autograd.backward((shown * found).sum())
        assert noise.grad is not None
        return noise.grad

    def defended(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Whole grey levels."""
        method, shape = self.method, (len(rows), SIDE, SIDE, 3)
        noise = self.drawn_noise(method.epsilon, shape, generator)
        for _ in range(method.num_steps):
            every = self.drawn_moves(method.num_samples * len(rows), generator)
            starts = self.drawn_noise(method.attack_epsilon, (len(every), *shape[1:]), generator)
            parts = range(0, len(every), len(rows))
            samples = [(every[first : first + len(rows)], starts[first : first + len(rows)]) for first in parts]
            step = self.gradient(rows, noise, samples).sign() * method.step_size / 255
            noise = (noise - step).clamp(-method.epsilon / 255, method.epsilon / 255)
        return (noise * 255).round()


def floats(split: Split) -> Tensor:
    return torch.from_numpy(split.pixels()).double().permute(0, 3, 1, 2) / 255


def clipped(images: Tensor) -> Tensor:
    """To 0 .. 1; at these themselves, where the derivative is a convention, gradients pass."""
    outside = (images < -1e-9) | (images > 1 + 1e-9)
    return torch.where(outside, images.detach().clamp(0, 1), images)


def moved(images: Tensor, moves: list[tuple[int, int, bool]]) -> Tensor:
    """A crop out of each padded image, perhaps mirrored."""
    crops = []
    for image, (down, across, mirrored) in zip(images, moves, strict=True):
        padded = functional.pad(image, (REACH,) * 4)
        crop = padded[:, REACH + down : REACH + down + SIDE, REACH + across : REACH + across + SIDE]
        crops.append(crop.flip(2) if mirrored else crop)
    return torch.stack(crops)


def equal_share(found: Tensor, expected: Tensor) -> float:
    return float((found.double() == expected.double()).double().mean())


# --- one batch of every inner step ---


@pytest.mark.usefixtures("in_float64")
def test_an_attack_is_that_of_a_plain_restatement() -> None:
    craft, rows = defence(), torch.arange(9)
    plain, generator = Plain(craft), torch.Generator().manual_seed(5)
    moves = plain.drawn_moves(9, generator)
    start = plain.drawn_noise(4, (9, SIDE, SIDE, 3), generator)
    shifts, own_start = craft._surroundings(torch.Generator().manual_seed(5), 9)
    labels = craft.steps.labels[rows]
    frozen = craft.surrogate.frozen(METHOD.precision)
    found = craft.attacked(frozen, craft.steps.units(rows), labels, shifts, own_start)
    expected = plain.attack(moved(plain.images[rows], moves) - 0.5, labels, start)
    units = ((expected + 0.5) / plain.unit).round().permute(0, 2, 3, 1)
    assert equal_share(found, units) > 0.999
    clean = craft.steps.units(rows)
    assert not torch.equal(found, clean)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("num_samples", [1, 3])
def test_the_gradient_is_the_sum_over_the_samples_through_clipping_and_cropping(num_samples: int) -> None:
    craft = defence(dataclasses.replace(METHOD, num_samples=num_samples))
    rows, plain, generator = torch.arange(4, 11), Plain(craft), torch.Generator().manual_seed(6)
    every = plain.drawn_moves(7 * num_samples, generator)
    starts = plain.drawn_noise(4, (len(every), SIDE, SIDE, 3), generator)
    noise = plain.drawn_noise(8, (7, SIDE, SIDE, 3), generator)
    samples = [(every[first : first + 7], starts[first : first + 7]) for first in range(0, len(every), 7)]
    expected = plain.gradient(rows, noise, samples).permute(0, 2, 3, 1)

    shifts, own_starts = craft._surroundings(torch.Generator().manual_seed(6), 7 * num_samples)
    units = (noise / plain.unit).round().permute(0, 2, 3, 1)
    frozen = craft.surrogate.frozen(METHOD.precision)
    found = craft.gradient(frozen, craft.steps.units(rows), units, craft.steps.labels[rows], shifts, own_starts)
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-12)
    outside = (plain.images[rows] + noise < 0) | (plain.images[rows] + noise > 1)
    assert 0.1 < float(outside.double().mean()) < 0.9
    assert not found.permute(0, 3, 1, 2)[outside].any()


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("images_at_once", [3, 128])
def test_noise_takes_the_steps_of_a_plain_restatement(images_at_once: int) -> None:
    craft, rows = defence(images_at_once=images_at_once), torch.tensor([4, 0, 11, 7, 19])
    found = craft.defended(craft.surrogate.frozen(METHOD.precision), rows, "noise", 0)
    expected = Plain(craft).defended(rows, craft._drawn("noise", 0)).permute(0, 2, 3, 1)
    assert found.dtype is torch.int8
    assert equal_share(found, expected) > 0.999
    assert len(found.unique()) > 8


@pytest.mark.usefixtures("in_float64")
def test_the_surrogate_takes_a_step_on_shifted_and_attacked_images_with_the_rounded_noise() -> None:
    craft = defence()
    plain = Plain(craft)
    order = craft.shuffled(craft._keys, "pass", 0)
    rows, before = order[8:16], copy.deepcopy(plain.model)
    craft.train(1)
    after, plain.model = plain.model, before
    noise = plain.defended(rows, craft._drawn("noise", 1))
    assert equal_share(craft.kept[rows], noise.permute(0, 2, 3, 1)) > 0.999

    generator = craft._drawn("attack", 1)
    moves = plain.drawn_moves(8, generator)
    start = plain.drawn_noise(4, (8, SIDE, SIDE, 3), generator)
    kept = craft.kept[rows].double().permute(0, 3, 1, 2) / 255
    shown = (moved(plain.images[rows] + kept, moves) - 0.5).clamp(-0.5, 0.5)
    attacked = plain.attack(shown, plain.labels[rows], start)
    optimiser = torch.optim.SGD(plain.model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    plain.model.train()
    torch.autograd.backward(functional.cross_entropy(plain.model(attacked), plain.labels[rows]))
    optimiser.step()
    for own, expected in zip(after.state_dict().values(), plain.model.state_dict().values(), strict=True):
        assert torch.allclose(own, expected, rtol=1e-6, atol=1e-9)


# --- what comes of it ---


LEARNT = dataclasses.replace(METHOD, epsilon=16, attack_epsilon=8, num_steps=4, step_size=8, train_steps=28)


def crafted(method: RobustErrorMinimizing, train: Split) -> tuple[Additive, dict[str, Any]]:
    found = method.generate(train, context())
    (layer,) = found.layers
    assert isinstance(layer, Additive)
    return layer, found.notes


def test_the_surrogate_s_loss_falls_although_it_is_attacked() -> None:
    train = patches()
    layer, notes = crafted(LEARNT, train)
    losses = [line["surrogate_loss"] for line in notes["trace"]]
    assert len(losses) == 4
    assert losses[-1] < losses[0] / 2
    assert notes["final"]["accuracy"] > 90
    assert LEARNT.shortfall(notes) == ""
    changed = np.clip(train.images.astype(np.int16) + layer.levels, 0, 255).astype(np.uint8)
    found = linear_separability(train.pixels(), changed, train.labels)
    assert found is not None
    assert found.held_out > 60, "the noise of a class is told apart"


@pytest.mark.parametrize("rule", Quantize)
def test_no_byte_is_changed_beyond_the_bound(rule: Quantize) -> None:
    train = extreme()
    layer, _ = crafted(dataclasses.replace(METHOD, quantize=rule), train)
    assert layer.levels.dtype == np.int8
    assert int(np.abs(layer.levels).max()) == 8
    whole = Perturbation(layers=(layer,), source_digest=train.digest)
    changed = whole.apply(train.images, train.labels, train.keys).astype(np.int16)
    assert int(np.abs(changed - train.images).max()) == 8


def test_rounding_is_that_of_the_rule() -> None:
    levels = {rule: defence(dataclasses.replace(METHOD, quantize=rule))._levels.tolist() for rule in Quantize}
    per_level = defence().grid.per_level
    exact = np.arange(-8 * per_level, 8 * per_level + 1) / per_level
    assert levels[Quantize.DELTA_INT8] == np.rint(exact).tolist()
    assert levels[Quantize.TRUNC] == np.floor(exact).tolist()


def test_the_positive_part_of_the_noise_is_what_is_left_of_it() -> None:
    both, _ = crafted(METHOD, extreme())
    positive, _ = crafted(dataclasses.replace(METHOD, apply=Apply.POSITIVE_PART), extreme())
    assert np.array_equal(positive.levels, np.maximum(both.levels, 0))


def test_of_the_last_batch_every_image_gets_new_noise_unless_it_is_left() -> None:
    """20 images in batches of 8: 4 of a pass are left over, and 2 + 1 batches are trained on."""
    before: dict[bool, Tensor] = {}
    after: dict[bool, Tensor] = {}
    for left in (False, True):
        craft = defence(dataclasses.replace(METHOD, leave_last_batch=left))
        for _ in range(2):
            run_phase(craft)
        before[left] = craft.kept.clone()
        run_phase(craft)
        after[left] = craft.kept
        assert craft.following() is None
        assert craft.final["loss"] == pytest.approx(float(craft.losses[craft.losses > 0].double().mean()), abs=1e-5)
    assert torch.equal(before[False], before[True])
    same = {left: (before[left] == after[left]).flatten(1).all(dim=1) for left in (False, True)}
    assert not same[False].any()
    assert int(same[True].sum()) == 4


def run_phase(craft: Defence) -> None:
    phase = craft.following()
    assert phase is not None
    for step in phase.steps:
        phase.step(step)
    phase.end()
    craft.done += 1


def test_the_learning_rate_falls_to_a_tenth_again_and_again() -> None:
    craft = defence(dataclasses.replace(METHOD, train_steps=5, decay_every=2))
    rates = []
    for number in range(5):
        craft.done, step = divmod(number, craft.per_pass)
        craft.train(step)
        rates += [group["lr"] for group in craft.surrogate.parts()["optimiser"].param_groups]  # type: ignore[union-attr]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_the_last_pass_ends_with_the_last_step() -> None:
    craft = defence()
    steps = []
    while (phase := craft.following()) is not None:
        steps.append((phase.unit, len(phase.steps)))
        craft.done += 1
    assert steps == [("step", 2), ("step", 1), ("batch", 3)]


def test_the_defaults_are_the_published_settings() -> None:
    method = RobustErrorMinimizing()
    assert (method.epsilon, method.num_steps, method.step_size) == (8, 10, 1.6)
    assert (method.attack_epsilon, method.attack_steps, method.attack_step_size) == (4, 10, 0.8)
    assert (method.num_samples, method.train_steps, method.decay_every) == (5, 5000, 2000)
    settings = method.surrogate
    assert (settings.model, settings.batch_size, settings.learning_rate) == ("resnet18", 128, 0.1)
    assert (settings.momentum, settings.weight_decay, settings.gradient_clip) == (0.9, 5e-4, None)
    grid, attack = method.grids()
    assert (grid.per_level, grid.bound, attack.per_level, attack.bound) == (125, 1000, 125, 500)


@pytest.mark.parametrize("epsilon", [4, 3])
def test_an_attack_that_may_do_as_much_as_the_noise_is_refused(epsilon: float) -> None:
    with pytest.raises(InputError, match=f"attack_epsilon is 4, must be below epsilon, {epsilon}"):
        RobustErrorMinimizing(epsilon=epsilon)


def test_a_surrogate_that_learned_nothing_is_told_to_fall_short() -> None:
    notes = {"trace": [{"surrogate_accuracy": 12.0}, {"surrogate_accuracy": 15.0}], "final": {"accuracy": 31.25}}
    told = METHOD.shortfall(notes)
    assert told.startswith("after 2 passes the surrogate is right about 31.2 % of the perturbed images; more steps")


def test_a_craft_tells_how_long_it_may_take_and_how_it_goes() -> None:
    said: list[str] = []
    METHOD.generate(extreme(), context(Listening(said=said)))
    assert "for 2 passes and the noise of all images" in said[0]
    assert said[1].startswith("pass 1 of 2: surrogate ")
    assert said[-1].startswith("noise of all images: surrogate ")


# --- the simplification ---


@pytest.mark.usefixtures("in_float64")
def test_the_simplification_goes_up_from_where_it_was_and_down_from_there() -> None:
    train = extreme()
    rounds = FirstUp(SIMPLIFIED, train, context())
    model = rounds.surrogate.parts()["model"].eval()  # type: ignore[union-attr]
    images, labels = floats(train), torch.from_numpy(train.labels)

    def steps(noise: Tensor, epsilon: float, step: float, sign: int) -> Tensor:
        shown = (images + noise).clamp(0, 1)
        for _ in range(5):
            shown.requires_grad_(True)
            loss = functional.cross_entropy(model(shown), labels)
            (gradient,) = torch.autograd.grad(loss, shown)
            noise = (shown.detach() + sign * step / 255 * gradient.sign() - images).clamp(-epsilon / 255, epsilon / 255)
            shown = (images + noise).clamp(0, 1)
        return noise

    raised = torch.zeros_like(images)
    for _ in range(2):
        rounds.improve(rounds.surrogate.frozen(SIMPLIFIED.precision), 0)
        raised = steps(raised, 4, 0.8, 1)
        down = steps(raised, 8, 1.6, -1)
        for found, expected in ((rounds.raised, raised), (rounds.noise, down)):
            units = (expected * 255 * rounds.grid.per_level).round().permute(0, 2, 3, 1)
            assert equal_share(found, units) > 0.999


def test_the_simplification_has_the_settings_of_apbench() -> None:
    method = SimplifiedRobustErrorMinimizing()
    assert (method.epsilon, method.step_size, method.num_steps) == (8, 8 / 5, 5)
    assert (method.ascent_epsilon, method.ascent_step_size, method.ascent_steps) == (8 / 2, 8 / 10, 5)
    assert (method.surrogate.batch_size, method.surrogate.gradient_clip, method.steps_per_round) == (128, 5.0, 10)
    assert (method.stop_accuracy, method.stop_rule) == (0.99, StopRule.ABOVE)
    assert method.quantize is Quantize.HALF_UP


def test_the_simplification_makes_the_surrogate_right() -> None:
    method = dataclasses.replace(SIMPLIFIED, steps_per_round=10, max_rounds=20)
    notes = method.generate(patches(), context()).notes
    assert notes["stop_rule_met"]
    assert notes["trace"][-1]["loss"] < notes["trace"][0]["loss"]
