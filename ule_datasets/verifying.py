"""From datasets to a report: prove integrity, train on them and on their clean controls, judge what papers say."""

from __future__ import annotations

import dataclasses
import datetime
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ule_datasets import countermeasures
from ule_datasets.analyses import ANALYSES
from ule_datasets.analyses.analysis import Material
from ule_datasets.analyses.findings import OPTIONAL, ROLES, Findings, analyse
from ule_datasets.base.choices import STRATEGIES
from ule_datasets.base.errors import InputError
from ule_datasets.base.files import cache_folder, refuse_links, refuse_unwritable, sweep
from ule_datasets.base.names import unknown
from ule_datasets.base.options import VerifyOptions as VerifyOptions
from ule_datasets.base.progress import Reporter
from ule_datasets.building import WORKER_MODULES
from ule_datasets.compute.devices import pick_device
from ule_datasets.compute.executor import Executor, available_cpus
from ule_datasets.compute.opening import EXECUTORS, open_executor
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.dataset.integrity import Check
from ule_datasets.dataset.manifest import FILE_NAME, Manifest
from ule_datasets.dataset.reading import being_verified
from ule_datasets.definition import PublishedRecipe, Recipe
from ule_datasets.experiments.grid import (
    Cell,
    Grid,
    GridResult,
    train_grid,
    with_controls,
)
from ule_datasets.experiments.own import OwnTraining
from ule_datasets.experiments.pace import settled
from ule_datasets.experiments.profiles import PROFILES, Profile
from ule_datasets.experiments.runs import RunStore, prepared_sets
from ule_datasets.experiments.subject import Samples, Subject, check_controls, control_of
from ule_datasets.models.pretrained import build_pretrained
from ule_datasets.models.weights import WeightsFile, obtain
from ule_datasets.packaging.figures.contact import (
    PROTECTED,
    RESTORED,
    SAMPLES_SHOWN,
    largest_noise,
    rows_to_show,
    sample_sheet,
)
from ule_datasets.packaging.figures.sheet import Sheet
from ule_datasets.papers.claims import Claim, Statement, all_claims, for_dataset, listed, statements
from ule_datasets.papers.statistics import Verdict
from ule_datasets.sources.given import Given
from ule_datasets.sources.spec import SourceSpec
from ule_datasets.verification.costs import TIMINGS, Timing, time_making
from ule_datasets.verification.judging import (
    Wanted,
    cells_of,
    datasets_of,
    judge_claims,
    judge_statements,
    roles_of_analyses,
    what_is_wanted,
)
from ule_datasets.verification.lacking import refuse_lacking
from ule_datasets.verification.learned import what_was_learned
from ule_datasets.verification.planning import VerificationPlan
from ule_datasets.verification.report.content import DatasetPart, Learned, Report, describe_environment
from ule_datasets.verification.report.runs import refuse_linked_runs
from ule_datasets.verification.report.writing import write_report
from ule_datasets.verification.separability import cluster_separability, linear_separability
from ule_datasets.verification.subjects import (
    Catalogue,
    Examined,
    SourceReader,
    examine,
    make,
    may_be_made,
    plan,
    plan_in_memory,
)
from ule_datasets.victims.table import VICTIMS

TRAINER_MODULES = ("ule_datasets.experiments.runs",)
"""What a process that trains finds imported."""
IN_MEMORY = 4 * 2**30
"""Bytes of pixels up to which datasets are checked in memory."""
SCRATCH = "ule-verify-"
"""How the names of folders for the others begin."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prepared:
    """What is known before anything is trained."""

    asked: tuple[Claim, ...]
    said: tuple[Statement, ...]
    device: torch.device
    weights: Mapping[str, WeightsFile]
    examined: list[Examined]
    subjects: list[Subject]
    wanted: Wanted
    grid: Grid | None
    """``None``: nothing is to be trained."""


def plan_verification(
    options: VerifyOptions, catalogue: Catalogue, reporter: Reporter | None = None
) -> VerificationPlan:
    """What ``verify`` would check and train, and how long that may take; no image is read, and nothing trained.

    Raises:
        InputError: as ``verify`` does, where that can be told from descriptions.
        DamagedManifestError: a manifest itself was changed.
    """
    reporter = reporter or Reporter()
    known = _prepared(options, catalogue, reporter, planning=True)
    return VerificationPlan.of(
        known.grid,
        known.asked,
        known.wanted,
        checked=[str(folder) for folder in options.folders],
        untrained={one.manifest.name: one.untrained for one in known.examined if one.untrained},
        profile=options.profile,
        reporter=reporter,
    )


def _prepared(options: VerifyOptions, catalogue: Catalogue, reporter: Reporter, *, planning: bool) -> _Prepared:
    """Read, and unless it is only ``planning`` check, the datasets; find out what is to be trained on them."""
    _check(options)
    device = pick_device(options.device)
    asked, said = _asked(options)
    refuse_lacking(_own(asked), _known_datasets(options, catalogue))
    weights = {} if options.integrity_only else _trained_weights(options, reporter)
    examined, subjects = _gathered(options, asked, said, catalogue, reporter, planning=planning)
    wanted = what_is_wanted(asked, said, subjects, PROFILES[options.profile], analyses=options.analyses)
    grid = _planned(options, subjects, wanted, weights, device, reporter, measure=not planning)
    return _Prepared(
        asked=asked,
        said=said,
        device=device,
        weights=weights,
        examined=examined,
        subjects=subjects,
        wanted=wanted,
        grid=grid,
    )


def verify(options: VerifyOptions, catalogue: Catalogue, reporter: Reporter | None = None) -> Report:
    """Check datasets, train on them and on their clean controls, judge the claims about them, and write the report.

    With several workers call this under ``if __name__ == "__main__"``, as for any process pool.

    Only what the recipes of ``catalogue`` make is judged against a paper.

    Raises:
        InputError: not a dataset, no such claim, no clean source to compare and train with, or no trained weights for
            a model that starts from some.
        DamagedManifestError: a manifest itself was changed.
    """
    with ExitStack() as reading:
        for folder in options.folders:
            reading.enter_context(being_verified(folder))
        return _verified(options, catalogue, reporter or Reporter())


def evaluate(
    training: OwnTraining, options: VerifyOptions, catalogue: Catalogue, reporter: Reporter | None = None
) -> Report:
    """Check a dataset, have the user's own training done on it and on its clean control, and judge as ``verify`` does.

    Of the options those count that say which dataset this is, where its clean images and the report are, and how images
    are changed; the report is written where ``options.report`` is given.

    Raises:
        InputError: the dataset is not intact or cannot be trained on, or the training is not what it has to be.
        DamagedManifestError: the manifest itself was changed.
    """
    reporter, (folder,) = reporter or Reporter(), options.folders
    with being_verified(folder):
        _check(options)
        strategy = parse_strategy(training.strategy)
        (examined,), subjects = _gathered(options, (), (), catalogue, reporter, planning=False)
        if not subjects:
            failed = [f"{check.name}: {check.detail}" for check in examined.checks if not check.passed]
            raise InputError(f"nothing is trained on {folder}: {examined.untrained or '; '.join(failed)}")
        (subject,) = subjects
        result = training.result(subject, parse_strategy(strategy.name, flippable=subject.flippable), reporter)
        known = _Prepared(
            asked=(),
            said=(),
            device=torch.device("cpu"),
            weights={},
            examined=[examined],
            subjects=subjects,
            wanted=what_is_wanted((), (), subjects, training.profile),
            grid=None,
        )
        report = dataclasses.replace(
            _report(options, known, training.profile, result, Findings(), {}),
            command=f"ule_datasets.evaluate({training.name}, {subject.name!r}, strategy={strategy.name!r})",
        )
        if options.report is not None:
            write_report(report, options.report)
        return report


def _verified(options: VerifyOptions, catalogue: Catalogue, reporter: Reporter) -> Report:
    """The work of ``verify``."""
    known = _prepared(options, catalogue, reporter, planning=False)
    timings = _timed(known.wanted.timed, known.subjects, reporter)
    result, findings, learned, profile = None, Findings(), tuple[Learned, ...](), PROFILES[options.profile]
    if known.grid is not None:
        profile = known.grid.profile
        class_names = {each.name: _class_names(each, known.examined) for each in known.subjects}
        result, findings, learned = _trained(options, known.grid, known.wanted.analyses, class_names, reporter)
    report = dataclasses.replace(_report(options, known, profile, result, findings, timings), learned=learned)
    write_report(report, options.report_folder)
    return report


def _report(
    options: VerifyOptions,
    known: _Prepared,
    profile: Profile,
    result: GridResult | None,
    findings: Findings,
    timings: Mapping[str, tuple[Timing, ...]],
) -> Report:
    """What follows from all that was trained and measured."""
    asked, said, examined, subjects = known.asked, known.said, known.examined, known.subjects
    claims = asked
    if not options.claims:
        claims, said = (*asked, *_about(subjects)), tuple(statements().values())
    samples = {subject.name: subject.samples() for subject in subjects}
    told = judge_statements(said, result, subjects, findings)
    return Report(
        datasets=_parts(examined, subjects),
        profile=profile,
        result=result,
        claims=judge_claims(claims, result, subjects, findings, profile=profile, asked=asked, timings=timings),
        statements=tuple(one for one in told if options.claims or one.judged.verdict is not Verdict.NOT_RUN),
        findings=findings,
        separability={name: linear_separability(s.clean, s.poisoned, s.labels) for name, s in samples.items()},
        cluster_separability={
            name: found
            for name, s in samples.items()
            if (found := cluster_separability(s.clean, s.poisoned, s.perturbation, s.keys)) is not None
        },
        pictures={
            each.name: _picture(samples[each.name], _class_names(each, examined), learnable=each.learnable)
            for each in subjects
        },
        beside=_beside(options, asked, known.wanted.analyses),
        collapse_expected={each.name: each.collapse_expected for each in subjects},
        environment=describe_environment(known.device),
        weights=tuple(file.provenance(own) for name, file in known.weights.items() if (own := VICTIMS[name].weights)),
        command=_command(options, [one.manifest.name for one in examined]),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def _beside(options: VerifyOptions, asked: Sequence[Claim], analyses: Iterable[str]) -> frozenset[str]:
    """What is looked at without having been asked for."""
    claims = {id for id in all_claims() if id not in {claim.id for claim in asked}}
    said = set() if options.claims else set(statements())
    return frozenset({*claims, *said, *(set(ANALYSES) - set(analyses))})


def _picture(samples: Samples, class_names: Sequence[str], *, learnable: bool) -> Sheet:
    """The first changed image of each of the first classes."""
    groups = rows_to_show(samples.labels, samples.perturbation.is_poisoned(samples.keys), len(class_names))
    rows = np.array([members[0] for members in groups[:SAMPLES_SHOWN]], dtype=np.int64)
    names = [class_names[number] for number in samples.labels[rows].tolist()]
    images, changed = (samples.clean[rows], samples.poisoned[rows]), RESTORED if learnable else PROTECTED
    return sample_sheet(*images, largest_noise(samples.perturbation), names, changed)


def _class_names(subject: Subject, examined: Sequence[Examined]) -> Sequence[str]:
    """As its folder has them; numbers for what was made in memory."""
    known = {str(one.manifest.name): one.manifest.class_names for one in examined}
    return known.get(subject.name, tuple(f"class {number}" for number in range(subject.num_classes)))


def _check(options: VerifyOptions) -> None:
    """Refuse names that nothing here has, and numbers that make no sense."""
    numbers = {"seeds": options.num_seeds, "workers": options.workers}
    for name, number in {**numbers, "threads": options.threads, "ranks": options.ranks}.items():
        if number is not None and number < 1:
            raise InputError(f"--{name} {number}: must be at least 1")
    parts = [word for strategy in options.strategies for word in strategy.split("+")]
    for name, given, known in (
        ("--profile", (options.profile,), PROFILES),
        ("--executor", (options.executor,), EXECUTORS),
        ("--analyses", options.analyses, OPTIONAL),
        ("--models", options.models, VICTIMS),
        ("--strategies", parts, (*STRATEGIES, *filter(_is_part, parts))),
    ):
        for one in given:
            if one not in known:
                raise unknown(f"{name} {one} is unknown", one, known, "ule-verify --help lists all")
    for strategy in options.strategies:
        parse_strategy(strategy)
    places = [folder.resolve() for folder in options.folders]
    for number, folder in enumerate(options.folders):
        if places[number] in places[:number]:
            raise InputError(f"{folder} is given twice")
    if options.report is None and len(options.folders) == 1:
        refuse_links(options.report_folder)
    refuse_linked_runs(options.report_folder)
    refuse_unwritable(options.report_folder, "--report")
    Given.of(options.source)
    if not options.folders and not options.claims:
        raise InputError("name a dataset, or claims with --claims (ule-verify --list shows them)")


def _is_part(word: str) -> bool:
    """Whether a strategy may have such a part."""
    return any(kind.parse(word) is not None for kind in countermeasures.COUNTERMEASURES)


def _timed(names: Iterable[str], subjects: Iterable[Subject], reporter: Reporter) -> dict[str, tuple[Timing, ...]]:
    """How long it takes to make datasets, before anything else is at work here."""
    found = {}
    by_name = {subject.name: subject for subject in subjects}
    for name in names:
        remake = by_name[name].remake
        assert remake is not None
        reporter.say(f"making {name} {TIMINGS} times, for the time that takes")
        found[name] = time_making(remake)
    return found


def _trained(
    options: VerifyOptions, grid: Grid, analyses: Iterable[str], names: Mapping[str, Sequence[str]], reporter: Reporter
) -> tuple[GridResult, Findings, tuple[Learned, ...]]:
    """Every run, the analyses that were asked for besides those that come with every run, and what was learned before.

    ``names`` are those of the classes, by dataset.
    """
    roles = roles_of_analyses(grid.subjects, PROFILES[options.profile])
    with _trainers(options, grid.device) as executor:
        store = RunStore(cache_folder() / "runs")
        result = train_grid(grid, store=store, executor=executor, reporter=reporter)
        if not roles and any(ANALYSES[name].roles for name in analyses):
            played = f"none of {', '.join(ROLES)}, or of what stands for them, is here"
            reporter.warn(f"no analysis is made: {played}")
        material = Material(grid=grid, result=result, roles=roles, store=store, executor=executor, reporter=reporter)
        found = analyse(material, analyses)
        return result, found, what_was_learned(grid, prepared_sets(store, executor, reporter), names)


def _trained_weights(options: VerifyOptions, reporter: Reporter) -> dict[str, WeightsFile]:
    """The files that the named models start from, each read once: what is wrong with one shows before any work."""
    files: dict[str, WeightsFile] = {}
    for model in options.models:
        if (weights := VICTIMS[model].weights) is not None:
            files[model] = obtain(weights, options.weights, reporter)
            build_pretrained(weights, files[model].path, 2, seed=0, normalise=False)
    return files


def _gathered(
    options: VerifyOptions,
    claims: Sequence[Claim],
    said: Sequence[Statement],
    catalogue: Catalogue,
    reporter: Reporter,
    *,
    planning: bool,
) -> tuple[list[Examined], list[Subject]]:
    """The datasets that are named, or that the claims speak of: checked, and ready to be trained on.

    Where it is only ``planning``, only what their descriptions say: nothing is checked, and no image is read.
    """
    folders, recipes = (options.folders, ()) if options.folders else _at_hand(claims, said, catalogue)
    training, workers = not options.integrity_only, options.workers or available_cpus()
    with (
        open_executor(options.executor, workers, preload=WORKER_MODULES) as readers,
        _scratch(options, folders) as scratch,
    ):
        needed = [recipe for recipe in recipes if training and may_be_made(recipe)]
        given = Given.of(options.source).settled([*_sources_of(folders), *(recipe.source for recipe in needed)])
        sources = SourceReader(given, readers, reporter, scratch)
        if planning:
            planned = [plan(folder, sources=sources, training=training, catalogue=catalogue) for folder in folders]
            made = [plan_in_memory(recipe, reporter) for recipe in recipes if training]
            return planned, _fitting([*(part.subject for part in planned), *made])
        examined = [examine(folder, sources=sources, training=training, catalogue=catalogue) for folder in folders]
        made = [make(recipe, sources=sources) for recipe in needed]
    return examined, _fitting([*(part.subject for part in examined), *made])


def _sources_of(folders: Iterable[Path]) -> Iterator[SourceSpec]:
    """What datasets were made of, as far as they say it; what is damaged is told by the checks."""
    for folder in folders:
        with suppress(InputError):
            yield PublishedRecipe.read(folder).source


def _fitting(found: Sequence[Subject | None]) -> list[Subject]:
    """Those that there are; refused where they cannot be in one grid."""
    subjects = [subject for subject in found if subject is not None]
    check_controls(subjects)
    return subjects


@contextmanager
def _scratch(options: VerifyOptions, folders: Sequence[Path]) -> Iterator[Path | None]:
    """A folder for pixels while it lasts; ``None`` where they fit into memory."""
    manifests = [Manifest.read(folder) for folder in folders]
    pixels = [math.prod(m.image_shape) * sum(split.num_examples for split in m.splits.values()) for m in manifests]
    if sum(pixels) <= IN_MEMORY:
        yield None
        return
    parent = options.scratch or cache_folder()
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent, f"{SCRATCH}*")
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=parent) as folder:
        yield Path(folder)


def _planned(
    options: VerifyOptions,
    subjects: list[Subject],
    wanted: Wanted,
    weights: Mapping[str, WeightsFile],
    device: torch.device,
    reporter: Reporter,
    *,
    measure: bool,
) -> Grid | None:
    """Everything that is to be trained; ``None``: nothing."""
    cells = with_controls([*_default_cells(options, subjects), *wanted.cells], subjects)
    if not cells:
        return None
    profile = settled(
        PROFILES[options.profile],
        device=device,
        threads=options.threads,
        notes=cache_folder() / "pace",
        reporter=reporter,
        measure=measure,
        asked=options.precision,
    )
    return Grid(
        profile=profile,
        subjects=tuple(subjects),
        cells=cells,
        seeds=tuple(range(options.num_seeds or profile.num_seeds)),
        device=device,
        compiled=options.compiled,
        threads=options.threads,
        ranks=options.ranks,
        keep_weights=frozenset(with_controls(wanted.weights, subjects)),
        weights=weights,
        weights_place=options.weights,
    )


def _asked(options: VerifyOptions) -> tuple[tuple[Claim, ...], tuple[Statement, ...]]:
    """What the user names: by pattern, or all claims of a file of the user's own."""
    if options.claims:
        return listed(options.claims, options.claims_file)
    if options.claims_file is None:
        return (), ()
    return _own(listed((), options.claims_file)[0]), ()


def _own(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """Those that are no paper's."""
    known = all_claims()
    return tuple(claim for claim in claims if claim.id not in known)


def _known_datasets(options: VerifyOptions, catalogue: Catalogue) -> set[str]:
    """What a claim may speak of: the catalogue, what is given or lies in ./datasets, and the clean images of these."""
    recipes: list[Recipe | PublishedRecipe] = [*catalogue.values()]
    for folder in options.folders:
        with suppress(InputError):  # what is damaged is told by the checks
            recipes.append(PublishedRecipe.read(folder))
    clean = {control_of(recipe.source.name, recipe.limit_per_class) for recipe in recipes}
    built = {path.parent.name for path in Path("datasets").glob(f"*/{FILE_NAME}")}
    return {recipe.name for recipe in recipes} | clean | built


def _about(subjects: Sequence[Subject]) -> tuple[Claim, ...]:
    """The claims that papers make about the datasets under verification and their controls."""
    found: dict[str, Claim] = {}
    for subject in subjects:
        if not subject.unjudged:
            for claim in (*for_dataset(subject.name), *for_dataset(subject.control)):
                found[claim.id] = claim
    return tuple(found.values())


def _at_hand(
    claims: Sequence[Claim], said: Sequence[Statement], catalogue: Catalogue
) -> tuple[tuple[Path, ...], tuple[Recipe, ...]]:
    """The datasets that claims and statements speak of: folders in ./datasets, and recipes to be made in memory."""
    names: dict[str, None] = {}
    for claim in claims:
        names.update(dict.fromkeys(datasets_of(claim)))
    for statement in said:
        names.update((dataset, None) for dataset, _, _ in cells_of(statement))
    known = [name for name in names if name in catalogue]
    if not known and names:  # clean images only: any dataset brings its control
        sources = {
            recipe.source.name: recipe.name for recipe in reversed(list(catalogue.values())) if recipe.reduced is None
        }
        known = [sources[name] for name in names if name in sources]
    built = {name: Path("datasets") / name for name in known if (Path("datasets") / name / FILE_NAME).exists()}
    return tuple(built.values()), tuple(catalogue[name] for name in known if name not in built)


def _default_cells(options: VerifyOptions, subjects: Sequence[Subject]) -> list[Cell]:
    """Models and strategies that were named; without claims and names, those of the profile."""
    named = bool(options.models or options.strategies)
    if options.claims and not named:
        return []
    profile = PROFILES[options.profile]
    models = options.models or (profile.trained_for("resnet18") or "resnet18",)
    strategies = options.strategies or profile.strategies
    return [
        Cell(subject.name, model, parse_strategy(strategy).name)
        for strategy in strategies
        for model in models
        for subject in subjects
    ]


def _trainers(options: VerifyOptions, device: torch.device) -> AbstractContextManager[Executor]:
    """Where runs go: on a GPU one at a time in this process, unless more are asked for."""
    workers = options.workers or (
        1 if device.type == "cuda" else max(1, available_cpus() // (options.ranks * options.threads))
    )
    on_gpu = float(options.ranks) if options.ranks > 1 else options.gpus_per_run
    share = on_gpu if device.type == "cuda" else 0.0
    return open_executor(options.executor, workers, gpus_per_task=share, preload=TRAINER_MODULES)


def _parts(examined: Sequence[Examined], subjects: Sequence[Subject]) -> tuple[DatasetPart, ...]:
    """The folders, then what was made in memory."""

    def part(dataset: Manifest | Subject, about: Examined | Subject, unjudged: str, *checks: Check) -> DatasetPart:
        return DatasetPart(
            name=dataset.name,
            version=dataset.version,
            title=about.title,
            reduced=dataset.reduced,
            recipe_digest=about.recipe_digest,
            perturbation_digest=dataset.perturbation_digest,
            manifest_digest=about.manifest_digest,
            checks=checks,
            unjudged=unjudged,
        )

    folders = [
        part(e.manifest, e, e.untrained if e.subject is None else e.subject.unjudged, *e.checks) for e in examined
    ]
    return (*folders, *(part(each, each, each.unjudged) for each in subjects if each.manifest_digest is None))


def _command(options: VerifyOptions, names: Sequence[str]) -> str:
    """The command that repeats this: what decides the result, without the paths of this machine."""
    usual = {"--device": "auto", "--executor": "local", "--threads": 1, "--ranks": 1}
    given = {
        "--claims": f"'{','.join(options.claims)}'" if options.claims else None,
        "--claims-file": None if options.claims_file is None else options.claims_file.name,
        "--analyses": ",".join(options.analyses),
        "--models": ",".join(options.models),
        "--strategies": ",".join(options.strategies),
        "--profile": options.profile,
        "--seeds": options.num_seeds,
        "--device": options.device,
        "--workers": options.workers,
        "--executor": options.executor,
        "--threads": options.threads,
        "--ranks": options.ranks,
    }
    words = [f"{name} {value}" for name, value in given.items() if value not in (None, "", usual.get(name))]
    flags = [flag for flag, on in (("--compile", options.compiled), ("--integrity-only", options.integrity_only)) if on]
    return " ".join(["ule-verify", *names, *words, *flags])
