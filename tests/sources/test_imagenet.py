"""ImageNet's class list, and its images in every layout in which people have them."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import RECIPES
from ule_datasets.base.errors import InputError
from ule_datasets.sources.forms import Form, official_name
from ule_datasets.sources.image_folder import FILES_PER_CHUNK, Files
from ule_datasets.sources.imagenet import ENGLISH, IMAGENET1K, IMAGENET100, LABEL_LISTS, WNIDS, wnids_for
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.reading import find_form

KAGGLE, NUMBERED = LABEL_LISTS
CLASSES = (WNIDS[0], WNIDS[7], WNIDS[999])
TRAIN = {f"{wnid}/{wnid}_{number}": wnid for wnid in CLASSES for number in (10026, 3, 77)}
"""Training images by their path below ``train`` without suffix, with their classes."""
VALIDATION = {f"ILSVRC2012_val_{number:08d}": CLASSES[number % 3] for number in range(1, 8)}


def content(name: str) -> bytes:
    """No image: nothing here decodes any."""
    return f"pixels of {name.rpartition('/')[2]}".encode()


def write(folder: Path, names: Any) -> None:
    for name in names:
        path = folder / f"{name}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(name))


def write_kaggles(path: Path, labels: dict[str, str] = VALIDATION) -> None:
    rows = [f"{name},{wnid} 85 1 499 272 {wnid} 5 5 10 10 " for name, wnid in reversed(labels.items())]
    path.write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")


def write_numbered(path: Path, labels: dict[str, str] = VALIDATION) -> None:
    path.write_text("".join(f"{wnid}\n" for _, wnid in sorted(labels.items())))


def by_class(root: Path) -> Path:
    write(root / "train", TRAIN)
    write(root / "val", [f"{wnid}/{name}" for name, wnid in VALIDATION.items()])
    return root


def flat(root: Path) -> Path:
    """As the official archives unpack: no list of labels yet."""
    write(root / "train", TRAIN)
    write(root / "val", VALIDATION)
    return root


def kaggles(root: Path) -> Path:
    flat(root / "ILSVRC" / "Data" / "CLS-LOC")
    write(root / "ILSVRC" / "Data" / "CLS-LOC" / "test", [f"ILSVRC2012_test_{n:08d}" for n in range(1, 5)])
    (root / "ILSVRC" / "Annotations").mkdir()
    write_kaggles(root / KAGGLE)
    return root


def form_of(root: Path, only: Sequence[str] | None = None) -> Form:
    """How the images below a folder are stored; ``only``: of a larger source, these classes."""
    names, subset = (None, None) if only is None else (tuple(only), True)
    return find_form(str(root), dataclasses.replace(OWN_IMAGES, class_names=names, subset=subset))


def samples(form: Form, names: tuple[str, ...] | None = None) -> dict[str, list[tuple[str, str, bytes]]]:
    """Of each split, (official name, class, bytes), sorted; ``names``: the classes, where the form's are others."""
    known = names or form.class_names
    assert known is not None
    found: dict[str, list[tuple[str, str, bytes]]] = {}
    for split, chunks in form.chunks.items():
        raws = [raw for chunk in chunks for raw in chunk.samples()]
        assert all(isinstance(raw.image, bytes) for raw in raws)
        found[split] = sorted((official_name(raw.name), known[raw.label], bytes(raw.image)) for raw in raws)
    return found


def expected(only: tuple[str, ...] = CLASSES) -> dict[str, list[tuple[str, str, bytes]]]:
    splits = {"train": TRAIN, "test": VALIDATION}
    return {
        split: sorted((name.rpartition("/")[2], wnid, content(name)) for name, wnid in labels.items() if wnid in only)
        for split, labels in splits.items()
    }


def timms_lists() -> Path:
    """Lists that the timm package comes with; it is not imported."""
    spec = importlib.util.find_spec("timm")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / "_info"


# --- classes -------------------------------------------------------------------------------------------------


def test_the_class_list_is_the_one_of_timm_and_of_torchvision() -> None:
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    listed = (timms_lists() / "imagenet_synsets.txt").read_text().split()
    assert list(ENGLISH) == list(WNIDS) == listed == sorted(listed)
    assert list(ENGLISH.values()) == _IMAGENET_CATEGORIES
    assert len(set(ENGLISH)) == len(set(ENGLISH.values())) == 1000


def test_specs_say_what_is_in_them() -> None:
    assert IMAGENET1K.class_names == WNIDS
    assert IMAGENET100.class_names == WNIDS[:100]
    assert (IMAGENET1K.subset, IMAGENET100.subset) == (None, True)
    assert dict(IMAGENET1K.num_images or ()) == {"train": 1_281_167, "test": 50_000}
    assert dict(IMAGENET100.num_images or ()) == {"train": 129_395, "test": 5_000}
    for spec in (IMAGENET1K, IMAGENET100):
        assert spec.keyed_by == "name"
        assert not spec.licence.redistributable
        assert spec.preprocess is not None
        assert spec.preprocess.convert == "RGB"


def test_a_shard_of_a_recipe_holds_about_1700_images() -> None:
    for name in ("ops-imagenet100", "ops-imagenet1k"):
        assert 1_600 < RECIPES[name].shard_mebibytes * 2**20 / (224 * 224 * 3) < 1_800
    assert RECIPES["ops-cifar10"].shard_mebibytes == 16


def lemmas() -> tuple[str, ...]:
    """All the names that WordNet has for each class, as the Hub gives them."""
    lines = (timms_lists() / "imagenet_synset_to_lemma.txt").read_text().splitlines()
    names = dict(line.split("\t", 1) for line in lines)
    return tuple(names[wnid] for wnid in WNIDS)


def test_classes_under_the_names_of_the_hub_are_recognised() -> None:
    assert lemmas()[0] == "tench, Tinca tinca"
    assert wnids_for(lemmas()) == WNIDS
    assert wnids_for(tuple(ENGLISH.values())) == WNIDS


def test_up_to_a_twentieth_of_the_names_may_be_other_ones() -> None:
    assert wnids_for(("?",) * 50 + lemmas()[50:]) == WNIDS
    assert wnids_for(("?",) * 51 + lemmas()[51:]) is None


@pytest.mark.parametrize(
    "how", ["alphabetical", "reversed", "moved by one", "too few", "identifiers", "numbers", "none"]
)
def test_other_classes_and_another_order_are_not_taken_for_it(how: str) -> None:
    names = lemmas()
    lists = {
        "alphabetical": tuple(sorted(names)),
        "reversed": names[::-1],
        "moved by one": names[1:] + names[:1],
        "too few": names[:999],
        "identifiers": WNIDS,
        "numbers": tuple(map(str, range(1000))),
        "none": (),
    }
    assert wnids_for(lists[how]) is None


def test_listing_the_catalogue_reads_the_classes_and_nothing_heavy() -> None:
    program = "import sys, builders; print(*{'torch', 'torchvision', 'timm', 'pyarrow', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


# --- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "official"),
    [
        ("n01440764_10026_n01440764", "n01440764_10026"),
        ("ILSVRC2012_val_00000293_n01530575", "ILSVRC2012_val_00000293"),
        ("n01440764_10026", "n01440764_10026"),
        ("ILSVRC2012_val_00000293", "ILSVRC2012_val_00000293"),
        ("n01440764", "n01440764"),
        ("n01440764_n01440764", "n01440764_n01440764"),
        ("holiday_12_n01440764", "holiday_12_n01440764"),
        ("", ""),
    ],
)
def test_official_names(name: str, official: str) -> None:
    assert official_name(name) == official
    assert official_name(official) == official


# --- layouts of folders --------------------------------------------------------------------------------------


def test_class_folders_in_both_splits(tmp_path: Path) -> None:
    form = form_of(by_class(tmp_path))
    assert form.class_names == CLASSES
    assert samples(form) == expected()


@pytest.mark.parametrize("where", ["", "val"])
@pytest.mark.parametrize(("name", "write_list"), [(KAGGLE, write_kaggles), (NUMBERED, write_numbered)])
def test_validation_images_beside_each_other_get_their_labels_from_a_list(
    name: str, write_list: Any, where: str, tmp_path: Path
) -> None:
    write_list(flat(tmp_path) / where / name)
    form = form_of(tmp_path)
    assert form.class_names == CLASSES
    assert samples(form) == expected()


@pytest.mark.parametrize("name", ["", "ILSVRC/Data/CLS-LOC"])
def test_the_archive_of_kaggle_is_read_where_it_was_unpacked_and_its_unlabelled_test_images_are_left_out(
    name: str, tmp_path: Path
) -> None:
    kaggles(tmp_path)
    if name:
        (tmp_path / KAGGLE).rename(tmp_path / name / KAGGLE)
    assert samples(form_of(tmp_path / name)) == expected()


def test_without_a_list_it_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="val has images outside of class folders") as error:
        form_of(flat(tmp_path))
    (line,) = str(error.value).splitlines()
    assert f"put ImageNet's list of their labels ({KAGGLE} or {NUMBERED}) into {tmp_path}" in line
    assert "move them into class folders" in line


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (KAGGLE, "ImageId\nILSVRC2012_val_00000001\n", r"has columns \['ImageId'\], expected \['ImageId', 'Pred"),
        (KAGGLE, "ImageId,PredictionString\nILSVRC2012_val_00000001\n", "label of ILSVRC2012_val_00000001 is ''"),
        (KAGGLE, f"ImageId,PredictionString\nILSVRC2012_val_00000001,{WNIDS[0]} 1\n", "no label for .*_00000002.JPEG"),
        (NUMBERED, f"{WNIDS[0]}\ntench\n", "the label of ILSVRC2012_val_00000002 is 'tench', not a class of ImageNet"),
        (NUMBERED, f"{WNIDS[0]}\n" * 6, f"{NUMBERED} has no label for .*val/ILSVRC2012_val_00000007.JPEG"),
        (NUMBERED, b"\xff\xfe", "cannot read .*synset_labels.txt"),
    ],
)
def test_a_damaged_list_is_named(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    (flat(tmp_path) / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        form_of(tmp_path)


def test_a_test_folder_with_classes_or_in_place_of_a_validation_folder_is_not_left_out(tmp_path: Path) -> None:
    write(by_class(tmp_path) / "test" / CLASSES[0], ["a"])
    form = form_of(tmp_path)
    assert len(samples(form)["test"]) == 1
    assert [each.count for each in form.passed_over if "validation" in each.reason] == [len(VALIDATION)]
    (tmp_path / "val").rename(tmp_path / ".val")
    assert len(samples(form_of(tmp_path))["test"]) == 1


def test_of_three_unlabelled_splits_the_test_split_is_the_test_split(tmp_path: Path) -> None:
    for split, names in (("train", "ab"), ("val", "cde"), ("test", "f")):
        write(tmp_path / split, names)
    assert [len(found) for found in samples(form_of(tmp_path)).values()] == [1, 2]


@pytest.mark.parametrize("layout", [by_class, kaggles])
def test_only_some_classes(layout: Any, tmp_path: Path) -> None:
    form = form_of(layout(tmp_path), only=(CLASSES[1], WNIDS[500]))
    assert form.class_names == (CLASSES[1],)
    assert samples(form) == expected((CLASSES[1],))


def test_folders_of_other_classes_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_class(tmp_path)
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(Path(folder).name) or scandir(folder))
    form_of(tmp_path, only=CLASSES[:2])
    assert set(CLASSES[:2]) < set(listed)
    assert CLASSES[2] not in listed


def test_none_of_the_classes_is_said_with_what_there_is_instead(tmp_path: Path) -> None:
    write(tmp_path / "train", [f"{animal}/a" for animal in ("bat", "cat", "dog", "eel")])
    wanted = f"{WNIDS[0]}, {WNIDS[1]}, {WNIDS[2]}, ..."
    with pytest.raises(InputError, match=rf"train has none of .* wanted \({wanted}\), but bat, cat, dog, \.\.\."):
        form_of(tmp_path, only=WNIDS[:100])


def test_files_come_in_order_with_nested_and_linked_folders_and_without_hidden_ones(tmp_path: Path) -> None:
    names = ["b", "a/z", "a/y/x", "a.b", ".hidden", ".thumbs/a"]
    write(tmp_path / "elsewhere", names)
    (tmp_path / "images" / "dogs").mkdir(parents=True)
    (tmp_path / "images" / "cats").symlink_to(tmp_path / "elsewhere")
    write(tmp_path / "images" / "dogs", ["rex"])
    (tmp_path / "images" / "dogs" / "all").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "dogs" / "gone.JPEG").symlink_to(tmp_path / "nowhere")
    (tmp_path / "images" / "nothing").mkdir()
    form = form_of(tmp_path / "images")
    (chunk,) = form.chunks["train"]
    assert isinstance(chunk, Files)
    assert chunk.names == ("cats/a/y/x.JPEG", "cats/a/z.JPEG", "cats/a.b.JPEG", "cats/b.JPEG", "dogs/rex.JPEG")
    assert chunk.labels == (0, 0, 0, 0, 1)
    assert [raw.name for raw in chunk.samples()] == ["x", "z", "a.b", "b", "rex"]
    assert form.class_names == ("cats", "dogs")


def test_a_split_is_cut_into_pieces_of_equal_size_across_classes(tmp_path: Path) -> None:
    per_class = FILES_PER_CHUNK // 2 + 1
    write(tmp_path, [f"{wnid}/{number}" for wnid in CLASSES for number in range(per_class)])
    form = form_of(tmp_path)
    pieces = [chunk for chunk in form.chunks["train"] if isinstance(chunk, Files)]
    assert [len(piece.names) for piece in pieces] == [FILES_PER_CHUNK, 3 * per_class - FILES_PER_CHUNK]
    assert Counter(label for piece in pieces for label in piece.labels) == dict.fromkeys(range(3), per_class)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_class(tmp_path)
    scandir = os.scandir

    def locked(folder: Path) -> Any:
        if Path(folder).name == CLASSES[1]:
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(InputError, match=rf"cannot list \S+train/{CLASSES[1]}: Permission denied"):
        form_of(tmp_path)


# --- other forms ---------------------------------------------------------------------------------------------


def write_hub(folder: Path, names: tuple[str, ...] | None = None, *, test_labels: list[int] | None = None) -> Path:
    """As the Hub has it: class in the file's name, a test split whose labels are all -1."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = {
        "train": [
            (f"{name.rpartition('/')[2]}_{wnid}", WNIDS.index(wnid), content(name)) for name, wnid in TRAIN.items()
        ],
        "validation": [(f"{name}_{wnid}", WNIDS.index(wnid), content(name)) for name, wnid in VALIDATION.items()],
        "test": [(f"ILSVRC2012_test_{n:08d}", label, b"?") for n, label in enumerate(test_labels or [])],
    }
    label = {"names": list(names or lemmas()), "_type": "ClassLabel"}
    info = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    for split, rows in splits.items():
        if rows:
            images = [{"bytes": data, "path": f"{name}.JPEG"} for name, _, data in rows]
            table = pa.table({"image": images, "label": [number for _, number, _ in rows]})
            table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
            pq.write_table(table, folder / f"{split}-00000-of-00001.parquet", row_group_size=4)
    return folder


def write_tars(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, labels in (("train", TRAIN), ("validation", VALIDATION)):
        with tarfile.open(folder / f"imagenet1k-{split}-0000.tar", "w") as tar:
            for name, wnid in labels.items():
                for suffix, data in (("jpg", content(name)), ("cls", str(WNIDS.index(wnid)).encode())):
                    info = tarfile.TarInfo(f"{name}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


def test_every_form_gives_the_same_names_classes_and_bytes(tmp_path: Path) -> None:
    hub = form_of(write_hub(tmp_path / "hub", test_labels=[-1] * 5))
    assert hub.class_names is not None
    tars = form_of(write_tars(tmp_path / "tars"))
    assert tars.class_names is None
    assert samples(hub, wnids_for(hub.class_names)) == expected()
    assert samples(tars, WNIDS) == expected()
    assert samples(form_of(kaggles(tmp_path / "kaggle"))) == expected()
    assert samples(form_of(by_class(tmp_path / "folders"))) == expected()


def test_images_without_a_path_or_in_a_plain_column_have_no_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [{"bytes": b"a", "path": None}], "label": [0]}), tmp_path / "train-0.parquet")
    pq.write_table(pa.table({"image": [b"a"], "label": [0]}), tmp_path / "test-0.parquet")
    form = form_of(tmp_path)
    assert [raw.name for chunks in form.chunks.values() for chunk in chunks for raw in chunk.samples()] == ["", ""]


def test_a_test_split_with_labels_beside_a_validation_split_is_the_test_split(tmp_path: Path) -> None:
    form = form_of(write_hub(tmp_path, test_labels=[1, 2, 3]))
    assert [raw.label for chunk in form.chunks["test"] for raw in chunk.samples()] == [1, 2, 3]
    assert [note.partition(";")[0] for note in form.notes] == ["the test split is the clean test split"]


@pytest.mark.parametrize("labels", [pa.array([-1, -1], pa.int64()), pa.array([None, None], pa.int64()), pa.nulls(2)])
def test_withheld_labels_may_be_minus_one_or_missing(labels: pa.Array, tmp_path: Path) -> None:
    write_hub(tmp_path)
    images = [{"bytes": b"?", "path": None}] * 2
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "test-00000-of-00001.parquet")
    form = form_of(tmp_path)
    assert [raw.image for chunk in form.chunks["test"] for raw in chunk.samples()] == list(map(content, VALIDATION))


def test_withheld_labels_alone_are_no_reason_to_leave_out_the_only_test_split(tmp_path: Path) -> None:
    write_hub(tmp_path, test_labels=[-1])
    (tmp_path / "validation-00000-of-00001.parquet").unlink()
    form = form_of(tmp_path)
    assert [raw.label for chunk in form.chunks["test"] for raw in chunk.samples()] == [-1]


def test_every_folder_is_listed_once_and_no_file_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_class(tmp_path)
    listed: list[str] = []
    scandir, stat, lstat = os.scandir, os.stat, os.lstat
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(str(folder)) or scandir(folder))

    def of_folders(function: Any) -> Any:
        def look(path: Any, *arguments: Any, **options: Any) -> Any:
            assert not str(path).endswith(".JPEG"), path
            return function(path, *arguments, **options)

        return look

    monkeypatch.setattr(os, "stat", of_folders(stat))
    monkeypatch.setattr(os, "lstat", of_folders(lstat))
    assert samples(form_of(tmp_path)) == expected()
    assert len(listed) == len(set(listed)) == 3 + 2 * len(CLASSES)


# --- real images ---------------------------------------------------------------------------------------------


def test_the_folders_of_real_images_are_the_first_hundred_classes(imagenet_folder: Path) -> None:
    assert tuple(sorted(path.name for path in (imagenet_folder / "train").iterdir())) == WNIDS[:100]
    form = form_of(imagenet_folder, only=IMAGENET100.class_names)
    assert form.class_names == IMAGENET100.class_names
    raws = [raw for chunk in form.chunks["train"] for raw in chunk.samples()]
    assert [raw.name for raw in raws] == list(WNIDS[:100])
    assert [raw.label for raw in raws] == list(range(100))
    assert np.all([bytes(raw.image)[:2] == b"\xff\xd8" for raw in raws])
