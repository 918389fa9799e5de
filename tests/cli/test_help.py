"""What the commands say they can be told: the same words in both, choices that exist, help that fits, completion."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import make_splits, run_build, run_python, write_image_folder

from builders import RECIPES
from ule_datasets.analyses.findings import OPTIONAL
from ule_datasets.base import choices
from ule_datasets.base.options import FORMATS, PANELS
from ule_datasets.cli import build, verify
from ule_datasets.cli.arguments import option_name
from ule_datasets.compute.opening import EXECUTORS
from ule_datasets.countermeasures import COUNTERMEASURES, parse_strategy
from ule_datasets.experiments.profiles import PROFILES
from ule_datasets.victims.table import VICTIMS, starts_trained

KINDS: dict[str, Any] = {"build": build.BuildArguments, "verify": verify.VerifyArguments}
MAINS: dict[str, Callable[[list[str]], int]] = {"build": build.main, "verify": verify.main}


def options_of(kind: Any) -> dict[str, dataclasses.Field[Any]]:
    return {option_name(field): field for field in dataclasses.fields(kind) if "name" in field.metadata}


def told(name: str, *words: str) -> str:
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        assert MAINS[name]([*words]) == 0
    return stdout.getvalue()


def test_what_may_be_chosen_is_what_there_is() -> None:
    """Who adds a row to one of these tables adds its name to ``ule_datasets/base/choices.py``."""
    assert tuple(PROFILES) == choices.PROFILES
    assert PROFILES["quick"].faster_of == choices.PRECISIONS
    assert choices.EXECUTORS == EXECUTORS
    assert choices.ANALYSES == OPTIONAL
    assert set(choices.RANDOM_MODELS) == {name for name in VICTIMS if not starts_trained(name)}
    assert set(choices.TRAINED_MODELS) == set(filter(starts_trained, VICTIMS))
    of_kinds = {word: kind.word for word in choices.STRATEGIES for kind in COUNTERMEASURES if kind.parse(word)}
    assert set(choices.STRATEGIES) == {"none", "standard", *of_kinds}
    assert set(of_kinds.values()) == {kind.word for kind in COUNTERMEASURES}
    assert [parse_strategy(word).name for word in choices.STRATEGIES] == list(choices.STRATEGIES)


def test_both_commands_call_the_same_thing_by_one_name() -> None:
    ours, theirs = (options_of(kind) for kind in KINDS.values())
    shared = set(ours) & set(theirs)
    assert shared == {
        *("--source", "--weights", "--scratch", "--device", "--workers", "--executor"),
        *("--list", "--dry-run", "--json", "--quiet", "--debug", "--version"),
    }
    for name in shared:
        for key in ("metavar", "panel", "rank", "choices"):
            assert ours[name].metadata[key] == theirs[name].metadata[key], f"{name}: {key}"
        # Not yet known and automatic are both the command's own choice.
        assert ours[name].default == theirs[name].default, name


@pytest.mark.parametrize(("name", "former", "now"), [("verify", "--list-claims", "--list")])
def test_former_names_are_understood_and_not_shown(name: str, former: str, now: str) -> None:
    assert told(name, former, "--claims", "ops-t1-*") == told(name, now, "--claims", "ops-t1-*")
    assert former not in told(name, "--help")


def test_a_former_name_with_a_value_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--victims", "vgg"], ["--victims=vgg"]):
        assert verify.main(["x", *words]) == 2
        assert "No such option" not in capsys.readouterr().err
    assert verify.main(["--", "--list-claims"]) == 2, "after -- it is a dataset"
    assert "no dataset at --list-claims" in capsys.readouterr().err


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("width", [80, 140])
def test_help_is_as_wide_as_the_terminal_and_names_every_option_and_choice(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = told(name, "--help")
    assert max(map(len, text.splitlines())) == width
    assert not re.search(r"bool|<\w", text), "a flag takes no value, and what takes one says which"
    assert re.search(r"--help +-h ", text)
    assert told(name, "-h") == text
    words = set(text.replace(",", " ").replace(";", " ").replace("│", " ").replace("|", " ").split())
    for option, field in options_of(KINDS[name]).items():
        assert option in words
        if not any("-" in choice for choice in field.metadata["choices"]) or width > 80:
            assert set(field.metadata["choices"]) <= {word.rstrip(".") for word in words}, option
        assert "[" not in field.metadata["help"], "it would be taken for markup"
    for panel in PANELS[1:]:
        in_use = any(field.metadata["panel"] == panel for field in options_of(KINDS[name]).values())
        assert (f"─ {panel} ─" in text) == in_use


def test_several_words_are_joined_by_commas_or_given_one_by_one(tmp_path: Path) -> None:
    source = write_image_folder(tmp_path / "source", make_splits(2, 2, 8), ("a", "b"))
    for words in (["--format", "parquet,webdataset"], ["--format", "parquet", "--format", "webdataset"]):
        told = run_build("ops", "--source", source, "--dry-run", "--json", "--out", tmp_path / "x", *words)
        assert json.loads(told.stdout)["result"]["formats"] == list(FORMATS)


def completed(command: str, *words: str) -> list[str]:
    """What bash is told to complete the last word with."""
    environment = {
        f"_ULE_{command.upper()}_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join((f"ule-{command}", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = run_python(f"from ule_datasets.cli.{command} import main; main([])", environment=environment)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("command", "words", "among"),
    [
        ("build", ["ops-cifar10-k"], {"ops-cifar10-k2", "ops-cifar10-k3", "ops-cifar10-k4"}),
        ("build", ["x", "--format", "parquet,w"], {"parquet,webdataset"}),
        ("verify", ["x", "--profile", ""], set(choices.PROFILES)),
        ("verify", ["x", "--strategies", "none,cu"], {"none,cutout", "none,cutmix"}),
        ("verify", ["x", "--models", "resnet50"], {"resnet50-224", "resnet50@imagenet"}),
        ("verify", ["x", "--analyses", "l"], {"landscape"}),
    ],
)
def test_a_shell_completes_names(command: str, words: list[str], among: set[str]) -> None:
    assert set(completed(command, *words)) == among


def test_a_shell_is_told_every_recipe_and_loads_no_torch() -> None:
    assert set(completed("build", "")) == set(RECIPES)
    program = "import sys; from ule_datasets.cli import verify; print('numpy' in sys.modules, 'torch' in sys.modules)"
    assert run_python(program).stdout.split() == ["False", "False"]


def test_completion_can_be_installed(tmp_path: Path) -> None:
    program = "from ule_datasets.cli.build import main; main(['--install-completion'])"
    home = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = run_python(program.replace("'])", "', 'bash'])"), environment=home)
    assert done.code == 0, done.stderr
    assert "ule-build" in (tmp_path / ".bash_completions" / "ule-build.sh").read_text()


@pytest.mark.parametrize(
    ("words", "code", "begins"),
    [
        (["build", "--version"], 0, "0."),
        (["verify", "--version"], 0, "0."),
        (["--help"], 0, "usage: python -m ule_datasets build|verify"),
        (["bild"], 2, "usage: python -m ule_datasets build|verify"),
    ],
)
def test_the_package_itself_runs_the_commands(words: list[str], code: int, begins: str) -> None:
    command = [sys.executable, "-m", "ule_datasets", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert (done.stdout or done.stderr).startswith(begins)


@pytest.mark.parametrize(
    "words", [("--repo-id", "me/x"), ("--private",), ("--revision", "x"), ("--perturbation-only",)]
)
def test_options_of_publishing_are_refused_where_nothing_is_published(words: tuple[str, ...]) -> None:
    outcome = run_build("ops-digits", "--dry-run", *words)
    assert outcome.code == 2
    assert f"{words[0]} goes with --push-to-hub" in outcome.stderr


def test_a_seed_that_changes_nothing_is_warned_of(tmp_path: Path) -> None:
    outcome = run_build("ops-digits", "--seed", 1, "--dry-run", "--out", tmp_path / "x")
    assert outcome.code == 0
    assert "warning: --seed 1 changes no image: ops-digits draws nothing at random" in outcome.stderr
    assert "changes no image" not in run_build("ops-digits", "--dry-run", "--out", tmp_path / "x").stderr


@pytest.mark.parametrize(
    ("name", "words", "complaint"),
    [
        ("build", ["ops-digits", "--seed", "many"], "ule-build: --seed many: must be a whole number"),
        ("build", [], "ule-build: name a recipe; ule-build --list shows them"),
        ("verify", ["x", "--gpus-per-run", "half"], "ule-verify: --gpus-per-run half: must be a number"),
        ("verify", ["x", "--seeds", "1.5"], "ule-verify: --seeds 1.5: must be a whole number"),
        ("verify", [], "ule-verify: name a dataset folder, or claims with --claims"),
    ],
)
def test_what_makes_no_sense_is_told_in_our_own_words(
    name: str, words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert MAINS[name](words) == 2
    assert capsys.readouterr().err == f"{complaint}\n"


@pytest.mark.parametrize("kind", [ImportError, RuntimeError, OSError])
def test_libraries_that_do_not_fit_are_told_with_the_cure(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise kind("operator torchvision::nms does not exist")

    monkeypatch.setattr(build, "_recipe", fail)
    assert build.main(["ops-digits"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ule-build: torchvision does not fit the torch that is installed (operator torchvision::nms")
    assert "install both from one place, as in pip install --force-reinstall torch torchvision --index-url " in line
