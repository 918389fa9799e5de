"""Which split a file or folder belongs to: one rule for the words in names, wherever they stand."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Generic, TypeVar

from ule_datasets.base.errors import InputError
from ule_datasets.base.shown import counted

TRAIN, VALIDATION, TEST = "train", "validation", "test"
WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
    "eval": TEST,
    "evaluation": TEST,
}
"""Words that mean a split, as the Hub's ``datasets`` takes them."""
UNKNOWN = {"trainval", "traintest", "minival", "testdev", "holdout", "heldout", "extra", "unsupervised", "unlabeled"}
"""Words that speak of splits too, but of none of ours."""
FILLERS = {"image", "img", "picture", "pic", "photo", "file", "sample", "data", "dataset", "set", "split", "folder"}
"""Words that say nothing about what is in a folder, alone or with an ``s``."""
NAMELESS = {"image", "img", "data", "dataset", "file", "jpeg", "jpg", "png"}
"""Words that are no class of images, alone or with an ``s``."""
_WORD = re.compile(r"[A-Z]?[a-z]+(?=[A-Z\W\d_]|$)|[A-Z]+(?![a-z])|[^\W\d_]+")
_NUMBERED = re.compile(r"(?P<series>.*?)(?P<number>\d{1,9})-of-(?P<count>\d{3,9})(\D[^/]*)?")
_COUNTED = re.compile(r"(?P<series>.*?)(?P<number>\d{3,9})(?P<end>(\.\w+)*)")

Part = TypeVar("Part")


def words_of(name: str) -> list[str]:
    """The words within a name, in lower case: ``train_images``, ``Test-Set`` and ``valImages2`` have two each."""
    return [word.lower() for word in _WORD.findall(name)]


def splits_in(name: str) -> set[str]:
    """The splits that a name speaks of, with what looks like one and is unknown as it stands."""
    return {WORDS.get(word, word) for word in words_of(name) if word in WORDS or word in UNKNOWN}


def subject_of(name: str) -> tuple[str, ...]:
    """What a name says besides a split: empty for ``train_images``, ``("bullet",)`` for ``bullet_train``."""
    return tuple(word for word in words_of(name) if word not in WORDS and not {word, word[:-1]} & FILLERS)


def is_nameless(name: str) -> bool:
    """Whether a folder is called like what is in it (``images``, ``JPEGImages``) and not like a class."""
    words = words_of(name)
    return bool(words) and all({word, word[:-1]} & NAMELESS for word in words)


def split_of(name: str, place: object) -> str | None:
    """The split that a name speaks of, known or not; ``None`` if it speaks of none.

    Raises:
        InputError: it speaks of several; ``place`` says whose name it is.
    """
    found = splits_in(name)
    if len(found) > 1:
        raise InputError(f"{place} speaks of several splits ({', '.join(sorted(found))}): give it the name of one")
    return next(iter(found), None)


def split_of_file(path: str, place: object) -> str | None:
    """The split that a file's name speaks of, else the name of a folder that it is in, the inmost first.

    Raises:
        InputError: as ``split_of`` does.
    """
    parts = reversed(PurePosixPath(path).with_suffix("").parts)
    return next(filter(None, (split_of(part, place) for part in parts)), None)


class UnknownSplitError(InputError):
    """Something looks like a split, but not like one of ours."""

    def __init__(self, place: object, word: str) -> None:
        super().__init__(
            f"{place} looks like a split that is not known ({word!r}): give it the name of one ({', '.join(WORDS)})"
        )
        self.word = word


@dataclass(frozen=True, slots=True)
class Chosen(Generic[Part]):
    """The splits that a dataset is made of, of those that a source has."""

    splits: Mapping[str, Part]
    """``train`` and ``test``, as far as there are such."""
    test_is: str = ""
    """What the source calls the test split: ``validation`` or ``test``; empty if there is none."""
    unused: str = ""
    """The other one of the two, where there are both."""
    gaps: tuple[str, ...] = ()
    """Files that seem to be missing, in words."""

    @property
    def names(self) -> dict[str, str]:
        """What the source calls a split that has another name here."""
        return {TEST: self.test_is} if self.test_is not in ("", TEST) else {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say about the choice; nothing where there was none."""
        if not self.unused:
            return self.gaps
        return (
            *self.gaps,
            f"the {self.test_is} split is the clean test split; the {self.unused} split is not used "
            f"(--test-split {self.unused} takes it instead)",
        )


def choose(
    found: Mapping[str, Part], place: object, test_split: str | None, is_labelled: Callable[[Part], bool]
) -> Chosen[Part]:
    """Decide which split serves as the clean test split: the one asked for, else ``test`` where it has labels.

    Raises:
        InputError: the one asked for is not there.
    """
    there = [name for name in (TEST, VALIDATION) if name in found]
    if test_split is None:
        withheld = len(there) == 2 and not is_labelled(found[TEST])
        test = (VALIDATION if withheld else there[0]) if there else ""
    else:
        asked = splits_in(test_split)
        test = next(iter(asked), "")
        if test not in there or len(asked) > 1:
            raise InputError(f"{place} has no split {test_split!r}; found {', '.join(found) or 'none'}")
    splits = {TRAIN if name == TRAIN else TEST: part for name, part in found.items() if name in (TRAIN, test)}
    return Chosen(splits, test, next((name for name in there if name != test), ""))


def by_split(paths: Iterable[str], place: object, *, complete: bool = True) -> dict[str, list[str]]:
    """Files by the split that their names speak of, sorted; ``train`` where no name speaks of one.

    They should be all the files of their series, unless one was picked out (``complete=False``).

    Raises:
        InputError: a name speaks of several splits, or of none of ours beside others that do; or of a series
            ``NAME-00000-of-00002`` some files are missing.
    """
    found: dict[str | None, list[str]] = {}
    for path in in_order(paths):
        found.setdefault(split_of_file(path, f"{place}: {path}"), []).append(path)
    known = [split for split in found if split in WORDS.values()]
    series = {split: _check_numbers(listed, place) for split, listed in found.items()} if complete else {}
    for split, listed in found.items():
        if split is not None and split not in known and len(found) > 1:
            raise UnknownSplitError(f"{place}: {listed[0]}", split)
    if known and (others := [name for name in series.get(None, ()) if words_of(PurePosixPath(name).name)]):
        raise UnknownSplitError(f"{place}: {others[0]}", words_of(PurePosixPath(others[0]).name)[0])
    joined: dict[str, list[str]] = {}
    for split, listed in found.items():
        joined.setdefault(split if split in known else TRAIN, []).extend(listed)  # type: ignore[arg-type]
    ordered = {split: in_order(listed) for split, listed in joined.items()}
    return dict(sorted(ordered.items(), key=lambda item: item[1][0].split("/")))


def _check_numbers(paths: Sequence[str], place: object) -> list[str]:
    """The names of series ``NAME-00000-of-00002`` among some files, each of which has every file, and has it once."""
    series: dict[tuple[str, str], dict[int, str]] = {}
    for path in paths:
        if numbered := _NUMBERED.fullmatch(path):
            number, members = int(numbered["number"]), series.setdefault((numbered["series"], numbered["count"]), {})
            if number in members:
                raise InputError(f"{place} has two files for one: {members[number]} and {path}; move one out of it")
            members[number] = path
    for (name, count), numbers in series.items():
        first = 0 if 0 in numbers else 1
        lacking = int(count) - sum(first <= number < first + int(count) for number in numbers)
        if lacking > 0:
            missing = next(number for number in itertools.count(first) if number not in numbers)
            raise InputError(
                f"{place} lacks {lacking:,} of the {int(count):,} files {name}*-of-{count}, first "
                f"{name}{missing:0{len(count)}d}-of-{count}: fetch what is missing, or give one file with --source"
            )
    return [name for name, _ in series]


def gaps(paths: Iterable[str]) -> tuple[str, ...]:
    """What to say of series ``NAME-000000``, ``NAME-000002`` of which numbers in between are missing."""
    series: dict[tuple[str, int, str], list[int]] = {}
    for path in paths:
        if parts := _COUNTED.fullmatch(path):
            key = parts["series"], len(parts["number"]), parts["end"]
            series.setdefault(key, []).append(int(parts["number"]))
    return tuple(
        f"{counted(missing, 'file seems', 'files seem')} to be missing between {name}{min(numbers):0{digits}d}{end} "
        f"and {name}{max(numbers):0{digits}d}{end}"
        for (name, digits, end), numbers in series.items()
        if min(numbers) < 2 and (missing := max(numbers) - min(numbers) + 1 - len(numbers))  # others may be dates
    )


def refuse_other_spellings(classes: Mapping[str, Collection[str]], place: object) -> None:
    """Refuse a class of one split that another split spells otherwise: in other case, or with other Unicode.

    Raises:
        InputError: ``classes``, by split, have such a pair; both are named.
    """
    in_turn = sorted(classes.items(), key=lambda item: item[0] != TRAIN)
    for (split, here), (other, there) in itertools.combinations(in_turn, 2):
        spelled = {_plainly(name): name for name in there if name not in here}
        for name in sorted(set(here).difference(there)):
            if (alike := spelled.get(_plainly(name))) is not None:
                raise InputError(
                    f"{place} has the class {name!r} in the {split} split and {alike!r} in the {other} split: give "
                    "them one name if they are one class, and names that differ in more than case if they are two"
                )


def _plainly(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def in_order(paths: Iterable[str]) -> list[str]:
    """Sorted by the parts of paths."""
    return sorted(paths, key=lambda path: path.split("/"))
