"""``ule-build --list``: the recipes by family, as a list for people and as JSON values."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from itertools import groupby

from ule_datasets.cli.running import Answer, table
from ule_datasets.interface.catalogue import WIDTH, Entry, recipes

NOTE = (
    "images: for training. paper: clean test accuracy of a ResNet-18 trained on the dataset, as printed. download: "
    "from the Hub, once, unless --source says where they are. GPU: crafting takes hours or days on a CPU. weights: it "
    "starts from pretrained ones (download, or --weights). reduced: smaller than in the paper."
)
MORE = "ule-build --list NAME tells all about one; --list 'PATTERN' lists some."


def catalogue(pattern: str | None) -> Answer:
    """The recipes whose names match a glob, or hold the word; ``None``: all. Of a single one everything is told.

    Raises:
        InputError: none does.
    """
    entries = recipes(pattern)
    one = len(entries) == 1
    lines = str(entries[0]).splitlines() if one else [*_listed(entries), *textwrap.wrap(NOTE, WIDTH), MORE]
    return Answer(lines=lines, content={"recipes": [dataclasses.asdict(entry) for entry in entries]})


def _listed(entries: Sequence[Entry]) -> list[str]:
    """A table for each family and source, with common columns."""
    rows = table([("  name", "images", "paper", "needs"), *map(_row, entries)])
    lines, below = [rows[0]], iter(rows[1:])
    for (family, source, provision), group in groupby(entries, lambda e: (e.family, e.source_title, e.provision)):
        on = "" if family == "Your own images" else f", on {source}"
        lines += ["", *textwrap.wrap(f"{family}{on}: {provision}", WIDTH)]
        lines += [next(below) for _ in group]
    return [*lines, ""]


def _row(entry: Entry) -> tuple[str, ...]:
    train = entry.images.get("train")
    notes = [
        word for word, holds in (("reduced", entry.reduced), ("weights", entry.weights), ("GPU", entry.gpu)) if holds
    ]
    return (
        f"  {entry.name}",
        "any" if train is None else str(train),
        "-" if entry.reported is None else f"{entry.reported:.2f} %",
        ", ".join(notes),
    )
