"""A command from a dataclass: its fields that are declared by ``option`` and ``argument`` are the command line's."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
import typer.core

from ule_datasets.base.errors import InputError
from ule_datasets.base.files import expanded
from ule_datasets.base.options import PANELS

Given = TypeVar("Given")
Result = TypeVar("Result")
Words = tuple[str, ...]
Complete = Callable[[], Sequence[str]]
_WHOLE, _ANY = (int, "a whole number"), (float, "a number")
NUMBERS: dict[Any, tuple[type[int] | type[float], str]] = {int: _WHOLE, int | None: _WHOLE, float: _ANY}
"""Types of fields that are read from text here, and what the text must be."""


def argument(metavar: str, help: str, complete: Complete = tuple) -> Any:
    """A field for what stands on the command line without a name; ``complete`` lists what it may be, for a shell."""
    return dataclasses.field(default=None, metadata={"help": help, "metavar": metavar, "complete": complete})


def application(kind: type[Given], work: Callable[[Given], Result]) -> typer.Typer:
    """A command that calls a function with a dataclass, whose fields are its options, and returns what that returns."""
    app = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
    names = {"help_option_names": ["--help", "-h"]}
    app.command(cls=_renaming(kind), context_settings=names)(_command(kind, work))
    return app


def _command(kind: type[Given], work: Callable[[Given], Result]) -> Callable[..., Result]:
    """The function with the fields as its parameters, as Typer wants it."""

    def command(**values: Any) -> Result:
        return work(kind(**{name: given(name, value) for name, value in values.items()}))

    def given(name: str, value: Any) -> Any:
        found = words(value or ()) if types[name] == Words else value
        if value == "" or (isinstance(value, list) and (not found or "" in found)):
            raise InputError(_empty(fields[name]))
        if (number := NUMBERS.get(types[name])) is not None and value is not None:
            return _number(option_name(fields[name]), value, *number)
        return expanded(found) if isinstance(found, Path) else found

    types = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    # Lines of a docstring end where they do; those of a terminal where it does.
    command.__doc__ = "\n\n".join(" ".join(each.split()) for each in (work.__doc__ or "").split("\n\n"))
    shown = [field for field in fields.values() if "help" in field.metadata]
    shown.sort(key=lambda field: (PANELS.index(field.metadata.get("panel", "")), field.metadata.get("rank", 0)))
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [_parameter(field, types[field.name]) for field in shown]
    )
    return command


def _parameter(field: dataclasses.Field[Any], kind: Any) -> inspect.Parameter:
    about, default = field.metadata, field.default
    shown = {"help": about["help"], "metavar": about["metavar"]}
    if kind == Words:
        kind, default = list[str] | None, None
    if kind in NUMBERS:  # read here, so that what is no number is told in our words
        kind, default = str | None, None if default is None else str(default)
    if "name" in about:
        shown |= {"rich_help_panel": about["panel"] or None, "show_default": default not in (None, "auto", False)}
        if choices := about["choices"]:
            shown["autocompletion"] = _completion(lambda: choices)
        declared = typer.Option(option_name(field), **shown)
    else:
        declared = typer.Argument(**shown, autocompletion=_completion(about["complete"]))
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declared]
    )


def option_name(field: dataclasses.Field[Any]) -> str:
    """What a field is called on the command line."""
    return str(field.metadata["name"] or f"--{field.name.rstrip('_').replace('_', '-')}")


def _renaming(kind: Any) -> type[typer.core.TyperCommand]:
    """A command that takes options by their former names too, without telling anybody of these.

    Its help says of no flag that it takes a value, whatever others added it, and of an argument its name alone.
    """
    formerly = {
        name: option_name(field) for field in dataclasses.fields(kind) for name in field.metadata.get("formerly", ())
    }

    class Renaming(typer.core.TyperCommand):
        def get_params(self, ctx: Any) -> list[Any]:
            params: list[Any] = super().get_params(ctx)
            for parameter in params:
                if getattr(parameter, "is_flag", False):
                    parameter.metavar = ""  # it takes none
                elif parameter.param_type_name == "argument":
                    parameter.display_type_rich = _no_type  # of newer versions of Typer: <str>
            return params

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            end = args.index("--") if "--" in args else len(args)
            words = [word.partition("=") for word in args[:end]]
            renamed = ["".join((formerly.get(name, name), equals, value)) for name, equals, value in words]
            return super().parse_args(ctx, [*renamed, *args[end:]])

    return Renaming


def _no_type(*_: object, **__: object) -> None:
    """What the type of a value is called, for people: nothing, its name says it."""


def _number(name: str, text: str, kind: type[int] | type[float], what: str) -> int | float:
    try:
        return kind(text)
    except ValueError as error:
        raise InputError(f"{name} {text}: must be {what}") from error


def _completion(choices: Complete) -> Callable[[str], list[str]]:
    """What a shell may continue a word with; of words joined by commas, the last one."""

    def complete(incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",")
        return [f"{before}{comma}{choice}" for choice in choices() if choice.startswith(begun)]

    return complete


def words(given: Sequence[str]) -> Words:
    """Words that were joined by commas, or given one by one."""
    return tuple(word.strip() for text in given for word in text.split(",") if word.strip())


def _empty(field: dataclasses.Field[Any]) -> str:
    """The complaint about a value without a character: most likely a variable of the shell that is not set."""
    if "name" in field.metadata:
        return f"{option_name(field)} is empty; leave it away for the default"
    return f"{field.metadata['metavar']} is empty; is a variable of the shell not set?"
