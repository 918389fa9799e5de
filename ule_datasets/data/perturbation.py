"""The artefact between crafting and assembling: exact integer layers, applied in order.

``clip(clean + delta, 0, 255)`` for additive layers, assignment for overwriting ones; both on uint8
bytes, so that the same perturbation and the same images give the same pixels anywhere.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from ule_datasets.base import records
from ule_datasets.base.errors import InputError
from ule_datasets.base.names import Name
from ule_datasets.base.regular import open_file
from ule_datasets.base.sealed import digest_of
from ule_datasets.base.tensors import read_tensors
from ule_datasets.data.bounds import Budget, LInf
from ule_datasets.data.image_formats import HEAD, PLAIN_TO_SEE, recognise
from ule_datasets.data.split import positions_of

FILE_NAME = "perturbation.safetensors"
FORMAT = 1
NOWHERE = -1
"""Row and column of an overwrite that does not happen (a class without images)."""


class Support(StrEnum):
    """What a layer's first axis counts."""

    SAMPLE = "sample"
    """One entry per training sample, found by the sample's key; samples without an entry are left alone."""
    CLASS = "class"
    """One entry per class, found by the label."""
    CLUSTER = "cluster"
    """One entry per group of training samples, found by the sample's key; those of no group are left alone."""
    UNIVERSAL = "universal"
    """A single entry for all."""

    @property
    def by_key(self) -> bool:
        """Whether the layer lists samples by their keys."""
        return self in (Support.SAMPLE, Support.CLUSTER)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Additive:
    """Grey levels added to every pixel; int8 or int16, [M, H, W, C], in units of 1/255."""

    levels: np.ndarray
    support: Support
    keys: tuple[str, ...] = ()
    """The samples: in order of the first axis for sample-wise layers, in that of ``members`` for cluster-wise ones."""
    members: np.ndarray | None = None
    """Cluster-wise layers only: the entry of each key, in 0 .. M-1; int32 or int64, [N]."""

    def __post_init__(self) -> None:
        if self.levels.dtype not in (np.int8, np.int16) or self.levels.ndim != 4:
            raise InputError(f"additive layer: int8 or int16 [M,H,W,C], not {_describe(self.levels)}")
        _check_members(self.support, self.members, len(self.levels))
        _check_keys(self.support, self.keys, len(self.levels if self.members is None else self.members))

    def apply(self, images: np.ndarray, entries: np.ndarray) -> None:
        """Add in place; ``entries`` (int64, [N]) selects a row of ``levels`` per image, -1 for none."""
        rows = np.flatnonzero(entries >= 0)
        changed = images[rows].astype(np.int16) + self.levels[entries[rows]]
        images[rows] = np.clip(changed, 0, 255).astype(np.uint8)

    def arrays(self) -> dict[str, np.ndarray]:
        """What is stored, by name."""
        return {"levels": self.levels} if self.members is None else {"levels": self.levels, "members": self.members}

    def take(self, places: np.ndarray, keys: tuple[str, ...]) -> Additive:
        """The layer for some of its samples, by their places among its keys."""
        if self.members is not None:
            return replace(self, keys=keys, members=self.members[places])
        return replace(self, keys=keys, levels=self.levels[places])


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Overwrite:
    """Pixels replaced: ``rows`` and ``columns`` (int32, [M, k]) and ``colours`` (uint8, [M, k, C])."""

    rows: np.ndarray
    columns: np.ndarray
    colours: np.ndarray
    support: Support
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shapes_agree = self.rows.ndim == 2 and self.rows.shape == self.columns.shape == self.colours.shape[:2]
        if not shapes_agree or self.colours.dtype != np.uint8 or self.colours.ndim != 3:
            raise InputError(
                f"overwrite layer: rows and columns [M,k], colours uint8 [M,k,C], not {_describe(self.rows)}, "
                f"{_describe(self.columns)}, {_describe(self.colours)}"
            )
        if self.support is Support.CLUSTER:
            raise InputError("overwrite layer: support is cluster, must be sample, class or universal")
        _check_keys(self.support, self.keys, len(self.rows))

    def apply(self, images: np.ndarray, entries: np.ndarray) -> None:
        """Overwrite in place; a later pixel of the same image wins over an earlier one."""
        for pixel, place in enumerate(self._places(entries)):
            images[place] = self.colours[entries[place[0]], pixel]

    def cut(self, difference: np.ndarray, entries: np.ndarray) -> np.ndarray:
        """Move what stands at the pixels that it may write out of an array of images, leaving zeros: [N, k, C]."""
        pixels = np.zeros((len(difference), *self.rows.shape[1:], difference.shape[-1]), dtype=difference.dtype)
        for pixel, place in enumerate(self._places(entries)):
            pixels[place[0], pixel] = difference[place]
            difference[place] = 0
        return pixels

    def _places(self, entries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Images, rows and columns of the first pixels, of the second ones, and so on; those that are nowhere aside."""
        for rows, columns in zip(self.rows.T, self.columns.T, strict=True):
            images = np.flatnonzero(entries >= 0)
            images = images[rows[entries[images]] != NOWHERE]
            yield images, rows[entries[images]], columns[entries[images]]

    def arrays(self) -> dict[str, np.ndarray]:
        """What is stored, by name."""
        return {"rows": self.rows, "columns": self.columns, "colours": self.colours}

    def take(self, places: np.ndarray, keys: tuple[str, ...]) -> Overwrite:
        """The layer for some of its samples, by their places among its keys."""
        return replace(self, keys=keys, **{name: array[places] for name, array in self.arrays().items()})


Layer = Additive | Overwrite
_KINDS: dict[str, type[Layer]] = {kind.__name__.lower(): kind for kind in (Additive, Overwrite)}


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Perturbation:
    """Layers in the order in which they are applied, and the clean images they were made for."""

    layers: tuple[Layer, ...]
    source_digest: str
    """Order-free digest of the clean training split."""
    poisoned: tuple[str, ...] | None = None
    """Keys of the perturbed samples when the poison rate is below 1; ``None``: all of them."""
    about: dict[str, Any] = field(default_factory=dict)
    """Method, budget, recipe digest, versions: provenance that no digest depends on."""
    _known_digest: list[str] = field(default_factory=list, init=False, repr=False)  # once it was asked for

    def is_poisoned(self, keys: Sequence[str]) -> np.ndarray:
        """Which samples belong to the perturbed subset (bool, [N])."""
        if self.poisoned is None:
            return np.ones(len(keys), dtype=bool)
        members = set(self.poisoned)
        return np.array([key in members for key in keys], dtype=bool)

    def apply(self, images: np.ndarray, labels: np.ndarray, keys: Sequence[str]) -> np.ndarray:
        """The perturbed images; uint8 [N, H, W, C] in, a new array of the same shape out."""
        result = images.copy()
        poisoned = self.is_poisoned(keys)
        for layer in self.layers:
            if isinstance(layer, Additive) and (shape := layer.levels.shape[1:]) != images.shape[1:]:
                raise InputError(f"perturbation made for images of shape {shape}, not {images.shape[1:]}")
            layer.apply(result, np.where(poisoned, _entries(layer, labels, keys), -1))
        return result

    def overwritten(self, size: tuple[int, int], labels: np.ndarray, keys: Sequence[str]) -> np.ndarray:
        """Which pixels of images of so many rows and columns an overwriting layer writes: bool [N, H, W]."""
        poisoned, left = self.is_poisoned(keys), np.ones((len(keys), *size, 1), dtype=bool)
        for layer in self.layers:
            if isinstance(layer, Overwrite):
                layer.cut(left, np.where(poisoned, _entries(layer, labels, keys), -1))
        return ~left[..., 0]

    def exceeding(
        self, clean: np.ndarray, final: np.ndarray, labels: np.ndarray, keys: Sequence[str], budget: Budget
    ) -> list[int]:
        """Indices of the images whose final bytes exceed the budget.

        Pixels that an overwriting layer may write count against the bound of the last that may. All others count
        against the bounds of the additive layers: each of these against what it made of the images that those before
        it left.
        """
        if len(budget) != len(self.layers):
            raise InputError(f"the budget has {len(budget)} bounds for {len(self.layers)} layers")
        pairs = list(zip(self.layers, budget, strict=True))
        overwrites = [(o, _entries(o, labels, keys), bound) for o, bound in reversed(pairs) if isinstance(o, Overwrite)]
        exceeded = np.zeros(len(clean), dtype=bool)
        difference = _difference(clean, final)
        for layer, entries, bound in overwrites:
            exceeded |= bound.exceeded(layer.cut(difference, entries))
        additive = [index for index, (layer, _) in enumerate(pairs, 1) if isinstance(layer, Additive)]
        between = (replace(self, layers=self.layers[:end]) for end in additive[:-1])
        stages = [clean, *(part.apply(clean, labels, keys) for part in between), final]
        bounds = [budget[end - 1] for end in additive] or [LInf(levels=0)]
        for (before, after), bound in zip(itertools.pairwise(stages), bounds, strict=True):
            if len(bounds) > 1:
                difference = _difference(before, after)
                for layer, entries, _ in overwrites:
                    layer.cut(difference, entries)
            exceeded |= bound.exceeded(difference)
        return [int(index) for index in np.flatnonzero(exceeded)]

    def parts(self, groups: Iterable[Sequence[str]]) -> Iterator[Perturbation]:
        """The part that concerns each group of samples, such as a shard's; what is looked up is looked up once."""
        place = [{key: index for index, key in enumerate(layer.keys)} for layer in self.layers]
        poisoned = set(self.poisoned or ())
        for keys in groups:
            layers: list[Layer] = []
            for layer, known in zip(self.layers, place, strict=True):
                places = np.array(sorted(known[key] for key in keys if key in known), dtype=np.int64)
                by_key = layer.support.by_key
                layers.append(layer.take(places, tuple(layer.keys[i] for i in places)) if by_key else layer)
            own = None if self.poisoned is None else tuple(sorted(poisoned.intersection(keys)))
            yield replace(self, layers=tuple(layers), poisoned=own)

    @property
    def digest(self) -> str:
        """Sha256 of the layers, their order and the poisoned subset; not of ``about``."""
        if not self._known_digest:
            self._known_digest.append(digest_of(json.dumps(self._header(), sort_keys=True), self._tensors()))
        return self._known_digest[0]

    def with_about(self, about: dict[str, Any]) -> Perturbation:
        """The same layers, with other words about them."""
        result = replace(self, about=about)
        result._known_digest.extend(self._known_digest)
        return result

    def _header(self) -> dict[str, Any]:
        layers = [{"kind": type(layer).__name__.lower(), "support": layer.support.value} for layer in self.layers]
        return {"format": FORMAT, "source_digest": self.source_digest, "layers": layers}

    def _tensors(self) -> dict[str, np.ndarray]:
        tensors = {}
        for index, layer in enumerate(self.layers):
            for name, array in layer.arrays().items():
                tensors[f"layers.{index}.{name}"] = array
            if layer.support.by_key:
                tensors[f"layers.{index}.keys"] = _pack(layer.keys)
        if self.poisoned is not None:
            tensors["poisoned"] = _pack(self.poisoned)
        return tensors

    def save(self, path: Path) -> None:
        """Write a safetensors file. All metadata stands under one key: the format keeps no order of keys."""
        from safetensors.numpy import save

        header = {**self._header(), "digest": self.digest, "about": self.about}
        tensors = {name: np.ascontiguousarray(array) for name, array in self._tensors().items()}
        path.write_bytes(save(tensors, metadata={"ule": json.dumps(header, sort_keys=True)}))

    @classmethod
    def load(cls, path: Path) -> Perturbation:
        """Read a perturbation and check its digest.

        Raises:
            InputError: the file is not a perturbation, is truncated, or its digest does not agree.
        """
        try:
            header, tensors = _read_safetensors(path)
            layers = []
            for index, entry in enumerate(header.layers):
                prefix = f"layers.{index}."
                arrays = {n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)}
                keys = _unpack(arrays.pop("keys"), _num_keys(arrays)) if "keys" in arrays else ()
                layers.append(_KINDS[entry.kind](**arrays, support=entry.support, keys=keys))
            poisoned = _unpack(tensors["poisoned"]) if "poisoned" in tensors else None
            result = cls(
                layers=tuple(layers), source_digest=header.source_digest, poisoned=poisoned, about=header.about
            )
            if result.digest != header.digest:
                raise ValueError(f"its content has digest {result.digest}, it says {header.digest}")
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is not an intact perturbation file: {_image(path) or error}") from error
        return result


def _image(path: Path) -> str:
    """That a file is an image, if it is one."""
    try:
        with open_file(path) as file:
            kind = recognise(file.read(HEAD))
    except (OSError, InputError):
        return ""
    return f"it is an image ({kind})" if kind in PLAIN_TO_SEE else ""


def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The absolute difference of bytes, as bytes."""
    difference: np.ndarray = np.maximum(one, other)
    difference -= np.minimum(one, other)
    return difference


def _entries(layer: Layer, labels: np.ndarray, keys: Sequence[str]) -> np.ndarray:
    """The row of the layer that belongs to each sample, -1 where there is none."""
    if layer.support is Support.UNIVERSAL:
        return np.zeros(len(keys), dtype=np.int64)
    if layer.support is Support.CLASS:
        return labels.astype(np.int64)
    places = positions_of(keys, layer.keys)
    if isinstance(layer, Additive) and layer.members is not None:
        places = np.append(layer.members.astype(np.int64), -1)[places]  # place -1 is the end
    return places


def _check_keys(support: Support, keys: tuple[str, ...], count: int) -> None:
    expected = count if support.by_key else 0
    if len(keys) != expected or len(set(keys)) != len(keys):
        raise InputError(f"{support} layer of {count} entries: {expected} distinct keys, not {len(keys)}")


def _check_members(support: Support, members: np.ndarray | None, count: int) -> None:
    if support is not Support.CLUSTER:
        if members is not None:
            raise InputError(f"{support} layer: only a cluster layer has members")
        return
    if members is None or members.dtype not in (np.int32, np.int64) or members.ndim != 1:
        found = "none" if members is None else _describe(members)
        raise InputError(f"cluster layer: members are int32 or int64 [N], one for each key, not {found}")
    if members.size and not 0 <= members.min() <= members.max() < count:
        raise InputError(
            f"cluster layer of {count} entries: members are in 0 .. {count - 1}, not {members.min()} .. {members.max()}"
        )


def _pack(keys: tuple[str, ...]) -> np.ndarray:
    return np.frombuffer("\n".join(keys).encode(), dtype=np.uint8)


def _unpack(packed: np.ndarray, expected: int | None = None) -> tuple[str, ...]:
    """The keys, of which there should be so many: many short ones would take far more memory than their bytes."""
    data = packed.tobytes()
    count = data.count(b"\n") + 1 if data else 0
    if expected is not None and count != expected:
        raise ValueError(f"{count} keys for {expected} entries")
    if b"\n\n" in data or data[:1] == b"\n" or data[-1:] == b"\n":
        raise ValueError("a key in it is empty")
    return tuple(data.decode().split("\n")) if data else ()


def _num_keys(arrays: Mapping[str, np.ndarray]) -> int:
    """Of a layer with these arrays."""
    counted = next((arrays[name] for name in ("members", "levels", "rows") if name in arrays), None)
    if counted is None or counted.ndim == 0:
        raise ValueError("a layer without entries has keys")
    return len(counted)


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _LayerHeader:
    kind: str
    support: Support


@dataclass(frozen=True, kw_only=True, slots=True)
class _Header:
    """The metadata of the file, as far as it is of this format."""

    format: int
    digest: str
    source_digest: str
    layers: tuple[_LayerHeader, ...]
    about: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Round:
    """What figures draw of a round."""

    accuracy: float = 0.0
    success: float = 0.0
    mean_abs: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Finding:
    check: str
    severity: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Imported:
    """What a card tells of a release of others."""

    file_name: str
    sha256: str
    convention: str
    lint: tuple[_Finding, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Notes:
    environments: tuple[dict[str, str], ...] = ()
    trace: tuple[_Round, ...] = ()
    clusters: tuple[dict[str, Any], ...] = ()
    rounds: int | None = None
    stop_rule_met: bool = True
    weights: dict[str, str] | None = None
    agreement_with_labels: float | None = None
    imported: _Imported | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _MethodRecord:
    identifier: Name
    craft_digest: str
    repeats: str
    num_layers: int
    notes: _Notes


@dataclass(frozen=True, kw_only=True, slots=True)
class _RecipeRecord:
    name: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _About:
    """What cards, figures and messages take from ``Perturbation.about``, where it is there."""

    seed: int = 0
    recipe: _RecipeRecord = _RecipeRecord()
    methods: tuple[_MethodRecord, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def _read_safetensors(path: Path) -> tuple[_Header, dict[str, np.ndarray]]:
    metadata, tensors = read_tensors(path)
    if "ule" not in metadata:
        raise ValueError("it carries no 'ule' metadata")
    content = records.parse(dict[str, Any], metadata["ule"], "its metadata")
    if content.get("format") != FORMAT:
        raise ValueError(f"its header is {str(content)[:60]}, this version reads format {FORMAT}")
    header = records.convert(_Header, content, "its metadata")
    records.convert(_About, header.about, "its metadata: about")
    return header, tensors
