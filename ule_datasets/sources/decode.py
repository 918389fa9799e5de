"""From raw samples to uint8 arrays: in parallel, strict about what an image must be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ule_datasets.errors import InputError
from ule_datasets.images import decode_rgb, resize_and_crop
from ule_datasets.recipe import Preprocess
from ule_datasets.sources.forms import Chunk, RawSample
from ule_datasets.split import Split, sample_digest

PROBLEMS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """One chunk to decode."""

    split: str
    chunk: Chunk
    label_map: tuple[int, ...] | None
    """From the form's class numbers to the recipe's."""
    num_classes: int | None
    """Labels must lie below it; ``None``: any label from 0 on."""
    preprocess: Preprocess | None = None
    """What brings the images to one size; ``None``: they must be of one size."""


@dataclass(frozen=True, eq=False, slots=True)
class Decoded:
    """A decoded chunk."""

    images: np.ndarray | None
    """uint8 [N, H, W, 3]; ``None`` for an empty chunk."""
    labels: list[int]
    digests: list[bytes]
    first_origin: str
    problems: list[str]
    """What is wrong with the samples that could not be used."""


def decode_chunk(task: ChunkTask) -> Decoded:
    """Decode one chunk; unsuitable samples are reported together instead of one per run."""
    images: list[np.ndarray] = []
    labels: list[int] = []
    problems: list[str] = []
    first_origin = ""
    for raw in task.chunk.samples():
        try:
            label = _label(raw, task)
            image = raw.image if isinstance(raw.image, np.ndarray) else decode_rgb(raw.image, raw.origin)
            if task.preprocess is not None:
                image = resize_and_crop(image, task.preprocess.resize, task.preprocess.crop, raw.origin)
            if images and image.shape != images[0].shape:
                raise InputError(_sizes_differ(first_origin, images[0].shape, raw.origin, image.shape))
        except InputError as error:
            problems.append(str(error))
            continue
        first_origin = first_origin or raw.origin
        images.append(image)
        labels.append(label)
    digests = [sample_digest(image, label) for image, label in zip(images, labels, strict=True)]
    return Decoded(np.stack(images) if images else None, labels, digests, first_origin, problems)


def collect(by_split: dict[str, list[Decoded]]) -> dict[str, Split]:
    """Join the chunks of each split in canonical order.

    Raises:
        InputError: any sample was unsuitable, or sizes differ; names the first few.
    """
    chunks = [chunk for decoded in by_split.values() for chunk in decoded]
    problems = [problem for chunk in chunks for problem in chunk.problems]
    filled = [chunk for chunk in chunks if chunk.images is not None]
    for chunk in filled[1:]:
        assert chunk.images is not None
        assert filled[0].images is not None
        if chunk.images.shape[1:] != filled[0].images.shape[1:]:
            problems.append(
                _sizes_differ(filled[0].first_origin, filled[0].images.shape[1:], chunk.first_origin,
                              chunk.images.shape[1:])
            )  # fmt: skip
            break
    if problems:
        shown = "; ".join(problems[:PROBLEMS_SHOWN])
        more = f"; and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
        raise InputError(f"{len(problems)} unusable sample{'s' if len(problems) > 1 else ''}: {shown}{more}")
    splits = {}
    for name in sorted(by_split, key=lambda name: name != "train"):
        decoded = by_split[name]
        arrays = [chunk.images for chunk in decoded if chunk.images is not None]
        if arrays:
            labels = np.array([label for chunk in decoded for label in chunk.labels], dtype=np.int64)
            digests = [digest for chunk in decoded for digest in chunk.digests]
            splits[name] = Split.from_samples(name, np.concatenate(arrays), labels, digests)
    return splits


def _label(raw: RawSample, task: ChunkTask) -> int:
    known = task.num_classes if task.label_map is None else len(task.label_map)
    if raw.label < 0 or (known is not None and raw.label >= known):
        allowed = f"0 to {known - 1}" if known is not None else "0 or more"
        raise InputError(f"{raw.origin} has label {raw.label}, allowed is {allowed}")
    return raw.label if task.label_map is None else task.label_map[raw.label]


def _sizes_differ(first: str, first_shape: tuple[int, ...], other: str, other_shape: tuple[int, ...]) -> str:
    return (
        f"{other} is {other_shape[1]}x{other_shape[0]} pixels, {first} is {first_shape[1]}x{first_shape[0]}; "
        "resize all images to one size first"
    )
