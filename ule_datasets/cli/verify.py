"""``ule-verify``: check a dataset, and what training on it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ule_datasets.base.errors import InputError
from ule_datasets.base.options import CommandOptions, VerifyOptions, option
from ule_datasets.base.shown import counted
from ule_datasets.cli.arguments import application, argument, words
from ule_datasets.cli.running import CHECK_FAILED, DONE, Answer, run, table, version

if TYPE_CHECKING:
    from ule_datasets.base.progress import Reporter
    from ule_datasets.verification.report.content import Report

COMMAND = "ule-verify"


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(COMMAND, lambda arguments: app(arguments, prog_name=COMMAND, standalone_mode=False), argv)


def _datasets() -> Sequence[str]:
    """What a shell may complete a dataset with: those in ./datasets."""
    return sorted(path.parent.name for path in Path("datasets").glob("*/manifest.json"))


@dataclass(frozen=True, kw_only=True)
class VerifyArguments(CommandOptions, VerifyOptions):
    """What stands on the command line."""

    datasets: list[str] | None = argument(
        "FOLDER|NAME|REPO",
        "Dataset folders, names of those in ./datasets, or OWNER/NAME (with @REVISION, if need be) on the Hub. With "
        "--claims it may be left out: then what the claims speak of is taken from ./datasets or made in memory. "
        "With --list patterns of claims.",
        _datasets,
    )
    lint: Path | None = option(
        "Check what others have released, a file or a folder of images: bound, signs, copies, labels, order, rounding; "
        "with --source against the clean images. A recipe beside it may state what the file does not say.",
        "FILE|FOLDER",
        rank=0,
    )
    dry_run: bool = option(
        "Say what would be trained, and how long that may take; check and train nothing.", default=False, rank=0
    )
    list_: bool = option(
        "List the papers' claims, or those of --claims, and stop.", default=False, formerly=("--list-claims",), rank=0
    )


def verify_command(given: VerifyArguments) -> Answer:
    """Prove that datasets are what they say, train on them and on their clean controls, and judge what papers report.

    Finished runs are kept in the cache folder: the same command continues where it stopped.

    Exit codes: 0 done; 1 a check failed or a claim was refuted; 2 wrong usage or bad input; 130 interrupted, by SIGTERM
    143.
    """
    if given.version:
        return version()
    if given.list_:
        return _listed((*given.claims, *words(given.datasets or ())), given.claims_file)
    if given.lint is not None:
        return _linted(given.lint, given)
    if not given.datasets and not given.claims:
        raise InputError("name a dataset folder, or claims with --claims")

    from builders import RECIPES
    from ule_datasets.base.progress import Reporter
    from ule_datasets.dataset.manifest import DamagedManifestError
    from ule_datasets.verifying import plan_verification, verify

    options, reporter = _with_folders(given), Reporter(silent=given.quiet)
    try:
        if given.dry_run:
            plan = plan_verification(options, RECIPES, reporter)
            return Answer(lines=plan.lines(), content={"planned": True, **dataclasses.asdict(plan)})
        result = verify(options, RECIPES, reporter)
    except DamagedManifestError as error:
        return Answer(lines=[f"FAILED manifest: {error}"], content={"failed": str(error)}, code=CHECK_FAILED)
    return Answer(
        lines=[*result.lines(), f"report: {options.report_folder / 'report.html'}"],
        content=_content(result, options.report_folder, reporter),
        code=DONE if result.passed else CHECK_FAILED,
    )


app = application(VerifyArguments, verify_command)


def _with_folders(given: VerifyArguments) -> VerifyOptions:
    from ule_datasets.interface.verifying import found_folders

    folders, report = found_folders(given.datasets or (), given.report)
    return replace(given, folders=folders, report=report)


def _linted(path: Path, given: VerifyArguments) -> Answer:
    """What is wrong with a release, by itself or for the images of a recipe that imports it."""
    from ule_datasets.base.progress import Reporter
    from ule_datasets.imports.reading import NOTHING
    from ule_datasets.interface.recipes import find_recipe
    from ule_datasets.sources.own_images import OWN_IMAGES
    from ule_datasets.verification.linting import lint_release

    if len(given.datasets or ()) > 1 or given.claims or given.dry_run:
        raise InputError("--lint checks one release; beside it there may be one recipe that imports it")
    spec, stated = OWN_IMAGES, NOTHING
    for name in given.datasets or ():
        recipe = find_recipe(name)
        spec = recipe.source
        stated = next((s for method in recipe.methods if (s := getattr(method, "stated", None)) is not None), NOTHING)
    found = lint_release(path, given, Reporter(silent=given.quiet), spec=spec, stated=stated)
    return Answer(lines=found.lines(), content=found.content(), code=DONE if found.passed else CHECK_FAILED)


def _listed(patterns: Sequence[str], claims_file: Path | None) -> Answer:
    from ule_datasets.interface.claims import listed_claims

    claims, statements = listed_claims(patterns, claims_file)
    rows = [("claim", "trained on", "model", "strategy", "reported", "kind", "waits for")]
    for claim, missing in claims.items():
        told = (claim.train_dataset, claim.model, claim.strategy, claim.printed, str(claim.regime))
        rows.append((claim.id, *told, ", ".join(missing)))
    able = f"{list(claims.values()).count(())} of {counted(len(claims), 'claim')} can be run"
    if any(claims.values()):
        able += "; the others wait for what is not here yet"
    return Answer(
        lines=[*((*table(rows), able) if claims else ()), *(f"{one.id}: {one.statement}" for one in statements)],
        content={
            "claims": [{**dataclasses.asdict(claim), "waits_for": missing} for claim, missing in claims.items()],
            "statements": [dataclasses.asdict(statement) for statement in statements],
        },
    )


def _content(report: Report, folder: Path, reporter: Reporter) -> dict[str, Any]:
    """What ``--json`` tells of a verification: what its lines say; everything is in report.json."""
    return {
        "planned": False,
        "passed": report.passed,
        "intact": report.intact,
        "datasets": [
            {
                "name": part.name,
                "version": part.version,
                "reduced": part.reduced,
                "recipe_digest": part.recipe_digest,
                "perturbation_digest": part.perturbation_digest,
                "intact": part.intact,
                "unjudged": part.unjudged,
                "checks": [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in part.checks],
            }
            for part in report.datasets
        ],
        "comparisons": [
            {
                "dataset": one.dataset,
                "control": one.control,
                "model": one.model,
                "strategy": one.strategy,
                "poisoned": {"mean": one.poisoned.mean, "sd": one.poisoned.sd, "runs": one.poisoned.n},
                "clean": {"mean": one.clean.mean, "sd": one.clean.sd, "runs": one.clean.n},
                "collapse": str(one.collapse),
            }
            for one in report.comparisons
        ],
        "claims": [{"id": c.claim.id, "verdict": str(c.verdict), "reason": c.reason} for c in report.claims],
        "statements": [{"id": one.statement.id, "verdict": str(one.judged.verdict)} for one in report.statements],
        "refuted": list(report.refuted),
        "unexpected": list(report.unexpected),
        "lost": [{"run": str(run.cell), "seed": run.seed, "reason": run.reason} for run in report.lost],
        "limits": "" if report.result is None else report.profile.limits,
        "warnings": reporter.warnings,
        "report": str(folder / "report.json"),
    }


if __name__ == "__main__":
    from ule_datasets.cli import start

    start.verify()
