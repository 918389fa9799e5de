"""Which code a run used: the modules that define the objects it is made of, and what those import."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ule_datasets.victims.strategy import Countermeasure

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

LATER_HOOKS = ("learn", "on_levels")
"""Of countermeasures, which came when runs had been filed. One that no part of a run has is none of its code: neither
what it does by default, nor what is done where a part has it."""


def code_digest(*used: object) -> str:
    """Digest of the code behind some objects; comments, docstrings and the names of files do not count.

    They are dataclasses (with all that their fields hold, and what they name in ``depends_on``), functions and classes.
    """
    missing = _missing_hooks(used)
    digests = sorted(_code(module, missing)[0] for module in used_modules(*used))
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def used_modules(*used: object) -> frozenset[str]:
    """The modules behind some objects: those that define them, and what these import as far as results depend on it."""
    tables, found = {f"{PACKAGE}.{name}" for name in TABLES}, set[str]()
    waiting = {module for each in used for module in _defining(each)} - tables
    missing = _missing_hooks(used)
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= {name for name in _code(module, missing)[1] if _decides(name)} - tables - found
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


def _missing_hooks(used: Iterable[object]) -> frozenset[str]:
    """Those of ``LATER_HOOKS`` that no countermeasure has among some objects and all that they hold."""
    return frozenset(hook for hook in LATER_HOOKS if not any(map(partial(_has, hook), used)))


def _has(hook: str, value: object) -> bool:
    """Whether an object is, or holds, a countermeasure with a hook."""
    if isinstance(value, Countermeasure) and getattr(type(value), hook) is not getattr(Countermeasure, hook):
        return True
    if isinstance(value, tuple | list):
        return any(map(partial(_has, hook), value))
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else ()
    return any(_has(hook, getattr(value, field.name)) for field in fields)


def _decides(module: str) -> bool:
    """Whether results depend on a module because another one imports it."""
    name = module.removeprefix(f"{PACKAGE}.")
    return any(name == place or name.startswith(f"{place}.") for place in FOLLOWED)


@functools.cache
def _code(module: str, missing: frozenset[str]) -> tuple[str, frozenset[str]]:
    """Digest of a module's code without some hooks, and the modules of this package that it imports."""
    path = _path(module) or Path(str(sys.modules[module].__file__))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    _leave_out(missing, tree)
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


def _leave_out(hooks: frozenset[str], tree: ast.Module) -> None:
    """Take out of a module what only some hooks need: their methods, ``if having(hook)``, and imports for these."""
    needed = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            only = [part for part in node.body if _is_for(hooks, part, node)]
            needed |= {name for part in only for name in _names(part)}
            node.body = [part for part in node.body if part not in only]
    needed -= _names(tree)
    tree.body = [part for part in tree.body if not (isinstance(part, ast.ImportFrom) and _named(part) <= needed)]


def _is_for(hooks: frozenset[str], part: ast.stmt, owner: ast.ClassDef | ast.FunctionDef) -> bool:
    """Whether a statement is what such a hook does by default, or is done where a part has one."""
    match part:
        case ast.FunctionDef(name=name):
            return name in hooks and owner.name == Countermeasure.__name__
        case ast.If(test=ast.Call(func=ast.Attribute(attr="having"), args=[ast.Constant(value=hook)]), orelse=[]):
            return hook in hooks
        case _:
            return False


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _named(imports: ast.ImportFrom) -> set[str]:
    return {alias.asname or alias.name for alias in imports.names}


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
