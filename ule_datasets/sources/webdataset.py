"""WebDataset tar shards: adjacent members ``<key>.png`` (or another image type) and ``<key>.cls``."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ule_datasets.errors import InputError
from ule_datasets.sources.forms import Chunk, Form, RawSample, split_of
from ule_datasets.sources.image_folder import SUFFIXES


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar file, read as a stream; nothing is extracted."""

    path: Path

    def samples(self) -> Iterator[RawSample]:
        """Every sample of the shard."""
        for key, parts in read_shard(self.path):
            yield self._sample(key, parts)

    def _sample(self, key: str, parts: dict[str, bytes]) -> RawSample:
        origin = f"{self.path} ({key})"
        images = [data for extension, data in parts.items() if f".{extension}" in SUFFIXES]
        if len(images) != 1 or "cls" not in parts:
            raise InputError(f"{origin}: expected one image and a .cls member, found {sorted(parts)}")
        text = parts["cls"].strip()
        if not text.isdigit():
            raise InputError(f"{origin}: the .cls member holds {text[:20]!r}, not a class number")
        return RawSample(images[0], int(text), origin)


def read_shard(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Keys and members (by extension, lower case) of a shard, in order.

    Raises:
        InputError: it is not a readable tar file.
    """
    try:
        key, parts = "", dict[str, bytes]()
        with tarfile.open(path, mode="r|*") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                stem = f"{folder}/{stem}" if folder else stem
                if stem != key and parts:
                    yield key, parts
                    parts = {}
                stream = tar.extractfile(member)
                assert stream is not None
                key, parts[extension.lower()] = stem, stream.read()
            if parts:
                yield key, parts
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{path} is not a readable tar file (truncated download?): {error}") from error


def find(root: Path) -> Form | None:
    """Tar shards at or below ``root``, or ``None``."""
    paths = [root] if root.suffix == ".tar" else sorted(root.rglob("*.tar"))
    paths = [path for path in paths if path.is_file()]
    if not paths:
        return None
    chunks: dict[str, list[Chunk]] = {}
    for path in paths:
        split = split_of(path, root if path != root else root.parent)
        chunks.setdefault(split, []).append(Shard(path))
    return Form("WebDataset shards", {k: tuple(v) for k, v in chunks.items()}, None)
