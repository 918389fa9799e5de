"""How completely training data is fitted at the end, by every model that was trained.

The One-Pixel Shortcut paper says (section 4.1) that every model ends near 100 % training accuracy, on protected data
too. Everything is read off histories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

from ule_datasets.analyses.analysis import MODEL, RUNS_FOR_A_VERDICT, STRATEGY, Analysis, Material
from ule_datasets.analyses.telling import Named, Row, Section, Table, numbers, words
from ule_datasets.experiments.grid import GridResult
from ule_datasets.papers.ops import CLEAN, EM, OPS, TRANSFER_MODELS
from ule_datasets.papers.rules import Power
from ule_datasets.papers.statistics import Estimate, Judged, Verdict, all_finite, spread, verdict_of_all
from ule_datasets.victims.history import RunHistory
from ule_datasets.victims.table import starts_trained

NEAR_100 = 99.0
"""Training accuracy, %, from which on a run ends near 100 %."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How runs of one cell ended."""

    dataset: str
    model: str
    """That the paper speaks of, where the profile trains another in its place."""
    final: tuple[float, ...]
    """Training accuracy of the last epoch, percent; one per run."""
    judged: Judged
    """Whether they end near 100 %."""


def judge_ending(final: tuple[float, ...], *, paper_length: bool) -> Judged:
    """Whether runs end near 100 % training accuracy.

    Confirmed if each of at least three has 99 %, refuted if the 95 % interval of the mean lies below; runs shorter
    than the paper's (``paper_length``) leave that open instead, and so do fewer runs.
    """
    if not all_finite(final):
        return Judged(Verdict.INCONCLUSIVE, "a result is not finite")
    ended = Estimate(final)
    reason, bounds = f"{ended} at the end (line {NEAR_100:g})", ended.interval()
    if ended.n < RUNS_FOR_A_VERDICT:
        return Judged(Verdict.INCONCLUSIVE, f"{reason}; at least {RUNS_FOR_A_VERDICT} runs are needed")
    if min(final) >= NEAR_100:
        return Judged(Verdict.CONFIRMED, reason)
    if bounds is not None and bounds[1] < NEAR_100:
        if paper_length:
            return Judged(Verdict.REFUTED, reason)
        reason += ", after fewer epochs than the paper's"
    return Judged(Verdict.INCONCLUSIVE, reason)


class Ending(Analysis[tuple[Ended, ...]]):
    """Whether every model ends near 100 % training accuracy, on clean and on protected data."""

    name = key = "ending"
    title = "Training accuracy at the end"
    always = True
    statements: ClassVar = {"ops-q-train-acc": (CLEAN, EM, OPS)}
    models: ClassVar = TRANSFER_MODELS

    def run(self, material: Material) -> tuple[Ended, ...]:
        """Every dataset and control under standard training, whatever the model, but from random weights."""
        stand_in, full = material.cell(CLEAN).model, material.grid.profile.power is Power.FULL
        found: dict[tuple[str, str], list[RunHistory]] = {}
        for run in material.result.runs:
            cell = run.cell
            if cell.strategy == STRATEGY and not starts_trained(cell.model):
                model = MODEL if cell.model == stand_in else cell.model
                found.setdefault((cell.dataset, model), []).append(run.history)
        finals = {place: tuple(run.last.train_accuracy for run in runs) for place, runs in found.items()}
        return tuple(
            Ended(dataset=name, model=model, final=final, judged=judge_ending(final, paper_length=full))
            for (name, model), final in finals.items()
        )

    def judge(self, found: tuple[Ended, ...], statement: str, roles: Mapping[str, str]) -> Judged:
        """It must hold of every model on clean, EM and OPS data; one that ends lower refutes it."""
        wanted = {(roles.get(name, ""), model) for name, model in product(self.statements[statement], self.models)}
        judged = {(each.dataset, each.model): each.judged for each in found}
        seen = {place: judged[place] for place in judged if place in wanted}
        if not seen:
            return Judged(Verdict.NOT_RUN, "none of its models was trained")
        verdict = verdict_of_all(each.verdict for each in seen.values())
        reason = "; ".join(f"{name}, {model}: {each.reason}" for (name, model), each in seen.items())
        if missing := len(self.statements[statement]) * len(self.models) - len(seen):
            verdict = Verdict.INCONCLUSIVE if verdict is Verdict.CONFIRMED else verdict
            reason += f"; {missing} of its models were not trained"
        return Judged(verdict, reason)

    def tell(self, found: tuple[Ended, ...], result: GridResult) -> Section:
        """A row for each dataset and model."""
        columns = words("dataset", "model") + numbers("last training accuracy") + words("ends near 100 %")
        rows: list[Row] = [(Named(each.dataset), each.model, spread(each.final), each.judged) for each in found]
        return Section(table=Table(columns, rows), note="Mean ± standard deviation (number of runs).")
