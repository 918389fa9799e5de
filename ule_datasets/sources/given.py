"""Where somebody says that clean images are: in one place (``WHERE``), or by names of sources (``NAME=WHERE``)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ule_datasets.base.errors import InputError
from ule_datasets.base.files import expanded
from ule_datasets.base.names import unknown
from ule_datasets.base.shown import joined
from ule_datasets.places.urls import shown
from ule_datasets.sources.known import KNOWN
from ule_datasets.sources.place import refuse_missing
from ule_datasets.sources.spec import EMBEDDED, SourceSpec

_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)
"""Paths and URLs with a ``=`` have a slash before it, or are there."""


@dataclass(frozen=True, slots=True)
class Given:
    """What was said of places."""

    anywhere: str | None = None
    """A place without a name, of the only source that is needed."""
    named: Mapping[str, str] = field(default_factory=dict)
    """Places by the names of sources; then all that are needed have one, unless somebody noted it before."""

    @classmethod
    def of(cls, words: Sequence[str] | None) -> Given:
        """From what stands on the command line.

        Raises:
            InputError: a name is given twice, or a place without a name beside others; or nothing is there.
        """
        named: dict[str, str] = {}
        nameless = []
        for word in words or ():
            name, where = _divided(word)
            if name is None:
                nameless.append(where)
            elif name in named:
                raise InputError(f"--source {name}=... is given twice: {named[name]}, {where}")
            else:
                named[name] = where
        for where in (*nameless, *named.values()):
            refuse_missing(where)
        if len(nameless) > 1 or (nameless and named):
            raise InputError(
                f"--source {shown(nameless[0])} does not say of which source it is, and there are others: say "
                f"--source NAME={shown(nameless[0])}, e.g. cifar10={shown(nameless[0])}"
            )
        return cls(next(iter(nameless), None), named)

    def settled(self, needed: Sequence[SourceSpec]) -> Given:
        """With the place of each source that is needed by its name; nothing is read.

        Raises:
            InputError: a name is that of no source, or it is left open of which of several a place is.
        """
        names = tuple(dict.fromkeys(spec.name for spec in needed))
        for name in self.named:
            refuse_unknown(name, names)
        if self.anywhere is None:
            return self
        others = tuple(dict.fromkeys(spec.name for spec in needed if spec.default_location != EMBEDDED)) or names
        if len(others) > 1:
            say = " ".join(f"--source {name}=WHERE" for name in others)
            raise InputError(
                f"--source {shown(self.anywhere)} is one place, and {joined(others)} are needed: say where each is, "
                f"with {say}"
            )
        return Given(self.anywhere, dict.fromkeys(others, self.anywhere))

    def where(self, spec: SourceSpec) -> str | None:
        """The place of a source; ``None``: nobody said it."""
        return self.named.get(spec.name)

    def refuse_left_out(self, spec: SourceSpec) -> None:
        """Refuse a source that would be fetched although places of others were said by name.

        Raises:
            InputError: it is not among them; says how to have it fetched.
        """
        if self.anywhere is None and self.named:
            usual = spec.default_location
            fetched = "" if usual is None else f" (--source {spec.name}={usual} fetches it)"
            raise InputError(f"{spec.title} is needed too: say where it is with --source {spec.name}=WHERE{fetched}")


def place_for(word: str | None, spec: SourceSpec) -> str | None:
    """The place that ``WHERE`` or ``NAME=WHERE`` means, where one source is needed.

    Raises:
        InputError: the name is of another source, or of none.
    """
    name, where = (None, word) if word is None else _divided(word)
    if name is not None and name != spec.name:
        refuse_unknown(name, (spec.name,))
        raise InputError(f"--source {word}: what is needed is {spec.title}, --source {spec.name}=WHERE")
    return where


def refuse_unknown(name: str, needed: Collection[str]) -> None:
    """Refuse a name that is of no source here, neither of the catalogue nor of those that are needed.

    Raises:
        InputError: with names that are like it.
    """
    known = tuple(dict.fromkeys((*needed, *KNOWN)))
    if name not in known:
        others = f"the sources are {joined(known)}"
        raise unknown(f"--source {name}=...: there is no source {name!r}", name, known, others)


def _divided(word: str) -> tuple[str | None, str]:
    found = _NAMED.fullmatch(word)
    if found is None or expanded(word).exists():
        return None, word
    return found[1], found[2]
