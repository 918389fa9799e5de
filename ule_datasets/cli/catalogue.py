"""What can be built: the recipes by family, as a list for people and as JSON values."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby

from builders import FAMILIES, RECIPES
from ule_datasets.base.names import unknown
from ule_datasets.cli.running import Answer, table
from ule_datasets.definition import Recipe
from ule_datasets.methods.method import Repeats
from ule_datasets.papers.claims import headline
from ule_datasets.sources.spec import EMBEDDED

WIDTH = 80
"""Characters of a line, at most."""
NOTE = (
    "images: for training. paper: clean test accuracy of a ResNet-18 trained on the dataset, as printed. download: "
    "from the Hub, once, unless --source says where they are. GPU: crafting takes hours or days on a CPU. weights: it "
    "starts from pretrained ones (download, or --weights). reduced: smaller than in the paper."
)
MORE = "ule-build --list NAME tells all about one; --list 'PATTERN' lists some."


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """How many images of a split are used, and how many there are."""

    used: int
    of: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A recipe as the catalogue shows it; the fields are those of the JSON."""

    name: str
    family: str
    title: str
    summary: str
    version: str
    digest: str
    reduced: str | None
    """What is smaller than in the paper."""
    methods: tuple[str, ...]
    source: str
    """The name of the clean images."""
    source_title: str
    where: str | None
    """Where the images are taken from without --source; ``None``: nowhere."""
    images: dict[str, Images]
    """By split; empty for one's own images."""
    reported: float | None
    """Clean test accuracy (%) of a ResNet-18 trained on the dataset, as its paper prints it."""
    weights: tuple[str, ...]
    """Pretrained weights that methods start from."""
    gpu: bool
    """Whether crafting takes hours or days on a CPU."""

    @classmethod
    def of(cls, family: str, recipe: Recipe) -> Entry:
        """What is to be told of a recipe."""
        claim, there = headline(recipe.name), dict(recipe.source.num_images or ())
        where = recipe.source.default_location
        crafted = any(method.repeats == Repeats.DEVICE for method in recipe.methods)
        return cls(
            name=recipe.name,
            family=family,
            title=recipe.title,
            summary=recipe.summary,
            version=recipe.version,
            digest=recipe.digest,
            reduced=recipe.reduced,
            methods=tuple(method.title for method in recipe.methods),
            source=recipe.source.name,
            source_title=recipe.source.title,
            where=where,
            images={split: Images(used=used, of=there[split]) for split, used in recipe.num_images.items()},
            reported=None if claim is None else claim.value,
            weights=tuple(weights.name for method in recipe.methods for weights in method.weights),
            gpu=crafted and recipe.limit_per_class is None and where != EMBEDDED,
        )

    @property
    def provision(self) -> str:
        """Where its images come from, in words."""
        return {None: "give them with --source", EMBEDDED: "nothing to download"}.get(self.where, "download")


def catalogue(pattern: str | None) -> Answer:
    """The recipes whose names match a glob, or hold the word; ``None``: all. Of a single one everything is told.

    Raises:
        InputError: none does.
    """
    entries = [
        Entry.of(family, recipe)
        for family, recipes in FAMILIES.items()
        for recipe in recipes
        if pattern is None or _matches(recipe.name, pattern)
    ]
    if not entries:
        assert pattern is not None
        raise unknown(f"no recipe matches {pattern!r}", pattern, RECIPES, "ule-build --list shows all")
    lines = _about(entries[0]) if len(entries) == 1 else [*_listed(entries), *textwrap.wrap(NOTE, WIDTH), MORE]
    return Answer(lines=lines, content={"recipes": [dataclasses.asdict(entry) for entry in entries]})


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or (pattern in name and pattern not in RECIPES)


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
        "any" if train is None else _count(train),
        "-" if entry.reported is None else f"{entry.reported:.2f} %",
        ", ".join(notes),
    )


def _count(images: Images) -> str:
    return f"{images.used:,}" if images.used == images.of else f"{images.used:,} of {images.of:,}"


def _about(entry: Entry) -> list[str]:
    """Everything about one recipe."""
    counts = ", ".join(f"{_count(images)} {split}" for split, images in entry.images.items())
    reported = "nothing" if entry.reported is None else f"{entry.reported:.2f} % clean test accuracy of a ResNet-18"
    rows = {
        "what": entry.summary,
        "version": entry.version,
        "reduced": entry.reduced or "no: as in the paper",
        "methods": " + ".join(entry.methods),
        "images": f"{entry.source_title}{f': {counts}' if counts else ''} ({entry.provision})",
        "weights": ", ".join(entry.weights) or "none",
        "device": "a GPU, or hours to days on a CPU" if entry.gpu else "any",
        "reported": reported,
        "build it": f"ule-build {entry.name}{'' if entry.where else ' --source WHERE'}",
    }
    width = max(map(len, rows)) + 2
    lines = [f"{entry.name}: {entry.title}"]
    for name, text in rows.items():
        first, *more = textwrap.wrap(text, WIDTH - width - 2, break_on_hyphens=False)
        lines += [f"  {name:<{width}}{first}", *(f"  {'':<{width}}{line}" for line in more)]
    return lines
