"""Perturbations moved to other images: does a model read the perturbation or the picture?

Table 1 of the One-Pixel Shortcut paper: every image receives the perturbation of another one, and the label that
belongs to the perturbation. A model that learned the content agrees with these labels by chance only.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from torch import nn

from ule_datasets.analyses.analysis import Analysis, Material
from ule_datasets.analyses.evaluation import FixedImages, evaluating, still_copy
from ule_datasets.analyses.telling import Column, Named, Row, Section, Table, words
from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.precision import Precision
from ule_datasets.data.perturbation import Overwrite, Perturbation
from ule_datasets.experiments.grid import GridResult
from ule_datasets.experiments.runs import RunTask
from ule_datasets.experiments.subject import Subject
from ule_datasets.papers.claims import Claim, Regime
from ule_datasets.papers.ops import ROLES
from ule_datasets.papers.statistics import Estimate, spread

ROWS_AT_ONCE = 1024
PERMUTATIONS = 5
SHUFFLED = " shuffled"
"""Follows the name of a set whose perturbations were moved."""


class Reading(StrEnum):
    """What it means to give a perturbation to another image; the paper does not say."""

    ADDITIVE = "additive"
    """The difference is added and the sum clipped: an overwritten pixel may miss its colour."""
    RESTAMPED = "re-stamped"
    """Overwritten pixels get the colour that they have in the perturbation's own image, all others the difference."""


def shuffled(
    clean: np.ndarray,
    poisoned: np.ndarray,
    labels: np.ndarray,
    permutation: np.ndarray,
    reading: Reading,
    overwritten: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Image j receives the perturbation of image i = ``permutation[j]``, and the label of i: images, labels.

    Args:
        clean: uint8 [N, H, W, C].
        poisoned: the same images with their own perturbations, uint8 [N, H, W, C].
        labels: [N].
        permutation: every number below N once, integers [N].
        reading: how a perturbation is given to another image.
        overwritten: bool [N, H, W], see ``overwritten_pixels``; used by ``Reading.RESTAMPED`` only; ``None``: nowhere.
    """
    if clean.dtype != np.uint8 or poisoned.dtype != np.uint8 or clean.ndim != 4 or clean.shape != poisoned.shape:
        raise InputError(
            f"clean images are {clean.dtype} {list(clean.shape)}, poisoned ones {poisoned.dtype} "
            f"{list(poisoned.shape)}; expected uint8 [N, H, W, C] twice, of one shape"
        )
    if labels.shape != clean.shape[:1]:
        raise InputError(f"labels are {list(labels.shape)}; expected [{len(clean)}], one per image")
    if overwritten is not None and (overwritten.dtype != np.bool_ or overwritten.shape != clean.shape[:3]):
        raise InputError(
            f"overwritten is {overwritten.dtype} {list(overwritten.shape)}; expected bool {list(clean.shape[:3])}"
        )
    count = len(clean)
    if permutation.dtype.kind not in "iu" or not np.array_equal(np.sort(permutation), np.arange(count)):
        raise InputError(f"the permutation must hold each integer from 0 to {count - 1} once")
    result = np.empty_like(clean)
    for start in range(0, count, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        givers = permutation[rows]
        moved = clean[rows].astype(np.int16) + poisoned[givers] - clean[givers]
        result[rows] = np.clip(moved, 0, 255)
        if reading is Reading.RESTAMPED and overwritten is not None:
            stamped = overwritten[givers]
            result[rows][stamped] = poisoned[givers][stamped]
    return result, labels[permutation]


def overwritten_pixels(
    perturbation: Perturbation, labels: np.ndarray, keys: Sequence[str], shape: tuple[int, int]
) -> np.ndarray:
    """The pixels that an overwriting layer sets in each image, bool [N, *shape], whether or not their colour changes.

    Raises:
        InputError: a pixel lies outside images of this shape.
    """
    markers = tuple(
        dataclasses.replace(layer, colours=np.ones((*layer.rows.shape, 1), dtype=np.uint8))
        for layer in perturbation.layers
        if isinstance(layer, Overwrite)
    )
    height, width = shape
    for layer in markers:
        if layer.rows.max(initial=-1) >= height or layer.columns.max(initial=-1) >= width:
            raise InputError(f"the perturbation overwrites pixels outside images of {height} x {width}")
    marking = dataclasses.replace(perturbation, layers=markers)
    marks = marking.apply(np.zeros((len(labels), height, width, 1), dtype=np.uint8), labels, keys)
    return marks[..., 0] > 0


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class EvaluationSet:
    """Images that models are asked about: clean ones, or perturbed ones with what is needed to shuffle them."""

    images: np.ndarray
    """The images themselves, uint8 [N, H, W, 3]."""
    labels: np.ndarray
    """int64 [N]."""
    clean: np.ndarray | None = None
    """Those images without perturbation, uint8 [N, H, W, 3]; ``None``: there is nothing to shuffle."""
    overwritten: np.ndarray | None = None
    """Bool [N, H, W]; ``None``: no pixel is overwritten, so both readings are one."""

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The ways to shuffle that differ."""
        if self.clean is None:
            return ()
        return (Reading.ADDITIVE,) if self.overwritten is None else (Reading.ADDITIVE, Reading.RESTAMPED)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffledCell:
    """One model on one set of images."""

    trained_on: str
    evaluated_on: str
    """The set's name, followed by ``shuffled`` where perturbations were moved."""
    reading: Reading | None
    """``None``: nothing was shuffled."""
    accuracies: tuple[float, ...]
    """Agreement with the labels, percent; one value per permutation."""
    mean: float
    sd: float | None
    """Sample deviation over permutations; ``None`` for a single value."""


def evaluate(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    device: torch.device,
    *,
    precision: Precision = Precision.FLOAT32,
) -> float:
    """How often a copy of a model, in evaluation mode and without augmentation, agrees with the labels (percent)."""
    given, asked = FixedImages(images, labels, device), still_copy(model, device)
    with evaluating(precision):
        correct = torch.zeros((), dtype=torch.int64, device=device)
        for batch, wanted in given.batches():
            correct += (asked(batch).argmax(dim=1) == wanted).sum()
    return 100 * int(correct) / len(given)


def table_of_shuffles(
    models: Mapping[str, nn.Module],
    sets: Mapping[str, EvaluationSet],
    *,
    seed: Seed,
    device: torch.device,
    precision: Precision = Precision.FLOAT32,
) -> tuple[ShuffledCell, ...]:
    """Every model on every set as it is, and shuffled in every reading: the cells of Table 1, by model, then by set.

    Models are named by what they were trained on. The seed fixes the permutations, which all models, readings and sets
    of one size share.
    """
    accuracies: dict[tuple[str, str, Reading | None], list[float]] = {}
    for name, each in sets.items():
        for reading, number in [(None, 0), *itertools.product(each.readings, range(PERMUTATIONS))]:
            images, labels = each.images, each.labels
            if reading is not None:
                assert each.clean is not None
                generator = torch.Generator().manual_seed(seed.integer32("shuffled perturbations", number))
                order = torch.randperm(len(labels), generator=generator).numpy()
                images, labels = shuffled(each.clean, images, labels, order, reading, each.overwritten)
            for trained_on, model in models.items():
                accuracy = evaluate(model, images, labels, device, precision=precision)
                accuracies.setdefault((trained_on, name, reading), []).append(accuracy)
    found = {
        key: Estimate(tuple(accuracies[key]))
        for key in itertools.product(models, sets, (None, *Reading))
        if key in accuracies
    }
    return tuple(
        ShuffledCell(
            trained_on=trained_on,
            evaluated_on=name if reading is None else f"{name}{SHUFFLED}",
            reading=reading,
            accuracies=estimate.values,
            mean=estimate.mean,
            sd=estimate.sd,
        )
        for (trained_on, name, reading), estimate in found.items()
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffleTable:
    """Models of one seed on all sets (Table 1)."""

    seed: int
    cells: tuple[ShuffledCell, ...]


class Shuffled(Analysis[tuple[ShuffleTable, ...]]):
    """What models say about training images, their own and others', whose perturbations were moved to other images."""

    name, key, title = "shuffled", "shuffles", "Shuffled perturbations"
    roles = ROLES

    def run(self, material: Material) -> tuple[ShuffleTable, ...]:
        """Every model on the training images of every model; nothing where their numbers differ."""
        tables = []
        subjects = {subject.name: subject for subject in material.grid.subjects}
        for seed in material.grid.seeds:
            found = (material.task(slug, seed) for slug in self.roles)
            tasks = {task.dataset: task for task in found if task is not None}
            if not tasks:
                continue
            if len({task.data.num_train for task in tasks.values()}) > 1:
                names = " and ".join(tasks)
                material.reporter.warn(f"no perturbations are shuffled: {names} differ in their number of images")
                return ()
            sets = {name: _evaluation_set(subjects.get(name), task) for name, task in tasks.items()}
            material.reporter.say(f"shuffled perturbations, seed {seed}: {len(tasks)} models on {len(sets)} sets")
            cells = table_of_shuffles(
                {name: material.model(task) for name, task in tasks.items()},
                sets,
                seed=Seed(seed),
                device=material.grid.device,
                precision=material.precision,
            )
            tables.append(ShuffleTable(seed=seed, cells=cells))
        return tuple(tables)

    def speaks_of(self, claim: Claim) -> tuple[str, ...]:
        """The dataset trained on, and the one whose perturbations are evaluated."""
        if claim.regime is not Regime.ANALYSIS:
            return ()
        return claim.train_dataset, claim.test_dataset.removesuffix("-train").replace("-shuffled", "")

    def values(self, found: tuple[ShuffleTable, ...], claim: Claim, roles: Mapping[str, str]) -> tuple[float, ...]:
        """What agreed with the labels, in the reading that adds the difference."""
        trained_on, evaluated_on = (roles.get(slug, "") for slug in self.speaks_of(claim))
        moved = "-shuffled" in claim.test_dataset
        wanted = trained_on, f"{evaluated_on}{SHUFFLED}" if moved else evaluated_on, Reading.ADDITIVE if moved else None
        return tuple(
            cell.mean
            for table in found
            for cell in table.cells
            if (cell.trained_on, cell.evaluated_on, cell.reading) == wanted
        )

    def tell(self, found: tuple[ShuffleTable, ...], result: GridResult) -> Section:
        """Columns by what was trained on, rows by what was evaluated and how its perturbations were moved."""
        trained_on = dict.fromkeys(cell.trained_on for table in found for cell in table.cells)
        rows: dict[tuple[str, str], dict[str, list[float]]] = {}
        for table in found:
            for cell in table.cells:
                how = "as they are" if cell.reading is None else f"shuffled, {cell.reading}"
                row = rows.setdefault((cell.evaluated_on.removesuffix(SHUFFLED), how), {})
                row.setdefault(cell.trained_on, []).append(cell.mean)
        columns = [Column("trained on", number=True, dataset=name) for name in trained_on]
        lines: list[Row] = [
            (Named(name), how, *(spread(means.get(on, ())) for on in trained_on)) for (name, how), means in rows.items()
        ]
        return Section(
            about="How often models agree with the labels (percent) on training images, each with the perturbation of "
            "another image and its label where shuffled: mean ± standard deviation (seeds), each seed's value the mean "
            "over permutations. *Additive*: the difference is added; *re-stamped*: overwritten pixels get their "
            "colour.",
            table=Table(words("evaluated on", "perturbations") + columns, lines),
        )


def _evaluation_set(subject: Subject | None, task: RunTask) -> EvaluationSet:
    """The training images of a run; with what is needed to shuffle them, where they are perturbed."""
    images, labels = task.data.load().images, task.data.load().labels
    if subject is None:
        return EvaluationSet(images=images, labels=labels)
    count, height, width, _ = images.shape
    samples = subject.samples()
    marks = overwritten_pixels(samples.perturbation, labels, samples.keys[:count], (height, width))
    clean = samples.clean[:count]
    return EvaluationSet(images=images, labels=labels, clean=clean, overwritten=marks if marks.any() else None)
