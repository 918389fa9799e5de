"""Orthogonal projection: what a linear classifier learns of the training images is taken out of them.

Pedro Sandoval-Segura et al., "What Can We Learn from Unlearnable Datasets?", NeurIPS 2023, section 4.4, and the
authors' code: on images that carry one pattern for each class, a linear classifier learns the patterns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ule_datasets.base.lazy import lazy
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.devices import cpu_threads, deterministic_algorithms, products_in, to_device
from ule_datasets.compute.precision import Precision
from ule_datasets.data.spool import Images
from ule_datasets.victims.preparation import Preparation
from ule_datasets.victims.strategy import Countermeasure

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

_EPOCHS, _MILESTONES, _DROP = 20, (10, 15), 0.1
_BATCH = 1024
_RATE = 0.1
_VALUES = 3 * 32 * 32  # of an image, for which that learning rate was chosen
_LEAST = 1e-3  # of the strongest direction, below which one is what rounding has left


@dataclass(frozen=True, kw_only=True, slots=True)
class OrthogonalProjection(Countermeasure):
    """Training images without what they have along directions that a linear classifier, one for each class, learns.

    It learns by gradient descent: 20 epochs of batches of 1024 at a rate of 0.1, a tenth of it after 10 and again after
    15, as in the authors' code. Unlike there it learns images in [0, 1] less their mean, from zero, in an order that is
    drawn once, and with that rate for 32 x 32 pixels (for others inversely to their number). So the directions depend
    neither on random weights nor on how a dataset is sorted, images of any size are learned alike, and where patterns
    are all that tells classes apart, nothing of their differences is left.

    The projected images are neither rounded nor clipped. The authors train on them with rotations, shear, scaling,
    colour jitter and CutMix as well; here those are parts of their own, or none. Where a linear classifier tells images
    apart without any pattern, as it does handwritten digits, what they show is taken out as well.
    """

    word: ClassVar[str] = "op"
    citation: ClassVar[str] = "sandoval2023unlearnable"
    place: ClassVar[str] = "projection"
    shows: ClassVar[str] = (
        "what a linear classifier has learned for each class, made orthogonal, which is taken out of every training "
        "image (mid grey: nothing; each on a scale of its own)"
    )

    def learn(self, images: Images, labels: np.ndarray, context: Preparation) -> np.ndarray:
        """A direction d for each class, float32 [classes, H, W, 3]: the sum of all d d^T is the projection.

        They are nearest to the classifier's weights, of length one; see ``_orthonormal``. Those of classes without
        images are zero. On a CPU one thread computes, so that the result does not follow the number of cores.
        """
        classes, numbers = np.unique(labels, return_inverse=True)
        where = torch.device(context.device)
        with cpu_threads(1), deterministic_algorithms(), products_in(Precision.FLOAT32):
            weights = self._learned(images, numbers, len(classes), where, context)
            found = _orthonormal(weights)
        directions = np.zeros((classes[-1] + 1, *images.shape[1:]), dtype=np.float32)
        directions[classes] = found.reshape(-1, *images.shape[1:]).numpy()
        return directions

    def on_levels(self, images: Tensor, rows: Tensor, learned: Tensor) -> Tensor:
        """Float32 [B, H, W, 3] without their parts along the directions; the rows are not used."""
        flat, basis = images.flatten(1), learned.flatten(1)
        return torch.addmm(flat, flat @ basis.T, basis, alpha=-1).reshape(images.shape)

    def _learned(
        self, images: Images, numbers: np.ndarray, num_classes: int, device: torch.device, context: Preparation
    ) -> Tensor:
        """Weights of the classifier of images with these class numbers: float [classes, H * W * 3] on the device."""
        values = int(np.prod(images.shape[1:]))
        mean = to_device(self._mean(images), device)
        weights = to_device(self._first(num_classes, values, context.seed), device)
        order, rate = self._order(len(images), context.seed), self._rate(values)
        each = torch.arange(num_classes, device=device)
        for epoch in context.reporter.track(range(_EPOCHS), total=_EPOCHS, label=self.name, unit="epoch"):
            step = rate * _DROP ** sum(epoch >= milestone for milestone in _MILESTONES)
            for start in range(0, len(order), _BATCH):
                rows = order[start : start + _BATCH]
                whole, own = (to_device(torch.from_numpy(np.asarray(a[rows])), device) for a in (images, numbers))
                batch = whole.flatten(1).float().div_(255).sub_(mean)
                errors = (batch @ weights.T).softmax(dim=1) - (own[:, None] == each).to(weights.dtype)
                weights = weights - step / len(rows) * errors.T @ batch
        return weights

    def _mean(self, images: Images) -> Tensor:
        """What is taken from all images before they are learned, float [H * W * 3] on the CPU: their mean in [0, 1]."""
        total = np.zeros(int(np.prod(images.shape[1:])), dtype=np.int64)
        for start in range(0, len(images), _BATCH):
            some = np.asarray(images[start : start + _BATCH])
            total += some.reshape(len(some), -1).sum(axis=0, dtype=np.int64)
        return torch.from_numpy(total / (255 * len(images))).to(torch.get_default_dtype())

    def _first(self, num_classes: int, values: int, seed: Seed) -> Tensor:
        """From which it learns, float [classes, values] on the CPU."""
        return torch.zeros(num_classes, values)

    def _order(self, count: int, seed: Seed) -> np.ndarray:
        """In which it sees the images in every epoch, int64 [N]."""
        generator = torch.Generator().manual_seed(seed.integer32("order", self.word))
        return torch.randperm(count, generator=generator).numpy()

    def _rate(self, values: int) -> float:
        """The learning rate for images of so many values."""
        return _RATE * _VALUES / values


@dataclass(frozen=True, kw_only=True, slots=True)
class OrthogonalProjectionAsReleased(OrthogonalProjection):
    """``OrthogonalProjection`` by a classifier that learns as in the authors' code.

    It learns images in [0, 1] as they are, from random weights (torch's of a linear layer), in the order that they
    have, at a rate of 0.1 whatever their size.
    """

    word: ClassVar[str] = "op-released"

    def _mean(self, images: Images) -> Tensor:
        return torch.zeros(())

    def _first(self, num_classes: int, values: int, seed: Seed) -> Tensor:
        generator = torch.Generator().manual_seed(seed.integer32("weights", self.word))
        bound = values**-0.5
        return torch.empty(num_classes, values).uniform_(-bound, bound, generator=generator)

    def _order(self, count: int, seed: Seed) -> np.ndarray:
        return np.arange(count)

    def _rate(self, values: int) -> float:
        return _RATE


def _orthonormal(weights: Tensor) -> Tensor:
    """Directions d whose sum of d d^T is the projection on the span of the weights, as near as can be to these.

    Float [classes, values] to the same on the CPU; orthonormal, unless the weights span fewer dimensions than there are
    classes, as they do where all together are zero. The authors' code has the QR decomposition: the same projection,
    but that it has a direction for each class in any case, for which rounding then decides.
    """
    wide = weights.double().cpu()
    wide = wide / wide.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    squares, axes = torch.linalg.eigh(wide @ wide.T)
    kept = squares > _LEAST**2 * squares.max()
    inverse = axes[:, kept] / squares[kept].sqrt() @ axes[:, kept].T
    directions: Tensor = (inverse @ wide).float()
    return directions
