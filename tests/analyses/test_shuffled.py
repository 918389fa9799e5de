"""Moved perturbations against a reference that works on one value at a time, and what models make of them."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ule_datasets.analyses.shuffled import (
    EvaluationSet,
    Reading,
    ShuffledCell,
    evaluate,
    overwritten_pixels,
    shuffled,
    table_of_shuffles,
)
from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.data.perturbation import NOWHERE, Additive, Overwrite, Perturbation, Support
from ule_datasets.models.architectures import build_model
from ule_datasets.models.states import load_weights
from ule_datasets.sources import digits
from ule_datasets.victims.data import TrainingData
from ule_datasets.victims.protocol import TrainingProtocol
from ule_datasets.victims.supervised import Supervised

CPU = torch.device("cpu")
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))


def random_case(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, ...]:
    """Clean and poisoned images, labels, a permutation, overwritten pixels."""
    rng = np.random.default_rng(seed)
    clean, poisoned = rng.integers(0, 256, (2, *shape), dtype=np.uint8)
    return clean, poisoned, rng.integers(0, 10, shape[0]), rng.permutation(shape[0]), rng.random(shape[:3]) < 0.3


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, seed=st.integers(0, 2**31), reading=st.sampled_from(Reading))
def test_perturbations_are_moved_as_value_by_value(shape: tuple[int, ...], seed: int, reading: Reading) -> None:
    clean, poisoned, labels, permutation, overwritten = random_case(shape, seed)
    images, moved_labels = shuffled(clean, poisoned, labels, permutation, reading, overwritten)
    for j in range(shape[0]):
        i = int(permutation[j])
        assert moved_labels[j] == labels[i]
        for place in np.ndindex(shape[1:]):
            stamped = reading is Reading.RESTAMPED and overwritten[(i, *place[:2])]
            moved = int(clean[(j, *place)]) + int(poisoned[(i, *place)]) - int(clean[(i, *place)])
            assert images[(j, *place)] == (poisoned[(i, *place)] if stamped else min(max(moved, 0), 255))


@settings(deadline=None, max_examples=30)
@given(shape=SHAPES, seed=st.integers(0, 2**31))
def test_both_readings_agree_where_nothing_is_overwritten(shape: tuple[int, ...], seed: int) -> None:
    clean, poisoned, labels, permutation, overwritten = random_case(shape, seed)
    additive, _ = shuffled(clean, poisoned, labels, permutation, Reading.ADDITIVE, overwritten)
    for nowhere in (None, np.zeros_like(overwritten)):
        restamped, _ = shuffled(clean, poisoned, labels, permutation, Reading.RESTAMPED, nowhere)
        assert np.array_equal(restamped, additive)


def test_more_images_than_are_moved_at_once() -> None:
    clean, poisoned, labels, permutation, overwritten = random_case((2500, 1, 2, 3), 0)
    images, _ = shuffled(clean, poisoned, labels, permutation, Reading.RESTAMPED, overwritten)
    expected = np.clip(clean.astype(int) + poisoned[permutation] - clean[permutation], 0, 255)
    expected[overwritten[permutation]] = poisoned[permutation][overwritten[permutation]]
    assert np.array_equal(images, expected)


def test_the_identity_changes_nothing() -> None:
    clean, poisoned, labels, _, overwritten = random_case((5, 3, 3, 3), 1)
    for reading in Reading:
        images, same = shuffled(clean, poisoned, labels, np.arange(5), reading, overwritten)
        assert np.array_equal(images, poisoned)
        assert np.array_equal(same, labels)


def test_a_white_pixel_on_a_darker_image_is_white_only_when_stamped_again() -> None:
    clean = np.array([100, 40], dtype=np.uint8).reshape(2, 1, 1, 1).repeat(3, axis=3)
    poisoned, everywhere = np.full_like(clean, 255), np.ones((2, 1, 1), dtype=bool)
    swapped = np.array([1, 0])
    additive, _ = shuffled(clean, poisoned, np.array([0, 1]), swapped, Reading.ADDITIVE, everywhere)
    restamped, _ = shuffled(clean, poisoned, np.array([0, 1]), swapped, Reading.RESTAMPED, everywhere)
    assert additive[:, 0, 0, 0].tolist() == [255, 40 + 155]  # 100 + 215 is clipped, 40 + 155 falls short
    assert (restamped == 255).all()


def test_labels_of_shuffled_perturbations_agree_with_the_own_ones_by_chance() -> None:
    labels = np.arange(20_000) % 10
    images = np.zeros((20_000, 1, 1, 3), dtype=np.uint8)
    permutation = np.random.default_rng(0).permutation(20_000)
    _, moved = shuffled(images, images, labels, permutation, Reading.ADDITIVE, None)
    assert 100 * (moved == labels).mean() == pytest.approx(10, abs=1)
    assert np.array_equal(np.bincount(moved), np.bincount(labels))


def test_overwritten_pixels_are_those_of_overwriting_layers_of_poisoned_images() -> None:
    keys, labels = ("a", "b", "c"), np.array([1, 0, 1])
    by_class = Overwrite(
        rows=np.array([[0], [1]], dtype=np.int32),
        columns=np.array([[2], [3]], dtype=np.int32),
        colours=np.zeros((2, 1, 3), dtype=np.uint8),  # black on black: set all the same
        support=Support.CLASS,
    )
    by_sample = Overwrite(
        rows=np.array([[2, NOWHERE]], dtype=np.int32),
        columns=np.array([[0, NOWHERE]], dtype=np.int32),
        colours=np.full((1, 2, 3), 9, dtype=np.uint8),
        support=Support.SAMPLE,
        keys=("b",),
    )
    noise = Additive(levels=np.ones((1, 4, 5, 3), dtype=np.int8), support=Support.UNIVERSAL)
    perturbation = Perturbation(layers=(noise, by_class, by_sample), source_digest="", poisoned=("a", "b"))
    marks = overwritten_pixels(perturbation, labels, keys, (4, 5))
    assert marks.shape == (3, 4, 5)
    assert np.argwhere(marks).tolist() == [[0, 1, 3], [1, 0, 2], [1, 2, 0]]
    with pytest.raises(InputError, match="outside images of 4 x 3"):
        overwritten_pixels(perturbation, labels, keys, (4, 3))


def test_an_additive_perturbation_overwrites_nothing() -> None:
    noise = Additive(levels=np.ones((1, 4, 5, 3), dtype=np.int8), support=Support.UNIVERSAL)
    perturbation = Perturbation(layers=(noise,), source_digest="")
    assert not overwritten_pixels(perturbation, np.array([0, 1]), ("a", "b"), (4, 5)).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"poisoned": np.zeros((3, 2, 3, 3), np.uint8)}, "of one shape"),
        ({"clean": np.zeros((3, 2, 2, 3))}, "clean images are float64"),
        ({"labels": np.zeros(2, np.int64)}, r"labels are \[2\]; expected \[3\]"),
        ({"permutation": np.array([0, 1, 1])}, "each integer from 0 to 2 once"),
        ({"permutation": np.array([0.0, 1.0, 2.0])}, "each integer from 0 to 2 once"),
        ({"overwritten": np.zeros((3, 2, 1), bool)}, r"expected bool \[3, 2, 2\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    images = np.zeros((3, 2, 2, 3), np.uint8)
    arguments = {"clean": images, "poisoned": images, "labels": np.zeros(3, np.int64), "permutation": np.arange(3)}
    arguments |= {"overwritten": np.zeros((3, 2, 2), bool)} | change
    with pytest.raises(InputError, match=message):
        shuffled(**arguments, reading=Reading.RESTAMPED)


class BrightnessReader(nn.Module):
    """Says class 1 where the mean is above one half, through dropout that must not be active."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        mean = self.dropout(images.mean(dim=(1, 2, 3)))
        return torch.stack([torch.full_like(mean, 0.5), mean], dim=1)


def test_agreement_is_counted_over_all_batches_in_evaluation_mode() -> None:
    levels = np.random.default_rng(0).integers(0, 256, 1203)
    images = np.broadcast_to(levels.astype(np.uint8)[:, None, None, None], (1203, 2, 2, 3)).copy()
    labels = np.random.default_rng(1).integers(0, 2, 1203)
    model = BrightnessReader()
    assert evaluate(model, images, labels, CPU) == pytest.approx(100 * ((levels > 127.5) == labels).mean())
    assert model.training
    assert model.dropout.training


def test_evaluating_leaves_model_and_random_state_alone() -> None:
    model = build_model("convnet3-w16", 3, seed=0)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    evaluate(model, np.full((7, 8, 8, 3), 200, np.uint8), np.zeros(7, np.int64), CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_images_of_another_type_are_refused() -> None:
    model = BrightnessReader()
    with pytest.raises(InputError, match="expected uint8"):
        evaluate(model, np.zeros((2, 2, 2, 3), np.float32), np.zeros(2, np.int64), CPU)
    with pytest.raises(InputError, match=r"expected int64 \[2\]"):
        evaluate(model, np.zeros((2, 2, 2, 3), np.uint8), np.zeros(3, np.int64), CPU)


def dark_and_bright(count: int) -> EvaluationSet:
    """Every other image is overwritten with white, and has label 1."""
    labels = np.arange(count, dtype=np.int64) % 2
    clean = np.full((count, 1, 1, 3), 10, np.uint8)
    images = np.where(labels[:, None, None, None] == 1, np.uint8(255), clean)
    return EvaluationSet(images=images, labels=labels, clean=clean, overwritten=(labels == 1)[:, None, None])


def test_the_table_has_every_model_on_every_set() -> None:
    protected = dark_and_bright(100)
    additive = dataclasses.replace(protected, overwritten=None)
    assert protected.clean is not None
    sets = {
        "clean": EvaluationSet(images=protected.clean, labels=protected.labels),
        "em": additive,
        "ops": protected,
    }
    models = {"clean": BrightnessReader(), "ops": BrightnessReader()}
    table = table_of_shuffles(models, sets, seed=Seed(1), device=CPU)
    names = [
        ("clean", None),
        ("em", None),
        ("em shuffled", "additive"),
        ("ops", None),
        ("ops shuffled", "additive"),
        ("ops shuffled", "re-stamped"),
    ]
    assert [(cell.trained_on, cell.evaluated_on, cell.reading) for cell in table] == [
        (model, *rest) for model in models for rest in names
    ]
    assert [cell.mean for cell in table[:6]] == [50, 100, 100, 100, 100, 100]  # it reads the perturbation
    assert [len(cell.accuracies) for cell in table[:6]] == [1, 1, 5, 1, 5, 5]
    assert [cell.sd for cell in table[:6]] == [None, None, 0, None, 0, 0]
    assert json.loads(json.dumps([dataclasses.asdict(cell) for cell in table]))[5]["reading"] == "re-stamped"


def test_permutations_differ_among_each_other_and_come_from_the_seed() -> None:
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (200, 1, 1, 3), dtype=np.uint8)
    sets = {"noise": EvaluationSet(images=clean, labels=rng.integers(0, 2, 200), clean=clean)}

    def accuracies(seed: int) -> tuple[float, ...]:
        cells = table_of_shuffles({"m": BrightnessReader()}, sets, seed=Seed(seed), device=CPU)
        return cells[1].accuracies

    assert len(set(accuracies(0))) > 1
    assert accuracies(0) == accuracies(0) != accuracies(1)


# A trained model


CLASSES = 6
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 255, 255], [255, 0, 255], [255, 255, 0]], np.uint8)


def dim_digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Digits of the first classes, as many as there are corner colours that are not grey.

    At a quarter of their brightness one coloured pixel outweighs them also for a network that averages over places.
    """
    samples = [sample for sample in digits.Digits(split).samples() if sample.label < CLASSES]
    return np.stack([s.image for s in samples]) // 4, np.array([s.label for s in samples], np.int64)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_model_reads_the_shortcut_that_it_was_trained_on_and_a_clean_one_does_not(tmp_path: Path) -> None:
    images, labels = dim_digits("train")
    test_images, test_labels = dim_digits("test")
    keys = tuple(str(number) for number in range(len(labels)))
    pixel = Overwrite(
        rows=np.array([[3], [8], [13], [18], [23], [28]], np.int32),
        columns=np.array([[28], [3], [23], [8], [18], [13]], np.int32),
        colours=COLOURS[:, None],
        support=Support.CLASS,
    )
    perturbation = Perturbation(layers=(pixel,), source_digest="")
    poisoned = perturbation.apply(images, labels, keys)
    protocol = TrainingProtocol(model="convnet3-w16", epochs=6, strategy=parse_strategy("none"), batch_size=64)
    victim, models = Supervised(name="convnet3-w16"), {}
    for name, seen in (("clean", images), ("pixel", poisoned)):
        data = TrainingData(
            images=seen, labels=labels, test_images=test_images, test_labels=test_labels, num_classes=CLASSES
        )
        weights = tmp_path / f"{name}.safetensors"
        victim.train(data, protocol, seed=0, device=CPU, on_epoch=lambda record: None, weights=weights)
        models[name] = build_model("convnet3-w16", CLASSES, seed=1)
        load_weights(models[name], weights)
    sets = {
        "clean": EvaluationSet(images=images, labels=labels),
        "pixel": EvaluationSet(
            images=poisoned,
            labels=labels,
            clean=images,
            overwritten=overwritten_pixels(perturbation, labels, keys, (32, 32)),
        ),
    }
    table = table_of_shuffles(models, sets, seed=Seed(0), device=CPU)

    def mean(trained_on: str, evaluated_on: str, reading: Reading | None = None) -> float:
        (cell,) = (c for c in table if (c.trained_on, c.evaluated_on, c.reading) == (trained_on, evaluated_on, reading))
        assert isinstance(cell, ShuffledCell)
        return cell.mean

    chance = 100 / CLASSES
    assert mean("clean", "clean") > 85
    assert mean("pixel", "pixel") > 95
    assert mean("pixel", "clean") < 75
    for reading in Reading:
        assert mean("clean", "pixel shuffled", reading) == pytest.approx(chance, abs=5)
        assert mean("pixel", "pixel shuffled", reading) > chance + 40
