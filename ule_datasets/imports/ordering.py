"""Noise whose place says which image it is for: which order that is, and whether it can be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.data.split import Split
from ule_datasets.data.spool import Images
from ule_datasets.imports.release import Order

FIELDS = 4
"""Means over so many rows and columns of fields are what classes are told by."""
AT_ONCE = 1000
CLEARLY = 5.0
"""Another order is the right one if classes explain so many times as much of the noise in it, ..."""
AT_LEAST = 0.05
"""... and no less than this share,"""
BREACHES, NO_BREACHES = 0.02, 0.002
"""or if in the one so large a share of the noise leads beyond black and white, and in the other no more than this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plausibility:
    """What speaks for noise being for these images."""

    explained: float
    """Share of the variance of the noise, in means over fields, that the classes explain."""
    by_chance: float
    """What they would explain of noise that has nothing to do with them, on average."""
    breaches: float | None
    """Of the values at black and white, the share that the noise would push beyond: about half for another image,
    nearly none where noise was cut so that images stay in range. ``None``: there are no such values."""

    @property
    def convincing(self) -> bool:
        """Whether noise in another order would hardly look like this."""
        by_class = self.explained >= AT_LEAST and self.explained > CLEARLY * self.by_chance
        return by_class or (self.breaches is not None and self.breaches <= NO_BREACHES)

    def clearly_better(self, other: Plausibility) -> bool:
        """Whether this order is the right one if one of the two is."""
        if self.explained >= AT_LEAST and self.explained > CLEARLY * other.explained:
            return True
        if self.breaches is None or other.breaches is None:
            return False
        return self.breaches <= NO_BREACHES and other.breaches >= BREACHES

    def __str__(self) -> str:
        beyond = "" if self.breaches is None else f"; {self.breaches:.1%} of it at black and white leads beyond"
        return f"classes explain {self.explained:.1%} of the noise (by chance {self.by_chance:.1%}){beyond}"


def orders(split: Split) -> dict[Order, np.ndarray]:
    """The known orders of a split: rows of it, int64 [N]."""
    known = {} if split.place is None else {Order.SOURCE: np.argsort(split.place, kind="stable")}
    return {**known, Order.CANONICAL: np.arange(len(split))}


def rows_in_order(noise: np.ndarray, split: Split, stated: Order | None) -> tuple[Order, np.ndarray, Plausibility]:
    """The order that noise [N, H, W, 3] in grey levels is in, the rows of the split in it, and what speaks for that.

    An order that is stated is taken unless another is clearly the right one; one that is not stated needs evidence.

    Raises:
        InputError: nothing, or something else, speaks for the order.
    """
    known = orders(split)
    order = stated or next(iter(known))
    if order not in known:
        raise InputError(f"the order of the noise is stated to be {order}, which is not known of these images")
    each = {name: plausibility(noise, rows, split) for name, rows in known.items()}
    if better := [name for name in known if name != order and each[name].clearly_better(each[order])]:
        raise InputError(
            f"the noise is not in the {order} order of the images: {each[order]}; it seems to be in the {better[0]} "
            f"order: {each[better[0]]}; Imported(stated=Stated(order={better[0].value!r})) takes it so"
        )
    if stated is None and not each[order].convincing:
        raise InputError(
            f"nothing shows that the noise is in the order of the images in --source: {each[order]}; give the images "
            "in the files whose order it has (of CIFAR-10 the original batches), or, if you know that they are in this "
            "order, say so in a recipe of your own: Imported(stated=Stated(order='source'))"
        )
    return order, known[order], each[order]


def plausibility(noise: np.ndarray, rows: np.ndarray, split: Split) -> Plausibility:
    """How well noise [N, H, W, 3] in grey levels fits the images of some rows."""
    labels = split.labels[rows]
    features = np.concatenate([_fields(noise[start : start + AT_ONCE]) for start in range(0, len(noise), AT_ONCE)])
    features -= features.mean(axis=0)
    total = float((features**2).sum())
    classes, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(classes), features.shape[1]))
    np.add.at(sums, inverse, features)
    between = float((sums**2 / counts[:, None]).sum())
    return Plausibility(
        explained=between / total if total else 0.0,
        by_chance=(len(classes) - 1) / max(1, len(labels) - 1),
        breaches=_breaches(noise, rows, split.images),
    )


def _breaches(noise: np.ndarray, rows: np.ndarray, images: Images) -> float | None:
    beyond = at_ends = 0
    for start in range(0, len(noise), AT_ONCE):
        clean, added = images[rows[start : start + AT_ONCE]], noise[start : start + AT_ONCE]
        black, white = clean == 0, clean == 255
        at_ends += int(np.count_nonzero((black | white) & (added != 0)))
        beyond += int(np.count_nonzero((black & (added < 0)) | (white & (added > 0))))
    return beyond / at_ends if at_ends else None


def _fields(noise: np.ndarray) -> np.ndarray:
    """Means over fields, float64 [n, features]."""
    count, height, width, colours = noise.shape
    rows, columns = min(FIELDS, height), min(FIELDS, width)
    high, wide = height // rows, width // columns
    cut = np.nan_to_num(noise[:, : rows * high, : columns * wide].astype(np.float64), posinf=0, neginf=0)
    return np.asarray(cut.reshape(count, rows, high, columns, wide, colours).mean(axis=(2, 4)).reshape(count, -1))
