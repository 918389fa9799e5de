"""Unlearnable Clusters: noise for images whose labels nobody knows yet.

Jiaming Zhang, Xingjun Ma, Qi Yi, Jitao Sang, Yu-Gang Jiang, Yaowei Wang, Changsheng Xu, "Unlearnable Clusters: Towards
Label-agnostic Unlearnable Examples", CVPR 2023, arXiv 2301.01217. A trained surrogate f maps images to features, and
k-means divides these into p clusters with centres mu. One perturbation a cluster then pulls images onto one point, the
centre of a wrong cluster g(i) = (i + offset) mod p:

    min over G_i of E over x of KL( softmax(mu_g(i)) || softmax(f(clip(x + delta_i))) ),   delta_i = clip(G_i(sigma_i))

with a generator network G_i, trained by Adam, and a fixed random input sigma_i. Every image gets the perturbation of
its own cluster. Labels play no part.

UC-CLIP is the same with another surrogate: the image encoder of CLIP. Settings that the paper leaves open follow the
official code; where that code does something unexpected there is a named option.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.compute.precision import Precision
from ule_datasets.data.bounds import Budget, LInf
from ule_datasets.data.perturbation import Additive, Support
from ule_datasets.data.quantization import Apply, Quantize, largest_level
from ule_datasets.data.split import Split
from ule_datasets.methods.method import Context, Crafted, Method, Repeats
from ule_datasets.models.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor


class TrainOn(StrEnum):
    """The images that the generator of a cluster is trained on."""

    ALL = "all"
    """All training images (official code): a perturbation that moves any image to the wrong centre."""
    CLUSTER = "cluster"
    """Only the images of the cluster, which are the ones that get the perturbation."""

    def rows(self, members: np.ndarray, cluster: int) -> np.ndarray:
        """Indices of these images (int64), from the cluster of every image."""
        return np.flatnonzero(members == cluster) if self is TrainOn.CLUSTER else np.arange(len(members))


class BoundRule(StrEnum):
    """How a generator's output in (-1, 1) becomes a perturbation within the bound."""

    CLAMP = "clamp"
    """Taken in units of 1 and cut off at the bound (official code): where it is cut off, there is no gradient."""
    SCALE = "scale"
    """Multiplied by the bound."""

    def bounded(self, outputs: Tensor, epsilon: int) -> Tensor:
        """The perturbation in units of 1/255, of the same shape."""
        return (255 * outputs).clamp(-epsilon, epsilon) if self is BoundRule.CLAMP else epsilon * outputs


class CropRule(StrEnum):
    """The canvas from which generators see random windows of the images' own size, mirrored half of the time."""

    PAD = "pad"
    """The image with 4 pixels of black on every side: usual for 32 x 32 pixels."""
    ENLARGE = "enlarge"
    """The image enlarged to 8/7 (bilinear): windows of 224 from 256 pixels, as the official code has it."""

    @property
    def enlarges(self) -> bool:
        """Whether the canvas is a larger image, not a padded one."""
        return self is CropRule.ENLARGE

    def canvas(self, size: int) -> int:
        """Rows (or columns) of the canvas for images of so many."""
        return size + 8 if self is CropRule.PAD else round(size * 8 / 7)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnlearnableClusters(Method):
    """One perturbation for each cluster of images (UC; with CLIP's image encoder as the surrogate, UC-CLIP)."""

    identifier: ClassVar[str] = "uc"
    title: ClassVar[str] = "Unlearnable Clusters"
    citation: ClassVar[str] = "zhang2023clusters"
    repeats: ClassVar[Repeats] = Repeats.DEVICE
    needs_labels: ClassVar[bool] = False

    surrogate: Weights
    """The trained model whose features count: what its last linear layer sees, or the embedding of an encoder."""
    normalise: bool = True
    """Whether the surrogate sees its inputs with its mean and deviation."""
    epsilon: int = 16
    """Bound on every channel of every pixel, in whole units of 1/255."""
    num_clusters: int = 10
    """p. The paper's; only configured for Pets in the official code."""
    target_offset: int = 1
    """Images of cluster i are pulled to the centre of cluster (i + offset) mod p."""
    kmeans_restarts: int = 10
    """Runs of k-means, the best of which counts. The official code leaves it to the library, which changed it."""
    feature_batch: int = 64
    """Images whose features are computed at a time."""
    epochs: int = 50
    """Passes of each generator over its images."""
    batch_size: int = 256
    """Images of a step, in order; the last batch of a pass is smaller."""
    learning_rate: float = 1e-4
    """Of Adam, at the first step; it falls along half a cosine."""
    final_rate: float = 1e-6
    """Where the cosine ends."""
    weight_decay: float = 5e-4
    """Added to the gradient (not decoupled)."""
    generator_width: int = 64
    """Channels after the generator's first convolution; four times as many in its residual blocks."""
    generator_blocks: int = 6
    """Residual blocks of the generator."""
    train_on: TrainOn = TrainOn.ALL
    """Which of them the paper means is not certain."""
    bound: BoundRule = BoundRule.CLAMP
    augmentation: CropRule = CropRule.ENLARGE
    """What the generators' training sees of the images."""
    apply: Apply = Apply.SIGNED
    """What the dataset uses of the noise; it is computed with both signs in any case."""
    quantize: Quantize = Quantize.HALF_UP
    precision: Precision = Precision.FLOAT32
    """Of the surrogate while generators are trained; features for k-means are in float32."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        counted = (
            "kmeans_restarts", "feature_batch", "epochs", "batch_size", "generator_width", "generator_blocks",
        )  # fmt: skip
        for field in counted:
            if getattr(self, field) < 1:
                raise InputError(f"{name}: {field} is {getattr(self, field)}, must be at least 1")
        if self.epsilon not in range(1, 256):
            raise InputError(f"{name}: epsilon is {self.epsilon}, must be a whole number of 1 .. 255 (units of 1/255)")
        if self.num_clusters < 2:
            raise InputError(f"{name}: num_clusters is {self.num_clusters}, must be at least 2")
        if self.target_offset % self.num_clusters == 0:
            raise InputError(
                f"{name}: target_offset {self.target_offset} is a multiple of the {self.num_clusters} clusters: images "
                "would be pulled to their own centre; choose 1 .. num_clusters - 1"
            )
        if not 0 <= self.final_rate <= self.learning_rate < float("inf") or self.learning_rate == 0:
            raise InputError(
                f"{name}: learning_rate is {self.learning_rate} and final_rate {self.final_rate}, must be "
                "0 <= final_rate <= learning_rate, learning_rate above 0"
            )
        if not 0 <= self.weight_decay < float("inf"):
            raise InputError(f"{name}: weight_decay is {self.weight_decay}, must be at least 0")

    def target(self, cluster: int) -> int:
        """The cluster whose centre the images of another one are pulled to."""
        return (cluster + self.target_offset) % self.num_clusters

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The surrogate."""
        return (self.surrogate,)

    @property
    def bounds(self) -> Budget:
        """Of what ``epsilon`` becomes in bytes."""
        return (LInf(levels=largest_level(self.epsilon, self.quantize, self.apply)),)

    def generate(self, train: Split, context: Context) -> Crafted:
        """Cluster, then train one generator a cluster on ``context.device``; an additive layer with an entry for each.

        Raises:
            InputError: fewer images than clusters, images of a size that generators cannot make, or weights that are
                nowhere or of another architecture.
        """
        from ule_datasets.methods.engine.unlearnable_clusters import Clusters

        clusters = Clusters(self, train, context)
        notes = clusters.run()
        layer = Additive(
            levels=clusters.levels(), support=Support.CLUSTER, keys=train.keys, members=clusters.members
        )  # fmt: skip
        return Crafted(layers=(layer,), notes=notes)
