"""Where reports stand: each run's in a folder of its own, which no later run touches, and the newest above them all.

The newest one is a copy, not a link: it opens on every system and disk, and wherever the folder is copied to.
"""

from __future__ import annotations

import datetime
import filecmp
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ule_datasets.base.files import make_folder, refuse_links, sync, write_atomically

RUNS = "runs"
"""The folder of all runs, in the folder of reports."""
REPORT = "report.json"
"""Written last: a folder without it holds no whole report."""
INTEGRITY = "integrity"
"""What a run is called, in place of its profile, that trained nothing."""
BEFORE = "earlier"
"""Likewise, a report that an older version left without a folder of its own."""
LISTED = 10
"""So many earlier runs are named in a report."""
_NAME = re.compile(r"(\d{4}-\d\d-\d\d)-(\d\d)(\d\d)\d\d-(.+)-([a-z]+?)(?:-\d+)?$")
_LONGEST = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class PastRun:
    """An earlier run in the same folder of reports, as far as the name of its folder tells."""

    folder: str
    """Its name."""
    when: str
    """Day and time, UTC."""
    what: str
    """What was verified."""
    how: str
    """The profile; ``INTEGRITY``: nothing was trained."""

    @property
    def page(self) -> str:
        """The place of its page, from the folder of reports."""
        return f"{RUNS}/{self.folder}/report.html"


def refuse_linked_runs(folder: Path) -> None:
    """Refuse a folder of reports whose runs would be written to somewhere else.

    Raises:
        InputError: the folder of runs in it is a link.
    """
    refuse_links(folder / RUNS)


def open_run(folder: Path, what: str, how: str, moment: datetime.datetime) -> Path:
    """Make a new folder for a run, whoever makes others beside it at the same time."""
    refuse_linked_runs(folder)
    make_folder(folder / RUNS)
    wanted = f"{moment:%Y-%m-%d-%H%M%S}-{re.sub(r'[^A-Za-z0-9.+_-]+', '-', what)[:_LONGEST]}-{how}"
    for name in _numbered(wanted):
        run = folder / RUNS / name
        try:
            run.mkdir()
        except FileExistsError:
            continue
        sync(run.parent)
        return run
    raise AssertionError("numbers do not end")


def past_runs(folder: Path) -> tuple[PastRun, ...]:
    """Runs with a whole report, the newest first."""
    found = []
    for report in sorted(_reports(folder), reverse=True):
        if told := _NAME.match(report.parent.name):
            day, hour, minute, what, how = told.groups()
            found.append(PastRun(folder=report.parent.name, when=f"{day} {hour}:{minute} UTC", what=what, how=how))
    return tuple(found)


def keep_unfiled(folder: Path, names: Collection[str]) -> None:
    """Give the report above the runs a folder of its own where it has none: an older version wrote it.

    ``names`` are those of the files that a report may have.
    """
    newest = folder / REPORT
    if not newest.is_file():
        return
    refuse_linked_runs(folder)
    if any(filecmp.cmp(newest, other, shallow=False) for other in _reports(folder)):
        return
    written = datetime.datetime.fromtimestamp(newest.stat().st_mtime, datetime.UTC)
    run = open_run(folder, BEFORE, BEFORE, written)
    for name in sorted(names, key=lambda name: name == REPORT):
        if (folder / name).is_file():
            (folder / name).replace(run / name)
    sync(run)
    sync(folder)


def show_newest(folder: Path, run: Path, names: Collection[str]) -> None:
    """Put copies of a run's files above all runs, where what it has not of ``names`` goes."""
    for name in sorted(names, key=lambda name: name == REPORT):
        if (run / name).is_file():
            write_atomically(folder / name, (run / name).read_bytes())
        else:
            (folder / name).unlink(missing_ok=True)


def _reports(folder: Path) -> list[Path]:
    """The whole reports of all runs; what is behind links is none of ours."""
    return [report for report in (folder / RUNS).glob(f"*/{REPORT}") if not report.parent.is_symlink()]


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1
