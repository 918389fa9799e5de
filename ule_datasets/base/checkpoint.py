"""What an interrupted craft continues from: arrays and facts in one file, replaced atomically."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ule_datasets.base.files import PARTIAL, replacing
from ule_datasets.base.memory import TooLittleMemoryError
from ule_datasets.base.sealed import digest_of
from ule_datasets.base.tensors import read_tensors


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class State:
    """A moment of a craft."""

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


def _say_nothing(_: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class FileCheckpoint:
    """One safetensors file, with a digest over identity, facts and arrays."""

    path: Path
    identity: str
    """What the state belongs to; a file with another identity is not loaded."""
    on_refused: Callable[[str], None] = _say_nothing
    """Told in words why a file that is there is not used."""

    def load(self) -> State | None:
        """The state in the file; one that is not intact, or of another craft, counts as absent."""
        self._remove_partial_files()
        if not self.path.exists():
            return None
        try:
            metadata, arrays = read_tensors(self.path)
            header = json.loads(metadata["ule"])
            if header["identity"] != self.identity:
                raise ValueError("it is of another craft")
            if header["digest"] != _digest(header["identity"], header["facts"], arrays):
                raise ValueError("its digest does not agree")
            return State(arrays=arrays, facts=header["facts"])
        except TooLittleMemoryError:  # the file may well be intact
            raise
        except (OSError, KeyError, TypeError, ValueError) as error:
            why = "an earlier version wrote it, without a digest" if isinstance(error, KeyError) else str(error)
            self.on_refused(f"an interrupted craft begins anew: {self.path} cannot be continued from ({why})")
            return None

    def save(self, state: State) -> None:
        """Replace the file; afterwards either the old or the new state can be loaded."""
        from safetensors.numpy import save

        arrays = {name: np.asarray(a, order="C") for name, a in state.arrays.items()}
        facts = json.loads(json.dumps(state.facts))  # as it will come back from the file
        header = {"identity": self.identity, "facts": facts, "digest": _digest(self.identity, facts, arrays)}
        content = save(arrays, metadata={"ule": json.dumps(header)})
        with replacing(self.path) as partial:
            partial.write_bytes(content)

    def clear(self) -> None:
        """Delete the file, and what a killed process has left half written."""
        self.path.unlink(missing_ok=True)
        self._remove_partial_files()

    def _remove_partial_files(self) -> None:
        for leftover in self.path.parent.glob(f".{self.path.name}.*{PARTIAL}"):
            leftover.unlink(missing_ok=True)


def _digest(identity: str, facts: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    return digest_of(json.dumps([identity, facts], sort_keys=True), arrays)
