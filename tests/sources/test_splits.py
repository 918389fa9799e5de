"""The words of splits within names, wherever they stand and however they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ule_datasets.base.errors import InputError
from ule_datasets.sources.splits import (
    UNKNOWN,
    WORDS,
    by_split,
    gaps,
    is_nameless,
    refuse_other_spellings,
    splits_in,
    subject_of,
    words_of,
)

OTHERS = (
    "latest",
    "contest",
    "straining",
    "evaluate",
    "developer",
    "interval",
    "cat",
    "images",
    "übel",
    "naïve",
    "étest",
)
STYLES = (str.lower, str.upper, str.capitalize)
SEPARATORS = ("_", "-", " ", ".", "2", "_001_", "--")


@given(
    st.lists(st.sampled_from((*WORDS, *UNKNOWN, *OTHERS)), min_size=1, max_size=4),
    st.sampled_from(STYLES),
    st.sampled_from(SEPARATORS),
    st.sampled_from(("", "7", "-00001-of-00002")),
)
def test_words_are_found_between_any_separators_in_any_case(
    words: Sequence[str], style: object, separator: str, end: str
) -> None:
    name = separator.join(style(word) for word in words) + end  # type: ignore[operator]
    assert splits_in(name) == {WORDS.get(word, word) for word in words if word in WORDS or word in UNKNOWN}


@given(st.lists(st.sampled_from((*WORDS, "cat", "images")), min_size=1, max_size=4))
def test_words_are_found_in_names_whose_words_begin_with_capitals(words: Sequence[str]) -> None:
    name = words[0] + "".join(word.capitalize() for word in words[1:])
    assert words_of(name) == list(words)


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("train", ()),
        ("train_images", ()),
        ("Test-Set", ()),
        ("valImages2017", ()),
        ("photos of training", ("of",)),
        ("bullet_train", ("bullet",)),
        ("ILSVRC2012_img_train", ("ilsvrc",)),
    ],
)
def test_the_subject_of_a_name_is_what_it_says_besides(name: str, subject: tuple[str, ...]) -> None:
    assert subject_of(name) == subject


@pytest.mark.parametrize(
    ("name", "nameless"),
    [
        ("images", True),
        ("IMG", True),
        ("JPEGImages", True),
        ("data", True),
        ("photo", False),
        ("2017", False),
        ("", False),
    ],
)
def test_some_names_are_of_no_class(name: str, nameless: bool) -> None:
    assert is_nameless(name) is nameless


@given(st.lists(st.integers(0, 12), min_size=1, max_size=10, unique=True), st.integers(1, 12), st.integers(0, 1))
def test_a_series_is_whole_or_what_it_lacks_is_counted(numbers: Sequence[int], count: int, first: int) -> None:
    names = [f"train-{number:05d}-of-{count:05d}.parquet" for number in numbers]
    wanted = set(range(0 if 0 in numbers else 1, count + (0 not in numbers)))
    if lacking := wanted - set(numbers):
        with pytest.raises(InputError, match=rf"lacks {len(lacking)} of the .*, first train-{min(lacking):05d}-of-"):
            by_split(names, "here")
    else:
        assert by_split(names, "here") == {"train": sorted(names)}
    assert by_split(names, "here", complete=False) == {"train": sorted(names)}


def test_two_files_for_one_of_a_series_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"two files for one: train-00000-of-00001 \(copy\).parquet and train-00000-of"
    ):
        by_split(["train-00000-of-00001 (copy).parquet", "train-00000-of-00001.parquet"], "photos")


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (("a/t-0000.tar", "a/t-0003.tar"), ("2 files seem to be missing between a/t-0000.tar and a/t-0003.tar",)),
        (("t-001.tar", "t-002.tar", "s-001.tar", "s-002.tar"), ()),
        (("day-20260101.tar", "day-20260105.tar"), ()),
        (
            ("000000.parquet", "000002.parquet"),
            ("1 file seems to be missing between 000000.parquet and 000002.parquet",),
        ),
    ],
)
def test_gaps_in_a_series_are_said(paths: Sequence[str], said: tuple[str, ...]) -> None:
    assert gaps(paths) == said


@pytest.mark.parametrize(
    ("classes", "named"),
    [
        ({"train": {"Cat"}, "test": {"cat"}}, "class 'Cat' in the train split and 'cat' in the test split"),
        ({"train": {"cat", "dog"}, "test": {"cat", "DOG"}}, "'dog' in the train split and 'DOG' in the test split"),
        ({"train": {"stra\u00dfe"}, "test": {"STRASSE"}}, "'stra\u00dfe' in the train split and 'STRASSE'"),
        ({"train": {"caf\u00e9"}, "test": {"cafe\u0301"}}, "'caf\u00e9' in the train split and 'cafe\u0301'"),
        ({"train": {"Cat", "cat"}, "test": {"cat"}}, ""),
        ({"train": {"Cat", "cat"}, "test": {"Cat", "cat"}}, ""),
        ({"train": {"cat"}, "test": {"cat"}}, ""),
        ({"train": {"cat"}, "test": {"dog"}}, ""),
        ({"train": {"Cat", "cat"}}, ""),
        ({"train": set(), "test": {"cat"}}, ""),
    ],
)
def test_a_class_that_two_splits_spell_otherwise_is_refused(classes: Mapping[str, set[str]], named: str) -> None:
    if named:
        with pytest.raises(InputError, match=f"^photos has the {named}|^photos has the class {named}"):
            refuse_other_spellings(classes, "photos")
    else:
        refuse_other_spellings(classes, "photos")
