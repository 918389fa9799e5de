"""Whatever is changed in a dataset folder is found, and named."""

from __future__ import annotations

import dataclasses
import random
import shutil
from pathlib import Path

import pytest
from forging import Tamper, rewrite, shards, sign

from builders import RECIPES
from ule_datasets.base.progress import Reporter
from ule_datasets.building import BuildOptions, build
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.codec import encode_png
from ule_datasets.dataset.integrity import Check, examine
from ule_datasets.dataset.integrity.files import check_files
from ule_datasets.dataset.manifest import DamagedManifestError, FileRecord, Manifest
from ule_datasets.dataset.shards import parquet
from ule_datasets.dataset.shards.content import ShardContent
from ule_datasets.dataset.shards.reading import decode_images
from ule_datasets.sources.reading import Source, read_source

RECIPE = dataclasses.replace(RECIPES["ops-digits"], name="my-digits", shard_mebibytes=2)
SILENT = Reporter(silent=True)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("integrity") / "out"
    build(RECIPE, BuildOptions(out=folder), SILENT)
    return folder


@pytest.fixture(scope="module")
def source() -> Source:
    with LocalExecutor() as executor:
        return read_source(RECIPE.source, None, executor=executor, reporter=SILENT)


@pytest.fixture
def copy(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "copy"))


def failures(folder: Path, source: Source | None = None) -> list[Check]:
    """Every check that fails."""
    with LocalExecutor() as executor:
        found = examine(
            folder, Manifest.read(folder), executor, SILENT, find_source=lambda *_: source, catalogue=RECIPES
        )
    return [check for check in found.checks if not check.passed]


def change_label(content: ShardContent) -> None:
    content.labels[5] = (content.labels[5] + 1) % 10


def swap_in_another_image(content: ShardContent) -> None:
    """Of the same class, with the same perturbation."""
    other = next(row for row in range(6, 100) if content.labels[row] == content.labels[5])
    content.encoded[5] = encode_png(decode_images(content.encoded[other : other + 1], "x")[0])


def alter_one_level(content: ShardContent) -> None:
    image = decode_images(content.encoded[7:8], "x")[0].copy()
    image[31, 31, 2] ^= 1
    content.encoded[7] = encode_png(image)


def unflag(content: ShardContent) -> None:
    content.poisoned[3] = False


def test_an_untouched_dataset_passes_every_check(pristine: Path, source: Source) -> None:
    assert failures(pristine, source) == []
    assert failures(pristine) == []


def test_a_clean_image_swapped_in_is_found_even_without_the_source(copy: Path, source: Source) -> None:
    clean = dict(zip(source.train.keys, source.train.images, strict=True))

    def swap(content: ShardContent) -> None:
        content.encoded[9] = encode_png(clean[content.keys[9]])

    rewrite(copy, "train-00001", swap)
    (without,) = failures(copy)
    assert without.name == "train: perturbation"
    assert "is nothing that the perturbation makes of any image" in without.detail
    found = failures(copy, source)
    assert [check.name for check in found] == ["train: images"]
    assert "is not its clean original plus the perturbation" in found[0].detail


@pytest.mark.parametrize(
    ("shard", "tamper", "without", "name"),
    [
        ("train-00001", change_label, "train: perturbation", "train: labels"),  # another class has another pixel
        ("train-00000", swap_in_another_image, None, "train: images"),
        ("train-00000", alter_one_level, None, "train: budget"),
        ("train-00002", unflag, "train: pixels and labels", "train: poisoned flags"),
        ("test-00000", change_label, "test: pixels and labels", "test: labels"),
        ("test-00000", swap_in_another_image, "test: pixels and labels", "test: images"),
        ("test-00000", alter_one_level, "test: pixels and labels", "test: images"),
    ],
)
def test_a_forgery_with_a_matching_manifest_is_found_with_the_source_and_often_without(
    copy: Path, source: Source, shard: str, tamper: Tamper, without: str | None, name: str
) -> None:
    keys = parquet.read(shards(copy, shard)[0], Manifest.read(copy).class_names).keys
    rewrite(copy, shard, tamper)
    names = {check.name for check in failures(copy)}
    assert without in names if without else names == set()
    found = {check.name: check.detail for check in failures(copy, source)}
    assert name in found
    assert any(key in found[name] for key in keys), "the message names the sample"


def test_a_missing_image_is_found(copy: Path, source: Source) -> None:
    def shorten(content: ShardContent) -> None:
        for column in (content.encoded, content.labels, content.keys, content.poisoned):
            column.pop()

    rewrite(copy, "test-00000", shorten)
    assert [check.name for check in failures(copy)] == ["test: pixels and labels"], "not the source's test split"
    found = {check.name: check.detail for check in failures(copy, source)}
    assert list(found) == ["test: pixels and labels", "test: samples of the source"]
    assert "of the source is missing" in found["test: samples of the source"]


def test_repeated_keys_and_another_order_are_found(copy: Path) -> None:
    def swap_rows(content: ShardContent) -> None:
        for column in (content.encoded, content.labels, content.keys, content.poisoned):
            column[0], column[1] = column[1], column[0]  # type: ignore[index]

    def repeat(content: ShardContent) -> None:
        content.keys[9] = content.keys[2]

    rewrite(copy, "train-00000", swap_rows)
    assert {check.name for check in failures(copy)} == {"train: order"}
    rewrite(copy, "train-00001", repeat)
    assert {check.name for check in failures(copy)} == {"train: order", "train: samples"}


def test_formats_that_disagree_are_found(copy: Path) -> None:
    path = copy / "webdataset" / "train-000001.tar"
    other = (copy / "webdataset" / "train-000002.tar").read_bytes()
    path.write_bytes(other)
    sign(copy)
    (found,) = failures(copy)
    assert found.name == "train: shards"
    assert "differ in their keys" in found.detail


def every_file(folder: Path) -> list[str]:
    return [record.path for record in Manifest.read(folder).files]


@pytest.mark.parametrize("position", ["first", "random", "last"])
def test_one_flipped_byte_in_any_file_is_found_and_the_file_is_named(copy: Path, position: str) -> None:
    generator = random.Random(1)
    for name in every_file(copy):
        path = copy / name
        original = path.read_bytes()
        at = {"first": 0, "last": len(original) - 1, "random": generator.randrange(len(original))}[position]
        path.write_bytes(original[:at] + bytes([original[at] ^ (1 << generator.randrange(8))]) + original[at + 1 :])
        with LocalExecutor() as executor:
            wrong = [check for check in check_files(copy, Manifest.read(copy), executor) if not check.passed]
        assert [check.detail for check in wrong] == [f"{name} has another sha256 than the manifest says"]
        path.write_bytes(original)


def test_any_flipped_byte_in_the_manifest_itself_is_found(copy: Path) -> None:
    path = copy / "manifest.json"
    original = path.read_bytes()
    generator = random.Random(2)
    for at in [0, len(original) - 1, len(original) - 70, *(generator.randrange(len(original)) for _ in range(200))]:
        changed = generator.choice([byte for byte in range(256) if byte != original[at]])
        path.write_bytes(original[:at] + bytes([changed]) + original[at + 1 :])
        with pytest.raises(DamagedManifestError, match=r"manifest\.json"):
            Manifest.read(copy)
    path.write_bytes(original)
    assert Manifest.read(copy).name == "my-digits"


def test_missing_truncated_and_unlisted_files_are_named(copy: Path) -> None:
    (copy / "figures" / "contact_sheet.png").unlink()
    (copy / "data" / "train-00009-of-00003.parquet").write_bytes(b"old shard")
    path = copy / "webdataset" / "test-000000.tar"
    path.write_bytes(path.read_bytes()[:-512])
    found = {check.name: check.detail for check in failures(copy)}
    assert "figures/contact_sheet.png is missing" in found["files"]
    assert "webdataset/test-000000.tar has" in found["files"]
    assert "data/train-00009-of-00003.parquet is not in the manifest" in found["no other files"]


def test_a_manifest_that_leads_out_of_the_folder_is_refused(copy: Path) -> None:
    from ule_datasets.base.errors import InputError

    manifest = Manifest.read(copy)
    for path in ("../../etc/passwd", "/etc/passwd"):
        bad = dataclasses.replace(manifest, files=(FileRecord(path=path, size=1, sha256="0"),))
        (copy / "manifest.json").write_text(bad.to_json())
        with pytest.raises(InputError, match="cannot be a path within a folder"):
            Manifest.read(copy)


def test_another_recipe_or_perturbation_in_the_folder_is_found(copy: Path) -> None:
    (copy / "recipe.json").write_text(RECIPES["ops-digits"].to_json() + "\n")
    found = {check.name: check.detail for check in failures(copy)}
    assert "recipe.json has digest" in found["recipe and perturbation"]
    sign(copy)
    found = {check.name: check.detail for check in failures(copy)}
    assert "name is my-digits, not ops-digits" in found["manifest"]
