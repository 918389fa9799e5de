"""A command from a dataclass: its fields that are declared by ``option`` and ``argument`` are the command line's."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

Given = TypeVar("Given")
Words = tuple[str, ...]


def argument(metavar: str, help: str) -> Any:
    """A field for what stands on the command line without a name."""
    return dataclasses.field(default=None, metadata={"help": help, "metavar": metavar})


def takes(kind: type[Given]) -> Callable[[Callable[[Given], int]], Callable[..., int]]:
    """Let Typer see a function of one dataclass as a command that has the fields as its options."""

    def decorate(work: Callable[[Given], int]) -> Callable[..., int]:
        def command(**values: Any) -> int:
            return work(kind(**{name: _words(v) if types[name] == Words else v for name, v in values.items()}))

        types = get_type_hints(kind)
        command.__doc__ = work.__doc__
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [_parameter(field, types[field.name]) for field in _in_order(kind)]
        )
        return command

    return decorate


def _in_order(kind: Any) -> list[dataclasses.Field[Any]]:
    """The fields of the command line; one that comes after another takes those with it that follow its declaration."""
    ordered: list[dataclasses.Field[Any]] = []
    place = 0
    for field in dataclasses.fields(kind):
        if "help" in field.metadata:
            if after := field.metadata.get("after"):
                place = [each.name for each in ordered].index(after) + 1
            ordered.insert(place, field)
            place += 1
    return ordered


def _parameter(field: dataclasses.Field[Any], kind: Any) -> inspect.Parameter:
    about, default = field.metadata, field.default
    shown = {"help": about["help"], "metavar": about["metavar"]}
    if kind == Words:
        kind, default = str | None, None
    name = about.get("name") or f"--{field.name.rstrip('_').replace('_', '-')}"
    declared = typer.Option(name, **shown) if "name" in about else typer.Argument(**shown)
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declared]
    )


def _words(text: str | None) -> Words:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())
