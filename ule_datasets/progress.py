"""Telling people what happens: bars on a terminal, plain lines elsewhere, nothing when silent."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0


class Reporter:
    """Writes messages and progress to stderr, and keeps the time of each named phase."""

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self.seconds: dict[str, float] = {}

    def say(self, text: str) -> None:
        """One line for the user."""
        if not self.silent:
            tqdm.write(text, file=sys.stderr)

    def warn(self, text: str) -> None:
        """Something the user should know although the work goes on; shown even when silent."""
        tqdm.write(f"warning: {text}", file=sys.stderr)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to ``seconds[name]``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def track(self, items: Iterable[Item], *, total: int, label: str, unit: str) -> Iterator[Item]:
        """Pass items through, showing how many of ``total`` are done and the time left."""
        if self.silent:
            yield from items
        elif sys.stderr.isatty():
            yield from tqdm(items, total=total, desc=label, unit=unit, leave=False, delay=1.0)
        else:
            yield from self._lines(items, total, label, unit)

    def _lines(self, items: Iterable[Item], total: int, label: str, unit: str) -> Iterator[Item]:
        started = said = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now - said >= SECONDS_BETWEEN_LINES:
                left = (now - started) / done * (total - done)
                self.say(f"{label}: {done} of {total} {unit}s, about {left:.0f} s left")
                said = now
