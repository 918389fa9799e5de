"""What a card says of papers and measurements: numbers of this very perturbation, each once, side by side."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import cards
from builders import RECIPES
from cards.render import preview
from ule_datasets.base.names import DatasetName
from ule_datasets.data.perturbation import Overwrite, Perturbation, Support
from ule_datasets.dataset.manifest import Manifest, SplitRecord
from ule_datasets.packaging.card import write_card
from ule_datasets.packaging.results import ResultRow, results_of
from ule_datasets.papers.claims import CLEAN_ACCURACY, for_dataset

OWN, OTHER = "a" * 64, "b" * 64
CLAIMS = [claim for claim in for_dataset("ops-cifar10") if claim.metric == CLEAN_ACCURACY]


def measured(model: str = "resnet18", strategy: str = "standard", **changes: Any) -> dict[str, Any]:
    plain = {
        "profile": "fast",
        "model": model,
        "strategy": strategy,
        "poisoned": 16.25,
        "poisoned_sd": 1.5,
        "clean": 94.0,
        "clean_sd": None,
        "seeds": [0, 1, 2],
        "hardware": "A chip",
        "perturbation_digest": OWN,
        "command": f"ule-verify x --profile fast --models {model}",
        "claims": [],
    }
    return {**plain, **changes}


def test_a_printed_number_stands_once_with_all_its_places() -> None:
    rows = results_of(CLAIMS, [], OWN).rows
    keys = [(row.model, row.strategy, row.reported) for row in rows]
    assert len(set(keys)) == len(keys) < len(CLAIMS)
    (standard,) = (row for row in rows if row.model == "resnet18" and row.strategy == "standard")
    assert (standard.reported, standard.where) == ("15.56", "OPS paper, Tables 2, 5, 6, A, B, C and D")
    everything = {f"{claim.value:g}" for claim in CLAIMS}
    assert everything == {row.reported for row in rows}


def test_reported_and_measured_stand_in_one_row_and_what_was_measured_stands_first() -> None:
    found = results_of(CLAIMS, [measured(), measured("resnet18-w8", "none", seeds=[0])], OWN)
    assert found.rows[:2] == (
        ResultRow(
            model="resnet18",
            strategy="standard",
            reported="15.56",
            where="OPS paper, Tables 2, 5, 6, A, B, C and D",
            measured="16.2 ± 1.5",
            control="94.0",
            how="fast, 3 seeds, A chip",
        ),
        ResultRow(
            model="resnet18-w8", strategy="none", measured="16.2 ± 1.5", control="94.0", how="fast, 1 seed, A chip"
        ),
    )
    assert not any(row.how for row in found.rows[2:])
    assert found.apart == ()


def test_a_second_measurement_of_one_cell_does_not_repeat_the_printed_number() -> None:
    found = results_of(CLAIMS, [measured(), measured(profile="paper")], OWN)
    rows = [row for row in found.rows if (row.model, row.strategy) == ("resnet18", "standard")]
    assert [(row.reported, row.how.split(",")[0]) for row in rows] == [("15.56", "fast"), ("–", "paper")]


@pytest.mark.parametrize(("digest", "own"), [(OWN, 1), (OTHER, 0), (None, 1)])
def test_results_of_another_craft_stand_apart(digest: str | None, own: int) -> None:
    verdict = {"id": "c", "reported": 1.0, "level": "confirmed", "stand_in": False, "reason": "it is"}
    found = results_of(CLAIMS, [measured(claims=[verdict])], digest)
    assert sum(bool(row.how) for row in found.rows) == own
    assert len(found.apart) == 1 - own
    assert len(found.verdicts) == own, "no verdict of another craft"
    assert len(found.commands) == 1


def card_of(name: str, layers: tuple[Overwrite, ...], digest: str) -> str:
    recipe = RECIPES[name]
    manifest = Manifest(
        name=DatasetName(recipe.name),
        version=recipe.version,
        reduced=recipe.reduced,
        recipe_digest=recipe.digest,
        source_name=recipe.source.name,
        source_digests={"train": "1" * 64, "test": "2" * 64},
        source_about={},
        perturbation_digest=digest,
        craft=(),
        class_names=recipe.source.class_names or (),
        image_shape=(32, 32, 3),
        formats=("parquet",),
        splits={"train": SplitRecord(num_examples=2, num_poisoned=1, digest="3" * 64, num_bytes=0)},
        files=(),
        environment={},
        timings={},
    )
    about = {"methods": []}
    return write_card(recipe, manifest, Perturbation(layers=layers, source_digest="1" * 64, about=about), ())


def test_a_card_of_another_craft_says_so(one_layer: Overwrite) -> None:
    (row, *_) = cards.measured("digits-s")
    own = card_of("digits-s", (one_layer,), row["perturbation_digest"])
    other = card_of("digits-s", (one_layer,), OTHER)
    assert "on this very perturbation" in own
    assert "another craft" not in own
    assert "**Measured on another craft** of this recipe" in other
    assert "on this very perturbation" not in other
    number = f"{row['poisoned']:.1f} ± {row['poisoned_sd']:.1f}"
    assert number in own.partition("## Uses")[0]
    assert number in other.partition("another craft")[2]
    assert "on a build of this recipe" in preview(RECIPES["digits-s"])


def test_long_digests_stand_in_lists_where_lines_break(one_layer: Overwrite) -> None:
    card = card_of("digits-s", (one_layer,), OWN)
    for digest in ("1" * 64, "2" * 64, "3" * 64, OWN, RECIPES["digits-s"].digest):
        assert f": `{digest}`\n" in card
    assert not [line for line in card.splitlines() if line.startswith("|") and re.search(r"\w{60}", line)]


def test_every_card_has_one_table_of_results_with_whole_rows() -> None:
    for name in ("ops-cifar10", "cifar10-s", "digits-s", "ops", "uc-pets"):
        text = preview(RECIPES[name]).partition("## Reported and measured")[2].partition("## Uses")[0]
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert {line.count("|") for line in lines} in ({6}, {5}, {8}, set()), name
        assert sum(line.startswith("|---") for line in lines) <= 1, name


@pytest.fixture
def one_layer() -> Overwrite:
    place = np.zeros((10, 1), dtype=np.int32)
    return Overwrite(rows=place, columns=place, colours=np.zeros((10, 1, 3), np.uint8), support=Support.CLASS)
