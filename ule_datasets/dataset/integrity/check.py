"""What a check found, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

SHOWN = 3
"""How many offenders a message names."""


@dataclass(frozen=True, slots=True)
class Check:
    """One integrity check."""

    name: str
    passed: bool
    detail: str
    """What was found; when the check failed, what is wrong."""

    @classmethod
    def of(cls, name: str, problems: Iterable[str], good: str) -> Check:
        """A check that passes when there are no problems; names the first few."""
        found = list(problems)
        if not found:
            return cls(name, True, good)
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        words = "; ".join(found[:SHOWN]) + more
        return cls(name, False, words.encode("utf-8", "backslashreplace").decode())  # half characters cannot be written


def at(keys: Sequence[str], wrong: np.ndarray) -> list[str]:
    """The keys of the samples for which ``wrong`` (bool, [N]) holds."""
    return [keys[index] for index in np.flatnonzero(wrong).tolist()]


def about(keys: Iterable[str], what: str) -> list[str]:
    """A sentence on each key."""
    return [f"{key} {what}" for key in keys]


def differing(found: object, wanted: object, what: str) -> list[str]:
    """A sentence where two values are not equal."""
    return [] if found == wanted else [f"{what} {_brief(found)}, not {_brief(wanted)}"]


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
