"""The pictures of a verification report: as PNG beside it, and as SVG in the text colour of its page.

matplotlib is optional. Whatever is drawn is also in the report's tables.
"""

from __future__ import annotations

import io
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ule_datasets.papers.claims import CLEAN_ACCURACY

if TYPE_CHECKING:
    from ule_datasets.analyses.studies import Landscape
    from ule_datasets.experiments.grid import Cell, GridResult, Run
    from ule_datasets.verification.report import Report
    from ule_datasets.victims.history import RunHistory

PLOT_NAMES = ("accuracy.png", "strategies.png", "displacement.png", "landscape.png")
CONTROL = "#2f7ed8"
PALETTE = (
    "#e0561b", "#2a9d57", "#9a5bd0", "#c79100", "#13a3a3", "#d6408f", "#8c6239", "#7c8a2e", "#c1121f",
)  # fmt: skip
"""Of the datasets, in turn; readable on white and on black."""
GREY = "#888888"
INK = "#010203"
"""Stands for the text colour while a plot is drawn: the page's own in HTML."""
PANELS_A_ROW = 3
BARS_A_ROW = 32
BARS_WITH_NUMBERS = 20
CONTOURS = 10
LAST, BEST, CHANCE = "last epoch", "best epoch", "chance"
REPORTED, REPORTED_OF_OTHERS = "reported", "reported; measured with another model or other data"
BY_EPOCH, BY_WINDOW = "first epoch at 90 % training accuracy", "first fifth of an epoch at 90 %"
FILLED: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 5}
HOLLOW: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 8, "markerfacecolor": "none"}
DIAMOND: dict[str, Any] = {"marker": "D", "linestyle": "", "markersize": 6, "markerfacecolor": "#d9d9d9"}
SIGNS: dict[str, dict[str, Any]] = {
    CHANCE: {"linestyle": (0, (4, 3)), "linewidth": 1},
    LAST: FILLED,
    BEST: HOLLOW,
    BY_EPOCH: FILLED,
    BY_WINDOW: HOLLOW,
    REPORTED: DIAMOND,
    REPORTED_OF_OTHERS: {**DIAMOND, "markerfacecolor": "none"},
}
"""How the signs look that have no colour of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """One picture."""

    name: str
    """Of its PNG file; one of ``PLOT_NAMES``."""
    alt: str
    """What it shows, for those who do not see it."""
    png: bytes
    svg: str
    """To be put into an HTML page, any number of them into one; text in the page's colour."""


def draw_plots(report: Report, labels: Mapping[str, str]) -> tuple[Plot, ...] | None:
    """Everything there is to draw; nothing where nothing was trained.

    Args:
        report: what was measured.
        labels: how to name datasets; those not in it by their own names.

    Returns:
        In the order of ``PLOT_NAMES``; ``None``: there is something to draw, and matplotlib is missing.
    """
    result = report.result
    if result is None or not result.runs:
        return ()
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        return None
    artist = _Artist(report, result, labels)
    drawn = [
        _plot(PLOT_NAMES[0], "Clean test accuracy after every epoch, by strategy", artist.accuracy),
        _plot(PLOT_NAMES[1], "Clean test accuracy after the last epoch, measured and reported", artist.strategies),
    ]
    if report.studies.displacement:
        drawn.append(_plot(PLOT_NAMES[2], "Distance of the parameters from their first values", artist.displacement))
    if any(_levels(each) for each in report.studies.landscapes):
        drawn.append(_plot(PLOT_NAMES[3], "Loss around the trained parameters, protected and clean", artist.landscape))
    return tuple(drawn)


def strategy_words(strategy: str) -> str:
    """A strategy's slug as a heading."""
    return "no augmentation" if strategy == "none" else strategy


def _plot(name: str, alt: str, draw: Callable[[str], Any]) -> Plot:
    """Draw it twice, ``draw`` takes the colour of the text: dark on white, and for the page's own colour."""
    import matplotlib as mpl

    stem = name.removesuffix(".png")
    png, svg = io.BytesIO(), io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    for ink, target, how in (
        ("#222222", png, {"format": "png", "dpi": 130, "facecolor": "white"}),
        (INK, svg, {"format": "svg", "transparent": True, "metadata": nothing}),
    ):
        settings: Any = {
            "svg.fonttype": "none", "svg.hashsalt": stem, "font.family": "sans-serif", "font.size": 9.5,
            "text.parse_math": False, **{f"{part}.color": ink for part in ("text", "xtick", "ytick")},
        }  # fmt: skip
        with mpl.rc_context(settings):
            draw(ink).savefig(target, **how)
    text = svg.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # Names inside of a picture must be unique on a page with several of them.
    text = re.sub(r'(?<=\sid=")|(?<=url\(#)|(?<=xlink:href="#)', f"{stem}-", text)
    return Plot(name=name, alt=alt, png=png.getvalue(), svg=text)


class _Artist:
    """Draws the figures of one report."""

    def __init__(self, report: Report, result: GridResult, labels: Mapping[str, str]) -> None:
        self.report, self.result, self.labels = report, result, labels
        known = {part.name for part in report.datasets}
        self.datasets = [n for n in dict.fromkeys(run.cell.dataset for run in result.runs) if n in known]
        self.models = list(dict.fromkeys(run.cell.model for run in result.runs))
        self.epochs = report.profile.epochs

    def accuracy(self, ink: str) -> Any:
        """Test accuracy per epoch: a panel for each strategy and model, a curve for each run."""
        kinds = list(dict.fromkeys((run.cell.strategy, run.cell.model) for run in self.result.runs))
        figure, panels = self._panels(len(kinds))
        for panel, (strategy, model) in zip(panels, kinds, strict=True):
            runs = [run for run in self.result.runs if (run.cell.strategy, run.cell.model) == (strategy, model)]
            self._curves(panel, runs)
            panel.set_title(self._heading(strategy, model), fontsize=9.5, loc="left", color=ink)
            panel.axhline(self.result.chance, color=GREY, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
            panel.set_ylim(0, 102)
            panel.set_ylabel("clean test accuracy, %", color=ink)
            self._epochs(panel, ink)
        self._legend(figure, (CHANCE, LAST, BEST))
        return figure

    def strategies(self, ink: str) -> Any:
        """Test accuracy after the last epoch: a group of bars for each strategy, what papers report as diamonds."""
        rows = list(self._rows_of_bars())
        widest = max(sum(len(group) for _, group in groups) for _, groups in rows)
        figure = _figure(min(12.0, max(5.0, 1.5 + 0.42 * widest)), 3.0 * len(rows) + 0.5)
        panels = figure.subplots(len(rows), 1, sharey=True, squeeze=False)[:, 0]
        for panel, (model, groups) in zip(panels, rows, strict=True):
            ticks = []
            start = 0.0
            for strategy, group in groups:
                for place, cell in enumerate(group):
                    self._bar(panel, start + place, cell, numbers=widest <= BARS_WITH_NUMBERS)
                ticks.append((start + (len(group) - 1) / 2, strategy_words(strategy).replace("+", "+\n")))
                start += len(group) + 1
            panel.set_xticks([place for place, _ in ticks], [words for _, words in ticks])
            panel.set_xlim(-0.9, start - 1.1)
            panel.axhline(self.result.chance, color=GREY, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
            panel.set_ylim(0, 108)
            panel.set_yticks(range(0, 101, 20))
            panel.set_ylabel("clean test accuracy, %", color=ink)
            if len(self.models) > 1:
                panel.set_title(model, fontsize=9.5, loc="left", color=ink)
            _plain(panel)
        drawn = {run.cell for run in self.result.runs}
        signs = {sign for cell, row in self._reported().items() if cell in drawn for _, sign in row}
        self._legend(figure, (CHANCE, *sorted(signs)), bars=True)
        return figure

    def displacement(self, ink: str) -> Any:
        """Displacement over training: a panel for each dataset beside its control."""
        found = self.report.studies.displacement
        model = self.report.profile.trained_for("resnet18") or "resnet18"
        control = {one.dataset: one.control for one in self.report.comparisons}
        figure, panels = self._panels(len(found), sharey=False)
        for panel, (name, result) in zip(panels, found.items(), strict=True):
            both = result.by_epoch, result.by_window
            for dataset, side in ((control.get(name, ""), "clean"), (name, "protected")):
                colour = self._colour(dataset)
                runs = [r.history for r in self.result.runs if _is(r, dataset, model, "standard")]
                for history in runs:
                    panel.plot(*_way(history), color=colour, linewidth=1.5, alpha=0.85, zorder=3)
                steps = _steps(runs)
                for comparison, sign in zip(both, (BY_EPOCH, BY_WINDOW), strict=True):
                    for at in getattr(comparison, side):
                        x = at.epoch if at.by == "epoch" else at.step / steps
                        panel.plot(x, at.displacement, color=colour, zorder=4, **SIGNS[sign])
            panel.set_title(self.labels.get(name, name), fontsize=9.5, loc="left", color=ink)
            panel.set_ylim(bottom=0)
            panel.set_ylabel("distance from the first parameters", color=ink)
            self._epochs(panel, ink, last=self.epochs + 0.5)
        self._legend(figure, (BY_EPOCH, BY_WINDOW), shown=found)
        return figure

    def landscape(self, ink: str) -> Any:
        """Contours of the loss: a row for each seed, protected beside clean, the same levels on both."""
        import numpy as np
        from matplotlib.colors import LinearSegmentedColormap

        colours = LinearSegmentedColormap.from_list("loss", [CONTROL, PALETTE[2], PALETTE[0]])
        found = [(each, levels) for each in self.report.studies.landscapes if (levels := _levels(each))]
        figure = _figure(8.4, 3.9 * len(found))
        rows = figure.subplots(len(found), 2, squeeze=False)
        for row, (each, levels) in zip(rows, found, strict=True):
            sides = ((each.protected, self.labels.get(each.dataset, each.dataset)), (each.clean, "clean control"))
            for panel, (surface, words) in zip(row, sides, strict=True):
                losses = np.array([[np.nan if v is None else v for v in line] for line in surface.losses])
                if np.nanmin(losses, initial=np.inf) <= levels[-1]:
                    lines = panel.contour(
                        surface.grid, surface.grid, losses, levels=levels, cmap=colours, linewidths=1.2, norm="log",
                    )  # fmt: skip
                    panel.clabel(lines, fmt="%.2g", fontsize=7)
                panel.plot(0, 0, "+", color=GREY, markersize=9)
                panel.set_title(f"{words}, seed {each.seed}", fontsize=9.5, loc="left", color=ink)
                panel.set_aspect("equal")
                panel.locator_params(nbins=5)
                panel.set_xlabel("second direction", color=ink)
                panel.set_ylabel("first direction", color=ink)
                _plain(panel, grid=False)
        return figure

    def _panels(self, number: int, *, sharey: bool = True) -> tuple[Any, Sequence[Any]]:
        """A figure with so many panels in rows; what is left of the last row stays empty."""
        columns = number if number <= PANELS_A_ROW else 2 if number == 4 else PANELS_A_ROW
        rows = math.ceil(number / columns)
        figure = _figure(max(5.2, 4.2 * columns), 3.1 * rows + 0.6)
        panels = figure.subplots(rows, columns, sharey=sharey, squeeze=False).flatten()
        for panel in panels[number:]:
            panel.set_visible(False)
        return figure, panels[:number]

    def _heading(self, strategy: str, model: str) -> str:
        words = strategy_words(strategy) + (f", {model}" if len(self.models) > 1 else "")
        found = [one for one in self.report.comparisons if (one.strategy, one.model) == (strategy, model)]
        return f"{words}: {found[0].collapse}" if len(found) == 1 and len(self.datasets) == 1 else words

    def _curves(self, panel: Any, runs: Sequence[Run]) -> None:
        """One per run: the last epoch filled, the best one hollow; the mean of the last ones beside it."""
        ends = []
        for dataset in dict.fromkeys(run.cell.dataset for run in runs):
            colour, style = self._colour(dataset), self._style(dataset)
            own = [run.history for run in runs if run.cell.dataset == dataset]
            for history in own:
                epochs = [record.epoch for record in history.epochs]
                accuracy = [record.test_accuracy for record in history.epochs]
                panel.plot(epochs, accuracy, color=colour, linestyle=style, linewidth=1.5, alpha=0.9, zorder=3)
                panel.plot(epochs[-1], accuracy[-1], color=colour, zorder=4, **SIGNS[LAST])
                panel.plot(history.best.epoch, history.best.test_accuracy, color=colour, zorder=4, **SIGNS[BEST])
            ends.append((statistics.fmean(history.last.test_accuracy for history in own), colour))
        heights = _apart([value for value, _ in ends], gap=6.0)
        for (value, colour), height in zip(ends, heights, strict=True):
            panel.annotate(
                f"{value:.1f}", (self.epochs, height), xytext=(9, 0), textcoords="offset points", color=colour,
                va="center", fontweight="bold", fontsize=9, annotation_clip=False,
            )  # fmt: skip

    def _bar(self, panel: Any, place: float, cell: Cell, *, numbers: bool) -> None:
        values = [history.last.test_accuracy for history in self.result.histories(cell)]
        mean = statistics.fmean(values)
        panel.bar(place, mean, width=0.86, color=self._colour(cell.dataset), alpha=0.8, zorder=2)
        if len(values) > 1:
            panel.errorbar(place, mean, yerr=statistics.stdev(values), color=GREY, capsize=2, linewidth=1.2, zorder=3)
        reported = self._reported().get(cell, [])
        for value, sign in reported:
            panel.plot(place, value, color=GREY, zorder=4, **SIGNS[sign])
        if numbers:
            panel.annotate(
                f"{mean:.1f}", (place, max([mean, *(value for value, _ in reported)])), xytext=(0, 6), fontsize=8,
                textcoords="offset points", ha="center", annotation_clip=False,
            )  # fmt: skip

    def _rows_of_bars(self) -> Iterator[tuple[str, list[tuple[str, list[Cell]]]]]:
        """(model, [(strategy, its cells, controls first)]) of each row, as many strategies as fit."""
        for model in self.models:
            cells = dict.fromkeys(run.cell for run in self.result.runs if run.cell.model == model)
            groups: dict[str, list[Cell]] = {}
            for cell in sorted(cells, key=lambda cell: cell.dataset in self.datasets):
                groups.setdefault(cell.strategy, []).append(cell)
            fitting = max(1, BARS_A_ROW // max(len(group) for group in groups.values()))
            named = [(strategy, groups[strategy]) for strategy in dict.fromkeys(cell.strategy for cell in cells)]
            for start in range(0, len(named), fitting):
                yield model, named[start : start + fitting]

    def _reported(self) -> dict[Cell, list[tuple[float, str]]]:
        """Printed accuracies by cell, each once; with the sign that tells whether the very same was measured."""
        found: dict[Cell, dict[tuple[float, str], None]] = {}
        unjudged = {part.unjudged for part in self.report.datasets} - {""}
        for result in self.report.claims:
            if result.cell is not None and result.claim.metric == CLEAN_ACCURACY:
                other = result.stand_in or result.level.reason in unjudged
                sign = REPORTED_OF_OTHERS if other else REPORTED
                found.setdefault(result.cell, {})[result.claim.value, sign] = None
        return {cell: list(values) for cell, values in found.items()}

    def _colour(self, dataset: str) -> str:
        if dataset not in self.datasets:
            return CONTROL
        return PALETTE[self.datasets.index(dataset) % len(PALETTE)]

    def _style(self, dataset: str) -> str:
        """Another one where the colours begin again."""
        if dataset not in self.datasets:
            return "-"
        return ("-", "--", ":", "-.")[self.datasets.index(dataset) // len(PALETTE) % 4]

    def _epochs(self, panel: Any, ink: str, *, last: float | None = None) -> None:
        step = max(1, self.epochs // 5)
        panel.set_xlim(0.5 if last is None else 0, last or self.epochs * 1.15 + 0.5)
        panel.set_xticks(sorted({1, *range(step, self.epochs + 1, step), self.epochs}))
        panel.set_xlabel("epoch", color=ink)
        _plain(panel)

    def _legend(
        self, figure: Any, signs: Sequence[str], *, bars: bool = False, shown: Mapping[str, object] | None = None
    ) -> None:
        """Below all panels: datasets by colour (those in ``shown`` if not all), and what the signs mean."""
        from matplotlib.lines import Line2D

        look: Any = {"marker": "s", "linestyle": "", "markersize": 8} if bars else {"linewidth": 2}
        entries: list[tuple[str, Any]] = []
        if any(run.cell.dataset not in self.datasets for run in self.result.runs):
            entries.append(("clean control", {"color": CONTROL, **look}))
        for name in self.datasets:
            if shown is None or name in shown:
                style = {} if bars else {"linestyle": self._style(name)}
                entries.append((self.labels.get(name, name), {"color": self._colour(name), **look, **style}))
        entries += [(words, {"color": GREY, **SIGNS[words]}) for words in signs]
        fitting = int(figure.get_figwidth() * 11 / (max(len(words) for words, _ in entries) + 6))
        figure.legend(
            handles=[Line2D([], [], label=words, **how) for words, how in entries], loc="outside lower center",
            ncols=min(max(1, fitting), len(entries)), frameon=False, fontsize=9,
        )  # fmt: skip


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))


def _plain(panel: Any, *, grid: bool = True) -> None:
    """Without a frame."""
    if grid:
        panel.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(length=0)
    for side in panel.spines.values():
        side.set_visible(False)


def _is(run: Run, dataset: str, model: str, strategy: str) -> bool:
    return (run.cell.dataset, run.cell.model, run.cell.strategy) == (dataset, model, strategy)


def _steps(runs: Sequence[RunHistory]) -> int:
    """Steps of an epoch."""
    return next((run.epochs[0].windows[-1].step for run in runs if run.epochs[0].windows), 1)


def _way(history: RunHistory) -> tuple[list[float], list[float]]:
    """(epochs and parts of them, displacement after each)."""
    steps = _steps([history])
    windows = [window for record in history.epochs for window in record.windows]
    return [0.0, *(window.step / steps for window in windows)], [0.0, *(window.displacement for window in windows)]


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """Heights from 0 to 100 for labels, in the order of the values, ``gap`` apart and as near to them as can be."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    # Without the gaps, heights must only not fall: neighbours that would are pooled at their mean.
    pools: list[list[float]] = []
    for place, index in enumerate(order):
        pools.append([values[index] - place * gap])
        while len(pools) > 1 and statistics.fmean(pools[-2]) > statistics.fmean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    level = [statistics.fmean(pool) for pool in pools for _ in pool]
    highest = 100 - (len(values) - 1) * gap
    heights = [max(0.0, min(highest, each)) + place * gap for place, each in enumerate(level)]
    return [heights[order.index(index)] for index in range(len(values))]


def _levels(landscape: Landscape) -> list[float]:
    """Losses to draw contours at, evenly spaced by their logarithms; none where nothing is finite or all is flat."""
    losses = [
        loss
        for surface in (landscape.protected, landscape.clean)
        for row in surface.losses
        for loss in row
        if loss is not None and loss > 0
    ]
    if not losses or min(losses) == max(losses):
        return []
    low, high = math.log(max(min(losses), 1e-3)), math.log(max(losses))
    if low >= high:
        return []
    return [math.exp(low + (high - low) * (index + 0.5) / CONTOURS) for index in range(CONTOURS)]
