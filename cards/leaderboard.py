"""``python -m cards.leaderboard [--out DIR]``: what was measured on datasets, what papers report, what others found.

Writes a site of one page that needs no server, the same as Markdown, and as Parquet for ``load_dataset(DIR)``. Numbers
come from ``cards/measured``, ``cards/looks``, the papers' claims, and ``cards/external.json`` or ``--external FILE``.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import cards
import ule_datasets
from builders import RECIPES
from ule_datasets.base import records, shown
from ule_datasets.base.errors import InputError
from ule_datasets.base.files import expanded, write_atomically
from ule_datasets.base.names import unknown
from ule_datasets.base.templates import environment
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.experiments.effect import Collapse
from ule_datasets.experiments.profiles import PROFILES
from ule_datasets.papers.claims import CLEAN_ACCURACY, Claim, for_dataset

HERE = Path(__file__).parent
EXTERNAL, MEASURED = HERE / "external.json", HERE / "measured"
SCHEMA = "ule-datasets external results 1"
REPORTED = "reported"
"""What stands for a profile where nothing was measured here."""
TONES = {str(Collapse.SHOWN): "good", str(Collapse.PARTIAL): "part", str(Collapse.NOT_SHOWN): "bad"}
HEADINGS = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS", "craft_seconds": "craft, s"}
LOOKS_SHOWN = {"psnr": 1, "ssim": 3, "lpips": 3, "craft_seconds": 0}
"""What is shown of how visible a perturbation is and what it costs, with how many digits."""
FIRST = ("none", "standard")


@dataclass(frozen=True, kw_only=True, slots=True)
class External:
    """A result of somebody else, as it stands in the file."""

    dataset: str
    """A name of the catalogue."""
    strategy: str
    """How the model was trained, e.g. ``standard`` or ``jpeg``."""
    accuracy: float
    """On clean test images, in percent."""
    source: str
    """Who says so, and where: a publication with its table."""
    url: str
    model: str = "resnet18"
    sd: float | None = None
    seeds: int = 1
    unreliable: str = ""
    """Why it is not to be relied upon; empty: nothing is known against it."""

    def __post_init__(self) -> None:
        if self.dataset not in RECIPES:
            raise unknown(f"no dataset {self.dataset!r}", self.dataset, RECIPES, "ule-build --list shows all")
        parse_strategy(self.strategy)
        if not 0 <= self.accuracy <= 100:
            raise InputError(f"accuracy is {self.accuracy}, must be a percentage from 0 to 100")
        if not self.source or not self.url.startswith(("https://", "http://")):
            raise InputError("source and url must say where the number stands")
        if self.seeds < 1 or (self.sd is not None and self.sd < 0):
            raise InputError(f"seeds is {self.seeds} and sd {self.sd}: at least 1, and at least 0 or null")


_Said = tuple[tuple[Claim, ...], tuple[External, ...]]
"""What papers, and what others, say of a dataset under one way of training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Externals:
    schema: str
    results: tuple[External, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A dataset under one way of training: measured here, or only said elsewhere. Accuracies are in percent."""

    dataset: str
    methods: str
    reduced: str
    """What is smaller than in the paper; empty: nothing."""
    strategy: str
    profile: str
    """``reported``: nothing was measured here."""
    model: str
    accuracy: float | None = None
    """On clean test images, after the last epoch, mean over the seeds."""
    sd: float | None = None
    seeds: int = 0
    control: float | None = None
    """Of the same model, trained on the clean images."""
    control_sd: float | None = None
    verdict: str = ""
    """On the collapse."""
    reported: float | None = None
    """By the dataset's paper, of the model that this one stands for."""
    reported_in: str = ""
    claim: str = ""
    """What the runs say of the reported number."""
    external: tuple[External, ...] = ()
    command: str = ""
    """Repeats the measurement."""
    hardware: str = ""
    date: str = ""
    perturbation_digest: str = ""
    outdated: bool = False
    """Whether it was measured on what an earlier version of the recipe makes."""

    @property
    def anchor(self) -> str:
        """Where its run is on the page."""
        return "-".join(("run", self.dataset, self.profile, self.model, self.strategy)).replace("+", "_")


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """One line of the leaderboard: a dataset, trained on by one model of one profile, under every countermeasure."""

    rows: tuple[Row, ...]
    look: Mapping[str, Any]

    @property
    def first(self) -> Row:
        """What all its rows have in common."""
        return self.rows[0]

    @property
    def worst(self) -> Row | None:
        """Where the dataset protects least, of what was measured; of what is reported, where nothing was."""
        known = [row for row in self.rows if _value(row) is not None and row.verdict != str(Collapse.INCONCLUSIVE)]
        return max(known, key=lambda row: _value(row) or 0.0, default=None)

    def under(self, strategy: str) -> Row | None:
        """Its row for a countermeasure."""
        return next((row for row in self.rows if row.strategy == strategy), None)


def _value(row: Row) -> float | None:
    return row.reported if row.profile == REPORTED else row.accuracy


def main(arguments: list[str] | None = None) -> None:
    """Write the leaderboard into a folder."""
    options = argparse.ArgumentParser(prog="python -m cards.leaderboard", description="Write the leaderboard.")
    options.add_argument("--out", type=expanded, default=Path("leaderboard"), metavar="DIR", help="Where it goes.")
    options.add_argument("--external", type=expanded, default=EXTERNAL, metavar="FILE", help="Results of others.")
    given = options.parse_args(arguments)
    rows = leaderboard(externals(given.external))
    write(rows, given.out)
    print(f"{len(rows)} results: {given.out / 'index.html'}")


def externals(path: Path) -> tuple[External, ...]:
    """Results of others, each checked.

    Raises:
        InputError: the file has another schema, or a result is not what it has to be; names its place.
    """
    found = records.read(_Externals, path)
    if found.schema != SCHEMA:
        raise InputError(f"{path}: schema is {found.schema!r}, must be {SCHEMA!r}")
    return found.results


def leaderboard(others: Sequence[External] = ()) -> list[Row]:
    """Everything that is known, datasets in the order of the catalogue; what was measured first."""
    rows: list[Row] = []
    measured = ule_datasets.results()
    for entry in ule_datasets.recipes():
        about: dict[str, Any] = {
            "dataset": entry.name,
            "methods": " + ".join(entry.methods),
            "reduced": entry.reduced or "",
        }
        said = _said(entry.name, others)
        seen = set()
        for record in (one for one in measured if one["dataset"] == entry.name):
            model = "resnet18" if PROFILES[record["profile"]].stand_in == record["model"] else record["model"]
            cell = model, record["strategy"]
            seen.add(cell)
            rows.append(_measured(about, record, *said.get(cell, ((), ()))))
        for (model, strategy), (claims, external) in said.items():
            if (model, strategy) not in seen:
                how: dict[str, Any] = {"strategy": strategy, "profile": REPORTED, "model": model}
                rows.append(Row(**about, **how, **_reported(claims), external=external))
    return rows


def _said(name: str, others: Iterable[External]) -> dict[tuple[str, str], _Said]:
    """What papers and others say of a dataset, by model and strategy."""
    found: dict[tuple[str, str], _Said] = {}
    for claim in for_dataset(name):
        if claim.metric == CLEAN_ACCURACY and not claim.variant:
            claims, external = found.get(cell := (claim.model, _canonical(claim.strategy)), ((), ()))
            found[cell] = (*claims, claim), external
    for other in others:
        if other.dataset == name:
            claims, external = found.get(cell := (other.model, _canonical(other.strategy)), ((), ()))
            found[cell] = claims, (*external, other)
    return found


def _canonical(strategy: str) -> str:
    """A strategy's name here; one that is not here keeps the paper's."""
    try:
        return parse_strategy(strategy).name
    except InputError:
        return strategy


def _reported(claims: Sequence[Claim]) -> dict[str, Any]:
    """The number of the paper, the first where there are several, and where all are."""
    if not claims:
        return {}
    where = dict.fromkeys(f"{each.printed} in {each.paper.upper()}, Table {each.table}" for each in claims)
    return {"reported": claims[0].value, "reported_in": "; ".join(where)}


def _measured(
    about: Mapping[str, Any], record: Mapping[str, Any], claims: Sequence[Claim], external: tuple[External, ...]
) -> Row:
    judged = {one["id"]: one for one in record["claims"]}
    own = next((judged[claim.id] for claim in claims if claim.id in judged), None)
    return Row(
        **about,
        strategy=record["strategy"],
        profile=record["profile"],
        model=record["model"],
        accuracy=record["poisoned"],
        sd=record["poisoned_sd"],
        seeds=len(record["seeds"]),
        control=record["clean"],
        control_sd=record["clean_sd"],
        verdict=record["verdict"],
        **_reported(claims),
        claim="" if own is None else f"number {own['level']}, effect {own['effect']}",
        external=external,
        command=record["command"],
        hardware=record["hardware"],
        date=record["date"],
        perturbation_digest=record["perturbation_digest"] or "",
        outdated=record["recipe_digest"] != RECIPES[record["dataset"]].digest,
    )


def boards(rows: Iterable[Row]) -> list[Board]:
    """Lines of the leaderboard."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.dataset, row.profile, row.model), []).append(row)
    return [Board(rows=tuple(own), look=_look(own[0].dataset)) for own in found.values()]


def _look(name: str) -> Mapping[str, Any]:
    return {**dict.fromkeys(LOOKS_SHOWN), **cards.look(name)}


def columns(rows: Iterable[Row]) -> list[str]:
    """Countermeasures: none at all and crop and flip first, then those that most is known of."""
    known: dict[str, list[int]] = {}
    for row in rows:
        counts = known.setdefault(row.strategy, [0, 0])
        counts[0] -= row.profile != REPORTED
        counts[1] -= 1
    others = sorted(known.keys() - set(FIRST), key=lambda name: (known[name], name))
    return [*(name for name in FIRST if name in known), *others]


def write(rows: Sequence[Row], folder: Path) -> None:
    """The page, the text, the table, and the measured files that the page leads to."""
    lines = boards(rows)
    looks = {what: digits for what, digits in LOOKS_SHOWN.items() if any(line.look[what] is not None for line in lines)}
    common = {"columns": columns(rows), "tones": TONES, "headings": HEADINGS, "REPORTED": REPORTED}
    found = {"boards": lines, "rows": rows, "looks": looks, **common}
    for name, place in (("index.html", shown.html), ("leaderboard.md", shown.markdown)):
        made = environment(place, trim_blocks=True, lstrip_blocks=True)
        made.filters.update(number=_number, spread=_spread)
        template = made.from_string((HERE / f"leaderboard.{name.rpartition('.')[2]}.jinja").read_text(encoding="utf-8"))
        write_atomically(folder / name, template.render(**found))
    for path in sorted(MEASURED.glob("*.json")):
        write_atomically(folder / "measured" / path.name, path.read_bytes())
    write_atomically(folder / "README.md", DATASET_CARD)
    (folder / "data").mkdir(exist_ok=True)
    pq.write_table(table(rows), folder / "data" / "results.parquet")


DATASET_CARD = """---
configs:
- config_name: leaderboard
  default: true
  data_files: data/results.parquet
---
# Leaderboard

`load_dataset("THIS FOLDER")` opens every result; `index.html` and `leaderboard.md` show them.
"""


def table(rows: Sequence[Row]) -> pa.Table:
    """A row for each result; columns are the fields of ``Row``."""
    text, number = pa.string(), pa.float64()
    kinds: dict[str, pa.DataType] = {
        "bool": pa.bool_(),
        "str": text,
        "float": number,
        "float | None": number,
        "int": pa.int64(),
    }
    other = pa.struct([(each.name, kinds[str(each.type)]) for each in dataclasses.fields(External)])
    kinds["tuple[External, ...]"] = pa.list_(other)
    schema = pa.schema([(each.name, kinds[str(each.type)]) for each in dataclasses.fields(Row)])
    return pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=schema)


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _spread(value: float | None, sd: float | None) -> str:
    return _number(value) + ("" if sd is None else f" ± {sd:.1f}")


if __name__ == "__main__":
    main()
