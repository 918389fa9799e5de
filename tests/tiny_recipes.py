"""Recipes of the catalogue on few images with little work, as they would be built otherwise."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

from tiny_weights import save_tiny_weights

from ule_datasets.definition import Recipe
from ule_datasets.methods.adversarial_poisoning import AdversarialPoisoning
from ule_datasets.methods.autoregressive import Autoregressive
from ule_datasets.methods.bait import Bait
from ule_datasets.methods.deepconfuse import DeepConfuse
from ule_datasets.methods.engine.clean_training import CleanTraining
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.methods.error_maximizing import ClasswiseErrorMaximizing, ErrorMaximizing
from ule_datasets.methods.error_minimizing import ClasswiseErrorMinimizing, ErrorMinimizing
from ule_datasets.methods.linearly_separable import LinearlySeparable
from ule_datasets.methods.method import Method
from ule_datasets.methods.robust_error_minimizing import RobustErrorMinimizing
from ule_datasets.methods.synthetic_perturbations import SyntheticPerturbations
from ule_datasets.methods.unlearnable_clusters import UnlearnableClusters
from ule_datasets.models.weights import Weights


@functools.cache
def tiny_weights() -> tuple[Weights, Path]:
    """Weights of a small network, and the file that holds them."""
    return save_tiny_weights(Path(tempfile.mkdtemp()))


def on_small_images(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe for any labelled images of one size, with shards of a few of them and little work for surrogates."""
    nothing = dict.fromkeys(("digests", "num_images", "default_location", "preprocess", "keyed_by"))
    source = dataclasses.replace(recipe.source, **{**nothing, **changes})
    methods = tuple(quick(method) for method in recipe.methods)
    return dataclasses.replace(recipe, source=source, methods=methods, shard_mebibytes=0.5)


def quick(method: Method) -> Method:
    """The same method with a small surrogate, few steps and two rounds at most."""
    if isinstance(method, ErrorMinimizing | ClasswiseErrorMinimizing):
        surrogate = SurrogateSettings(model="convnet3-w16", batch_size=64)
        return dataclasses.replace(method, surrogate=surrogate, num_steps=2, steps_per_round=2, max_rounds=2)
    if isinstance(method, RobustErrorMinimizing):
        surrogate = SurrogateSettings(model="convnet3-w16", batch_size=64, gradient_clip=None)
        return dataclasses.replace(
            method, surrogate=surrogate, num_steps=2, num_samples=1, attack_steps=1, train_steps=2
        )
    briefly = CleanTraining(surrogate=SurrogateSettings(model="convnet3-w16", batch_size=64), epochs=1)
    if isinstance(method, ErrorMaximizing | ClasswiseErrorMaximizing):
        return dataclasses.replace(method, training=briefly, num_steps=2, max_rounds=2)
    if isinstance(method, AdversarialPoisoning):
        return dataclasses.replace(method, training=briefly, num_steps=2, restarts=min(2, method.restarts))
    if isinstance(method, Bait):
        small = {"prior": tiny_weights()[0], "generator_width": 1, "generator_blocks": 1}
        return dataclasses.replace(method, **small, stages=(1, 0, 1), batch_size=128)
    if isinstance(method, DeepConfuse):
        small = {"classifier": "convnet3-w16", "generator_width": 1}
        return dataclasses.replace(method, **small, trials=1, epochs=1, batch_size=128)
    if isinstance(method, Autoregressive):
        return dataclasses.replace(method, least_response=1)
    if isinstance(method, SyntheticPerturbations):
        small = {"surrogate": tiny_weights()[0], "num_clusters": 3, "kmeans_restarts": 1}
        return dataclasses.replace(method, **small, noise=LinearlySeparable(per_side=4))
    if isinstance(method, UnlearnableClusters):
        small = {"surrogate": tiny_weights()[0], "generator_width": 2, "generator_blocks": 1}
        return dataclasses.replace(method, **small, num_clusters=3, kmeans_restarts=1, epochs=1, batch_size=200)
    return method
