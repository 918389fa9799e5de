"""``python -m ule_datasets build|verify``: the two commands, where their scripts are not on the path."""

from __future__ import annotations

import sys

from ule_datasets.cli import start

COMMANDS = {"build": start.build, "verify": start.verify}

if __name__ == "__main__":
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        sys.stderr.write("usage: python -m ule_datasets build|verify ..., as ule-build and ule-verify (both: --help)\n")
        sys.exit(0 if name in ("-h", "--help") else 2)
    COMMANDS[name]()
