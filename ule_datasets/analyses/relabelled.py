"""Labels that the protector did not know: does protection hold for who gives the images other classes?

Figure 4 of Jiaming Zhang et al., "Unlearnable Clusters: Towards Label-agnostic Unlearnable Examples", CVPR 2023, trains
on protected images whose classes were assigned anew. Here the true classes are grouped at random, and the groups are
the classes: of training and test images alike, so that a model of clean images can learn them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ule_datasets.base.errors import InputError
from ule_datasets.experiments.effect import Comparison, compare
from ule_datasets.victims.data import TrainingData
from ule_datasets.victims.history import RunHistory

FEWEST_CLASSES = 4
"""With fewer, groups of two classes or more would be one group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RelabelledResult:
    """Protected and clean images of one dataset with classes in so many groups; percent."""

    num_groups: int
    seeds: tuple[int, ...]
    """Each has a grouping of its own, shared by both sides; only those of which both runs ended."""
    comparison: Comparison
    """Clean test accuracy and what follows from it, as with the true classes."""
    chance: float
    """Accuracy of guessing among the groups."""


def group_numbers(num_classes: int) -> tuple[int, ...]:
    """Into how many groups classes are put: half as many as there are, and two; of fewer than four classes none.

    More groups than classes would need knowledge of what is inside a class.
    """
    if num_classes < FEWEST_CLASSES:
        return ()
    return tuple(dict.fromkeys((num_classes // 2, 2)))


def grouping(num_classes: int, num_groups: int, generator: torch.Generator) -> np.ndarray:
    """Classes put into groups at random, whose sizes differ by one at most.

    Args:
        num_classes: K.
        num_groups: from 2 to K.
        generator: of the CPU; decides which class goes where.

    Returns:
        The group of each class, int64 [K].

    Raises:
        InputError: there cannot be so many groups.
    """
    if not 2 <= num_groups <= num_classes:
        raise InputError(
            f"{num_classes} classes cannot be put into {num_groups} groups, choose from 2 to {num_classes}"
        )
    groups = np.empty(num_classes, dtype=np.int64)
    groups[torch.randperm(num_classes, generator=generator).numpy()] = np.arange(num_classes) % num_groups
    return groups


def relabelled(data: TrainingData, groups: np.ndarray) -> TrainingData:
    """The same images with the groups of their classes as labels.

    Args:
        data: as it is with the true classes.
        groups: from ``grouping``, int64 [K].

    Raises:
        InputError: the groups are of another number of classes.
    """
    if groups.shape != (data.num_classes,):
        raise InputError(f"the groups are those of {len(groups)} classes, the data has {data.num_classes}")
    return dataclasses.replace(
        data,
        labels=groups[data.labels],
        test_labels=groups[data.test_labels],
        num_classes=int(groups.max()) + 1,
    )


def summarise(
    clean: Mapping[int, RunHistory], poisoned: Mapping[int, RunHistory], *, dataset: str, control: str, num_groups: int
) -> RelabelledResult | None:
    """Runs on clean and on protected images beside each other.

    Args:
        clean: by seed.
        poisoned: by seed.
        dataset: name of the protected images.
        control: name of the clean ones.
        num_groups: of classes, in all of these runs.

    Returns:
        ``None`` where no seed has both runs.
    """
    seeds = tuple(sorted(clean.keys() & poisoned.keys()))
    if not seeds:
        return None
    chance = 100 / num_groups
    comparison = compare(
        [clean[seed] for seed in seeds], [poisoned[seed] for seed in seeds], dataset=dataset, control=control,
        chance=chance,
    )  # fmt: skip
    return RelabelledResult(num_groups=num_groups, seeds=seeds, comparison=comparison, chance=chance)
