"""Imported by nobody but the process that local workers are forked from: what ends it, its parent says in one line."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from types import TracebackType


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if multiprocessing.parent_process() is not None:  # a worker, which has inherited this
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _tell
if hasattr(signal, "pthread_sigmask"):
    # Who ends all processes at once ends the parent too, which waits for its workers: it would not know when they end.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # not ignored: workers open it, and lose none
