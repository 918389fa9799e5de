"""The printed numbers as data: complete, consistent, found by id, and refused when a file of one's own is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from builders import RECIPES
from ule_datasets.base.errors import InputError
from ule_datasets.papers import claims
from ule_datasets.papers.claims import (
    FOLDER,
    Claim,
    Fitting,
    Protocol,
    Regime,
    all_claims,
    for_dataset,
    headline,
    papers,
    read_claims,
    select,
)

CLASSES = {
    "cifar10-test": 10,
    "cifar100-test": 100,
    "svhn-test": 10,
    "imagenet100-val": 100,
    "pets-test": 37,
    "cars-test": 196,
    "flowers-test": 102,
    "food-test": 101,
    "sun397-test": 397,
}
COUNTED = {"ops": 132, "le": 132, "uc": 188}
"""Claims of the papers whose tables were counted."""
MINIMAL = """
[paper]
key = "mine"
title = "A title"
venue = "a venue"
arxiv = "none"

[[claim]]
id = "mine-1"
table = "1"
metric = "clean test accuracy, %"
value = 12
train_dataset = "a"
test_dataset = "a-test"
model = "resnet18"
strategy = "standard"
regime = "collapsed"

[[statement]]
id = "mine-q-1"
where = "text"
statement = "It holds."
test = "look"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_every_claim_is_there_in_the_order_of_the_papers() -> None:
    everything = all_claims()
    assert list(dict.fromkeys(claim.paper for claim in everything.values())) == list(claims.PAPERS) == list(papers())
    assert all(id == claim.id and id.startswith(f"{claim.paper}-") for id, claim in everything.items())
    found = {id: claim for id, claim in everything.items() if claim.paper in COUNTED}
    assert Counter(claim.paper for claim in found.values()) == COUNTED
    assert Counter(claim.table for claim in found.values() if claim.paper == "ops") == {
        "1": 15,
        "2": 18,
        "3": 12,
        "4": 4,
        "5": 36,
        "6": 20,
        "A": 4,
        "B": 3,
        "C": 6,
        "D": 12,
        "text": 2,
    }
    assert Counter(claim.regime for claim in found.values()) == {
        Regime.PARTIAL: 149,
        Regime.RECOVERED: 120,
        Regime.COLLAPSED: 96,
        Regime.BASELINE: 59,
        Regime.ANALYSIS: 19,
        Regime.SIZE: 6,
        Regime.COST: 3,
    }
    assert sum(claim.uncertain for claim in found.values()) == 16
    assert sum(claim.same_as is not None for claim in found.values()) == 40


def test_numbers_that_are_known() -> None:
    found = all_claims()
    assert found["ops-t2-resnet18-ops"] == Claim(
        id="ops-t2-resnet18-ops",
        paper="ops",
        table="2",
        metric="clean test accuracy, %",
        value=15.56,
        train_dataset="ops-cifar10",
        test_dataset="cifar10-test",
        model="resnet18",
        strategy="standard",
        regime=Regime.COLLAPSED,
        clean_reference=94.01,
        chance=10.0,
        note="Single run assumed (no spread printed).",
        readings=("ops-var-cifar10",),
    )
    assert found["ops-t2-resnet18-clean"].value == 94.01
    randpix = found["ops-tb-randpix"]
    assert (randpix.value, randpix.std, randpix.runs) == (50.67, 11.29, 10)
    assert [id for id, claim in found.items() if claim.std is not None] == ["ops-tb-randpix"]
    assert found["ops-t3-wrn_28_20-params"].value == 145.84
    assert found["ops-t5-cifar10s-linf_at"].value == 10.61
    assert found["le-t1-em-cifar10-le"].value == 93.1
    assert found["uc-tat-uc-clip-rho2"].uncertain
    assert found["ops-text-cost-em"].chance is None


def test_fields_are_consistent_with_each_other() -> None:
    found = list(all_claims().values())
    seen: dict[str, Claim] = {}
    for claim in found:
        if claim.same_as is not None:
            earlier = seen[claim.same_as]
            assert (earlier.value, earlier.experiment, earlier.paper) == (claim.value, claim.experiment, claim.paper)
            assert earlier.same_as is None
        seen[claim.id] = claim
        if claim.chance is not None:
            assert claim.chance == pytest.approx(100 / CLASSES[claim.test_dataset], abs=0.05)
        else:
            assert claim.regime in (Regime.ANALYSIS, Regime.COST, Regime.SIZE)
        if claim.regime in (Regime.COLLAPSED, Regime.PARTIAL, Regime.RECOVERED):
            assert claim.clean_reference is not None
            assert claim.chance is not None
            share = (claim.value - claim.chance) / (claim.clean_reference - claim.chance)
            expected = "collapsed" if share <= 0.25 else "recovered" if share >= 0.85 else "partial"
            assert claim.regime == expected, claim.id
        else:
            assert claim.clean_reference is None


def test_one_experiment_has_one_number_unless_the_papers_disagree() -> None:
    values: dict[tuple[str, ...], set[float]] = {}
    for claim in all_claims().values():
        values.setdefault((claim.paper, claim.metric, *claim.experiment), set()).add(claim.value)
    two = {key[2]: sorted(found) for key, found in values.items() if len(found) > 1}
    assert two == {"cifar10": [94.7, 95.3], "cifar100": [74.5, 78.8]}, "the clean values of two tables of one paper"


def test_a_variant_is_an_experiment_of_its_own() -> None:
    found = all_claims()
    assert found["le-t6-cifar10-ft-jc-10000"].experiment == found["le-t1-em-cifar10-le"].experiment
    ablation = found["le-t6-cifar10-ft-nojc-1000"]
    assert ablation.experiment[:3] == ("em-cifar10", "cifar10-test", "resnet18")
    assert ablation.experiment[3] == "le (fine_tuned=true, joint_conditional=false, ddpm_steps=1000)"


def test_every_slug_has_an_entry_in_the_glossary() -> None:
    def known(slug: str, entries: object) -> bool:
        assert isinstance(entries, dict)
        return any(re.fullmatch(re.sub("[A-Z]", "[a-z0-9.]+", key), slug) for key in entries)

    words = tomllib.loads((FOLDER / "glossary.toml").read_text(encoding="utf-8"))
    datasets, models, strategies = words["datasets"], words["models"], words["strategies"]
    for claim in all_claims().values():
        assert claim.train_dataset == "none" or known(claim.train_dataset, datasets), claim.train_dataset
        assert known(claim.model, models), claim.model
        assert all(known(part, strategies) for part in claim.strategy.split("+")), claim.strategy
    assert all(isinstance(text, str) for text in [*datasets.values(), *strategies.values()])


def test_no_reduced_recipe_has_the_name_of_a_dataset_that_papers_report_on() -> None:
    reported = {name for name in RECIPES if claims.for_dataset(name)}
    assert {"cifar10-s", "ops-cifar10", "em-cifar10", "randpix-cifar10"} <= reported
    assert not [name for name in reported if RECIPES[name].reduced]


def test_the_headline_is_the_clean_accuracy_of_a_resnet18_under_standard_training() -> None:
    headline = claims.headline("ops-cifar10")
    assert headline is not None
    assert (headline.id, headline.value) == ("ops-t2-resnet18-ops", 15.56)
    assert claims.headline("ops-digits") is None


def test_papers_and_statements() -> None:
    assert papers()["ops"].arxiv == "2205.12141"
    assert papers()["le"].venue == "ACM MM 2023"
    assert papers()["uc"].title.startswith("Unlearnable Clusters")
    found = claims.statements()
    assert sum(statement.paper == "ops" for statement in found.values()) == 11
    assert all(id == statement.id and id.startswith(f"{statement.paper}-") for id, statement in found.items())
    assert "our own reading" in found["ops-q-cifar10s-below-50"].where


def test_changing_what_is_returned_changes_nothing() -> None:
    all_claims().clear()
    claims.statements().clear()
    papers().clear()
    assert len(all_claims()) >= 452
    assert claims.statements()
    assert papers()


def test_select_by_glob_once_each_and_in_order() -> None:
    assert [claim.id for claim in select("ops-tb-*")] == ["ops-tb-clean", "ops-tb-ops", "ops-tb-randpix"]
    both = select("ops-tb-randpix, ops-t?-ops ,ops-tb-*")
    assert [claim.id for claim in both] == ["ops-ta-ops", "ops-tb-clean", "ops-tb-ops", "ops-tb-randpix"]
    assert len(select("*")) == len(all_claims())
    few = {"x-1": all_claims()["ops-tb-ops"]}
    assert select("x-*", few) == (few["x-1"],)


@pytest.mark.parametrize("pattern", ["ops-t2-resnet18-opss", "ops-tb-*,ops-t2-resnet18-opss"])
def test_a_pattern_that_matches_nothing_names_close_ids(pattern: str) -> None:
    with pytest.raises(InputError, match=r"no claim matches 'ops-t2-resnet18-opss'; did you mean ops-t2-resnet18-ops,"):
        select(pattern)


@pytest.mark.parametrize("pattern", ["", " , ", "OPS-*"])
def test_nothing_and_other_case_match_nothing(pattern: str) -> None:
    with pytest.raises(InputError, match="no claim matches"):
        select(pattern)


def test_claims_of_a_dataset_and_its_headline() -> None:
    assert len(for_dataset("cifar10-s")) == 9
    assert {claim.train_dataset for claim in for_dataset("ops-cifar10")} == {"ops-cifar10"}
    assert for_dataset("digits-s") == ()
    values = {name: claim.value for name in RECIPES if (claim := headline(name))}
    assert values["ops-cifar10"] == 15.56
    assert values["cifar10-s"] == 16.67
    assert values["em-cifar10"] == 19.58
    assert values["em-c-cifar10"] == 20.7
    assert values["randpix-cifar10"] == 50.67
    assert headline("digits-s") is None
    assert headline("none") is None


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    _, found, statements = read_claims(written(tmp_path, MINIMAL))
    claim = found["mine-1"]
    assert (claim.paper, claim.value, type(claim.value)) == ("mine", 12.0, float)
    assert claim.regime is Regime.COLLAPSED
    assert (claim.std, claim.note, claim.uncertain, claim.chance) == (None, "", False, None)
    assert statements["mine-q-1"].paper == "mine"
    assert "mine-1" not in all_claims()


def test_defaults_shared_fields_and_rows(tmp_path: Path) -> None:
    text = """
        [defaults]
        paper = "p"
        metric = "m"
        model = "resnet18"
        test_dataset = "t"
        [[claim]]
        table = "1"
        strategy = "standard"
        regime = "partial"
        rows = [
          { id = "a", value = 1.5, train_dataset = "x" },
          { id = "b", value = 2, train_dataset = "y", model = "lenet5", chance = 10, same_as = "a" },
        ]
        [[claim]]
        id = "c"
        value = 3
        table = "2"
        train_dataset = "z"
        strategy = "mixup"
        regime = "baseline"
    """
    _, found, statements = read_claims(written(tmp_path, text))
    assert [(c.id, c.table, c.model, c.value, c.chance) for c in found.values()] == [
        ("a", "1", "resnet18", 1.5, None),
        ("b", "1", "lenet5", 2.0, 10.0),
        ("c", "2", "resnet18", 3.0, None),
    ]
    assert found["a"].strategy == found["b"].strategy == "standard"
    assert statements == {}


def test_what_training_must_have_been_is_said_by_claims_and_their_defaults(tmp_path: Path) -> None:
    assert "[[claim]]" in MINIMAL
    said = MINIMAL.replace(
        "[[claim]]",
        """
        [defaults.protocol]
        words = "ten epochs, cosine"
        settings = { epochs = 10, schedule.is = "Cosine" }
        [defaults.fitting]
        least = 95
        [[claim]]""",
    )
    _, found, _ = read_claims(written(tmp_path, said))
    asked = Protocol(words="ten epochs, cosine", settings=(("epochs", 10), ("schedule.is", "Cosine")))
    assert found["mine-1"].protocol == asked
    assert found["mine-1"].fitting == Fitting(least=95, flat_epochs=10, flat_within=0.5)
    other = said.replace("value = 12", 'value = 12\nprotocol = { words = "unknown" }\nfitting = { flat_epochs = 5 }')
    _, found, _ = read_claims(written(tmp_path, other))
    assert found["mine-1"].protocol == Protocol(words="unknown")
    assert found["mine-1"].fitting == Fitting(flat_epochs=5), "a table of a claim takes the place of the default one"


def test_datasets_that_a_slug_may_mean_besides_are_said_once(tmp_path: Path) -> None:
    _, found, _ = read_claims(written(tmp_path, MINIMAL.replace("[[claim]]", '[readings]\na = ["b", "c"]\n[[claim]]')))
    assert found["mine-1"].readings == ("b", "c")
    read = {claim.train_dataset: claim.readings for claim in all_claims().values() if claim.readings}
    assert read == {"ops-cifar10": ("ops-var-cifar10",)}
    assert all(name in RECIPES for readings in read.values() for name in readings)


def test_papers_other_than_ops_have_protocols_of_their_own() -> None:
    for claim in all_claims().values():
        assert (claim.protocol is None) == (claim.paper == "ops"), claim.id
        assert claim.fitting == Fitting(least=99, flat_epochs=10, flat_within=0.5), claim.id
        if claim.paper == "le":
            assert claim.protocol is not None
            assert claim.protocol.settings == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('model = "resnet18"\n', "", "claim 'mine-1': field 'model' is missing"),
        ('id = "mine-1"\n', "", "claim 1: field 'id' is missing"),
        ("value = 12", 'value = "12"', "claim 'mine-1': field 'value' is '12', must be a finite number"),
        ("value = 12", "value = true", "field 'value' is True"),
        ("value = 12", "value = nan", "field 'value' is nan"),
        ("value = 12", "value = 12\nchance = 101", "field 'chance' is 101, must be a number from 0 to 100"),
        ("value = 12", "value = 12\nstd = -1", "field 'std' is -1"),
        ("value = 12", "value = 12\nruns = 1", "field 'runs' is 1, must be a whole number of at least 2"),
        ("value = 12", "value = 12\nruns = 2.0", "field 'runs' is 2.0"),
        ("value = 12", 'value = 12\nuncertain = "no"', "field 'uncertain' is 'no', must be true or false"),
        ("value = 12", "value = 12\nnote = 3", "field 'note' is 3, must be a text"),
        ('model = "resnet18"', 'model = ""', "field 'model' is '', must be a text that is not empty"),
        ("value = 12", "value = 12\nvalu = 3", "claim 'mine-1': unknown field 'valu'; allowed: chance, "),
        ('regime = "collapsed"', 'regime = "collapse"', "field 'regime' is 'collapse', must be one of baseline, coll"),
        ("value = 12", "value = 12\nfitting = 99", "field 'fitting' is 99, must be a table"),
        (
            "value = 12",
            "value = 12\nfitting = { least = 101 }",
            "'fitting': least is 101, must be a number from 0 to 100",
        ),
        (
            "value = 12",
            "value = 12\nfitting = { flat_epochs = 1 }",
            "flat_epochs is 1, must be a whole number of at le",
        ),
        (
            "value = 12",
            "value = 12\nfitting = { flat_within = -1 }",
            "flat_within is -1, must be a number of at least 0",
        ),
        (
            "value = 12",
            "value = 12\nfitting = { most = 1 }",
            "field 'fitting': unknown field 'most'; allowed: flat_epo",
        ),
        ("value = 12", "value = 12\nprotocol = { settings = {} }", "field 'protocol': words are missing"),
        ("value = 12", "value = 12\nprotocol = { words = 1 }", "field 'protocol': words is 1, must be a text that is"),
        ("value = 12", 'value = 12\nprotocol = { words = "w", settings = 1 }', "settings is 1, must be a table"),
        ("value = 12", 'value = 12\nsame_as = "mine-2"', "field 'same_as' is 'mine-2', must be the id of an earlier"),
        ('test = "look"', 'test = "look"\nmore = 1', "statement 'mine-q-1': unknown field 'more'"),
        ('test = "look"', "test = 1", "statement 'mine-q-1': field 'test' is 1"),
        ('id = "mine-q-1"\n', "", "statement 1: field 'id' is missing"),
        ('venue = "a venue"\n', "", "[paper]: field 'venue' is missing"),
        ("[paper]", "[papers]", "unknown field 'papers'; allowed: claim, defaults, paper, readings, stat"),
        ("[[statement]]", "[statement]", "statement is {"),
        ("[[claim]]", "[claim]", "claim is {"),
        ("[paper]", "rows = [", "not a TOML file"),
        ("[[claim]]", '[defaults]\nid = "x"\n[[claim]]', "[defaults]: unknown field 'id'"),
        ("[[claim]]", "[[claim]]\nrows = [{ value = 1 }]", "[[claim]] 1, beside its rows: unknown field 'id'"),
        ("[[claim]]", "[readings]\na = 1\n[[claim]]", "[readings]: a is 1, must be a list of texts that are not empty"),
        ("[[claim]]", '[readings]\na = ["b", ""]\n[[claim]]', "[readings]: a is ['b', ''], must be a list of texts"),
        ("value = 12", 'value = 12\nreadings = ["a"]', "claim 'mine-1': unknown field 'readings'"),
        ("[[claim]]", "[[claim]]\nrows = 3", "unknown field 'id'"),
    ],
)
def test_what_is_wrong_is_named_with_file_record_and_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINIMAL
    path = written(tmp_path, MINIMAL.replace(old, new))
    with pytest.raises(InputError, match=re.escape(message)) as error:
        read_claims(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["claim", "statement"])
def test_an_id_may_not_occur_twice(tmp_path: Path, kind: str) -> None:
    record = MINIMAL[MINIMAL.index(f"[[{kind}]]") :]
    record = record.split("\n[[statement]]")[0] if kind == "claim" else record
    with pytest.raises(InputError, match=rf"{kind} 'mine-.*': field 'id' occurs twice"):
        read_claims(written(tmp_path, MINIMAL + record))


def test_rows_must_be_tables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rows is 3, must be a list of tables"):
        read_claims(written(tmp_path, '[[claim]]\ntable = "1"\nrows = 3'))
    with pytest.raises(InputError, match="claim 1 is 3, must be a table"):
        read_claims(written(tmp_path, '[[claim]]\ntable = "1"\nrows = [3]'))


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.toml: cannot be read"):
        read_claims(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.toml: not a TOML file"):
        read_claims(tmp_path / "binary.toml")


def test_listing_claims_imports_nothing_heavy() -> None:
    code = "import sys; from ule_datasets.papers.claims import select; select('ops-*'); print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "scipy", "pyarrow"} & set(done.stdout.split())
