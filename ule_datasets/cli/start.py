"""Console scripts: from the first line here on, Ctrl-C ends a command in one line.

Before, it is Python's: until this module is imported. So it imports what Python has loaded by itself, and little more.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

INTERRUPTED = 130

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def build() -> NoReturn:
    """``ule-build``."""
    _start("build")


def verify() -> NoReturn:
    """``ule-verify``."""
    _start("verify")


def _start(name: str) -> NoReturn:
    def leave(*_: object) -> NoReturn:
        # At once: whoever imports a library that is interrupted may take an exception for another, or for nothing.
        os.write(2, f"ule-{name}: interrupted\n".encode())
        os._exit(INTERRUPTED)

    def leave_with(code: int) -> NoReturn:
        # All is said and done; threads and libraries would complain of an exception while they are taken down.
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))
        sys.exit(code)

    # Also where a shell has what it starts in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, leave)
    try:
        code: int = importlib.import_module(f"ule_datasets.cli.{name}").main()
    except KeyboardInterrupt:
        leave()
    leave_with(code)
