"""SIGTERM, by which schedulers and systems end commands: like Ctrl-C, so that what runs is ended and kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED, TERMINATED = 130, 143


class Terminations:
    """Whether a SIGTERM came, and what exit code that makes of an interrupted command."""

    def __init__(self) -> None:
        self.came = False

    def code(self, code: int) -> int:
        """The exit code to tell: SIGTERM's own where the command was interrupted by it."""
        return TERMINATED if self.came and code == INTERRUPTED else code


@contextmanager
def terminable() -> Iterator[Terminations]:
    """Let SIGTERM interrupt what runs within as Ctrl-C does, where nobody else handles it."""
    terminations = Terminations()

    def interrupt(*_: object) -> None:
        terminations.came = True
        signal.raise_signal(signal.SIGINT)

    alone = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if threading.current_thread() is not threading.main_thread() or not alone:
        yield terminations
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield terminations
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
