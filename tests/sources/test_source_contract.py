"""One contract for every form of a source: the same samples every time, checked, refused in one line, documented."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import FORMS as WRITTEN
from helpers import class_names, make_splits, own_images, write_form

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.split import canonical_order
from ule_datasets.sources import digits
from ule_datasets.sources.digits import DIGITS
from ule_datasets.sources.reading import FORMS, Source, find_form, read_source
from ule_datasets.sources.spec import SourceSpec
from ule_datasets.sources.tree import walk
from ule_datasets.sources.wanted import Wanted

NAMES = class_names(10)
KINDS = (*FORMS, "digits")
FINDERS: dict[str, Callable[..., object]] = {**FORMS, "digits": digits.find}


def place(kind: str, folder: Path) -> tuple[str, SourceSpec]:
    """A small source of that kind, and what it should be."""
    if kind == "digits":
        return "digits", DIGITS
    return str(write_form(kind, folder / "source", make_splits(10, 4), NAMES)), own_images(10)


def read(where: str, spec: SourceSpec, workers: int = 1, spool: Path | None = None) -> Source:
    with LocalExecutor(workers) as executor:
        return read_source(spec, where, executor=executor, reporter=Reporter(silent=True), spool=spool)


def test_every_form_can_be_written_by_the_tests_and_is_held_to_the_contract() -> None:
    assert set(FORMS) == set(WRITTEN)


@pytest.mark.parametrize("kind", KINDS)
def test_the_samples_are_the_same_every_time_with_any_workers_in_memory_or_on_disk(kind: str, tmp_path: Path) -> None:
    where, spec = place(kind, tmp_path)
    first = read(where, spec)
    (tmp_path / "spool").mkdir()
    for again in (read(where, spec), read(where, spec, workers=2), read(where, spec, spool=tmp_path / "spool")):
        assert list(again.splits) == list(first.splits)
        for name, split in first.splits.items():
            other = again.splits[name]
            assert (other.digest, other.keys) == (split.digest, split.keys)
            assert np.array_equal(other.labels, split.labels)
            assert np.array_equal(other.pixels(), split.pixels())


@pytest.mark.parametrize("kind", KINDS)
def test_splits_are_in_canonical_order_with_every_class_and_distinct_keys(kind: str, tmp_path: Path) -> None:
    source = read(*place(kind, tmp_path))
    assert list(source.splits) == ["train", "test"]
    assert source.class_names == (DIGITS.class_names if kind == "digits" else NAMES)
    assert source.labelled
    for split in source.splits.values():
        assert (canonical_order(split.keys) == np.arange(len(split.keys))).all()
        assert len(set(split.keys)) == len(split.keys)
        assert set(split.labels.tolist()) == set(range(10))
        assert (split.images.dtype, split.labels.dtype, split.images.shape[1:]) == (np.uint8, np.int64, (32, 32, 3))
    assert not set(source.train.keys) & set(source.splits["test"].keys)


@pytest.mark.parametrize("kind", FORMS)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(kind: str, tmp_path: Path) -> None:
    where, spec = place(kind, tmp_path)
    file = max((path for path in Path(where).rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    with pytest.raises(InputError) as error:
        read(where, spec)
    assert file.name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_other_images_than_the_expected_are_refused(kind: str, tmp_path: Path) -> None:
    from ule_datasets.sources.cifar10 import CIFAR10

    where, _ = place(kind, tmp_path)
    with pytest.raises(InputError, match="CIFAR-10"):
        read(where, CIFAR10)


@pytest.mark.parametrize("kind", FORMS)
def test_a_folder_of_another_form_or_of_none_is_left_to_others(kind: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert FORMS[kind](walk(tmp_path / "empty"), Wanted()) is None
    where, _ = place(kind, tmp_path)
    assert [other for other, find in FORMS.items() if find(walk(Path(where)), Wanted())] == [kind]
    assert find_form(where).chunks.keys() == {"train", "test"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_form_is_documented(kind: str) -> None:
    finder = FINDERS[kind]
    assert inspect.getdoc(finder)
    assert inspect.getdoc(sys.modules[finder.__module__])
