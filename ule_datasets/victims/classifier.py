"""What victims share that learn to classify in the one loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ule_datasets.models.architectures import forward_flop, model_factory
from ule_datasets.victims import loop
from ule_datasets.victims.data import TrainingData, TrainingSet
from ule_datasets.victims.history import EpochRecord, RunHistory
from ule_datasets.victims.protocol import TrainingProtocol

TRAINING_PASSES = 3
"""A training step costs so many forward passes: one forward, two for the gradients."""
ATTACK_PASSES = 2
"""A step of an attack: one forward, one for the gradient of the images."""


class Classifier:
    """A network that learns labels by cross entropy; a subclass says which network, and how it is trained."""

    __slots__ = ()

    @property
    def architecture(self) -> str:
        """For ``model_factory``."""
        raise NotImplementedError

    @property
    def depends_on(self) -> tuple[object, ...]:
        """What makes the network."""
        return (model_factory(self.architecture),)

    def model(self, protocol: TrainingProtocol, num_classes: int, *, seed: int, start: Path | None) -> nn.Module:
        """The network that training starts from."""
        raise NotImplementedError

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy of each image."""
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
    ) -> RunHistory:
        """Train in the loop."""
        return loop.train(
            self, data, protocol, seed=seed, device=device, on_epoch=on_epoch, start=start, weights=weights
        )

    def seconds(
        self, data: TrainingData, protocol: TrainingProtocol, *, device: torch.device, start: Path | None = None
    ) -> float:
        """Time some steps of the loop."""
        return loop.time_run(self, data, protocol, device=device, start=start)

    def flop(self, data: TrainingSet, protocol: TrainingProtocol) -> float:
        """Every training image forwards, backwards and through the attacks; every test image forwards."""
        forward = forward_flop(self.architecture, data.num_classes, data.image_size)
        gradients = sum(part.gradients for part in protocol.strategy.parts)
        passes = TRAINING_PASSES + ATTACK_PASSES * gradients
        return forward * protocol.epochs * (passes * data.num_train + data.num_test)
