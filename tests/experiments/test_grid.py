"""Every cell once, each beside its control; what is known is not trained, and what is lost is said."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from made_up import CPU, Listener, make_history, make_profile, make_result, make_subject
from tiny_weights import TINY, register_tiny_weights

from ule_datasets.base.errors import InputError
from ule_datasets.base.shown import operations
from ule_datasets.compute.executor import Lost
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.experiments import grid as grid_module
from ule_datasets.experiments import runs
from ule_datasets.experiments.effect import Collapse
from ule_datasets.experiments.grid import (
    Cell,
    Grid,
    GridResult,
    estimate_seconds,
    plan_lines,
    train_grid,
    with_controls,
)
from ule_datasets.experiments.runs import Finished, RunStore, RunTask, run_task
from ule_datasets.experiments.subject import Subject, check_controls
from ule_datasets.models.architectures import MODELS
from ule_datasets.models.weights import WEIGHTS
from ule_datasets.victims.history import RunHistory

pytestmark = pytest.mark.usefixtures("one_thread")

MODEL = "convnet3-w16"
POISONED, CLEAN = Cell("mine", MODEL, "standard"), Cell("cifar10", MODEL, "standard")
BRIEF = make_profile(max_train_images=32, max_test_images=10, fine_tuning_epochs=3)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that are really made, as they are made in this process."""
    names: list[str] = []

    def noted(task: RunTask) -> Finished:
        names.append(str(task))
        return run_task(task)

    monkeypatch.setattr(runs, "run_task", noted)
    return names


def make_grid(
    *cells: Cell, subjects: tuple[Subject, ...] | None = None, seeds: tuple[int, ...] = (0,), **changes: Any
) -> Grid:
    given = (make_subject(),) if subjects is None else subjects
    fields = {"profile": BRIEF, "device": CPU, **changes}
    return Grid(subjects=given, cells=cells or (CLEAN, POISONED), seeds=seeds, **fields)


def train(grid: Grid, folder: Path) -> tuple[GridResult, Listener]:
    listener = Listener()
    with LocalExecutor(1) as executor:
        return train_grid(grid, store=RunStore(folder), executor=executor, reporter=listener), listener


# What is trained


def test_controls_precede_and_nothing_is_there_twice() -> None:
    subjects = (make_subject("mine"), make_subject("other"), make_subject("few", limit_per_class=3))
    cells = [Cell(name, MODEL, "none") for name in ("mine", "other", "few", "mine", "cifar10")]
    assert with_controls(cells, subjects) == tuple(
        Cell(name, MODEL, "none") for name in ("cifar10", "mine", "other", "cifar10-first3", "few")
    )


def test_a_control_is_of_the_same_model_and_strategy() -> None:
    cells = [Cell("mine", MODEL, "none"), Cell("mine", "lenet5", "none"), Cell("mine", MODEL, "cutout")]
    found = with_controls(cells, (make_subject(),))
    assert [(cell.dataset, cell.model, cell.strategy) for cell in found] == [
        ("cifar10", MODEL, "none"),
        ("mine", MODEL, "none"),
        ("cifar10", "lenet5", "none"),
        ("mine", "lenet5", "none"),
        ("cifar10", MODEL, "cutout"),
        ("mine", MODEL, "cutout"),
    ]


def test_tasks_come_seed_by_seed_with_the_rows_of_the_profile() -> None:
    grid = make_grid(seeds=(3, 5), keep_weights=frozenset({POISONED}), ranks=2)
    tasks = grid.tasks()
    assert [(task.dataset, task.seed) for task in tasks] == [
        ("cifar10", 3),
        ("mine", 3),
        ("cifar10", 5),
        ("mine", 5),
    ]
    assert [task.keep_weights for task in tasks] == [False, True, False, True]
    assert {task.ranks for task in tasks} == {2}
    samples = grid.subjects[0].samples()
    for task, images in zip(tasks[:2], (samples.clean, samples.poisoned), strict=True):
        assert (task.data.num_train, task.data.num_test, task.data.image_size) == (32, 10, 8)
        data = task.data.load()
        assert np.array_equal(data.images, images[:32])
        assert np.array_equal(data.labels, samples.labels[:32])
        assert len(data.test_images) == 10
    assert tasks[0].data.load() is tasks[2].data.load(), "one copy for all runs"
    assert len({task.identity for task in tasks}) == 4


def test_a_run_has_one_thread_unless_more_are_asked_for() -> None:
    assert {task.threads for task in make_grid().tasks()} == {1}
    assert {task.threads for task in make_grid(threads=4).tasks()} == {4}


def test_subjects_with_one_control_train_it_once(tmp_path: Path, trained: list[str]) -> None:
    subjects = (make_subject("mine"), make_subject("other"))
    check_controls(subjects)
    cells = with_controls([POISONED, Cell("other", MODEL, "standard")], subjects)
    result, _ = train(make_grid(*cells, subjects=subjects), tmp_path)
    assert trained == [f"{name}, {MODEL}, standard, seed 0" for name in ("cifar10", "mine", "other")]
    assert [(each.dataset, each.control) for each in result.comparisons] == [("mine", "cifar10"), ("other", "cifar10")]
    assert result.histories(POISONED)[0].epochs == result.histories(Cell("other", MODEL, "standard"))[0].epochs


def test_digits_are_not_mirrored() -> None:
    subject = make_subject(flippable=False)
    assert not any(t.protocol.strategy.augmentation.flip for t in make_grid(subjects=(subject,)).tasks())


def test_other_seeds_draw_again_where_the_method_is_a_draw() -> None:
    asked: list[int] = []

    def redraw(seed: int) -> np.ndarray:
        asked.append(seed)
        return np.full((40, 8, 8, 3), seed, dtype=np.uint8)

    subject = make_subject(redraw=redraw)
    tasks = make_grid(subjects=(subject,), seeds=(0, 1, 2)).tasks()
    assert asked == [], "only when they are trained on"
    drawn = [task.data.load() for task in tasks if task.dataset == "mine"]
    assert asked == [1, 2]
    assert np.array_equal(drawn[0].images, subject.samples().poisoned[:32])
    assert [int(data.images.max()) for data in drawn[1:]] == [1, 2]
    assert len({task.data.digest for task in tasks if task.dataset == "cifar10"}) == 1


def test_without_a_draw_all_seeds_have_one_dataset() -> None:
    tasks = make_grid(seeds=(0, 1, 2)).tasks()
    assert len({task.data.digest for task in tasks}) == 2


def test_a_run_is_known_before_any_image_is_read() -> None:
    def unread(*_: object) -> NoReturn:
        raise AssertionError("an image was read")

    subject = dataclasses.replace(make_subject(), samples=unread, redraw=unread)
    grid = make_grid(subjects=(subject,), seeds=(0, 1))
    tasks = grid.tasks()
    identities = {task.identity for task in tasks}
    assert len(identities) == 4
    assert len(plan_lines(grid, tasks, [False] * 4)) == 2
    for change in ({"clean_digest": "other"}, {"poison_digest": "other"}):
        others = make_grid(subjects=(dataclasses.replace(subject, **change),), seeds=(0, 1)).tasks()
        assert len(identities & {task.identity for task in others}) == (2 if "poison_digest" in change else 0)
    fewer = dataclasses.replace(BRIEF, max_train_images=31)
    assert not identities & {task.identity for task in make_grid(subjects=(subject,), profile=fewer).tasks()}
    all_of_them = dataclasses.replace(BRIEF, max_train_images=40), dataclasses.replace(BRIEF, max_train_images=None)
    first, second = (make_grid(subjects=(subject,), profile=profile).tasks() for profile in all_of_them)
    assert [task.identity for task in first] == [task.identity for task in second]


# Refusals


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_are_given_and_distinct(seeds: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="give at least one, each once"):
        make_grid(seeds=seeds)


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="no model 'alexnet'; the models are resnet18, ") as caught:
        make_grid(Cell("mine", "alexnet", "none"))
    assert all(name in str(caught.value) for name in (*MODELS, *WEIGHTS))


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(InputError, match="'blur' is not known"):
        make_grid(Cell("mine", MODEL, "blur")).tasks()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"draw": 1}, "mine and other come from different clean images of the name cifar10: verify them one after"),
        ({"count": 42}, "mine and other come from different clean images"),
        ({"labels": np.zeros(40, np.int64)}, "mine and other come from different clean images"),
        ({"test_labels": np.zeros(12, np.int64)}, "mine and other come from different clean images"),
        ({"test_images": np.zeros((12, 8, 8, 3), np.uint8)}, "mine and other come from different clean images"),
        ({"num_classes": 4}, "mine and other come from different clean images"),
    ],
)
def test_other_clean_images_of_one_name_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_controls([make_subject("mine"), make_subject("other", **changes)])


def test_other_images_of_another_name_are_welcome() -> None:
    check_controls([make_subject("mine"), make_subject("few", draw=1, limit_per_class=3)])
    check_controls([make_subject("mine"), make_subject("other", draw=1, source="svhn", num_classes=4)])


def test_one_dataset_twice_is_refused() -> None:
    with pytest.raises(InputError, match="mine is given twice"):
        check_controls([make_subject("mine"), make_subject("few", limit_per_class=3), make_subject("mine")])


def test_poisoned_and_clean_images_must_be_the_same_rows() -> None:
    samples = make_subject().samples()
    with pytest.raises(InputError, match="the control needs the same rows"):
        dataclasses.replace(samples, clean=samples.clean[:-1])


# Training


def test_a_grid_is_trained_and_compared(tmp_path: Path, trained: list[str]) -> None:
    result, listener = train(make_grid(seeds=(0, 7)), tmp_path)
    assert [(run.cell, run.seed) for run in result.runs] == [(CLEAN, 0), (CLEAN, 7), (POISONED, 0), (POISONED, 7)]
    assert trained == [f"{name}, {MODEL}, standard, seed {seed}" for seed in (0, 7) for name in ("cifar10", "mine")]
    names = ("cifar10", "mine")
    assert (result.num_train, result.num_test) == (dict.fromkeys(names, 32), dict.fromkeys(names, 10))
    assert (result.chance("mine"), result.chances) == (50.0, (50.0,))
    assert result.lost == ()
    assert not any(run.reused for run in result.runs)
    (comparison,) = result.comparisons
    assert comparison.poisoned.values == result.accuracies(POISONED)
    assert comparison.clean.values == result.accuracies(CLEAN)
    assert listener.said[0].startswith("profile tiny: 4 runs on ")
    assert "1 at a time with 1 thread each" in listener.said[0]
    assert listener.said[1].startswith(f"  cifar10, {MODEL}, standard: 2 runs of 2 epochs on 32 images, ")
    assert "going by the time of a few steps" in listener.said[3]
    assert len(listener.said) == 4 + 4


def test_datasets_of_different_classes_are_compared_each_with_its_own_chance(tmp_path: Path) -> None:
    subjects = (make_subject("mine"), make_subject("other", draw=1, source="svhn", num_classes=4))
    check_controls(subjects)
    cells = with_controls([POISONED, Cell("other", MODEL, "standard")], subjects)
    result, _ = train(make_grid(*cells, subjects=subjects), tmp_path)
    assert [(each.dataset, each.control) for each in result.comparisons] == [("mine", "cifar10"), ("other", "svhn")]
    assert (result.chance("mine"), result.chance("svhn"), result.chances) == (50.0, 25.0, (50.0, 25.0))


def test_equal_images_give_equal_histories_because_seeds_are_shared(tmp_path: Path) -> None:
    untouched = make_subject(poisoned=make_subject().samples().clean.copy())
    result, _ = train(make_grid(subjects=(untouched,)), tmp_path)
    assert result.histories(CLEAN) == result.histories(POISONED)
    assert result.comparisons[0].collapse in (Collapse.INCONCLUSIVE, Collapse.NOT_SHOWN)


def test_only_what_is_missing_is_trained(tmp_path: Path, trained: list[str]) -> None:
    train(make_grid(), tmp_path)
    trained.clear()
    first, _ = train(make_grid(seeds=(0, 1)), tmp_path)
    assert trained == [f"{name}, {MODEL}, standard, seed 1" for name in ("cifar10", "mine")]
    assert [run.reused for run in first.runs] == [True, False, True, False]
    trained.clear()
    second, listener = train(make_grid(seeds=(0, 1)), tmp_path)
    assert trained == []
    assert [run.history for run in second.runs] == [run.history for run in first.runs]
    assert [line.partition(":")[0] for line in listener.said] == ["reusing a finished run"] * 4


def test_runs_on_other_images_are_not_used(tmp_path: Path, trained: list[str]) -> None:
    train(make_grid(), tmp_path)
    trained.clear()
    result, _ = train(make_grid(subjects=(make_subject(draw=1),)), tmp_path)
    assert len(trained) == 2
    assert not any(run.reused for run in result.runs)


def test_a_damaged_run_is_named_once(tmp_path: Path, trained: list[str]) -> None:
    train(make_grid(), tmp_path)
    damaged = min(tmp_path.iterdir())
    damaged.write_text(damaged.read_text()[:100])
    trained.clear()
    result, listener = train(make_grid(), tmp_path)
    assert len(trained) == 1
    assert len(listener.warned) == 1
    assert damaged.name in listener.warned[0]
    assert sorted(run.reused for run in result.runs) == [False, True]


def test_lost_runs_are_told_and_their_cells_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def outcomes(tasks: tuple[RunTask, ...], *_: Any, **__: Any) -> dict[int, RunHistory | Lost]:
        gone = Lost(reason="killed")
        return {
            index: gone
            if (task.dataset, task.seed) in (("mine", 0), ("mine", 1), ("cifar10", 1))
            else make_history(50.0, seed=task.seed)
            for index, task in enumerate(tasks)
        }

    monkeypatch.setattr(grid_module, "work_off", outcomes)
    result, _ = train(make_grid(seeds=(0, 1)), tmp_path)
    assert [(lost.cell, lost.seed, lost.reason) for lost in result.lost] == [
        (POISONED, 0, "killed"),
        (CLEAN, 1, "killed"),
        (POISONED, 1, "killed"),
    ]
    assert [(run.cell, run.seed) for run in result.runs] == [(CLEAN, 0)]
    assert result.comparisons == ()
    assert result.accuracies(POISONED) == ()


# Trained weights

FINE_TUNED = tuple(Cell(name, TINY, "standard") for name in ("cifar10", "mine"))


def test_models_of_trained_weights_start_from_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str]
) -> None:
    file = register_tiny_weights(monkeypatch, tmp_path / "weights")
    grid = make_grid(*FINE_TUNED, CLEAN, POISONED, weights={TINY: file})
    assert [(task.start, task.protocol.start) for task in grid.tasks()] == [
        *[(file.path, file.sha256)] * 2,
        *[(None, "")] * 2,
    ]
    result, _ = train(grid, tmp_path / "runs")
    assert [len(run.history.epochs) for run in result.runs] == [3, 3, 2, 2]
    assert [(each.dataset, each.model) for each in result.comparisons] == [("mine", TINY), ("mine", MODEL)]
    moved = dataclasses.replace(file, path=file.path.rename(tmp_path / "elsewhere.pt"))
    trained.clear()
    again, _ = train(make_grid(*FINE_TUNED, weights={TINY: moved}), tmp_path / "runs")
    assert trained == []
    assert [run.history for run in again.runs] == [run.history for run in result.runs[:2]]
    other = register_tiny_weights(monkeypatch, tmp_path / "weights", seed=6)
    train(make_grid(*FINE_TUNED, weights={TINY: other}), tmp_path / "runs")
    assert len(trained) == 2, "other weights make other runs"


def test_a_model_of_trained_weights_needs_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny_weights(monkeypatch, tmp_path)
    with pytest.raises(InputError, match=f"{TINY} starts from trained weights, and their file is not given"):
        make_grid(*FINE_TUNED)


# Results, plans, times


def test_accuracies_are_the_last_ones_and_not_numbers_where_a_loss_was_not_finite() -> None:
    histories = [make_history(50.0, 40.0), make_history(90.0, seed=1, finite=False), make_history(60.0, seed=2)]
    result = make_result({CLEAN: histories, POISONED: []})
    first, broken, last = result.accuracies(CLEAN)
    assert (first, last) == (40.0, 60.0)
    assert math.isnan(broken)
    assert result.histories(CLEAN) == tuple(histories)
    assert result.accuracies(POISONED) == ()


def test_the_plan_has_a_line_per_cell() -> None:
    grid = make_grid(seeds=(0, 1))
    tasks = grid.tasks()
    flop = 0.75 * tasks[0].flop
    lines = plan_lines(grid, tasks, [0, 1, 0, 0.25])
    assert len(lines) == 2
    assert lines[0].startswith(f"  cifar10, {MODEL}, standard: 2 runs of 2 epochs on 32 images, ")
    assert lines[0].endswith("FLOP")
    what = f"  mine, {MODEL}, standard: 2 runs of 2 epochs on 32 images"
    assert lines[1] == f"{what}, {operations(flop)} left, 1 finished before, 1 begun"
    (single, _) = plan_lines(make_grid(), make_grid().tasks(), [0, 0])
    assert ": 1 run of 2 epochs" in single


def test_more_arithmetic_takes_longer() -> None:
    tasks = make_grid(CLEAN, Cell("cifar10", MODEL, "linf-at")).tasks()
    few = estimate_seconds(tasks[:1])
    assert few > 0
    assert estimate_seconds([tasks[0]] * 200) > 20 * few
    assert tasks[1].flop > 5 * tasks[0].flop
