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
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

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

Mode = Literal["eval", "train"]
"""Of the model during the attack.

``eval``: batch norm uses its running statistics and leaves them alone, there is no dropout. ``train``: batch
norm uses the batch's and updates the running ones with every step of the attack, as in any forward pass;
dropout draws from torch's global generator, as it always does.
"""

SMALLEST_NORM = 1e-12
"""Shorter gradients are not stretched to length one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LInfAttack(Countermeasure):
    """Steps along the sign of the gradient; no value of an image changes by more than the radius.

    It begins anywhere in the ball.
    """

    word: ClassVar[str] = "linf-at"
    citation: ClassVar[str] = "madry2018towards"
    place: ClassVar[str] = "attack"

    radius: float = 8 / 255
    """For images in [0, 1]."""
    step: float = 2 / 255
    """Length of a step in every value."""
    steps: int = 10
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        _check(self, "radius", "step")

    @property
    def gradients(self) -> int:
        """One per step."""
        return self.steps

    def attack(
        self, images: Tensor, labels: Tensor, model: nn.Module, generator: torch.Generator, progress: Progress
    ) -> Tensor:
        """Attack a batch.

        Args:
            images: float32 [B, 3, H, W] in [0, 1]; left alone.
            labels: int64 [B].
            model: images to logits [B, classes]. Its training flags, which parameters require gradients, and
                their ``.grad`` are afterwards as they were; so are the running statistics in mode ``eval``.
            generator: on the device of the images.
            progress: does not matter here.

        Returns:
            Detached float32 [B, 3, H, W] in [0, 1], within the radius (up to rounding) of the images.
        """
        lower, upper = (images - self.radius).clamp(min=0), (images + self.radius).clamp(max=1)

        def climb(position: Tensor, gradient: Tensor) -> Tensor:
            return (position + self.step * gradient.sign()).clamp(lower, upper)

        start = self.radius * (2 * _uniform(images.shape, images, generator) - 1)
        return _ascend((images + start).clamp(lower, upper), labels, model, self.mode, self.steps, climb)


@dataclass(frozen=True, kw_only=True, slots=True)
class L2Attack(Countermeasure):
    """Steps along the normalised gradient; the whole change of an image is at most the radius long.

    It begins in any direction, at a distance that is uniform up to the radius.
    """

    word: ClassVar[str] = "l2-at"
    citation: ClassVar[str] = "madry2018towards"
    options: ClassVar[tuple[Option, ...]] = (Option("eps", "radius", "a radius E above 0"),)
    place: ClassVar[str] = "attack"

    radius: float
    """Euclidean length over all values of an image, for images in [0, 1]."""
    step: float = 0.25
    """Length of a step as a fraction of the radius."""
    steps: int = 10
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        _check(self, "radius", "step")

    @property
    def gradients(self) -> int:
        """One per step."""
        return self.steps

    def attack(
        self, images: Tensor, labels: Tensor, model: nn.Module, generator: torch.Generator, progress: Progress
    ) -> Tensor:
        """Attack a batch; arguments and result as for ``LInfAttack.attack``."""

        def climb(position: Tensor, gradient: Tensor) -> Tensor:
            stride = self.step * self.radius / _lengths(gradient).clamp(min=SMALLEST_NORM)
            return project(position - images + stride * gradient)

        def project(change: Tensor) -> Tensor:
            change = change * (self.radius / _lengths(change).clamp(min=self.radius))
            return (images + change).clamp(0, 1)

        direction = torch.randn(images.shape, generator=generator, device=images.device)
        distance = self.radius * _uniform((len(images), 1, 1, 1), images, generator)
        start = project(direction * (distance / _lengths(direction).clamp(min=SMALLEST_NORM)))
        return _ascend(start, labels, model, self.mode, self.steps, climb)


def _check(attack: Any, *positive: str) -> None:
    owner = type(attack).__name__
    for name in positive:
        if not 0 < getattr(attack, name) < math.inf:
            raise InputError(f"{owner}: {name} is {getattr(attack, name)}, must be finite and above 0")
    if attack.steps < 1:
        raise InputError(f"{owner}: steps is {attack.steps}, must be at least 1")
    if attack.mode not in get_args(Mode):
        raise InputError(f"{owner}: mode is {attack.mode!r}, can be {', '.join(get_args(Mode))}")


def _uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=like.device)


def _lengths(changes: Tensor) -> Tensor:
    """Euclidean length of each image's change: [B, 1, 1, 1]."""
    lengths: Tensor = torch.linalg.vector_norm(changes, dim=(1, 2, 3), keepdim=True)
    return lengths


def _ascend(
    position: Tensor,
    labels: Tensor,
    model: nn.Module,
    mode: Mode,
    steps: int,
    climb: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Climb the cross entropy from a position: ``climb(position, gradient)`` gives the next one."""
    with _frozen(model, mode):
        for _ in range(steps):
            with torch.enable_grad():
                position = position.detach().requires_grad_()
                loss = functional.cross_entropy(model(position).float(), labels, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, position)
            position = climb(position.detach(), gradient)
    return position.detach()


@contextmanager
def _frozen(model: nn.Module, mode: Mode) -> Iterator[None]:
    """A model in some mode whose parameters take no gradients; afterwards all flags are as they were."""
    flags = [(module, module.training) for module in model.modules()]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.train(mode == "train")
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for module, training in flags:
            module.training = training
