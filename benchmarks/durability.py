"""How much of a build is waiting for the disk: how often, how long, and what a build without it would take.

    python benchmarks/durability.py --source DIR [--workers 1 2] [--work FOLDER]

A whole ``ule-build`` from beginning to end, in turn with and without ``fsync``, in one process and in several. In
one process the waits are counted and timed where they happen; in several a worker waits while others go on, so that
only the whole time says what they cost. A disk that is in use by others makes them longer: the folder to work in is a
choice.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import finish, interleaved, seconds_of, table

from builders import RECIPES
from ule_datasets import building
from ule_datasets.base import files
from ule_datasets.base.options import BuildOptions
from ule_datasets.base.progress import Reporter
from ule_datasets.building import build

NEVER = "ULE_BENCHMARK_NEVER_WAITS"
WAITS = os.fsync


def _never(fd: object) -> None:
    return None


def wait_or_not() -> None:
    """In every process of a build: let ``fsync`` do what the environment says."""
    os.fsync = _never if os.environ.get(NEVER) else WAITS


wait_or_not()  # workers import this module before anything else


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--source", required=True, help="its source")
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options.add_argument("--work", type=Path, help="where datasets are built (default: the system's temporary folder)")
    options.add_argument("--recipe", default="ops-cifar10", help="what is built (default: %(default)s)")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    recipe = RECIPES[chosen.recipe]
    counted: list[files.Syncs] = []

    def side(workers: int, *, waits: bool) -> Callable[[], float]:
        def run() -> float:
            os.environ[NEVER] = "" if waits else "1"
            wait_or_not()
            files.SYNCS = files.Syncs()
            folder = Path(tempfile.mkdtemp(dir=chosen.work))
            started = time.perf_counter()
            build(recipe, BuildOptions(out=folder / "x", source=chosen.source, workers=workers), Reporter(silent=True))
            seconds = time.perf_counter() - started
            if waits and workers == 1:
                counted.append(files.SYNCS)
            shutil.rmtree(folder)
            return seconds

        return run

    building.WORKER_MODULES = (*building.WORKER_MODULES, "durability")
    sides = {
        f"{workers} {'waiting' if waits else 'never waiting'}": side(workers, waits=waits)
        for workers in chosen.workers
        for waits in (True, False)
    }
    side(1, waits=False)()  # whatever is imported or read for the first time
    timings = interleaved(sides, chosen.repeats)
    rows = [
        [str(w), f"{timings[f'{w} waiting'].median:.2f}", f"{timings[f'{w} never waiting'].median:.2f}"]
        for w in chosen.workers
    ]
    ratios = [timings[f"{w} waiting"].median / timings[f"{w} never waiting"].median for w in chosen.workers]
    title = f"{recipe.name}, seconds from beginning to end"
    table(
        title, ["processes", "waiting", "never", "ratio"], [[*r, f"{x:.3f}"] for r, x in zip(rows, ratios, strict=True)]
    )
    for syncs, seconds in zip(counted, timings.get("1 waiting", timings[next(iter(timings))]).seconds, strict=False):
        print(
            f"in one process: {syncs.files} files and {syncs.folders} folders waited for, {syncs.seconds:.2f} s of "
            f"{seconds:.2f} s ({100 * syncs.seconds / seconds:.1f} %)"
        )
    finish(chosen.json, {"seconds": seconds_of(timings)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
