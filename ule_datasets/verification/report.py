"""The verification report: what was checked, measured and left open; as JSON, Markdown and HTML."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from ule_datasets.base.files import write_atomically
from ule_datasets.base.version import __version__
from ule_datasets.dataset.integrity import Check
from ule_datasets.experiments.effect import MARGIN, Collapse, Comparison
from ule_datasets.models.weights import WEIGHTS
from ule_datasets.papers.claims import Claim, Regime, all_claims, papers
from ule_datasets.papers.rules import COLLAPSED, FAILED
from ule_datasets.papers.statistics import Estimate, Verdict
from ule_datasets.verification.plots import PLOT_NAMES, Plot, draw_plots, strategy_words

if TYPE_CHECKING:
    import torch

    from ule_datasets.analyses.studies import Studies
    from ule_datasets.experiments.grid import GridResult, LostRun, Run
    from ule_datasets.experiments.profiles import Profile
    from ule_datasets.verification.judging import ClaimResult, StatementResult
    from ule_datasets.verification.separability import Separability

SCHEMA = "ule-datasets report 2"
NO_MATPLOTLIB = "not drawn: install ule-datasets[plots]"
EPOCHS_SHOWN = (1, 2, 5, 10, 20, 50)
"""Columns of the table of runs, besides the last and the best epoch."""
RUNS_SHOWN = 24
"""More of them are folded away in the page."""
IDS_SHOWN = 4
"""So many ids of open claims with one reason are named in Markdown; the page has all."""
WIDE = 8
"""Tables of a paper with more datasets than this have them as rows."""
MARKS = {
    Verdict.CONFIRMED: "✅",
    Verdict.CONSISTENT: "✅",
    Verdict.REFUTED: "❌",
    Verdict.NOT_CONSISTENT: "≠",
    Verdict.INCONCLUSIVE: "❔",
}
"""In Markdown, beside the words; the other verdicts have none."""
TONES = {
    Verdict.CONFIRMED: "good",
    Verdict.CONSISTENT: "good",
    Verdict.REFUTED: "bad",
    Verdict.NOT_CONSISTENT: "open",
    Verdict.INCONCLUSIVE: "open",
}
"""In the page; the other verdicts are grey."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetPart:
    """What a report tells about one dataset besides results."""

    name: str
    version: str
    title: str
    reduced: str | None
    """What is smaller than in the paper."""
    recipe_digest: str
    perturbation_digest: str
    manifest_digest: str | None
    """``None``: it was made in memory, exactly as the recipe says."""
    checks: tuple[Check, ...]
    unjudged: str
    """Why its results are not compared with a paper's; empty: they are, or nothing was trained."""

    @property
    def intact(self) -> bool:
        """Whether every integrity check passed."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything that a report tells."""

    datasets: tuple[DatasetPart, ...]
    profile: Profile
    result: GridResult | None
    """``None``: only the integrity was checked."""
    claims: tuple[ClaimResult, ...]
    statements: tuple[StatementResult, ...]
    studies: Studies
    separability: Mapping[str, Separability | None]
    """By dataset; ``None``: its perturbation changes images of fewer than two classes."""
    collapse_expected: Mapping[str, bool]
    """By dataset: whether it is supposed to collapse under at least one strategy."""
    environment: dict[str, str]
    command: str
    date: str
    cluster_separability: Mapping[str, Separability] = field(default_factory=dict)
    """By dataset whose perturbation has clusters."""
    weights: tuple[Mapping[str, str], ...] = ()
    """Provenance of the trained weights that models started from (``WeightsFile.provenance``)."""

    @property
    def intact(self) -> bool:
        """Whether every integrity check passed."""
        return all(part.intact for part in self.datasets)

    @property
    def refuted(self) -> tuple[str, ...]:
        """Ids of claims and statements that were refuted, with the models and datasets that they speak of."""
        claims = [result.claim.id for result in self.claims if result.refuted]
        return (*claims, *(result.statement.id for result in self.statements if result.refuted))

    @property
    def unexpected(self) -> tuple[str, ...]:
        """Datasets whose collapse was expected and showed under no strategy, not even in part, though it could.

        Only where all strategies were tried that the profile usually tries, and only with models that started from
        random weights: most datasets are not made against others.
        """
        found = []
        for name, expected in self.collapse_expected.items():
            own = [c for c in self.comparisons if c.dataset == name and c.model not in WEIGHTS]
            seen, tried = {c.collapse for c in own}, {c.strategy for c in own}
            if not tried >= set(self.profile.strategies):
                continue
            if expected and Collapse.NOT_SHOWN in seen and not seen & {Collapse.SHOWN, Collapse.PARTIAL}:
                found.append(name)
        return tuple(found)

    @property
    def lost(self) -> tuple[LostRun, ...]:
        """Runs that are missing because their workers died."""
        return () if self.result is None else self.result.lost

    @property
    def passed(self) -> bool:
        """Whether every check passed, nothing was refuted, every run ended, and expected collapses are there."""
        return self.intact and not self.refuted and not self.unexpected and not self.lost

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every dataset beside its control, by model and strategy."""
        return () if self.result is None else self.result.comparisons

    def to_json(self) -> str:
        """Indented JSON with everything, including what was derived from the runs."""
        content = {
            "schema": SCHEMA,
            "command": self.command,
            "date": self.date,
            "environment": self.environment,
            "profile": dataclasses.asdict(self.profile),
            "intact": self.intact,
            "passed": self.passed,
            "refuted": self.refuted,
            "unexpected": self.unexpected,
            "datasets": [{**dataclasses.asdict(part), "intact": part.intact} for part in self.datasets],
            "separability": {k: None if v is None else dataclasses.asdict(v) for k, v in self.separability.items()},
            "cluster_separability": {k: dataclasses.asdict(v) for k, v in self.cluster_separability.items()},
            "weights": self.weights,
            "comparisons": [_comparison_content(comparison, self) for comparison in self.comparisons],
            "claims": [_claim_content(result) for result in self.claims],
            "statements": [dataclasses.asdict(result) for result in self.statements],
            "analyses": dataclasses.asdict(self.studies),
            "runs": [] if self.result is None else [_run_content(run) for run in self.result.runs],
            "lost": [dataclasses.asdict(run) for run in self.lost],
        }
        return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def describe_environment(device: torch.device) -> dict[str, str]:
    """Hardware, system and versions that results depend on; no host name, user or path."""
    import torch

    from ule_datasets.compute.devices import cpu_model, describe_device

    packages = ("numpy", "pillow", "pyarrow")
    return {
        "device": describe_device(device),
        "processor": cpu_model(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "ule-datasets": __version__,
        "torch": torch.__version__,
        **({"cuda": str(torch.version.cuda)} if device.type == "cuda" else {}),
        **{name: metadata.version(name) for name in packages},
    }


def write_report(report: Report, folder: Path) -> Path:
    """Write report.md, report.html, plots where there is something to draw, and report.json, the last.

    Each file is written atomically; plots of an older report are removed where there is no new one.

    Returns:
        The path of report.html.
    """
    plots = draw_plots(report, _labels(report))
    for name in set(PLOT_NAMES) - {plot.name for plot in plots or ()}:
        (folder / name).unlink(missing_ok=True)
    for plot in plots or ():
        write_atomically(folder / plot.name, plot.png)
    for name in ("report.md", "report.html"):
        write_atomically(folder / name, render(f"{name}.jinja", report, plots))
    write_atomically(folder / "report.json", report.to_json())
    return folder / "report.html"


def render(template: str, report: Report, plots: Sequence[Plot] | None) -> str:
    """Fill in one of the templates.

    Args:
        template: ``report.md.jinja`` or ``report.html.jinja``.
        report: what it tells.
        plots: its pictures; ``None``: matplotlib is missing, and the report says so.
    """
    tags = _tags(report)
    closed = [result for result in report.claims if result.measured]
    return (
        _environment()
        .get_template(template)
        .render(
            report=report,
            result=report.result,
            studies=report.studies,
            plots={} if plots is None else {plot.name.removesuffix(".png"): plot for plot in plots},
            no_plots=NO_MATPLOTLIB if plots is None else "",
            title=_title(report),
            tag=lambda name: tags.get(name, ""),
            checks=[check for part in report.datasets for check in part.checks],
            effects=_effects(report),
            claim_counts=_counted(_verdict_words(result) for result in report.claims),
            statement_counts=_counted(_statement_words(result) for result in report.statements),
            verdict_words=_verdict_words,
            claim_tone=lambda one: (
                TONES.get(one.verdict, "") if one.refuted or one.verdict is not Verdict.REFUTED else "open"
            ),
            reported=_reported,
            measured=_measured,
            unjudged=_is_unjudged(report),
            tables=paper_tables(report),
            closed=closed,
            open=_open(result for result in report.claims if not result.measured),
            ids_shown=IDS_SHOWN,
            told=[one for one in report.statements if one.judged.verdict is not Verdict.NOT_RUN],
            untold=[one for one in report.statements if one.judged.verdict is Verdict.NOT_RUN],
            papers=papers(),
            crossings=_crossings(report),
            shuffles=_shuffles(report),
            landscape_judged=report.studies.judged("ops-q-landscape"),
            epochs_shown=_epochs_shown(report),
            runs_shown=RUNS_SHOWN,
            hardware=_hardware(report),
            fine_tuned=_fine_tuned(report),
            thresholds=(MARGIN, 100 * COLLAPSED, 100 * FAILED),
        )
    )


@cache
def _environment() -> jinja2.Environment:
    """Where the templates are, and what they may call."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ule_datasets.verification"),
        autoescape=jinja2.select_autoescape(("html.jinja",), default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        percent=lambda value: "–" if value is None else f"{value:.1f}",
        precise=lambda value: "–" if value is None else f"{value:.4g}",
        cell=_markdown_cell,
        spread=_spread,
        mark=lambda judged: MARKS.get(judged.verdict, ""),
        tone=lambda judged: TONES.get(judged.verdict, ""),
        strategy=strategy_words,
    )
    return environment


# What the templates show, worked out from the report


def _title(report: Report) -> str:
    named = [f"{part.name} {part.version}" for part in report.datasets]
    if len(named) > 3:
        return f"{len(named)} datasets"
    return " and ".join([*([", ".join(named[:-1])] if named[1:] else []), *named[-1:]]) or "claims"


def _tags(report: Report) -> dict[str, str]:
    """What must be said of a dataset wherever it is named."""
    found = {}
    for part in report.datasets:
        words = [
            *(["reduced"] if part.reduced else []),
            *(["not judged"] if part.unjudged and not part.reduced else []),
            *(["made in memory"] if part.manifest_digest is None else []),
        ]
        found[part.name] = ", ".join(words)
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
                model = f" ({one.model})" if len(models) > 1 or one.model in WEIGHTS else ""
                words.setdefault(one.collapse, []).append(strategy_words(one.strategy) + model)
        parts = [f"{collapse} under {_and(words[collapse])}" for collapse in Collapse if collapse in words]
        sentence = "; ".join(parts)
        alone = len(report.datasets) == 1
        found.append(f"{sentence[0].upper()}{sentence[1:]}." if alone else f"{labels.get(name, name)}: {sentence}.")
    return found


def _and(words: Sequence[str]) -> str:
    return " and ".join([*([", ".join(words[:-1])] if words[1:] else []), words[-1]])


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
    if result.claim.regime is Regime.SIZE:
        return f"{result.measured[0]:.3f}"
    return _spread(result.measured)


def _spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± sd (how many); says so where a value is not finite."""
    broken = sum(not math.isfinite(value) for value in values)
    if not values or broken:
        return f"not finite in {broken} of {len(values)}" if broken else "–"
    estimate = Estimate(tuple(values))
    spread = "" if estimate.sd is None else f" ± {estimate.sd:.{digits}f}"
    return f"{estimate.mean:.{digits}f}{spread} ({estimate.n})"


def _is_unjudged(report: Report) -> Any:
    """A test for claim results: whether they are of data that is not judged."""
    reasons = {part.unjudged for part in report.datasets} - {""}
    return lambda result: result.level.reason in reasons


def _open(results: Iterable[ClaimResult]) -> list[tuple[str, list[str]]]:
    """(reason, ids) of claims without a measurement, the most frequent reason first."""
    found: dict[str, list[str]] = {}
    for result in results:
        reason = result.level.reason.replace(result.claim.id, "followed by the ids")
        found.setdefault(f"{result.level.verdict}: {reason}", []).append(result.claim.id)
    return sorted(found.items(), key=lambda item: -len(item[1]))


def _crossings(report: Report) -> list[dict[str, Any]]:
    """Rows of the table of displacements: by dataset, way of looking and seed."""
    rows = []
    for name, result in report.studies.displacement.items():
        for by, found in (("epoch", result.by_epoch), ("fifth of an epoch", result.by_window)):
            sides = [{at.seed: at for at in side} for side in (found.clean, found.protected)]
            seeds = sorted({*sides[0], *sides[1], *found.clean_never, *found.protected_never})
            rows += [
                {"dataset": name, "by": by, "seed": seed, "clean": sides[0].get(seed), "protected": sides[1].get(seed)}
                for seed in seeds
            ]
    return rows


def _shuffles(report: Report) -> dict[str, Any]:
    """Table 1: columns by what was trained on, rows by what was evaluated and how its perturbations were moved."""
    cells = report.studies.summary_of_shuffles()
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for cell in cells:
        how = "as they are" if cell.reading is None else f"shuffled, {cell.reading}"
        place = (cell.evaluated_on.removesuffix(" shuffled"), how)
        rows.setdefault(place, {})[cell.trained_on] = _spread(cell.accuracies)
    return {"columns": list(dict.fromkeys(cell.trained_on for cell in cells)), "rows": rows}


def _epochs_shown(report: Report) -> list[int]:
    longest = 0 if report.result is None else max((len(run.history.epochs) for run in report.result.runs), default=0)
    return [epoch for epoch in EPOCHS_SHOWN if epoch < longest]


def _hardware(report: Report) -> list[str]:
    """What runs were made on, with how many of them."""
    if report.result is None:
        return []
    words = Counter(
        f"{run.history.device}, {run.history.threads} thread{'s' if run.history.threads > 1 else ''}"
        + (f", {run.history.ranks} processes" if run.history.ranks > 1 else "")
        for run in report.result.runs
    )
    return [f"{name} ({number} run{'s' if number > 1 else ''})" for name, number in words.most_common()]


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


# The papers' tables


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A number in a paper's table."""

    claim: Claim
    result: ClaimResult | None
    """``None``: the report does not speak of it."""

    @property
    def measured(self) -> bool:
        """Whether there is a measurement beside it."""
        return self.result is not None and bool(self.result.measured)


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperTable:
    """A table of a paper, with what was measured beside what it prints."""

    paper: str
    """The paper's key."""
    number: str
    """``text``: sentences, not a table."""
    about: str
    """What all its numbers share."""
    corner: str
    """What its rows are."""
    columns: tuple[tuple[str, str], ...]
    """(dataset or other slug, what else tells this column from the others); by rows where there are many datasets."""
    rows: tuple[tuple[tuple[str, str], tuple[tuple[Entry, ...], ...]], ...]
    """(head like those of the columns, entries column by column)."""

    @property
    def measured(self) -> int:
        """How many of its numbers have a measurement."""
        return sum(entry.measured for _, cells in self.rows for cell in cells for entry in cell)


ROW_FIELDS = {
    "strategy": "strategy",
    "variant": "variant",
    "model": "model",
    "test_dataset": "evaluated on",
    "metric": "metric",
}
"""Fields of a claim that may tell the rows of a table apart, and their heads."""


def paper_tables(report: Report) -> tuple[PaperTable, ...]:
    """Every table that the report has a claim of, whole and laid out as the paper has it.

    Columns are the datasets trained on; rows are what varies among claims on the same one.
    """
    results = {result.claim.id: result for result in report.claims}
    wanted = {(result.claim.paper, result.claim.table) for result in report.claims}
    tables: dict[tuple[str, str], list[Entry]] = {}
    for claim in {**all_claims(), **{result.claim.id: result.claim for result in report.claims}}.values():
        if (claim.paper, claim.table) in wanted:
            entry = Entry(claim=claim, result=results.get(claim.id))
            tables.setdefault((claim.paper, claim.table), []).append(entry)
    return tuple(_paper_table(entries) for entries in tables.values())


def _paper_table(entries: Sequence[Entry]) -> PaperTable:
    claims = [entry.claim for entry in entries]
    by_dataset: dict[str, list[Claim]] = {}
    for claim in claims:
        by_dataset.setdefault(claim.train_dataset, []).append(claim)
    varying = [
        name for name in ROW_FIELDS if any(len({getattr(c, name) for c in own}) > 1 for own in by_dataset.values())
    ]
    metrics = len({claim.metric for claim in claims}) > 1 and "metric" not in varying
    cells: dict[tuple[tuple[str, str], tuple[str, str]], list[Entry]] = {}
    for entry in entries:
        claim = entry.claim
        row = " · ".join(_row_words(claim, name) for name in varying), ""
        dataset = "" if claim.train_dataset == "none" else claim.train_dataset
        column = dataset, claim.metric if metrics or not dataset else ""
        cells.setdefault((row, column), []).append(entry)
    rows, columns = (list(dict.fromkeys(place[axis] for place in cells)) for axis in (0, 1))
    corner = " · ".join(ROW_FIELDS[name] for name in varying)
    turned = len(columns) > WIDE and len(columns) > len(rows)
    lines, heads = (columns, rows) if turned else (rows, columns)
    return PaperTable(
        paper=claims[0].paper,
        number=claims[0].table,
        about=", ".join(_shared(claims, [name for name in ROW_FIELDS if name not in varying])),
        corner="trained on" if turned else corner,
        columns=tuple(heads),
        rows=tuple(
            (line, tuple(tuple(cells.get((head, line) if turned else (line, head), ())) for head in heads))
            for line in lines
        ),
    )


def _row_words(claim: Claim, name: str) -> str:
    value: str = getattr(claim, name)
    if name == "strategy":
        return strategy_words(value)
    return value or "as the paper proposes"


def _shared(claims: Sequence[Claim], names: Iterable[str]) -> list[str]:
    """The values that all claims have in common, of those fields; nothing for what no claim has."""
    trained = any(claim.train_dataset != "none" for claim in claims)
    found = [list(dict.fromkeys(getattr(claim, name) for claim in claims)) for name in names]
    values = [each[0] for each in found if len(each) == 1 and each[0]]
    return [strategy_words(value) if trained else value for value in values if trained or value != "none"]


def _comparison_content(comparison: Comparison, report: Report) -> dict[str, Any]:
    assert report.result is not None
    percentages = {
        name: {"mean": summary.mean, "sd": summary.sd, "values": summary.values}
        for name in ("clean", "poisoned", "poisoned_best", "poisoned_train")
        for summary in (getattr(comparison, name),)
    }
    return {
        **dataclasses.asdict(comparison),
        **percentages,
        "fully_fitted": comparison.fully_fitted,
        "seeds": report.result.seeds,
        "num_train": report.result.num_train[comparison.dataset],
        "num_test": report.result.num_test,
    }


def _claim_content(result: ClaimResult) -> dict[str, Any]:
    return {
        "id": result.claim.id,
        "verdict": result.verdict,
        "stand_in": result.stand_in,
        "reported": result.claim.value,
        **dataclasses.asdict(result),
    }


def _run_content(run: Run) -> dict[str, Any]:
    history = run.history
    accuracy = {record.epoch: record.test_accuracy for record in history.epochs}
    fitted = history.fitted()
    return {
        **dataclasses.asdict(run.cell),
        "reused": run.reused,
        "identity": run.identity,
        "finite": history.finite,
        "last_epoch": {"epoch": history.last.epoch, "test_accuracy": history.last.test_accuracy},
        "last_five": history.last_five,
        "best_epoch": {"epoch": history.best.epoch, "test_accuracy": history.best.test_accuracy},
        "after_epoch": {str(epoch): accuracy[epoch] for epoch in EPOCHS_SHOWN if epoch in accuracy},
        "first_fitted_epoch": None if fitted is None else fitted.epoch,
        **dataclasses.asdict(history),
    }


def _finite(content: Any) -> Any:
    """JSON has no NaN: ``None`` in its place."""
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple | set | frozenset):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _markdown_cell(value: object) -> str:
    """Text that neither ends a table cell nor starts HTML, a link or code."""
    text = " ".join(str(value).replace("&", "&amp;").replace("<", "&lt;").split())
    return "".join(f"\\{letter}" if letter in "\\|[`*" else letter for letter in text)
