"""What every paper in the table keeps to: its file, its claims and its statements."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from made_up import make_subject

import cards
from ule_datasets.analyses import ANALYSES
from ule_datasets.analyses.findings import measuring
from ule_datasets.experiments.grid import Cell
from ule_datasets.experiments.profiles import PROFILES
from ule_datasets.experiments.subject import Subject
from ule_datasets.papers.claims import FOLDER, PAPERS, Claim, Regime, all_claims, papers, statements
from ule_datasets.papers.rules import Power, judge_effect, judge_level
from ule_datasets.papers.statements import COMPARISONS
from ule_datasets.papers.statistics import Verdict
from ule_datasets.verification.judging import cell_of, cells_of, datasets_of
from ule_datasets.verification.lacking import lacking

PAPER = PROFILES["paper"]
SAYS_WHY = (
    "there is no model {model} here",
    "{strategy} is no strategy of training here",
    "a variant of a strategy that is not here: {variant}",
    "{metric} is not measured here",
    "a time of making the dataset, which takes long",
)
"""How a claim that cannot be run here is told, with the word that is not known."""


def claims_of(paper: str) -> list[Claim]:
    return [claim for claim in all_claims().values() if claim.paper == paper]


def statements_of(paper: str) -> list[str]:
    return [id for id, statement in statements().items() if statement.paper == paper]


def subjects_for(claim: Claim) -> list[Subject]:
    """Everything that a claim speaks of, at hand."""
    return [make_subject(name, num_classes=10, source=f"clean {name}") for name in datasets_of(claim)]


def test_every_file_beside_the_glossary_is_in_the_table() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == {*PAPERS, "glossary"}


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_says_who_it_is_and_can_be_cited(paper: str) -> None:
    found = papers()[paper]
    assert (found.key, bool(found.title), bool(found.venue)) == (paper, True, True)
    bibliography = (Path(cards.__file__).parent / "citations.bib").read_text(encoding="utf-8")
    assert f"https://arxiv.org/abs/{found.arxiv}}}" in bibliography


@pytest.mark.parametrize("paper", PAPERS)
def test_every_claim_has_a_cell_or_names_what_is_not_here(paper: str) -> None:
    assert claims_of(paper)
    for claim in claims_of(paper):
        assert claim.id.startswith(f"{paper}-")
        found = cell_of(claim, subjects_for(claim), PAPER)
        if isinstance(found, str):
            assert any(found.startswith(words.format(**dataclasses.asdict(claim))) for words in SAYS_WHY), found
        elif found is None:
            assert claim.regime is Regime.SIZE
        else:
            assert (found.dataset, found.model) == (claim.train_dataset, claim.model)
            absent = cell_of(claim, [], PAPER)
            assert isinstance(absent, str)
            assert claim.train_dataset in absent


@pytest.mark.parametrize("paper", PAPERS)
def test_what_a_claim_waits_for_is_why_it_has_no_cell(paper: str) -> None:
    for claim in claims_of(paper):
        waits = lacking(claim, [claim.train_dataset])
        found = cell_of(claim, subjects_for(claim), PAPER)
        if not waits:
            assert claim.regime is Regime.COST or not isinstance(found, str), found
        else:
            assert isinstance(found, str)
            assert any(word.partition(" ")[2] in found for word in waits), (waits, found)
        assert lacking(claim, []) == (
            *waits,
            *([] if claim.regime is Regime.SIZE else [f"dataset {claim.train_dataset}"]),
        )


@pytest.mark.parametrize("paper", PAPERS)
def test_every_claim_is_confirmed_by_what_it_prints_and_by_nothing_far_away(paper: str) -> None:
    for claim in claims_of(paper):
        runs = [claim.value] if claim.regime is Regime.SIZE else [claim.value] * 9
        timed = claim.regime is not Regime.COST or claim.metric.endswith(", s")
        wanted = Verdict.CONFIRMED if timed else Verdict.NOT_COMPARABLE
        if claim.std is None:
            assert judge_level(claim, runs, power=Power.FULL).verdict is wanted, claim.id
        far = [value * 5 + 50 for value in runs]
        assert judge_level(claim, far, power=Power.FULL).verdict is not Verdict.CONFIRMED, claim.id


@pytest.mark.parametrize("paper", PAPERS)
def test_the_effect_of_every_claim_holds_for_what_its_own_paper_prints(paper: str) -> None:
    for claim in claims_of(paper):
        if claim.regime in (Regime.COLLAPSED, Regime.RECOVERED) and claim.std is None:
            assert claim.clean_reference is not None
            assert claim.chance is not None
            runs, control = [claim.value] * 30, [claim.clean_reference] * 3
            judged = judge_effect(claim, runs, control, chance=claim.chance)
            assert judged.verdict is not Verdict.REFUTED, f"{claim.id}: {judged.reason}"


@pytest.mark.parametrize("paper", PAPERS)
def test_every_statement_is_judged_in_one_place_and_speaks_of_what_is_known(paper: str) -> None:
    for id in statements_of(paper):
        places = [id in COMPARISONS, *(id in analysis.statements for analysis in ANALYSES.values())]
        assert places.count(True) == 1, id
        cells = cells_of(statements()[id])
        assert cells
        assert len(set(cells)) == len(cells)
        for dataset, model, strategy in cells:
            assert dataset in {claim.train_dataset for claim in claims_of(paper)}
            wanted = next(claim for claim in all_claims().values() if claim.paper == paper)
            known = dataclasses.replace(
                wanted,
                train_dataset=dataset,
                model=model,
                strategy=strategy,
                variant="",
                metric="clean test accuracy, %",
                regime=Regime.COLLAPSED,
            )
            assert cell_of(known, subjects_for(known), PAPER) == Cell(dataset, model, strategy)


def test_nothing_is_judged_that_no_paper_says() -> None:
    judged = [*COMPARISONS, *(id for analysis in ANALYSES.values() for id in analysis.statements)]
    assert sorted(judged) == sorted(statements())


def test_claims_that_analyses_measure_are_told_apart_from_accuracies() -> None:
    for claim in all_claims().values():
        assert (measuring(claim) is not None) == (claim.regime is Regime.ANALYSIS), claim.id
