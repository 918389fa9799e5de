"""BAIT follows the published algorithm, keeps its bound, repeats, and survives interruption."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Listening, Stopping
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from ule_datasets.base.checkpoint import Checkpoint, FileCheckpoint, MemoryCheckpoint, State
from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.parts import arrays_of
from ule_datasets.data.perturbation import Additive, Perturbation, Support
from ule_datasets.data.quantization import Apply, Quantize, quantize
from ule_datasets.data.split import Split, sample_digest
from ule_datasets.methods import bait
from ule_datasets.methods.bait import Bait, Released, Rounds, Stage, hardest, most_dissimilar, random_wrong
from ule_datasets.methods.engine import stepwise
from ule_datasets.methods.engine.generators import BaitGenerator, InstanceNorm, Reflection, class_means, given_to
from ule_datasets.methods.method import Context, Crafted
from ule_datasets.models.architectures import build_model
from ule_datasets.models.initialisation import initialised
from ule_datasets.models.pretrained import build_pretrained
from ule_datasets.models.weights import WEIGHTS, Weights

NUM_CLASSES, COUNT, BATCH, SIZE = 3, 40, 12, 16
NUM_BATCHES = 3  # of a pass; four images are left over

pytestmark = pytest.mark.usefixtures("one_thread")


def make_split(count: int = COUNT, *, size: int = SIZE, num_classes: int = NUM_CLASSES) -> Split:
    """Noise around a brightness per class; some pixels are black, some white."""
    generator = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int64) % num_classes
    noise = generator.integers(-150, 151, (count, size, size, 3))
    images = np.clip(noise + 60 + 60 * labels[:, None, None, None], 0, 255).astype(np.uint8)
    digests = [sample_digest(image, label) for image, label in zip(images, labels.tolist(), strict=True)]
    return Split.from_samples("train", images, labels, digests)


SPLIT = make_split()


@dataclasses.dataclass(frozen=True)
class Prior:
    """Weights of a tiny model, and their file."""

    weights: Weights
    path: Path


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Prior:
    """A small convolutional network for seven classes, "trained" by drawing it."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save(build_model("convnet3-w16", 7, seed=3).state_dict(), path)
    weights = Weights(
        name="convnet3-w16@nothing",
        architecture="convnet3-w16",
        num_outputs=7,
        origin="file:tiny.pt",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
    )
    return Prior(weights, path)


class Setting:
    """Small crafts against one prior."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    def method(self, **changes: Any) -> Bait:
        """One round of each stage."""
        small: dict[str, Any] = {
            "prior": self.prior.weights,
            "stages": (1, 1, 1),
            "batch_size": BATCH,
            "generator_width": 2,
            "generator_blocks": 1,
            "crop_padding": 2,
        }
        return Bait(**{**small, **changes})

    def context(self, **changes: Any) -> Context:
        usual: dict[str, Any] = {
            "num_classes": NUM_CLASSES,
            "seed": Seed(0),
            "weights": self.prior.path,
            "reporter": Listening(),
        }
        return Context(**{**usual, **changes})

    def rounds(self, split: Split = SPLIT, context: Context | None = None, **changes: Any) -> Rounds:
        return Rounds(self.method(**changes), split, context or self.context())

    def craft(self, split: Split = SPLIT, context: Context | None = None, **changes: Any) -> Crafted:
        return self.method(**changes).generate(split, context or self.context())


@pytest.fixture(scope="module")
def tiny(prior: Prior) -> Setting:
    return Setting(prior)


@pytest.fixture(scope="module")
def reference(tiny: Setting) -> Crafted:
    return tiny.craft()


def layer_of(crafted: Crafted) -> Additive:
    (layer,) = crafted.layers
    assert isinstance(layer, Additive)
    return layer


def same(first: Crafted, second: Crafted) -> bool:
    layers = layer_of(first), layer_of(second)
    return np.array_equal(layers[0].levels, layers[1].levels) and first.notes == second.notes


# --- the generator ---------------------------------------------------------------------------------------------


class PlainGenerator(nn.Module):
    """The generator's description with torch's own layers."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        w, top = width, 32 * width
        self.encoder = nn.Sequential(
            nn.Conv2d(3, w, 3, 1, 1),
            nn.InstanceNorm2d(w),
            nn.ReLU(),
            nn.Conv2d(w, 2 * w, 3, 2, 1),
            nn.InstanceNorm2d(2 * w),
            nn.ReLU(),
            nn.Conv2d(2 * w, 4 * w, 3, 1, 1),
            nn.InstanceNorm2d(4 * w),
            nn.ReLU(),
            nn.Conv2d(4 * w, 8 * w, 3, 2, 1),
            nn.InstanceNorm2d(8 * w),
            nn.ReLU(),
            nn.Conv2d(8 * w, 16 * w, 3, 1, 1),
            nn.InstanceNorm2d(16 * w),
            nn.ReLU(),
            nn.Conv2d(16 * w, top, 3, 2, 1),
            nn.InstanceNorm2d(top),
            nn.ReLU(),
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReflectionPad2d(1),
                nn.Conv2d(top, top, 3, bias=False),
                nn.BatchNorm2d(top),
                nn.ReLU(),
                nn.ReflectionPad2d(1),
                nn.Conv2d(top, top, 3, bias=False),
                nn.BatchNorm2d(top),
            )
            for _ in range(blocks)
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(top, 16 * w, 3, 2, 1, 1, bias=False),
            nn.InstanceNorm2d(16 * w),
            nn.ReLU(),
            nn.ConvTranspose2d(16 * w, 8 * w, 3, 1, 1, bias=False),
            nn.InstanceNorm2d(8 * w),
            nn.ReLU(),
            nn.ConvTranspose2d(8 * w, 4 * w, 3, 2, 1, 1, bias=False),
            nn.InstanceNorm2d(4 * w),
            nn.ReLU(),
            nn.ConvTranspose2d(4 * w, 2 * w, 3, 1, 1, bias=False),
            nn.InstanceNorm2d(2 * w),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1, bias=False),
            nn.InstanceNorm2d(w),
            nn.ReLU(),
            nn.ConvTranspose2d(w, 3, 3, 1, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, images: Tensor) -> Tensor:
        maps = self.encoder(images)
        for block in self.blocks:
            maps = maps + block(maps)
        result: Tensor = self.decoder(maps)
        return result

    def take(self, other: nn.Module) -> PlainGenerator:
        """The same parameters and statistics, which come in the same order."""
        mine, theirs = self.state_dict(), other.state_dict()
        self.load_state_dict(dict(zip(mine, (each.clone() for each in theirs.values()), strict=True)))
        return self


def test_the_generator_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in BaitGenerator(16, 8).parameters())
    assert count == 40_909_648
    assert f"{count / 1e6:.1f}" == "40.9"


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 24)])
@pytest.mark.parametrize("training", [True, False])
def test_the_generator_is_its_description_in_torch_layers(height: int, width: int, training: bool) -> None:
    ours = initialised(partial(BaitGenerator, 2, 2), seed=5).train(training)
    plain = PlainGenerator(2, 2).take(ours).train(training)
    images = torch.rand(4, 3, height, width, generator=torch.Generator().manual_seed(1))
    answers = [model(images) for model in (ours, plain)]
    assert answers[0].shape == images.shape
    assert torch.allclose(*answers, atol=1e-5)
    assert answers[0].abs().max() <= 1
    for (name, first), second in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.allclose(first, second, atol=1e-5), name


def test_borders_and_instance_norm_are_torch_s_in_any_order_of_memory() -> None:
    maps = torch.rand(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    for layer, other in ((Reflection(1), nn.ReflectionPad2d(1)), (InstanceNorm(), nn.InstanceNorm2d(5))):
        gradients = []
        for module in (layer, other):
            inputs = maps.clone(memory_format=torch.channels_last).requires_grad_()
            outputs = module(inputs)
            gradients += [outputs, *torch.autograd.grad((outputs**3).sum(), inputs)]
        assert torch.allclose(gradients[0], gradients[2], atol=1e-6)
        assert torch.allclose(gradients[1], gradients[3], atol=1e-4)
        assert layer(inputs).is_contiguous(memory_format=torch.channels_last)


def test_a_generator_comes_from_its_seed_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = (initialised(partial(BaitGenerator, 1, 1), seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["layers.0.weight"], other["layers.0.weight"])


# --- class means and wrong classes -----------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 5, 9])
def test_class_means_are_those_of_a_loop_over_the_images_and_so_are_their_gradients(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(num_classes)
    labels = torch.randint(0, num_classes, (11,), generator=generator)
    targets = torch.randint(0, num_classes, (11,), generator=generator)
    results = []
    for vectorised in (True, False):
        outputs = torch.rand(11, 3, 4, 6, generator=torch.Generator().manual_seed(9)).requires_grad_()
        if vectorised:
            means, present = class_means(outputs, labels, num_classes)
            given = given_to(means, targets)
        else:
            groups = [[outputs[i] for i in range(11) if labels[i] == k] for k in range(num_classes)]
            means = torch.stack([sum(g, torch.zeros(3, 4, 6)) / max(len(g), 1) for g in groups])
            present = torch.tensor([len(g) > 0 for g in groups])
            given = torch.stack([means[k] for k in targets.tolist()])
        gradient = torch.autograd.grad((given**2).sum(), outputs)
        results.append((means, present, given, *gradient))
    for ours, plain in zip(*results, strict=True):
        assert torch.allclose(ours, plain, atol=1e-6)
    assert not results[0][0][~results[0][1]].any(), "zeros for a class without images"


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 6), exclude_true=st.booleans())
def test_wrong_classes_are_those_of_a_loop_over_the_images(seed: int, num_classes: int, exclude_true: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_classes, (20,), generator=generator)
    logits = torch.randn(20, num_classes, generator=generator)
    state = generator.get_state()
    drawn = random_wrong(labels, num_classes, generator)
    places = torch.randint(0, num_classes - 1, (20,), generator=generator.set_state(state)).tolist()
    hard, far = hardest(logits, labels), most_dissimilar(logits, labels, exclude_true=exclude_true)
    for image, label in enumerate(labels.tolist()):
        row, others = logits[image].tolist(), [k for k in range(num_classes) if k != label]
        assert hard[image] == max(others, key=row.__getitem__)
        assert far[image] == min(others if exclude_true else range(num_classes), key=row.__getitem__)
        assert drawn[image] == others[places[image]]


def test_random_wrong_classes_are_uniform() -> None:
    labels = torch.arange(4).repeat(3000)
    drawn = random_wrong(labels, 4, torch.Generator().manual_seed(0))
    table = np.zeros((4, 4))
    np.add.at(table, (labels.numpy(), drawn.numpy()), 1)
    assert not np.diag(table).any()
    assert np.all(np.abs(table[~np.eye(4, dtype=bool)] - 1000) < 6 * np.sqrt(1000))


@pytest.mark.parametrize("exclude_true", [False, True])
def test_the_stage_of_a_round_decides_how_wrong_classes_are_chosen(tiny: Setting, exclude_true: bool) -> None:
    rounds = tiny.rounds(stages=(2, 1, 3), exclude_true=exclude_true)
    stages = [rounds.stage(number) for number in range(6)]
    assert stages == [Stage.HARDEST] * 2 + [Stage.RANDOM] + [Stage.DISSIMILAR] * 3
    ahead = rounds.ahead(0)
    for number in (0, 2, 3):
        inputs, labels = rounds.generator_batch(number, 1)
        found = rounds.targets(ahead, inputs, labels, number, 1)
        logits = ahead(inputs)
        expected = {
            Stage.HARDEST: hardest(logits, labels),
            Stage.RANDOM: random_wrong(labels, NUM_CLASSES, rounds._drawn("targets", number, 1)),
            Stage.DISSIMILAR: most_dissimilar(logits, labels, exclude_true=exclude_true),
        }
        assert torch.equal(found, expected[rounds.stage(number)])
    skipping = tiny.rounds(stages=(0, 0, 2))
    assert [skipping.stage(number) for number in range(2)] == [Stage.DISSIMILAR] * 2


# --- fidelity: the published algorithm, restated image by image ---------------------------------------------------


class DoubleRounds(Rounds):
    """The work in float64, in which rounding does not grow to differences that Adam would enlarge."""

    def __init__(self, method: Bait, context: Context) -> None:
        super().__init__(method, SPLIT, context)
        self.generator._network.double()
        self.surrogate._model.double()
        self.carried, self.shown = self.carried.double(), self.shown.double()

    def _augmented(self, rows: Tensor, *purpose: str | int) -> Tensor:
        return super()._augmented(rows, *purpose).double()


class Plain:
    """The algorithm as anybody would write it: nothing frozen, vectorised or seeded by batch.

    Order, augmentation and random draws come from ``plan``, a craft that does no work itself.
    """

    def __init__(self, tiny: Setting, **changes: Any) -> None:
        self.method, self.plan = tiny.method(**changes), DoubleRounds(tiny.method(**changes), tiny.context())
        seed = Seed(0)
        self.model = build_pretrained(
            tiny.prior.weights,
            tiny.prior.path,
            NUM_CLASSES,
            seed=seed.integer32("bait", "head"),
            normalise=self.method.normalise,
        ).double()
        self.sgd = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        network = initialised(partial(BaitGenerator, 2, 1), seed=seed.integer32("bait", "generator"))
        self.generator = PlainGenerator(2, 1).take(network).double()
        self.adam = torch.optim.Adam(self.generator.parameters(), lr=1e-3)
        self.epsilon = self.method.epsilon / 255
        self.noise = [torch.zeros(3, SIZE, SIZE).double() for _ in range(NUM_CLASSES)]

    def with_noise(self, images: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([image + self.noise[label] for image, label in zip(images, labels.tolist(), strict=True)])

    def noise_by_class(self, images: Tensor, labels: Tensor) -> dict[int, Tensor]:
        outputs, result = self.generator(images), {}
        for k in range(NUM_CLASSES):
            mine = [output for output, label in zip(outputs, labels.tolist(), strict=True) if label == k]
            if mine:
                result[k] = self.epsilon * torch.stack(mine).mean(dim=0)
        return result

    def wrong(self, model: nn.Module, images: Tensor, labels: Tensor, number: int, batch: int) -> list[int]:
        logits = model(images)
        places = torch.randint(0, NUM_CLASSES - 1, labels.shape, generator=self.plan._drawn("targets", number, batch))
        result = []
        for row, label, place in zip(logits.tolist(), labels.tolist(), places.tolist(), strict=True):
            others = [k for k in range(NUM_CLASSES) if k != label]
            choice = {
                Stage.HARDEST: max(others, key=row.__getitem__),
                Stage.RANDOM: others[place],
                Stage.DISSIMILAR: min(range(NUM_CLASSES), key=row.__getitem__),
            }
            result.append(choice[self.plan.stage(number)])
        return result

    def round(self, number: int) -> dict[str, float]:
        losses, reached = [], []
        shown, shown_labels = self.plan.surrogate_batch(number)
        model, sgd = copy.deepcopy((self.model, self.sgd))
        model.train()
        sgd.zero_grad()
        torch.autograd.backward(functional.cross_entropy(model(self.with_noise(shown, shown_labels)), shown_labels))
        sgd.step()
        for batch in range(NUM_BATCHES):
            images, labels = self.plan.generator_batch(number, batch)
            noise = self.noise_by_class(images, labels)
            targets = self.wrong(model, images, labels, number, batch)
            zero = torch.zeros(3, SIZE, SIZE).double()
            baited = torch.stack([(x + noise.get(k, zero)).clamp(0, 1) for x, k in zip(images, targets, strict=True)])
            logits = model(baited)
            loss = functional.cross_entropy(logits, torch.tensor(targets))
            self.adam.zero_grad()
            torch.autograd.backward(loss)
            self.adam.step()
            losses.append(float(loss.detach()))
            reached += [int(row.argmax()) == k for row, k in zip(logits, targets, strict=True)]
            with torch.no_grad():
                for k, noise_of_class in self.noise_by_class(images, labels).items():
                    self.noise[k] = noise_of_class.clamp(-self.epsilon, self.epsilon)
        self.model.train()
        self.sgd.zero_grad()
        logits = self.model(self.with_noise(shown, shown_labels))
        loss = functional.cross_entropy(logits, shown_labels)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.method.gradient_clip)
        self.sgd.step()
        return {
            "generator_loss": float(np.mean(losses)),
            "success": 100 * float(np.mean(reached)),
            "surrogate_loss": float(loss.detach()),
            "surrogate_accuracy": 100 * float((logits.argmax(dim=1) == shown_labels).double().mean()),
            "mean_abs": 255 * float(torch.stack(self.noise).abs().mean()),
        }

    @torch.no_grad()
    def released(self) -> np.ndarray:
        self.generator.eval()
        images = torch.from_numpy(SPLIT.images).permute(0, 3, 1, 2).double() / 255
        outputs = [255 * self.generator(image[None])[0] for image in images]
        means = [
            torch.stack([out for out, label in zip(outputs, SPLIT.labels, strict=True) if label == k]).double().mean(0)
            for k in range(NUM_CLASSES)
        ]
        return (self.epsilon * torch.stack(means)).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("changes", [{}, {"normalise": True, "gradient_clip": 0.5, "stages": (2, 0, 1)}])
def test_rounds_are_those_of_the_published_algorithm(
    tiny: Setting, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:

    def in_double(images: Tensor) -> Tensor:
        return images.permute(0, 3, 1, 2).double() / 255

    monkeypatch.setattr(bait.augmentation, "to_float", in_double)
    plain, rounds = Plain(tiny, **changes), DoubleRounds(tiny.method(**changes), tiny.context())
    notes = rounds.run()
    assert len(notes["trace"]) == 3
    for number, line in enumerate(notes["trace"]):
        expected = plain.round(number)
        assert line["stage"] == rounds.stage(number)
        for name, value in expected.items():
            assert line[name] == pytest.approx(value, rel=1e-5, abs=1e-4), (number, name)
    noise = torch.stack(plain.noise).permute(0, 2, 3, 1).numpy() * 255
    assert np.abs(rounds.means(Released.LAST_BATCH) * 8 - noise).max() < 1e-3
    assert np.abs(noise).max() > 1, "of 8"
    released = plain.released()
    assert np.abs(rounds.means(Released.GENERATOR) * 8 - released).max() < 1e-3
    assert np.abs(released - noise).max() > 0.1, "two things"


def test_the_step_ahead_carries_momentum_is_not_clipped_and_changes_nothing(tiny: Setting) -> None:
    rounds = tiny.rounds(gradient_clip=1e-3)
    rounds.surrogate_step(0)  # now there is momentum
    rounds.shown = rounds.shown + 0.5
    before = copy.deepcopy(rounds.surrogate)
    ahead = rounds.ahead(1)
    kept, found = (arrays_of(each.parts()) for each in (copy.deepcopy(before), rounds.surrogate))
    assert kept.keys() == found.keys()
    assert "optimiser.0.momentum_buffer" in kept
    assert all(np.array_equal(kept[name], found[name]) for name in kept)

    inputs, labels = rounds.surrogate_batch(1)
    before._model.train()
    before._optimiser.zero_grad()
    loss = functional.cross_entropy(before._model(inputs + 8 / 255 * 0.5), labels)
    torch.autograd.backward(loss)
    before._optimiser.step()
    for (name, ours), plain in zip(ahead.named_parameters(), before._model.parameters(), strict=True):
        assert torch.equal(ours, plain), name
        assert not ours.requires_grad
    assert ahead.training
    start, moved = torch.from_numpy(kept["model.classifier.weight"]), ahead.get_parameter("classifier.weight")
    assert (moved - start).norm() > 0.1 * 1e-3 * 10, "more than a clipped step"


def test_a_generator_step_leaves_the_model_ahead_and_its_parameters_without_gradients(tiny: Setting) -> None:
    rounds = tiny.rounds()
    ahead = rounds.ahead(0)
    kept = [parameter.clone() for parameter in ahead.parameters()]
    for batch in range(NUM_BATCHES):
        rounds.step(ahead, 0, batch)
    assert all(parameter.grad is None for parameter in ahead.parameters())
    assert all(torch.equal(a, b) for a, b in zip(kept, ahead.parameters(), strict=True))


def test_what_the_surrogate_sees_comes_from_the_last_batch_with_the_class(tiny: Setting) -> None:
    rounds = tiny.rounds()
    carried = torch.full_like(rounds.carried, 0.25)
    inputs, labels = rounds.generator_batch(0, 0)
    some = labels != 1
    renewed = rounds.generator.renewed(carried, inputs[some], labels[some])
    with torch.no_grad():
        outputs = rounds.generator._network(inputs[some])
    for k in (0, 2):
        assert torch.allclose(renewed[k], outputs[labels[some] == k].mean(dim=0), atol=1e-6), "replaced, not averaged"
    assert torch.equal(renewed[1], carried[1])


@pytest.mark.parametrize(("refresh", "times"), [(None, 3), (1, 1), (2, 2), (7, 3)])
def test_the_generator_is_evaluated_again_after_the_last_batches_asked_for(
    tiny: Setting, refresh: int | None, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds, seen = tiny.rounds(refresh=refresh), list[int]()
    renewed = rounds.generator.renewed

    def counting(*arguments: Tensor) -> Tensor:
        seen.append(batch)
        return renewed(*arguments)

    monkeypatch.setattr(rounds.generator, "renewed", counting)
    ahead = rounds.ahead(0)
    for batch in range(NUM_BATCHES):
        rounds.step(ahead, 0, batch)
    assert seen == list(range(NUM_BATCHES))[-times:]
    assert rounds.carried.any()


# --- what a batch sees -----------------------------------------------------------------------------------------


def test_every_round_is_a_fresh_pass_without_the_smaller_last_batch(tiny: Setting) -> None:
    rounds = tiny.rounds()
    assert rounds.batches() == (BATCH, NUM_BATCHES)
    passes = [[rounds._rows("generator order", n, b).tolist() for b in range(NUM_BATCHES)] for n in (0, 1, 0)]
    assert passes[0] == passes[2] != passes[1]
    for batches in passes:
        assert [len(batch) for batch in batches] == [BATCH] * NUM_BATCHES
        assert len({row for batch in batches for row in batch}) == BATCH * NUM_BATCHES


def test_the_surrogate_s_batches_are_a_stream_of_passes(tiny: Setting) -> None:
    rounds, seen = tiny.rounds(crop_padding=0, flip=False), []
    rows_of = {image.tobytes(): row for row, image in enumerate(SPLIT.images)}
    for number in range(2 * NUM_BATCHES):
        inputs, labels = rounds.surrogate_batch(number)
        levels = (inputs * 255).round().permute(0, 2, 3, 1).to(torch.uint8).numpy()
        seen.append([rows_of[level.tobytes()] for level in levels])
        assert labels.tolist() == SPLIT.labels[seen[-1]].tolist()
    first, second = (np.concatenate(seen[start : start + NUM_BATCHES]).tolist() for start in (0, NUM_BATCHES))
    assert len(set(first)) == len(set(second)) == BATCH * NUM_BATCHES
    assert first != second


def test_images_are_augmented_as_asked_and_alike_in_both_steps_of_the_surrogate(tiny: Setting) -> None:
    moved, still = tiny.rounds(), tiny.rounds(crop_padding=0, flip=False)
    for batch_of in ((lambda r: r.surrogate_batch(1)), (lambda r: r.generator_batch(1, 2))):
        inputs, labels = batch_of(moved)
        assert torch.equal(inputs, batch_of(moved)[0])
        assert inputs.is_contiguous(memory_format=torch.channels_last)
        plain, plain_labels = batch_of(still)
        assert torch.equal(labels, plain_labels)
        assert sum(torch.equal(a, b) for a, b in zip(inputs, plain, strict=True)) < BATCH / 2
        mirrored, _ = batch_of(tiny.rounds(crop_padding=0))
        either = [torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a, b in zip(mirrored, plain, strict=True)]
        assert all(either)
    assert not torch.equal(moved.generator_batch(0, 0)[0], moved.generator_batch(1, 0)[0])


def test_fewer_images_than_a_batch_are_one_smaller_batch(tiny: Setting) -> None:
    split = make_split(7)
    rounds = tiny.rounds(split)
    assert rounds.batches() == (7, 1)
    layer = layer_of(tiny.craft(split))
    assert layer.levels.any(axis=(1, 2, 3)).all()


# --- the result ------------------------------------------------------------------------------------------------


def test_the_layer_has_an_entry_per_class_and_the_notes_say_how_it_was_made(reference: Crafted, prior: Prior) -> None:
    layer, notes = layer_of(reference), reference.notes
    assert (layer.support, layer.keys, layer.levels.dtype) == (Support.CLASS, (), np.int8)
    assert layer.levels.shape == (NUM_CLASSES, SIZE, SIZE, 3)
    assert json.loads(json.dumps(notes, allow_nan=False)) == notes
    assert notes["rounds"] == 3
    assert [line["stage"] for line in notes["trace"]] == ["hardest", "random", "dissimilar"]
    assert [line["round"] for line in notes["trace"]] == [1, 2, 3]
    assert notes["environments"][0]["torch"] == torch.__version__
    assert notes["weights"]["sha256"] == prior.weights.sha256
    assert notes["weights"]["name"] == "convnet3-w16@nothing"
    for line in notes["trace"]:
        assert 0 <= line["success"] <= 100
        assert 0 <= line["surrogate_accuracy"] <= 100
        assert 0 < line["mean_abs"] <= 8
        assert min(line["generator_loss"], line["surrogate_loss"]) > 0


@pytest.mark.parametrize("released", list(Released))
def test_no_image_is_changed_beyond_the_bound_under_any_rule(tiny: Setting, released: Released) -> None:
    largest = []
    for rule in Quantize:
        for apply in Apply:
            changes: dict[str, Any] = {"epsilon": 3, "generator_rate": 0.5, "stages": (1, 0, 0)}
            layer = layer_of(tiny.craft(quantize=rule, apply=apply, released=released, **changes))
            assert layer.levels.max() <= 3
            assert layer.levels.min() >= (-3 if apply is Apply.SIGNED else 0)
            result = Perturbation(layers=(layer,), source_digest=SPLIT.digest)
            changed = result.apply(SPLIT.images, SPLIT.labels, SPLIT.keys).astype(int) - SPLIT.images
            assert np.abs(changed).max() <= 3
            largest.append(np.abs(changed).max())
    assert max(largest) == 3, "the bound is reached"


@pytest.mark.parametrize("epsilon", [8, 7, 3, 127])
def test_a_generator_at_its_extremes_stays_within_the_bound(tiny: Setting, epsilon: int) -> None:
    for extreme in (-1.0, 1.0):
        rounds = tiny.rounds(epsilon=epsilon)
        rounds.carried.fill_(extreme)
        rounds.sums = extreme * rounds.members[:, None, None, None].double().expand(NUM_CLASSES, SIZE, SIZE, 3)
        for released in Released:
            for rule in Quantize:
                assert np.all(quantize(rounds.means(released) * epsilon, rule) == extreme * epsilon)


def test_either_noise_may_be_released(tiny: Setting, reference: Crafted) -> None:
    rounds = tiny.rounds()
    notes = rounds.run()
    last = tiny.craft(released=Released.LAST_BATCH)
    assert notes == last.notes == reference.notes
    assert np.array_equal(layer_of(last).levels, quantize(rounds.means(Released.LAST_BATCH) * 8, Quantize.TRUNC))
    assert np.array_equal(layer_of(reference).levels, quantize(rounds.means(Released.GENERATOR) * 8, Quantize.TRUNC))
    assert not np.array_equal(layer_of(last).levels, layer_of(reference).levels)


def test_rules_change_what_is_kept_of_the_noise_and_not_the_noise(tiny: Setting, reference: Crafted) -> None:
    rounded = tiny.craft(quantize=Quantize.HALF_UP)
    positive = tiny.craft(apply=Apply.POSITIVE_PART)
    assert reference.notes == rounded.notes == positive.notes
    difference = layer_of(rounded).levels.astype(int) - layer_of(reference).levels
    assert set(np.unique(difference)) == {0, 1}
    assert np.array_equal(layer_of(positive).levels, np.maximum(layer_of(reference).levels, 0))


def test_a_class_without_images_gets_zeros(tiny: Setting) -> None:
    context = tiny.context(num_classes=NUM_CLASSES + 1)
    for released in Released:
        levels = layer_of(tiny.craft(context=context, quantize=Quantize.HALF_UP, released=released)).levels
        assert not levels[NUM_CLASSES].any()
        assert levels[:NUM_CLASSES].any(axis=(1, 2, 3)).all()


def test_the_mean_in_the_trace_is_over_classes_that_have_images(tiny: Setting) -> None:
    rounds = tiny.rounds(context=tiny.context(num_classes=2 * NUM_CLASSES))
    last = rounds.run()["trace"][-1]
    means = rounds.means(Released.LAST_BATCH)[:NUM_CLASSES]
    assert last["mean_abs"] == pytest.approx(8 * np.abs(means).mean(), abs=1e-4)


def test_steps_of_the_generator_lead_the_model_to_the_wrong_class(tiny: Setting) -> None:
    rounds = tiny.rounds(batch_size=COUNT, epsilon=64, generator_rate=5e-3, surrogate_rate=0.01)
    ahead = rounds.ahead(0)
    inputs, labels = rounds.generator_batch(0, 0)
    steps = [rounds.generator.step(ahead, inputs, labels, (labels + 1) % NUM_CLASSES) for _ in range(30)]
    (loss_before, reached_before), (loss_after, reached_after) = steps[0].tolist(), steps[-1].tolist()
    assert loss_after < 0.95 * loss_before
    assert reached_after > reached_before + COUNT / 4


@pytest.mark.parametrize("changes", [{"normalise": True}, {"refresh": 1}, {"flip": False}, {"stages": (3, 0, 0)}])
def test_options_change_the_noise(tiny: Setting, reference: Crafted, changes: dict[str, Any]) -> None:
    assert not np.array_equal(layer_of(tiny.craft(**changes)).levels, layer_of(reference).levels)


# --- it repeats ------------------------------------------------------------------------------------------------


def test_it_gives_the_same_result_twice_and_another_with_another_seed(tiny: Setting, reference: Crafted) -> None:
    assert same(tiny.craft(), reference)
    other = tiny.craft(context=tiny.context(seed=Seed(1)))
    assert not np.array_equal(layer_of(other).levels, layer_of(reference).levels)
    assert other.notes["trace"] != reference.notes["trace"]


def test_neither_threads_nor_global_random_state_matter_and_both_are_left_as_they_were(
    tiny: Setting, reference: Crafted
) -> None:
    torch.set_num_threads(2)
    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    threads = list[int]()

    class Watching(Listening):
        def say(self, text: str) -> None:
            threads.append(torch.get_num_threads())
            assert torch.are_deterministic_algorithms_enabled()

    assert same(tiny.craft(context=tiny.context(reporter=Watching())), reference)
    assert set(threads) == {1}
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]
    assert random.getstate() == before[2]


def test_the_clean_images_are_not_changed(tiny: Setting) -> None:
    split = make_split()
    tiny.craft(split)
    assert np.array_equal(split.images, SPLIT.images)


# --- interruption ----------------------------------------------------------------------------------------------


SHORT: dict[str, Any] = {"stages": (0, 1, 1), "generator_width": 1}
SAVES = 2 * (NUM_BATCHES + 1) + 4
"""After every batch and round, after each chunk of the last look and at its end."""


def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after every batch, and look at all images in three chunks."""
    monkeypatch.setattr(stepwise, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    monkeypatch.setattr("ule_datasets.methods.bait.IMAGES_AT_ONCE", 16)


@pytest.mark.parametrize("in_memory", [True, False])
def test_interrupted_at_any_checkpoint_and_resumed_the_result_is_the_same(
    tiny: Setting, in_memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often(monkeypatch)
    whole = tiny.craft(**SHORT)
    for at in range(1, SAVES + 2, 1 if in_memory else 3):
        inner: Checkpoint = MemoryCheckpoint() if in_memory else FileCheckpoint(tmp_path / f"{at}", "this craft")
        try:
            tiny.craft(context=tiny.context(checkpoint=Stopping(inner, at=at, saved=not in_memory)), **SHORT)
        except KeyboardInterrupt:
            assert same(tiny.craft(context=tiny.context(checkpoint=inner), **SHORT), whole), at
        else:
            assert at == SAVES + 1


def test_interrupted_again_and_again_it_still_ends_with_the_same_result_and_is_not_worked_on_again(
    tiny: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often(monkeypatch)
    inner = FileCheckpoint(tmp_path / "state", "this craft")
    for _ in range(SAVES):
        with pytest.raises(KeyboardInterrupt):
            tiny.craft(context=tiny.context(checkpoint=Stopping(inner, at=1, saved=True)), **SHORT)
    last, listening = Stopping(inner, at=99, saved=True), Listening()
    crafted = tiny.craft(context=tiny.context(checkpoint=last, reporter=listening), **SHORT)
    assert same(crafted, tiny.craft(**SHORT))
    assert last.count == 0, "all was done"
    assert listening.said == []


def test_state_is_saved_at_the_end_of_each_round_and_of_the_work(tiny: Setting) -> None:
    for released, expected in ((Released.GENERATOR, 4), (Released.LAST_BATCH, 3)):
        checkpoint = Stopping(MemoryCheckpoint(), at=99, saved=True)
        crafted = tiny.craft(context=tiny.context(checkpoint=checkpoint), released=released)
        assert checkpoint.count == expected
        again = Listening()
        assert same(tiny.craft(context=tiny.context(checkpoint=checkpoint, reporter=again), released=released), crafted)
        assert (checkpoint.count, again.said) == (expected, [])


@pytest.mark.parametrize(("at", "where"), [(2, "in round 3"), (3, "with the noise of all images")])
def test_a_craft_begun_elsewhere_says_so_and_names_both_environments(
    tiny: Setting, reference: Crafted, at: int, where: str
) -> None:
    checkpoint = MemoryCheckpoint()
    with pytest.raises(KeyboardInterrupt):
        tiny.craft(context=tiny.context(checkpoint=Stopping(checkpoint, at=at, saved=True)))
    state = checkpoint.load()
    assert state is not None
    (here,) = state.facts["environments"]
    there = {**here, "device": "Abacus 3000"}
    checkpoint.save(State(arrays=state.arrays, facts={**state.facts, "environments": [there]}))
    listening = Listening()
    crafted = tiny.craft(context=tiny.context(checkpoint=checkpoint, reporter=listening))
    assert crafted.notes["environments"] == [there, here]
    (warning,) = listening.warnings
    assert "begun elsewhere or with other versions (device Abacus 3000" in warning
    assert listening.said[0] == f"continuing {where}"
    assert np.array_equal(layer_of(crafted).levels, layer_of(reference).levels)


# --- what is told ----------------------------------------------------------------------------------------------


def test_the_work_is_announced_with_an_estimate_and_every_round_is_told(tiny: Setting) -> None:
    listening = Listening()
    tiny.craft(context=tiny.context(reporter=listening))
    first, *others = listening.said
    assert first.startswith(f"{Bait.title} on ")
    assert " a round, " in first
    assert "for 3 rounds; one thread does it" in first
    expected = [f"round {n} of 3 ({stage})" for n, stage in enumerate(("hardest", "random", "dissimilar"), 1)]
    assert [line.split(":")[0] for line in others] == expected


def test_the_estimate_counts_what_is_left_and_long_work_is_compared_with_a_gpu(
    tiny: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = tiny.rounds(stages=(0, 0, 4))
    rounds.trace = [{}]
    monkeypatch.setattr(rounds, "_seconds_per_round", lambda: (1000.0, 50e12 * 60))
    rounds._begin(resumed=False)
    reporter = rounds.context.reporter
    assert isinstance(reporter, Listening)
    assert "about 17 min a round, 50 min for 3 rounds;" in reporter.said[0]
    assert reporter.said[0].endswith("on a GPU that sustains 50 TFLOP/s 3 min")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surrogate_rate": 1e30}, "the generator's loss is not finite in round 1; a smaller generator_rate or surr"),
        ({"generator_rate": 1e38}, "loss is not finite in round 1; a smaller"),
    ],
)
def test_a_loss_that_is_not_finite_is_an_error(tiny: Setting, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny.craft(**changes)


# --- settings --------------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_official_code_for_cifar10() -> None:
    method = Bait()
    assert method.prior == WEIGHTS["resnet18@imagenet"]
    assert (method.epsilon, method.stages, method.batch_size) == (8, (30, 30, 30), 512)
    assert (method.surrogate_rate, method.momentum, method.weight_decay) == (0.1, 0.9, 5e-4)
    assert (method.gradient_clip, method.generator_rate) == (5.0, 1e-3)
    assert (method.generator_width, method.generator_blocks, method.refresh) == (16, 8, None)
    assert (method.released, method.apply, method.quantize) == (Released.GENERATOR, Apply.SIGNED, Quantize.TRUNC)
    assert (method.crop_padding, method.flip, method.exclude_true, method.normalise) == (4, True, False, False)
    assert (Bait.identifier, Bait.citation, Bait.repeats, Bait.needs_labels) == ("bait", "li2026priors", "device", True)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epsilon", 0, r"epsilon is 0, not in \(0, 255\]"),
        ("epsilon", 256, r"epsilon is 256, not in \(0, 255\]"),
        ("stages", (0, 0, 0), r"stages is \(0, 0, 0\); give three numbers of rounds, at least one above 0"),
        ("stages", (1, -1, 1), "stages is"),
        ("stages", (30, 30), "stages is"),
        ("batch_size", 1, "batch_size is 1, must be at least 2"),
        ("surrogate_rate", -1, "surrogate_rate is -1, must be at least 0"),
        ("momentum", float("nan"), "momentum is nan, must be at least 0"),
        ("weight_decay", -1, "weight_decay is -1, must be at least 0"),
        ("generator_rate", float("inf"), "generator_rate is inf, must be at least 0"),
        ("gradient_clip", 0, "gradient_clip is 0, must be above 0"),
        ("generator_width", 0, "generator_width is 0, must be at least 1"),
        ("generator_blocks", 0, "generator_blocks is 0, must be at least 1"),
        ("refresh", 0, "refresh is 0, must be at least 1, or None for all batches"),
        ("crop_padding", -1, "crop_padding is -1, must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^Bait: {message}"):
        Bait(**{field: value})


@pytest.mark.parametrize("size", [8, 20])
def test_images_that_the_generator_does_not_take_are_refused(tiny: Setting, size: int) -> None:
    with pytest.raises(InputError, match=f"images are {size} x {size} with 3 channels; .* multiples of 8, from 16 on"):
        tiny.craft(make_split(6, size=size))


def test_one_class_or_one_image_is_too_little(tiny: Setting) -> None:
    with pytest.raises(InputError, match="one class only"):
        tiny.craft(make_split(num_classes=1), tiny.context(num_classes=1))
    with pytest.raises(InputError, match="1 training image"):
        tiny.craft(make_split(1))


def test_a_prior_that_is_not_there_is_named(tiny: Setting, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="convnet3-w16@nothing"):
        tiny.craft(context=tiny.context(weights=tmp_path))


def test_a_prior_with_dropout_repeats_and_can_be_interrupted(tiny: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(*_: Any, **__: Any) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * SIZE * SIZE, NUM_CLASSES))

    monkeypatch.setattr(bait.pretrained, "build_pretrained", forgetful)
    often(monkeypatch)
    first = tiny.craft(**SHORT)
    torch.manual_seed(1)
    checkpoint = MemoryCheckpoint()
    with pytest.raises(KeyboardInterrupt):
        tiny.craft(context=tiny.context(checkpoint=Stopping(checkpoint, at=6, saved=True)), **SHORT)
    assert same(tiny.craft(context=tiny.context(checkpoint=checkpoint), **SHORT), first)


@pytest.mark.gpu
def test_a_gpu_repeats_itself_and_can_be_interrupted(tiny: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    often(monkeypatch)

    def make(checkpoint: Checkpoint) -> Crafted:
        return tiny.craft(context=tiny.context(device="cuda", checkpoint=checkpoint))

    first = make(MemoryCheckpoint())
    assert same(make(MemoryCheckpoint()), first)
    checkpoint = MemoryCheckpoint()
    with pytest.raises(KeyboardInterrupt):
        make(Stopping(checkpoint, at=6, saved=True))
    assert same(make(checkpoint), first)
