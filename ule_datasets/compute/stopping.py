"""Ends that wait for a moment that suits the work: signals that would end a process are noted and sent again later."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Ending:
    """Whether this process is to end."""

    def __init__(self) -> None:
        """It goes on."""
        self._signal: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def wanted(self) -> bool:
        """Whether somebody asked for it."""
        return self._signal is not None

    def now(self) -> None:
        """Let the signal do what it would have done, if one came."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self._signal is not None:
            number, self._signal = self._signal, None
            signal.raise_signal(number)

    def _wait_for(self, *numbers: int) -> None:
        for number in numbers:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._signal = number
        if number == signal.SIGINT and number in self._before:  # who asks again will not wait
            signal.signal(number, self._before.pop(number))


@contextmanager
def ending_later() -> Iterator[Ending]:
    """Note Ctrl-C and SIGTERM while the block lasts, where they are not ignored; what was noted happens at its end.

    A second Ctrl-C does what it does elsewhere. Only the main thread is told of signals: in others nothing changes.
    """
    ending = Ending()
    if threading.current_thread() is threading.main_thread():
        ending._wait_for(signal.SIGINT, signal.SIGTERM)
    try:
        yield ending
    finally:
        ending.now()
