"""How a method that works in rounds went: what it noted about each of them, as a table and as curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ule_datasets.packaging.figures.sheet import INK, MARGIN, RULE, TEXT, Colour, Figure, Sheet, text_width

WIDTH, HEIGHT = 340, 190
"""Of a panel's axes."""
LEFT = 38
"""Room for the numbers beside the axes."""
LOOKS: tuple[tuple[Colour, float], ...] = (((0, 114, 178), 0), ((213, 94, 0), 9), ((0, 120, 90), 4))
"""Colour and length of dashes of each panel's line: told apart without colours, and in print."""


QUANTITIES = {
    "round": ("round", 0),
    "cluster": ("cluster", 0),
    "images": ("images", 0),
    "target": ("pulled to the centre of cluster", 0),
    "before.nearest": ("nearest to that centre before, %", 1),
    "after.nearest": ("and with the noise, %", 1),
    "before.distance": ("distance to it before", 2),
    "after.distance": ("and with the noise", 2),
    "stage": ("stage", 0),
    "accuracy": ("surrogate right on the perturbed images, %", 2),
    "success": ("images taken for the wrong class of their noise, %", 2),
    "loss": ("loss on the perturbed images", 3),
    "model_loss": ("surrogate's loss while trained", 3),
    "generator_loss": ("generator's loss", 3),
    "surrogate_loss": ("surrogate's loss", 3),
    "surrogate_accuracy": ("surrogate right on a perturbed batch, %", 2),
    "mean_abs": ("mean size of the noise, 1/255", 2),
    "at_bound": ("noise at the bound, %", 1),
}
"""What methods note about a round (or a cluster), in the order of a card: title, and digits after the point."""
DRAWN = ("accuracy", "success", "mean_abs")


def trace_table(trace: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, as texts, of the quantities that a method noted; nested ones have dotted names."""
    records = [dict(_flat(record, "")) for record in trace]
    keys = [key for key in QUANTITIES if key in records[0]]
    return [QUANTITIES[key][0] for key in keys], [[_text(key, record.get(key)) for key in keys] for record in records]


def drawn_of(trace: Sequence[dict[str, Any]]) -> list[str]:
    """The quantities worth drawing that were noted of every round."""
    return [key for key in DRAWN if trace and all(key in record for record in trace)]


def trace_figure(identifier: str, trace: Sequence[dict[str, Any]]) -> Figure:
    """A panel over the rounds for each quantity worth drawing; ``trace`` is what the method noted."""
    keys = drawn_of(trace)
    sheet = Sheet(len(keys) * (MARGIN + LEFT + WIDTH) + 2 * MARGIN, HEIGHT + 3 * TEXT + 2 * MARGIN)
    for index, key in enumerate(keys):
        values, title = [record[key] for record in trace], QUANTITIES[key][0]
        highest = 100.0 if title.endswith("%") else 4.0 * max(1, math.ceil(max(values) / 4))
        _panel(sheet, MARGIN + index * (MARGIN + LEFT + WIDTH), title, values, highest, LOOKS[index])
    last = ", ".join(f"{QUANTITIES[key][0]}: {_text(key, trace[-1][key])}" for key in keys)
    caption = f"Round by round; after the last one {last}."
    return sheet.figure(f"trace_{identifier}", caption, about_craft=True)


def _flat(record: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _text(key: str, value: Any) -> str:
    return f"{value:.{QUANTITIES[key][1]}f}" if isinstance(value, float) else "–" if value is None else str(value)


def _panel(
    sheet: Sheet, left: int, title: str, values: Sequence[float], highest: float, look: tuple[Colour, float]
) -> None:
    """One quantity from 0 to ``highest`` over the rounds."""
    axis, top = left + LEFT, MARGIN + TEXT + 4
    colour, dash = look
    sheet.text(axis, MARGIN - 4, title)
    for quarter in range(5):
        height = top + HEIGHT - HEIGHT * quarter / 4
        sheet.line([(axis, height), (axis + WIDTH, height)], RULE if quarter else INK, 1)
        sheet.text(axis - 6, height - TEXT / 2 - 1, f"{highest * quarter / 4:g}", right=True)
    points = [
        (axis + WIDTH * (index + 0.5) / len(values), top + HEIGHT - HEIGHT * min(value, highest) / highest)
        for index, value in enumerate(values)
    ]
    sheet.line([(axis, top), (axis, top + HEIGHT)], INK, 1)
    if len(points) > 1:
        sheet.line(points, colour, 2, dash)
    step = max(1, -(-len(values) // 10))
    for index, (x, y) in enumerate(points):
        if len(points) <= 40:
            sheet.dot(x, y, 3, colour)
        if index % step == 0:
            sheet.text(x - text_width(str(index + 1)) / 2, top + HEIGHT + 3, str(index + 1))
    sheet.text(axis + (WIDTH - text_width("round")) / 2, top + HEIGHT + 3 + TEXT, "round")
