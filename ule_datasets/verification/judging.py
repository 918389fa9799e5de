"""From claims to the runs that they need, and from the runs back to a verdict on each claim."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ule_datasets.base.errors import InputError
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.experiments.grid import Cell, GridResult, Subject
from ule_datasets.experiments.profiles import Profile
from ule_datasets.models.architectures import MODELS, num_parameters
from ule_datasets.papers.claims import CLEAN_ACCURACY, Claim, Regime, Statement
from ule_datasets.papers.gates import Gate, after_gates, gates
from ule_datasets.papers.ops import BY_ANALYSIS
from ule_datasets.papers.rules import Power, judge_effect, judge_level
from ule_datasets.papers.statements import cells_of_statement, judge_statement
from ule_datasets.papers.statistics import Judged, Verdict

if TYPE_CHECKING:
    from ule_datasets.analyses.studies import Studies

CIFAR_CLASSES = 10
"""Of the images that the parameter counts of the papers are for."""
SHUFFLED_SETS = ("cifar10", "em-cifar10", "ops-cifar10")
"""Datasets of the table of shuffled perturbations: each is trained on, and evaluated on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimResult:
    """A number that a paper prints, what was measured, and what follows."""

    claim: Claim
    level: Judged
    """Whether the printed number comes out."""
    effect: Judged
    """Whether the statement behind it holds."""
    cell: Cell | None = None
    """What was trained for it; ``None``: nothing."""
    measured: tuple[float, ...] = ()
    """In the claim's unit, one per seed; accuracies after the last epoch."""
    best: tuple[float, ...] = ()
    """Accuracies after the best epoch: an oracle's."""
    control: tuple[float, ...] = ()
    """Of the same model and strategy on clean images."""
    gates: tuple[Gate, ...] = ()

    @property
    def stand_in(self) -> bool:
        """Whether another model was trained in place of the one that the claim names."""
        return self.cell is not None and self.cell.model != self.claim.model

    @property
    def verdict(self) -> Verdict:
        """On the number where that could be judged, else on the effect."""
        open_ = (Verdict.NOT_COMPARABLE, Verdict.NOT_RUN)
        return self.level.verdict if self.level.verdict not in open_ else self.effect.verdict

    @property
    def refuted(self) -> bool:
        """Whether number or effect is refuted, with the model that the claim speaks of."""
        return not self.stand_in and Verdict.REFUTED in (self.level.verdict, self.effect.verdict)


@dataclass(frozen=True, kw_only=True, slots=True)
class StatementResult:
    """A sentence of a paper, and what follows from the runs."""

    statement: Statement
    judged: Judged
    stand_ins: tuple[str, ...] = ()
    """Datasets or models that were measured in place of others, as ``paper's = ours``."""

    @property
    def refuted(self) -> bool:
        """Whether it is refuted, with the datasets and models that it speaks of."""
        return self.judged.verdict is Verdict.REFUTED and not self.stand_ins


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a set of claims and statements needs."""

    cells: tuple[Cell, ...]
    """Without controls."""
    weights: frozenset[Cell]
    """Whose trained models are looked at."""
    studies: frozenset[str]
    """Names of the analyses besides plain training."""
    open: Mapping[str, str]
    """Why a claim cannot be run here, by its id."""


def what_is_wanted(
    claims: Iterable[Claim], statements: Iterable[Statement], subjects: Sequence[Subject], profile: Profile,
    *, analyses: Iterable[str] = (),
) -> Wanted:  # fmt: skip
    """The cells that claims, statements and analyses need: each once, however many it serves."""
    cells: dict[Cell, None] = {}
    weights, studies, open_ = set(), set(analyses), {}
    for claim in claims:
        found = cell_of(claim, subjects, profile)
        if isinstance(found, str):
            open_[claim.id] = found
        elif found is not None:
            cells[found] = None
            if claim.regime is Regime.ANALYSIS:
                weights.add(found)
                studies.add("shuffled")
    roles = stand_ins(subjects, profile)
    for statement in statements:
        needed = _cells_for(statement, roles, subjects)
        cells.update(dict.fromkeys(needed))
        if statement.id in ("ops-q-landscape", "ops-q-finetune"):
            studies.add(statement.id.removeprefix("ops-q-"))
            weights.update(needed)
    if studies:
        model = profile.trained_for("resnet18") or "resnet18"
        played = {Cell(name, model, "standard"): None for name in study_roles(subjects, profile).values()}
        cells.update(played)
        weights.update(played)
    return Wanted(cells=tuple(cells), weights=frozenset(weights), studies=frozenset(studies), open=open_)


def cell_of(claim: Claim, subjects: Sequence[Subject], profile: Profile) -> Cell | str | None:
    """What a claim needs trained; ``None``: nothing; text: why it cannot be run."""
    if claim.regime is Regime.SIZE:
        return None if claim.model in MODELS else f"there is no model {claim.model} here"
    if claim.regime is Regime.COST:
        return "a time of making the dataset: see the timings in its manifest.json and craft.json"
    if claim.model not in MODELS:
        return f"there is no model {claim.model} here"
    model = profile.trained_for(claim.model)
    if model is None:
        return f"the {profile.name} profile trains {profile.stand_in} in place of resnet18, and no other model"
    try:
        strategy = parse_strategy(claim.strategy).name
    except InputError:
        return f"{claim.strategy} is no strategy of training here"
    if claim.variant:
        return f"a variant of a strategy that is not here: {claim.variant}"
    if claim.regime is Regime.ANALYSIS:
        needed = dict.fromkeys(shuffle_roles(claim))
        missing = [name for name in needed if subject_for(name, subjects) is None]
    elif claim.metric != CLEAN_ACCURACY:
        return f"{claim.metric} is not measured here"
    else:
        missing = [] if subject_for(claim.train_dataset, subjects) is not None else [claim.train_dataset]
    if missing:
        return f"{' and '.join(missing)} not at hand: build it with ule-build, or name its folder"
    return Cell(claim.train_dataset, model, strategy)


def subject_for(dataset: str, subjects: Sequence[Subject]) -> Subject | None:
    """The subject of that name, or one whose clean control has it."""
    return next((subject for subject in subjects if dataset in (subject.name, subject.control)), None)


def shuffle_roles(claim: Claim) -> tuple[str, str]:
    """(dataset trained on, dataset that the evaluated perturbations are from) of a claim of Table 1."""
    return claim.train_dataset, claim.test_dataset.removesuffix("-train").replace("-shuffled", "")


def stand_ins(subjects: Sequence[Subject], profile: Profile) -> dict[str, str]:
    """Catalogue slug to what is measured in its place: reduced datasets, and the profile's narrow model."""
    names = {name for subject in subjects for name in (subject.name, subject.control)}
    roles = {} if profile.stand_in is None else {"resnet18": profile.stand_in}
    for subject in subjects:
        if subject.stands_for and subject.stands_for not in names:
            roles.setdefault(subject.stands_for, subject.name)
        if subject.control != subject.source and subject.source not in names:
            roles.setdefault(subject.source, subject.control)
    return roles


def study_roles(subjects: Sequence[Subject], profile: Profile) -> dict[str, str]:
    """Which datasets play clean, EM and OPS images in the analyses: themselves, or reduced ones."""
    roles = stand_ins(subjects, profile)
    found = {slug: roles.get(slug, slug) for slug in SHUFFLED_SETS}
    return {slug: name for slug, name in found.items() if subject_for(name, subjects) is not None}


def judge_claims(
    claims: Iterable[Claim], result: GridResult | None, subjects: Sequence[Subject], studies: Studies,
    *, profile: Profile, asked: Iterable[Claim],
) -> tuple[ClaimResult, ...]:  # fmt: skip
    """A verdict on every claim; those that were not run say why: ``asked`` are those that were to be."""
    wanted = {claim.id for claim in asked}
    return tuple(_judge_claim(claim, result, subjects, studies, profile, claim.id in wanted) for claim in claims)


def judge_statements(
    statements: Iterable[Statement], result: GridResult | None, subjects: Sequence[Subject], studies: Studies
) -> tuple[StatementResult, ...]:
    """A verdict on every statement; with stand-ins it speaks of those, and says so."""
    if result is None:
        open_ = Judged(verdict=Verdict.NOT_RUN, reason="no model was trained")
        return tuple(StatementResult(statement=statement, judged=open_) for statement in statements)
    roles = stand_ins(subjects, result.profile)
    lost = {run.seed for run in result.lost}  # values at one position must be of one seed
    kept = dataclasses.replace(result, runs=tuple(run for run in result.runs if run.seed not in lost))
    cells = {(run.cell.dataset, run.cell.model, run.cell.strategy): kept.accuracies(run.cell) for run in kept.runs}
    found = []
    for statement in statements:
        slugs = {name for cell in slugs_of(statement) for name in cell[:2]}
        replaced = {f"{slug} = {roles[slug]}" for slug in slugs & roles.keys()}
        changed = {f"{s.name} = one of another recipe" for s in subjects if s.unjudged and s.name in slugs}
        if statement.id in BY_ANALYSIS:
            judged = studies.judged(statement.id)
        else:
            judged = judge_statement(statement.id, cells, chance=result.chance, roles=roles)
        found.append(StatementResult(statement=statement, judged=judged, stand_ins=tuple(sorted(replaced | changed))))
    return tuple(found)


def _judge_claim(
    claim: Claim, result: GridResult | None, subjects: Sequence[Subject], studies: Studies, profile: Profile,
    asked: bool,
) -> ClaimResult:  # fmt: skip
    cell = cell_of(claim, subjects, profile)
    if isinstance(cell, str):
        return _open(claim, Verdict.NOT_RUN, cell)
    if claim.regime is Regime.SIZE:
        millions = (num_parameters(claim.model, CIFAR_CLASSES) / 1e6,)
        level = judge_level(claim, millions, power=Power.FULL)
        return ClaimResult(claim=claim, level=level, effect=_no_effect(claim), measured=millions)
    if result is None:
        return _open(claim, Verdict.NOT_RUN, "no model was trained")
    assert isinstance(cell, Cell)
    subject = subject_for(claim.train_dataset, subjects)
    assert subject is not None
    histories, values = result.histories(cell), result.accuracies(cell)
    if not histories:
        return _open(claim, Verdict.NOT_RUN, "no run was finished" if asked else f"not asked for: --claims {claim.id}")
    control_cell = Cell(subject.control, cell.model, cell.strategy)
    control = () if claim.regime is Regime.BASELINE else result.accuracies(control_cell)
    if claim.regime is Regime.ANALYSIS:
        values, control = studies.shuffled_values(claim), ()
        if not values:
            return _open(claim, Verdict.NOT_RUN, f"not asked for: --claims {claim.id}")
    stood_in = cell.model != claim.model
    named = shuffle_roles(claim) if claim.regime is Regime.ANALYSIS else (claim.train_dataset,)
    changed = [each.unjudged for each in subjects if each.unjudged and each.name in named]
    unjudged = changed[0] if changed and _in_a_paper(claim) else ""
    power = result.profile.power
    conditions = gates(
        claim,
        train_accuracies=[history.last.train_accuracy for history in histories],
        control_values=control or None,
        finite=all(history.finite for history in histories),
        num_parameters=histories[0].num_parameters,
        expected_parameters=num_parameters(cell.model, result.num_classes),
        fingerprint_ok=not unjudged,
        power=power,
    )
    level = after_gates(judge_level(claim, values, power=power), conditions, level=True)
    effect = _effect(claim, values, control, result, stood_in)
    if unjudged:
        level = effect = Judged(verdict=Verdict.NOT_COMPARABLE, reason=unjudged)
    return ClaimResult(
        claim=claim, level=level, effect=after_gates(effect, conditions, level=False), cell=cell, measured=values,
        best=() if claim.regime is Regime.ANALYSIS else tuple(history.best.test_accuracy for history in histories),
        control=control, gates=conditions,
    )  # fmt: skip


def _effect(
    claim: Claim, values: Sequence[float], control: Sequence[float], result: GridResult, stood_in: bool
) -> Judged:
    """A narrow model in place of the paper's shows a collapse or a baseline that learns, and nothing finer."""
    if claim.regime is Regime.ANALYSIS:
        return _no_effect(claim)
    if stood_in and claim.regime not in (Regime.COLLAPSED, Regime.BASELINE):
        reason = f"the {result.profile.name} profile shows whether there is a collapse, not how much is recovered"
        return Judged(verdict=Verdict.NOT_RUN, reason=reason)
    return judge_effect(claim, values, control, chance=result.chance)


def _in_a_paper(claim: Claim) -> bool:
    """Whether it is one of the catalogue's, not a user's own."""
    from ule_datasets.papers.claims import all_claims

    return claim.id in all_claims()


def _open(claim: Claim, verdict: Verdict, reason: str) -> ClaimResult:
    judged = Judged(verdict=verdict, reason=reason)
    return ClaimResult(claim=claim, level=judged, effect=judged)


def _no_effect(claim: Claim) -> Judged:
    return Judged(verdict=Verdict.NOT_COMPARABLE, reason=f"a claim of kind {claim.regime} has a level and no effect")


def slugs_of(statement: Statement) -> tuple[tuple[str, str, str], ...]:
    """The cells that a statement speaks of, in the catalogue's names."""
    if statement.id in BY_ANALYSIS:
        return tuple((name, "resnet18", "standard") for name in BY_ANALYSIS[statement.id])
    return cells_of_statement(statement.id)


def _cells_for(statement: Statement, roles: Mapping[str, str], subjects: Sequence[Subject]) -> tuple[Cell, ...]:
    """The cells of a statement that can be trained here."""
    found = []
    for dataset, model, strategy in slugs_of(statement):
        name, actual = roles.get(dataset, dataset), roles.get(model, model)
        if subject_for(name, subjects) is not None and actual in MODELS:
            found.append(Cell(name, actual, strategy))
    stood_in = "resnet18" in roles
    return tuple(cell for cell in found if not stood_in or cell.model == roles["resnet18"])
