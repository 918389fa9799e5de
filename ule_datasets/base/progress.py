"""Telling people what happens: bars on a terminal, plain lines elsewhere, nothing when silent.

The library for bars is imported by what shows something: it is slow to import, and recipes lead here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ule_datasets.base.shown import terminal

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0


def say_nothing(_: object) -> None:
    """Told something, tell nobody: for those who are not asked to say how things go."""


class Reporter:
    """Writes messages and progress to stderr, and keeps the time of each named phase."""

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self.seconds: dict[str, float] = {}
        self.warnings: list[str] = []
        """What was warned of so far."""

    def say(self, text: str) -> None:
        """One line for the user."""
        if not self.silent:
            _write(text)

    def warn(self, text: str) -> None:
        """Something the user should know although the work goes on; shown even when silent."""
        self.warnings.append(text)
        _write(f"warning: {text}")

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to ``seconds[name]``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def track(
        self,
        items: Iterable[Item],
        *,
        total: int,
        label: str,
        unit: str,
        images: Callable[[Item], int] | None = None,
        before: int = 0,
    ) -> Iterator[Item]:
        """Pass items through, showing how many of ``total`` are done and the time left.

        ``before`` of them were done before, and are not among the items.

        With ``images``, which says how many of them an item stands for, also how many are done in a second.
        """
        if self.silent:
            yield from items
            return
        from tqdm import tqdm

        bars, count = sys.stderr.isatty(), 0
        started = said = time.monotonic()
        with tqdm(total=total, initial=before, desc=label, unit=unit, leave=False, delay=1.0, disable=not bars) as bar:
            for done, item in enumerate(items, start=1):
                yield item
                now = time.monotonic()
                count += 0 if images is None else images(item)
                speed = "" if images is None else f"{count / max(now - started, 1e-9):,.0f} images/s"
                if bars and speed:
                    bar.set_postfix_str(speed, refresh=False)
                bar.update()
                if not bars and now - said >= SECONDS_BETWEEN_LINES:
                    left = (now - started) / done * max(0, total - before - done)
                    self.say(
                        f"{label}: {before + done} of {total} {unit}s{speed and ', ' + speed}, about {left:.0f} s left"
                    )
                    said = now


def _write(text: str) -> None:
    from tqdm import tqdm

    tqdm.write(terminal(text), file=sys.stderr)


def duration(seconds: float) -> str:
    """A time for people, e.g. ``3 s``, ``12 min``, ``5.2 h``."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
