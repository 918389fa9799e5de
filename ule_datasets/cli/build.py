"""``ule-build``: make a dataset."""

from __future__ import annotations

import hashlib
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ule_datasets.cli import CHECK_FAILED, DONE, run

if TYPE_CHECKING:
    from ule_datasets.build import BuildResult
    from ule_datasets.packaging.publish import Plan, Publication
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


def console() -> None:
    """Console script."""
    sys.exit(main())


@app.command()
def build_command(
    recipe: Annotated[
        str | None, typer.Argument(metavar="NAME|RECIPE.py", help="A name of the catalogue, or a file with a RECIPE.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="The clean images: hub:OWNER/NAME, digits, or a folder or file in any supported form. "
            "Default: the recipe's own source.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL",
            help="The dataset folder, or a place such as s3://bucket/folder that files are sent to as they are "
            "written. Default: ./datasets/NAME.",
        ),
    ] = None,
    format: Annotated[list[Format] | None, typer.Option(help="Repeat for several. Default: both.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed than the recipe's; shows in the name.")] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="A trial on the first N training images of each class.")
    ] = None,
    device: Annotated[
        str,
        typer.Option(metavar="auto|cpu|cuda[:I]", help="Where noise is crafted. Default: a GPU if there is one."),
    ] = "auto",
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Pretrained weights of methods that start from some, instead of a download. Default: $ULE_WEIGHTS.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes. Default: one per CPU. Never changes the result.")
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            metavar="local|ray",
            help="Where they run: on this machine, or on a Ray cluster whose machines all see --out and --source. "
            "Never changes the result.",
        ),
    ] = "local",
    scratch: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where decoded images stand during the build. Default: within --out."),
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", help="Cut this square from the centre of one's own images, of any sizes."),
    ] = None,
    resize: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", help="With --crop: bring the shorter side to this length first."),
    ] = None,
    skip_unusable: Annotated[
        bool,
        typer.Option(
            "--skip-unusable",
            help="Leave out images that cannot be decoded, list them in left-out.txt, and go on. "
            "Default: name them and build nothing.",
        ),
    ] = False,
    perturbation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|FOLDER|REPO",
            help="Assemble from a saved perturbation, or from that of a dataset on the Hub; craft nothing. "
            "Repeat it where each method has its own.",
        ),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Craft again although a finished craft is kept, and keep nothing.")
    ] = False,
    push_to_hub: Annotated[
        bool, typer.Option("--push-to-hub", help="Publish the dataset on the Hub when it is built.")
    ] = False,
    repo_id: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Where to publish. Default: ule/NAME.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Publish on this branch. Default: main, and a tag for the version.")
    ] = None,
    perturbation_only: Annotated[
        bool, typer.Option("--perturbation-only", help="Publish no images: perturbation, recipe, digests and card.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be published, with sizes, and stop.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an older dataset in the same folder.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show the catalogue and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
) -> int:
    """Build an unlearnable-example dataset: exact, sharded, with card, manifest and digests.

    The same command again continues an interrupted build and leaves a finished one alone.
    """
    if version:
        from ule_datasets.base.version import __version__

        print(__version__)
        return DONE
    if list_:
        print(catalogue())
        return DONE
    if recipe is None:
        raise typer.BadParameter("name a recipe; ule-build --list shows them")

    from builders import RECIPES
    from ule_datasets.base.progress import Reporter
    from ule_datasets.build import BuildOptions, build
    from ule_datasets.cli.recipes import find_recipe
    from ule_datasets.compute.executor import available_cpus
    from ule_datasets.dataset.fetching import find_perturbation
    from ule_datasets.dataset.shards import FORMATS
    from ule_datasets.packaging.publish import PublishOptions, plan_publication, publish
    from ule_datasets.places.urls import is_remote, shown
    from ule_datasets.sources.spec import Preprocess

    chosen = find_recipe(recipe)
    if crop is not None:
        chosen = chosen.with_preprocess(Preprocess(resize=resize, crop=crop, convert="RGB"))
    elif resize is not None:
        raise typer.BadParameter("--resize goes with --crop: give the side of the square to cut from the centre")
    chosen = chosen if seed is None else chosen.with_seed(seed)
    chosen = chosen if limit is None else chosen.as_trial(limit)
    saved = [find_perturbation(where) for where in perturbation or ()]
    away = out if out is not None and is_remote(out) else None
    if away is not None and (push_to_hub or dry_run):
        raise typer.BadParameter(f"publishing starts from a folder: --out {shown(away)} is a URL")
    options = BuildOptions(
        out=_work_folder(chosen, away, scratch) if away else Path(out) if out else Path("datasets") / chosen.name,
        deliver_to=away,
        source=source,
        formats=tuple(f.value for f in format) if format else FORMATS,
        perturbations=tuple(given.path for given in saved),
        workers=available_cpus() if workers is None else workers,
        executor=executor,
        scratch=scratch,
        skip_unusable=skip_unusable,
        device=device,
        weights=weights,
        cache=not no_cache,
        overwrite=overwrite,
    )
    reporter = Reporter(silent=quiet)
    result = build(chosen, options, reporter)
    print(_summary(result))
    differences = [line for given in saved for line in given.differences(result.manifest)]
    if differences:
        print("\n".join(differences), file=sys.stderr)
        return CHECK_FAILED
    for given in saved:
        if given.published is not None:
            print(given.proof(result.manifest))
    if result.folder is not None and (push_to_hub or dry_run):
        target = PublishOptions(
            repo_id=repo_id, private=private, revision=revision, perturbation_only=perturbation_only
        )
        plan = plan_publication(chosen, result.folder, target, catalogue=tuple(RECIPES))
        print(plan.describe() if dry_run else _published(publish(plan, reporter), plan))
    return DONE


def _work_folder(recipe: Recipe, url: str, scratch: Path | None) -> Path:
    """Where a dataset that goes to a URL is made; the same for the same one."""
    from ule_datasets.packaging.craft_cache import cache_folder

    own = hashlib.sha256(f"{recipe.digest} {url}".encode()).hexdigest()[:12]
    return (scratch or cache_folder()) / f"ule-{recipe.name}-to-{own}"


def catalogue() -> str:
    """The table of recipes: name, source, methods, images, what is reported, what it needs."""
    from builders import RECIPES
    from ule_datasets.methods.method import Repeats
    from ule_datasets.papers.claims import headline

    rows = [("name", "method", "source", "images", "reported", "needs")]
    for item in RECIPES.values():
        claim = headline(item.name)
        where = item.source.default_location
        needs = [{None: "--source", "digits": "nothing"}.get(where, "download or --source")]
        needs += [f"weights {weights.name}" for method in item.methods for weights in method.weights]
        crafted = any(method.repeats == Repeats.DEVICE for method in item.methods)
        if crafted and item.limit_per_class is None and where != "digits":
            needs.append("better a GPU")
        rows.append(
            (
                item.name,
                " + ".join(method.title for method in item.methods),
                item.source.name,
                " + ".join(f"{count:,}" for _, count in item.source.num_images or ()) or "any",
                f"{claim.value:.2f} %" if claim else "-",
                "; ".join(needs),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    note = "reported: clean test accuracy of a ResNet-18 trained on the dataset, as printed in its paper"
    return "\n".join([*lines, "", note])


def _summary(result: BuildResult) -> str:
    manifest = result.manifest
    if result.already_complete:
        return f"{result.place} already holds the complete {manifest.name} {manifest.version}; nothing to do"
    counts = ", ".join(f"{record.num_examples:,} {name}" for name, record in manifest.splits.items())
    size = sum(file.size for file in manifest.files) / 2**20
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in manifest.timings.items())
    return "\n".join(
        [
            f"{manifest.name} {manifest.version}: {counts} images, {len(manifest.files)} files, {size:.0f} MiB "
            f"in {result.place}",
            f"time: {times} (in all {sum(manifest.timings.values()):.1f} s)",
            f"perturbation {manifest.perturbation_digest}",
            *(f"{name} {record.digest}" for name, record in manifest.splits.items()),
            *([] if result.folder is None else [f"next: ule-verify {result.folder}"]),
        ]
    )


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
    console()
