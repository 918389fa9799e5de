"""How much is trained, and what may be concluded from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ule_datasets.compute.precision import Precision
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.papers.rules import Power
from ule_datasets.victims.protocol import Effort, MultiStep, OneCycle, TrainingProtocol, Triangle
from ule_datasets.victims.table import VICTIMS, starts_trained


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile(Effort):
    """How much is trained, and what may be concluded from it."""

    own: ClassVar[bool] = False
    """Whether models are trained by a function of the user's, of which only the end is known."""

    name: str
    power: Power
    """What may be said about a printed number."""
    num_seeds: int
    """How many runs of each kind are usual."""
    strategies: tuple[str, ...]
    """Trained when nothing else is asked for."""
    faster_of: tuple[Precision, ...] = ()
    """Which of these is ``precision`` is left to the machine (``ule_datasets.experiments.pace``); none: it is fixed."""
    stand_in: str | None = None
    """Trained in place of resnet18, the only model whose claims are then looked at; ``None``: every model is itself."""
    max_train_images: int | None = None
    """Only the first so many rows are used; the canonical order makes them a fixed random subset."""
    max_test_images: int | None = None
    limits: str
    """What this profile cannot say, in one sentence for the report."""

    def trained_for(self, model: str) -> str | None:
        """The model that is trained where a claim speaks of ``model``; ``None``: none.

        Nothing stands in for a model that starts from trained weights.
        """
        if self.stand_in is None or starts_trained(model):
            return model
        return self.stand_in if model in ("resnet18", self.stand_in) else None

    def protocol(self, model: str, strategy: str, *, flippable: bool, compiled: bool = False) -> TrainingProtocol:
        """How a victim trains under a strategy.

        Raises:
            InputError: the strategy is unknown.
        """
        return VICTIMS[model].protocol(self, parse_strategy(strategy, flippable=flippable), compiled=compiled)


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke",
            epochs=10,
            schedule=OneCycle(),
            precision=Precision.FLOAT32,
            power=Power.NONE,
            num_seeds=1,
            strategies=("none", "standard"),
            fine_tuning_epochs=30,
            stand_in="resnet18-w8",
            max_train_images=10_000,
            max_test_images=2_000,
            limits="A narrow network, a subset of the images and 10 epochs show whether the data, the labels and "
            "the shortcut work; they neither confirm nor refute any number of a paper. Without a GPU --profile quick "
            "judges effects.",
        ),
        Profile(
            name="quick",
            epochs=10,
            schedule=Triangle(),
            precision=Precision.FLOAT32,
            faster_of=(Precision.FLOAT32, Precision.BFLOAT16),
            power=Power.EFFECTS,
            num_seeds=3,
            strategies=("standard",),
            fine_tuning_epochs=20,
            stand_in="quicknet",
            limits="All images, but a small network of this project in place of ResNet-18, for 10 epochs: enough to "
            "judge effects; it says nothing about any number of a paper.",
        ),
        Profile(
            name="fast",
            epochs=20,
            schedule=OneCycle(),
            precision=Precision.BFLOAT16,
            power=Power.CONSISTENCY,
            num_seeds=3,
            strategies=("standard",),
            fine_tuning_epochs=20,
            limits="The paper's models and augmentations, for 20 epochs with a one-cycle learning rate and bfloat16 "
            "products: enough to judge effects; a printed number can only be consistent with it or not.",
        ),
        Profile(
            name="paper",
            epochs=200,
            schedule=MultiStep(),
            precision=Precision.TF32,
            power=Power.FULL,
            num_seeds=3,
            strategies=("standard",),
            fine_tuning_epochs=60,
            test_interval=10,
            limits="The protocol as printed; what the paper leaves open (pad width, milestones, the start of PGD, the "
            "pixel step of RandAugment) is chosen as this project documents it.",
        ),
    )
}
