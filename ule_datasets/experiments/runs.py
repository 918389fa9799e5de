"""Training runs as tasks: what identifies one, where its result is kept, how many of them are worked off."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ule_datasets.base import records
from ule_datasets.base.checkpoint import FileCheckpoint
from ule_datasets.base.content import content
from ule_datasets.base.errors import InputError
from ule_datasets.base.files import make_folder, write_atomically
from ule_datasets.base.memory import TORCH
from ule_datasets.base.progress import Reporter, say_nothing
from ule_datasets.base.sealed import is_sealed, seal, unseal
from ule_datasets.compute.devices import cpu_threads
from ule_datasets.compute.executor import Executor, Lost, Need
from ule_datasets.compute.ranks import on_ranks
from ule_datasets.experiments.identity import code_digest
from ule_datasets.experiments.prepared import PreparedSets
from ule_datasets.experiments.unfinished import SUFFIX, checkpoint_of, keeper_of, tidy
from ule_datasets.victims.data import TrainingSet
from ule_datasets.victims.history import EpochRecord, RunHistory, Standing
from ule_datasets.victims.protocol import TrainingProtocol
from ule_datasets.victims.victim import Victim

SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RunTask:
    """One training run; what a worker gets carries its data."""

    dataset: str
    """Name of what it trains on, for people."""
    data: TrainingSet
    victim: Victim
    protocol: TrainingProtocol
    seed: int
    device: torch.device
    threads: int = 1
    ranks: int = 1
    """Processes that share the run."""
    keep_weights: bool = False
    start: Path | None = None
    """Weights to start from, as for ``Victim.train``; every worker must find them there."""
    weights: Path | None = None
    """A file or folder of trained weights for countermeasures, to look at before downloading."""
    log: Path = Path(os.devnull)
    """One line of JSON per epoch is added here while it runs."""
    unfinished: Path | None = None
    """Where its state is kept until it is finished; ``None``: nowhere."""

    def __post_init__(self) -> None:
        batch = min(self.protocol.batch_size, self.data.num_train)
        if batch < 2 * self.ranks:
            raise InputError(
                f"batches of {batch} images cannot be shared by {self.ranks} ranks: each needs two of them"
            )

    @property
    def identity(self) -> str:
        """Digest of everything that the result depends on."""
        used = self.victim, self.protocol
        setting = self.data.digest, self.seed, self.device.type, self.ranks, torch.__version__
        parts = [*setting, content((*used, self.victim.depends_on)), code_digest(*used)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def flop(self) -> float:
        """Floating-point operations of the whole run."""
        return self.victim.flop(self.data, self.protocol)

    def checkpoint(self, on_refused: Callable[[str], None] = say_nothing) -> FileCheckpoint | None:
        """What is kept of it on this machine until it is finished; told why a file that is there is of no use."""
        if self.unfinished is None:
            return None
        return checkpoint_of(
            self.unfinished, self.identity, threads=self.threads, device=self.device, on_refused=on_refused
        )

    def standing(self, on_refused: Callable[[str], None] = say_nothing) -> Standing | None:
        """Where an interrupted attempt at it stands."""
        checkpoint = self.checkpoint(on_refused)
        state = None if checkpoint is None else checkpoint.load()
        return None if state is None else records.convert(Standing, state.facts, str(self.unfinished))

    def __str__(self) -> str:
        return f"{self.dataset}, {self.protocol}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """What a worker sends back."""

    history: RunHistory
    weights: bytes | None
    """Safetensors; ``None``: they were not wanted."""


@dataclass(frozen=True, slots=True)
class RunStore:
    """A folder of finished runs, found again by their identity."""

    folder: Path

    def path(self, task: RunTask) -> Path:
        """Where a run's history is or would be."""
        return self.folder / f"{task.dataset}-{task.protocol.strategy.name}-seed{task.seed}-{task.identity[:16]}.json"

    def weights(self, task: RunTask) -> Path:
        """Where its trained weights are or would be."""
        return self.path(task).with_suffix(".safetensors")

    def unfinished(self, task: RunTask) -> Path:
        """Where it is or would be kept what an interrupted attempt at it has done."""
        return self.path(task).with_suffix(SUFFIX)

    def standing(self, task: RunTask) -> Standing | None:
        """Where an interrupted attempt at a run stands."""
        return dataclasses.replace(task, unfinished=self.unfinished(task)).standing()

    def get(self, task: RunTask, reporter: Reporter) -> RunHistory | None:
        """A finished run, with its weights if the task wants them; an unreadable or changed file is named and not used.

        One that an earlier version kept has no seal: it is taken as it is, which is said, and sealed for the next time.
        """
        path = self.path(task)
        if not path.exists() or (task.keep_weights and not self.weights(task).exists()):
            return None
        try:
            text = path.read_text(encoding="utf-8")
            if not is_sealed(text):
                history = RunHistory.from_json(text, task.protocol)
                reporter.warn(f"{path}: an earlier version kept this run without a seal; delete it to run it again")
                with contextlib.suppress(OSError):  # a folder that others maintain may be read-only
                    self._keep(task, history, _sha256(self.weights(task)))
                return history
            return self._intact(task, text)
        except (InputError, UnicodeDecodeError) as error:
            reporter.warn(f"{path} is run again: {error}")
            return None

    def known(self, tasks: Sequence[RunTask], reporter: Reporter) -> dict[int, RunHistory]:
        """Those of the tasks that are finished, by index."""
        found = {index: self.get(task, reporter) for index, task in enumerate(tasks)}
        return {index: history for index, history in found.items() if history is not None}

    def put(self, task: RunTask, finished: Finished) -> None:
        """Keep a run; the history last, because its presence means complete."""
        if finished.weights is not None:
            write_atomically(self.weights(task), finished.weights)
        self._keep(task, finished.history, _sha256(self.weights(task)))
        self.unfinished(task).unlink(missing_ok=True)

    def _keep(self, task: RunTask, history: RunHistory, weights: str | None) -> None:
        values = {**json.loads(history.to_json()), "weights": weights}
        write_atomically(self.path(task), seal(json.dumps(values, indent=1, allow_nan=False), task.identity))

    def _intact(self, task: RunTask, text: str) -> RunHistory | None:
        """What a sealed file says; refused where it, or the weights that are wanted, are not what was written."""
        unsealed = unseal(text, task.identity)
        if unsealed is None:
            raise InputError("it was changed after it was written, or is of another run")
        kept = records.parse(_Kept, unsealed, "what is kept of the run")
        if task.keep_weights and _sha256(self.weights(task)) != kept.weights:
            raise InputError("its weights were changed after they were written")
        return RunHistory.from_json(unsealed, task.protocol)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    """What the store adds to a history."""

    weights: str | None
    """Their sha256."""


def _sha256(path: Path) -> str | None:
    """Of a file that is there."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_task(task: RunTask) -> Finished:
    """Train; log every epoch."""
    return on_ranks(_train, task, ranks=task.ranks, on_cuda=task.device.type == "cuda")


def time_task(task: RunTask) -> float:
    """Seconds that the task will take in one process, from a few real steps."""
    with cpu_threads(task.threads):
        return task.victim.seconds(task.data.load(), task.protocol, device=task.device, start=task.start)


def prepared_sets(store: RunStore, executor: Executor, reporter: Reporter) -> PreparedSets:
    """Where training sets of a store's runs are prepared: beside it."""
    return PreparedSets(folder=store.folder.with_name("prepared"), executor=executor, reporter=reporter)


def work_off(
    tasks: Sequence[RunTask],
    store: RunStore,
    executor: Executor,
    reporter: Reporter,
    *,
    known: Mapping[int, RunHistory] | None = None,
) -> dict[int, RunHistory | Lost]:
    """Run the tasks that the store does not have, keep each as it ends, and give the history of all, by index.

    A run whose worker died is tried again once; then it is ``Lost`` and the others go on.
    ``known`` is what the store has, for who has asked it already.
    """
    done: dict[int, RunHistory | Lost] = {**(store.known(tasks, reporter) if known is None else known)}
    make_folder(store.folder)
    tidy(store.folder)
    waiting = [index for index in range(len(tasks)) if index not in done]
    prepared = prepared_sets(store, executor, reporter)
    todo = []
    for task in (tasks[index] for index in waiting):
        given, strategy = task.data, task.protocol.strategy
        data = prepared.of(task.dataset, given.load(), given.digest, strategy, device=task.device, weights=task.weights)
        log, unfinished = store.path(task).with_suffix(".log"), store.unfinished(task)
        own = TrainingSet.of(data, given.digest)
        todo.append(dataclasses.replace(task, data=own, log=log, unfinished=unfinished))
    with _following(todo, reporter, before=sum(_continued(task, reporter) for task in todo)):
        for number, result in executor.unordered(run_task, todo, need=_need(todo, reporter)):
            index, task = waiting[number], tasks[waiting[number]]
            if isinstance(result, Lost):
                done[index] = result
                reporter.warn(f"{task}: lost, {result.reason}")
                continue
            store.put(task, result)
            done[index] = result.history
            accuracy, seconds = result.history.test_accuracy, result.history.seconds
            reporter.say(f"{task}: {accuracy:.1f} % clean test accuracy ({seconds:.0f} s)")
    return done


def _need(tasks: Sequence[RunTask], reporter: Reporter) -> Need:
    """What the largest run takes: its pixels, as they arrive and as arrays, and torch."""
    pixels = max(((t.data.num_train + t.data.num_test) * 3 * t.data.image_size**2 for t in tasks), default=0)
    return Need(what="a worker that trains", task=pixels, process=pixels + TORCH, tell=reporter.warn)


def _continued(task: RunTask, reporter: Reporter) -> int:
    """Say where an interrupted run goes on; the number of epochs that it has behind it."""
    standing = task.standing(reporter.warn)
    if standing is None:
        return 0
    done, epochs = len(standing.epochs), task.protocol.epochs
    reporter.say(f"continuing an interrupted run: {task}, from epoch {min(done + 1, epochs)} of {epochs}")
    return done


def _train(task: RunTask, rank: int, device: torch.device | None) -> Finished:
    watched = rank == 0 and task.log.parent.is_dir()  # not on another machine
    with (
        cpu_threads(task.threads),
        tempfile.TemporaryDirectory() as folder,
        keeper_of(task.checkpoint(), until_signalled=task.ranks == 1) as keeper,
    ):

        def note(record: EpochRecord) -> None:
            if watched:
                with task.log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(dataclasses.asdict(record)) + "\n")

        weights = Path(folder) / "weights.safetensors" if task.keep_weights and rank == 0 else None
        place = device or task.device
        history = task.victim.train(
            task.data.load(),
            task.protocol,
            seed=task.seed,
            device=place,
            on_epoch=note,
            start=task.start,
            weights=weights,
            keeper=keeper,
        )
        trained = None if weights is None else weights.read_bytes()
    return Finished(history=history, weights=trained)


@contextmanager
def _following(tasks: Sequence[RunTask], reporter: Reporter, *, before: int) -> Iterator[None]:
    """Show the epochs of all tasks as their logs grow, from a thread of its own; ``before`` were done before."""
    for task in tasks:
        task.log.unlink(missing_ok=True)
    total, stopped = sum(task.protocol.epochs for task in tasks), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        epochs = reporter.track(_logged(tasks, stopped), total=total, label="training", unit="epoch", before=before)
        follower = pool.submit(lambda: sum(1 for _ in epochs))
        try:
            yield
        finally:
            stopped.set()
            follower.result()
            for task in tasks:
                task.log.unlink(missing_ok=True)


def _logged(tasks: Sequence[RunTask], stopped: threading.Event) -> Iterator[str]:
    """An item for each line that appears in the logs, until told to stop."""
    seen: dict[Path, int] = dict.fromkeys((task.log for task in tasks), 0)
    while not stopped.wait(SECONDS_BETWEEN_LOOKS):
        for log, known in seen.items():
            try:
                lines = log.read_text(encoding="utf-8").count("\n")
            except FileNotFoundError:
                continue
            seen[log] = max(lines, known)
            yield from [log.stem] * (lines - known)
