"""What countermeasures have learned of the training sets of a grid, as pictures for its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ule_datasets.experiments.grid import Grid
from ule_datasets.experiments.prepared import PreparedSets
from ule_datasets.packaging.figures import class_sheet
from ule_datasets.verification.report.content import Learned


def what_was_learned(grid: Grid, sets: PreparedSets, class_names: Mapping[str, Sequence[str]]) -> tuple[Learned, ...]:
    """A picture for each training set and strategy with parts that show what they have learned, by the first seed.

    What is not kept any more, because all runs were finished before, is learned again. ``class_names`` are by dataset.
    """
    found = []
    for cell in {(cell.dataset, cell.strategy): cell for cell in grid.cells}.values():
        task = grid.task(cell, grid.seeds[0])
        given, strategy = task.data, task.protocol.strategy
        parts = strategy.having("on_levels")
        if not any(part.shows for part in parts):
            continue
        names = next(class_names[one.name] for one in grid.subjects if cell.dataset in (one.name, one.control))
        data = sets.of(cell.dataset, given.load(), given.digest, strategy, device=task.device, weights=task.weights)
        found += [
            Learned(dataset=cell.dataset, strategy=cell.strategy, caption=part.shows, sheet=class_sheet(array, names))
            for part, array in zip(parts, data.learned, strict=True)
            if part.shows
        ]
    return tuple(found)
