"""What a published dataset is: a frozen, typed recipe, its canonical JSON, and the digest that names it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ule_datasets.base import records
from ule_datasets.base.content import is_off
from ule_datasets.base.errors import InputError
from ule_datasets.base.names import DatasetName
from ule_datasets.data.bounds import L0, L2, Bound, Budget, LInf, Unbounded, parse_bound
from ule_datasets.methods.method import Method
from ule_datasets.sources.known import known_location
from ule_datasets.sources.spec import Preprocess, SourceSpec

__all__ = ["L0", "L2", "LInf", "PublishedRecipe", "Recipe", "Unbounded"]

FILE_NAME = "recipe.json"
UNDOING = "Purified"
"""The type of methods that undo what those before them did, as it is written."""


class _OfMethods(tuple[Bound, ...]):
    """Bounds that a recipe took from its methods, and takes anew when it gets others."""

    __slots__ = ()


FROM_METHODS = _OfMethods()


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that determines a dataset. Equal recipes and equal sources give equal files."""

    name: str
    title: str
    summary: str
    """One sentence: what was done to which images."""
    source: SourceSpec
    methods: tuple[Method, ...]
    """Applied in order; each contributes its layers."""
    version: str
    """MAJOR: pixels, labels or order; MINOR: columns; PATCH: bytes on disk or the card."""
    budget: Budget = FROM_METHODS
    """What the dataset is checked against: the methods' own bounds, where it is not narrowed."""
    seed: int = 0
    poison_rate: float = 1.0
    """Share of the training images that is perturbed: nested, seeded subsets."""
    shard_mebibytes: float = 16.0
    """Raw pixels per shard; shards of a split hold equally many samples, give or take one."""
    limit_per_class: int | None = None
    """A trial: only the first so many training images of each class."""
    reduced: str | None = None
    """What is smaller than in the paper; printed wherever the dataset is named."""
    derived_from: str | None = None
    """The catalogue's recipe that a trial or another seed was made from."""

    def __post_init__(self) -> None:
        DatasetName(self.name)
        if not 0 < self.poison_rate <= 1:
            raise InputError(f"recipe {self.name}: poison_rate is {self.poison_rate}, not in (0, 1]")
        if not self.methods:
            raise InputError(f"recipe {self.name}: methods is empty; give at least one method")
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
            raise InputError(f"recipe {self.name}: version {self.version!r} is not MAJOR.MINOR.PATCH")
        if self.shard_mebibytes <= 0:
            raise InputError(f"recipe {self.name}: shard_mebibytes is {self.shard_mebibytes}, not above 0")
        if isinstance(self.budget, _OfMethods):
            bounds = _OfMethods(bound for method in self.methods for bound in method.bounds)
            object.__setattr__(self, "budget", bounds)

    def with_seed(self, seed: int) -> Recipe:
        """This recipe with another seed; a seed that is not the published one shows in the name.

        Raises:
            InputError: it is negative, or more than a signed integer of 64 bits holds.
        """
        if not 0 <= seed < 2**63:
            raise InputError(f"--seed {seed}: must be at least 0 and below 2^63")
        if seed == self.seed:
            return self
        return self._derived(name=f"{self.name}-seed{seed}", title=f"{self.title} (seed {seed})", seed=seed)

    def as_trial(self, limit_per_class: int) -> Recipe:
        """A trial on the first images of each class: other name, and it says so."""
        if limit_per_class < 1:
            raise InputError(f"--limit {limit_per_class}: must be at least 1")
        return self._derived(
            name=f"{self.name}-trial{limit_per_class}",
            title=f"{self.title} (trial)",
            limit_per_class=limit_per_class,
            reduced=f"trial on the first {limit_per_class} training images of each class",
        )

    def with_preprocess(self, step: Preprocess) -> Recipe:
        """This recipe on images of any sizes; shows in the name.

        Raises:
            InputError: its source is a published one, which says how its images are brought to one size.
        """
        if self.source.published:
            raise InputError(
                f"{self.name} says itself what its images are cut to: {self.source.preprocess or 'nothing'}; "
                "--crop is for recipes on one's own images, such as ops, lsp and uc"
            )
        size = f"{step.crop}px" if step.resize is None else f"{step.resize}-{step.crop}px"
        return self._derived(
            name=f"{self.name}-{size}",
            title=f"{self.title} ({step.crop} x {step.crop} pixels)",
            source=dataclasses.replace(self.source, preprocess=step),
        )

    def with_settled(self, index: int, method: Method, digest: str) -> Recipe:
        """This recipe with what one of its methods imports; the first digits of its digest show in the name."""
        methods = (*self.methods[:index], method, *self.methods[index + 1 :])
        return self._derived(name=f"{self.name}-{digest[:8]}", methods=methods)

    def with_layout(self, *, test_split: str | None, class_folders: Sequence[str]) -> Recipe:
        """This recipe on images whose folders are to be understood in this way.

        Raises:
            InputError: its source is a published one, whose layout is known.
        """
        if self.source.url:
            raise InputError(
                f"{self.name} knows the splits and classes of {self.source.title}; --test-split and --class-folder are "
                "for recipes on one's own images, such as ops, lsp and uc"
            )
        source = dataclasses.replace(self.source, test_split=test_split, class_folders=tuple(sorted(class_folders)))
        return dataclasses.replace(self, source=source)

    def _derived(self, **changes: Any) -> Recipe:
        return dataclasses.replace(self, derived_from=self.derived_from or self.name, **changes)

    @property
    def num_images(self) -> dict[str, int]:
        """How many images each split will hold, as far as its source tells; empty for one's own images."""
        counts = dict(self.source.num_images or ())
        if self.limit_per_class is not None and self.source.class_names is not None and "train" in counts:
            counts["train"] = min(counts["train"], self.limit_per_class * len(self.source.class_names))
        return counts

    @property
    def draws(self) -> bool:
        """Whether another seed makes other images: something is drawn, be it only which images are perturbed."""
        # A method in a user's file may be any class with what a method needed before this was asked.
        return self.poison_rate < 1 or any(getattr(method, "draws", True) for method in self.methods)

    @property
    def learnable(self) -> bool:
        """Whether its last method undoes what those before it did: nobody expects a collapse."""
        return bool(getattr(self.methods[-1], "restores", False))  # one in a user's file may be any class

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, every method and bound with its type's name."""
        return _canonical(self)

    @property
    def digest(self) -> str:
        """The recipe's identity: sha256 of its canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def craft_digests(self) -> tuple[str, ...]:
        """Per method, sha256 of what its layers depend on besides the images: not the name or the card.

        Recipes that share a method with its settings, source and seed share its layers; other methods matter only to
        one that uses what those before it have made.
        """
        digests = []
        for index, method in enumerate(self.methods):
            # A method in a user's file may be any class with what a method needed before this was asked.
            used = self.methods[: index + 1] if getattr(method, "uses_layers", False) else method
            content = _canonical((self.source.name, used, self.seed, self.limit_per_class))
            digests.append(hashlib.sha256(content.encode()).hexdigest())
        return tuple(digests)


@dataclass(frozen=True, kw_only=True, slots=True)
class _AsWritten:
    """What ``recipe.json`` says in so many words."""

    name: DatasetName
    title: str
    version: str
    reduced: str | None
    limit_per_class: int | None
    seed: int
    poison_rate: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRecipe(_AsWritten):
    """What a dataset folder's ``recipe.json`` tells a verifier, without the code that made the dataset."""

    source: SourceSpec
    budget: Budget
    digest: str
    craft_digests: tuple[tuple[str, str], ...]
    """Per method the one of a craft by itself, and the one of a craft upon those before it; see ``Recipe``."""
    learnable: bool = False
    """Whether its last method is a countermeasure."""

    @classmethod
    def read(cls, folder: Path) -> PublishedRecipe:
        """The recipe in a dataset folder.

        Raises:
            InputError: there is none, or it is something else.
        """
        try:
            return cls.parse(records.content(folder / FILE_NAME), str(folder / FILE_NAME))
        except FileNotFoundError as error:
            raise InputError(f"{folder} is not a complete dataset: it has no {FILE_NAME}") from error

    @classmethod
    def parse(cls, text: bytes | str, origin: str = FILE_NAME) -> PublishedRecipe:
        """Read canonical JSON, as ``Recipe.to_json`` writes it.

        Raises:
            InputError: it is something else; names ``origin`` and the field.
        """
        content = records.parse(_Layout, text, origin)
        source = records.convert(SourceSpec, content.source, f"{origin}: source")
        raw = text.encode() if isinstance(text, str) else text
        return cls(
            **{each.name: getattr(content, each.name) for each in dataclasses.fields(_AsWritten)},
            # What is read on this machine is not for others to say.
            source=dataclasses.replace(source, default_location=known_location(source.name)),
            budget=tuple(parse_bound(bound, f"{origin}: budget") for bound in content.budget),
            digest=hashlib.sha256(raw.strip()).hexdigest(),
            learnable=any(method.get("type") == UNDOING for method in content.methods[-1:]),
            craft_digests=tuple(
                (_craft_digest(content, method), _craft_digest(content, content.methods[: index + 1]))
                for index, method in enumerate(content.methods)
            ),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout(_AsWritten):
    """What is read of the file; parts that say their own type stay as they are."""

    source: dict[str, Any]
    budget: tuple[dict[str, Any], ...]
    methods: tuple[dict[str, Any], ...]


def _craft_digest(recipe: _Layout, used: Any) -> str:
    content = [recipe.source["name"], used, recipe.seed, recipe.limit_per_class]
    return hashlib.sha256(_dumped(content).encode()).hexdigest()


def _canonical(value: Any) -> str:
    return _dumped(_plain(value))


def _dumped(plain: Any) -> str:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


WRITTEN_ALTHOUGH_OFF = {
    "Recipe": ("seed", "limit_per_class", "reduced", "derived_from"),
    "SourceSpec": ("citation", "hub_id"),
    "ErrorMinimizing": ("random_start",),
    "ClasswiseErrorMinimizing": ("random_start",),
    "OnePixelShortcut": ("allow_same_position",),
    "Bait": ("exclude_true", "normalise", "refresh"),
    "Weights": ("prefix", "renamed"),
}
"""Fields that the digests of published recipes cover while they are off; whatever was added later is left out then."""


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries that name their type; tuples as lists.

    A field that is off by default (``None``, false, zero, empty) and was not chosen is left out: recipes from before
    there was such a field keep their digest. All others are written, so that another default is another recipe.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value).__name__
        always = WRITTEN_ALTHOUGH_OFF.get(kind, ())
        chosen = [f.name for f in dataclasses.fields(value) if f.name in always or not is_off(value, f)]
        return {"type": kind, **{name: _plain(getattr(value, name)) for name in chosen}}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise InputError(f"a recipe may hold numbers, text, tuples and dataclasses, not {type(value).__name__}")
