"""How much memory a whole ``ule-build ops-cifar10`` takes, with all its processes, and where its time goes.

    python benchmarks/memory.py --source DIR

The command runs as a user would run it, twice per repetition and number of workers: once while ``/proc`` is read
every 20 ms, and once undisturbed for the times, because the readings take a good part of a core. Read are the PSS of
every process of the tree (memory that processes share is divided among them, so that the sum counts it once) and
the RSS (which counts it in each). The kernel's own record, ``ru_maxrss``, is the largest RSS of any one process and
shows whether a peak was missed between two readings. The time of every phase comes from ``manifest.json``.

Linux only.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common import finish, parser, table

from ule_datasets.compute.executor import available_cpus
from ule_datasets.dataset.manifest import Manifest

PROC = Path("/proc")
SECONDS_BETWEEN_READINGS = 0.02
KIB_MB = 1024 / 1e6
AIM_MB = 2000.0
RAY = "Ray itself"
RAY_WORKER = "ray::"
ROLES = {"resource_tracker": "resource tracker", "gcs_server": RAY, "raylet": RAY, "ray/": RAY}
"""Of the children of the main process, by a part of their command lines."""
Observer = Callable[[int, float], None]


@dataclass(slots=True)
class Memory:
    """The largest values seen of a tree of processes, in MB (10**6 bytes)."""

    total_pss: float = 0.0
    """Largest sum over the processes at one moment."""
    total_rss: float = 0.0
    peak_at: float = 0.0
    """Seconds after the start at which the PSS was largest."""
    processes: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Largest PSS and RSS by role; not always reached at the same moment. Ray's own processes count as one."""

    def observe(self, root: int, elapsed: float) -> None:
        """Read the memory of every process of the tree and keep the largest values."""
        readings: dict[str, tuple[float, float]] = {}
        for pid, role in roles(root).items():
            pss, rss = readings.get(role, (0.0, 0.0))
            more = memory_of(pid)
            if more is not None:
                readings[role] = pss + more[0], rss + more[1]
        for role, (pss, rss) in readings.items():
            before = self.processes.get(role, (0.0, 0.0))
            self.processes[role] = max(before[0], pss), max(before[1], rss)
        pss, rss = (sum(reading[kind] for reading in readings.values()) for kind in (0, 1))
        if pss > self.total_pss:
            self.total_pss, self.peak_at = pss, elapsed
        self.total_rss = max(self.total_rss, rss)


@dataclass(slots=True)
class Run:
    """What was seen of one build; memory in MB (10**6 bytes)."""

    workers: int
    watched: bool
    wall: float = 0.0
    memory: Memory = field(default_factory=Memory)
    max_rss: float = 0.0
    """The kernel's ``ru_maxrss`` of the largest process."""
    phases: dict[str, float] = field(default_factory=dict)


def main() -> None:
    """Run the builds and print what they took."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--recipe", default="ops-cifar10", help="what to build (default: %(default)s)")
    options.add_argument(
        "--workers", type=int, nargs="+", default=sorted({1, available_cpus()}), help="default: 1 and one per CPU"
    )
    args = options.parse_args()
    if not PROC.is_dir():
        raise SystemExit("this benchmark reads /proc, which this system does not have")
    turns = [(count, watch) for _ in range(args.repeats) for count in args.workers for watch in (True, False)]
    runs = [run_build(args.recipe, args.source, count, watch) for count, watch in turns]
    print_memory(args.recipe, [run for run in runs if run.watched], args.workers)
    print_phases([run for run in runs if not run.watched], args.workers)
    finish(args.json, {"recipe": args.recipe, "runs": [asdict(run) for run in runs]})


def run_build(recipe: str, source: str, workers: int, watch: bool) -> Run:
    """Build into a temporary folder, watching or only waiting."""
    run = Run(workers, watch)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / recipe
        arguments = [recipe, "--source", source, "--out", str(out), "--workers", str(workers)]
        observers = [run.memory.observe] if watch else []
        run.wall, run.max_rss = ule_build(arguments, observers, SECONDS_BETWEEN_READINGS)
        run.phases = Manifest.read(out).timings
    return run


def ule_build(arguments: Sequence[str], observers: Sequence[Observer], every: float) -> tuple[float, float]:
    """Run ``ule-build`` quietly to its end.

    Args:
        arguments: of the command.
        observers: called again and again with its process id and the seconds since its start; with none the command
            runs undisturbed.
        every: seconds between two calls.

    Returns:
        The seconds that it took, and ``ru_maxrss`` of its largest process in MB.
    """
    command = Path(sys.executable).with_name("ule-build")
    started = time.perf_counter()
    process = subprocess.Popen([command, *arguments, "--quiet"], stdout=subprocess.DEVNULL)
    while (ended := os.wait4(process.pid, os.WNOHANG if observers else 0))[0] == 0:
        for observer in observers:
            observer(process.pid, time.perf_counter() - started)
        time.sleep(every)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    if process.returncode != 0:
        raise SystemExit(f"{command} ended with exit code {process.returncode}")
    return wall, ended[2].ru_maxrss * KIB_MB


def roles(root: int) -> dict[int, str]:
    """The processes of a tree with what they are; workers are the children of the fork server, or of Ray's raylet."""
    children = children_by_parent()
    found = {root: "main"}
    for child in children.get(root, []):
        line = command_line(child)
        found[child] = next((role for mark, role in ROLES.items() if mark in line), "fork server")
        below = sorted(children.get(child, []))
        workers = [pid for pid in below if found[child] != RAY or command_line(pid).startswith(RAY_WORKER)]
        found |= dict.fromkeys(below, RAY)
        found |= {worker: f"worker {number}" for number, worker in enumerate(workers, start=1)}
    return found


def children_by_parent() -> dict[int, list[int]]:
    """Process ids by parent, for all processes."""
    result: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            stat = read(entry / "stat")
            if stat:
                parent = int(stat.rpartition(")")[2].split()[1])
                result.setdefault(parent, []).append(int(entry.name))
    return result


def command_line(pid: int) -> str:
    """Arguments, separated by blanks."""
    return read(PROC / str(pid) / "cmdline").replace("\0", " ")


def memory_of(pid: int) -> tuple[float, float] | None:
    """PSS and RSS in MB, ``None`` for a process that has just ended."""
    lines = read(PROC / str(pid) / "smaps_rollup").splitlines()
    values = {line.split()[0]: float(line.split()[1]) for line in lines[1:]}
    if "Pss:" not in values:
        return None
    return values["Pss:"] * KIB_MB, values["Rss:"] * KIB_MB


def read(path: Path) -> str:
    """A file of /proc; empty if its process has ended."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def print_memory(recipe: str, runs: Sequence[Run], counts: Iterable[int]) -> None:
    """Peaks in total and by process, over all repetitions."""
    for count in counts:
        mine = [run for run in runs if run.workers == count]
        rows = [
            [role, *(spread(run.memory.processes[role][kind] for run in mine) for kind in (0, 1))]
            for role in sorted(set.intersection(*(set(run.memory.processes) for run in mine)), key=order)
        ]
        total = [spread(run.memory.total_pss for run in mine), spread(run.memory.total_rss for run in mine)]
        rows.append(["all at one moment", *total])
        title = f"{recipe}, {count} worker{'s' if count > 1 else ''}: peak memory in MB, median (largest)"
        table(title, ["", "PSS", "RSS"], rows)
        largest = max(mine, key=lambda run: run.memory.total_pss)
        ratio = largest.memory.total_pss / AIM_MB
        print(f"  the largest total came {largest.memory.peak_at:.1f} s after the start, of {largest.wall:.1f} s")
        print(f"  ru_maxrss of the largest process: {max(run.max_rss for run in mine):,.0f} MB")
        print(f"  aim: under {AIM_MB:,.0f} MB in all; the largest total is {ratio:.2f} of that")


def order(role: str) -> tuple[int, str]:
    """Main process first, workers last."""
    others = ("main", "resource tracker", "fork server", RAY)
    return others.index(role) if role in others else len(others), role


def spread(values: Iterable[float]) -> str:
    """Median and largest."""
    known = list(values)
    return f"{statistics.median(known):,.0f} ({max(known):,.0f})"


def print_phases(runs: Sequence[Run], counts: Sequence[int]) -> None:
    """Where the time goes, side by side."""
    by_count = {count: [run for run in runs if run.workers == count] for count in counts}
    rows = []
    for phase in runs[0].phases:
        rows.append([phase, *(seconds(run.phases[phase] for run in by_count[count]) for count in counts)])
    rest = [seconds(run.wall - sum(run.phases.values()) for run in by_count[count]) for count in counts]
    rows.append(["imports, card, publishing", *rest])
    rows.append(["wall time", *(seconds(run.wall for run in by_count[count]) for count in counts)])
    header = ["", *(f"{count} worker{'s' if count > 1 else ''}" for count in counts)]
    table("Seconds by phase, median (min)", header, rows)


def seconds(values: Iterable[float]) -> str:
    """Median and minimum."""
    known = list(values)
    return f"{statistics.median(known):.2f} ({min(known):.2f})"


if __name__ == "__main__":
    main()
