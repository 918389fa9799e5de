"""Error-minimising noise follows the published rounds, keeps its bound, repeats, and survives interruption."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable
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
from ule_datasets.compute.precision import Precision
from ule_datasets.data.perturbation import Additive, Perturbation, Support
from ule_datasets.data.quantization import Apply, Quantize, quantize
from ule_datasets.data.split import Split, sample_digest
from ule_datasets.methods.engine import stepwise
from ule_datasets.methods.engine.settings import ErrorAverage, StopRule, SurrogateSettings
from ule_datasets.methods.error_minimizing import ClassWise, ClasswiseErrorMinimizing, ErrorMinimizing, SampleWise
from ule_datasets.methods.method import Context, Crafted
from ule_datasets.models.architectures import build_model

NUM_CLASSES, COUNT, BATCH = 3, 90, 32
SURROGATE = SurrogateSettings(model="convnet3-w16", batch_size=BATCH)
UNREACHABLE: dict[str, Any] = {"stop_accuracy": 1.0, "stop_rule": StopRule.ABOVE}
Method = ErrorMinimizing | ClasswiseErrorMinimizing


pytestmark = pytest.mark.usefixtures("one_thread")


def make_split(count: int = COUNT, *, size: int = 16, seed: int = 0, num_classes: int = NUM_CLASSES) -> Split:
    """Noise around a brightness per class; some pixels are black, some white."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % num_classes
    noise = generator.integers(-150, 151, (count, size, size, 3))
    images = np.clip(noise + 60 + 60 * labels[:, None, None, None], 0, 255).astype(np.uint8)
    digests = [sample_digest(image, label) for image, label in zip(images, labels.tolist(), strict=True)]
    return Split.from_samples("train", images, labels, digests)


SPLIT = make_split()


def sample_wise(**changes: Any) -> ErrorMinimizing:
    """Two rounds of four batches, three of which see all images."""
    small: dict[str, Any] = {"surrogate": SURROGATE, "num_steps": 3, "steps_per_round": 4, "max_rounds": 2}
    return ErrorMinimizing(**{**small, **UNREACHABLE, **changes})


def class_wise(**changes: Any) -> ClasswiseErrorMinimizing:
    """Two rounds of four batches; noise from two batches of a part of the images."""
    small: dict[str, Any] = {"surrogate": SURROGATE, "num_steps": 2, "steps_per_round": 4, "max_rounds": 2}
    return ClasswiseErrorMinimizing(**{**small, "subset": 0.8, **UNREACHABLE, **changes})


KINDS: dict[str, Callable[..., Method]] = {"sample-wise": sample_wise, "class-wise": class_wise}
both_kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def make_context(
    *,
    seed: int = 0,
    num_classes: int = NUM_CLASSES,
    checkpoint: Checkpoint | None = None,
    warnings: list[str] | None = None,
    said: list[str] | None = None,
) -> Context:
    return Context(
        num_classes=num_classes,
        seed=Seed(seed),
        reporter=Listening(warnings, said),
        checkpoint=checkpoint or MemoryCheckpoint(),
    )


def layer_of(crafted: Crafted) -> Additive:
    (layer,) = crafted.layers
    assert isinstance(layer, Additive)
    return layer


def same(first: Crafted, second: Crafted) -> bool:
    layers = layer_of(first), layer_of(second)
    return (
        np.array_equal(layers[0].levels, layers[1].levels)
        and layers[0].levels.dtype == layers[1].levels.dtype
        and layers[0].keys == layers[1].keys
        and first.notes == second.notes
    )


def craft(method: Method, split: Split = SPLIT, **context: Any) -> Crafted:
    return method.generate(split, make_context(**context))


# --- fidelity: the published rounds, restated plainly in float tensors -----------------------------------------


class Plain:
    """Model, optimiser and images as anybody would write them: units of 1, no grid, nothing folded or frozen."""

    def __init__(self, method: Method, split: Split = SPLIT) -> None:
        self.epsilon, self.alpha = method.epsilon / 255, method.step_size / 255
        self.num_steps = method.num_steps
        self.images = torch.from_numpy(split.images).permute(0, 3, 1, 2).float() / 255
        self.labels = torch.from_numpy(split.labels)
        seed = Seed(0).integer32(method.identifier, "initialisation")
        self.model = build_model(SURROGATE.model, NUM_CLASSES, seed=seed)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    def train_on(self, rows: Tensor, deltas: Tensor) -> float:
        self.model.train()
        loss = functional.cross_entropy(self.model(self.images[rows] + deltas), self.labels[rows])
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimiser.step()
        return float(loss.detach())

    def improved(self, rows: Tensor, deltas: Tensor) -> Tensor:
        self.model.eval()
        clean = self.images[rows]
        shown = (clean + deltas).clamp(0, 1)
        for _ in range(self.num_steps):
            shown.requires_grad_(True)
            loss = functional.cross_entropy(self.model(shown), self.labels[rows])
            (gradient,) = torch.autograd.grad(loss, shown)
            shown = shown.detach() - self.alpha * gradient.sign()
            deltas = (shown - clean).clamp(-self.epsilon, self.epsilon)
            shown = (clean + deltas).clamp(0, 1)
        return deltas

    @torch.no_grad()
    def accuracy(self, rows: Tensor, deltas: Tensor) -> float:
        self.model.eval()
        return float((self.model(self.images[rows] + deltas).argmax(dim=1) == self.labels[rows]).double().mean())


@pytest.mark.usefixtures("in_float64")
def test_sample_wise_noise_is_that_of_the_published_rounds() -> None:
    method = sample_wise(num_steps=6)
    plain, rounds = Plain(method), SampleWise(method, SPLIT, make_context(), images_at_once=32)
    notes = rounds.run()

    everything = torch.arange(COUNT)
    batches = list(torch.split(everything, BATCH))
    assert [len(batch) for batch in batches] == [32, 32, 26], "the last batch of a pass is kept"
    deltas, position = torch.zeros_like(plain.images), 0
    for line in notes["trace"]:
        losses = []
        for _ in range(method.steps_per_round):
            rows = batches[position % len(batches)]
            losses += [plain.train_on(rows, deltas[rows])] * len(rows)
            position += 1
        for rows in batches:
            deltas[rows] = plain.improved(rows, deltas[rows])
        assert line["model_loss"] == pytest.approx(np.mean(losses), abs=1e-4)
        assert line["accuracy"] == pytest.approx(100 * plain.accuracy(everything, deltas), abs=1e-3)

    expected = (deltas * 255).permute(0, 2, 3, 1).numpy()
    found = rounds.noise.numpy() / rounds.grid.per_level
    assert np.abs(found - expected).max() < 1e-6
    assert len(np.unique(found)) > 10, "steps have led to many values"
    assert np.mean(np.abs(found) == 8) > 0.01
    outside = np.abs(SPLIT.images - 127.5 + found) > 127.5
    assert outside.any(), "only what is shown to the surrogate is clipped to the image's range, not the noise"


@pytest.mark.usefixtures("in_float64")
def test_class_wise_noise_is_that_of_the_published_rounds() -> None:
    method = class_wise(num_steps=2, step_size=3.2)
    plain, rounds = Plain(method), ClassWise(method, SPLIT, make_context())
    notes = rounds.run()

    plan = ClassWise(method, SPLIT, make_context())  # for the order of the images only
    subset = torch.from_numpy(plan._subset)
    assert len(subset) == 72
    size, count = plan._batches(len(subset))
    assert (size, count) == (32, 2), "the smaller last batch is dropped"
    deltas = torch.zeros(NUM_CLASSES, *plain.images.shape[1:])
    for number, line in enumerate(notes["trace"]):
        losses = []
        for step in range(number * method.steps_per_round, (number + 1) * method.steps_per_round):
            rows = plan.model_rows(step)
            losses.append(plain.train_on(rows, deltas[plain.labels[rows]]))
        order = plan.shuffled(plan._subset_keys, "noise order", number)
        for part in range(count):
            rows = subset[order[part * size : (part + 1) * size]]
            labels = plain.labels[rows]
            moved = plain.improved(rows, deltas[labels])
            for label in sorted(set(labels.tolist())):
                deltas[label] = moved[labels == label].mean(dim=0).clamp(-plain.epsilon, plain.epsilon)
        assert line["model_loss"] == pytest.approx(np.mean(losses), abs=1e-4)
        accuracy = plain.accuracy(subset, deltas[plain.labels[subset]])
        assert line["accuracy"] == pytest.approx(100 * accuracy, abs=1e-3)

    expected = (deltas * 255).permute(0, 2, 3, 1).numpy()
    found = rounds.noise.numpy() / rounds.grid.per_level
    assert np.abs(found - expected).max() < 1e-6
    assert len(np.unique(found.round(3))) > 10
    assert np.abs(found).max() > 1


@pytest.mark.usefixtures("in_float64")
def test_the_check_is_of_the_surrogate_in_evaluation_mode_on_what_was_made() -> None:
    for make, engine in ((sample_wise, SampleWise), (class_wise, ClassWise)):
        rounds = engine(make(max_rounds=1, steps_per_round=3), SPLIT, make_context())  # type: ignore[arg-type]
        (line,) = rounds.run()["trace"]
        model = build_model(SURROGATE.model, NUM_CLASSES, seed=0)
        trained = rounds.surrogate.parts()["model"]
        assert isinstance(trained, nn.Module)
        model.load_state_dict(trained.state_dict())
        rows = torch.from_numpy(rounds._subset) if isinstance(rounds, ClassWise) else torch.arange(COUNT)
        units = torch.from_numpy(SPLIT.images)[rows].float() * rounds.grid.per_level + rounds.noise_of(rows)
        with torch.no_grad():
            logits = model.eval()((units / rounds.grid.white).permute(0, 3, 1, 2))
        labels = torch.from_numpy(SPLIT.labels)[rows]
        right = int((logits.argmax(dim=1) == labels).sum())
        assert line["accuracy"] == pytest.approx(100 * right / len(rows), abs=1e-5)
        assert line["loss"] == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-3)


def test_sample_wise_batches_are_in_order_and_start_anew_with_a_smaller_one_at_the_end() -> None:
    rounds = SampleWise(sample_wise(), SPLIT, make_context())
    firsts = [(int(rows[0]), len(rows)) for rows in map(rounds.model_rows, range(7))]
    assert firsts == [(0, 32), (32, 32), (64, 26)] * 2 + [(0, 32)]
    assert rounds.model_rows(2).tolist() == list(range(64, 90))


def test_class_wise_batches_are_shuffled_anew_in_each_pass_and_the_smaller_last_one_is_dropped() -> None:
    rounds = ClassWise(class_wise(), SPLIT, make_context())
    batches = [rounds.model_rows(step).tolist() for step in range(6)]
    passes = [batches[first] + batches[first + 1] for first in (0, 2, 4)]
    assert [len(batch) for batch in batches] == [32] * 6
    assert all(len(set(rows)) == 64 for rows in passes), "no image twice in a pass"
    assert len({tuple(rows) for rows in passes}) == 3
    assert all(rows != sorted(rows) for rows in passes)
    assert [rounds.model_rows(step).tolist() for step in (5, 0)] == [batches[5], batches[0]]


def test_fewer_images_than_a_batch_are_one_smaller_batch() -> None:
    split = make_split(20)
    for make, engine in ((sample_wise, SampleWise), (class_wise, ClassWise)):
        rounds = engine(make(subset=0.5) if make is class_wise else make(), split, make_context())  # type: ignore[arg-type]
        assert [len(rounds.model_rows(step)) for step in range(3)] == [20] * 3
        assert len(rounds.chunks()) == 1
        assert rounds.run()["rounds"] == 2


def test_class_wise_noise_comes_from_a_stratified_seeded_part_of_the_images() -> None:
    rounds = ClassWise(class_wise(subset=0.2), SPLIT, make_context())
    assert np.bincount(SPLIT.labels[rounds._subset]).tolist() == [6, 6, 6]
    assert np.array_equal(rounds._subset, SPLIT.stratified_rows(0.2, Seed(0), "em_c", "subset"))
    assert not np.array_equal(rounds._subset, ClassWise(class_wise(subset=0.2), SPLIT, make_context(seed=1))._subset)


def test_images_outside_the_part_train_the_surrogate_but_leave_no_other_trace() -> None:
    method = class_wise(max_rounds=1, subset=0.2)
    part = set(ClassWise(method, SPLIT, make_context())._subset.tolist())
    frozen = ClassWise(method, SPLIT, make_context()).surrogate.frozen(Precision.FLOAT32)
    images = SPLIT.images.copy()
    images[[row for row in range(COUNT) if row not in part]] = 0
    noises = []
    for split in (SPLIT, dataclasses.replace(SPLIT, images=images)):
        rounds = ClassWise(method, split, make_context())
        rounds.improve(frozen, 0)
        noises.append(rounds.noise)
    assert noises[0].abs().sum() > 0
    assert torch.equal(*noises)


def test_every_round_takes_the_part_in_another_order() -> None:
    noises = []
    for rounds_before in (0, 1):
        rounds = ClassWise(class_wise(), SPLIT, make_context())
        rounds.trace = [{}] * rounds_before
        rounds.improve(rounds.surrogate.frozen(Precision.FLOAT32), 0)
        noises.append(rounds.noise)
    assert not torch.equal(*noises)


def test_a_class_without_images_keeps_its_noise() -> None:
    assert not layer_of(craft(class_wise(), num_classes=4)).levels[3].any()
    rounds = ClassWise(class_wise(random_start=True), SPLIT, make_context(num_classes=4))
    start = rounds.noise.clone()
    rounds.run()
    unchanged = (rounds.noise == start).flatten(1).all(dim=1)
    assert unchanged.tolist() == [False, False, False, True]
    assert start[3].any()


# --- the result ------------------------------------------------------------------------------------------------


def test_layers_have_an_entry_per_image_with_its_key_or_per_class() -> None:
    samples, classes = layer_of(craft(sample_wise(max_rounds=1))), layer_of(craft(class_wise(max_rounds=1)))
    assert (samples.support, samples.keys) == (Support.SAMPLE, SPLIT.keys)
    assert samples.levels.shape == SPLIT.images.shape
    assert (classes.support, classes.keys) == (Support.CLASS, ())
    assert classes.levels.shape == (NUM_CLASSES, *SPLIT.images.shape[1:])


@both_kinds
def test_no_image_is_changed_beyond_the_bound_under_any_rule(make: Callable[..., Method]) -> None:
    for rule in Quantize:
        for apply in Apply:
            method = make(epsilon=3, step_size=1.6, num_steps=4, quantize=rule, apply=apply)
            layer = layer_of(craft(method))
            assert layer.levels.dtype == np.int8
            assert layer.levels.max() == 3
            assert layer.levels.min() == (-3 if apply is Apply.SIGNED else 0)
            result = Perturbation(layers=(layer,), source_digest=SPLIT.digest)
            changed = result.apply(SPLIT.images, SPLIT.labels, SPLIT.keys).astype(int) - SPLIT.images
            assert np.abs(changed).max() == 3


@both_kinds
def test_rules_change_what_is_kept_of_the_noise_and_not_the_noise(make: Callable[..., Method]) -> None:
    halves: dict[str, Any] = {"step_size": 0.5, **({"subset": 0.01} if make is class_wise else {})}  # one image a class
    crafted = {(rule, apply): craft(make(quantize=rule, apply=apply, **halves)) for rule in Quantize for apply in Apply}
    reference = crafted[Quantize.TRUNC, Apply.SIGNED]
    assert all(each.notes == reference.notes for each in crafted.values())
    assert len({layer_of(each).levels.tobytes() for each in crafted.values()}) == 6
    for rule in Quantize:
        signed, positive = (layer_of(crafted[rule, apply]).levels for apply in Apply)
        assert np.array_equal(positive, np.maximum(signed, 0))


@both_kinds
def test_levels_are_the_rounded_noise(make: Callable[..., Method]) -> None:
    engine: Any = SampleWise if make is sample_wise else ClassWise
    for rule in Quantize:
        rounds = engine(make(quantize=rule, max_rounds=1), SPLIT, make_context())
        rounds.run()
        exact = rounds.noise.double().numpy() / rounds.grid.per_level
        assert np.array_equal(rounds.levels(), quantize(exact, rule))


@pytest.mark.parametrize("rows_at_once", [1, 7, 90])
def test_noise_is_converted_and_summed_up_alike_in_any_portions(
    monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    whole = craft(sample_wise())
    monkeypatch.setattr("ule_datasets.methods.engine.sign_steps.ROWS_AT_ONCE", rows_at_once)
    assert same(craft(sample_wise()), whole)


@both_kinds
def test_a_large_bound_is_kept_too_and_needs_int16(make: Callable[..., Method]) -> None:
    layer = layer_of(craft(make(epsilon=200, step_size=100, num_steps=4)))
    assert layer.levels.dtype == np.int16
    assert 128 <= np.abs(layer.levels).max() <= 200


def test_noise_beyond_127_units_is_stored_without_wrapping() -> None:
    for epsilon, dtype in ((25, torch.int8), (26, torch.int16)):  # 125 and 130 units
        rounds = SampleWise(sample_wise(epsilon=epsilon, step_size=25.8, max_rounds=1), SPLIT, make_context())
        assert rounds.noise.dtype == dtype
        rounds.run()
        assert rounds.noise.abs().max() <= 5 * epsilon
        assert layer_of(craft(rounds.method)).levels.max() >= 25


# --- it repeats ------------------------------------------------------------------------------------------------


@both_kinds
def test_it_gives_the_same_result_twice_and_another_with_another_seed(make: Callable[..., Method]) -> None:
    first = craft(make())
    assert same(craft(make()), first)
    other = craft(make(), seed=1)
    assert not np.array_equal(layer_of(other).levels, layer_of(first).levels)
    assert other.notes["trace"] != first.notes["trace"]


@pytest.mark.parametrize("images_at_once", [64, 32, 50])
def test_how_many_images_are_optimised_together_changes_nothing(images_at_once: int) -> None:
    usual = SampleWise(sample_wise(), SPLIT, make_context())
    assert len(usual.chunks()) == 1
    notes = usual.run()
    rounds = SampleWise(sample_wise(), SPLIT, make_context(), images_at_once=images_at_once)
    assert len(rounds.chunks()) == math.ceil(COUNT / images_at_once)
    assert rounds.run() == notes
    assert torch.equal(rounds.noise, usual.noise)


def test_class_wise_too_whatever_is_done_together() -> None:
    usual, rounds = (ClassWise(class_wise(), SPLIT, make_context(), images_at_once=size) for size in (None, 16))
    assert usual.run() == rounds.run()
    assert torch.equal(rounds.noise, usual.noise)


@both_kinds
def test_the_number_of_threads_changes_nothing(make: Callable[..., Method]) -> None:
    one = craft(make(steps_per_round=2, num_steps=1))
    torch.set_num_threads(2)
    two = craft(make(steps_per_round=2, num_steps=1))
    assert torch.get_num_threads() == 2
    assert same(one, two)


@both_kinds
def test_no_global_random_state_is_used_or_changed(make: Callable[..., Method]) -> None:
    reference = craft(make(random_start=True))
    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    again = craft(make(random_start=True))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]
    assert random.getstate() == before[2]
    assert same(again, reference)


def torch_settings() -> tuple[object, ...]:
    cudnn: Any = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_num_threads(),
        cudnn.benchmark,
        cudnn.conv.fp32_precision,
        torch.backends.cuda.matmul.fp32_precision,
    )


@both_kinds
def test_torch_is_left_as_it_was_even_when_the_work_is_interrupted(make: Callable[..., Method]) -> None:
    before = torch_settings()
    craft(make(max_rounds=1, precision=Precision.TF32))
    assert torch_settings() == before
    with pytest.raises(KeyboardInterrupt):
        craft(make(), checkpoint=Stopping(MemoryCheckpoint(), at=2, saved=True))
    assert torch_settings() == before


@both_kinds
@pytest.mark.parametrize(("precision", "products"), [(Precision.FLOAT32, "ieee"), (Precision.TF32, "tf32")])
def test_the_work_is_deterministic_and_in_the_precision_asked_for(
    make: Callable[..., Method], precision: Precision, products: str
) -> None:
    seen: list[tuple[object, ...]] = []

    class Watching(Listening):
        def say(self, text: str) -> None:
            seen.append(torch_settings())

    context = dataclasses.replace(make_context(), reporter=Watching(None, None))
    make(precision=precision).generate(SPLIT, context)
    assert set(seen) == {(True, False, 1, False, products, products)}


@both_kinds
def test_bfloat16_leads_to_other_noise_that_is_much_the_same(make: Callable[..., Method]) -> None:
    exact, coarse = (layer_of(craft(make(max_rounds=1, precision=p))).levels for p in list(Precision)[::2])
    assert 0.5 < np.mean(exact == coarse) < 1


def test_the_clean_images_are_not_changed() -> None:
    split = make_split()
    craft(sample_wise(), split)
    craft(class_wise(), split)
    assert np.array_equal(split.images, SPLIT.images)


# --- interruption ----------------------------------------------------------------------------------------------


def interrupted_everywhere(
    run: Callable[[Checkpoint], Crafted], new: Callable[[str], Checkpoint], *, saved: bool
) -> tuple[int, list[int]]:
    """Interrupt a craft at its first save, at its second, ... and resume it each time.

    Returns:
        How many saves there are, and those after which the result was another one.
    """
    reference, wrong = run(new("reference")), []
    at = 0
    while True:
        at += 1
        inner = new(f"{at}")
        try:
            run(Stopping(inner, at=at, saved=saved))
        except KeyboardInterrupt:
            if not same(run(inner), reference):
                wrong.append(at)
        else:
            return at - 1, wrong


def small_chunks(make: Callable[..., Method], checkpoint: Checkpoint) -> Crafted:
    """A craft of two rounds with three parts (sample-wise) or two (class-wise)."""
    rounds: SampleWise | ClassWise
    if make is sample_wise:
        rounds = SampleWise(sample_wise(), SPLIT, make_context(checkpoint=checkpoint), images_at_once=32)
        keys: tuple[str, ...] = SPLIT.keys
    else:
        rounds, keys = ClassWise(class_wise(), SPLIT, make_context(checkpoint=checkpoint)), ()
    notes = rounds.run()
    support = Support.SAMPLE if keys else Support.CLASS
    return Crafted(layers=(Additive(levels=rounds.levels(), support=support, keys=keys),), notes=notes)


@both_kinds
@pytest.mark.parametrize(
    ("every_chunk", "saved"),
    [(True, True), (True, False), (False, True)],
    ids=["every-chunk-after-saving", "every-chunk-before-saving", "every-phase-after-saving"],
)
def test_interrupted_at_any_checkpoint_and_resumed_the_result_is_the_same(
    make: Callable[..., Method], every_chunk: bool, saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if every_chunk:
        monkeypatch.setattr(stepwise, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    saves, wrong = interrupted_everywhere(
        lambda checkpoint: small_chunks(make, checkpoint),
        lambda name: FileCheckpoint(tmp_path / f"{name}.safetensors", "this craft"),
        saved=saved,
    )
    parts = 3 if make is sample_wise else 2
    assert saves == 2 * (2 + (4 + parts if every_chunk else 0)), (
        "after each step, the model phase, each part, the check"
    )
    assert wrong == []


@both_kinds
def test_a_craft_interrupted_and_called_again_in_the_same_process_gives_the_same_result(
    make: Callable[..., Method], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepwise, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    saves, wrong = interrupted_everywhere(
        lambda checkpoint: small_chunks(make, checkpoint), lambda name: MemoryCheckpoint(), saved=False
    )
    assert saves > 4
    assert wrong == []


@both_kinds
@pytest.mark.parametrize(("before", "after"), [(16, 64), (64, 16)])
def test_a_craft_resumed_where_other_numbers_of_images_are_optimised_together_has_the_same_result(
    make: Callable[..., Method], before: int, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepwise, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    engine: Any = SampleWise if make is sample_wise else ClassWise
    checkpoint = FileCheckpoint(tmp_path / "state.safetensors", "this craft")
    stopping = Stopping(checkpoint, at=6, saved=True)  # within the first noise phase
    with pytest.raises(KeyboardInterrupt):
        engine(make(), SPLIT, make_context(checkpoint=stopping), images_at_once=before).run()
    resumed = engine(make(), SPLIT, make_context(checkpoint=checkpoint), images_at_once=after)
    notes = resumed.run()
    whole = engine(make(), SPLIT, make_context())
    assert notes == whole.run()
    assert torch.equal(resumed.noise, whole.noise)


@both_kinds
def test_interrupted_again_and_again_it_still_ends_with_the_same_result(
    make: Callable[..., Method], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepwise, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    inner = FileCheckpoint(tmp_path / "state.safetensors", "this craft")
    for _ in range(18 if make is sample_wise else 16):
        with pytest.raises(KeyboardInterrupt):
            small_chunks(make, Stopping(inner, at=1, saved=True))
    last = Stopping(inner, at=99, saved=True)
    assert same(small_chunks(make, last), small_chunks(make, MemoryCheckpoint()))
    assert last.count == 0, "all was done"


class Counting(MemoryCheckpoint):
    saves = 0

    def save(self, state: State) -> None:
        self.saves += 1
        super().save(state)


@both_kinds
def test_a_finished_craft_is_not_worked_on_again(make: Callable[..., Method]) -> None:
    checkpoint, said, warnings = Counting(), list[str](), list[str]()
    first = craft(make(), checkpoint=checkpoint)
    saves = checkpoint.saves
    again = craft(make(), checkpoint=checkpoint, said=said, warnings=warnings)
    assert saves == 4
    assert checkpoint.saves == saves
    assert same(first, again)
    assert said == [], "neither an estimate nor a round"


def interrupted_elsewhere(method: Method, path: Path, *, at: int) -> FileCheckpoint:
    """The state of a craft that another machine began."""
    checkpoint = FileCheckpoint(path, "this craft")
    with pytest.raises(KeyboardInterrupt):
        craft(method, checkpoint=Stopping(checkpoint, at=at, saved=True))
    state = checkpoint.load()
    assert state is not None
    (here,) = state.facts["environments"]
    facts = {**state.facts, "environments": [{**here, "device": "Abacus 3000"}]}
    checkpoint.save(State(arrays=state.arrays, facts=facts))
    return checkpoint


@both_kinds
def test_a_craft_begun_elsewhere_says_so_and_names_both_environments(
    make: Callable[..., Method], tmp_path: Path
) -> None:
    (here,) = craft(make()).notes["environments"]
    assert here["torch"] == torch.__version__
    warnings: list[str] = []
    checkpoint = interrupted_elsewhere(make(max_rounds=3), tmp_path / "state", at=2)
    crafted = craft(make(max_rounds=3), checkpoint=checkpoint, warnings=warnings)
    assert crafted.notes["environments"] == [{**here, "device": "Abacus 3000"}, here]
    assert len(warnings) == 2
    assert "begun elsewhere or with other versions (device Abacus 3000" in warnings[0]
    assert "stop rule" in warnings[1]


def test_a_craft_that_goes_to_and_fro_names_every_environment_in_turn(tmp_path: Path) -> None:
    method = sample_wise(max_rounds=3)
    checkpoint = interrupted_elsewhere(method, tmp_path / "state", at=1)
    with pytest.raises(KeyboardInterrupt):
        craft(method, checkpoint=Stopping(checkpoint, at=1, saved=True))
    with pytest.raises(KeyboardInterrupt):
        craft(method, checkpoint=Stopping(checkpoint, at=1, saved=True))
    state = checkpoint.load()
    assert state is not None
    there, here = state.facts["environments"]
    checkpoint.save(State(arrays=state.arrays, facts={**state.facts, "environments": [there, here, there]}))
    assert craft(method, checkpoint=checkpoint).notes["environments"] == [there, here, there, here]


def test_a_craft_finished_elsewhere_is_taken_as_it_is(tmp_path: Path) -> None:
    checkpoint = interrupted_elsewhere(sample_wise(), tmp_path / "state", at=4)
    warnings: list[str] = []
    notes = craft(sample_wise(), checkpoint=checkpoint, warnings=warnings).notes
    assert [each["device"] for each in notes["environments"]] == ["Abacus 3000"]
    assert not any("elsewhere" in warning for warning in warnings)


# --- when it ends ----------------------------------------------------------------------------------------------


@both_kinds
def test_rounds_end_at_the_accuracy_asked_for(make: Callable[..., Method]) -> None:
    trace = craft(make(max_rounds=5)).notes["trace"]
    accuracies = [line["accuracy"] / 100 for line in trace]
    assert len(accuracies) == 5
    threshold = accuracies[0]
    for rule in StopRule:
        expected = next((n for n, a in enumerate(accuracies, 1) if rule.reached(a, threshold)), None)
        warnings: list[str] = []
        method = make(max_rounds=5, stop_accuracy=threshold, stop_rule=rule)
        notes = craft(method, warnings=warnings).notes
        assert notes["rounds"] == (expected or 5)
        assert (notes["rounds"] == 1) is (rule is StopRule.AT_LEAST), "at equality"
        assert notes["stop_rule_met"] is (expected is not None)
        assert notes["trace"] == trace[: notes["rounds"]]
        assert len(warnings) == (expected is None)


@pytest.fixture(scope="module")
def minimal() -> SampleWise:
    return SampleWise(sample_wise(), make_split(8), make_context())


def ended(rounds: SampleWise, right: Tensor, threshold: float, rule: StopRule) -> bool:
    """Whether a round with these answers would be the last."""
    rounds.method = dataclasses.replace(rounds.method, stop_accuracy=threshold, stop_rule=rule)
    rounds.trace = []
    rounds.trace.append(rounds._record(rounds._accuracy(right), 0.0))
    return rounds._reached()


@settings(max_examples=100, deadline=None)
@given(percent=st.integers(1, 99), hundreds=st.sampled_from([1, 2, 10, 500]))
def test_equality_is_exact_whatever_the_number_of_images(minimal: SampleWise, percent: int, hundreds: int) -> None:
    threshold, count = percent / 100, percent * hundreds
    for more, at_least, above in ((-1, False, False), (0, True, False), (1, True, True)):
        right = torch.arange(100 * hundreds) < count + more
        assert ended(minimal, right, threshold, StopRule.AT_LEAST) is at_least
        assert ended(minimal, right, threshold, StopRule.ABOVE) is above


def test_accuracy_is_averaged_over_images_or_over_batches_of_different_size() -> None:
    right = torch.ones(COUNT, dtype=torch.bool)
    right[64 : 64 + 13] = False  # half of the last batch, of 26
    averages = {}
    for average in ErrorAverage:
        averages[average] = SampleWise(sample_wise(error_average=average), SPLIT, make_context())._accuracy(right)
    assert averages[ErrorAverage.IMAGES] == pytest.approx(1 - 13 / 90)
    assert averages[ErrorAverage.BATCHES] == pytest.approx((1 + 1 + 1 / 2) / 3)


def test_the_average_over_batches_reaches_the_trace() -> None:
    over_images = craft(sample_wise()).notes["trace"]
    over_batches = craft(sample_wise(error_average=ErrorAverage.BATCHES)).notes["trace"]
    assert [line["model_loss"] for line in over_images] == [line["model_loss"] for line in over_batches]
    assert [line["accuracy"] for line in over_images] != [line["accuracy"] for line in over_batches]


@both_kinds
def test_the_last_round_allowed_is_warned_of_and_noted(make: Callable[..., Method]) -> None:
    warnings: list[str] = []
    method = make(max_rounds=3)
    notes = craft(method, warnings=warnings).notes
    assert (notes["rounds"], notes["stop_rule_met"]) == (3, False)
    (warning,) = warnings
    last = notes["trace"][-1]["accuracy"]
    assert warning.startswith(f"{method.title}: after 3 rounds the surrogate's accuracy is {last:.2f} %")
    assert "the stop rule (100 %) is not met" in warning


@both_kinds
def test_a_loss_that_is_not_finite_is_an_error(make: Callable[..., Method]) -> None:
    wild = dataclasses.replace(SURROGATE, learning_rate=1e30, gradient_clip=1e30)
    with pytest.raises(InputError, match="loss is not finite in round 1; a smaller learning_rate"):
        craft(make(surrogate=wild))


def test_noise_makes_images_easier_for_the_surrogate() -> None:
    labels = np.random.default_rng(0).permutation(SPLIT.labels)  # nothing to learn from the clean images
    split = dataclasses.replace(SPLIT, labels=labels)
    method = sample_wise(stop_accuracy=0.9, stop_rule=StopRule.AT_LEAST, max_rounds=60, num_steps=5)
    notes = craft(method, split).notes
    assert notes["stop_rule_met"]
    assert notes["trace"][0]["accuracy"] < 80
    assert notes["trace"][-1]["accuracy"] >= 90
    assert notes["trace"][-1]["model_loss"] < notes["trace"][0]["model_loss"] / 2


# --- where it starts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [8, 127, 128, 255])
def test_a_random_start_is_uniform_over_the_bound_both_ends_included(epsilon: int) -> None:
    method = sample_wise(epsilon=epsilon, step_size=1, random_start=True)
    noise = SampleWise(method, SPLIT, make_context()).start()
    counts = np.bincount((noise.numpy().astype(int) + epsilon).ravel(), minlength=2 * epsilon + 1)
    assert len(counts) == 2 * epsilon + 1
    mean = noise.numel() / len(counts)
    assert np.all(np.abs(counts - mean) < 6 * math.sqrt(mean)), "six standard deviations"


def test_a_class_wise_random_start_is_uniform_between_the_bounds() -> None:
    noise = ClassWise(class_wise(random_start=True), SPLIT, make_context()).start()
    assert noise.shape == (NUM_CLASSES, 16, 16, 3)
    shares = (noise.numpy() / 40 + 1) / 2
    assert (shares >= 0).all()
    assert (shares <= 1).all()
    counts = np.histogram(shares, bins=8, range=(0, 1))[0]
    assert np.all(np.abs(counts - shares.size / 8) < 6 * math.sqrt(shares.size / 8))


@both_kinds
def test_a_random_start_is_seeded_and_used(make: Callable[..., Method]) -> None:
    engine: Any = SampleWise if make is sample_wise else ClassWise
    starts = [engine(make(random_start=True), SPLIT, make_context(seed=seed)).start() for seed in (0, 0, 1)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert not engine(make(), SPLIT, make_context()).start().any()
    first, second = (craft(make(random_start=start, max_rounds=1)) for start in (False, True))
    assert first.notes["trace"][0]["model_loss"] != second.notes["trace"][0]["model_loss"]
    assert not np.array_equal(layer_of(first).levels, layer_of(second).levels)


# --- what is told ----------------------------------------------------------------------------------------------


@both_kinds
def test_the_trace_holds_every_round_and_is_strict_json(make: Callable[..., Method]) -> None:
    notes = craft(make(max_rounds=3)).notes
    assert json.loads(json.dumps(notes, allow_nan=False)) == notes
    assert [line["round"] for line in notes["trace"]] == [1, 2, 3]
    for line in notes["trace"]:
        assert set(line) == {"round", "model_loss", "model_accuracy", "loss", "accuracy", "mean_abs", "l2", "at_bound"}
        assert line["model_loss"] > 0
        assert 0 <= line["model_accuracy"] <= 100
        assert 0 <= line["accuracy"] <= 100
        assert 0 < line["mean_abs"] <= 8
    means = [line["mean_abs"] for line in notes["trace"]]
    assert means == sorted(means), "the noise grows in the first rounds"


@both_kinds
def test_the_sizes_in_the_trace_are_those_of_the_noise(make: Callable[..., Method]) -> None:
    engine: Any = SampleWise if make is sample_wise else ClassWise
    rounds = engine(make(epsilon=2, step_size=0.8), SPLIT, make_context())
    last = rounds.run()["trace"][-1]
    noise = rounds.noise.double().numpy() / rounds.grid.per_level
    assert last["mean_abs"] == pytest.approx(np.abs(noise).mean(), abs=1e-4)
    assert last["l2"] == pytest.approx(np.linalg.norm(noise.reshape(len(noise), -1) / 255, axis=1).mean(), abs=1e-4)
    assert last["at_bound"] == pytest.approx(100 * np.mean(np.abs(noise) == 2), abs=1e-3)
    assert last["at_bound"] > 0


@both_kinds
def test_the_work_is_announced_with_an_estimate_and_every_round_is_told(make: Callable[..., Method]) -> None:
    said: list[str] = []
    craft(make(), said=said)
    assert len(said) == 3
    assert said[0].startswith(f"{make().title} on ")
    assert "a round (model " in said[0]
    assert [line.split(":")[0] for line in said[1:]] == ["round 1", "round 2"]


@both_kinds
def test_an_estimate_counts_what_is_left(make: Callable[..., Method]) -> None:
    engine: Any = SampleWise if make is sample_wise else ClassWise
    rounds = engine(make(max_rounds=50), SPLIT, make_context())
    usual = engine.usual_rounds
    assert rounds.estimate().rounds == usual
    assert rounds.estimate().text.endswith(f"if it takes {usual} rounds")
    rounds.trace = [{}] * (usual - 3)
    assert rounds.estimate().rounds == 3
    assert rounds.estimate().text.endswith("if it takes 3 more rounds")
    rounds.trace = [{}] * (usual + 5)
    assert rounds.estimate().rounds == 1, "at least one, for nobody knows"
    assert rounds.estimate().text.endswith("if it takes 1 more round")
    assert engine(make(max_rounds=2), SPLIT, make_context()).estimate().rounds == 2


# --- settings --------------------------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_steps", 0, "num_steps is 0, must be at least 1"),
        ("steps_per_round", 0, "steps_per_round is 0, must be at least 1"),
        ("max_rounds", -1, "max_rounds is -1, must be at least 1"),
        ("stop_accuracy", 0, r"stop_accuracy is 0, not in \(0, 1\]"),
        ("stop_accuracy", 99, r"stop_accuracy is 99, not in \(0, 1\]"),
        ("epsilon", 0, "epsilon 0 and step_size 0.8"),
        ("epsilon", 8 / 255, "epsilon 0.0313"),
        ("step_size", -0.8, "step_size -0.8"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[..., Method], field: str, value: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(**{field: value})


@pytest.mark.parametrize("subset", [0, -0.1, 1.01])
def test_a_part_that_is_none_is_refused(subset: float) -> None:
    with pytest.raises(InputError, match=rf"ClasswiseErrorMinimizing: subset is {subset}, not in \(0, 1\]"):
        class_wise(subset=subset)


@both_kinds
def test_an_unknown_surrogate_is_refused(make: Callable[..., Method]) -> None:
    with pytest.raises(InputError, match="no model 'vgg'"):
        craft(make(surrogate=dataclasses.replace(SURROGATE, model="vgg")))


def test_defaults_are_those_of_the_paper_for_cifar10() -> None:
    samples, classes = ErrorMinimizing(), ClasswiseErrorMinimizing()
    for method in (samples, classes):
        assert (method.epsilon, method.step_size, method.steps_per_round, method.stop_accuracy) == (8, 0.8, 10, 0.99)
        assert (method.stop_rule, method.apply, method.quantize) == (StopRule.AT_LEAST, Apply.SIGNED, Quantize.TRUNC)
        assert (method.surrogate, method.precision) == (SurrogateSettings(), Precision.FLOAT32)
        assert not method.random_start
    assert (samples.num_steps, classes.num_steps, classes.subset) == (20, 1, 0.2)


@pytest.mark.gpu
@both_kinds
def test_a_gpu_repeats_itself(make: Callable[..., Method]) -> None:
    contexts = [dataclasses.replace(make_context(), device="cuda") for _ in range(2)]
    first, second = (make().generate(SPLIT, context) for context in contexts)
    assert same(first, second)
