"""Times of making a dataset: taken beside the processor and its load, and never worth more than they are."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import pytest
from made_up import make_subject

from ule_datasets.analyses.findings import Findings
from ule_datasets.experiments.profiles import PROFILES
from ule_datasets.experiments.subject import Subject
from ule_datasets.papers.claims import all_claims
from ule_datasets.papers.statistics import Verdict
from ule_datasets.verification import costs
from ule_datasets.verification.costs import TIMINGS, Timing, judge_cost, time_making
from ule_datasets.verification.judging import ClaimResult, judge_claims, what_is_wanted

COST = all_claims()["ops-text-cost-ops"]  # 30 s
SMOKE = PROFILES["smoke"]
OPS = make_subject("ops-cifar10", num_classes=10, remake=lambda: None)


def timed(*seconds: float, share: float = 1.0, load: float | None = 0.3) -> tuple[Timing, ...]:
    return tuple(
        Timing(seconds=each, processor_seconds=share * each, processor="a processor", cores=2, load=load)
        for each in seconds
    )


@pytest.mark.parametrize(
    ("timings", "verdict"),
    [
        (timed(11, 12, 11), Verdict.CONSISTENT),
        (timed(80, 85, 88), Verdict.CONSISTENT),
        (timed(1, 1, 1), Verdict.INCONCLUSIVE),
        (timed(100, 100, 100), Verdict.INCONCLUSIVE),
        (timed(30, 30), Verdict.INCONCLUSIVE),
        (timed(30, 30, 30, share=0.79), Verdict.INCONCLUSIVE),
        (timed(30, 30, 30, share=0.81), Verdict.CONSISTENT),
        ((*timed(30, 30), *timed(30, share=0.5)), Verdict.INCONCLUSIVE),
    ],
)
def test_times_are_at_most_consistent_and_only_undisturbed(timings: Sequence[Timing], verdict: Verdict) -> None:
    level, _ = judge_cost(COST, timings, fingerprint_ok=True)
    assert level.verdict is verdict, level.reason
    changed, _ = judge_cost(COST, timings, fingerprint_ok=False)
    assert changed.verdict is Verdict.NOT_COMPARABLE


def test_a_verdict_on_a_time_tells_of_the_machine() -> None:
    level, conditions = judge_cost(COST, timed(11, 12, 11, share=0.5), fingerprint_ok=True)
    assert level.reason == (
        "11.3 s measured, 30 s printed: 0.377 times; search and perturbed pixels in one process on a processor, 2 "
        "cores, load 0.3 before; capped by undisturbed (50 % of the time on a core, 80 wanted)"
    )
    assert [gate.name for gate in conditions] == ["fingerprint", "undisturbed"]
    assert "2 cores; capped" in judge_cost(COST, timed(30, 30, 30, share=0.5, load=None), fingerprint_ok=True)[0].reason


def test_a_craft_is_timed_three_times_by_the_clock_and_by_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    found = time_making(lambda: made.append(time.sleep(0.02)))
    assert len(made) == len(found) == TIMINGS == 3
    for timing in found:
        assert timing.seconds >= 0.02 > timing.processor_seconds >= 0
        assert timing.load is not None
    monkeypatch.delattr(costs.os, "getloadavg")
    assert time_making(lambda: None)[0].load is None


def told(subject: Subject, **timings: tuple[Timing, ...]) -> ClaimResult:
    by_name = {name.replace("_", "-"): each for name, each in timings.items()}
    (found,) = judge_claims([COST], None, [subject], Findings(), profile=SMOKE, asked=[COST], timings=by_name)
    return found


def test_a_time_is_judged_whatever_the_profile_and_without_any_run() -> None:
    wanted = what_is_wanted([COST], [], [OPS], SMOKE)
    assert (wanted.timed, wanted.cells, wanted.open) == (("ops-cifar10",), (), {})
    found = told(OPS, ops_cifar10=timed(20, 21, 22))
    assert (found.level.verdict, found.measured, found.cell) == (Verdict.CONSISTENT, (20, 21, 22), None)
    assert found.effect.verdict is Verdict.NOT_COMPARABLE
    assert found.verdict is Verdict.CONSISTENT
    assert not found.stand_in
    assert not found.refuted
    assert told(OPS).level.reason == "not asked for: --claims ops-text-cost-ops"


def test_what_takes_long_or_is_another_dataset_is_not_timed() -> None:
    long = dataclasses.replace(OPS, remake=None)
    assert what_is_wanted([COST], [], [long], SMOKE).timed == ()
    assert told(long, ops_cifar10=timed(20, 20, 20)).level.verdict is Verdict.NOT_RUN
    other = dataclasses.replace(OPS, unjudged="another recipe")
    assert told(other, ops_cifar10=timed(20, 20, 20)).level.verdict is Verdict.NOT_COMPARABLE
