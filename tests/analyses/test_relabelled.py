"""Other labels: groups of classes, the data that has them, and what two sides of runs say."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_up import bright_or_dark, make_history

from ule_datasets.analyses.relabelled import group_numbers, grouping, relabelled, summarise
from ule_datasets.base.errors import InputError
from ule_datasets.experiments.effect import Collapse
from ule_datasets.victims.data import TrainingData


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data_of(num_classes: int) -> TrainingData:
    """Every class three times."""
    labels = np.arange(3 * num_classes) % num_classes
    images = bright_or_dark(3 * num_classes).images
    return TrainingData(
        images=images,
        labels=labels,
        test_images=images[:num_classes],
        test_labels=labels[:num_classes][::-1].copy(),
        num_classes=num_classes,
    )


@pytest.mark.parametrize(
    ("classes", "numbers"), [(1, ()), (2, ()), (3, ()), (4, (2,)), (5, (2,)), (6, (3, 2)), (10, (5, 2)), (37, (18, 2))]
)
def test_half_as_many_groups_as_classes_and_two(classes: int, numbers: tuple[int, ...]) -> None:
    assert group_numbers(classes) == numbers


@given(st.integers(2, 60), st.data(), st.integers(0, 2**31))
def test_groups_are_all_there_and_of_nearly_one_size(classes: int, data: st.DataObject, seed: int) -> None:
    number = data.draw(st.integers(2, classes))
    groups = grouping(classes, number, drawn(seed))
    assert (groups.dtype, groups.shape) == (np.int64, (classes,))
    sizes = np.bincount(groups, minlength=number)
    assert len(sizes) == number
    assert sizes.max() - sizes.min() <= 1


def test_groups_are_drawn_from_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (grouping(10, 5, drawn(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("number", [1, 0, -2, 11])
def test_impossible_groups_are_refused(number: int) -> None:
    with pytest.raises(InputError, match=f"10 classes cannot be put into {number} groups, choose from 2 to 10"):
        grouping(10, number, drawn(0))


def test_images_stay_and_labels_are_the_groups() -> None:
    data, groups = data_of(6), np.array([1, 0, 2, 2, 1, 0])
    changed = relabelled(data, groups)
    assert changed.images is data.images
    assert changed.test_images is data.test_images
    assert changed.labels.tolist() == [1, 0, 2, 2, 1, 0] * 3
    assert changed.test_labels.tolist() == [0, 1, 2, 2, 0, 1]
    assert changed.num_classes == 3
    assert data.num_classes == 6
    with pytest.raises(InputError, match="the groups are those of 6 classes, the data has 4"):
        relabelled(data_of(4), groups)


def test_both_sides_are_compared_seed_by_seed() -> None:
    clean = {seed: make_history(90.0 + seed, seed=seed) for seed in (2, 0, 1)}
    poisoned = {seed: make_history(25.0 + seed, seed=seed) for seed in (0, 2, 7)}
    found = summarise(clean, poisoned, dataset="mine", control="cifar10", num_groups=5, num_test=2_000)
    assert found is not None
    assert (found.num_groups, found.seeds, found.chance) == (5, (0, 2), 20.0)
    assert found.comparison.clean.values == (90.0, 92.0)
    assert found.comparison.poisoned.values == (25.0, 27.0)
    assert (found.comparison.dataset, found.comparison.control) == ("mine", "cifar10")
    assert found.comparison.collapse is Collapse.SHOWN
    content = dataclasses.asdict(found)
    assert json.loads(json.dumps(content))["comparison"]["poisoned"]["values"] == [25.0, 27.0]


def test_chance_is_that_of_the_groups() -> None:
    """Half of the way from guessing among two is no collapse, though it is far below the control."""
    sides = {0: make_history(99.0)}, {0: make_history(78.0)}
    two = summarise(*sides, dataset="mine", control="cifar10", num_groups=2, num_test=2_000)
    assert two is not None
    assert two.chance == 50.0
    assert two.comparison.collapse is Collapse.NOT_SHOWN
    names = {"dataset": "m", "control": "c"}
    near = summarise({0: make_history(99.0)}, {0: make_history(60.0)}, **names, num_groups=2, num_test=2_000)
    assert near is not None
    assert near.comparison.collapse is Collapse.SHOWN


def test_without_a_common_seed_nothing_is_said() -> None:
    one = make_history(90.0)
    assert summarise({0: one}, {1: one}, dataset="mine", control="cifar10", num_groups=2, num_test=2_000) is None
