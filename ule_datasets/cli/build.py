"""``ule-build``: make a dataset."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ule_datasets.base.errors import InputError
from ule_datasets.base.options import (
    FORMATS,
    HOW,
    IMAGES,
    PLACE,
    PUBLISHING,
    BuildOptions,
    CommandOptions,
    PublishOptions,
    option,
)
from ule_datasets.base.shown import counted
from ule_datasets.cli.arguments import Words, application, argument
from ule_datasets.cli.running import CHECK_FAILED, Answer, run, tell, version

if TYPE_CHECKING:
    from ule_datasets.base.progress import Reporter
    from ule_datasets.building import BuildResult
    from ule_datasets.definition import Recipe
    from ule_datasets.packaging.publication import Plan
    from ule_datasets.packaging.publish import Publication

COMMAND = "ule-build"


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(COMMAND, lambda arguments: app(arguments, prog_name=COMMAND, standalone_mode=False), argv)


def _names() -> Sequence[str]:
    """What a shell may complete the recipe with."""
    from builders import RECIPES

    return tuple(RECIPES)


@dataclass(frozen=True, kw_only=True)
class BuildArguments(CommandOptions, PublishOptions, BuildOptions):
    """What stands on the command line; where and how, and which recipe."""

    out: Path = Path()
    recipe: str | None = argument(
        "NAME|RECIPE.py", "A name of the catalogue, or a file with a RECIPE; with --list a pattern.", _names
    )
    list_: bool = option("Show the catalogue, or what of it matches NAME, and stop.", default=False, rank=0)
    dry_run: bool = option(
        "Say what would be built, of which images, and published; build and craft nothing.", default=False, rank=0
    )
    where: str | None = option(
        "The dataset folder, or a place such as s3://bucket/folder that files are sent to as they are "
        "written. Default: ./datasets/NAME.",
        "DIR|URL",
        name="--out",
        panel=PLACE,
        rank=0,
    )
    perturbation: list[str] | None = option(
        "Assemble from a saved perturbation, or from that of a dataset on the Hub; craft nothing. "
        "Repeat it where each method has its own.",
        "FILE|FOLDER|REPO",
        panel=PLACE,
    )
    format: Words = option(
        "How images are stored: parquet, webdataset, or both, which is the default.",
        "A,B",
        default=(),
        panel=IMAGES,
        choices=FORMATS,
        rank=0,
    )
    seed: int | None = option("Another seed than the recipe's; shows in the name.", "N", panel=IMAGES)
    limit: int | None = option("A trial on the first N training images of each class.", "N", panel=IMAGES)
    crop: int | None = option(
        "Cut this square from the centre of one's own images, of any sizes.", "PIXELS", panel=IMAGES
    )
    resize: int | None = option("With --crop: bring the shorter side to this length first.", "PIXELS", panel=IMAGES)
    test_split: str | None = option(
        "Which split is the clean test split, where there are a test and a validation split. Default: test, if "
        "it has labels.",
        "NAME",
        panel=IMAGES,
    )
    class_folder: list[str] | None = option(
        "A class folder that is called like a split (train, test, ...). Repeat for several.", "NAME", panel=IMAGES
    )
    processes: int | None = option(
        "Processes. Default: one per CPU. Never changes the result.", "N", name="--workers", panel=HOW, rank=0
    )
    no_cache: bool = option(
        "Craft again although a finished craft is kept, and keep nothing.", default=False, panel=HOW
    )
    push_to_hub: bool = option(
        "Publish the dataset on the Hub when it is built.", default=False, panel=PUBLISHING, rank=0
    )


def build_command(given: BuildArguments) -> Answer:
    """Build an unlearnable-example dataset: exact, sharded, with card, manifest and digests.

    The same command again continues an interrupted build and leaves a finished one alone.

    Exit codes: 0 done; 1 a check failed; 2 wrong usage or bad input; 130 interrupted, by SIGTERM 143.
    """
    if given.version:
        return version()
    if given.list_:
        from ule_datasets.cli.catalogue import catalogue

        return catalogue(given.recipe)
    if given.recipe is None:
        raise InputError("name a recipe; ule-build --list shows them")

    if not given.push_to_hub and (unused := given.only_publishing()):
        raise InputError(f"{unused} goes with --push-to-hub")

    from ule_datasets.base.progress import Reporter

    recipe, reporter = _recipe(given.recipe, given), Reporter(silent=given.quiet)
    if given.seed is not None and not recipe.draws:
        reporter.warn(f"--seed {given.seed} changes no image: {given.recipe} draws nothing at random")
    if not given.perturbation:
        _tell_of_a_lighter_one(recipe, given, reporter)
    return _planned(recipe, given, reporter) if given.dry_run else _built(recipe, given, reporter)


app = application(BuildArguments, build_command)


def _tell_of_a_lighter_one(recipe: Recipe, given: BuildArguments, reporter: Reporter) -> None:
    """Where the craft would take days on this machine, and the catalogue has one that does not."""
    from ule_datasets.compute.devices import pick_device
    from ule_datasets.interface.catalogue import for_a_cpu

    lighter = for_a_cpu(str(recipe.name))
    if lighter and pick_device(given.device).type == "cpu":
        reporter.say(lighter)


def _planned(recipe: Recipe, given: BuildArguments, reporter: Reporter) -> Answer:
    """What would be done; nothing is."""
    from builders import RECIPES
    from ule_datasets.building import plan_build
    from ule_datasets.packaging.publication import plan_publication

    plan = plan_build(recipe, _options(recipe, (), given), reporter)
    if plan.look.refusal:
        tell(*plan.look.lines())
        raise InputError(*plan.look.refusal)
    lines, content = plan.lines(), plan.content()
    if given.push_to_hub:
        if plan.finished:
            publication = plan_publication(recipe, plan.out, given, catalogue=tuple(RECIPES))
            lines += publication.describe()
            content["publication"] = publication.about()
        else:
            repository = given.repo_id or f"ule/{recipe.name}"
            lines.append(f"plan: then publish it as {repository}; which files, and how large, shows once it is built")
            content["publication"] = {"repo_id": repository}
    return Answer(lines=lines, content=content)


def _built(recipe: Recipe, given: BuildArguments, reporter: Reporter) -> Answer:
    """Build, compare with what was published, and publish."""
    from builders import RECIPES
    from ule_datasets.building import build, settle
    from ule_datasets.dataset.fetching import find_perturbation
    from ule_datasets.packaging.publication import plan_publication
    from ule_datasets.packaging.publish import publish
    from ule_datasets.places.hub import check_online

    if given.push_to_hub:
        check_online("publish")  # before anything is built
    saved = [find_perturbation(where) for where in given.perturbation or ()]
    if given.release is not None and not saved:
        recipe = settle(recipe, _options(recipe, (), given), reporter)
    result = build(recipe, _options(recipe, tuple(each.path for each in saved), given), reporter)
    lines, content = _summary(result), _content(result, reporter)
    if differences := [line for each in saved for line in each.differences(result.manifest)]:
        return Answer(lines=lines, content=content, complaints=differences, code=CHECK_FAILED)
    lines += [each.proof(result.manifest) for each in saved if each.published is not None]
    if result.folder is not None and given.push_to_hub:
        tell(*lines)  # publishing takes long, and may fail
        plan = plan_publication(recipe, result.folder, given, catalogue=tuple(RECIPES))
        publication = publish(plan, reporter)
        lines = [_published(publication, plan)]
        content["publication"] = {**plan.about(), **dataclasses.asdict(publication)}
    return Answer(lines=lines, content=content)


def _recipe(name: str, given: BuildArguments) -> Recipe:
    """The recipe as the options change it."""
    from ule_datasets.interface.recipes import find_recipe
    from ule_datasets.sources.spec import Preprocess

    recipe = find_recipe(name)
    if given.crop is not None:
        recipe = recipe.with_preprocess(Preprocess(resize=given.resize, crop=given.crop, convert="RGB"))
    elif given.resize is not None:
        raise InputError("--resize goes with --crop: give the side of the square to cut from the centre")
    if given.test_split or given.class_folder:
        recipe = recipe.with_layout(test_split=given.test_split, class_folders=given.class_folder or ())
    recipe = recipe if given.seed is None else recipe.with_seed(given.seed)
    return recipe if given.limit is None else recipe.as_trial(given.limit)


def _options(recipe: Recipe, perturbations: tuple[Path, ...], given: BuildArguments) -> BuildOptions:
    from ule_datasets.base.files import expanded
    from ule_datasets.compute.executor import available_cpus
    from ule_datasets.places.urls import is_remote, shown
    from ule_datasets.sources.given import place_for

    away = given.where if given.where is not None and is_remote(given.where) else None
    if away is not None and given.push_to_hub:
        raise InputError(f"publishing starts from a folder: --out {shown(away)} is a URL")
    here = expanded(given.where) if given.where else Path("datasets") / recipe.name
    return replace(
        given,
        source=place_for(given.source, recipe.source),
        out=_work_folder(recipe, away, given.scratch) if away else here,
        deliver_to=away,
        formats=given.format or FORMATS,
        perturbations=perturbations,
        workers=available_cpus() if given.processes is None else given.processes,
        cache=not given.no_cache,
    )


def _work_folder(recipe: Recipe, url: str, scratch: Path | None) -> Path:
    """Where a dataset that goes to a URL is made; the same for the same one."""
    from ule_datasets.base.files import cache_folder

    own = hashlib.sha256(f"{recipe.digest} {url}".encode()).hexdigest()[:12]
    return (scratch or cache_folder()) / f"ule-{recipe.name}-to-{own}"


def _summary(result: BuildResult) -> list[str]:
    manifest = result.manifest
    if result.already_complete:
        how = "" if result.folder is None else f": ule-verify {result.folder} --integrity-only does it"
        done = f"{result.place} already holds {manifest.name} {manifest.version}, finished earlier; nothing to do"
        return [f"{done} (nothing was verified{how})"]
    counts = ", ".join(f"{record.num_examples:,} {name}" for name, record in manifest.splits.items())
    size = sum(file.size for file in manifest.files) / 2**20
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in manifest.timings.items())
    untested = "" if "test" in manifest.splits else ": its integrity; without a test split nothing can be trained on it"
    return [
        f"{manifest.name} {manifest.version}: {counts} images, {counted(len(manifest.files), 'file')}, {size:.0f} MiB "
        f"in {result.place}",
        f"time: {times} (in all {sum(manifest.timings.values()):.1f} s)",
        f"perturbation {manifest.perturbation_digest}",
        *(f"{name} {record.digest}" for name, record in manifest.splits.items()),
        *(f"WARNING: {reason}" for reason in result.shortfalls),
        *([] if result.folder is None else [f"next: ule-verify {result.folder}{untested}"]),
    ]


def _content(result: BuildResult, reporter: Reporter) -> dict[str, Any]:
    """What ``--json`` tells of a build."""
    manifest = result.manifest
    return {
        "planned": False,
        "name": manifest.name,
        "version": manifest.version,
        "reduced": manifest.reduced,
        "recipe_digest": manifest.recipe_digest,
        "perturbation_digest": manifest.perturbation_digest,
        "place": result.place,
        "formats": list(manifest.formats),
        "already_complete": result.already_complete,
        "splits": {name: {"images": s.num_examples, "digest": s.digest} for name, s in manifest.splits.items()},
        "files": len(manifest.files),
        "bytes": sum(file.size for file in manifest.files),
        "seconds": manifest.timings,
        "source": manifest.look,
        "warnings": reporter.warnings,
        "publication": None,
    }


def _published(publication: Publication, plan: Plan) -> str:
    tag = f", tag {plan.tag}" if plan.tag else ""
    if publication.already_there:
        return f"{plan.repo_id} already holds {plan.manifest.name} {plan.manifest.version}{tag}; nothing was uploaded"
    removed = f", {publication.deleted} old ones removed" if publication.deleted else ""
    return (
        f"published {plan.manifest.name} {plan.manifest.version} as {plan.repo_id}: "
        f"{counted(publication.uploaded, 'file')} uploaded{removed} (commit {publication.commit[:12]}{tag})"
    )


if __name__ == "__main__":
    from ule_datasets.cli import start

    start.build()
