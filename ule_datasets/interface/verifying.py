"""``ule_datasets.verify``, and which folders are meant by the names that people give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from builders import RECIPES
from ule_datasets import verifying
from ule_datasets.base.files import expanded
from ule_datasets.base.options import VERIFICATION, VerifyOptions
from ule_datasets.base.progress import Reporter
from ule_datasets.dataset.fetching import find_dataset, in_hub_cache, require_images
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.verification.report.content import Report


def verify(
    *datasets: str | Path,
    profile: str = "smoke",
    claims: Sequence[str] = (),
    claims_file: str | Path | None = None,
    models: Sequence[str] = (),
    strategies: Sequence[str] = (),
    analyses: Sequence[str] = (),
    seeds: int | None = None,
    integrity_only: bool = False,
    source: str | Path | Mapping[str, str | Path] | None = None,
    report: str | Path | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    workers: int = 1,
    quiet: bool = False,
) -> Report:
    """Prove that datasets are what they say, train on them and on their clean controls, and judge what papers report.

    It does what ``ule-verify`` does, and keeps finished runs where that keeps them. With ``workers > 1`` call this
    under ``if __name__ == "__main__"``, as for any process pool.

    Args:
        datasets: folders, names of those in ``./datasets``, or ``OWNER/NAME`` on the Hub; with ``claims`` none is
            needed.
        profile: how much is trained: ``smoke``, ``quick``, ``fast`` or ``paper``.
        claims: globs of claims to run, e.g. ``["ops-t5-*"]``.
        claims_file: a TOML file with claims of one's own.
        models: trained on every dataset; default: a ResNet-18, or what stands for it in the profile.
        strategies: of training, e.g. ``["standard", "cutout+mixup"]``; default: the profile's.
        analyses: made besides those that claims bring.
        seeds: runs of each kind; default: the profile's.
        integrity_only: train nothing.
        source: the clean images, or by the names of sources where those of each are; default: where the build took
            them from, else the recipe's own source.
        report: the report's folder; default: ``FOLDER/verification``, and ``./verification`` for several datasets.
        weights: a file or folder of trained weights that models start from.
        device: where to train.
        workers: runs at a time.
        quiet: show no progress.

    Returns:
        The report; ``print`` shows it in lines, ``passed`` says whether all is well.

    Raises:
        InputError: not a dataset, an unknown name, or no clean source to compare and train with.
        DamagedManifestError: a manifest itself was changed.
    """
    folders, place = found_folders(datasets, None if report is None else expanded(report))
    options = VerifyOptions(
        folders=folders,
        report=place,
        profile=profile,
        claims=tuple(claims),
        claims_file=None if claims_file is None else expanded(claims_file),
        models=tuple(models),
        strategies=tuple(strategies),
        analyses=tuple(analyses),
        num_seeds=seeds,
        integrity_only=integrity_only,
        source=source_words(source),
        weights=None if weights is None else expanded(weights),
        device=device,
        workers=workers,
    )
    return verifying.verify(options, RECIPES, Reporter(silent=quiet))


def source_words(source: str | Path | Mapping[str, str | Path] | None) -> list[str] | None:
    """What the command line would be given as ``--source``."""
    if isinstance(source, Mapping):
        return [f"{name}={where}" for name, where in source.items()]
    return None if source is None else [str(source)]


def found_folders(datasets: Sequence[str | Path], report: Path | None) -> tuple[tuple[Path, ...], Path | None]:
    """The folders of datasets, fetched where they are on the Hub; and where a report on them goes.

    ``None`` is the usual place, which for a single dataset in the Hub's cache cannot be its folder.

    Raises:
        InputError: no finished dataset is there, or only what is needed to make one.
    """
    found = [_find(dataset) for dataset in datasets]
    if report is None and len(found) == 1 and in_hub_cache(found[0]):
        report = Path(VERIFICATION) / Manifest.read(found[0]).name
    return tuple(found), report


def _find(dataset: str | Path) -> Path:
    folder = find_dataset(dataset, buildable=RECIPES)
    if in_hub_cache(folder):
        require_images(folder, Manifest.read(folder), dataset)
    return folder
