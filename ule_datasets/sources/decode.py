"""From raw samples to uint8 pixels: in parallel, strict about what an image must be, in memory or into a spool."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ule_datasets.base import records
from ule_datasets.base.errors import InputError
from ule_datasets.base.files import replacing
from ule_datasets.base.memory import TooLittleMemoryError
from ule_datasets.base.sealed import read_note, write_note
from ule_datasets.base.version import __version__
from ule_datasets.data.codec import (
    CODING,
    MAX_PIXELS,
    Picture,
    Rules,
    decode_rgb,
    encoder_versions,
    only_our_bounds,
    resize_and_crop,
)
from ule_datasets.data.split import sample_digest
from ule_datasets.places.remote_path import RemotePath, each
from ule_datasets.sources.forms import Chunk, Place, RawSample, official_name
from ule_datasets.sources.spec import SourceSpec
from ule_datasets.sources.unusable import Misfit, Unusable

UNWANTED = -1
"""In a label map: samples of this class are left out, unread."""
LARGEST_LABEL = 2**31 - 1
NAME = re.compile(r"[\w-]{1,80}")
"""What may be a key: it becomes a file name in archives, where a dot would end it."""
Given = TypeVar("Given")
Taken = TypeVar("Taken")


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """One chunk to decode."""

    split: str
    chunk: Chunk
    label_map: Mapping[int, int] | None
    """From the form's class numbers to the recipe's; ``UNWANTED`` for those that it does not have."""
    num_classes: int | None
    """Labels must lie below it; ``None``: any label from 0 on."""
    spec: SourceSpec
    """How images are brought to one size, and what their keys are."""
    spool: Path | None = None
    """Where the pixels go, and beside them what else there is to know; ``None``: they stay in memory."""
    max_pixels: int = MAX_PIXELS
    """Of one image, before it is brought to any size."""
    keep: bool = True
    """Whether pixels are kept at all when their digest is taken."""


@dataclass(eq=False, slots=True, kw_only=True)
class Decoded:
    """A decoded chunk; samples that could not be used are in ``problems`` only."""

    images: np.ndarray | None = None
    """uint8 [N, H, W, 3]; ``None``: they are in the spool file, or there are none."""
    image_shape: tuple[int, int, int] | None = None
    """``None`` for an empty chunk."""
    labels: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """Official names, where they are the keys."""
    first_origin: str = ""
    problems: list[Unusable] = field(default_factory=list)
    """What is wrong with the samples that could not be used."""
    misfits: list[Misfit] = field(default_factory=list)
    """Which samples have another size than the first one; never left out, since the first may be the odd one."""
    converted: dict[str, int] = field(default_factory=dict)
    """How many images of which Pillow mode were turned into RGB."""
    changed: dict[str, int] = field(default_factory=dict)
    """What else was done to how many images before they were plain RGB."""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Width and height, before anything is cut, of the image with the fewest pixels and of the one with the most."""
    refused: int = 0
    """How many of the labels are of images that would not be used: in a look, which shows these too."""

    @property
    def first(self) -> Misfit | None:
        """The first image, which gives the size; ``None``: there is none."""
        return None if self.image_shape is None else Misfit(self.first_origin, self.image_shape[1], self.image_shape[0])

    @property
    def num_usable(self) -> int:
        """How many samples are used."""
        return len(self.labels) - self.refused

    def fits(self, origin: str, shape: tuple[int, int, int]) -> bool:
        """Whether an image has the size of the first one, or is it; if not, it becomes a misfit."""
        if self.image_shape is None:
            self.first_origin, self.image_shape = origin, shape
        elif shape != self.image_shape:
            self.misfits.append(Misfit(origin, shape[1], shape[0]))
            return False
        return True


def decode_chunk(task: ChunkTask) -> Decoded:
    """Decode one chunk, or find it in the spool where an interrupted run left it.

    Unsuitable samples are reported together instead of one per run.
    """
    if task.spool is None:
        return _decode(task, None)
    inputs = _fingerprint(task)
    found = _read_note(task.spool, inputs)
    if found is None:
        with replacing(task.spool) as partial, partial.open("wb", buffering=2**20) as file:
            found = _decode(task, file)
        _write_note(task.spool, inputs, found)
    return found


def _decode(task: ChunkTask, file: Any) -> Decoded:
    rules = rules_of(task)
    with only_our_bounds(rules.max_pixels):
        return _decode_by(rules, task, file)


def usable(
    task: ChunkTask,
    samples: Iterable[tuple[RawSample | Unusable, Given]],
    take: Callable[[RawSample, Given], Taken],
    problems: list[Unusable],
) -> Iterator[tuple[RawSample, int, Taken]]:
    """The samples of a chunk that are wanted, their labels, and what is taken of each; ``problems`` gets the others'.

    A label or an image that cannot be used is such a problem. ``take`` returns anything but ``None``.
    """
    for raw, given in samples:
        if isinstance(raw, Unusable):
            problems.append(raw)
            continue
        try:
            label = label_of(raw, task)
            taken = None if label == UNWANTED else take(raw, given)
        except TooLittleMemoryError:  # the image may well be usable
            raise
        except InputError as error:
            problems.append(Unusable.of(raw.origin, str(error)))
            continue
        if taken is not None:
            yield raw, label, taken


def _decode_by(rules: Rules, task: ChunkTask, file: Any) -> Decoded:
    """Decode one sample after the other; pixels go to the file, if there is one."""
    decoded, kept = Decoded(), list[np.ndarray]()
    converted, changed, sizes = Counter[str](), Counter[str](), set[tuple[int, int]]()

    def take(raw: RawSample, _: None) -> tuple[Picture, str]:
        return _pixels(raw, task.spec, rules), name_of(raw, task.spec)

    samples = ((raw, None) for raw in task.chunk.samples())
    for raw, label, ((image, mode, changes, size), name) in usable(task, samples, take, decoded.problems):
        if not decoded.fits(raw.origin, image.shape):
            continue
        decoded.names += [name] if name else []
        decoded.labels.append(label)
        decoded.digests.append(sample_digest(image, label))
        converted[mode] += mode != "RGB"
        changed.update(changes)
        sizes.add(size)
        if file is not None:
            file.write(np.ascontiguousarray(image).data)
        elif task.keep:
            kept.append(image)
    decoded.images = np.stack(kept) if kept else None
    decoded.converted, decoded.changed = dict(sorted((+converted).items())), dict(sorted(changed.items()))
    decoded.sizes = extremes(sizes)
    return decoded


def extremes(sizes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of widths and heights, those of the fewest and of the most pixels."""
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return [*ordered[:1], *ordered[-1:]]


def rules_of(task: ChunkTask) -> Rules:
    """Which images a source may have, and what is done to them."""
    spec, step = task.spec, task.spec.preprocess
    advice = "" if spec.published or step is not None else ", or build with --crop PIXELS, which does"
    return Rules(
        convert=step is not None and step.convert is not None,
        orientation="apply" if spec.turns_upright else "ignore",
        resize=None if step is None else step.resize,
        crop=None if step is None else step.crop,
        max_pixels=task.max_pixels,
        advice=f"convert it to RGB first{advice}",
    )


def _pixels(raw: RawSample, spec: SourceSpec, rules: Rules) -> Picture:
    """The image as the recipe wants it."""
    if not isinstance(raw.image, np.ndarray):
        return decode_rgb(raw.image, raw.origin, rules)
    step = spec.preprocess
    image = raw.image if step is None else resize_and_crop(raw.image, step.resize, step.crop, raw.origin)
    return Picture(image, "RGB", (), (raw.image.shape[1], raw.image.shape[0]))


def label_of(raw: RawSample, task: ChunkTask) -> int:
    """The class of a sample by the recipe's numbers; ``UNWANTED`` if it is to be left out."""
    highest = LARGEST_LABEL if task.num_classes is None else task.num_classes - 1
    if task.label_map is not None:
        highest = len(task.label_map) - 1
        if raw.label in task.label_map:
            return task.label_map[raw.label]
    elif 0 <= raw.label <= highest:
        return raw.label
    allowed = "0 or more" if highest == LARGEST_LABEL and raw.label < 0 else f"0 to {highest}"
    label = raw.label if abs(raw.label) < 2**64 else "of more than 64 bits"  # which may be thousands of digits
    raise InputError(f"{raw.origin} has label {label}, allowed is {allowed}")


def name_of(raw: RawSample, spec: SourceSpec) -> str:
    """The name that is the key of a sample; empty where names are no keys.

    Raises:
        InputError: it cannot be a key.
    """
    if spec.keyed_by is None:
        return ""
    name = official_name(raw.name)
    if not NAME.fullmatch(name):
        raise InputError(
            f"{raw.origin} is called {name!r}, which cannot be its key: letters, digits, '_' and '-', at most 80"
        )
    return name


def _fingerprint(task: ChunkTask) -> str:
    """Changes whenever decoding might give something else: other files, another step, another decoder."""
    states = ((path.name, path.stat()) for path in files_of(task.chunk))
    files = [(name, state.st_size, state.st_mtime_ns) for name, state in states]
    told = getattr(task.chunk, "state", "")  # the chunk itself may say which versions of remote files it reads
    remote = [] if told else [path for path in paths_of(task.chunk) if isinstance(path, RemotePath)]
    versions = list(each(RemotePath.identity, remote))
    parts = [
        repr(task.chunk),
        repr(task.spec),
        repr((task.label_map, task.num_classes, task.max_pixels)),
        repr([*files, *versions]),
    ]
    return hashlib.sha256(json.dumps([*parts, encoder_versions(), CODING, __version__]).encode()).hexdigest()


def files_of(chunk: Chunk) -> Iterator[Path]:
    """The files of this machine that a chunk reads."""
    return (path for path in paths_of(chunk) if isinstance(path, Path))


def paths_of(chunk: Chunk) -> Iterator[Place]:
    """The files that a chunk reads."""
    if hasattr(chunk, "paths"):
        yield from chunk.paths
    elif hasattr(chunk, "path"):
        yield chunk.path


def _write_note(spool: Path, inputs: str, decoded: Decoded) -> None:
    content = {**asdict(decoded), "digests": [digest.hex() for digest in decoded.digests]}
    write_note(spool.with_suffix(".json"), inputs, content)


def _read_note(spool: Path, inputs: str) -> Decoded | None:
    """What an interrupted run noted about a chunk, if its spool file is what it was, and was made from the same."""
    content = read_note(dict[str, Any], spool.with_suffix(".json"), inputs)
    if content is None or not spool.is_file():
        return None
    try:
        digests = [bytes.fromhex(digest) for digest in records.convert(list[str], content.get("digests"), "digests")]
        decoded = records.convert(Decoded, {**content, "digests": digests}, str(spool))
    except ValueError:  # of another version, or made up
        return None
    return decoded if _is_whole(spool, decoded) else None


def _is_whole(spool: Path, decoded: Decoded) -> bool:
    """Whether a spool file holds the pixels that the digests of its samples were taken of, and nothing else."""
    size = math.prod(decoded.image_shape or (0,))
    if spool.stat().st_size != size * len(decoded.labels):
        return False
    with spool.open("rb") as file:
        return all(
            sample_digest(np.frombuffer(file.read(size), dtype=np.uint8), label) == digest
            for label, digest in zip(decoded.labels, decoded.digests, strict=True)
        )
