"""What this project lacks to run a claim: said of every claim at once, before anything is imported that trains."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ule_datasets.base.choices import RANDOM_MODELS, TRAINED_MODELS
from ule_datasets.base.errors import InputError
from ule_datasets.countermeasures import alternatives, parse_strategy
from ule_datasets.papers.claims import Claim, Regime

_MODELS = frozenset((*RANDOM_MODELS, *TRAINED_MODELS))


def lacking(claim: Claim, datasets: Collection[str]) -> tuple[str, ...]:
    """Everything that a claim speaks of and that is not here, e.g. ``("model simclr-resnet18", "strategy advcl")``.

    Args:
        claim: of a paper, or the user's own.
        datasets: names of all that can be made, protected or not.

    Returns:
        Empty: given the images (and time) that it needs, it can be run.
    """
    return tuple(_lacking(claim, datasets))


def _lacking(claim: Claim, datasets: Collection[str]) -> Iterator[str]:
    if claim.regime is not Regime.COST and claim.model not in _MODELS:
        yield f"model {claim.model}"
    if claim.regime is Regime.SIZE:
        return
    if claim.regime is not Regime.COST:
        for slug in alternatives(claim.strategy):
            try:
                parse_strategy(slug)
            except InputError:
                yield f"strategy {slug}"
        if claim.variant:
            yield f"variant {claim.variant}"
    if claim.train_dataset not in datasets:
        yield f"dataset {claim.train_dataset}"
