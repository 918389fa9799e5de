"""``manifest.json``: what a dataset folder holds, and what it takes to check it. Written last: it means complete."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import platform
import re
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ule_datasets.base import records
from ule_datasets.base.errors import InputError
from ule_datasets.base.names import DatasetName, Name, RelativePath
from ule_datasets.base.options import FORMATS
from ule_datasets.base.version import __version__
from ule_datasets.data.codec import encoder_versions

FILE_NAME = "manifest.json"
LEFT_OUT = "left-out.txt"
"""In a dataset folder: split and problem of every image of the source that could not be used."""
SCHEMA = "ule-datasets manifest 1"
DIGESTS = ("recipe_digest", "perturbation_digest")
LARGEST_IMAGE = 2**40
"""Bytes; what one image may take is decided where it is decoded."""
UNSIGNED = "0" * 64
"""Stands in the manifest's own digest while that digest is computed."""


class DamagedManifestError(InputError):
    """A manifest of ours that was changed after it was written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRecord:
    """One split."""

    num_examples: int
    num_poisoned: int
    digest: str
    """Order-free digest of the final pixels and labels."""
    num_bytes: int
    """Arrow bytes, for the card."""

    def __post_init__(self) -> None:
        _check_counts(self, "num_examples", "num_poisoned", "num_bytes")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """One file; ``path`` is relative to the folder, with forward slashes."""

    path: RelativePath
    size: int
    sha256: str

    def __post_init__(self) -> None:
        _check_counts(self, "size")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Everything but ``environment``, ``timings`` and ``look`` is the same for every build of the same dataset."""

    name: DatasetName
    version: str
    reduced: str | None
    recipe_digest: str
    source_name: str
    source_digests: dict[str, str]
    source_about: dict[str, Any]
    """Counts of exact copies, converted and left-out images; what there is none of is not in it."""
    perturbation_digest: str
    craft: tuple[dict[str, Any], ...]
    """Per method what its layers depend on: identifier, craft digest, whether it repeats anywhere, environments."""
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    """Height, width, channels."""
    formats: tuple[str, ...]
    splits: dict[str, SplitRecord]
    files: tuple[FileRecord, ...]
    environment: dict[str, str]
    """Versions; the bytes of the shards depend on the encoders among them, the pixels on none."""
    timings: dict[str, float]
    """Seconds by phase, on the machine of the build."""
    look: dict[str, Any] = field(default_factory=dict)
    """What this build's source looked like: its form, what was in it, what was passed over."""

    def __post_init__(self) -> None:
        for name in self.splits:
            Name(name)  # it is part of the shards' names
        if unknown := set(self.formats) - set(FORMATS):
            raise InputError(f"formats: {unknown.pop()!r} is none of {', '.join(FORMATS)}")
        if min(self.image_shape) < 0 or math.prod(self.image_shape) > LARGEST_IMAGE:
            raise InputError(f"image_shape: {self.image_shape} is not the shape of an image")

    @property
    def download_size(self) -> int:
        """Bytes of the Parquet shards, else of all shards."""
        return sum(file.size for file in self.shards("data/") or self.shards())

    def shards(self, *prefixes: str) -> list[FileRecord]:
        """The files that hold samples, or those of them whose paths begin like this."""
        return [file for file in self.files if file.path.startswith(prefixes or ("data/", "webdataset/"))]

    def damaged(self, folder: Path) -> FileRecord | None:
        """The first listed file that is not in a folder, or has another size."""
        for record in self.files:
            path = folder / record.path
            if not path.is_file() or path.stat().st_size != record.size:
                return record
        return None

    def to_json(self) -> str:
        """Indented JSON, split in a reproducible part and the part that tells how this build went."""
        build = {"environment": self.environment, "timings_seconds": self.timings}
        build |= {"source": self.look} if self.look else {}
        content = {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "reduced": self.reduced,
            "recipe_digest": self.recipe_digest,
            "source": {"name": self.source_name, "digests": self.source_digests, **self.source_about},
            "perturbation_digest": self.perturbation_digest,
            "craft": list(self.craft),
            "class_names": list(self.class_names),
            "image_shape": list(self.image_shape),
            "formats": list(self.formats),
            "splits": {name: dataclasses.asdict(record) for name, record in self.splits.items()},
            "files": [dataclasses.asdict(record) for record in self.files],
            "build": build,
            "self_sha256": UNSIGNED,
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        return text.replace(UNSIGNED, hashlib.sha256(text.encode()).hexdigest())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a folder's manifest.

        Raises:
            InputError: there is none, or it is not one of ours.
            DamagedManifestError: it is one of ours, changed by as little as a byte.
        """
        try:
            return cls.parse(records.content(folder / FILE_NAME), str(folder / FILE_NAME))
        except FileNotFoundError as error:
            raise InputError(f"{folder} is not a complete dataset: it has no {FILE_NAME}") from error

    @classmethod
    def parse(cls, text: bytes, origin: str) -> Manifest:
        """A manifest's content; raises as ``read`` does, naming ``origin``."""
        _check_self_digest(origin, text)
        content = records.parse(dict[str, Any], text, origin)
        if (schema := content.get("schema")) != SCHEMA:
            raise InputError(f"{origin} has schema {schema!r}, this version reads {SCHEMA!r}")
        layout = records.convert(_Layout, content, origin)
        about = {name: value for name, value in content["source"].items() if name not in ("name", "digests")}
        values = {
            "source_name": layout.source.name,
            "source_digests": layout.source.digests,
            "source_about": about,
            "environment": layout.build.environment,
            "timings": layout.build.timings_seconds,
            "look": content["build"].get("source", {}),
        }
        return records.convert(cls, {**content, **values}, origin)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    name: str
    digests: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class _LookAtSplit:
    images: int
    classes: int
    of_classes: dict[str, int]

    def __post_init__(self) -> None:
        _check_counts(self, "images", "classes")


@dataclass(frozen=True, kw_only=True, slots=True)
class _PassedOver:
    reason: str
    count: int
    example: str

    def __post_init__(self) -> None:
        _check_counts(self, "count")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Look:
    """Of what kinds the parts of ``Manifest.look`` are, which only people read."""

    form: str = ""
    called: dict[str, str] = field(default_factory=dict)
    splits: dict[str, _LookAtSplit] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ()
    modes: dict[str, int] = field(default_factory=dict)
    shared: int = 0
    notes: tuple[str, ...] = ()
    passed_over: tuple[_PassedOver, ...] = ()

    def __post_init__(self) -> None:
        _check_counts(self, "shared")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Build:
    environment: dict[str, str]
    timings_seconds: dict[str, float]
    source: _Look = field(default_factory=_Look)

    def __post_init__(self) -> None:
        for phase, seconds in self.timings_seconds.items():
            if not 0 <= seconds < math.inf:
                raise InputError(f"timings_seconds: {phase} took {seconds} s, which is no time")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """The parts of the file that hold several fields of ``Manifest``."""

    source: _Source
    build: _Build


def build_environment() -> dict[str, str]:
    """Versions of everything that touches the files; no host name, user or path."""
    return {
        "ule-datasets": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **{name: metadata.version(name) for name in ("numpy", "pyarrow", "safetensors")},
        **encoder_versions(),
    }


def other_decoder(environment: dict[str, str]) -> str:
    """The end of a message on pixels that are other than in another environment: whether other code decoded JPEG.

    Empty where the decoder is the same, or the environment does not say.
    """
    here = build_environment()
    if environment.get("jpeg") in (None, here["jpeg"]):
        return ""
    return (
        f"; JPEG files were decoded by {environment['jpeg']} there (Pillow {environment.get('pillow')}) and are by "
        f"{here['jpeg']} here (Pillow {here['pillow']}), which may give other pixels: use the same Pillow"
    )


def _check_self_digest(origin: str, text: bytes) -> None:
    found = re.search(rb'"self_sha256": "([0-9a-f]{64})"\n}\n\Z', text)
    if SCHEMA.encode() not in text and found is None:
        raise InputError(f"{origin} is not a manifest of ours")
    if found is not None:
        unsigned = text[: found.start(1)] + UNSIGNED.encode() + text[found.end(1) :]
        if hashlib.sha256(unsigned).hexdigest().encode() == found[1]:
            return
    raise DamagedManifestError(f"{origin} was changed after it was written: its own digest does not agree")


def _check_counts(owner: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(owner, name) < 2**63:
            raise InputError(f"{name} is {getattr(owner, name)}, not a number of bytes or images")
