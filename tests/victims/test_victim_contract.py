"""One contract for every victim; a new one is held to it by being in the table."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Pausing, StoppedError
from made_up import CPU, bright_or_dark, make_profile, training_set
from tiny_weights import save_tiny_weights
from torch import nn

from ule_datasets.base.checkpoint import MemoryCheckpoint
from ule_datasets.base.errors import InputError
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.experiments.identity import PACKAGE, used_modules
from ule_datasets.victims.data import TrainingSet
from ule_datasets.victims.history import EpochRecord, RunHistory
from ule_datasets.victims.table import VICTIMS
from ule_datasets.victims.victim import Victim

pytestmark = pytest.mark.usefixtures("one_thread")

EFFORT = make_profile(fine_tuning_epochs=2)
STANDARD = parse_strategy("standard")
SIZES = (32, 224)
"""Every victim takes images of one of these."""
KINDS = sorted({type(victim) for victim in VICTIMS.values()}, key=lambda kind: kind.__name__)

every = pytest.mark.parametrize("name", VICTIMS)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def described(size: int, count: int = 500) -> TrainingSet:
    """Data of which no image is needed."""
    known = dataclasses.replace(training_set(bright_or_dark(8)), num_train=count, num_test=100, num_classes=10)
    return dataclasses.replace(known, image_size=size)


def work(victim: Victim, epochs: int, strategy: str = "standard") -> float:
    protocol = dataclasses.replace(victim.protocol(EFFORT, parse_strategy(strategy)), epochs=epochs)
    for size in SIZES[:-1]:
        try:
            return victim.flop(described(size), protocol)
        except InputError:
            continue
    return victim.flop(described(SIZES[-1]), protocol)


# Every row


@every
def test_a_victim_is_frozen_and_known_by_its_own_name(name: str) -> None:
    victim = VICTIMS[name]
    assert victim.name == victim.protocol(EFFORT, STANDARD).model == name
    assert dataclasses.is_dataclass(victim)
    assert type(victim).__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(victim)) == victim
    assert hash(victim) == hash(pickle.loads(pickle.dumps(victim)))


@every
def test_a_protocol_is_the_strategy_under_the_effort(name: str) -> None:
    for strategy in (STANDARD, parse_strategy("linf-at+mixup")):
        protocol = VICTIMS[name].protocol(EFFORT, strategy, compiled=True)
        assert (protocol.strategy, protocol.precision, protocol.compiled) == (strategy, EFFORT.precision, True)
        assert protocol.start == "", "whoever has the file knows its digest"


@every
def test_work_is_positive_and_grows_with_epochs_and_attacks(name: str) -> None:
    victim = VICTIMS[name]
    once = work(victim, 1)
    assert once > 0
    assert work(victim, 7) == pytest.approx(7 * once)
    assert work(victim, 1, "linf-at") > once


# Every kind, in small


@every_kind
def test_a_kind_says_what_it_is_and_where_it_is_from(kind: type[Victim]) -> None:
    assert inspect.getdoc(kind)
    assert inspect.getdoc(sys.modules[kind.__module__])
    source = kind.source
    assert any(year in source for year in map(str, range(2012, 2030))), "the year of the publication"
    assert source.partition(" ")[0] in str(inspect.getdoc(kind)), "its first author is named where people read"


@pytest.fixture
def small(kind: type[Victim], tmp_path: Path) -> tuple[Victim, Path | None]:
    """The cheapest victim of a kind, with the file that it starts from."""
    rows = [victim for victim in VICTIMS.values() if type(victim) is kind]
    cheapest = min(rows, key=lambda victim: work(victim, 1))
    if cheapest.weights is None:
        return cheapest, None
    weights, path = save_tiny_weights(tmp_path / "weights")
    return dataclasses.replace(cheapest, weights=weights), path  # type: ignore[type-var]


def trained(small: tuple[Victim, Path | None], seed: int = 0, strategy: str = "standard", **more: Any) -> RunHistory:
    victim, start = small
    protocol = dataclasses.replace(victim.protocol(EFFORT, parse_strategy(strategy)), batch_size=16)
    options: dict[str, Any] = {"device": CPU, "on_epoch": lambda record: None, "start": start, **more}
    return victim.train(bright_or_dark(48, size=32), protocol, seed=seed, **options)


@every_kind
def test_the_seed_decides_everything(small: tuple[Victim, Path | None]) -> None:
    torch.manual_seed(1)
    before, seen = torch.get_rng_state(), list[EpochRecord]()
    first = trained(small, seed=3, strategy="mixup", on_epoch=seen.append)
    assert torch.equal(torch.get_rng_state(), before), "torch's own random state is left alone"
    torch.manual_seed(2)
    assert trained(small, seed=3, strategy="mixup") == first
    assert trained(small, seed=4, strategy="mixup").epochs != first.epochs
    assert tuple(seen) == first.epochs
    assert len(seen) == first.protocol.epochs
    assert RunHistory.from_json(first.to_json(), first.protocol) == first


@every_kind
def test_kept_weights_are_those_of_the_model(small: tuple[Victim, Path | None], tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    history = trained(small, weights=path)
    victim, start = small
    model = victim.model(history.protocol, 2, seed=9, start=start if victim.weights is not None else path)
    if victim.weights is None:
        data = bright_or_dark(48, size=32)
        answers = model.eval()(torch.from_numpy(data.test_images).permute(0, 3, 1, 2) / 255).argmax(dim=1)
        right = (answers == torch.from_numpy(data.test_labels)).double().mean()
        assert 100 * float(right) == pytest.approx(history.last.test_accuracy)
    assert sum(parameter.numel() for parameter in model.parameters()) == history.num_parameters


@every_kind
def test_it_is_resumed_to_the_same_bits(small: tuple[Victim, Path | None], tmp_path: Path) -> None:
    """Between steps, and between epochs; the weights, too."""
    whole, kept = trained(small, weights=tmp_path / "whole"), tmp_path / "kept"
    asking = Pausing(MemoryCheckpoint())
    trained(small, keeper=asking)
    assert asking.asked > len(whole.epochs), "between steps"
    for moment in range(1, asking.asked + 1, 2):
        inner = MemoryCheckpoint()
        with pytest.raises(StoppedError):
            trained(small, keeper=Pausing(inner, moment), weights=kept)
        assert not kept.exists()
        assert trained(small, keeper=Pausing(inner), weights=kept) == whole
        assert kept.read_bytes() == (tmp_path / "whole").read_bytes()
        kept.unlink()


@every_kind
def test_time_is_told_before(small: tuple[Victim, Path | None]) -> None:
    victim, start = small
    protocol = victim.protocol(EFFORT, STANDARD)
    assert 0 < victim.seconds(bright_or_dark(48, size=32), protocol, device=CPU, start=start) < 60


@every_kind
def test_a_file_that_is_not_its_weights_is_refused_in_one_line(
    small: tuple[Victim, Path | None], tmp_path: Path
) -> None:
    (tmp_path / "other.pt").write_bytes(b"nothing of the kind")
    for start in (tmp_path / "other.pt", tmp_path / "nowhere.pt"):
        with pytest.raises(InputError) as caught:
            trained(small, start=start)
        assert "\n" not in str(caught.value)
    if small[0].weights is not None:
        with pytest.raises(InputError, match="starts from trained weights, and their file is not given"):
            trained(small, start=None)


@every_kind
def test_all_code_that_makes_its_model_is_in_the_identity_of_its_runs(small: tuple[Victim, Path | None]) -> None:
    victim, start = small
    model: nn.Module = victim.model(victim.protocol(EFFORT, STANDARD), 2, seed=0, start=start)
    made_of = {type(module).__module__ for module in model.modules()}
    used = used_modules(victim)
    assert {module for module in made_of if module.partition(".")[0] == PACKAGE} <= used
    assert type(victim).__module__ in used
