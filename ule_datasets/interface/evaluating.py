"""``ule_datasets.evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from builders import RECIPES
from ule_datasets import verifying
from ule_datasets.base.files import expanded
from ule_datasets.base.options import VerifyOptions
from ule_datasets.base.progress import Reporter
from ule_datasets.experiments.own import OwnTraining, Train, Trained
from ule_datasets.interface.verifying import found_folders, source_words
from ule_datasets.verification.report.content import Report


def evaluate(
    train: Train | Trained,
    dataset: str | Path,
    *,
    strategy: str = "standard",
    seeds: int = 3,
    model: str = "own",
    source: str | Path | Mapping[str, str | Path] | None = None,
    report: str | Path | None = None,
    quiet: bool = False,
) -> Report:
    """What a dataset does to a network of one's own: trained on it and on its clean control, judged as by ``verify``.

    The same seeds are used on either side; accuracy is taken on the clean test split. The collapse is judged by the
    lines that all models are judged by, and what papers say of a ResNet-18 as an effect, for which this network stands.

    Args:
        train: a function that gets a ``TrainingImages`` (a torch dataset of float32 [3, H, W] in [0, 1] with class
            numbers, changed at random as the strategy says) and returns the trained model: a module, or any function
            from float32 [B, 3, H, W] to scores [B, classes]. It is called once for each seed and side, after torch was
            seeded. Or models that were trained before: ``{"poisoned": [...], "clean": [...]}``.
        dataset: a folder, the name of one in ``./datasets``, or ``OWNER/NAME`` on the Hub.
        strategy: how training images are changed, e.g. ``none``, ``standard``, ``cutout`` or ``jpeg``; adversarial
            training and mixing belong into the function.
        seeds: runs on either side.
        model: what reports call the network.
        source: the clean images, or by the names of sources where those of each are; default: where the build took
            them from, else the recipe's own source.
        report: a folder for the report as a page, as text and as JSON; ``None``: it is only returned.
        quiet: show no progress.

    Returns:
        The report; ``print`` shows it in lines, ``comparisons`` has the numbers.

    Raises:
        InputError: not an intact dataset with a clean test split, no clean source, an unknown strategy, or a function
            that gives no model.
        DamagedManifestError: the manifest itself was changed.
    """
    training = OwnTraining(name=model, train=train, strategy=strategy, num_seeds=seeds)
    folders, _ = found_folders([dataset], None)
    options = VerifyOptions(
        folders=folders,
        strategies=(strategy,),
        source=source_words(source),
        report=None if report is None else expanded(report),
        workers=1,
    )
    return verifying.evaluate(training, options, RECIPES, Reporter(silent=quiet))
