"""From claims to cells, and from made-up runs back to verdicts: none that the runs do not carry."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from made_up import make_history, make_profile, make_result, make_subject, seeds_of

from ule_datasets.analyses.findings import Findings, judging
from ule_datasets.analyses.shuffled import ShuffledCell, ShuffleTable
from ule_datasets.experiments.grid import Cell, GridResult
from ule_datasets.experiments.profiles import PROFILES, Profile
from ule_datasets.experiments.subject import Subject
from ule_datasets.papers.claims import Claim, Regime, all_claims, statements
from ule_datasets.papers.rules import Power
from ule_datasets.papers.statistics import Judged, Verdict
from ule_datasets.verification.judging import (
    ClaimResult,
    StatementResult,
    Wanted,
    cell_of,
    datasets_of,
    judge_claims,
    judge_statements,
    roles_of_analyses,
    stand_ins,
    subject_for,
    what_is_wanted,
)

CLAIMS, STATEMENTS = all_claims(), statements()
PAPER, QUICK, SMOKE = PROFILES["paper"], PROFILES["quick"], PROFILES["smoke"]
OPS = make_subject("ops-cifar10", num_classes=10)
EM = make_subject("em-cifar10", num_classes=10)
RANDPIX = make_subject("randpix-cifar10", num_classes=10)
REDUCED = make_subject(
    "em-cifar10-small",
    num_classes=10,
    limit_per_class=3,
    reduced="3 images per class",
    stands_for="em-cifar10",
    unjudged="em-cifar10-small is reduced",
)
FOREIGN = make_subject("mine", num_classes=10, unjudged="mine is not in the catalogue")

POISONED, CLEAN = Cell("ops-cifar10", "resnet18", "standard"), Cell("cifar10", "resnet18", "standard")
NARROW, NARROW_CLEAN = (dataclasses.replace(cell, model="resnet18-w8") for cell in (POISONED, CLEAN))
AS_PRINTED, GOOD = (15.0, 16.0, 15.5, 14.8, 16.2), (94.0, 94.1, 93.9, 94.2, 93.8)


def claim(catalogued: str, **changes: Any) -> Claim:
    return dataclasses.replace(CLAIMS[catalogued], **changes)


def own(**changes: Any) -> Claim:
    """A claim of a user's own about ops-cifar10: nobody's printed baseline, a collapse to 15.56."""
    fields = {"id": "own-1", "paper": "own", "clean_reference": None, "readings": (), **changes}
    return claim("ops-t2-resnet18-ops", **fields)


def judged(
    given: Claim,
    outcomes: Mapping[Cell, Sequence[float]],
    *,
    subjects: Sequence[Subject] = (OPS,),
    profile: Profile = PAPER,
    asked: bool = True,
    **options: Any,
) -> ClaimResult:
    runs = {cell: seeds_of(values, cell, **options) for cell, values in outcomes.items()}
    result = make_result(runs, profile=profile)
    to_run = [given] if asked else []
    (found,) = judge_claims([given], result, subjects, Findings(), profile=profile, asked=to_run)
    return found


# What is needed


def test_a_claim_needs_its_dataset_model_and_strategy() -> None:
    assert cell_of(claim("ops-t2-resnet18-ops"), [OPS], PAPER) == POISONED
    assert cell_of(claim("ops-t2-resnet18-clean"), [OPS], PAPER) == CLEAN
    assert cell_of(claim("ops-t2-resnet18-ops"), [OPS], SMOKE) == NARROW
    assert cell_of(claim("ops-t2-densenet121-ops"), [OPS], PAPER) == dataclasses.replace(POISONED, model="densenet121")
    assert cell_of(own(model="resnet18-w8"), [OPS], SMOKE) == NARROW
    assert cell_of(own(strategy="cutout+linf-at"), [OPS], PAPER) == dataclasses.replace(
        POISONED, strategy="linf-at+cutout"
    )


def test_a_size_needs_nothing() -> None:
    assert cell_of(claim("ops-t3-wrn_28_1-params"), [], SMOKE) is None


@pytest.mark.parametrize(
    ("given", "profile", "reason"),
    [
        (claim("ops-t3-wrn_28_1-params", model="alexnet"), PAPER, "there is no model alexnet here"),
        (claim("ops-text-cost-ops"), PAPER, "a time of making the dataset, which takes long: not repeated here"),
        (claim("ops-text-cost-em"), PAPER, "em-cifar10 not at hand: build it with ule-build, or name its folder"),
        (claim("le-text-train-time-reduction"), PAPER, "training time saved"),
        (own(model="efficientnet_b1"), PAPER, "there is no model efficientnet_b1 here"),
        (claim("ops-t2-densenet121-ops"), SMOKE, "the smoke profile trains resnet18-w8 in place of resnet18, and no"),
        (own(strategy="avatar"), PAPER, "avatar is no strategy of training here"),
        (own(variant="pad=2"), PAPER, "a variant of a strategy that is not here: pad=2"),
        (own(metric="clean test loss"), PAPER, "clean test loss is not measured here"),
        (claim("ops-t2-resnet18-em"), PAPER, "em-cifar10 not at hand: build it with ule-build, or name its folder"),
        (claim("ops-t1-train_em-test_em_shuffled"), PAPER, "em-cifar10 not at hand"),
        (claim("ops-t1-train_ops-test_em"), PAPER, "em-cifar10 not at hand"),
        (own(train_dataset="svhn"), PAPER, "svhn not at hand"),
    ],
)
def test_why_a_claim_cannot_be_run(given: Claim, profile: Profile, reason: str) -> None:
    found = cell_of(given, [OPS], profile)
    assert isinstance(found, str)
    assert found.startswith(reason)
    wanted = what_is_wanted([given], [], [OPS], profile)
    assert wanted.open == {given.id: found}
    assert wanted.cells == ()
    (result,) = judge_claims([given], None, [OPS], Findings(), profile=profile, asked=[given])
    assert result.verdict is result.level.verdict is result.effect.verdict is Verdict.NOT_RUN
    assert result.level.reason == found
    assert not result.refuted


def test_the_choice_of_an_oracle_needs_all_that_it_chooses_among() -> None:
    wanted = what_is_wanted([CLAIMS["le-t1-em-cifar10-iss"]], [], [EM], PAPER)
    assert wanted.open == {}
    assert [(cell.dataset, cell.strategy) for cell in wanted.cells] == [("em-cifar10", "gray"), ("em-cifar10", "jpeg")]
    assert what_is_wanted([CLAIMS["le-t1-em-cifar10-iss"]], [], [OPS], PAPER).open.keys() == {"le-t1-em-cifar10-iss"}


def test_the_best_that_an_oracle_could_choose_is_judged_and_called_so() -> None:
    given = CLAIMS["le-t1-em-cifar10-iss"]
    cells = {
        Cell(dataset, "resnet18", strategy): values
        for strategy, values, clean in (
            ("gray", (93.1, 92.9, 93.0), (92.3, 92.4, 92.5)),
            ("jpeg", (81.0, 81.5, 82.0), (85.3, 85.4, 85.5)),
        )
        for dataset, values in (("em-cifar10", values), ("cifar10", clean))
    }
    found = judged(given, cells, subjects=(EM,))
    assert found.claim == given
    assert found.cell == Cell("em-cifar10", "resnet18", "gray")
    assert found.measured == (93.1, 92.9, 93.0)
    assert found.control == (92.3, 92.4, 92.5)
    assert found.effect.verdict is Verdict.CONFIRMED
    for each in (found.level, found.effect):
        assert each.reason.endswith("an oracle's choice: of gray and jpeg by clean test accuracy, here gray")
    cells = {cell: values for cell, values in cells.items() if cell.strategy == "gray"}
    found = judged(given, cells, subjects=(EM,))
    assert found.verdict is Verdict.NOT_RUN
    assert found.level.reason == "iss is the better of gray and jpeg, and jpeg is open: no run was finished"


def test_every_claim_of_the_catalogue_has_a_cell_or_a_reason() -> None:
    for profile in PROFILES.values():
        wanted = what_is_wanted(CLAIMS.values(), STATEMENTS.values(), [OPS, EM], profile)
        assert len(set(wanted.cells)) == len(wanted.cells)
        assert wanted.weights <= set(wanted.cells)
        assert all(subject_for(cell.dataset, [OPS, EM]) is not None for cell in wanted.cells)
        runnable = [c for c in CLAIMS.values() if c.id not in wanted.open and c.regime is not Regime.SIZE]
        assert {cell_of(c, [OPS, EM], profile) for c in runnable} <= set(wanted.cells)
        assert len(runnable) > 5
        assert all(reason for reason in wanted.open.values())


def test_a_cell_serves_many_claims_and_is_there_once() -> None:
    given = [claim(id) for id in ("ops-t2-resnet18-ops", "ops-t5-ops-standard", "ops-t2-resnet18-clean")]
    assert what_is_wanted(given, [], [OPS], PAPER) == Wanted(
        cells=(POISONED, CLEAN), weights=frozenset(), analyses=frozenset(), timed=(), open={}
    )


def test_shuffled_perturbations_need_the_models_of_all_sets() -> None:
    wanted = what_is_wanted([claim("ops-t1-train_ops-test_em_shuffled")], [], [OPS, EM], PAPER)
    assert wanted.analyses == {"shuffled"}
    everything = {Cell(name, "resnet18", "standard") for name in ("cifar10", "em-cifar10", "ops-cifar10")}
    assert set(wanted.cells) == wanted.weights == everything


def test_roles_of_table_1() -> None:
    assert datasets_of(claim("ops-t1-train_ops-test_em_shuffled")) == ("ops-cifar10", "em-cifar10")
    assert datasets_of(claim("ops-t1-train_em-test_clean")) == ("em-cifar10", "cifar10")


@pytest.mark.parametrize("analysis", ["landscape", "finetune"])
def test_statements_about_trained_models_keep_them(analysis: str) -> None:
    by_statement = what_is_wanted([], [STATEMENTS[f"ops-q-{analysis}"]], [OPS], PAPER)
    by_name = what_is_wanted([], [], [OPS], PAPER, analyses=[analysis])
    for wanted in (by_statement, by_name):
        assert wanted.analyses == {analysis}
        assert set(wanted.cells) == wanted.weights == {CLEAN, POISONED}


def test_statements_need_only_what_can_be_trained_here() -> None:
    transfer = STATEMENTS["ops-q-em-transfer"]
    paper = what_is_wanted([], [transfer], [OPS, EM], PAPER).cells
    assert len(paper) == 12
    assert {cell.model for cell in paper} >= {"lenet5", "wrn-28-10"}
    smoke = what_is_wanted([], [transfer], [OPS, EM], SMOKE).cells
    assert set(smoke) == {NARROW, dataclasses.replace(NARROW, dataset="em-cifar10")}
    assert set(what_is_wanted([], [transfer], [OPS], SMOKE).cells) == {NARROW}
    fitting = what_is_wanted([], [STATEMENTS["ops-q-fitted-early"]], [OPS], PAPER)
    assert set(fitting.cells) == {CLEAN, POISONED}
    assert fitting.analyses == fitting.weights == frozenset()
    every = what_is_wanted([], [STATEMENTS["ops-q-train-acc"]], [OPS], PAPER).cells
    assert len(every) == 12
    assert set(every) >= {CLEAN, POISONED, LENET, LENET_CLEAN}


# Stand-ins


def test_whole_datasets_and_models_stand_for_themselves() -> None:
    assert stand_ins([OPS, EM], PAPER) == {}
    assert stand_ins([OPS, EM], SMOKE) == {"resnet18": "resnet18-w8"}


def test_reduced_datasets_stand_for_whole_ones_that_are_not_there() -> None:
    assert stand_ins([REDUCED], PAPER) == {"em-cifar10": "em-cifar10-small", "cifar10": "cifar10-first3"}
    assert stand_ins([REDUCED, OPS], PAPER) == {"em-cifar10": "em-cifar10-small"}
    assert stand_ins([REDUCED, EM], PAPER) == {}


def test_who_plays_what_in_the_analyses() -> None:
    assert roles_of_analyses([OPS], PAPER) == {"cifar10": "cifar10", "ops-cifar10": "ops-cifar10"}
    assert roles_of_analyses([REDUCED], SMOKE) == {"cifar10": "cifar10-first3", "em-cifar10": "em-cifar10-small"}
    assert roles_of_analyses([make_subject("d", source="svhn")], PAPER) == {}


# Verdicts on claims


def test_a_number_that_comes_out_is_confirmed() -> None:
    found = judged(claim("ops-t2-resnet18-ops"), {CLEAN: GOOD, POISONED: AS_PRINTED})
    assert (found.level.verdict, found.effect.verdict) == (Verdict.CONFIRMED, Verdict.CONFIRMED)
    assert found.verdict is Verdict.CONFIRMED
    assert (found.cell, found.measured, found.control, found.best) == (POISONED, AS_PRINTED, GOOD, AS_PRINTED)
    assert not found.stand_in
    assert not found.refuted
    assert [gate.name for gate in found.gates if not gate.passed or gate.caps] == []


def test_a_clean_baseline_needs_no_control() -> None:
    found = judged(claim("ops-t2-resnet18-clean"), {CLEAN: GOOD})
    assert (found.level.verdict, found.effect.verdict) == (Verdict.CONFIRMED, Verdict.CONFIRMED)
    assert found.control == ()


def test_the_last_epoch_is_measured_and_the_best_shown() -> None:
    runs = {
        CLEAN: seeds_of(GOOD, CLEAN),
        POISONED: [
            make_history(60.0, value, seed=seed, model="resnet18", strategy="standard")
            for seed, value in enumerate(AS_PRINTED)
        ],
    }
    given = claim("ops-t2-resnet18-ops")
    (found,) = judge_claims([given], make_result(runs, profile=PAPER), [OPS], Findings(), profile=PAPER, asked=[given])
    assert (found.measured, found.best) == (AS_PRINTED, (60.0,) * 5)


FAR = (70.0, 71.0, 69.0, 70.5, 69.5)


def test_a_number_that_does_not_come_out_is_refuted() -> None:
    found = judged(own(id="ops-t2-resnet18-ops"), {CLEAN: GOOD, POISONED: FAR})
    assert (found.level.verdict, found.effect.verdict) == (Verdict.REFUTED, Verdict.REFUTED)
    assert found.refuted


PRINTED = make_subject("ops-var-cifar10", num_classes=10)
READ_OTHERWISE = dataclasses.replace(POISONED, dataset="ops-var-cifar10")


@pytest.mark.parametrize(
    ("other", "verdict", "says"),
    [
        (None, Verdict.INCONCLUSIVE, "; not refuted while ops-var-cifar10, which it may be about, was not trained"),
        (AS_PRINTED, Verdict.INCONCLUSIVE, "; read as ops-var-cifar10, confirmed: 15.50"),
        (AS_PRINTED[:1], Verdict.INCONCLUSIVE, "; read as ops-var-cifar10, inconclusive: one seed"),
        (FAR, Verdict.REFUTED, "; read as ops-var-cifar10, refuted: 70.00"),
    ],
)
def test_a_number_is_refuted_only_with_every_dataset_that_it_may_be_about(
    other: tuple[float, ...] | None, verdict: Verdict, says: str
) -> None:
    """The paper prints another search objective than its code computes."""
    outcomes = {CLEAN: GOOD, POISONED: FAR, **({} if other is None else {READ_OTHERWISE: other})}
    subjects = [OPS] if other is None else [OPS, PRINTED]
    found = judged(claim("ops-t2-resnet18-ops"), outcomes, subjects=subjects)
    assert found.level.verdict is verdict, found.level.reason
    assert found.level.reason.startswith("70.00")
    assert says in found.level.reason
    assert found.effect.verdict is Verdict.REFUTED, "of the dataset as it is"
    agreed = judged(claim("ops-t2-resnet18-ops"), {**outcomes, POISONED: AS_PRINTED}, subjects=subjects)
    assert agreed.level.verdict is Verdict.CONFIRMED
    assert agreed.measured == AS_PRINTED


@pytest.mark.parametrize(
    "wrong",
    [
        own(regime=Regime.RECOVERED, value=93.0),
        own(regime=Regime.PARTIAL, value=60.0),
        own(value=45.0),
        claim("ops-t5-em-linf_at", id="own-2", train_dataset="ops-cifar10", strategy="standard", paper="own"),
    ],
)
def test_a_mislabelled_claim_is_refuted(wrong: Claim) -> None:
    found = judged(wrong, {CLEAN: GOOD, POISONED: AS_PRINTED})
    assert Verdict.REFUTED in (found.level.verdict, found.effect.verdict)
    assert found.verdict is Verdict.REFUTED
    assert found.refuted


def test_with_a_stand_in_an_effect_is_told_and_nothing_is_refuted() -> None:
    learned, collapsed = (60.0, 61.0, 59.0), (12.0, 11.0, 13.0)
    found = judged(claim("ops-t2-resnet18-ops"), {NARROW_CLEAN: learned, NARROW: collapsed}, profile=SMOKE)
    assert found.stand_in
    assert (found.level.verdict, found.effect.verdict) == (Verdict.NOT_COMPARABLE, Verdict.CONFIRMED)
    assert found.verdict is Verdict.CONFIRMED
    failed = judged(claim("ops-t2-resnet18-ops"), {NARROW_CLEAN: learned, NARROW: learned}, profile=SMOKE)
    assert failed.effect.verdict is Verdict.REFUTED
    assert not failed.refuted
    itself = judged(own(model="resnet18-w8"), {NARROW_CLEAN: learned, NARROW: learned}, profile=SMOKE)
    assert not itself.stand_in
    assert itself.refuted


def test_a_stand_in_says_nothing_finer_than_a_collapse() -> None:
    cell = dataclasses.replace(NARROW, strategy="cutout")
    clean = dataclasses.replace(NARROW_CLEAN, strategy="cutout")
    found = judged(claim("ops-t5-ops-cutout"), {clean: (60.0, 61.0), cell: (30.0, 31.0)}, profile=SMOKE)
    assert (found.level.verdict, found.effect.verdict) == (Verdict.NOT_COMPARABLE, Verdict.NOT_RUN)
    assert "shows whether there is a collapse, not how much is recovered" in found.effect.reason


@pytest.mark.parametrize(("name", "measured"), [("ops-t5-ops-cutout", 40.0), ("ops-t5-ops-randaugment", 85.0)])
def test_one_that_learns_all_of_the_data_judges_what_is_recovered_and_still_no_number(
    name: str, measured: float
) -> None:
    strategy = claim(name).strategy
    clean, cell = Cell("cifar10", "quicknet", strategy), Cell("ops-cifar10", "quicknet", strategy)
    found = judged(claim(name), {clean: (91.0, 91.2, 90.9), cell: (measured,) * 3}, profile=QUICK)
    assert found.level.verdict is Verdict.NOT_COMPARABLE
    assert found.effect.verdict not in (Verdict.NOT_RUN, Verdict.NOT_COMPARABLE)
    assert found.stand_in


@pytest.mark.parametrize(("given", "profile"), [(own(), PAPER), (claim("ops-t2-resnet18-ops"), SMOKE)])
def test_a_control_that_did_not_learn_leaves_the_effect_open(given: Claim, profile: Profile) -> None:
    clean, poisoned = (CLEAN, POISONED) if profile is PAPER else (NARROW_CLEAN, NARROW)
    outcomes = {clean: (20.0, 21.0, 19.0, 20.5, 19.5), poisoned: AS_PRINTED}
    found = judged(given, outcomes, profile=profile)
    assert found.effect.verdict is Verdict.INCONCLUSIVE
    assert "the control did not learn" in found.effect.reason
    assert not found.refuted


def test_a_control_far_below_the_papers_makes_the_claim_not_comparable() -> None:
    found = judged(claim("ops-t2-resnet18-ops"), {CLEAN: (20.0, 21.0, 19.0, 20.5, 19.5), POISONED: AS_PRINTED})
    assert found.level.verdict is found.effect.verdict is Verdict.NOT_COMPARABLE
    assert "clean baseline" in found.level.reason


def test_without_its_control_an_effect_is_open() -> None:
    found = judged(own(), {POISONED: AS_PRINTED})
    assert found.effect.verdict is Verdict.INCONCLUSIVE
    assert "there is no control" in found.effect.reason


def test_what_is_not_fitted_is_not_comparable() -> None:
    found = judged(claim("ops-t2-resnet18-ops"), {CLEAN: GOOD, POISONED: AS_PRINTED}, train=80.0)
    assert found.level.verdict is found.effect.verdict is Verdict.NOT_COMPARABLE
    assert "training accuracy" in found.level.reason


LENET, LENET_CLEAN = (dataclasses.replace(cell, model="lenet5") for cell in (POISONED, CLEAN))
ENDS_AT_70, ENDS_AT_22 = (70.1, 70.3, 69.9, 70.4, 70.2), (22.0, 23.1, 21.5, 22.6, 21.8)


def ending(cell: Cell, values: Sequence[float], train: float, *, start: float | None = None) -> list[Any]:
    """Runs of twelve epochs; only the first has another training accuracy than the last."""
    curve = [start or 30.0, *[train] * 11]
    return [
        make_history(*[50.0] * 11, value, train=curve, seed=seed, model=cell.model, strategy=cell.strategy)
        for seed, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("trained", "level", "says"),
    [
        (
            (60.8, 90.1),
            Verdict.CONFIRMED,
            "90.10 at the last epoch, 99 not wanted because the clean control ends at 60.80",
        ),
        ((60.8, 60.0), Verdict.NOT_COMPARABLE, "missed: a mean of at least the clean control's (60.00)"),
        ((99.5, 90.1), Verdict.NOT_COMPARABLE, "99 wanted: the clean control reaches it"),
        ((60.8, 99.1), Verdict.CONFIRMED, "99.10 at the last epoch, 99 wanted"),
    ],
)
def test_a_network_that_cannot_fit_clean_data_is_judged_at_its_end(
    trained: tuple[float, float], level: Verdict, says: str
) -> None:
    runs = {
        LENET_CLEAN: ending(LENET_CLEAN, ENDS_AT_70, trained[0]),
        LENET: ending(LENET, ENDS_AT_22, trained[1]),
    }
    given = [claim("ops-t2-lenet5-ops"), claim("ops-t2-lenet5-clean")]
    ops, clean = judge_claims(given, make_result(runs, profile=PAPER), [OPS], Findings(), profile=PAPER, asked=given)
    assert ops.level.verdict is level, ops.level.reason
    assert says in ops.fitted
    assert clean.level.verdict is Verdict.CONFIRMED
    assert "kept: the whole schedule" in clean.fitted or clean.fitted == "99.50 at the last epoch, 99 wanted"


@pytest.mark.parametrize("profile", [PAPER, make_profile(power=Power.CONSISTENCY)])
@pytest.mark.parametrize("paper", ["uc", "le"])
def test_numbers_of_papers_with_another_protocol_are_at_most_consistent(paper: str, profile: Profile) -> None:
    given = claim(
        "ops-t2-resnet18-ops",
        paper=paper,
        protocol=next(each.protocol for each in CLAIMS.values() if each.paper == paper),
    )
    found = judged(given, {CLEAN: GOOD, POISONED: AS_PRINTED}, profile=profile)
    assert (found.level.verdict, found.effect.verdict) == (Verdict.CONSISTENT, Verdict.CONFIRMED)
    assert ("at most consistent: the paper's own protocol" in found.level.reason) is (profile is PAPER)
    off = judged(given, {CLEAN: GOOD, POISONED: (36.0, 36.5, 37.0, 36.0, 37.0)}, profile=profile)
    assert off.level.verdict is Verdict.NOT_CONSISTENT
    assert Verdict.REFUTED not in (off.level.verdict, off.effect.verdict)


def test_a_loss_that_was_not_finite_is_never_a_verdict() -> None:
    found = judged(claim("ops-t2-resnet18-ops"), {CLEAN: GOOD, POISONED: AS_PRINTED}, finite=False)
    assert found.level.verdict is found.effect.verdict is Verdict.NOT_COMPARABLE
    assert "finite loss" in found.level.reason
    assert not found.refuted


def test_one_seed_leaves_everything_open() -> None:
    found = judged(claim("ops-t2-resnet18-ops"), {CLEAN: GOOD[:1], POISONED: (90.0,)})
    assert found.level.verdict is found.effect.verdict is Verdict.INCONCLUSIVE


def test_a_shortened_profile_is_at_most_consistent() -> None:
    fast = make_profile(name="fast", power=Power.CONSISTENCY)
    found = judged(claim("ops-t2-resnet18-ops"), {CLEAN: GOOD, POISONED: AS_PRINTED}, profile=fast)
    assert (found.level.verdict, found.effect.verdict) == (Verdict.CONSISTENT, Verdict.CONFIRMED)
    other = judged(own(value=45.0), {CLEAN: GOOD, POISONED: AS_PRINTED}, profile=fast)
    assert other.level.verdict is Verdict.NOT_CONSISTENT
    assert not other.refuted


def test_sizes_are_counted_without_any_run() -> None:
    for result in (None, make_result({}, profile=SMOKE)):
        sizes = [c for c in CLAIMS.values() if c.regime is Regime.SIZE]
        wanted = what_is_wanted(sizes, [], [OPS], SMOKE)
        assert wanted.cells == ()
        found = judge_claims(sizes, result, [OPS], Findings(), profile=SMOKE, asked=[])
        assert {each.level.verdict for each in found} == {Verdict.CONFIRMED}
        assert found[0].measured == (pytest.approx(0.37, abs=0.005),)
        assert not any(each.stand_in or each.refuted for each in found)
        other = claim(sizes[0].id, value=0.5)
        (wrong,) = judge_claims([other], result, [OPS], Findings(), profile=SMOKE, asked=[])
        assert wrong.level.verdict is Verdict.REFUTED
        assert wrong.refuted


def test_what_was_not_run_says_why() -> None:
    given = claim("ops-t2-resnet18-ops")
    assert judged(given, {}, asked=False).level.reason == "not asked for: --claims ops-t2-resnet18-ops"
    assert judged(given, {}, asked=True).level.reason == "no run was finished"
    (found,) = judge_claims([given], None, [OPS], Findings(), profile=PAPER, asked=[given])
    assert (found.verdict, found.level.reason) == (Verdict.NOT_RUN, "no model was trained")


# Datasets that no paper speaks of


def test_a_dataset_that_is_not_the_papers_is_measured_and_not_judged() -> None:
    changed = dataclasses.replace(OPS, unjudged="it is not what the catalogue's recipe makes")
    given = claim("ops-t2-resnet18-ops")
    for values in (AS_PRINTED, (70.0, 71.0, 69.0, 70.5, 69.5)):
        found = judged(given, {CLEAN: GOOD, POISONED: values}, subjects=[changed])
        assert found.level.verdict is found.effect.verdict is Verdict.NOT_COMPARABLE
        assert found.level.reason == "it is not what the catalogue's recipe makes"
        assert found.measured == values
        assert not found.refuted


def test_ones_own_claims_about_it_are_judged() -> None:
    cell = Cell("mine", "resnet18", "standard")
    right, wrong = own(train_dataset="mine"), own(train_dataset="mine", value=60.0)
    assert judged(right, {CLEAN: GOOD, cell: AS_PRINTED}, subjects=[FOREIGN]).level.verdict is Verdict.CONFIRMED
    found = judged(wrong, {CLEAN: GOOD, cell: AS_PRINTED}, subjects=[FOREIGN])
    assert found.level.verdict is Verdict.REFUTED
    assert found.refuted


@pytest.mark.parametrize("subjects", [[FOREIGN], [FOREIGN, OPS], [OPS, FOREIGN]])
def test_clean_images_are_the_papers_whatever_was_made_of_them(subjects: list[Subject]) -> None:
    found = judged(claim("ops-t2-resnet18-clean"), {CLEAN: GOOD}, subjects=subjects)
    assert found.level.verdict is Verdict.CONFIRMED


@pytest.mark.parametrize(("changed", "verdict"), [("", Verdict.CONFIRMED), ("changed", Verdict.NOT_COMPARABLE)])
def test_an_analysis_speaks_of_what_it_evaluates_too(changed: str, verdict: Verdict) -> None:
    """A model trained on clean images, asked about those of another dataset."""
    given, subjects = claim("ops-t1-train_clean-test_ops"), [EM, dataclasses.replace(OPS, unjudged=changed)]
    tables = tuple(
        ShuffleTable(
            seed=seed,
            cells=(
                ShuffledCell(
                    trained_on="cifar10",
                    evaluated_on="ops-cifar10",
                    reading=None,
                    accuracies=(99.5,),
                    mean=99.5,
                    sd=None,
                ),
            ),
        )
        for seed in range(3)
    )
    findings = Findings(roles=roles_of_analyses(subjects, PAPER), found={"shuffled": tables})
    result = make_result({CLEAN: seeds_of(GOOD[:3], CLEAN)}, profile=PAPER)
    (found,) = judge_claims([given], result, subjects, findings, profile=PAPER, asked=[given])
    assert (found.measured, found.cell, found.best) == ((99.5,) * 3, CLEAN, ())
    assert found.level.verdict is verdict
    assert found.effect.verdict is Verdict.NOT_COMPARABLE
    (unasked,) = judge_claims([given], result, subjects, Findings(), profile=PAPER, asked=[given])
    assert unasked.level.verdict is Verdict.NOT_RUN


def test_no_claim_speaks_of_a_part_of_the_clean_images() -> None:
    assert isinstance(cell_of(claim("ops-t2-resnet18-clean"), [REDUCED], PAPER), str)
    assert isinstance(cell_of(claim("ops-t2-resnet18-em"), [REDUCED], PAPER), str)


# Statements

SIGMAS = STATEMENTS["ops-q-randpix-3sigma"]
RANDOM = Cell("randpix-cifar10", "resnet18", "standard")
WIDE = (50.0, 62.0, 40.0, 55.0, 45.0)


def told(result: GridResult | None, subjects: Sequence[Subject], statement: Any = SIGMAS) -> StatementResult:
    (found,) = judge_statements([statement], result, subjects, Findings())
    return found


def test_a_statement_is_judged_on_the_cells_it_speaks_of() -> None:
    near = seeds_of(WIDE, POISONED)
    refuted = told(make_result({POISONED: near, RANDOM: seeds_of(WIDE, RANDOM)}, profile=PAPER), [OPS, RANDPIX])
    assert refuted.judged.verdict is Verdict.REFUTED
    assert refuted.stand_ins == ()
    assert refuted.refuted
    tight = seeds_of((50.0, 50.1, 49.9, 50.2, 49.8), RANDOM)
    held = told(make_result({POISONED: seeds_of(AS_PRINTED, POISONED), RANDOM: tight}, profile=PAPER), [OPS, RANDPIX])
    assert held.judged.verdict is Verdict.CONFIRMED
    assert not held.refuted


def test_with_stand_ins_nothing_is_refuted_and_they_are_named() -> None:
    cells = [dataclasses.replace(cell, model="resnet18-w8") for cell in (POISONED, RANDOM)]
    found = told(make_result({cell: seeds_of(WIDE, cell) for cell in cells}, profile=SMOKE), [OPS, RANDPIX])
    assert found.judged.verdict is Verdict.REFUTED
    assert found.stand_ins == ("resnet18 = resnet18-w8",)
    assert not found.refuted


def test_reduced_datasets_are_named_where_they_are_spoken_of() -> None:
    linf = STATEMENTS["ops-q-linf-at-em"]
    cells = [Cell(name, "resnet18", "linf-at") for name in ("em-cifar10-small", "cifar10-first3")]
    result = make_result({cell: seeds_of((80.0, 81.0), cell) for cell in cells}, profile=PAPER)
    assert told(result, [REDUCED], linf).stand_ins == ("cifar10 = cifar10-first3", "em-cifar10 = em-cifar10-small")
    assert told(result, [REDUCED, OPS], linf).stand_ins == ("em-cifar10 = em-cifar10-small",)
    assert told(result, [REDUCED, OPS], SIGMAS).stand_ins == ()


def test_a_dataset_of_another_recipe_refutes_no_paper() -> None:
    changed = dataclasses.replace(OPS, unjudged="it is not what the catalogue's recipe makes")
    result = make_result({POISONED: seeds_of(WIDE, POISONED), RANDOM: seeds_of(WIDE, RANDOM)}, profile=PAPER)
    found = told(result, [changed, RANDPIX])
    assert found.stand_ins == ("ops-cifar10 = one of another recipe",)
    assert not found.refuted


def test_a_statement_about_nothing_that_was_trained_is_not_run() -> None:
    assert told(None, [OPS]).judged == Judged(verdict=Verdict.NOT_RUN, reason="no model was trained")
    assert told(make_result({CLEAN: seeds_of(GOOD, CLEAN)}, profile=PAPER), [OPS]).judged.verdict is Verdict.NOT_RUN


def test_every_statement_is_judged_once() -> None:
    result = make_result({CLEAN: seeds_of(GOOD, CLEAN), POISONED: seeds_of(AS_PRINTED, POISONED)}, profile=PAPER)
    found = judge_statements(STATEMENTS.values(), result, [OPS], Findings())
    assert [each.statement.id for each in found] == list(STATEMENTS)
    assert not any(each.refuted for each in found)
    analysed = [each for each in found if judging(each.statement.id)]
    assert {each.judged.verdict for each in analysed} == {Verdict.NOT_RUN}
    assert len(analysed) == 5


# Why nothing is decided


def test_what_is_open_says_why_and_what_is_decided_says_nothing() -> None:
    given = claim("ops-t2-resnet18-ops")
    decided = judged(given, {CLEAN: GOOD, POISONED: AS_PRINTED})
    assert (decided.verdict, decided.reason) == (Verdict.CONFIRMED, "")
    single = judged(given, {NARROW_CLEAN: (94.0,), NARROW: (15.0,)}, profile=SMOKE)
    assert (single.verdict, single.reason) == (Verdict.INCONCLUSIVE, "one seed: 15.00")
    size = judged(claim("ops-t3-wrn_28_1-params", model="alexnet"), {})
    assert size.reason == "there is no model alexnet here"
    cost = judged(claim("ops-text-cost-ops", metric="training time, s"), {})
    assert (cost.verdict, cost.reason) == (Verdict.NOT_RUN, "training time, s is not measured here")


def test_few_test_images_leave_number_and_effect_open() -> None:
    given, cells = claim("ops-t2-resnet18-ops"), {CLEAN: GOOD, POISONED: AS_PRINTED}
    result = make_result({cell: seeds_of(values, cell) for cell, values in cells.items()}, profile=PAPER)
    few = dataclasses.replace(result, num_test=dict.fromkeys(result.num_test, 40))
    (found,) = judge_claims([given], few, [OPS], Findings(), profile=PAPER, asked=[given])
    assert found.level.verdict is found.effect.verdict is found.verdict is Verdict.INCONCLUSIVE
    assert found.reason.startswith("tested on 40 images: at least 100 are needed for a verdict; otherwise: ")
