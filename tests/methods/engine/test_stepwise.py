"""Crafts in steps: whatever is a part is resumed to the same bits, and work for others is handed out once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers import Listening, Stopping
from torch import nn

from ule_datasets.base.checkpoint import Checkpoint, FileCheckpoint, MemoryCheckpoint, State
from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.executor import Lost
from ule_datasets.compute.parts import Part, arrays_of
from ule_datasets.compute.precision import Precision
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.bounds import Budget
from ule_datasets.data.split import Split
from ule_datasets.methods.engine import stepwise
from ule_datasets.methods.engine.stepwise import Estimate, Phase, Spread, Stepwise
from ule_datasets.methods.method import Context, Crafted, Method, Repeats

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Walking(Method):
    """A network is trained to follow random numbers, in rounds of three steps."""

    identifier: ClassVar[str] = "walking"
    title: ClassVar[str] = "Walking"
    citation: ClassVar[str] = "nobody"
    repeats: ClassVar[Repeats] = Repeats.DEVICE
    needs_labels: ClassVar[bool] = False

    optimiser: str = "sgd"
    rounds: int = 3

    @property
    def bounds(self) -> Budget:
        return ()

    def generate(self, train: Split, context: Context) -> Crafted:
        raise NotImplementedError


OPTIMISERS: dict[str, Any] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "plain sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, weight_decay=0.1),
    "fused adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, fused=True),
}


class Walk(Stepwise):
    """Convolutions in channels-last order, whose optimisers have their memory in that order too."""

    method: Walking

    def __init__(self, method: Walking, context: Context) -> None:
        super().__init__(method, context, Precision.FLOAT32)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3))
        self.network = network.to(memory_format=torch.channels_last)
        self.optimiser = OPTIMISERS[method.optimiser](self.network.parameters())
        self.total = torch.zeros((), dtype=torch.float64)
        self.ends = 0

    def parts(self) -> dict[str, Part]:
        return {"network": self.network, "network_optimiser": self.optimiser, "total": self.total}

    def facts(self) -> dict[str, Any]:
        return {"ends": self.ends}

    def restore(self, state: State) -> None:
        super().restore(state)
        self.ends = state.facts["ends"]

    def following(self) -> Phase | None:
        if self.done == self.method.rounds:
            return None
        return Phase(label="walk", unit="step", steps=range(0, 6, 2), step=self.step, end=self.end)

    def step(self, number: int) -> None:
        images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(10 * self.done + number))
        loss = self.network(images.contiguous(memory_format=torch.channels_last)).square().mean()
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.optimiser.step()
        self.total += loss.detach().double()

    def end(self) -> str:
        self.check_finite(float(self.total), "walker", "step")
        self.ends += 1
        self.trace.append({"total": float(self.total)})
        return f"round {len(self.trace)}"

    def estimate(self) -> Estimate:
        return Estimate(text="not long", seconds=3000, flop=50e12 * 180)


def walk(checkpoint: Checkpoint | None = None, *, executor: Any = None, **settings: Any) -> Walk:
    kept, workers = checkpoint or MemoryCheckpoint(), executor or LocalExecutor()
    context = Context(num_classes=2, seed=Seed(0), reporter=Listening(), checkpoint=kept, executor=workers)
    return Walk(Walking(**settings), context)


def said(craft: Stepwise) -> list[str]:
    assert isinstance(craft.context.reporter, Listening)
    return craft.context.reporter.said


def same(first: Walk, second: Walk) -> bool:
    states = [arrays_of(each.parts()) for each in (first, second)]
    alike = states[0].keys() == states[1].keys() and all(
        np.array_equal(array, states[1][name]) for name, array in states[0].items()
    )
    return alike and first.notes() == second.notes() and first.ends == second.ends


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("on_disk", [True, False])
def test_interrupted_after_any_step_and_resumed_it_comes_to_the_same_bits(
    optimiser: str, on_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepwise, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    whole = walk(optimiser=optimiser)
    whole.run()
    for at in range(1, 13):
        inner: Checkpoint = FileCheckpoint(tmp_path / f"{at}", "walk") if on_disk else MemoryCheckpoint()
        with pytest.raises(KeyboardInterrupt):
            walk(Stopping(inner, at), optimiser=optimiser).run()
        resumed = walk(inner, optimiser=optimiser)
        resumed.run()
        assert same(resumed, whole), at
        assert said(resumed)[:1] == ([f"continuing in round {1 + at // 4}"] if at < 12 else [])


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_what_the_optimiser_remembers_is_part_of_the_state(optimiser: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = MemoryCheckpoint()
    with pytest.raises(KeyboardInterrupt):
        walk(Stopping(inner, 1), optimiser=optimiser).run()
    state = inner.load()
    assert state is not None
    kept = {name: array for name, array in state.arrays.items() if not name.startswith("network_optimiser")}
    assert len(kept) < len(state.arrays)
    inner.save(State(arrays=kept, facts=state.facts))
    crafts = walk(inner, optimiser=optimiser), walk(optimiser=optimiser)
    for craft in crafts:
        craft.run()
    assert not same(*crafts)


@pytest.mark.parametrize(
    "facts", [{}, {"phase": "noise", "position": 3, "trace": [], "environments": []}, {"format": stepwise.FORMAT + 1}]
)
def test_a_checkpoint_of_another_version_is_not_used(facts: dict[str, Any]) -> None:
    checkpoint = MemoryCheckpoint()
    checkpoint.save(State(arrays={"noise": np.zeros(3)}, facts=facts))
    craft, usual = walk(checkpoint), walk()
    craft.run()
    usual.run()
    assert same(craft, usual)
    assert said(craft) == said(usual)


def test_it_is_announced_once_with_the_time_on_a_gpu_where_it_takes_long() -> None:
    craft = walk()
    craft.run()
    first, *rounds = said(craft)
    assert first.startswith("Walking on ")
    assert first.endswith("(CPU): not long; on a GPU that sustains 50 TFLOP/s 3 min")
    assert rounds == ["round 1", "round 2", "round 3"]


def test_a_loss_that_is_no_number_ends_the_work_by_name() -> None:
    craft = walk()
    craft.total.fill_(float("nan"))
    with pytest.raises(InputError, match="Walking: the walker's loss is not finite in round 1; a smaller step helps"):
        craft.run()


# --- handing out ---


def squared(number: int, array: np.ndarray) -> int:
    assert array.tolist() == [7, 8]
    return number**2


class Squares(Walk):
    """Squares of some numbers, whatever worker computes them."""

    def following(self) -> Spread | None:  # type: ignore[override]
        left = {n: n for n in (2, 3, 5) if n not in [line["number"] for line in self.trace]}
        array = np.array([7, 8])
        return Spread(function=squared, tasks=left, array=array, unit="number", take=self.take) if left else None

    def take(self, result: int) -> str:
        self.trace.append({"number": round(result**0.5)})
        return f"{result}"


def squares(executor: Any, checkpoint: Checkpoint | None = None) -> Squares:
    usual = walk(checkpoint, executor=executor)
    return Squares(usual.method, usual.context)


@pytest.mark.parametrize("workers", [1, 2])
def test_pieces_of_work_are_handed_out_once_even_if_interrupted(workers: int) -> None:
    inner = MemoryCheckpoint()
    with LocalExecutor(workers) as executor, pytest.raises(KeyboardInterrupt):
        squares(executor, Stopping(inner, 1)).run()
    with LocalExecutor(workers) as executor:
        craft = squares(executor, inner)
        notes = craft.run()
    assert sorted(line["number"] for line in notes["trace"]) == [2, 3, 5]
    assert len(said(craft)) == 1 + 1 + 2, "that it goes on, how long it takes, and each result"


def test_a_worker_that_dies_again_and_again_is_named() -> None:
    class Deadly(LocalExecutor):
        def unordered(self, function: Any, tasks: Sequence[Any], **options: Any) -> Iterator[tuple[int, Any]]:
            options["on_lost"](tasks[1])
            yield 1, Lost(reason="its process was killed (signal 9)")

    craft = squares(Deadly(2))
    with pytest.raises(InputError, match=r"Walking: number 3 could .*: its process was killed .signal 9.; fewer"):
        craft.run()
    assert isinstance(craft.context.reporter, Listening)
    assert craft.context.reporter.warnings == ["the worker of number 3 died; once more"]


def test_large_arrays_reach_workers_of_this_machine_by_a_file_and_others_as_they_are() -> None:
    array = np.arange(12).reshape(3, 4)
    with stepwise._shared(array, LocalExecutor(2)) as given:
        assert isinstance(given, Path)
        assert np.array_equal(np.load(given), array)
    assert not given.exists()
    with stepwise._shared(array, object()) as given:  # type: ignore[arg-type]
        assert given is array
