"""Command lines: arguments in, one call, exit code out."""

from __future__ import annotations

import contextlib
import errno
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

STOPPED = "interrupted; the same command continues where it stopped"
DONE, CHECK_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def run(command: str, work: Callable[[list[str]], int], argv: list[str] | None) -> int:
    """Run a command; whatever goes wrong becomes one or two lines on stderr and an exit code.

    0: done; 1: a check failed; 2: wrong usage or bad input; 130: interrupted. ``--debug`` shows the traceback.
    """
    # A shell that starts a command in the background of a script has it ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    from concurrent.futures import BrokenExecutor

    import typer

    from ule_datasets.base.errors import InputError

    # Typer carries Click with it from some version on; the base of its usage errors is the same class in both.
    usage_error = typer.BadParameter.__mro__[2]
    arguments = sys.argv[1:] if argv is None else argv
    try:
        code = work(arguments)
        # Some versions of Typer catch Ctrl-C themselves and return the code that stands for it.
        return _fail(command, STOPPED, INTERRUPTED) if code == INTERRUPTED else code
    except (KeyboardInterrupt, typer.Abort):
        return _fail(command, STOPPED, INTERRUPTED)
    except typer.Exit as stop:
        return stop.exit_code
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return BAD_INPUT
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        if isinstance(error, usage_error):
            message = getattr(error, "format_message", error.__str__)()
            return _fail(command, f"{message} (see {command} --help)", BAD_INPUT)
        if isinstance(error, InputError):
            return _fail(command, str(error), BAD_INPUT)
        if isinstance(error, OSError) and error.errno is not None:
            return _fail(command, _system_message(error), BAD_INPUT)
        if isinstance(error, BrokenExecutor):
            return _fail(command, f"{error}; fewer --workers need less memory; the same command continues", BAD_INPUT)
        text = f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback, and report it)"
        return _fail(command, text, BAD_INPUT)


def show_version() -> int:
    """Print the package's version; returns the exit code."""
    from ule_datasets.base.version import __version__

    print(__version__)
    return DONE


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as text, with their columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def _system_message(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"no room left to write{where}; free some space and run the same command again: it continues"
    return f"{error.strerror}{where}"


def _fail(command: str, text: str, code: int) -> int:
    print(f"{command}: {text}", file=sys.stderr)
    return code
