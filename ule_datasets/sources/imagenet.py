"""ImageNet: its classes, all of them or the first hundred, and the lists that label its validation images."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ule_datasets.base.errors import InputError
from ule_datasets.sources.spec import Licence, Preprocess, SourceSpec

LABEL_LISTS = ("LOC_val_solution.csv", "imagenet_2012_validation_synset_labels.txt")
"""Files that say what class each validation image is of: Kaggle's, and the one that TensorFlow's tools come with."""

SHARE_TO_RECOGNISE = 0.95
"""Of names that must agree with ours for a list to be that of ImageNet's classes."""

ENGLISH: dict[str, str] = dict(
    line.split("\t") for line in Path(__file__).with_name("imagenet_classes.tsv").read_text("utf-8").splitlines()
)
"""An English name for each of the 1,000 classes, by WordNet identifier (``n01440764``), in the identifiers' order."""

WNIDS = tuple(ENGLISH)
"""What the classes are called, and the folders of the official archive."""

IMAGENET1K = SourceSpec(
    name="imagenet1k",
    title="ImageNet-1k",
    url="https://www.image-net.org/",
    class_names=WNIDS,
    digests=None,
    num_images=(("train", 1_281_167), ("test", 50_000)),
    default_location="hub:ILSVRC/imagenet-1k",
    flippable=True,
    licence=Licence(
        hub_id="other",
        text="ImageNet is lent to researchers for non-commercial research and education, and may not be passed on.",
        redistributable=False,
    ),
    citation="russakovsky2015imagenet",
    hub_id="ILSVRC/imagenet-1k",
    preprocess=Preprocess(resize=256, crop=224, convert="RGB"),
    keyed_by="name",
)
"""All 1,000 classes; the validation split serves as the test split.

Not pinned: decoders of JPEG differ by a grey level here and there, so digests hold for one of them only.
"""

IMAGENET100 = replace(
    IMAGENET1K,
    name="imagenet100",
    title="ImageNet-100",
    class_names=WNIDS[:100],
    num_images=(("train", 129_395), ("test", 5_000)),
    subset=True,
)
"""The first hundred classes of ImageNet-1k in the order of their identifiers."""


def wnids_for(class_names: tuple[str, ...]) -> tuple[str, ...] | None:
    """WordNet identifiers of ImageNet's classes under other names, such as the Hub's (``tench, Tinca tinca``).

    All of them if nearly every name shares a word with our English one of the same place; ``None`` for anything else,
    such as other classes, or the same ones in another order.
    """
    if len(class_names) != len(WNIDS):
        return None
    agreeing = sum(
        not _words(name).isdisjoint(_words(english))
        for name, english in zip(class_names, ENGLISH.values(), strict=True)
    )
    return WNIDS if agreeing >= SHARE_TO_RECOGNISE * len(WNIDS) else None


def validation_labels(folders: Iterable[Path]) -> tuple[Path, dict[str, str]] | None:
    """The first of ``LABEL_LISTS`` in the first folder that has one, or ``None``.

    It comes with the WordNet identifier of each validation image by the image's name without suffix.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    path = next((folder / name for folder in folders for name in LABEL_LISTS if (folder / name).is_file()), None)
    if path is None:
        return None
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if path.name == LABEL_LISTS[0]:
        labels = _kaggles(path, lines)
    else:  # a class per line, in the order of the images
        labels = {f"ILSVRC2012_val_{number:08d}": line.strip() for number, line in enumerate(lines, start=1)}
    for name, wnid in labels.items():
        if wnid not in ENGLISH:
            raise InputError(f"{path}: the label of {name} is {wnid!r}, not a class of ImageNet such as n01440764")
    return path, labels


def _kaggles(path: Path, lines: list[str]) -> dict[str, str]:
    """Of a table with the image's name and, after its class, boxes around what it shows."""
    rows = csv.DictReader(lines)
    expected = ["ImageId", "PredictionString"]
    if rows.fieldnames != expected:
        raise InputError(f"{path} has columns {rows.fieldnames}, expected {expected}")
    return {row["ImageId"]: (row["PredictionString"] or "").partition(" ")[0] for row in rows}


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower()))
