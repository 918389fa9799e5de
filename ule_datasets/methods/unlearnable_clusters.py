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

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ule_datasets.base.checkpoint import State
from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.base.progress import duration
from ule_datasets.base.seeds import Seed
from ule_datasets.base.shown import counted
from ule_datasets.compute.devices import median_seconds, resident
from ule_datasets.compute.parts import Part
from ule_datasets.compute.precision import Precision
from ule_datasets.data.perturbation import Additive, Support
from ule_datasets.data.quantization import Apply, Quantize, quantize
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.clustering import (
    Clustering,
    FrozenFeatures,
    agreement,
    check_enough,
    nearness,
    to_levels,
    versions,
    windows,
)
from ule_datasets.methods.engine.clustering import CropRule as CropRule
from ule_datasets.methods.engine.settings import check_at_least
from ule_datasets.methods.engine.stepwise import Estimate, Phase, Spread, Stepwise, repeatable
from ule_datasets.methods.method import BoundedNoise, Context, Crafted
from ule_datasets.models.weights import Weights, obtain

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import functional

    from ule_datasets.methods.engine import generators
    from ule_datasets.models import architectures, initialisation
else:
    torch, functional = lazy("torch"), lazy("torch.nn.functional")
    generators = lazy("ule_datasets.methods.engine.generators")
    architectures, initialisation = (
        lazy("ule_datasets.models.architectures"),
        lazy("ule_datasets.models.initialisation"),
    )

MOST_JUDGED = 256
"""Images of each cluster that are looked at before and after; the canonical order makes the first ones random."""
LEAST_MOVED = 5.0
"""Percent of the images: with fewer, a craft has reached nothing."""
IMAGES_TIMED = (4, 16)
"""Of a step on a CPU, for the estimate: two sizes tell the generator's share from that of the images."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class UnlearnableClusters(BoundedNoise):
    """One perturbation for each cluster of images (UC; with CLIP's image encoder as the surrogate, UC-CLIP)."""

    identifier: ClassVar[str] = "uc"
    title: ClassVar[str] = "Unlearnable Clusters"
    citation: ClassVar[str] = "zhang2023clusters"
    needs_labels: ClassVar[bool] = False
    round_name: ClassVar[str] = "generator"

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
        check_at_least(1, self, "kmeans_restarts", "feature_batch", "epochs", "batch_size")
        check_at_least(1, self, "generator_width", "generator_blocks")
        check_at_least(2, self, "num_clusters")
        check_at_least(0, self, "weight_decay")
        if self.epsilon not in range(1, 256):
            raise InputError(f"{name}: epsilon is {self.epsilon}, must be a whole number of 1 .. 255 (units of 1/255)")
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

    def target(self, cluster: int) -> int:
        """The cluster whose centre the images of another one are pulled to."""
        return (cluster + self.target_offset) % self.num_clusters

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The surrogate."""
        return (self.surrogate,)

    def shortfall(self, notes: Mapping[str, Any]) -> str:
        """Hardly an image comes to lie nearest to the wrong cluster."""
        found = [cluster for cluster in notes.get("clusters", ()) if cluster["judged"]]
        judged = sum(cluster["judged"] for cluster in found)
        moved = sum(cluster["judged"] * cluster["after"]["nearest"] for cluster in found) / max(1, judged)
        if moved >= LEAST_MOVED:
            return ""
        return (
            f"{moved:.1f} % of the images that were looked at come to lie nearest to the centre of the wrong cluster; "
            "more epochs, or a surrogate that tells the images apart, help"
        )

    def check_amount(self, num_images: int) -> None:
        """Every cluster needs an image."""
        check_enough(self.title, num_images, self.num_clusters)

    def generate(self, train: Split, context: Context) -> Crafted:
        """Cluster, then train one generator a cluster on ``context.device``; an additive layer with an entry for each.

        Raises:
            InputError: fewer images than clusters, images of a size that generators cannot make, or weights that are
                nowhere or of another architecture.
        """
        clusters = Clusters(self, train, context)
        notes = clusters.run()
        members = clusters.clustering.members
        layer = Additive(levels=clusters.levels(), support=Support.CLUSTER, keys=train.keys, members=members)
        return Crafted(layers=(layer,), notes=notes)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Work:
    """What all generators have in common, besides the images; picklable."""

    method: UnlearnableClusters
    weights: Path
    seed: Seed
    device: str
    clustering: Clustering


class Workbench:
    """The common material, where it is used: the surrogate and the images (uint8 [N, H, W, C]) on the device."""

    def __init__(self, work: Work, images: np.ndarray) -> None:
        self.work, self.images, self.device = work, images, torch.device(work.device)
        self.resident = resident(images, self.device)
        surrogate, normalise = work.method.surrogate, work.method.normalise
        self.features = FrozenFeatures(surrogate, work.weights, normalise=normalise, device=self.device)
        self.targets = torch.from_numpy(work.clustering.centres).softmax(dim=1).to(self.device)


class GeneratorTraining:
    """The generator of one cluster, trained a step at a time; everything random is seeded by the cluster's number."""

    def __init__(self, bench: Workbench, cluster: int) -> None:
        self.bench, self.cluster = bench, cluster
        method = self._method = bench.work.method
        self.rows = method.train_on.rows(bench.work.clustering.members, cluster)
        self._per_epoch = math.ceil(len(self.rows) / method.batch_size)
        self.steps = method.epochs * self._per_epoch
        self._losses = torch.zeros(method.epochs, dtype=torch.float64)
        self._total = torch.zeros((), dtype=torch.float64, device=bench.device)
        height, width, _ = bench.images.shape[1:]
        drawn = torch.Generator().manual_seed(self._number("input"))
        self._input = torch.rand(1, 3, height, width, generator=drawn).to(bench.device)
        factory = partial(generators.TranslationGenerator, method.generator_width, method.generator_blocks)
        self._network = initialisation.initialised(factory, seed=self._number("initialisation")).to(bench.device)
        self._optimiser = torch.optim.Adam(
            self._network.parameters(), lr=method.learning_rate, weight_decay=method.weight_decay, fused=True
        )

    def parts(self) -> dict[str, Part]:
        """What changes, by name: see ``Stepwise.parts``."""
        network, optimiser = self._network, self._optimiser
        return {"generator": network, "generator_optimiser": optimiser, "losses": self._losses, "total": self._total}

    def advance(self, step: int) -> None:
        """One step of Adam, counted from 0.

        Raises:
            InputError: at the end of an epoch, the loss is not finite.
        """
        epoch, place = divmod(step, self._per_epoch)
        rows = self.rows[place * self._method.batch_size : (place + 1) * self._method.batch_size]
        self._total += self.step_on(rows, step) * len(rows)
        if place == self._per_epoch - 1:
            self._losses[epoch] = self._total / len(self.rows)
            self._total.zero_()
            if not self._losses[epoch].isfinite():
                raise InputError(
                    f"{self._method.title}: the loss of cluster {self.cluster} is not finite in epoch {epoch + 1}; "
                    "a smaller learning_rate helps"
                )

    def step_on(self, rows: np.ndarray, step: int) -> Tensor:
        """Move the generator by some images; their mean loss before, float32 [] on the device."""
        method = self._method
        first, last = method.learning_rate, method.final_rate
        for group in self._optimiser.param_groups:
            group["lr"] = last + (first - last) * (1 + math.cos(math.pi * step / self.steps)) / 2
        drawn = torch.Generator().manual_seed(self._number("augmentation", step))
        images = self.bench.resident[torch.from_numpy(rows).to(self.bench.device)]
        clean = to_levels(windows(images, method.augmentation, drawn))
        shown = (clean + self._noise()).clamp(0, 255)
        bfloat16 = method.precision is Precision.BFLOAT16
        with torch.autocast(self.bench.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            features = self.bench.features(shown)
        target = self.bench.targets[method.target(self.cluster)].expand_as(features)
        loss = functional.kl_div(features.log_softmax(dim=1), target, reduction="batchmean")
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        self._optimiser.step()
        return loss.detach()

    def finished(self) -> tuple[np.ndarray, dict[str, Any]]:
        """The perturbation, float32 [H, W, C] in units of 1/255, and what it does to images of the cluster."""
        with torch.no_grad():
            noise = self._noise()[0].permute(1, 2, 0).cpu().contiguous().numpy()
        method, clustering = self._method, self.bench.work.clustering
        levels = quantize(noise, method.quantize, method.apply)
        judged = np.flatnonzero(clustering.members == self.cluster)[:MOST_JUDGED]
        clean = self.bench.images[judged]
        moved = np.clip(clean.astype(np.int16) + levels, 0, 255).astype(np.uint8)
        target = method.target(self.cluster)
        before, after = (
            nearness(self.bench.features.of(images, method.feature_batch), clustering.centres, target)
            for images in (clean, moved)
        )
        size = np.abs(levels.astype(np.int16))
        record = {
            "cluster": self.cluster,
            "target": target,
            "images": clustering.sizes[self.cluster],
            "steps": self.steps,
            "losses": [round(loss, 6) for loss in self._losses.tolist()],
            "judged": len(judged),
            "before": before,
            "after": after,
            "mean_abs": round(float(size.mean()), 4),
            "at_bound": round(100 * float((size == method.epsilon).mean()), 3),
        }
        return noise, record

    def _noise(self) -> Tensor:
        """The perturbation in units of 1/255, float32 [1, C, H, W]."""
        outputs: Tensor = self._network(self._input)
        return self._method.bound.bounded(outputs, self._method.epsilon)

    def _number(self, *purpose: str | int) -> int:
        return self.bench.work.seed.integer32(self._method.identifier, self.cluster, *purpose)


class Clusters(Stepwise):
    """The whole craft: features, clusters, and a generator for each of them, which know nothing of each other.

    On a CPU each is trained by one thread; several workers train several generators.
    """

    method: UnlearnableClusters

    def __init__(self, method: UnlearnableClusters, train: Split, context: Context) -> None:
        super().__init__(method, context, method.precision)
        self.train = train
        height, width, channels = train.images.shape[1:]
        least = generators.SMALLEST_TRANSLATED_IMAGE
        if height % 4 or width % 4 or min(height, width) < least:
            raise InputError(
                f"{method.title}: images are {height} x {width}; generators make images whose sides are multiples of 4 "
                f"and at least {least}"
            )
        method.check_amount(len(train))
        # Tells also whether the surrogate takes images of this size.
        surrogate = method.surrogate
        self._forward = architectures.forward_flop(surrogate.architecture, surrogate.num_outputs, max(height, width))
        self.weights = obtain(surrogate, context.weights, context.reporter)
        self.noise = torch.zeros(method.num_clusters, height, width, channels)
        self.clustering = Clustering(members=np.empty(0, dtype=np.int32), centres=np.empty((0, 0)), inertia=0.0)
        """Without clusters until the work has begun."""
        self._training: GeneratorTraining | None = None

    def environment(self) -> dict[str, str]:
        """Also the library that divides into clusters."""
        return {**super().environment(), **versions()}

    def parts(self) -> dict[str, Part]:
        """The clusters, their noise, and the generator that is being trained here."""
        members, centres = torch.from_numpy(self.clustering.members), torch.from_numpy(self.clustering.centres)
        training = self._trained(self._left()[0]).parts() if self.position else {}
        return {"members": members, "centres": centres, "noise": self.noise, **training}

    def facts(self) -> dict[str, Any]:
        """The sum of squares in the clusters."""
        return {"inertia": self.clustering.inertia}

    def restore(self, state: State) -> None:
        """Take over the clusters first: they say what images a generator is trained on."""
        members, centres = np.array(state.arrays["members"]), np.array(state.arrays["centres"])
        self.clustering = Clustering(members=members, centres=centres, inertia=state.facts["inertia"])
        super().restore(state)

    def following(self) -> Phase | Spread | None:
        """The generators that are left, all at once where there are workers for them."""
        if not self.clustering.sizes:
            self.clustering = self._found()
            self.save()
        if not (left := self._left()):
            return None
        if self._workers(left) > 1 and not self.position:
            tasks, images = {cluster + 1: (self._work(), cluster) for cluster in left}, self.train.pixels()
            return Spread(
                function=train_generator,
                tasks=tasks,
                array=images,
                unit="generator",
                take=self._take,
                memory=self.weights.path.stat().st_size,
            )
        training = self._trained(left[0])
        return Phase(
            label=f"generator {left[0] + 1} of {self.method.num_clusters}",
            unit="step",
            steps=range(training.steps),
            step=training.advance,
            end=lambda: self._take(training.finished()),
        )

    def standing(self) -> str:
        """How many generators are finished."""
        return f": {len(self.trace)} of {self.method.num_clusters} generators are trained"

    def notes(self) -> dict[str, Any]:
        """What is known of the clusters, in their order."""
        clustering = self.clustering
        return {
            "clusters": sorted(self.trace, key=lambda line: int(line["cluster"])),
            "sizes": clustering.sizes,
            "inertia": clustering.inertia,
            "agreement_with_labels": agreement(self.train.labels, clustering.members),
            "environments": self.environments,
            "weights": self.weights.provenance(self.method.surrogate),
        }

    def levels(self) -> np.ndarray:
        """The perturbations as whole grey levels, int8 or int16 [p, H, W, C]; after ``run``."""
        return quantize(self.noise.numpy(), self.method.quantize, self.method.apply)

    def estimate(self) -> Estimate:
        """From a short timing of a generator's steps."""
        left, workers = self._left(), self._workers(self._left())
        counts = [len(self.method.train_on.rows(self.clustering.members, cluster)) for cluster in left]
        steps = self.method.epochs * sum(math.ceil(count / self.method.batch_size) for count in counts)
        images = self.method.epochs * sum(counts)
        step, image = self._seconds(GeneratorTraining(self._bench(), left[0]))
        seconds = (step * steps + image * images) / len(left) * math.ceil(len(left) / workers)
        at_a_time = f", {workers} at a time" if workers > 1 else ""
        text = f"about {duration(seconds)} for {counted(len(left), 'generator')}{at_a_time}"
        flop = 2 * self._forward * images
        return Estimate(text=text, seconds=seconds, flop=flop, rounds=len(left), unit="generator")

    def _left(self) -> list[int]:
        finished = {line["cluster"] for line in self.trace}
        return [cluster for cluster in range(self.method.num_clusters) if cluster not in finished]

    def _workers(self, left: Sequence[int]) -> int:
        """How many generators are trained at a time."""
        return min(self.context.executor.workers, len(left)) if self.device.type == "cpu" else 1

    def _work(self) -> Work:
        weights, seed, device = self.weights.path, self.context.seed, str(self.device)
        return Work(method=self.method, weights=weights, seed=seed, device=device, clustering=self.clustering)

    def _bench(self) -> Workbench:
        return self._training.bench if self._training else Workbench(self._work(), self.train.pixels())

    def _trained(self, cluster: int) -> GeneratorTraining:
        """The training of a cluster's generator in this process, one at a time."""
        if self._training is None or self._training.cluster != cluster:
            self._training = GeneratorTraining(self._bench(), cluster)
        return self._training

    def _found(self) -> Clustering:
        method, reporter = self.method, self.context.reporter
        frozen = FrozenFeatures(method.surrogate, self.weights.path, normalise=method.normalise, device=self.device)
        features = frozen.of(self.train.pixels(), method.feature_batch, reporter)
        seed = self._number("k-means")
        found = Clustering.of(features, method.num_clusters, restarts=method.kmeans_restarts, seed=seed)
        reporter.say(
            f"{method.num_clusters} clusters of {min(found.sizes):,} to {max(found.sizes):,} images by "
            f"{features.shape[1]} features of {method.surrogate.name}"
        )
        return found

    def _take(self, finished: tuple[np.ndarray, dict[str, Any]]) -> str:
        noise, record = finished
        self.noise[record["cluster"]] = torch.from_numpy(noise)
        self.trace.append(record)
        losses, after = record["losses"], record["after"]
        return (
            f"generator {record['cluster'] + 1} of {self.method.num_clusters}: loss {losses[0]:.4f} in the first "
            f"epoch, {losses[-1]:.4f} in the last; {after['nearest']:.1f} % of the cluster's images come to lie "
            "nearest to the centre of the wrong cluster"
        )

    def _seconds(self, trial: GeneratorTraining) -> tuple[float, float]:
        """Estimated seconds of a step without images, and of each image in it."""
        rows = trial.rows[: self.method.batch_size]

        def seconds(count: int) -> float:
            return median_seconds(lambda number: trial.step_on(rows[:count], number), 2, self.device)

        few, more = IMAGES_TIMED
        if self.device.type != "cpu" or len(rows) <= more:
            return 0.0, seconds(len(rows)) / len(rows)
        small, large = seconds(few), seconds(more)
        image = max(0.0, large - small) / (more - few)
        return max(0.0, small - image * few), image


def train_generator(task: tuple[Work, int], images: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """The work of a worker process: the generator of one cluster from its start to its end."""
    work, cluster = task
    with repeatable(torch.device(work.device), work.method.precision, one_thread=True):
        training = GeneratorTraining(Workbench(work, images), cluster)
        for step in range(training.steps):
            training.advance(step)
        return training.finished()
