"""What a source looks like before anything is made of it: for people in a few lines, and for the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.regular import open_file
from ule_datasets.base.shown import counted, few
from ule_datasets.data.codec import Rules, head_of, only_our_bounds, too_small
from ule_datasets.sources.collect import Chunks
from ule_datasets.sources.decode import ChunkTask, Decoded, extremes, name_of, rules_of, usable
from ule_datasets.sources.forms import UNLABELLED, Chunk, Form, RawSample
from ule_datasets.sources.image_folder import Files
from ule_datasets.sources.splits import TEST, TRAIN
from ule_datasets.sources.tree import PassedOver, as_text
from ule_datasets.sources.unusable import Unusable, by_cause, summary

SHOWN = 3
"""Classes that are named before the last one."""
KINDS_SHOWN, KINDS_KEPT = 6, 100
"""Kinds of files passed over that are named in a line, and in the manifest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """How a source was taken, and what is in it."""

    kind: str
    """How it is stored."""
    notes: tuple[str, ...] = ()
    """How it was taken where it could have been taken otherwise."""
    passed_over: tuple[PassedOver, ...] = ()
    """Everything there that is no part of it."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What the source calls the splits that have another name there."""
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Of each split, how many images each class has, in label order; only classes that have some."""
    empty: tuple[str, ...] = ()
    """Classes without training images."""
    sizes: tuple[tuple[int, int], ...] = ()
    """Width and height of the image with the fewest and of the one with the most pixels."""
    modes: Mapping[str, int] = field(default_factory=dict)
    """How many images are stored in which Pillow mode."""
    problems: tuple[Unusable, ...] = ()
    """What is wrong with images that cannot be used."""
    shared: int = 0
    """How many test images have the pixels and the label of a training image; known once they are decoded."""
    refusal: tuple[str, ...] = ()
    """Why a build would refuse the source, as far as labels and heads of images tell; empty: nothing is known of it."""

    @classmethod
    def of(cls, form: Form) -> Look:
        """What can be said before an image is read."""
        return cls(kind=form.kind, notes=form.notes, passed_over=form.passed_over, names=form.names)

    def with_content(self, class_names: Sequence[str], by_split: Mapping[str, Chunks]) -> Look:
        """The same with what was found when the source was read."""
        chunks = {name: [decoded for _, decoded in pairs] for name, pairs in by_split.items()}
        labels = {name: Counter(label for each in chunks[name] for label in each.labels) for name in chunks}
        every = [each for listed in chunks.values() for each in listed]
        modes = sum((Counter(each.converted) for each in every), Counter[str]())
        modes["RGB"] = sum(len(each.labels) for each in every) - modes.total()
        names = {name: labels[name] for name in sorted(labels, key=lambda name: name != TRAIN)}
        return replace(
            self,
            classes={s: {class_names[n]: count for n, count in sorted(of.items())} for s, of in names.items() if of},
            empty=tuple(name for number, name in enumerate(class_names) if number not in labels.get(TRAIN, {})),
            sizes=tuple(extremes(size for each in every for size in each.sizes)),
            modes=dict(sorted((+modes).items(), key=lambda item: (-item[1], item[0]))),
            problems=tuple(problem for each in every for problem in each.problems),
            shared=_shared(chunks),
        )

    def of_form(self) -> list[str]:
        """For people: how the source was taken."""
        lines = [f"source: {self.kind}", *(f"source: {note}" for note in self.notes)]
        if self.passed_over:
            shown = [f"{each.reason}: {each.count:,} (first {each.example})" for each in self.passed_over[:KINDS_SHOWN]]
            others = len(self.passed_over) - len(shown)
            more = f"; and {counted(others, 'other kind')}" if others else ""
            lines.append(f"source: passed over {'; '.join(shown)}{more}")
        return lines

    def of_content(self) -> list[str]:
        """For people: what is in it."""
        names = {split: f" ({self.names[split]})" if split in self.names else "" for split in self.classes}
        lines = [f"source: {split}{names[split]}: {_counted(counts)}" for split, counts in self.classes.items()]
        if self.sizes:
            smallest, largest = (f"{width}x{height}" for width, height in self.sizes)
            size = smallest if smallest == largest else f"{smallest} to {largest}"
            modes = ", ".join(f"{count:,} {mode}" for mode, count in self.modes.items())
            lines.append(f"source: images of {size} pixels ({modes})")
        if self.problems:
            cannot = f"{counted(len(self.problems), 'image')} cannot be used"
            lines.append(f"source: {cannot}: {summary(by_cause(self.problems))}")
        return lines

    def warnings(self) -> Iterator[str]:
        """What is rarely meant."""
        if self.empty:
            have = "has" if len(self.empty) == 1 else "have"
            yield f"{_classes(self.empty)} {have} no training images"
        if self.shared:
            are = "is a training image" if self.shared == 1 else "are training images"
            yield f"{self.shared:,} of the test images {are} as well, so they tell little about new ones"
        train = self.classes.get(TRAIN, {})
        if not train or tuple(train) == UNLABELLED:
            return
        if len(train) == 1:
            yield f"all training images are of one class, {next(iter(train))!r}"
        elif max(train.values()) == 1:
            yield f"every class has one training image ({counted(len(train), 'class')})"
        test = self.classes.get(TEST)
        if test is not None:
            for split, one, other in ((TRAIN, train, test), (TEST, test, train)):
                if alone := [name for name in one if name not in other]:
                    yield f"{_classes(alone)} {'is' if len(alone) == 1 else 'are'} only in the {split} split"

    def lines(self) -> list[str]:
        """For people: all of it."""
        return [*self.of_form(), *self.of_content(), *(f"warning: {warning}" for warning in self.warnings())]

    def about(self) -> dict[str, Any]:
        """For the manifest."""
        splits = {name: _about(counts) for name, counts in self.classes.items()}
        told = {
            "form": self.kind,
            "called": {split: as_text(name) for split, name in self.names.items()},
            "splits": splits,
            "sizes": [list(size) for size in self.sizes],
            "modes": dict(self.modes),
            "shared": self.shared,
            "notes": list(self.notes),
            "passed_over": [
                {"reason": as_text(each.reason), "count": each.count, "example": as_text(each.example)}
                for each in self.passed_over[:KINDS_KEPT]
            ],
        }
        return {name: value for name, value in told.items() if value}


def glance(task: ChunkTask) -> Decoded:
    """What ``decode_chunk`` would find in a chunk, as far as labels and heads of images tell; no pixels, no digests.

    Images that it would refuse, although they can be read, are in ``problems`` and counted nevertheless.
    """
    rules = rules_of(task)
    with only_our_bounds(rules.max_pixels):
        return _glance(task, rules)


def _glance(task: ChunkTask, rules: Rules) -> Decoded:
    seen, converted, sizes = Decoded(), Counter[str](), set[tuple[int, int]]()

    def take(raw: RawSample, head: IO[bytes] | np.ndarray) -> tuple[str, tuple[int, int], str, str]:
        if isinstance(head, np.ndarray):
            size = head.shape[1], head.shape[0]
            return "RGB", size, too_small(size, rules, raw.origin), name_of(raw, task.spec)
        return *head_of(head, raw.origin, rules), name_of(raw, task.spec)

    for raw, label, (mode, (width, height), refusal, name) in usable(task, _heads(task.chunk), take, seen.problems):
        if refusal:
            seen.problems.append(Unusable.of(raw.origin, refusal))
            seen.refused += 1
        else:
            seen.fits(raw.origin, (height, width, 3) if rules.crop is None else (rules.crop, rules.crop, 3))
        seen.names += [name] if name and not refusal else []
        seen.labels.append(label)
        sizes.add((width, height))
        converted[mode] += mode != "RGB"
    seen.converted, seen.sizes = dict(sorted((+converted).items())), extremes(sizes)
    return seen


def _heads(chunk: Chunk) -> Iterator[tuple[RawSample | Unusable, IO[bytes] | np.ndarray]]:
    """Samples, and where to read the heads of their images; of files here nothing else is read."""
    if isinstance(chunk, Files) and isinstance(chunk.folder, Path):
        for path, label in zip(chunk.paths, chunk.labels, strict=True):
            try:
                with open_file(str(path)) as file:
                    yield RawSample(b"", label, str(path), path.stem), file
            except OSError as error:
                raise InputError(f"cannot read {path}: {error.strerror}") from error
    else:
        for raw in chunk.samples():
            image = b"" if isinstance(raw, Unusable) else raw.image
            yield raw, image if isinstance(image, np.ndarray) else BytesIO(image)


def _shared(chunks: Mapping[str, Sequence[Decoded]]) -> int:
    seen = {digest for each in chunks.get(TRAIN, ()) for digest in each.digests} if TEST in chunks else set()
    return sum(digest in seen for each in chunks.get(TEST, ()) for digest in each.digests)


def _classes(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"class {names[0]!r}"
    return f"{len(names):,} classes ({few([repr(name) for name in names], SHOWN)})"


def _counted(counts: Mapping[str, int]) -> str:
    """``12 images of 3 classes (ant 4, bee 4, cat 4)``."""
    images = counted(sum(counts.values()), "image")
    if tuple(counts) == UNLABELLED:
        return f"{images} without labels"
    named = [f"{name} {count:,}" for name, count in _few(counts).items()]
    named[-1:-1] = ["..."] if len(counts) > len(named) else []
    return f"{images} of {counted(len(counts), 'class')} ({', '.join(named)})"


def _few(counts: Mapping[str, int]) -> dict[str, int]:
    """The first classes and the last one."""
    listed = list(counts.items())
    return dict([*listed[:SHOWN], *listed[SHOWN:][-1:]])


def _about(counts: Mapping[str, int]) -> dict[str, Any]:
    return {"images": sum(counts.values()), "classes": len(counts), "of_classes": _few(counts)}
