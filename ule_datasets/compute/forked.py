"""Imported by nobody but the process that local workers are forked from: what ends it, its parent says in one line."""

from __future__ import annotations

import multiprocessing
import sys
from types import TracebackType


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if multiprocessing.parent_process() is not None:  # a worker, which has inherited this
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _tell
