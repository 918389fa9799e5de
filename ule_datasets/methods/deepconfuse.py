"""DeepConfuse: noise from a generator that has learned what misleads the training of a classifier.

Ji Feng, Qi-Zhi Cai, Zhi-Hua Zhou, "Learning to Confuse: Generating Training Time Adversarial Data with Auto-Encoder",
NeurIPS 2019, arXiv 1905.09027:

    max over g of E of CE(f_theta'(x), y),    theta' = what training on CE(f_theta(clip(x + epsilon g(x))), y) leads to

solved in trials. A trial trains a classifier f from its random start on images with the noise of a generator g, which
stays as it is. Before each of its steps a second generator, a copy at first, learns: the classifier takes a virtual
step on the images with *its* noise, and the copy goes up the loss on the clean images that the classifier would have
then, by the gradient through that step. At the end of the trial the copy takes the place of g. Then a new classifier
is trained on images with the noise of g, and tested on clean ones, by which the best g of all trials is found.

Field defaults are those of the official code for CIFAR-10. It tests on the test set, which no method here gets to see:
a part of the training images, from which nothing is learned, takes its place.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ule_datasets.base.checkpoint import State
from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.base.progress import duration
from ule_datasets.base.shown import counted
from ule_datasets.compute.devices import median_seconds, resident
from ule_datasets.compute.parts import Part
from ule_datasets.compute.precision import Precision
from ule_datasets.data.perturbation import Additive, Support
from ule_datasets.data.quantization import Apply, Quantize, largest_level, quantize
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.settings import SurrogateSettings, check_at_least
from ule_datasets.methods.engine.stepwise import Estimate, Phase, Stepwise
from ule_datasets.methods.engine.surrogate import Surrogate
from ule_datasets.methods.method import BoundedNoise, Context, Crafted
from ule_datasets.models.weights import GivenFile

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

    from ule_datasets.methods.engine import generators
    from ule_datasets.models import architectures, initialisation, states
    from ule_datasets.victims import augmentation
else:
    torch, functional = lazy("torch"), lazy("torch.nn.functional")
    generators, augmentation = lazy("ule_datasets.methods.engine.generators"), lazy("ule_datasets.victims.augmentation")
    architectures, states = lazy("ule_datasets.models.architectures"), lazy("ule_datasets.models.states")
    initialisation = lazy("ule_datasets.models.initialisation")

IMAGES_AT_ONCE = {"cpu": 128, "cuda": 512}
"""Images that a generator in evaluation mode takes together. Not part of the method."""
IMAGES_TESTED = 1000
"""Images that a classifier in training mode is tested on together (official code)."""
IMAGES_TIMED = {"cpu": 16, "cuda": 256}
"""Of a step, for the estimate; a GPU is slow with few."""
LEAST_LOST = 0.25
"""Share of its accuracy that the noise should cost a classifier; with less, little is reached."""


class Selection(StrEnum):
    """Which trial's generator makes the noise."""

    HELD_OUT = "held_out"
    """The one that leaves a new classifier with the lowest accuracy on clean images that are held out, the first of
    several. The official code goes by the test set."""
    LAST = "last"
    """The last one (the second file that the official code saves)."""


class Normalisation(StrEnum):
    """By what a classifier normalises when it is tested."""

    RUNNING = "running"
    """By the averages over its training, as anybody tests a classifier."""
    BATCHES = "batches"
    """By the clean images that it is tested on, at most 1,000 at a time in random order (official code, which leaves it
    in training mode)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorFile(GivenFile):
    """The parameters of a trained generator, as torch saves them, of which nothing is run, or as safetensors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepConfuse(BoundedNoise):
    """One perturbation for every training image, by a generator that learned to confuse (DC).

    On a CPU everything runs in one thread, whatever the number of cores: sums over a batch depend on how many threads
    share them. At the published size that takes years; a narrower generator and few trials make a small one.
    """

    identifier: ClassVar[str] = "deepconfuse"
    title: ClassVar[str] = "DeepConfuse"
    citation: ClassVar[str] = "feng2019confuse"
    needs_labels: ClassVar[bool] = True
    round_name: ClassVar[str] = "trial"

    epsilon: float = 8.16
    """Bound on every channel of every pixel, in units of 1/255: 0.032 of the whole range (APBench: 8)."""
    trials: int = 1000
    """Classifiers that the generator learns from, one after the other."""
    epochs: int = 20
    """Passes over the images for each classifier, those that are tested too."""
    batch_size: int = 256
    """Images of a step; the last one of a pass may be smaller."""
    classifier: str = "vgg11-neck2"
    """A name in ``ule_datasets.models.architectures.MODELS``."""
    learning_rate: float = 0.01
    """Of SGD on classifiers, in virtual steps too; without momentum, which the official code names and does not use."""
    generator_rate: float = 1e-4
    """Learning rate of Adam on the generator."""
    generator_width: int = 64
    """Channels of the generator's first block, and an eighth of the most that it has."""
    selection: Selection = Selection.HELD_OUT
    held_out: float = 0.1
    """Stratified share of the images, drawn once by the seed, on which classifiers are tested and from which neither
    they nor the generator learn."""
    normalisation: Normalisation = Normalisation.RUNNING
    target_offset: int = 0
    """Classifiers should take clean images of class y for class (y + offset) mod K, and the best generator is the one
    by which they do so most (label-specific variant; 1 in the official code, for MNIST). 0: for any but their own."""
    generator: GeneratorFile | None = None
    """A trained generator of ``generator_width``: nothing is learned, and all other settings but the bound are void.
    The authors' file for CIFAR-10 is called ``atk.0.032.best.pth``."""
    apply: Apply = Apply.SIGNED
    """What the dataset uses of the noise; it is computed with both signs in any case."""
    quantize: Quantize = Quantize.HALF_UP
    """The official code never makes bytes: it adds the noise while victims are trained. This rule is APBench's."""
    precision: Precision = Precision.FLOAT32

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= 255:
            raise InputError(f"DeepConfuse: epsilon is {self.epsilon}, not in (0, 255] (units of 1/255)")
        check_at_least(1, self, "trials", "epochs", "generator_width")
        check_at_least(2, self, "batch_size")
        check_at_least(0, self, "learning_rate", "generator_rate", "target_offset")
        if not 0 < self.held_out < 1:
            raise InputError(f"DeepConfuse: held_out is {self.held_out}, not in (0, 1)")
        if self.precision is Precision.BFLOAT16:
            raise InputError("DeepConfuse: precision is bfloat16, too coarse for second derivatives: float32 or tf32")

    @property
    def steps(self) -> SurrogateSettings:
        """How classifiers are trained."""
        return SurrogateSettings(
            model=self.classifier,
            learning_rate=self.learning_rate,
            momentum=0.0,
            weight_decay=0.0,
            gradient_clip=None,
            batch_size=self.batch_size,
        )

    def shortfall(self, notes: Mapping[str, Any]) -> str:
        """A classifier learns nearly as much from images with noise as from clean ones."""
        if not notes.get("trace"):
            return ""
        clean, left = notes["clean_accuracy"], notes["trace"][notes["chosen"] - 1]["accuracy"]
        if left <= (1 - LEAST_LOST) * clean:
            return ""
        return (
            f"a classifier that was trained on images with the noise is right about {left:.1f} % of clean ones, and "
            f"about {clean:.1f} % without the noise; more trials, or more steps in each (epochs), help"
        )

    def generate(self, train: Split, context: Context) -> Crafted:
        """Learn on ``context.device``, or take the generator that is given; a layer with an entry per image.

        Raises:
            InputError: the images do not suit the generator, there are too few of them or of their classes, the
                target would be the true class, a loss is not finite, or the generator's file is nowhere, another one,
                or holds something else.
        """
        _check(self, train, context.num_classes)
        craft = Trials(self, train, context) if self.generator is None else Given(self, train, context)
        notes = craft.run()
        levels = craft.levels.cpu().numpy()
        return Crafted(layers=(Additive(levels=levels, support=Support.SAMPLE, keys=train.keys),), notes=notes)


class Noise(Stepwise):
    """What a generator makes of all images, chunk after chunk; before that, perhaps, it learns."""

    method: DeepConfuse

    def __init__(self, method: DeepConfuse, train: Split, context: Context) -> None:
        super().__init__(method, context, method.precision)
        self.images, self.labels = resident(train.pixels(), self.device), resident(train.labels, self.device)
        self.bound = method.epsilon / 255
        self.at_once = IMAGES_AT_ONCE[self.device.type]
        widest = largest_level(method.epsilon, method.quantize, method.apply)
        kind = torch.int8 if widest <= 127 else torch.int16
        self.levels = torch.zeros(self.images.shape, dtype=kind, device=self.device)
        """The noise as whole grey levels, int8 or int16 [N, H, W, C]."""
        self.best = self.built()

    def built(self) -> nn.Module:
        """A generator at its random start, in evaluation mode."""
        factory = partial(generators.ConfusingGenerator, self.method.generator_width)
        network = initialisation.initialised(factory, seed=self._number("generator"))
        return network.to(self.device).to(memory_format=torch.channels_last).eval()

    @property
    def before(self) -> int:
        """Phases that come first."""
        return 0

    def parts(self) -> dict[str, Part]:
        """The noise, once it is being made, and what makes it."""
        made: dict[str, Part] = {"levels": self.levels} if self.done >= self.before else {}
        return {**made, "best": self.best}

    def following(self) -> Phase | None:
        """All images."""
        if self.done > self.before:
            return None
        chunks = range(0, len(self.images), self.at_once)
        return Phase(label="noise of all images", unit="chunk", steps=chunks, step=self._make, end=str)

    def standing(self) -> str:
        """There is nothing else."""
        return " with the noise of all images"

    def estimate(self) -> Estimate | None:
        """A pass over the images is not worth telling."""
        return None

    def outputs(self, network: nn.Module, rows: slice | Tensor) -> Tensor:
        """What a generator in evaluation mode makes of some images: float [B, H, W, C] in (-1, 1)."""
        with torch.no_grad():
            made: Tensor = network(augmentation.to_float(self.images[rows])).permute(0, 2, 3, 1)
        return made

    def _make(self, first: int) -> None:
        rows = slice(first, first + self.at_once)
        noise = self.method.epsilon * self.outputs(self.best, rows).double()
        if not noise.isfinite().all():
            raise InputError("DeepConfuse: the generator makes noise that is no number")
        levels = quantize(noise.cpu().numpy(), self.method.quantize, self.method.apply)
        self.levels[rows] = torch.from_numpy(levels).to(self.device, self.levels.dtype)


class Given(Noise):
    """The noise of a generator that somebody has trained."""

    def __init__(self, method: DeepConfuse, train: Split, context: Context) -> None:
        super().__init__(method, train, context)
        assert method.generator is not None
        self.file = method.generator.obtain("the generator", context.weights)
        what = f"a generator of width {method.generator_width}"
        states.load_in_order(self.best, self.file.path, what)

    def notes(self) -> dict[str, Any]:
        """Also which file it was."""
        assert self.method.generator is not None
        origin = {"origin": "file", "name": self.method.generator.name, "sha256": self.file.sha256}
        return {**super().notes(), "generator": origin}


class Trials(Noise):
    """A test without noise; then, trial by trial, a phase in which the generator learns and a test of it."""

    def __init__(self, method: DeepConfuse, train: Split, context: Context) -> None:
        super().__init__(method, train, context)
        held = train.stratified_rows(method.held_out, context.seed, method.identifier, "held out")
        learned = np.setdiff1d(np.arange(len(train)), held)
        if len(learned) < 2:
            raise InputError(f"DeepConfuse: {len(learned)} of {len(train)} images are left to learn from, at least 2")
        self.held, self.learned = (torch.from_numpy(rows).to(self.device) for rows in (held, learned))
        self._keys, self._held_keys = (tuple(train.keys[row] for row in rows.tolist()) for rows in (learned, held))
        self.frozen = copy.deepcopy(self.best)
        """The generator whose noise classifiers are trained with."""
        self.learner = Learner(method, copy.deepcopy(self.best), context.num_classes)
        self.classifier, self.tested = self.new("classifier"), self.new("tested")
        self.totals = torch.zeros(4, dtype=torch.float64, device=self.device)
        """Over a phase: how many images classifiers were trained on, their summed loss, and how many were right; the
        summed loss on clean images after virtual steps, which stays for the test."""
        self.clean_accuracy = 0.0
        """Of a classifier that was trained without noise, in percent."""
        self._shown: Tensor | None = None

    # --- phases ---

    @property
    def before(self) -> int:
        """Of the test without noise, and of two for each trial."""
        return 1 + 2 * self.method.trials

    def parts(self) -> dict[str, Part]:
        """Both generators, both classifiers, and how they learn."""
        own = {"frozen": self.frozen, "totals": self.totals, **self.learner.parts(), **self.classifier.parts()}
        return {**super().parts(), **own, "tested": self.tested.parts()["model"]}

    def facts(self) -> dict[str, Any]:
        """What was reached without noise."""
        return {"clean_accuracy": self.clean_accuracy}

    def restore(self, state: State) -> None:
        """Take that over too."""
        self.clean_accuracy = state.facts["clean_accuracy"]
        super().restore(state)

    def following(self) -> Phase | None:
        """A test after each phase of learning, and one at the beginning; at last the noise of all images."""
        if self.done >= self.before:
            self._shown = None
            return super().following()
        steps = range(self.method.epochs * len(self.batches))
        if self.done % 2:
            return Phase(label=self._label, unit="step", steps=steps, step=self.learn, end=self._learnt)
        label = f"{self._label}, test" if self.done else "test without noise"
        return Phase(label=label, unit="step", steps=steps, step=self.train_tested, end=self._judged)

    def standing(self) -> str:
        """The trial, or what comes before or after."""
        if self.done >= self.before:
            return super().standing()
        return f" in {self._label}" if self.done else " in the test without noise"

    def notes(self) -> dict[str, Any]:
        """Also whose generator was chosen, and what was reached without noise."""
        return {**super().notes(), "clean_accuracy": self.clean_accuracy, "chosen": self.chosen}

    @property
    def chosen(self) -> int:
        """The trial, counted from 1, whose generator is the best so far."""
        if self.method.selection is Selection.LAST:
            return len(self.trace)
        scores = [self._score(line) for line in self.trace]
        return scores.index(max(scores)) + 1

    @property
    def _label(self) -> str:
        return f"trial {len(self.trace) + 1} of {self.method.trials}"

    # --- steps ---

    @property
    def batches(self) -> range:
        """Of a pass over the images that are learned from."""
        return range(-(-len(self.learned) // self.method.batch_size))

    def new(self, purpose: str) -> Surrogate:
        """A classifier at a random start of its own for each trial and purpose."""
        seed = self._number(purpose, len(self.trace))
        model = architectures.build_model(self.method.classifier, self.context.num_classes, seed=seed)
        return Surrogate(model, self.method.steps, device=self.device)

    def learn(self, step: int) -> None:
        """Let the generator learn from a batch and the classifier as it is, then train the classifier on it."""
        places = self.places("order", step)
        rows = self.learned[places]
        clean, labels = augmentation.to_float(self.images[rows]), self.labels[rows]
        self.totals[3] += self.learner.step(self.classifier, clean, labels)
        self._train(self.classifier, places)

    def train_tested(self, step: int) -> None:
        """Train the classifier that is to be tested on a batch."""
        self._train(self.tested, self.places("test order", step))

    def _train(self, classifier: Surrogate, places: Tensor) -> None:
        self.totals[0] += len(places)
        self.totals[1:3] += classifier.step(self.shown(places), self.labels[self.learned[places]])

    def places(self, purpose: str, step: int) -> Tensor:
        """Where a batch stands among the images that are learned from, int64 [B]; each pass has its own order.

        A single image left over takes the one before it along: batch statistics need two.
        """
        epoch, batch = divmod(step, len(self.batches))
        size, count = self.method.batch_size, len(self.learned)
        order = self.shuffled(self._keys, purpose, self.done, epoch)
        return order[max(0, min(batch * size, count - 2)) : (batch + 1) * size]

    def shown(self, places: Tensor) -> Tensor:
        """What classifiers are trained on, of images at these places: float [B, C, H, W], channels-last in memory.

        A generator in evaluation mode makes the same of an image every time, so all of it is made once.
        """
        if self._shown is None:
            parts = [self._with_noise(rows) for rows in torch.split(self.learned, self.at_once)]
            self._shown = torch.cat(parts)
        return self._shown[places].permute(0, 3, 1, 2)

    def _with_noise(self, rows: Tensor) -> Tensor:
        clean = augmentation.to_float(self.images[rows]).permute(0, 2, 3, 1)
        return (clean + self.bound * self.outputs(self.frozen, rows)).clamp(0, 1) if self.done else clean

    # --- ends of phases ---

    def _learnt(self) -> str:
        """The learner's generator takes the place of the other one."""
        images, loss, _, clean_loss = self.totals.tolist()
        self.check_finite(clean_loss, "generator", "generator_rate or learning_rate")
        self.check_finite(loss, "classifier", "learning_rate")
        self.frozen.load_state_dict(self.learner.network.state_dict())
        self._shown = None
        self.totals[3] /= images
        self.totals[:3].zero_()
        return ""

    def _judged(self) -> str:
        """Note what the classifier reached, keep the generator if it is the best, and begin the next trial."""
        self.check_finite(float(self.totals[1]), "classifier", "learning_rate")
        accuracy = self.accuracy(self.labels[self.held])
        if not self.done:
            self.clean_accuracy, self._shown = accuracy, None
            told = f"without noise a classifier is right about {accuracy:.2f} % of the images that are held out"
        else:
            self.trace.append(self._record(accuracy))
            if self.chosen == len(self.trace):
                self.best.load_state_dict(self.frozen.state_dict())
            told = self._told(self.trace[-1])
        self.totals.zero_()
        self.classifier, self.tested = self.new("classifier"), self.new("tested")
        return told

    def _record(self, accuracy: float) -> dict[str, Any]:
        """A line of the trace; deterministic, so without times."""
        images, loss, right, clean_loss = self.totals.tolist()
        few = self.held[: self.at_once]
        line = {
            "round": len(self.trace) + 1,
            "clean_loss": round(clean_loss, 6),
            "training_loss": round(loss / images, 6),
            "training_accuracy": round(100 * right / images, 4),
            "accuracy": accuracy,
            "mean_abs": round(self.method.epsilon * float(self.outputs(self.frozen, few).abs().double().mean()), 4),
        }
        if self.method.target_offset:
            line["target_accuracy"] = self.accuracy(self.learner.targets(self.labels[self.held]))
        return line

    def _told(self, line: Mapping[str, Any]) -> str:
        intended = f", takes {line['target_accuracy']:.2f} % for their target" if "target_accuracy" in line else ""
        return (
            f"trial {line['round']} of {self.method.trials}: a classifier trained with the noise is right about "
            f"{line['accuracy']:.2f} % of clean images{intended} (without noise {self.clean_accuracy:.2f} %); "
            f"noise {line['mean_abs']:.2f}/255 on average"
        )

    def _score(self, line: Mapping[str, Any]) -> float:
        """What the best generator has most of."""
        return float(line["target_accuracy"] if self.method.target_offset else -line["accuracy"])

    def accuracy(self, labels: Tensor) -> float:
        """Percent of the images that are held out, clean, which the tested classifier takes for these labels."""
        if self.method.normalisation is Normalisation.RUNNING:
            parts = torch.split(torch.arange(len(self.held), device=self.device), self.at_once)
            answers = self.tested.frozen(Precision.FLOAT32).judge
            right = [answers(self._clean(part), labels[part])[0] for part in parts]
        else:
            # Equal parts, so that no image is alone with its own statistics.
            order = self.shuffled(self._held_keys, "tested", self.done)
            parts = torch.tensor_split(order, -(-len(order) // IMAGES_TESTED))
            right = [self.tested.right_in_batches(self._clean(part), labels[part]) for part in parts]
        return round(100 * float(torch.cat(right).double().mean()), 4)

    def _clean(self, places: Tensor) -> Tensor:
        """What classifiers are tested on, of images at these places among those that are held out."""
        return augmentation.to_float(self.images[self.held[places]])

    # --- the estimate ---

    def estimate(self) -> Estimate | None:
        """From a short timing of both kinds of steps."""
        if self.done >= self.before:
            return None
        learning, training, flop = self._costs()
        left = self.method.trials - len(self.trace)
        passes = self.method.epochs * len(self.learned)
        tests = left + (not self.done)
        seconds = passes * (learning * left + training * (left + tests))
        text = f"about {duration(seconds / left)} a trial, {duration(seconds)} for {counted(left, 'trial')}"
        if self.device.type == "cpu":
            text += "; one thread does it, so that the result is the same for any number of cores"
        return Estimate(text=text, seconds=seconds, flop=flop * passes * left, rounds=left, unit="trial")

    def _costs(self) -> tuple[float, float, float]:
        """Seconds of an image in a generator's step and in a classifier's, and the FLOP of one in a trial."""
        from torch.utils.flop_counter import FlopCounterMode

        rows = self.learned[: IMAGES_TIMED[self.device.type]]
        clean, labels = augmentation.to_float(self.images[rows]), self.labels[rows]
        learner, classifier = copy.deepcopy(self.learner), copy.deepcopy(self.classifier)
        learning = median_seconds(lambda _: learner.step(classifier, clean, labels), 2, self.device)
        training = median_seconds(lambda _: classifier.step(clean, labels), 2, self.device)
        with FlopCounterMode(display=False) as counter:
            learner.step(classifier, clean, labels)
            classifier.step(clean, labels)
            classifier.step(clean, labels)
        return learning / len(rows), training / len(rows), counter.get_total_flops() / len(rows)


class Learner:
    """A generator in training mode, with its optimiser."""

    def __init__(self, method: DeepConfuse, network: nn.Module, num_classes: int) -> None:
        self._bound, self._offset, self._num_classes = method.epsilon / 255, method.target_offset, num_classes
        self.network = network.train()
        self._parameters = list(network.parameters())
        self._optimiser = torch.optim.Adam(self._parameters, lr=method.generator_rate, fused=True)

    def step(self, classifier: Surrogate, clean: Tensor, labels: Tensor) -> Tensor:
        """One step of Adam by the gradient through a virtual step of the classifier on images with noise.

        Of images float [B, C, H, W] and labels int64 [B].

        Returns:
            The summed cross entropy of the clean images after the virtual step, float64 [] on the device.
        """
        shown = (clean + self._bound * self.network(clean)).clamp(0, 1)
        logits = classifier.unrolled(shown, labels)(clean)
        loss = functional.cross_entropy(logits, labels)
        wanted = functional.cross_entropy(logits, self.targets(labels)) if self._offset else -loss
        self._optimiser.zero_grad()
        torch.autograd.backward(wanted, inputs=self._parameters)
        self._optimiser.step()
        return loss.detach().double() * len(labels)

    def targets(self, labels: Tensor) -> Tensor:
        """What classifiers should take images of these classes for, int64 [B]."""
        return (labels + self._offset) % self._num_classes

    def parts(self) -> dict[str, Part]:
        """What changes, by name: see ``Stepwise.parts``."""
        return {"generator": self.network, "generator_optimiser": self._optimiser}


def _check(method: DeepConfuse, train: Split, num_classes: int) -> None:
    height, width, channels = train.images.shape[1:]
    shrinks = generators.CONFUSING_SHRINKS
    if channels != 3 or height % shrinks or width % shrinks:
        raise InputError(
            f"DeepConfuse: images are {height} x {width} with {channels} channels; its generator takes RGB images "
            f"whose sides are multiples of {shrinks}"
        )
    if num_classes < 2 and method.generator is None:
        raise InputError("DeepConfuse: there is one class only; a classifier takes at least 2")
    if method.target_offset and method.target_offset % num_classes == 0:
        raise InputError(
            f"DeepConfuse: target_offset is {method.target_offset}: with {num_classes} classes the target would be the "
            "true class"
        )
