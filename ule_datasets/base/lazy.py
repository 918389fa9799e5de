"""Modules that are imported when something of them is first used, for what must be quick to import without it."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class _Lazy(ModuleType):
    def __getattr__(self, name: str) -> Any:
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)  # an attribute of its own is found at once: training steps ask for hundreds
        return value


def lazy(name: str) -> Any:
    """A stand-in for the module of that name; type checkers are told of the module itself by ``TYPE_CHECKING``."""
    return _Lazy(name)
