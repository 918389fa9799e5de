"""A command from its arguments to its exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from ule_datasets.cli.interrupts import Interrupts
from ule_datasets.cli.termination import INTERRUPTED as INTERRUPTED
from ule_datasets.cli.termination import terminable

STOPPED = "interrupted; the same command continues where it stopped"
DONE, CHECK_FAILED, BAD_INPUT = 0, 1, 2


@terminable
def run(command: str, work: Callable[[list[str]], int], argv: list[str] | None) -> int:
    """Run a command; whatever goes wrong becomes one or two lines on stderr and an exit code.

    0: done; 1: a check failed; 2: wrong usage or bad input; 130: interrupted, 143: by SIGTERM. ``--debug`` shows
    the traceback.
    """
    code: int = INTERRUPTED
    lines: tuple[object, ...] = (STOPPED,)
    with Interrupts() as interrupts:
        try:
            _make_safe()
            done = _outcome(command, work, sys.argv[1:] if argv is None else argv)
            interrupts.end()
            if not interrupts.pressed:
                code, lines = done
        except KeyboardInterrupt:
            interrupts.end()
        if lines:
            tell(f"{command}: {lines[0]}", *lines[1:], to=sys.stderr)
    return code


def _outcome(command: str, work: Callable[[list[str]], int], arguments: list[str]) -> tuple[int, tuple[object, ...]]:
    """Do the work; the exit code, and what is to be said."""
    import traceback
    from concurrent.futures import BrokenExecutor

    import typer

    from ule_datasets.base.errors import InputError

    # Typer carries Click with it from some version on; the base of its usage errors is the same class in both.
    usage_error = typer.BadParameter.__mro__[2]
    try:
        code = work(arguments)
        sys.stdout.flush()
        # Some versions of Typer catch Ctrl-C themselves and return the code that stands for it.
        return code, (STOPPED,) if code == INTERRUPTED else ()
    except typer.Abort:
        return INTERRUPTED, (STOPPED,)
    except typer.Exit as stop:
        return stop.exit_code, ()
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return BAD_INPUT, ()
    except Exception as error:
        if "--debug" in arguments:
            tell(*traceback.format_exc().splitlines(), to=sys.stderr)
        if isinstance(error, usage_error):
            message = getattr(error, "format_message", error.__str__)()
            return BAD_INPUT, (f"{message} (see {command} --help)",)
        if isinstance(error, InputError):
            return BAD_INPUT, error.args
        if isinstance(error, OSError) and error.errno is not None:
            return BAD_INPUT, (_system_message(error),)
        if isinstance(error, BrokenExecutor):
            return BAD_INPUT, (f"{error}; fewer --workers need less memory; the same command continues",)
        text = f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback, and report it)"
        return BAD_INPUT, (text,)


def show_version() -> int:
    """Print the package's version; returns the exit code."""
    from ule_datasets.base.version import __version__

    tell(__version__)
    return DONE


def tell(*lines: object, to: TextIO | None = None) -> None:
    """Print lines; whatever they hold, they are lines of text without anybody's secrets."""
    from ule_datasets.base.shown import terminal

    for line in lines:
        print(terminal(line), file=to)


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines of text, with their columns below each other."""
    from ule_datasets.base.shown import terminal

    shown = [tuple(map(terminal, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def _make_safe() -> None:
    """What libraries print by themselves is safe too, and no text is too foreign for an output."""
    import logging
    import warnings

    from ule_datasets.base.shown import terminal

    def record(*arguments: object, **options: object) -> logging.LogRecord:
        made = logging.LogRecord(*arguments, **options)  # type: ignore[arg-type]
        made.msg, made.args = terminal(made.getMessage()), ()
        return made

    logging.setLogRecordFactory(record)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {terminal(message)}\n"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _system_message(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"no room left to write{where}; free some space and run the same command again: it continues"
    return f"{error.strerror}{where}"
