"""How an alternating method went: the surrogate's accuracy and the size of the noise, round by round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ule_datasets.figures.sheet import INK, MARGIN, RULE, TEXT, Figure, Sheet, text_width

WIDTH, HEIGHT = 340, 170
"""Of a panel's axes, in pixels."""
LEFT = 34
"""Room for the numbers beside the axes."""
BLUE, RED = (47, 126, 216), (224, 86, 27)


def trace_figure(identifier: str, trace: Sequence[dict[str, Any]]) -> Figure:
    """Two panels over the rounds; ``trace`` is what the method noted."""
    sheet = Sheet(2 * (MARGIN + LEFT + WIDTH) + 2 * MARGIN, HEIGHT + 3 * TEXT + 2 * MARGIN)
    accuracy = [record["accuracy"] for record in trace]
    sizes = [record["mean_abs"] for record in trace]
    _panel(sheet, MARGIN, "surrogate's accuracy on the perturbed images, %", accuracy, 100.0, BLUE)
    highest = 4.0 * max(1, math.ceil(max(sizes) / 4))
    _panel(sheet, 2 * MARGIN + LEFT + WIDTH, "mean size of the noise, 1/255", sizes, highest, RED)
    caption = f"Rounds of surrogate training and noise optimisation: after the last, {accuracy[-1]:.2f} % are right."
    return Figure(f"trace_{identifier}.png", caption, sheet.png(), about_craft=True)


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
