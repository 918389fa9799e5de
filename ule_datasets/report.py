"""The verification report: what was checked, measured and left open; as JSON, Markdown and HTML."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from ule_datasets.files import write_atomically
from ule_datasets.recipe import Claim
from ule_datasets.version import __version__

if TYPE_CHECKING:
    import torch

    from ule_datasets.effect import Effect, Judgement, Run, Summary

SCHEMA = "ule-datasets report 1"
PLOT_NAME = "accuracy.png"
NO_MATPLOTLIB = "not drawn: install ule-datasets[plots]"
EPOCHS_SHOWN = (1, 2, 5, 10)
"""Columns of the table of runs, besides the last and the best epoch."""
COLOURS = {"clean": "#2f7ed8", "poisoned": "#e0561b"}
LABELS = {"clean": "clean control", "poisoned": "poisoned"}
INK = "#010203"
"""Stands for the text colour while the plot is drawn: the page's own in HTML."""


@dataclass(frozen=True, slots=True)
class Check:
    """One integrity check."""

    name: str
    passed: bool
    detail: str
    """What was found; when the check failed, what is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimResult:
    """A number that a paper prints, and what this verification can say about it."""

    claim: Claim
    verdict: str
    reason: str


def not_run(claims: Iterable[Claim], reason: str) -> tuple[ClaimResult, ...]:
    """Claims that a verification leaves open."""
    return tuple(ClaimResult(claim=claim, verdict="not run", reason=reason) for claim in claims)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything that a report tells."""

    dataset: str
    version: str
    title: str
    reduced: str | None
    """What is smaller than in the paper."""
    recipe_digest: str
    perturbation_digest: str
    manifest_digest: str
    checks: tuple[Check, ...]
    effect: Effect | None
    """``None``: only the integrity was checked."""
    claims: tuple[ClaimResult, ...]
    environment: dict[str, str]
    command: str
    date: str

    @property
    def intact(self) -> bool:
        """Whether every integrity check passed."""
        return all(check.passed for check in self.checks)

    @property
    def passed(self) -> bool:
        """Whether every check passed and, where it was measured, the effect is as expected."""
        return self.intact and (self.effect is None or self.effect.as_expected)

    def to_json(self) -> str:
        """Indented JSON with everything, including what was derived from the runs."""
        content = {
            "schema": SCHEMA,
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
            "checks": [dataclasses.asdict(check) for check in self.checks],
            "claims": [dataclasses.asdict(result) for result in self.claims],
            "effect": None if self.effect is None else _effect_content(self.effect),
            "intact": self.intact,
            "passed": self.passed,
        }
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """The test accuracy per epoch, drawn."""

    png: bytes
    svg: str
    """To be put into an HTML page; text in the page's colour."""


def describe_environment(device: torch.device) -> dict[str, str]:
    """Hardware, system and versions that results depend on; no host name, user or path."""
    import torch

    from ule_datasets.training import cpu_model, describe_device

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
    """Write report.md, report.html, accuracy.png where there is something to draw, and report.json, the last.

    Each file is written atomically; a plot of an older report is removed where there is no new one.

    Returns:
        The path of report.html.
    """
    plot = None if report.effect is None else draw_accuracy(report.effect)
    if plot is None:
        (folder / PLOT_NAME).unlink(missing_ok=True)
    else:
        write_atomically(folder / PLOT_NAME, plot.png)
    for name in ("report.md", "report.html"):
        write_atomically(folder / name, render(f"{name}.jinja", report, plot))
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


def _effect_content(effect: Effect) -> dict[str, Any]:
    """Runs with every epoch, and what follows from them."""
    return {
        "profile": dataclasses.asdict(effect.profile),
        "num_classes": effect.num_classes,
        "num_train": effect.num_train,
        "num_test": effect.num_test,
        "chance": effect.chance,
        "collapse_expected": effect.collapse_expected,
        "as_expected": effect.as_expected,
        "summary": effect.summary,
        "separability": None if effect.separability is None else dataclasses.asdict(effect.separability),
        "judgements": [_judgement_content(judgement) for judgement in effect.judgements],
        "runs": [_run_content(run) for run in effect.runs],
    }


def _judgement_content(judgement: Judgement) -> dict[str, Any]:
    percentages = {
        name: {"mean": summary.mean, "sd": summary.sd, "values": summary.values}
        for name in ("clean", "poisoned", "poisoned_train")
        for summary in (getattr(judgement, name),)
    }
    return {
        "augmentation": judgement.augmentation,
        "verdict": judgement.verdict,
        **percentages,
        "fully_fitted": judgement.fully_fitted,
        "notes": judgement.notes,
    }


def _run_content(run: Run) -> dict[str, Any]:
    history = run.history
    accuracy = {record.epoch: record.test_accuracy for record in history.epochs}
    return {
        "trained_on": run.kind,
        "reused": run.reused,
        "finite": history.finite,
        "last_epoch": {"epoch": history.last.epoch, "test_accuracy": history.last.test_accuracy},
        "best_epoch": {"epoch": history.best.epoch, "test_accuracy": history.best.test_accuracy},
        "after_epoch": {str(epoch): accuracy[epoch] for epoch in EPOCHS_SHOWN if epoch in accuracy},
        **dataclasses.asdict(history),
    }


def _markdown_cell(value: object) -> str:
    """Text that neither ends a table cell nor starts HTML."""
    return " ".join(str(value).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").split())
