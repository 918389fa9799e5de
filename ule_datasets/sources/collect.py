"""From decoded chunks to splits in canonical order, and what was remarkable about the images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ule_datasets.base.errors import InputError, UnusableImagesError
from ule_datasets.base.files import expanded
from ule_datasets.base.shown import counted
from ule_datasets.data.split import Split, canonical_order, first_rows, keys_from_digests, order_free_digest
from ule_datasets.data.spool import Images, SpooledImages
from ule_datasets.places.hub import PREFIX as HUB
from ule_datasets.places.urls import is_remote, shown
from ule_datasets.sources.decode import ChunkTask, Decoded, files_of
from ule_datasets.sources.forms import SINGLE_FILES
from ule_datasets.sources.tree import as_text
from ule_datasets.sources.unusable import Misfit, refusal

Chunks = Sequence[tuple[ChunkTask, Decoded]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What is remarkable about the images of a source."""

    duplicates: tuple[tuple[str, int], ...] = ()
    """(split, how many images have the pixels and the label of another one); they stay in."""
    converted: tuple[tuple[str, int], ...] = ()
    """(Pillow mode, how many images became RGB from it)."""
    changed: tuple[tuple[str, int], ...] = ()
    """(what else was done to images before they were plain RGB, how many)."""
    left_out: tuple[tuple[str, str], ...] = ()
    """(split, what is wrong) of every image that could not be used; empty unless the user agreed to leave them out."""

    def lines(self) -> list[str]:
        """For the user; nothing where there is nothing to say."""
        lines = [_copies(split, count) for split, count in self.duplicates]
        if self.converted:
            modes = ", ".join(f"{count:,} of mode {mode}" for mode, count in self.converted)
            lines.append(f"converted to RGB: {modes}")
        lines += [f"{what}: {counted(count, 'image')}" for what, count in self.changed]
        if self.left_out:
            lines.append(f"left out {counted(len(self.left_out), 'unusable image')}, first: {self.left_out[0][1]}")
        return lines

    def about(self) -> dict[str, Any]:
        """For the manifest: counts of what there is."""
        numbers = {
            "duplicates": dict(self.duplicates),
            "converted_to_rgb": dict(self.converted),
            "changed": dict(self.changed),
            "left_out": dict(Counter(split for split, _ in self.left_out)),
        }
        return {name: value for name, value in numbers.items() if value}


def _copies(split: str, count: int) -> str:
    if count == 1:
        return f"1 {split} image is an exact copy of another; it stays"
    return f"{count:,} {split} images are exact copies of others; they stay"


class Content(NamedTuple):
    """What a split holds, without its pixels."""

    num_images: int
    digest: str
    """Order-free digest of pixels and labels."""


def collect(
    by_split: Mapping[str, Chunks], where: str, *, skip_unusable: bool = False
) -> tuple[dict[str, Split], Findings]:
    """Join the chunks of each split in canonical order.

    Raises:
        InputError: any sample was unsuitable (and is not to be skipped), sizes differ, or names appear twice.
    """
    problems = left_out(by_split, skip_unusable=skip_unusable)
    chunks = [(name, decoded) for name, pairs in by_split.items() for _, decoded in pairs]
    splits = {name: _split(name, by_split[name]) for name in _filled(by_split)}
    converted, changed = Counter[str](), Counter[str]()
    for _, decoded in chunks:
        converted.update(decoded.converted)
        changed.update(decoded.changed)
    digests = {name: [d for _, decoded in by_split[name] for d in decoded.digests] for name in splits}
    copies = {name: len(listed) - len(set(listed)) for name, listed in digests.items()}
    here = _here(where, by_split)
    findings = Findings(
        duplicates=tuple((name, count) for name, count in copies.items() if count),
        converted=tuple(sorted(converted.items())),
        changed=tuple(sorted(changed.items())),
        left_out=tuple((name, as_text(problem.replace(here, "") if here else problem)) for name, problem in problems),
    )
    return splits, findings


def contents(
    by_split: Mapping[str, Chunks], *, skip_unusable: bool = False, limit_per_class: int | None = None
) -> dict[str, Content]:
    """What the splits that ``collect`` would make hold, of chunks whose pixels were not kept.

    With ``limit_per_class`` the training split is only the first so many images of each class.

    Raises:
        InputError: as ``collect`` does.
    """
    left_out(by_split, skip_unusable=skip_unusable)
    found = {}
    for name in _filled(by_split):
        labels, digests, names = _samples(name, by_split[name])
        if name == "train" and limit_per_class is not None:
            order = canonical_order(names or keys_from_digests(digests))
            rows = order[first_rows(labels[order], limit_per_class)]
            labels, digests = labels[rows], [digests[row] for row in rows.tolist()]
        found[name] = Content(len(labels), order_free_digest(digests))
    return found


def left_out(by_split: Mapping[str, Chunks], *, skip_unusable: bool) -> list[tuple[str, str]]:
    """Split and problem of the samples that are left out.

    Raises:
        InputError: none may be, sizes differ, or names that are keys appear twice.
    """
    chunks = [(name, decoded) for name, pairs in by_split.items() for _, decoded in pairs]
    problems = [(name, problem) for name, decoded in chunks for problem in decoded.problems]
    first, misfits = _misfits([decoded for _, decoded in chunks])
    refused = [] if skip_unusable else [problem for _, problem in problems]
    if refused or misfits:
        own = not any(task.spec.published for pairs in by_split.values() for task, _ in pairs)
        message = refusal(refused, first, misfits, own=own)
        raise InputError(message) if misfits else UnusableImagesError(message)
    for name, pairs in by_split.items():
        names = Counter(key for _, decoded in pairs for key in decoded.names)
        if repeated := [key for key, count in names.items() if count > 1]:
            appear = "name appears" if len(repeated) == 1 else "names appear"
            raise InputError(
                f"{len(repeated)} {appear} twice in the {name} split, first {repeated[0]}; names are the keys"
            )
    return [(name, str(problem)) for name, problem in problems]


def _filled(by_split: Mapping[str, Chunks]) -> list[str]:
    """The splits with any samples, ``train`` first."""
    filled = (name for name, pairs in by_split.items() if any(decoded.labels for _, decoded in pairs))
    return sorted(filled, key=lambda name: name != "train")


def _split(name: str, chunks: Chunks) -> Split:
    labels, digests, names = _samples(name, chunks)
    images = _images([(task, decoded) for task, decoded in chunks if decoded.labels])
    return Split.from_samples(name, images, labels, digests, names or None)


def _samples(name: str, chunks: Chunks) -> tuple[np.ndarray, list[bytes], list[str]]:
    """Labels, digests and, where they are the keys, names of a split's samples, in the order of the chunks."""
    labels = np.array([label for _, decoded in chunks for label in decoded.labels], dtype=np.int64)
    digests = [digest for _, decoded in chunks for digest in decoded.digests]
    names = [key for _, decoded in chunks for key in decoded.names]
    return labels, digests, names


def _images(filled: Chunks) -> Images:
    """In the order of the chunks: where the first one has its pixels, all have them."""
    task, first = filled[0]
    if task.spool is None:
        return np.concatenate([decoded.images for _, decoded in filled if decoded.images is not None])
    assert first.image_shape is not None
    files = [(task.spool, len(decoded.labels)) for task, decoded in filled if task.spool is not None]
    return SpooledImages.in_files(files, first.image_shape)


def _misfits(chunks: Sequence[Decoded]) -> tuple[Misfit | None, list[Misfit]]:
    """The first image, and those of other sizes: within chunks, and the first ones of others."""
    firsts = [(chunk.first, chunk.misfits) for chunk in chunks]
    first = next((own for own, _ in firsts if own is not None), None)
    found: list[Misfit] = []
    for own, misfits in firsts:
        if first is not None and own is not None and (own.width, own.height) != (first.width, first.height):
            found.append(own)
        found += misfits
    return first, found


def _here(where: str, by_split: Mapping[str, Chunks]) -> str:
    """What the names of a source's files begin with on this machine only; empty: nothing."""
    if is_remote(where):
        place = shown(where).rstrip("/")
        return f"{place.rpartition('/')[0] if place.lower().endswith(SINGLE_FILES) else place}/"
    if where.startswith(HUB):
        folders = {path.parent for pairs in by_split.values() for task, _ in pairs for path in files_of(task.chunk)}
        root = Path(os.path.commonpath(folders))
    else:
        root = expanded(where)
        root = root if root.is_dir() else root.parent
    return f"{root}{os.sep}" if root.name else ""
