"""What the site has besides the pages here: MkDocs calls this while it builds.

README, contributing, benchmarks and changelog are pages where they stand; the command line's help and the library's
reference come from the code; pictures of what methods do come from builds.
"""

from __future__ import annotations

import functools
import html
import importlib
import os
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/EVIDENCE.md": "evidence.md",
    "benchmarks/GPU.md": "gpu.md",
    "CITATION.cff": "CITATION.cff",
}
"""Files of the repository that are on the site, and the places they have there."""
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
"""The path of a link to another file."""
CATALOGUE, COMMANDS, LIBRARY = "catalogue.md", "reference/command-line.md", "reference/library"


def on_config(config: Any) -> Any:
    """The library has a page for every room; what is imported later is found."""
    sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
    pages = [{"Overview": f"{LIBRARY}/index.md"}, *({room: f"{LIBRARY}/{room}.md"} for room in rooms())]
    reference = next(part for part in config["nav"] if "Reference" in part)["Reference"]
    if pages not in [part.get("Library") for part in reference if isinstance(part, dict)]:
        reference.append({"Library": pages})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in this folder."""
    from mkdocs.structure.files import File

    pages = {place: ROOT.joinpath(path).read_text(encoding="utf-8") for path, place in ELSEWHERE.items()}
    pages |= {COMMANDS: command_line(), f"{LIBRARY}/index.md": overview()}
    pages |= {f"{LIBRARY}/{room}.md": library(room) for room in rooms()}
    for place, text in pages.items():
        files.append(File.generated(config, place, content=text))
    for name, path in shown_pictures():
        files.append(File.generated(config, f"pictures/{name}.png", content=path.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links lead where their files stand on the site; the catalogue gets its pictures."""
    here = page.file.src_uri
    if here in (CATALOGUE, ELSEWHERE["README.md"]):
        markdown = one_below_the_other(markdown)
    if here == CATALOGUE:
        markdown += "".join(gallery())
    return LINK.sub(lambda link: moved(link[1], here), markdown)


def one_below_the_other(markdown: str) -> str:
    """Every measurement in the tables of datasets on a line of its own."""
    return re.sub(r"^\| `.*$", lambda row: row[0].replace("; ", ";<br>"), markdown, flags=re.MULTILINE)


def moved(target: str, page: str) -> str:
    """A relative link of a file of the repository, on its page of the site."""
    source = {place: path for path, place in ELSEWHERE.items()}.get(page, f"docs/{page}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    place = ELSEWHERE.get(path, path.removeprefix("docs/"))
    return posixpath.relpath(place, posixpath.dirname(page) or ".")


# --- pictures -----------------------------------------------------------------------------------------------


@functools.cache
def shown_pictures() -> tuple[tuple[str, Path], ...]:
    """Names of recipes and their pictures; none where ``ULE_DOCS_PICTURES`` is 0, which saves a minute."""
    if os.environ.get("ULE_DOCS_PICTURES") == "0":
        return ()
    from pictures import pictures

    return tuple((picture.recipe.name, picture.path) for picture in pictures())


def gallery() -> Iterator[str]:
    """The end of the catalogue: what each method does, on a few digits."""
    from builders import RECIPES

    for name, _ in shown_pictures():
        recipe = RECIPES[name]
        methods = " + ".join(method.title for method in recipe.methods)
        place = f"pictures/{name}.png"
        yield f"\n### {methods}: `{name}` {{ #{name} }}\n\n[![{recipe.summary}]({place})]({place})\n"


# --- command line -------------------------------------------------------------------------------------------


def command_line() -> str:
    """The options of each command, as its help has them, in its panels."""
    import typer

    parts = [
        "# Command line\n\nWhat `--help` says. `python -m ule_datasets build` and `verify` are the same commands.\n"
    ]
    for name in ("build", "verify"):
        command: Any = typer.main.get_command(importlib.import_module(f"ule_datasets.cli.{name}").app)
        parts.append(f"\n## ule-{name}\n\n{command.help}\n")
        panel = ""
        for parameter in command.params:
            if getattr(parameter, "hidden", False):
                continue
            if panel != (panel := getattr(parameter, "rich_help_panel", None) or ""):
                parts.append(f"\n### {panel or 'Others'} {{ #{name}-{panel.lower().replace(' ', '-')} }}\n")
            parts.append(entry(parameter))
    return "".join(parts)


def entry(parameter: Any) -> str:
    """One option: its names, what it takes, what it does."""
    words = list(parameter.opts) if parameter.param_type_name == "option" else []
    shown = " ".join([*words, parameter.metavar or ""]).strip()
    told = html.escape(" ".join((parameter.help or "").split()))
    return f"\n`{shown}`\n\n:   {re.sub(r'[*_`]', lambda found: f'&#{ord(found[0])};', told)}\n"


# --- library ------------------------------------------------------------------------------------------------


def rooms() -> list[str]:
    """Folders of the library, by name."""
    return sorted(path.parent.name for path in ROOT.glob("ule_datasets/*/__init__.py"))


def overview() -> str:
    """What people import, and where the rest is."""
    modules = ("dataset.loading", "building", "verifying", "definition")
    parts = ["# Library\n\nWhat people call: [from Python](../python.md). What that is made of:\n"]
    parts += [f"\n::: ule_datasets.{name}\n" for name in modules]
    parts.append("\n## Rooms\n\n")
    parts += [f"- [{room}]({room}.md): {first_line(room)}\n" for room in rooms()]
    return "".join(parts)


def first_line(room: str) -> str:
    """What a room says of itself."""
    module = importlib.import_module(f"ule_datasets.{room}")
    return (module.__doc__ or "").strip().splitlines()[0] if module.__doc__ else ""


def library(room: str) -> str:
    """All modules of a room."""
    folder = ROOT / "ule_datasets" / room
    names = [
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in sorted(folder.rglob("*.py"))
    ]
    modules = [name.removesuffix(".__init__") for name in names]
    return f"# {room}\n\n" + "\n\n".join(f"::: {module}" for module in modules) + "\n"
