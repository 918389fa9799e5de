"""What there is at the place of a source: a folder or file here, at a URL or on the Hub, as its card describes it."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ule_datasets.base.errors import InputError
from ule_datasets.base.files import expanded
from ule_datasets.places import hub
from ule_datasets.places.remote_path import RemotePath
from ule_datasets.places.urls import is_remote, shown
from ule_datasets.sources.card import FILE_NAME as CARD
from ule_datasets.sources.card import LARGEST, Declared, declared
from ule_datasets.sources.forms import SINGLE_FILES
from ule_datasets.sources.layout import SUFFIXES as IMAGES
from ule_datasets.sources.spec import EMBEDDED
from ule_datasets.sources.splits import TEST, TRAIN, VALIDATION, WORDS, by_split, splits_in
from ule_datasets.sources.tar import SUFFIXES as TAR
from ule_datasets.sources.tree import Listing, Place, Tally, Tree, join, kind_of, suffix_of, walk
from ule_datasets.sources.wanted import Wanted

LOCATIONS = (
    "hub:OWNER/NAME[@REVISION][:CONFIG], digits, or a folder or file (Parquet, WebDataset tar, image folder, the "
    "batches of CIFAR or their archive, SVHN's .mat), here or (but for unpacked batches) at a URL such as "
    "s3://BUCKET/FOLDER"
)
ON_THE_HUB = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?(:(?P<config>.+))?")
SUFFIXES = ((".parquet",), TAR, tuple(IMAGES))
"""What files of each form are called."""
ELSEWHERE = "or give a local copy with --source FOLDER"


def open_place(where: str, wanted: Wanted) -> Tree:
    """List a source; of a larger folder only the classes that are wanted.

    Only what its card declares as data, if it has one that does: of the configuration that ``where`` ends with
    (``FOLDER:CONFIG``, ``hub:OWNER/NAME:CONFIG``; a URL ends with none), or of the default one.

    Raises:
        InputError: nothing there, or a card that is not understood, or leaves open which configuration is meant.
    """
    if is_remote(where):
        tree = walk(RemotePath.at(where, SINGLE_FILES), wanted.only)
        return _by_card(tree, None, shown(where))
    if where.startswith(hub.PREFIX):
        return _on_the_hub(where, wanted)
    refuse_missing(where)
    folder, config = on_this_machine(where)
    tree = walk(folder, wanted.only)
    if config is not None and not _has_card(tree):
        raise InputError(f"--source {where}: {folder} has no card ({CARD}) that describes configurations")
    return _by_card(tree, config, str(folder))


def refuse_missing(where: str) -> None:
    """Refuse a source on this machine that is not there; nobody else is asked.

    Raises:
        InputError: there is nothing.
    """
    here = where != EMBEDDED and not is_remote(where) and not where.startswith(hub.PREFIX)
    if here and not on_this_machine(where)[0].exists():
        raise InputError(f"--source {where}: no such file or folder; give {LOCATIONS}")


def without(where: str, word: str) -> str:
    """How to leave out of a source what is called by a word."""
    if not where.startswith(hub.PREFIX):
        return "move it out of the source"
    found = ON_THE_HUB.fullmatch(where.removeprefix(hub.PREFIX))
    assert found is not None
    revision = f" --revision {found['revision']}" if found["revision"] else ""
    return (
        f"give a copy without it with --source FOLDER: hf download {found['name']} --repo-type dataset{revision} "
        f"--exclude '*{word}*' --local-dir FOLDER"
    )


def _has_card(tree: Tree) -> bool:
    return CARD in tree.folders[""].files and not tree.is_file


def _by_card(tree: Tree, config: str | None, where: str) -> Tree:
    """A listing as the card in it describes it, if there is one that does."""
    if not _has_card(tree):
        return tree
    found = declared(_text(tree.at(CARD)), tree.below(), config, where)
    return tree if found is None else _described(tree, found, _data(tree.below(), found, one_form=False))


def on_this_machine(where: str) -> tuple[Path, str | None]:
    """The path that a location is, and the configuration that it names, if there is such a folder."""
    path = expanded(where)
    for colon in re.finditer(":(?=.)", "" if path.exists() else where):
        if (folder := expanded(where[: colon.start()])).is_dir():
            return folder, where[colon.end() :]
    return path, None


def _on_the_hub(where: str, wanted: Wanted) -> Tree:
    """The data of ``hub:OWNER/NAME[@REVISION][:CONFIG]``, in the Hub's own cache."""
    found = ON_THE_HUB.fullmatch(where.removeprefix(hub.PREFIX))
    if found is None:
        raise InputError(f"{where!r} does not name a dataset: use hub:OWNER/NAME, {ELSEWHERE}")
    snapshot = hub.look_up(found["name"], found["revision"], [CARD], elsewhere=ELSEWHERE)
    place = hub.PREFIX + found["name"] + (f"@{found['revision']}" if found["revision"] else "")
    about = declared(_text(snapshot.folder / CARD), snapshot.sizes, found["config"], place)
    data = _data(snapshot.sizes, about or Declared(), one_form=True)
    if not data:
        raise InputError(f"{found['name']} holds no Parquet files, tar shards or images: name another, {ELSEWHERE}")
    _check_names(data, about or Declared(), place)
    snapshot.fetch(set(data).difference(_of_no_use(about or Declared())), ELSEWHERE)
    return _described(walk(snapshot.folder, wanted.only), about or Declared(), data)


def _of_no_use(about: Declared) -> set[str]:
    """The files of those splits of a card that are none of ours, such as ``extra``."""
    used = _splits(about.files)
    return {path for name, paths in about.files.items() if used and name not in used.values() for path in paths}


def _check_names(data: Collection[str], about: Declared, place: str) -> None:
    """Refuse files by their names, as it is done where they are read, before any of them is fetched."""
    if not about.files and not all(suffix_of(path) in IMAGES for path in data):
        by_split((path for path in data if not any(part.startswith(".") for part in path.split("/"))), place)


def _text(card: Place) -> str:
    """A card, as far as it may be read; empty if there is none."""
    if not card.is_file():
        return ""
    with io.TextIOWrapper(card.open("rb"), encoding="utf-8", errors="replace") as file:
        return file.read(LARGEST + 1)


def _data(paths: Iterable[str], about: Declared, *, one_form: bool) -> Collection[str]:
    """The files that a card speaks of; with ``one_form`` only what forms read, and if it is left open, of the first."""
    if about.files:
        named = {path for listed in about.files.values() for path in listed}
        return {path for path in named if not one_form or suffix_of(path) in itertools.chain(*SUFFIXES)}
    inside = [path for path in paths if not about.folder or path.startswith(f"{about.folder}/")]
    if not one_form:
        return set(inside)
    of_forms = ({path for path in inside if suffix_of(path) in suffixes} for suffixes in SUFFIXES)
    return next((found for found in of_forms if found), set())


def _described(tree: Tree, about: Declared, data: Collection[str]) -> Tree:
    """Of a tree what is data, with what the card says of splits and classes."""
    tally = Tally(tree.passed_over)
    reason = f"not among the data of the card{f' (configuration {about.config})' if about.config else ''}"
    said = about.files or about.folder
    for path in tree.below():
        if path not in data:
            tally.add(reason if said else kind_of(path), path)
    splits = _splits(about.files)
    for name, paths in about.files.items():
        if name not in splits.values():
            tally.add_all(f"of the split {name!r} of the card, which is not used", paths)
    used = {path for name in splits.values() for path in about.files[name]} if splits else data
    filled = {"", *(str(folder) for path in used for folder in PurePosixPath(path).parents)}
    folders = {
        folder: Listing(
            [name for name in listing.files if join(folder, name) in used],
            [name for name in listing.folders if join(folder, name) in filled],
        )
        for folder, listing in tree.folders.items()
        if folder in filled
    }
    said_of = {split: frozenset(about.files[name]) for split, name in splits.items()}
    return replace(tree, folders=folders, passed_over=tally.found, splits=said_of, class_names=about.class_names)


def _splits(names: Collection[str]) -> dict[str, str]:
    """What a card calls our splits: by their own names, else by the only one that has a word for it.

    A lone split is the one to train on, whatever it is called.
    """
    found = {name: name for name in names if name in WORDS.values()}
    words = {name: splits_in(name) for name in names if name not in found}
    for split in (TRAIN, VALIDATION, TEST):
        like = [name for name, spoken in words.items() if spoken == {split}]
        if split not in found and len(like) == 1:
            found[split] = like[0]
    return found or ({TRAIN: next(iter(names))} if len(names) == 1 else {})
