"""A command from its arguments to its exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from ule_datasets.cli.interrupts import Interrupts
from ule_datasets.cli.termination import INTERRUPTED as INTERRUPTED
from ule_datasets.cli.termination import terminable

STOPPED = "interrupted; the same command continues where it stopped"
DONE, CHECK_FAILED, BAD_INPUT = 0, 1, 2
MISMATCHED = (
    "torchvision does not fit the torch that is installed ({error}): install both from one place, as in "
    "pip install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cpu"
)
"""What helps where importing torchvision fails: nearly always one of the two has CUDA, and the other has not."""
SCHEMA = "ule-datasets answer 1"
"""Of what ``--json`` prints: docs/reference/json.md."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a command found: for people in lines, for programs as JSON."""

    lines: Sequence[object] = ()
    content: Any = None
    """JSON values."""
    complaints: Sequence[object] = ()
    """Lines for stderr, and for programs besides the content."""
    code: int = DONE


def run(command: str, work: Callable[[list[str]], Any], argv: list[str] | None) -> int:
    """Run a command that returns an ``Answer``, and tell it; whatever goes wrong becomes one or two lines on stderr.

    Returns the exit code. 0: done; 1: a check failed; 2: wrong usage or bad input; 130: interrupted, 143: by SIGTERM.
    ``--debug`` shows the traceback. With ``--json`` stdout gets one JSON value and nothing else, whatever happens.
    """
    code: int = INTERRUPTED
    lines: Sequence[object] = (STOPPED,)
    arguments = sys.argv[1:] if argv is None else argv
    as_json = "--json" in arguments
    with terminable() as terminations, Interrupts() as interrupts:
        try:
            _make_safe()
            done = _outcome(command, work, arguments, as_json=as_json)
            interrupts.end()
            if not interrupts.pressed:
                code, lines = done
        except KeyboardInterrupt:
            interrupts.end()
        code = terminations.code(code)
        if lines:
            tell(f"{command}: {lines[0]}", *lines[1:], to=sys.stderr)
            if as_json:
                with contextlib.suppress(OSError):
                    tell_json(command, Answer(complaints=lines, code=code))
    return code


def _outcome(
    command: str, work: Callable[[list[str]], Any], arguments: list[str], *, as_json: bool
) -> tuple[int, Sequence[object]]:
    """Do the work and tell the answer; the exit code, and what is to be said besides."""
    import traceback
    from concurrent.futures import BrokenExecutor

    import typer

    from ule_datasets.base.errors import InputError

    # Typer carries Click with it from some version on; the base of its usage errors is the same class in both.
    usage_error = typer.BadParameter.__mro__[2]
    try:
        # Whatever libraries print, it is no JSON.
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            answer = work(arguments)
        if isinstance(answer, Answer):
            _tell(command, answer, as_json=as_json)
            answer = answer.code
        elif as_json and not answer:  # help, for instance: it went to stderr, as all that is no JSON
            tell_json(command, Answer())
        sys.stdout.flush()
        # Some versions of Typer catch Ctrl-C themselves and return the code that stands for it.
        return answer or DONE, (STOPPED,) if answer == INTERRUPTED else ()
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
            message = getattr(error, "format_message", error.__str__)().rstrip(".")
            return BAD_INPUT, (f"{message} (see {command} --help)",)
        if isinstance(error, InputError):
            return BAD_INPUT, error.args
        if isinstance(error, OSError) and error.errno is not None:
            return BAD_INPUT, (_system_message(error),)
        if isinstance(error, BrokenExecutor):
            return BAD_INPUT, (f"{error}; fewer --workers need less memory; the same command continues",)
        if isinstance(error, ImportError | OSError | RuntimeError) and "torchvision" in str(error):
            return BAD_INPUT, (MISMATCHED.format(error=error),)
        text = f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback, and report it)"
        return BAD_INPUT, (text,)


def _tell(command: str, answer: Answer, *, as_json: bool) -> None:
    if as_json:
        tell_json(command, answer)
    else:
        tell(*answer.lines)
    tell(*answer.complaints, to=sys.stderr)


def tell_json(command: str, answer: Answer) -> None:
    """Print an answer as one JSON value; whatever it holds, its texts are lines without anybody's secrets."""
    import json

    from ule_datasets.base.shown import plain
    from ule_datasets.base.version import __version__

    content = {
        "schema": SCHEMA,
        "command": command,
        "version": __version__,
        "code": answer.code,
        "complaints": list(map(str, answer.complaints)),
        "result": answer.content,
    }
    print(json.dumps(plain(content), indent=1, ensure_ascii=False))


def version() -> Answer:
    """The package's version."""
    from ule_datasets.base.version import __version__

    return Answer(lines=(__version__,), content=__version__)


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
