"""Synthetic perturbations (SynPer): linearly separable noise for images whose labels nobody knows yet.

Da Yu, Huishuai Zhang, Wei Chen, Jian Yin, Tie-Yan Liu, "Availability Attacks Create Shortcuts", KDD 2022, arXiv
2111.00898, as the paper on Unlearnable Clusters (Zhang et al., CVPR 2023, table 1) calls it, and compares it with its
own method where labels are not known. What its authors took for labels, and how large they let the noise be, is not
published. Here images are divided into clusters as that method does it, by k-means on the features f of a trained
model, and the cluster of an image is the class of its noise:

    noise of x = a point of the cloud of cluster(f(x)),    as in ``linearly_separable``
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ule_datasets.base.checkpoint import State
from ule_datasets.base.lazy import lazy
from ule_datasets.base.shown import counted
from ule_datasets.compute.parts import Part
from ule_datasets.compute.precision import Precision
from ule_datasets.data.bounds import Budget
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.clustering import Clustering, FrozenFeatures, agreement, check_enough, versions
from ule_datasets.methods.engine.drawn import drawn_for_each
from ule_datasets.methods.engine.settings import check_at_least
from ule_datasets.methods.engine.stepwise import Estimate, Phase, Stepwise
from ule_datasets.methods.linearly_separable import Clouds, LinearlySeparable
from ule_datasets.methods.method import Context, Crafted, Method, Repeats
from ule_datasets.models.weights import Weights, obtain

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticPerturbations(Method):
    """Flat patches for every image, drawn from the cloud of its cluster (SynPer)."""

    identifier: ClassVar[str] = "synper"
    title: ClassVar[str] = "Synthetic perturbations"
    citation: ClassVar[str] = "yu2022shortcuts"
    repeats: ClassVar[Repeats] = Repeats.DEVICE
    needs_labels: ClassVar[bool] = False

    surrogate: Weights
    """The trained model whose features tell images apart: what its last linear layer sees."""
    normalise: bool = True
    """Whether the surrogate sees its inputs with its mean and deviation."""
    num_clusters: int = 10
    """As in Unlearnable Clusters."""
    kmeans_restarts: int = 10
    """Runs of k-means, the best of which counts."""
    feature_batch: int = 64
    """Images whose features are computed at a time."""
    noise: LinearlySeparable = field(default_factory=lambda: LinearlySeparable(epsilon=16, patch=32))
    """For 224 x 224 pixels: as many grey levels as the noise that it is compared with has; patches as in APBench."""

    def __post_init__(self) -> None:
        check_at_least(2, self, "num_clusters")
        check_at_least(1, self, "kmeans_restarts", "feature_batch")

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The surrogate."""
        return (self.surrogate,)

    @property
    def bounds(self) -> Budget:
        """That of the noise."""
        return self.noise.bounds

    def check_amount(self, num_images: int) -> None:
        """Every cluster needs an image."""
        check_enough(self.title, num_images, self.num_clusters)

    def generate(self, train: Split, context: Context) -> Crafted:
        """Divide the images on ``context.device``, then draw noise for each.

        Raises:
            InputError: fewer images than clusters, too few patches for them, or weights that are nowhere.
        """
        clouds = Clouds(self.noise, context.seed, self.num_clusters, train.images.shape[1:])
        groups = Groups(self, train, context)
        notes = groups.run()
        grouped = replace(train, labels=groups.clustering.members.astype(np.int64))
        return Crafted(layers=(drawn_for_each(grouped, clouds.levels),), notes=notes)


class Groups(Stepwise):
    """Features of all images, a batch a step, and clusters of them."""

    method: SyntheticPerturbations

    def __init__(self, method: SyntheticPerturbations, train: Split, context: Context) -> None:
        super().__init__(method, context, Precision.FLOAT32)
        method.check_amount(len(train))
        self.train = train
        self.weights = obtain(method.surrogate, context.weights, context.reporter)
        self.frozen = FrozenFeatures(
            method.surrogate, self.weights.path, normalise=method.normalise, device=self.device
        )
        self.features = torch.empty(len(train), 0)
        """Without columns until the work has begun."""
        self.clustering = Clustering(members=np.empty(0, dtype=np.int32), centres=np.empty((0, 0)), inertia=0.0)

    def environment(self) -> dict[str, str]:
        """Also the library that divides into clusters."""
        return {**super().environment(), **versions()}

    def parts(self) -> dict[str, Part]:
        """Features so far, and the clusters."""
        return {"features": self.features, "members": torch.from_numpy(self.clustering.members)}

    def facts(self) -> dict[str, Any]:
        """The sum of squares in the clusters."""
        return {"inertia": self.clustering.inertia}

    def restore(self, state: State) -> None:
        """Take over features and clusters, whose shapes are known only now."""
        self.features = torch.from_numpy(np.array(state.arrays["features"]))
        members = np.array(state.arrays["members"])
        self.clustering = Clustering(members=members, centres=np.empty((0, 0)), inertia=state.facts["inertia"])

    def following(self) -> Phase | None:
        """One pass over the images."""
        if self.done:
            return None
        batches = range(0, len(self.train), self.method.feature_batch)
        return Phase(label="features", unit="batch", steps=batches, step=self.look, end=self.divide)

    def standing(self) -> str:
        """How many images were looked at."""
        return f" after {counted(self.position, 'image')}"

    def look(self, first: int) -> None:
        """Features of a batch of images."""
        size = self.method.feature_batch
        features = torch.from_numpy(self.frozen.of(self.train.pixels(np.arange(first, self._stop(first))), size))
        if not self.features.shape[1]:
            self.features = torch.zeros(len(self.train), features.shape[1])
        self.features[first : first + size] = features

    def divide(self) -> str:
        """Find the clusters."""
        method, features = self.method, self.features.numpy()
        seed, restarts = self._number("k-means"), method.kmeans_restarts
        self.clustering = Clustering.of(features, method.num_clusters, restarts=restarts, seed=seed)
        sizes = np.bincount(self.clustering.members)
        return (
            f"{method.num_clusters} clusters of {sizes.min():,} to {sizes.max():,} images by {features.shape[1]} "
            f"features of {method.surrogate.name}"
        )

    def notes(self) -> dict[str, Any]:
        """What is known of the clusters."""
        members = self.clustering.members
        return {
            "sizes": np.bincount(members, minlength=self.method.num_clusters).tolist(),
            "inertia": self.clustering.inertia,
            "agreement_with_labels": agreement(self.train.labels, members),
            "environments": self.environments,
            "weights": self.weights.provenance(self.method.surrogate),
        }

    def estimate(self) -> Estimate | None:
        """None: one forward pass of each image."""
        return None

    def _stop(self, first: int) -> int:
        return min(first + self.method.feature_batch, len(self.train))
