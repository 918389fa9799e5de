"""The training loop on tiny images: each step is the one written down by hand, and repeats."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from made_up import CPU, bright_or_dark, digest_of, make_history
from tiny_weights import TINY, register_tiny_weights
from torch import Tensor, nn

from ule_datasets.base.content import content
from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.devices import deterministic_algorithms, pick_device
from ule_datasets.compute.precision import Precision
from ule_datasets.countermeasures import Cutout, LInfAttack, parse_strategy
from ule_datasets.models import compact_transformer
from ule_datasets.models.architectures import MODELS, build_model
from ule_datasets.models.states import load_weights
from ule_datasets.models.weights import WEIGHTS, WeightsFile
from ule_datasets.victims.augmentation import Augmentation
from ule_datasets.victims.data import TrainingData
from ule_datasets.victims.history import EpochRecord, RunHistory
from ule_datasets.victims.loop import _Run
from ule_datasets.victims.protocol import AdamW, Cosine, MultiStep, Sgd, TrainingProtocol
from ule_datasets.victims.strategy import Strategy
from ule_datasets.victims.supervised import Supervised
from ule_datasets.victims.table import VICTIMS

STANDARD = Strategy(name="standard", augmentation=Augmentation(crop_padding=1, flip=True))
PROTOCOL = TrainingProtocol(model="convnet3-w16", epochs=2, batch_size=16, strategy=STANDARD)

VICTIM = VICTIMS[PROTOCOL.model]

pytestmark = pytest.mark.usefixtures("one_thread")


def run(
    data: TrainingData | None = None,
    *,
    seed: int = 0,
    start: Path | None = None,
    weights: Path | None = None,
    **changes: Any,
) -> RunHistory:
    protocol = dataclasses.replace(PROTOCOL, **changes)
    return VICTIMS[protocol.model].train(
        data or bright_or_dark(), protocol, seed=seed, device=CPU, on_epoch=silent, start=start, weights=weights
    )


def silent(record: EpochRecord) -> None:
    """Nobody listens."""


def state_of(data: TrainingData, protocol: TrainingProtocol, seed: int = 0) -> _Run:
    victim = Supervised(name=protocol.model)
    return _Run(victim._first_model(data, protocol, seed, None), victim.losses, data, protocol, Seed(seed), CPU)


# By hand


class ByHand:
    """A run as one would write it down: image by image, optimisers from their formulas, in torch's default numbers.

    Batches must divide the images evenly.
    """

    def __init__(self, data: TrainingData, protocol: TrainingProtocol, seed: int) -> None:
        self.data, self.protocol = data, protocol
        number = Seed(seed).integer32
        self.order, self.augmentation, self.attack = (
            torch.Generator().manual_seed(number(purpose)) for purpose in ("order", "augmentation", "attack")
        )
        model = build_model(protocol.model, data.num_classes, seed=number("initialisation"))
        self.model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.first = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.memory: dict[str, list[Tensor]] = {}
        self.losses: list[float] = []
        """Sum over the images, per step."""
        self.correct: list[float] = []
        self.clipped: list[bool] = []
        """Whether a step's gradients were too long."""

    def train(self) -> ByHand:
        size, count = self.protocol.batch_size, len(self.data.images)
        assert count % size == 0
        num_steps = self.protocol.epochs * count // size
        for _ in range(self.protocol.epochs):
            rows = torch.randperm(count, generator=self.order).numpy()
            for start in range(0, count, size):
                self._step(rows[start : start + size], num_steps)
        return self

    @property
    def displacement(self) -> float:
        moved = [(p.detach() - self.first[name]) ** 2 for name, p in self.model.named_parameters()]
        return math.sqrt(sum(float(square.sum()) for square in moved))

    def _step(self, rows: np.ndarray, num_steps: int) -> None:
        strategy, labels = self.protocol.strategy, torch.from_numpy(self.data.labels[rows])
        moved = self._cropped_and_mirrored(self._projected(self.data.images[rows]))
        images = (
            torch.from_numpy(moved).float().div(255).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        )
        for cutout in [part for part in strategy.parts if isinstance(part, Cutout)]:
            self._blank(images, cutout.size)
        for attack in [part for part in strategy.parts if isinstance(part, LInfAttack)]:
            images = self._attacked(images, labels, attack)
        other, share = labels, 1.0
        if strategy.having("mix"):
            partners = torch.randperm(len(images), generator=self.augmentation)
            both = torch.full((1, 2), 1.0, dtype=torch.float64)
            share = float(torch._sample_dirichlet(both, generator=self.augmentation)[0, 0])
            images, other = images * share + images[partners] * (1 - share), labels[partners]
        logits = self.model(images)
        chances = logits.log_softmax(dim=1)
        each = [-share * chances[i, labels[i]] - (1 - share) * chances[i, other[i]] for i in range(len(labels))]
        loss = torch.stack(each).mean()
        answers = logits.argmax(dim=1)
        self.losses.append(loss.item() * len(labels))
        self.correct.append(share * int((answers == labels).sum()) + (1 - share) * int((answers == other).sum()))
        gradients = torch.autograd.grad(loss, list(self.model.parameters()))
        if self.protocol.gradient_clip is not None:
            norm = math.sqrt(sum(float((gradient.double() ** 2).sum()) for gradient in gradients))
            self.clipped.append(norm > self.protocol.gradient_clip)
            gradients = tuple(gradient * min(1.0, self.protocol.gradient_clip / norm) for gradient in gradients)
        rate = self.protocol.optimiser.learning_rate
        rate *= self.protocol.schedule.factor(len(self.losses) - 1, num_steps)
        with torch.no_grad():
            for (name, parameter), gradient in zip(self.model.named_parameters(), gradients, strict=True):
                parameter -= self._change(name, parameter, gradient, rate)

    def _change(self, name: str, parameter: Tensor, gradient: Tensor, rate: float) -> Tensor:
        chosen, step = self.protocol.optimiser, len(self.losses)
        if isinstance(chosen, Sgd):
            (velocity,) = self.memory.get(name, [torch.zeros_like(parameter)])
            velocity = chosen.momentum * velocity + gradient + chosen.weight_decay * parameter
            self.memory[name] = [velocity]
            return rate * velocity
        mean, square = self.memory.get(name, [torch.zeros_like(parameter)] * 2)
        mean = chosen.beta1 * mean + (1 - chosen.beta1) * gradient
        square = chosen.beta2 * square + (1 - chosen.beta2) * gradient**2
        self.memory[name] = [mean, square]
        direction = mean / (1 - chosen.beta1**step) / ((square / (1 - chosen.beta2**step)).sqrt() + 1e-8)
        return rate * (direction + chosen.weight_decay * parameter)

    def _projected(self, images: np.ndarray) -> np.ndarray:
        """Less what each image has along orthonormal directions, one after the other."""
        for directions in self.data.learned:
            for direction in directions.astype(np.float64):
                along = (images * direction).sum(axis=(1, 2, 3), keepdims=True)
                images = images - along * direction
        return images

    def _cropped_and_mirrored(self, images: np.ndarray) -> np.ndarray:
        chosen = self.protocol.strategy.augmentation
        pad, (count, height, width, _) = chosen.crop_padding, images.shape
        offsets = torch.randint(0, 2 * pad + 1, (2, count), generator=self.augmentation).tolist()
        mirrored = torch.randint(0, 2, (count,), generator=self.augmentation).tolist()
        result = np.empty_like(images)
        for index, (top, left, mirror) in enumerate(zip(*offsets, mirrored, strict=True)):
            padded = np.pad(images[index], ((pad, pad), (pad, pad), (0, 0)))
            window = padded[top : top + height, left : left + width]
            result[index] = window[:, ::-1] if mirror and chosen.flip else window
        return result

    def _blank(self, images: Tensor, size: int) -> None:
        count, _, height, width = images.shape
        rows = torch.randint(0, height, (count,), generator=self.augmentation).tolist()
        columns = torch.randint(0, width, (count,), generator=self.augmentation).tolist()
        for image, row, column in zip(images, rows, columns, strict=True):
            top, left = row - size // 2, column - size // 2
            image[:, max(top, 0) : top + size, max(left, 0) : left + size] = 0

    def _attacked(self, images: Tensor, labels: Tensor, attack: LInfAttack) -> Tensor:
        """Steps along the sign of the gradient, batch normalisation standing still."""
        drawn = torch.rand(images.shape, generator=self.attack)
        lowest, highest = (images - attack.radius).clamp(min=0), (images + attack.radius).clamp(max=1)
        moved = torch.minimum(torch.maximum(images + attack.radius * (2 * drawn - 1), lowest), highest)
        self.model.eval()
        for _ in range(attack.steps):
            moved = moved.detach().requires_grad_()
            chances = self.model(moved).log_softmax(dim=1)
            loss = -chances[torch.arange(len(labels)), labels].sum()
            (gradient,) = torch.autograd.grad(loss, moved)
            moved = torch.minimum(torch.maximum(moved.detach() + attack.step * gradient.sign(), lowest), highest)
        self.model.train()
        return moved.detach()


def strategy(name: str) -> Strategy:
    """As the papers have it, but for images of 8 x 8 pixels."""
    found = parse_strategy(name)
    parts = tuple(Cutout(size=4) if isinstance(part, Cutout) else part for part in found.parts)
    return dataclasses.replace(found, augmentation=STANDARD.augmentation, parts=parts)


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": parse_strategy("none")},
        {"strategy": strategy("standard")},
        {"strategy": strategy("standard"), "schedule": MultiStep()},
        {"strategy": strategy("standard"), "optimiser": AdamW(), "schedule": Cosine()},
        {"strategy": strategy("standard"), "gradient_clip": 2.5},
        {"strategy": strategy("cutout")},
        {"strategy": strategy("mixup")},
        {"strategy": strategy("linf-at")},
        {"strategy": strategy("linf-at+mixup")},
        {"strategy": strategy("linf-at+cutout")},
        {"strategy": strategy("op")},
        {"strategy": strategy("op+mixup")},
    ],
    ids=lambda changes: "-".join(str(getattr(value, "name", type(value).__name__)) for value in changes.values()),
)
@pytest.mark.usefixtures("in_float64")
def test_a_run_is_the_one_written_down_by_hand(changes: dict[str, Any], tmp_path: Path) -> None:
    data = bright_or_dark(48)
    if changes["strategy"].having("on_levels"):
        basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(8 * 8 * 3, 2)))
        data = dataclasses.replace(data, learned=(basis.T.reshape(2, 8, 8, 3),))
    history = run(data, seed=3, weights=tmp_path / "w", **changes)
    theirs = ByHand(data, dataclasses.replace(PROTOCOL, **changes), 3).train()
    found, wanted = safetensors.torch.load_file(tmp_path / "w"), theirs.model.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-7, msg=lambda text, name=name: name + text)
    per_epoch = len(theirs.losses) // 2
    for record, start in zip(history.epochs, (0, per_epoch), strict=True):
        steps = slice(start, start + per_epoch)
        assert record.train_loss == pytest.approx(sum(theirs.losses[steps]) / 48, rel=1e-6)
        assert record.train_accuracy == pytest.approx(100 * sum(theirs.correct[steps]) / 48, rel=1e-6)
    assert history.last.displacement == pytest.approx(theirs.displacement, rel=1e-6)
    theirs.model.eval()
    shown = torch.from_numpy(data.test_images).permute(0, 3, 1, 2).float() / 255
    right = (theirs.model(shown).argmax(dim=1).numpy() == data.test_labels).mean()
    assert history.last.test_accuracy == pytest.approx(100 * float(right))


def test_long_gradients_are_clipped_and_short_ones_are_not() -> None:
    data = bright_or_dark(48)
    theirs = ByHand(data, dataclasses.replace(PROTOCOL, gradient_clip=2.5), 3).train()
    assert set(theirs.clipped) == {True, False}, "both cases are in the comparison by hand"
    unclipped = run(data, seed=3)
    assert run(data, seed=3, gradient_clip=1e6).epochs == unclipped.epochs
    assert run(data, seed=3, gradient_clip=0.01).epochs != unclipped.epochs


def test_the_last_smaller_batch_counts_by_its_images() -> None:
    """With equal images and no noise, every image has the same gradient, whatever its batch."""
    data = bright_or_dark(40)
    same = dataclasses.replace(data, images=np.full_like(data.images, 90), labels=np.zeros_like(data.labels))
    history = run(same, epochs=1, batch_size=16, strategy=parse_strategy("none"), optimiser=Sgd(learning_rate=1e-9))
    assert history.last.train_loss is not None
    untouched = build_model("convnet3-w16", 2, seed=Seed(0).integer32("initialisation")).train()
    image = torch.full((16, 3, 8, 8), 90 / 255)
    wanted = -untouched(image).log_softmax(dim=1)[0, 0].item()
    assert history.last.train_loss == pytest.approx(wanted, rel=1e-4)
    assert history.last.train_accuracy in (0.0, 100.0)


# Learning


def test_it_learns_two_easy_classes() -> None:
    history = run(epochs=6)
    assert history.last.train_accuracy > 95
    assert history.last.test_accuracy > 95
    assert history.epochs[0].train_loss is not None
    assert history.last.train_loss is not None
    assert history.last.train_loss < history.epochs[0].train_loss


def test_shuffled_labels_are_not_learned() -> None:
    data = bright_or_dark(192)
    labels = np.random.default_rng(1).permutation(data.labels)
    assert run(dataclasses.replace(data, labels=labels), epochs=4).last.train_accuracy < 75


@pytest.mark.parametrize("name", ["standard", "linf-at"])
def test_bfloat16_learns_too_and_is_not_float32(name: str) -> None:
    half, full = (
        run(epochs=4, precision=precision, strategy=strategy(name))
        for precision in (Precision.BFLOAT16, Precision.FLOAT32)
    )
    assert half.last.test_accuracy > 95
    assert half.last.train_loss != full.last.train_loss
    assert half.last.train_loss == pytest.approx(full.last.train_loss, abs=0.1)


@pytest.mark.parametrize(
    "name", ["randaugment", "cutmix", "l2-at-eps0.5", "linf-at+randaugment+cutout+mixup", "op+randaugment"]
)
def test_every_other_stage_trains(name: str) -> None:
    history = run(bright_or_dark(48), epochs=1, strategy=strategy(name))
    assert history.finite
    assert 0 <= history.last.train_accuracy <= 100


# Repeating


def tiny_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = partial(compact_transformer.cvt, width=8, num_layers=3, patch=16)
    monkeypatch.setitem(MODELS, "tiny-transformer", factory)
    monkeypatch.setitem(VICTIMS, "tiny-transformer", Supervised(name="tiny-transformer"))


TRANSFORMER: dict[str, Any] = {"model": "tiny-transformer", "optimiser": AdamW(), "schedule": Cosine()}


def test_the_same_seed_gives_the_same_history_and_another_seed_another() -> None:
    for name in ("standard", "linf-at+mixup", "cutout"):
        first, second, other = (run(seed=seed, strategy=strategy(name)) for seed in (3, 3, 4))
        assert first == second
        assert first.epochs != other.epochs


def test_dropout_repeats_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_transformer(monkeypatch)
    data = bright_or_dark(32, size=32)
    torch.manual_seed(1)
    first = run(data, seed=3, **TRANSFORMER)
    torch.manual_seed(2)
    assert run(data, seed=3, **TRANSFORMER) == first
    assert run(data, seed=4, **TRANSFORMER).epochs != first.epochs
    monkeypatch.setattr(compact_transformer, "ATTENTION_DROPOUT", 0.0)
    without = run(data, seed=3, **TRANSFORMER)
    assert without.epochs != first.epochs, "there was no dropout to repeat"
    monkeypatch.setattr(compact_transformer, "LARGEST_DROP", 0.0)
    assert run(data, seed=3, **TRANSFORMER).epochs != without.epochs, "there was no stochastic depth to repeat"


def test_no_global_random_state_is_used_or_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_transformer(monkeypatch)
    for data, changes in ((bright_or_dark(), {}), (bright_or_dark(32, size=32), TRANSFORMER)):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = run(data, **changes)
        protocol = dataclasses.replace(PROTOCOL, **changes)
        VICTIMS[protocol.model].seconds(data, protocol, device=CPU)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert run(data, **changes) == first


def test_torch_settings_are_restored() -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark

    def fail_inside() -> None:
        with deterministic_algorithms():
            assert torch.are_deterministic_algorithms_enabled()
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before


def test_initialisation_and_order_depend_on_the_seed_and_not_on_images_or_strategy() -> None:
    data = bright_or_dark()
    other = dataclasses.replace(data, images=255 - data.images)
    attacked = dataclasses.replace(PROTOCOL, strategy=strategy("linf-at+mixup"))
    pairs = ((data, PROTOCOL), (other, PROTOCOL), (data, attacked))
    first, *others = (state_of(each, protocol, 5) for each, protocol in pairs)
    for second in others:
        parameters = zip(first.model.parameters(), second.model.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in parameters)
    orders = [torch.cat(each.batches()) for each in (first, *others)]
    assert all(torch.equal(orders[0], order) for order in orders[1:])


# Epochs, windows, batches


def test_every_epoch_is_reported_as_it_ends() -> None:
    seen: list[EpochRecord] = []
    history = VICTIM.train(bright_or_dark(), PROTOCOL, seed=0, device=CPU, on_epoch=seen.append)
    assert tuple(seen) == history.epochs
    assert [record.epoch for record in seen] == [1, 2]
    assert (history.ranks, history.threads, history.seed) == (1, 1, 0)
    assert history.num_parameters == sum(p.numel() for p in build_model("convnet3-w16", 2, seed=0).parameters())


@pytest.mark.parametrize(
    ("count", "size", "ends"),
    [
        (96, 8, [2, 4, 7, 9, 12]),
        (90, 8, [2, 4, 7, 9, 12]),
        (80, 16, [1, 2, 3, 4, 5]),
        (48, 16, [1, 2, 3]),
        (65, 32, [1, 2]),
        (20, 32, [1]),
    ],
)
def test_windows_cover_the_epoch(count: int, size: int, ends: list[int]) -> None:
    data = bright_or_dark(count)
    history = run(data, batch_size=size)
    state = state_of(data, dataclasses.replace(PROTOCOL, batch_size=size))
    sizes = [len(batch) for batch in state.batches()]
    assert len(sizes) == ends[-1]
    for number, record in enumerate(history.epochs):
        assert [window.step - number * len(sizes) for window in record.windows] == ends
        starts = [0, *ends[:-1]]
        images = [sum(sizes[start:end]) for start, end in zip(starts, ends, strict=True)]
        assert sum(images) == count
        correct = [w.train_accuracy * n / 100 for w, n in zip(record.windows, images, strict=True)]
        assert correct == pytest.approx([round(each) for each in correct]), "whole images"
        assert record.train_accuracy == pytest.approx(100 * sum(correct) / count)
        assert record.windows[-1].displacement == record.displacement
    moved = [window.displacement for record in history.epochs for window in record.windows]
    assert all(distance > 0 for distance in moved)


def test_displacement_is_the_distance_from_the_initial_model(tmp_path: Path) -> None:
    history = run(seed=7, epochs=3, model="resnet18-w8", weights=tmp_path / "w")
    trained = safetensors.torch.load_file(tmp_path / "w")
    first = dict(build_model("resnet18-w8", 2, seed=Seed(7).integer32("initialisation")).named_parameters())
    squares = sum(float((trained[name].double() - p.detach().double()).square().sum()) for name, p in first.items())
    assert history.last.displacement == pytest.approx(math.sqrt(squares), rel=1e-5)
    assert len(trained) > len(first), "running statistics are kept and not counted"


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (96, 32, [32, 32, 32]),
        (90, 32, [32, 32, 26]),
        (65, 32, [32, 33]),
        (66, 32, [32, 32, 2]),
        (20, 32, [20]),
        (33, 32, [33]),
        (2, 2, [2]),
        (3, 2, [3]),
    ],
)
def test_the_last_batch_is_kept_and_a_single_image_joins_the_one_before(
    count: int, size: int, expected: list[int]
) -> None:
    state = state_of(bright_or_dark(count), dataclasses.replace(PROTOCOL, batch_size=size))
    batches = state.batches()
    assert [len(batch) for batch in batches] == expected
    assert len(batches) == state._steps_per_epoch
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert count < 10 or not torch.equal(torch.cat(batches), torch.cat(state.batches())), (
        "every epoch has its own order"
    )


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("count", range(8, 33))
def test_every_process_gets_two_images_of_every_batch(count: int, ranks: int) -> None:
    state = state_of(bright_or_dark(count), dataclasses.replace(PROTOCOL, batch_size=8))
    state.ranks = ranks
    batches = state.batches()
    assert min(len(batch[rank::ranks]) for batch in batches for rank in range(ranks)) >= 2
    assert len(batches) == state._steps_per_epoch
    assert sorted(torch.cat(batches).tolist()) == list(range(count))


def test_all_test_images_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bright_or_dark()
    whole = run(data)
    monkeypatch.setattr("ule_datasets.victims.loop.EVALUATION_BATCH", 7)
    assert run(data).last.test_accuracy == whole.last.test_accuracy
    right = whole.last.test_accuracy * 24 / 100
    assert right == pytest.approx(round(right))


@pytest.mark.parametrize("optimiser", [Sgd(learning_rate=1e30), AdamW(learning_rate=1e30)])
def test_a_loss_that_is_not_finite_ends_the_run_and_shows_in_its_history(optimiser: Sgd | AdamW) -> None:
    history = run(epochs=3, optimiser=optimiser)
    assert not history.finite
    assert history.last.train_loss is None
    assert history.last.displacement is None
    assert history.last.windows == ()
    assert len(history.epochs) < 3
    assert "NaN" not in history.to_json()
    assert "Infinity" not in history.to_json()
    assert RunHistory.from_json(history.to_json(), history.protocol) == history


def test_parameters_that_break_in_the_last_step_end_the_run_too() -> None:
    """Its loss was finite, its result is not."""
    history = run(bright_or_dark(16), epochs=2, optimiser=Sgd(learning_rate=1e38, weight_decay=1e38))
    assert len(history.epochs) == 1
    assert not history.finite


# Weights


def test_training_continues_from_given_weights(tmp_path: Path) -> None:
    first = run(epochs=4, weights=tmp_path / "first")
    assert first.last.test_accuracy > 90
    still = Sgd(learning_rate=1e-12, weight_decay=0)
    second = run(epochs=1, seed=9, optimiser=still, start=tmp_path / "first", weights=tmp_path / "second")
    assert second.last.displacement == pytest.approx(0.0, abs=1e-6)
    before, after = (safetensors.torch.load_file(tmp_path / name) for name in ("first", "second"))
    for name, _ in build_model("convnet3-w16", 2, seed=0).named_parameters():
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)
    assert second.epochs[0].train_accuracy > 90
    fresh = run(epochs=1, seed=9, optimiser=still)
    assert fresh.epochs[0].train_accuracy < 80


def test_the_start_in_the_protocol_is_only_a_name() -> None:
    protocol = dataclasses.replace(PROTOCOL, start="abc")
    named = VICTIM.train(bright_or_dark(), protocol, seed=0, device=CPU, on_epoch=silent)
    assert named.epochs == run().epochs
    assert named.protocol.start == "abc"


def spoil(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "torn":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        run(model="resnet18-w8", epochs=1, weights=path)


@pytest.mark.parametrize("how", ["missing", "torn", "of another model"])
def test_weights_that_do_not_fit_are_refused_in_one_line(how: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    run(epochs=1, weights=path)
    spoil(path, how)
    with pytest.raises(InputError, match="does not hold the weights of this model") as caught:
        run(start=path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_saved_weights_are_the_models(tmp_path: Path) -> None:
    data = bright_or_dark()
    history = run(data, weights=tmp_path / "w")
    model: nn.Module = build_model("convnet3-w16", 2, seed=1)
    load_weights(model, tmp_path / "w")
    answers = model.eval()(torch.from_numpy(data.test_images).permute(0, 3, 1, 2) / 255).argmax(dim=1)
    assert history.last.test_accuracy == pytest.approx(100 * float((answers.numpy() == data.test_labels).mean()))
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


# Trained weights


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WeightsFile:
    return register_tiny_weights(monkeypatch, tmp_path / "trained")


STILL = Sgd(learning_rate=1e-12, weight_decay=0)


def test_trained_weights_get_a_new_head_and_keep_all_else(tiny: WeightsFile, tmp_path: Path) -> None:
    states = []
    for seed in (0, 1):
        history = run(seed=seed, model=TINY, epochs=1, optimiser=STILL, start=tiny.path, weights=tmp_path / "after")
        assert history.last.displacement == pytest.approx(0.0, abs=1e-6)
        assert history.num_parameters == sum(p.numel() for p in build_model("convnet3-w16", 2, seed=0).parameters())
        states.append(safetensors.torch.load_file(tmp_path / "after"))
    trained = build_model("convnet3-w16", 3, seed=5)
    for name, parameter in trained.named_parameters():
        if name.startswith("classifier."):
            assert states[0][name].shape[0] == 2, "as many outputs as the data has classes"
            assert not torch.equal(states[0][name], states[1][name]), "the head is from the seed"
        else:
            for state in states:
                torch.testing.assert_close(state[name], parameter.detach(), rtol=0, atol=1e-6)


def test_all_layers_are_fine_tuned(tiny: WeightsFile, tmp_path: Path) -> None:
    gentle = Sgd(learning_rate=0.01)
    run(model=TINY, epochs=2, optimiser=gentle, gradient_clip=5.0, start=tiny.path, weights=tmp_path / "after")
    after, before = safetensors.torch.load_file(tmp_path / "after"), build_model("convnet3-w16", 3, seed=5)
    for name, parameter in before.named_parameters():
        assert after[name].shape != parameter.shape or not torch.equal(after[name], parameter.detach()), name


@pytest.mark.parametrize("name", ["none", "linf-at+mixup"])
def test_fine_tuning_repeats_and_learns_under_any_strategy(name: str, tiny: WeightsFile) -> None:
    how: dict[str, Any] = {
        "model": TINY,
        "strategy": strategy(name),
        "optimiser": Sgd(learning_rate=0.05),
        "normalise": True,
    }
    first, second = (run(bright_or_dark(96), epochs=6, start=tiny.path, gradient_clip=5.0, **how) for _ in range(2))
    assert first == second
    assert first.last.test_accuracy > 90
    assert RunHistory.from_json(first.to_json(), first.protocol) == first


def test_normalised_inputs_are_those_that_the_weights_expect(tiny: WeightsFile) -> None:
    weights, images = WEIGHTS[TINY], torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(each)[:, None, None] for each in (weights.mean, weights.std))
    plain, normalised = (
        VICTIMS[TINY].model(dataclasses.replace(PROTOCOL, normalise=each), 2, seed=4, start=tiny.path).eval()
        for each in (False, True)
    )
    torch.testing.assert_close(normalised(images), plain((images - mean) / std))
    assert not torch.allclose(normalised(images), plain(images))


def test_a_model_and_its_weights_belong_together(tiny: WeightsFile, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{TINY} starts from trained weights, and their file is not given"):
        run(model=TINY)
    with pytest.raises(InputError, match="normalise is for models of trained weights, and convnet3-w16 is none"):
        run(normalise=True)
    run(model="resnet18-w8", epochs=1, weights=tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="does not hold convnet3-w16"):
        run(model=TINY, start=tmp_path / "other.safetensors")


# Histories


def test_a_history_survives_json() -> None:
    history = run(strategy=strategy("linf-at+cutout"), optimiser=AdamW(), schedule=Cosine())
    again = RunHistory.from_json(history.to_json(), history.protocol)
    assert again == history
    assert again.seconds == history.seconds
    assert json.loads(history.to_json())["protocol"] == content(history.protocol)


def missing_field(content: dict[str, Any]) -> None:
    del content["num_parameters"]


def missing_in_epoch(content: dict[str, Any]) -> None:
    del content["epochs"][0]["windows"]


def text_in_window(content: dict[str, Any]) -> None:
    content["epochs"][0]["windows"][0]["step"] = "1"


def missing_epoch(content: dict[str, Any]) -> None:
    del content["epochs"][0]


def not_tested(content: dict[str, Any]) -> None:
    content["epochs"][-1]["test_accuracy"] = None


def other_protocol(content: dict[str, Any]) -> None:
    content["protocol"]["epochs"] = 5


def no_epochs(content: dict[str, Any]) -> None:
    content["epochs"] = []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (missing_field, "object missing required field num_parameters"),
        (missing_in_epoch, "epochs[0]: object missing required field windows"),
        (text_in_window, "epochs[0].windows[0].step: expected int, got str"),
        (other_protocol, "it has another protocol"),
        (no_epochs, "epochs: they must be numbered from 1, and be at least one"),
        (missing_epoch, "epochs: they must be numbered from 1, and be at least one"),
        (not_tested, "epochs: the last one must be tested"),
    ],
)
def test_a_changed_history_is_refused(change: Callable[[dict[str, Any]], None], words: str) -> None:
    history = make_history(50.0, 60.0)
    content = json.loads(history.to_json())
    change(content)
    with pytest.raises(InputError) as caught:
        RunHistory.from_json(json.dumps(content), history.protocol)
    assert str(caught.value).startswith(f"this is not the history of such a run: {words}")


def test_what_a_newer_version_has_written_besides_is_passed_over() -> None:
    """As wherever files of ours are read."""
    history = make_history(50.0, 60.0)
    content = json.loads(history.to_json())
    content["more"] = content["epochs"][0]["windows"][0]["more"] = 1
    assert RunHistory.from_json(json.dumps(content), history.protocol) == history


@pytest.mark.parametrize("text", ["{}", "[]", "torn", '{"protocol": 1}', "", "null", '{"protocol'])
def test_something_else_is_not_read_as_a_history(text: str) -> None:
    with pytest.raises(InputError, match="not the history of such a run"):
        RunHistory.from_json(text, PROTOCOL)


def test_a_history_of_another_protocol_is_refused() -> None:
    history = make_history(50.0)
    with pytest.raises(InputError, match="another protocol"):
        RunHistory.from_json(history.to_json(), dataclasses.replace(history.protocol, start="abc"))


def test_what_a_history_tells() -> None:
    history = make_history(20.0, 60.0, 60.0, 30.0, 40.0, 50.0, train=[10, 89, 90, 80, 99, 99])
    assert (history.last.epoch, history.best.epoch) == (6, 2)
    assert history.last_five == pytest.approx(48.0)
    assert make_history(10.0, 20.0).last_five == pytest.approx(15.0)
    fitted, later = history.fitted(), history.fitted(99)
    assert fitted is not None
    assert later is not None
    assert (fitted.epoch, later.epoch) == (3, 5)
    assert history.fitted(99.5) is None


def test_epochs_that_are_not_tested_are_none_and_the_others_are_what_they_were() -> None:
    whole, some = run(epochs=13), run(epochs=13, test_interval=6)
    tested = {1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13}
    assert some.protocol.tested_epochs == tested
    assert [record.test_accuracy for record in some.epochs] == [
        record.test_accuracy if record.epoch in tested else None for record in whole.epochs
    ]
    assert [each.epoch for each in some.tested] == sorted(tested)
    assert [record.train_loss for record in some.epochs] == [record.train_loss for record in whole.epochs]
    assert (some.test_accuracy, some.last_five) == (whole.test_accuracy, whole.last_five)
    assert some.best == max(some.tested, key=lambda tested: tested.accuracy)
    assert RunHistory.from_json(some.to_json(), some.protocol) == some


def test_a_loss_that_is_not_finite_has_its_epoch_tested() -> None:
    history = run(bright_or_dark(16), epochs=40, test_interval=20, schedule=MultiStep(first=0.2, drop=1e30))
    assert (history.finite, history.last.epoch) == (False, 9)
    assert history.last.test_accuracy == history.test_accuracy


# Data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((96, 8, 8, 3), np.float32)}, r"training images are float32 \[96, 8, 8, 3\]"),
        ({"images": np.zeros((96, 3, 8, 8), np.uint8)}, r"training images are uint8 \[96, 3, 8, 8\]"),
        ({"labels": np.zeros(5, np.int64)}, r"96 training images with labels int64 \[5\]"),
        ({"labels": np.zeros(96, np.int32)}, r"96 training images with labels int32 \[96\]"),
        ({"labels": np.full(96, 2)}, r"training labels lie in 2 .. 2; expected 0 .. 1"),
        ({"labels": np.full(96, -1)}, r"training labels lie in -1 .. -1; expected 0 .. 1"),
        ({"images": np.zeros((1, 8, 8, 3), np.uint8), "labels": np.zeros(1, np.int64)}, "1 training images"),
        ({"test_images": np.zeros((0, 8, 8, 3), np.uint8), "test_labels": np.zeros(0, np.int64)}, "0 test images"),
    ],
)
def test_unsuitable_data_is_refused(changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(bright_or_dark(), **changes)  # type: ignore[arg-type]


def test_given_arrays_are_left_as_they_are() -> None:
    data = bright_or_dark()
    before = digest_of(data)
    for array in (data.images, data.labels, data.test_images, data.test_labels):
        array.setflags(write=False)
    run(data, epochs=1, strategy=strategy("linf-at+cutout"))
    assert digest_of(data) == before


# Devices, time


def test_an_unknown_device_names_the_known_ones() -> None:
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type in ("cpu", "cuda")
    with pytest.raises(InputError, match=r"device 'tpu': on this machine it can be auto, cpu"):
        pick_device("tpu")


def test_a_run_is_timed_before_it_starts() -> None:
    data, once = bright_or_dark(), dataclasses.replace(PROTOCOL, epochs=1)
    short = VICTIM.seconds(data, once, device=CPU)
    long = VICTIM.seconds(data, dataclasses.replace(PROTOCOL, epochs=1000), device=CPU)
    assert 0 < short < 5
    assert long > 100 * short


def test_fine_tuning_is_timed_too(tiny: WeightsFile) -> None:
    protocol = dataclasses.replace(PROTOCOL, model=TINY, epochs=1)
    assert 0 < VICTIMS[TINY].seconds(bright_or_dark(), protocol, device=CPU, start=tiny.path) < 5


@pytest.mark.gpu
@pytest.mark.parametrize("precision", list(Precision))
def test_a_gpu_repeats_itself(precision: Precision) -> None:
    device, data = torch.device("cuda"), bright_or_dark()
    protocol = dataclasses.replace(PROTOCOL, precision=precision, strategy=strategy("linf-at+mixup"))
    first, second = (VICTIM.train(data, protocol, seed=0, device=device, on_epoch=silent) for _ in range(2))
    assert first == second
