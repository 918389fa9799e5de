"""The report written down: Markdown, a page, pictures and JSON."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import jinja2

from ule_datasets.analyses import ANALYSES
from ule_datasets.analyses.telling import Marked, Named
from ule_datasets.base import shown
from ule_datasets.base.files import write_atomically
from ule_datasets.base.templates import environment
from ule_datasets.packaging.figures.sheet import Sheet
from ule_datasets.papers.claims import papers
from ule_datasets.papers.statistics import Judged, Verdict, spread
from ule_datasets.verification.judging import ClaimResult
from ule_datasets.verification.report import words
from ule_datasets.verification.report.choice import told_of
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
from ule_datasets.verification.report.tables import effect_legend, effect_table, paper_tables

TEXTS = ("report.md", "report.html")
PICTURES_SHOWN = 3
"""Samples of more datasets than this are left out."""
PICTURE_NAMES = tuple(f"samples-{number + 1}.png" for number in range(PICTURES_SHOWN))
LEARNED_SHOWN = 6
"""Pictures of what was learned of more training sets than this are left out."""
LEARNED_NAMES = tuple(f"learned-{number + 1}.png" for number in range(LEARNED_SHOWN))
FILES = (
    *TEXTS,
    *(
        file
        for name in (*PICTURE_NAMES, *LEARNED_NAMES, *PLOT_NAMES)
        for file in (name, f"{name.removesuffix('.png')}.svg")
    ),
    REPORT,
)
"""All that a report may be."""
NO_MATPLOTLIB = "not drawn: install ule-datasets[plots]"
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
TONE_MARKS = {"good": "✅", "part": "◐", "bad": "❌", "open": "○"}
"""In Markdown, beside what one strategy showed."""
PICTURE_CAPTION = (
    "Some training images: clean, protected, and the difference on a scale on which nothing is cut off (mid grey: "
    "none). What changes single pixels is framed."
)


def write_report(report: Report, folder: Path, *, moment: datetime.datetime | None = None) -> Path:
    """Write report.md, report.html (whose path is returned), plots where there are some, and report.json, the last.

    They go to a folder of this run alone, named after ``moment`` (now), and copies of them to ``folder`` itself, where
    the page and the text tell of earlier runs besides. Each file is written atomically.
    """
    keep_unfiled(folder, FILES)
    before = past_runs(folder)
    run = open_run(folder, _what(report), _how(report), moment or datetime.datetime.now(datetime.UTC))
    plots = draw_plots(report, words.labels(report))
    drawn = {file: content for plot in plots or () for file, content in plot.files.items()}
    for name, content in {**drawn, **_picture_files(report)}.items():
        write_atomically(run / name, content)
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
    tags, told = words.tags(report), told_of(report)
    return (
        _environment(template)
        .get_template(template)
        .render(
            report=report,
            result=report.result,
            told=told,
            plots={} if plots is None else {plot.name.removesuffix(".png"): plot for plot in plots},
            no_plots=NO_MATPLOTLIB if plots is None else "",
            pictures=_pictures(report),
            picture_caption=PICTURE_CAPTION,
            learned=report.learned[:LEARNED_SHOWN],
            title=words.title(report),
            headline=words.headline(report),
            earlier=earlier[:LISTED],
            num_unlisted=len(earlier[LISTED:]),
            measured_before=_measured_before(report, earlier),
            tag=lambda name: tags.get(name, ""),
            tone_marks=TONE_MARKS,
            checks=[check for part in report.datasets for check in part.checks],
            effects=words.effects(report),
            effect_tone=words.effect_tone(report),
            effect_table=effect_table(report),
            effect_legend=effect_legend(report),
            models=list(dict.fromkeys(one.model for one in report.comparisons)),
            claim_counts=words.counts(words.verdict_words(result) for result in told.claims),
            statement_counts=words.counts(words.statement_words(result) for result in told.statements),
            verdict_words=words.verdict_words,
            claim_tone=lambda one: _tone(one.verdict) if one.refuted or one.verdict is not Verdict.REFUTED else "open",
            reported=lambda claim: claim.printed,
            measured=words.measured,
            unjudged=lambda one: one.level.reason in report.unjudged,
            tables=paper_tables(told.claims),
            closed=[result for result in told.claims if result.measured],
            open=_open(result for result in told.claims if not result.measured),
            ids_shown=IDS_SHOWN,
            decided=[one for one in told.statements if one.judged.verdict is not Verdict.NOT_RUN],
            untold=[one for one in told.statements if one.judged.verdict is Verdict.NOT_RUN],
            papers=papers(),
            analyses=ANALYSES,
            epochs_shown=_epochs_shown(report),
            hardware=words.hardware(report),
            tested=words.tested(report),
            fine_tuned=words.fine_tuned(report),
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
    kinds = {"named": Named, "judgement": Judged, "marked": Marked}
    made.tests.update({name: lambda cell, kind=kind: isinstance(cell, kind) for name, kind in kinds.items()})
    return made


# What the templates show, worked out from the report


def _tone(verdict: Verdict) -> str:
    return MARKS.get(verdict, ("", ""))[1]


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


def _pictures(report: Report) -> Mapping[str, Sheet]:
    """Samples by dataset, as many as are shown."""
    return dict(list(report.pictures.items())[:PICTURES_SHOWN])


def _picture_files(report: Report) -> dict[str, bytes]:
    """Their files, and those of what was learned."""
    samples = [(sheet, f"{dataset}: {PICTURE_CAPTION}") for dataset, sheet in _pictures(report).items()]
    learned = [(one.sheet, f"{one.dataset}, {one.strategy}: {one.caption}") for one in report.learned]
    found = {}
    for names, sheets in ((PICTURE_NAMES, samples), (LEARNED_NAMES, learned)):
        for name, (sheet, caption) in zip(names, sheets, strict=False):
            found[name] = sheet.png()
            found[f"{name.removesuffix('.png')}.svg"] = sheet.svg(caption).encode()
    return found


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
