"""What the benchmarks share: interleaved timing, aligned tables, the machine and versions, the images."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ule_datasets.base.progress import Reporter
from ule_datasets.compute.executor import available_cpus
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.codec import encoder_versions
from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.sources.reading import Source, read_source

LIBRARIES = ("numpy", "pillow", "pyarrow", "datasets", "webdataset", "opencv-python-headless", "imagecodecs")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of the repetitions of one side of a comparison."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The number that ratios are made of."""
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        """The least disturbed repetition."""
        return min(self.seconds)


def wall(function: Callable[[], object]) -> Callable[[], float]:
    """A side of a comparison: runs ``function`` and returns how many seconds that took."""

    def timed() -> float:
        started = time.perf_counter()
        function()
        return time.perf_counter() - started

    return timed


def busy(function: Callable[[], object]) -> Callable[[], float]:
    """Like ``wall``, but in seconds of the processor: for work of one thread on a machine that others use too."""

    def timed() -> float:
        started = time.process_time()
        function()
        return time.process_time() - started

    return timed


def interleaved(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, Timing]:
    """Run every side ``repeats`` times, in turn, so that a disturbance of the machine hits all of them.

    A side returns its seconds: see ``wall``.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            seconds[name].append(side())
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def parser(description: str | None, *, repeats: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--source", required=True, help="CIFAR-10 in any form that ule-build reads")
    result.add_argument("--repeats", type=int, default=repeats, help="repetitions (default: %(default)s)")
    result.add_argument("--json", type=Path, help="also write every number to this file")
    return result


def read_cifar10(location: str, spool: Path | None = None) -> Source:
    """The images that all benchmarks work on: in memory, or decoded into a folder."""
    with LocalExecutor(available_cpus()) as executor:
        return read_source(CIFAR10, location, executor=executor, reporter=Reporter(silent=True), spool=spool)


def environment() -> dict[str, str]:
    """The machine and the versions that the numbers depend on."""
    versions = {name: metadata.version(name) for name in LIBRARIES if _installed(name)}
    return {
        "cpu": f"{_cpu_model()}, {available_cpus()} cores available",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "libraries": ", ".join(f"{name} {version}" for name, version in {**versions, **encoder_versions()}.items()),
    }


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a title: first column to the left, numbers to the right."""
    cells = [list(header), *map(list, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    print(f"\n{title}")
    for row in cells:
        first, *others = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(["", first, *others]))


def finish(path: Path | None, results: Mapping[str, Any]) -> None:
    """Print the machine, and write everything to ``path`` if one was given."""
    about = environment()
    print()
    for name, value in about.items():
        print(f"{name}: {value}")
    if path is not None:
        path.write_text(json.dumps({"environment": about, **results}, indent=2) + "\n", encoding="utf-8")


def seconds_of(timings: Mapping[str, Timing]) -> dict[str, list[float]]:
    """Timings as JSON values."""
    return {name: list(timing.seconds) for name, timing in timings.items()}


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown CPU"
