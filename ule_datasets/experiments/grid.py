"""Which models are trained on what, each once however many claims it serves; and what came out."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import torch

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter, duration
from ule_datasets.base.shown import counted, operations
from ule_datasets.compute.devices import describe_device
from ule_datasets.compute.executor import Executor, Lost
from ule_datasets.experiments.effect import Comparison, compare
from ule_datasets.experiments.hours import measured_seconds
from ule_datasets.experiments.profiles import Profile
from ule_datasets.experiments.runs import RunStore, RunTask, time_task, work_off
from ule_datasets.experiments.subject import Subject
from ule_datasets.models.weights import WeightsFile
from ule_datasets.victims.data import TrainingSet
from ule_datasets.victims.history import RunHistory
from ule_datasets.victims.table import VICTIMS, known_victims, starts_trained


@dataclass(frozen=True, order=True, slots=True)
class Cell:
    """One kind of run; a run is a cell and a seed."""

    dataset: str
    """A subject's name, or the name of its clean control."""
    model: str
    strategy: str

    def __str__(self) -> str:
        return f"{self.dataset}, {self.model}, {self.strategy}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A cell's run with one seed."""

    cell: Cell
    seed: int
    history: RunHistory
    identity: str
    """Digest of everything that the result depends on; names its file."""
    reused: bool
    """Finished by an earlier, interrupted or repeated, verification."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LostRun:
    """A run whose worker died in every attempt."""

    cell: Cell
    seed: int
    reason: str


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Grid:
    """Everything that is to be trained."""

    profile: Profile
    subjects: tuple[Subject, ...]
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    device: torch.device
    compiled: bool = False
    ranks: int = 1
    threads: int = 1
    """Of torch, for a run on a CPU. Its last digits depend on them: so they do not follow the number of workers."""
    keep_weights: frozenset[Cell] = frozenset()
    """Cells whose trained models an analysis looks at."""
    weights: Mapping[str, WeightsFile] = field(default_factory=dict)
    """Files of the trained weights that victims start from, by name."""
    weights_place: Path | None = None
    """A file or folder of trained weights for countermeasures, to look at before downloading."""
    _sets: dict[tuple[str, int], TrainingSet] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"seeds are {list(self.seeds)}; give at least one, each once")
        for cell in self.cells:
            if cell.model not in VICTIMS:
                raise InputError(f"no model {cell.model!r}; the models are {known_victims()}")
            if starts_trained(cell.model) and cell.model not in self.weights:
                raise InputError(f"{cell.model} starts from trained weights, and their file is not given")

    def tasks(self) -> tuple[RunTask, ...]:
        """Every run; a whole seed of all cells before the next one."""
        return tuple(self.task(cell, seed) for seed, cell in product(self.seeds, self.cells))

    def task(self, cell: Cell, seed: int) -> RunTask:
        """One run."""
        subject = next(each for each in self.subjects if cell.dataset in (each.name, each.control))
        protocol = self.profile.protocol(cell.model, cell.strategy, flippable=subject.flippable, compiled=self.compiled)
        file = self.weights.get(cell.model)
        if file is not None:
            protocol = replace(protocol, start=file.sha256)
        return RunTask(
            dataset=cell.dataset,
            data=self._training_set(subject, cell.dataset, seed),
            victim=VICTIMS[cell.model],
            protocol=protocol,
            seed=seed,
            device=self.device,
            threads=self.threads,
            ranks=self.ranks,
            keep_weights=cell in self.keep_weights,
            start=None if file is None else file.path,
            weights=self.weights_place,
        )

    def _training_set(self, subject: Subject, dataset: str, seed: int) -> TrainingSet:
        """The rows that the profile uses; the same object, and the same arrays, for every run on them."""
        poisoned = dataset == subject.name
        draw = seed if poisoned and subject.redraw is not None else 0
        if (dataset, draw) not in self._sets:
            limits = self.profile.max_train_images, self.profile.max_test_images
            self._sets[dataset, draw] = subject.training_set(*limits, poisoned=poisoned, draw=draw)
        return self._sets[dataset, draw]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class GridResult:
    """All runs of a grid, and what follows without any claim."""

    profile: Profile
    seeds: tuple[int, ...]
    num_classes: Mapping[str, int]
    """By dataset, like the next two."""
    num_train: Mapping[str, int]
    """Training images."""
    num_test: Mapping[str, int]
    """Clean test images."""
    runs: tuple[Run, ...]
    lost: tuple[LostRun, ...]
    comparisons: tuple[Comparison, ...]

    def chance(self, dataset: str) -> float:
        """Accuracy of guessing, in percent."""
        return 100 / self.num_classes[dataset]

    @property
    def chances(self) -> tuple[float, ...]:
        """Of all datasets, each once."""
        return tuple(dict.fromkeys(100 / number for number in self.num_classes.values()))

    def histories(self, cell: Cell) -> tuple[RunHistory, ...]:
        """The runs of a cell, in the order of their seeds."""
        return tuple(run.history for run in self.runs if run.cell == cell)

    def accuracies(self, cell: Cell) -> tuple[float, ...]:
        """Their clean test accuracies after the last epoch; NaN where a loss was not finite."""
        return tuple(h.test_accuracy if h.finite else float("nan") for h in self.histories(cell))


def with_controls(cells: Iterable[Cell], subjects: Sequence[Subject]) -> tuple[Cell, ...]:
    """The cells, each preceded by its clean control; none twice."""
    control = {subject.name: subject.control for subject in subjects}
    found: dict[Cell, None] = {}
    for cell in cells:
        found[replace(cell, dataset=control.get(cell.dataset, cell.dataset))] = None
        found[cell] = None
    return tuple(found)


def train_grid(grid: Grid, *, store: RunStore, executor: Executor, reporter: Reporter) -> GridResult:
    """Train what the store does not have, and compare every dataset with its control.

    Raises:
        InputError: unsuitable arrays, or an unknown strategy.
    """
    parallel = max(1, min(executor.workers, len(grid.cells) * len(grid.seeds)))
    tasks = grid.tasks()
    known = store.known(tasks, reporter)
    _announce(grid, tasks, shares_done(tasks, store, known), parallel, store, reporter)
    outcomes = work_off(tasks, store, executor, reporter, known=known)
    runs, lost = [], []
    for index, (seed, cell) in enumerate(product(grid.seeds, grid.cells)):
        outcome, identity = outcomes[index], tasks[index].identity
        if isinstance(outcome, Lost):
            lost.append(LostRun(cell=cell, seed=seed, reason=outcome.reason))
        else:
            runs.append(Run(cell=cell, seed=seed, history=outcome, identity=identity, reused=index in known))
    result = GridResult(
        profile=grid.profile,
        seeds=grid.seeds,
        num_classes={task.dataset: task.data.num_classes for task in tasks},
        num_train={task.dataset: task.data.num_train for task in tasks},
        num_test={task.dataset: task.data.num_test for task in tasks},
        runs=tuple(sorted(runs, key=lambda run: grid.cells.index(run.cell))),
        lost=tuple(lost),
        comparisons=(),
    )
    return replace(result, comparisons=compared(result, grid.cells, grid.subjects))


def shares_done(tasks: Sequence[RunTask], store: RunStore, known: Container[int]) -> list[float]:
    """How much of each task is done: 1 of a finished one (``known``, by index), less of an interrupted one."""

    def share(task: RunTask) -> float:
        standing = store.standing(task)
        return 0.0 if standing is None else min(0.99, standing.done / task.protocol.epochs)  # the end is not kept

    return [1.0 if index in known else share(task) for index, task in enumerate(tasks)]


def plan_lines(grid: Grid, tasks: Sequence[RunTask], done: Sequence[float]) -> list[str]:
    """A line per cell: what is trained, and what it takes, where so much of each task is done."""
    lines = []
    for first, cell in enumerate(grid.cells):
        own = range(first, len(tasks), len(grid.cells))
        task, shares = tasks[own[0]], [done[i] for i in own]
        lines.append(
            f"  {cell}: {counted(len(own), 'run')} of {counted(task.protocol.epochs, 'epoch')} on "
            f"{counted(task.data.num_train, 'image')}, "
            f"{operations(flop_left([tasks[i] for i in own], shares))}{_so_far(shares)}"
        )
    return lines


def _so_far(done: Sequence[float]) -> str:
    """How many runs are finished and begun, where some are; follows what is left."""
    numbers = {"finished before": list(done).count(1), "begun": sum(0 < share < 1 for share in done)}
    told = [f"{number} {word}" for word, number in numbers.items() if number]
    return f" left, {', '.join(told)}" if told else ""


def flop_left(tasks: Sequence[RunTask], done: Sequence[float]) -> float:
    """Floating-point operations of what is left, where so much of each task is done."""
    return sum(task.flop * (1 - share) for task, share in zip(tasks, done, strict=True))


def _announce(
    grid: Grid, tasks: Sequence[RunTask], done: Sequence[float], parallel: int, store: RunStore, reporter: Reporter
) -> None:
    """Say what is done already and what will be done, and how long that will take."""
    for task, share in zip(tasks, done, strict=True):
        if share == 1:
            reporter.say(f"reusing a finished run: {task}")
    waiting = [(task, share) for task, share in zip(tasks, done, strict=True) if share < 1]
    if not waiting:
        return
    threads = waiting[0][0].threads
    reporter.say(
        f"profile {grid.profile.name}: {counted(len(waiting), 'run')} on "
        f"{describe_device(grid.device)}, {parallel} at a time with {counted(threads, 'thread')} each:"
    )
    for line in plan_lines(grid, tasks, done):
        reporter.say(line)
    seconds, basis = estimate_left([task for task, _ in waiting], [share for _, share in waiting], store.folder)
    seconds /= min(parallel, len(waiting))
    reporter.say(f"this will take about {duration(seconds)}, going by {basis}")
    reporter.expect(seconds, "training")


def estimate_left(tasks: Sequence[RunTask], done: Sequence[float], folder: Path) -> tuple[float, str]:
    """Seconds of what is left of the tasks one after another, and what that goes by.

    Each goes by finished runs of its kind in ``folder``; those without any by ``estimate_seconds``.
    """
    known = measured_seconds(tasks, done, folder)
    seconds = sum(each for each in known if each is not None)
    others = [(task, share) for task, share, each in zip(tasks, done, known, strict=True) if each is None]
    bases = ["the time of earlier runs"] if len(others) < len(tasks) else []
    if others:
        seconds += estimate_seconds([task for task, _ in others], [share for _, share in others])
        bases.append("the time of a few steps")
    return seconds, " and ".join(bases)


def estimate_seconds(tasks: Sequence[RunTask], done: Sequence[float] | None = None) -> float:
    """Time of the tasks one after another: the cheapest is timed for a few steps, the others by their arithmetic.

    Less what is ``done`` of each; ``None``: nothing is.
    """
    cheapest = min(tasks, key=lambda task: task.flop / (task.protocol.epochs * task.data.num_train))
    rate = cheapest.flop / time_task(cheapest)
    return flop_left(tasks, done or [0.0] * len(tasks)) / rate


def compared(result: GridResult, cells: Sequence[Cell], subjects: Sequence[Subject]) -> tuple[Comparison, ...]:
    """Every poisoned cell with its control, in the order of the cells."""
    names = {subject.name: subject.control for subject in subjects}
    pairs = [(cell, replace(cell, dataset=names[cell.dataset])) for cell in cells if cell.dataset in names]
    return tuple(
        compare(
            clean,
            poisoned,
            dataset=cell.dataset,
            control=control.dataset,
            chance=result.chance(cell.dataset),
            num_test=result.num_test[cell.dataset],
        )
        for cell, control in pairs
        if (clean := result.histories(control)) and (poisoned := result.histories(cell))
    )
