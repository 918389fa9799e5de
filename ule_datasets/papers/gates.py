"""The conditions that runs must meet before they say anything about a claim."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ule_datasets.papers.claims import Claim, Regime, all_claims, papers
from ule_datasets.papers.rules import TOLERANCES, Power, is_wide
from ule_datasets.papers.statistics import Judged, Verdict

TRAINING = "training accuracy"
"""The name of the gate that says how far the training data was fitted, and by which rule that is enough."""
FITTED_SHORT = 90.0
"""Training accuracy of shortened schedules on protected data, %: below it, the shortcut was not learned to the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """A condition that runs must meet before they say anything about a claim."""

    name: str
    passed: bool
    """If not, the runs are not comparable."""
    detail: str
    """What was found, and what is wanted."""
    caps: bool = False
    """The level verdict can at most be inconclusive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """How far one run fitted its own training data."""

    accuracies: tuple[float, ...]
    """Training accuracy (percent) of every epoch that was trained, at least one."""
    epochs: int
    """Of its whole schedule."""

    @property
    def last(self) -> float:
        """Of the last epoch."""
        return self.accuracies[-1]

    @property
    def whole(self) -> bool:
        """Whether the schedule was trained to its end."""
        return len(self.accuracies) >= self.epochs

    def flat(self, epochs: int, within: float) -> bool:
        """Whether no one of so many last epochs lies further than ``within`` from their mean; not so of fewer."""
        last = self.accuracies[-epochs:]
        return len(last) == epochs and all(abs(each - statistics.fmean(last)) <= within for each in last)


def gates(
    claim: Claim,
    *,
    training: Sequence[Trained],
    control_training: Sequence[Trained] | None,
    control_values: Sequence[float] | None,
    finite: bool,
    num_parameters: int,
    expected_parameters: int | None,
    fingerprint_ok: bool,
    power: Power,
) -> tuple[Gate, ...]:
    """The conditions of a claim, each with what was found.

    Training accuracy: with full power the claim's ``fitting`` is asked; standard training that falls short fails, any
    other strategy caps the level. A shortened schedule must reach 90 % on protected data under standard training.
    Clean baseline: with full power the control's mean must not lie below the paper's by more than 1.5 points (3 for
    LeNet, adversarial training and other images than CIFAR, 5 for l_2 adversarial training); a better one passes and
    is mentioned. In a shortened profile it caps the level instead, so that effects can still be judged.

    The control is the same model and strategy on clean data: ``control_training`` is ``None`` where the runs are that
    themselves, and empty where it was not trained; ``control_values`` are its clean test accuracies.
    ``fingerprint_ok``: training and test set are the published ones.
    """
    count = Gate(
        name="parameters",
        passed=expected_parameters in (None, num_parameters),
        detail=f"{num_parameters:,} counted, "
        + ("no count to compare with" if expected_parameters is None else f"{expected_parameters:,} wanted"),
    )
    if claim.regime is Regime.SIZE:
        return (count,)
    fingerprint = Gate(
        name="fingerprint",
        passed=fingerprint_ok,
        detail=f"training and test set are {'the published ones' if fingerprint_ok else 'not the published ones'}",
    )
    loss = Gate(name="finite loss", passed=finite, detail=f"every loss was {'' if finite else 'not '}finite")
    found = [fingerprint, count, loss, _training_gate(claim, training, control_training, power)]
    if claim.regime is not Regime.BASELINE:
        found.append(_baseline_gate(claim, control_values, power))
    return tuple(found)


def power_for(claim: Claim, power: Power, protocol: Mapping[str, Any]) -> tuple[Power, str]:
    """What runs of a protocol may say about a claim's number, and why that is less than their profile allows.

    ``protocol`` is that of the runs as JSON values (``ule_datasets.base.content``).
    """
    if power is not Power.FULL or claim.protocol is None:
        return power, ""
    departures = claim.protocol.departures(protocol)
    if not departures:
        return power, ""
    why = f"at most consistent: the paper's own protocol ({claim.protocol.words}) was not trained, {departures}"
    return Power.CONSISTENCY, why


def after_gates(judged: Judged, gates: Sequence[Gate], *, level: bool) -> Judged:
    """A verdict as the gates leave it.

    A failed gate makes it *not comparable*; a gate that caps makes a verdict on the level (``level``) inconclusive
    and leaves one on the effect as it is. What was not run stays so.
    """
    if judged.verdict in (Verdict.NOT_RUN, Verdict.NOT_COMPARABLE):
        return judged
    failed = [f"{gate.name} ({gate.detail})" for gate in gates if not gate.passed]
    if failed:
        return Judged(Verdict.NOT_COMPARABLE, f"failed: {'; '.join(failed)}; otherwise: {judged.reason}")
    capped = [f"{gate.name} ({gate.detail})" for gate in gates if gate.caps]
    if level and capped:
        return Judged(Verdict.INCONCLUSIVE, f"{judged.reason}; capped by {'; '.join(capped)}")
    return judged


def printed_baseline(claim: Claim) -> float | None:
    """The clean value that a control of the claim can be compared with, or ``None`` if its paper prints none.

    It is ``clean_reference``, but in the catalogue's papers only where the paper prints it for this very model and
    strategy: elsewhere that field falls back on standard training, or on another model.
    """
    if claim.paper not in papers():
        return claim.clean_reference
    wanted = (claim.paper, Regime.BASELINE, claim.test_dataset, claim.model, claim.strategy)
    printed = {
        other.value
        for other in all_claims().values()
        if (other.paper, other.regime, other.test_dataset, other.model, other.strategy) == wanted
    }
    return claim.clean_reference if claim.clean_reference in printed else None


def _training_gate(claim: Claim, runs: Sequence[Trained], control: Sequence[Trained] | None, power: Power) -> Gate:
    name = TRAINING
    if not runs:
        return Gate(name=name, passed=False, detail="not recorded")
    standard, lowest = claim.strategy == "standard", min(run.last for run in runs)
    reached = f"{lowest:.2f} at the last epoch"
    if power is Power.FULL:
        fits, rule = _fitted(claim, runs, control)
        return Gate(name=name, passed=fits or not standard, detail=f"{reached}, {rule}", caps=not fits)
    if standard and claim.regime is not Regime.BASELINE:
        detail = f"{reached}, {FITTED_SHORT:g} wanted after a shortened schedule"
        return Gate(name=name, passed=lowest >= FITTED_SHORT, detail=detail)
    return Gate(name=name, passed=True, detail=f"{reached}, nothing wanted")


def _fitted(claim: Claim, runs: Sequence[Trained], control: Sequence[Trained] | None) -> tuple[bool, str]:
    """Whether runs of full length fitted their data as the claim's ``fitting`` asks; and by which of its rules."""
    wanted = claim.fitting
    asked, least = f"{wanted.least:g} wanted", wanted.least
    if all(run.last >= least for run in runs):
        return True, asked
    if control is not None and not control:
        return False, f"{asked}: there is no clean control to show that this network ends lower"
    if control and all(run.last >= least for run in control):
        return False, f"{asked}: the clean control reaches it"
    rules = {
        "the whole schedule": all(run.whole for run in runs),
        f"flat over the last {wanted.flat_epochs} epochs (±{wanted.flat_within:g})": all(
            run.flat(wanted.flat_epochs, wanted.flat_within) for run in runs
        ),
    }
    ends = "on clean data this network ends there"
    if control:
        own, clean = (statistics.fmean(run.last for run in side) for side in (runs, control))
        rules[f"a mean of at least the clean control's ({own:.2f})"] = own >= clean
        ends = f"the clean control ends at {clean:.2f}"
    missed = [rule for rule, held in rules.items() if not held]
    kept = f"missed: {'; '.join(missed)}" if missed else f"kept: {'; '.join(rules)}"
    return not missed, f"{least:g} not wanted because {ends}; {kept}"


def _baseline_gate(claim: Claim, control: Sequence[float] | None, power: Power) -> Gate:
    name, printed = "clean baseline", printed_baseline(claim)
    if printed is None:
        return Gate(name=name, passed=True, detail="the paper prints none for this model and strategy")
    if not power.judges_numbers:
        return Gate(name=name, passed=True, detail="not compared: the profile says nothing about a printed number")
    full = power is Power.FULL
    if not control:
        return Gate(name=name, passed=not full, detail=f"not run; {printed:g} printed", caps=True)
    mean, tolerance = statistics.fmean(control), _baseline_tolerance(claim)
    detail = f"{mean:.2f} measured, {printed:g} printed, tolerance {tolerance:g}"
    if mean > printed + tolerance:
        return Gate(name=name, passed=True, detail=f"{detail}: better than the paper's")
    close = mean >= printed - tolerance  # false for NaN
    return Gate(name=name, passed=close or not full, detail=detail, caps=not close)


def _baseline_tolerance(claim: Claim) -> float:
    if any(part.startswith("l2-at") for part in claim.strategy.split("+")):
        return 5.0
    return TOLERANCES["baseline, wide" if is_wide(claim) else "baseline"].delta
