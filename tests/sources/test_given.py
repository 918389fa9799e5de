"""Where clean images are: one place, or one for each source by its name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from helpers import complaint, run_build
from miniatures import SPECS, miniature, official, recipe_file

import ule_datasets
from ule_datasets.cli.verify import main as verify
from ule_datasets.experiments.profiles import PROFILES
from ule_datasets.sources import spec as specs
from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.sources.cifar100 import CIFAR100
from ule_datasets.sources.digits import DIGITS
from ule_datasets.sources.given import Given, place_for
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.svhn import SVHN


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some places to be named, in the folder that a test is in."""
    for name in ("a", "b", "svhn=b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_place_is_that_of_the_only_source_that_is_needed(folder: Path) -> None:
    given = Given.of(["a"])
    assert given.settled([SVHN, SVHN]).where(SVHN) == "a"
    assert given.settled([DIGITS, SVHN]).where(SVHN) == "a"
    assert given.settled([DIGITS, SVHN]).where(DIGITS) is None, "it comes with a library"
    assert given.settled([DIGITS]).where(DIGITS) == "a"
    assert given.settled([]).where(SVHN) is None
    assert Given.of(None).settled([SVHN]).where(SVHN) is None
    assert Given.of(["svhn=b"]).settled([SVHN]).where(SVHN) == "svhn=b", "what is there is a place"
    assert Given.of(["s3://bucket/a=b"]).settled([SVHN]).where(SVHN) == "s3://bucket/a=b"


def test_places_have_names_where_several_sources_are_needed(folder: Path) -> None:
    given = Given.of(["cifar10=a", "svhn=./b", "pets=hub:timm/oxford-iiit-pet"]).settled([CIFAR10, SVHN])
    assert (given.where(CIFAR10), given.where(SVHN), given.where(CIFAR100)) == ("a", "./b", None)
    told = complaint(lambda: given.refuse_left_out(CIFAR100))
    assert told == (
        "CIFAR-100 is needed too: say where it is with --source cifar100=WHERE "
        "(--source cifar100=hub:uoft-cs/cifar100 fetches it)"
    )
    assert complaint(lambda: given.refuse_left_out(OWN_IMAGES)).endswith("with --source own-images=WHERE")
    Given.of(["a"]).settled([SVHN]).refuse_left_out(CIFAR100)
    own = dataclasses.replace(OWN_IMAGES, name="flowers")
    assert Given.of(["flowers=a"]).settled([own]).where(own) == "a"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a", "b"], "--source a does not say of which source it is, and there are others: say --source NAME=a, e.g."),
        (["cifar10=a", "b"], "--source b does not say of which source it is"),
        (["cifar10=a", "cifar10=b"], "--source cifar10=... is given twice: a, b"),
        (["cifar10=nowhere"], "--source nowhere: no such file or folder"),
        (["cifra10=a"], "there is no source 'cifra10'; did you mean cifar10"),
        (["elsewhere=a"], "there is no source 'elsewhere'; the sources are "),
        (["a"], "--source a is one place, and cifar10 and svhn are needed: say where each is, with --source cifar10="),
    ],
)
def test_what_is_not_clear_is_refused_in_a_line(words: list[str], told: str, folder: Path) -> None:
    assert told in complaint(lambda: Given.of(words).settled([CIFAR10, SVHN, DIGITS]))


def test_a_build_takes_the_name_of_its_own_source(folder: Path) -> None:
    assert place_for(None, SVHN) is None
    assert place_for("a", SVHN) == place_for("svhn=a", SVHN) == "a"
    assert "what is needed is SVHN, --source svhn=WHERE" in complaint(lambda: place_for("cifar10=a", SVHN))
    assert "there is no source 'shvn'; did you mean svhn?" in complaint(lambda: place_for("shvn=a", SVHN))
    outcome = run_build("ops-svhn", "--source", "cifar10=a")
    assert (outcome.code, len(outcome.complaint)) == (2, 1)


def test_datasets_of_several_sources_are_verified_together_with_their_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(specs, "pinned", dict)
    monkeypatch.setenv("ULE_CACHE", str(folder / "cache"))
    brief = dataclasses.replace(PROFILES["smoke"], epochs=1, max_train_images=100, max_test_images=50)
    monkeypatch.setitem(PROFILES, "smoke", brief)
    built = []
    for name in SPECS:
        files = official(name, folder / "official" / name)
        recipe = recipe_file(folder / f"{name}.py", f"ops-{name}", miniature(name, files))
        recipe.write_text(recipe.read_text().replace("name='small'", f"name='small-{name}'"))
        assert run_build(recipe, "--source", f"{name}={files}", "--out", folder / f"built-{name}").code == 0
        built.append(f"built-{name}")
        (folder / f"built-{name}" / ".local.json").unlink(missing_ok=True)  # where its images were
    words = [*built, "--workers", "1", "--strategies", "none", "--seeds", "1", "--report", "report"]
    assert verify([*words, "--source", "official"]) == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("ule-verify: --source official is one place, and cifar100 and svhn are needed")
    )
    assert verify([*words, "--source", "svhn=official/svhn"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("ule-verify: CIFAR-100 is needed too: say where it is")
    assert verify([*words, "--source", "svhn=official/svhn", "--source", "cifar1OO=official/cifar100"]) == 2
    assert "there is no source 'cifar1OO'; did you mean cifar10 or cifar100?" in capsys.readouterr().err
    assert verify([*words, "--source", "svhn=official/svhn", "--source", "cifar100=official/cifar100"]) == 0
    report = json.loads((folder / "report" / "report.json").read_text())
    found = [(row["dataset"], row["control"], row["num_test"]) for row in report["comparisons"]]
    assert found == [("small-cifar100", "cifar100", 50), ("small-svhn", "svhn", 30)]
    given = {name: folder / "official" / name for name in SPECS}
    assert ule_datasets.verify(*built, integrity_only=True, source=given, report="other", quiet=True).passed
