"""``ule-verify``: check a dataset, and what training on it does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ule_datasets.cli import CHECK_FAILED, DONE, run

if TYPE_CHECKING:
    from ule_datasets.report import Report

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
    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="FOLDER|NAME|REPO",
            help="A dataset folder, the name of one in ./datasets, or OWNER/NAME[@REVISION] on the Hub.",
        ),
    ] = None,
    profile: Annotated[str, typer.Option(help="How much is trained: smoke (minutes on two CPU cores).")] = "smoke",
    seeds: Annotated[int | None, typer.Option(metavar="N", help="Runs of each kind. Default: the profile's.")] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:i]", help="Where to train.")] = "auto",
    workers: Annotated[int | None, typer.Option(help="Processes. Default: one per CPU.")] = None,
    integrity_only: Annotated[bool, typer.Option("--integrity-only", help="Train nothing.")] = False,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="The clean images, in any form that ule-build takes. Default: where the build took them from, "
            "else the recipe's own source.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the report goes. Default: FOLDER/verification, for the Hub ./verification/NAME."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
) -> int:
    """Prove that a dataset is what it says, then measure what training on it does, beside the clean control.

    Exit codes: 0 done; 1 a check failed; 2 wrong usage or bad input; 130 interrupted.
    """
    if version:
        from ule_datasets.version import __version__

        print(__version__)
        return DONE
    if dataset is None:
        raise typer.BadParameter("name a dataset folder")

    from ule_datasets.executor import available_cpus
    from ule_datasets.fetch import find_dataset, is_remote, require_images
    from ule_datasets.manifest import DamagedManifestError, Manifest
    from ule_datasets.progress import Reporter
    from ule_datasets.verify import VerifyOptions, verify

    folder = find_dataset(dataset)
    if is_remote(folder):
        manifest = Manifest.read(folder)
        require_images(folder, manifest, dataset)
        report = report or Path("verification") / manifest.name
    options = VerifyOptions(
        folder=folder,
        profile=profile,
        num_seeds=seeds,
        device=device,
        workers=available_cpus() if workers is None else workers,
        integrity_only=integrity_only,
        source=source,
        report=report,
    )
    try:
        result = verify(options, Reporter(silent=quiet))
    except DamagedManifestError as error:
        print(f"FAILED manifest: {error}")
        return CHECK_FAILED
    print(_summary(result, options.report_folder))
    return DONE if result.passed else CHECK_FAILED


def _summary(report: Report, folder: Path) -> str:
    failed = [check for check in report.checks if not check.passed]
    lines = [
        f"{report.dataset} {report.version}: {len(report.checks) - len(failed)} of {len(report.checks)} checks passed"
    ]
    lines += [f"FAILED {check.name}: {check.detail}" for check in failed]
    if report.effect is not None:
        for judgement in report.effect.judgements:
            result = f"{judgement.poisoned} clean test accuracy, control {judgement.clean}: {judgement.verdict}"
            lines.append(f"{judgement.heading}: {result}")
        lines.append(report.effect.profile.limits)
    if report.effect is not None and not report.effect.as_expected:
        lines.append("FAILED effect: the collapse that the dataset is made for does not show")
    lines.append(f"report: {folder / 'report.html'}")
    return "\n".join(lines)


if __name__ == "__main__":
    console()
