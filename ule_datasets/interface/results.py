"""What was measured on the datasets of the catalogue, as records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cards
from ule_datasets.interface.catalogue import recipes

COLUMNS = (
    *("profile", "model", "strategy", "poisoned", "poisoned_sd", "poisoned_best_epoch", "clean", "clean_sd"),
    *("train_accuracy", "verdict", "seeds", "num_train", "num_test", "hardware", "recipe_digest"),
    *("perturbation_digest", "command", "date"),
)
"""What is taken over as it stands in ``cards/measured``; ``None`` where a measurement is older than the column."""


def results(pattern: str | None = None) -> list[dict[str, Any]]:
    """What ``ule-verify`` measured, one flat record for each dataset, profile, model and strategy.

    For ``pandas.DataFrame`` or ``datasets.Dataset.from_list`` as it is. Accuracies are in percent: ``poisoned`` and its
    control ``clean`` on clean test images after the last epoch, means over ``seeds``, with their standard deviations
    ``poisoned_sd`` and ``clean_sd`` (``None`` for one seed); ``poisoned_best_epoch``, an oracle's; ``train_accuracy``.
    ``fitted`` and ``held_out`` are what a linear classifier on the perturbation alone got right (``None``: none was
    fitted). ``verdict`` is on the collapse; ``claims`` lists what the runs say of printed numbers. ``command`` repeats
    the measurement.

    Args:
        pattern: a glob of names of datasets, or a part of them; ``None``: all.

    Raises:
        InputError: no recipe matches.
    """
    return [_record(entry.name, row) for entry in recipes(pattern) for row in cards.measured(entry.name)]


def _record(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    separable, made_with = row.get("linear_classifier_on_the_perturbation") or {}, row.get("environment", {})
    return {
        "dataset": name,
        **{key: row.get(key) for key in COLUMNS},
        "fitted": separable.get("fitted"),
        "held_out": separable.get("held_out"),
        "torch": made_with.get("torch"),
        "ule_datasets": made_with.get("ule-datasets"),
        "claims": [{"reason": None, **claim} for claim in row.get("claims", ())],
    }
