"""How a method that works in rounds went: what it noted about each of them, as a table and as curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ule_datasets.packaging.figures.sheet import INK, MARGIN, RULE, TEXT, Figure, Sheet, text_width

WIDTH, HEIGHT = 340, 170
"""Of a panel's axes, in pixels."""
LEFT = 34
"""Room for the numbers beside the axes."""
COLOURS = ((47, 126, 216), (224, 86, 27), (60, 140, 80))


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """What methods note about a round (or a cluster), under a key of their own."""

    title: str
    digits: int = 0
    """After the point."""
    percent: bool = False


QUANTITIES: dict[str, Quantity] = {
    "round": Quantity(title="round"),
    "cluster": Quantity(title="cluster"),
    "images": Quantity(title="images"),
    "target": Quantity(title="pulled to the centre of cluster"),
    "before.nearest": Quantity(title="nearest to that centre before, %", digits=1, percent=True),
    "after.nearest": Quantity(title="and with the noise, %", digits=1, percent=True),
    "before.distance": Quantity(title="distance to it before", digits=2),
    "after.distance": Quantity(title="and with the noise", digits=2),
    "stage": Quantity(title="stage"),
    "accuracy": Quantity(title="surrogate right on the perturbed images, %", digits=2, percent=True),
    "success": Quantity(title="images taken for the wrong class of their noise, %", digits=2, percent=True),
    "loss": Quantity(title="loss on the perturbed images", digits=3),
    "model_loss": Quantity(title="surrogate's loss while trained", digits=3),
    "generator_loss": Quantity(title="generator's loss", digits=3),
    "surrogate_loss": Quantity(title="surrogate's loss", digits=3),
    "surrogate_accuracy": Quantity(title="surrogate right on a perturbed batch, %", digits=2, percent=True),
    "mean_abs": Quantity(title="mean size of the noise, 1/255", digits=2),
    "at_bound": Quantity(title="noise at the bound, %", digits=1, percent=True),
}
"""In the order in which a card shows them."""
DRAWN = ("accuracy", "success", "mean_abs")


def trace_table(trace: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, as texts, of the quantities that a method noted; nested ones have dotted names."""
    records = [dict(_flat(record, "")) for record in trace]
    keys = [key for key in QUANTITIES if key in records[0]]
    return [QUANTITIES[key].title for key in keys], [[_text(key, record[key]) for key in keys] for record in records]


def trace_figure(identifier: str, trace: Sequence[dict[str, Any]]) -> Figure:
    """A panel over the rounds for each quantity worth drawing; ``trace`` is what the method noted."""
    keys = [key for key in DRAWN if key in trace[0]]
    sheet = Sheet(len(keys) * (MARGIN + LEFT + WIDTH) + 2 * MARGIN, HEIGHT + 3 * TEXT + 2 * MARGIN)
    for index, key in enumerate(keys):
        values = [record[key] for record in trace]
        highest = 100.0 if QUANTITIES[key].percent else 4.0 * max(1, math.ceil(max(values) / 4))
        left = MARGIN + index * (MARGIN + LEFT + WIDTH)
        _panel(sheet, left, QUANTITIES[key].title, values, highest, COLOURS[index])
    last = ", ".join(f"{QUANTITIES[key].title}: {_text(key, trace[-1][key])}" for key in keys)
    return Figure(
        f"trace_{identifier}.png", f"Round by round; after the last one {last}.", sheet.png(), about_craft=True
    )


def _flat(record: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _text(key: str, value: Any) -> str:
    return f"{value:.{QUANTITIES[key].digits}f}" if isinstance(value, float) else str(value)


def _panel(
    sheet: Sheet, left: int, title: str, values: Sequence[float], highest: float, colour: tuple[int, int, int]
) -> None:
    """One quantity from 0 to ``highest`` over the rounds."""
    axis, top = left + LEFT, MARGIN + TEXT + 4
    sheet.text(axis, MARGIN - 2, title)
    for quarter in range(5):
        height = top + HEIGHT - HEIGHT * quarter / 4
        label = f"{highest * quarter / 4:g}"
        sheet.line([(axis, height), (axis + WIDTH, height)], RULE, 1)
        sheet.text(axis - 5 - text_width(label), round(height) - TEXT // 2, label)
    points = [
        (axis + WIDTH * (index + 0.5) / len(values), top + HEIGHT - HEIGHT * min(value, highest) / highest)
        for index, value in enumerate(values)
    ]
    sheet.line(points, colour)
    step = max(1, -(-len(values) // 10))
    for index, (x, y) in enumerate(points):
        if len(points) <= 40:
            sheet.dot(x, y, colour)
        if index % step == 0:
            sheet.text(round(x) - text_width(str(index + 1)) // 2, top + HEIGHT + 3, str(index + 1))
    sheet.text(axis + WIDTH // 2 - text_width("round") // 2, top + HEIGHT + 3 + TEXT, "round")
    sheet.line([(axis, top), (axis, top + HEIGHT)], INK, 1)
