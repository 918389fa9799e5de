"""Texts of the dataset cards: the template, prose per family, measured results per dataset, citations.

Prose stands in a file per family, as recipes do in ``builders``, under headings that name the datasets it is about;
where several share it, the words that differ come from the recipe.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from ule_datasets.base.errors import InputError

_ROOT = files(__name__)


def template() -> str:
    """The card's Jinja template."""
    return (_ROOT / "template.md").read_text(encoding="utf-8")


def about(name: str) -> str | None:
    """The prose for a dataset, a Jinja template about ``recipe``; ``None`` where there is none (one's own recipe)."""
    for family in (_ROOT / "prose").iterdir():
        parts = re.split(r"^# (.*)$", family.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for names, text in zip(parts[1::2], parts[2::2], strict=True):
            if name in names.split(", "):
                return text.strip()
    return None


def measured(name: str) -> list[dict[str, Any]]:
    """What ``ule-verify`` measured on a dataset, one record per run; empty if nothing yet."""
    path = _ROOT / "measured" / f"{name}.json"
    if not path.is_file():
        return []
    records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return records


def look(name: str) -> dict[str, Any]:
    """How visible a dataset's perturbation is, and what its craft took, by ``cards.looks``; empty if nobody looked."""
    path = _ROOT / "looks" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def citation(key: str) -> str:
    """A BibTeX entry of ``citations.bib``."""
    text = (_ROOT / "citations.bib").read_text(encoding="utf-8")
    entry = re.search(rf"^@\w+\{{\s*{re.escape(key)}\s*,.*?^\}}", text, flags=re.MULTILINE | re.DOTALL)
    if entry is None:
        raise InputError(f"cards/citations.bib has no entry {key!r}")
    return entry[0]


def paper(key: str) -> dict[str, str] | None:
    """Title and address of a cited work, or ``None``; from links to arXiv the Hub makes tags by itself."""
    fields = dict(re.findall(r"^\s*(\w+)\s*=\s*\{(.*)\},?$", citation(key), flags=re.MULTILINE))
    return {"title": fields["title"], "url": fields["url"]} if "url" in fields else None
