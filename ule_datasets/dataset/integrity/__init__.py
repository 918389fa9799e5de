"""Is a dataset folder what its manifest says, and did only happen to the source what the perturbation says?

What each part proves, and what nobody can know without the clean source: docs/security.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.executor import Executor
from ule_datasets.dataset.integrity.check import Check as Check
from ule_datasets.dataset.integrity.content import BuiltSplit, check_content
from ule_datasets.dataset.integrity.description import Folder, check_descriptions, check_name, open_dataset
from ule_datasets.dataset.integrity.files import check_files
from ule_datasets.dataset.integrity.source import check_against_source, check_without_source
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.definition import PublishedRecipe, Recipe
from ule_datasets.sources.reading import Source

FindSource = Callable[[PublishedRecipe, bool], Source | None]
"""Gives the clean source of a dataset, or ``None`` to do without; is told whether all checks so far have passed."""


class DamagedDatasetError(InputError):
    """A dataset that is not what its manifest says, or whose descriptions contradict each other."""


@dataclass(frozen=True, eq=False, slots=True)
class Examined:
    """What checking a dataset folder gave."""

    checks: list[Check]
    folder: Folder | None
    """``None``: recipe or perturbation are not what the manifest says."""
    splits: dict[str, BuiltSplit]
    """Those whose shards could be read."""
    source: Source | None
    """What it was compared with."""

    @property
    def intact(self) -> bool:
        """Whether every check has passed."""
        return all(check.passed for check in self.checks)


def examine(
    root: Path,
    manifest: Manifest,
    executor: Executor,
    reporter: Reporter,
    *,
    find_source: FindSource = lambda *_: None,
    catalogue: Mapping[str, Recipe] | None = None,
    spool: Path | None = None,
) -> Examined:
    """Check a dataset folder: its files, descriptions and samples, and these against the source where there is one.

    Without ``catalogue`` a name is not compared with it. With ``spool``, a folder that all workers see, decoded pixels
    stand there instead of in memory. Every check is told to ``reporter`` as it is made.
    """
    checks = _said(check_files(root, manifest, executor), reporter)
    folder, more = open_dataset(root, manifest)
    checks += _said(more, reporter)
    if folder is None:
        return Examined(checks, None, {}, None)
    if catalogue is not None:
        checks += _said([check_name(manifest, folder.recipe, catalogue)], reporter)
    checks += _said(check_descriptions(folder), reporter)
    splits, more = check_content(folder, executor, reporter, spool)
    checks += _said(more, reporter)
    source = find_source(folder.recipe, all(check.passed for check in checks))
    if source is None:
        checks += _said(check_without_source(folder, splits, executor), reporter)
    else:
        checks += _said(check_against_source(folder, splits, source, executor), reporter)
    return Examined(checks, folder, splits, source)


def require_intact(root: Path, manifest: Manifest, executor: Executor) -> None:
    """Check a dataset folder without its source.

    Raises:
        DamagedDatasetError: any check fails; names the first.
    """
    failed = [check for check in examine(root, manifest, executor, Reporter(silent=True)).checks if not check.passed]
    if failed:
        more = f" (and {len(failed) - 1} more checks fail)" if failed[1:] else ""
        raise DamagedDatasetError(f"{root} is damaged: {failed[0].name}: {failed[0].detail}{more}")


def _said(checks: list[Check], reporter: Reporter) -> list[Check]:
    """Show the checks as they are made."""
    for check in checks:
        reporter.say(f"{'ok    ' if check.passed else 'FAILED'} {check.name}: {check.detail}")
    return checks
