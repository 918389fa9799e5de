"""``ule-verify``: check a dataset, and what training on it does."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ule_datasets.cli import CHECK_FAILED, DONE, run, show_version
from ule_datasets.cli.arguments import argument, flag, option, takes

if TYPE_CHECKING:
    from ule_datasets.verification.report.content import Report
    from ule_datasets.verify import VerifyOptions

COMMAND = "ule-verify"
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(COMMAND, lambda arguments: app(arguments, prog_name=COMMAND, standalone_mode=False) or DONE, argv)


def console() -> None:
    """Console script."""
    sys.exit(main())


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyArguments:
    """What stands on the command line; what to verify, where and how."""

    datasets: list[str] | None = argument(
        "[FOLDER|NAME|REPO]...",
        "Dataset folders, names of those in ./datasets, or OWNER/NAME[@REVISION] on the Hub. With --claims "
        "it may be left out: then what the claims speak of is taken from ./datasets or made in memory.",
    )
    profile: str = option(
        "How much is trained: smoke (minutes on two CPU cores, shows a collapse), fast (a GPU, judges "
        "effects), paper (the printed protocol, judges numbers).",
        default="smoke",
    )
    claims: str | None = option("Run what these claims need, e.g. 'ops-t5-*'; several joined by commas.", "GLOB")
    list_claims: bool = flag("--list-claims", "List the papers' claims (those of --claims), and stop.")
    claims_file: Path | None = option("A TOML file with claims of your own, besides the papers'.", "FILE")
    models: str | None = option(
        "Models to train on every dataset. ARCHITECTURE@DATA (e.g. resnet20@cifar10, "
        "resnet18@imagenet) starts from trained weights, as in BAIT. Default: resnet18's part.",
        "A,B",
    )
    strategies: str | None = option("Training strategies, e.g. standard,mixup,linf-at. Default: the profile's.", "A,B")
    analyses: str | None = option(
        "shuffled, landscape, finetune (claims bring their own); relabelled: with classes put into groups.", "A,B"
    )
    seeds: int | None = option("Runs of each kind. Default: the profile's.", "N")
    device: str = option("Where to train.", "auto|cpu|cuda[:i]", default="auto")
    workers: int | None = option("Runs at a time. Default: one per CPU; on a GPU one, more share it.")
    executor: str = option("Where runs go: processes here, or a Ray cluster.", "local|ray", default="local")
    gpus_per_run: float = option("With Ray on GPUs: what a run takes, e.g. 0.25.", "SHARE", default=1.0)
    threads: int = option("Of torch, for each run on a CPU.", "N", default=1)
    ranks: int = option("Processes, each on a GPU of its own, that share one run (large models).", "N", default=1)
    compile: bool = flag("--compile", "Train through torch.compile.")
    dry_run: bool = flag("--dry-run", "Say what would be trained, and train nothing.")
    integrity_only: bool = flag("--integrity-only", "Train nothing.")
    source: str | None = option(
        "The clean images, in any form that ule-build takes. Default: where the build took them from, "
        "else the recipe's own source.",
        "WHERE",
    )
    scratch: Path | None = option(
        "Where images are decoded to that are too many for memory. Default: in the cache folder.", "DIR"
    )
    weights: Path | None = option(
        "The weights that models start from, instead of a download; where runs go to other machines, "
        "a place that all of them see. Default: $ULE_WEIGHTS.",
        "FILE|FOLDER",
    )
    report: Path | None = option(
        "Where the report goes. Default: FOLDER/verification; ./verification for several datasets, "
        "./verification/NAME for one from the Hub.",
        "DIR",
    )
    quiet: bool = flag("--quiet", "No progress, only the result.")
    debug: bool = flag("--debug", "Show tracebacks.")
    version: bool = flag("--version", "Show the version and stop.")


@app.command()
@takes(VerifyArguments)
def verify_command(given: VerifyArguments) -> int:
    """Prove that datasets are what they say, train on them and on their clean controls, and judge what papers report.

    Finished runs are kept in the cache folder: the same command continues where it stopped.
    Exit codes: 0 done; 1 a check failed or a claim was refuted; 2 wrong usage or bad input; 130 interrupted.
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

    options = _options(given)
    try:
        result = verify(options, RECIPES, Reporter(silent=given.quiet and not given.dry_run))
    except DamagedManifestError as error:
        print(f"FAILED manifest: {error}")
        return CHECK_FAILED
    if result is None:
        return DONE
    print(_summary(result, options.report_folder))
    return DONE if result.passed else CHECK_FAILED


def _options(given: VerifyArguments) -> VerifyOptions:
    from ule_datasets.dataset.manifest import Manifest
    from ule_datasets.verify import VerifyOptions

    found = [_find(dataset) for dataset in given.datasets or []]
    report = given.report
    if report is None and len(found) == 1 and found[0][1]:
        report = Path("verification") / Manifest.read(found[0][0]).name
    return VerifyOptions(
        folders=tuple(folder for folder, _ in found),
        profile=given.profile,
        claims=given.claims,
        claims_file=given.claims_file,
        models=_words(given.models),
        strategies=_words(given.strategies),
        analyses=_words(given.analyses),
        num_seeds=given.seeds,
        device=given.device,
        workers=given.workers,
        executor=given.executor,
        gpus_per_run=given.gpus_per_run,
        threads=given.threads,
        ranks=given.ranks,
        compiled=given.compile,
        dry_run=given.dry_run,
        integrity_only=given.integrity_only,
        source=given.source,
        weights=given.weights,
        scratch=given.scratch,
        report=report,
    )


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
