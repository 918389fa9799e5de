"""From a dataset folder to a report: prove integrity, then measure what training on it does."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ule_datasets.build import WORKER_MODULES
from ule_datasets.effect import PROFILES, Effect, EffectData, Profile, measure_effect
from ule_datasets.errors import InputError
from ule_datasets.executor import LocalExecutor
from ule_datasets.folder import LOCAL_NOTE, VERIFICATION
from ule_datasets.integrity import (
    BuiltSplit,
    Folder,
    check_against_source,
    check_content,
    check_files,
    open_dataset,
)
from ule_datasets.manifest import FILE_NAME, Manifest
from ule_datasets.progress import Reporter
from ule_datasets.recipe import PublishedRecipe
from ule_datasets.report import Check, Report, describe_environment, not_run, write_report
from ule_datasets.sources import Source, read_source
from ule_datasets.split import positions_of
from ule_datasets.training import pick_device

CLEAN_RESNET18 = 94.01
"""Clean test accuracy (%) that the OPS paper prints for ResNet-18 on clean CIFAR-10."""
PROTECTED = 0.25
"""A reported accuracy counts as a collapse up to this share of the way from chance to the clean one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyOptions:
    """What to verify, and where and how."""

    folder: Path
    profile: str = "smoke"
    num_seeds: int | None = None
    """Runs of each kind; ``None``: as the profile says."""
    device: str = "auto"
    workers: int = 1
    integrity_only: bool = False
    source: str | None = None
    """The clean images; ``None``: where the build took them from on this machine, else the source's own place."""
    report: Path | None = None
    """Folder of the report; ``None``: ``verification`` in the dataset folder."""

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise InputError(f"--profile {self.profile}: choose from {', '.join(PROFILES)}")
        if self.num_seeds is not None and self.num_seeds < 1:
            raise InputError(f"--seeds {self.num_seeds}: must be at least 1")
        if self.workers < 1:
            raise InputError(f"--workers {self.workers}: must be at least 1")

    @property
    def report_folder(self) -> Path:
        """Where the report and its runs go."""
        return self.report or self.folder / VERIFICATION


def verify(options: VerifyOptions, reporter: Reporter | None = None) -> Report:
    """Check a dataset folder, train on it and on its clean control, and write the report.

    With ``workers > 1`` call this under ``if __name__ == "__main__"``, as for any process pool.

    Raises:
        InputError: not a dataset, or no clean source to compare and train with.
        DamagedManifestError: the manifest itself was changed.
    """
    reporter = reporter or Reporter()
    manifest = Manifest.read(options.folder)
    device = pick_device(options.device)
    with LocalExecutor(options.workers, preload=WORKER_MODULES) as executor:
        checks, effect, recipe = _checks_and_effect(options, manifest, device, executor, reporter)
    report = Report(
        dataset=manifest.name,
        version=manifest.version,
        title=recipe.title if recipe else manifest.name,
        reduced=manifest.reduced,
        recipe_digest=manifest.recipe_digest,
        perturbation_digest=manifest.perturbation_digest,
        manifest_digest=hashlib.sha256((options.folder / FILE_NAME).read_bytes()).hexdigest(),
        checks=tuple(checks),
        effect=effect,
        claims=not_run(recipe.claims if recipe else (), _reason(effect)),
        environment=describe_environment(device),
        command=_command(manifest.name, options),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    write_report(report, options.report_folder)
    return report


def _checks_and_effect(
    options: VerifyOptions, manifest: Manifest, device: torch.device, executor: LocalExecutor, reporter: Reporter
) -> tuple[list[Check], Effect | None, PublishedRecipe | None]:
    """Integrity; then, if it holds and more is wanted, the effect."""
    checks = _said(check_files(options.folder, manifest, executor), reporter)
    folder, more = open_dataset(options.folder, manifest)
    checks += _said(more, reporter)
    if folder is None:
        return checks, None, None
    splits, more = check_content(folder, executor, reporter)
    checks += _said(more, reporter)
    training = not options.integrity_only and all(check.passed for check in checks)
    source = _find_source(options, folder, training, executor, reporter)
    if source is not None:
        checks += _said(check_against_source(folder, splits, source), reporter)
    intact = all(check.passed for check in checks)
    if options.integrity_only or not intact:
        if not intact:
            reporter.say("nothing was trained: the dataset is not intact")
        return checks, None, folder.recipe
    assert source is not None, "without a source only the integrity can be checked, which _find_source says"
    return checks, _effect(options, folder, splits, source, device, executor, reporter), folder.recipe


def _find_source(
    options: VerifyOptions, folder: Folder, training: bool, executor: LocalExecutor, reporter: Reporter
) -> Source | None:
    """The clean images; ``None`` where nothing will be trained and they are not at hand."""
    spec = folder.recipe.source
    at_hand = options.source or _remembered(options.folder) or ("digits" if spec.default_location == "digits" else None)
    if at_hand is None and not training:
        reporter.say("not compared with the clean source: give it with --source")
        return None
    location = at_hand or spec.default_location
    if location is None:
        raise InputError(
            f"the clean control needs {spec.title}: say where the images are with --source, or use --integrity-only"
        )
    return read_source(spec, location, executor=executor, reporter=reporter)


def _remembered(folder: Path) -> str | None:
    """Where the build on this machine took its images from, if they are still there."""
    note = folder / LOCAL_NOTE
    if not note.exists():
        return None
    location = json.loads(note.read_text(encoding="utf-8")).get("source")
    is_place = isinstance(location, str) and (location.startswith("hub:") or Path(location).exists())
    return location if is_place else None


def _effect(
    options: VerifyOptions, folder: Folder, splits: dict[str, BuiltSplit], source: Source, device: torch.device,
    executor: LocalExecutor, reporter: Reporter,
) -> Effect:  # fmt: skip
    """Train on the dataset and on its clean control."""
    if "test" not in splits:
        raise InputError(f"{folder.root} has no test split to measure on: use --integrity-only")
    profile: Profile = PROFILES[options.profile]
    train, test = splits["train"], splits["test"]
    data = EffectData(
        poisoned_images=train.images,
        clean_images=source.train.images[positions_of(train.keys, source.train.keys)],
        labels=train.labels,
        test_images=test.images,
        test_labels=test.labels,
        num_classes=len(folder.manifest.class_names),
        flippable=folder.recipe.source.flippable,
        fingerprint="/".join(record.digest for record in folder.manifest.splits.values()),
    )
    return measure_effect(
        data,
        profile=profile,
        seeds=range(options.num_seeds or profile.num_seeds),
        device=device,
        executor=executor,
        reporter=reporter,
        runs_folder=options.report_folder / "runs",
        collapse_expected=expects_collapse(folder.recipe, data.num_classes),
    )


def expects_collapse(recipe: PublishedRecipe, num_classes: int) -> bool:
    """Whether the paper reports a collapse for a ResNet-18 trained on this dataset; yes where it reports nothing."""
    if recipe.reported is None:
        return True
    chance = 100 / num_classes
    return recipe.reported.accuracy <= chance + PROTECTED * (CLEAN_RESNET18 - chance)


def _command(name: str, options: VerifyOptions) -> str:
    """The command that repeats this: what decides the result, without the paths of this machine."""
    words = ["ule-verify", name, "--profile", options.profile]
    words += ["--seeds", str(options.num_seeds)] if options.num_seeds is not None else []
    words += ["--device", options.device] if options.device != "auto" else []
    words += ["--workers", str(options.workers)]
    return " ".join([*words, *(["--integrity-only"] if options.integrity_only else [])])


def _reason(effect: Effect | None) -> str:
    if effect is None:
        return "no model was trained"
    return f"the {effect.profile.name} profile trains another model, for fewer epochs, on fewer images"


def _said(checks: Iterable[Check], reporter: Reporter) -> list[Check]:
    """Show the checks as they are made."""
    checks = list(checks)
    for check in checks:
        reporter.say(f"{'ok    ' if check.passed else 'FAILED'} {check.name}: {check.detail}")
    return checks
