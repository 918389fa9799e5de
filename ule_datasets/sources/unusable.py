"""What is wrong with images that cannot be used: by cause, most frequent first, and what helps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ule_datasets.base.shown import counted

CAUSES_SHOWN = 4
_NUMBERS = re.compile(r"\d[\d,.]*")
USUAL_CROP, USUAL_RESIZE = 224, 256
"""What photographs are cut to, where they are large enough."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """What is wrong with a sample, and where; stands in its place, and those after it can be read."""

    origin: str
    """Where it comes from."""
    what: str
    """Follows the origin in a sentence."""

    @classmethod
    def of(cls, origin: str, message: str) -> Unusable:
        """Of a message that begins with the origin, or speaks of something else."""
        return cls(origin, message.removeprefix(origin)) if message.startswith(origin) else cls("", message)

    def __str__(self) -> str:
        return f"{self.origin}{self.what}"

    @property
    def cause(self) -> str:
        """The same for all problems of a kind: without the numbers in which they differ."""
        return _NUMBERS.sub("0", self.what)


@dataclass(frozen=True, slots=True)
class Misfit:
    """An image that has another size than the first one, which may be the odd one."""

    origin: str
    width: int
    height: int

    def beside(self, first: Misfit) -> Unusable:
        """The problem with it."""
        return Unusable(
            self.origin,
            f" is {self.width}x{self.height} pixels, {first.origin} is {first.width}x{first.height}",
        )


def by_cause(problems: Iterable[Unusable]) -> list[tuple[Unusable, int]]:
    """The first problem of every cause and how many there are, most frequent first."""
    found: dict[str, list[Unusable]] = {}
    for problem in problems:
        found.setdefault(problem.cause, []).append(problem)
    return sorted(((alike[0], len(alike)) for alike in found.values()), key=lambda each: -each[1])


def summary(groups: Sequence[tuple[Unusable, int]]) -> str:
    """The causes in a sentence."""
    told = [f"{first}{f' (and {count - 1:,} more like it)' if count > 1 else ''}" for first, count in groups]
    others = sum(count for _, count in groups[CAUSES_SHOWN:])
    return "; ".join(told[:CAUSES_SHOWN]) + (f"; and {counted(others, 'other')} of other kinds" if others else "")


def refusal(problems: Sequence[Unusable], first: Misfit | None, misfits: Sequence[Misfit], *, own: bool) -> str:
    """Why images are refused, and what helps; ``own``: they may be cut. ``first`` is what misfits do not fit."""
    sizes = [(misfits[0].beside(first), len(misfits))] if first is not None and misfits else []
    groups = sorted([*sizes, *by_cause(problems)], key=lambda each: -each[1])
    message = f"{counted(len(problems) + len(misfits), 'unusable sample')}: {summary(groups)}"
    if first is None or not misfits:
        skip = "the same command with --skip-unusable leaves such images out, and decodes none of the others again"
        return f"{message}; {skip}"
    others = "; --skip-unusable leaves out the images that are not of a wrong size but broken" if problems else ""
    return f"{message}; {_one_size([first, *misfits], own=own)}{others}"


def _one_size(images: Sequence[Misfit], *, own: bool) -> str:
    """How images of several sizes come to have one."""
    if not own:
        return "resize all images to one size first"
    shortest = min(min(each.width, each.height) for each in images)
    crop, resize = (USUAL_CROP, USUAL_RESIZE) if shortest >= USUAL_RESIZE else (shortest, shortest)
    return f"--crop {crop} --resize {resize} brings all to one size, or resize them first"
