"""What is kept of a training run that is not finished, so that the same run goes on from it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ule_datasets.base.checkpoint import SECONDS_BETWEEN_CHECKPOINTS, FileCheckpoint, Forgetful, Keeper, Pace, State
from ule_datasets.base.files import PARTIAL, sweep
from ule_datasets.compute.devices import describe_machine
from ule_datasets.compute.stopping import Ending, ending_later

SUFFIX = ".unfinished"
FORMAT = 1
"""Of what is kept; others are not used."""
KEPT = 30 * 86_400.0
"""Seconds after which a run that nobody went on with is forgotten."""
LONGEST_WRITING = 600.0
"""Seconds after which a file that is half written was left by a process that was killed."""


def checkpoint_of(
    path: Path, identity: str, *, threads: int, device: torch.device, on_refused: Callable[[str], None]
) -> FileCheckpoint:
    """The file of a run, for whoever trains it with so many threads on this machine: others' bits would differ."""
    bound = [FORMAT, identity, threads, sorted(describe_machine(device).items())]
    return FileCheckpoint(
        path,
        json.dumps(bound),
        on_refused=on_refused,
        work="run",
        other="it was begun on another machine, with other versions or with another number of threads",
        alone=False,
    )


@contextmanager
def keeper_of(checkpoint: FileCheckpoint | None, *, until_signalled: bool) -> Iterator[Keeper]:
    """Whom a run asks between its steps; without a file, or a folder for it on this machine, nothing is kept.

    With ``until_signalled`` Ctrl-C and SIGTERM wait for the end of the step, and for a last checkpoint.
    """
    if checkpoint is None or not os.access(checkpoint.path.parent, os.W_OK):
        yield Forgetful()
    elif until_signalled:
        with ending_later() as ending:
            yield _RunKeeper(checkpoint, ending)
    else:
        yield _RunKeeper(checkpoint, Ending())


def tidy(folder: Path) -> None:
    """Delete what is half written, and runs that nobody goes on with."""
    sweep(folder)
    sweep(folder, f".*{SUFFIX}.*{PARTIAL}", after=LONGEST_WRITING)
    sweep(folder, f"*{SUFFIX}", after=KEPT)


class _RunKeeper:
    """Keeps the state in a file, about once a minute and when the process is to end, which it then does."""

    def __init__(self, checkpoint: FileCheckpoint, ending: Ending) -> None:
        self._checkpoint, self._ending, self._pace = checkpoint, ending, Pace(SECONDS_BETWEEN_CHECKPOINTS)

    def load(self) -> State | None:
        return self._checkpoint.load()

    def due(self) -> bool:
        return self._ending.wanted or self._pace.due()

    def save(self, state: State) -> None:
        self._checkpoint.save(state)
        self._pace.saved()
        self._ending.now()
