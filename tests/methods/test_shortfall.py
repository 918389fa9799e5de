"""A craft that reached nothing is warned of loudly: by what it noted, whoever made it and when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import run_build

from ule_datasets.methods.bait import Bait
from ule_datasets.methods.error_minimizing import ClasswiseErrorMinimizing, ErrorMinimizing
from ule_datasets.methods.method import Method
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.methods.unlearnable_clusters import UnlearnableClusters

UC = UnlearnableClusters(surrogate=Bait().prior)


def rounds(*accuracies: float, met: bool = False) -> dict[str, Any]:
    return {"trace": [{"accuracy": accuracy} for accuracy in accuracies], "stop_rule_met": met}


def clusters(*nearest: float) -> dict[str, Any]:
    return {"clusters": [{"judged": 10, "after": {"nearest": share}} for share in nearest]}


@pytest.mark.parametrize(
    ("method", "notes", "told"),
    [
        (ErrorMinimizing(), rounds(12.0, 99.5, met=True), ""),
        (ErrorMinimizing(), rounds(12.0, 91.0), ""),
        (ErrorMinimizing(), rounds(12.0, 18.0), "after 2 rounds the surrogate is right about 18.0 % of the perturbed"),
        (ClasswiseErrorMinimizing(), rounds(49.0), "after 1 round the surrogate is right about 49.0 %"),
        (UC, clusters(0.0, 90.0), ""),
        (UC, clusters(0.0, 0.0), "0.0 % of the images that were looked at come to lie nearest to the centre of the wr"),
        (Bait(), {"trace": [{"success": 40.0}]}, ""),
        (Bait(), {"trace": [{"success": 40.0}, {"success": 0.0}]}, "0.0 % of the images are classified as their wron"),
        (OnePixelShortcut(), {}, ""),
    ],
)
def test_a_method_knows_by_its_notes_that_it_reached_nothing(method: Method, notes: dict[str, Any], told: str) -> None:
    found = method.shortfall(notes)
    assert found.startswith(told) if told else found == ""


def test_a_build_whose_craft_reached_nothing_ends_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "weak.py").write_text(
        "from dataclasses import replace\nfrom builders import RECIPES\n"
        'WHOLE = RECIPES["digits-s"]\nNOISE = replace(WHOLE.methods[0], max_rounds=1, num_steps=1, steps_per_round=1)\n'
        'RECIPE = replace(WHOLE, name="weak", methods=(NOISE,), budget=WHOLE.budget[:1])\n'
    )
    words = (tmp_path / "weak.py", "--limit", "2", "--out", tmp_path / "x", "--quiet")
    outcome = run_build(*words)
    assert outcome.code == 0, outcome.stderr
    told = "Error-minimising noise, class-wise reached next to nothing, so this dataset hardly protects: after 1 round"
    assert outcome.stderr.splitlines()[-1].startswith(f"warning: {told}")
    assert outcome.stdout.splitlines()[-2].startswith(f"WARNING: {told}")
    again = json.loads(run_build(*words, "--json", "--overwrite").stdout)
    assert again["result"]["warnings"][-1].startswith(told), "also of a craft that was kept"
