"""Bounds on how far a perturbed image may lie from its original, checked on the final bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class LInf:
    """At most ``levels`` grey levels (units of 1/255) of change in any channel of any pixel."""

    levels: int

    def __str__(self) -> str:
        return f"l_inf {self.levels}/255"


@dataclass(frozen=True, kw_only=True, slots=True)
class L0:
    """At most ``pixels`` pixels of an image changed, by any amount."""

    pixels: int

    def __str__(self) -> str:
        return f"l_0 {self.pixels} pixel{'s' if self.pixels > 1 else ''}"


Budget = tuple[LInf | L0, ...]
"""One bound per layer of the perturbation, in the order in which the layers are applied."""
