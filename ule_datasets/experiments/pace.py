"""In which numbers this machine trains faster: measured once, and noted."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ule_datasets.base import records
from ule_datasets.base.errors import InputError
from ule_datasets.base.files import make_folder, write_atomically
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.devices import cpu_threads, describe_device
from ule_datasets.compute.precision import Precision
from ule_datasets.experiments.profiles import Profile
from ule_datasets.victims.data import TrainingData
from ule_datasets.victims.table import VICTIMS

WORTH = 1.2
"""Another precision than the first is taken where it is at least so many times as fast: a close race may end either
way, and machines that are alike should train alike."""
HOPELESS = 2
"""One that took so many times as long as the fastest is not timed again."""
_REPEATS, _STEPS, _SIZE = 2, 2, 32


def settled(
    profile: Profile,
    *,
    device: torch.device,
    threads: int,
    notes: Path,
    reporter: Reporter,
    measure: bool = True,
    asked: str | None = None,
) -> Profile:
    """The profile with the precision that its runs here are to have: part of their protocols, and of their identity.

    A profile that names one keeps it. One that leaves it to the machine (``faster_of``) gets what a note says, or else
    what a few steps of its own network on random images say, which are then noted: the same machine, version of torch
    and number of threads have the same precision from then on.

    Args:
        profile: of ``PROFILES``.
        device: where it is trained.
        threads: of torch, for a run on a CPU.
        notes: a folder for what was measured; to measure again, delete the note.
        reporter: is told what was measured.
        measure: if not, and nothing is noted, the profile is left as it is.
        asked: the precision that is to be taken, whatever is faster here.

    Raises:
        InputError: what is asked for is not among those that the profile leaves to the machine.
    """
    if asked is not None:
        allowed = profile.faster_of or (profile.precision,)
        if asked not in allowed:
            raise InputError(f"--precision {asked}: profile {profile.name} computes in {' or '.join(allowed)}")
        return replace(profile, precision=Precision(asked))
    if not profile.faster_of:
        return profile
    machine = [describe_device(device), torch.__version__, threads, profile.name, list(profile.faster_of)]
    note = notes / f"{hashlib.sha256(json.dumps(machine).encode()).hexdigest()[:16]}.json"
    seconds = _noted(note, profile)
    if seconds is None:
        if not measure:
            return profile
        reporter.say(f"timing a few steps of profile {profile.name} in {' and '.join(profile.faster_of)}")
        seconds = _measured(profile, device, threads)
        make_folder(notes)
        write_atomically(note, json.dumps({"machine": machine, "seconds": seconds}, indent=1) + "\n")
        told = ", ".join(f"{precision} {value:.2f} s" for precision, value in seconds.items())
        reporter.say(f"profile {profile.name}: {told} for the same steps on {machine[0]}; noted in {note}")
    return replace(profile, precision=_chosen(seconds, profile.faster_of))


def _chosen(seconds: dict[str, float], allowed: tuple[Precision, ...]) -> Precision:
    """The first that is allowed, unless another one is clearly faster."""
    fastest = min(allowed, key=lambda precision: seconds[precision])
    return fastest if seconds[allowed[0]] >= WORTH * seconds[fastest] else allowed[0]


def _noted(note: Path, profile: Profile) -> dict[str, float] | None:
    """Seconds by precision as they were noted; ``None``: not, or not so that one could read it."""
    try:
        seconds = records.read(_Note, note).seconds
        return {precision: seconds[precision] for precision in profile.faster_of}
    except (OSError, KeyError, InputError):
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Note:
    """What was measured."""

    seconds: dict[str, float]


def _measured(profile: Profile, device: torch.device, threads: int) -> dict[str, float]:
    """Seconds of a short run in each precision, in turn; of each the fastest, which others disturbed least.

    One that is hopelessly slow is not timed again: where a CPU only emulates a type, that takes minutes.
    """
    model = profile.trained_for("resnet18") or "resnet18"
    seconds: dict[str, list[float]] = {precision: [] for precision in profile.faster_of}
    for _ in range(_REPEATS):
        for precision in profile.faster_of:
            fastest = min(map(min, filter(None, seconds.values())), default=math.inf)
            if min(seconds[precision], default=0) > HOPELESS * fastest:
                continue
            protocol = replace(profile, precision=precision).protocol(model, "standard", flippable=True)
            data = _made_up(_STEPS * protocol.batch_size)
            with cpu_threads(threads):
                taken = VICTIMS[model].seconds(data, replace(protocol, epochs=1), device=device)
            seconds[precision].append(taken)
    return {precision: min(values) for precision, values in seconds.items()}


def _made_up(count: int) -> TrainingData:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, _SIZE, _SIZE, 3), dtype=np.uint8)
    labels = random.integers(0, 10, count)
    return TrainingData(images=images, labels=labels, test_images=images, test_labels=labels, num_classes=10)
