"""Models that a function of the user's own trains, or has trained before: runs that are judged like all others."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from ule_datasets.base.errors import InputError
from ule_datasets.base.files import cache_folder
from ule_datasets.base.progress import Reporter
from ule_datasets.base.shown import joined
from ule_datasets.compute.devices import describe_device
from ule_datasets.compute.precision import Precision
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.experiments.grid import Cell, GridResult, Run, compared, with_controls
from ule_datasets.experiments.prepared import PreparedSets
from ule_datasets.experiments.profiles import Profile
from ule_datasets.experiments.subject import Subject
from ule_datasets.papers.rules import Power
from ule_datasets.victims.augmentation import to_float
from ule_datasets.victims.data import TrainingData
from ule_datasets.victims.history import EpochRecord, RunHistory
from ule_datasets.victims.protocol import OneCycle, TrainingProtocol
from ule_datasets.victims.seen import Seen
from ule_datasets.victims.strategy import Strategy
from ule_datasets.victims.table import VICTIMS

BATCH = 500
"""Images that a trained model is asked about at once."""
SIDES = ("clean", "poisoned")
"""What models were trained on."""

Model = Callable[[Tensor], Tensor]
"""From images, float32 [B, 3, H, W] in [0, 1], to a score for each class, [B, classes]: a module, or any function."""


class TrainingImages(Dataset[tuple[Tensor, int]]):
    """What a function of the user's trains on: images as the strategy changes them, at random each time they are asked.

    ``data[i]`` is ``(image, target)``: float32 [3, H, W] in [0, 1], or near it as ``op`` leaves them, and the class
    number. A ``DataLoader`` takes whole batches from it. What is drawn comes from torch's global generator, which is
    seeded before the function is called.
    """

    def __init__(self, data: TrainingData, strategy: Strategy, seed: int) -> None:
        self._images, self._labels, self._strategy = _whole(data, strategy), data.labels, strategy
        self.num_classes = data.num_classes
        self.image_shape = (3, *data.images.shape[1:3])
        """Channels, rows, columns."""
        self.targets: list[int] = data.labels.tolist()
        """Class numbers."""
        self.seed = seed
        """Of the run, for generators other than torch's."""

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """A batch, changed together."""
        draws = torch.default_generator
        images = self._strategy.augmentation.move(self._images[torch.tensor(indices)], draws)
        for part in self._strategy.parts:
            images = part.on_bytes(images, draws)
        images = to_float(images)
        for part in self._strategy.parts:
            images = part.on_floats(images, draws)
        return [(image, self.targets[index]) for image, index in zip(images, indices, strict=True)]

    def __repr__(self) -> str:
        channels, height, width = self.image_shape
        size = f"{len(self):,} images [{channels}, {height}, {width}] of {self.num_classes} classes"
        return f"{type(self).__name__}: {size}, {self._strategy.name}, seed {self.seed}"


Train = Callable[[TrainingImages], Model]
"""A function of the user's: from what it trains on to the trained model."""
Trained = Mapping[str, Any]
"""Models that were trained before, one or a list of them, by what they were trained on: ``poisoned`` and ``clean``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnProfile(Profile):
    """Whatever the user's function does: how long it trains is its own."""

    own: ClassVar[bool] = True

    def told(self) -> dict[str, Any]:
        """What report.json has of it."""
        return {"name": self.name, "power": self.power, "num_seeds": self.num_seeds, "limits": self.limits}


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnProtocol(TrainingProtocol):
    """A run of which nobody here knows more than the strategy: the other fields say nothing."""

    def told(self) -> dict[str, Any]:
        """What report.json has of it."""
        return {"model": self.model, "strategy": self.strategy}


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class OwnTraining:
    """The user's side of an evaluation."""

    name: str
    """What the model is called."""
    train: Train | Trained
    strategy: str
    """How training images are changed; for models that were trained before, how they were."""
    num_seeds: int
    """Runs on either side; for models that were trained before it is their number that counts."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", self.name):
            raise InputError(
                f"evaluate: model is {self.name!r}, must be a word of letters, digits and '.', '+', '-', '_'"
            )
        if self.name in VICTIMS:
            raise InputError(
                f"evaluate: {self.name} is a model of this library, which verify trains; call yours otherwise"
            )
        _check(parse_strategy(self.strategy))
        if self.num_seeds < 1:
            raise InputError(f"evaluate: seeds is {self.num_seeds}, must be at least 1")
        if isinstance(self.train, Mapping):
            numbers = {side: len(_several(self.train.get(side, ()))) for side in SIDES}
            if set(self.train) != set(SIDES) or len(set(numbers.values())) > 1 or 0 in numbers.values():
                raise InputError(
                    f"evaluate: trained models are given as {{'poisoned': [...], 'clean': [...]}}, as many of either; "
                    f"got {', '.join(map(str, self.train)) or 'none'}"
                )
        elif not callable(self.train):
            raise InputError(f"evaluate: train is {self.train!r}, must be a function, or trained models")

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs."""
        number = len(_several(self.train["clean"])) if isinstance(self.train, Mapping) else self.num_seeds
        return tuple(range(number))

    @property
    def profile(self) -> OwnProfile:
        """What may be said of its runs."""
        return OwnProfile(
            name="own",
            epochs=1,
            schedule=OneCycle(),
            precision=Precision.FLOAT32,
            power=Power.EFFECTS,
            num_seeds=len(self.seeds),
            strategies=("standard",),
            stand_in=self.name,
            limits=f"{self.name} was trained by other code than this library's, and stands for a ResNet-18 where a "
            "paper speaks of one: enough to judge effects, if it fits its training data; it says nothing about any "
            "number of a paper.",
        )

    def result(self, subject: Subject, strategy: Strategy, reporter: Reporter) -> GridResult:
        """Train on the dataset and on its clean control, seed by seed, and compare.

        Raises:
            InputError: what should be a model is none, or does not give a score for each class.
        """
        cells = with_controls([Cell(subject.name, self.name, strategy.name)], [subject])
        sides = dict(zip(cells, SIDES, strict=True))
        sets = {
            cell: subject.training_set(None, None, poisoned=side == SIDES[1], draw=0) for cell, side in sides.items()
        }
        prepared = PreparedSets(folder=cache_folder() / "prepared", reporter=reporter)
        images = {
            cell: prepared.of(cell.dataset, each.load(), each.digest, strategy, device=torch.device("cpu"))
            for cell, each in sets.items()
        }
        histories: dict[tuple[Cell, int], RunHistory] = {}
        for seed in self.seeds:
            for cell, side in sides.items():
                done = self._run(side, images[cell], strategy, seed)
                reporter.say(f"{cell}, seed {seed}: {done.test_accuracy:.1f} % clean test accuracy")
                histories[cell, seed] = done
        result = GridResult(
            profile=self.profile,
            seeds=self.seeds,
            num_classes={cell.dataset: subject.num_classes for cell in sets},
            num_train={cell.dataset: each.num_train for cell, each in sets.items()},
            num_test={cell.dataset: subject.num_test for cell in sets},
            runs=tuple(
                Run(cell=cell, seed=seed, history=histories[cell, seed], identity="", reused=False)
                for cell in cells
                for seed in self.seeds
            ),
            lost=(),
            comparisons=(),
        )
        return replace(result, comparisons=compared(result, cells, [subject]))

    def _run(self, side: str, data: TrainingData, strategy: Strategy, seed: int) -> RunHistory:
        """Train with one seed, or take the model that was trained before, and see what it has learned."""
        started = time.perf_counter()
        if isinstance(self.train, Mapping):
            model = _several(self.train[side])[seed]
        else:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model = self.train(TrainingImages(data, strategy, seed))
        if not callable(model):
            raise InputError(f"evaluate: the {side} model is {model!r}, must be a module or a function")
        seconds = time.perf_counter() - started
        train_accuracy, loss = _measured(model, _whole(data, strategy), data.labels, data.num_classes)
        tests = torch.from_numpy(_own(data.test_images))
        test_accuracy, _ = _measured(model, tests, data.test_labels, data.num_classes)
        parameters = model.parameters() if isinstance(model, nn.Module) else ()
        record = EpochRecord(
            epoch=1,
            train_loss=loss if math.isfinite(loss) else None,
            train_accuracy=train_accuracy,
            test_accuracy=test_accuracy,
            displacement=None,
            windows=(),
            seconds=seconds,
        )
        return RunHistory(
            protocol=OwnProtocol(model=self.name, epochs=1, strategy=strategy),
            seed=seed,
            device=describe_device(_device(model)),
            threads=torch.get_num_threads(),
            ranks=1,
            num_parameters=sum(each.numel() for each in parameters if each.requires_grad),
            epochs=(record,),
            seconds=seconds,
        )


def _whole(data: TrainingData, strategy: Strategy) -> Tensor | Seen:
    """Training images as they are before crop and flip, by rows."""
    images = torch.from_numpy(_own(data.images))
    return Seen(images, strategy, data.learned) if strategy.having("on_levels") else images


def _own(images: np.ndarray) -> np.ndarray:
    """An array that torch may take: prepared images are read from a file that nobody writes to."""
    return np.require(images, requirements=("C", "W"))


def _several(models: Any) -> Sequence[Model]:
    """A list of models, of which one may stand alone."""
    return models if isinstance(models, list | tuple) else [models]


def _check(strategy: Strategy) -> None:
    """Refuse what only the loop that trains can do."""
    within = [part.name for part in (*strategy.having("attack"), *strategy.having("mix"))]
    if within:
        raise InputError(
            f"strategy {strategy.name}: {joined(within)} works within the training loop, which is the function's own: "
            "do it there, and name the strategy without it"
        )


def _device(model: Model) -> torch.device:
    """Where the parameters of a module are; other functions get images on the CPU."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


@torch.no_grad()
def _measured(model: Model, images: Tensor | Seen, labels: np.ndarray, num_classes: int) -> tuple[float, float]:
    """Accuracy in percent, and mean cross entropy, in evaluation mode on images as they are."""
    module = model if isinstance(model, nn.Module) else nn.Identity()
    device, training = _device(model), module.training
    module.eval()
    correct, loss = 0, 0.0
    for start in range(0, len(images), BATCH):
        batch = images[torch.arange(start, min(start + BATCH, len(images)))].to(device)
        wanted = torch.from_numpy(labels[start : start + BATCH]).to(device)
        scores = model(to_float(batch))
        if not isinstance(scores, Tensor) or scores.shape != (len(batch), num_classes):
            found = list(scores.shape) if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
            wish = f"scores [{len(batch)}, {num_classes}]"
            raise InputError(f"evaluate: of {len(batch)} images a model must give {wish}; it gave {found}")
        correct += int((scores.argmax(dim=1) == wanted).sum())
        loss += float(functional.cross_entropy(scores.float(), wanted, reduction="sum"))
    module.train(training)
    return 100 * correct / len(images), loss / len(images)
