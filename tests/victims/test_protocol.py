"""Schedules at their corners, what a result is filed under, and the protocols of the profiles."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import pytest
import torch

from ule_datasets.base.content import content
from ule_datasets.base.errors import InputError
from ule_datasets.compute.precision import Precision
from ule_datasets.countermeasures import COUNTERMEASURES, L2Attack, parse_strategy
from ule_datasets.experiments.profiles import PROFILES
from ule_datasets.models.weights import WEIGHTS
from ule_datasets.papers.rules import Power
from ule_datasets.victims.fine_tuned import FineTuned
from ule_datasets.victims.protocol import AdamW, Cosine, MultiStep, OneCycle, Sgd, TrainingProtocol, Triangle
from ule_datasets.victims.table import QUICK

BASE = TrainingProtocol(model="resnet18-w8", epochs=2, strategy=parse_strategy("standard"))


def test_one_cycle_rises_to_the_peak_and_falls_to_nearly_nothing() -> None:
    factors = [OneCycle().factor(step, 1000) for step in range(1001)]
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[300] == 1.0
    assert factors[1000] == pytest.approx(1 / 250_000)
    assert factors[150] == pytest.approx((1 + 1 / 25) / 2)
    assert factors[650] == pytest.approx((1 + 1 / 250_000) / 2)
    assert factors[:301] == sorted(factors[:301])
    assert factors[300:] == sorted(factors[300:], reverse=True)


def test_one_cycle_is_the_one_of_torch() -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=101, cycle_momentum=False)
    for step in range(101):
        # torch counts its warm-up to step 0.3 * 101 - 1, and ends at the last step instead of after it
        assert OneCycle().factor(step, 100) == pytest.approx(theirs.get_last_lr()[0] / 0.1, abs=0.03)
        optimiser.step()
        theirs.step() if step < 100 else None


def test_a_single_step_has_a_learning_rate_under_every_schedule() -> None:
    assert OneCycle().factor(0, 1) == pytest.approx(1 / 25)
    assert MultiStep().factor(0, 1) == Cosine().factor(0, 1) == 1.0
    assert Triangle().factor(0, 1) == 0.2


def test_a_triangle_is_two_straight_lines() -> None:
    factors = [Triangle(warm_up=0.25, start=0.5).factor(step, 400) for step in range(401)]
    assert (factors[0], factors[50], factors[100], factors[250], factors[400]) == (0.5, 0.75, 1.0, 0.5, 0.0)
    slopes = [after - before for before, after in itertools.pairwise(factors)]
    assert slopes == pytest.approx([0.5 / 100] * 100 + [-1 / 300] * 300)


def test_nesterov_is_off_unless_it_is_asked_for() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    assert Sgd().over([weight]).defaults["nesterov"] is False
    assert Sgd(nesterov=True).over([weight]).defaults["nesterov"] is True
    assert content(Sgd(nesterov=False)) == content(Sgd())


@pytest.mark.parametrize(("epochs", "steps"), [(200, 391), (200, 782), (20, 3), (4, 1)])
def test_multi_step_drops_with_the_first_step_of_its_epochs(epochs: int, steps: int) -> None:
    total, half, three_quarters = epochs * steps, epochs // 2 * steps, epochs * 3 // 4 * steps
    factors = [MultiStep().factor(step, total) for step in range(total)]
    assert set(factors[:half]) == {1.0}
    assert set(factors[half:three_quarters]) == {0.1}
    assert set(factors[three_quarters:]) == {0.1**2}


def test_cosine_falls_from_the_highest_to_its_end() -> None:
    schedule = Cosine()
    assert schedule.factor(0, 400) == 1.0
    assert schedule.factor(100, 400) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert schedule.factor(200, 400) == pytest.approx(0.5)
    assert schedule.factor(400, 400) == pytest.approx(0.0)
    assert Cosine(end=0.1).factor(400, 400) == pytest.approx(0.1)
    factors = [schedule.factor(step, 400) for step in range(401)]
    assert factors == sorted(factors, reverse=True)


@pytest.mark.parametrize(
    ("epochs", "interval", "tested"),
    [
        (200, 10, {*range(1, 6), *range(10, 200, 10), *range(196, 201)}),
        (12, None, set(range(1, 13))),
        (12, 100, {*range(1, 6), *range(8, 13)}),
        (7, 3, set(range(1, 8))),
        (1, 10, {1}),
    ],
)
def test_both_ends_of_a_run_are_tested_whatever_the_interval(
    epochs: int, interval: int | None, tested: set[int]
) -> None:
    assert dataclasses.replace(BASE, epochs=epochs, test_interval=interval).tested_epochs == tested


def test_a_test_interval_is_off_by_default_and_known_in_paper() -> None:
    assert "test_interval" not in content(BASE)
    assert content(dataclasses.replace(BASE, test_interval=10))["test_interval"] == 10
    intervals = {
        name: each.protocol("resnet18", "none", flippable=True).test_interval for name, each in PROFILES.items()
    }
    assert intervals.pop("paper") == 10
    assert set(intervals.values()) == {None}


@pytest.mark.parametrize(("field", "value"), [("epochs", 0), ("batch_size", 1), ("test_interval", 1)])
def test_an_impossible_protocol_is_refused(field: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{field} is {value}, must be at least"):
        dataclasses.replace(BASE, **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("clip", [0.0, -1.0, math.inf, math.nan])
def test_an_impossible_clip_is_refused(clip: float) -> None:
    with pytest.raises(InputError, match=f"gradient_clip is {clip}, must be finite and above 0, or None"):
        dataclasses.replace(BASE, gradient_clip=clip)


CHANGES: tuple[dict[str, object], ...] = (
    {"model": "lenet5"},
    {"epochs": 3},
    {"batch_size": 64},
    {"optimiser": Sgd(learning_rate=0.2)},
    {"optimiser": Sgd(momentum=0.8)},
    {"optimiser": Sgd(weight_decay=0.0)},
    {"optimiser": Sgd(nesterov=True)},
    {"optimiser": AdamW()},
    {"schedule": MultiStep()},
    {"schedule": Cosine()},
    {"schedule": Triangle()},
    {"schedule": OneCycle(warm_up=0.2)},
    {"precision": Precision.BFLOAT16},
    {"compiled": True},
    {"start": "abc"},
    {"gradient_clip": 5.0},
    {"normalise": True},
    {"strategy": parse_strategy("standard", flippable=False)},
    *({"strategy": parse_strategy(name)} for name in ("none", "linf-at+mixup", "l2-at-eps1", "l2-at-eps2")),
    *({"strategy": parse_strategy(kind.word)} for kind in COUNTERMEASURES if kind is not L2Attack),
)


def test_whatever_differs_is_filed_elsewhere() -> None:
    protocols = [BASE, *(dataclasses.replace(BASE, **change) for change in CHANGES)]  # type: ignore[arg-type]
    contents = [json.dumps(content(protocol), sort_keys=True) for protocol in protocols]
    assert len(set(contents)) == len(contents)


def test_content_is_plain_json() -> None:
    for change in CHANGES:
        values = content(dataclasses.replace(BASE, **change))  # type: ignore[arg-type]
        assert json.loads(json.dumps(values, allow_nan=False)) == values
    sgd = {"is": "Sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    assert content(BASE)["strategy"]["augmentation"] == {"is": "Augmentation", "crop_padding": 4, "flip": True}
    assert content(BASE)["optimiser"] == sgd
    assert "gradient_clip" not in content(BASE)


def test_a_protocol_reads_as_model_and_strategy() -> None:
    assert str(dataclasses.replace(BASE, strategy=parse_strategy("cutout+linf-at"))) == "resnet18-w8, linf-at+cutout"


def test_the_profiles_train_as_the_papers_do() -> None:
    paper = PROFILES["paper"].protocol("resnet18", "standard", flippable=True)
    assert (paper.epochs, paper.batch_size, paper.optimiser, paper.schedule) == (200, 128, Sgd(), MultiStep())
    assert (paper.optimiser.learning_rate, paper.optimiser.weight_decay) == (0.1, 5e-4)
    assert PROFILES["paper"].protocol("wrn-28-10", "standard", flippable=True).batch_size == 64
    for model in ("cvt-7-4", "cct-7-3x1"):
        assert PROFILES["paper"].protocol(model, "standard", flippable=True).optimiser == AdamW()
    fast = PROFILES["fast"].protocol("resnet18", "mixup", flippable=False, compiled=True)
    assert (fast.epochs, fast.schedule, fast.precision, fast.compiled) == (20, OneCycle(), Precision.BFLOAT16, True)
    assert not fast.strategy.augmentation.flip


def test_the_quick_profile_trains_its_own_network_with_the_optimiser_that_was_chosen_with_it() -> None:
    quick = PROFILES["quick"]
    assert quick.trained_for("resnet18") == "quicknet"
    own, other = (quick.protocol(model, "standard", flippable=True) for model in ("quicknet", "resnet18"))
    assert (own.batch_size, own.optimiser, own.schedule) == (256, QUICK, Triangle())
    assert (other.batch_size, other.optimiser, other.schedule) == (128, Sgd(), Triangle())


@pytest.mark.parametrize(("profile", "epochs"), [("paper", 60), ("fast", 20), ("quick", 20), ("smoke", 30)])
@pytest.mark.parametrize("strategy", ["none", "standard", "mixup"])
def test_trained_weights_are_fine_tuned_as_in_bait(profile: str, epochs: int, strategy: str) -> None:
    """Everything but the strategy, the epochs and the precision is fixed; the digest comes with the file."""
    chosen = PROFILES[profile]
    assert chosen.protocol("resnet18@imagenet", strategy, flippable=False) == TrainingProtocol(
        model="resnet18@imagenet",
        epochs=epochs,
        strategy=parse_strategy(strategy, flippable=False),
        batch_size=128,
        optimiser=Sgd(learning_rate=0.001, momentum=0.9, weight_decay=5e-4),
        schedule=Cosine(end=0.0),
        gradient_clip=5.0,
        normalise=False,
        precision=chosen.precision,
        test_interval=10 if profile == "paper" else None,
        start="",
    )


def test_only_imagenet_classifiers_get_images_as_they_are() -> None:
    assert [name for name, weights in WEIGHTS.items() if not FineTuned(weights=weights).normalise] == [
        "resnet18@imagenet",
        "resnet50@imagenet",
        "efficientnet-lite0@imagenet",
    ]
    assert PROFILES["smoke"].protocol("resnet20@cifar10", "none", flippable=True).normalise
    assert not PROFILES["smoke"].protocol("resnet18-w8", "none", flippable=True).normalise


def test_profiles_say_no_more_than_they_can() -> None:
    assert {name: profile.power for name, profile in PROFILES.items()} == {
        "smoke": Power.NONE,
        "quick": Power.EFFECTS,
        "fast": Power.CONSISTENCY,
        "paper": Power.FULL,
    }
    assert all(profile.max_train_images is None for profile in PROFILES.values() if profile.power is not Power.NONE)
    assert PROFILES["smoke"].protocol("resnet18-w8", "none", flippable=True).strategy == parse_strategy("none")


def test_a_stand_in_is_trained_for_the_resnet18_alone() -> None:
    smoke, paper = PROFILES["smoke"], PROFILES["paper"]
    assert smoke.trained_for("resnet18") == smoke.trained_for("resnet18-w8") == "resnet18-w8"
    assert smoke.trained_for("densenet121") is None
    assert paper.trained_for("densenet121") == "densenet121"
    assert all(profile.trained_for(name) == name for profile in PROFILES.values() for name in WEIGHTS)


def test_an_unknown_strategy_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="'blur' is not known; a strategy is none, standard, or"):
        PROFILES["smoke"].protocol("resnet18-w8", "blur", flippable=True)
