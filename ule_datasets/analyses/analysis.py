"""What every analysis has in common: an object that says what it needs, runs, judges and tells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from torch import nn

from ule_datasets.analyses.telling import Section
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.executor import Executor, Lost
from ule_datasets.compute.precision import Precision
from ule_datasets.experiments.grid import Cell, Grid, GridResult
from ule_datasets.experiments.profiles import Profile
from ule_datasets.experiments.runs import RunStore, RunTask, work_off
from ule_datasets.papers.claims import Claim
from ule_datasets.papers.statistics import Judged
from ule_datasets.victims.history import RunHistory

RUNS_FOR_A_VERDICT = 3
"""Of each kind; fewer are shown, and left open."""
TOO_FEW = f"at least {RUNS_FOR_A_VERDICT} runs of each kind are needed"
MODEL, STRATEGY = "resnet18", "standard"
"""What analyses look at, or what the profile trains in the model's place."""


def standard_cell(dataset: str, profile: Profile) -> Cell:
    """The cell of a dataset that analyses look at."""
    return Cell(dataset, profile.trained_for(MODEL) or MODEL, STRATEGY)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Material:
    """What analyses work on: the runs of a grid and the models that they trained."""

    grid: Grid
    result: GridResult
    roles: Mapping[str, str]
    """The papers' names of datasets to those that play them here."""
    store: RunStore
    executor: Executor
    reporter: Reporter

    @property
    def precision(self) -> Precision:
        """The profile's, or float32 where that is bfloat16, which no analysis has."""
        wanted = self.grid.profile.precision
        return Precision.FLOAT32 if wanted is Precision.BFLOAT16 else wanted

    def cell(self, dataset: str) -> Cell:
        """The dataset's under standard training, trained or not."""
        return standard_cell(dataset, self.grid.profile)

    def histories(self, dataset: str) -> tuple[RunHistory, ...]:
        """The runs of that cell, in the order of their seeds."""
        cell = self.cell(dataset)
        return self.result.histories(cell) if cell in self.grid.cells else ()

    def task(self, slug: str, seed: int) -> RunTask | None:
        """The finished run of the dataset that plays ``slug``; ``None``: there is none."""
        cell = self.cell(self.roles.get(slug, ""))
        if not any(run.cell == cell and run.seed == seed for run in self.result.runs):
            return None
        return self.grid.task(cell, seed)

    def model(self, task: RunTask) -> nn.Module:
        """What a finished run trained."""
        start = self.store.weights(task)
        return task.victim.model(task.protocol, task.data.num_classes, seed=0, start=start)

    def beside_controls(self) -> Iterator[tuple[str, tuple[RunHistory, ...], tuple[RunHistory, ...]]]:
        """(dataset, runs on clean data, runs on protected data) wherever both were made."""
        for subject in self.grid.subjects:
            clean, protected = self.histories(subject.control), self.histories(subject.name)
            if clean and protected:
                yield subject.name, clean, protected

    def train(self, tasks: Sequence[RunTask], known: Mapping[int, RunHistory] | None = None) -> list[RunHistory | Lost]:
        """What became of each task; ``known`` is what the store has, for who has asked it already."""
        done = work_off(tasks, self.store, self.executor, self.reporter, known=known)
        return [done[index] for index in range(len(tasks))]


Found = TypeVar("Found")


class Analysis(ABC, Generic[Found]):
    """One way of looking at trained models; its docstring says what it asks.

    A new one is a module here and a row in ``ANALYSES``. What it finds is made of dataclasses, mappings, tuples and
    numbers, so that it can be written as JSON.
    """

    name: ClassVar[str]
    """How users ask for it."""
    key: ClassVar[str]
    """Its place in report.json."""
    title: ClassVar[str]
    """Its heading in a report."""
    nothing: ClassVar[Any] = ()
    """What is found where it is not made."""
    always: ClassVar[bool] = False
    """It costs nothing and comes with every verification; otherwise it is made where it is asked for."""
    roles: ClassVar[tuple[str, ...]] = ()
    """Datasets, in the papers' names, whose trained models it looks at."""
    draws: ClassVar[bool] = False
    """Whether there is a chart, named like the analysis."""
    statements: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Ids of the statements that it judges, and the datasets that they speak of."""
    models: ClassVar[tuple[str, ...]] = (MODEL,)
    """What they speak of as trained on those."""

    @abstractmethod
    def run(self, material: Material) -> Found | None:
        """Look; ``nothing`` where the material does not allow it."""

    def judge(self, found: Found, statement: str, roles: Mapping[str, str]) -> Judged:
        """What follows for one of its statements; where nothing was found, only those that come always are asked."""
        raise NotImplementedError(f"{self.name} judges no statement")

    def speaks_of(self, claim: Claim) -> tuple[str, ...]:
        """The datasets, in the papers' names, that it needs to measure a claim's number; none: it cannot."""
        return ()

    def values(self, found: Found, claim: Claim, roles: Mapping[str, str]) -> tuple[float, ...]:
        """What was measured for such a claim, one value per seed."""
        return ()

    @abstractmethod
    def tell(self, found: Found, result: GridResult) -> Section:
        """What a report says of it, where something was found."""
