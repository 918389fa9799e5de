"""A release held against the clean images: what each entry adds to which of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.data.quantization import quantize
from ule_datasets.data.split import Split
from ule_datasets.imports.lint import Evidence
from ule_datasets.imports.matching import AT_ONCE, NOBODY, match
from ule_datasets.imports.ordering import orders
from ule_datasets.imports.release import Content, Release, Stated

WHOLE = 1e-3
"""By so much real numbers may miss whole grey levels that they stand for."""


def gather(release: Release, called: str, stated: Stated, clean: Split | None, test: Split | None = None) -> Evidence:
    """What a release called so does to the clean training images, ``None``: they are not given.

    Images are matched by their pixels, with ``test`` also to the clean test images. Noise for single images is taken to
    be in the stated order, else in the first one that is known.

    Raises:
        InputError: the clean images have another size.
    """
    values = release.values
    if clean is None:
        noise = release.content is Content.NOISE
        return Evidence(release=release, called=called, changes=whole_levels(release, stated) if noise else None)
    if values.shape[1:] != clean.images.shape[1:]:
        ours, theirs = (" x ".join(map(str, shape[1:])) for shape in (clean.images.shape, values.shape))
        raise InputError(f"{called} has {release.content} of {theirs} values, the clean images have {ours}")
    if release.content is Content.NOISE:
        changes = whole_levels(release, stated)
        if release.members is not None or len(values) != len(clean):
            return Evidence(release=release, called=called, changes=changes, clean=clean, test=test)
        known = orders(clean)
        order = stated.order if stated.order in known else next(iter(known))
        rows = known[order]
        spread = Evidence(release=release, called=called, changes=changes, clean=clean, test=test)
        return replace(spread, rows=rows, order=order)
    matches = match(values, clean.images)
    changes = np.zeros(values.shape, np.int16)
    found = np.flatnonzero(matches.rows != NOBODY)
    for start in range(0, len(found), AT_ONCE):
        part = found[start : start + AT_ONCE]
        changes[part] = np.subtract(values[part], clean.images[matches.rows[part]], dtype=np.int16)
    test_rows = None if test is None else _of_test(release, matches.unmatched, test)
    return Evidence(
        release=release,
        called=called,
        changes=changes,
        clean=clean,
        test=test,
        rows=matches.rows,
        matches=matches,
        test_rows=test_rows,
    )


def whole_levels(release: Release, stated: Stated) -> np.ndarray:
    """Noise as bytes take it: whole grey levels, int16 [M, H, W, 3], where all of it is numbers; else as it is."""
    noise = np.asarray(release.values)
    if noise.dtype.kind != "f":
        return noise.astype(np.int16) if np.abs(noise.astype(np.int64)).max(initial=0) < 2**15 else noise
    levels = np.empty(noise.shape, np.int16)
    for start in range(0, len(noise), AT_ONCE):
        part = noise[start : start + AT_ONCE]
        if not np.isfinite(part).all() or np.abs(part).max(initial=0) >= 2**15:
            return noise
        nearest = np.rint(part)
        whole = np.abs(part - nearest) <= WHOLE
        levels[start : start + AT_ONCE] = quantize(np.where(whole, nearest, part), stated.rule)
    return levels


def _of_test(release: Release, unmatched: np.ndarray, test: Split) -> np.ndarray:
    """Of which test image each of some entries surely is one, int64 [M]; -1: of none."""
    rows = np.full(len(release), NOBODY, np.int64)
    if len(unmatched) and test.images.shape[1:] == release.values.shape[1:]:
        found = match(release.values[unmatched], test.images)
        rows[unmatched[found.sure]] = found.rows[found.sure]
    return rows
