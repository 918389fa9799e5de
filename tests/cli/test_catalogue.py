"""The list of what can be built: narrow, by family, with what is reduced, and only what matches a pattern."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import run_build

import cards
from builders import FAMILIES, RECIPES
from ule_datasets.base.progress import duration
from ule_datasets.interface.catalogue import WIDTH


def listed(*pattern: str) -> list[str]:
    outcome = run_build("--list", *pattern)
    assert outcome.code == 0, outcome.stderr
    return outcome.stdout.splitlines()


def test_the_list_fits_a_terminal_and_is_in_families() -> None:
    lines = listed()
    assert max(map(len, lines)) <= WIDTH
    headings = [line for line in lines if line and not line.startswith(" ")]
    for family in FAMILIES:
        assert any(line.startswith(family) for line in headings), family
    assert [line.split()[0] for line in lines if line.startswith("  ")][1:] == list(RECIPES)


def test_the_list_says_which_datasets_are_reduced_and_how_many_images_they_use() -> None:
    rows = {line.split()[0]: line for line in listed() if line.startswith("  ")}
    for name, recipe in RECIPES.items():
        assert ("reduced" in rows[name]) == (recipe.reduced is not None), name
        used = recipe.num_images.get("train")
        assert (f" {used:,} " if used else " any ") in rows[name], name
    assert " 3,000 of 50,000 " in rows["cifar10-s-small"]
    assert " of " not in rows["uc-cifar10"], "reduced in size and surrogate, not in images"
    assert rows["bait-cifar10"].endswith("weights, GPU")
    assert "16.67 %" in rows["cifar10-s"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("ops-cifar10-k?", ["ops-cifar10-k2", "ops-cifar10-k3", "ops-cifar10-k4"]),
        ("pets", ["uc-pets", "uc-clip-pets", "synper-pets"]),
        ("*digits*", ["digits-s", "ops-digits"]),
    ],
)
def test_a_pattern_lists_what_matches(pattern: str, names: list[str]) -> None:
    assert [line.split()[0] for line in listed(pattern) if line.startswith("  ")][1:] == names


def test_a_preparation_of_each_image_by_itself_wants_no_gpu() -> None:
    names = {"jpeg-ops-cifar10": False, "jpeg-em-cifar10": True, "em-cifar10-small": False, "em-cifar10-cpu": False}
    for name, wants in names.items():
        assert ("hours to days on a CPU" in run_build("--list", name).stdout) is wants


def test_where_there_is_no_gpu_a_craft_of_days_is_told_what_takes_minutes(tmp_path: Path) -> None:
    told = {
        name: run_build(name, "--source", tmp_path, "--device", "cpu", "--dry-run").stderr
        for name in ("cifar10-s", "ops-cifar10", "cifar10-s-cpu")
    }
    took = cards.look("cifar10-s-cpu")
    assert "without a GPU cifar10-s takes hours to days; cifar10-s-cpu is reduced" in told["cifar10-s"]
    assert f"took {duration(took['craft_seconds'])} on {took['craft_device']}" in told["cifar10-s"]
    assert "without a GPU" not in told["ops-cifar10"] + told["cifar10-s-cpu"]


def test_of_a_single_one_everything_is_told() -> None:
    for name, recipe in RECIPES.items():
        lines = listed(name)
        assert max(map(len, lines)) <= WIDTH
        text = " ".join(" ".join(lines).split())
        for fact in (recipe.title, recipe.summary, recipe.version, *(method.title for method in recipe.methods)):
            assert fact in text
        if recipe.reduced:
            assert recipe.reduced in text


def test_a_pattern_that_matches_nothing_is_told_what_is_like_it() -> None:
    outcome = run_build("--list", "ops-cifer10")
    assert outcome.code == 2
    assert "no recipe matches 'ops-cifer10'; did you mean ops-cifar10, " in outcome.stderr


def test_programs_get_the_same() -> None:
    answer = json.loads(run_build("--list", "--json").stdout)
    assert [recipe["name"] for recipe in answer["result"]["recipes"]] == list(RECIPES)
    small = next(recipe for recipe in answer["result"]["recipes"] if recipe["name"] == "cifar10-s-small")
    assert small["images"]["train"] == {"used": 3000, "of": 50000}
    assert small["digest"] == RECIPES["cifar10-s-small"].digest
