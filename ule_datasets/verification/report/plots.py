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
from functools import partial
from typing import Any

import numpy as np

from ule_datasets.analyses.findings import FIGURES
from ule_datasets.analyses.telling import FILLED, HOLLOW, Contours, Curves, Plane
from ule_datasets.experiments.grid import Cell, GridResult, Run
from ule_datasets.papers.claims import CLEAN_ACCURACY
from ule_datasets.verification.report.content import Report, strategy_words

PLOT_NAMES = tuple(f"{name}.png" for name in ("accuracy", "strategies", *FIGURES))
CONTROL = "#0072b2"
PALETTE = ("#d55e00", "#8a14ff", "#35b64a", "#dd8896", "#964f2c", "#ff3dff", "#b63575")
"""Of the datasets, in turn; readable on white and on black, and told apart by those who see fewer colours."""
STYLES = ("-", "--", "-.", ":")
"""Of their lines, in turn."""
GREY = "#888888"
INK = "#010203"
"""Stands for the text colour while a plot is drawn: the page's own in HTML."""
PANELS_A_ROW = 3
BARS_A_ROW = 20
NUMBER_ROOM = 14.0
"""Points of accuracy above a bar that its number takes."""
CONTOURS = 10
LAST, BEST, CHANCE = "last epoch", "best epoch", "chance"
REPORTED, REPORTED_OF_OTHERS = "reported", "reported; measured with another model or other data"
DOT: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 5}
RING: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 8, "markerfacecolor": "none"}
OUTLINED: dict[str, Any] = {"linestyle": "", "markeredgewidth": 1.6, "markerfacecolor": "#ffffff"}
"""Seen on every bar, on white and on black."""
SIGNS: dict[str, dict[str, Any]] = {
    "": {"linewidth": 1.5, "alpha": 0.85},
    CHANCE: {"linestyle": (0, (4, 3)), "linewidth": 1},
    LAST: DOT,
    BEST: RING,
    FILLED: DOT,
    HOLLOW: RING,
    REPORTED: {**OUTLINED, "marker": "D", "markersize": 7, "markeredgecolor": "#222222"},
    REPORTED_OF_OTHERS: {**OUTLINED, "marker": "s", "markersize": 6, "markeredgecolor": GREY},
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

    @property
    def width(self) -> float:
        """Of the drawing, in points."""
        found = re.search(r'width="([\d.]+)pt"', self.svg)
        return float(found[1]) if found else 0.0

    @property
    def files(self) -> dict[str, bytes]:
        """The picture, and a drawing of the same on white, by name."""
        drawing = self.svg.replace("<svg ", '<svg style="background:#ffffff;color:#222222" ', 1)
        return {self.name: self.png, f"{self.name.removesuffix('.png')}.svg": drawing.encode()}


def draw_plots(report: Report, labels: Mapping[str, str]) -> tuple[Plot, ...] | None:
    """Everything there is to draw, in the order of ``PLOT_NAMES``; ``None``: there is something, and no matplotlib.

    Datasets that are not in ``labels`` are called by their own names.
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
        _plot("strategies", "Clean test accuracy after the last epoch, measured and reported", artist.strategies),
    ]
    if not report.profile.own:
        drawn.insert(0, _plot("accuracy", "Clean test accuracy after every epoch, by strategy", artist.accuracy))
    for name, section in report.findings.sections(result).items():
        chart = section.chart
        if isinstance(chart, Curves):
            drawn.append(_plot(name, chart.alt, partial(artist.curves, chart)))
        elif chart is not None and any(_levels(row) for row in chart.rows):
            drawn.append(_plot(name, chart.alt, partial(artist.contours, chart)))
    return tuple(drawn)


def _plot(stem: str, alt: str, draw: Callable[[str], Any]) -> Plot:
    """Draw it twice, ``draw`` takes the colour of the text: dark on white, and for the page's own colour."""
    import matplotlib as mpl

    png, svg = io.BytesIO(), io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    for ink, target, how in (
        ("#222222", png, {"format": "png", "dpi": 130, "facecolor": "white"}),
        (INK, svg, {"format": "svg", "transparent": True, "metadata": nothing}),
    ):
        settings: Any = {f"{part}.color": ink for part in ("text", "xtick", "ytick")}
        settings |= {"font.family": "sans-serif", "font.size": 9.5, "text.parse_math": False}
        settings |= {"svg.fonttype": "none", "svg.hashsalt": stem}
        with mpl.rc_context(settings):
            draw(ink).savefig(target, **how)
    text = svg.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # Names inside of a picture must be unique on a page with several of them.
    text = re.sub(r'(?<=\sid=")|(?<=url\(#)|(?<=xlink:href="#)', f"{stem}-", text)
    return Plot(name=f"{stem}.png", alt=alt, png=png.getvalue(), svg=text)


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
            for chance in self.result.chances:
                panel.axhline(chance, color=GREY, zorder=1, **SIGNS[CHANCE])
            panel.set_ylim(0, 102)
            self._epochs(panel, 0.5, self.epochs * 1.15 + 0.5)
            _dress(panel, ink, self._heading(strategy, model), "epoch", "clean test accuracy, %")
        self._legend(figure, {sign: sign for sign in (CHANCE, LAST, BEST)})
        return figure

    def strategies(self, ink: str) -> Any:
        """Test accuracy after the last epoch: named bars in a group for each strategy, with what papers report."""
        rows = list(self._rows_of_bars())
        widest = max(sum(len(group) for _, group in groups) for _, groups in rows)
        figure = _figure(min(12.0, max(5.0, 1.5 + 0.55 * widest)), 3.6 * len(rows) + 0.5)
        panels = figure.subplots(len(rows), 1, sharey=True, squeeze=False)[:, 0]
        for panel, (model, groups) in zip(panels, rows, strict=True):
            ticks: list[tuple[float, str]] = []
            start = 0.0
            for strategy, group in groups:
                for place, cell in enumerate(group):
                    self._bar(panel, start + place, cell)
                    ticks.append((start + place, self._bar_name(cell.dataset)))
                middle, words = start + (len(group) - 1) / 2, strategy_words(strategy).replace("+", "+\n")
                _write(panel, words, (middle, 112), (0, 0), ha="center", va="bottom", fontweight="bold", fontsize=9)
                start += len(group) + 1
            how: Any = {"rotation": 35, "ha": "right", "rotation_mode": "anchor", "fontsize": 8}
            panel.set_xticks([place for place, _ in ticks], [words for _, words in ticks], **how)
            panel.set_xlim(-0.9, start - 1.1)
            for chance in self.result.chances:
                panel.axhline(chance, color=GREY, zorder=1, **SIGNS[CHANCE])
            panel.set_ylim(0, 112)
            panel.set_yticks(range(0, 101, 20))
            _dress(panel, ink, "", "", "clean test accuracy, %" + (f"\n{model}" if len(self.models) > 1 else ""))
        drawn = {run.cell for run in self.result.runs}
        signs = {sign for cell, row in self._reported().items() if cell in drawn for _, sign in row}
        self._legend(figure, {sign: sign for sign in (CHANCE, *sorted(signs))}, shown=())
        return figure

    def curves(self, chart: Curves, ink: str) -> Any:
        """A panel for each dataset beside its control, a curve for each run."""
        figure, panels = self._panels(len(chart.panels), sharey=False)
        for panel, (dataset, traces) in zip(panels, chart.panels.items(), strict=True):
            for trace in traces:
                above = 4 if trace.sign else 3
                how = {"linestyle": self._style(trace.dataset), **SIGNS[""]} if not trace.sign else SIGNS[trace.sign]
                panel.plot(trace.x, trace.y, color=self._colour(trace.dataset), zorder=above, **how)
            panel.set_ylim(bottom=0)
            self._epochs(panel, 0, self.epochs + 0.5)
            _dress(panel, ink, self._named(dataset), "epoch", chart.y)
        self._legend(figure, {chart.filled: FILLED, chart.hollow: HOLLOW}, shown=list(chart.panels))
        return figure

    def contours(self, chart: Contours, ink: str) -> Any:
        """A row of planes under another, the same levels on all of a row."""
        from matplotlib.colors import LinearSegmentedColormap

        colours = LinearSegmentedColormap.from_list("loss", [CONTROL, PALETTE[2], PALETTE[0]])
        found = [(row, levels) for row in chart.rows if (levels := _levels(row))]
        figure = _figure(8.4, 3.9 * len(found))
        rows = figure.subplots(len(found), len(chart.rows[0]), squeeze=False)
        for panels, (planes, levels) in zip(rows, found, strict=True):
            for panel, plane in zip(panels, planes, strict=True):
                values = np.array([[np.nan if v is None else v for v in line] for line in plane.values])
                if np.nanmin(values, initial=np.inf) <= levels[-1]:
                    how = {"levels": levels, "cmap": colours, "linewidths": 1.2, "norm": "log"}
                    lines = panel.contour(plane.grid, plane.grid, values, **how)
                    panel.clabel(lines, fmt="%.2g", fontsize=7)
                panel.plot(0, 0, "+", color=GREY, markersize=9)
                title = f"{self._named(plane.dataset)}, {plane.title}" if plane.dataset else plane.title
                panel.set_aspect("equal")
                panel.locator_params(nbins=5)
                _dress(panel, ink, title, chart.x, chart.y, grid=False)
        return figure

    def _named(self, dataset: str) -> str:
        return self.labels.get(dataset, dataset)

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
                epochs, accuracy = zip(*((tested.epoch, tested.accuracy) for tested in history.tested), strict=True)
                panel.plot(epochs, accuracy, color=colour, linestyle=style, linewidth=1.5, alpha=0.9, zorder=3)
                panel.plot(epochs[-1], accuracy[-1], color=colour, zorder=4, **SIGNS[LAST])
                panel.plot(history.best.epoch, history.best.accuracy, color=colour, zorder=4, **SIGNS[BEST])
            ends.append((statistics.fmean(history.test_accuracy for history in own), colour))
        heights = _apart([value for value, _ in ends], gap=6.0)
        for (value, colour), height in zip(ends, heights, strict=True):
            look = {"color": colour, "va": "center", "fontweight": "bold", "fontsize": 9}
            _write(panel, f"{value:.1f}", (self.epochs, height), (9, 0), **look)

    def _bar_name(self, dataset: str) -> str:
        """Below its bar."""
        return self._named(dataset).replace(" (", "\n(") if dataset in self.datasets else "clean control"

    def _bar(self, panel: Any, place: float, cell: Cell) -> None:
        values = [history.test_accuracy for history in self.result.histories(cell)]
        mean = statistics.fmean(values)
        panel.bar(place, mean, width=0.86, color=self._colour(cell.dataset), alpha=0.8, zorder=2)
        if len(values) > 1:
            panel.errorbar(place, mean, yerr=statistics.stdev(values), color=GREY, capsize=2, linewidth=1.2, zorder=3)
        reported = self._reported().get(cell, [])
        for value, sign in reported:
            panel.plot(place, value, zorder=4, **SIGNS[sign])
            _write(panel, f"{value:g}", (place, value), (6, 0), fontsize=7, va="center", style="italic")
        height = max([mean, *(value for value, _ in reported if 0 < value - mean < NUMBER_ROOM)])
        _write(panel, f"{mean:.1f}", (place, height), (0, 7), fontsize=8, ha="center", fontweight="bold")

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
        for result in self.report.claims:
            if result.cell is not None and result.claim.metric == CLEAN_ACCURACY:
                other = result.stand_in or result.level.reason in self.report.unjudged
                sign = REPORTED_OF_OTHERS if other else REPORTED
                found.setdefault(result.cell, {})[result.claim.value, sign] = None
        return {cell: list(values) for cell, values in found.items()}

    def _colour(self, dataset: str) -> str:
        return PALETTE[self.datasets.index(dataset) % len(PALETTE)] if dataset in self.datasets else CONTROL

    def _style(self, dataset: str) -> str:
        """A dataset's own, besides its colour; with seven colours and four styles 28 are told apart."""
        return STYLES[self.datasets.index(dataset) % len(STYLES)] if dataset in self.datasets else STYLES[0]

    def _epochs(self, panel: Any, first: float, last: float) -> None:
        step = max(1, self.epochs // 5)
        panel.set_xlim(first, last)
        panel.set_xticks(sorted({1, *range(step, self.epochs + 1, step), self.epochs}))

    def _legend(self, figure: Any, signs: Mapping[str, str], *, shown: Sequence[str] | None = None) -> None:
        """Below all panels: datasets by colour (those in ``shown`` if not all), and what the signs mean."""
        from matplotlib.lines import Line2D

        entries: list[tuple[str, Any]] = []
        if shown != () and any(run.cell.dataset not in self.datasets for run in self.result.runs):
            entries.append(("clean control", {"color": CONTROL, "linewidth": 2}))
        for name in self.datasets:
            if shown is None or name in shown:
                look = {"color": self._colour(name), "linewidth": 2, "linestyle": self._style(name)}
                entries.append((self._named(name), look))
        entries += [(words, {"color": GREY, **SIGNS[sign]}) for words, sign in signs.items()]
        fitting = int(figure.get_figwidth() * 11 / (max(len(words) for words, _ in entries) + 6))
        handles = [Line2D([], [], label=words, **how) for words, how in entries]
        columns = min(max(1, fitting), len(entries))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))


def _dress(panel: Any, ink: str, title: str, x: str, y: str, *, grid: bool = True) -> None:
    """Words around a panel, and no frame."""
    panel.set_title(title, fontsize=9.5, loc="left", color=ink)
    panel.set_xlabel(x, color=ink)
    panel.set_ylabel(y, color=ink)
    if grid:
        panel.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(length=0)
    for side in panel.spines.values():
        side.set_visible(False)


def _write(panel: Any, text: str, place: tuple[float, float], shift: tuple[int, int], **look: Any) -> None:
    """Text so many points beside a place of the panel."""
    panel.annotate(text, place, xytext=shift, textcoords="offset points", annotation_clip=False, **look)


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """Heights from 0 to 100 for labels, in the order of the values, ``gap`` apart and as near to them as can be."""
    from sklearn.isotonic import isotonic_regression

    order, gaps = np.argsort(values, kind="stable"), gap * np.arange(len(values))
    level = isotonic_regression(np.array(values)[order] - gaps)  # without the gaps, heights must only not fall
    heights = np.empty(len(values))
    heights[order] = np.maximum(0, np.minimum(100 - gaps[-1], level)) + gaps
    return [float(height) for height in heights]


def _levels(planes: Sequence[Plane]) -> list[float]:
    """Values to draw contours at, evenly spaced by their logarithms; none where nothing is finite or all is flat."""
    values = [value for plane in planes for row in plane.values for value in row if value is not None and value > 0]
    low, high = max(min(values, default=0), 1e-3), max(values, default=0)
    if low >= high:
        return []
    return [low * (high / low) ** ((index + 0.5) / CONTOURS) for index in range(CONTOURS)]
