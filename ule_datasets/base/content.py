"""What an object is, as JSON values: its kind and what was chosen. Results are filed under this."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any


def content(value: Any) -> Any:
    """JSON values of what is made of dataclasses, functions with arguments, lists, dictionaries and plain values.

    A dataclass is the name of its type and its fields. Those that are off by default and were not chosen (``None``,
    false, zero, empty) are left out: a field that is added later, off by default, changes nothing filed before. All
    others are written, so that another default makes another content.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        chosen = [field for field in dataclasses.fields(value) if not is_off(value, field)]
        return {"is": type(value).__name__, **{field.name: content(getattr(value, field.name)) for field in chosen}}
    if isinstance(value, partial):
        return {"is": content(value.func), "arguments": content(value.args), **content(value.keywords)}
    if isinstance(value, tuple | list):
        return [content(item) for item in value]
    if isinstance(value, dict):
        return {name: content(item) for name, item in value.items()}
    return value.__qualname__ if callable(value) else value


def is_off(owner: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether a field is off by default (``None``, false, zero, empty), and was left so."""
    value = getattr(owner, field.name)
    return not value and field.default is not dataclasses.MISSING and bool(value == field.default)
