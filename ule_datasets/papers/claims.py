"""What the papers print, number by number, as data: one TOML file per paper.

A file holds::

    [paper]         key, title, venue, arxiv
    [defaults]      fields that every claim has unless it says otherwise; as tables of their own, [defaults.protocol]
                    (see ``Protocol``) and [defaults.fitting] (see ``Fitting``)
    [readings]      datasets that a slug may mean besides, as lists of slugs (see ``Claim.readings``)
    [[claim]]       one claim; or, with ``rows = [...]``, several that share its other fields
    [[statement]]   a sentence of the paper that is not a number, and how it is tested

Every number is carried exactly as printed. What is not from the papers: ``regime``, ``clean_reference``, ``chance``.
Nothing but the standard library is imported here, so that the command line lists claims at once.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from ule_datasets.base.errors import InputError
from ule_datasets.base.names import unknown

PAPERS = ("ops", "le", "uc")
"""Keys of the papers, in the order in which their claims are listed; each is a file here."""
CLEAN_ACCURACY = "clean test accuracy, %"
"""The metric of nearly every claim."""
FOLDER = Path(__file__).parent


class Regime(StrEnum):
    """What kind of number a claim is; worked out from the paper's own clean value, not printed there."""

    BASELINE = "baseline"
    """Of a model trained on clean data."""
    COLLAPSED = "collapsed"
    """At most 25 % of the way from chance to the clean value."""
    PARTIAL = "partial"
    """Between collapsed and recovered."""
    RECOVERED = "recovered"
    """At least 85 % of that way."""
    ANALYSIS = "analysis"
    """Another accuracy than that on the clean test split."""
    COST = "cost"
    """A time, or a share of one."""
    SIZE = "size"
    """A number of parameters."""


WITHOUT_EFFECT = (Regime.ANALYSIS, Regime.COST, Regime.SIZE)
"""Claims of these kinds have a number, and no statement behind it that could hold without it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How a paper trained what its numbers are about: only runs of it are held against them with full power."""

    words: str
    """For people."""
    settings: tuple[tuple[str, Any], ...] = ()
    """(path, value) in a run's protocol as JSON values, e.g. ``("schedule.is", "Cosine")``; none: the recipe is not
    known, and no run is of it."""

    def departures(self, protocol: Mapping[str, Any]) -> str:
        """Where a run's protocol is another one, e.g. ``batch_size 128 instead of 512``; empty: it is this one."""
        if not self.settings:
            return "its recipe is not known"
        found = [(path, _at(protocol, path), value) for path, value in self.settings]
        return ", ".join(
            f"{path} {'none' if own is None else own} instead of {value}" for path, own, value in found if own != value
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitting:
    """How far runs of full length must have fitted their training data.

    Every run's last training accuracy must reach ``least``, unless runs of the same model and strategy on clean data
    do not. Then runs must have trained their whole schedule, be flat at its end, and be no lower than those on clean
    data in the mean.
    """

    least: float = 99.0
    """Percent."""
    flat_epochs: int = 10
    """The end of a schedule: so many last epochs."""
    flat_within: float = 0.5
    """Percentage points that an epoch of these may lie from their mean."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One printed number and the experiment that it is said to come from."""

    id: str
    """Stable and unique, begins with the paper's key."""
    paper: str
    table: str
    """Number or letter of the table; ``text``: stated in a sentence."""
    metric: str
    """What the value measures, and its unit."""
    value: float
    """The printed number; accuracies are percentages on the 0 to 100 scale."""
    std: float | None = None
    """Spread over runs, where the paper prints one; every other number must be taken for a single run."""
    runs: int | None = None
    """How many runs the printed spread is over."""
    train_dataset: str
    """Slug, see ``glossary.toml``; ``none`` where nothing is trained."""
    test_dataset: str
    """``<dataset>-test``, ``<dataset>-val``, or ``...-train`` where training images are evaluated."""
    model: str
    strategy: str
    """Parts joined by ``+`` are applied together."""
    regime: Regime
    clean_reference: float | None = None
    """What the regime was worked out with: the clean value of the same table, model and strategy, or else of standard
    training in the same paper, which may be another model's."""
    chance: float | None = None
    """Accuracy of guessing on the evaluation set, %."""
    same_as: str | None = None
    """Id of an earlier claim that prints the same number for the same experiment."""
    uncertain: bool = False
    """The source leaves dataset, model or unit open, and it was inferred."""
    note: str = ""
    variant: str = ""
    """Settings by which a row of an ablation departs from its strategy; empty: none."""
    protocol: Protocol | None = None
    """The paper's own where that is not the profile ``paper``; ``None``: what a profile may say is enough."""
    fitting: Fitting = Fitting()
    readings: tuple[str, ...] = ()
    """Other datasets that the number may be about, because a paper's text and code differ: it is refuted only if it
    comes out with none of them."""

    @property
    def printed(self) -> str:
        """The number as printed, with its spread."""
        return f"{self.value:g}" + ("" if self.std is None else f" ± {self.std:g}")

    @property
    def experiment(self) -> tuple[str, str, str, str]:
        """(training set, test set, model, strategy): claims with the same one are judged on the same runs.

        An ablation's variant follows the strategy in brackets, so that it is no other claim's experiment.
        """
        strategy = f"{self.strategy} ({self.variant})" if self.variant else self.strategy
        return self.train_dataset, self.test_dataset, self.model, strategy


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """A sentence that is not a number, and what would have to come out for it to hold."""

    id: str
    paper: str
    where: str
    """Place in the paper; says so where the sentence is our own reading."""
    statement: str
    test: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    """Where claims come from."""

    key: str
    title: str
    venue: str
    arxiv: str


def all_claims() -> dict[str, Claim]:
    """Every claim by its id: papers in the order of ``PAPERS``, claims in the order of the tables."""
    return {id: claim for key in PAPERS for id, claim in _catalogued(key)[1].items()}


def statements() -> dict[str, Statement]:
    """Every statement by its id."""
    return {id: statement for key in PAPERS for id, statement in _catalogued(key)[2].items()}


def papers() -> dict[str, Paper]:
    """The papers by their keys."""
    return {key: paper for key in PAPERS if (paper := _catalogued(key)[0]) is not None}


def select(pattern: str, claims: Mapping[str, Claim] | None = None) -> tuple[Claim, ...]:
    """The claims whose ids match, each once and in the order of ``claims``: of the catalogue's if ``None``.

    Args:
        pattern: a glob such as ``ops-t5-*``; several are joined by commas.
        claims: by id.

    Raises:
        InputError: one of the patterns matches nothing; the message names ids that are close.
    """
    claims = all_claims() if claims is None else claims
    patterns = [part.strip() for part in pattern.split(",") if part.strip()]
    for part in patterns or [pattern]:
        if not any(fnmatchcase(id, part) for id in claims):
            raise unknown(f"no claim matches {part!r}", part, claims, "ule-verify --list shows all")
    return tuple(claim for id, claim in claims.items() if any(fnmatchcase(id, part) for part in patterns))


def for_dataset(name: str) -> tuple[Claim, ...]:
    """The claims about models trained on a dataset, in order; none if no paper speaks of it."""
    return tuple(claim for claim in all_claims().values() if claim.train_dataset == name)


def headline(name: str) -> Claim | None:
    """The number a dataset is known by: clean test accuracy of a ResNet-18 under standard training, or ``None``."""
    wanted = [(model, "standard", CLEAN_ACCURACY) for model in ("resnet18", "resnet18-224")]
    return next((c for c in for_dataset(name) if (c.model, c.strategy, c.metric) in wanted), None)


def listed(patterns: Sequence[str], own: Path | None = None) -> tuple[tuple[Claim, ...], tuple[Statement, ...]]:
    """The claims and the statements, of the catalogue and of one's ``own`` file, whose ids match; no patterns: all.

    Raises:
        InputError: a pattern matches neither a claim nor a statement, or the file is not one of claims, or takes an
            id of the catalogue.
    """
    claims, sentences = all_claims(), statements()
    if own is not None:
        _, more, more_sentences = read_claims(own)
        taken = sorted((more.keys() & claims.keys()) | (more_sentences.keys() & sentences.keys()))
        if taken:
            raise InputError(f"{own}: the id {taken[0]} is one of the catalogue's; choose another")
        claims, sentences = {**claims, **more}, {**sentences, **more_sentences}
    if not patterns:
        return tuple(claims.values()), tuple(sentences.values())
    chosen: dict[str, Claim] = {}
    said: dict[str, Statement] = {}
    for part in patterns:
        matching = [id for id in sentences if fnmatchcase(id, part)]
        said.update((id, sentences[id]) for id in matching)
        if not matching or any(fnmatchcase(id, part) for id in claims):
            chosen.update((claim.id, claim) for claim in select(part, claims))
    return tuple(chosen.values()), tuple(said.values())


@cache
def _catalogued(key: str) -> tuple[Paper | None, dict[str, Claim], dict[str, Statement]]:
    return read_claims(FOLDER / f"{key}.toml")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _percentage(value: Any) -> bool:
    return _number(value) and 0 <= value <= 100


def _not_negative(value: Any) -> bool:
    return _number(value) and value >= 0


def _several(value: Any) -> bool:
    return type(value) is int and value >= 2


_Check = tuple[str, Callable[[Any], bool]]
_TEXT: _Check = ("a text that is not empty", _text)
_ANY_TEXT: _Check = ("a text", lambda value: isinstance(value, str))
_NUMBER: _Check = ("a finite number", _number)
_TABLE: _Check = ("a table", lambda value: isinstance(value, dict))
_CHECKS: dict[str, _Check] = {
    "value": _NUMBER,
    "std": ("a number of at least 0", _not_negative),
    "runs": ("a whole number of at least 2", _several),
    "regime": (f"one of {', '.join(Regime)}", lambda value: value in tuple(Regime)),
    "clean_reference": _NUMBER,
    "chance": ("a number from 0 to 100", _percentage),
    "uncertain": ("true or false", lambda value: isinstance(value, bool)),
    "note": _ANY_TEXT,
    "variant": _ANY_TEXT,
    "protocol": _TABLE,
    "fitting": _TABLE,
}
"""What a field must be; those not named are texts."""
_WITHIN: dict[str, dict[str, _Check]] = {
    "protocol": {"words": _TEXT, "settings": _TABLE},
    "fitting": {
        "least": ("a number from 0 to 100", _percentage),
        "flat_epochs": ("a whole number of at least 2", _several),
        "flat_within": ("a number of at least 0", _not_negative),
    },
}
"""The same of the fields of a field that is a table; all but ``words`` may be left out."""
_OPTIONAL = {
    *("std", "runs", "clean_reference", "chance", "same_as", "uncertain", "note", "variant", "protocol", "fitting")
}
_FLOATS = ("value", "std", "clean_reference", "chance")


def read_claims(path: Path) -> tuple[Paper | None, dict[str, Claim], dict[str, Statement]]:
    """Paper, claims and statements of a file, one of this package or one's own.

    Raises:
        InputError: the file cannot be read, or a field is unknown, missing or of the wrong type, or an id occurs twice;
            names the file, the record and the field.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise InputError(f"{path}: not a TOML file ({error})") from error
    _refuse_unknown(document, {"paper", "defaults", "readings", "claim", "statement"}, f"{path}")
    paper = None
    if "paper" in document:
        paper = Paper(**_fields_of(Paper, _table(document["paper"], f"{path}: [paper]"), f"{path}: [paper]"))
    inherited = {} if paper is None else {"paper": paper.key}
    readings = _readings(document, path)
    claims: dict[str, Claim] = {}
    for where, record in _claim_records(document, inherited, path):
        checked = _fields_of(Claim, record, where)
        checked.update({name: float(checked[name]) for name in _FLOATS if name in checked})
        made = {"regime": Regime(checked["regime"]), **_made_of_tables(checked, where)}
        claim = Claim(**{**checked, **made, "readings": readings.get(checked["train_dataset"], ())})
        if claim.id in claims:
            raise InputError(f"{where}: field 'id' occurs twice")
        if claim.same_as is not None and claim.same_as not in claims:
            raise InputError(f"{where}: field 'same_as' is {claim.same_as!r}, must be the id of an earlier claim")
        claims[claim.id] = claim
    found: dict[str, Statement] = {}
    for index, raw in enumerate(_list(document.get("statement", []), f"{path}: statement")):
        record = inherited | _table(raw, f"{path}: statement {index + 1}")
        where = _name(path, "statement", index, record)
        statement = Statement(**_fields_of(Statement, record, where))
        if statement.id in found:
            raise InputError(f"{where}: field 'id' occurs twice")
        found[statement.id] = statement
    return paper, claims, found


def _readings(document: Mapping[str, Any], path: Path) -> dict[str, tuple[str, ...]]:
    """The datasets that a slug may mean besides, by slug."""
    found = {}
    for name, others in _table(document.get("readings", {}), f"{path}: [readings]").items():
        if not isinstance(others, list) or not all(map(_text, others)):
            raise InputError(f"{path}: [readings]: {name} is {others!r}, must be a list of texts that are not empty")
        found[name] = tuple(others)
    return found


def _claim_records(
    document: dict[str, Any], inherited: dict[str, str], path: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name for messages, fields) of every claim, defaults and shared fields filled in."""
    defaults = _table(document.get("defaults", {}), f"{path}: [defaults]")
    known = {field.name for field in fields(Claim)} - {"readings"}
    _refuse_unknown(defaults, known - {"id", "value"}, f"{path}: [defaults]")
    index = 0
    for number, raw in enumerate(_list(document.get("claim", []), f"{path}: claim")):
        shared = dict(_table(raw, f"{path}: [[claim]] {number + 1}"))
        rows = shared.pop("rows", None)
        if rows is not None:
            _refuse_unknown(shared, known - {"id", "value"}, f"{path}: [[claim]] {number + 1}, beside its rows")
        for row in [{}] if rows is None else _list(rows, f"{path}: [[claim]] {number + 1}: rows"):
            record = inherited | defaults | shared | _table(row, f"{path}: claim {index + 1}")
            yield _name(path, "claim", index, record), record
            index += 1


def _name(path: Path, kind: str, index: int, record: Mapping[str, Any]) -> str:
    """How messages call a record: by its id if it has one, else by its place."""
    return f"{path}: {kind} {record['id']!r}" if _text(record.get("id")) else f"{path}: {kind} {index + 1}"


def _fields_of(kind: type[Claim | Statement | Paper], record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The record, after checking that its fields are those of the class and of the right type."""
    names = [field.name for field in fields(kind) if field.name != "readings"]
    _refuse_unknown(record, set(names), where)
    optional = _OPTIONAL if kind is Claim else set()
    for name in names:
        if name not in record:
            if name not in optional:
                raise InputError(f"{where}: field {name!r} is missing")
            continue
        wanted, holds = _CHECKS.get(name, _TEXT) if kind is Claim else _TEXT
        if not holds(record[name]):
            raise InputError(f"{where}: field {name!r} is {record[name]!r}, must be {wanted}")
    return dict(record)


def _made_of_tables(record: Mapping[str, Any], where: str) -> dict[str, Protocol | Fitting]:
    """Those fields of a claim that are tables, after checking what is in them."""
    for name, checks in _WITHIN.items():
        table = record.get(name, {})
        _refuse_unknown(table, set(checks), f"{where}: field {name!r}")
        for key, value in table.items():
            wanted, holds = checks[key]
            if not holds(value):
                raise InputError(f"{where}: field {name!r}: {key} is {value!r}, must be {wanted}")
    found: dict[str, Protocol | Fitting] = {}
    if "protocol" in record:
        if "words" not in record["protocol"]:
            raise InputError(f"{where}: field 'protocol': words are missing")
        settings = tuple(_flattened(record["protocol"].get("settings", {})))
        found["protocol"] = Protocol(words=record["protocol"]["words"], settings=settings)
    if "fitting" in record:
        found["fitting"] = Fitting(**record["fitting"])
    return found


def _flattened(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of everything in a table of tables."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _at(content: Mapping[str, Any], path: str) -> Any:
    """What is at a path; ``None``: nothing."""
    found: Any = content
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _refuse_unknown(record: Mapping[str, Any], allowed: set[str], where: str) -> None:
    unknown = sorted(set(record) - allowed)
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; allowed: {', '.join(sorted(allowed))}")


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} is {value!r}, must be a table")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where} is {value!r}, must be a list of tables")
    return value
