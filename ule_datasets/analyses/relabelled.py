"""Labels that the protector did not know: does protection hold for who gives the images other classes?

Figure 4 of Jiaming Zhang et al., "Unlearnable Clusters: Towards Label-agnostic Unlearnable Examples", CVPR 2023, trains
on protected images whose classes were assigned anew. Here the true classes are grouped at random, and the groups are
the classes: of training and test images alike, so that a model of clean images can learn them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ule_datasets.analyses.analysis import Analysis, Material
from ule_datasets.analyses.telling import Named, Row, Section, Table, listed, number, numbers, words
from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.executor import Lost
from ule_datasets.experiments.effect import Comparison, compare
from ule_datasets.experiments.grid import GridResult, estimate_left, shares_done
from ule_datasets.experiments.runs import RunTask
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
    return tuple(dict.fromkeys((num_classes // 2, 2))) if num_classes >= FEWEST_CLASSES else ()


def grouping(num_classes: int, num_groups: int, generator: torch.Generator) -> np.ndarray:
    """The group of each class, int64: drawn by a generator of the CPU, sizes differ by one at most."""
    if not 2 <= num_groups <= num_classes:
        raise InputError(
            f"{num_classes} classes cannot be put into {num_groups} groups, choose from 2 to {num_classes}"
        )
    groups = np.empty(num_classes, dtype=np.int64)
    groups[torch.randperm(num_classes, generator=generator).numpy()] = np.arange(num_classes) % num_groups
    return groups


def relabelled(data: TrainingData, groups: np.ndarray) -> TrainingData:
    """A dataset with the groups of its classes, from ``grouping``, as labels."""
    if groups.shape != (data.num_classes,):
        raise InputError(f"the groups are those of {len(groups)} classes, the data has {data.num_classes}")
    return dataclasses.replace(
        data, labels=groups[data.labels], test_labels=groups[data.test_labels], num_classes=int(groups.max()) + 1
    )


def summarise(
    clean: Mapping[int, RunHistory],
    poisoned: Mapping[int, RunHistory],
    *,
    dataset: str,
    control: str,
    num_groups: int,
    num_test: int,
) -> RelabelledResult | None:
    """Runs on clean and on protected images beside each other, by seed; ``None`` where no seed has both."""
    seeds = tuple(sorted(clean.keys() & poisoned.keys()))
    if not seeds:
        return None
    chance = 100 / num_groups
    sides = ([runs[seed] for seed in seeds] for runs in (clean, poisoned))
    comparison = compare(*sides, dataset=dataset, control=control, chance=chance, num_test=num_test)
    return RelabelledResult(num_groups=num_groups, seeds=seeds, comparison=comparison, chance=chance)


class Relabelled(Analysis[tuple[RelabelledResult, ...]]):
    """Whether protection holds for who gives the images other classes."""

    name = key = "relabelled"
    title = "Other labels"

    def run(self, material: Material) -> tuple[RelabelledResult, ...]:
        """Every dataset and its control with grouped classes; each run once, however many share the control."""
        grid = material.grid
        tasks: dict[tuple[str, int, int], RunTask] = {}
        for num_classes in dict.fromkeys(subject.num_classes for subject in grid.subjects):
            if not group_numbers(num_classes):
                material.reporter.warn(f"no other labels are given: {num_classes} classes are too few to be grouped")
            subjects = [subject for subject in grid.subjects if subject.num_classes == num_classes]
            for num_groups, seed in itertools.product(group_numbers(num_classes), grid.seeds):
                drawn = torch.Generator().manual_seed(Seed(seed).integer32("relabelled", num_groups))
                groups = grouping(num_classes, num_groups, drawn)
                for dataset in dict.fromkeys(name for each in subjects for name in (each.control, each.name)):
                    task = grid.task(material.cell(dataset), seed)
                    tasks[dataset, num_groups, seed] = _with_groups(task, groups, num_groups)
        if not tasks:
            return ()
        histories: dict[tuple[str, int], dict[int, RunHistory]] = {}
        for (dataset, num_groups, seed), history in zip(tasks, _trained(list(tasks.values()), material), strict=True):
            if not isinstance(history, Lost):
                histories.setdefault((dataset, num_groups), {})[seed] = history
        found = []
        groups_of = ((each, number) for each in grid.subjects for number in group_numbers(each.num_classes))
        for subject, num_groups in groups_of:
            sides = (histories.get((name, num_groups), {}) for name in (subject.control, subject.name))
            found.append(
                summarise(
                    *sides,
                    dataset=subject.name,
                    control=subject.control,
                    num_groups=num_groups,
                    num_test=tasks[subject.name, num_groups, grid.seeds[0]].data.num_test,
                )
            )
        return tuple(each for each in found if each is not None)

    def tell(self, found: tuple[RelabelledResult, ...], result: GridResult) -> Section:
        """A row for each dataset and number of groups."""
        columns = words("dataset") + numbers("groups") + words("seeds") + numbers("poisoned", strong=True)
        columns += numbers("clean control", "chance", "training accuracy, poisoned") + words("result")
        rows: list[Row] = []
        for each in found:
            one = each.comparison
            told = (one.poisoned.percent, one.clean.percent, f"{number(each.chance)} %", one.poisoned_train.percent)
            lines = (str(one.collapse), *one.notes)
            rows.append((Named(one.dataset), str(each.num_groups), listed(each.seeds), *told, lines))
        return Section(
            about="The classes put into groups at random, the groups as labels of training and test images; standard "
            "training, every seed with a grouping of its own. Mean ± standard deviation over seeds.",
            table=Table(columns, rows),
        )


def _with_groups(task: RunTask, groups: np.ndarray, num_groups: int) -> RunTask:
    data = dataclasses.replace(
        task.data,
        digest=hashlib.sha256(f"{task.data.digest} {groups.tolist()}".encode()).hexdigest(),
        num_classes=num_groups,
        load=lambda: relabelled(task.data.load(), groups),
    )
    name = f"{task.dataset}-in-{num_groups}-groups"
    return dataclasses.replace(task, dataset=name, data=data, keep_weights=False)


def _trained(tasks: Sequence[RunTask], material: Material) -> list[RunHistory | Lost]:
    """What became of each task; says before how many there are and how long they take."""
    known = material.store.known(tasks, material.reporter)
    waiting = [task for index, task in enumerate(tasks) if index not in known]
    said = f"training with other labels: {len(tasks)} runs, {len(known)} finished before"
    if waiting:
        done = shares_done(waiting, material.store, known=())
        seconds, basis = estimate_left(waiting, done, material.store.folder)
        minutes = seconds / min(material.executor.workers, len(waiting)) / 60
        said += f"; this will take about {max(1, round(minutes))} min, going by {basis}"
    material.reporter.say(said)
    return material.train(tasks, known)
