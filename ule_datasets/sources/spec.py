"""Which clean images a recipe starts from, under what terms, and how they are brought to one size."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ule_datasets.base.errors import InputError
from ule_datasets.sources.wanted import Wanted

EMBEDDED = "digits"
"""The location of images that come with a library that is installed."""
SIZES = {"cifar10": 32, "digits": 32}
"""Rows and columns of the sources whose digests are older than ``SourceSpec.side``."""
PINS = Path(__file__).with_name("pins.json")
"""Digests that were found out when somebody first built from official files: see ``python -m cards.pin``."""


@cache
def pinned() -> dict[str, dict[str, str]]:
    """By source and split, the digests in ``PINS``."""
    found: dict[str, dict[str, str]] = json.loads(PINS.read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Licence:
    """Under what terms a source's images may be passed on."""

    hub_id: str
    """An identifier of the Hub's list; anything else fails its card validation."""
    text: str
    """One sentence for the card."""
    redistributable: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocess:
    """How images of any sizes become images of one size: the shorter side to ``resize``, then the centre."""

    resize: int | None
    """Length of the shorter side in pixels, by Pillow's antialiased bilinear filter; ``None``: crop only."""
    crop: int
    """Side of the square that is cut from the centre, in pixels."""
    convert: str | None = None
    """``RGB``: grey, palette and CMYK images become RGB as Pillow converts them; ``None``: they are refused."""

    def __post_init__(self) -> None:
        if self.convert not in (None, "RGB"):
            raise InputError(f"Preprocess: convert is {self.convert!r}, must be 'RGB' or None")
        if self.crop < 1:
            raise InputError(f"Preprocess: crop is {self.crop}, must be at least 1")
        if self.resize is not None and self.resize < self.crop:
            raise InputError(f"Preprocess: resize is {self.resize}, must be at least the crop of {self.crop}, or None")

    def __str__(self) -> str:
        converted = f"to {self.convert}, " if self.convert else ""
        shorter = f"shorter side to {self.resize} pixels (Pillow's antialiased bilinear filter), then "
        return f"{converted}{shorter if self.resize else ''}the centre {self.crop} x {self.crop}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSpec:
    """Which clean images a recipe starts from, and how to know them."""

    name: str
    title: str
    url: str
    """Where people read about it; empty for one's own images."""
    class_names: tuple[str, ...] | None
    """In label order; ``None``: taken from the data."""
    digests: tuple[tuple[str, str], ...] | None
    """(split, order-free digest) of every split; ``None``: any images are accepted, or those that are pinned."""
    num_images: tuple[tuple[str, int], ...] | None
    """(split, number of images); ``None``: depends on the data."""
    default_location: str | None
    """Where to read from when ``--source`` is not given; ``None``: it must be given."""
    flippable: bool
    """Whether a mirrored image still shows its class (digits do not)."""
    licence: Licence
    citation: str | None = None
    """Key in ``cards/citations.bib``."""
    hub_id: str | None = None
    """The source's own dataset repository, which the card links to."""
    preprocess: Preprocess | None = None
    """Applied to every image before anything else, digests included; ``None``: all must be of one size."""
    keyed_by: str | None = None
    """``name``: the official names of the images are their keys; ``None``: digests of pixels and label are."""
    upright: bool | None = None
    """Whether photographs are turned as their EXIF tag says; ``None``: one's own are, as viewers show them, and those
    of a published source are not, because its papers took the pixels as they are stored."""
    subset: bool | None = None
    """Whether images of classes that are not in ``class_names`` are left out; ``None``: they are refused."""

    test_split: str | None = None
    """Which split serves as the clean test split where there are several; ``None``: ``test`` if it has labels."""
    class_folders: tuple[str, ...] = ()
    """Folders that are classes although they are called like splits."""
    form: str | None = None
    """The form that is read where there are images in several (see ``reading.FORMS``); ``None``: that of its owners,
    else that is refused."""
    side: int | None = None
    """Rows and columns of the images, where all come in one size; ``None``: ``preprocess`` says it, or the data."""
    sums: tuple[tuple[str, str], ...] = ()
    """Name and md5 of the files that the owners give out; others of these names are refused."""
    aliases: tuple[tuple[str, str], ...] = ()
    """What a class is called in some form, and what it is called here."""

    @property
    def wanted(self) -> Wanted:
        """What this asks of a source, whatever its form."""
        classes = frozenset(self.class_names or ())
        return Wanted(
            only=classes if self.subset else None,
            classes=classes,
            test_split=self.test_split,
            class_folders=frozenset(self.class_folders),
            form=self.form,
            source=self.name,
            sums=self.sums,
        )

    @property
    def known_digests(self) -> dict[str, str]:
        """By split, the digests that the images must have, as far as anybody knows them."""
        return dict(self.digests or ()) or (pinned().get(self.name, {}) if self.sums else {})

    @property
    def unpinned(self) -> bool:
        """Whether there is one set of pixels that this can be, and nobody has yet said its digest."""
        return bool(self.sums) and not self.known_digests

    @property
    def published(self) -> bool:
        """Whether others have these images too; if not, they are one's own."""
        return bool(self.url)

    @property
    def turns_upright(self) -> bool:
        """Whether photographs are turned as their EXIF tag says."""
        return not self.published if self.upright is None else self.upright

    @property
    def image_size(self) -> int | None:
        """Rows and columns of the images; ``None``: depends on the data."""
        return self.side or SIZES.get(self.name) if self.preprocess is None else self.preprocess.crop
