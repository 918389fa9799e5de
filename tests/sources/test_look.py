"""The look at a source: before every build, in the manifest, and by itself with --dry-run."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import FORMS, class_names, make_splits, run_build, snapshot, write_form
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from trees import Files, classes, form_of, images, passed_over, png, shard, table, write_tree

from ule_datasets.base.errors import InputError
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.sources.image_folder import Files as Chunk


def look(source: Path | str, *arguments: str | Path, recipe: str | Path = "ops", code: int = 0) -> list[str]:
    """What ``--dry-run`` prints of a source."""
    outcome = run_build(recipe, "--source", source, "--dry-run", *arguments)
    assert outcome.code == code, outcome.stderr
    return [line for line in outcome.stdout.splitlines() if not line.startswith("plan: ")]


def photo(width: int, height: int, mode: str = "RGB", kind: str = "PNG") -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new(mode, (width, height)).save(stream, kind)
    return stream.getvalue()


ODD: Files = {
    **classes("train_images", "abcde", 2),
    **classes("dev", "ab"),
    "train_images/a/notes.txt": "",
    "train_images/.DS_Store": "",
}
LOOK = [
    "source: an image folder",
    "source: passed over hidden: 1 (first train_images/.DS_Store); .txt files: 1 (first train_images/a/notes.txt)",
    "source: train (train_images): 10 images of 5 classes (a 2, b 2, c 2, ..., e 2)",
    "source: test (dev): 4 images of 2 classes (a 2, b 2)",
    "source: images of 8x8 pixels (14 RGB)",
]
ALONE = "3 classes ('c', 'd', 'e') are only in the train split"


def test_a_dry_run_shows_what_a_source_looks_like_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_tree(tmp_path / "source", ODD)
    before = snapshot(tmp_path)
    assert look(source) == [*LOOK, f"warning: {ALONE}"]
    assert snapshot(tmp_path) == before


def test_a_build_shows_the_same_before_it_crafts_and_keeps_it_in_the_manifest(tmp_path: Path) -> None:
    source, out = write_tree(tmp_path / "source", ODD), tmp_path / "out"
    outcome = run_build("ops", "--source", source, "--out", out)
    assert outcome.code == 0, outcome.stderr
    assert [line for line in outcome.stderr.splitlines() if line.startswith("source: ")] == LOOK
    assert f"warning: {ALONE}" in outcome.stderr
    told = Manifest.read(out).look
    assert told["form"] == "an image folder"
    assert told["called"] == {"train": "train_images", "test": "dev"}
    assert told["splits"]["train"] == {"images": 10, "classes": 5, "of_classes": {"a": 2, "b": 2, "c": 2, "e": 2}}
    assert told["sizes"] == [[8, 8], [8, 8]]
    assert told["modes"] == {"RGB": 14}
    assert [each["count"] for each in told["passed_over"]] == [1, 1]
    content = json.loads((out / "manifest.json").read_text())
    assert content["build"]["source"] == told
    assert str(tmp_path) not in json.dumps(content["build"]["source"])


def test_manifests_of_other_forms_differ_in_the_part_about_the_build_alone(tmp_path: Path) -> None:
    contents = []
    for form in FORMS:
        where = write_form(form, tmp_path / form, make_splits(10, 2), class_names(10))
        assert run_build("ops", "--source", where, "--out", tmp_path / "out" / form).code == 0
        content = json.loads((tmp_path / "out" / form / "manifest.json").read_text())
        assert content.pop("build")["source"]["splits"]["train"]["images"] == 20
        content.pop("class_names")
        contents.append({**content, "files": [], "self_sha256": ""})
    assert all(content == contents[0] for content in contents[1:])


WARNINGS: dict[str, tuple[Files, str]] = {
    "one class": (images("cats", 3), "all training images are of one class, 'cats'"),
    "one image per class": (classes("", "abc", 1), "every class has one training image (3 classes)"),
    "a class in training only": (classes("train") | classes("test", "a"), "class 'b' is only in the train split"),
    "a class in the test split only": (
        classes("train", "ab") | classes("test", "abc"),
        "class 'c' has no training images",
    ),
    "a gap": ({"x.parquet": table([0, 0, 2, 2])}, "class '1' has no training images"),
    "gaps": ({"x.parquet": table([0, 0, 999, 999])}, "998 classes ('1', '2', '3', ...) have no training images"),
    "a name without images": ({"x.parquet": table([0, 0], names=("a", "b"))}, "class 'b' has no training images"),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_what_is_rarely_meant_is_a_warning(case: str, tmp_path: Path) -> None:
    files, warning = WARNINGS[case]
    lines = look(write_tree(tmp_path, files))
    assert f"warning: {warning}" in lines
    assert len(lines) < 10


@pytest.mark.parametrize("form", ["image folder", "parquet", "webdataset"])
def test_sizes_modes_and_what_cannot_be_used_are_seen_without_decoding(form: str, tmp_path: Path) -> None:
    photos = [photo(40, 30), photo(90, 80, "L"), photo(20, 70, "CMYK", "JPEG"), photo(10, 12)[:60], b"no image"]
    rows = [{"bytes": data, "path": None} for data in photos]
    members = [(f"{n}.{end}", data) for n, photo in enumerate(photos) for end, data in (("png", photo), ("cls", b"0"))]
    files: Mapping[str, Files] = {
        "image folder": {f"a/{number}.png": data for number, data in enumerate(photos)},
        "parquet": {"x.parquet": table([])._replace(columns={"image": rows, "label": [0] * 5})},
        "webdataset": {"x.tar": shard([])._replace(members=members)},
    }
    lines = look(write_tree(tmp_path / "x", files[form]), code=2)
    assert "source: images of 10x12 to 90x80 pixels (2 RGB, 1 CMYK, 1 L)" in lines
    assert any(
        "3 images cannot be used: " in line and "is not a plain RGB image (mode L); convert it" in line
        for line in lines
    )


def test_every_form_looks_alike(tmp_path: Path) -> None:
    splits = make_splits(10, 2)
    seen = [look(write_form(form, tmp_path / form, splits, class_names(10)))[1:] for form in FORMS]
    assert [lines[-1] for lines in seen] == ["source: images of 32x32 pixels (30 RGB)"] * len(FORMS)
    assert [[line.partition("(")[0] for line in lines] for lines in seen] == [
        [
            "source: train: 20 images of 10 classes ",
            "source: test: 10 images of 10 classes ",
            "source: images of 32x32 pixels ",
        ]
    ] * len(FORMS)


def test_the_catalogue_s_own_source_can_be_looked_at() -> None:
    outcome = run_build("ops-digits", "--dry-run")
    assert outcome.code == 0, outcome.stderr
    assert "source: train: 1,437 images of 10 classes (0 142, 1 146, 2 141, ..., 9 144)" in outcome.stdout


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        (images("."), (), "has no labels, and One-Pixel Shortcut needs them"),
        ({}, (), "no images found there"),
        (classes(""), ("--test-split", "val"), "has no split 'val'"),
        (images("train") | images("bus"), (), "add --class-folder train"),
    ],
)
def test_a_dry_run_refuses_what_a_build_refuses(
    files: Files, arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    outcome = run_build("ops", "--source", write_tree(tmp_path, files), "--dry-run", *arguments)
    assert outcome.code == 2
    assert message in outcome.complaint[0]


def grey(folder: str, count: int = 2) -> Files:
    return {f"{folder}/grey{number}.png": photo(8, 8, "L") for number in range(count)}


def turned(width: int, height: int) -> bytes:
    """A photograph that is stored on its side."""
    from PIL import Image

    tags, stream = Image.Exif(), io.BytesIO()
    tags[0x0112] = 6
    Image.new("RGB", (height, width)).save(stream, "JPEG", exif=tags)
    return stream.getvalue()


class Unfit(NamedTuple):
    """A source that a build refuses once it has read it."""

    files: Files
    arguments: tuple[str, ...] = ()
    message: str = ""
    recipe: str = "ops"


SKIP = ("--skip-unusable",)
UNFIT = {
    "only test images": Unfit(classes("test"), (), r"\(an image folder\) has no training images"),
    "only test rows": Unfit(
        {"train.parquet": table([]), "test.parquet": table([0, 1])}, (), r"\(Parquet shards\) has no training images"
    ),
    "nothing usable in any class": Unfit(grey("train/a") | grey("train/b"), SKIP, "has no training images"),
    "nothing usable in the training split": Unfit(grey("train/a") | classes("test"), SKIP, "has no training images"),
    "unusable images": Unfit(
        classes("") | grey("a"), (), "^2 unusable samples: .*mode L.*; the same command with --skip"
    ),
    "one that is no image": Unfit(classes("") | {"a/x.png": b"?"}, (), "^1 unusable sample: .*x.png is not a readable"),
    "many unusable images": Unfit(
        classes("") | grey("a", 9), (), r"^9 unusable samples: .* \(and 8 more like it\); the same"
    ),
    "several sizes": Unfit(
        classes("") | {"b/x.png": png(0, 9)}, SKIP, "x.png is 9x9 pixels, .* is 8x8; --crop 8 --resize 8"
    ),
    "another size in another split": Unfit(
        classes("train") | {f"test/{name}/0.png": png(0, 9) for name in "ab"}, (), "^1 unusable sample: .* is 9x9"
    ),
    "too small to be cut": Unfit(classes(""), ("--crop", "9"), "^4 unusable samples: .* smaller than the crop of 9x9"),
    "too small to be cut, left out": Unfit(classes(""), ("--crop", "9", *SKIP), "has no training images"),
    "labels that are none": Unfit({"x.parquet": table([0, -1])}, (), "^1 unusable sample: .* has label -1"),
    "null labels": Unfit(
        {"x.parquet": table([0, None])}, (), r"^1 unusable sample: .*\(row group 0, row 1\) has no lab"
    ),
    "a cut shard": Unfit({"x.tar": shard([0, None])}, (), "^1 unusable sample: .*expected one image and a .cls member"),
    "stored on their sides, and not": Unfit(
        {"a/0.jpg": turned(40, 30), "a/1.jpg": photo(30, 40, kind="JPEG")}, (), "1.jpg is 30x40 pixels, .* is 40x30"
    ),
    "another number of images": Unfit(
        {"train/n01440764/n01440764_1.JPEG": photo(240, 240, kind="JPEG")},
        (),
        "is not ImageNet-100.*: 1 image in its train split, expected 1",
        "ops-imagenet100",
    ),
    "a name that cannot be a key": Unfit(
        {"train/n01440764/n01440764 1.JPEG": photo(240, 240, kind="JPEG")}, (), "cannot be its key", "ops-imagenet100"
    ),
    "names that appear twice": Unfit(
        {f"train/n01440764/{folder}/n01440764_1.JPEG": photo(240, 240, kind="JPEG") for folder in "xy"},
        (),
        "^1 name appears twice in the train split, first n01440764_1; names are the keys",
        "ops-imagenet100",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_dry_run_shows_a_source_and_refuses_it_in_the_words_of_a_build(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = shutil.disk_usage(tmp_path)._replace(free=2**50)  # a build would need 20 GB for ImageNet-100
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    unfit = UNFIT[case]
    words = (unfit.recipe, "--source", write_tree(tmp_path / "source", unfit.files), *unfit.arguments)
    looked, built = run_build(*words, "--dry-run"), run_build(*words, "--out", tmp_path / "out")
    assert (looked.code, built.code) == (2, 2)
    assert looked.stdout.startswith("source: ")
    assert "plan: " not in looked.stdout
    assert looked.complaint == built.complaint
    assert re.search(unfit.message, looked.complaint[0].removeprefix("ule-build: "))


FIT = {
    "unusable images that are left out": Unfit(classes("") | grey("a"), SKIP),
    "stored on their sides": Unfit({"a/0.jpg": turned(40, 30), "b/1.jpg": photo(40, 30, kind="JPEG")}),
    "several sizes that are cut": Unfit(classes("") | {"b/x.png": png(0, 9)}, ("--crop", "8")),
    "resized and cut": Unfit(classes("") | {"b/x.png": png(0, 19)}, ("--crop", "9", "--resize", "9")),
    "grey and cut": Unfit(classes("") | grey("a"), ("--crop", "8")),
}


@pytest.mark.parametrize("case", FIT)
def test_a_dry_run_refuses_nothing_that_a_build_takes(case: str, tmp_path: Path) -> None:
    words = ("ops", "--source", write_tree(tmp_path / "source", FIT[case].files), *FIT[case].arguments)
    looked, built = run_build(*words, "--dry-run"), run_build(*words, "--out", tmp_path / "out")
    assert (looked.code, built.code) == (0, 0), looked.stderr + built.stderr
    assert looked.stdout.startswith("source: an image folder")


def test_one_is_no_several(tmp_path: Path) -> None:
    train = make_splits(1, 1, 8)["train"]
    source = write_form("image folder", tmp_path / "source", {"train": train, "test": train}, class_names(1))
    write_tree(source, {"train/class000/x.png": b"?", "train/class000/y.txt": ""})
    outcome = run_build("ops", "--source", source, "--out", tmp_path / "out", "--workers", 1, "--skip-unusable")
    assert outcome.code == 0, outcome.stderr
    told = outcome.stderr + outcome.stdout
    for line in (
        "source: train: 1 image of 1 class (class000 1)",
        "source: 1 image cannot be used: ",
        "left out 1 unusable image, first: ",
        "warning: 1 of the test images is a training image as well",
    ):
        assert line in told
    assert not re.search(
        r"\b1 (\w+ )?(images|files|classes|samples|names|kinds)\b", told.replace("1 test images", "")
    ), told


def test_options_on_the_layout_change_the_recipe_and_are_for_one_s_own_images(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "s", classes("train") | classes("val", count=3) | classes("test"))
    digests = []
    for name, more in (("one", ()), ("two", ("--test-split", "val"))):
        assert run_build("ops", "--source", source, "--out", tmp_path / name, *more).code == 0
        manifest = Manifest.read(tmp_path / name)
        digests.append((manifest.recipe_digest, manifest.splits["test"].num_examples))
    assert [count for _, count in digests] == [4, 6]
    assert digests[0][0] != digests[1][0]
    refused = run_build("ops-digits", "--test-split", "val", "--out", tmp_path / "x")
    assert refused.code == 2
    assert "ops-digits knows the splits and classes of Handwritten digits" in refused.complaint[0]


def test_a_kept_class_folder_is_a_class_of_the_dataset(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "s", images("train") | images("bus") | images("car"))
    outcome = run_build("ops", "--source", source, "--out", tmp_path / "out", "--class-folder", "train")
    assert outcome.code == 0, outcome.stderr
    assert Manifest.read(tmp_path / "out").class_names == ("bus", "car", "train")


@pytest.mark.parametrize("part", ["", "data", "data/train-00000-of-00001.parquet", "webdataset"])
def test_a_dataset_of_ours_is_no_source(part: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_build("ops", "--source", write_tree(tmp_path / "s", classes("")), "--out", out).code == 0
    refused = run_build("ops", "--source", out / part, "--out", tmp_path / "again")
    assert refused.code == 2
    assert "the dataset ops of this tool, whose training images are perturbed: give the clean" in refused.complaint[0]
    moved = tmp_path / "moved"
    (out / "data").rename(moved)
    refused = run_build("ops", "--source", moved, "--out", tmp_path / "again")
    assert "has the columns key, poisoned of a dataset of this tool" in refused.complaint[0]


def test_classes_beyond_65535_are_numbered_without_gaps(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "s", {"train.parquet": table([7, 70_000, 7, 2**31 - 1])})
    for spool in ((), ("--workers", "2")):
        outcome = run_build("ops", "--source", source, "--out", tmp_path / "out", "--overwrite", *spool)
        assert outcome.code == 0, outcome.stderr
        assert "source: 3 class numbers up to 2,147,483,647: read again without gaps" in outcome.stderr
        assert Manifest.read(tmp_path / "out").class_names == ("7", "70000", "2147483647")
    source = write_tree(tmp_path / "t", {"train.parquet": table([0, 2**31])})
    assert "has label 2147483648, allowed is 0 to 2147483647" in run_build("ops", "--source", source).complaint[0]


def test_names_that_are_no_text_are_written_out(tmp_path: Path) -> None:
    source = os.fsencode(write_tree(tmp_path / "s", classes("")))
    for name in (b"a/\xff.txt", b"b/\xfe.png"):
        Path(os.fsdecode(source + b"/" + name)).write_text("no image")
    outcome = run_build("ops", "--source", tmp_path / "s", "--out", tmp_path / "out", "--skip-unusable")
    assert outcome.code == 0, outcome.stderr
    assert Manifest.read(tmp_path / "out").look["passed_over"][0]["example"] == r"a/\xff.txt"
    assert (tmp_path / "out" / "left-out.txt").read_text().startswith("train\tb/\\xfe.png is not")
    Path(os.fsdecode(source + b"/\xff")).mkdir()
    Path(os.fsdecode(source + b"/\xff/0.png")).write_bytes(png(9))
    refused = run_build("ops", "--source", tmp_path / "s", "--out", tmp_path / "again")
    assert r"the name of its folder '\\xff' is not UTF-8; rename it" in refused.complaint[0]


# --- nothing is lost without a word ---------------------------------------------------------------------------

FOLDERS = ("", "a", "train", "train/a", "train/b", "train/a/x", "val/a", "test/b", ".hidden", "train/__MACOSX", "c/d")
FILES = ("x.png", "y.JPG", "z.txt", "w", "v.0001", ".DS_Store", "._x.png", "to")
KINDS = ("image", "image", "text", "link", "broken")
TREES = st.tuples(
    st.sampled_from(("train", "test", "val", "b", "photos/train")).map(lambda at: {f"{at}/a/0.png": "image"}),
    st.dictionaries(
        st.tuples(st.sampled_from(FOLDERS), st.sampled_from(FILES)).map("/".join).map(lambda path: path.lstrip("/")),
        st.sampled_from(KINDS),
        max_size=12,
    ),
).map(lambda parts: parts[0] | parts[1])


def write_random(root: Path, tree: Mapping[str, str]) -> None:
    for number, (path, kind) in enumerate(tree.items()):
        place = root / path
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if kind == "image":
                place.write_bytes(png(number % 5))
            elif kind == "text":
                place.write_text("text")
            else:
                place.symlink_to(place.parent.parent if kind == "link" else "nowhere")
        except OSError:  # a file is where a folder should be, or the other way round
            continue


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(TREES)
def test_every_file_is_an_image_of_the_dataset_or_named_in_the_look(
    tmp_path_factory: pytest.TempPathFactory, tree: Mapping[str, str]
) -> None:
    root = tmp_path_factory.mktemp("random") / "source"
    root.mkdir()
    write_random(root, tree)
    try:
        form = form_of(root)
    except InputError as error:  # it is not clear what is what, or there are no images
        event(f"refused: {str(error).rpartition('source')[2][:40]}")
        return
    event("read")
    chunks = [chunk for listed in form.chunks.values() for chunk in listed]
    used = [path for chunk in chunks if isinstance(chunk, Chunk) for path in chunk.paths]
    assert len(used) == len(set(used))
    counts = {reason: count for reason, (count, _) in passed_over(form).items() if reason != "folders without images"}
    assert len(used) + sum(counts.values()) == sum(1 for _ in visible(root))
    assert all(os.path.lexists(root / example) for _, example in passed_over(form).values())


def visible(folder: Path) -> Iterator[Path]:
    """Everything below a folder but folders, and hidden ones as a whole."""
    for path in folder.iterdir():
        hidden = path.name.startswith(".") or path.name == "__MACOSX"
        if path.is_dir() and not path.is_symlink() and not hidden:
            yield from visible(path)
        else:
            yield path


def test_test_images_that_are_training_images_as_well_are_a_warning(tmp_path: Path) -> None:
    train = make_splits(2, 3, 8)["train"]
    write_form("image folder", tmp_path / "source", {"train": train, "test": train}, class_names(2))
    outcome = run_build("ops", "--source", tmp_path / "source", "--out", tmp_path / "out", "--workers", 1)
    assert outcome.code == 0
    assert "warning: 6 of the test images are training images as well" in outcome.stderr


def test_what_stays_beside_a_dataset_is_named_by_the_build_that_replaces_it(tmp_path: Path) -> None:
    write_form("image folder", tmp_path / "source", make_splits(2, 3, 8), class_names(2))
    build = ("ops", "--source", tmp_path / "source", "--out", tmp_path / "out", "--workers", 1)
    assert run_build(*build).code == 0
    (tmp_path / "out" / "data" / "mine.txt").write_text("mine")
    outcome = run_build(*build, "--overwrite")
    assert outcome.code == 0
    assert "out also holds data/mine.txt, not of this dataset" in outcome.stderr
    assert (tmp_path / "out" / "data" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("option", ["--out", "--source"])
def test_an_empty_place_is_refused(option: str, tmp_path: Path) -> None:
    outcome = run_build("ops-digits", option, "")
    assert outcome.code == 2
    assert f"{option} is empty" in outcome.stderr
