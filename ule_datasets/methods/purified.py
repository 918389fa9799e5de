"""A countermeasure as the last step of a recipe: what it makes of the images that the steps before have perturbed.

Purifying a protected dataset gives a "learnable" one. It is built, checked and published like all others, because it
is one more exact layer: purified minus perturbed, which added to the perturbed bytes gives the purified ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ule_datasets.base.checkpoint import SECONDS_BETWEEN_CHECKPOINTS, Checkpoint, Pace, State
from ule_datasets.base.errors import InputError
from ule_datasets.compute.devices import describe_device, pick_device
from ule_datasets.data.bounds import Budget, Unbounded
from ule_datasets.data.perturbation import Additive, Perturbation, Support
from ule_datasets.data.split import Split
from ule_datasets.methods.method import Context, Crafted, Method, Repeats
from ule_datasets.models.weights import Weights
from ule_datasets.victims.preparation import Preparation
from ule_datasets.victims.strategy import Countermeasure, EachImage


@dataclass(frozen=True, kw_only=True, slots=True)
class Purified(Method):
    """The images as a countermeasure prepares them for training: what the recipe's earlier methods made, changed."""

    repeats: ClassVar[Repeats] = Repeats.DEVICE
    needs_labels: ClassVar[bool] = True
    uses_layers: ClassVar[bool] = True
    restores: ClassVar[bool] = True

    countermeasure: Countermeasure
    """One that prepares whole training sets."""

    def __post_init__(self) -> None:
        if type(self.countermeasure).prepare is Countermeasure.prepare:
            raise InputError(f"Purified: {self.countermeasure.name} changes images during training, not before it")

    @property
    def identifier(self) -> str:  # type: ignore[override]
        """The countermeasure's word."""
        return self.countermeasure.word

    @property
    def title(self) -> str:  # type: ignore[override]
        """For example ``purified by jpeg``."""
        return f"purified by {self.countermeasure.name}"

    @property
    def citation(self) -> str:  # type: ignore[override]
        """The countermeasure's."""
        return self.countermeasure.citation

    @property
    def weights(self) -> tuple[Weights, ...]:
        """Those that the countermeasure starts from."""
        return self.countermeasure.weights

    @property
    def heavy(self) -> bool:
        """Not where each image is changed by itself."""
        return not isinstance(self.countermeasure, EachImage)

    @property
    def bounds(self) -> Budget:
        """None."""
        return (Unbounded(),)

    def generate(self, train: Split, context: Context) -> Crafted:
        """Purify what the earlier methods made; the layer is exact, whatever the countermeasure did."""
        device = pick_device(context.device)
        earlier = Perturbation(layers=context.layers, source_digest=train.digest)
        perturbed = earlier.apply(train.pixels(), train.labels, train.keys)
        preparation = Preparation(
            pieces=CheckpointedPieces(context.checkpoint),
            seed=context.seed,
            device=str(device),
            weights=context.weights,
            executor=context.executor,
            reporter=context.reporter,
        )
        purified = np.asarray(self.countermeasure.prepare(perturbed, train.labels, preparation))
        levels = purified.astype(np.int16) - perturbed
        layer = Additive(levels=levels, support=Support.SAMPLE, keys=train.keys)
        return Crafted(layers=(layer,), notes={"environments": [{"device": describe_device(device)}]})


class CheckpointedPieces:
    """Finished pieces in memory and, at most once a minute, in the craft's checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Begin with what an interrupted craft has left."""
        self._checkpoint = checkpoint
        state = checkpoint.load()
        self._pieces = {} if state is None else dict(state.arrays)
        self._pace = Pace(SECONDS_BETWEEN_CHECKPOINTS)

    def has(self, name: str) -> bool:
        """Whether a piece is finished."""
        return name in self._pieces

    def keep(self, name: str, images: np.ndarray) -> None:
        """Keep a finished piece, and perhaps save all that are."""
        self._pieces[name] = images
        if self._pace.due():
            self._checkpoint.save(State(arrays=self._pieces))
            self._pace.saved()

    def joined(self, names: Sequence[str]) -> np.ndarray:
        """All images of some pieces, one piece after the other."""
        return np.concatenate([self._pieces[name] for name in names])
