"""What a recipe asks of its source, whatever form that comes in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a recipe asks of a source, whatever its form."""

    only: frozenset[str] | None = None
    """The only classes whose folders are listed; ``None``: all."""
    classes: frozenset[str] = frozenset()
    """The classes of the source that the recipe names; empty where any will do."""
    test_split: str | None = None
    """The split that serves as the clean test split; ``None``: the test split where it has labels."""
    class_folders: frozenset[str] = frozenset()
    """Folders that are classes although they are called like splits."""
    form: str | None = None
    """The form that is read where there are several; ``None``: that of its owners, else there must be one."""
    source: str = ""
    """The name of the source, by which the form is known that its owners give it; empty for any."""
    sums: tuple[tuple[str, str], ...] = ()
    """Name and md5 of the official files; others of these names are refused."""

    def sum_of(self, name: str) -> str:
        """The md5 that a file of a name must have; empty: any."""
        return dict(self.sums).get(name, "")


ANYTHING = Wanted()
"""Nothing in particular."""
