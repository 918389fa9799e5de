"""The datasets of a verification: what their descriptions say of them, and their images where those are needed."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.version import __version__
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.victims.data import TrainingData, TrainingSet


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Samples:
    """A dataset in memory, before and after: the same rows in the same order."""

    poisoned: np.ndarray
    """uint8, [N, H, W, 3]."""
    clean: np.ndarray
    """uint8, [N, H, W, 3]."""
    labels: np.ndarray
    """int64, [N]."""
    keys: tuple[str, ...]
    perturbation: Perturbation
    test_images: np.ndarray
    """uint8, [M, H, W, 3]; clean."""
    test_labels: np.ndarray
    """int64, [M]."""

    def __post_init__(self) -> None:
        if self.poisoned.shape != self.clean.shape:
            raise InputError(
                f"poisoned images have shape {list(self.poisoned.shape)}, clean ones {list(self.clean.shape)}; "
                "the control needs the same rows"
            )


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Subject:
    """A dataset under verification; everything but its samples is known without reading an image."""

    name: str
    title: str
    version: str
    reduced: str | None
    """What is smaller than in the paper."""
    source: str
    """Name of its clean images in the claims, e.g. ``cifar10``."""
    limit_per_class: int | None
    recipe_digest: str
    manifest_digest: str | None
    """``None``: it was made in memory for this verification, and has no folder."""
    clean_digest: str
    """Identity of the clean images and labels, of training and of test."""
    poison_digest: str
    """Identity of what was done to them: that of the perturbation, or of the recipe that makes it."""
    num_train: int
    num_test: int
    image_size: int
    """Rows and columns."""
    num_classes: int
    flippable: bool
    """Whether a mirrored image still shows its class."""
    collapse_expected: bool
    """Whether the dataset is supposed to collapse under at least one strategy."""
    learnable: bool = False
    """Whether a countermeasure after the protections made it learnable again."""
    stands_for: str = ""
    """The dataset of the catalogue that this reduced one is made like; empty: none."""
    unjudged: str = ""
    """Why its results are not compared with a paper's; empty: they are."""
    samples: Callable[[], Samples]
    """The images; the same arrays each time."""
    redraw: Callable[[int], np.ndarray] | None = None
    """Poisoned images of another draw, from a seed; ``None``: there is one draw, and seeds are those of training."""
    remake: Callable[[], object] | None = None
    """Makes the poisoned images once more from the clean ones, for its time; ``None``: that takes long, or nobody knows
    how they were made."""

    @property
    def control(self) -> str:
        """Name of the clean images of the same rows: those of a limited recipe are others than the whole set."""
        return control_of(self.source, self.limit_per_class)

    @property
    def perturbation_digest(self) -> str:
        """Digest of the perturbation itself."""
        return self.samples().perturbation.digest

    def training_set(self, train_rows: int | None, test_rows: int | None, *, poisoned: bool, draw: int) -> TrainingSet:
        """So many first rows at most (``None``: all), as they are to be trained on, or those of the clean control.

        ``draw`` is the seed of another draw; 0: the one there is.
        """
        num_train = min(train_rows or self.num_train, self.num_train)
        num_test = min(test_rows or self.num_test, self.num_test)
        made_of: list[str | int] = [self.clean_digest, num_train, num_test]
        if poisoned:
            made_of += [self.poison_digest, f"draw {draw} of {__version__}" if draw else ""]

        @functools.cache
        def load() -> TrainingData:
            samples = self.samples()
            images = samples.poisoned if poisoned else samples.clean
            if draw:
                assert self.redraw is not None
                images = self.redraw(draw)
            return TrainingData(
                images=images[:num_train],
                labels=samples.labels[:num_train],
                test_images=samples.test_images[:num_test],
                test_labels=samples.test_labels[:num_test],
                num_classes=self.num_classes,
            )

        return TrainingSet(
            digest=hashlib.sha256(json.dumps(made_of).encode()).hexdigest(),
            num_train=num_train,
            num_test=num_test,
            image_size=self.image_size,
            num_classes=self.num_classes,
            load=load,
        )


def control_of(source: str, limit_per_class: int | None) -> str:
    """What the clean images of a source are called, or the first so many of each class."""
    return source if limit_per_class is None else f"{source}-first{limit_per_class}"


def check_controls(subjects: Sequence[Subject]) -> None:
    """Refuse subjects that share a control's name and not its images: they cannot be in one grid.

    Raises:
        InputError: two such subjects, or two of one name.
    """
    for other, subject in combinations(subjects, 2):
        if subject.name == other.name:
            raise InputError(f"{subject.name} is given twice")
        same = subject.clean_digest == other.clean_digest and subject.num_classes == other.num_classes
        if subject.control == other.control and not same:
            raise InputError(
                f"{other.name} and {subject.name} come from different clean images of the name {subject.control}: "
                "verify them one after the other"
            )
