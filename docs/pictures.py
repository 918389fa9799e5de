"""``python docs/pictures.py [FOLDER]``: what the methods do to images, from real builds of a few handwritten digits.

The digits come with scikit-learn, so nothing is downloaded and no picture lies in the repository. A finished build is
left alone: a second call makes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from builders import RECIPES
from builders.digits import SMALL
from ule_datasets.base.progress import Reporter
from ule_datasets.building import BuildOptions, build
from ule_datasets.definition import Recipe
from ule_datasets.methods.adversarial_poisoning import AdversarialPoisoning
from ule_datasets.methods.deepconfuse import DeepConfuse
from ule_datasets.methods.error_maximizing import ClasswiseErrorMaximizing, ErrorMaximizing
from ule_datasets.methods.error_minimizing import ClasswiseErrorMinimizing, ErrorMinimizing
from ule_datasets.methods.method import Method
from ule_datasets.methods.robust_error_minimizing import RobustErrorMinimizing
from ule_datasets.sources.digits import DIGITS

IMAGES_PER_CLASS = 12
FOLDER = Path(__file__).parent.parent / "build" / "pictures"
SHOWN = (
    "ops-cifar10",
    "ops-cifar10-k4",
    "ops-position-cifar10",
    "ops-color-cifar10",
    "randpix-cifar10",
    "em-cifar10",
    "em-c-cifar10",
    "rem-cifar10",
    "cifar10-s",
    "tap-cifar10",
    "emaxn-cifar10",
    "emaxn-c-cifar10",
    "dc-cifar10",
    "lsp-cifar10",
    "ar-cifar10",
    "convolution-cifar10",
)
"""Recipes with each method once, as far as they need no trained weights."""


class Picture(NamedTuple):
    """Clean images, protected ones and what is between them."""

    recipe: Recipe
    path: Path


def pictures(folder: Path = FOLDER) -> Iterator[Picture]:
    """Build a trial of every recipe on digits, and find its picture."""
    for name in SHOWN:
        recipe = RECIPES[name]
        on_digits = replace(recipe, name=f"{name}-on-digits", source=DIGITS, methods=tuple(map(small, recipe.methods)))
        options = BuildOptions(out=folder / name, workers=1, formats=("parquet",))
        built = build(on_digits.as_trial(IMAGES_PER_CLASS), options, Reporter(silent=True))
        assert built.folder is not None
        yield Picture(recipe, built.folder / "figures" / "contact_sheet.png")


def small(method: Method) -> Method:
    """With the surrogate and the bound of ``digits-s``, where there is one."""
    if isinstance(method, ErrorMinimizing):
        return replace(method, epsilon=32, step_size=3.2, surrogate=SMALL)
    if isinstance(method, ClasswiseErrorMinimizing):
        return RECIPES["digits-s"].methods[0]
    if isinstance(method, RobustErrorMinimizing):
        method = replace(method, epsilon=32, step_size=12.8, num_steps=4, attack_epsilon=8, attack_step_size=8)
        return replace(method, num_samples=1, attack_steps=2, surrogate=SMALL, train_steps=40, decay_every=30)
    if isinstance(method, AdversarialPoisoning):
        training = replace(method.training, surrogate=SMALL, epochs=150, milestones=(120,))
        return replace(method, epsilon=16, step_size=0.8, num_steps=50, restarts=1, training=training)
    if isinstance(method, DeepConfuse):
        briefly = replace(method, trials=4, epochs=6, batch_size=32, classifier=SMALL.model, learning_rate=0.1)
        return replace(briefly, epsilon=32, generator_width=4, generator_rate=5e-3)
    if isinstance(method, ErrorMaximizing | ClasswiseErrorMaximizing):
        training = replace(method.training, surrogate=SMALL, epochs=150)
        return replace(method, epsilon=16, step_size=1.6, training=training)
    return method


if __name__ == "__main__":
    for picture in pictures(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER):
        print(f"{picture.recipe.name}: {picture.path}")
