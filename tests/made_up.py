"""Results without training: histories, datasets in memory and grids, as tests of what follows from them need them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.precision import Precision
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.data.perturbation import Overwrite, Perturbation, Support
from ule_datasets.data.spool import Images
from ule_datasets.experiments.effect import compare
from ule_datasets.experiments.grid import Cell, GridResult, LostRun, Run
from ule_datasets.experiments.profiles import Profile
from ule_datasets.experiments.runs import RunTask
from ule_datasets.experiments.subject import Samples, Subject
from ule_datasets.models.architectures import num_parameters
from ule_datasets.papers.rules import Power
from ule_datasets.victims.data import TrainingData, TrainingSet
from ule_datasets.victims.history import EpochRecord, RunHistory, Window
from ule_datasets.victims.preparation import Preparation
from ule_datasets.victims.protocol import OneCycle, TrainingProtocol
from ule_datasets.victims.strategy import Countermeasure, Option
from ule_datasets.victims.table import VICTIMS

CPU = torch.device("cpu")
SAMPLES = [field.name for field in dataclasses.fields(Samples)]
STEPS = 10
"""Of an epoch of a made-up history."""


class Listener(Reporter):
    """Keeps what is said instead of writing it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


def bright_or_dark(count: int = 96, seed: int = 0, size: int = 8) -> TrainingData:
    """Two classes that differ in brightness."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, count)
    noise = generator.integers(0, 100, (count, size, size, 3))
    images = (noise + 120 * labels[:, None, None, None]).astype(np.uint8)
    test = slice(0, 24)
    return TrainingData(images=images, labels=labels, test_images=images[test], test_labels=labels[test], num_classes=2)


def digest_of(data: TrainingData) -> str:
    """Of all arrays, in their order."""
    arrays = (data.images, data.labels, data.test_images, data.test_labels)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def training_set(data: TrainingData) -> TrainingSet:
    """These arrays under a digest of theirs."""
    return TrainingSet.of(data, digest_of(data))


DATA = bright_or_dark(40)
PROTOCOL = TrainingProtocol(model="convnet3-w16", epochs=2, batch_size=16, strategy=parse_strategy("standard"))


def make_task(seed: int = 0, **changes: Any) -> RunTask:
    """A run that takes no time."""
    fields: dict[str, Any] = {"dataset": "d", "data": DATA, "protocol": PROTOCOL, "device": CPU, **changes}
    fields["data"] = training_set(fields["data"])
    return RunTask(seed=seed, **{"victim": VICTIMS[fields["protocol"].model], **fields})


@dataclass(frozen=True, kw_only=True, slots=True)
class Noisy(Countermeasure):
    """Random noise on every image before training, and how often that was asked for in this process."""

    word: ClassVar[str] = "noisy"
    citation: ClassVar[str] = "zhang2018mixup"
    options: ClassVar[tuple[Option, ...]] = (Option("a", "amount", "an amount A of at least 1"),)
    calls: ClassVar[list[int]] = []
    breaks_at: ClassVar[int] = -1
    """The number of the call that fails."""

    amount: int = 8

    def __post_init__(self) -> None:
        if self.amount < 1:
            raise InputError(f"Noisy: amount is {self.amount}, must be at least 1")

    def prepare(self, images: Images, labels: np.ndarray, context: Preparation) -> Images:
        """Piece by piece."""
        return context.piecewise(self.changed, images, label="noise")

    def changed(self, images: np.ndarray, seed: Seed) -> np.ndarray:
        """Some images with noise of their own."""
        if len(self.calls) == self.breaks_at:
            raise KeyboardInterrupt
        self.calls.append(len(images))
        noise = np.random.default_rng(seed.value).integers(-self.amount, self.amount + 1, images.shape)
        return np.clip(images + noise, 0, 255).astype(np.uint8)


def make_profile(**changes: Any) -> Profile:
    """A profile that takes no time, without a stand-in."""
    defaults: dict[str, Any] = {
        "name": "tiny",
        "epochs": 2,
        "schedule": OneCycle(),
        "precision": Precision.FLOAT32,
        "power": Power.FULL,
        "num_seeds": 1,
        "strategies": ("standard",),
        "limits": "Only for tests.",
    }
    return Profile(**{**defaults, **changes})


def make_history(
    *tests: float | None,
    train: float | Sequence[float] = 100.0,
    displacement: float | Sequence[float] = 1.0,
    seed: int = 0,
    finite: bool = True,
    model: str = "resnet18-w8",
    strategy: str = "none",
    num_classes: int = 10,
    **protocol: Any,
) -> RunHistory:
    """A run with these clean test accuracies, one per epoch; what is not finite ends in its last epoch."""
    trains = [train] * len(tests) if isinstance(train, int | float) else list(train)
    moved = [displacement] * len(tests) if isinstance(displacement, int | float) else list(displacement)
    records = []
    for epoch, (test, fitted, far) in enumerate(zip(tests, trains, moved, strict=True), start=1):
        good = finite or epoch < len(tests)
        window = Window(step=STEPS * epoch, train_accuracy=fitted, displacement=far)
        records.append(
            EpochRecord(
                epoch=epoch,
                train_loss=0.1 if good else None,
                train_accuracy=fitted,
                test_accuracy=test,
                displacement=far if good else None,
                windows=(window,) if good else (),
                seconds=1.0,
            )
        )
    return RunHistory(
        protocol=TrainingProtocol(
            **{"model": model, "epochs": len(tests), "strategy": parse_strategy(strategy), **protocol}
        ),
        seed=seed,
        device="x",
        threads=1,
        ranks=1,
        num_parameters=num_parameters(model, num_classes),
        epochs=tuple(records),
        seconds=1.0,
    )


def make_subject(name: str = "mine", **changes: Any) -> Subject:
    """Noise in two classes, 8 x 8 pixels; in poisoned images the first pixel tells the class."""
    count, classes = changes.pop("count", 40), changes.get("num_classes", 2)
    generator = np.random.default_rng(changes.pop("draw", 0))
    labels = (np.arange(count) % classes).astype(np.int64)
    clean = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    keys = tuple(f"{index:04d}" for index in range(count))
    corner = np.zeros((classes, 1), dtype=np.int32)
    colours = np.linspace(0, 255, classes).astype(np.uint8)[:, None, None].repeat(3, axis=2)
    pixel = Overwrite(rows=corner, columns=corner, colours=colours, support=Support.CLASS)
    perturbation = Perturbation(layers=(pixel,), source_digest="s")
    samples = Samples(
        **{
            "poisoned": perturbation.apply(clean, labels, keys),
            "clean": clean,
            "labels": labels,
            "keys": keys,
            "perturbation": perturbation,
            "test_images": clean[:12],
            "test_labels": labels[:12],
            **{field: changes.pop(field) for field in SAMPLES if field in changes},
        }
    )
    arrays = (samples.clean, samples.labels, samples.test_images, samples.test_labels)
    defaults: dict[str, Any] = {
        "title": name.upper(),
        "version": "1.0.0",
        "reduced": None,
        "source": "cifar10",
        "limit_per_class": None,
        "recipe_digest": "r",
        "manifest_digest": None,
        "clean_digest": hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest(),
        "poison_digest": hashlib.sha256(samples.poisoned.tobytes()).hexdigest(),
        "num_train": len(samples.labels),
        "num_test": len(samples.test_labels),
        "image_size": 8,
        "samples": lambda: samples,
        "num_classes": classes,
        "flippable": True,
        "collapse_expected": True,
    }
    return Subject(name=name, **{**defaults, **changes})


def make_result(
    outcomes: Mapping[Cell, Sequence[RunHistory]],
    *,
    profile: Profile | None = None,
    num_classes: int = 10,
    lost: tuple[LostRun, ...] = (),
    subjects: Sequence[Subject] = (),
) -> GridResult:
    """What a grid gives for these runs."""
    runs = tuple(
        Run(cell=cell, seed=history.seed, history=history, identity="i", reused=False)
        for cell, histories in outcomes.items()
        for history in histories
    )
    comparisons = tuple(
        compare(
            outcomes[Cell(subject.control, cell.model, cell.strategy)],
            histories,
            dataset=cell.dataset,
            control=subject.control,
            chance=100 / num_classes,
            num_test=2_000,
        )
        for cell, histories in outcomes.items()
        for subject in subjects
        if subject.name == cell.dataset and Cell(subject.control, cell.model, cell.strategy) in outcomes
    )
    return GridResult(
        profile=profile or make_profile(),
        seeds=tuple(sorted({run.seed for run in runs})),
        num_classes={run.cell.dataset: num_classes for run in runs},
        num_train={},
        num_test={run.cell.dataset: 2_000 for run in runs},
        runs=runs,
        lost=lost,
        comparisons=comparisons,
    )


def seeds_of(values: Sequence[float], cell: Cell, **options: Any) -> list[RunHistory]:
    """One run per seed with this last accuracy, of the cell's model and strategy."""
    return [
        make_history(value, seed=seed, model=cell.model, strategy=cell.strategy, **options)
        for seed, value in enumerate(values)
    ]
