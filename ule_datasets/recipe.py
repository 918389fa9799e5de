"""What a published dataset is: a frozen, typed recipe, its canonical JSON, and the digest that names it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ule_datasets.base.checkpoint import Checkpoint, MemoryCheckpoint
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.executor import Executor, LocalExecutor

if TYPE_CHECKING:
    from ule_datasets.base.seeds import Seed
    from ule_datasets.data.perturbation import Layer
    from ule_datasets.data.split import Split

NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,94}[a-z0-9])?")
"""Lower-case words joined by hyphens: what the Hub accepts as a repository name."""


ABSENT_IF_NONE = {"absent_if_none": True}
"""Metadata of a dataclass field that canonical JSON leaves out while it is ``None``.

For fields that came later: recipes that do not use them keep their digest.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class LInf:
    """At most ``levels`` grey levels (units of 1/255) of change in any channel of any pixel."""

    levels: int

    def __str__(self) -> str:
        return f"l_inf {self.levels}/255"


@dataclass(frozen=True, kw_only=True, slots=True)
class L0:
    """At most ``pixels`` pixels of an image changed, by any amount."""

    pixels: int

    def __str__(self) -> str:
        return f"l_0 {self.pixels} pixel{'s' if self.pixels > 1 else ''}"


Budget = tuple[LInf | L0, ...]
"""One bound per layer of the perturbation, in the order in which the layers are applied."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Licence:
    """Under what terms a source's images may be passed on."""

    hub_id: str
    """An identifier of the Hub's list; anything else fails its card validation."""
    text: str
    """One sentence for the card."""
    redistributable: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocess:
    """How images of any sizes become images of one size: the shorter side to ``resize``, then the centre."""

    resize: int | None
    """Length of the shorter side in pixels, by Pillow's antialiased bilinear filter; ``None``: crop only."""
    crop: int
    """Side of the square that is cut from the centre, in pixels."""
    convert: str | None = field(default=None, metadata=ABSENT_IF_NONE)
    """``RGB``: grey, palette and CMYK images become RGB as Pillow converts them; ``None``: they are refused."""

    def __post_init__(self) -> None:
        if self.convert not in (None, "RGB"):
            raise InputError(f"Preprocess: convert is {self.convert!r}, must be 'RGB' or None")
        if self.crop < 1:
            raise InputError(f"Preprocess: crop is {self.crop}, must be at least 1")
        if self.resize is not None and self.resize < self.crop:
            raise InputError(f"Preprocess: resize is {self.resize}, must be at least the crop of {self.crop}, or None")

    def __str__(self) -> str:
        square = f"the centre {self.crop} x {self.crop}"
        resized = (
            ""
            if self.resize is None
            else (f"shorter side to {self.resize} pixels (Pillow's antialiased bilinear filter), then ")
        )
        return f"{'to ' + self.convert + ', ' if self.convert else ''}{resized}{square}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSpec:
    """Which clean images a recipe starts from, and how to know them."""

    name: str
    title: str
    url: str
    """Where people read about it; empty for one's own images."""
    class_names: tuple[str, ...] | None
    """In label order; ``None``: taken from the data."""
    digests: tuple[tuple[str, str], ...] | None
    """(split, order-free digest) of every split; ``None``: any images are accepted."""
    num_images: tuple[tuple[str, int], ...] | None
    """(split, number of images); ``None``: depends on the data."""
    default_location: str | None
    """Where to read from when ``--source`` is not given; ``None``: it must be given."""
    flippable: bool
    """Whether a mirrored image still shows its class (digits do not)."""
    licence: Licence
    citation: str | None = None
    """Key in ``cards/citations.bib``."""
    hub_id: str | None = None
    """The source's own dataset repository, which the card links to."""
    preprocess: Preprocess | None = field(default=None, metadata=ABSENT_IF_NONE)
    """Applied to every image before anything else, digests included; ``None``: all must be of one size."""
    keyed_by: str | None = field(default=None, metadata=ABSENT_IF_NONE)
    """``name``: the official names of the images are their keys; ``None``: digests of pixels and label are."""
    subset: bool | None = field(default=None, metadata=ABSENT_IF_NONE)
    """Whether images of classes that are not in ``class_names`` are left out; ``None``: they are refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a method may use besides the images."""

    num_classes: int
    seed: Seed
    executor: Executor = field(default_factory=LocalExecutor)
    """Where independent pieces of work run."""
    workers: int = 1
    """Processes for what needs this machine's device; never changes the result."""
    device: str = "cpu"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:INDEX``; matters to methods that repeat on one device only."""
    weights: Path | None = None
    """A file of pretrained weights, or a folder of them, to look at before downloading."""
    reporter: Reporter = field(default_factory=Reporter)
    checkpoint: Checkpoint = field(default_factory=MemoryCheckpoint)
    """Where long work keeps its state, and finds it again."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Crafted:
    """What a method returns."""

    layers: tuple[Layer, ...]
    notes: dict[str, Any] = field(default_factory=dict)
    """Provenance for the perturbation's record and the card: JSON values."""


class Method(Protocol):
    """A way to make a perturbation. Implementations are frozen dataclasses of hyper-parameters."""

    identifier: ClassVar[str]
    """The field's short name, e.g. ``ops``."""
    title: ClassVar[str]
    citation: ClassVar[str]
    """Key in ``cards/citations.bib``."""
    repeats: ClassVar[str]
    """``exact``: the same bits anywhere; ``device``: only on the same device and library versions."""
    needs_labels: ClassVar[bool]
    """Whether the images' classes matter; if not, images without labels will do."""

    def generate(self, train: Split, context: Context) -> Crafted:
        """Make layers for the clean training images.

        Touches no clock and no global state; of disk and network only the pretrained weights that it names.
        """
        ...


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
    budget: Budget
    version: str
    """MAJOR: pixels, labels or order; MINOR: columns; PATCH: bytes on disk or the card."""
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
        if not NAME_PATTERN.fullmatch(self.name):
            raise InputError(
                f"recipe name {self.name!r}: lower-case letters, digits, '-' and '.', at most 96 characters"
            )
        if not 0 < self.poison_rate <= 1:
            raise InputError(f"recipe {self.name}: poison_rate is {self.poison_rate}, not in (0, 1]")
        if not self.methods:
            raise InputError(f"recipe {self.name}: methods is empty; give at least one method")
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
            raise InputError(f"recipe {self.name}: version {self.version!r} is not MAJOR.MINOR.PATCH")
        if self.shard_mebibytes <= 0:
            raise InputError(f"recipe {self.name}: shard_mebibytes is {self.shard_mebibytes}, not above 0")

    def with_seed(self, seed: int) -> Recipe:
        """The same recipe with another seed; a seed that is not the published one shows in the name."""
        if seed == self.seed:
            return self
        return dataclasses.replace(
            self,
            name=f"{self.name}-seed{seed}",
            title=f"{self.title} (seed {seed})",
            seed=seed,
            derived_from=self.derived_from or self.name,
        )

    def as_trial(self, limit_per_class: int) -> Recipe:
        """A trial on the first images of each class: other name, and it says so."""
        if limit_per_class < 1:
            raise InputError(f"--limit {limit_per_class}: must be at least 1")
        return dataclasses.replace(
            self,
            name=f"{self.name}-trial{limit_per_class}",
            title=f"{self.title} (trial)",
            limit_per_class=limit_per_class,
            reduced=f"trial on the first {limit_per_class} training images of each class",
            derived_from=self.derived_from or self.name,
        )

    def with_preprocess(self, step: Preprocess) -> Recipe:
        """The same recipe on images of any sizes; shows in the name.

        Raises:
            InputError: its source is a published one, which says how its images are brought to one size.
        """
        if self.source.url:
            raise InputError(
                f"{self.name} says itself what its images are cut to: {self.source.preprocess or 'nothing'}; "
                "--crop is for recipes on one's own images, such as ops and uc"
            )
        size = f"{step.crop}px" if step.resize is None else f"{step.resize}-{step.crop}px"
        return dataclasses.replace(
            self,
            name=f"{self.name}-{size}",
            title=f"{self.title} ({step.crop} x {step.crop} pixels)",
            source=dataclasses.replace(self.source, preprocess=step),
            derived_from=self.derived_from or self.name,
        )

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, every method and bound with its type's name."""
        return _canonical(self)

    @property
    def digest(self) -> str:
        """The recipe's identity: sha256 of its canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def craft_digests(self) -> tuple[str, ...]:
        """Per method, sha256 of what its layers depend on besides the images: not the name, the card or other methods.

        Recipes that share a method with its settings, source and seed share its layers.
        """
        return tuple(
            hashlib.sha256(_canonical((self.source.name, method, self.seed, self.limit_per_class)).encode()).hexdigest()
            for method in self.methods
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRecipe:
    """What a dataset folder's ``recipe.json`` tells a verifier, without the code that made the dataset."""

    name: str
    title: str
    version: str
    reduced: str | None
    limit_per_class: int | None
    source: SourceSpec
    budget: Budget
    digest: str

    @classmethod
    def parse(cls, text: str) -> PublishedRecipe:
        """Read canonical JSON, as ``Recipe.to_json`` writes it.

        Raises:
            InputError: it is something else.
        """
        try:
            content = json.loads(text)
            return cls(
                name=content["name"],
                title=content["title"],
                version=content["version"],
                reduced=content["reduced"],
                limit_per_class=content["limit_per_class"],
                source=_source_spec(content["source"]),
                budget=tuple(_BOUNDS[bound["type"]](**_without_type(bound)) for bound in content["budget"]),
                digest=hashlib.sha256(text.strip().encode()).hexdigest(),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is not a recipe.json of ours: {error!r}") from error


_BOUNDS: dict[str, type[LInf | L0]] = {"LInf": LInf, "L0": L0}


def _without_type(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != "type"}


def _source_spec(content: dict[str, Any]) -> SourceSpec:
    fields = _without_type(content)
    fields["licence"] = Licence(**_without_type(fields["licence"]))
    if fields["class_names"] is not None:
        fields["class_names"] = tuple(fields["class_names"])
    for name in ("digests", "num_images"):
        if fields[name] is not None:
            fields[name] = tuple((split, value) for split, value in fields[name])
    if fields.get("preprocess") is not None:
        fields["preprocess"] = Preprocess(**_without_type(fields["preprocess"]))
    return SourceSpec(**fields)


def _canonical(value: Any) -> str:
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries that name their type; tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if not _is_absent(value, f)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise InputError(f"a recipe may hold numbers, text, tuples and dataclasses, not {type(value).__name__}")


def _is_absent(value: Any, one: dataclasses.Field[Any]) -> bool:
    return bool(one.metadata.get("absent_if_none")) and getattr(value, one.name) is None
