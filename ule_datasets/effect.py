"""What training on a dataset does: the same models on the poisoned images and on a clean control, compared.

Every finished run is kept as a file, so an interrupted measurement continues where it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from ule_datasets.augmentation import Augmentation
from ule_datasets.errors import InputError
from ule_datasets.executor import LocalExecutor, available_cpus
from ule_datasets.files import write_atomically
from ule_datasets.progress import Reporter
from ule_datasets.separability import Separability, linear_separability
from ule_datasets.training import (
    EpochRecord,
    RunHistory,
    TrainingData,
    TrainingProtocol,
    describe_device,
    time_run,
    train,
)
from ule_datasets.version import __version__

LEARNED = 0.25
"""A control has learned when it covers this share of the way from chance to 100 %."""
COLLAPSED = 0.25
"""A model has collapsed when it covers at most this share of the way from chance to the control."""
PARTLY = 0.5
"""Up to this share of the way it has collapsed in part; beyond, it has not."""
MARGIN = 25.0
"""Points that a model lies below the control, at least, to have collapsed even in part."""
FITTED = 90.0
"""Training accuracy on the poisoned images (percent) from which the shortcut counts as fully fitted."""
SECONDS_BETWEEN_LOOKS = 0.5
Result = TypeVar("Result")


class DataKind(StrEnum):
    """What a model is trained on."""

    CLEAN = "clean"
    """The control: the same images before they were perturbed."""
    POISONED = "poisoned"


class Verdict(StrEnum):
    """What the runs under one augmentation say."""

    SHOWN = "collapse shown"
    PARTIAL = "partial collapse"
    """Far below the control, and far above chance."""
    NOT_SHOWN = "collapse not shown"
    INCONCLUSIVE = "inconclusive"
    """The control did not learn, or a loss was not finite: nothing can be said about the poisoned images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """How much is trained, and what may be concluded from it."""

    name: str
    model: str
    epochs: int
    max_train_images: int
    """Only the first so many rows are used; the canonical order makes them a fixed random subset."""
    max_test_images: int
    num_seeds: int
    """How many runs of each kind are usual."""
    limits: str
    """What this profile cannot say, in one sentence for the report."""

    def protocols(self, *, flippable: bool) -> tuple[TrainingProtocol, ...]:
        """Without augmentation, and with the usual one: crop with padding 4, and flip where labels allow it."""
        augmentations = (Augmentation(crop_padding=0, flip=False), Augmentation(crop_padding=4, flip=flippable))
        return tuple(TrainingProtocol(model=self.model, epochs=self.epochs, augmentation=a) for a in augmentations)


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke",
            model="resnet18-w8",
            epochs=10,
            max_train_images=10_000,
            max_test_images=2_000,
            num_seeds=1,
            limits="A narrow network, a subset of the images and 10 epochs show whether the data, the labels and "
            "the shortcut work; they neither confirm nor refute any number of a paper.",
        ),
    )
}


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class EffectData:
    """A dataset in memory, before and after: the same rows in the same order."""

    poisoned_images: np.ndarray
    """uint8, [N, H, W, 3]."""
    clean_images: np.ndarray
    """uint8, [N, H, W, 3]."""
    labels: np.ndarray
    """int64, [N]."""
    test_images: np.ndarray
    """uint8, [M, H, W, 3]; clean."""
    test_labels: np.ndarray
    """int64, [M]."""
    num_classes: int
    flippable: bool
    """Whether a mirrored image still shows its class."""
    fingerprint: str
    """Identity of all of the above: finished runs are found again by it."""

    def __post_init__(self) -> None:
        if self.poisoned_images.shape != self.clean_images.shape:
            raise InputError(
                f"poisoned images have shape {list(self.poisoned_images.shape)}, clean ones "
                f"{list(self.clean_images.shape)}; the control needs the same rows"
            )

    def training_data(self, kind: DataKind, profile: Profile) -> TrainingData:
        """The rows that a profile uses; views."""
        images = self.poisoned_images if kind is DataKind.POISONED else self.clean_images
        rows, test_rows = profile.max_train_images, profile.max_test_images
        return TrainingData(
            images=images[:rows],
            labels=self.labels[:rows],
            test_images=self.test_images[:test_rows],
            test_labels=self.test_labels[:test_rows],
            num_classes=self.num_classes,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One trained model."""

    kind: DataKind
    history: RunHistory
    reused: bool
    """Finished by an earlier, interrupted or repeated, verification."""

    @property
    def augmentation(self) -> str:
        """Name of the augmentation that it was trained with."""
        return self.history.protocol.augmentation.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """A percentage over several seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """Sample standard deviation; ``None`` for a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        spread = "" if self.sd is None else f" ± {self.sd:.1f}"
        return f"{self.mean:.1f}{spread} %"


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What the runs under one augmentation say; accuracies after the last epoch, judged on means over seeds."""

    augmentation: str
    verdict: Verdict
    clean: Summary
    """Test accuracy of the control."""
    poisoned: Summary
    """Test accuracy of the model trained on the poisoned images."""
    poisoned_train: Summary
    """Its training accuracy."""
    notes: tuple[str, ...]

    @property
    def heading(self) -> str:
        """The augmentation in words."""
        return _spoken(self.augmentation)

    @property
    def fully_fitted(self) -> bool:
        """Whether the training accuracy on the poisoned images reached ``FITTED``."""
        return self.poisoned_train.mean >= FITTED


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """All runs of a measurement and what they say."""

    profile: Profile
    num_classes: int
    num_train: int
    num_test: int
    collapse_expected: bool
    """Whether the dataset is supposed to collapse under at least one augmentation."""
    runs: tuple[Run, ...]
    separability: Separability | None = None
    """Of the perturbation alone; ``None``: it changes images of fewer than two classes."""

    @property
    def chance(self) -> float:
        """Accuracy of guessing, in percent."""
        return 100 / self.num_classes

    @property
    def augmentations(self) -> tuple[str, ...]:
        """In the order in which they were run."""
        return tuple(dict.fromkeys(run.augmentation for run in self.runs))

    @property
    def seeds(self) -> tuple[int, ...]:
        """In the order in which they were run."""
        return tuple(dict.fromkeys(run.history.seed for run in self.runs))

    def histories(self, kind: DataKind, augmentation: str) -> tuple[RunHistory, ...]:
        """The runs of one kind under one augmentation, a seed each."""
        return tuple(run.history for run in self.runs if (run.kind, run.augmentation) == (kind, augmentation))

    @property
    def judgements(self) -> tuple[Judgement, ...]:
        """One for each augmentation."""
        return tuple(
            judge(
                name,
                self.histories(DataKind.CLEAN, name),
                self.histories(DataKind.POISONED, name),
                chance=self.chance,
            )
            for name in self.augmentations
        )

    def under(self, verdict: Verdict) -> tuple[str, ...]:
        """The augmentations with this verdict."""
        return tuple(judgement.augmentation for judgement in self.judgements if judgement.verdict is verdict)

    @property
    def as_expected(self) -> bool:
        """Not so when a collapse was expected and showed under no augmentation, not even in part, though it could."""
        seen = self.under(Verdict.SHOWN) or self.under(Verdict.PARTIAL)
        return not (self.collapse_expected and self.under(Verdict.NOT_SHOWN) and not seen)

    @property
    def summary(self) -> str:
        """One sentence: which verdict under which augmentations."""
        parts = [
            f"{verdict} under {' and '.join(_spoken(name) for name in self.under(verdict))}"
            for verdict in Verdict
            if self.under(verdict)
        ]
        sentence = "; ".join(parts)
        return f"{sentence[:1].upper()}{sentence[1:]}."


def judge(
    augmentation: str, clean_runs: Sequence[RunHistory], poisoned_runs: Sequence[RunHistory], *, chance: float
) -> Judgement:
    """Compare models trained on poisoned images with their controls, by the thresholds of this module."""
    clean = Summary(values=tuple(run.last.test_accuracy for run in clean_runs))
    poisoned = Summary(values=tuple(run.last.test_accuracy for run in poisoned_runs))
    fitted = Summary(values=tuple(run.last.train_accuracy for run in poisoned_runs))
    broken = [run for run in (*clean_runs, *poisoned_runs) if not run.finite]
    needed = chance + LEARNED * (100 - chance)
    notes = [f"seed {run.seed}: the loss was not finite in epoch {run.last.epoch}, training stopped" for run in broken]
    if clean.mean < needed:
        notes.append(f"the control did not learn: {clean} clean test accuracy, at least {needed:.1f} % needed")
    if fitted.mean < FITTED:
        notes.append(f"not fully fitted: {fitted} training accuracy on the poisoned images, below {FITTED:.0f} %")
    share = (poisoned.mean - chance) / (clean.mean - chance) if clean.mean > chance else 1.0
    if broken or clean.mean < needed:
        verdict = Verdict.INCONCLUSIVE
    elif clean.mean - poisoned.mean < MARGIN or share > PARTLY:
        verdict = Verdict.NOT_SHOWN
    else:
        verdict = Verdict.SHOWN if share <= COLLAPSED else Verdict.PARTIAL
    return Judgement(
        augmentation=augmentation, verdict=verdict, clean=clean, poisoned=poisoned, poisoned_train=fitted,
        notes=tuple(notes),
    )  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RunTask:
    """One training run for a worker; carries its data."""

    data: TrainingData
    kind: DataKind
    protocol: TrainingProtocol
    seed: int
    device: torch.device
    threads: int
    result: Path
    """The run's JSON, written when it is finished."""

    @property
    def log(self) -> Path:
        """One line of JSON per epoch, while it runs."""
        return self.result.with_suffix(".log")

    def __str__(self) -> str:
        return f"{self.kind}, {_spoken(self.protocol.augmentation.name)}, seed {self.seed}"


def measure_effect(
    data: EffectData,
    *,
    profile: Profile,
    seeds: Sequence[int],
    device: torch.device,
    executor: LocalExecutor,
    reporter: Reporter,
    runs_folder: Path,
    collapse_expected: bool,
) -> Effect:
    """Train on poisoned images and clean control under every augmentation of the profile, and keep every run.

    Args:
        data: the dataset.
        profile: how much is trained.
        seeds: one run of each kind for each; poisoned images and control share them.
        device: where to train; runs on a GPU go one after another, in this process.
        executor: where runs on the CPU go.
        reporter: where the plan, the expected time and progress are shown.
        runs_folder: where finished runs are kept, and found again.
        collapse_expected: noted in the result.

    Raises:
        InputError: no seeds, a seed twice, or unsuitable arrays.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise InputError(f"seeds are {list(seeds)}; give at least one, each once")
    tasks = _plan(data, profile, seeds, device, executor, runs_folder)
    finished = {task.result: history for task in tasks if (history := _stored(task, reporter)) is not None}
    waiting = [task for task in tasks if task.result not in finished]
    runs_folder.mkdir(parents=True, exist_ok=True)
    _announce(tasks, waiting, profile, executor, reporter)
    made = {} if not waiting else _train_all(waiting, executor, reporter)
    return Effect(
        profile=profile,
        num_classes=data.num_classes,
        num_train=len(tasks[0].data.images),
        num_test=len(tasks[0].data.test_images),
        collapse_expected=collapse_expected,
        runs=tuple(
            Run(kind=t.kind, history=finished.get(t.result) or made[t.result], reused=t.result in finished)
            for t in tasks
        ),
        separability=linear_separability(data.clean_images, data.poisoned_images, data.labels),
    )


def run_task(task: RunTask) -> RunHistory:
    """Train, log every epoch, keep the result."""
    with _threads(task.threads), task.log.open("w", encoding="utf-8") as log:

        def note(record: EpochRecord) -> None:
            log.write(json.dumps(dataclasses.asdict(record)) + "\n")
            log.flush()

        history = train(task.data, protocol=task.protocol, seed=task.seed, device=task.device, on_epoch=note)
    write_atomically(task.result, history.to_json())
    return history


def time_task(task: RunTask) -> float:
    """Seconds that the task will take, from a few real steps."""
    with _threads(task.threads):
        return time_run(task.data, protocol=task.protocol, device=task.device)


def _plan(
    data: EffectData, profile: Profile, seeds: Sequence[int], device: torch.device, executor: LocalExecutor,
    runs_folder: Path,
) -> list[RunTask]:  # fmt: skip
    """Every run, with the file of its result."""
    protocols = profile.protocols(flippable=data.flippable)
    parallel = _parallel(device, executor, len(seeds) * len(protocols) * len(DataKind))
    datasets = {kind: data.training_data(kind, profile) for kind in DataKind}
    return [
        RunTask(
            data=datasets[kind],
            kind=kind,
            protocol=protocol,
            seed=seed,
            device=device,
            threads=max(1, available_cpus() // parallel),
            result=runs_folder / _file_name(data.fingerprint, kind, protocol, seed, profile, device),
        )
        for seed in seeds
        for protocol in protocols
        for kind in DataKind
    ]


def _file_name(
    fingerprint: str, kind: DataKind, protocol: TrainingProtocol, seed: int, profile: Profile, device: torch.device
) -> str:
    """Readable, and different whenever the result might be."""
    parts = [
        fingerprint, kind, dataclasses.asdict(protocol), seed, dataclasses.asdict(profile), device.type,
        __version__, torch.__version__,
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{kind}-{protocol.augmentation}-seed{seed}-{digest[:12]}.json"


def _parallel(device: torch.device, executor: LocalExecutor, num_runs: int) -> int:
    """How many runs go at a time."""
    return 1 if device.type == "cuda" else min(executor.workers, num_runs)


def _stored(task: RunTask, reporter: Reporter) -> RunHistory | None:
    """What an earlier verification left of this run; an unreadable file is named and not used."""
    if not task.result.exists():
        return None
    try:
        return RunHistory.from_json(task.result.read_text(encoding="utf-8"), task.protocol)
    except (InputError, UnicodeDecodeError) as error:
        reporter.warn(f"{task.result} is run again: {error}")
        return None


def _announce(
    tasks: list[RunTask], waiting: list[RunTask], profile: Profile, executor: LocalExecutor, reporter: Reporter
) -> None:
    """Say what is done already and what will be done; time a few steps to say how long that will take."""
    for task in tasks:
        if task not in waiting:
            reporter.say(f"reusing a finished run: {task} ({task.result.name})")
    if not waiting:
        return
    first, parallel = tasks[0], _parallel(tasks[0].device, executor, len(tasks))
    reporter.say(
        f"profile {profile.name}: {len(waiting)} run{'s' if len(waiting) > 1 else ''} of {profile.model}, "
        f"{profile.epochs} epochs on {len(first.data.images):,} images each, on {describe_device(first.device)}, "
        f"{parallel} at a time with {first.threads} thread{'s' if first.threads > 1 else ''} each: "
        + "; ".join(map(str, waiting))
    )
    concurrent = min(parallel, len(waiting))
    seconds = max(_map(executor, first.device, time_task, waiting[:concurrent]))
    total = seconds * -(-len(waiting) // concurrent)
    reporter.say(f"this will take about {_duration(total)}, going by the time of a few steps")


def _train_all(tasks: list[RunTask], executor: LocalExecutor, reporter: Reporter) -> dict[Path, RunHistory]:
    """Run the tasks, showing their epochs as they are logged and their results as they come."""
    made = {}
    with _following(tasks, reporter):
        for task, history in zip(tasks, _map(executor, tasks[0].device, run_task, tasks), strict=True):
            made[task.result] = history
            reporter.say(f"{task}: {history.last.test_accuracy:.1f} % clean test accuracy ({history.seconds:.0f} s)")
    return made


def _map(
    executor: LocalExecutor, device: torch.device, function: Callable[[RunTask], Result], tasks: Iterable[RunTask]
) -> Iterator[Result]:
    """On a GPU one after another in this process; else wherever the executor puts them."""
    return map(function, tasks) if device.type == "cuda" else executor.map(function, tasks)


@contextmanager
def _following(tasks: list[RunTask], reporter: Reporter) -> Iterator[None]:
    """Show the epochs of all tasks as their logs grow, from a thread of its own."""
    for task in tasks:
        task.log.unlink(missing_ok=True)
    total, stopped = sum(task.protocol.epochs for task in tasks), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        epochs = reporter.track(_logged(tasks, stopped), total=total, label="training", unit="epoch")
        follower = pool.submit(lambda: sum(1 for _ in epochs))
        try:
            yield
        finally:
            stopped.set()
            follower.result()
            for task in tasks:
                task.log.unlink(missing_ok=True)


def _logged(tasks: list[RunTask], stopped: threading.Event) -> Iterator[str]:
    """An item for each line that appears in the logs, until told to stop."""
    seen: dict[Path, int] = dict.fromkeys((task.log for task in tasks), 0)
    while not stopped.wait(SECONDS_BETWEEN_LOOKS):
        for log, known in seen.items():
            if not log.exists():
                continue
            lines = log.read_text(encoding="utf-8").count("\n")
            seen[log] = lines
            yield from [log.stem] * (lines - known)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use so many CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _spoken(augmentation: str) -> str:
    return "no augmentation" if augmentation == "none" else augmentation


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
