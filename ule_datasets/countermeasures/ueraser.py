"""UEraser: strong augmentations, of several draws for each image the one with which the model does worst.

Tianrui Qin et al., "Learning the Unlearnable: Adversarial Augmentations Suppress Unlearnable Example Attacks", 2023
(arXiv 2303.15127), and the authors' package. The augmentations are kornia's, an optional package.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.devices import to_device
from ule_datasets.countermeasures.squeezing import Jpeg
from ule_datasets.victims.strategy import Countermeasure, Option, Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional
else:
    torch = lazy("torch")
    functional = lazy("torch.nn.functional")


@dataclass(frozen=True, kw_only=True, slots=True)
class UEraser(Countermeasure):
    """Plasma brightness and contrast, shuffled channels and TrivialAugment; at first the worst of five draws.

    The worst is that with the highest cross entropy, for each image by itself. All draws are looked at without
    gradients, as in training (batch norm over the batch, running statistics left alone), and the model is then
    trained on the worst ones. That is the gradient of the published loss, the mean over images of the largest of the
    draws' losses, but for batch norm, whose batches there are the draws. TrivialAugment draws one operation for a
    whole batch and its strength for each image, as kornia has it.
    """

    word: ClassVar[str] = "ueraser"
    citation: ClassVar[str] = "qin2023ueraser"
    place: ClassVar[str] = "attack"
    options: ClassVar[tuple[Option, ...]] = (
        Option("p", "plasma", "a probability P from 0 to 1 of each plasma operation"),
        Option("k", "draws", "a number of draws K of at least 1"),
    )
    share: ClassVar[float] = 0.3
    """Of the epochs, the first ones, in which the worst draw is taken: 60 of 200. Afterwards there is one draw."""

    plasma: float = 0.5
    """As the authors' package has it; 1 is APBench's."""
    draws: int = 5
    """For each image, while the worst is taken."""

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if not 0 <= self.plasma <= 1:
            raise InputError(f"{owner}: plasma is {self.plasma}, must be 0 to 1")
        if self.draws < 1:
            raise InputError(f"{owner}: draws is {self.draws}, must be at least 1")

    @property
    def passes(self) -> float:
        """One for each draw, on average over the epochs."""
        return self.share * self.draws

    def attack(
        self, images: Tensor, labels: Tensor, model: nn.Module, generator: torch.Generator, progress: Progress
    ) -> Tensor:
        """Augmented images, float32 [B, 3, H, W] in [0, 1].

        Raises:
            InputError: kornia is not installed.
        """
        augment = self._augmentation()
        seed = int(torch.randint(0, 2**62, (), generator=generator, device=generator.device))
        devices = [images.device] if images.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):  # kornia draws from the global generators
            torch.manual_seed(seed)
            kept = augment(images)
            if progress.epoch <= self.share * progress.epochs and self.draws > 1:
                highest = _losses(model, kept, labels)
                for _ in range(self.draws - 1):
                    other = augment(images)
                    losses = _losses(model, other, labels)
                    kept = torch.where((losses > highest)[:, None, None, None], other, kept)
                    highest = torch.maximum(losses, highest)
        return kept.contiguous(memory_format=torch.channels_last)

    def _augmentation(self) -> Callable[[Tensor], Tensor]:
        """From float32 images in [0, 1] to others, with new draws at every call."""
        kornia, auto = _kornia("kornia.augmentation"), _kornia("kornia.augmentation.auto")
        operations = (
            kornia.RandomPlasmaBrightness(roughness=(0.3, 0.7), intensity=(0.5, 1.0), p=self.plasma),
            kornia.RandomPlasmaContrast(roughness=(0.3, 0.7), p=self.plasma),
            kornia.RandomChannelShuffle(p=0.5),
            auto.TrivialAugment(),
        )

        def augment(images: Tensor) -> Tensor:
            with torch.autocast(images.device.type, enabled=False):
                for operation in operations:
                    images = operation(images)
                return images.float().clamp(0, 1)

        return augment


@dataclass(frozen=True, kw_only=True, slots=True)
class UEraserLite(UEraser):
    """The augmentations of ``UEraser``, one draw in all epochs: no look at the model."""

    word: ClassVar[str] = "ueraser-lite"
    options: ClassVar[tuple[Option, ...]] = UEraser.options[:1]
    share: ClassVar[float] = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class UEraserMax(UEraser):
    """``UEraser`` with the worst draw in all epochs."""

    word: ClassVar[str] = "ueraser-max"
    share: ClassVar[float] = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class UEraserJpeg(UEraser):
    """``UEraser`` whose draws end in JPEG compression of each image by itself, for noise like TAP's and AR's.

    The authors compress the batch as one mosaic and decode it half a level darker; neither is done here.
    """

    word: ClassVar[str] = "ueraser-jpeg"
    options: ClassVar[tuple[Option, ...]] = (*UEraser.options, Option("q", "quality", "a quality Q from 1 to 100"))

    quality: int = 10

    def __post_init__(self) -> None:
        UEraser.__post_init__(self)
        Jpeg(quality=self.quality)

    def _augmentation(self) -> Callable[[Tensor], Tensor]:
        augment, jpeg = UEraser._augmentation(self), Jpeg(quality=self.quality)

        def compressed(images: Tensor) -> Tensor:
            changed = augment(images).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
            decoded = to_device(torch.from_numpy(jpeg.changed(changed, Seed(0))), images.device)
            return decoded.permute(0, 3, 1, 2).float().div(255)

        return compressed


def _losses(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of each image, float32 [B]; what the model's buffers become is thrown away."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    logits: Tensor = torch.func.functional_call(model, buffers, (images.contiguous(memory_format=torch.channels_last),))
    return functional.cross_entropy(logits.float(), labels, reduction="none")


def _kornia(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError('UEraser needs kornia: pip install "ule-datasets[ueraser]"') from error
