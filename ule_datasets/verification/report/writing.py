"""The report written down: Markdown, a page, pictures and JSON."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import jinja2

from ule_datasets.analyses import ANALYSES
from ule_datasets.analyses.telling import Named
from ule_datasets.base import shown
from ule_datasets.base.files import write_atomically
from ule_datasets.base.templates import environment
from ule_datasets.experiments.effect import MARGIN, Collapse
from ule_datasets.papers.claims import Claim, Regime, papers
from ule_datasets.papers.rules import COLLAPSED, FAILED
from ule_datasets.papers.statistics import Judged, Verdict, spread
from ule_datasets.verification.judging import ClaimResult, StatementResult
from ule_datasets.verification.report.content import EPOCHS_SHOWN, Report, strategy_words
from ule_datasets.verification.report.plots import PLOT_NAMES, Plot, draw_plots
from ule_datasets.verification.report.runs import (
    INTEGRITY,
    LISTED,
    REPORT,
    PastRun,
    keep_unfiled,
    open_run,
    past_runs,
    show_newest,
)
from ule_datasets.verification.report.tables import paper_tables
from ule_datasets.victims.protocol import ALWAYS_TESTED
from ule_datasets.victims.table import starts_trained

TEXTS = ("report.md", "report.html")
FILES = (*TEXTS, *PLOT_NAMES, REPORT)
"""All that a report may be."""
NO_MATPLOTLIB = "not drawn: install ule-datasets[plots]"
RUNS_SHOWN = 24
"""More of them are folded away in the page."""
IDS_SHOWN = 4
"""So many ids of open claims with one reason are named in Markdown; the page has all."""
MARKS = {
    Verdict.CONFIRMED: ("✅", "good"),
    Verdict.CONSISTENT: ("✅", "good"),
    Verdict.REFUTED: ("❌", "bad"),
    Verdict.NOT_CONSISTENT: ("≠", "open"),
    Verdict.INCONCLUSIVE: ("❔", "open"),
}
"""In Markdown beside the words, and the tone in the page; the other verdicts have no mark, and are grey."""


def write_report(report: Report, folder: Path, *, moment: datetime.datetime | None = None) -> Path:
    """Write report.md, report.html (whose path is returned), plots where there are some, and report.json, the last.

    They go to a folder of this run alone, named after ``moment`` (now), and copies of them to ``folder`` itself, where
    the page and the text tell of earlier runs besides. Each file is written atomically.
    """
    keep_unfiled(folder, FILES)
    before = past_runs(folder)
    run = open_run(folder, _what(report), _how(report), moment or datetime.datetime.now(datetime.UTC))
    plots = draw_plots(report, _labels(report))
    for plot in plots or ():
        write_atomically(run / plot.name, plot.png)
    for name in TEXTS:
        write_atomically(run / name, render(f"{name}.jinja", report, plots))
    write_atomically(run / REPORT, report.to_json())
    show_newest(folder, run, set(FILES) - set(TEXTS))
    for name in TEXTS:
        write_atomically(folder / name, render(f"{name}.jinja", report, plots, before))
    return folder / "report.html"


def render(template: str, report: Report, plots: Sequence[Plot] | None, earlier: Sequence[PastRun] = ()) -> str:
    """Fill in ``report.md.jinja`` or ``report.html.jinja``; ``plots`` is ``None`` where matplotlib is missing.

    ``earlier`` are runs whose reports it leads to, the newest first.
    """
    tags = _tags(report)
    closed = [result for result in report.claims if result.measured]
    return (
        _environment(template)
        .get_template(template)
        .render(
            report=report,
            result=report.result,
            plots={} if plots is None else {plot.name.removesuffix(".png"): plot for plot in plots},
            no_plots=NO_MATPLOTLIB if plots is None else "",
            title=_title(report),
            earlier=earlier[:LISTED],
            num_unlisted=len(earlier[LISTED:]),
            measured_before=_measured_before(report, earlier),
            tag=lambda name: tags.get(name, ""),
            checks=[check for part in report.datasets for check in part.checks],
            effects=_effects(report),
            claim_counts=_counted(_verdict_words(result) for result in report.claims),
            statement_counts=_counted(_statement_words(result) for result in report.statements),
            verdict_words=_verdict_words,
            claim_tone=lambda one: _tone(one.verdict) if one.refuted or one.verdict is not Verdict.REFUTED else "open",
            reported=_reported,
            measured=_measured,
            unjudged=lambda one: one.level.reason in report.unjudged,
            tables=paper_tables(report.claims),
            closed=closed,
            open=_open(result for result in report.claims if not result.measured),
            ids_shown=IDS_SHOWN,
            told=[one for one in report.statements if one.judged.verdict is not Verdict.NOT_RUN],
            untold=[one for one in report.statements if one.judged.verdict is Verdict.NOT_RUN],
            papers=papers(),
            analyses=ANALYSES,
            sections={} if report.result is None else report.findings.sections(report.result),
            epochs_shown=_epochs_shown(report),
            runs_shown=RUNS_SHOWN,
            hardware=_hardware(report),
            tested=_tested(report),
            fine_tuned=_fine_tuned(report),
            thresholds=(MARGIN, 100 * COLLAPSED, 100 * FAILED),
        )
    )


@cache
def _environment(template: str) -> jinja2.Environment:
    """Where the templates are, how they show text, and what they may call."""
    made = environment(
        shown.html if template.startswith("report.html") else shown.markdown,
        loader=jinja2.PackageLoader("ule_datasets.verification.report"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=lambda value: "–" if value is None else f"{value:.1f}",
        spread=spread,
        mark=lambda judged: MARKS.get(judged.verdict, ("", ""))[0],
        tone=lambda judged: _tone(judged.verdict),
        strategy=strategy_words,
    )
    made.tests.update(named=lambda cell: isinstance(cell, Named), judgement=lambda cell: isinstance(cell, Judged))
    return made


# What the templates show, worked out from the report


def _tone(verdict: Verdict) -> str:
    return MARKS.get(verdict, ("", ""))[1]


def _title(report: Report) -> str:
    named = [f"{part.name} {part.version}" for part in report.datasets]
    return f"{len(named)} datasets" if len(named) > 3 else _and(named) or "claims"


def _what(report: Report) -> str:
    """What was verified, for the name of a folder."""
    names = [part.name for part in report.datasets]
    return f"{len(names)}-datasets" if len(names) > 3 else "+".join(names) or "claims"


def _how(report: Report) -> str:
    """How it was verified, likewise."""
    return INTEGRITY if report.result is None and not report.claims else report.profile.name


def _measured_before(report: Report, earlier: Iterable[PastRun]) -> PastRun | None:
    """Where nothing was trained, the last run on the same datasets that did train."""
    if report.result is not None:
        return None
    return next((run for run in earlier if run.what == _what(report) and run.how != INTEGRITY), None)


def _tags(report: Report) -> dict[str, str]:
    """What must be said of a dataset wherever it is named."""
    found = {}
    for part in report.datasets:
        judged = "reduced" if part.reduced else "not judged" if part.unjudged else ""
        made = "made in memory" if part.manifest_digest is None else ""
        found[part.name] = ", ".join(words for words in (judged, made) if words)
    return found


def _labels(report: Report) -> dict[str, str]:
    """Names of the datasets for the plots."""
    return {name: f"{name} ({tag})" if tag else name for name, tag in _tags(report).items()}


def _effects(report: Report) -> list[str]:
    """A sentence for each dataset: which collapse shows under which strategies."""
    names, labels = dict.fromkeys(one.dataset for one in report.comparisons), _labels(report)
    models = {one.model for one in report.comparisons}
    found = []
    for name in names:
        words: dict[Collapse, list[str]] = {}
        for one in report.comparisons:
            if one.dataset == name:
                model = f" ({one.model})" if len(models) > 1 or starts_trained(one.model) else ""
                words.setdefault(one.collapse, []).append(strategy_words(one.strategy) + model)
        parts = [f"{collapse} under {_and(words[collapse])}" for collapse in Collapse if collapse in words]
        sentence = "; ".join(parts)
        alone = len(report.datasets) == 1
        found.append(f"{sentence[0].upper()}{sentence[1:]}." if alone else f"{labels.get(name, name)}: {sentence}.")
    return found


def _and(words: Sequence[str]) -> str:
    return " and ".join([*([", ".join(words[:-1])] if words[1:] else []), *words[-1:]])


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{number} {word}" for word, number in Counter(words).most_common())


def _verdict_words(result: ClaimResult) -> str:
    """One verdict for a claim: on its number if that could be judged, else on its effect."""
    level = result.verdict is result.level.verdict
    words = str(result.verdict) if level else f"effect {result.verdict}"
    return f"{words} (another model)" if result.stand_in and result.verdict is not Verdict.NOT_RUN else words


def _statement_words(result: StatementResult) -> str:
    stood_in = result.stand_ins and result.judged.verdict is not Verdict.NOT_RUN
    return f"{result.judged.verdict} (stand-ins)" if stood_in else str(result.judged.verdict)


def _reported(claim: Claim) -> str:
    return f"{claim.value:g}" + ("" if claim.std is None else f" ± {claim.std:g}")


def _measured(result: ClaimResult) -> str:
    """Mean ± sd (runs)."""
    return f"{result.measured[0]:.3f}" if result.claim.regime is Regime.SIZE else spread(result.measured)


def _open(results: Iterable[ClaimResult]) -> list[tuple[str, list[str]]]:
    """(reason, ids) of claims without a measurement, the most frequent reason first."""
    found: dict[str, list[str]] = {}
    for result in results:
        reason = result.level.reason.replace(result.claim.id, "followed by the ids")
        found.setdefault(f"{result.level.verdict}: {reason}", []).append(result.claim.id)
    return sorted(found.items(), key=lambda item: -len(item[1]))


def _epochs_shown(report: Report) -> list[int]:
    longest = 0 if report.result is None else max((len(run.history.epochs) for run in report.result.runs), default=0)
    return [epoch for epoch in EPOCHS_SHOWN if epoch < longest]


def _hardware(report: Report) -> list[str]:
    """What runs were made on, with how many of them."""
    if report.result is None:
        return []
    words = Counter(
        f"{run.history.device}, {shown.counted(run.history.threads, 'thread')}"
        + (f", {run.history.ranks} processes" if run.history.ranks > 1 else "")
        for run in report.result.runs
    )
    return [f"{name} ({shown.counted(number, 'run')})" for name, number in words.most_common()]


def _tested(report: Report) -> str:
    """After which epochs the test images were looked at, where that was not after every one."""
    runs = () if report.result is None else report.result.runs
    intervals = sorted({each for run in runs if (each := run.history.protocol.test_interval) is not None})
    every = " or ".join(f"{interval}th" for interval in intervals)
    return f"each of the first and the last {ALWAYS_TESTED} epochs and every {every} one" if every else ""


def _fine_tuned(report: Report) -> list[str]:
    """A sentence for each model that started from trained weights: which, and how."""
    runs = () if report.result is None else report.result.runs
    protocols = {run.cell.model: run.history.protocol for run in runs}
    found = []
    for weights in report.weights:
        protocol = protocols.get(weights["name"])
        if protocol is not None:
            inputs = "normalised as for those weights" if protocol.normalise else "in [0, 1] without normalisation"
            clip = "" if protocol.gradient_clip is None else f"gradients clipped at norm {protocol.gradient_clip:g}, "
            found.append(
                f"{weights['name']}: {weights['architecture']} from {weights['file']} ({weights['origin']}, sha256 "
                f"{weights['sha256']}) with a new last layer; all layers fine-tuned for {protocol.epochs} epochs at "
                f"learning rate {protocol.optimiser.learning_rate:g}, {protocol.schedule.kind} schedule, {clip}"
                f"images {inputs}"
            )
    return found
