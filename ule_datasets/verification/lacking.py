"""What this project lacks to run a claim: said of every claim at once, before anything is imported that trains."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ule_datasets.base.choices import RANDOM_MODELS, TRAINED_MODELS
from ule_datasets.base.errors import InputError
from ule_datasets.base.names import unknown
from ule_datasets.countermeasures import alternatives, parse_strategy
from ule_datasets.papers.claims import Claim, Regime

_MODELS = (*RANDOM_MODELS, *TRAINED_MODELS)


def lacking(claim: Claim, datasets: Collection[str]) -> tuple[str, ...]:
    """Everything that a claim speaks of and that is not here, e.g. ``("model simclr-resnet18", "strategy advcl")``.

    Args:
        claim: of a paper, or the user's own.
        datasets: names of all that can be made, protected or not.

    Returns:
        Empty: given the images (and time) that it needs, it can be run.
    """
    return tuple(words for words, _ in _lacking(claim, datasets))


def refuse_lacking(claims: Iterable[Claim], datasets: Collection[str]) -> None:
    """Refuse claims of a user's own about models, strategies or datasets that are not here: most likely misspelt ones.

    Papers may speak of what is not here yet.

    Raises:
        InputError: the first claim that does; with names that are like the one that is unknown.
    """
    for claim in claims:
        for _, error in _lacking(claim, datasets):
            if error is not None:
                raise InputError(f"claim {claim.id!r}: {error}") from error


def _lacking(claim: Claim, datasets: Collection[str]) -> Iterator[tuple[str, InputError | None]]:
    """In words, and as the error of whoever meant something that is here; ``None``: nothing was misspelt."""
    if claim.regime is not Regime.COST and claim.model not in _MODELS:
        told = unknown(f"no model {claim.model!r}", claim.model, _MODELS, "ule-verify --help lists all")
        yield f"model {claim.model}", told
    if claim.regime is Regime.SIZE:
        return
    if claim.regime is not Regime.COST:
        for slug in alternatives(claim.strategy):
            try:
                parse_strategy(slug)
            except InputError as error:
                yield f"strategy {slug}", error
        if claim.variant:
            yield f"variant {claim.variant}", None
    if (name := claim.train_dataset) not in datasets:
        others = "ule-build --list shows the catalogue; of others give the folder"
        yield f"dataset {name}", unknown(f"no dataset {name!r}", name, datasets, others)
