"""One life cycle for crafts that take long: steps that may be interrupted anywhere and are resumed to the same bits.

A craft says what changes while it runs (``parts``), what comes next (``following``), how long it may take
(``estimate``) and what it notes. Checkpoints, resuming, environments, the announcement, progress, workers and kernels
that repeat are here.
"""

from __future__ import annotations

import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ule_datasets.base.checkpoint import SECONDS_BETWEEN_CHECKPOINTS, Pace, State
from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.base.memory import TORCH
from ule_datasets.base.progress import Forecast, duration
from ule_datasets.compute.devices import (
    cpu_threads,
    describe_device,
    describe_machine,
    deterministic_algorithms,
    pick_device,
    products_in,
)
from ule_datasets.compute.executor import Executor, Lost, Need
from ule_datasets.compute.parts import Part, arrays_of, restore
from ule_datasets.compute.precision import Precision
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.methods.method import Context, Method

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

FORMAT = 2
"""Of checkpoints; others are not used."""
OWN_FACTS = ("done", "position", "trace", "environments")
GPU_FLOPS = 50e12
"""What one large GPU sustains on small convolutions, for the estimate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """Steps that follow each other, and what comes of them."""

    label: str
    """What is shown while they run."""
    unit: str
    """What a step is called."""
    steps: range
    """Where each of them begins, from 0; when the phase is resumed, the stride may be another one."""
    step: Callable[[int], None]
    end: Callable[[], str]
    """Called after the last step; returns what to tell of the phase, empty for nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Independent pieces of work for the workers of an executor."""

    function: Callable[[Any, np.ndarray], Any]
    """Called with each task and the array; must be importable where workers run."""
    tasks: Mapping[int, Any]
    """Picklable; by the numbers by which people are told of them."""
    array: np.ndarray
    """Large, and what all of them need; workers must not write to it."""
    unit: str
    """What such a piece is called."""
    take: Callable[[Any], str]
    """Called with each result as it comes; returns what to tell of it."""
    memory: int = 0
    """Bytes that a piece takes at the very least, besides libraries and the array: models and their gradients."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """How long a craft may take."""

    text: str
    seconds: float
    flop: float
    rounds: int = 0
    """In how many entries of the trace; 0: it is not corrected as they come."""
    unit: str = "round"
    """What such an entry is called."""


class Stepwise(ABC):
    """A craft with its state."""

    one_thread: ClassVar[bool] = True
    """On a CPU, for results that do not depend on its cores: sums over a batch depend on how many threads share them.
    Without it, the steps themselves take care of that."""

    def __init__(self, method: Method, context: Context, precision: Precision) -> None:
        self.method, self.context, self.precision = method, context, precision
        self.device = pick_device(context.device)
        self.trace: list[dict[str, Any]] = []
        """What is noted of each round, as JSON values."""
        self.done = 0
        """Phases that have ended."""
        self.position = 0
        """Where the next step of the phase begins."""
        self.environments = [self.environment()]
        self._pace = Pace(SECONDS_BETWEEN_CHECKPOINTS)
        self._forecast: Forecast | None = None
        self._known_rounds = 0
        """Entries of the trace when that was made."""
        self._shuffled: tuple[tuple[str | int, ...], Tensor] = ((), torch.empty(0))

    # --- what a method says ---

    @abstractmethod
    def parts(self) -> Mapping[str, Part]:
        """All that changes, by name, besides ``trace``, ``done``, ``position`` and ``facts``."""

    @abstractmethod
    def following(self) -> Phase | Spread | None:
        """What is to be done next, or goes on at ``position``; ``None`` at the end."""

    @abstractmethod
    def estimate(self) -> Estimate | None:
        """How long what is left may take, from a short timing that changes nothing; ``None``: not worth telling."""

    def standing(self) -> str:
        """Where the craft stands, told when it goes on."""
        return f" in round {len(self.trace) + 1}"

    def environment(self) -> dict[str, str]:
        """What a result depends on besides recipe and source: the device, and the libraries that compute on it."""
        return describe_machine(self.device)

    def notes(self) -> dict[str, Any]:
        """What happened, as JSON values; after ``run``."""
        return {"rounds": len(self.trace), "trace": self.trace, "environments": self.environments}

    def facts(self) -> dict[str, Any]:
        """What changes and is no tensor, as JSON values."""
        return {}

    def restore(self, state: State) -> None:
        """Take over the parts of a state that was saved."""
        restore(self.parts(), state.arrays)

    # --- what a method draws at random, each for a purpose ---

    def shuffled(self, keys: Sequence[str], *purpose: str | int) -> Tensor:
        """Places of the keys in an order of their own, int64 [N] on the device; the latest one is kept."""
        if self._shuffled[0] != purpose:
            order = self.context.seed.order(keys, self.method.identifier, *purpose)
            self._shuffled = (purpose, torch.from_numpy(order).to(self.device))
        return self._shuffled[1]

    def _drawn(self, *purpose: str | int) -> torch.Generator:
        """A generator on the CPU."""
        return torch.Generator().manual_seed(self._number(*purpose))

    def _number(self, *purpose: str | int) -> int:
        return self.context.seed.integer32(self.method.identifier, *purpose)

    # --- the life cycle ---

    def run(self) -> dict[str, Any]:
        """Do what is left to do, and say what happened, as ``notes`` does.

        Raises:
            InputError: a loss is not finite, or a piece of work lost its worker again and again.
        """
        with repeatable(self.device, self.precision, one_thread=self.one_thread):
            resumed = self._resume()
            work = self.following()
            if work is not None:
                self._begin(resumed)
            while work is not None:
                if isinstance(work, Phase):
                    self._go_through(work)
                else:
                    self._hand_out(work)
                work = self.following()
        return self.notes()

    def save(self) -> None:
        """Write a checkpoint."""
        facts = {**{name: getattr(self, name) for name in OWN_FACTS}, **self.facts(), "format": FORMAT}
        self.context.checkpoint.save(State(arrays=arrays_of(self.parts()), facts=facts))
        self._pace.saved()

    def check_finite(self, loss: float, whose: str, remedy: str) -> None:
        """Refuse to go on with a loss that is not a number, naming the settings that are likely to blame."""
        if not math.isfinite(loss):
            raise InputError(
                f"{self.method.title}: the {whose}'s loss is not finite in round {len(self.trace) + 1}; "
                f"a smaller {remedy} helps"
            )

    def _resume(self) -> bool:
        """Take over what an interrupted craft left, if there is something."""
        state = self.context.checkpoint.load()
        if state is None or state.facts.get("format") != FORMAT:
            return False
        for name in OWN_FACTS:
            setattr(self, name, state.facts[name])
        self.restore(state)
        return True

    def _begin(self, resumed: bool) -> None:
        """Say what goes on, where, and how long it may take."""
        reporter = self.context.reporter
        if resumed:
            before, now = self.environments[-1], self.environment()
            if before != now:
                reporter.warn(
                    f"this craft was begun elsewhere or with other versions ({_listed(before)}; now {_listed(now)}): "
                    "it will not repeat bit for bit"
                )
                self.environments = [*self.environments, now]
            reporter.say(f"continuing{self.standing()}")
        estimate = self.estimate()
        if estimate is None:
            return
        text = f"{self.method.title} on {describe_device(self.device)}: {estimate.text}"
        if self.device.type == "cpu" and estimate.seconds > 600:
            gpu = duration(estimate.flop / GPU_FLOPS)
            text += f"; on a GPU that sustains {GPU_FLOPS / 1e12:.0f} TFLOP/s {gpu}"
        reporter.say(text)
        if estimate.rounds:
            self._forecast = Forecast(estimate.seconds, estimate.rounds, estimate.unit)
            self._known_rounds = len(self.trace)

    def _go_through(self, phase: Phase) -> None:
        steps = range(self.position, phase.steps.stop, phase.steps.step)
        for step in self.context.reporter.track(steps, total=len(steps), label=phase.label, unit=phase.unit):
            phase.step(step)
            self.position = step + steps.step
            if self._pace.due():
                self.save()
        self._end(phase.end())

    def _hand_out(self, work: Spread) -> None:
        reporter, executor = self.context.reporter, self.context.executor
        numbers, tasks = list(work.tasks), list(work.tasks.values())

        def lost(task: Any) -> None:
            number = next(number for number, other in work.tasks.items() if other is task)
            reporter.warn(f"the worker of {work.unit} {number} died; once more")

        with _shared(work.array, executor) as array:
            do = partial(_do, work.function, array, str(self.device))
            need = Need(what=f"a worker for a {work.unit}", task=work.memory, process=TORCH, tell=reporter.warn)
            results = executor.unordered(do, tasks, on_lost=lost, need=need)
            label = f"training {work.unit}s"
            for index, result in reporter.track(results, total=len(tasks), label=label, unit=work.unit):
                if isinstance(result, Lost):
                    raise InputError(
                        f"{self.method.title}: {work.unit} {numbers[index]} could not be trained: {result.reason}; "
                        "fewer --workers need less memory"
                    )
                made, machine = result
                there = {**self.environment(), **machine}
                self.environments += [] if there in self.environments else [there]
                self._end(work.take(made), at_once=executor.workers)

    def _end(self, told: str, *, at_once: int = 1) -> None:
        rounds = len(self.trace)
        self.done, self.position = self.done + 1, 0
        self.save()
        if told:
            self.context.reporter.say(told)
            self._correct(rounds - self._known_rounds, at_once)

    def _correct(self, rounds: int, at_once: int) -> None:
        """Say how long it will take, where that is no longer what was said; of so many rounds at once, after them."""
        if self._forecast is None or rounds < 1 or rounds % at_once:
            return
        if correction := self._forecast.after(rounds):
            self.context.reporter.say(correction)


@contextmanager
def repeatable(device: torch.device, precision: Precision, *, one_thread: bool) -> Iterator[None]:
    """Kernels that repeat, products in a precision, own random numbers, on a CPU perhaps one thread; until the end."""
    threads = cpu_threads(1) if one_thread and device.type == "cpu" else nullcontext()
    devices = [device] if device.type == "cuda" else []
    with deterministic_algorithms(), products_in(precision), threads, torch.random.fork_rng(devices=devices):
        yield


def _do(
    function: Callable[[Any, np.ndarray], Any], array: np.ndarray | Path, device: str, task: Any
) -> tuple[Any, dict[str, str]]:
    """Do a piece of work with the array, or the file of NumPy that holds it; what came of it, and on what machine."""
    # "c": torch takes only memory that may be written to.
    whole = array if isinstance(array, np.ndarray) else np.load(array, mmap_mode="c")
    return function(task, whole), describe_machine(torch.device(device))


@contextmanager
def _shared(array: np.ndarray, executor: Executor) -> Iterator[np.ndarray | Path]:
    """How an executor's workers get an array: those of this machine by a file, whose pages they share."""
    if not isinstance(executor, LocalExecutor):
        yield array
        return
    with tempfile.TemporaryDirectory(prefix="ule-") as folder:
        path = Path(folder) / "array.npy"
        np.save(path, array)
        yield path


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in versions.items())
