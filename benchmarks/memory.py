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
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common import finish, parser, table

from ule_datasets.executor import available_cpus
from ule_datasets.manifest import Manifest

PROC = Path("/proc")
SECONDS_BETWEEN_READINGS = 0.02
KIB_MB = 1024 / 1e6
AIM_MB = 2000.0


@dataclass(slots=True)
class Run:
    """What was seen of one build; memory in MB (10**6 bytes)."""

    workers: int
    watched: bool
    wall: float = 0.0
    total_pss: float = 0.0
    """Largest sum over the processes at one moment."""
    total_rss: float = 0.0
    peak_at: float = 0.0
    """Seconds after the start at which the PSS was largest."""
    max_rss: float = 0.0
    """The kernel's ``ru_maxrss`` of the largest process."""
    processes: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Largest PSS and RSS of each process by its role; they need not be reached at the same moment."""
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
    command = Path(sys.executable).with_name("ule-build")
    run = Run(workers, watch)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / recipe
        arguments = ["--source", source, "--out", str(out), "--workers", str(workers), "--quiet"]
        started = time.perf_counter()
        process = subprocess.Popen([command, recipe, *arguments], stdout=subprocess.DEVNULL)
        while (ended := os.wait4(process.pid, os.WNOHANG if watch else 0))[0] == 0:
            observe(process.pid, time.perf_counter() - started, run)
            time.sleep(SECONDS_BETWEEN_READINGS)
        run.wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        if process.returncode != 0:
            raise SystemExit(f"{command} ended with exit code {process.returncode}")
        run.max_rss = ended[2].ru_maxrss * KIB_MB
        run.phases = Manifest.read(out).timings
    return run


def observe(root: int, elapsed: float, run: Run) -> None:
    """Read the memory of every process of the tree and keep the largest values."""
    readings = {}
    for pid, role in roles(root).items():
        memory = memory_of(pid)
        if memory is not None:
            readings[role] = memory
            before = run.processes.get(role, (0.0, 0.0))
            run.processes[role] = (max(before[0], memory[0]), max(before[1], memory[1]))
    pss, rss = (sum(memory[kind] for memory in readings.values()) for kind in (0, 1))
    if pss > run.total_pss:
        run.total_pss, run.peak_at = pss, elapsed
    run.total_rss = max(run.total_rss, rss)


def roles(root: int) -> dict[int, str]:
    """The processes of a tree with what they are; workers are the children of the fork server."""
    children = children_by_parent()
    found = {root: "main"}
    for child in children.get(root, []):
        line = command_line(child)
        found[child] = "resource tracker" if "resource_tracker" in line else "fork server"
        workers = sorted(children.get(child, []))
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
            [role, spread(run.processes[role][0] for run in mine), spread(run.processes[role][1] for run in mine)]
            for role in sorted(set.intersection(*(set(run.processes) for run in mine)), key=order)
        ]
        total = [spread(run.total_pss for run in mine), spread(run.total_rss for run in mine)]
        rows.append(["all at one moment", *total])
        title = f"{recipe}, {count} worker{'s' if count > 1 else ''}: peak memory in MB, median (largest)"
        table(title, ["", "PSS", "RSS"], rows)
        largest = max(mine, key=lambda run: run.total_pss)
        ratio = largest.total_pss / AIM_MB
        print(f"  the largest total came {largest.peak_at:.1f} s after the start, of {largest.wall:.1f} s")
        print(f"  ru_maxrss of the largest process: {max(run.max_rss for run in mine):,.0f} MB")
        print(f"  aim: under {AIM_MB:,.0f} MB in all; the largest total is {ratio:.2f} of that")


def order(role: str) -> tuple[int, str]:
    """Main process first, workers last."""
    return ("main", "resource tracker", "fork server").index(role) if not role.startswith("worker") else 3, role


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
