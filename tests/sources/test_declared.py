"""Folders and repositories are read as their cards say: the same images, splits and classes as in ``load_dataset``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from helpers import (
    make_images,
    make_splits,
    run_build,
    run_python,
    write_image_folder,
    write_parquet,
    write_webdataset,
)
from hub import HubServer

from ule_datasets.base.progress import Reporter
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.split import order_free_digest, sample_digest
from ule_datasets.dataset.local import remembered_source
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.reading import Source, find_form, read_source

NAMES = ("cat", "dog", "owl")
A, B = make_splits(3, 5, 8), {"train": make_images(3, 4, 8, seed=5), "test": make_images(3, 3, 8, seed=6)}


def card(folder: Path, **about: Any) -> None:
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(about, sort_keys=False)}---\n# Images\n")


def config(name: str = "default", **fields: Any) -> dict[str, Any]:
    """A configuration; ``data_files`` by split."""
    if isinstance(fields.get("data_files"), dict):
        fields["data_files"] = [{"split": split, "path": path} for split, path in fields["data_files"].items()]
    return {"config_name": name, **fields}


def labels(column: str, names: tuple[str, ...], image: str = "img", **more: Any) -> dict[str, Any]:
    label = {"name": column, "dtype": {"class_label": {"names": {str(n): name for n, name in enumerate(names)}}}}
    return {"features": [{"name": image, "dtype": "image"}, label], **more}


# --- folders -------------------------------------------------------------------------------------------------


def two_configurations(folder: Path) -> None:
    write_parquet(folder / "small", A, NAMES)
    write_parquet(folder / "large", B, NAMES)
    card(folder, configs=[config(name, data_files={s: f"{name}/{s}-*" for s in A}) for name in ("small", "large")])


def a_default(folder: Path) -> None:
    two_configurations(folder)
    files = [config(name, data_files={s: f"{name}/{s}-*" for s in A}) for name in ("small", "large")]
    card(folder, configs=[files[0], {**files[1], "default": True}])


def strays(folder: Path) -> None:
    """Parquet files that are no data: of a draft, of another split, in a folder beside."""
    write_parquet(folder / "data", A, NAMES)
    write_parquet(folder / "drafts", B, NAMES)
    write_parquet(folder / "data" / "old", {"train": B["train"]}, NAMES)
    card(folder, configs=[config(data_files={split: f"data/{split}-*" for split in A})])


def names_in_the_card_alone(folder: Path) -> None:
    write_parquet(folder / "data", A, None)
    card(folder, configs=[config(data_files={s: f"data/{s}-*" for s in A})], dataset_info=labels("label", NAMES))


def other_names_in_the_card(folder: Path) -> None:
    write_parquet(folder / "data", A, ("x", "y", "z"))
    card(folder, configs=[config(data_files={s: f"data/{s}-*" for s in A})], dataset_info=labels("label", NAMES))


def only_a_description(folder: Path) -> None:
    write_parquet(folder, A, None)
    card(folder, dataset_info=labels("label", NAMES))


def a_lone_split(folder: Path) -> None:
    write_parquet(folder / "data", {"train": A["train"]}, NAMES)
    card(folder, configs=[config(data_files={"full": "data/*"})])


def a_split_by_another_word(folder: Path) -> None:
    write_parquet(folder / "data", A, NAMES)
    card(folder, configs=[config(data_files={"train": "data/train-*", "validation": "data/test-*"})])


def splits_against_their_names(folder: Path) -> None:
    """The card makes of the file called test the split to train on."""
    write_parquet(folder / "data", A, NAMES)
    card(folder, configs=[config(data_files={"train": "data/test-*", "test": "data/train-*"})])


def a_data_dir(folder: Path) -> None:
    write_parquet(folder / "first", A, NAMES)
    write_parquet(folder / "second", B, NAMES)
    card(folder, configs=[config(data_dir="second")])


def images(folder: Path) -> None:
    write_image_folder(folder / "pictures", A, NAMES)
    write_image_folder(folder / "drafts", B, ("one", "two", "three"))
    card(folder, configs=[config(data_files={split: f"pictures/{split}/**" for split in A})])


def images_in_odd_folders(folder: Path) -> None:
    write_image_folder(folder / "a", {"train": A["train"]}, NAMES)
    write_image_folder(folder / "c", {"test": A["test"]}, NAMES)
    (folder / "a" / "train").rename(folder / "a" / "first")
    (folder / "c" / "test").rename(folder / "c" / "second")
    card(folder, configs=[config(data_files={"train": "a/first/**", "test": "c/second/*/*.png"})])


def images_and_another_order(folder: Path) -> None:
    """What a card says of labels is not for images in class folders."""
    write_image_folder(folder, A, NAMES)
    about = labels("label", ("owl", "cat", "dog"), "image")
    card(folder, configs=[config(data_files={split: f"{split}/**" for split in A})], dataset_info=about)


def images_in_a_data_dir(folder: Path) -> None:
    write_image_folder(folder / "first", A, NAMES)
    write_image_folder(folder / "second", B, NAMES)
    card(folder, configs=[config("one", data_dir="first"), config("two", data_dir="second")])


def tar_shards(folder: Path) -> None:
    write_webdataset(folder / "shards", A)
    write_webdataset(folder / "drafts", B)
    card(folder, configs=[config(data_files={split: f"shards/{split}-*.tar" for split in A})])


def plain_parquet(folder: Path) -> None:
    write_parquet(folder / "data", A, NAMES)


def plain_images(folder: Path) -> None:
    write_image_folder(folder, A, NAMES)


def plain_tar_shards(folder: Path) -> None:
    write_webdataset(folder, A)


class Case(NamedTuple):
    make: Callable[[Path], None]
    config: str | None = None


CASES = {
    **{
        make.__name__: Case(make)
        for make in (
            a_default, strays, names_in_the_card_alone, other_names_in_the_card, only_a_description, a_lone_split,
            a_split_by_another_word, splits_against_their_names, a_data_dir, images, images_in_odd_folders,
            images_and_another_order, tar_shards, plain_parquet, plain_images, plain_tar_shards,
        )
    },
    "two configurations: small": Case(two_configurations, "small"),
    "two configurations: large": Case(two_configurations, "large"),
    "a default: small": Case(a_default, "small"),
    "data_dir of two: one": Case(images_in_a_data_dir, "one"),
    "data_dir of two: two": Case(images_in_a_data_dir, "two"),
}  # fmt: skip

PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from datasets import load_dataset
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.split import order_free_digest, sample_digest
from ule_datasets.dataset.local import remembered_source
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.reading import Source, find_form, read_source
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.reading import read_source

def ours(where):
    with LocalExecutor(1) as executor:
        source = read_source(OWN_IMAGES, where, executor=executor, reporter=Reporter(silent=True))
    return {name: split.digest for name, split in source.splits.items()}, list(source.class_names)

def theirs(where, config):
    splits, names = load_dataset(where, config), []
    digests = {}
    for name, split in splits.items():
        image, label = ("png", "cls") if "png" in split.features else (next(iter(split.features)), "label")
        names = getattr(split.features[label], "names", names)
        rows = [sample_digest(np.asarray(row[image].convert("RGB")), row[label]) for row in split]
        digests[name] = order_free_digest(rows)
    return digests, names

results = {}
for name, (where, at, config) in json.loads(Path(sys.argv[1]).read_text()).items():
    suffix, results[name] = f":{config}" if config else "", []
    for read, words in ((ours, (where + suffix,)), (theirs, (at, config))):
        try:
            results[name] += read(*words)
        except Exception as error:
            results[name] += [{"error": f"{type(error).__name__}: {error}"}, []]
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server
        assert server.unexpected == []


@pytest.fixture(scope="module")
def results(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What this library and ``datasets`` make of every folder, here and on a Hub."""
    root, tasks = tmp_path_factory.mktemp("declared"), {}
    for number, (name, case) in enumerate(CASES.items()):
        folder = root / str(number)
        folder.mkdir()
        case.make(folder)
        hub.put(f"somebody/{number}", {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()})
        tasks[f"here {name}"] = (str(folder), str(folder), case.config)
        tasks[f"Hub {name}"] = (f"hub:somebody/{number}", f"somebody/{number}", case.config)
    (root / "tasks.json").write_text(json.dumps(tasks))
    outcome = run_python(PROGRAM, root / "tasks.json", environment=hub.environment(home=root / "home"))
    assert outcome.code == 0, outcome.stderr
    found: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("place", ["here", "Hub"])
@pytest.mark.parametrize("name", CASES)
def test_the_images_and_classes_are_those_of_load_dataset(name: str, place: str, results: dict[str, Any]) -> None:
    digests, names, theirs, their_names = results[f"{place} {name}"]
    called = {"train": "train", "test": "test", "validation": "test", "full": "train"}
    assert digests == {called[split]: digest for split, digest in theirs.items()}
    if their_names:
        assert names == their_names
    images = B if name in ("a_default", "a_data_dir", "two configurations: large", "data_dir of two: two") else A
    rows = [order_free_digest(map(sample_digest, part.images, part.labels.tolist())) for part in images.values()]
    assert set(digests.values()) <= set(rows)


# --- refused -------------------------------------------------------------------------------------------------


def read(where: Path | str) -> Source:
    with LocalExecutor(1) as executor:
        return read_source(OWN_IMAGES, str(where), executor=executor, reporter=Reporter(silent=True))


def outside(folder: Path) -> None:
    plain_parquet(folder)
    card(folder, configs=[config(data_files={"train": "../elsewhere/*.parquet"})])


def two_splits_in_one_folder(folder: Path) -> None:
    write_image_folder(folder, {"train": A["train"]}, NAMES)
    card(folder, configs=[config(data_files={"train": "train/*/0*.png", "test": "train/*/[!0]*.png"})])


def no_form_of_ours(folder: Path) -> None:
    (folder / "data.csv").write_text("a,b")
    plain_parquet(folder)
    card(folder, configs=[config(data_files="data.csv")])


def two_configurations_and_one_description(folder: Path) -> None:
    two_configurations(folder)
    files = [config(name, data_files={s: f"{name}/{s}-*" for s in A}) for name in ("small", "large")]
    card(folder, configs=files, dataset_info=labels("label", NAMES))


REFUSED: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "which of two that are not described": (two_configurations_and_one_description, "", "several configurations"),
    "which configuration": (two_configurations, "", "several configurations; say which .*:CONFIG: small, large"),
    "no such configuration": (two_configurations, ":medium", "has no configuration 'medium'; it has small, large"),
    "no configurations at all": (plain_parquet, ":small", "no card|has no configuration 'small'; it has none"),
    "files outside": (outside, "", "names files outside of it"),
    "two splits in one folder": (two_splits_in_one_folder, "", "to another split than .*, within one folder"),
    "no form of ours": (no_form_of_ours, "", "no images found there|holds no Parquet files, tar shards or images"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_clear_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, suffix, message = REFUSED[name]
    make(tmp_path)
    outcome = run_build("ops", "--source", f"{tmp_path}{suffix}", "--out", tmp_path / "out")
    assert outcome.code == 2
    (line,) = outcome.complaint
    assert re.search(message, line), line
    assert not (tmp_path / "out").exists()


def test_on_the_hub_it_is_refused_before_data_is_fetched(hub: HubServer, tmp_path: Path) -> None:
    """All in one process, as starting the Hub's client takes long."""
    tasks = {}
    for name, (make, suffix, message) in REFUSED.items():
        if make is two_splits_in_one_folder:
            continue
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        make(folder)
        hub.put(f"x/{folder.name}", {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()})
        tasks[name] = (f"hub:x/{folder.name}{suffix}", message)
    write_parquet(tmp_path / "digits", {**A, "extra": B["train"]}, NAMES, num_files=1)
    hub.put("x/digits", {path.name: path for path in (tmp_path / "digits").iterdir()})
    copy = "--source FOLDER: hf download x/digits --repo-type dataset{} --exclude '.extra.' --local-dir FOLDER"
    unknown = f"hub:x/digits.*: extra-.* looks like a split that is not known.*, or give a copy without it with {copy}"
    tasks["an unknown split"] = ("hub:x/digits", unknown.format(""))
    tasks["an unknown split of a revision"] = ("hub:x/digits@main", unknown.format(" --revision main"))
    before = len(hub.downloads)
    program = """
import json, sys
from ule_datasets.base.errors import InputError
from ule_datasets.sources.reading import find_form

for where in json.loads(sys.argv[1]):
    try:
        print(find_form(where).kind)
    except InputError as error:
        print(error)
"""
    words = json.dumps([where for where, _ in tasks.values()])
    outcome = run_python(program, words, environment=hub.environment(home=tmp_path / "home"))
    assert outcome.code == 0, outcome.stderr
    for (where, message), line in zip(tasks.values(), outcome.stdout.splitlines(), strict=True):
        assert re.search(message, line), (where, line)
    assert {path for path, _ in hub.downloads[before:]} == {"README.md"}


def test_what_the_card_does_not_name_is_passed_over_by_name(tmp_path: Path) -> None:
    strays(tmp_path)
    (tmp_path / "notes.txt").touch()
    form = find_form(str(tmp_path))
    assert [(each.reason, each.count) for each in form.passed_over] == [
        ("not among the data of the card (configuration default)", 8)
    ]


def test_the_configuration_belongs_to_the_source_that_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    two_configurations(folder)
    monkeypatch.chdir(tmp_path)
    assert run_build("ops", "--source", "images:small", "--out", "out").code == 0
    manifest = Manifest.read(tmp_path / "out")
    assert remembered_source(tmp_path / "out", manifest) == f"{folder}:small"
    assert (
        "already holds ops 1.0.0, finished earlier"
        in run_build("ops", "--source", f"{folder}:small", "--out", "out").stdout
    )
    outcome = run_build("ops", "--source", "images:large", "--out", "out")
    assert outcome.code == 2
    assert f"made from {folder}:small (" in outcome.stderr
    assert f"not from {folder}:large (" in outcome.stderr


def test_the_name_of_a_configuration_may_have_colons(tmp_path: Path) -> None:
    plain_parquet(tmp_path)
    card(tmp_path, configs=[config("a:b/c d", data_files="data/test-*"), config("other", data_files="data/train-*")])
    assert len(read(f"{tmp_path}:a:b/c d").train) == len(A["test"].labels)


@pytest.mark.parametrize("name", ["plain:small", ":", "with:colon"])
def test_a_colon_in_the_name_of_a_folder_is_part_of_it(name: str, tmp_path: Path) -> None:
    write_parquet(tmp_path / name, A, NAMES)
    assert read(tmp_path / name).class_names == NAMES
