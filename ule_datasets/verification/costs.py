"""What making a dataset costs: the time of its craft, beside the processor and how busy that was."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ule_datasets.compute.devices import cpu_model
from ule_datasets.papers.claims import Claim
from ule_datasets.papers.gates import Gate, after_gates
from ule_datasets.papers.rules import TOLERANCES, Power, judge_level
from ule_datasets.papers.statistics import Judged

TIMINGS = TOLERANCES["cost"].seeds
"""How often a craft is timed."""
ON_PROCESSOR = 0.8
"""Share of its time that a craft by one process must have had a core: else others were in its way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """One craft of a dataset in this process: from clean images in memory to perturbed ones in memory."""

    seconds: float
    """By the clock."""
    processor_seconds: float
    """That this process had a core, its threads added up."""
    processor: str
    """Its name."""
    cores: int
    load: float | None
    """Processes that wanted a core in the minute before, on average; ``None``: the system does not tell."""


def time_making(make: Callable[[], object]) -> tuple[Timing, ...]:
    """Time a craft several times, one after the other; the first pays for what is read or compiled once, and counts."""
    return tuple(_time(make) for _ in range(TIMINGS))


def judge_cost(claim: Claim, timings: Sequence[Timing], *, fingerprint_ok: bool) -> tuple[Judged, tuple[Gate, ...]]:
    """What timings say about a printed time, and the conditions that they met.

    No paper here names the processor of its search, and ours is another implementation: so a time is at most consistent
    (``Power.CONSISTENCY``), and never refuted. Timings that waited for a core cap the verdict.
    """
    share = min(each.processor_seconds / each.seconds for each in timings)
    first = timings[0]
    load = "" if first.load is None else f", load {first.load:.1f} before"
    machine = f"{first.processor}, {first.cores} cores{load}"
    conditions = (
        Gate(
            name="fingerprint",
            passed=fingerprint_ok,
            detail=f"the images are {'' if fingerprint_ok else 'not '}the published ones",
        ),
        Gate(
            name="undisturbed",
            passed=True,
            detail=f"{100 * share:.0f} % of the time on a core, {100 * ON_PROCESSOR:.0f} wanted",
            caps=share < ON_PROCESSOR,
        ),
    )
    level = judge_level(claim, [each.seconds for each in timings], power=Power.CONSISTENCY)
    told = Judged(level.verdict, f"{level.reason}; search and perturbed pixels in one process on {machine}")
    return after_gates(told, conditions, level=True), conditions


def _time(make: Callable[[], object]) -> Timing:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    started, on_processor = time.perf_counter(), time.process_time()
    make()
    return Timing(
        seconds=time.perf_counter() - started,
        processor_seconds=time.process_time() - on_processor,
        processor=cpu_model(),
        cores=os.cpu_count() or 1,
        load=load,
    )
