"""What every analysis in the table keeps to; a new one is covered by its row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from made_up import CPU, Listener, make_profile, make_result, make_subject
from typer.testing import CliRunner

from ule_datasets.analyses import ANALYSES
from ule_datasets.analyses.analysis import Analysis, Material
from ule_datasets.analyses.findings import OPTIONAL, Findings, analyse
from ule_datasets.analyses.telling import Cell, Contours, Curves, Section
from ule_datasets.cli.verify import app
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.experiments.grid import Cell as RunCell
from ule_datasets.experiments.grid import Grid, train_grid
from ule_datasets.experiments.runs import RunStore
from ule_datasets.papers.claims import all_claims
from ule_datasets.papers.rules import Power
from ule_datasets.papers.statistics import Verdict
from ule_datasets.verification.report.content import _plain

pytestmark = pytest.mark.usefixtures("one_thread")

MODEL = "convnet3-w16"
PROFILE = make_profile(stand_in=MODEL, power=Power.NONE, epochs=2, max_train_images=20, max_test_images=12)
DATASETS = ("cifar10", "em-cifar10", "ops-cifar10")
every = pytest.mark.parametrize("analysis", ANALYSES.values(), ids=list(ANALYSES))


def made_grid() -> Grid:
    subjects = tuple(make_subject(name, num_classes=10, draw=3) for name in DATASETS[1:])
    cells = tuple(RunCell(name, MODEL, "standard") for name in DATASETS)
    return Grid(subjects=subjects, cells=cells, seeds=(0,), profile=PROFILE, device=CPU, keep_weights=frozenset(cells))


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three models that were really trained, of one seed."""
    grid, store = made_grid(), RunStore(tmp_path_factory.mktemp("runs"))
    with LocalExecutor(1) as executor:
        result = train_grid(grid, store=store, executor=executor, reporter=Listener())
        yield Material(
            grid=grid,
            result=result,
            roles={name: name for name in DATASETS},
            store=store,
            executor=executor,
            reporter=Listener(),
        )


@pytest.fixture(scope="module")
def findings(material: Material) -> Findings:
    return analyse(material, OPTIONAL)


def check_section(section: Section, analysis: Analysis[Any]) -> None:
    assert section.table.columns
    assert section.table.rows
    for row in section.table.rows:
        assert len(row) == len(section.table.columns)
        for cell in row:
            assert isinstance(cell, get_args(Cell)[:3]) or all(isinstance(line, str) for line in cell), cell
    assert isinstance(section.chart, Curves | Contours) is analysis.draws
    assert section.chart is None or section.chart.alt


@every
def test_it_says_what_it_asks_and_how_to_ask_for_it(analysis: Analysis[Any]) -> None:
    assert analysis.__doc__
    assert type(analysis).__doc__ != Analysis.__doc__
    assert analysis.title
    assert analysis.name.isidentifier()
    assert analysis.key.isidentifier()
    shown = " ".join(CliRunner().invoke(app, ["--help"]).output.split())
    assert analysis.always or analysis.name in shown[shown.index("--analyses") :]


@every
def test_what_it_names_is_known(analysis: Analysis[Any]) -> None:
    spoken_of = {claim.train_dataset for claim in all_claims().values()}
    for slugs in (analysis.roles, *analysis.statements.values()):
        assert set(slugs) <= spoken_of
    assert [other.name for other in ANALYSES.values() if other.key == analysis.key] == [analysis.name]


@every
def test_the_same_is_found_twice(analysis: Analysis[Any], material: Material, findings: Findings) -> None:
    found = findings.found[analysis.name]
    assert found, "the contract needs something to look at"
    assert analysis.run(material) == found


@every
def test_what_is_found_goes_into_json_and_is_told(
    analysis: Analysis[Any], material: Material, findings: Findings
) -> None:
    found = findings.found[analysis.name]
    text = json.dumps(_plain(findings.content)[analysis.key], allow_nan=False)
    assert json.loads(text) == _plain(found)
    check_section(findings.sections(material.result)[analysis.name], analysis)


@every
def test_it_judges_its_statements_and_measures_its_claims(analysis: Analysis[Any], findings: Findings) -> None:
    found = findings.found[analysis.name]
    for statement in analysis.statements:
        judged = findings.judged(statement)
        assert judged == analysis.judge(found, statement, findings.roles)
        assert judged.reason
        assert judged.verdict is Verdict.INCONCLUSIVE, "one seed decides nothing"
    for claim in all_claims().values():
        if slugs := analysis.speaks_of(claim):
            values = analysis.values(found, claim, findings.roles)
            assert len(values) == (1 if set(slugs) <= findings.roles.keys() else 0), claim.id


@every
def test_where_nothing_was_trained_nothing_is_found(analysis: Analysis[Any], tmp_path: Path) -> None:
    if not analysis.roles and not analysis.always:
        pytest.skip("it trains what it looks at")
    with LocalExecutor(1) as executor:
        for roles in ({}, {name: name for name in DATASETS}):
            bare = Material(
                grid=made_grid(),
                result=make_result({}, profile=PROFILE),
                roles=roles,
                store=RunStore(tmp_path),
                executor=executor,
                reporter=Listener(),
            )
            assert analysis.run(bare) == analysis.nothing


@every
def test_nothing_is_told_of_nothing(analysis: Analysis[Any]) -> None:
    assert not analysis.nothing
    assert analysis.name not in Findings().sections(make_result({}, profile=PROFILE))
    assert Findings().content[analysis.key] == analysis.nothing
    for statement in analysis.statements:
        assert Findings().judged(statement).verdict is Verdict.NOT_RUN
    claims = [claim for claim in all_claims().values() if analysis.speaks_of(claim)]
    assert not any(analysis.values(analysis.nothing, claim, {}) for claim in claims)
