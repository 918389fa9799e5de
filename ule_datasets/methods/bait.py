"""BAIT: class-wise noise that overrules what a pretrained model already knows.

Zhihao Li, Gezheng Xu, Jiale Cai, Ruiyi Fang, Di Wu, Qicheng Lao, Charles Ling, Boyu Wang, "When Priors Backfire: On
the Vulnerability of Unlearnable Examples to Pretraining", ICLR 2026, arXiv 2603.04731:

    min over delta of E of CE(f_theta'(x + delta_j), j), j not the class of x
    theta' = the pretrained model theta after a step on CE(f_theta(x + delta_y), y)

An image that carries the noise of a wrong class is to be taken for that class, even by a model that has just learned
to see through the noise. The noise of a class is the mean of what a generator makes of its images. Wrong classes
follow a curriculum of three stages: the *hardest*, the one that the model takes an image for if not for its own; a
*random* one; the *most dissimilar*, the one that the model finds least likely.

A round is one step of the surrogate and one pass of the generator over all images (the official code calls it an
epoch, and has 90). The step ahead treats the noise as a constant, as the official code does, so that the outer
gradient is of first order. Fields with the defaults of the official code for CIFAR-10; where the code has oddities of
its own, or paper and code differ, a field says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from ule_datasets.base.errors import InputError
from ule_datasets.data.bounds import Budget, LInf
from ule_datasets.data.perturbation import Additive, Support
from ule_datasets.data.quantization import Apply, Quantize, largest_level, quantize
from ule_datasets.data.split import Split
from ule_datasets.methods.method import Context, Crafted, Method, Repeats
from ule_datasets.models.weights import WEIGHTS, Weights


class Released(StrEnum):
    """Which noise goes into the dataset."""

    GENERATOR = "generator"
    """The mean of the generator's output in evaluation mode over all images of a class, not augmented: what the
    official code poisons with."""
    LAST_BATCH = "last_batch"
    """The noise that the surrogate was trained with last, a mean over one batch: the file that the official code
    saves as the perturbation (its loader drops what darkens: see ``apply``)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bait(Method):
    """Class-wise noise bound to incorrect targets, against a pretrained surrogate.

    On a CPU everything runs in one thread, whatever the number of cores: sums over a batch depend on how many
    threads share them, and nearly all the work is of that kind. At the published size that takes days; a narrower
    generator and fewer rounds make a small trial.
    """

    identifier: ClassVar[str] = "bait"
    title: ClassVar[str] = "Binding artificial perturbations to incorrect targets"
    citation: ClassVar[str] = "li2026priors"
    repeats: ClassVar[Repeats] = Repeats.DEVICE
    needs_labels: ClassVar[bool] = True

    prior: Weights = field(default_factory=lambda: WEIGHTS["resnet18@imagenet"])
    """The surrogate before the first round; its head is replaced by a new one, and all of it is trained."""
    epsilon: float = 8
    """Bound on every channel of every pixel, in units of 1/255."""
    stages: tuple[int, int, int] = (30, 30, 30)
    """Rounds with the hardest, a random and the most dissimilar wrong class. The official command's default, 60
    rounds, would leave out the third; its script asks for 90. SVHN in the paper: 20 each."""
    batch_size: int = 512
    """Images of a step of surrogate or generator. A smaller last batch of a pass is dropped; fewer images than this
    are one smaller batch."""
    surrogate_rate: float = 0.1
    """Learning rate of SGD on the surrogate, constant, in the step ahead too."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    gradient_clip: float = 5.0
    """Largest l2 norm of the surrogate's gradient in the step that ends a round; the step ahead is not clipped."""
    generator_rate: float = 1e-3
    """Learning rate of Adam on the generator."""
    generator_width: int = 16
    """Channels after the generator's first convolution; 32 times as many in its residual blocks. Work grows with its
    square."""
    generator_blocks: int = 8
    """Residual blocks of the generator."""
    exclude_true: bool = False
    """Never to choose an image's own class in the third stage; the official code may."""
    normalise: bool = False
    """Whether the surrogate applies the mean and deviation of the prior to its inputs. Not so in the official code
    for CIFAR-10 and SVHN; for CIFAR-100 it does in training, but not when it poisons."""
    released: Released = Released.GENERATOR
    refresh: int | None = None
    """In how many batches of a pass, its last ones, the generator is evaluated again after its step. What the
    surrogate is trained with comes from the last batch that a class occurs in. ``None``: all, as in the official
    code; 1 saves about a quarter of the work, and changes a little the generator's running statistics."""
    crop_padding: int = 4
    """Zeros around an image before a random window is cut out, for surrogate and generator (CIFAR-10)."""
    flip: bool = True
    """Mirror half of the images, for surrogate and generator (CIFAR-10; not where left and right matter)."""
    apply: Apply = Apply.SIGNED
    """What the dataset uses of the noise; it is computed with both signs in any case."""
    quantize: Quantize = Quantize.TRUNC

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= 255:
            raise InputError(f"Bait: epsilon is {self.epsilon}, not in (0, 255] (units of 1/255)")
        if len(self.stages) != 3 or min(self.stages) < 0 or not any(self.stages):
            raise InputError(f"Bait: stages is {self.stages}; give three numbers of rounds, at least one above 0")
        if self.batch_size < 2:
            raise InputError(f"Bait: batch_size is {self.batch_size}, must be at least 2")
        for name in ("surrogate_rate", "momentum", "weight_decay", "generator_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"Bait: {name} is {getattr(self, name)}, must be at least 0")
        if not 0 < self.gradient_clip < math.inf:
            raise InputError(f"Bait: gradient_clip is {self.gradient_clip}, must be above 0")
        for name in ("generator_width", "generator_blocks"):
            if getattr(self, name) < 1:
                raise InputError(f"Bait: {name} is {getattr(self, name)}, must be at least 1")
        if self.refresh is not None and self.refresh < 1:
            raise InputError(f"Bait: refresh is {self.refresh}, must be at least 1, or None for all batches")
        if self.crop_padding < 0:
            raise InputError(f"Bait: crop_padding is {self.crop_padding}, must be at least 0")

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The prior."""
        return (self.prior,)

    @property
    def bounds(self) -> Budget:
        """Of what ``epsilon`` becomes in bytes."""
        return (LInf(levels=largest_level(self.epsilon, self.quantize, self.apply)),)

    def generate(self, train: Split, context: Context) -> Crafted:
        """Work through the stages on ``context.device``; an additive layer with an entry per class.

        A class without images gets zeros.

        Raises:
            InputError: the images do not suit the generator, there are fewer than two classes or images, the prior
                cannot be had or is something else, or a loss is not finite.
        """
        from ule_datasets.methods.engine.bait import Rounds

        rounds = Rounds(self, train, context)
        from_generator = self.released is Released.GENERATOR
        notes = rounds.run(all_images=from_generator)
        means = rounds.generator_means() if from_generator else rounds.last_means()
        levels = quantize(means * self.epsilon, self.quantize, self.apply)
        return Crafted(layers=(Additive(levels=levels, support=Support.CLASS),), notes=notes)
