"""Every form of a source gives the same samples, and none of them is trusted."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    CIFAR10_DIGESTS,
    FORMS,
    Outcome,
    Samples,
    class_names,
    data_files,
    encode,
    make_images,
    make_recipe,
    make_splits,
    own_images,
    read,
    run_build,
    shuffled,
    snapshot,
    write_cifar_batches,
    write_form,
    write_image_folder,
    write_parquet,
    write_parquet_file,
    write_webdataset,
)

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.building import BuildOptions, build
from ule_datasets.data.split import Split
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.sources.reading import Source

NAMES = class_names(10)


def digest_by_definition(samples: Samples) -> str:
    """The order-free digest, written down once more from its definition."""
    width = [1 if label < 256 else 2 for label in samples.labels.tolist()]
    parts = [
        hashlib.sha256(image.tobytes() + label.to_bytes(size, "big")).digest()
        for image, label, size in zip(samples.images, samples.labels.tolist(), width, strict=True)
    ]
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()


def pairs(samples: Samples | Split) -> list[tuple[bytes, int]]:
    """Images with their labels, as a multiset."""
    return sorted(zip((image.tobytes() for image in samples.images), samples.labels.tolist(), strict=True))


def assert_same_split(one: Split, other: Split) -> None:
    assert one.keys == other.keys
    assert one.digest == other.digest
    assert np.array_equal(one.labels, other.labels)
    assert np.array_equal(one.images, other.images)
    assert (one.images.dtype, one.labels.dtype) == (other.images.dtype, other.labels.dtype) == (np.uint8, np.int64)


def assert_same_source(one: Source, other: Source) -> None:
    assert list(one.splits) == list(other.splits) == ["train", "test"]
    for name in one.splits:
        assert_same_split(one.splits[name], other.splits[name])


def some_splits(variant: str) -> dict[str, Samples]:
    """Ten classes of 32 x 32 images, which every form can hold."""
    splits = make_splits(per_class={"even": 4, "single": 1, "duplicates": 3, "uneven": 5}[variant])
    images, labels = splits["train"]
    if variant == "duplicates":
        repeated = [0, 0, 7, 12]
        splits["train"] = Samples(np.concatenate([images, images[repeated]]), np.append(labels, labels[repeated]))
    if variant == "uneven":
        splits["train"] = Samples(images[: -len(NAMES) - 3], labels[: -len(NAMES) - 3])
    return splits


# --- the same samples from every form ------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["even", "single", "duplicates", "uneven"])
def test_every_form_gives_the_same_keys_order_images_labels_and_digest(variant: str, tmp_path: Path) -> None:
    splits = some_splits(variant)
    sources = [read(write_form(form, tmp_path / form, splits, NAMES)) for form in FORMS]
    for source in sources[1:]:
        assert_same_source(sources[0], source)
    for name, samples in splits.items():
        assert sources[0].splits[name].digest == digest_by_definition(samples)
        assert pairs(sources[0].splits[name]) == pairs(samples)


@pytest.mark.parametrize("form", FORMS)
def test_row_and_file_order_of_a_form_do_not_matter(form: str, tmp_path: Path) -> None:
    splits = some_splits("duplicates")
    first = read(write_form(form, tmp_path / "first", splits, NAMES, seed=11))
    second = read(write_form(form, tmp_path / "second", splits, NAMES, seed=12))
    assert_same_source(first, second)


def test_number_of_files_and_row_groups_does_not_matter(tmp_path: Path) -> None:
    splits = some_splits("even")
    first = read(write_parquet(tmp_path / "first", splits, NAMES, num_files=1, rows_per_group=1000))
    second = read(write_parquet(tmp_path / "second", splits, NAMES, num_files=5, rows_per_group=3))
    third = read(write_webdataset(tmp_path / "third", splits, num_files=7))
    assert_same_source(first, second)
    assert_same_source(first, third)


def test_canonical_order_mixes_the_classes(tmp_path: Path) -> None:
    source = read(write_image_folder(tmp_path, make_splits(per_class=20), NAMES))
    labels = source.train.labels
    assert np.count_nonzero(labels[1:] != labels[:-1]) > 100


def test_building_from_each_form_gives_byte_identical_files(tmp_path: Path) -> None:
    splits = some_splits("duplicates")
    recipe = make_recipe(num_classes=10, poison_rate=0.7, shard_mebibytes=0.04)
    built = []
    for form in FORMS:
        out = tmp_path / "built" / form
        where = str(write_form(form, tmp_path / form, splits, NAMES))
        build(recipe, BuildOptions(out=out, source=where), Reporter(silent=True))
        built.append(data_files(out))
    assert len([path for path in built[0] if path.startswith("data/train-")]) > 1
    assert all(files == built[0] for files in built[1:])


@pytest.mark.parametrize("image_column", ["img", "image"])
def test_both_usual_names_of_the_image_column_are_read(image_column: str, tmp_path: Path) -> None:
    splits = some_splits("even")
    source = read(write_parquet(tmp_path, splits, NAMES, image_column=image_column))
    assert source.class_names == NAMES
    assert source.train.digest == digest_by_definition(splits["train"])


@pytest.mark.parametrize("python2", [True, False], ids=["by Python 2", "by Python 3"])
@pytest.mark.parametrize("inside", [True, False], ids=["the folder itself", "the folder above"])
def test_original_batches_are_read(python2: bool, inside: bool, tmp_path: Path) -> None:
    splits = some_splits("even")
    folder = write_cifar_batches(tmp_path, splits, NAMES, python2=python2)
    source = read(folder / "cifar-10-batches-py" if inside else folder)
    assert source.kind == "the original CIFAR-10 batches"
    assert source.class_names == NAMES
    assert source.train.digest == digest_by_definition(splits["train"])
    assert source.splits["test"].digest == digest_by_definition(splits["test"])


@pytest.mark.parametrize(
    "missing",
    [["data_batch_2", "data_batch_4", "test_batch"], ["test_batch"], [f"data_batch_{n}" for n in range(1, 6)]],
)
@pytest.mark.parametrize("recipe", ["ops", "ops-cifar10"])
def test_batches_that_are_not_all_there_are_refused_by_name(recipe: str, missing: list[str], tmp_path: Path) -> None:
    folder = write_cifar_batches(tmp_path, some_splits("single"), NAMES) / "cifar-10-batches-py"
    for name in missing:
        (folder / name).unlink()
    for more in ((), ("--dry-run",)):
        outcome = run_build(recipe, "--source", tmp_path, "--out", tmp_path / "out", *more)
        assert outcome.code == 2
        assert f"{folder} lacks {', '.join(missing)} of the 6 original CIFAR-10 batches: unpack" in outcome.complaint[0]


def test_batches_without_a_list_of_names_have_numbers_as_classes(tmp_path: Path) -> None:
    folder = write_cifar_batches(tmp_path, some_splits("single"), NAMES) / "cifar-10-batches-py"
    (folder / "batches.meta").unlink()
    assert read(folder).class_names == tuple(map(str, range(10)))


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_a_single_file_is_a_source(form: str, tmp_path: Path) -> None:
    splits = {"train": make_images(3, 4, 8)}
    folder = write_form(form, tmp_path, splits, class_names(3), num_files=1)
    (path,) = folder.iterdir()
    assert read(path).train.digest == digest_by_definition(splits["train"])


def test_jpeg_files_upper_case_suffixes_and_nested_folders_are_read(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "cats" / "indoors"
    folder.mkdir(parents=True)
    image = Image.fromarray(make_images(1, 1, 8).images[0])
    image.save(folder / "a.JPEG")
    image.save(folder / "b.PNG")
    (folder / "notes.txt").write_text("not an image")
    hidden = tmp_path / ".cache"
    hidden.mkdir()
    (hidden / "c.png").write_bytes(b"not an image either")
    source = read(tmp_path)
    assert source.class_names == ("cats",)
    assert len(source.train) == 2
    with Image.open(folder / "a.JPEG") as decoded:
        assert any(np.array_equal(np.asarray(decoded), loaded) for loaded in source.train.images)


# --- CIFAR-10 ------------------------------------------------------------------------------------------------


def test_cifar10_is_recognised_from_its_parquet_files(built_cifar10: Path) -> None:
    manifest = Manifest.read(built_cifar10)
    assert manifest.source_digests == CIFAR10_DIGESTS == dict(CIFAR10.digests or ())
    assert manifest.splits["test"].digest == CIFAR10_DIGESTS["test"]
    assert manifest.class_names == CIFAR10.class_names


@pytest.mark.slow
@pytest.mark.parametrize("form", ["image folder", "cifar batches", "webdataset"])
def test_cifar10_is_recognised_from_its_other_forms(form: str, cifar10_folder: Path, tmp_path: Path) -> None:
    assert CIFAR10.class_names is not None
    clean = read(cifar10_folder, CIFAR10)
    splits = {name: Samples(split.images, split.labels) for name, split in clean.splits.items()}
    source = read(write_form(form, tmp_path, splits, CIFAR10.class_names), CIFAR10)
    assert {name: split.digest for name, split in source.splits.items()} == CIFAR10_DIGESTS
    assert_same_source(clean, source)


# --- classes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "cifar batches"])
def test_classes_in_another_order_are_mapped_to_the_order_of_the_recipe(form: str, tmp_path: Path) -> None:
    splits = some_splits("even")
    order = np.random.default_rng(0).permutation(10)
    renumbered = {name: Samples(images, np.argsort(order)[labels]) for name, (images, labels) in splits.items()}
    renamed = [NAMES[number] for number in order]
    straight = read(write_form(form, tmp_path / "straight", splits, NAMES), own_images(10))
    mapped = read(write_form(form, tmp_path / "mapped", renumbered, renamed), own_images(10))
    assert renamed != list(NAMES)
    assert mapped.class_names == NAMES
    assert_same_source(straight, mapped)


def test_classes_of_an_image_folder_are_mapped_to_the_order_of_the_recipe(tmp_path: Path) -> None:
    splits = {"train": make_images(3, 2, 8)}
    spec = dataclasses.replace(own_images(None), class_names=("zebra", "ape", "lion"))
    source = read(write_image_folder(tmp_path, splits, ("zebra", "ape", "lion")), spec)
    assert source.class_names == ("zebra", "ape", "lion")
    assert source.train.digest == digest_by_definition(splits["train"])


def test_own_images_without_class_names_get_numbered_classes(tmp_path: Path) -> None:
    source = read(write_webdataset(tmp_path, {"train": make_images(4, 2, 8)}))
    assert source.class_names == ("0", "1", "2", "3")
    assert read(write_parquet(tmp_path / "p", {"train": make_images(4, 2, 8)}, None)).class_names == source.class_names


def test_labels_above_255_count_with_two_bytes_and_are_the_same_in_every_form(tmp_path: Path) -> None:
    splits = {"train": make_images(300, 1, 4), "test": make_images(300, 1, 4, seed=1)}
    names = class_names(300)
    sources = [
        read(write_form(form, tmp_path / form, splits, names)) for form in ("parquet", "image folder", "webdataset")
    ]
    for source in sources:
        assert source.train.labels.max() == 299
        assert source.train.digest == digest_by_definition(splits["train"])
        assert_same_source(sources[0], source)


def test_a_class_without_training_images_is_announced_and_built(
    tmp_path: Path, run_cli: Callable[..., Outcome]
) -> None:
    splits = {"train": make_images(3, 2, 8)}
    where = write_parquet(tmp_path / "source", splits, (*class_names(3), "nobody"))
    outcome = run_cli("ops", "--source", where, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    assert "warning: class 'nobody' has no training images" in outcome.stderr
    assert Manifest.read(tmp_path / "out").class_names == (*class_names(3), "nobody")


# --- keys ----------------------------------------------------------------------------------------------------


def test_a_key_is_the_start_of_the_sample_digest(tmp_path: Path) -> None:
    samples = make_images(2, 3, 8)
    split = read(write_webdataset(tmp_path, {"train": samples})).train
    by_pixels = dict(zip((image.tobytes() for image in split.images), split.keys, strict=True))
    for image, label in zip(samples.images, samples.labels.tolist(), strict=True):
        expected = hashlib.sha256(image.tobytes() + bytes([label])).hexdigest()[:16]
        assert by_pixels[image.tobytes()] == expected


def test_exact_duplicates_get_counted_keys(tmp_path: Path) -> None:
    images, labels = make_images(2, 1, 8)
    samples = Samples(images[[0, 1, 0, 0]], labels[[0, 1, 0, 0]])
    split = read(write_parquet(tmp_path, {"train": samples}, class_names(2))).train
    plain = hashlib.sha256(images[0].tobytes() + bytes([0])).hexdigest()[:16]
    assert {key for key in split.keys if key.startswith(plain)} == {plain, f"{plain}-1", f"{plain}-2"}
    assert len(set(split.keys)) == 4
    assert split.digest == digest_by_definition(samples)


def test_the_same_pixels_with_another_label_have_another_key(tmp_path: Path) -> None:
    image = make_images(1, 1, 8).images[0]
    split = read(write_parquet(tmp_path, {"train": Samples(np.stack([image, image]), np.array([0, 1]))}, None)).train
    assert len({key[:16] for key in split.keys}) == 2
    assert not any("-" in key for key in split.keys)


# --- splits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00000-of-00001.parquet", "train"),
        ("training.parquet", "train"),
        ("test.parquet", "test"),
        ("Testing_0.parquet", "test"),
        ("val-0.parquet", "test"),
        ("valid.parquet", "test"),
        ("data/validation-0.parquet", "test"),
        ("test/0000.parquet", "test"),
        ("plain/train/0000.parquet", "train"),
        ("latest.parquet", "train"),
        ("0000.parquet", "train"),
    ],
)
def test_words_in_file_and_folder_names_tell_the_split(path: str, split: str, tmp_path: Path) -> None:
    splits = {"train": make_images(2, 2, 8), "test": make_images(2, 1, 8, seed=1)}
    for name, file in ((split, path), ("train", "more-train.parquet")):
        target = tmp_path / file
        target.parent.mkdir(parents=True, exist_ok=True)
        write_parquet_file(target, [encode(i) for i in splits[name].images], splits[name].labels.tolist(), None)
    found = read(tmp_path).splits
    assert {name: len(part) for name, part in found.items()} == (
        {"train": 8} if split == "train" else {"train": 4, "test": 2}
    )


@pytest.mark.parametrize("word", ["test", "val", "Validation"])
def test_words_in_folder_names_tell_the_split_of_an_image_folder(word: str, tmp_path: Path) -> None:
    splits = {"Train": make_images(2, 2, 8), word: make_images(2, 1, 8, seed=1)}
    found = read(write_image_folder(tmp_path, splits, class_names(2))).splits
    assert {name: len(part) for name, part in found.items()} == {"train": 4, "test": 2}


def test_class_folders_alone_are_training_images(tmp_path: Path) -> None:
    write_image_folder(tmp_path, {"train": make_images(2, 2, 8)}, class_names(2))
    source = read(tmp_path / "train")
    assert list(source.splits) == ["train"]
    assert source.class_names == class_names(2)


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    write_image_folder(tmp_path, {name: make_images(2, 1, 8) for name in ("train", "dev", "val")}, class_names(2))
    with pytest.raises(InputError, match="two folders for the validation split: dev, val"):
        read(tmp_path)


# --- nothing in a source is trusted --------------------------------------------------------------------------


class _Attack:
    """Pickles to a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", ["system", "eval", "mkdir"])
@pytest.mark.parametrize("file", ["data_batch_1", "batches.meta"])
def test_a_malicious_pickle_is_refused_and_not_executed(file: str, name: str, protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    attacks = {
        "system": (_Attack(os.system, f"touch {mark}"), "system"),
        "eval": (_Attack(eval, f"open({str(mark)!r}, 'w')"), r"builtin\w*\.eval"),
        "mkdir": (_Attack(os.mkdir, str(mark)), "mkdir"),
    }
    attack, asked_for = attacks[name]
    folder = write_cifar_batches(tmp_path / "source", some_splits("single"), NAMES) / "cifar-10-batches-py"
    (folder / file).write_bytes(pickle.dumps({b"data": attack, b"labels": []}, protocol=protocol))
    with pytest.raises(InputError, match=rf"{file} is not an intact CIFAR-10 batch file: it asks for .*{asked_for}"):
        read(folder)
    assert not mark.exists()
    pickle.loads((folder / file).read_bytes())
    assert mark.exists(), "the pickle of this test does no harm, so the test shows nothing"


@pytest.mark.parametrize("allowed", ["numpy dtype", "numpy.core.multiarray dtype", "_codecs encode"])
def test_dotted_names_do_not_get_around_the_restricted_unpickler(allowed: str, tmp_path: Path) -> None:
    module, name = allowed.split()
    dotted = f"{name}.__class__.__base__.__subclasses__".encode()
    stream = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode()
    stream += b"\x8c" + bytes([len(dotted)]) + dotted + b"\x93)R."
    folder = write_cifar_batches(tmp_path, some_splits("single"), NAMES) / "cifar-10-batches-py"
    (folder / "data_batch_3").write_bytes(stream)
    with pytest.raises(InputError, match="data_batch_3 is not an intact CIFAR-10 batch file: it asks for"):
        read(folder)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x02]q\x00."], ids=["empty", "garbage", "a list"])
def test_a_damaged_batch_file_is_named(content: bytes, tmp_path: Path) -> None:
    folder = write_cifar_batches(tmp_path, some_splits("single"), NAMES) / "cifar-10-batches-py"
    (folder / "data_batch_2").write_bytes(content)
    with pytest.raises(InputError, match="data_batch_2 is not a"):
        read(folder)


def test_every_truncation_of_a_batch_file_is_refused(tmp_path: Path) -> None:
    folder = write_cifar_batches(tmp_path, some_splits("single"), NAMES) / "cifar-10-batches-py"
    whole = (folder / "test_batch").read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(whole), 1999)]:
        (folder / "test_batch").write_bytes(whole[:length])
        with pytest.raises(InputError, match="test_batch is not a"):
            read(folder)


def _tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_tar_members_are_never_extracted_wherever_their_names_lead(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    images = make_images(4, 1, 8).images
    absolute = str(tmp_path / "absolute")
    members = []
    for number, name in enumerate(("../escaped", "../../../escaped", absolute, "inside/../../escaped")):
        members += [(f"{name}{number}.png", encode(images[number])), (f"{name}{number}.cls", b"%d" % number)]
    path = _tar(folder / "train.tar", members)
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=r"\(link\): link.png is a symbolic link"):
        read(folder)
    source = read(folder, skip_unusable=True)
    assert sorted(source.train.labels.tolist()) == [0, 1, 2, 3]
    assert snapshot(tmp_path) == before
    assert not Path("../escaped0.png").exists()


def test_tar_members_of_one_sample_may_have_further_extensions(tmp_path: Path) -> None:
    image = make_images(1, 1, 8).images[0]
    _tar(
        tmp_path / "train.tar",
        [("./a.txt", b"?"), ("./a.PNG", encode(image)), ("./a.json", b"{}"), ("./a.cls", b" 0\n")],
    )
    assert np.array_equal(read(tmp_path).train.images, image[None])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.png", None), ("b.cls", b"0")], r"\(a\): expected one image and a .cls member, found \['png'\]"),
        ([("a.png", None), ("a.jpg", None), ("a.cls", b"0")], "expected one image and a .cls member"),
        ([("a.png", None), ("a.cls", b"-1")], "the .cls member holds b'-1', not a class number"),
        ([("a.png", None), ("a.cls", b"cat")], "the .cls member holds b'cat', not a class number"),
    ],
)
def test_incomplete_tar_samples_are_refused(
    members: list[tuple[str, bytes | None]], message: str, tmp_path: Path
) -> None:
    image = encode(make_images(1, 1, 8).images[0])
    _tar(tmp_path / "train.tar", [(name, image if data is None else data) for name, data in members])
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_a_tar_file_cut_within_a_member_is_refused(tmp_path: Path) -> None:
    (path,) = write_webdataset(tmp_path, {"train": make_images(2, 4, 16)}, num_files=1).iterdir()
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"train-000000.tar is not a whole tar archive: it is cut off"):
        read(tmp_path)


def test_a_tar_file_cut_between_two_samples_is_refused(tmp_path: Path) -> None:
    (path,) = write_webdataset(tmp_path, {"train": make_images(2, 4, 16)}, num_files=1).iterdir()
    with tarfile.open(path) as tar:
        third = tar.getmembers()[4].offset
    path.write_bytes(path.read_bytes()[:third])
    with pytest.raises(InputError, match=r"train-000000\.tar"):
        read(tmp_path)


def test_the_order_in_which_samples_are_given_does_not_matter(tmp_path: Path) -> None:
    samples = make_images(5, 3, 8)
    one = Split.from_samples("train", *samples, _digests(samples))
    mixed = shuffled(samples, 5)
    assert_same_split(one, Split.from_samples("train", *mixed, _digests(mixed)))


def _digests(samples: Samples) -> list[bytes]:
    return [
        hashlib.sha256(image.tobytes() + bytes([label])).digest()
        for image, label in zip(samples.images, samples.labels.tolist(), strict=True)
    ]
