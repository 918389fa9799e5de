"""What a verification report tells: what was checked, measured and left open, as data and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import torch

from ule_datasets.analyses.findings import Findings
from ule_datasets.base.shown import counted
from ule_datasets.base.version import __version__
from ule_datasets.compute.devices import cpu_model, describe_device
from ule_datasets.dataset.integrity import Check
from ule_datasets.experiments.effect import Collapse, Comparison
from ule_datasets.experiments.grid import GridResult, LostRun, Run
from ule_datasets.experiments.profiles import Profile
from ule_datasets.packaging.figures.sheet import Sheet
from ule_datasets.verification.judging import ClaimResult, StatementResult
from ule_datasets.verification.separability import Separability
from ule_datasets.victims.strategy import Strategy
from ule_datasets.victims.table import starts_trained

SCHEMA = "ule-datasets report 2"
HOOKS = {
    **{"prepare": "prepare", "on_levels": "on_levels", "on_bytes": "on_bytes", "on_floats": "on_floats"},
    **{"attack": "attack", "mixing": "mix"},
}
"""What report.json calls the parts of a strategy, by what they do."""
LATER = ("prepare", "on_levels")
"""Those that came later: they are told where there is something to tell."""
CLAIMS_TOLD = 5
"""So many claims have a line each in what is told in short."""
EPOCHS_SHOWN = (1, 2, 5, 10, 20, 50)
"""After which the accuracy of a run is told, besides the last and the best epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetPart:
    """What a report tells about one dataset besides results."""

    name: str
    version: str
    title: str
    reduced: str | None
    """What is smaller than in the paper."""
    recipe_digest: str
    perturbation_digest: str
    manifest_digest: str | None
    """``None``: it was made in memory, exactly as the recipe says."""
    checks: tuple[Check, ...]
    unjudged: str
    """Why its results are not compared with a paper's; empty: they are, or nothing was trained."""

    @property
    def intact(self) -> bool:
        """Whether every integrity check passed."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True, kw_only=True, slots=True)
class Learned:
    """What a part of a strategy has learned of a training set, as a picture."""

    dataset: str
    strategy: str
    caption: str
    sheet: Sheet


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Report:
    """Everything that a report tells; as text it is what ``ule-verify`` prints."""

    datasets: tuple[DatasetPart, ...]
    profile: Profile
    result: GridResult | None
    """``None``: only the integrity was checked."""
    claims: tuple[ClaimResult, ...]
    statements: tuple[StatementResult, ...]
    findings: Findings
    separability: Mapping[str, Separability | None]
    """By dataset; ``None``: its perturbation changes images of fewer than two classes."""
    collapse_expected: Mapping[str, bool]
    """By dataset: whether it is supposed to collapse under at least one strategy."""
    environment: dict[str, str]
    command: str
    date: str
    cluster_separability: Mapping[str, Separability] = field(default_factory=dict)
    """By dataset whose perturbation has clusters."""
    weights: tuple[Mapping[str, str], ...] = ()
    """Provenance of the trained weights that models started from (``WeightsFile.provenance``)."""

    pictures: Mapping[str, Sheet] = field(default_factory=dict)
    """By dataset: some of its images, clean and protected."""
    learned: tuple[Learned, ...] = ()
    """By training set and strategy."""
    beside: frozenset[str] = frozenset()
    """Ids of claims and statements, and names of analyses, that nobody asked for."""

    @property
    def intact(self) -> bool:
        """Whether every integrity check passed."""
        return all(part.intact for part in self.datasets)

    @property
    def refuted(self) -> tuple[str, ...]:
        """Ids of claims and statements that were refuted, with the models and datasets that they speak of."""
        claims = [result.claim.id for result in self.claims if result.refuted]
        return (*claims, *(result.statement.id for result in self.statements if result.refuted))

    @property
    def unexpected(self) -> tuple[str, ...]:
        """Datasets whose collapse was expected and showed under no strategy, not even in part, though it could.

        Only where all strategies were tried that the profile usually tries, and only with models that started from
        random weights: most datasets are not made against others.
        """
        found = []
        for name, expected in self.collapse_expected.items():
            own = [c for c in self.comparisons if c.dataset == name and not starts_trained(c.model)]
            seen, tried = {c.collapse for c in own}, {c.strategy for c in own}
            if not tried >= set(self.profile.strategies):
                continue
            if expected and Collapse.NOT_SHOWN in seen and not seen & {Collapse.SHOWN, Collapse.PARTIAL}:
                found.append(name)
        return tuple(found)

    @property
    def unjudged(self) -> set[str]:
        """Why results of some datasets are not compared with a paper's."""
        return {part.unjudged for part in self.datasets} - {""}

    @property
    def lost(self) -> tuple[LostRun, ...]:
        """Runs that are missing because their workers died."""
        return () if self.result is None else self.result.lost

    @property
    def passed(self) -> bool:
        """Whether every check passed, nothing was refuted, every run ended, and expected collapses are there."""
        return self.intact and not self.refuted and not self.unexpected and not self.lost

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every dataset beside its control, by model and strategy."""
        return () if self.result is None else self.result.comparisons

    def lines(self) -> list[str]:
        """What it says in short: checks, effects, verdicts, and what went wrong."""
        lines = []
        for part in self.datasets:
            passed = [check for check in part.checks if check.passed]
            of_all = f"{len(passed)} of {counted(len(part.checks), 'check')} passed"
            lines.append(f"{part.name} {part.version}: {of_all if part.checks else 'made in memory'}")
            lines += [f"FAILED {check.name}: {check.detail}" for check in part.checks if not check.passed]
            if part.unjudged and not any(one.dataset == part.name for one in self.comparisons):
                lines.append(f"{part.name}: nothing was trained: {part.unjudged}")
        for one in self.comparisons:
            notes = f" ({'; '.join(one.notes)})" if one.collapse is Collapse.INCONCLUSIVE else ""
            lines.append(
                f"{one.dataset}, {one.model}, {one.strategy}: {one.poisoned.percent} clean test accuracy, "
                f"control {one.clean.percent}: {one.collapse}{notes}"
            )
        for name in self.unexpected:
            lines.append(f"FAILED effect: the collapse that {name} is made for does not show")
        lines += _claim_lines(self.claims)
        lines += [f"{result.statement.id}: {result.judged.verdict}" for result in self.statements]
        lines += [f"REFUTED {name}" for name in self.refuted]
        lines += [f"LOST {run.cell}, seed {run.seed}: {run.reason}" for run in self.lost]
        return lines if self.result is None else [*lines, self.profile.limits]

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def to_json(self) -> str:
        """Indented JSON with everything, including what was derived from the runs."""
        content = {
            "schema": SCHEMA,
            "command": self.command,
            "date": self.date,
            "environment": self.environment,
            "profile": self.profile,
            "intact": self.intact,
            "passed": self.passed,
            "refuted": self.refuted,
            "unexpected": self.unexpected,
            "datasets": [{**_fields(part), "intact": part.intact} for part in self.datasets],
            "separability": self.separability,
            "cluster_separability": self.cluster_separability,
            "weights": self.weights,
            "comparisons": [_comparison_content(comparison, self) for comparison in self.comparisons],
            "claims": [
                {
                    "id": result.claim.id,
                    "verdict": result.verdict,
                    "stand_in": result.stand_in,
                    "reported": result.claim.value,
                    **_fields(result),
                }
                for result in self.claims
            ],
            "statements": self.statements,
            "analyses": self.findings.content,
            "runs": [] if self.result is None else [_run_content(run) for run in self.result.runs],
            "lost": self.lost,
        }
        return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _claim_lines(results: Sequence[ClaimResult]) -> list[str]:
    """A line for each claim, where they are few, with the reason of what is open; else one that counts them."""
    if len(results) <= CLAIMS_TOLD:
        reasons = [f" ({one.reason})" if one.reason else "" for one in results]
        return [f"claim {one.claim.id}: {one.verdict}{reason}" for one, reason in zip(results, reasons, strict=True)]
    verdicts = Counter(one.verdict for one in results)
    return ["claims: " + ", ".join(f"{number} {verdict}" for verdict, number in verdicts.most_common())]


def describe_environment(device: torch.device) -> dict[str, str]:
    """Hardware, system and versions that results depend on; no host name, user or path."""
    return {
        "device": describe_device(device),
        "processor": cpu_model(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "ule-datasets": __version__,
        "torch": torch.__version__,
        **({"cuda": str(torch.version.cuda)} if device.type == "cuda" else {}),
        **{name: metadata.version(name) for name in ("numpy", "pillow", "pyarrow")},
    }


def strategy_words(strategy: str) -> str:
    """A strategy's slug as a heading."""
    return "no augmentation" if strategy == "none" else strategy


def _comparison_content(comparison: Comparison, report: Report) -> dict[str, Any]:
    assert report.result is not None
    percentages = {
        name: {"mean": summary.mean, "sd": summary.sd, "values": summary.values}
        for name in ("clean", "poisoned", "poisoned_best", "poisoned_train")
        for summary in (getattr(comparison, name),)
    }
    return {
        **_fields(comparison),
        **percentages,
        "fully_fitted": comparison.fully_fitted,
        "seeds": report.result.seeds,
        "num_train": report.result.num_train[comparison.dataset],
        "num_test": report.result.num_test[comparison.dataset],
    }


def _run_content(run: Run) -> dict[str, Any]:
    history = run.history
    accuracy = {tested.epoch: tested.accuracy for tested in history.tested}
    fitted = history.fitted()
    return {
        **_fields(run.cell),
        "reused": run.reused,
        "identity": run.identity,
        "finite": history.finite,
        "last_epoch": {"epoch": history.last.epoch, "test_accuracy": history.test_accuracy},
        "last_five": history.last_five,
        "best_epoch": {"epoch": history.best.epoch, "test_accuracy": history.best.accuracy},
        "after_epoch": {str(epoch): accuracy[epoch] for epoch in EPOCHS_SHOWN if epoch in accuracy},
        "first_fitted_epoch": None if fitted is None else fitted.epoch,
        **_fields(history),
    }


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, after its kind if it is one of several; a strategy's parts by what they do.

    One of which not every field means something says itself what is told of it (``told``).
    """
    if hasattr(value, "told"):
        return dict(value.told())
    found = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Strategy):
        del found["parts"]
        for key, hook in HOOKS.items():
            parts = value.having(hook)
            if parts or hook not in LATER:
                found[key] = parts if len(parts) > 1 else next(iter(parts), None)
    return {"kind": value.kind, **found} if hasattr(value, "kind") else found


def _plain(content: Any) -> Any:
    """JSON values; there is no NaN among them: ``None`` in its place."""
    if dataclasses.is_dataclass(content):
        content = _fields(content)
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple | set | frozenset):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
