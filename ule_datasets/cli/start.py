"""Console scripts: the commands are imported under watch, so that Ctrl-C ends them in one line from the beginning."""

from __future__ import annotations

import importlib
import sys


def build() -> None:
    """``ule-build``."""
    _start("build")


def verify() -> None:
    """``ule-verify``."""
    _start("verify")


def _start(name: str) -> None:
    try:
        importlib.import_module(f"ule_datasets.cli.{name}").console()
    except KeyboardInterrupt:
        sys.stderr.write(f"ule-{name}: interrupted\n")
        sys.exit(130)
