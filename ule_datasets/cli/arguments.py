"""Options of a command as the fields of a dataclass: each is declared once, with its help."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

Given = TypeVar("Given")


def argument(metavar: str, help: str) -> Any:
    """A field for what stands on the command line without a name."""
    return dataclasses.field(default=None, metadata={"typer": typer.Argument(metavar=metavar, help=help)})


def option(help: str, metavar: str | None = None, *, default: Any = None) -> Any:
    """A field for ``--its-name VALUE``."""
    return dataclasses.field(default=default, metadata={"typer": typer.Option(metavar=metavar, help=help)})


def flag(name: str, help: str) -> Any:
    """A field that is true where ``name`` is on the command line."""
    return dataclasses.field(default=False, metadata={"typer": typer.Option(name, help=help)})


def takes(kind: type[Given]) -> Callable[[Callable[[Given], int]], Callable[..., int]]:
    """Let Typer see a function of one dataclass as a command that has the fields as its options."""

    def decorate(work: Callable[[Given], int]) -> Callable[..., int]:
        def command(**values: Any) -> int:
            return work(kind(**values))

        types = get_type_hints(kind)
        command.__doc__ = work.__doc__
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=Annotated[types[field.name], field.metadata["typer"]],
                )
                for field in dataclasses.fields(kind)  # type: ignore[arg-type]
            ]
        )
        return command

    return decorate
