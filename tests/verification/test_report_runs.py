"""Reports of several runs in one folder: none takes anything from another, and the newest stands above them."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path

import pytest

from tests.verification.test_report import Page, left_open, part, report
from ule_datasets.base.errors import InputError
from ule_datasets.verification.report.runs import LISTED, keep_unfiled, open_run, past_runs, show_newest
from ule_datasets.verification.report.writing import FILES, write_report

MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
TRAINED = report(command="ule-verify first")
CHECKED = report(result=None, separability={}, command="ule-verify second --integrity-only")


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def name(how: str, what: str = "ops-cifar10") -> str:
    return f"2026-01-02-030405-{what}-{how}"


def command_of(folder: Path) -> str:
    return str(json.loads((folder / "report.json").read_text())["command"])


def test_a_run_without_training_leaves_the_results_of_an_earlier_one_and_leads_to_them(tmp_path: Path) -> None:
    write_report(TRAINED, tmp_path, moment=MOMENT)
    first = f"runs/{name('smoke')}"
    before = {path.name: path.read_bytes() for path in (tmp_path / first).iterdir()}
    write_report(CHECKED, tmp_path, moment=MOMENT + datetime.timedelta(hours=1))
    assert {path.name: path.read_bytes() for path in (tmp_path / first).iterdir()} == before
    assert command_of(tmp_path) == CHECKED.command, "the newest stands above"
    text, markdown = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert "not measured in this run; measured on 2026-01-02 03:04 UTC by the smoke profile" in Page(text).text
    assert f'href="{first}/report.html"' in text
    assert f"]({first}/report.md)" in markdown
    assert before.keys() >= {"report.html", "report.md"}


def test_runs_of_one_second_have_a_folder_each(tmp_path: Path) -> None:
    runs = [open_run(tmp_path, "ops-cifar10", "smoke", MOMENT) for _ in range(3)]
    assert [run.name for run in runs] == [name("smoke"), name("smoke-2"), name("smoke-3")]
    assert past_runs(tmp_path) == (), "none of them is whole"
    (runs[1] / "report.json").write_text("{}")
    assert [(run.when, run.what, run.how) for run in past_runs(tmp_path)] == [
        ("2026-01-02 03:04 UTC", "ops-cifar10", "smoke")
    ]


def test_what_an_older_version_left_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    for file in ("report.json", "report.md", "accuracy.png"):
        (tmp_path / file).write_text(f"old {file}")
    (tmp_path / "mine.txt").write_text("mine")
    write_report(TRAINED, tmp_path, moment=MOMENT)
    (old,) = (run for run in past_runs(tmp_path) if run.how == "earlier")
    folder = tmp_path / "runs" / old.folder
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        file: f"old {file}" for file in ("report.json", "report.md", "accuracy.png")
    }
    assert (tmp_path / "mine.txt").read_text() == "mine"
    keep_unfiled(tmp_path, FILES)
    assert len(past_runs(tmp_path)) == 2, "the newest has one"


def test_a_report_interrupted_while_it_is_put_above_the_others_is_whole_in_its_folder(tmp_path: Path) -> None:
    write_report(TRAINED, tmp_path, moment=MOMENT)
    run = open_run(tmp_path, "ops-cifar10", "integrity", MOMENT)
    (run / "report.json").write_text("new")
    (tmp_path / "report.md").write_text("half of a copy")  # where it ended
    keep_unfiled(tmp_path, FILES)
    assert len(past_runs(tmp_path)) == 2
    show_newest(tmp_path, run, FILES)
    assert (tmp_path / "report.json").read_text() == "new"
    assert not (tmp_path / "report.md").exists(), "that run had none"


def test_nothing_is_written_or_read_behind_links(tmp_path: Path) -> None:
    mine, folder = tmp_path / "mine", tmp_path / "verification"
    run = mine / name("smoke")
    run.mkdir(parents=True)
    (run / "report.json").write_text("{}")
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / name("smoke")).symlink_to(run)
    write_report(TRAINED, folder, moment=MOMENT)
    assert past_runs(folder)[0].folder == name("smoke-2")
    assert len(past_runs(folder)) == 1
    assert [path.name for path in run.iterdir()] == ["report.json"]
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    (elsewhere / "runs").symlink_to(mine)
    with pytest.raises(InputError, match="runs is a link to"):
        write_report(TRAINED, elsewhere)


def test_a_folder_of_a_run_says_what_was_verified_and_how(tmp_path: Path) -> None:
    several = tuple(part(f"set-{number}") for number in range(4))
    nothing_trained = report(datasets=(), result=None, claims=(left_open("ops-t5-ops-standard", "no"),))
    for given in (report(datasets=several), report(datasets=several[:2]), nothing_trained, CHECKED):
        write_report(given, tmp_path, moment=MOMENT)
    assert {run.folder for run in past_runs(tmp_path)} == {
        name("smoke", "4-datasets"),
        name("smoke", "set-0+set-1"),
        name("smoke", "claims"),
        name("integrity"),
    }


def test_only_the_last_runs_are_listed(tmp_path: Path) -> None:
    for number in range(LISTED + 2):
        write_report(CHECKED, tmp_path, moment=MOMENT + datetime.timedelta(minutes=number))
    text = Page((tmp_path / "report.html").read_text()).text
    assert text.count("ops-cifar10, integrity") == LISTED
    assert "1 more in the folder runs" in text


def test_a_name_from_elsewhere_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    run = open_run(tmp_path / "reports", "../../x/\n<b>:", "smoke", MOMENT)
    assert run.parent == tmp_path / "reports" / "runs"
    assert run.name == name("smoke", "..-..-x-b-")
