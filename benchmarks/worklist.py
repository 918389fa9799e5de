"""Works off a list of commands in order of value, as long as there is time; the same command goes on.

    python benchmarks/worklist.py benchmarks/EVIDENCE.md --source DIR --out DIR --minutes 60
    python benchmarks/worklist.py benchmarks/EVIDENCE.md --source DIR --out DIR --table   # what is done
    python -m cards.update DIR/reports/*.json                                             # into the cards

A list is a Markdown page with blocks of TOML: tables ``[[work]]`` of ``shows`` (one line), ``commands`` with names in
braces, and the values that a name takes, each combination of which is a piece of work; the last name changes fastest.
``{source}``, ``{out}`` and ``{device}`` are what was given. Commands are those of this project (``ule-build``,
``ule-verify``), ``pytest`` and ``python``; each runs by itself, with its caches in ``--out``. When the time is up, the
running one is interrupted as by Ctrl-C, keeps its state there, and goes on next time: so a list may be worked off in
pieces of any length. What fails is noted with its output, and tried again when the list is worked off again.

With ``--runs DIR`` finished training runs are also kept there, and taken from there where they are of the very same
data, protocol, seed, code and version of torch: so what one machine trained is not trained again on the next.

In ``--out``: ``done/PIECE.json`` (commands, seconds, machine, digests of what was built), ``logs/``,
``reports/PIECE.json`` (of ``ule-verify``), ``summary.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from common import environment

from ule_datasets.base.progress import duration
from ule_datasets.compute.devices import describe_device, pick_device

ROOT = Path(__file__).parent.parent
PROGRAMS = {
    "ule-build": ("-m", "ule_datasets.cli.build"),
    "ule-verify": ("-m", "ule_datasets.cli.verify"),
    "pytest": ("-m", "pytest"),
    "python": (),
}
GRACE = 60
"""Seconds in which an interrupted command has to keep its state."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """What is begun and finished as one."""

    name: str
    shows: str
    commands: tuple[tuple[str, ...], ...]


def pieces_of(page: str, given: Mapping[str, str]) -> Iterator[Piece]:
    """All pieces of a list, in order, with what was given in their commands."""
    blocks = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for work in tomllib.loads("".join(blocks))["work"]:
        shows, commands = work.pop("shows"), work.pop("commands")
        for values in product(*work.values()):
            chosen = {**given, **dict(zip(work, map(str, values), strict=True))}
            filled = tuple(tuple(part.format(**chosen) for part in shlex.split(command)) for command in commands)
            told = shows.format(**chosen)
            yield Piece(name=re.sub(r"[^a-z0-9]+", "-", told.lower()).strip("-"), shows=told, commands=filled)


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """Where results go, and until when."""

    out: Path
    until: float
    """Of ``time.monotonic``."""
    runs: Path | None = None
    """Where finished training runs are kept besides the cache."""

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()

    def record(self, piece: Piece) -> Path:
        """The file that says that a piece is done."""
        return self.out / "done" / f"{piece.name}.json"

    def work_off(self, pieces: tuple[Piece, ...]) -> int:
        """Everything that is not done and not too late for; how many pieces failed."""
        failed = 0
        self._exchange(self.runs, self._cache / "runs")
        for piece in pieces:
            if self.record(piece).exists():
                continue
            if self.left <= 0:
                break
            print(f"{piece.shows} ...", flush=True)
            started = time.monotonic()
            codes = self._run(piece)
            self._exchange(self._cache / "runs", self.runs)
            if codes is None:
                print("time is up; the same command goes on", flush=True)
                break
            failed += not self._finish(piece, codes, time.monotonic() - started)
        return failed

    def _run(self, piece: Piece) -> tuple[int, ...] | None:
        """The commands' exit codes, up to the first that failed; ``None``: time was up."""
        (self.out / "logs").mkdir(parents=True, exist_ok=True)
        codes = []
        with (self.out / "logs" / f"{piece.name}.txt").open("a", encoding="utf-8") as log:
            for program, *words in piece.commands:
                command = [sys.executable, *PROGRAMS[program], *words]
                log.write(f"$ {shlex.join([program, *words])}\n")
                log.flush()
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=self._environment(),
                    stdout=log,
                    stderr=log,
                    preexec_fn=_hear_interrupts,
                )
                if not _ended(process, lambda: self.left > 0):
                    process.send_signal(signal.SIGINT)
                    if not _ended(process, lambda: self.left > -GRACE):
                        process.kill()
                        process.wait()
                    return None
                codes.append(process.returncode)
                if not _went_well(program, codes[-1]):
                    break
        return tuple(codes)

    @property
    def _cache(self) -> Path:
        return self.out / "cache"

    def _exchange(self, giver: Path | None, taker: Path | None) -> None:
        """Copy finished runs that the other folder does not have; their names and seals say of what they are."""
        if giver is None or taker is None or not giver.is_dir():
            return
        taker.mkdir(parents=True, exist_ok=True)
        for run in giver.glob("*.json"):
            if not (taker / run.name).exists():
                _write(taker / run.name, run.read_text(encoding="utf-8"))

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return {**os.environ, "ULE_CACHE": str(self._cache), "PYTHONPATH": path}

    def _finish(self, piece: Piece, codes: tuple[int, ...], seconds: float) -> bool:
        """Note what a piece that has run left; whether all of it went well."""
        if not _went_well(piece.commands[len(codes) - 1][0], codes[-1]):
            print(f"... failed ({codes[-1]}), see {self.out / 'logs' / piece.name}.txt", flush=True)
            return False
        report = self._report(piece)
        if report is not None:
            (self.out / "reports").mkdir(exist_ok=True)
            shutil.copyfile(report, self.out / "reports" / f"{piece.name}.json")
        self.record(piece).parent.mkdir(exist_ok=True)
        found = {
            "piece": piece.name,
            "shows": piece.shows,
            "commands": [shlex.join(command) for command in piece.commands],
            "codes": codes,
            "seconds": round(seconds, 1),
            "device": describe_device(pick_device("auto")),
            "environment": environment(),
            "torch": torch.__version__,
            "made": self._made(piece),
            "measured": [] if report is None else _measured(report),
        }
        _write(self.record(piece), json.dumps(found, indent=1))
        print(f"... done in {duration(seconds)}", flush=True)
        return True

    def _report(self, piece: Piece) -> Path | None:
        """Where the last command's report is."""
        folder = _given(piece.commands[-1], "--report")
        return None if folder is None else folder / "report.json"

    def _made(self, piece: Piece) -> dict[str, Any]:
        """Digests of the datasets that its commands built."""
        made = {}
        for words in piece.commands:
            folder = _given(words, "--out")
            if words[0] == "ule-build" and folder is not None:
                manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
                made[manifest["name"]] = {key: manifest[key] for key in ("recipe_digest", "perturbation_digest")}
        return made

    def summary(self, pieces: tuple[Piece, ...]) -> str:
        """Markdown: a row for every piece."""
        rows = ["| piece | seconds | measured |", "|---|---:|---|"]
        for piece in pieces:
            seconds, measured = "open", ""
            if self.record(piece).exists():
                found = json.loads(self.record(piece).read_text(encoding="utf-8"))
                seconds, measured = f"{found['seconds']:.0f}", "; ".join(found["measured"])
            rows.append(f"| {piece.shows} | {seconds} | {measured} |")
        return "\n".join(rows) + "\n"


def _went_well(program: str, code: int) -> bool:
    """Whether a command did its work: a refuted claim is a result."""
    return code == 0 or (program == "ule-verify" and code == 1)


def _given(words: Sequence[str], option: str) -> Path | None:
    """The path that a command is given with an option."""
    return Path(words[words.index(option) + 1]) if option in words else None


def _hear_interrupts() -> None:
    """Shells have what they start in the background ignore Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _ended(process: subprocess.Popen[bytes], may_wait: Callable[[], bool]) -> bool:
    """Whether it ended while one might wait."""
    while process.poll() is None and may_wait():
        time.sleep(0.2)
    return process.poll() is not None


def _measured(report: Path) -> list[str]:
    """What a report measured, a line for each kind of run."""
    return [
        f"{one['dataset']}, {one['model']}, {one['strategy']}: {one['poisoned']['mean']:.1f} "
        f"(clean {one['clean']['mean']:.1f}), {one['collapse']}"
        for one in json.loads(report.read_text(encoding="utf-8"))["comparisons"]
    ]


def _write(path: Path, text: str) -> None:
    """All of it or nothing."""
    beside = path.with_suffix(".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def main(default: Path | None = None, device: str = "auto") -> int:
    """Work off a list, and write the summary; 1 where a piece failed."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    if default is None:
        options.add_argument("list", type=Path, help="a Markdown page with work in it")
    options.add_argument("--source", required=True, help="CIFAR-10 in any form that ule-build reads")
    options.add_argument("--out", type=Path, required=True, help="results, logs, caches; continued")
    options.add_argument("--minutes", type=float, default=float("inf"), help="(default: until all is done)")
    options.add_argument("--runs", type=Path, help="finished runs are taken from here, and kept here")
    options.add_argument("--only", default="", help="pieces whose line or name has this in it, in any case")
    options.add_argument("--device", default=device, help="(default: %(default)s)")
    options.add_argument("--table", action="store_true", help="run nothing")
    given = options.parse_args()
    source = str(Path(given.source).resolve()) if Path(given.source).exists() else given.source
    out, page = given.out.resolve(), (default or given.list).read_text(encoding="utf-8")
    asked = {"source": source, "out": str(out), "device": given.device}
    every = tuple({piece.name: piece for piece in pieces_of(page, asked)}.values())  # blocks may overlap
    only = given.only.casefold()
    pieces = tuple(piece for piece in every if only in piece.name or only in piece.shows.casefold())
    if not pieces:
        options.error(f"no piece of the list has {given.only!r} in it; --table shows all")
    worker = Worker(out=out, until=time.monotonic() + 60 * given.minutes, runs=given.runs)
    failed = 0 if given.table else worker.work_off(pieces)
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "summary.md", worker.summary(every))
    print(worker.summary(pieces), end="")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
