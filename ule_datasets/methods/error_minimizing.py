"""Error-minimising noise: small noise that leaves a model nothing to learn from an image.

Hanxun Huang, Xingjun Ma, Sarah Monazam Erfani, James Bailey, Yisen Wang, "Unlearnable Examples: Making Personal
Data Unexploitable", ICLR 2021, arXiv 2101.04898, equation 2 and algorithm 1:

    min over theta of E over (x, y) of min over |delta| <= epsilon of CE(f_theta(x + delta), y)

solved in rounds. A *model phase* trains the surrogate f for a few batches on the images with the noise as it is. A
*noise phase* freezes the surrogate and lets the noise take signed gradient steps down the loss, projected on the
bound. A *check* measures the surrogate's accuracy on the images with their noise, and ends the rounds when it is right
about nearly all of them.

Field defaults are those for CIFAR-10. Nothing is random but the surrogate's initialisation (and for class-wise noise
the order of the images). Settings where paper and official code differ are named options; see each field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ule_datasets.base.errors import InputError
from ule_datasets.compute.precision import Precision
from ule_datasets.data.bounds import Budget, LInf
from ule_datasets.data.perturbation import Additive, Support
from ule_datasets.data.quantization import Apply, Quantize, largest_level
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.settings import ErrorAverage, Grid, StopRule, SurrogateSettings
from ule_datasets.methods.method import Context, Crafted, Method, Repeats


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorMinimizing(Method):
    """Sample-wise noise (EM, EMN, EMinN): one perturbation for every training image."""

    identifier: ClassVar[str] = "em_s"
    title: ClassVar[str] = "Error-minimising noise, sample-wise"
    citation: ClassVar[str] = "huang2021unlearnable"
    repeats: ClassVar[Repeats] = Repeats.DEVICE
    needs_labels: ClassVar[bool] = True

    epsilon: float = 8
    """Bound on every channel of every pixel, in units of 1/255 (ImageNet: 16)."""
    step_size: float = 0.8
    """Of one signed gradient step, in units of 1/255: a tenth of the bound."""
    num_steps: int = 20
    """Steps of every image in a noise phase."""
    steps_per_round: int = 10
    """Batches that the surrogate is trained on in a model phase (CIFAR-100: 20, ImageNet: 100)."""
    surrogate: SurrogateSettings = field(default_factory=SurrogateSettings)
    stop_accuracy: float = 0.99
    """Accuracy of the surrogate on the perturbed images, 0 .. 1, that ends the rounds (ImageNet: 0.9)."""
    stop_rule: StopRule = StopRule.AT_LEAST
    error_average: ErrorAverage = ErrorAverage.IMAGES
    max_rounds: int = 100
    """Not in the paper: where rounds end although the accuracy is not reached, with a warning and a note."""
    random_start: bool = False
    """Uniform noise instead of none before the first round (an option of the official code)."""
    apply: Apply = Apply.SIGNED
    """What the dataset uses of the noise; it is computed with both signs in any case."""
    quantize: Quantize = Quantize.TRUNC
    precision: Precision = Precision.FLOAT32

    def __post_init__(self) -> None:
        _check(self)

    @property
    def bounds(self) -> Budget:
        """Of what ``epsilon`` becomes in bytes."""
        return (LInf(levels=largest_level(self.epsilon, self.quantize, self.apply)),)

    def generate(self, train: Split, context: Context) -> Crafted:
        """Alternate on ``context.device`` until the stop rule is met; an additive layer with an entry per image."""
        from ule_datasets.methods.engine.error_minimizing import SampleWise

        rounds = SampleWise(self, train, context)
        notes = rounds.run()
        return Crafted(layers=(Additive(levels=rounds.levels(), support=Support.SAMPLE, keys=train.keys),), notes=notes)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClasswiseErrorMinimizing(Method):
    """Class-wise noise (EM-C): one perturbation for all images of a class, from a fixed part of them."""

    identifier: ClassVar[str] = "em_c"
    title: ClassVar[str] = "Error-minimising noise, class-wise"
    citation: ClassVar[str] = "huang2021unlearnable"
    repeats: ClassVar[Repeats] = Repeats.DEVICE
    needs_labels: ClassVar[bool] = True

    epsilon: float = 8
    """Bound on every channel of every pixel, in units of 1/255 (ImageNet: 16)."""
    step_size: float = 0.8
    """Of one signed gradient step of one image, in units of 1/255; a class moves by the mean over its images."""
    num_steps: int = 1
    """Steps of every image before its class's noise is updated."""
    steps_per_round: int = 10
    """Batches that the surrogate is trained on in a model phase (ImageNet: 100)."""
    subset: float = 0.2
    """Stratified share of the images, drawn once by the seed, that noise phase and check use."""
    surrogate: SurrogateSettings = field(default_factory=SurrogateSettings)
    stop_accuracy: float = 0.99
    """Accuracy of the surrogate on the perturbed images, 0 .. 1 (official scripts; their README says 0.9)."""
    stop_rule: StopRule = StopRule.AT_LEAST
    error_average: ErrorAverage = ErrorAverage.IMAGES
    max_rounds: int = 400
    """Not in the paper: where rounds end although the accuracy is not reached, with a warning and a note."""
    random_start: bool = False
    """Uniform noise instead of none before the first round (an option of the official code)."""
    apply: Apply = Apply.SIGNED
    """What the dataset uses of the noise; it is computed with both signs in any case."""
    quantize: Quantize = Quantize.TRUNC
    precision: Precision = Precision.FLOAT32

    def __post_init__(self) -> None:
        _check(self)
        if not 0 < self.subset <= 1:
            raise InputError(f"ClasswiseErrorMinimizing: subset is {self.subset}, not in (0, 1]")

    @property
    def bounds(self) -> Budget:
        """Of what ``epsilon`` becomes in bytes."""
        return (LInf(levels=largest_level(self.epsilon, self.quantize, self.apply)),)

    def generate(self, train: Split, context: Context) -> Crafted:
        """Alternate on ``context.device`` until the stop rule is met; an additive layer with an entry per class."""
        from ule_datasets.methods.engine.error_minimizing import ClassWise

        rounds = ClassWise(self, train, context)
        notes = rounds.run()
        return Crafted(layers=(Additive(levels=rounds.levels(), support=Support.CLASS),), notes=notes)


def _check(method: ErrorMinimizing | ClasswiseErrorMinimizing) -> None:
    Grid.of(method.epsilon, method.step_size)
    name = type(method).__name__
    for counted in ("num_steps", "steps_per_round", "max_rounds"):
        if getattr(method, counted) < 1:
            raise InputError(f"{name}: {counted} is {getattr(method, counted)}, must be at least 1")
    if not 0 < method.stop_accuracy <= 1:
        raise InputError(f"{name}: stop_accuracy is {method.stop_accuracy}, not in (0, 1]")
