"""The leaderboard has the numbers of the measured files and no others, and works in a browser from a file."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

import cards
from builders import RECIPES
from cards import leaderboard, looks
from cards.leaderboard import REPORTED, External, boards, externals
from ule_datasets.base.errors import InputError

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
OTHERS: dict[str, Any] = {
    "schema": leaderboard.SCHEMA,
    "results": [
        {
            "dataset": "ops-cifar10",
            "strategy": "standard",
            "accuracy": 17.5,
            "source": "A <Study>, Table 2",
            "url": "https://example.org/study",
            "unreliable": "pixels were truncated",
        },
        {
            "dataset": "ops-cifar10",
            "strategy": "gray",
            "accuracy": 44.25,
            "sd": 0.5,
            "seeds": 3,
            "source": "Another",
            "url": "https://example.org/another",
        },
    ],
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaderboard")
    (folder / "others.json").write_text(json.dumps(OTHERS), encoding="utf-8")
    leaderboard.main(["--out", str(folder / "site"), "--external", str(folder / "others.json")])
    return folder / "site"


@pytest.fixture(scope="module")
def page(site: Path) -> str:
    return (site / "index.html").read_text(encoding="utf-8")


def lines(page: str) -> dict[tuple[str, str, str], str]:
    """The markup of each line of the board, by dataset, profile and model."""
    found = {}
    for line in re.findall(r"<tr data-profile=.*?</tr>", page, flags=re.DOTALL):
        name = re.search(r'<th scope="row" class="name" data-value="([^"]*)"', line)
        how = re.search(r'<td data-value="([^"]*)">[^<]*<small>([^<]*)</small>', line)
        assert name is not None
        assert how is not None
        found[name[1], how[1], html.unescape(how[2])] = line
    return found


def measured() -> dict[tuple[str, str, str], dict[str, dict[str, Any]]]:
    """What the measured files hold: by dataset, profile and model, then by strategy."""
    found: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for name in RECIPES:
        for row in cards.measured(name):
            found.setdefault((name, row["profile"], row["model"]), {})[row["strategy"]] = row
    return found


def test_every_number_of_the_page_is_that_of_its_measured_file(page: str) -> None:
    shown = lines(page)
    assert {key for key in shown if key[1] != REPORTED} == measured().keys()
    for key, by_strategy in measured().items():
        values = re.findall(r'data-value="([\d.]+)"><a href="#run-[^"]*-([^"-][^"]*)"', shown[key])
        for strategy, row in by_strategy.items():
            anchor = "-".join(("run", *key, strategy)).replace("+", "_")
            cell = re.search(
                rf'data-value="([\d.]+)"><a href="#{re.escape(anchor)}" title="[^"]*">([^<]*)</a>(.*?)</td>', shown[key]
            )
            assert cell is not None, anchor
            assert float(cell[1]) == row["poisoned"]
            spread = "" if row["poisoned_sd"] is None else f" ± {row['poisoned_sd']:.1f}"
            assert cell[2] == f"{row['poisoned']:.1f}{spread}"
            assert f"clean {row['clean']:.1f}" in cell[3]
            assert f"{len(row['seeds'])} seed" in cell[3]
            assert row["verdict"] in cell[3]
            assert ("of an earlier version" in cell[3]) == (row["recipe_digest"] != RECIPES[key[0]].digest)
        assert float(values[0][0]) == max(row["poisoned"] for row in by_strategy.values() if judged(row)), "worst case"


def judged(row: dict[str, Any]) -> bool:
    return row["verdict"] != "inconclusive"


def test_the_table_that_load_dataset_opens_is_the_same(site: Path, tmp_path: Path) -> None:
    opened = datasets.load_dataset(str(site), "leaderboard", split="train", cache_dir=str(tmp_path)).to_list()
    own = {(row["dataset"], row["profile"], row["model"], row["strategy"]): row for row in opened}
    assert len(own) == len(opened)
    rows = {(*key, strategy): row for key, cells in measured().items() for strategy, row in cells.items()}
    assert {key for key in own if key[1] != REPORTED} == rows.keys()
    for key, row in rows.items():
        told = own[key]
        assert (told["accuracy"], told["sd"], told["seeds"]) == (row["poisoned"], row["poisoned_sd"], len(row["seeds"]))
        assert (told["control"], told["control_sd"]) == (row["clean"], row["clean_sd"])
        assert (told["verdict"], told["command"], told["date"]) == (row["verdict"], row["command"], row["date"])
    assert own["ops-cifar10", "smoke", "resnet18-w8", "standard"]["reported"] == 15.56
    assert own["cifar10-s", REPORTED, "resnet18", "standard"]["reported"] == 16.67
    assert own["cifar10-s", REPORTED, "resnet18", "standard"]["accuracy"] is None


def test_the_text_has_a_line_for_every_result(site: Path) -> None:
    text = (site / "leaderboard.md").read_text(encoding="utf-8")
    rows = leaderboard.leaderboard(externals(site.parent / "others.json"))
    assert text.partition("## Every result")[2].count("\n| ") == len(rows) + 1
    for key, cells in measured().items():
        worst = max(row["poisoned"] for row in cells.values() if judged(row))
        assert re.search(rf"^\| {key[0]}( \(reduced\))? \| {key[1]}, {re.escape(key[2])} \| {worst:.1f} \|", text, re.M)
    assert "Study>, Table 2: 17.5 (unreliable: pixels were truncated)" in html.unescape(text).replace("\\", "")
    assert "<Study>" not in text


def test_every_cell_leads_to_a_run_with_its_command_and_its_file(page: str, site: Path) -> None:
    anchors = set(re.findall(r'<tr id="([^"]*)"', page))
    links = re.findall(r'href="#(run-[^"]*)"', page)
    assert len(links) > len(anchors)
    assert set(links) <= anchors
    for cells in measured().values():
        for row in cells.values():
            assert f"<code>{html.escape(row['command'], quote=True)}</code>" in page
    for name in re.findall(r'href="measured/([^"]*)"', page):
        assert (site / "measured" / name).read_bytes() == (leaderboard.MEASURED / name).read_bytes()


def test_results_of_others_stand_beside_with_source_and_flag(page: str) -> None:
    line = lines(page)["ops-cifar10", "smoke", "resnet18-w8"]
    assert '<a href="https://example.org/study">A &lt;Study&gt;, Table 2</a> 17.5' in line
    assert '<b class="flag" title="pixels were truncated">unreliable</b>' in line
    alone = lines(page)["ops-cifar10", REPORTED, "resnet18"]
    assert '<a href="https://example.org/another">Another</a> 44.2 ± 0.5' in alone
    assert "unreliable" not in alone


def test_the_page_needs_nothing_from_elsewhere(page: str) -> None:
    assert not re.search(r"(?:src|srcset)=|@import|url\(|<link", page)
    outside = set(re.findall(r'href="(https?:[^"]*)"', page))
    assert outside == {"https://example.org/study", "https://example.org/another"}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a dataset": ({"dataset": "ops-cifar"}, r"results\[0\].*no dataset 'ops-cifar'; did you mean ops-cifar10"),
    "a strategy": ({"strategy": "cutoff"}, r"results\[0\].*'cutoff' is not known"),
    "an accuracy": ({"accuracy": 101}, r"results\[0\].*accuracy is 101.0, must be a percentage"),
    "a text": ({"accuracy": "17"}, r"results\[0\].accuracy"),
    "no source": ({"source": ""}, "source and url must say where the number stands"),
    "no address": ({"url": "javascript:alert(1)"}, "source and url must say where the number stands"),
    "no seed": ({"seeds": 0}, "seeds is 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_result_of_others_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    change, message = WRONG[case]
    content = {**OTHERS, "results": [{**OTHERS["results"][0], **change}]}
    (tmp_path / "others.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        externals(tmp_path / "others.json")
    assert "\n" not in str(caught.value)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "others.json").write_text('{"schema": "mine", "results": []}', encoding="utf-8")
    with pytest.raises(InputError, match="schema is 'mine', must be 'ule-datasets external results 1'"):
        externals(tmp_path / "others.json")


def test_the_files_of_the_project_are_of_these_schemas() -> None:
    assert all(isinstance(one, External) for one in externals(leaderboard.EXTERNAL))
    for path in looks.FOLDER.glob("*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        assert found["dataset"] == path.stem
        assert found["dataset"] in RECIPES
        assert set(leaderboard.LOOKS_SHOWN) <= set(found)
    assert len(boards(leaderboard.leaderboard())) > len(measured())


def test_how_visible_a_change_is_agrees_with_others() -> None:
    from kornia.metrics import ssim

    generator = np.random.default_rng(0)
    clean = generator.integers(0, 256, (3, 32, 32, 3)).astype(np.float64)
    other = np.clip(clean + generator.integers(-8, 9, clean.shape), 0, 255)
    first, second = (torch.from_numpy(images / 255).permute(0, 3, 1, 2) for images in (clean, other))
    theirs = ssim(first, second, 11)[:, :, 5:-5, 5:-5].mean(dim=(1, 2, 3)).numpy()
    assert looks.ssim(clean, other) == pytest.approx(theirs, abs=2e-3)
    assert looks.ssim(clean, clean) == pytest.approx([1, 1, 1])
    assert looks.psnr(np.zeros((1, 4, 4, 3)), np.full((1, 4, 4, 3), 255.0)) == pytest.approx([0])
    assert looks.psnr(np.zeros((1, 4, 4, 3)), np.full((1, 4, 4, 3), 8.0)) == pytest.approx([20 * np.log10(255 / 8)])


def test_a_built_dataset_is_looked_at(built_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "FOLDER", tmp_path / "looks")
    looks.main([str(built_digits)])
    found = json.loads((tmp_path / "looks" / "ops-digits.json").read_text(encoding="utf-8"))
    assert found["images"] == 1000
    assert found["craft_device"] is None, "no model was trained for it"
    kept = cards.look("ops-digits")
    assert (found["psnr"], found["ssim"]) == (pytest.approx(kept["psnr"]), pytest.approx(kept["ssim"]))


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
@pytest.mark.parametrize(
    ("state", "profile", "hidden"),
    [
        ("", "measured", "cutmix"),
        ("#find=ops&sort=worst+case&down=1", "measured", "linf-at"),
        ("#sort=worst+case&down=", "measured", "cutmix"),
        ("#profile=reported&strategy=cutout", REPORTED, "linf-at"),
    ],
)
def test_a_browser_sorts_and_filters_what_a_link_says(
    state: str, profile: str, hidden: str, site: Path, tmp_path: Path
) -> None:
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    command += ["--virtual-time-budget=5000", "--dump-dom", f"file://{site}/index.html{state}"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    rows = re.findall(r'<tr data-profile="([^"]*)" data-find="([^"]*)"( hidden="")?>', dom)
    visible = [(how, about.split()[0]) for how, about, gone in rows if not gone]
    assert visible
    assert {how == REPORTED for how, _ in visible} == {profile == REPORTED}
    assert f"{len(visible)} of {len(rows)} lines" in dom
    if "find=ops" in state:
        assert all("ops" in name for _, name in visible)
    if "sort" in state:
        worst = {name: max(r["poisoned"] for r in cells.values() if judged(r)) for (name, *_), cells in alone().items()}
        values = [worst[name] for _, name in visible if name in worst]
        down = "down=1" in state
        assert values == sorted(values, reverse=down)
        assert f'aria-sort="{"descending" if down else "ascending"}"><button>worst case' in dom
    assert re.search(rf'<th [^>]*data-strategy="{hidden}"[^>]* hidden=""', dom), "a column without anything to show"


def alone() -> dict[tuple[str, str, str], dict[str, dict[str, Any]]]:
    """Measured datasets that have a single line."""
    names = [name for name, *_ in measured()]
    return {key: cells for key, cells in measured().items() if names.count(key[0]) == 1}
