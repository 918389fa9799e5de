"""``ule-build``: make a dataset."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ule_datasets.base.options import FORMATS, BuildOptions, PublishOptions, option
from ule_datasets.cli.arguments import argument, takes
from ule_datasets.cli.running import CHECK_FAILED, DONE, run, show_version, table, tell

if TYPE_CHECKING:
    from ule_datasets.base.progress import Reporter
    from ule_datasets.build import BuildResult
    from ule_datasets.packaging.publication import Plan
    from ule_datasets.packaging.publish import Publication
    from ule_datasets.recipe import Recipe

COMMAND = "ule-build"
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Format(StrEnum):
    """How shards are stored."""

    PARQUET = "parquet"
    WEBDATASET = "webdataset"


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(COMMAND, lambda arguments: app(arguments, prog_name=COMMAND, standalone_mode=False) or DONE, argv)


@dataclass(frozen=True, kw_only=True)
class BuildArguments(PublishOptions, BuildOptions):
    """What stands on the command line; where and how, and which recipe."""

    out: Path = Path()
    recipe: str | None = argument("NAME|RECIPE.py", "A name of the catalogue, or a file with a RECIPE.")
    where: str | None = option(
        "The dataset folder, or a place such as s3://bucket/folder that files are sent to as they are "
        "written. Default: ./datasets/NAME.",
        "DIR|URL",
        name="--out",
        after="source",
    )
    format: list[Format] | None = option("Repeat for several. Default: both.")
    seed: int | None = option("Another seed than the recipe's; shows in the name.")
    limit: int | None = option("A trial on the first N training images of each class.", "N")
    processes: int | None = option(
        "Processes. Default: one per CPU. Never changes the result.", name="--workers", after="weights"
    )
    crop: int | None = option(
        "Cut this square from the centre of one's own images, of any sizes.", "PIXELS", after="scratch"
    )
    resize: int | None = option("With --crop: bring the shorter side to this length first.", "PIXELS")
    test_split: str | None = option(
        "Which split is the clean test split, where there are a test and a validation split. Default: test, if "
        "it has labels.",
        "NAME",
    )
    class_folder: list[str] | None = option(
        "A class folder that is called like a split (train, test, ...). Repeat for several.", "NAME"
    )
    perturbation: list[str] | None = option(
        "Assemble from a saved perturbation, or from that of a dataset on the Hub; craft nothing. "
        "Repeat it where each method has its own.",
        "FILE|FOLDER|REPO",
        after="skip_unusable",
    )
    no_cache: bool = option("Craft again although a finished craft is kept, and keep nothing.", default=False)
    push_to_hub: bool = option("Publish the dataset on the Hub when it is built.", default=False)
    dry_run: bool = option(
        "Show what the source looks like, and stop; with --push-to-hub, what would be published.",
        default=False,
        after="perturbation_only",
    )
    list_: bool = option("Show the catalogue and stop.", default=False, after="overwrite")
    quiet: bool = option("No progress, only the result.", default=False)
    debug: bool = option("Show tracebacks.", default=False)
    version: bool = option("Show the version and stop.", default=False)


@app.command()
@takes(BuildArguments)
def build_command(given: BuildArguments) -> int:
    """Build an unlearnable-example dataset: exact, sharded, with card, manifest and digests.

    The same command again continues an interrupted build and leaves a finished one alone.
    """
    if given.version:
        return show_version()
    if given.list_:
        tell(*catalogue())
        return DONE
    if given.recipe is None:
        raise typer.BadParameter("name a recipe; ule-build --list shows them")

    from ule_datasets.base.errors import InputError
    from ule_datasets.base.progress import Reporter
    from ule_datasets.build import build, look_at_source
    from ule_datasets.dataset.fetching import find_perturbation
    from ule_datasets.places.hub import check_online

    recipe, reporter = _recipe(given.recipe, given), Reporter(silent=given.quiet)
    if given.dry_run and not given.push_to_hub:
        look = look_at_source(recipe, _options(recipe, (), given), reporter)
        tell(*look.lines())
        if look.refusal:
            raise InputError(*look.refusal)
        return DONE
    if given.push_to_hub and not given.dry_run:
        check_online("publish")  # before anything is built
    saved = [find_perturbation(where) for where in given.perturbation or ()]
    result = build(recipe, _options(recipe, tuple(each.path for each in saved), given), reporter)
    tell(*_summary(result))
    if differences := [line for each in saved for line in each.differences(result.manifest)]:
        tell(*differences, to=sys.stderr)
        return CHECK_FAILED
    for each in saved:
        if each.published is not None:
            tell(each.proof(result.manifest))
    if result.folder is not None and given.push_to_hub:
        tell(*_publish(recipe, result.folder, given, reporter))
    return DONE


def _recipe(name: str, given: BuildArguments) -> Recipe:
    """The recipe as the options change it."""
    from ule_datasets.cli.recipes import find_recipe
    from ule_datasets.sources.spec import Preprocess

    recipe = find_recipe(name)
    if given.crop is not None:
        recipe = recipe.with_preprocess(Preprocess(resize=given.resize, crop=given.crop, convert="RGB"))
    elif given.resize is not None:
        raise typer.BadParameter("--resize goes with --crop: give the side of the square to cut from the centre")
    if given.test_split or given.class_folder:
        recipe = recipe.with_layout(test_split=given.test_split, class_folders=given.class_folder or ())
    recipe = recipe if given.seed is None else recipe.with_seed(given.seed)
    return recipe if given.limit is None else recipe.as_trial(given.limit)


def _options(recipe: Recipe, perturbations: tuple[Path, ...], given: BuildArguments) -> BuildOptions:
    from ule_datasets.compute.executor import available_cpus
    from ule_datasets.places.urls import is_remote, shown

    away = given.where if given.where is not None and is_remote(given.where) else None
    for name, value in (("--out", given.where), ("--source", given.source)):
        if value == "":  # most likely a variable of the shell that is not set
            raise typer.BadParameter(f"{name} is empty; leave it away for the default")
    if away is not None and given.push_to_hub:
        raise typer.BadParameter(f"publishing starts from a folder: --out {shown(away)} is a URL")
    here = Path(given.where) if given.where else Path("datasets") / recipe.name
    return replace(
        given,
        out=_work_folder(recipe, away, given.scratch) if away else here,
        deliver_to=away,
        formats=tuple(each.value for each in given.format) if given.format else FORMATS,
        perturbations=perturbations,
        workers=available_cpus() if given.processes is None else given.processes,
        cache=not given.no_cache,
    )


def _publish(recipe: Recipe, folder: Path, given: BuildArguments, reporter: Reporter) -> list[str]:
    """Publish, or only say what would be published."""
    from builders import RECIPES
    from ule_datasets.packaging.publication import plan_publication
    from ule_datasets.packaging.publish import publish

    plan = plan_publication(recipe, folder, given, catalogue=tuple(RECIPES))
    return plan.describe() if given.dry_run else [_published(publish(plan, reporter), plan)]


def _work_folder(recipe: Recipe, url: str, scratch: Path | None) -> Path:
    """Where a dataset that goes to a URL is made; the same for the same one."""
    from ule_datasets.base.files import cache_folder

    own = hashlib.sha256(f"{recipe.digest} {url}".encode()).hexdigest()[:12]
    return (scratch or cache_folder()) / f"ule-{recipe.name}-to-{own}"


def catalogue() -> list[str]:
    """The table of recipes: name, source, methods, images, what is reported, what it needs."""
    from builders import RECIPES
    from ule_datasets.methods.method import Repeats
    from ule_datasets.papers.claims import headline

    rows = [("name", "method", "source", "images", "reported", "needs")]
    for item in RECIPES.values():
        claim, all_images = headline(item.name), dict(item.source.num_images or ())
        where = item.source.default_location
        needs = [{None: "--source", "digits": "nothing"}.get(where, "download or --source")]
        needs += [f"weights {weights.name}" for method in item.methods for weights in method.weights]
        crafted = any(method.repeats == Repeats.DEVICE for method in item.methods)
        if crafted and item.limit_per_class is None and where != "digits":
            needs.append("better a GPU")
        rows.append(
            (
                f"{item.name} (reduced)" if item.reduced else item.name,
                " + ".join(method.title for method in item.methods),
                item.source.name,
                " + ".join(_count(used, all_images[split]) for split, used in item.num_images.items()) or "any",
                f"{claim.value:.2f} %" if claim else "-",
                "; ".join(needs),
            )
        )
    note = "reported: clean test accuracy of a ResNet-18 trained on the dataset, as printed in its paper"
    return [*table(rows), "", note]


def _count(used: int, there: int) -> str:
    return f"{used:,}" if used == there else f"{used:,} of {there:,}"


def _summary(result: BuildResult) -> list[str]:
    manifest = result.manifest
    if result.already_complete:
        how = "" if result.folder is None else f": ule-verify {result.folder} --integrity-only does it"
        done = f"{result.place} already holds {manifest.name} {manifest.version}, finished earlier; nothing to do"
        return [f"{done} (nothing was verified{how})"]
    counts = ", ".join(f"{record.num_examples:,} {name}" for name, record in manifest.splits.items())
    size = sum(file.size for file in manifest.files) / 2**20
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in manifest.timings.items())
    return [
        f"{manifest.name} {manifest.version}: {counts} images, {len(manifest.files)} files, {size:.0f} MiB "
        f"in {result.place}",
        f"time: {times} (in all {sum(manifest.timings.values()):.1f} s)",
        f"perturbation {manifest.perturbation_digest}",
        *(f"{name} {record.digest}" for name, record in manifest.splits.items()),
        *([] if result.folder is None else [f"next: ule-verify {result.folder}"]),
    ]


def _published(publication: Publication, plan: Plan) -> str:
    tag = f", tag {plan.tag}" if plan.tag else ""
    if publication.already_there:
        return f"{plan.repo_id} already holds {plan.manifest.name} {plan.manifest.version}{tag}; nothing was uploaded"
    removed = f", {publication.deleted} old ones removed" if publication.deleted else ""
    return (
        f"published {plan.manifest.name} {plan.manifest.version} as {plan.repo_id}: {publication.uploaded} files "
        f"uploaded{removed} (commit {publication.commit[:12]}{tag})"
    )


if __name__ == "__main__":
    from ule_datasets.cli import start

    start.build()
