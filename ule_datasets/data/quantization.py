"""How a real-valued perturbation becomes grey levels, and so an image bytes again.

Every rule is ``clip(clean + level, 0, 255)`` with an integer ``level`` that depends on the perturbation alone:
with a whole number x and any real d, floor(clip(x + d)) is clip(x + floor(d)), and likewise for rounding.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np


class Quantize(StrEnum):
    """From a perturbation in units of 1/255 to whole grey levels."""

    TRUNC = "trunc"
    """The image is cut off to bytes (official OPS, EM, LSP, CP and BAIT code): the level is rounded down."""
    HALF_UP = "half_up"
    """The image is rounded to bytes, halves up (official UC and TAP code, APBench)."""
    DELTA_INT8 = "delta_int8"
    """The perturbation is rounded before it is added, halves to the even level (official REM code)."""

    @property
    def largest_shift(self) -> float:
        """By how many grey levels a value may be moved at most."""
        return 1.0 if self is Quantize.TRUNC else 0.5


class Apply(StrEnum):
    """Which part of a perturbation is used."""

    SIGNED = "signed"
    """All of it: the definition, and what the OPS, REM and APBench code use."""
    POSITIVE_PART = "positive_part"
    """Only where it brightens: the official EM code's own loaders clamp the rest to zero."""


def largest_level(epsilon: float, rule: Quantize, apply: Apply = Apply.SIGNED) -> int:
    """The largest change, in grey levels, that becomes of a perturbation of at most ``epsilon`` (units of 1/255)."""
    return int(np.abs(quantize(np.array([-epsilon, epsilon]), rule, apply)).max())


def quantize(perturbation: np.ndarray, rule: Quantize, apply: Apply = Apply.SIGNED) -> np.ndarray:
    """Grey levels (int8, or int16 where they need it) of real numbers in units of 1/255, in the same shape."""
    values = np.asarray(perturbation, dtype=np.float64)
    if apply is Apply.POSITIVE_PART:
        values = np.maximum(values, 0.0)
    if rule is Quantize.TRUNC:
        levels = np.floor(values)
    elif rule is Quantize.HALF_UP:
        below = np.floor(values)
        levels = below + (values - below >= 0.5)  # values + 0.5 would itself be rounded
    else:
        levels = np.rint(values)
    fits = levels.size == 0 or (levels.min() >= -128 and levels.max() <= 127)
    return levels.astype(np.int8 if fits else np.int16)
