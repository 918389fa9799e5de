"""Unlearnable Clusters: features, k-means, and one generator a cluster (see the method's module).

Generators do not know of each other: everything random about one is seeded by its cluster's number. On a CPU each is
trained by one thread, and so are features and k-means computed, because sums depend on how many threads share them;
several cores train several generators. So the result is the same for any number of workers and cores, bit for bit.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ule_datasets.base.checkpoint import State
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import duration
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.devices import (
    cpu_threads,
    describe_device,
    deterministic_algorithms,
    median_seconds,
    pick_device,
    products_in,
    resident,
)
from ule_datasets.compute.executor import LocalExecutor, Lost
from ule_datasets.compute.precision import Precision
from ule_datasets.data.quantization import quantize
from ule_datasets.methods.engine.clustering import Clustering, FrozenFeatures, to_levels
from ule_datasets.methods.engine.records import (
    GPU_FLOPS,
    SECONDS_BETWEEN_CHECKPOINTS,
    continued,
    environment,
)
from ule_datasets.methods.engine.translation_generator import SMALLEST_IMAGE, build_generator
from ule_datasets.models.architectures import forward_flop
from ule_datasets.models.weights import obtain
from ule_datasets.victims.augmentation import Draws, cut

if TYPE_CHECKING:
    from ule_datasets.data.split import Split
    from ule_datasets.methods.method import Context
    from ule_datasets.methods.unlearnable_clusters import CropRule, UnlearnableClusters

MOST_JUDGED = 256
"""Images of each cluster that are looked at before and after; the canonical order makes the first ones random."""
IMAGES_TIMED = (4, 16)
"""Of a step on a CPU, for the estimate: two sizes tell the generator's share from that of the images."""
PARAMETER, MEAN, SQUARE = "parameter.", "mean.", "square."


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Work:
    """What all generators have in common; picklable."""

    method: UnlearnableClusters
    weights: Path
    seed: Seed
    device: str
    images: np.ndarray | Path
    """Uint8 [N, H, W, C], or a file of NumPy that holds them."""
    clustering: Clustering


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Task:
    """One generator; picklable."""

    work: Work
    cluster: int
    begun: State | None = None
    """Where it was interrupted."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Finished:
    """What a generator made."""

    noise: np.ndarray
    """Float32 [H, W, C] in units of 1/255."""
    record: dict[str, Any] = field(default_factory=dict)
    """JSON values."""


class Workbench:
    """The common material, where it is used: the surrogate and the images on the device."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.device = torch.device(work.device)
        method = work.method
        # "c": workers share the file's pages, and torch takes only memory that may be written to.
        self.images = work.images if isinstance(work.images, np.ndarray) else np.load(work.images, mmap_mode="c")
        self.resident = resident(self.images, self.device)
        self.features = FrozenFeatures(
            method.surrogate, work.weights, normalise=method.normalise, device=self.device
        )  # fmt: skip
        self.targets = torch.from_numpy(work.clustering.centres).softmax(dim=1).to(self.device)


class GeneratorTraining:
    """The generator of one cluster, trained a step at a time."""

    def __init__(self, bench: Workbench, cluster: int) -> None:
        self.bench, self.cluster = bench, cluster
        method, seed = bench.work.method, bench.work.seed
        self._method, self._seed = method, seed
        self._rows = method.train_on.rows(bench.work.clustering.members, cluster)
        self._per_epoch = math.ceil(len(self._rows) / method.batch_size)
        self.steps = method.epochs * self._per_epoch
        self.step = 0
        self.losses: list[float] = []
        self._total = torch.zeros((), dtype=torch.float64, device=bench.device)
        height, width, _ = bench.images.shape[1:]
        drawn = torch.Generator().manual_seed(self._number("input"))
        self._input = torch.rand(1, 3, height, width, generator=drawn).to(bench.device)
        self._network = build_generator(
            width=method.generator_width, blocks=method.generator_blocks, seed=self._number("initialisation")
        ).to(bench.device)
        self._optimiser = torch.optim.Adam(
            self._network.parameters(), lr=method.learning_rate, weight_decay=method.weight_decay, fused=True
        )

    def advance(self) -> None:
        """One step of Adam.

        Raises:
            InputError: at the end of an epoch, the loss is not finite.
        """
        place = self.step % self._per_epoch
        rows = self._rows[place * self._method.batch_size : (place + 1) * self._method.batch_size]
        self._total += self.step_on(rows) * len(rows)
        self.step += 1
        if self.step % self._per_epoch == 0:
            self.losses.append(float(self._total) / len(self._rows))
            self._total.zero_()
            if not math.isfinite(self.losses[-1]):
                raise InputError(
                    f"{self._method.title}: the loss of cluster {self.cluster} is not finite in epoch "
                    f"{len(self.losses)}; a smaller learning_rate helps"
                )

    def step_on(self, rows: np.ndarray) -> Tensor:
        """Move the generator by some images; their mean loss before, float32 [] on the device."""
        method = self._method
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate()
        drawn = torch.Generator().manual_seed(self._number("augmentation", self.step))
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

    @torch.no_grad()
    def finished(self) -> Finished:
        """The perturbation, and what it does to images of the cluster."""
        noise = self._noise()[0].permute(1, 2, 0).cpu().contiguous().numpy()
        method, clustering = self._method, self.bench.work.clustering
        levels = quantize(noise, method.quantize, method.apply)
        judged = np.flatnonzero(clustering.members == self.cluster)[:MOST_JUDGED]
        clean = self.bench.images[judged]
        moved = np.clip(clean.astype(np.int16) + levels, 0, 255).astype(np.uint8)
        target = method.target(self.cluster)
        before, after = (
            _nearness(self.bench.features.of(images, method.feature_batch), clustering.centres, target)
            for images in (clean, moved)
        )
        size = np.abs(levels.astype(np.int16))
        record = {
            "cluster": self.cluster, "target": target, "images": clustering.sizes[self.cluster], "steps": self.steps,
            "losses": [round(loss, 6) for loss in self.losses], "judged": len(judged), "before": before, "after": after,
            "mean_abs": round(float(size.mean()), 4),
            "at_bound": round(100 * float((size == method.epsilon).mean()), 3),
        }  # fmt: skip
        return Finished(noise=noise, record=record)

    def state(self) -> State:
        """What changes, to go on from."""
        arrays = {}
        for name, parameter in self._network.named_parameters():
            arrays[PARAMETER + name] = _numpy(parameter)
            kept = self._optimiser.state.get(parameter)
            if kept:
                arrays[MEAN + name], arrays[SQUARE + name] = _numpy(kept["exp_avg"]), _numpy(kept["exp_avg_sq"])
        facts = {"cluster": self.cluster, "step": self.step, "losses": self.losses, "total": float(self._total)}
        return State(arrays=arrays, facts=facts)

    def restore(self, state: State) -> None:
        """Take over what ``state`` returned."""
        arrays = {name: torch.from_numpy(np.array(array)) for name, array in state.arrays.items()}
        parameters = dict(self._network.named_parameters())
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(arrays[PARAMETER + name])
        self.step, self.losses = state.facts["step"], list(state.facts["losses"])
        self._total.fill_(state.facts["total"])
        content = self._optimiser.state_dict()
        content["state"] = {
            number: {"step": torch.tensor(float(self.step)), "exp_avg": arrays[MEAN + name],
                     "exp_avg_sq": arrays[SQUARE + name]}
            for number, name in enumerate(parameters) if MEAN + name in arrays
        }  # fmt: skip
        self._optimiser.load_state_dict(content)

    def _noise(self) -> Tensor:
        """The perturbation in units of 1/255, float32 [1, C, H, W]."""
        outputs: Tensor = self._network(self._input)
        return self._method.bound.bounded(outputs, self._method.epsilon)

    def _rate(self) -> float:
        first, last = self._method.learning_rate, self._method.final_rate
        return last + (first - last) * (1 + math.cos(math.pi * self.step / self.steps)) / 2

    def _number(self, *purpose: str | int) -> int:
        return self._seed.integer32(self._method.identifier, self.cluster, *purpose)


class Clusters:
    """The whole craft: features, clusters, and a generator for each of them."""

    def __init__(self, method: UnlearnableClusters, train: Split, context: Context) -> None:
        self.method, self.train, self.context = method, train, context
        self.device = pick_device(context.device)
        height, width = train.images.shape[1:3]
        if height % 4 or width % 4 or min(height, width) < SMALLEST_IMAGE:
            raise InputError(
                f"{method.title}: images are {height} x {width}; generators make images whose sides are multiples of 4 "
                f"and at least {SMALLEST_IMAGE}"
            )
        if len(train) < method.num_clusters:
            raise InputError(f"{method.title}: {len(train)} images, too few for {method.num_clusters} clusters")
        # Tells also whether the surrogate takes images of this size.
        self._forward = forward_flop(method.surrogate.architecture, method.surrogate.num_outputs, max(height, width))
        self.weights = obtain(method.surrogate, context.weights, context.reporter)
        self.finished: dict[int, Finished] = {}
        self.begun: State | None = None
        self.environments = [_environment(self.device)]
        self._clustering: Clustering | None = None
        self._saved_at = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Do what is left to do; what happened, as JSON values."""
        with repeatable(self.device, self.method.precision):
            self._resume()
            if self._clustering is None:
                self._clustering = self._found()
                self._save()
            left = [cluster for cluster in range(self.method.num_clusters) if cluster not in self.finished]
            if left:
                self._train(left)
        sizes = self.clustering.sizes
        return {
            "clusters": [self.finished[cluster].record for cluster in sorted(self.finished)],
            "sizes": sizes,
            "inertia": self.clustering.inertia,
            "agreement_with_labels": self._agreement(),
            "environments": self.environments,
            "weights": self.weights.provenance(self.method.surrogate),
        }

    @property
    def clustering(self) -> Clustering:
        """After ``run``."""
        assert self._clustering is not None
        return self._clustering

    @property
    def members(self) -> np.ndarray:
        """The cluster of every image, int32 [N]; after ``run``."""
        return self.clustering.members

    def levels(self) -> np.ndarray:
        """The perturbations as whole grey levels, int8 or int16 [p, H, W, C]; after ``run``."""
        noise = np.stack([self.finished[cluster].noise for cluster in range(self.method.num_clusters)])
        return quantize(noise, self.method.quantize, self.method.apply)

    def _found(self) -> Clustering:
        method, reporter = self.method, self.context.reporter
        features = FrozenFeatures(
            method.surrogate, self.weights.path, normalise=method.normalise, device=self.device
        ).of(
            self.train.pixels(),
            method.feature_batch,
            lambda parts: reporter.track(parts, total=len(parts), label="features", unit="batch"),
        )  # fmt: skip
        seed = self.context.seed.integer32(method.identifier, "k-means")
        found = Clustering.of(features, method.num_clusters, restarts=method.kmeans_restarts, seed=seed)
        reporter.say(
            f"{method.num_clusters} clusters of {min(found.sizes):,} to {max(found.sizes):,} images by "
            f"{features.shape[1]} features of {method.surrogate.name}"
        )
        return found

    def _train(self, left: Sequence[int]) -> None:
        work = Work(
            method=self.method, weights=self.weights.path, seed=self.context.seed, device=str(self.device),
            images=self.train.pixels(), clustering=self.clustering,
        )  # fmt: skip
        workers = min(self.context.workers, len(left)) if self.device.type == "cpu" else 1
        bench = Workbench(work)
        self._announce(bench, left, workers)
        if workers == 1:
            for cluster in left:
                self._train_here(bench, cluster)
            return
        del bench
        with tempfile.TemporaryDirectory(prefix="ule-") as folder:
            images = Path(folder) / "images.npy"
            np.save(images, self.train.pixels())
            shared = Work(
                method=work.method, weights=work.weights, seed=work.seed, device=work.device, images=images,
                clustering=work.clustering,
            )  # fmt: skip
            self._train_elsewhere([Task(work=shared, cluster=c, begun=self._begun(c)) for c in left], workers)

    def _train_here(self, bench: Workbench, cluster: int) -> None:
        training = GeneratorTraining(bench, cluster)
        begun = self._begun(cluster)
        if begun is not None:
            training.restore(begun)
        rest = range(training.step, training.steps)
        label = f"generator {cluster + 1} of {self.method.num_clusters}"
        for _ in self.context.reporter.track(rest, total=len(rest), label=label, unit="step"):
            training.advance()
            if time.monotonic() - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                self.begun = training.state()
                self._save()
        self._take(cluster, training.finished())

    def _train_elsewhere(self, tasks: Sequence[Task], workers: int) -> None:
        reporter = self.context.reporter
        with LocalExecutor(workers, preload=(__name__,)) as executor:
            results = executor.unordered(
                train_generator,
                tasks,
                on_lost=lambda task: reporter.warn(f"the worker of generator {task.cluster + 1} died; once more"),
            )
            for index, result in reporter.track(results, total=len(tasks), label="generators", unit="generator"):
                if isinstance(result, Lost):
                    raise InputError(
                        f"{self.method.title}: generator {tasks[index].cluster + 1} could not be trained: "
                        f"{result.reason}; fewer --workers need less memory"
                    )
                self._take(tasks[index].cluster, result)

    def _take(self, cluster: int, finished: Finished) -> None:
        self.finished[cluster] = finished
        if self._begun(cluster) is not None:
            self.begun = None
        self._save()
        losses, after = finished.record["losses"], finished.record["after"]
        self.context.reporter.say(
            f"generator {cluster + 1} of {self.method.num_clusters}: loss {losses[0]:.4f} in the first epoch, "
            f"{losses[-1]:.4f} in the last; {after['nearest']:.1f} % of the cluster's images come to lie nearest to "
            "the centre of the wrong cluster"
        )

    def _begun(self, cluster: int) -> State | None:
        return self.begun if self.begun is not None and self.begun.facts["cluster"] == cluster else None

    def _agreement(self) -> float | None:
        """Normalised mutual information of clusters and labels, 0 .. 1; ``None`` where there is one label."""
        from sklearn.metrics import normalized_mutual_info_score

        if len(np.unique(self.train.labels)) < 2:
            return None
        return round(float(normalized_mutual_info_score(self.train.labels, self.members)), 4)

    # --- checkpoints, the estimate ---

    def _save(self) -> None:
        arrays = {
            "members": self.clustering.members, "centres": self.clustering.centres,
            **{f"noise.{cluster}": finished.noise for cluster, finished in self.finished.items()},
        }  # fmt: skip
        if self.begun is not None:
            arrays |= {f"begun.{name}": array for name, array in self.begun.arrays.items()}
        facts = {
            "inertia": self.clustering.inertia,
            "records": {str(cluster): finished.record for cluster, finished in self.finished.items()},
            "begun": None if self.begun is None else self.begun.facts,
            "environments": self.environments,
        }
        self.context.checkpoint.save(State(arrays=arrays, facts=facts))
        self._saved_at = time.monotonic()

    def _resume(self) -> None:
        state = self.context.checkpoint.load()
        if state is None:
            return
        arrays, facts = state.arrays, state.facts
        self._clustering = Clustering(
            members=arrays["members"], centres=arrays["centres"], inertia=facts["inertia"]
        )  # fmt: skip
        self.finished = {
            int(cluster): Finished(noise=arrays[f"noise.{cluster}"], record=record)
            for cluster, record in facts["records"].items()
        }
        if facts["begun"] is not None:
            self.begun = State(arrays=_below("begun.", arrays), facts=facts["begun"])
        now = self.environments[0]
        self.environments = facts["environments"]
        if len(self.finished) == self.method.num_clusters:
            return
        self.environments = continued(self.environments, now, self.context.reporter)
        self.context.reporter.say(
            f"continuing: {len(self.finished)} of {self.method.num_clusters} generators are trained"
        )

    def _announce(self, bench: Workbench, left: Sequence[int], workers: int) -> None:
        """Say where the work will be done and how long it may take, from a short timing."""
        rounds = math.ceil(len(left) / workers)
        images = sum(len(self.method.train_on.rows(self.members, cluster)) for cluster in left) * self.method.epochs
        steps = sum(GeneratorTraining(bench, cluster).steps for cluster in left)
        step, image = self._seconds(bench, left[0])
        seconds = (step * steps + image * images) / len(left) * rounds
        at_a_time = f", {workers} at a time" if workers > 1 else ""
        text = (
            f"{self.method.title} on {describe_device(self.device)}: about {duration(seconds)} for {len(left)} "
            f"generators{at_a_time}"
        )
        if self.device.type == "cpu" and seconds > 600:
            gpu = duration(2 * self._forward * images / GPU_FLOPS)
            text += f"; on a GPU that sustains {GPU_FLOPS / 1e12:.0f} TFLOP/s {gpu}"
        self.context.reporter.say(text)

    def _seconds(self, bench: Workbench, cluster: int) -> tuple[float, float]:
        """Estimated seconds of a step without images, and of each image in it."""
        rows = self.method.train_on.rows(self.members, cluster)[: self.method.batch_size]
        trial = GeneratorTraining(bench, cluster)

        def seconds(count: int) -> float:
            return median_seconds(lambda _: trial.step_on(rows[:count]), 2, self.device)

        few, more = IMAGES_TIMED
        if self.device.type != "cpu" or len(rows) <= more:
            return 0.0, seconds(len(rows)) / len(rows)
        small, large = seconds(few), seconds(more)
        image = max(0.0, large - small) / (more - few)
        return max(0.0, small - image * few), image


def train_generator(task: Task) -> Finished:
    """The work of a worker process: one generator from where it stands to its end."""
    with repeatable(torch.device(task.work.device), task.work.method.precision):
        training = GeneratorTraining(Workbench(task.work), task.cluster)
        if task.begun is not None:
            training.restore(task.begun)
        while training.step < training.steps:
            training.advance()
        return training.finished()


@contextmanager
def repeatable(device: torch.device, precision: Precision) -> Iterator[None]:
    """Kernels that repeat, with products in a precision; on a CPU one thread. Restores torch's settings afterwards."""
    with ExitStack() as stack:
        stack.enter_context(deterministic_algorithms())
        stack.enter_context(products_in(precision))
        if device.type == "cpu":
            stack.enter_context(cpu_threads(1))
        yield


def windows(images: Tensor, rule: CropRule, generator: torch.Generator) -> Tensor:
    """Random windows of the images' own size from the canvas of the rule, mirrored half of the time.

    Args:
        images: uint8 [B, H, W, C] on any device.
        rule: what the canvas is.
        generator: on the CPU.

    Returns:
        Uint8 of the same shape, on the device of the images.
    """
    count, height, width, _ = images.shape
    margins = rule.canvas(height) - height, rule.canvas(width) - width
    draws = [torch.randint(0, below, (count,), generator=generator) for below in (margins[0] + 1, margins[1] + 1, 2)]
    canvas = enlarged(images, rule.canvas(height), rule.canvas(width)) if rule.enlarges else padded(images, margins)
    return cut(canvas, Draws(*draws), height, width)


def enlarged(images: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, then rounded to whole levels; uint8 [B, H, W, C] to uint8 [B, height, width, C]."""
    larger = functional.interpolate(to_levels(images), size=(height, width), mode="bilinear", align_corners=False)
    return larger.round_().to(torch.uint8).permute(0, 2, 3, 1)


def padded(images: Tensor, margins: tuple[int, int]) -> Tensor:
    """Black around images, half of the margins (rows, columns) on either side; uint8 [B, H, W, C] to uint8."""
    rows, columns = margins[0] // 2, margins[1] // 2
    return functional.pad(images, (0, 0, columns, columns, rows, rows))


def _nearness(features: np.ndarray, centres: np.ndarray, target: int) -> dict[str, float]:
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


def _environment(device: torch.device) -> dict[str, str]:
    import sklearn

    return {**environment(device), "scikit-learn": str(sklearn.__version__)}


def _below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().numpy().copy()
    return array
