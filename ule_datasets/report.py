"""The verification report: what was checked, measured and left open; as JSON, Markdown and HTML."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from ule_datasets.files import write_atomically
from ule_datasets.effect import Collapse, Comparison
from ule_datasets.integrity import Check
from ule_datasets.version import __version__

if TYPE_CHECKING:
    import torch

    from ule_datasets.grid import GridResult, LostRun, Run
    from ule_datasets.judging import ClaimResult, StatementResult
    from ule_datasets.profiles import Profile
    from ule_datasets.separability import Separability
    from ule_datasets.studies import Studies

SCHEMA = "ule-datasets report 2"
PLOT_NAME = "accuracy.png"
NO_MATPLOTLIB = "not drawn: install ule-datasets[plots]"
EPOCHS_SHOWN = (1, 2, 5, 10, 20, 50)
"""Columns of the table of runs, besides the last and the best epoch."""
COLOURS = {"clean": "#2f7ed8", "poisoned": "#e0561b"}
LABELS = {"clean": "clean control", "poisoned": "poisoned"}
INK = "#010203"
"""Stands for the text colour while the plot is drawn: the page's own in HTML."""


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

        Only where all strategies were tried that the profile usually tries.
        """
        found = []
        for name, expected in self.collapse_expected.items():
            seen = {c.collapse for c in self.comparisons if c.dataset == name}
            tried = {c.strategy for c in self.comparisons if c.dataset == name}
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
            "comparisons": [_comparison_content(comparison, self) for comparison in self.comparisons],
            "claims": [_claim_content(result) for result in self.claims],
            "statements": [dataclasses.asdict(result) for result in self.statements],
            "analyses": dataclasses.asdict(self.studies),
            "runs": [] if self.result is None else [_run_content(run) for run in self.result.runs],
            "lost": [dataclasses.asdict(run) for run in self.lost],
        }
        return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """The test accuracy per epoch, drawn."""

    png: bytes
    svg: str
    """To be put into an HTML page; text in the page's colour."""


def describe_environment(device: torch.device) -> dict[str, str]:
    """Hardware, system and versions that results depend on; no host name, user or path."""
    import torch

    from ule_datasets.devices import cpu_model, describe_device

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

    Each file is written atomically.

    Returns:
        The path of report.html.
    """
    write_atomically(folder / "report.json", report.to_json())
    return folder / "report.html"


def render(template: str, report: Report, plot: Plot | None) -> str:
    """Fill in one of the templates."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ule_datasets"),
        autoescape=jinja2.select_autoescape(("html.jinja",), default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.1f}"
    environment.filters["cell"] = _markdown_cell
    return environment.get_template(template).render(
        report=report,
        effect=report.effect,
        judgements=() if report.effect is None else report.effect.judgements,
        rows=() if report.effect is None else [_row(run) for run in report.effect.runs],
        epochs_shown=() if report.effect is None else _epochs_shown(report.effect),
        plot=plot,
        plot_name=PLOT_NAME,
        no_plot=NO_MATPLOTLIB,
    )


def draw_accuracy(effect: Effect) -> Plot | None:
    """Draw the test accuracy per epoch, a panel for each augmentation; ``None`` where matplotlib is missing."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        return None

    def drawn(ink: str, save: Callable[[Any], None]) -> None:
        settings: Any = {
            "svg.fonttype": "none",
            "svg.hashsalt": "ule-datasets",
            "font.family": "sans-serif",
            "font.size": 10,
            **{f"{part}.color": ink for part in ("text", "xtick", "ytick")},
        }
        with mpl.rc_context(settings):
            figure = Figure(figsize=(4.4 * len(effect.judgements), 3.7), layout=ConstrainedLayoutEngine(w_pad=0.12))
            panels = figure.subplots(1, len(effect.judgements), sharey=True, squeeze=False)[0]
            for panel, judgement in zip(panels, effect.judgements, strict=True):
                _draw_panel(panel, effect, judgement, ink)
            panels[0].set_ylabel("clean test accuracy, %", color=ink)
            handles, labels = panels[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
            save(figure)

    png, svg = io.BytesIO(), io.StringIO()
    drawn("#222222", lambda figure: figure.savefig(png, format="png", dpi=160, facecolor="white"))
    drawn(INK, lambda figure: figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None}))
    text = svg.getvalue()
    return Plot(png=png.getvalue(), svg=text[text.index("<svg") :].replace(INK, "currentColor"))


def _draw_panel(panel: Any, effect: Effect, judgement: Judgement, ink: str) -> None:
    """The curves of one augmentation: one per seed, the last epoch filled and labelled, the best one hollow."""
    means = {"clean": judgement.clean, "poisoned": judgement.poisoned}
    for kind, colour in COLOURS.items():
        runs = [r.history for r in effect.runs if (str(r.kind), r.augmentation) == (kind, judgement.augmentation)]
        for number, history in enumerate(runs):
            epochs = [record.epoch for record in history.epochs]
            accuracy = [record.test_accuracy for record in history.epochs]
            label = LABELS[kind] if number == 0 else None
            panel.plot(epochs, accuracy, color=colour, linewidth=1.8, label=label, zorder=3)
            panel.plot(epochs[-1], accuracy[-1], "o", color=colour, markersize=6, zorder=4)
            panel.plot(
                history.best.epoch, history.best.test_accuracy, "o", markerfacecolor="none", markeredgecolor=colour,
                markersize=10, markeredgewidth=1.2, zorder=4,
            )  # fmt: skip
        last = max(history.last.epoch for history in runs)
        panel.annotate(
            f"{means[kind].mean:.1f}", (last, _label_height(means[kind].mean, means, kind)), xytext=(9, 0),
            textcoords="offset points", color=colour, va="center", fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    panel.axhline(effect.chance, color="#888888", linestyle=(0, (4, 3)), linewidth=1, label="chance", zorder=1)
    panel.plot([], [], "o", color="#888888", markersize=6, label="last epoch")
    panel.plot([], [], "o", markerfacecolor="none", markeredgecolor="#888888", markersize=9, label="best epoch")
    panel.set_title(f"{judgement.heading}: {judgement.verdict}", fontsize=10, loc="left", color=ink)
    panel.set_xlim(0.5, effect.profile.epochs * 1.13 + 0.5)
    panel.set_ylim(0, 102)
    panel.set_xticks(_ticks(effect.profile.epochs))
    panel.set_xlabel("epoch", color=ink)
    panel.grid(axis="y", color="#888888", alpha=0.25, linewidth=0.8)
    panel.tick_params(length=0)
    for side in panel.spines.values():
        side.set_visible(False)


def _label_height(value: float, means: dict[str, Summary], kind: str) -> float:
    """Where a label goes so that two close ones do not overlap (percent)."""
    other = next(summary.mean for name, summary in means.items() if name != kind)
    if abs(value - other) >= 6:
        return value
    above = kind == "clean" if value == other else value > other
    return (value + other) / 2 + (3 if above else -3)


def _ticks(epochs: int) -> list[int]:
    step = max(1, epochs // 5)
    return sorted({1, *range(step, epochs + 1, step), epochs})


def _epochs_shown(effect: Effect) -> list[int]:
    return [epoch for epoch in EPOCHS_SHOWN if epoch < effect.profile.epochs]


def _row(run: Run) -> dict[str, Any]:
    """A line of the table of runs."""
    history = run.history
    return {
        "augmentation": run.augmentation,
        "label": LABELS[run.kind],
        "kind": str(run.kind),
        "seed": history.seed,
        "at": {record.epoch: record.test_accuracy for record in history.epochs},
        "last": history.last,
        "best": history.best,
        "seconds": history.seconds,
        "device": history.device,
        "threads": history.threads,
        "reused": run.reused,
        "finite": history.finite,
    }


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
    """Text that neither ends a table cell nor starts HTML."""
    return " ".join(str(value).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").split())
