"""Which code a run used: the modules that define the objects it is made of, and what those import."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

PACKAGE = "ule_datasets"
ROOT = Path(__file__).parents[1]
FOLLOWED = (
    "victims",
    "countermeasures",
    "models",
    "data.codec",
    "data.quantization",
    "base.seeds",
    "compute.devices",
    "compute.precision",
)
"""Rooms and modules whose code decides results; the others find files, show progress and start processes."""
TABLES = ("countermeasures", "models.architectures", "models.weights", "victims.table")
"""Modules that only say what there is by which name. A run uses one row, which is among its objects: it does not
depend on the others, nor on what the module imports for them."""


def code_digest(*used: object) -> str:
    """Digest of the code behind some objects; comments, docstrings and the names of files do not count.

    They are dataclasses (with all that their fields hold, and what they name in ``depends_on``), functions and classes.
    """
    digests = sorted(_code(module)[0] for module in used_modules(*used))
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def used_modules(*used: object) -> frozenset[str]:
    """The modules behind some objects: those that define them, and what these import as far as results depend on it."""
    tables, found = {f"{PACKAGE}.{name}" for name in TABLES}, set[str]()
    waiting = {module for each in used for module in _defining(each)} - tables
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= {name for name in _code(module)[1] if _decides(name)} - tables - found
    return frozenset(found)


def _defining(value: Any) -> Iterator[str]:
    """Modules that define an object's type, and those of everything that it holds."""
    if isinstance(value, partial):
        yield from _defining((value.func, *value.args, *value.keywords.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _defining(item)
    elif isinstance(value, dict):
        yield from _defining(tuple(value.values()))
    elif callable(value) and hasattr(value, "__qualname__"):
        yield value.__module__
    elif dataclasses.is_dataclass(value):
        yield type(value).__module__
        yield from _defining(tuple(getattr(value, field.name) for field in dataclasses.fields(value)))
        yield from _defining(getattr(value, "depends_on", ()))


def _decides(module: str) -> bool:
    """Whether results depend on a module because another one imports it."""
    name = module.removeprefix(f"{PACKAGE}.")
    return any(name == place or name.startswith(f"{place}.") for place in FOLLOWED)


@functools.cache
def _code(module: str) -> tuple[str, frozenset[str]]:
    """Digest of a module's code, and the modules of this package that it imports."""
    path = _path(module) or Path(str(sys.modules[module].__file__))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            imported |= {name if _path(name) else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [part for part in node.body if not (_is_text(part) or _is_off(part, node))] or [ast.Pass()]
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return digest, frozenset(name for name in imported if _path(name))


def _path(module: str) -> Path | None:
    """The file of a module of this package; ``None``: there is none."""
    first, *rest = module.split(".")
    place = ROOT.joinpath(*rest)
    candidates = (place / "__init__.py", place.with_suffix(".py")) if first == PACKAGE and rest else ()
    return next((path for path in candidates if path.is_file()), None)


def _is_text(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _is_off(statement: ast.stmt, owner: ast.AST) -> bool:
    """Whether it declares a field that is off by default, which ``content`` leaves out too."""
    if not isinstance(owner, ast.ClassDef) or not isinstance(statement, ast.AnnAssign) or statement.value is None:
        return False
    try:
        return not ast.literal_eval(statement.value)
    except ValueError:
        return False
