"""What a verification would train, and how long that may take, said without training or reading an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ule_datasets.base.files import cache_folder
from ule_datasets.base.progress import Reporter
from ule_datasets.base.shown import counted, operations
from ule_datasets.experiments.grid import Grid, flop_left, plan_lines, shares_done
from ule_datasets.experiments.hours import expected_hours
from ule_datasets.experiments.runs import RunStore
from ule_datasets.papers.claims import Claim
from ule_datasets.verification.costs import TIMINGS
from ule_datasets.verification.judging import Wanted


@dataclass(frozen=True, kw_only=True, slots=True)
class VerificationPlan:
    """What would be checked, trained and looked at."""

    profile: str
    checked: tuple[str, ...]
    """Datasets whose integrity would be proven."""
    untrained: dict[str, str]
    """Why nothing would be trained on a dataset, by its name."""
    runs: int
    finished: int
    """Runs that need not be trained again."""
    flop: float
    """Of what is left to train."""
    cells: tuple[str, ...]
    """What would be trained, in words: one for each dataset, model and strategy."""
    time: str
    """How long what is left may take; empty: nothing is left."""
    timed: tuple[str, ...]
    """Datasets that would be made again, for the time that takes."""
    claims: int
    """How many would be looked at."""
    open: dict[str, int]
    """Why claims cannot be looked at, and how many."""

    @classmethod
    def of(
        cls,
        grid: Grid | None,
        claims: Sequence[Claim],
        wanted: Wanted,
        *,
        checked: Sequence[str],
        untrained: dict[str, str],
        profile: str,
        reporter: Reporter,
    ) -> VerificationPlan:
        """With what was trained before, and how long that took."""
        store = RunStore(cache_folder() / "runs")
        tasks = [] if grid is None else grid.tasks()
        done = shares_done(tasks, store, store.known(tasks, reporter)) if tasks else []
        return cls(
            profile=profile if grid is None else grid.profile.name,
            checked=tuple(checked),
            untrained=untrained,
            runs=len(tasks),
            finished=list(done).count(1),
            flop=flop_left(tasks, done),
            cells=() if grid is None else tuple(line.strip() for line in plan_lines(grid, tasks, done)),
            time=expected_hours(tasks, done, store.folder) if tasks and min(done) < 1 else "",
            timed=wanted.timed,
            claims=len(claims) - len(wanted.open),
            open=dict(Counter(wanted.open.values()).most_common()),
        )

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"{name}: its integrity would be proven" for name in self.checked]
        lines += [f"{name}: nothing would be trained: {why}" for name, why in self.untrained.items()]
        if self.runs:
            left = f"{self.finished} finished before, {operations(self.flop)} left"
            lines.append(f"profile {self.profile}: {counted(self.runs, 'run')}, {left}")
            lines += [f"  {text}" for text in (*self.cells, self.time) if text]
        else:
            lines.append("nothing would be trained")
        lines += [f"{name} is made {TIMINGS} times, for the time that takes" for name in self.timed]
        if self.claims or self.open:
            lines.append(f"{counted(self.claims, 'claim')} would be looked at, {sum(self.open.values()):,} not")
            lines += [f"  {number:,}: {reason}" for reason, number in self.open.items()]
        return lines
