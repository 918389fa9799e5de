"""``ule-verify``: check a dataset, and what training on it does."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ule_datasets.cli import CHECK_FAILED, DONE, run

if TYPE_CHECKING:
    from ule_datasets.verification.report import Report

COMMAND = "ule-verify"
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(COMMAND, lambda arguments: app(arguments, prog_name=COMMAND, standalone_mode=False) or DONE, argv)


def console() -> None:
    """Console script."""
    sys.exit(main())


@app.command()
def verify_command(
    datasets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FOLDER|NAME|REPO]...",
            help="Dataset folders, names of those in ./datasets, or OWNER/NAME[@REVISION] on the Hub. With --claims "
            "it may be left out: then what the claims speak of is taken from ./datasets or made in memory.",
        ),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            help="How much is trained: smoke (minutes on two CPU cores, shows a collapse), fast (a GPU, judges "
            "effects), paper (the printed protocol, judges numbers)."
        ),
    ] = "smoke",
    claims: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Run what these claims need, e.g. 'ops-t5-*'; several joined by commas."),
    ] = None,
    list_claims: Annotated[
        bool, typer.Option("--list-claims", help="List the papers' claims (those of --claims), and stop.")
    ] = False,
    claims_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A TOML file with claims of your own, besides the papers'.")
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Models to train on every dataset. ARCHITECTURE@DATA (e.g. resnet20@cifar10, "
            "resnet18@imagenet) starts from trained weights, as in BAIT. Default: resnet18's part.",
        ),
    ] = None,
    strategies: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Training strategies, e.g. standard,mixup,linf-at. Default: the profile's."),
    ] = None,
    analyses: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="shuffled, landscape, finetune (claims bring their own); relabelled: with classes put into groups.",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", help="Runs of each kind. Default: the profile's.")] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:i]", help="Where to train.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Runs at a time. Default: one per CPU; on a GPU one, more share it.")
    ] = None,
    executor: Annotated[
        str, typer.Option(metavar="local|ray", help="Where runs go: processes here, or a Ray cluster.")
    ] = "local",
    gpus_per_run: Annotated[
        float, typer.Option(metavar="SHARE", help="With Ray on GPUs: what a run takes, e.g. 0.25.")
    ] = 1.0,
    threads: Annotated[int, typer.Option(metavar="N", help="Of torch, for each run on a CPU.")] = 1,
    ranks: Annotated[
        int, typer.Option(metavar="N", help="Processes, each on a GPU of its own, that share one run (large models).")
    ] = 1,
    compile_model: Annotated[bool, typer.Option("--compile", help="Train through torch.compile.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and train nothing.")] = False,
    integrity_only: Annotated[bool, typer.Option("--integrity-only", help="Train nothing.")] = False,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="The clean images, in any form that ule-build takes. Default: where the build took them from, "
            "else the recipe's own source.",
        ),
    ] = None,
    scratch: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where images are decoded to that are too many for memory. Default: in the cache folder.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="The weights that models start from, instead of a download; where runs go to other machines, "
            "a place that all of them see. Default: $ULE_WEIGHTS.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the report goes. Default: FOLDER/verification; ./verification for several datasets, "
            "./verification/NAME for one from the Hub.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
) -> int:
    """Prove that datasets are what they say, train on them and on their clean controls, and judge what papers report.

    Finished runs are kept in the cache folder: the same command continues where it stopped.
    Exit codes: 0 done; 1 a check failed or a claim was refuted; 2 wrong usage or bad input; 130 interrupted.
    """
    if version:
        from ule_datasets.base.version import __version__

        print(__version__)
        return DONE
    if list_claims:
        return _list_claims(claims, claims_file)
    if not datasets and claims is None:
        raise typer.BadParameter("name a dataset folder, or claims with --claims")

    from builders import RECIPES
    from ule_datasets.base.progress import Reporter
    from ule_datasets.dataset.manifest import DamagedManifestError, Manifest
    from ule_datasets.verify import VerifyOptions, verify

    found = [_find(dataset) for dataset in datasets or []]
    if report is None and len(found) == 1 and found[0][1]:
        report = Path("verification") / Manifest.read(found[0][0]).name
    options = VerifyOptions(
        folders=tuple(folder for folder, _ in found),
        profile=profile,
        claims=claims,
        claims_file=claims_file,
        models=_words(models),
        strategies=_words(strategies),
        analyses=_words(analyses),
        num_seeds=seeds,
        device=device,
        workers=workers,
        executor=executor,
        gpus_per_run=gpus_per_run,
        threads=threads,
        ranks=ranks,
        compiled=compile_model,
        dry_run=dry_run,
        integrity_only=integrity_only,
        source=source,
        weights=weights,
        scratch=scratch,
        report=report,
    )
    try:
        result = verify(options, RECIPES, Reporter(silent=quiet and not dry_run))
    except DamagedManifestError as error:
        print(f"FAILED manifest: {error}")
        return CHECK_FAILED
    if result is None:
        return DONE
    print(_summary(result, options.report_folder))
    return DONE if result.passed else CHECK_FAILED


def _find(dataset: str) -> tuple[Path, bool]:
    """A dataset's folder, and whether it is the Hub's cache."""
    from ule_datasets.dataset.fetching import find_dataset, is_remote, require_images
    from ule_datasets.dataset.manifest import Manifest

    folder = find_dataset(dataset)
    remote = is_remote(folder)
    if remote:
        require_images(folder, Manifest.read(folder), dataset)
    return folder, remote


def _list_claims(pattern: str | None, claims_file: Path | None) -> int:
    from ule_datasets.papers.claims import listed

    claims, statements = listed(pattern, claims_file)
    rows = [("claim", "trained on", "model", "strategy", "reported", "kind")]
    for claim in claims:
        spread = "" if claim.std is None else f" ± {claim.std:g}"
        rows.append(
            (claim.id, claim.train_dataset, claim.model, claim.strategy, f"{claim.value:g}{spread}", str(claim.regime))
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if claims:
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for statement in statements:
        print(f"{statement.id}: {statement.statement}")
    return DONE


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _summary(report: Report, folder: Path) -> str:
    lines = []
    for part in report.datasets:
        passed = [check for check in part.checks if check.passed]
        checked = f"{len(passed)} of {len(part.checks)} checks passed" if part.checks else "made in memory"
        lines.append(f"{part.name} {part.version}: {checked}")
        lines += [f"FAILED {check.name}: {check.detail}" for check in part.checks if not check.passed]
    for one in report.comparisons:
        lines.append(
            f"{one.dataset}, {one.model}, {one.strategy}: {one.poisoned.percent} clean test accuracy, "
            f"control {one.clean.percent}: {one.collapse}"
        )
    for name in report.unexpected:
        lines.append(f"FAILED effect: the collapse that {name} is made for does not show")
    verdicts = Counter(result.verdict for result in (*report.claims,))
    if verdicts:
        lines.append("claims: " + ", ".join(f"{number} {verdict}" for verdict, number in verdicts.most_common()))
    lines += [f"{result.statement.id}: {result.judged.verdict}" for result in report.statements]
    lines += [f"REFUTED {name}" for name in report.refuted]
    lines += [f"LOST {run.cell}, seed {run.seed}: {run.reason}" for run in report.lost]
    if report.result is not None:
        lines.append(report.profile.limits)
    lines.append(f"report: {folder / 'report.html'}")
    return "\n".join(lines)


if __name__ == "__main__":
    console()
