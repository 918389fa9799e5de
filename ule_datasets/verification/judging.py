"""From claims to the runs that they need, and from the runs back to a verdict on each claim."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ule_datasets.analyses import ANALYSES
from ule_datasets.analyses.analysis import MODEL, STRATEGY, standard_cell
from ule_datasets.analyses.findings import ROLES, Findings, judging, measuring
from ule_datasets.base.content import content
from ule_datasets.base.errors import InputError
from ule_datasets.countermeasures import alternatives, parse_strategy
from ule_datasets.experiments.effect import too_few_tested
from ule_datasets.experiments.grid import Cell, GridResult
from ule_datasets.experiments.profiles import Profile
from ule_datasets.experiments.subject import Subject
from ule_datasets.models.architectures import MODELS, num_parameters
from ule_datasets.papers.claims import CLEAN_ACCURACY, WITHOUT_EFFECT, Claim, Regime, Statement, all_claims
from ule_datasets.papers.gates import TRAINING, Gate, Trained, after_gates, gates, power_for
from ule_datasets.papers.rules import Power, judge_effect, judge_level
from ule_datasets.papers.statements import cells_of_statement, judge_statement
from ule_datasets.papers.statistics import Judged, Verdict
from ule_datasets.verification.costs import Timing, judge_cost
from ule_datasets.victims.history import RunHistory

MAKING = "generation time, s"
"""What claims call the time of making a dataset."""
UNDECIDABLE = (Verdict.NOT_COMPARABLE, Verdict.NOT_RUN)
"""Nothing was measured that a verdict could follow from."""
CIFAR_CLASSES = 10
"""Of the images that the parameter counts of the papers are for."""


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
    timings: tuple[Timing, ...] = ()
    """Of making the dataset, where the number is a time."""

    @property
    def fitted(self) -> str:
        """How far the training data was fitted, and by which rule that is enough or not; empty: it was not asked."""
        return next((gate.detail for gate in self.gates if gate.name == TRAINING), "")

    @property
    def stand_in(self) -> bool:
        """Whether another model was trained in place of the one that the claim names."""
        return self.cell is not None and self.cell.model != self.claim.model

    @property
    def verdict(self) -> Verdict:
        """On the number where that could be judged, else on the effect."""
        return self._decisive.verdict

    @property
    def reason(self) -> str:
        """Why nothing was decided, by number or effect; empty: it was."""
        open_ = self._decisive.verdict in (*UNDECIDABLE, Verdict.INCONCLUSIVE)
        return self._decisive.reason if open_ else ""

    @property
    def _decisive(self) -> Judged:
        """Of the two the one that counts; of claims without an effect, that on the number."""
        by_number = self.level.verdict not in UNDECIDABLE or self.claim.regime in WITHOUT_EFFECT
        return self.level if by_number else self.effect

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
    analyses: frozenset[str]
    """Names of those besides plain training."""
    timed: tuple[str, ...]
    """Datasets that are made again, for the time that takes."""
    open: Mapping[str, str]
    """Why a claim cannot be run here, by its id."""


def what_is_wanted(
    claims: Iterable[Claim],
    statements: Iterable[Statement],
    subjects: Sequence[Subject],
    profile: Profile,
    *,
    analyses: Iterable[str] = (),
) -> Wanted:
    """The cells that claims, statements and analyses need: each once, however many it serves."""
    cells: dict[Cell, None] = {}
    weights, made, open_ = set(), set(analyses), {}
    timed: dict[str, None] = {}
    for claim in (each for written in claims for each in _alternatives(written)):
        found = cell_of(claim, subjects, profile)
        if isinstance(found, str):
            open_[claim.id] = found
        elif claim.regime is Regime.COST:
            timed[claim.train_dataset] = None
        elif found is not None:
            cells[found] = None
            if (measured_by := measuring(claim)) is not None:
                weights.add(found)
                made.add(measured_by.name)
    roles = stand_ins(subjects, profile)
    for statement in statements:
        needed = _cells_for(statement, roles, subjects)
        cells.update(dict.fromkeys(needed))
        judged_by = judging(statement.id)
        if judged_by is not None and not judged_by.always:
            made.add(judged_by.name)
            weights.update(needed)
    looked_at = {slug for name in made for slug in ANALYSES[name].roles}
    played = [name for slug, name in roles_of_analyses(subjects, profile).items() if slug in looked_at]
    standard = [standard_cell(name, profile) for name in played]
    cells.update(dict.fromkeys(standard))
    weights.update(standard)
    return Wanted(
        cells=tuple(cells),
        weights=frozenset(weights),
        analyses=frozenset(made),
        timed=tuple(timed),
        open=open_,
    )


def cell_of(claim: Claim, subjects: Sequence[Subject], profile: Profile) -> Cell | str | None:
    """What a claim needs trained, of an oracle's choice the first; ``None``: nothing; text: why it cannot be run."""
    if claim.regime is Regime.SIZE:
        return None if claim.model in MODELS else f"there is no model {claim.model} here"
    if claim.regime is Regime.COST:
        return _why_not_timed(claim, subjects)
    if claim.model not in MODELS:
        return f"there is no model {claim.model} here"
    model = profile.trained_for(claim.model)
    if model is None:
        return f"the {profile.name} profile trains {profile.stand_in} in place of resnet18, and no other model"
    try:
        strategy = parse_strategy(alternatives(claim.strategy)[0]).name
    except InputError:
        return f"{claim.strategy} is no strategy of training here"
    if claim.variant:
        return f"a variant of a strategy that is not here: {claim.variant}"
    if claim.regime is not Regime.ANALYSIS and claim.metric != CLEAN_ACCURACY:
        return f"{claim.metric} is not measured here"
    missing = [name for name in datasets_of(claim) if subject_for(name, subjects) is None]
    if missing:
        return _not_at_hand(*missing)
    return Cell(claim.train_dataset, model, strategy)


def _why_not_timed(claim: Claim, subjects: Sequence[Subject]) -> str | None:
    """Why the time that a claim speaks of cannot be taken; ``None``: it can."""
    if claim.metric != MAKING:
        return f"{claim.metric} is not measured here"
    subject = next((subject for subject in subjects if subject.name == claim.train_dataset), None)
    if subject is None:
        return _not_at_hand(claim.train_dataset)
    if subject.remake is None:
        return "a time of making the dataset, which takes long: not repeated here, ule-build says how long it took"
    return None


def _not_at_hand(*names: str) -> str:
    return f"{' and '.join(names)} not at hand: build it with ule-build, or name its folder"


def subject_for(dataset: str, subjects: Sequence[Subject]) -> Subject | None:
    """The subject of that name, or one whose clean control has it."""
    return next((subject for subject in subjects if dataset in (subject.name, subject.control)), None)


def datasets_of(claim: Claim) -> tuple[str, ...]:
    """What a claim speaks of, each once: the dataset trained on, and those that an analysis looks at besides."""
    analysis = measuring(claim)
    return (claim.train_dataset,) if analysis is None else tuple(dict.fromkeys(analysis.speaks_of(claim)))


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


def roles_of_analyses(subjects: Sequence[Subject], profile: Profile) -> dict[str, str]:
    """Which datasets play those that analyses look at: themselves, or reduced ones."""
    roles = stand_ins(subjects, profile)
    found = {slug: roles.get(slug, slug) for slug in ROLES}
    return {slug: name for slug, name in found.items() if subject_for(name, subjects) is not None}


def judge_claims(
    claims: Iterable[Claim],
    result: GridResult | None,
    subjects: Sequence[Subject],
    findings: Findings,
    *,
    profile: Profile,
    asked: Iterable[Claim],
    timings: Mapping[str, tuple[Timing, ...]] | None = None,
) -> tuple[ClaimResult, ...]:
    """A verdict on every claim; those that were not run say why: ``asked`` are those that were to be.

    ``timings`` are those of making the datasets that claims need timed, by name.
    """
    wanted = {claim.id for claim in asked}
    found = []
    for claim in claims:
        if claim.regime is Regime.COST:
            found.append(_judge_time(claim, subjects, (timings or {}).get(claim.train_dataset, ())))
        else:
            tried = [
                _judge_claim(one, result, subjects, findings, profile, claim.id in wanted)
                for one in _alternatives(claim)
            ]
            found.append(tried[0] if len(tried) == 1 else _best_of(claim, tried))
    return tuple(found)


def judge_statements(
    statements: Iterable[Statement], result: GridResult | None, subjects: Sequence[Subject], findings: Findings
) -> tuple[StatementResult, ...]:
    """A verdict on every statement; with stand-ins it speaks of those, and says so."""
    if result is None:
        open_ = Judged(Verdict.NOT_RUN, "no model was trained")
        return tuple(StatementResult(statement=statement, judged=open_) for statement in statements)
    roles = stand_ins(subjects, result.profile)
    lost = {run.seed for run in result.lost}  # values at one position must be of one seed
    kept = dataclasses.replace(result, runs=tuple(run for run in result.runs if run.seed not in lost))
    cells = {(run.cell.dataset, run.cell.model, run.cell.strategy): kept.accuracies(run.cell) for run in kept.runs}
    found = []
    for statement in statements:
        slugs = {name for cell in cells_of(statement) for name in cell[:2]}
        replaced = {f"{slug} = {roles[slug]}" for slug in slugs & roles.keys()}
        changed = {f"{s.name} = one of another recipe" for s in subjects if s.unjudged and s.name in slugs}
        if judging(statement.id) is not None:
            judged = findings.judged(statement.id)
        else:
            trained = (roles.get(name, name) for name, *_ in cells_of(statement))
            chance = next((result.chance(name) for name in trained if name in result.num_classes), 0.0)
            judged = judge_statement(statement.id, cells, chance=chance, roles=roles)
        found.append(StatementResult(statement=statement, judged=judged, stand_ins=tuple(sorted(replaced | changed))))
    return tuple(found)


def _judge_claim(
    claim: Claim,
    result: GridResult | None,
    subjects: Sequence[Subject],
    findings: Findings,
    profile: Profile,
    asked: bool,
) -> ClaimResult:
    cell = cell_of(claim, subjects, profile)
    if isinstance(cell, str):
        return _open(claim, cell)
    if cell is None:  # parameters are counted, and nothing is trained
        millions = (num_parameters(claim.model, CIFAR_CLASSES) / 1e6,)
        level = judge_level(claim, millions, power=Power.FULL)
        return ClaimResult(
            claim=claim, level=level, effect=judge_effect(claim, millions, (), chance=0), measured=millions
        )
    if result is None:
        return _open(claim, "no model was trained")
    if not result.histories(cell):
        return _open(claim, "no run was finished" if asked else f"not asked for: --claims {claim.id}")
    if measuring(claim) is None:
        return _judge_runs(claim, cell, result.accuracies(cell), result, subjects)
    values = findings.values(claim)
    if not values:
        return _open(claim, f"not asked for: --claims {claim.id}")
    return dataclasses.replace(_judge_runs(claim, cell, values, result, subjects), best=(), control=())


def _alternatives(claim: Claim) -> tuple[Claim, ...]:
    """The claim; where its strategy is an oracle's choice, the same number said of each that it chooses among."""
    slugs = alternatives(claim.strategy)
    return (claim,) if slugs == (claim.strategy,) else tuple(dataclasses.replace(claim, strategy=s) for s in slugs)


def _best_of(claim: Claim, tried: Sequence[ClaimResult]) -> ClaimResult:
    """What follows for an oracle's choice: all that it chooses among were trained, and the best of them counts."""
    slugs = " and ".join(one.claim.strategy for one in tried)
    for one in tried:
        if not one.measured:
            reason = one.level.reason
            return _open(
                claim, f"{claim.strategy} is the better of {slugs}, and {one.claim.strategy} is open: {reason}"
            )
    best = max(tried, key=lambda one: float(np.nan_to_num(np.mean(one.measured), nan=-1.0)))
    words = f"; an oracle's choice: of {slugs} by clean test accuracy, here {best.claim.strategy}"
    level, effect = (Judged(each.verdict, each.reason + words) for each in (best.level, best.effect))
    return dataclasses.replace(best, claim=claim, level=level, effect=effect)


def _judge_time(claim: Claim, subjects: Sequence[Subject], timings: tuple[Timing, ...]) -> ClaimResult:
    """Of making a dataset: a level, and no effect."""
    if (reason := _why_not_timed(claim, subjects)) is not None:
        return _open(claim, reason)
    if not timings:
        return _open(claim, f"not asked for: --claims {claim.id}")
    subject = next(subject for subject in subjects if subject.name == claim.train_dataset)
    published = not subject.unjudged or claim.id not in all_claims()
    level, conditions = judge_cost(claim, timings, fingerprint_ok=published)
    seconds = tuple(each.seconds for each in timings)
    effect = judge_effect(claim, seconds, (), chance=0)
    return ClaimResult(claim=claim, level=level, effect=effect, measured=seconds, gates=conditions, timings=timings)


def _judge_runs(
    claim: Claim, cell: Cell, values: tuple[float, ...], result: GridResult, subjects: Sequence[Subject]
) -> ClaimResult:
    """Level and effect of what was measured, as far as the gates let them through."""
    subject = subject_for(claim.train_dataset, subjects)
    assert subject is not None
    histories, clean = result.histories(cell), dataclasses.replace(cell, dataset=subject.control)
    controlled = claim.regime not in (Regime.BASELINE, Regime.ANALYSIS)
    control = result.accuracies(clean) if controlled else ()
    changed = [each.unjudged for each in subjects if each.unjudged and each.name in datasets_of(claim)]
    unjudged = changed[0] if changed and claim.id in all_claims() else ""  # a user's own claims are about anything
    power, limit = power_for(claim, result.profile.power, content(histories[0].protocol))
    expected = num_parameters(cell.model, result.num_classes[cell.dataset]) if cell.model in MODELS else None
    conditions = gates(
        claim,
        training=_training(histories),
        control_training=None if cell == clean else _training(result.histories(clean)),
        control_values=control or None,
        finite=all(history.finite for history in histories),
        num_parameters=histories[0].num_parameters,
        expected_parameters=expected,
        fingerprint_ok=not unjudged,
        power=power,
    )
    level = judge_level(claim, values, power=power)
    if limit:
        level = Judged(level.verdict, f"{level.reason}; {limit}")
    level = _read_otherwise(after_gates(level, conditions, level=True), claim, result, subjects)
    if unjudged:
        level = effect = Judged(Verdict.NOT_COMPARABLE, unjudged)
    elif power is Power.NONE and cell.model != claim.model and claim.regime in (Regime.PARTIAL, Regime.RECOVERED):
        reason = f"the {result.profile.name} profile shows whether there is a collapse, not how much is recovered"
        effect = Judged(Verdict.NOT_RUN, reason)
    else:
        effect = judge_effect(claim, values, control, chance=result.chance(cell.dataset))
    few = too_few_tested(result.num_test[cell.dataset])
    return ClaimResult(
        claim=claim,
        level=_of_few(level, few),
        effect=_of_few(after_gates(effect, conditions, level=False), few),
        cell=cell,
        measured=values,
        best=tuple(history.best.accuracy for history in histories),
        control=control,
        gates=conditions,
    )


def _of_few(judged: Judged, few: str) -> Judged:
    """A verdict where nothing follows from so few test images (``few`` says so in words, empty: there are enough)."""
    if not few or judged.verdict in UNDECIDABLE:
        return judged
    return Judged(Verdict.INCONCLUSIVE, f"{few}; otherwise: {judged.reason}")


def _read_otherwise(level: Judged, claim: Claim, result: GridResult, subjects: Sequence[Subject]) -> Judged:
    """A verdict beside those on other datasets that the number may be about: refuted only where all are."""
    if measuring(claim) is not None:
        return level
    verdict, reason = level.verdict, level.reason
    for name in claim.readings:
        other = dataclasses.replace(claim, train_dataset=name, readings=())
        found = _judge_claim(other, result, subjects, Findings(), result.profile, asked=True)
        if found.measured:
            reason += f"; read as {name}, {found.level.verdict}: {found.level.reason}"
        if level.verdict is Verdict.REFUTED and found.level.verdict is not Verdict.REFUTED:
            verdict = Verdict.INCONCLUSIVE
            reason += "" if found.measured else f"; not refuted while {name}, which it may be about, was not trained"
    return Judged(verdict, reason)


def _training(histories: Sequence[RunHistory]) -> tuple[Trained, ...]:
    """How the runs fitted their training data."""
    return tuple(
        Trained(accuracies=tuple(each.train_accuracy for each in run.epochs), epochs=run.protocol.epochs)
        for run in histories
    )


def _open(claim: Claim, reason: str) -> ClaimResult:
    judged = Judged(Verdict.NOT_RUN, reason)
    return ClaimResult(claim=claim, level=judged, effect=judged)


def cells_of(statement: Statement) -> tuple[tuple[str, str, str], ...]:
    """The cells that a statement speaks of, in the catalogue's names."""
    if (analysis := judging(statement.id)) is None:
        return cells_of_statement(statement.id)
    return tuple((name, model, STRATEGY) for model in analysis.models for name in analysis.statements[statement.id])


def _cells_for(statement: Statement, roles: Mapping[str, str], subjects: Sequence[Subject]) -> tuple[Cell, ...]:
    """The cells of a statement that can be trained here."""
    actual = [Cell(roles.get(name, name), roles.get(model, model), how) for name, model, how in cells_of(statement)]
    return tuple(
        cell
        for cell in actual
        if subject_for(cell.dataset, subjects) is not None
        and cell.model in MODELS
        and cell.model == roles.get(MODEL, cell.model)
    )
