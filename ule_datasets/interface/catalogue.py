"""What can be built: a record of each recipe of the catalogue."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from fnmatch import fnmatchcase

import cards
from builders import FAMILIES, RECIPES
from ule_datasets.base.names import unknown
from ule_datasets.base.progress import duration
from ule_datasets.definition import Recipe
from ule_datasets.papers.claims import headline
from ule_datasets.sources.spec import EMBEDDED

WIDTH = 80
"""Characters of a line, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """How many images of a split are used, and how many there are."""

    used: int
    of: int

    def __str__(self) -> str:
        return f"{self.used:,}" if self.used == self.of else f"{self.used:,} of {self.of:,}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A recipe as the catalogue shows it; the fields are those of ``ule-build --list --json``.

    As text it is what ``ule-build --list NAME`` prints.
    """

    name: str
    family: str
    title: str
    summary: str
    version: str
    digest: str
    reduced: str | None
    """What is smaller than in the paper; ``None``: nothing."""
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

    def __str__(self) -> str:
        counts = ", ".join(f"{images} {split}" for split, images in self.images.items())
        reported = "nothing" if self.reported is None else f"{self.reported:.2f} % clean test accuracy of a ResNet-18"
        rows = {
            "what": self.summary,
            "version": self.version,
            "reduced": self.reduced or "no: as in the paper",
            "methods": " + ".join(self.methods),
            "images": f"{self.source_title}{f': {counts}' if counts else ''} ({self.provision})",
            "weights": ", ".join(self.weights) or "none",
            "device": "a GPU, or hours to days on a CPU" if self.gpu else "any",
            "reported": reported,
            "build it": f"ule-build {self.name}{'' if self.where else ' --source WHERE'}",
        }
        width = max(map(len, rows)) + 2
        lines = [f"{self.name}: {self.title}"]
        for name, text in rows.items():
            first, *more = textwrap.wrap(text, WIDTH - width - 2, break_on_hyphens=False)
            lines += [f"  {name:<{width}}{first}", *(f"  {'':<{width}}{line}" for line in more)]
        return "\n".join(lines)

    @classmethod
    def of(cls, family: str, recipe: Recipe) -> Entry:
        """What is to be told of a recipe."""
        claim, there = headline(recipe.name), dict(recipe.source.num_images or ())
        where = recipe.source.default_location
        heavy = any(method.heavy for method in recipe.methods)
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
            gpu=heavy and recipe.limit_per_class is None and where != EMBEDDED,
        )

    @property
    def provision(self) -> str:
        """Where its images come from, in words."""
        return {None: "give them with --source", EMBEDDED: "nothing to download"}.get(self.where, "download")


def recipes(pattern: str | None = None) -> list[Entry]:
    """What can be built: what it is, of which images, how many, what it needs, and what its paper reports.

    ``pandas.DataFrame(recipes())`` is a table of them.

    Args:
        pattern: a glob of names, or a part of them, e.g. ``"ops-cifar10*"`` or ``"pets"``; ``None``: all.

    Raises:
        InputError: no recipe matches; those that are like it are named.
    """
    found = [
        Entry.of(family, recipe)
        for family, members in FAMILIES.items()
        for recipe in members
        if pattern is None or _matches(recipe.name, pattern)
    ]
    if not found:
        assert pattern is not None
        raise unknown(f"no recipe matches {pattern!r}", pattern, RECIPES, "ule-build --list shows all")
    return found


def for_a_cpu(name: str) -> str:
    """What to build in a recipe's place where there is no GPU, and how long that took; empty: nothing."""
    lighter = f"{name}-cpu"
    if lighter not in RECIPES:
        return ""
    known = cards.look(lighter)
    took = f", whose craft took {duration(known['craft_seconds'])} on {known['craft_device']}" if known else ""
    return f"without a GPU {name} takes hours to days; {lighter} is reduced to what a CPU can craft{took}"


def recipe(name: str) -> Entry:
    """All about one recipe of the catalogue; ``print`` shows it in lines.

    Raises:
        InputError: there is none of that name; those that are like it are named.
    """
    if name not in RECIPES:
        raise unknown(f"no recipe {name!r}", name, RECIPES, "ule_datasets.recipes() has all")
    return next(entry for entry in recipes(name) if entry.name == name)


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or (pattern in name and pattern not in RECIPES)
