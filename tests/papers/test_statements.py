"""Statements over several cells: on the printed numbers, and wherever one of them changes or is missing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ule_datasets.base.errors import InputError
from ule_datasets.papers import claims
from ule_datasets.papers.ops import TABLE_5_STRATEGIES, TRANSFER_MODELS
from ule_datasets.papers.rules import Cell
from ule_datasets.papers.statements import COMPARISONS, judge_statement
from ule_datasets.papers.statistics import Judged, Verdict

FAST = settings(deadline=None, max_examples=60)
SERIES = [40.0, 62, 55, 47, 38, 66, 51, 45, 58, 52, 49, 50, 53, 48, 54, 46]


def around(mean: float) -> list[float]:
    return [mean - 0.1, mean, mean + 0.1]


def printed_cells(*ids: str) -> dict[Cell, list[float]]:
    """Three runs close to each printed number."""
    return {(c.train_dataset, c.model, c.strategy): around(c.value) for c in claims.select(",".join(ids))}


PRINTED = printed_cells("ops-t2-*", "ops-t5-*", "ops-t6-*", "ops-tb-*", "ops-td-*")
JUDGED = (
    "ops-q-em-transfer",
    "ops-q-linf-at-em",
    "ops-q-multipixel-monotone",
    "ops-q-l2-crossover",
    "ops-q-randpix-3sigma",
    "ops-q-cifar10s-below-50",
)


def judged_statement(id: str, changed: dict[Cell, list[float]] | None = None, drop: Sequence[Cell] = ()) -> Judged:
    cells = {cell: values for cell, values in (PRINTED | (changed or {})).items() if cell not in drop}
    return judge_statement(id, cells, chance=10, roles={})


def test_an_unknown_statement_is_refused_with_the_known_ones() -> None:
    assert set(JUDGED) <= set(COMPARISONS)
    with pytest.raises(InputError, match="ops-q-em-transfer"):
        judge_statement("ops-q-none", PRINTED, chance=10, roles={})


@pytest.mark.parametrize("id", JUDGED)
def test_statements_hold_on_the_printed_numbers(id: str) -> None:
    assert judged_statement(id).verdict is Verdict.CONFIRMED, judged_statement(id).reason


@pytest.mark.parametrize("id", JUDGED)
def test_a_statement_without_cells_is_not_run_and_with_one_run_each_is_open(id: str) -> None:
    empty = judge_statement(id, {}, chance=10, roles={})
    assert empty.verdict is Verdict.NOT_RUN
    assert empty.reason.startswith("none of its")
    single = {cell: values[:1] for cell, values in PRINTED.items()}
    assert judge_statement(id, single, chance=10, roles={}).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("id", "changed", "words"),
    [
        ("ops-q-em-transfer", {("ops-cifar10", "cvt-7-4", "standard"): 40.0}, "OPS below EM on cvt-7-4"),
        ("ops-q-em-transfer", {("em-cifar10", "resnet18", "standard"): 25.0}, "EM on resnet18 below EM on densenet121"),
        ("ops-q-linf-at-em", {("em-cifar10", "resnet18", "linf-at"): 70.0}, "EM at most 2 points below clean"),
        ("ops-q-linf-at-em", {("ops-cifar10", "resnet18", "linf-at"): 30.0}, "OPS at most 15 points above chance"),
        (
            "ops-q-multipixel-monotone",
            {("ops-cifar10-k3", "resnet18", "cutout"): 45.0},
            "3 below 2 pixels under cutout",
        ),
        ("ops-q-multipixel-monotone", {("ops-cifar10-k4", "resnet18", "mixup"): 11.5}, "4 below 3 pixels under mixup"),
        ("ops-q-l2-crossover", {("ops-cifar10", "resnet18", "l2-at-eps0.5"): 60.0}, "radius 0.5 below radius 1"),
        ("ops-q-l2-crossover", {("ops-cifar10", "resnet18", "l2-at-eps2"): 69.0}, "within 3 points"),
        ("ops-q-cifar10s-below-50", {("cifar10-s", "resnet18", "linf-at+mixup"): 52.0}, "under linf-at+mixup"),
    ],
)
def test_one_comparison_refutes_a_statement(id: str, changed: dict[Cell, float], words: str) -> None:
    judged = judged_statement(id, {cell: around(value) for cell, value in changed.items()})
    assert judged.verdict is Verdict.REFUTED
    assert words in judged.reason


def test_a_part_of_the_cells_refutes_or_leaves_open_and_names_the_missing() -> None:
    gone = ("em-cifar10", "lenet5", "standard")
    open_ = judged_statement("ops-q-em-transfer", drop=[gone])
    assert open_.verdict is Verdict.INCONCLUSIVE
    assert open_.reason == "missing em-cifar10 / lenet5 / standard"
    changed = {("ops-cifar10", "cvt-7-4", "standard"): around(40.0)}
    refuted = judged_statement("ops-q-em-transfer", changed, drop=[gone])
    assert refuted.verdict is Verdict.REFUTED
    assert "missing em-cifar10 / lenet5 / standard" in refuted.reason
    only_ops = {cell: values for cell, values in PRINTED.items() if cell[0] == "ops-cifar10"}
    assert judge_statement("ops-q-em-transfer", only_ops, chance=10, roles={}).verdict is Verdict.INCONCLUSIVE


@FAST
@given(
    id=st.sampled_from(JUDGED),
    drop=st.sets(st.sampled_from(sorted(PRINTED)), min_size=1, max_size=len(PRINTED)),
    shift=st.floats(-20, 20),
)
def test_missing_cells_never_confirm(id: str, drop: set[Cell], shift: float) -> None:
    changed = {
        cell: [value + shift for value in values] for cell, values in PRINTED.items() if cell[0] == "ops-cifar10"
    }
    whole, part = judged_statement(id, changed), judged_statement(id, changed, drop=list(drop))
    if part.verdict is Verdict.CONFIRMED:
        assert part == whole, "none of the dropped cells belongs to the statement"
    if part.verdict is Verdict.REFUTED:
        assert whole.verdict is Verdict.REFUTED


def test_an_unlearned_control_leaves_a_statement_open() -> None:
    weak = {("cifar10", "resnet18", "linf-at"): around(25.0)}
    for id in ("ops-q-linf-at-em", "ops-q-cifar10s-below-50"):
        judged = judged_statement(id, weak)
        assert judged.verdict is Verdict.INCONCLUSIVE
        assert "the control did not learn: 25.00, below 32.50" in judged.reason
    absent = judged_statement("ops-q-cifar10s-below-50", drop=[("cifar10", "resnet18", "standard")])
    assert absent.reason == "missing cifar10 / resnet18 / standard"


def test_roles_put_stand_ins_in_place_and_say_so() -> None:
    roles = {"cifar10-s": "cifar10-s-small", "cifar10": "clean-small", "resnet18": "resnet18-w8"}
    cells: dict[Cell, list[float]] = {}
    for strategy in TABLE_5_STRATEGIES:
        cells["cifar10-s-small", "resnet18-w8", strategy] = around(15)
        cells["clean-small", "resnet18-w8", strategy] = around(60)
    judged = judge_statement("ops-q-cifar10s-below-50", cells, chance=10, roles=roles)
    assert judged.verdict is Verdict.CONFIRMED
    assert judged.reason == (
        "all 9 comparisons hold [cifar10 = clean-small, cifar10-s = cifar10-s-small, resnet18 = resnet18-w8]"
    )
    assert judge_statement("ops-q-cifar10s-below-50", cells, chance=10, roles={}).verdict is Verdict.NOT_RUN


def test_different_numbers_of_runs_are_compared_without_pairing() -> None:
    more = {
        ("em-cifar10", model, "standard"): [*PRINTED["em-cifar10", model, "standard"]] * 2 for model in TRANSFER_MODELS
    }
    assert judged_statement("ops-q-em-transfer", more).verdict is Verdict.CONFIRMED


def test_three_deviations_need_many_draws() -> None:
    ops, randpix = ("ops-cifar10", "resnet18", "standard"), ("randpix-cifar10", "resnet18", "standard")

    def judged(draws: list[float]) -> Judged:
        return judged_statement("ops-q-randpix-3sigma", {ops: around(15.56), randpix: draws})

    unit = statistics.stdev(SERIES[:10])
    printed = [50.67 + (value - statistics.fmean(SERIES[:10])) * 11.29 / unit for value in SERIES[:10]]
    borderline = judged(printed)
    assert borderline.verdict is Verdict.INCONCLUSIVE
    assert "3.11 deviations; if there were 3, 49.9 %" in borderline.reason
    assert judged([50 + (value - 50) / 5 for value in SERIES]).verdict is Verdict.CONFIRMED
    assert judged([20 + (value - 50) for value in SERIES]).verdict is Verdict.REFUTED
    assert judged([value - 49 for value in SERIES]).verdict is Verdict.REFUTED, "RandPix below OPS"
    assert judged([50.0, 50.0, 50.0]).verdict is Verdict.INCONCLUSIVE
    assert judged([50.0]).verdict is Verdict.INCONCLUSIVE
    assert judged([50.0, math.nan]).verdict is Verdict.INCONCLUSIVE


def test_three_deviations_are_wrongly_confirmed_and_refuted_as_rarely_as_they_should() -> None:
    rng = np.random.default_rng(0)
    repetitions, found = 3000, dict.fromkeys(Verdict, 0)
    for ops, draws in zip(rng.normal(20, 3, (repetitions, 5)), rng.normal(50, 10, (repetitions, 6)), strict=True):
        cells = {("ops-cifar10", "resnet18", "standard"): ops, ("randpix-cifar10", "resnet18", "standard"): draws}
        lists = {cell: values.tolist() for cell, values in cells.items()}
        found[judge_statement("ops-q-randpix-3sigma", lists, chance=10, roles={}).verdict] += 1
    for verdict in (Verdict.CONFIRMED, Verdict.REFUTED):
        assert found[verdict] / repetitions == pytest.approx(0.025, abs=0.01)


def test_at_chance_more_pixels_need_not_lower_further() -> None:
    k3, k4 = (("ops-cifar10-k3", "resnet18", "mixup"), ("ops-cifar10-k4", "resnet18", "mixup"))
    assert (
        judged_statement("ops-q-multipixel-monotone", {k3: around(9.9), k4: around(10.4)}).verdict is Verdict.CONFIRMED
    )
    above = {k3: around(12.4), k4: around(12.9), ("ops-cifar10-k2", "resnet18", "mixup"): around(14)}
    assert judged_statement("ops-q-multipixel-monotone", above).verdict is Verdict.REFUTED
