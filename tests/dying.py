"""Builds that are killed at a chosen moment, by a signal that nothing can catch: the whole of them, or one worker."""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from helpers import run_build, run_python

import ule_datasets.building  # noqa: F401 (once, before the processes part)
from ule_datasets.dataset.shards import ShardResult, ShardTask, write_shard
from ule_datasets.sources import image_folder
from ule_datasets.sources.decode import ChunkTask, Decoded, decode_chunk

PER_CHUNK = 8
"""Files in a chunk of an image folder, in builds that are killed."""


class Death(NamedTuple):
    """Where a process kills itself: before a call of something in the package."""

    module: str
    name: str
    call: int
    """Which call, counted from 1; of a ``Reporter.track``, which of its items."""
    workers: int = 1


def kill_each(deaths: Iterable[Death], *arguments: str | Path) -> None:
    """Start ``ule-build`` as often as there are deaths, each time in a process that dies its death."""
    program = (
        "import dying\n"
        "if __name__ == '__main__':\n"
        f"    deaths = [dying.Death(*death) for death in {[tuple(death) for death in deaths]!r}]\n"
        f"    dying.die_one_after_the_other(deaths, {[str(word) for word in arguments]!r})\n"
    )
    here = Path(__file__).parent
    outcome = run_python(program, environment={"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])})
    assert outcome.code == 0, outcome.stderr


def die_one_after_the_other(deaths: Iterable[Death], arguments: list[str]) -> None:
    """What ``kill_each`` does, in a process that has started nothing yet."""
    for death in deaths:
        process = os.fork()
        if not process:
            try:
                image_folder.FILES_PER_CHUNK = PER_CHUNK
                arm(death)
                print(run_build("--workers", str(death.workers), *arguments), file=sys.stderr, flush=True)
            finally:
                os._exit(0)
        _, status = os.waitpid(process, 0)
        assert os.WIFSIGNALED(status), f"{death} came too late"
        assert os.WTERMSIG(status) == signal.SIGKILL


def arm(death: Death) -> None:
    """Let this process die."""
    holder: Any = importlib.import_module(death.module)
    *path, name = death.name.split(".")
    for part in path:
        holder = getattr(holder, part)
    plain, calls = getattr(holder, name), itertools.count(1)

    def call(*arguments: Any, **options: Any) -> Any:
        _die_at(death, calls)
        return plain(*arguments, **options)

    def track(*arguments: Any, **options: Any) -> Iterator[Any]:
        for item in plain(*arguments, **options):
            _die_at(death, calls)
            yield item

    setattr(holder, name, track if name == "track" else call)


def _die_at(death: Death, calls: Iterator[int]) -> None:
    if next(calls) == death.call:
        os.kill(os.getpid(), signal.SIGKILL)


def decode_or_die(marker: Path, task: ChunkTask) -> Decoded:
    """Decode a chunk; whoever comes first to one in the middle is killed at its fourth image."""
    if task.split == "train" and task.spool is not None and "000002" in task.spool.name and _first_here(marker):
        arm(Death("ule_datasets.sources.decode", "decode_rgb", 4))
    return decode_chunk(task)


def write_or_die(marker: Path, task: ShardTask) -> ShardResult:
    """Write a shard; whoever comes first to a training shard is killed between its formats."""
    if task.perturbation is not None and _first_here(marker):
        arm(Death("ule_datasets.dataset.shards.webdataset", "write", 1))
    return write_shard(task)


def _first_here(marker: Path) -> bool:
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
