"""What trains on a dataset without leave: what every victim promises, and what those share that learn in the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ule_datasets.base.checkpoint import Forgetful, Keeper
from ule_datasets.base.seeds import Seed
from ule_datasets.models.architectures import forward_flop, model_factory
from ule_datasets.models.weights import Weights
from ule_datasets.victims import loop
from ule_datasets.victims.data import TrainingData, TrainingSet
from ule_datasets.victims.history import EpochRecord, RunHistory
from ule_datasets.victims.protocol import Effort, TrainingProtocol
from ule_datasets.victims.strategy import Strategy

_TRAINING_PASSES = 3  # a training step costs so many forward passes: one forward, two for the gradients


class Victim(ABC):
    """One way to train on images and labels: a frozen dataclass, and a row in ``ule_datasets.victims.table.VICTIMS``.

    Its fields, and the code of its module, belong to the identity of its runs. It learns labels by cross entropy in the
    one loop, as far as it does not say otherwise. A field that takes the place of a property here has ``field()`` or a
    default, or the property would be its default.
    """

    __slots__ = ()

    source: ClassVar[str]
    """The publication, or the code, that it is after."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What users, claims and protocols call it."""

    @property
    @abstractmethod
    def architecture(self) -> str:
        """Of its network, for ``model_factory``."""

    @property
    def weights(self) -> Weights | None:
        """The trained weights that it starts from, whose file ``train`` is given; ``None``: random ones."""
        return None

    @property
    def depends_on(self) -> tuple[object, ...]:
        """What else decides its results, looked up in a table: the maker of its model."""
        return (model_factory(self.architecture),)

    @abstractmethod
    def protocol(self, effort: Effort, strategy: Strategy, *, compiled: bool = False) -> TrainingProtocol:
        """How it trains; the digest of trained weights is left to whoever has their file (``start``)."""

    @abstractmethod
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

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Of each image, by default cross entropy: float32 [B, classes] and int64 [B] to float32 [B]."""
        return functional.cross_entropy(outputs, labels, reduction="none")

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
        keeper: Keeper = Forgetful(),  # noqa: B008 (has no state)
    ) -> RunHistory:
        """Train a new model and test it after every epoch that the protocol says.

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
            keeper: is asked between steps whether to keep the state of the run; a run that begins with a kept state
                gives the same history as one that was never interrupted, and ``on_epoch`` is told what is new in it.

        Raises:
            InputError: ``start`` does not hold its weights.
        """
        model = self._first_model(data, protocol, seed, start)
        return loop.train(
            model,
            self.losses,
            data,
            protocol,
            seed=seed,
            device=device,
            on_epoch=on_epoch,
            weights=weights,
            keeper=keeper,
        )

    def seconds(
        self, data: TrainingData, protocol: TrainingProtocol, *, device: torch.device, start: Path | None = None
    ) -> float:
        """How long ``train`` will take, from the time of a few real steps."""
        return loop.time_run(self._first_model(data, protocol, 0, start), self.losses, data, protocol, device=device)

    def flop(self, data: TrainingSet, protocol: TrainingProtocol) -> float:
        """Floating-point operations of ``train``; a multiply-add counts as two.

        Every training image goes forwards, backwards and through the attacks; every test image forwards, after the
        epochs that are tested.
        """
        forward = forward_flop(self.architecture, data.num_classes, data.image_size)
        passes = _TRAINING_PASSES + sum(part.passes for part in protocol.strategy.parts)
        return forward * (protocol.epochs * passes * data.num_train + len(protocol.tested_epochs) * data.num_test)

    def _first_model(self, data: TrainingData, protocol: TrainingProtocol, seed: int, start: Path | None) -> nn.Module:
        return self.model(protocol, data.num_classes, seed=Seed(seed).integer32("initialisation"), start=start)
