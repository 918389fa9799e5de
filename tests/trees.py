"""Little sources for tests: trees of files as tables of paths, images that are all different, and how they are read."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from helpers import encode, make_images

from ule_datasets.sources.forms import Form
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.reading import find_form


class Link(NamedTuple):
    """A symbolic link; a target without a leading ``/`` is taken from the folder that it is in."""

    target: str


class Folder(NamedTuple):
    """An empty folder."""


class Tar(NamedTuple):
    """A tar archive, compressed as ``mode`` says (``w``, ``w:gz``)."""

    members: Sequence[tuple[str, bytes]]
    mode: str = "w"


class Table(NamedTuple):
    """A Parquet file of these columns; with ``names``, the class names of the label column."""

    columns: Mapping[str, Sequence[Any]]
    names: Sequence[str] | None = None


Files: TypeAlias = Mapping[str, bytes | str | Link | Folder | Tar | Table]
"""What is at each path below a folder: bytes, text, or one of the above."""


@cache
def png(number: int, size: int = 8) -> bytes:
    """A PNG image; another number is another image."""
    return encode(make_images(1, 1, size, seed=number).images[0])


def images(folder: str, count: int = 2, *, suffix: str = ".png", first: int = 0) -> dict[str, bytes]:
    """Some images in a folder, different in folders of different names."""
    start = sum(folder.encode()) * 100 + first
    return {f"{folder}/{number}{suffix}": png(start + number) for number in range(first, first + count)}


def classes(folder: str, names: Sequence[str] = "ab", count: int = 2) -> dict[str, bytes]:
    """Class folders with some images each."""
    found: dict[str, bytes] = {}
    for name in names:
        found |= images(f"{folder}/{name}" if folder else name, count)
    return found


def table(labels: Sequence[Any], *, first: int = 0, names: Sequence[str] | None = None) -> Table:
    """A Parquet file of images with these labels."""
    rows = [{"bytes": png(first + index), "path": f"{first + index}.png"} for index in range(len(labels))]
    return Table({"image": rows, "label": labels}, names)


def shard(labels: Sequence[int | None], *, first: int = 0, mode: str = "w") -> Tar:
    """A tar shard of images with these labels; ``None``: without one."""
    members: list[tuple[str, bytes]] = []
    for index, label in enumerate(labels):
        members.append((f"{first + index:04d}.png", png(first + index)))
        members += [] if label is None else [(f"{first + index:04d}.cls", b"%d" % label)]
    return Tar(members, mode)


def write_tree(root: Path, files: Files) -> Path:
    """Write a tree; parents are made as needed."""
    root.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        match content:
            case bytes():
                place.write_bytes(content)
            case str():
                place.write_text(content)
            case Link(target):
                place.symlink_to(target)
            case Folder():
                place.mkdir(exist_ok=True)
            case Tar(members, mode):
                _write_tar(place, members, mode)
            case Table(columns, names):
                _write_table(place, columns, names)
    return root


def _write_tar(path: Path, members: Sequence[tuple[str, bytes]], mode: Any) -> None:
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _write_table(path: Path, columns: Mapping[str, Sequence[Any]], names: Sequence[str] | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = pa.table({name: list(values) for name, values in columns.items()})
    if names is not None:
        info = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
        written = written.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(written, path)


def form_of(root: Path, **fields: Any) -> Form:
    """How a tree is stored, for one's own images with these fields of the source."""
    return find_form(str(root), replace(OWN_IMAGES, **fields))


def contents(form: Form) -> dict[str, dict[str, int]]:
    """Of each split, how many images each class has (its name, or its number where there are no names)."""
    found: dict[str, dict[str, int]] = {}
    for split, chunks in form.chunks.items():
        numbers = Counter(raw.label for chunk in chunks for raw in chunk.samples())
        names = form.class_names
        found[split] = {names[n] if names else str(n): count for n, count in sorted(numbers.items())}
    return found


def passed_over(form: Form) -> dict[str, tuple[int, str]]:
    """Count and example of what is passed over, by reason."""
    return {each.reason: (each.count, each.example) for each in form.passed_over}
