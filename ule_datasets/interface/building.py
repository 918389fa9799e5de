"""``ule_datasets.build``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ule_datasets import building
from ule_datasets.base.errors import InputError
from ule_datasets.base.files import expanded
from ule_datasets.base.options import FORMATS, BuildOptions
from ule_datasets.base.progress import Reporter
from ule_datasets.building import BuildResult
from ule_datasets.dataset.fetching import find_perturbation
from ule_datasets.definition import Recipe
from ule_datasets.interface.recipes import find_recipe


def build(
    recipe: str | Path | Recipe,
    out: str | Path | None = None,
    *,
    source: str | Path | None = None,
    seed: int | None = None,
    limit: int | None = None,
    perturbation: str | Path | Sequence[str | Path] = (),
    release: str | Path | None = None,
    formats: Sequence[str] = FORMATS,
    weights: str | Path | None = None,
    device: str = "auto",
    workers: int = 1,
    overwrite: bool = False,
    quiet: bool = False,
) -> BuildResult:
    """Build a dataset folder, as ``ule-build`` does; continue an interrupted build, or find that it is complete.

    With ``workers > 1`` call this under ``if __name__ == "__main__"``, as for any process pool.

    Args:
        recipe: a name of the catalogue, a file with a ``RECIPE``, or a ``Recipe`` of one's own.
        out: the dataset folder; default: ``./datasets/NAME``.
        source: the clean images, as ``--source`` takes them; default: the recipe's own source.
        seed: another seed than the recipe's; shows in the name.
        limit: a trial on the first so many training images of each class; shows in the name.
        perturbation: assemble from a saved one, or from that of a dataset folder or of ``OWNER/NAME`` on the Hub, and
            craft nothing; several where each method has its own.
        release: a file or folder that others have released, for recipes that import it; shows in the name.
        formats: ``parquet``, ``webdataset``, or both.
        weights: a file or folder of pretrained weights, instead of a download.
        device: where noise is crafted: ``auto``, ``cpu``, ``cuda`` or ``cuda:INDEX``.
        workers: processes; never changes the result.
        overwrite: replace an older dataset in the same folder.
        quiet: show no progress.

    Returns:
        The folder, its manifest, and whether it was complete before.

    Raises:
        InputError: an unknown recipe, unusable images, a folder with something else, or a published perturbation that
            does not give the dataset that it was published with.
    """
    made = recipe if isinstance(recipe, Recipe) else find_recipe(str(recipe))
    made = made if seed is None else made.with_seed(seed)
    made = made if limit is None else made.as_trial(limit)
    given = [perturbation] if isinstance(perturbation, str | Path) else perturbation
    saved = [find_perturbation(str(where)) for where in given]
    options = BuildOptions(
        out=Path() if out is None else expanded(out),
        source=None if source is None else str(source),
        perturbations=tuple(each.path for each in saved),
        formats=tuple(formats),
        weights=None if weights is None else expanded(weights),
        release=None if release is None else expanded(release),
        device=device,
        workers=workers,
        overwrite=overwrite,
    )
    reporter = Reporter(silent=quiet)
    if release is not None and not saved:
        made = building.settle(made, options, reporter)
    if out is None:
        options = replace(options, out=Path("datasets") / made.name)
    result = building.build(made, options, reporter)
    if differences := [line for each in saved for line in each.differences(result.manifest)]:
        raise InputError(*differences)
    return result
