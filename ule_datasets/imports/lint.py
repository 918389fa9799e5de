"""What is wrong with a release, or remarkable about it: one check for each mistake that is made again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ule_datasets.base.shown import counted, few
from ule_datasets.data.split import Split
from ule_datasets.imports.matching import NOBODY, Matches, match
from ule_datasets.imports.ordering import orders, plausibility
from ule_datasets.imports.release import Content, Order, Release

AT_ONCE = 500
NAMED = 4
"""So many entries are named."""
OUTLIER = 1.25
"""An entry breaks the bound of the others if its largest change is by this factor larger than that of the others."""
EXCEPTIONS = 0.01
"""So large a share of the entries, and one more, may be those that break it."""
SPARSE = 0.05
"""Noise that changes fewer of the values says nothing by its signs."""
FEW_NEGATIVE = 1e-3
WRAPPED = 0.9
"""Of bytes that are noise with wrapped signs, so many are within ``LOW`` of 0 or 256."""
LOW = 32
ALIKE = 0.95
"""Noise is class-wise if so many of a class's images have the same, where they are not clipped."""
SHIFTED = -0.2
"""Grey levels that noise rounded down has on average, at most; noise of steps has none."""


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """It is not what its authors meant to release, or not for these images."""
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that a check found."""

    check: str
    severity: Severity
    text: str
    entries: tuple[int, ...] = ()
    """Some of the entries that it is about, for pictures."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Evidence:
    """A release, and what is known of it beside the clean images."""

    release: Release
    called: str
    """Its name, which may say what it is."""
    changes: np.ndarray | None
    """What each entry adds, in grey levels: whole or real numbers [M, H, W, 3]; ``None``: images without originals."""
    rows: np.ndarray | None = None
    """int64 [M]: the clean image of each entry, -1: none; ``None``: entries are not for single images, or unknown."""
    clean: Split | None = None
    test: Split | None = None
    matches: Matches | None = None
    test_rows: np.ndarray | None = None
    """int64 [M]: of which clean test image an entry is one; -1: of none."""
    order: Order | None = None
    """The order that was taken of noise for single images."""

    @property
    def labels(self) -> np.ndarray | None:
        """int64 [M]: the class of each entry, -1: not known; ``None``: of none."""
        if self.rows is None or self.clean is None:
            return self.release.labels
        return np.where(self.rows == NOBODY, -1, self.clean.labels[self.rows])

    def named(self, entries: Sequence[int] | np.ndarray) -> str:
        """How many entries, and the first of them by name."""
        what = ("image", "") if self.release.content is Content.IMAGES else ("entry", "entries")
        names = [self.release.names[int(entry)] for entry in list(entries)[:NAMED]]
        return f"{counted(len(entries), *what)} ({few(names, NAMED)})"

    def unclipped(self, part: slice) -> np.ndarray:
        """Of some entries the values that no clipping touched: bool [n, H, W, 3]."""
        if self.release.content is Content.NOISE:
            return np.ones((len(self.release.values[part]), *self.release.values.shape[1:]), bool)
        images = np.asarray(self.release.values[part])
        return np.asarray((images > 0) & (images < 255))


def lint(evidence: Evidence) -> tuple[Finding, ...]:
    """Everything that the checks find, the worst first."""
    found = [finding for check in CHECKS for finding in check(evidence)]
    return tuple(sorted(found, key=lambda finding: list(Severity).index(finding.severity)))


def numbers(evidence: Evidence) -> Iterator[Finding]:
    """Values that are no numbers."""
    values = evidence.release.values
    if values.dtype.kind == "f":
        broken = [not np.isfinite(values[entry]).all() for entry in range(len(values))]
        if any(broken):
            entries = np.flatnonzero(broken)
            yield _finding("numbers", Severity.ERROR, f"NaN or infinities in {evidence.named(entries)}", entries)


def bound(evidence: Evidence) -> Iterator[Finding]:
    """Which bound is kept, and who breaks that of the others."""
    if evidence.changes is None or not len(evidence.changes):
        return
    largest = _largest(evidence.changes)
    most, exceptions = float(largest.max()), 1 + int(len(largest) * EXCEPTIONS)
    usual = float(np.sort(largest)[max(0, len(largest) - 1 - exceptions)])
    norms = np.sqrt([float((_finite(each).astype(np.float64) ** 2).sum()) for each in evidence.changes])
    exactly = " exactly, reached by every one" if largest.min() == most else ""
    lengths = f"of images in [0, 1] l_2 {norms.mean() / 255:.3f}, at most {norms.max() / 255:.3f}"
    text = f"l_inf {most:g}/255{exactly}; {lengths}"
    yield _finding("bound", Severity.NOTE, text)
    beyond = np.flatnonzero(largest > OUTLIER * usual)
    if len(beyond):
        text = f"{evidence.named(beyond)} changed by up to {most:g}/255, nearly all others by {usual:g}/255 at most"
        yield _finding("bound", Severity.WARNING, text, beyond)


def sign(evidence: Evidence) -> Iterator[Finding]:
    """Noise that lost its negative values: clamped, or wrapped to the other end of a byte."""
    values = evidence.release.values
    if evidence.release.content is Content.IMAGES:
        sample = np.asarray(values[: 4 * AT_ONCE])
        ends = float(np.mean((sample < LOW) | (sample >= 256 - LOW))) if sample.size else 0
        if ends >= WRAPPED and float(np.mean(sample >= 256 - LOW)) > SPARSE and float(np.mean(sample < LOW)) > SPARSE:
            text = "nearly all bytes are close to 0 or 255: this seems to be noise whose negative values have wrapped"
            yield _finding("sign", Severity.ERROR, text)
    changes = evidence.changes
    if changes is None or not changes.size:
        return
    negative = float(np.mean(changes < 0))
    positive = float(np.mean(changes > 0))
    if negative + positive >= SPARSE and min(negative, positive) <= FEW_NEGATIVE * max(negative, positive):
        side, other = ("positive", "negative") if positive > negative else ("negative", "positive")
        text = f"only {side} changes: the {other} ones were lost (clamped to 0, or stored without a sign)"
        yield _finding("sign", Severity.ERROR, text)


def constant(evidence: Evidence) -> Iterator[Finding]:
    """Images of one colour, and noise that changes nothing; whole classes of these."""
    values = evidence.release.values
    images = evidence.release.content is Content.IMAGES
    flat = [_is_flat(np.asarray(values[entry]), images=images) for entry in range(len(values))]
    entries = np.flatnonzero(flat)
    if not len(entries):
        return
    what = "of a single colour" if images else "without any change"
    yield _finding("constant", Severity.ERROR, f"{evidence.named(entries)} {what}", entries)
    if (labels := evidence.release.labels if images else evidence.labels) is not None:
        known = np.unique(labels[labels >= 0])
        whole = [str(number) for number in known if np.all(np.array(flat)[labels == number])]
        if whole:
            text = f"{counted(len(whole), 'whole class', 'whole classes')} {what}: {few(whole, NAMED)}"
            yield _finding("constant", Severity.ERROR, text, entries)


def repeated(evidence: Evidence) -> Iterator[Finding]:
    """Copies, and noise for classes where there should be noise for images, or the other way round."""
    values, labels = evidence.release.values, evidence.labels
    digests = [hashlib.sha256(np.ascontiguousarray(values[entry]).tobytes()).digest() for entry in range(len(values))]
    first: dict[bytes, int] = {}
    copies = [entry for entry, digest in enumerate(digests) if first.setdefault(digest, entry) != entry]
    by_class = None if labels is None else _alike(evidence, labels)
    if by_class is not None and by_class >= ALIKE:
        text = f"class-wise: images of a class have the same noise ({by_class:.0%}), in a file for single images"
        yield _finding("support", Severity.WARNING, text)
    elif copies:
        text = f"{evidence.named(copies)} exact copies of others, {len(first):,} distinct"
        severity = Severity.ERROR if evidence.release.content is Content.IMAGES else Severity.WARNING
        yield _finding("copies", severity, text, copies)
    called = evidence.called.lower().replace("_", "").replace("-", "")
    if by_class is not None and by_class < ALIKE and "classwise" in called:
        text = f"it is called class-wise, and images of a class have different noise (alike: {by_class:.0%})"
        yield _finding("support", Severity.WARNING, text)


def labels(evidence: Evidence) -> Iterator[Finding]:
    """Labels that are not those of the clean images."""
    theirs, ours = evidence.release.labels, evidence.labels
    if theirs is None or ours is None or evidence.rows is None or evidence.clean is None:
        return
    known = ours >= 0
    usual = {int(n): int(np.bincount(ours[known & (theirs == n)]).argmax()) for n in np.unique(theirs[known])}
    wrong = np.flatnonzero(known & (np.array([usual.get(int(label), -1) for label in theirs]) != ours))
    if len(wrong):
        text = f"{evidence.named(wrong)} with labels of other classes than their clean originals have"
        yield _finding("labels", Severity.ERROR, text, wrong)
    if len(set(usual.values())) < len(usual):
        yield _finding("labels", Severity.ERROR, "several of its classes are one class of the clean images")
    elif moved := [f"{here} is {there}" for here, there in usual.items() if here != there]:
        yield _finding("labels", Severity.WARNING, f"its classes have other numbers: {few(moved, NAMED)}")


def order(evidence: Evidence) -> Iterator[Finding]:
    """Whether noise is for the images that it is taken to be for."""
    split, changes = evidence.clean, evidence.changes
    if evidence.order is None or split is None or changes is None:
        return
    each = {name: plausibility(changes, rows, split) for name, rows in orders(split).items()}
    taken = each.pop(evidence.order)
    for name, other in each.items():
        if other.clearly_better(taken):
            text = f"not in the {evidence.order} order ({taken}), but seemingly in the {name} order ({other})"
            yield _finding("order", Severity.ERROR, text)
            return
    if taken.convincing:
        yield _finding("order", Severity.NOTE, f"in the {evidence.order} order: {taken}")
    else:
        yield _finding("order", Severity.ERROR, f"nothing shows that it is in the {evidence.order} order: {taken}")


def originals(evidence: Evidence) -> Iterator[Finding]:
    """Images that come from none of the clean ones, or from test images; and clean ones that are not there."""
    matches = evidence.matches
    if matches is None or evidence.clean is None:
        return
    lost = matches.unmatched
    if evidence.test_rows is not None:
        of_test = np.flatnonzero((matches.rows == NOBODY) & (evidence.test_rows != NOBODY))
        lost = np.setdiff1d(lost, of_test)
        if len(of_test):
            text = f"{evidence.named(of_test)} from the clean test images, which must stay as they are"
            yield _finding("test images", Severity.ERROR, text, of_test)
    if len(lost):
        yield _finding("originals", Severity.ERROR, f"{evidence.named(lost)} from none of the clean images", lost)
    found = matches.rows[matches.rows != NOBODY]
    text = f"{len(found):,} of {counted(len(matches.rows), 'image')} matched by their pixels"
    yield _finding("originals", Severity.NOTE, text)
    if absent := len(evidence.clean) - len(found):
        text = f"{absent:,} of {counted(len(evidence.clean), 'clean image')} not there"
        yield _finding("originals", Severity.WARNING, text)


def untouched(evidence: Evidence) -> Iterator[Finding]:
    """Test images that were released too, and that somebody has changed."""
    theirs, ours = evidence.release.test, evidence.test
    if theirs is None or ours is None or theirs.shape[1:] != ours.images.shape[1:]:
        return
    matches = match(theirs, ours.images)
    changed = int(np.count_nonzero((matches.rows == NOBODY) | (matches.distances > 0)))
    if changed:
        text = f"{changed:,} of {counted(len(theirs), 'released test image')} are not as the clean ones"
        yield _finding("test images", Severity.ERROR, text)
    else:
        yield _finding(
            "test images", Severity.NOTE, f"{counted(len(theirs), 'released test image')}, all as the clean ones"
        )


def rounding(evidence: Evidence) -> Iterator[Finding]:
    """How real noise became bytes."""
    changes = evidence.changes
    if changes is None or not changes.size:
        return
    if changes.dtype.kind == "f":
        yield _finding("rounding", Severity.NOTE, "not rounded, because of values that are no changes of bytes")
        return
    total, count, low, high = 0.0, 0, 0.0, 0.0
    for start in range(0, len(changes), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        kept = changes[part][evidence.unclipped(part)]
        total, count = total + float(kept.sum(dtype=np.float64)), count + kept.size
        low, high = min(low, float(kept.min(initial=0))), max(high, float(kept.max(initial=0)))
    mean = total / max(1, count)
    if high < -low and mean <= SHIFTED:
        text = f"seems to be rounded down: from {low:g} to {high:g}, {mean:.2f} on average"
        yield _finding("rounding", Severity.WARNING, text)
    else:
        yield _finding("rounding", Severity.NOTE, f"whole grey levels from {low:g} to {high:g}, {mean:+.2f} on average")


CHECKS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    numbers,
    bound,
    sign,
    constant,
    repeated,
    labels,
    order,
    originals,
    untouched,
    rounding,
)
"""In the order in which they are reported."""


def _finding(check: str, severity: Severity, text: str, entries: Sequence[int] | np.ndarray = ()) -> Finding:
    some = tuple(int(entry) for entry in list(entries)[:NAMED])
    return Finding(check=check, severity=severity, text=text, entries=some)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0) if values.dtype.kind == "f" else values


def _largest(changes: np.ndarray) -> np.ndarray:
    """The largest change of each entry."""
    parts = (changes[start : start + AT_ONCE] for start in range(0, len(changes), AT_ONCE))
    return np.concatenate([np.abs(_finite(part)).max(axis=(1, 2, 3), initial=0) for part in parts])


def _is_flat(values: np.ndarray, *, images: bool) -> bool:
    return bool((values == values[:1, :1]).all()) if images else not values.any()


def _alike(evidence: Evidence, labels: np.ndarray) -> float | None:
    """The share of images that have the noise of another of their class, where neither is clipped."""
    if evidence.changes is None:
        return None
    alike = total = 0
    for number in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(labels == number)
        for one, other in zip(members[:-1][:AT_ONCE], members[1:][:AT_ONCE], strict=True):
            both = evidence.unclipped(slice(one, one + 1))[0] & evidence.unclipped(slice(other, other + 1))[0]
            changes = evidence.changes
            alike += bool((changes[one][both] == changes[other][both]).all() and changes[one].any())
            total += 1
    return alike / total if total else None
