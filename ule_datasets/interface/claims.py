"""What papers print, as records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builders import RECIPES
from ule_datasets.base.files import expanded
from ule_datasets.papers.claims import Claim, Statement, listed
from ule_datasets.verification.lacking import lacking


def listed_claims(
    patterns: Sequence[str], file: Path | None = None
) -> tuple[dict[Claim, tuple[str, ...]], tuple[Statement, ...]]:
    """Claims with all that they wait for, and statements, whose ids match; no patterns: all.

    What is built in ``./datasets`` is not waited for.

    Args:
        patterns: globs of ids.
        file: claims of one's own, besides the papers'.

    Raises:
        InputError: a pattern matches nothing, or the file is not one of claims.
    """
    found, statements = listed(patterns, file)
    made = {name for recipe in RECIPES.values() for name in (recipe.name, recipe.source.name)}
    made |= {path.parent.name for path in Path("datasets").glob("*/manifest.json")}
    return {claim: lacking(claim, made) for claim in found}, statements


def claims(*patterns: str, file: str | Path | None = None) -> list[dict[str, Any]]:
    """Every number that the papers print, one flat record each, for ``pandas.DataFrame`` or ``Dataset.from_list``.

    Keys are the fields of ``ule_datasets.papers.claims.Claim``: ``value`` is the number as printed, and ``protocol``
    how the paper trained where that is not the profile ``paper``, in words. ``waits_for`` lists what a claim speaks of
    and this project lacks; empty: ``verify(claims=[id])`` runs it.

    Args:
        patterns: globs of ids, e.g. ``"ops-t5-*"``; none: all.
        file: a TOML file of claims of one's own, besides the papers'.

    Raises:
        InputError: a pattern matches nothing, or the file is not one of claims.
    """
    found, _ = listed_claims(patterns, None if file is None else expanded(file))
    return [{**_flat(claim), "waits_for": list(missing)} for claim, missing in found.items()]


def _flat(claim: Claim) -> dict[str, Any]:
    values = {field.name: getattr(claim, field.name) for field in dataclasses.fields(claim)}
    fitting = {f"fitting_{name}": value for name, value in dataclasses.asdict(values.pop("fitting")).items()}
    words = None if claim.protocol is None else claim.protocol.words
    return {**values, "regime": str(claim.regime), "protocol": words, "readings": list(claim.readings), **fitting}
