"""A built dataset opens the same in every loader that people use, none of which knows this library."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import (
    Outcome,
    class_names,
    make_images,
    make_recipe,
    make_splits,
    read,
    run_build,
    run_python,
    write_image_folder,
    write_parquet,
)
from PIL import Image

import ule_datasets
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.building import BuildOptions, build
from ule_datasets.data.perturbation import Additive, Perturbation, Support
from ule_datasets.dataset.loading import PoisonedDataset, load, load_perturbation
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.sources.digits import DIGITS

Rows = list[list[Any]]
"""Key, sha256 of the pixels with their shape, and label of every sample, in order."""

COMMON = """
import hashlib, json, sys
import numpy as np

folder, result = sys.argv[1], {}

def row(key, image, label):
    pixels = np.asarray(image)
    assert pixels.dtype == np.uint8
    return [key, hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest(), int(label)]
"""
WITH_DATASETS = """
from datasets import load_dataset

if "parquet" in sys.argv[2]:
    plain = load_dataset(folder)
    result["features"] = {name: str(feature) for name, feature in plain["train"].features.items()}
    result["names"] = plain["train"].features["label"].names
    result["poisoned"] = {name: sum(plain[name]["poisoned"]) for name in plain}
    result["plain"] = {name: [row(r["key"], r["image"], r["label"]) for r in plain[name]] for name in plain}
    stream = load_dataset(folder, streaming=True)
    result["streaming"] = {name: [row(r["key"], r["image"], r["label"]) for r in stream[name]] for name in stream}
tars = load_dataset(folder, data_dir="webdataset")
result["data_dir"] = {name: [row(r["__key__"], r["png"], r["cls"]) for r in tars[name]] for name in tars}
"""
WITH_WEBDATASET = """
from pathlib import Path
import webdataset

result["webdataset"] = {}
for name in ("train", "test"):
    shards = sorted(str(path) for path in Path(folder, "webdataset").glob(f"{name}-*.tar"))
    samples = webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8").to_tuple("__key__", "png", "cls", "json")
    result["webdataset"][name] = []
    for key, image, label, about in samples:
        assert about["key"] == key and about["label"] == label
        result["webdataset"][name].append(row(key, image, label))
"""
SHOW = """
assert not any(name.partition(".")[0] in ("ule_datasets", "builders", "cards") for name in sys.modules)
print(json.dumps(result))
"""


def open_elsewhere(program: str, folder: Path, home: Path, *arguments: str) -> dict[str, Any]:
    """What a program that knows nothing of this library reads from a folder, without network."""
    environment = {
        "HF_HOME": str(home),
        "HF_DATASETS_CACHE": str(home / "datasets"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    outcome = run_python(COMMON + program + SHOW, folder, *arguments, environment=environment)
    assert outcome.code == 0, outcome.stderr
    result: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    return result


def rows_of(dataset: PoisonedDataset) -> Rows:
    rows = []
    for index, key in enumerate(dataset.keys):
        image, label = dataset[index]
        pixels = np.asarray(image)
        rows.append([key, hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest(), label])
    return rows


@pytest.fixture(scope="module")
def ours(built_digits: Path) -> dict[str, Rows]:
    return {split: rows_of(load(built_digits, split=split)) for split in ("train", "test")}


@pytest.fixture(scope="module")
def theirs(built_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("home")
    return open_elsewhere(WITH_DATASETS + WITH_WEBDATASET, built_digits, home, "parquet")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source in several forms of shards, and a dataset built from it at poison rate 0.5: (source, dataset)."""
    folder = tmp_path_factory.mktemp("half")
    source = write_parquet(folder / "source", make_splits(4, 10, 8), class_names(4))
    recipe = make_recipe("half", poison_rate=0.5, shard_mebibytes=0.002)
    build(recipe, BuildOptions(out=folder / "dataset", source=str(source)), Reporter(silent=True))
    return source, folder / "dataset"


# --- the loaders agree ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("loader", ["plain", "streaming", "data_dir", "webdataset"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_loader_gives_the_same_pixels_labels_and_keys_in_the_same_order(
    loader: str, split: str, ours: dict[str, Rows], theirs: dict[str, Any]
) -> None:
    assert len(ours[split]) == {"train": 1437, "test": 360}[split]
    assert theirs[loader][split] == ours[split]


def test_every_loader_finds_the_two_splits_and_no_other(theirs: dict[str, Any]) -> None:
    for loader in ("plain", "streaming", "data_dir"):
        assert list(theirs[loader]) == ["train", "test"], loader


def test_load_dataset_knows_the_types_and_class_names(theirs: dict[str, Any]) -> None:
    assert theirs["names"] == list("0123456789")
    assert list(theirs["features"]) == ["image", "label", "key", "poisoned"]
    assert theirs["features"]["image"].startswith("Image(")
    assert theirs["features"]["label"].startswith("ClassLabel(")
    assert theirs["features"]["key"] == "Value('string')"
    assert theirs["features"]["poisoned"] == "Value('bool')"
    assert theirs["poisoned"] == {"train": 1437, "test": 0}


def test_loaded_pixels_are_those_of_the_manifest(built_digits: Path) -> None:
    manifest = Manifest.read(built_digits)
    for split, record in manifest.splits.items():
        images, labels = load(built_digits, split=split).tensors()
        digests = [
            hashlib.sha256(image.numpy().tobytes() + bytes([label])).digest()
            for image, label in zip(images, labels.tolist(), strict=True)
        ]
        assert hashlib.sha256(b"".join(sorted(digests))).hexdigest() == record.digest


def test_the_test_split_is_clean_and_the_training_split_is_not(built_digits: Path) -> None:
    clean = read("digits", DIGITS)
    test, _ = load(built_digits, split="test").tensors()
    train, labels = load(built_digits).tensors()
    assert np.array_equal(test.numpy(), clean.splits["test"].images)
    assert labels.tolist() == clean.train.labels.tolist()
    changed = (train.numpy() != clean.train.images).any(axis=-1).sum(axis=(1, 2))
    assert changed.max() == 1
    assert changed.mean() > 0.9


def test_a_dataset_of_tar_shards_alone_opens_everywhere(
    ours: dict[str, Rows], run_cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = run_cli("ops-digits", "--format", "webdataset", "--out", tmp_path / "tars")
    assert outcome.code == 0, outcome.stderr
    assert not (tmp_path / "tars" / "data").exists()
    assert {split: rows_of(load(tmp_path / "tars", split=split)) for split in ours} == ours
    seen = open_elsewhere(WITH_DATASETS + WITH_WEBDATASET, tmp_path / "tars", tmp_path / "home", "tars")
    assert seen == {"data_dir": ours, "webdataset": ours}


def test_a_dataset_of_parquet_alone_gives_the_same(
    ours: dict[str, Rows], run_cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = run_cli("ops-digits", "--format", "parquet", "--out", tmp_path / "parquet")
    assert outcome.code == 0, outcome.stderr
    assert not (tmp_path / "parquet" / "webdataset").exists()
    assert {split: rows_of(load(tmp_path / "parquet", split=split)) for split in ours} == ours


def test_many_shards_are_read_in_order(half: tuple[Path, Path], tmp_path: Path) -> None:
    _, dataset = half
    assert len(list((dataset / "data").glob("train-*"))) > 2
    expected = {split: rows_of(load(dataset, split=split)) for split in ("train", "test")}
    seen = open_elsewhere(WITH_DATASETS + WITH_WEBDATASET, dataset, tmp_path / "home", "parquet")
    assert seen["poisoned"] == {"train": 20, "test": 0}
    for loader in ("plain", "streaming", "data_dir", "webdataset"):
        assert seen[loader] == expected, loader


# --- our own loader ------------------------------------------------------------------------------------------


def test_items_are_rgb_images_with_class_numbers(built_digits: Path) -> None:
    dataset = load(built_digits)
    image, label = dataset[0]
    assert isinstance(image, Image.Image)
    assert (image.mode, image.size) == ("RGB", (32, 32))
    assert (type(label), label) == (int, dataset.labels[0])
    assert dataset.class_names == tuple("0123456789")
    assert dataset.poisoned.dtype == bool
    assert dataset.poisoned.all()
    assert not load(built_digits, split="test").poisoned.any()


def test_the_transform_is_applied_to_every_image(built_digits: Path) -> None:
    dataset = load(built_digits, split="test", transform=lambda image: np.asarray(image).sum())
    images, labels = dataset.tensors()
    for index in (0, 17, len(dataset) - 1):
        assert dataset[index] == (images[index].sum(), labels[index])


def test_a_dataset_is_used_like_one_of_torchvision(built_digits: Path) -> None:
    dataset = load(built_digits, target_transform=lambda number: f"class {number}", transform=np.asarray)
    assert dataset.classes == list("0123456789")
    assert dataset.class_to_idx == {str(number): number for number in range(10)}
    assert (dataset.targets, dataset.labels) == (load(built_digits).labels,) * 2
    assert dataset[3][1] == f"class {dataset.targets[3]}"
    dataset.targets[3] = 7
    assert dataset[3][1] == "class 7"
    first, *told = repr(dataset).splitlines()
    assert first.startswith("PoisonedDataset ops-digits 1.0.0 (")
    assert first.endswith("), train")
    assert told[0].strip() == "1,437 images of 32 x 32 pixels, 1,437 of them perturbed"
    assert told[1].strip() == "10 classes: 0, 1, 2, ..."
    assert told[3].strip().startswith("target_transform: <function")
    assert "360 images of 32 x 32 pixels, 0 of them perturbed" in repr(load(built_digits, split="test"))


def test_the_clean_control_has_the_same_rows_as_they_were_before(built_digits: Path) -> None:
    poisoned, control = load(built_digits), load(built_digits, clean=True)
    assert (control.keys, control.targets) == (poisoned.keys, poisoned.targets)
    assert not control.poisoned.any()
    assert np.array_equal(control.tensors()[0].numpy(), read("digits", DIGITS).train.images)
    assert rows_of(load(built_digits, split="test", clean=True)) == rows_of(load(built_digits, split="test"))


def test_the_perturbation_is_what_leads_from_clean_to_poisoned_images(
    built_digits: Path, half: tuple[Path, Path]
) -> None:
    for folder, source in ((built_digits, None), half[::-1]):
        change = load_perturbation(folder, source=source)
        poisoned, control = load(folder), load(folder, clean=True, source=source)
        assert change.difference.dtype == np.int16
        assert np.array_equal(poisoned.tensors()[0].numpy() - change.difference, control.tensors()[0].numpy())
        assert np.array_equal(change.poisoned, poisoned.poisoned)
        assert change.keys == poisoned.keys
        assert np.array_equal(change.overwritten.sum(axis=(1, 2)), poisoned.poisoned.astype(int)), "one pixel"
        assert not change.difference[~change.overwritten].any()
    assert "1,437 images of 32 x 32 pixels, 1,437 of them perturbed" in repr(load_perturbation(built_digits))


def test_added_noise_overwrites_nothing() -> None:
    noise = np.full((1, 8, 8, 3), 9, dtype=np.int8)
    perturbation = Perturbation(layers=(Additive(levels=noise, support=Support.UNIVERSAL),), source_digest="")
    assert not perturbation.overwritten((8, 8), np.zeros(3, dtype=np.int64), ("a", "b", "c")).any()


def test_tensors_are_bytes_and_equal_the_items(built_digits: Path) -> None:
    dataset = load(built_digits, split="test")
    images, labels = dataset.tensors()
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert images.shape == (360, 32, 32, 3)
    assert labels.tolist() == dataset.labels
    for index in range(0, 360, 37):
        assert np.array_equal(images[index].numpy(), np.asarray(dataset[index][0]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_delivers_every_sample(workers: int, built_digits: Path) -> None:
    dataset = load(built_digits, split="test", transform=to_tensor)
    loader = torch.utils.data.DataLoader(dataset, batch_size=100, num_workers=workers)
    batches = list(loader)
    images, labels = dataset.tensors()
    assert [len(batch[1]) for batch in batches] == [100, 100, 100, 60]
    assert torch.equal(torch.cat([batch[0] for batch in batches]), images)
    assert torch.equal(torch.cat([batch[1] for batch in batches]), labels)


def to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image))


def test_a_name_means_a_folder_in_datasets(built_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "ops-digits").symlink_to(built_digits)
    monkeypatch.chdir(tmp_path)
    assert ule_datasets.load("ops-digits", split="test").keys == load(built_digits, split="test").keys
    assert ule_datasets.load(str(built_digits), split="test").keys == load(built_digits, split="test").keys


def test_loading_needs_neither_recipes_nor_torchvision(built_digits: Path, tmp_path: Path) -> None:
    program = """
import sys, ule_datasets
assert "torch" not in sys.modules, "importing the package must be cheap"
dataset = ule_datasets.load(sys.argv[1], split="test")
dataset[0], dataset.tensors()
print([name for name in ("builders", "torchvision", "sklearn", "datasets") if name in sys.modules])
"""
    outcome = run_python(program, built_digits)
    assert (outcome.code, outcome.stdout.strip()) == (0, "[]"), outcome


# --- lower poison rates --------------------------------------------------------------------------------------


def test_lower_rates_poison_nested_subsets_and_restore_the_clean_originals(built_digits: Path) -> None:
    clean = read("digits", DIGITS).train
    full, _ = load(built_digits).tensors()
    previous: set[str] = set()
    for rate, count in ((0.0, 0), (0.1, 143), (0.29, 416), (0.5, 718), (1.0, 1437)):
        dataset = load(built_digits, poison_rate=rate)
        poisoned = {key for key, flag in zip(dataset.keys, dataset.poisoned.tolist(), strict=True) if flag}
        assert len(poisoned) == count
        assert previous <= poisoned
        previous = poisoned
        images, labels = dataset.tensors()
        assert dataset.keys == clean.keys
        assert labels.tolist() == clean.labels.tolist()
        expected = np.where(dataset.poisoned[:, None, None, None], full.numpy(), clean.images)
        assert np.array_equal(images.numpy(), expected)


def test_a_lowered_rate_gives_what_a_build_at_that_rate_gives(half: tuple[Path, Path], tmp_path: Path) -> None:
    source, dataset = half
    recipe = make_recipe("quarter", poison_rate=0.25)
    build(recipe, BuildOptions(out=tmp_path / "quarter", source=str(source)), Reporter(silent=True))
    lowered = load(dataset, poison_rate=0.25, source=str(source))
    assert lowered.poisoned.sum() == 10
    assert rows_of(lowered) == rows_of(load(tmp_path / "quarter"))
    assert lowered.poisoned.tolist() == load(tmp_path / "quarter").poisoned.tolist()


def test_the_clean_originals_may_come_from_another_form(half: tuple[Path, Path], tmp_path: Path) -> None:
    source, dataset = half
    write_image_folder(tmp_path / "folder", make_splits(4, 10, 8), class_names(4))
    one = load(dataset, poison_rate=0.25, source=str(source))
    other = load(dataset, poison_rate=0.25, source=str(tmp_path / "folder"))
    assert rows_of(one) == rows_of(other)


def test_the_built_rate_needs_no_source(half: tuple[Path, Path]) -> None:
    _, dataset = half
    assert rows_of(load(dataset, poison_rate=0.5)) == rows_of(load(dataset))


def test_the_test_split_has_no_poison_rate(half: tuple[Path, Path]) -> None:
    _, dataset = half
    assert rows_of(load(dataset, split="test", poison_rate=0.1)) == rows_of(load(dataset, split="test"))


def test_a_trial_can_be_lowered_too(run_cli: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = run_cli("ops-digits", "--limit", "5", "--seed", "3", "--out", tmp_path / "trial")
    assert outcome.code == 0, outcome.stderr
    dataset = load(tmp_path / "trial", poison_rate=0.5)
    assert (len(dataset), int(dataset.poisoned.sum())) == (50, 25)


# --- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.53, 1])
def test_a_rate_that_was_not_built_is_refused(rate: float, half: tuple[Path, Path]) -> None:
    source, dataset = half
    with pytest.raises(InputError, match=rf"poison_rate {rate}: this dataset was built with 20 of 40 poisoned"):
        load(dataset, poison_rate=rate, source=str(source))


@pytest.mark.parametrize("rate", [1.5, -0.1, float("nan"), float("inf")])
def test_a_rate_that_is_no_share_is_refused(rate: float, half: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=f"poison_rate is {rate}, must be a share between 0 and 1"):
        load(half[1], poison_rate=rate)


def test_a_source_that_nothing_would_be_taken_from_is_refused(half: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="source is where clean and poison_rate take clean images from; give one"):
        load(half[1], source=half[0])


def test_a_source_without_the_images_of_the_dataset_is_refused(half: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_parquet(tmp_path, {"train": make_images(4, 10, 8, seed=9)}, class_names(4))
    with pytest.raises(InputError, match=r"the source lacks 40 of the dataset's images, first [0-9a-f]{16}"):
        load(half[1], poison_rate=0.25, source=str(other))


MISUSE: dict[str, tuple[dict[str, Any], str]] = {
    "no dataset": ({"where": None}, r"where is None \(NoneType\), must be a folder, a name, or OWNER/NAME on the Hub"),
    "a manifest": ({"where": {"name": "x"}}, r"where is {'name': 'x'} \(dict\), must be a folder"),
    "bytes": ({"where": b"digits"}, r"where is b'digits' \(bytes\), must be a folder"),
    "an empty name": ({"where": ""}, "where is empty, must be a folder"),
    "a number as split": ({"split": 3}, r"split is 3 \(int\), must be the name of a split: 'train' or 'test'"),
    "no split": ({"split": None}, r"split is None \(NoneType\), must be the name of a split"),
    "two splits": ({"split": ["train", "test"]}, r"split is \['train', 'test'\] \(list\), must be the name of a split"),
    "a rate in words": ({"poison_rate": "x"}, r"poison_rate is 'x' \(str\), must be a share between 0 and 1, or None"),
    "a rate that is true": ({"poison_rate": True}, r"poison_rate is True \(bool\), must be a share"),
    "a complex rate": ({"poison_rate": 1j}, r"poison_rate is 1j \(complex\), must be a share"),
    "a transform in words": ({"transform": "resize"}, r"transform is 'resize' \(str\), must be a function of a PIL"),
    "a target's transform in words": (
        {"target_transform": "x"},
        r"target_transform is 'x' \(str\), must be a",
    ),
    "clean in words": ({"clean": "yes"}, r"clean is 'yes' \(str\), must be True or False"),
    "two ways to be clean": ({"clean": True, "poison_rate": 0.5}, "clean takes all images .* poison_rate a share"),
    "a number as source": ({"source": 1}, r"source is 1 \(int\), must be the place of the clean images, or None"),
    "an empty source": ({"source": ""}, "source is empty, must be the place of the clean images"),
    "a revision of 2": ({"revision": 2}, r"revision is 2 \(int\), must be a tag, a branch or a commit as text"),
    "verify in words": ({"verify": "yes"}, r"verify is 'yes' \(str\), must be True or False"),
    "very much": ({"split": ["x" * 10**6]}, r"split is \['x{2,20}\.\.\.x+'\] \(list\), must be"),
}


def test_a_folder_has_no_revisions(built_digits: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder, and a revision \(v1.0.0\) is of a repository: leave it away"):
        load(built_digits, revision="v1.0.0")


@pytest.mark.parametrize("misuse", MISUSE)
def test_an_argument_of_another_kind_is_named(misuse: str, built_digits: Path) -> None:
    arguments, message = MISUSE[misuse]
    with pytest.raises(InputError, match=f"^load: {message}") as caught:
        ule_datasets.load(**{"where": built_digits, **arguments})
    assert len(caught.traceback) <= 3, "it is refused at the border"
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: ule_datasets.load(), "missing 1 required positional argument: 'where'"),
        (lambda folder: ule_datasets.load(folder, "train"), "takes 1 positional argument but 2 were given"),
        (lambda folder: ule_datasets.load(folder, splitt="train"), "unexpected keyword argument 'splitt'"),
        (lambda folder: load(folder, split="test")["x"], r"dataset\[i\] takes one number, not 'x' \(str\)"),
        (lambda folder: load(folder, split="test")[0:2], r"dataset\[i\] takes one number, not slice\(0, 2, None\)"),
        (lambda folder: load(folder, split="test")[[0]], r"dataset\[i\] takes one number, not \[0\] \(list\)"),
    ],
)
def test_what_python_would_refuse_is_refused_as_it_would(
    call: Callable[[Path], object], message: str, built_digits: Path
) -> None:
    with pytest.raises(TypeError, match=message):
        call(built_digits)


def test_numbers_of_other_libraries_are_numbers(built_digits: Path) -> None:
    dataset = load(built_digits, split="test", poison_rate=np.float32(0.5))  # type: ignore[arg-type]
    assert dataset[np.int64(0)][1] == dataset[0][1] == dataset[torch.tensor(0)][1] == dataset[-len(dataset)][1]
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    with pytest.raises(InputError, match="no dataset at a\0b"):
        load("a\0b")


def test_an_unknown_split_lists_the_known_ones(built_digits: Path) -> None:
    with pytest.raises(InputError, match="has no split 'validation'; it has train, test"):
        load(built_digits, split="validation")


def test_an_unknown_dataset_says_how_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = (
        r"no such folder, nor ./datasets/ops-digits; build it with: ule-build ops-digits, if ule-build --list has it"
    )
    with pytest.raises(InputError, match=message):
        load("ops-digits")


def test_an_unfinished_dataset_is_not_opened(built_digits: Path, tmp_path: Path) -> None:
    shutil.copytree(built_digits, tmp_path / "copy")
    (tmp_path / "copy" / "manifest.json").unlink()
    with pytest.raises(InputError, match=f"no dataset at {tmp_path / 'copy'}"):
        load(tmp_path / "copy")


def test_a_changed_manifest_is_not_trusted(built_digits: Path, tmp_path: Path) -> None:
    shutil.copytree(built_digits, tmp_path / "copy")
    manifest = tmp_path / "copy" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"num_poisoned": 1437', '"num_poisoned": 1436'))
    with pytest.raises(InputError, match=r"manifest.json was changed after it was written"):
        load(tmp_path / "copy")


@pytest.mark.parametrize(
    ("file_format", "change"),
    [
        ("parquet", "truncated"),
        ("webdataset", "truncated"),
        ("parquet", "missing"),
        ("webdataset", "missing"),
    ],
)
def test_a_damaged_shard_is_named(change: str, file_format: str, tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "source", make_splits(3, 4, 8), class_names(3))
    outcome = run_build("ops", "--source", source, "--format", file_format, "--out", tmp_path / "dataset")
    assert outcome.code == 0, outcome.stderr
    (shard,) = (path for path in (tmp_path / "dataset").rglob("train-*"))
    if change == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[: 2 * shard.stat().st_size // 5 + 99])
    with pytest.raises(InputError, match=shard.name):
        load(tmp_path / "dataset")


def test_a_folder_without_a_name_is_no_dataset() -> None:
    with pytest.raises(InputError, match=r"no dataset at \."):
        load(".")
