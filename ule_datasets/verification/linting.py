"""A release of others looked at before anybody uses it: what was found, as a page with pictures and as JSON."""

from __future__ import annotations

import base64
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from ule_datasets.base import shown
from ule_datasets.base.files import refuse_unwritable, write_atomically
from ule_datasets.base.options import VERIFICATION, VerifyOptions
from ule_datasets.base.progress import Reporter
from ule_datasets.base.templates import environment
from ule_datasets.compute.executor import available_cpus
from ule_datasets.compute.opening import open_executor
from ule_datasets.data.codec import encode_png
from ule_datasets.imports.evidence import gather
from ule_datasets.imports.lint import Evidence, Finding, Severity, lint
from ule_datasets.imports.matching import NOBODY
from ule_datasets.imports.reading import NOTHING, read_release, release_digest
from ule_datasets.imports.release import Content, Stated
from ule_datasets.sources.given import Given
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.reading import Source, read_source
from ule_datasets.sources.spec import SourceSpec

PICTURES = 12
"""Entries that are shown: those that findings are about, then the first ones."""
SIDE = 96
"""Pixels that a picture has at least, by whole multiples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Linted:
    """What the lint of a release found."""

    file_name: str
    sha256: str
    convention: str
    entries: int
    source: str
    """Which clean images it was held against; empty: none."""
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...]
    report: str
    """The page."""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong; warnings are no errors."""
        return not any(finding.severity is Severity.ERROR for finding in self.findings)

    def lines(self) -> list[str]:
        """For people."""
        against = f", held against {self.source}" if self.source else ", without clean images (give them with --source)"
        return [
            f"{self.file_name}: {self.convention}{against}",
            *(f"{each.severity:<8}{each.check}: {each.text}" for each in self.findings),
            *(f"{Severity.NOTE:<8}reading: {remark}" for remark in self.remarks),
            f"report: {self.report}",
        ]

    def content(self) -> dict[str, Any]:
        """For programs: JSON values."""
        return {**dataclasses.asdict(self), "passed": self.passed}


def lint_release(
    path: Path,
    options: VerifyOptions,
    reporter: Reporter,
    *,
    spec: SourceSpec = OWN_IMAGES,
    stated: Stated = NOTHING,
) -> Linted:
    """Check what others have released, and write the report; against the images of ``options.source``, if it is given.

    Raises:
        InputError: the file cannot be read safely, the clean images are unusable, or the report cannot be written.
    """
    folder = options.report or Path(VERIFICATION) / f"lint-{path.resolve().name}"
    refuse_unwritable(folder, "--report")
    where = Given.of(options.source).settled([spec]).where(spec) or spec.default_location
    workers = available_cpus() if options.workers is None else options.workers
    with (
        tempfile.TemporaryDirectory(prefix="ule-lint-", dir=options.scratch) as spool,
        open_executor(options.executor, workers) as executor,
    ):
        release = read_release(path, executor, reporter, stated)
        source: Source | None = None
        if where is not None:
            source = read_source(spec, where, executor=executor, reporter=reporter, spool=Path(spool))
        splits = {} if source is None else source.splits
        evidence = gather(release, path.name, stated, splits.get("train"), splits.get("test"))
        findings = lint(evidence)
        pictures = _pictures(evidence, findings)
    linted = Linted(
        file_name=path.name,
        sha256=release_digest(path),
        convention=release.convention,
        entries=len(release),
        source="" if source is None else source.location,
        findings=findings,
        remarks=release.remarks,
        report=str(folder / "lint.html"),
    )
    write_atomically(folder / "lint.html", _template().render(linted=linted, pictures=pictures))
    write_atomically(folder / "lint.json", json.dumps(shown.plain(linted.content()), indent=1) + "\n")
    return linted


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """An entry in pictures, as addresses that hold them."""

    name: str
    pictures: tuple[tuple[str, Markup], ...]
    """What each shows, and itself."""


def _pictures(evidence: Evidence, findings: Sequence[Finding]) -> list[_Row]:
    """Entries that findings are about, and the first ones."""
    told = [entry for finding in findings for entry in finding.entries]
    entries = list(dict.fromkeys([*told, *range(min(len(evidence.release), PICTURES))]))[:PICTURES]
    changes = evidence.changes
    largest = 1.0 if changes is None else max(1.0, float(np.nan_to_num(np.abs(changes[entries])).max(initial=0)))
    names = evidence.release.names
    return [_Row(name=names[entry], pictures=tuple(_shown(evidence, entry, largest))) for entry in entries]


def _shown(evidence: Evidence, entry: int, largest: float) -> list[tuple[str, Markup]]:
    found: list[tuple[str, Markup]] = []
    row = NOBODY if evidence.rows is None else int(evidence.rows[entry])
    if row != NOBODY and evidence.clean is not None:
        clean = np.asarray(evidence.clean.images[row])
        found.append(("clean original", _address(clean)))
    if evidence.release.content is Content.IMAGES:
        found.append(("released", _address(np.asarray(evidence.release.values[entry]))))
    if evidence.changes is not None and (row != NOBODY or evidence.release.content is Content.NOISE):
        levels = np.nan_to_num(np.asarray(evidence.changes[entry], dtype=np.float64))
        found.append(
            (f"change, x {127 / largest:.3g}", _address(np.clip(128 + 127 * levels / largest, 0, 255).astype(np.uint8)))
        )
    return found


def _address(image: np.ndarray) -> Markup:
    times = max(1, SIDE // max(image.shape[:2]))
    enlarged = image.repeat(times, axis=0).repeat(times, axis=1)
    data = base64.b64encode(encode_png(np.ascontiguousarray(enlarged))).decode()
    return Markup(f"data:image/png;base64,{data}")  # noqa: S704 (letters and digits)


@cache
def _template() -> jinja2.Template:
    made = environment(shown.html, loader=jinja2.PackageLoader("ule_datasets.verification.report"))
    return made.get_template("lint.html.jinja")
