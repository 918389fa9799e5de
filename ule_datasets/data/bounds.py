"""Bounds on how far a perturbed image may lie from its original, checked on the final bytes.

All of them count in grey levels, units of 1/255: an image in [0, 1] has moved by that many 255ths.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ule_datasets.base import records
from ule_datasets.base.errors import InputError


class Bound(Protocol):
    """A limit to what one layer does to an image; as text it names its norm, its size and its unit."""

    __slots__ = ()

    def exceeded(self, difference: np.ndarray) -> np.ndarray:
        """Which images (bool, [N]) moved too far; ``difference`` is the absolute change (uint8, [N, H, W, C])."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LInf(Bound):
    """At most ``levels`` grey levels (units of 1/255) of change in any channel of any pixel."""

    levels: int | float
    """A whole number; recipes may have written it as ``8.0``."""

    def __post_init__(self) -> None:
        _check_at_least_0("LInf", "levels", self.levels)

    def __str__(self) -> str:
        return f"l_inf {self.levels}/255"

    def exceeded(self, difference: np.ndarray) -> np.ndarray:
        """Whether any value changed by more."""
        return np.asarray(_flat(difference).max(axis=1, initial=0) > self.levels)


@dataclass(frozen=True, kw_only=True, slots=True)
class L0(Bound):
    """At most ``pixels`` pixels of an image changed, by any amount."""

    pixels: int

    def __post_init__(self) -> None:
        _check_at_least_0("L0", "pixels", self.pixels)

    def __str__(self) -> str:
        return f"l_0 {self.pixels} pixel{'s' if self.pixels > 1 else ''}"

    def exceeded(self, difference: np.ndarray) -> np.ndarray:
        """Whether more pixels changed in any channel."""
        # Channel by channel: a reduction over an axis of three would take several times as long.
        changed = functools.reduce(np.bitwise_or, np.moveaxis(difference, -1, 0))
        return np.asarray(np.count_nonzero(_flat(changed), axis=1) > self.pixels)


@dataclass(frozen=True, kw_only=True, slots=True)
class L2(Bound):
    """At most ``levels`` grey levels (units of 1/255) of Euclidean norm, over all values of an image together.

    Papers give the norm of images in [0, 1]: theirs times 255. Where they bound noise before it is rounded to bytes,
    the norm of the bytes may be larger; ``rounding`` says by how much each value may have been moved by that
    (0.5: to the nearest, 1: down or up). What then counts is the smallest noise that may have become these bytes.
    """

    levels: float
    rounding: float = 0.0
    per_value: bool = False
    """Whether ``levels`` is a root mean square, for images of any size: the norm divided by the square root of the
    number of an image's values."""

    def __post_init__(self) -> None:
        _check_at_least_0("L2", "levels", self.levels)
        if not 0 <= self.rounding <= 1:
            raise InputError(f"L2: rounding is {self.rounding}, not in 0 .. 1")
        for name in ("levels", "rounding"):  # 8 and 8.0 are the same bound, and have the same JSON
            object.__setattr__(self, name, float(getattr(self, name)))

    def __str__(self) -> str:
        kind = "root mean square" if self.per_value else "l_2"
        return f"{kind} {self.levels:g}/255{' before rounding' if self.rounding else ''}"

    def exceeded(self, difference: np.ndarray) -> np.ndarray:
        """Whether the norm is larger; squares of bytes, and of halves, add up without rounding."""
        least = np.maximum(np.arange(256) - self.rounding, 0) ** 2
        squares = [np.bincount(values, minlength=256) @ least for values in _flat(difference)]
        number = math.prod(difference.shape[1:]) if self.per_value else 1
        return np.asarray(np.sqrt(np.array(squares) / number) > self.levels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unbounded(Bound):
    """Any change."""

    def __str__(self) -> str:
        return "unbounded"

    def exceeded(self, difference: np.ndarray) -> np.ndarray:
        """Never."""
        return np.zeros(len(difference), dtype=bool)


BOUNDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (LInf, L0, L2, Unbounded)}
"""By the name that recipe.json gives them."""

Budget = tuple[Bound, ...]
"""One bound per layer of the perturbation, in the order in which the layers are applied."""


def parse_bound(content: dict[str, Any], origin: str) -> Bound:
    """The bound that recipe.json describes by its type and fields; ``origin`` is named in errors."""
    kind = content.get("type")
    if kind not in list(BOUNDS):
        raise InputError(f"{origin}: type {kind!r} is none of {', '.join(BOUNDS)}")
    bound: Bound = records.convert(BOUNDS[kind], content, origin)
    return bound


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _check_at_least_0(bound: str, name: str, value: float) -> None:
    if not value >= 0:
        raise InputError(f"{bound}: {name} is {value}, must be at least 0")
