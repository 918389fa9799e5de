"""Lists of work: worked off in order, in pieces of any length, and what they ask for exists."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from builders import RECIPES
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.experiments.profiles import PROFILES
from ule_datasets.papers.claims import listed

FOLDER = Path(__file__).parent.parent / "benchmarks"
GIVEN = {"source": "SOURCE", "out": "OUT", "device": "cuda"}


@pytest.fixture
def worklist(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("worklist")


def work_off(
    worklist: ModuleType, page: str, out: Path, monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, dict[str, Any]]:
    """The exit code, and what is recorded as done."""
    (out.parent / "list.md").write_text(page)
    given = ["worklist.py", str(out.parent / "list.md"), "--source", "digits", "--out", str(out), *words]
    monkeypatch.setattr(sys, "argv", given)
    code = worklist.main()
    return code, {path.stem: json.loads(path.read_text()) for path in (out / "done").glob("*.json")}


COUNTING = """Prose.

```toml
[[work]]
shows = "number {number}"
commands = ["python {out}/../count.py {number}", "python {out}/../refuse.py {number}"]
number = [1, 2, 3]
```
"""


def test_pieces_run_in_order_once_and_those_that_failed_again(
    worklist: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    ran_file = tmp_path / "ran.txt"
    (tmp_path / "count.py").write_text(f"import sys; print(sys.argv[1], end=' ', file=open({str(ran_file)!r}, 'a'))")
    (tmp_path / "refuse.py").write_text("import sys; sys.exit('not this one' if sys.argv[1] == '2' else 0)")
    for ran in ("1 2 3 ", "1 2 3 2 "):
        code, done = work_off(worklist, COUNTING, out, monkeypatch)
        assert code == 1
        assert sorted(done) == ["number-1", "number-3"]
        assert ran_file.read_text() == ran
    assert (out / "summary.md").read_text().count("| open |") == 1
    assert "not this one" in (out / "logs" / "number-2.txt").read_text()


def test_when_time_is_up_the_running_piece_is_interrupted_and_goes_on_next_time(
    worklist: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, program = tmp_path / "out", tmp_path / "program.py"
    program.write_text(
        "import pathlib, time\n"
        f"state = pathlib.Path({str(tmp_path / 'state')!r})\n"
        "try:\n"
        "    state.with_name('begun').touch()\n"
        "    if not state.exists():\n"
        "        time.sleep(600)\n"
        "except KeyboardInterrupt:\n"
        "    state.touch()\n"
        "    raise\n"
    )
    page = f'```toml\n[[work]]\nshows = "long"\ncommands = ["python {program}"]\n```\n'
    with monkeypatch.context() as patch:
        left = property(lambda _: 0.0 if (tmp_path / "begun").exists() else 600.0)
        patch.setattr(worklist.Worker, "left", left)
        assert work_off(worklist, page, out, patch) == (0, {})
    assert (tmp_path / "state").exists()
    code, done = work_off(worklist, page, out, monkeypatch)
    assert (code, list(done)) == (0, ["long"])
    assert done["long"]["environment"]["cpu"]


def test_a_part_is_asked_for_as_the_list_shows_it_and_one_that_is_not_there_is_refused(
    worklist: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for only in ("Number 2", "number-2"):
        work_off(worklist, COUNTING, tmp_path / "out", monkeypatch, "--table", "--only", only)
        shown = capsys.readouterr().out
        assert ["number 1" in shown, "number 2" in shown, "number 3" in shown] == [False, True, False]
    with pytest.raises(SystemExit, match="2"):
        work_off(worklist, COUNTING, tmp_path / "out", monkeypatch, "--only", "number 4")
    assert "no piece of the list has 'number 4' in it" in capsys.readouterr().err


VERIFYING = """```toml
[[work]]
shows = "the digits"
commands = [
    "ule-build ops-digits --out {out}/datasets/ops-digits",
    "ule-verify {out}/datasets/ops-digits --profile smoke --models convnet3-w16 --strategies none --seeds 1 \
--report {out}/verified",
]
```
"""


@pytest.mark.slow
def test_what_another_machine_has_trained_is_not_trained_again(
    worklist: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, measured = tmp_path / "runs", []
    for machine in ("first", "second"):
        (tmp_path / machine).mkdir()
        out = tmp_path / machine / "out"
        code, done = work_off(worklist, VERIFYING, out, monkeypatch, "--runs", str(runs))
        assert code == 0
        measured.append(done["the-digits"]["measured"])
        told = (out / "logs" / "the-digits.txt").read_text(encoding="utf-8")
        assert told.count("reusing a finished run") == (2 if machine == "second" else 0)
    assert measured[0] == measured[1] != []
    assert len(list(runs.glob("*.json"))) == 2


@pytest.mark.parametrize("name", ["EVIDENCE.md", "GPU.md"])
def test_the_lists_ask_for_what_there_is(worklist: ModuleType, name: str) -> None:
    pieces = list(worklist.pieces_of((FOLDER / name).read_text(encoding="utf-8"), GIVEN))
    assert pieces
    for piece in pieces:
        assert "{" not in piece.name + piece.shows
        for program, *words in piece.commands:
            assert program in worklist.PROGRAMS
            if program == "ule-build":
                assert words[0] in RECIPES or (FOLDER.parent / words[0]).is_file()
            if program == "python":
                assert (FOLDER.parent / words[0]).is_file()
            options = dict(itertools.pairwise(words))
            assert options.get("--profile", "quick") in PROFILES
            assert all(parse_strategy(each) for each in options.get("--strategies", "none").split(","))
            assert listed([options["--claims"]] if "--claims" in options else []), "an unknown one is refused"


def test_the_table_of_effects_is_that_of_the_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    effects = importlib.import_module("effects")
    made = effects.table(FOLDER / "results" / "runs")
    assert f"{effects.BEGIN}{made}{effects.END}" in (FOLDER / "README.md").read_text(encoding="utf-8")
    for seed, accuracies in enumerate([(90.0, 99.0), (91.0, 10.0), (92.0, 12.0)]):
        for name, accuracy in zip(("cifar10", "ops-x"), accuracies, strict=True):
            strategy = {"name": "jpeg"}
            run = {"seed": seed, "protocol": {"model": "quicknet", "strategy": strategy}}
            run["epochs"] = [{"test_accuracy": accuracy, "train_accuracy": 100.0}]
            if (seed, name) != (0, "ops-x"):
                (tmp_path / f"{name}-jpeg-seed{seed}-{seed:016d}.json").write_text(json.dumps(run))
    assert effects.table(tmp_path).splitlines()[2:] == [
        "| clean images | jpeg | 0, 1, 2 | 91.00 ± 1.00 | – | 100.00 ± 0.00 |",
        "| `ops-x` | jpeg | 1, 2 | 11.00 ± 1.41 | 91.50 ± 0.71 | 100.00 ± 0.00 |",
    ]
