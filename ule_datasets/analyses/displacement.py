"""How far the parameters have moved when the training data is fitted, and how soon that is.

Figure 4 of the One-Pixel Shortcut paper: a shortcut is found close to the initial parameters. Weight decay and a
longer way move parameters too, so that only runs of one protocol are compared. Everything is read off histories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from ule_datasets.analyses.analysis import RUNS_FOR_A_VERDICT, TOO_FEW, Analysis, Material, standard_cell
from ule_datasets.analyses.telling import (
    FILLED,
    HOLLOW,
    Curves,
    Named,
    Row,
    Said,
    Section,
    Table,
    Trace,
    listed,
    number,
    numbers,
    words,
)
from ule_datasets.base.content import content
from ule_datasets.base.errors import InputError
from ule_datasets.experiments.grid import GridResult
from ule_datasets.papers.ops import CLEAN, EM, OPS
from ule_datasets.papers.statistics import Estimate, Judged, Verdict, below, verdict_of_all
from ule_datasets.victims.history import RunHistory, Window

THRESHOLD = 90.0
"""Training accuracy (percent) at which the paper compares."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing:
    """Where a run first reached a training accuracy."""

    seed: int
    epoch: int
    """Counted from 1."""
    step: int
    """The last step of the epoch or window, counted from 1 over the whole run."""
    train_accuracy: float
    """Running average over that epoch or window, on the augmented images, in training mode; percent."""
    displacement: float
    """Distance of the trainable parameters from their first values, after that step."""
    by: str
    """``epoch`` or ``window``, a fifth of an epoch."""


def crossing(history: RunHistory) -> Crossing | None:
    """The paper's statistic: the first epoch at ``THRESHOLD``; one whose loss was not finite does not count."""
    found = (
        (each.epoch, replace(each.windows[-1], train_accuracy=each.train_accuracy, displacement=each.displacement))
        for each in history.epochs
        if each.displacement is not None
    )
    return _first(found, history.seed, "epoch")


def first_window(history: RunHistory) -> Crossing | None:
    """The first fifth of an epoch at ``THRESHOLD``: inside the first epochs an average over a whole one comes late."""
    found = ((record.epoch, window) for record in history.epochs for window in record.windows)
    return _first(found, history.seed, "window")


def _first(found: Iterable[tuple[int, Window]], seed: int, by: str) -> Crossing | None:
    crossings = (
        Crossing(seed=seed, epoch=epoch, by=by, **asdict(at)) for epoch, at in found if at.train_accuracy >= THRESHOLD
    )
    return next(crossings, None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossings:
    """Where all runs first reached the threshold, found in one way."""

    clean: tuple[Crossing, ...]
    protected: tuple[Crossing, ...]
    clean_never: tuple[int, ...]
    """Seeds of the runs on clean data that never reached it."""
    protected_never: tuple[int, ...]
    judged: Judged
    """Whether the displacement is smaller on protected data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DisplacementResult:
    """The statement of Figure 4 on runs of one protocol."""

    threshold: float
    by_epoch: Crossings
    """At ends of epochs, which is how the paper has it."""
    by_window: Crossings
    """At ends of windows: a finer look at where the threshold was reached."""

    @property
    def judged(self) -> Judged:
        """The verdict, by epoch."""
        return self.by_epoch.judged


def compare(clean: Sequence[RunHistory], protected: Sequence[RunHistory]) -> DisplacementResult:
    """Whether parameters have moved less on protected than on clean data when the training accuracy is reached.

    Confirmed if Welch's 95 % interval of the difference lies below 0, refuted if it lies above; inconclusive with
    fewer than three runs of each kind that reached the threshold. Those that did not are named.

    Raises:
        InputError: the runs differ in protocol or in steps per epoch, or a seed occurs twice.
    """
    check_comparable(clean, protected)
    by_epoch, by_window = (_compared(clean, protected, find) for find in (crossing, first_window))
    return DisplacementResult(threshold=THRESHOLD, by_epoch=by_epoch, by_window=by_window)


def _compared(
    clean: Sequence[RunHistory], protected: Sequence[RunHistory], find: Callable[[RunHistory], Crossing | None]
) -> Crossings:
    reached, never = [], []
    for runs in (clean, protected):
        found = [(run.seed, find(run)) for run in runs]
        reached.append(tuple(each for _, each in found if each is not None))
        never.append(tuple(seed for seed, each in found if each is None))
    if clean and protected:
        judged = _judge_displacement(*([each.displacement for each in side] for side in reached))
    else:
        judged = Judged(Verdict.NOT_RUN, "no run was made on one of the two")
    unreached = [
        f"{len(seeds)} of {len(runs)} runs on {kind} data never reached {THRESHOLD:g} % (seeds {listed(seeds)})"
        for kind, runs, seeds in zip(("clean", "protected"), (clean, protected), never, strict=True)
        if seeds
    ]
    return Crossings(
        clean=reached[0],
        protected=reached[1],
        clean_never=never[0],
        protected_never=never[1],
        judged=Judged(judged.verdict, "; ".join([judged.reason, *unreached])),
    )


def _judge_displacement(clean: Sequence[float], protected: Sequence[float]) -> Judged:
    if not clean or not protected:
        return Judged(Verdict.INCONCLUSIVE, "nothing to compare")
    judged = below(protected, clean, paired=False)
    reason = f"protected {Estimate(tuple(protected))}, clean {Estimate(tuple(clean))}: {judged.reason}"
    if min(len(clean), len(protected)) < RUNS_FOR_A_VERDICT:
        return Judged(Verdict.INCONCLUSIVE, f"{reason}; {TOO_FEW}")
    return Judged(judged.verdict, reason)


def check_comparable(clean: Sequence[RunHistory], protected: Sequence[RunHistory]) -> None:
    """Refuse runs that differ in protocol or length, and seeds that occur twice."""
    runs = (*clean, *protected)
    for run in runs[1:]:
        mine, first = content(run.protocol), content(runs[0].protocol)
        different = [name for name in {**first, **mine} if mine.get(name) != first.get(name)]
        if different:
            raise InputError(f"runs of one protocol are compared; these differ in {', '.join(different)}")
    steps = {run.epochs[0].windows[-1].step for run in runs if run.epochs[0].windows}
    if len(steps) > 1:
        raise InputError(f"runs of one length are compared; these have {listed(sorted(steps))} steps per epoch")
    for kind, side in (("clean", clean), ("protected", protected)):
        seeds = [run.seed for run in side]
        if len(set(seeds)) < len(seeds):
            raise InputError(f"every seed must occur once; the runs on {kind} data have {listed(seeds)}")


def judge_ops_and_em(found: Mapping[str, Judged], roles: Mapping[str, str]) -> Judged:
    """A statement about OPS and EM data: confirmed if it holds of both that were found, refuted if it fails of one."""
    judged = {name: found[name] for slug in (OPS, EM) if (name := roles.get(slug, "")) in found}
    if not judged:
        return Judged(Verdict.NOT_RUN, "neither OPS nor EM data was trained on beside its control")
    reason = "; ".join(f"{name}: {each.reason}" for name, each in judged.items())
    verdict = verdict_of_all(each.verdict for each in judged.values())
    alone = verdict is Verdict.CONFIRMED and len(judged) < 2
    return Judged(Verdict.INCONCLUSIVE if alone else verdict, reason)


class Displacement(Analysis[Mapping[str, DisplacementResult]]):
    """Whether parameters move less on protected than on clean data until that is fitted."""

    name = key = "displacement"
    title = "Displacement when the training data is fitted"
    nothing: ClassVar = {}
    always = True
    statements: ClassVar = {"ops-q-displacement": (CLEAN, OPS, EM)}
    draws = True

    def run(self, material: Material) -> dict[str, DisplacementResult]:
        """Every dataset beside its control, of standard training."""
        return {name: compare(clean, protected) for name, clean, protected in material.beside_controls()}

    def judge(self, found: Mapping[str, DisplacementResult], statement: str, roles: Mapping[str, str]) -> Judged:
        """It must hold of OPS and of EM."""
        return judge_ops_and_em({name: each.judged for name, each in found.items()}, roles)

    def tell(self, found: Mapping[str, DisplacementResult], result: GridResult) -> Section:
        """A row for each dataset, way of looking and seed."""
        columns = words("dataset", "first") + numbers("seed")
        for side in ("clean", "protected"):
            columns += numbers(f"{side}: epoch", "step", "training accuracy") + numbers("displacement", strong=True)
        ways = [
            (name, how, way)
            for name, each in found.items()
            for how, way in (("epoch", each.by_epoch), ("fifth of an epoch", each.by_window))
        ]
        rows: list[Row] = [(Named(name), how, *row) for name, how, way in ways for row in _rows(way)]
        return Section(
            about="Distance of the parameters from their first values where the training accuracy first reached "
            f"{THRESHOLD:g} %, standard training; epochs counted from 1.",
            table=Table(columns, rows),
            verdicts=[Said(way.judged, name, f"by {how}") for name, how, way in ways],
            chart=_chart(found, result),
        )


def _chart(found: Mapping[str, DisplacementResult], result: GridResult) -> Curves:
    """The whole way of every run, with the places where the threshold was reached."""
    control = {one.dataset: one.control for one in result.comparisons}
    panels = {}
    for name, each in found.items():
        panels[name] = traces = list[Trace]()
        for dataset, side in ((control.get(name, ""), "clean"), (name, "protected")):
            runs = result.histories(standard_cell(dataset, result.profile))
            steps = next((run.epochs[0].windows[-1].step for run in runs if run.epochs[0].windows), 1)
            for run in runs:
                windows = [window for record in run.epochs for window in record.windows]
                x = (0.0, *(window.step / steps for window in windows))
                traces.append(Trace(dataset, x, (0.0, *(window.displacement for window in windows))))
            for way, sign in ((each.by_epoch, FILLED), (each.by_window, HOLLOW)):
                for at in getattr(way, side):
                    x = (at.epoch if at.by == "epoch" else at.step / steps,)
                    traces.append(Trace(dataset, x, (at.displacement,), sign))
    return Curves(
        alt="Distance of the parameters from their first values",
        y="distance from the first parameters",
        filled=f"first epoch at {THRESHOLD:g} % training accuracy",
        hollow=f"first fifth of an epoch at {THRESHOLD:g} %",
        panels=panels,
    )


def _rows(way: Crossings) -> list[tuple[str, ...]]:
    """The cells of each seed after the name and the way of looking."""
    sides = [{at.seed: at for at in side} for side in (way.clean, way.protected)]
    rows = []
    for seed in sorted({*sides[0], *sides[1], *way.clean_never, *way.protected_never}):
        cells = [str(seed)]
        for at in (side.get(seed) for side in sides):
            if at is None:
                cells += ["never", "", "", ""]
            else:
                cells += [str(at.epoch), str(at.step), number(at.train_accuracy), number(at.displacement, ".2f")]
        rows.append(tuple(cells))
    return rows
