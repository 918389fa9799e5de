"""What trains on a dataset without leave: the promises that every victim keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import nn

from ule_datasets.compute.precision import Precision
from ule_datasets.models.weights import Weights
from ule_datasets.victims.data import TrainingData, TrainingSet
from ule_datasets.victims.history import EpochRecord, RunHistory
from ule_datasets.victims.protocol import MultiStep, OneCycle, TrainingProtocol
from ule_datasets.victims.strategy import Strategy


class Effort(Protocol):
    """How much is trained."""

    @property
    def epochs(self) -> int:
        """From random weights."""

    @property
    def fine_tuning_epochs(self) -> int:
        """From trained weights."""

    @property
    def schedule(self) -> OneCycle | MultiStep:
        """From random weights."""

    @property
    def precision(self) -> Precision:
        """Numbers inside products."""


class Victim(Protocol):
    """One way to train on images and labels: a frozen dataclass, and a row in ``ule_datasets.victims.table.VICTIMS``.

    Its fields, and the code of its module, belong to the identity of its runs.
    """

    source: ClassVar[str]
    """The publication, or the code, that it is after."""

    @property
    def name(self) -> str:
        """What users, claims and protocols call it."""

    @property
    def weights(self) -> Weights | None:
        """The trained weights that it starts from, whose file ``train`` is given; ``None``: random ones."""

    @property
    def depends_on(self) -> tuple[object, ...]:
        """What else decides its results, looked up in a table: the maker of its model."""

    def protocol(self, effort: Effort, strategy: Strategy, *, compiled: bool = False) -> TrainingProtocol:
        """How it trains; the digest of trained weights is left to whoever has their file (``start``)."""

    def model(self, protocol: TrainingProtocol, num_classes: int, *, seed: int, start: Path | None) -> nn.Module:
        """The model that training starts from, on the CPU; torch's global generator is left as it was.

        Args:
            protocol: how it is trained.
            num_classes: its outputs.
            seed: of all that is not in the file.
            start: a file of weights as for ``train``; what that kept makes the trained model.

        Raises:
            InputError: ``start`` does not hold its weights.
        """

    def train(
        self,
        data: TrainingData,
        protocol: TrainingProtocol,
        *,
        seed: int,
        device: torch.device,
        on_epoch: Callable[[EpochRecord], None],
        start: Path | None = None,
        weights: Path | None = None,
    ) -> RunHistory:
        """Train a new model and test it after every epoch.

        The seed fixes every random choice, independently of the data: runs on different data with one seed are
        paired. Repeating a run on the same device and number of threads gives the same history. Torch's global
        random state is left as it was. Inside a process group of torch the processes share the run.

        Args:
            data: what to train and test on.
            protocol: how to train; one of its own, changed as one likes.
            seed: any integer.
            device: where to train.
            on_epoch: called after every epoch.
            start: a file of weights to start from (``protocol.start`` names it in the result): those of
                ``self.weights``; without such, what an earlier run of this victim kept, or ``None``.
            weights: where the trained weights go; ``None``: they are not kept.

        Raises:
            InputError: ``start`` does not hold its weights.
        """

    def seconds(
        self, data: TrainingData, protocol: TrainingProtocol, *, device: torch.device, start: Path | None = None
    ) -> float:
        """How long ``train`` will take, from the time of a few real steps."""

    def flop(self, data: TrainingSet, protocol: TrainingProtocol) -> float:
        """Floating-point operations of ``train``; a multiply-add counts as two."""
