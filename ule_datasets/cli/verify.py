"""``ule-verify``: check a dataset, and what training on it does."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ule_datasets.base.options import VERIFICATION, VerifyOptions, option
from ule_datasets.cli.arguments import argument, takes
from ule_datasets.cli.running import CHECK_FAILED, DONE, run, show_version, table, tell

if TYPE_CHECKING:
    from ule_datasets.verification.report.content import Report

COMMAND = "ule-verify"
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(COMMAND, lambda arguments: app(arguments, prog_name=COMMAND, standalone_mode=False) or DONE, argv)


@dataclass(frozen=True, kw_only=True)
class VerifyArguments(VerifyOptions):
    """What stands on the command line."""

    datasets: list[str] | None = argument(
        "[FOLDER|NAME|REPO]...",
        "Dataset folders, names of those in ./datasets, or OWNER/NAME[@REVISION] on the Hub. With --claims "
        "it may be left out: then what the claims speak of is taken from ./datasets or made in memory.",
    )
    quiet: bool = option("No progress, only the result.", default=False)
    debug: bool = option("Show tracebacks.", default=False)
    version: bool = option("Show the version and stop.", default=False)
    list_claims: bool = option("List the papers' claims (those of --claims), and stop.", default=False, after="claims")


@app.command()
@takes(VerifyArguments)
def verify_command(given: VerifyArguments) -> int:
    """Prove that datasets are what they say, train on them and on their clean controls, and judge what papers report.

    Finished runs are kept in the cache folder: the same command continues where it stopped.
    Exit codes: 0 done; 1 a check failed or a claim was refuted; 2 wrong usage or bad input; 130 interrupted, by SIGTERM
    143.
    """
    if given.version:
        return show_version()
    if given.list_claims:
        return _list_claims(given.claims, given.claims_file)
    if not given.datasets and given.claims is None:
        raise typer.BadParameter("name a dataset folder, or claims with --claims")

    from builders import RECIPES
    from ule_datasets.base.progress import Reporter
    from ule_datasets.dataset.manifest import DamagedManifestError
    from ule_datasets.verify import verify

    options = _with_folders(given)
    try:
        result = verify(options, RECIPES, Reporter(silent=given.quiet and not given.dry_run))
    except DamagedManifestError as error:
        tell(f"FAILED manifest: {error}")
        return CHECK_FAILED
    if result is None:
        return DONE
    tell(*_summary(result, options.report_folder))
    return DONE if result.passed else CHECK_FAILED


def _with_folders(given: VerifyArguments) -> VerifyOptions:
    from ule_datasets.dataset.manifest import Manifest

    found = [_find(dataset) for dataset in given.datasets or []]
    report = given.report
    if report is None and len(found) == 1 and found[0][1]:
        report = Path(VERIFICATION) / Manifest.read(found[0][0]).name
    return replace(given, folders=tuple(folder for folder, _ in found), report=report)


def _find(dataset: str) -> tuple[Path, bool]:
    """A dataset's folder, and whether it is the Hub's cache."""
    from ule_datasets.dataset.fetching import find_dataset, in_hub_cache, require_images
    from ule_datasets.dataset.manifest import Manifest

    folder = find_dataset(dataset)
    remote = in_hub_cache(folder)
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
    if claims:
        tell(*table(rows))
    for statement in statements:
        tell(f"{statement.id}: {statement.statement}")
    return DONE


def _summary(report: Report, folder: Path) -> list[str]:
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
    return lines


if __name__ == "__main__":
    from ule_datasets.cli import start

    start.verify()
