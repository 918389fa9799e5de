"""Ctrl-C while a command works: an exception that nobody swallows."""

from __future__ import annotations

import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

AGAIN = 0.1
"""Seconds until the exception is raised once more, where nobody seems to have noticed it."""
ONE_PRESS = 1.0
"""Seconds within which several signals are one: some programs pass on what the terminal sends to all anyway."""


class Interrupts:
    """Within ``with``, the first Ctrl-C raises ``KeyboardInterrupt`` in the main thread; the next does what it did.

    What is raised while a library is imported, or an object deleted, ends as some other error, in a message of the
    interpreter, or nowhere. So an import is waited for, nothing is printed of what is swallowed, and until the
    exception is on its way to the end of the ``with`` statement, it is raised again.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._ended = True
        self._first = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._hook = sys.unraisablehook
        if threading.current_thread() is threading.main_thread():
            self._ended = False
            sys.unraisablehook = self._unraisable
            for number, handler in ((signal.SIGINT, self._press), (_ALARM, self._again)):
                if number is not None:
                    self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            self.end()  # also of an alarm that was set a moment ago
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        sys.unraisablehook = self._hook

    def end(self) -> None:
        """The command has ended: raise nothing more."""
        self._ended = True
        if _ALARM is not None and self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _press(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.pressed:
            self.pressed, self._first = True, now
            if _ALARM is not None:
                signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
            self._again(number, frame)
        elif now - self._first > ONE_PRESS:
            before = self._before[signal.SIGINT]
            (before if callable(before) else signal.default_int_handler)(number, frame)

    def _again(self, _: int, frame: FrameType | None) -> None:
        if not (self._ended or _on_its_way() or (_ALARM is not None and _importing(frame))):
            raise KeyboardInterrupt

    def _unraisable(self, about: sys.UnraisableHookArgs) -> None:
        if not (self.pressed and issubclass(about.exc_type, KeyboardInterrupt)):
            self._hook(about)


_ALARM = getattr(signal, "SIGALRM", None)


def _on_its_way() -> bool:
    """Whether a ``KeyboardInterrupt`` is what some ``except``, ``finally`` or ``with`` is busy with."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _importing(frame: FrameType | None) -> bool:
    """Whether a library is being imported; our own modules take an exception for what it is."""
    while frame is not None:
        code = frame.f_code
        if (code.co_filename, code.co_name) == ("<frozen importlib._bootstrap>", "_find_and_load"):
            root = str(frame.f_locals.get("name")).partition(".")[0]
            if root not in ("ule_datasets", "builders"):
                return True
        frame = frame.f_back
    return False
