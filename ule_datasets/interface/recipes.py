"""Finding the recipe that the user means: in the catalogue, or in a file of their own."""

from __future__ import annotations

import runpy
from pathlib import Path

from builders import RECIPES
from ule_datasets.base.errors import InputError
from ule_datasets.base.files import expanded
from ule_datasets.base.names import unknown
from ule_datasets.definition import Recipe


def find_recipe(name: str) -> Recipe:
    """The catalogue's recipe of that name (refused with those that are like it), or the ``RECIPE`` of a Python file."""
    if name.endswith(".py"):
        return _from_file(expanded(name))
    if name in RECIPES:
        return RECIPES[name]
    others = "ule-build --list shows all; or give a file NAME.py with a RECIPE"
    raise unknown(f"no recipe {name!r}", name, RECIPES, others)


def _from_file(path: Path) -> Recipe:
    """Run a recipe file: it is the user's own program, so anything may go wrong in it."""
    if not path.is_file():
        raise InputError(f"no recipe file {path}")
    try:
        recipe = runpy.run_path(str(path)).get("RECIPE")
    except (Exception, SystemExit) as error:
        raise InputError(f"{path}{_line(path, error)}: {type(error).__name__}: {error}") from error
    if not isinstance(recipe, Recipe):
        found = "nothing" if recipe is None else f"a {type(recipe).__name__}"
        raise InputError(f"{path} must define RECIPE = Recipe(...); RECIPE is {found}")
    if recipe.name in RECIPES and recipe.digest != RECIPES[recipe.name].digest:
        raise InputError(f"{path}: the name {recipe.name!r} belongs to a published dataset; give yours another name")
    return recipe


def _line(path: Path, error: BaseException) -> str:
    """``, line N`` of the recipe file, where the error came from it."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f", line {line}" if line else ""
