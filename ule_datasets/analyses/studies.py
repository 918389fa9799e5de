"""The analyses of a grid: which trained models they look at, what they find, and what that says about the papers."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Generator, nn

from ule_datasets.analyses.displacement import DisplacementResult, FittingResult, compare, compare_fitting
from ule_datasets.analyses.finetuning import FINETUNING_RATES, FinetuningResult, finetuning_protocol, summarise
from ule_datasets.analyses.landscape import Surface, compare_surfaces, directions, loss_surface
from ule_datasets.analyses.relabelled import RelabelledResult, group_numbers, grouping, relabelled
from ule_datasets.analyses.relabelled import summarise as summarise_relabelled
from ule_datasets.analyses.shuffled import (
    EvaluationSet,
    Reading,
    ShuffledCell,
    overwritten_pixels,
    table_of_shuffles,
)
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.executor import Executor, Lost
from ule_datasets.compute.precision import Precision
from ule_datasets.experiments.grid import Cell, Grid, GridResult, Subject, estimate_seconds
from ule_datasets.experiments.runs import RunStore, RunTask, work_off
from ule_datasets.models.architectures import build_model
from ule_datasets.models.states import load_weights
from ule_datasets.papers.claims import Claim
from ule_datasets.papers.rules import Power
from ule_datasets.papers.statistics import Estimate, Judged, Verdict
from ule_datasets.victims.history import RunHistory

OF_ROLES = ("shuffled", "landscape", "finetune")
"""Analyses of models that were trained on what plays clean, EM and OPS images in the OPS paper."""
STUDIES = (*OF_ROLES, "relabelled")
"""Analyses that need trained models or more training; displacement and fitting come with every run."""
CLEAN, EM, OPS = "cifar10", "em-cifar10", "ops-cifar10"
PERMUTATIONS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleTable:
    """Models of one seed on all sets (Table 1)."""

    seed: int
    cells: tuple[ShuffledCell, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Landscape:
    """The loss around two models of one seed, each on its own training images (Figure 3)."""

    seed: int
    dataset: str
    protected: Surface
    clean: Surface


@dataclass(frozen=True, kw_only=True, slots=True)
class Studies:
    """What the analyses found; empty where they were not asked for."""

    roles: Mapping[str, str] = field(default_factory=dict)
    """The catalogue's slugs of clean, EM and OPS images to the datasets that were looked at."""
    displacement: Mapping[str, DisplacementResult] = field(default_factory=dict)
    """By dataset, beside its control (Figure 4)."""
    fitting: Mapping[str, FittingResult] = field(default_factory=dict)
    shuffles: tuple[ShuffleTable, ...] = ()
    landscapes: tuple[Landscape, ...] = ()
    finetuning: FinetuningResult | None = None
    relabelled: tuple[RelabelledResult, ...] = ()
    """By dataset, then by number of groups."""

    def judged(self, statement_id: str) -> Judged:
        """The verdict on a statement that needs more than accuracies."""
        protected = [self.roles[slug] for slug in (OPS, EM) if slug in self.roles]
        match statement_id:
            case "ops-q-displacement":
                found = {name: self.displacement[name].judged for name in protected if name in self.displacement}
                return _all_of(found, wanted=2)
            case "ops-q-train-acc":
                found = {name: self.fitting[name].judged for name in protected if name in self.fitting}
                return _all_of(found, wanted=2)
            case "ops-q-landscape" if self.landscapes:
                return compare_surfaces(
                    [each.protected for each in self.landscapes], [each.clean for each in self.landscapes]
                )
            case "ops-q-finetune" if self.finetuning is not None:
                return self.finetuning.judged
        return Judged(verdict=Verdict.NOT_RUN, reason="the analysis was not run")

    def shuffled_values(self, claim: Claim) -> tuple[float, ...]:
        """What was measured for a claim of Table 1, in its reading that adds the difference: one value per seed."""
        trained_on = self.roles.get(claim.train_dataset, "")
        name = claim.test_dataset.removesuffix("-train")
        shuffled = "-shuffled" in name
        source = self.roles.get(name.replace("-shuffled", ""), "")
        wanted = (trained_on, f"{source} shuffled" if shuffled else source, Reading.ADDITIVE if shuffled else None)
        return tuple(
            cell.mean
            for table in self.shuffles
            for cell in table.cells
            if (cell.trained_on, cell.evaluated_on, cell.reading) == wanted
        )

    def summary_of_shuffles(self) -> tuple[ShuffledCell, ...]:
        """Each cell over all seeds: the mean of each seed's mean."""
        found: dict[tuple[str, str, Reading | None], list[float]] = {}
        for table in self.shuffles:
            for cell in table.cells:
                found.setdefault((cell.trained_on, cell.evaluated_on, cell.reading), []).append(cell.mean)
        return tuple(
            ShuffledCell(
                trained_on=on, evaluated_on=at, reading=reading, accuracies=tuple(means),
                mean=statistics.fmean(means), sd=Estimate(tuple(means)).sd,
            )
            for (on, at, reading), means in found.items()
        )  # fmt: skip


def study(
    grid: Grid, result: GridResult, names: Iterable[str], roles: Mapping[str, str], *, store: RunStore,
    executor: Executor, reporter: Reporter,
) -> Studies:  # fmt: skip
    """Analyse the runs of a grid.

    Args:
        grid: what was trained; cells whose models are looked at kept their weights.
        result: its runs.
        names: of ``STUDIES``.
        roles: the catalogue's slugs to the names of the datasets that play them.
        store: where the weights are.
        executor: where runs of fine-tuning and with other labels go.
        reporter: where progress is shown.
    """
    names = frozenset(names)
    displacement, fitting = _from_histories(grid, result)
    looked = _Models(grid, result, store)
    return Studies(
        roles=roles,
        displacement=displacement,
        fitting=fitting,
        shuffles=_shuffles(looked, roles, reporter) if "shuffled" in names else (),
        landscapes=_landscapes(looked, roles, reporter) if "landscape" in names else (),
        finetuning=_finetuned(looked, roles, executor, reporter) if "finetune" in names else None,
        relabelled=_relabelled(grid, store, executor, reporter) if "relabelled" in names else (),
    )


def standard_cell(dataset: str, grid: Grid) -> Cell | None:
    """The cell of a dataset under standard training, with the model that plays ResNet-18 in the profile."""
    cell = _standard(dataset, grid)
    return cell if cell in grid.cells else None


def _standard(dataset: str, grid: Grid) -> Cell:
    """The same, whether it was trained or not."""
    return Cell(dataset, grid.profile.trained_for("resnet18") or "resnet18", "standard")


class _Models:
    """Trained models of the standard cells, by dataset and seed."""

    def __init__(self, grid: Grid, result: GridResult, store: RunStore) -> None:
        self.grid, self.result, self.store = grid, result, store
        wanted = grid.profile.precision
        self.precision = Precision.FLOAT32 if wanted is Precision.BFLOAT16 else wanted

    def task(self, dataset: str, seed: int) -> RunTask | None:
        """The finished run of a dataset's standard cell; ``None``: there is none."""
        cell = standard_cell(dataset, self.grid)
        if cell is None or not any(run.cell == cell and run.seed == seed for run in self.result.runs):
            return None
        return self.grid.task(cell, seed)

    def model(self, task: RunTask) -> nn.Module:
        """Its trained model."""
        model = build_model(task.protocol.model, task.data.num_classes, seed=0)
        load_weights(model, self.store.weights(task))
        return model


def _from_histories(grid: Grid, result: GridResult) -> tuple[dict[str, DisplacementResult], dict[str, FittingResult]]:
    displacement, fitting = {}, {}
    for subject in grid.subjects:
        cells = standard_cell(subject.control, grid), standard_cell(subject.name, grid)
        clean, protected = (() if cell is None else result.histories(cell) for cell in cells)
        if clean and protected:
            displacement[subject.name] = compare(clean, protected)
            full = grid.profile.power is Power.FULL
            fitting[subject.name] = compare_fitting(clean, protected, paper_length=full)
    return displacement, fitting


def _shuffles(looked: _Models, roles: Mapping[str, str], reporter: Reporter) -> tuple[ShuffleTable, ...]:
    grid, tables = looked.grid, []
    names = [roles[slug] for slug in (CLEAN, EM, OPS) if slug in roles]
    subjects = {subject.name: subject for subject in grid.subjects}
    for seed in grid.seeds:
        tasks = {name: task for name in names if (task := looked.task(name, seed)) is not None}
        if not tasks:
            continue
        if len({len(task.data.images) for task in tasks.values()}) > 1:
            reporter.warn(f"no perturbations are shuffled: {' and '.join(tasks)} differ in their number of images")
            return ()
        sets = {name: _evaluation_set(subjects.get(name), task) for name, task in tasks.items()}
        reporter.say(f"shuffled perturbations, seed {seed}: {len(tasks)} models on {len(sets)} sets")
        cells = table_of_shuffles(
            {name: looked.model(task) for name, task in tasks.items()}, sets, permutations=PERMUTATIONS,
            seed=Seed(seed), device=grid.device, precision=looked.precision,
        )  # fmt: skip
        tables.append(ShuffleTable(seed=seed, cells=cells))
    return tuple(tables)


def _evaluation_set(subject: Subject | None, task: RunTask) -> EvaluationSet:
    """The training images of a run; with what is needed to shuffle them, where they are perturbed."""
    if subject is None:
        return EvaluationSet(images=task.data.images, labels=task.data.labels)
    rows = len(task.data.images)
    marks = overwritten_pixels(
        subject.perturbation, task.data.labels, subject.keys[:rows], task.data.images.shape[1:3]
    )  # fmt: skip
    return EvaluationSet(
        images=task.data.images, labels=task.data.labels, clean=subject.clean_images[:rows],
        overwritten=marks if marks.any() else None,
    )  # fmt: skip


def _landscapes(looked: _Models, roles: Mapping[str, str], reporter: Reporter) -> tuple[Landscape, ...]:
    grid, found = looked.grid, []
    points, images = (25, 10_000) if grid.profile.power is not Power.NONE else (9, 500)
    for seed in grid.seeds:
        pair = [looked.task(roles[slug], seed) for slug in (OPS, CLEAN) if slug in roles]
        if len(pair) < 2 or pair[0] is None or pair[1] is None:
            continue
        surfaces = []
        for task in pair:
            assert task is not None
            reporter.say(f"loss landscape of {task}: {points} x {points} points on {images:,} images")
            model = looked.model(task)
            planes = directions(model, Generator().manual_seed(Seed(seed).integer32("landscape")))
            surfaces.append(
                loss_surface(
                    model, task.data.images[:images], task.data.labels[:images], planes, points=points,
                    device=grid.device, precision=looked.precision,
                )
            )  # fmt: skip
        found.append(Landscape(seed=seed, dataset=roles[OPS], protected=surfaces[0], clean=surfaces[1]))
    return tuple(found)


def _finetuned(
    looked: _Models, roles: Mapping[str, str], executor: Executor, reporter: Reporter
) -> FinetuningResult | None:
    grid = looked.grid
    cell = standard_cell(roles[OPS], grid) if OPS in roles else None
    if cell is None or CLEAN not in roles:
        return None
    rates, tasks = [], []
    starts = []
    for seed in grid.seeds:
        clean = looked.task(roles[CLEAN], seed)
        if clean is None:
            continue
        starts.append(seed)
        task = grid.task(cell, seed)
        for rate in FINETUNING_RATES:
            protocol = finetuning_protocol(task.protocol, learning_rate=rate, start=clean.identity)
            name = f"{task.dataset}-after-{clean.dataset}-lr{rate:g}"
            start = looked.store.weights(clean)
            tasks.append(dataclasses.replace(task, dataset=name, protocol=protocol, start=start, keep_weights=False))
            rates.append(rate)
    reporter.say(f"fine-tuning on {roles[OPS]} from models trained on {roles[CLEAN]}: {len(tasks)} runs")
    done = work_off(tasks, looked.store, executor, reporter)
    histories = {
        rate: [h for i, h in sorted(done.items()) if rates[i] == rate and not isinstance(h, Lost)]
        for rate in FINETUNING_RATES
    }
    accuracies: Sequence[float] = [
        run.history.last.test_accuracy
        for run in looked.result.runs
        if run.cell == standard_cell(roles[CLEAN], grid) and run.seed in starts
    ]
    if not accuracies:
        return None
    return summarise(histories, start_accuracy=statistics.fmean(accuracies), chance=looked.result.chance)


def _relabelled(grid: Grid, store: RunStore, executor: Executor, reporter: Reporter) -> tuple[RelabelledResult, ...]:
    """Every dataset and its control with grouped classes; each run once, however many datasets share the control."""
    num_classes = grid.subjects[0].num_classes
    tasks: dict[tuple[str, int, int], RunTask] = {}
    for num_groups in group_numbers(num_classes):
        for seed in grid.seeds:
            drawn = Generator().manual_seed(Seed(seed).integer32("relabelled", num_groups))
            groups = grouping(num_classes, num_groups, drawn)
            for dataset in dict.fromkeys(name for each in grid.subjects for name in (each.control, each.name)):
                task = grid.task(_standard(dataset, grid), seed)
                tasks[dataset, num_groups, seed] = _with_groups(task, groups, num_groups)
    if not tasks:
        reporter.warn(f"no other labels are given: {num_classes} classes are too few to be grouped")
        return ()
    done = _worked_off("training with other labels", list(tasks.values()), store, executor, reporter)
    histories: dict[tuple[str, int], dict[int, RunHistory]] = {}
    for (dataset, num_groups, seed), history in zip(tasks, done, strict=True):
        if not isinstance(history, Lost):
            histories.setdefault((dataset, num_groups), {})[seed] = history
    found = [
        summarise_relabelled(
            histories.get((subject.control, num_groups), {}), histories.get((subject.name, num_groups), {}),
            dataset=subject.name, control=subject.control, num_groups=num_groups,
        )
        for subject in grid.subjects
        for num_groups in group_numbers(num_classes)
    ]  # fmt: skip
    return tuple(each for each in found if each is not None)


def _with_groups(task: RunTask, groups: np.ndarray, num_groups: int) -> RunTask:
    data = relabelled(task.data, groups)
    name = f"{task.dataset}-in-{num_groups}-groups"
    return dataclasses.replace(task, dataset=name, data=data, data_digest=data.digest(), keep_weights=False)


def _worked_off(
    what: str, tasks: Sequence[RunTask], store: RunStore, executor: Executor, reporter: Reporter
) -> list[RunHistory | Lost]:
    """What became of each task; says before how many there are and how long they take."""
    known = store.known(tasks, reporter)
    waiting = [task for index, task in enumerate(tasks) if index not in known]
    said = f"{what}: {len(tasks)} runs, {len(known)} finished before"
    if waiting:
        minutes = estimate_seconds(waiting) / min(executor.workers, len(waiting)) / 60
        said += f"; this will take about {max(1, round(minutes))} min, going by the time of a few steps"
    reporter.say(said)
    done = work_off(tasks, store, executor, reporter, known=known)
    return [done[index] for index in range(len(tasks))]


def _all_of(found: Mapping[str, Judged], *, wanted: int) -> Judged:
    """Several datasets, all of which the statement speaks of."""
    if not found:
        return Judged(verdict=Verdict.NOT_RUN, reason="neither OPS nor EM data was trained on beside its control")
    reason = "; ".join(f"{name}: {judged.reason}" for name, judged in found.items())
    verdicts = {judged.verdict for judged in found.values()}
    if Verdict.REFUTED in verdicts:
        return Judged(verdict=Verdict.REFUTED, reason=reason)
    whole = verdicts == {Verdict.CONFIRMED} and len(found) == wanted
    return Judged(verdict=Verdict.CONFIRMED if whole else Verdict.INCONCLUSIVE, reason=reason)
