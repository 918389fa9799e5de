"""What a method of making perturbations is, what it may use, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ule_datasets.base.checkpoint import Checkpoint, MemoryCheckpoint
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.executor import Executor
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.bounds import Budget, LInf
from ule_datasets.data.perturbation import Layer
from ule_datasets.data.quantization import Apply, Quantize, largest_level
from ule_datasets.data.split import Split
from ule_datasets.models.weights import Weights


class Repeats(StrEnum):
    """Where a method makes the same bits again."""

    EXACT = "exact"
    """Anywhere; it takes seconds, and is never kept for later."""
    DEVICE = "device"
    """On the same device with the same versions of the libraries; it takes long, and is kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a method may use besides the images."""

    num_classes: int
    seed: Seed
    executor: Executor = field(default_factory=LocalExecutor)
    """Where independent pieces of work run; never changes the result."""
    device: str = "cpu"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:INDEX``; matters to methods that repeat on one device only."""
    weights: Path | None = None
    """A file of pretrained weights, or a folder of them, to look at before downloading."""
    release: Path | None = None
    """A file or folder of others, for a method that imports it."""
    reporter: Reporter = field(default_factory=Reporter)
    checkpoint: Checkpoint = field(default_factory=MemoryCheckpoint)
    """Where long work keeps its state, and finds it again."""
    layers: tuple[Layer, ...] = ()
    """What the recipe's earlier methods made of the same images, in the order in which it is applied."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Crafted:
    """What a method returns."""

    layers: tuple[Layer, ...]
    notes: dict[str, Any] = field(default_factory=dict)
    """Provenance for the perturbation's record and the card: JSON values."""


class Method(Protocol):
    """A way to make a perturbation: a frozen dataclass of hyper-parameters, and what others need to know of it."""

    __slots__ = ()

    identifier: ClassVar[str]
    """The field's short name, e.g. ``ops``."""
    title: ClassVar[str]
    citation: ClassVar[str]
    """Key in ``cards/citations.bib``; empty for a method that nobody has published."""
    repeats: ClassVar[Repeats]
    needs_labels: ClassVar[bool]
    """Whether the images' classes matter; if not, images without labels will do."""
    uses_layers: ClassVar[bool] = False
    """Whether what it makes depends on what the recipe's earlier methods made."""
    restores: ClassVar[bool] = False
    """Whether it takes away what the earlier methods did: a dataset that ends with it is a learnable version."""
    redrawable: ClassVar[bool] = False
    """Whether it is a draw at random, made anew by the seed for every repetition of an experiment."""
    imports: ClassVar[bool] = False
    """Whether it reads what others have released; that is kept for later, as crafts are that take long."""
    round_name: ClassVar[str] = "round"
    """What an entry of the trace of its unfinished work is called."""

    @property
    def draws(self) -> bool:
        """Whether anything in it is drawn at random, so that another seed makes something else."""
        return True

    @property
    def heavy(self) -> bool:
        """Whether it goes through a model so often that tens of thousands of images want a GPU."""
        return self.repeats == Repeats.DEVICE

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The trained models that it starts from."""
        return ()

    @property
    def bounds(self) -> Budget:
        """How far its layers change an image at most, a bound for each."""
        ...

    @property
    def unsettled(self) -> bool:
        """Whether it takes whatever release it is given, so that only reading that says what it will make."""
        return False

    def settled(self, notes: Mapping[str, Any]) -> Method:
        """The same for one release alone, by the notes of its craft from that release."""
        del notes
        return self

    @property
    def withheld(self) -> str:
        """Why nothing that it makes may be published; empty: it may."""
        return ""

    def shortfall(self, notes: Mapping[str, Any]) -> str:
        """What a craft fell short of so far that it hardly protects, by the notes that it left; empty: nothing."""
        return ""

    def check_amount(self, num_images: int) -> None:
        """Refuse too few training images, before anything is done; by default no number is too small.

        Raises:
            InputError: there are too few.
        """
        del num_images

    def generate(self, train: Split, context: Context) -> Crafted:
        """Make layers for the clean training images.

        Touches no clock and no global state; of disk and network only the pretrained weights that it names.
        """
        ...


class BoundedNoise(Method):
    """A method whose one layer is noise within a bound, made on a device in a long time."""

    __slots__ = ()

    repeats: ClassVar[Repeats] = Repeats.DEVICE
    epsilon: float
    """The bound on every channel of every pixel, in units of 1/255."""
    apply: Apply
    quantize: Quantize

    @property
    def bounds(self) -> Budget:
        """Of what ``epsilon`` becomes in bytes."""
        return (LInf(levels=largest_level(self.epsilon, self.quantize, self.apply)),)
