"""What the numbers of an array are: whole images or noise, in which order of axes, in which units."""

from __future__ import annotations

import math

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.data.quantization import Quantize
from ule_datasets.imports.release import Content, Release, Stated

AT_ONCE = 500
HALF = 0.5
"""Noise in units of 1 is at most so large; larger noise up to 1 is in units of its bound."""
ROUNDING = 1e-3
"""By so much numbers may miss whole grey levels, or the end of their range."""
BRIGHT = 0.15
"""Images in real numbers have at least this mean, of a range from 0 to 1; noise without a sign has less."""
UNITS = {"1": 255.0, "255": 1.0}
"""Grey levels in a unit, by what the unit is called; that of ``epsilon`` is stated."""


def interpreted(array: np.ndarray, stated: Stated, origin: str) -> Release:
    """An array as images or noise in grey levels, with its axes in the order of ours.

    Whole numbers without a sign are images, others with one are noise in grey levels. Real numbers are images if none
    is negative and they are as bright as images are; else noise, in units of 1 up to 0.5, in units of 1/255 beyond 1.

    Raises:
        InputError: its shape is none of images, its numbers have no finite ones, or its units must be stated.
    """
    ordered, axes = _ordered(array, origin)
    low, high, mean = _range(ordered, origin)
    known = Content.NOISE if stated.epsilon else stated.content
    content = known or _content(ordered.dtype, low, high, mean)
    shape = f"{array.dtype} [{', '.join(map(str, array.shape))}]"
    remarks = []
    if content is Content.IMAGES:
        unit = stated.unit or ("1" if ordered.dtype.kind == "f" and high <= 1 + ROUNDING else "255")
        values, said = _bytes(ordered, unit, stated, origin)
        remarks += said
    else:
        unit = stated.unit or _unit(ordered.dtype, max(abs(low), abs(high)))
        values = _scaled(ordered, _levels(unit, stated, origin)) if ordered.dtype.kind == "f" else ordered
    what = "images" if content is Content.IMAGES else "noise"
    return Release(
        convention=f"{what}, {shape}{axes}, in units of {'its bound' if unit == 'epsilon' else unit}",
        content=content,
        values=values,
        names=tuple(f"entry {number}" for number in range(len(values))),
        remarks=tuple(remarks),
    )


def _range(values: np.ndarray, origin: str) -> tuple[float, float, float]:
    """The smallest, the largest and the mean of those values that are numbers."""
    low, high, total, count = math.inf, -math.inf, 0.0, 0
    for start in range(0, len(values), AT_ONCE):
        part = values[start : start + AT_ONCE]
        finite = part[np.isfinite(part)] if part.dtype.kind == "f" else part
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            total, count = total + float(finite.sum(dtype=np.float64)), count + finite.size
    if not count:
        raise InputError(f"{origin}: there is no number in it")
    return low, high, total / count


def _scaled(values: np.ndarray, unit: float) -> np.ndarray:
    """Real numbers in grey levels, in at least single precision.

    Those of half precision that may stand for a whole level do: rounded down, they would become the next lower one.
    """
    precise = values.dtype.itemsize > 2
    levels: np.ndarray = values.astype(np.float64 if values.dtype.itemsize > 4 else np.float32)
    levels = levels * levels.dtype.type(unit)
    if not precise:
        nearest = np.rint(levels)
        near = np.abs(levels - nearest) <= np.finfo(np.float16).eps * np.abs(levels)
        np.copyto(levels, nearest, where=near)
    return levels


def _ordered(array: np.ndarray, origin: str) -> tuple[np.ndarray, str]:
    """As [M, H, W, 3], and in words what was done."""
    if array.dtype.kind not in "biuf":
        raise InputError(f"{origin} holds {array.dtype}, no numbers")
    if array.ndim == 2 and array.shape[1] and array.shape[1] % 3 == 0:
        side = math.isqrt(array.shape[1] // 3)
        if 3 * side * side == array.shape[1]:
            return array.reshape(-1, 3, side, side).transpose(0, 2, 3, 1), " (colour by colour)"
    whole = array[None] if array.ndim == 3 else array
    if whole.ndim == 4 and len(whole):
        first, last = whole.shape[1] == 3, whole.shape[3] == 3
        if last and not (first and whole.shape[2] != 3):
            return whole, ""
        if first:
            return whole.transpose(0, 2, 3, 1), ""
    raise InputError(f"{origin} has shape {list(array.shape)}, expected [N, 3, H, W] or [N, H, W, 3]")


def _content(dtype: np.dtype[np.generic], low: float, high: float, mean: float) -> Content:
    if dtype.kind != "f":
        return Content.IMAGES if dtype.kind in "bu" else Content.NOISE
    scale = 1.0 if high <= 1 + ROUNDING else 255.0
    bright = low >= -ROUNDING and scale * HALF < high <= scale * (1 + ROUNDING) and mean >= BRIGHT * scale
    return Content.IMAGES if bright else Content.NOISE


def _unit(dtype: np.dtype[np.generic], largest: float) -> str:
    if dtype.kind != "f" or largest > 1 + ROUNDING:
        return "255"
    return "1" if largest <= HALF else "epsilon"


def _levels(unit: str, stated: Stated, origin: str) -> float:
    """Grey levels in a unit."""
    if unit != "epsilon":
        return UNITS[unit]
    if not stated.epsilon:
        raise InputError(
            f"{origin}: its numbers go up to 1, so they seem to be in units of its bound: say how many grey levels "
            "that is, in a recipe of your own: Imported(stated=Stated(epsilon=8)), or Stated(unit='1')"
        )
    return stated.epsilon


def _bytes(values: np.ndarray, unit: str, stated: Stated, origin: str) -> tuple[np.ndarray, list[str]]:
    """Images as bytes, and what was lost on the way."""
    if values.dtype == np.uint8:
        return values, []
    levels = values.astype(np.float64) * _levels(unit, stated, origin) if values.dtype.kind == "f" else values
    broken = ~np.isfinite(levels) if levels.dtype.kind == "f" else np.zeros(levels.shape, bool)
    said = []
    if broken.any():
        entries = int(np.count_nonzero(broken.any(axis=(1, 2, 3))))
        raise InputError(f"{origin}: {entries:,} images have values that are no numbers (NaN or infinite)")
    nearest = np.rint(levels)
    if np.abs(levels - nearest).max(initial=0) > 255 * ROUNDING:
        down = stated.rule is Quantize.TRUNC
        said.append(f"real numbers between bytes, rounded {'down' if down else 'to the nearest'}")
        nearest = np.floor(levels + 255 * 1e-7) if down else nearest
    if nearest.min() < 0 or nearest.max() > 255:
        said.append("values beyond 0 to 255, clipped")
    return np.clip(nearest, 0, 255).astype(np.uint8), said
