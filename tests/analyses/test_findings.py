"""Analyses of made-up histories, and all of them once on models that were really trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from made_up import CPU, Listener, make_history, make_profile, make_result, make_subject

from ule_datasets.analyses import ANALYSES, analysis, displacement, ending, fitting
from ule_datasets.analyses.analysis import Material
from ule_datasets.analyses.findings import OPTIONAL, Findings, analyse, judging
from ule_datasets.analyses.finetuning import FINETUNING_RATES, FinetuningResult
from ule_datasets.analyses.landscape import Pair, Surface
from ule_datasets.analyses.shuffled import Reading, ShuffledCell, ShuffleTable, evaluate
from ule_datasets.analyses.telling import Named
from ule_datasets.compute.executor import Lost
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.experiments.grid import Cell, Grid, GridResult, train_grid
from ule_datasets.experiments.runs import RunStore, RunTask
from ule_datasets.experiments.subject import Subject
from ule_datasets.models.architectures import build_model
from ule_datasets.models.states import load_weights
from ule_datasets.papers.claims import Claim, all_claims, statements
from ule_datasets.papers.ops import TRANSFER_MODELS
from ule_datasets.papers.rules import Power
from ule_datasets.papers.statistics import Judged, Verdict
from ule_datasets.victims.history import RunHistory

pytestmark = pytest.mark.usefixtures("one_thread")

CLAIMS = all_claims()
ROLES = {"cifar10": "cifar10", "ops-cifar10": "ops-cifar10", "em-cifar10": "em-cifar10"}
SEEDS = (0, 1, 2)
ALWAYS = [name for name, each in ANALYSES.items() if each.always]
EARLY, LATE, NEVER = (95.0, 100.0, 100.0), (50.0, 80.0, 100.0), (40.0, 50.0, 60.0)
"""Training accuracies by epoch."""


def runs(
    train: Sequence[float], moved: float, *, model: str = "resnet18", strategy: str = "standard"
) -> list[RunHistory]:
    """One run per seed, whose parameters move so far in every epoch."""
    return [
        make_history(
            *[50.0] * len(train),
            train=train,
            seed=seed,
            model=model,
            strategy=strategy,
            displacement=[(moved + seed / 10) * epoch for epoch in range(1, len(train) + 1)],
        )
        for seed in SEEDS
    ]


def compared(protected: Sequence[float], moved: float = 1.0) -> displacement.DisplacementResult:
    return displacement.compare(runs(LATE, 2.0), runs(protected, moved))


def fitted(protected: Sequence[float]) -> fitting.FittingResult:
    return fitting.compare_fitting(runs(LATE, 2.0), runs(protected, 1.0))


# Statements


@pytest.mark.parametrize("statement", [id for id in statements() if judging(id)])
def test_what_was_not_looked_at_is_not_run(statement: str) -> None:
    assert Findings().judged(statement).verdict is Verdict.NOT_RUN
    assert Findings(roles=ROLES).judged(statement).verdict is Verdict.NOT_RUN


def test_displacement_speaks_of_both_datasets() -> None:
    near, far = compared(EARLY), compared(LATE, 9.0)
    assert (near.judged.verdict, far.judged.verdict) == (Verdict.CONFIRMED, Verdict.REFUTED)

    def verdict(**found: displacement.DisplacementResult) -> Judged:
        named = {name.replace("_", "-"): result for name, result in found.items()}
        return Findings(roles=ROLES, found={"displacement": named}).judged("ops-q-displacement")

    assert verdict(ops_cifar10=near, em_cifar10=near).verdict is Verdict.CONFIRMED
    assert verdict(ops_cifar10=near, em_cifar10=far).verdict is Verdict.REFUTED
    assert verdict(ops_cifar10=near).verdict is Verdict.INCONCLUSIVE
    assert verdict(ops_cifar10=far).verdict is Verdict.REFUTED
    assert verdict(ops_cifar10=near, em_cifar10=compared(NEVER)).verdict is Verdict.INCONCLUSIVE
    assert verdict(other=far).verdict is Verdict.NOT_RUN
    assert verdict(ops_cifar10=near, em_cifar10=far).reason.startswith(f"ops-cifar10: {near.judged.reason}; em-cifar10")


def test_fitting_speaks_of_both_datasets() -> None:
    soon, late = fitted(EARLY), fitted(LATE)
    assert soon.judged.verdict is Verdict.CONFIRMED
    both = Findings(roles=ROLES, found={"fitting": {"ops-cifar10": soon, "em-cifar10": soon}})
    assert both.judged("ops-q-fitted-early").verdict is Verdict.CONFIRMED
    one = Findings(roles=ROLES, found={"fitting": {"ops-cifar10": soon}})
    assert one.judged("ops-q-fitted-early").verdict is Verdict.INCONCLUSIVE
    bad = Findings(
        roles=ROLES,
        found={
            "fitting": {"ops-cifar10": soon, "em-cifar10": fitting.compare_fitting(runs(EARLY, 1.0), runs(LATE, 2.0))}
        },
    )
    assert bad.judged("ops-q-fitted-early").verdict is Verdict.REFUTED
    assert late.judged.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("final", "whole", "shortened"),
    [
        ((99.0, 99.5, 100.0), Verdict.CONFIRMED, Verdict.CONFIRMED),
        ((60.1, 60.8, 60.4), Verdict.REFUTED, Verdict.INCONCLUSIVE),
        ((98.9, 99.5, 99.5), Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
        ((99.5, 99.5), Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
        ((60.0,), Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
        ((99.5, float("nan"), 99.5), Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
    ],
)
def test_who_ends_near_100(final: tuple[float, ...], whole: Verdict, shortened: Verdict) -> None:
    assert ending.judge_ending(final, paper_length=True).verdict is whole
    assert ending.judge_ending(final, paper_length=False).verdict is shortened


def test_every_model_must_end_near_100() -> None:
    def told(low: str = "", *, missing: str = "") -> Judged:
        found = tuple(
            ending.Ended(
                dataset=name,
                model=model,
                final=(),
                judged=ending.judge_ending((60.0 if model == low else 99.5,) * 3, paper_length=True),
            )
            for name in ROLES
            for model in TRANSFER_MODELS
            if model != missing
        )
        return Findings(roles=ROLES, found={"ending": found}).judged("ops-q-train-acc")

    assert told().verdict is Verdict.CONFIRMED
    assert told("lenet5").verdict is Verdict.REFUTED
    assert "cifar10, lenet5: 60.00 ± 0.00 (3 runs) at the end (line 99)" in told("lenet5").reason
    assert told(missing="lenet5").verdict is Verdict.INCONCLUSIVE
    assert told(missing="lenet5").reason.endswith("; 3 of its models were not trained")
    other = (ending.Ended(dataset="mine", model="lenet5", final=(), judged=Judged(Verdict.REFUTED, "low")),)
    assert Findings(roles=ROLES, found={"ending": other}).judged("ops-q-train-acc").verdict is Verdict.NOT_RUN


def test_reduced_datasets_are_found_by_the_roles_they_play() -> None:
    roles = {"ops-cifar10": "ops-small", "em-cifar10": "em-small"}
    found = Findings(roles=roles, found={"displacement": {"ops-small": compared(EARLY), "em-small": compared(EARLY)}})
    assert found.judged("ops-q-displacement").verdict is Verdict.CONFIRMED


def surface(increase: float) -> Surface:
    return Surface(
        grid=(-1.0, 1.0),
        losses=((1.0, 1.0), (1.0, 1.0)),
        centre=0.0,
        circle=(increase,),
        increase=increase,
        num_images=5,
    )


def test_landscapes_are_compared_pair_by_pair() -> None:
    def verdict(protected: float, clean: float) -> Verdict:
        pairs = tuple(
            Pair(
                seed=seed,
                dataset="ops-cifar10",
                protected=surface(protected + seed / 10),
                clean=surface(clean + seed / 20),
            )
            for seed in SEEDS
        )
        return Findings(found={"landscape": pairs}).judged("ops-q-landscape").verdict

    assert verdict(1.0, 3.0) is Verdict.CONFIRMED
    assert verdict(3.0, 1.0) is Verdict.REFUTED


def test_fine_tuning_is_judged_by_its_result() -> None:
    judged = Judged(verdict=Verdict.CONFIRMED, reason="it ends badly")
    result = FinetuningResult(start_accuracy=94.0, chance=10.0, rates=(), judged=judged)
    assert Findings(found={"finetune": result}).judged("ops-q-finetune") == judged


# Table 1


def shuffled_cell(on: str, at: str, reading: Reading | None, mean: float) -> ShuffledCell:
    return ShuffledCell(trained_on=on, evaluated_on=at, reading=reading, accuracies=(mean,), mean=mean, sd=None)


def table(seed: int, *, on: str = "ops-cifar10", at: str = "ops-cifar10") -> ShuffleTable:
    cells = (
        shuffled_cell(on, at, None, 99.0 + seed / 10),
        shuffled_cell(on, f"{at} shuffled", Reading.ADDITIVE, 70.0 + seed),
        shuffled_cell(on, f"{at} shuffled", Reading.RESTAMPED, 80.0 + seed),
        shuffled_cell("cifar10", f"{at} shuffled", Reading.ADDITIVE, 10.0 + seed),
        shuffled_cell("cifar10", "cifar10", None, 98.0 + seed / 10),
    )
    return ShuffleTable(seed=seed, cells=cells)


def test_claims_of_table_1_are_read_as_added_differences() -> None:
    found = Findings(roles=ROLES, found={"shuffled": (table(0), table(1))})

    def values(id: str) -> tuple[float, ...]:
        return found.values(CLAIMS[f"ops-t1-{id}"])

    assert values("train_ops-test_ops_shuffled") == (70.0, 71.0)
    assert values("train_ops-test_ops") == (99.0, 99.1)
    assert values("train_clean-test_ops_shuffled") == (10.0, 11.0)
    assert values("train_clean-test_clean") == (98.0, 98.1)
    assert values("train_em-test_ops_shuffled") == ()
    assert values("train_ops-test_em_shuffled") == ()


def test_values_of_stand_ins_are_found_and_others_are_not() -> None:
    tables = (table(0, on="ops-small", at="ops-small"),)
    claim: Claim = CLAIMS["ops-t1-train_ops-test_ops_shuffled"]
    assert Findings(roles={"ops-cifar10": "ops-small"}, found={"shuffled": tables}).values(claim) == (70.0,)
    assert Findings(roles=ROLES, found={"shuffled": tables}).values(claim) == ()
    assert Findings(found={"shuffled": tables}).values(claim) == ()


def test_the_summary_is_over_seeds() -> None:
    found = Findings(found={"shuffled": tuple(table(seed) for seed in SEEDS)})
    section = found.sections(make_result({}))["shuffled"]
    assert [column.dataset for column in section.table.columns[2:]] == ["ops-cifar10", "cifar10"]
    rows = {(row[0], row[1]): row[2:] for row in section.table.rows}
    assert len(rows) == 4
    assert rows[Named("ops-cifar10"), "shuffled, additive"] == ("71.00 ± 1.00 (3)", "11.00 ± 1.00 (3)")
    assert rows[Named("ops-cifar10"), "shuffled, re-stamped"] == ("81.00 ± 1.00 (3)", "–")


# From a grid

MODEL = "convnet3-w16"
SMALL = make_profile(stand_in=MODEL, power=Power.NONE, epochs=4, max_train_images=30, max_test_images=12)
OPS = make_subject("ops-cifar10", num_classes=10)
POISONED, CLEAN = Cell("ops-cifar10", MODEL, "standard"), Cell("cifar10", MODEL, "standard")


def make_grid(
    *subjects: Subject, cells: tuple[Cell, ...] = (CLEAN, POISONED), seeds: tuple[int, ...] = (0,), **changes: Any
) -> Grid:
    fields = {"profile": SMALL, "device": CPU, "keep_weights": frozenset(cells), **changes}
    return Grid(subjects=subjects or (OPS,), cells=cells, seeds=seeds, **fields)


def looked_at(
    grid: Grid,
    result: GridResult,
    names: Sequence[str],
    roles: dict[str, str],
    folder: Path,
    listener: Listener | None = None,
) -> Findings:
    with LocalExecutor(1) as executor:
        material = Material(
            grid=grid,
            result=result,
            roles=roles,
            store=RunStore(folder),
            executor=executor,
            reporter=listener or Listener(),
        )
        return analyse(material, names)


@pytest.mark.parametrize(("power", "verdict"), [(Power.FULL, Verdict.REFUTED), (Power.NONE, Verdict.INCONCLUSIVE)])
def test_displacement_and_fitting_come_with_every_grid(power: Power, verdict: Verdict, tmp_path: Path) -> None:
    """Where runs are shorter than the paper's, what they have not fitted refutes nothing."""
    profile = dataclasses.replace(SMALL, power=power)
    grid = make_grid(seeds=SEEDS, profile=profile)
    result = make_result(
        {CLEAN: runs(LATE, 2.0, model=MODEL), POISONED: runs(EARLY, 1.0, model=MODEL)}, profile=profile
    )
    found = looked_at(grid, result, (), {"ops-cifar10": "ops-cifar10"}, tmp_path)
    assert found.found["displacement"]["ops-cifar10"].judged.verdict is Verdict.CONFIRMED
    assert found.found["fitting"]["ops-cifar10"].judged.verdict is Verdict.CONFIRMED
    assert found.judged("ops-q-displacement").verdict is Verdict.INCONCLUSIVE, "EM is missing"
    assert set(found.found) == set(ALWAYS)
    unfitted = make_result({CLEAN: runs(LATE, 2.0, model=MODEL), POISONED: runs(NEVER, 1.0, model=MODEL)})
    ended = {each.dataset: each for each in looked_at(grid, unfitted, (), {}, tmp_path).found["ending"]}
    assert ended["ops-cifar10"].judged.verdict is verdict
    assert ended["cifar10"].judged.verdict is Verdict.CONFIRMED
    assert {each.model for each in ended.values()} == {"resnet18"}, "what it stands for"


def test_without_a_control_nothing_is_compared(tmp_path: Path) -> None:
    result = make_result({POISONED: runs(EARLY, 1.0, model=MODEL)})
    found = looked_at(make_grid(), result, (), {}, tmp_path)
    assert {**found.found, "ending": ()} == {name: ANALYSES[name].nothing for name in ALWAYS}
    assert [each.dataset for each in found.found["ending"]] == ["ops-cifar10"], "that needs no control"


def test_without_models_the_analyses_are_empty(tmp_path: Path) -> None:
    names = [name for name, each in ANALYSES.items() if each.roles]
    found = looked_at(make_grid(), make_result({}, profile=SMALL), names, {}, tmp_path)
    assert found.found == {name: ANALYSES[name].nothing for name in (*ALWAYS, *names)}
    assert found.sections(make_result({}, profile=SMALL)) == {}


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Grid, GridResult, RunStore, Findings, Listener]:
    """One seed, two models, all analyses."""
    grid, store, listener = make_grid(), RunStore(tmp_path_factory.mktemp("runs")), Listener()
    roles = {"cifar10": "cifar10", "ops-cifar10": "ops-cifar10"}
    with LocalExecutor(1) as executor:
        result = train_grid(grid, store=store, executor=executor, reporter=listener)
    found = looked_at(grid, result, OPTIONAL, roles, store.folder, listener)
    return grid, result, store, found, listener


Studied = tuple[Grid, GridResult, RunStore, Findings, Listener]


def test_trained_models_are_asked_about_their_training_images(studied: Studied) -> None:
    grid, _, store, found, _ = studied
    (tables,) = found.found["shuffled"]
    assert tables.seed == 0
    keys = {(cell.trained_on, cell.evaluated_on, cell.reading) for cell in tables.cells}
    stamped = "ops-cifar10 shuffled"
    assert keys == {
        (on, *rest)
        for on in ("cifar10", "ops-cifar10")
        for rest in (
            ("cifar10", None),
            ("ops-cifar10", None),
            (stamped, Reading.ADDITIVE),
            (stamped, Reading.RESTAMPED),
        )
    }
    task = grid.task(POISONED, 0)
    model = build_model(MODEL, 10, seed=0)
    load_weights(model, store.weights(task))
    wanted = evaluate(model, task.data.load().images, task.data.load().labels, CPU)
    claim = CLAIMS["ops-t1-train_ops-test_ops"]
    assert found.values(claim) == (wanted,)


def test_the_landscape_lies_around_both_models(studied: Studied) -> None:
    (pair,) = studied[3].found["landscape"]
    assert (pair.seed, pair.dataset) == (0, "ops-cifar10")
    assert len(pair.protected.grid) == len(pair.clean.grid) == 9
    assert pair.protected.num_images == pair.clean.num_images == 30
    assert pair.protected.centre is not None
    assert pair.protected != pair.clean
    assert studied[3].judged("ops-q-landscape").verdict is Verdict.INCONCLUSIVE, "one pair"


def test_fine_tuning_starts_from_the_clean_model(studied: Studied) -> None:
    _, result, store, found, listener = studied
    tuned = found.found["finetune"]
    assert tuple(rate.learning_rate for rate in tuned.rates) == FINETUNING_RATES
    assert tuned.start_accuracy == result.accuracies(CLEAN)[0]
    assert tuned.chance == 10.0
    clean = next(run for run in result.runs if run.cell == CLEAN)
    files = sorted(store.folder.glob("ops-cifar10-after-cifar10-lr*.json"))
    assert len(files) == len(FINETUNING_RATES)
    assert all(f'"start": "{clean.identity}"' in path.read_text() for path in files)
    assert any("3 runs" in line for line in listener.said if line.startswith("fine-tuning on ops-cifar10"))
    assert len(list(store.folder.glob("*.safetensors"))) == 2, "only those that are looked at again"


def test_fine_tuning_is_given_the_weights_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[RunTask] = []

    def noted(tasks: Sequence[RunTask], *_: Any, **__: Any) -> dict[int, RunHistory]:
        given.extend(tasks)
        return {
            index: make_history(
                20.0,
                model=MODEL,
                strategy="standard",
                seed=task.seed,
                start=task.protocol.start,
                optimiser=task.protocol.optimiser,
            )
            for index, task in enumerate(tasks)
        }

    monkeypatch.setattr(analysis, "work_off", noted)
    grid = make_grid(seeds=(0, 1))
    both = {cell: [make_history(90.0, seed=seed, model=MODEL) for seed in (0, 1)] for cell in (CLEAN, POISONED)}
    roles = {"cifar10": "cifar10", "ops-cifar10": "ops-cifar10"}
    found = looked_at(grid, make_result(both, profile=SMALL), ["finetune"], roles, tmp_path)
    store = RunStore(tmp_path)
    assert [(task.seed, task.protocol.optimiser.learning_rate) for task in given] == [
        (seed, rate) for seed in (0, 1) for rate in FINETUNING_RATES
    ]
    for task in given:
        clean = grid.task(CLEAN, task.seed)
        assert task.start == store.weights(clean)
        assert task.protocol.start == clean.identity
        assert task.data is grid.task(POISONED, task.seed).data
        assert (task.threads, task.keep_weights) == (1, False)
    assert [rate.seeds for rate in found.found["finetune"].rates] == [(0, 1)] * 3


def grouped(store: RunStore) -> list[str]:
    """The runs with other labels that the store holds, without the digests in their names."""
    return sorted(path.name.rpartition("-")[0] for path in store.folder.glob("*-groups-*.json"))


def test_classes_are_grouped_and_learned_again(studied: Studied) -> None:
    grid, _, store, found, listener = studied
    assert [(each.num_groups, each.seeds, each.chance) for each in found.found["relabelled"]] == [
        (5, (0,), 20.0),
        (2, (0,), 50.0),
    ]
    for each in found.found["relabelled"]:
        one = each.comparison
        assert (one.dataset, one.control, one.model, one.strategy) == ("ops-cifar10", "cifar10", MODEL, "standard")
        assert len(one.clean.values) == len(one.poisoned.values) == 1
    assert grouped(store) == [
        f"{name}-in-{number}-groups-standard-seed0" for name in ("cifar10", "ops-cifar10") for number in (2, 5)
    ]
    (said,) = (line for line in listener.said if line.startswith("training with other labels"))
    assert said.startswith("training with other labels: 4 runs, 0 finished before; this will take about 1 min")
    again = looked_at(grid, studied[1], ["relabelled"], {}, store.folder, listener)
    assert again.found["relabelled"] == found.found["relabelled"]
    assert listener.said[-1] == "training with other labels: 4 runs, 4 finished before"


def test_both_sides_have_the_groups_of_their_seed_and_share_the_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[RunTask] = []

    def noted(tasks: Sequence[RunTask], *_: Any, **__: Any) -> dict[int, RunHistory | Lost]:
        given.extend(tasks)
        return {
            index: Lost(reason="killed")
            if (task.dataset, task.seed) == ("em-cifar10-in-2-groups", 1)
            else make_history(90.0 if task.dataset.startswith("cifar10") else 40.0 + task.seed, seed=task.seed)
            for index, task in enumerate(tasks)
        }

    monkeypatch.setattr(analysis, "work_off", noted)
    em = make_subject("em-cifar10", num_classes=10)
    grid = make_grid(OPS, em, cells=(), seeds=(0, 1))
    found = looked_at(grid, make_result({}, profile=SMALL), ["relabelled"], {}, tmp_path)
    assert [(task.dataset, task.seed) for task in given] == [
        (f"{name}-in-{number}-groups", seed)
        for number in (5, 2)
        for seed in (0, 1)
        for name in ("cifar10", "ops-cifar10", "em-cifar10")
    ]
    groups = {}
    for task in given:
        name, _, rest = task.dataset.partition("-in-")
        before = grid.task(Cell(name, MODEL, "standard"), task.seed).data
        true, data = before.load(), task.data.load()
        pairs = {*zip(true.labels.tolist(), data.labels.tolist(), strict=True)}
        pairs |= {*zip(true.test_labels.tolist(), data.test_labels.tolist(), strict=True)}
        assert len(pairs) == 10, "a class has one group, in training and in test images"
        assert groups.setdefault((rest, task.seed), pairs) == pairs, "the same for protected and clean images"
        assert data.images is true.images
        assert task.data.num_classes == data.num_classes == int(rest[0])
        assert not task.keep_weights
    digests = {(task.dataset.startswith("cifar10"), *task.dataset.split("-in-")[1:], task.seed) for task in given}
    assert len({task.data.digest for task in given} | {before.digest}) == len(digests) + 1
    assert groups["5-groups", 0] != groups["5-groups", 1]
    assert [(each.comparison.dataset, each.num_groups, each.seeds) for each in found.found["relabelled"]] == [
        ("ops-cifar10", 5, (0, 1)),
        ("ops-cifar10", 2, (0, 1)),
        ("em-cifar10", 5, (0, 1)),
        ("em-cifar10", 2, (0,)),
    ]
    assert found.found["relabelled"][0].comparison.poisoned.values == (40.0, 41.0)
    assert found.found["relabelled"][0].comparison.clean.values == (90.0, 90.0)


def test_few_classes_have_no_other_labels(tmp_path: Path) -> None:
    grid, listener = make_grid(make_subject("ops-cifar10", num_classes=3)), Listener()
    found = looked_at(grid, make_result({}, profile=SMALL), ["relabelled"], {}, tmp_path, listener)
    assert found.found["relabelled"] == ()
    assert listener.warned == ["no other labels are given: 3 classes are too few to be grouped"]


def test_sets_of_different_size_are_not_shuffled(tmp_path: Path) -> None:
    few = make_subject("em-small", num_classes=10, count=20, limit_per_class=2, draw=1)
    cells = (CLEAN, POISONED, Cell("em-small", MODEL, "standard"))
    grid, listener = make_grid(OPS, few, cells=cells), Listener()
    result = make_result({cell: [make_history(50.0, model=MODEL, strategy="standard")] for cell in cells})
    roles = {"cifar10": "cifar10", "ops-cifar10": "ops-cifar10", "em-cifar10": "em-small"}
    found = looked_at(grid, result, ["shuffled"], roles, tmp_path, listener)
    assert found.found["shuffled"] == ()
    assert listener.warned == [
        "no perturbations are shuffled: cifar10 and em-small and ops-cifar10 differ in their number of images"
    ]
