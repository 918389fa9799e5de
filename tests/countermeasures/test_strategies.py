"""Strategies by name: the papers' and every other combination, in one canonical order, as plain JSON."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ule_datasets.base.errors import InputError
from ule_datasets.countermeasures import (
    CutMix,
    Cutout,
    L2Attack,
    LInfAttack,
    Mixup,
    RandAugment,
    TorchvisionRandAugment,
    parse_strategy,
)
from ule_datasets.models.architectures import build_model
from ule_datasets.victims.augmentation import Augmentation, to_float
from ule_datasets.victims.strategy import Countermeasure, Progress, Strategy

CROP_AND_FLIP = Augmentation(crop_padding=4, flip=True)

STAGES = (
    (None, "linf-at", "l2-at-eps0.5", "l2-at-eps3"),
    (None, "randaugment", "randaugment-torchvision"),
    (None, "cutout"),
    (None, "mixup", "cutmix"),
)
"""In canonical order; of each at most one."""

PAPERS = (
    "none",
    "standard",
    "mixup",
    "cutout",
    "randaugment",
    "randaugment+cutout",
    "cutmix",
    "linf-at",
    "linf-at+mixup",
    "linf-at+cutout",
    "linf-at+randaugment",
    "l2-at-eps0.5",
    "l2-at-eps1",
    "l2-at-eps2",
)
"""Those in the tables of the OPS paper."""

PARTS = [part for stage in STAGES for part in stage if part]


@pytest.mark.parametrize("flippable", [True, False])
def test_the_strategies_of_the_papers(flippable: bool) -> None:
    byte, square, attack = RandAugment(), Cutout(), LInfAttack()
    expected: dict[str, tuple[Countermeasure, ...]] = {
        "standard": (),
        "mixup": (Mixup(),),
        "cutout": (square,),
        "randaugment": (byte,),
        "randaugment+cutout": (byte, square),
        "cutmix": (CutMix(),),
        "linf-at": (attack,),
        "linf-at+mixup": (attack, Mixup()),
        "linf-at+cutout": (attack, square),
        "linf-at+randaugment": (attack, byte),
        "l2-at-eps0.5": (L2Attack(radius=0.5),),
        "l2-at-eps1": (L2Attack(radius=1.0),),
        "l2-at-eps2": (L2Attack(radius=2.0),),
    }
    augmentation = Augmentation(crop_padding=4, flip=flippable)
    for slug, parts in expected.items():
        strategy = Strategy(name=slug, augmentation=augmentation, parts=parts)
        assert parse_strategy(slug, flippable=flippable) == strategy
    none = Strategy(name="none", augmentation=Augmentation(crop_padding=0, flip=False))
    assert parse_strategy("none", flippable=flippable) == none
    assert {"none", *expected} == set(PAPERS)


def test_the_settings_of_the_papers() -> None:
    assert dataclasses.asdict(parse_strategy("l2-at-eps2+randaugment-torchvision+cutout+cutmix")) == {
        "name": "l2-at-eps2+randaugment-torchvision+cutout+cutmix",
        "augmentation": {"crop_padding": 4, "flip": True},
        "parts": (
            {"radius": 2.0, "step": 0.25, "steps": 10},
            {"num_ops": 2, "magnitude": 9},
            {"size": 16},
            {"alpha": 1.0, "probability": 0.5},
        ),
    }
    assert dataclasses.asdict(parse_strategy("linf-at+mixup"))["parts"] == (
        {"radius": 8 / 255, "step": 2 / 255, "steps": 10},
        {"alpha": 1.0},
    )


@pytest.mark.parametrize("parts", list(itertools.product(*STAGES)))
def test_every_combination_is_known_in_any_order(parts: tuple[str | None, ...]) -> None:
    used = [part for part in parts if part]
    canonical = "+".join(used) or "standard"
    expected = parse_strategy(canonical)
    assert expected.name == str(expected) == canonical
    assert expected.augmentation == CROP_AND_FLIP
    assert [part.name for part in expected.parts] == used
    for order in itertools.permutations(used):
        if order:
            assert parse_strategy("+".join(order)) == expected
    json.dumps(dataclasses.asdict(expected), allow_nan=False)


@given(radius=st.floats(1e-6, 1e6))
def test_any_radius_can_be_named(radius: float) -> None:
    strategy = parse_strategy(L2Attack(radius=radius).name + "+cutout")
    assert strategy.parts[0] == L2Attack(radius=radius)
    assert parse_strategy(strategy.name) == strategy


@pytest.mark.parametrize(
    ("written", "name"),
    [("l2-at-eps0.50", "l2-at-eps0.5"), ("l2-at-eps1.0", "l2-at-eps1"), ("l2-at-eps02", "l2-at-eps2")],
)
def test_a_radius_has_one_name(written: str, name: str) -> None:
    assert parse_strategy(written).name == name


@pytest.mark.parametrize(
    ("slug", "word"),
    [
        *(("", ""), ("cutuot", "cutuot"), ("cutout+", ""), ("cutout+none", "none"), ("standard+mixup", "standard")),
        *((f"cutout+{word}", word) for word in ("l2-at", "l2-at-eps", "l2-at-eps0", "l2-at-eps0.0", "l2-at-eps-1")),
        *((word, word) for word in ("l2-at-eps1e3", "l2-at-epsinf", "l2-at-eps" + "9" * 400, "l2-at-eps1 ", "Mixup")),
    ],
)
def test_an_unknown_part_is_refused_with_those_that_are_known(slug: str, word: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_strategy(slug)
    message = str(caught.value)
    assert message.startswith(f"strategy {slug!r}: {word!r} is not known; ")
    assert all(part in message for part in [*PARTS[:1], *PARTS[3:], "none", "standard", "l2-at-epsE"])
    assert "\n" not in message


@pytest.mark.parametrize(
    "pair", [pair for stage in STAGES for pair in itertools.product(stage[1:], repeat=2)], ids="+".join
)
def test_two_parts_in_one_place_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(InputError, match=f"{pair[0]} and {pair[1]} exclude each other; a strategy is none, standard"):
        parse_strategy("+".join(pair))


@pytest.mark.parametrize("slug", [*PAPERS, "linf-at+randaugment+cutout+cutmix"])
@pytest.mark.usefixtures("one_thread")
def test_parts_fit_together(slug: str) -> None:
    """As the training loop runs them; the same generators give the same batch."""
    strategy, model = parse_strategy(slug), build_model("convnet3-w16", 3, seed=0)
    labels = torch.tensor([0, 1, 2, 0, 1])
    images = torch.randint(0, 256, (5, 12, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    results = []
    for _ in range(2):
        generator, batch = torch.Generator().manual_seed(1), images
        batch = strategy.augmentation.transform(batch, strategy.augmentation.draw(len(batch), generator))
        for part in strategy.parts:
            batch = part.on_bytes(batch, generator)
        batch = to_float(batch)
        for part in strategy.parts:
            batch = part.on_floats(batch, generator)
        for part in strategy.parts:
            batch = part.attack(batch, labels, model, generator, Progress(epoch=1, epochs=1))
        for part in strategy.having("mix"):
            batch = part.mix(batch, labels, generator).images
        results.append(batch)
    assert torch.equal(*results)
    assert results[0].dtype is torch.float32
    assert results[0].shape == (5, 3, 12, 12)
    assert results[0].is_contiguous(memory_format=torch.channels_last)
    assert 0 <= float(results[0].min()) < float(results[0].max()) <= 1
    assert torch.equal(results[0], to_float(images)) == (slug == "none")


def test_the_variant_of_torchvision_is_another_one() -> None:
    assert parse_strategy("randaugment-torchvision").parts == (TorchvisionRandAugment(),)
