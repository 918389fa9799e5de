"""One contract for every countermeasure; a new one is held to it by being in the table."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pkgutil
import re
import shutil
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from made_up import Noisy
from torch import Tensor

import cards
from ule_datasets import countermeasures
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.countermeasures import COUNTERMEASURES, parse_strategy
from ule_datasets.models.architectures import build_model
from ule_datasets.victims import preparation
from ule_datasets.victims.augmentation import to_float
from ule_datasets.victims.preparation import PieceFiles, Preparation
from ule_datasets.victims.strategy import Countermeasure, EachImage, Progress

pytestmark = pytest.mark.usefixtures("one_thread")

HOOKS = ("prepare", "learn", "on_levels", "on_bytes", "on_floats", "attack", "mix")
IN_TRAINING = HOOKS[2:]
SHAPES = ((1, 8, 8), (2, 8, 13), (5, 32, 32), (3, 64, 64))
"""Images, rows, columns."""

every = pytest.mark.parametrize("kind", COUNTERMEASURES, ids=lambda kind: kind.word)


def example(kind: type[Countermeasure], **values: Any) -> Countermeasure:
    """One with its default values, and 1 for options without any."""
    needed = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    return kind(**{**{name: hints[name](1) for name in needed}, **values})


def has(kind: type[Countermeasure], hook: str) -> bool:
    return getattr(kind, hook) is not getattr(Countermeasure, hook)


def batch(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 3


@every
def test_it_is_frozen_and_has_at_least_one_hook(kind: type[Countermeasure]) -> None:
    one = example(kind)
    assert dataclasses.is_dataclass(one)
    assert hash(one) == hash(example(kind))
    field = next(iter(dataclasses.fields(one)), None)
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        setattr(one, "word" if field is None else field.name, None)
    assert any(has(kind, hook) for hook in HOOKS)


@every
def test_it_says_what_it_is_where_it_is_from_and_what_may_be_set(kind: type[Countermeasure]) -> None:
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}("), "a docstring of its own"
    assert kind.citation in cards.citation(kind.citation)
    for option in kind.options:
        assert option.help
        assert option.field in {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        assert re.fullmatch("[a-z]*", option.key)
    with pytest.raises(InputError) as caught:
        parse_strategy("no-such-word")
    assert kind.form() in str(caught.value)


def test_every_countermeasure_of_the_room_is_in_the_table() -> None:
    modules = [f"{countermeasures.__name__}.{module.name}" for module in pkgutil.iter_modules(countermeasures.__path__)]
    classes = [kind for module in modules for kind in vars(importlib.import_module(module)).values()]
    found = {kind for kind in classes if inspect.isclass(kind) and issubclass(kind, Countermeasure)}
    shared = {Countermeasure, EachImage}  # by several, as what begins with an underscore
    found = {kind for kind in found - shared if not kind.__name__.startswith("_")}
    assert found == set(COUNTERMEASURES)


def test_words_are_unique_and_part_of_no_strategy_without_parts() -> None:
    words = [kind.word for kind in COUNTERMEASURES]
    assert len({"none", "standard", *words}) == len(words) + 2


@every
def test_its_name_in_a_strategy_gives_the_same_object_again(kind: type[Countermeasure]) -> None:
    hints = get_type_hints(kind)
    settings: list[dict[str, Any]] = [{}]
    settings += [{option.field: hints[option.field](number)} for option in kind.options for number in (1, 2, 3)]
    for values in settings:
        try:
            one = example(kind, **values)
        except InputError:
            continue
        strategy = parse_strategy(one.name)
        assert strategy.parts == (one,)
        assert strategy.name == one.name
    assert set(example(kind).name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


@every
def test_options_that_cannot_be_are_refused_in_one_line(kind: type[Countermeasure]) -> None:
    name = example(kind).name
    wrong = [f"{name}-zz9", f"{name}-", name.upper(), f" {name}"]
    wrong += [f"{kind.word}-{option.key}{value}" for option in kind.options for value in ("", "-1", "x", "1e3")]
    for text in wrong:
        with pytest.raises(InputError) as caught:
            parse_strategy(text)
        assert str(caught.value).startswith(f"strategy {text!r}: {text!r} is not known; ")
        assert "a strategy is none, standard" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_those_that_attack_exclude_each_other_and_so_do_those_that_mix() -> None:
    for hook in ("attack", "mix"):
        assert len({kind.place for kind in COUNTERMEASURES if has(kind, hook)}) == 1


@every
def test_there_is_one_of_it_in_a_strategy(kind: type[Countermeasure]) -> None:
    name = example(kind).name
    with pytest.raises(InputError, match=f"{name} and {name} exclude each other"):
        parse_strategy(f"{name}+{name}")


def as_given(hook: str, images: Tensor) -> Tensor:
    """Images in the form that a hook gets: bytes, whole images of levels, or floats."""
    return {"on_bytes": images, "on_levels": images.float()}.get(hook, to_float(images))


def preparation_in(folder: Path, images: Tensor | np.ndarray, **changes: Any) -> Preparation:
    height, width, channels = images.shape[1:]
    pieces = PieceFiles(folder, (height, width, channels))
    return Preparation(pieces=pieces, seed=Seed(5), reporter=Reporter(silent=True), **changes)


def applied(one: Countermeasure, hook: str, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, ...]:
    """What a hook gives; the images are bytes as they are loaded."""
    generator = torch.Generator().manual_seed(seed)
    given = as_given(hook, images)
    before, labels_before = given.clone(), labels.clone()
    if hook == "attack":
        model = build_model("convnet3-w16", 3, seed=0)
        state = copy.deepcopy(model.state_dict())
        results = (one.attack(given, labels, model, generator, Progress(epoch=1, epochs=2)),)
        assert model.training
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    elif hook == "mix":
        mixed = one.mix(given, labels, generator)
        results = (mixed.images, mixed.labels, mixed.other_labels, mixed.weight)
    elif hook == "on_levels":
        learned = torch.from_numpy(one.learn(images.numpy(), labels.numpy(), preparation_in(Path("nowhere"), images)))
        results = (one.on_levels(given, torch.arange(len(given)), learned),)
    else:
        results = (getattr(one, hook)(given, generator),)
    assert torch.equal(given, before), "what it is given stays as it is"
    assert torch.equal(labels, labels_before)
    return results


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("kind", "hook"),
    [(kind, hook) for kind in COUNTERMEASURES for hook in IN_TRAINING if has(kind, hook)],
    ids=lambda value: value if isinstance(value, str) else value.word,
)
def test_a_hook_keeps_shape_type_and_range_and_repeats(
    kind: type[Countermeasure], hook: str, shape: tuple[int, int, int]
) -> None:
    one, (images, labels), state = example(kind), batch(*shape), torch.get_rng_state()
    first, again = (applied(one, hook, images, labels, 1) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(torch.get_rng_state(), state), "it draws from its own generator"
    given = as_given(hook, images)
    result = first[0]
    assert (result.shape, result.dtype) == (given.shape, given.dtype)
    assert not result.requires_grad
    assert bool(torch.isfinite(result).all())
    if hook not in ("on_bytes", "on_levels"):
        assert result.is_contiguous(memory_format=torch.channels_last)
        assert 0 <= float(result.min()) <= float(result.max()) <= 1
    if hook == "mix":
        _, own, others, weight = first
        assert torch.equal(own, labels)
        assert (others.shape, others.dtype) == (labels.shape, labels.dtype)
        assert weight.dtype is torch.float32
        assert weight.shape in ((), (len(labels),))
        assert bool(((weight >= 0) & (weight <= 1)).all())


@every
def test_only_attacks_cost_passes_of_the_model(kind: type[Countermeasure]) -> None:
    passes = example(kind).passes
    assert passes >= 0
    assert passes == 0 or has(kind, "attack")


@every
def test_hooks_that_it_does_not_have_leave_everything_alone(kind: type[Countermeasure]) -> None:
    one, (images, labels) = example(kind), batch(3, 8, 8)
    for hook in IN_TRAINING:
        if not has(kind, hook):
            assert torch.equal(applied(one, hook, images, labels, 0)[0], as_given(hook, images))


preparing = pytest.mark.parametrize(
    "kind", [kind for kind in (*COUNTERMEASURES, Noisy) if has(kind, "prepare")], ids=lambda kind: kind.word
)


def prepared(kind: type[Countermeasure], images: np.ndarray, folder: Path, *, workers: int = 1) -> np.ndarray:
    labels = np.arange(len(images)) % 3
    before = images.copy()
    with LocalExecutor(workers) as executor:
        context = preparation_in(folder, images, executor=executor)
        result = np.asarray(example(kind).prepare(images, labels, context))
    assert np.array_equal(images, before), "what it is given stays as it is"
    assert (result.shape, result.dtype) == (images.shape, np.dtype(np.uint8))
    return result


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@preparing
def test_a_prepared_training_set_repeats(
    kind: type[Countermeasure], shape: tuple[int, int, int], tmp_path: Path
) -> None:
    images = batch(*shape)[0].numpy()
    assert np.array_equal(prepared(kind, images, tmp_path / "a"), prepared(kind, images, tmp_path / "b"))


@preparing
def test_its_preparation_is_the_same_with_any_workers_and_resumed_anywhere(
    kind: type[Countermeasure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "PIECE_BYTES", 4 * 3 * 8 * 8)
    images = batch(14, 8, 8)[0].numpy()
    alone = prepared(kind, images, tmp_path / "one")
    assert np.array_equal(prepared(kind, images, tmp_path / "two", workers=2), alone)
    pieces = sorted((tmp_path / "one").iterdir())
    for number in range(len(pieces) + 1):
        folder = tmp_path / f"interrupted-{number}"
        folder.mkdir()
        for piece in pieces[:number]:
            shutil.copy(piece, folder)
        assert np.array_equal(prepared(kind, images, folder), alone)


learning = pytest.mark.parametrize(
    "kind", [kind for kind in COUNTERMEASURES if has(kind, "learn")], ids=lambda kind: kind.word
)


def learned(kind: type[Countermeasure], images: np.ndarray, folder: Path, *, workers: int = 1) -> np.ndarray:
    labels = np.arange(len(images)) % 3
    before = images.copy()
    with LocalExecutor(workers) as executor:
        result = example(kind).learn(images, labels, preparation_in(folder, images, executor=executor))
    assert np.array_equal(images, before), "what it is given stays as it is"
    assert np.isfinite(result).all()
    return result


@learning
def test_what_it_learns_is_used_and_shown_as_it_says(kind: type[Countermeasure], tmp_path: Path) -> None:
    assert has(kind, "on_levels")
    for shape in SHAPES:
        images = batch(*shape)[0].numpy()
        result = learned(kind, images, tmp_path)
        if kind.shows:
            assert (result.shape, result.dtype) == ((min(3, shape[0]), *images.shape[1:]), np.dtype(np.float32))
            assert kind.shows[0].islower(), "it follows a name and a colon"


@learning
def test_it_learns_the_same_with_any_workers_threads_and_leftovers(
    kind: type[Countermeasure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "PIECE_BYTES", 4 * 3 * 8 * 8)
    images = batch(14, 8, 8)[0].numpy()
    alone = learned(kind, images, tmp_path / "one")
    assert np.array_equal(learned(kind, images, tmp_path / "one"), alone)
    assert np.array_equal(learned(kind, images, tmp_path / "two", workers=2), alone)
    torch.set_num_threads(2)  # the fixture restores it
    assert np.array_equal(learned(kind, images, tmp_path / "three"), alone)
