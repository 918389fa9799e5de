"""Adversarial training: images are moved to where the model's loss is highest, within a small ball around them.

Projected gradient descent after Aleksander Madry et al., "Towards Deep Learning Models Resistant to
Adversarial Attacks", ICLR 2018. Everything but the model runs in float32, whatever autocast says, and nothing
waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.victims.strategy import Countermeasure, Option, Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional
else:
    torch = lazy("torch")
    functional = lazy("torch.nn.functional")

_SMALLEST_NORM = 1e-12  # shorter gradients are not stretched to length one


@dataclass(frozen=True, kw_only=True, slots=True)
class _Attack(Countermeasure):
    """Steps uphill on the cross entropy from a place in the ball; the model is in evaluation mode meanwhile.

    Batch norm uses its running statistics and leaves them alone, there is no dropout.
    """

    citation: ClassVar[str] = "madry2018towards"
    place: ClassVar[str] = "attack"

    radius: float
    step: float
    steps: int = 10

    def __post_init__(self) -> None:
        owner = type(self).__name__
        for name in ("radius", "step"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{owner}: {name} is {getattr(self, name)}, must be finite and above 0")
        if self.steps < 1:
            raise InputError(f"{owner}: steps is {self.steps}, must be at least 1")

    @property
    def passes(self) -> float:
        return 2 * self.steps

    def attack(
        self, images: Tensor, labels: Tensor, model: nn.Module, generator: torch.Generator, progress: Progress
    ) -> Tensor:
        position, climb = self._begin(images, generator)
        with _frozen(model):
            for _ in range(self.steps):
                with torch.enable_grad():
                    position = position.detach().requires_grad_()
                    loss = functional.cross_entropy(model(position).float(), labels, reduction="sum")
                    (gradient,) = torch.autograd.grad(loss, position)
                position = climb(position.detach(), gradient)
        return position.detach()

    def _begin(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
        """Where it starts, and from a position and its gradient the next one."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class LInfAttack(_Attack):
    """Steps along the sign of the gradient; no value of an image changes by more than the radius (up to rounding).

    It begins anywhere in the ball.
    """

    word: ClassVar[str] = "linf-at"

    radius: float = 8 / 255
    """For images in [0, 1]."""
    step: float = 2 / 255
    """Length of a step in every value."""

    def _begin(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
        lower, upper = (images - self.radius).clamp(min=0), (images + self.radius).clamp(max=1)

        def climb(position: Tensor, gradient: Tensor) -> Tensor:
            return (position + self.step * gradient.sign()).clamp(lower, upper)

        uniform = torch.rand(images.shape, generator=generator, device=images.device)
        return (images + self.radius * (2 * uniform - 1)).clamp(lower, upper), climb


@dataclass(frozen=True, kw_only=True, slots=True)
class L2Attack(_Attack):
    """Steps along the normalised gradient; the whole change of an image is at most the radius long (up to rounding).

    It begins in any direction, at a distance that is uniform up to the radius.
    """

    word: ClassVar[str] = "l2-at"
    options: ClassVar[tuple[Option, ...]] = (Option("eps", "radius", "a radius E above 0"),)

    radius: float
    """Euclidean length over all values of an image, for images in [0, 1]."""
    step: float = 0.25
    """Length of a step as a fraction of the radius."""

    def _begin(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
        def climb(position: Tensor, gradient: Tensor) -> Tensor:
            stride = self.step * self.radius / _lengths(gradient).clamp(min=_SMALLEST_NORM)
            return project(position - images + stride * gradient)

        def project(change: Tensor) -> Tensor:
            change = change * (self.radius / _lengths(change).clamp(min=self.radius))
            return (images + change).clamp(0, 1)

        direction = torch.randn(images.shape, generator=generator, device=images.device)
        distance = self.radius * torch.rand((len(images), 1, 1, 1), generator=generator, device=images.device)
        return project(direction * (distance / _lengths(direction).clamp(min=_SMALLEST_NORM))), climb


def _lengths(changes: Tensor) -> Tensor:
    """Euclidean length of each image's change: [B, 1, 1, 1]."""
    lengths: Tensor = torch.linalg.vector_norm(changes, dim=(1, 2, 3), keepdim=True)
    return lengths


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """A model in evaluation mode whose parameters take no gradients; afterwards all flags are as they were."""
    flags = [(module, module.training) for module in model.modules()]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.eval()
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for module, training in flags:
            module.training = training
