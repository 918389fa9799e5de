"""What interrupted work continues from: arrays and facts in one file, replaced atomically every now and then."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ule_datasets.base import records
from ule_datasets.base.files import PARTIAL, replacing
from ule_datasets.base.memory import TooLittleMemoryError
from ule_datasets.base.progress import say_nothing
from ule_datasets.base.sealed import digest_of
from ule_datasets.base.tensors import read_metadata, read_tensors, write_tensors

SECONDS_BETWEEN_CHECKPOINTS = 60.0
LONG = SECONDS_BETWEEN_CHECKPOINTS / 100
"""Seconds that a checkpoint may take before the next one waits for longer: they shall not cost more than 1 %."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class State:
    """A moment of a craft or a training run."""

    arrays: Mapping[str, np.ndarray]
    facts: dict[str, Any] = field(default_factory=dict)
    """JSON values."""


class Checkpoint(Protocol):
    """Where a method keeps its latest state; only the latest one."""

    def load(self) -> State | None:
        """The state that was saved last, if there is one."""
        ...

    def save(self, state: State) -> None:
        """Replace the state; afterwards either the old or the new one can be loaded."""
        ...


class Keeper(Protocol):
    """Whom work that takes long asks again and again, between two of its steps, whether to save its state."""

    def load(self) -> State | None:
        """The state that the work goes on from; ``None``: it begins."""
        ...

    def due(self) -> bool:
        """Whether to save now; costs next to nothing."""
        ...

    def save(self, state: State) -> None:
        """Keep the state; then the work may be ended, by an exception or otherwise."""
        ...


class Forgetful:
    """A keeper that keeps nothing."""

    def load(self) -> None:
        """Nothing."""

    def due(self) -> bool:
        """Never."""
        return False

    def save(self, state: State) -> None:
        """Forget it."""


class Pace:
    """When a checkpoint is due: some seconds after the last one, in proportion later if that took over ``LONG``."""

    def __init__(self, seconds: float) -> None:
        """Begin to count."""
        self._seconds = seconds
        self._due = time.monotonic() + seconds
        self._asked: float | None = None

    def due(self) -> bool:
        """Whether it is time; if so, all that happens until ``saved`` counts as the checkpoint's cost."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._asked = now
        return True

    def saved(self) -> None:
        """Count from now on."""
        now = time.monotonic()
        cost = 0.0 if self._asked is None else now - self._asked
        self._due, self._asked = now + self._seconds * max(1.0, cost / LONG), None


class MemoryCheckpoint:
    """Forgotten when the process ends."""

    def __init__(self) -> None:
        self._state: State | None = None

    def load(self) -> State | None:
        """A copy of the state that was saved last, if there is one."""
        return copy.deepcopy(self._state)

    def save(self, state: State) -> None:
        """Keep a copy, because its owner goes on working with the original."""
        self._state = copy.deepcopy(state)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Header:
    """What stands beside the arrays."""

    identity: str
    facts: dict[str, Any]
    digest: str | None = None
    """Of it all; ``None``: an earlier version wrote it."""


def facts_of(path: Path, identity: str) -> dict[str, Any] | None:
    """The facts of a kept state whose identity begins so, for telling of it; its arrays are not looked at.

    ``None``: there is no such file, or it cannot be continued from as far as that shows.
    """
    try:
        header = records.parse(_Header, read_metadata(path).get("ule", "{}"), "its header")
    except TooLittleMemoryError:  # of arrays that are not read here
        raise
    except (OSError, ValueError):  # then the craft says why it begins anew
        return None
    return header.facts if header.digest is not None and header.identity.startswith(identity) else None


@dataclass(frozen=True, slots=True)
class FileCheckpoint:
    """One safetensors file, with a digest over identity, facts and arrays."""

    path: Path
    identity: str
    """What the state belongs to; a file with another identity is not loaded."""
    on_refused: Callable[[str], None] = say_nothing
    """Told in words why a file that is there is not used."""
    work: str = "craft"
    """What is interrupted, for people."""
    other: str = "it is of another craft"
    """What another identity means, for people."""
    alone: bool = True
    """Whether no other process writes there: then what is half written was left by one that was killed, and goes."""

    def load(self) -> State | None:
        """The state in the file; one that is not intact, or of another identity, counts as absent."""
        self._remove_partial_files()
        if not self.path.exists():
            return None
        try:
            metadata, arrays = read_tensors(self.path)
            header = records.parse(_Header, metadata.get("ule", "{}"), "its header")
            if header.identity != self.identity:
                raise ValueError(self.other)
            if header.digest is None:
                raise ValueError("an earlier version wrote it, without a digest")
            if header.digest != _digest(header.identity, header.facts, arrays):
                raise ValueError("its digest does not agree")
            return State(arrays=arrays, facts=header.facts)
        except TooLittleMemoryError:  # the file may well be intact
            raise
        except (OSError, ValueError) as error:
            self.on_refused(f"an interrupted {self.work} begins anew: {self.path} cannot be continued from ({error})")
            return None

    def save(self, state: State) -> None:
        """Replace the file; afterwards either the old or the new state can be loaded."""
        arrays = {name: np.asarray(a, order="C") for name, a in state.arrays.items()}
        facts = json.loads(json.dumps(state.facts))  # as it will come back from the file
        header = {"identity": self.identity, "facts": facts, "digest": _digest(self.identity, facts, arrays)}
        with replacing(self.path) as partial:
            write_tensors(partial, arrays, {"ule": json.dumps(header)})

    def clear(self) -> None:
        """Delete the file, and what a killed process has left half written."""
        self.path.unlink(missing_ok=True)
        self._remove_partial_files()

    def _remove_partial_files(self) -> None:
        if not self.alone:
            return
        for leftover in self.path.parent.glob(f".{self.path.name}.*{PARTIAL}"):
            leftover.unlink(missing_ok=True)


def _digest(identity: str, facts: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    return digest_of(json.dumps([identity, facts], sort_keys=True), arrays)
