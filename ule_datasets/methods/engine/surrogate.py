"""The surrogate: a model that is trained a few steps at a time, and frozen while images are optimised against it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from ule_datasets.base.lazy import lazy
from ule_datasets.compute.devices import cpu_threads
from ule_datasets.compute.precision import Precision
from ule_datasets.methods.engine.settings import SurrogateSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.fx.experimental import optimization
    from torch.nn import functional
else:
    torch, nn = lazy("torch"), lazy("torch.nn")
    functional, optimization = lazy("torch.nn.functional"), lazy("torch.fx.experimental.optimization")


class Surrogate:
    """A model in training, with its optimiser; channels-last, float32, on one device."""

    def __init__(self, model: nn.Module, settings: SurrogateSettings, *, device: torch.device) -> None:
        self._settings, self._device = settings, device
        self._model = model.to(device).to(memory_format=torch.channels_last)
        self._optimiser = torch.optim.SGD(
            self._model.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov,
        )

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """One step of SGD on float [B, 3, H, W], int64 [B] with the gradient's norm clipped; on a CPU in one thread.

        The sums over a batch depend on how many threads share them; one thread makes the result the same on
        machines with any number of cores. Nearly all the work of a craft lies elsewhere.

        Returns:
            Summed loss and number of correct answers before the step, float64 [2] on the device.
        """
        self._model.train()
        with cpu_threads(1) if self._device.type == "cpu" else nullcontext():
            self._optimiser.zero_grad()
            logits = self._model(inputs)
            loss = functional.cross_entropy(logits, labels)
            torch.autograd.backward(loss)
            if self._settings.gradient_clip is not None:
                nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.gradient_clip)
            self._optimiser.step()
        correct = (logits.detach().argmax(dim=1) == labels).sum()
        return torch.stack([loss.detach().double() * len(labels), correct.double()])

    def set_rate(self, rate: float) -> None:
        """The learning rate of the steps that follow."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate

    def frozen(self, precision: Precision) -> FrozenSurrogate:
        """The model as it is now, to optimise images against."""
        return FrozenSurrogate(self._model, precision, self._device)

    def ahead(self, inputs: Tensor, labels: Tensor) -> nn.Module:
        """The model after one more step of SGD, momentum included, its gradient not clipped.

        A copy in training mode whose parameters need no gradients; this surrogate stays as it is.
        """
        other = copy.deepcopy(self)
        other._model.train()
        other._optimiser.zero_grad()
        torch.autograd.backward(functional.cross_entropy(other._model(inputs), labels))
        other._optimiser.step()
        other._optimiser.zero_grad()
        return other._model.requires_grad_(False)

    def unrolled(self, inputs: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
        """The model after one more step of SGD, from images to logits; this surrogate's parameters stay as they are.

        The step is part of what gradients pass through: they reach ``inputs`` by the derivative of the step's own
        gradient. Both normalise by the batch they see.
        """
        settings = self._settings
        assert not any((settings.momentum, settings.weight_decay, settings.gradient_clip)), "plain steps only"
        self._model.train()
        # In the usual order of memory: second derivatives of channels-last maps take a CPU longer.
        own = {name: part.detach().contiguous().requires_grad_() for name, part in self._model.named_parameters()}
        logits = torch.func.functional_call(self._model, own, (inputs.contiguous(),))
        loss = functional.cross_entropy(logits, labels)
        gradients = torch.autograd.grad(loss, list(own.values()), create_graph=True)
        moved = {
            name: part.detach() - settings.learning_rate * gradient
            for (name, part), gradient in zip(own.items(), gradients, strict=True)
        }
        return lambda images: torch.func.functional_call(self._model, moved, (images.contiguous(),))

    def right_in_batches(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Which images (bool, [B]) the model is right about while it normalises by these images, as in training."""
        self._model.train()
        with torch.no_grad():
            right: Tensor = self._model(inputs).argmax(dim=1) == labels
        return right

    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """What changes, by name: see ``Stepwise.parts``."""
        return {"model": self._model, "optimiser": self._optimiser}


class FrozenSurrogate:
    """A model in evaluation mode whose parameters need no gradients, with batch norm folded into the convolutions.

    In evaluation mode images do not influence each other, so results do not depend on how they are batched;
    on a CPU this holds to the last bit for batches of equal size.
    """

    def __init__(self, model: nn.Module, precision: Precision, device: torch.device) -> None:
        self._model = optimization.fuse(copy.deepcopy(model).eval()).to(memory_format=torch.channels_last)
        self._model.requires_grad_(False)
        self._precision, self._device = precision, device

    def input_gradient(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of each image's own cross entropy with respect to its pixels, float32 [B, 3, H, W]; the summed loss.

        Inputs of the same shape, channels-last in memory.
        """
        inputs = inputs.detach().requires_grad_(True)
        loss = functional.cross_entropy(self._logits(inputs), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, inputs)
        return gradient, loss.detach()

    def gradients(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Like ``input_gradient``: the gradients, and the cross entropy of each image, float32 [B]."""
        inputs = inputs.detach().requires_grad_(True)
        losses = functional.cross_entropy(self._logits(inputs), labels, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum(), inputs)
        return gradient, losses.detach()

    def judge(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Which images are classified as their label (bool, [B]), and the cross entropy of each (float32, [B])."""
        with torch.no_grad():
            logits = self._logits(inputs)
        return logits.argmax(dim=1) == labels, functional.cross_entropy(logits, labels, reduction="none")

    def _logits(self, inputs: Tensor) -> Tensor:
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._precision is Precision.BFLOAT16):
            logits: Tensor = self._model(inputs)
        return logits.float()
