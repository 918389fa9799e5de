"""Telling people what happens: bars on a terminal, plain lines elsewhere, nothing when silent.

The library for bars is imported by what shows something: it is slow to import, and recipes lead here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ule_datasets.base.shown import counted, terminal

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0
"""At the beginning: later an ``OF_THE_TIME`` of the time that has passed, so that long work tells of itself rarely."""
OF_THE_TIME = 0.1
WRONG, SHORT = 1.5, 5.0
"""An expectation is corrected aloud when it proves wrong by this factor; by so many seconds nobody would notice."""


def say_nothing(_: object) -> None:
    """Told something, tell nobody: for those who are not asked to say how things go."""


class Reporter:
    """Writes messages and progress to stderr, and keeps the time of each named phase."""

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self.seconds: dict[str, float] = {}
        self.warnings: list[str] = []
        """What was warned of so far."""
        self._began = self._said = time.monotonic()
        self._expected: dict[str, float] = {}

    def say(self, text: str) -> None:
        """One line for the user."""
        if not self.silent:
            _write(text)

    def warn(self, text: str) -> None:
        """Something the user should know although the work goes on; shown even when silent."""
        self.warnings.append(text)
        _write(f"warning: {text}")

    def expect(self, seconds: float, label: str) -> None:
        """It was said that what will be tracked under a label takes so long: lines tell when that proves wrong."""
        self._expected[label] = seconds

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
        lines = _Lines(self, f"{label}: {{}} of {counted(total, unit)}", total, before, self._expected.pop(label, None))
        with tqdm(total=total, initial=before, desc=label, unit=unit, leave=False, delay=1.0, disable=not bars) as bar:
            for item in items:
                yield item
                now = time.monotonic()
                count += 0 if images is None else images(item)
                speed = "" if images is None else f"{count / max(now - lines.started, 1e-9):,.0f} images/s"
                if bars and speed:
                    bar.set_postfix_str(speed, refresh=False)
                bar.update()
                lines.count(now, speed, say=not bars)

    def due(self, now: float, *, wanted: bool) -> bool:
        """Whether a line of progress may be said now: lines come ever more rarely, but for those that are wanted."""
        usual = max(SECONDS_BETWEEN_LINES, OF_THE_TIME * (now - self._began))
        if now - self._said < (SECONDS_BETWEEN_LINES if wanted else usual):
            return False
        self._said = now
        return True


class _Lines:
    """The lines that tell of progress where there are no bars."""

    def __init__(self, reporter: Reporter, text: str, total: int, before: int, expected: float | None) -> None:
        self.started = time.monotonic()
        self._reporter, self._text, self._total, self._done, self._before = reporter, text, total, before, before
        self._expected = expected

    def count(self, now: float, speed: str, *, say: bool) -> None:
        """One more is done; tell, if it is time."""
        self._done += 1
        left = (now - self.started) / (self._done - self._before) * max(0, self._total - self._done)
        overall = now - self.started + left
        wrong = self._expected is not None and _differ(overall, self._expected)
        if say and self._reporter.due(now, wanted=wrong):
            told = [self._text.format(self._done), *([speed] if speed else [])]
            told += [f"about {duration(left)} left"] if left else []
            if wrong:
                told.append(f"{duration(overall)} in all, not {duration(self._expected or 0)} as it seemed")
            self._reporter.say(", ".join(told))
            self._expected = overall


class Forecast:
    """How long each of some rounds takes, as it was told; and what is to be told when that proves wrong."""

    def __init__(self, seconds: float, rounds: int, unit: str) -> None:
        """Told right now: all ``rounds`` together take so many seconds."""
        self._started, self._each, self._rounds, self._unit = time.monotonic(), seconds / rounds, rounds, unit

    def after(self, done: int) -> str:
        """The correction after so many rounds, at least one; empty: none is needed."""
        each = (time.monotonic() - self._started) / done
        if not _differ(each, self._each):
            return ""
        before, self._each = self._each, each
        left = max(0, self._rounds - done)
        rest = f": about {duration(each * left)} left for {counted(left, self._unit)}" if left else ""
        return f"a {self._unit} takes {duration(each)}, not {duration(before)} as it seemed{rest}"


def _differ(seconds: float, expected: float) -> bool:
    """Whether an expectation has proved wrong; not where it hardly matters."""
    return not 1 / WRONG < max(seconds, SHORT) / max(expected, SHORT) < WRONG


def _write(text: str) -> None:
    from tqdm import tqdm

    tqdm.write(terminal(text), file=sys.stderr)


def duration(seconds: float) -> str:
    """A time for people, e.g. ``3 s``, ``12 min``, ``5.2 h``."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
