"""SIGTERM, by which schedulers and systems end commands: like Ctrl-C, so that what runs is ended and kept."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable
from typing import ParamSpec

INTERRUPTED, TERMINATED = 130, 143
P = ParamSpec("P")


def terminable(command: Callable[P, int]) -> Callable[P, int]:
    """Let SIGTERM interrupt a command as Ctrl-C does, where nobody else handles it; then its exit code says so."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        came: list[int] = []

        def interrupt(number: int, _: object) -> None:
            came.append(number)
            signal.raise_signal(signal.SIGINT)

        alone = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        if threading.current_thread() is not threading.main_thread() or not alone:
            return command(*args, **kwargs)
        signal.signal(signal.SIGTERM, interrupt)
        try:
            code = command(*args, **kwargs)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return TERMINATED if came and code == INTERRUPTED else code

    return run
