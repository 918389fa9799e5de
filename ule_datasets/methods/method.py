"""What a method of making perturbations is, what it may use, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ule_datasets.base.checkpoint import Checkpoint, MemoryCheckpoint
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.executor import Executor, LocalExecutor
from ule_datasets.data.perturbation import Layer
from ule_datasets.data.split import Split


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
