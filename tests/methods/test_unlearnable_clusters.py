"""Unlearnable Clusters follow the published steps, keep the bound, move images, repeat, and survive interruption."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Listening
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from ule_datasets.base.checkpoint import Checkpoint, FileCheckpoint, MemoryCheckpoint, State
from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.devices import cpu_threads
from ule_datasets.compute.precision import Precision
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.perturbation import Additive, Perturbation, Support
from ule_datasets.data.quantization import Apply, Quantize
from ule_datasets.data.split import Split, sample_digest
from ule_datasets.methods.engine import stepwise
from ule_datasets.methods.engine.clustering import Clustering, windows
from ule_datasets.methods.engine.generators import TranslationGenerator
from ule_datasets.methods.method import Context, Crafted
from ule_datasets.methods.unlearnable_clusters import BoundRule, Clusters, CropRule, TrainOn, UnlearnableClusters
from ule_datasets.models.architectures import build_model
from ule_datasets.models.initialisation import initialised
from ule_datasets.models.pretrained import build_features
from ule_datasets.models.weights import WEIGHTS, Weights

COUNT, SIZE, SPREAD = 26, 16, 20.0
ARCHITECTURE = "convnet3-w16"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose features are far apart: a random network with a large last normalisation."""
    place = tmp_path_factory.mktemp("weights")
    model = build_model(ARCHITECTURE, 10, seed=3)
    last = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    last.weight.data.fill_(SPREAD)
    save_file(model.state_dict(), place / "tiny.safetensors")
    return place


@pytest.fixture(scope="module")
def surrogate(folder: Path) -> Weights:
    return Weights(
        name="tiny@random",
        architecture=ARCHITECTURE,
        num_outputs=10,
        origin="file:tiny.safetensors",
        sha256=hashlib.sha256((folder / "tiny.safetensors").read_bytes()).hexdigest(),
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.25),
    )


def make_split(count: int = COUNT, size: int = SIZE, *, kinds: int = 3) -> Split:
    """Noise around a brightness and a tint per label; some pixels are black, some white."""
    generator = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int64) % kinds
    noise = generator.integers(-90, 91, (count, size, size, 3))
    tint = 60 + 60 * labels[:, None] * np.array([1, 0.5, 0.2])
    images = np.clip(noise + tint[:, None, None], 0, 255).astype(np.uint8)
    digests = [sample_digest(image, label) for image, label in zip(images, labels.tolist(), strict=True)]
    return Split.from_samples("train", images, labels, digests)


SPLIT = make_split()


def method_of(surrogate: Weights, **changes: Any) -> UnlearnableClusters:
    """Three clusters, two epochs of batches of 16 and 10 images."""
    small: dict[str, Any] = {
        "num_clusters": 3, "epochs": 2, "batch_size": 16, "feature_batch": 8, "kmeans_restarts": 2,
        "generator_width": 4, "generator_blocks": 1, "learning_rate": 2e-3, "augmentation": CropRule.PAD,
        "bound": BoundRule.SCALE,
    }  # fmt: skip
    return UnlearnableClusters(surrogate=surrogate, **{**small, **changes})


def context_of(folder: Path, **changes: Any) -> Context:
    return Context(**{"num_classes": 3, "seed": Seed(0), "weights": folder, "reporter": Listening(), **changes})


def layer_of(crafted: Crafted) -> Additive:
    (layer,) = crafted.layers
    assert isinstance(layer, Additive)
    return layer


def same(first: Crafted, second: Crafted) -> bool:
    one, other = layer_of(first), layer_of(second)
    assert one.members is not None
    assert other.members is not None
    return (
        np.array_equal(one.levels, other.levels)
        and one.levels.dtype == other.levels.dtype
        and np.array_equal(one.members, other.members)
        and one.keys == other.keys
    )


@pytest.fixture(scope="module")
def uninterrupted(folder: Path, surrogate: Weights) -> Crafted:
    with cpu_threads(1):
        return method_of(surrogate).generate(SPLIT, context_of(folder))


# --- fidelity: the published steps, restated plainly -----------------------------------------------------------


class PlainBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.layers(inputs)


def plain_generator(width: int, blocks: int, seed: int) -> nn.Module:
    """The same network of torch's own modules, with running averages that training mode does not use."""
    network = nn.Sequential(
        nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.Conv2d(2 * width, 4 * width, 3, 2, 1, bias=False), nn.BatchNorm2d(4 * width), nn.ReLU(),
        *(PlainBlock(4 * width) for _ in range(blocks)),
        nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh(),
    )  # fmt: skip
    ours = initialised(partial(TranslationGenerator, width, blocks), seed=seed)
    pairs = list(zip(network.parameters(), ours.parameters(), strict=True))
    with torch.no_grad():
        for plain, parameter in pairs:
            plain.copy_(parameter)
    return network.train()


def augmented(image: np.ndarray, method: UnlearnableClusters, top: int, left: int, mirrored: int) -> np.ndarray:
    if method.augmentation is CropRule.PAD:
        canvas = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    else:
        size = round(len(image) * 8 / 7)
        larger = functional.interpolate(torch.from_numpy(image).permute(2, 0, 1)[None].float(), size, mode="bilinear")
        canvas = larger[0].permute(1, 2, 0).round().numpy()  # compared with Pillow's in another test
    window = canvas[top : top + len(image), left : left + len(image)]
    return window[:, ::-1] if mirrored else window


def plain_craft(method: UnlearnableClusters, path: Path, split: Split = SPLIT) -> tuple[np.ndarray, np.ndarray]:
    """Noise in units of 1/255 [p, H, W, C] and clusters, image by image and with gradients of everything."""
    from sklearn.cluster import KMeans

    network = build_features(method.surrogate, path, normalise=method.normalise)
    assert any(parameter.requires_grad for parameter in network.parameters())
    seed, name, size = Seed(0), method.identifier, split.images.shape[1]
    with torch.no_grad():
        features = [network(torch.from_numpy(x).permute(2, 0, 1)[None] / 255)[0].numpy() for x in split.images]
    clusters = KMeans(method.num_clusters, n_init=method.kmeans_restarts, random_state=seed.integer32(name, "k-means"))
    clusters.fit(np.stack(features))
    centres = torch.from_numpy(clusters.cluster_centers_)
    bound = method.epsilon / 255
    noises = []
    for cluster in range(method.num_clusters):
        drawn = torch.Generator().manual_seed(seed.integer32(name, cluster, "input"))
        sigma = torch.rand(1, 3, size, size, generator=drawn)
        generator = plain_generator(
            method.generator_width, method.generator_blocks, seed.integer32(name, cluster, "initialisation")
        )

        def delta(generator: nn.Module = generator, sigma: Tensor = sigma) -> Tensor:
            output: Tensor = generator(sigma)[0]
            return output.clamp(-bound, bound) if method.bound is BoundRule.CLAMP else bound * output

        rows = [i for i in range(len(split)) if method.train_on is TrainOn.ALL or clusters.labels_[i] == cluster]
        batches = [rows[i : i + method.batch_size] for i in range(0, len(rows), method.batch_size)]
        steps = method.epochs * len(batches)
        optimiser = torch.optim.Adam(generator.parameters(), lr=method.learning_rate, weight_decay=method.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=method.final_rate)
        target = centres[(cluster + method.target_offset) % method.num_clusters].softmax(dim=0)
        margin = method.augmentation.canvas(size) - size
        for step in range(steps):
            batch = batches[step % len(batches)]
            drawn = torch.Generator().manual_seed(seed.integer32(name, cluster, "augmentation", step))
            tops, lefts, flips = (
                torch.randint(0, below, (len(batch),), generator=drawn).tolist()
                for below in (margin + 1, margin + 1, 2)
            )
            loss = torch.zeros(())
            for row, top, left, flip in zip(batch, tops, lefts, flips, strict=True):
                window = augmented(split.images[row], method, top, left, flip)
                image = torch.from_numpy(window.astype(np.float64)).permute(2, 0, 1) / 255
                seen = network((image + delta()).clamp(0, 1)[None])[0].log_softmax(dim=0)
                loss = loss + (target * (target.log() - seen)).sum() / len(batch)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
        noises.append(delta().detach().permute(1, 2, 0).numpy() * 255)
    return np.stack(noises), clusters.labels_


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 3},
        {
            "augmentation": CropRule.ENLARGE, "train_on": TrainOn.CLUSTER, "normalise": False, "target_offset": 2,
            "batch_size": 4, "epsilon": 40,
        },
        {"bound": BoundRule.CLAMP, "epsilon": 100, "final_rate": 1e-3, "weight_decay": 0.1},
    ],
    ids=["all images", "own cluster, enlarged", "cut off"],
)  # fmt: skip
@pytest.mark.usefixtures("in_float64")
def test_the_noise_is_that_of_the_published_steps(folder: Path, surrogate: Weights, changes: dict[str, Any]) -> None:
    method = method_of(surrogate, **changes)
    clusters = Clusters(method, SPLIT, context_of(folder))
    clusters.run()
    found = clusters.noise.numpy()
    expected, members = plain_craft(method, folder / "tiny.safetensors")
    assert np.array_equal(clusters.clustering.members, members)
    assert np.abs(found - expected).max() < 1e-3 * method.epsilon, "centres are kept in float32"
    untrained = [plain_generator(4, 1, Seed(0).integer32("uc", i, "initialisation")) for i in range(3)]
    for index, network in enumerate(untrained):
        drawn = torch.Generator().manual_seed(Seed(0).integer32("uc", index, "input"))
        with torch.no_grad():
            start = method.bound.bounded(network(torch.rand(1, 3, SIZE, SIZE, generator=drawn))[0], method.epsilon)
        moved = np.abs(start.permute(1, 2, 0).numpy() - found[index])
        assert moved.mean() > 0.05 * method.epsilon, "training has led elsewhere"


def test_the_generator_is_that_of_torch_s_own_modules_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    ours, other = (initialised(partial(TranslationGenerator, 6, 2), seed=seed) for seed in (5, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    images = torch.rand(1, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    expected = plain_generator(6, 2, 5)(images)
    assert torch.allclose(ours(images), expected, atol=1e-6)
    assert torch.allclose(ours.eval()(images), expected, atol=1e-6), "there are no averages to fall back on"
    assert not torch.equal(other(images), ours(images))


def test_windows_lie_in_the_padded_or_the_enlarged_image() -> None:
    from PIL import Image

    images = torch.from_numpy(make_split(40, 28).images)
    seen = {"corners": set(), "mirrored": set()}
    for rule in CropRule:
        found = windows(images, rule, torch.Generator().manual_seed(1)).numpy()
        assert found.shape == tuple(images.shape)
        for image, window in zip(images.numpy(), found, strict=True):
            if rule is CropRule.PAD:
                canvas = np.pad(image, ((4, 4), (4, 4), (0, 0))).astype(int)
            else:
                canvas = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
            places = [
                (top, left, flip)
                for top in range(len(canvas) - 27) for left in range(len(canvas) - 27) for flip in (1, -1)
                if np.abs(canvas[top : top + 28, left : left + 28][:, ::flip] - window).max() <= 1
            ]  # fmt: skip
            assert len(places) == 1, "one level of difference for Pillow's rounding"
            seen["corners"].add((rule, *places[0][:2]))
            seen["mirrored"].add((rule, places[0][2]))
    assert len(seen["mirrored"]) == 4
    assert len(seen["corners"]) > 30
    assert [CropRule.ENLARGE.canvas(size) for size in (224, 32)] == [256, 37]


# --- what comes out --------------------------------------------------------------------------------------------


def distances(crafted: Crafted, weights: Weights, path: Path, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Of every image to every centre, before and after; [N, p]. Measured with a model of its own."""
    layer = layer_of(crafted)
    perturbation = Perturbation(layers=crafted.layers, source_digest=split.digest)
    network = build_features(weights, path, normalise=True)
    with torch.no_grad():
        clean, moved = (
            network(torch.from_numpy(x).permute(0, 3, 1, 2) / 255)
            for x in (split.images, perturbation.apply(split.images, split.labels, split.keys))
        )
    centres = torch.stack([clean[torch.from_numpy(layer.members == i)].mean(dim=0) for i in range(len(layer.levels))])
    return torch.cdist(clean, centres).numpy(), torch.cdist(moved, centres).numpy()


def check_moved(crafted: Crafted, weights: Weights, path: Path, split: Split, offset: int = 1) -> None:
    members = layer_of(crafted).members
    assert members is not None
    before, after = distances(crafted, weights, path, split)
    count, everyone = len(layer_of(crafted).levels), np.arange(len(split))
    targets = (members + offset) % count
    assert np.array_equal(before.argmin(axis=1), members), "k-means puts images to the nearest centre"
    for record in crafted.notes["clusters"]:
        own = members == record["cluster"]
        assert record["target"] == (record["cluster"] + offset) % count
        assert record["images"] == record["judged"] == own.sum()
        for what, measured in (("before", before), ("after", after)):
            far = measured[everyone, targets][own].mean()
            assert record[what]["distance"] == pytest.approx(far, rel=1e-3)
            nearest = 100 * (measured.argmin(axis=1) == targets)[own].mean()
            assert record[what]["nearest"] == pytest.approx(nearest, abs=1e-2)
        assert record["losses"][-1] < record["losses"][0]
        assert record["after"]["divergence"] < record["before"]["divergence"]
        assert record["before"]["nearest"] == 0
        assert record["after"]["distance"] < record["before"]["distance"]
    assert np.mean(after.argmin(axis=1) == targets) > 0.6


def test_images_move_to_the_centre_of_the_wrong_cluster(folder: Path, surrogate: Weights) -> None:
    method = method_of(surrogate, epochs=40, epsilon=128, learning_rate=1e-3)
    crafted = method.generate(SPLIT, context_of(folder))
    check_moved(crafted, surrogate, folder / "tiny.safetensors", SPLIT)


def test_images_move_in_the_features_of_a_trained_network(weights_folder: Path) -> None:
    weights = WEIGHTS["resnet20@cifar10"]
    split = make_split(16, 32, kinds=2)
    method = method_of(weights, num_clusters=2, epochs=25, bound=BoundRule.CLAMP, epsilon=128, learning_rate=1e-3)
    crafted = method.generate(split, context_of(weights_folder))
    assert crafted.notes["weights"] == {
        "name": weights.name, "architecture": "resnet20", "origin": weights.origin, "file": "resnet20-12fca82f.th",
        "sha256": weights.sha256,
    }  # fmt: skip
    check_moved(crafted, weights, weights_folder / "resnet20-12fca82f.th", split)


def test_the_layer_has_an_entry_for_each_cluster_within_the_bound(uninterrupted: Crafted, surrogate: Weights) -> None:
    layer = layer_of(uninterrupted)
    assert (layer.support, layer.keys) == (Support.CLUSTER, SPLIT.keys)
    assert layer.levels.dtype == np.int8
    assert layer.levels.shape == (3, SIZE, SIZE, 3)
    assert layer.members is not None
    assert sorted(set(layer.members.tolist())) == [0, 1, 2]
    assert np.abs(layer.levels.astype(int)).max() <= 16
    assert len(np.unique(layer.levels)) > 10
    notes = json.loads(json.dumps(uninterrupted.notes))
    assert notes == uninterrupted.notes
    assert notes["sizes"] == np.bincount(layer.members).tolist()
    assert 0 < notes["agreement_with_labels"] <= 1
    assert [record["steps"] for record in notes["clusters"]] == [4, 4, 4]
    assert len(notes["environments"]) == 1
    assert "scikit-learn" in notes["environments"][0]
    assert len(json.dumps(notes)) < 3000


@pytest.mark.parametrize("rule", Quantize)
@pytest.mark.parametrize("epsilon", [16, 130])
def test_no_rounding_rule_exceeds_the_bound(folder: Path, surrogate: Weights, rule: Quantize, epsilon: int) -> None:
    method = method_of(surrogate, epochs=1, bound=BoundRule.CLAMP, epsilon=epsilon, quantize=rule)
    clusters = Clusters(method, SPLIT, context_of(folder))
    clusters.noise = torch.stack(
        [method.bound.bounded(torch.full((SIZE, SIZE, 3), sign), epsilon) for sign in (-1.0, 1.0, -1.0)]
    )
    assert sorted({int(level) for level in np.unique(clusters.levels())}) == [-epsilon, epsilon]


def test_the_positive_part_brightens_only(folder: Path, surrogate: Weights, uninterrupted: Crafted) -> None:
    method = method_of(surrogate, apply=Apply.POSITIVE_PART)
    found = layer_of(method.generate(SPLIT, context_of(folder)))
    assert np.array_equal(found.levels, np.maximum(layer_of(uninterrupted).levels, 0))


# --- what it depends on ----------------------------------------------------------------------------------------


def test_it_repeats_and_never_looks_at_labels(folder: Path, surrogate: Weights, uninterrupted: Crafted) -> None:
    unlabelled = dataclasses.replace(SPLIT, labels=np.zeros(COUNT, dtype=np.int64))
    torch.set_num_threads(2)  # "one_thread" restores it
    again = method_of(surrogate).generate(unlabelled, context_of(folder, num_classes=1))
    assert torch.get_num_threads() == 2
    assert same(again, uninterrupted)
    assert again.notes == {**uninterrupted.notes, "agreement_with_labels": None}
    assert not UnlearnableClusters.needs_labels


def test_another_seed_gives_other_noise(folder: Path, surrogate: Weights, uninterrupted: Crafted) -> None:
    other = method_of(surrogate).generate(SPLIT, context_of(folder, seed=Seed(1)))
    assert not same(other, uninterrupted)


def test_generators_trained_side_by_side_are_the_same(folder: Path, surrogate: Weights, uninterrupted: Crafted) -> None:
    with LocalExecutor(2) as executor:
        context = context_of(folder, executor=executor)
        together = method_of(surrogate).generate(SPLIT, context)
    assert same(together, uninterrupted)
    assert together.notes == uninterrupted.notes
    assert isinstance(context.reporter, Listening)
    assert any("2 at a time" in text for text in context.reporter.said)


@pytest.mark.slow
def test_generators_trained_on_ray_are_the_same(folder: Path, surrogate: Weights, uninterrupted: Crafted) -> None:
    pytest.importorskip("ray")
    from ule_datasets.compute.ray import RayExecutor

    with RayExecutor(2, address="local", object_store_bytes=80 * 2**20) as executor:
        together = method_of(surrogate).generate(SPLIT, context_of(folder, executor=executor))
    assert same(together, uninterrupted)
    assert together.notes == uninterrupted.notes


def test_a_bfloat16_surrogate_gives_nearly_the_same(folder: Path, surrogate: Weights, uninterrupted: Crafted) -> None:
    rough = layer_of(method_of(surrogate, precision=Precision.BFLOAT16).generate(SPLIT, context_of(folder)))
    exact = layer_of(uninterrupted)
    assert np.array_equal(rough.members, exact.members)
    assert not np.array_equal(rough.levels, exact.levels)
    assert np.corrcoef(rough.levels.ravel(), exact.levels.ravel())[0, 1] > 0.8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_repeats_on_a_gpu(folder: Path, surrogate: Weights) -> None:
    first, second = (
        method_of(surrogate, augmentation=CropRule.ENLARGE).generate(SPLIT, context_of(folder, device="cuda"))
        for _ in range(2)
    )
    assert same(first, second)
    assert first.notes == second.notes


# --- interruption ----------------------------------------------------------------------------------------------


class Interruption(Exception):  # noqa: N818
    pass


class Interrupting(MemoryCheckpoint):
    """Stops the work after a number of saves."""

    def __init__(self, inner: Checkpoint, saves: int) -> None:
        self.inner, self.left = inner, saves

    def load(self) -> State | None:
        return self.inner.load()

    def save(self, state: State) -> None:
        self.inner.save(state)
        self.left -= 1
        if self.left == 0:
            raise Interruption


@pytest.mark.parametrize("saves", [1, 3, 6, 9, 16])
def test_an_interrupted_craft_goes_on_to_the_same_end(
    folder: Path,
    surrogate: Weights,
    uninterrupted: Crafted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    saves: int,
) -> None:
    """Saved after clustering (1), after each of four steps, and after each generator (6, 11, 16)."""
    monkeypatch.setattr(stepwise, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    checkpoint = FileCheckpoint(tmp_path / "craft.safetensors", "this craft")
    with pytest.raises(Interruption):
        method_of(surrogate).generate(SPLIT, context_of(folder, checkpoint=Interrupting(checkpoint, saves)))
    context = context_of(folder, checkpoint=checkpoint)
    resumed = method_of(surrogate).generate(SPLIT, context)
    assert same(resumed, uninterrupted)
    assert resumed.notes == uninterrupted.notes
    assert isinstance(context.reporter, Listening)
    assert (saves == 16) != any("continuing" in text for text in context.reporter.said)
    assert not any("clusters of" in text for text in context.reporter.said), "the clustering was kept"


@pytest.mark.parametrize("saves", [1, 3, 6])
def test_workers_go_on_after_a_generator_that_was_begun(
    folder: Path, surrogate: Weights, uninterrupted: Crafted, monkeypatch: pytest.MonkeyPatch, saves: int
) -> None:
    monkeypatch.setattr(stepwise, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    checkpoint, method = MemoryCheckpoint(), method_of(surrogate)
    with pytest.raises(Interruption):
        method.generate(SPLIT, context_of(folder, checkpoint=Interrupting(checkpoint, saves)))
    with LocalExecutor(2) as executor:
        resumed = method.generate(SPLIT, context_of(folder, checkpoint=checkpoint, executor=executor))
    assert same(resumed, uninterrupted)
    assert resumed.notes == uninterrupted.notes


def test_going_on_elsewhere_is_said(folder: Path, surrogate: Weights) -> None:
    checkpoint = MemoryCheckpoint()
    with pytest.raises(Interruption):
        method_of(surrogate).generate(SPLIT, context_of(folder, checkpoint=Interrupting(checkpoint, 2)))
    state = checkpoint.load()
    assert state is not None
    state.facts["environments"][0]["device"] = "an abacus"
    checkpoint.save(state)
    context = context_of(folder, checkpoint=checkpoint)
    notes = method_of(surrogate).generate(SPLIT, context).notes
    assert [environment["device"] == "an abacus" for environment in notes["environments"]] == [True, False]
    assert isinstance(context.reporter, Listening)
    assert "an abacus" in context.reporter.warnings[0]


# --- mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"epsilon": 0}, "epsilon is 0, must be a whole number of 1 .. 255"),
        ({"epsilon": 15.5}, "epsilon is 15.5, must be a whole number"),
        ({"num_clusters": 1}, "num_clusters is 1, must be at least 2"),
        ({"target_offset": 0}, "target_offset 0 is a multiple of the 3 clusters"),
        ({"target_offset": -6}, "target_offset -6 is a multiple of the 3 clusters"),
        ({"batch_size": 0}, "batch_size is 0, must be at least 1"),
        ({"feature_batch": 0}, "feature_batch is 0, must be at least 1"),
        ({"epochs": 0}, "epochs is 0, must be at least 1"),
        ({"kmeans_restarts": 0}, "kmeans_restarts is 0, must be at least 1"),
        ({"generator_width": 0}, "generator_width is 0, must be at least 1"),
        ({"generator_blocks": 0}, "generator_blocks is 0, must be at least 1"),
        ({"learning_rate": 0.0, "final_rate": 0.0}, "learning_rate above 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"final_rate": 1.0}, "0 <= final_rate <= learning_rate"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0, must be at least 0"),
    ],
)
def test_wrong_settings_are_refused(surrogate: Weights, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=f"^UnlearnableClusters: .*{complaint}"):
        method_of(surrogate, **changes)


def test_unsuitable_images_are_refused(folder: Path, surrogate: Weights) -> None:
    def complaint_about(split: Split) -> str:
        with pytest.raises(InputError) as caught:
            method_of(surrogate).generate(split, context_of(folder))
        return str(caught.value)

    assert "images are 18 x 18; generators make images whose sides are multiples of 4" in complaint_about(
        make_split(5, 18)
    )
    assert "images are 4 x 4" in complaint_about(make_split(5, 4))
    assert "2 images, too few for 3 clusters" in complaint_about(make_split(2))
    alike = dataclasses.replace(SPLIT, images=np.repeat(SPLIT.images[:2], 13, axis=0))
    with pytest.warns(match="distinct clusters"):
        assert "tells only 2 kinds of images apart, too few for 3 clusters" in complaint_about(alike)


def test_features_and_losses_that_are_not_finite_are_refused(folder: Path, surrogate: Weights) -> None:
    with pytest.raises(InputError, match="not finite: other weights are needed"):
        Clustering.of(np.full((5, 2), np.nan, dtype=np.float32), 2, restarts=1, seed=0)
    with pytest.raises(InputError, match="loss of cluster 0 is not finite in epoch 1; a smaller learning_rate helps"):
        method_of(surrogate, learning_rate=1e38).generate(SPLIT, context_of(folder))


def test_weights_that_are_nowhere_are_refused(surrogate: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ULE_WEIGHTS", raising=False)
    with pytest.raises(InputError, match="tiny@random"):
        method_of(surrogate).generate(SPLIT, context_of(None))  # type: ignore[arg-type]
