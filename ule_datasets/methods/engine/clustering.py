"""How methods without labels see images: features of a trained model, k-means on them, and random windows."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.base.progress import Reporter
from ule_datasets.base.shown import counted
from ule_datasets.compute.devices import products_in
from ule_datasets.compute.precision import Precision
from ule_datasets.models.weights import Weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ule_datasets.victims import augmentation
else:
    torch, augmentation = lazy("torch"), lazy("ule_datasets.victims.augmentation")

SILENT = Reporter(silent=True)


class FrozenFeatures:
    """A trained map from images to features, in evaluation mode and without gradients of its parameters.

    Batch normalisation is folded into the convolutions where the architecture can be traced; channels-last in memory.
    """

    def __init__(self, weights: Weights, path: Path, *, normalise: bool, device: torch.device) -> None:
        from ule_datasets.models.pretrained import build_features

        model = build_features(weights, path, normalise=normalise).requires_grad_(False)
        self._model = _folded(model).to(device).to(memory_format=torch.channels_last)
        self._device = device

    def __call__(self, levels: Tensor) -> Tensor:
        """Features, float32 [B, D], of images in units of 1/255, float32 [B, C, H, W]."""
        features: Tensor = self._model(levels / 255)
        return features.float()

    def of(self, images: np.ndarray, batch: int, reporter: Reporter = SILENT) -> np.ndarray:
        """Features, float32 [N, D], of uint8 [N, H, W, C], with float32 products.

        Every batch is filled up to the same size, so that all images go through the same kernels.
        """
        parts, firsts = [], range(0, len(images), batch)
        with products_in(Precision.FLOAT32), torch.no_grad():
            for first in reporter.track(firsts, total=len(firsts), label="features", unit="batch"):
                rows = np.minimum(np.arange(first, first + batch), len(images) - 1)
                shown = torch.from_numpy(images[rows]).to(self._device)
                parts.append(self(to_levels(shown))[: len(images) - first].cpu().numpy())
        return np.concatenate(parts)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Clustering:
    """The result of k-means."""

    members: np.ndarray
    """The cluster of every image, int32 [N]."""
    centres: np.ndarray
    """Float32 [p, D]."""
    inertia: float
    """Sum of the squared distances of all features to their centres."""

    @classmethod
    def of(cls, features: np.ndarray, count: int, *, restarts: int, seed: int) -> Clustering:
        """Lloyd's algorithm on features float32 [N, D] from k-means++ starts, the best of ``restarts``; on one thread.

        Raises:
            InputError: features are not finite, or too few of them differ.
        """
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        if not np.isfinite(features).all():
            raise InputError("the surrogate's features of some images are not finite: other weights are needed")
        with threadpool_limits(limits=1):
            found = KMeans(n_clusters=count, n_init=restarts, random_state=seed, algorithm="lloyd").fit(features)
        different = len(np.unique(found.labels_))
        if different < count:
            raise InputError(
                f"the surrogate tells only {different} kinds of images apart, too few for {count} clusters"
            )
        return cls(
            members=found.labels_.astype(np.int32),
            centres=found.cluster_centers_.astype(np.float32),
            inertia=float(found.inertia_),
        )

    @property
    def sizes(self) -> list[int]:
        """Images of each cluster."""
        sizes: list[int] = np.bincount(self.members, minlength=len(self.centres)).tolist()
        return sizes


def check_enough(title: str, num_images: int, num_clusters: int) -> None:
    """Refuse fewer images than clusters, for a method of this title: every cluster needs one."""
    if num_images < num_clusters:
        raise InputError(f"{title}: {counted(num_images, 'image')}, too few for {num_clusters} clusters")


def agreement(labels: np.ndarray, members: np.ndarray) -> float | None:
    """Normalised mutual information, 0 .. 1, of classes and clusters, each int [N]; ``None``: there is one class."""
    from sklearn.metrics import normalized_mutual_info_score

    return round(float(normalized_mutual_info_score(labels, members)), 4) if len(np.unique(labels)) > 1 else None


def versions() -> dict[str, str]:
    """Of the library that divides into clusters, by its name."""
    import sklearn

    return {"scikit-learn": str(sklearn.__version__)}


def to_levels(images: Tensor) -> Tensor:
    """Uint8 [B, H, W, C] to float32 [B, C, H, W] in units of 1/255, channels-last in memory."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last)


class CropRule(StrEnum):
    """The canvas from which generators see random windows of the images' own size, mirrored half of the time."""

    PAD = "pad"
    """The image with 4 pixels of black on every side: usual for 32 x 32 pixels."""
    ENLARGE = "enlarge"
    """The image enlarged to 8/7 (bilinear): windows of 224 from 256 pixels, as the official code has it."""

    def canvas(self, size: int) -> int:
        """Rows (or columns) of the canvas for images of so many."""
        return size + 8 if self is CropRule.PAD else round(size * 8 / 7)


def windows(images: Tensor, rule: CropRule, generator: torch.Generator) -> Tensor:
    """Random windows of images uint8 [B, H, W, C] on any device, in the same shape there, by a generator on the CPU."""
    count, height, width, _ = images.shape
    size = rule.canvas(height), rule.canvas(width)
    below = size[0] - height + 1, size[1] - width + 1, 2
    draws = [torch.randint(0, limit, (count,), generator=generator) for limit in below]
    if rule is CropRule.ENLARGE:
        larger = torch.nn.functional.interpolate(to_levels(images), size=size, mode="bilinear", align_corners=False)
        canvas = larger.round_().to(torch.uint8).permute(0, 2, 3, 1)
    else:
        down, across = (size[0] - height) // 2, (size[1] - width) // 2
        canvas = torch.nn.functional.pad(images, (0, 0, across, across, down, down))
    return augmentation.cut(canvas, torch.stack(draws), height, width)


def nearness(features: np.ndarray, centres: np.ndarray, target: int) -> dict[str, float]:
    """How close features, float32 [M, D], are to the centre of another cluster."""
    seen, fixed = torch.from_numpy(features).double(), torch.from_numpy(centres).double()
    distances = torch.cdist(seen, fixed)
    share = fixed.softmax(dim=1)
    divergences = (share * share.clamp_min(1e-300).log()).sum(dim=1) - seen.log_softmax(dim=1) @ share.T
    return {
        "nearest": round(100 * float((distances.argmin(dim=1) == target).double().mean()), 3),
        "nearest_by_divergence": round(100 * float((divergences.argmin(dim=1) == target).double().mean()), 3),
        "distance": round(float(distances[:, target].mean()), 6),
        "divergence": round(float(divergences[:, target].mean()), 6),
    }


def _folded(model: nn.Module) -> nn.Module:
    from torch.fx.experimental.optimization import fuse
    from torch.fx.proxy import TraceError

    try:
        return fuse(copy.deepcopy(model)).requires_grad_(False)
    except TraceError:  # its way through the layers depends on the images
        return model
