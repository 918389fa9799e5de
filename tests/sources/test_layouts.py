"""Form x layout x oddity: what is read of a source, what is passed over by name, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from trees import (
    Files,
    Folder,
    Link,
    Table,
    classes,
    contents,
    form_of,
    images,
    passed_over,
    png,
    shard,
    table,
    write_tree,
)

from ule_datasets.base.errors import InputError
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.reading import find_form

AB = {"a": 2, "b": 2}
TRAIN = {"train": AB}
BOTH = {"train": AB, "test": AB}
MANIFEST = '{\n "schema": "ule-datasets manifest 1",\n "name": "ops",\n'
PERTURBED = MANIFEST + ' "splits": {"train": {"num_poisoned": 3}}}'
CLEAN = MANIFEST + ' "splits": {"train": {"num_poisoned": 0}}}'


class Read(NamedTuple):
    """A source that is read."""

    files: Files
    splits: Mapping[str, Mapping[str, int]]
    passed_over: Mapping[str, int] = {}
    """By a part of each reason: how many."""
    notes: str = ""
    """In the notes, if there are any."""
    options: Mapping[str, Any] = {}


class Refused(NamedTuple):
    """A source that is refused with a message like this."""

    files: Files
    message: str
    options: Mapping[str, Any] = {}


VALIDATION = "the validation split, which is not used"
TEST = "the test split, which is not used"
EMPTY = "folders without images"

FOLDERS: dict[str, Read | Refused] = {
    # --- splits of image folders
    "classes alone": Read(classes(""), TRAIN),
    "train alone": Read(classes("train"), TRAIN),
    "train and test": Read(classes("train") | classes("test"), BOTH),
    "train and val": Read(classes("train") | classes("val"), BOTH),
    "train and valid": Read(classes("train") | classes("valid"), BOTH),
    "train and validation": Read(classes("train") | classes("validation"), BOTH),
    "train and dev": Read(classes("train") | classes("dev"), BOTH),
    "train and eval": Read(classes("train") | classes("eval"), BOTH),
    "training and testing": Read(classes("training") | classes("testing"), BOTH),
    "in capitals": Read(classes("TRAIN") | classes("Test"), BOTH),
    "words within names": Read(classes("train_images") | classes("test_images"), BOTH),
    "words with hyphens": Read(classes("Train-Set") | classes("Test-Set"), BOTH),
    "words behind": Read(classes("imgs_train") | classes("imgs_val"), BOTH),
    "words in one": Read(classes("trainImages") | classes("testImages"), BOTH),
    "words with numbers": Read(classes("train2017") | classes("val2017"), BOTH),
    "words with a subject": Read(classes("flowers_train") | classes("flowers_test"), BOTH),
    "words with a subject and a number": Read(classes("ILSVRC2012_train") | classes("ILSVRC2012_val"), BOTH),
    "three splits": Read(
        classes("train") | classes("val", count=3) | classes("test"),
        BOTH,
        {VALIDATION: 6},
        "the test split is the clean test split; the validation split is not used (--test-split validation takes it",
    ),
    "three splits, dev and eval": Read(classes("train") | classes("dev", "c") | classes("eval"), BOTH, {VALIDATION: 2}),
    "three splits, validation asked for": Read(
        classes("train") | classes("val") | classes("test", "c"),
        BOTH,
        {TEST: 2},
        "the validation split is the clean test split; the test split is not used",
        {"test_split": "val"},
    ),
    "three splits, test without labels": Read(
        classes("train") | classes("val") | images("test", 3), BOTH, {TEST: 3}, "the validation split is the clean"
    ),
    "three splits, test without labels asked for": Refused(
        classes("train") | classes("val") | images("test"), "images outside of class folders", {"test_split": "test"}
    ),
    "three splits, none with labels": Read(
        images("train", 3) | images("val") | images("test", 1),
        {"train": {"unlabelled": 3}, "test": {"unlabelled": 1}},
        {VALIDATION: 2},
    ),
    "a split that is not there": Refused(classes("train") | classes("val"), "no split 'test'", {"test_split": "test"}),
    "a split of two names": Refused(classes("train") | classes("val"), "no split", {"test_split": "val test"}),
    "a split of no name": Refused(classes("train") | classes("val"), "no split 'best'", {"test_split": "best"}),
    "two folders for one split": Refused(classes("val") | classes("dev") | classes("train"), "two folders for the val"),
    "two folders for training": Refused(
        classes("train_images") | classes("train_photos"), "two folders for the train split: train_images, train_photos"
    ),
    "masks beside images": Refused(
        classes("train_images") | classes("train_masks") | classes("test_images"), "two folders for the train split"
    ),
    "an unknown split": Refused(classes("train") | classes("holdout"), r"holdout looks like a split that is not known"),
    "an unknown split, extra": Refused(classes("train") | classes("test") | classes("extra"), "extra looks like a spl"),
    "two unknown splits": Refused(classes("trainval") | classes("holdout"), "holdout looks like a split that is not"),
    "one unknown split alone": Read(classes("trainval"), TRAIN),
    "an unknown word among classes": Read(images("extra") | images("plain"), {"train": {"extra": 2, "plain": 2}}),
    "a name of two splits": Refused(classes("train_test") | classes("val"), "speaks of several splits"),
    "folders beside splits": Refused(
        classes("train") | classes("test") | images("figures"),
        r"called like splits \(test, train\) beside others with images \(figures\)",
    ),
    "several folders beside a split": Refused(
        classes("train") | classes("w") | classes("x") | classes("y") | classes("z"), r"\(w, x, y, ...\)"
    ),
    "empty folders beside splits": Read(classes("train") | {"figures/a.txt": "", "x": Folder()}, TRAIN, {".txt": 1}),
    "images beside splits": Refused(classes("train") | images("."), "beside its folder train: move them into"),
    "images beside classes": Refused(classes("") | images("."), "and outside of them"),
    "splits within classes": Refused(
        images("a/train") | images("a/test") | images("b/train") | images("b/test"), r"\(test, train\) within a class"
    ),
    "splits within classes within a split": Refused(images("train/a/train") | images("train/a/val"), "within a class"),
    "splits of a subject and a folder of it": Refused(
        classes("seg_train") | classes("seg_test") | images("seg_pred"),
        r"splits \(seg_test, seg_train\) beside .*seg_pred",
    ),
    "splits of a subject within folders of their names": Read(
        classes("seg_train/seg_train") | classes("seg_test/seg_test"), BOTH
    ),
    "a lone split of a subject": Read(classes("seg_train"), TRAIN),
    "splits of two subjects": Refused(
        images("trainA") | images("trainB") | images("testA") | images("testB"), "two folders for the test split"
    ),
    "folders called images within splits": Read(classes("train/images") | classes("test/images"), BOTH),
    "unlabelled images in folders called images": Read(
        images("train/images") | images("val/images"), {"train": {"unlabelled": 2}, "test": {"unlabelled": 2}}
    ),
    "validation images in a folder called images": Refused(
        classes("train") | images("val/images"), "val/images has images outside of class folders"
    ),
    "folders called images within classes": Read(images("train/a/images") | images("train/b/images"), TRAIN),
    "images and masks": Refused(
        images("images") | images("masks"), r"a folder images, which is the name of no class, beside .*\(masks\)"
    ),
    "images and masks by class": Refused(
        classes("CUB/images") | classes("CUB/segmentations"), "CUB has a folder images"
    ),
    "images in capitals and other things": Refused(images("JPEGImages") | images("SegmentationClass"), "JPEGImages"),
    "classes called images and masks": Read(
        images("images") | images("masks"),
        {"train": {"images": 2, "masks": 2}},
        options={"class_folders": ("images",)},
    ),
    # --- classes that are called like splits
    "a class folder that is not there": Refused(
        classes(""), "has no folder 'train' .* it has a, b", {"class_folders": ("train",)}
    ),
    "a class called train": Refused(images("train") | images("bus") | images("car"), "--class-folder train"),
    "a class called train, kept": Read(
        images("train") | images("bus"), {"train": {"bus": 2, "train": 2}}, options={"class_folders": ("train",)}
    ),
    "classes called train and test, kept": Read(
        images("train") | images("test"),
        {"train": {"test": 2, "train": 2}},
        options={"class_folders": ("test", "train")},
    ),
    "a class called train, and a split": Refused(
        images("train") | classes("test"), "beside others", {"class_folders": ("train",)}
    ),
    "classes called like splits within splits": Read(
        classes("train", ["train", "bus"]) | classes("test", ["train", "bus"]),
        {"train": {"bus": 2, "train": 2}, "test": {"bus": 2, "train": 2}},
    ),
    "a class with a subject": Read(images("bullet_train") | images("bus"), {"train": {"bullet_train": 2, "bus": 2}}),
    "a class with a subject alone": Read(images("bullet_train"), {"train": {"bullet_train": 2}}),
    "two classes with subjects": Read(
        images("bullet_train") | images("steam_train"), {"train": {"bullet_train": 2, "steam_train": 2}}
    ),
    "subjects of different splits": Refused(
        images("bullet_train") | images("test_tube"),
        "like classes.*--class-folder bullet_train --class-folder test_tube",
    ),
    "subjects of different splits, kept": Read(
        images("bullet_train") | images("test_tube"),
        {"train": {"bullet_train": 2, "test_tube": 2}},
        options={"class_folders": ("bullet_train", "test_tube")},
    ),
    "words that only contain split words": Read(
        images("latest") | images("contest") | images("straining"),
        {"train": {"contest": 2, "latest": 2, "straining": 2}},
    ),
    # --- one folder around all
    "a lone folder around splits": Read(
        classes("photos/train") | classes("photos/test"), BOTH, {}, "all images are in photos"
    ),
    "lone folders around splits": Read(
        classes("x/photos/train") | classes("x/photos/test"), BOTH, {}, "all images are in x/photos"
    ),
    "a lone folder around classes": Read(classes("photos"), TRAIN, {}, "all images are in photos"),
    "a lone folder around unlabelled splits": Read(
        images("photos/train") | images("photos/test"), {"train": {"unlabelled": 2}, "test": {"unlabelled": 2}}
    ),
    "a lone class": Read(images("cats"), {"train": {"cats": 2}}),
    "a lone class with a folder": Read(images("cats/indoors"), {"train": {"cats": 2}}),
    "a lone class with images and folders": Read(
        images("cats") | images("cats/in") | images("cats/out"), {"train": {"cats": 6}}
    ),
    "folds of a set": Read(
        classes("fold1") | classes("fold2"),
        {"train": {"fold1": 4, "fold2": 4}},
        {},
        "its classes (fold1, fold2) have all the same folders in them (a, b)",
    ),
    "classes with one folder each": Read(
        images("a/x") | images("b/x"), TRAIN, {}, "2 classes have images in further folders (first a/x), which are"
    ),
    "classes with folders": Read(
        images("a/x") | images("a/y") | images("b/x"), {"train": {"a": 4, "b": 2}}, {}, "2 classes have images in fur"
    ),
    "a class with a folder": Read(
        classes("train") | images("train/b/young"),
        {"train": {"a": 2, "b": 4}},
        {},
        "1 class has images in further folders (first train/b/young), which are images of the class all the same",
    ),
    "classes within classes of one split": Read(
        classes("train", "abc") | classes("train/a") | classes("test"),
        {"train": {"a": 6, "b": 2, "c": 2}, "test": AB},
        {},
        "1 class has images in further folders (first train/a/a)",
    ),
    # --- classes of splits
    "classes that splits spell otherwise": Refused(
        images("train/Cat") | images("train/dog") | images("test/cat") | images("test/dog"),
        "has the class 'Cat' in the train split and 'cat' in the test split: give them one name if",
    ),
    "classes that differ in case within both splits": Read(
        classes("train", ["Polish", "polish"]) | classes("test", ["Polish", "polish"]),
        {"train": {"Polish": 2, "polish": 2}, "test": {"Polish": 2, "polish": 2}},
    ),
    "a folder of its own name": Read(classes("train/train") | classes("test/test"), BOTH),
    "a lone folder beside a text": Read(classes("photos/train") | {"README.txt": ""}, TRAIN, {".txt": 1}),
    "a lone folder beside an empty one": Read(classes("photos/train") | {"x": Folder()}, TRAIN),
    "a lone folder beside images": Refused(classes("photos/train") | images("."), "and outside of them"),
    # --- no classes
    "images alone": Read(images("."), {"train": {"unlabelled": 2}}),
    "images in splits": Read(images("train") | images("val"), {"train": {"unlabelled": 2}, "test": {"unlabelled": 2}}),
    "test images outside of classes": Refused(
        classes("train") | images("test"), "images outside of class folders, and the training images are in class fol"
    ),
    "test alone": Read(classes("test"), {"test": AB}),
    # --- what is passed over
    "an empty class": Read(classes("train") | {"train/c": Folder()}, TRAIN, {EMPTY: 1}),
    "a class of texts": Read(classes("train") | {"train/c/x.txt": ""}, TRAIN, {EMPTY: 1, ".txt files": 1}),
    "texts among images": Read(
        classes("") | {"a/x.txt": "", "b/y.TXT": "", "z.csv": ""}, TRAIN, {".txt": 2, ".csv": 1}
    ),
    "hidden files": Read(classes("") | {"a/.DS_Store": "", "a/._0.png": png(1)}, TRAIN, {"hidden": 2}),
    "hidden folders": Read(classes("") | images(".thumbs") | images("a/.ipynb_checkpoints"), TRAIN, {"hidden": 2}),
    "archives of a Mac": Read(classes("") | images("__MACOSX/a"), TRAIN, {"hidden": 1}),
    "thumbnails of a NAS": Read(classes("") | images("a/@eaDir/0.png"), TRAIN, {"hidden": 1}),
    "broken links": Read(classes("") | {"a/x.png": Link("nowhere.png")}, TRAIN, {"broken links": 1}),
    "linked images": Read(classes("") | {"a/x.png": Link("0.png")}, {"train": {"a": 3, "b": 2}}),
    "linked classes": Read({"a": Link("../outside/a"), **images("b")}, TRAIN),
    "linked folders in classes": Read(
        {"a/more": Link("../../outside/a"), **images("a"), **images("b")}, {"train": {"a": 4, "b": 2}}
    ),
    "linked splits": Read({"test": Link("../outside"), **classes("train")}, BOTH),
    "a validation split that is a link to the test split": Read(
        classes("train") | classes("test") | {"val": Link("test")}, BOTH, {VALIDATION: 4}
    ),
    "a link to the source": Read(classes("") | {"a/all": Link("..")}, TRAIN, {"links to a folder that they are in": 1}),
    "a dataset of ours within": Read(
        classes("train") | images("datasets/ops/figures") | {"datasets/ops/manifest.json": PERTURBED},
        TRAIN,
        {"made by this tool": 1},
    ),
    "a dataset of ours among classes": Read(
        classes("") | images("datasets/ops/figures") | {"datasets/ops/manifest.json": PERTURBED},
        TRAIN,
        {"made by this tool": 1, EMPTY: 1},
    ),
    "an unfinished dataset of ours": Read(
        classes("") | images("ops/.build/files/figures") | images("ops/figures"), TRAIN, {"made by this tool": 1}
    ),
    "a dataset of ours itself": Refused(classes("") | {"manifest.json": PERTURBED}, "the dataset ops of this tool"),
    "a clean dataset of ours": Read(classes("") | {"manifest.json": CLEAN}, TRAIN, {".json": 1}),
    "somebody's manifest": Read(classes("") | {"a/manifest.json": "{}"}, TRAIN, {".json": 1}),
    # --- known by what they are, not by their names
    "images of other suffixes": Read(
        classes("") | images("a", suffix=".jfif") | images("b", suffix=".x"), {"train": {"a": 4, "b": 4}}
    ),
    "images without a suffix": Read(images("a", suffix="") | images("b", suffix=""), TRAIN),
    "images without a suffix beside a licence": Read(
        {"LICENSE": "?", **images("a", suffix="")}, {"train": {"a": 2}}, {"out a suffix": 1}
    ),
    "texts without a suffix that begin as some images do": Read(
        classes("") | {"a/P1": "P1 is a text", "b/BM": "BMW"}, TRAIN, {"without a suffix": 2}
    ),
    "images beside ImageNet's archive": Read(
        classes("ILSVRC/Data/CLS-LOC/train") | images("figures"), TRAIN, {"outside of ILSVRC/Data/CLS-LOC": 2}
    ),
    "endings that are no words": Read(
        classes("") | {f"a/x.{n:03d}": "" for n in range(30)} | {"b/y.Zürich hat": ""}, TRAIN, {"of other suffixes": 31}
    ),
    "files without a suffix": Read(classes("") | {"a/Makefile": "all:", "LICENSE": ""}, TRAIN, {"without a suffix": 2}),
    "what is called a text": Read(classes("") | images("a", suffix=".txt"), TRAIN, {".txt": 2}),
    # --- several forms
    "an old tar": Refused(
        classes("train") | {"old.tar": shard([0, 1])},
        r"2 forms: webdataset \(old.tar\), image folder \(train/a/0.png\)",
    ),
    "a Parquet file": Refused(classes("train") | {"x/t.parquet": table([0])}, r"parquet \(x/t.parquet\), image folder"),
    "a Parquet file, and it is known": Read(
        classes("train") | {"x/t.parquet": table([0, 1])}, TRAIN, {".parquet": 1}, options={"form": "image folder"}
    ),
    "a form that is not there": Refused(classes("train"), "no images found", {"form": "parquet"}),
    "a hidden Parquet file": Read(classes("train") | {".x/t.parquet": table([0])}, TRAIN, {"hidden": 1}),
    "class folders that the recipe knows beside an archive": Read(
        classes("train") | {"train.tar": shard([0, 1])}, TRAIN, {".tar": 1}, options={"class_names": ("a", "b")}
    ),
    "some classes of a larger source": Read(
        classes("train", "abcd"), TRAIN, {"other classes": 2}, options={"class_names": ("a", "b"), "subset": True}
    ),
    "none of the classes": Refused(
        classes("train", "cd"), "none of the class folders", {"class_names": ("a", "b"), "subset": True}
    ),
    "a single image": Refused(
        {"a.png": png(0)}, "a.png is a single image: give the folder that it is in", {"at": "a.png"}
    ),
    "nothing": Refused({}, "no images found there"),
    "only texts": Refused({"a.txt": ""}, "no images found there"),
    "only hidden images": Refused(images(".a"), "no images found there"),
}

NUMBERS = {"0": 1, "1": 1}
FILES: dict[str, Read | Refused] = {}
"""Of Parquet files, and of tar shards with the same labels."""
for kind, write in (("parquet", table), ("tar", shard)):
    two, three = write([0, 1]), write([0, 1, 2], first=10)  # type: ignore[operator]
    counted = {"0": 1, "1": 1, "2": 1}
    FILES |= {
        f"{kind}: no split": Read({f"x.{kind}": two}, {"train": NUMBERS}),
        f"{kind}: train and test": Read(
            {f"train.{kind}": two, f"test.{kind}": three}, {"train": NUMBERS, "test": counted}
        ),
        f"{kind}: numbered shards": Read(
            {f"train-{n:05d}-of-00002.{kind}": two for n in range(2)}, {"train": {"0": 2, "1": 2}}
        ),
        f"{kind}: shards numbered from 1": Read(
            {f"train-{n:05d}-of-00002.{kind}": two for n in (1, 2)}, {"train": {"0": 2, "1": 2}}
        ),
        f"{kind}: a missing shard": Refused(
            {f"train-{n:05d}-of-00003.{kind}": two for n in (0, 2)},
            r"lacks 1 of the 3 files train-\*-of-00003, first train-00001-of-00003: fetch",
        ),
        f"{kind}: a missing shard with a hash": Refused(
            {f"train-{n:05d}-of-00003-ab{n}.{kind}": two for n in (0, 2)}, "first train-00001-of-00003"
        ),
        f"{kind}: shards with hashes": Read(
            {f"train-{n:05d}-of-00002-ab{n}.{kind}": two for n in (0, 1)}, {"train": {"0": 2, "1": 2}}
        ),
        f"{kind}: a huge series": Refused({f"train-00000-of-99999.{kind}": two}, "lacks 99,998 of the 99,999"),
        f"{kind}: missing shards of a split": Refused(
            {f"data/train-00000-of-00001.{kind}": two, f"data/test-00001-of-00004.{kind}": two}, "lacks 3 of the 4"
        ),
        f"{kind}: a folder of a split": Read(
            {f"train/0.{kind}": two, f"dev/0.{kind}": three}, {"train": NUMBERS, "test": counted}
        ),
        f"{kind}: three splits": Read(
            {f"{name}-00000-of-00001.{kind}": two for name in ("train", "dev")}
            | {f"eval-00000-of-00001.{kind}": three},
            {"train": NUMBERS, "test": counted},
            {VALIDATION: 1},
            "the test split is the clean test split; the validation split is not used",
        ),
        f"{kind}: three splits, one asked for": Read(
            {f"{name}.{kind}": two for name in ("train", "test")} | {f"val.{kind}": three},
            {"train": NUMBERS, "test": counted},
            {TEST: 1},
            options={"test_split": "validation"},
        ),
        f"{kind}: an unknown split": Refused(
            {f"train-0.{kind}": two, f"holdout-0.{kind}": two}, "holdout-0.* looks like a split that is not known"
        ),
        f"{kind}: an unknown series": Refused(
            {f"train-00000-of-00001.{kind}": two, f"more-00000-of-00001.{kind}": two}, "'more'"
        ),
        f"{kind}: one unknown word alone": Read({f"extra-0.{kind}": two}, {"train": NUMBERS}),
        f"{kind}: files of no split beside": Read(
            {f"train.{kind}": two, f"0001.{kind}": two}, {"train": {"0": 2, "1": 2}}
        ),
        f"{kind}: several splits in a name": Refused({f"train_test.{kind}": two}, "speaks of several splits"),
        f"{kind}: hidden copies": Read(
            {f"a.{kind}": two, f".ipynb_checkpoints/a.{kind}": two, f"._a.{kind}": "?"},
            {"train": NUMBERS},
            {"hidden": 2},
        ),
        f"{kind}: texts": Read({f"a.{kind}": two, "a.md": ""}, {"train": NUMBERS}, {".md": 1}),
        f"{kind}: a file in capitals": Read({f"a.{kind.upper()}": two}, {"train": NUMBERS}),
        f"{kind}: a linked folder": Read({f"x/a.{kind}": two, "y": Link("x")}, {"train": {"0": 2, "1": 2}}),
        f"{kind}: a dataset of ours itself": Refused(
            {f"data/train.{kind}": two, "manifest.json": PERTURBED}, "the dataset ops of this tool, whose training"
        ),
        f"{kind}: a dataset of ours within": Read(
            {f"a.{kind}": two, f"ops/data/train.{kind}": two, "ops/manifest.json": PERTURBED},
            {"train": NUMBERS},
            {"made by this tool": 1},
        ),
        f"{kind}: an image": Refused({f"a.{kind}": two, "figure.png": png(0)}, "2 forms"),
        f"{kind}: labels with gaps": Read({f"a.{kind}": write([0, 1000])}, {"train": {"0": 1, "1000": 1}}),  # type: ignore[operator]
        f"{kind}: large labels": Read(
            {f"a.{kind}": write([0, 2**31 - 1])},
            {"train": {"0": 1, "2147483647": 1}},  # type: ignore[operator]
        ),
    }
ROWS = table([0, 1]).columns
TABLES: dict[str, Read | Refused] = {
    "an image and a label column more": Read(
        {"x.parquet": Table({**ROWS, "img": ROWS["image"], "fine_label": [5, 5]})},
        {"train": NUMBERS},
        {},
        "images are in the column 'image', labels are in 'label'; not used: 'img', 'fine_label'",
    ),
    "other columns, and no labels": Read(
        {"x.parquet": Table({"image": ROWS["image"], "caption": ["x", "y"]})},
        {"train": {"unlabelled": 2}},
        {},
        "images are in the column 'image', there are no labels; not used: 'caption'",
    ),
    "other columns in one of the files": Read(
        {"train.parquet": table([0, 1]), "test.parquet": Table({**ROWS, "id": [7, 8]})},
        {"train": NUMBERS, "test": NUMBERS},
        {},
        "not used: 'id'",
    ),
    "many other columns": Read(
        {"x.parquet": Table(ROWS | {f"c{n}": [0, 0] for n in range(50)})},
        {"train": NUMBERS},
        {},
        "not used: 'c0', 'c1', 'c2', 'c3', 'c4', 'c5', ...",
    ),
    "classes by name that splits spell otherwise": Refused(
        {"train.parquet": table(["Cat", "dog"]), "test.parquet": table(["cat", "dog"])},
        "'Cat' in the train split and 'cat' in the test split",
    ),
}
CASES = FOLDERS | FILES | TABLES


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if isinstance(case, Read)])
def test_a_source_is_read(case: str, tmp_path: Path) -> None:
    read = CASES[case]
    assert isinstance(read, Read)
    write_tree(tmp_path / "outside", classes(""))
    form = form_of(write_tree(tmp_path / "source", read.files), **read.options)
    assert contents(form) == read.splits
    found = passed_over(form)
    assert len(found) == len(read.passed_over), found
    for reason, count in read.passed_over.items():
        assert [number for name, (number, _) in found.items() if reason in name] == [count], found
    assert read.notes in " ".join(form.notes)
    chosen = [note for note in form.notes if "is the clean test split" in note]
    assert len(chosen) == (VALIDATION in read.passed_over or TEST in read.passed_over)


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if isinstance(case, Refused)])
def test_a_source_is_refused(case: str, tmp_path: Path) -> None:
    refused = CASES[case]
    assert isinstance(refused, Refused)
    options = dict(refused.options)
    at = options.pop("at", "")
    with pytest.raises(InputError) as error:
        form_of(write_tree(tmp_path / "source", refused.files) / at, **options)
    assert "\n" not in str(error.value)
    assert re.search(refused.message, str(error.value)), str(error.value)


BY_CONTENT = ("images of other suffixes", "images without a suffix", "images without a suffix beside a licence")
"""Files that are looked into here, and at a URL are not."""


def linked(files: Files) -> bool:
    return any(isinstance(content, Link) for content in files.values())


AT_URLS = [n for n, case in CASES.items() if isinstance(case, Read) and n not in BY_CONTENT and not linked(case.files)]


@pytest.mark.parametrize("case", AT_URLS)
def test_a_source_at_a_url_is_read_alike(case: str, tmp_path: Path) -> None:
    read = CASES[case]
    assert isinstance(read, Read)
    here = form_of(write_tree(tmp_path, read.files), **read.options)
    there = find_form(f"file://{tmp_path}", replace(OWN_IMAGES, **read.options))
    assert contents(there) == contents(here)
    assert (passed_over(there), there.notes, there.names) == (passed_over(here), here.notes, here.names)
