"""What people get wrong: exit code 2, one or two lines that say what to do, and nothing of theirs changed."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import (
    CIFAR10_DIGESTS,
    RECIPE_FILE,
    Outcome,
    Samples,
    class_names,
    data_files,
    encode,
    make_images,
    make_splits,
    run_build,
    run_build_process,
    snapshot,
    write_cifar_batches,
    write_form,
    write_image_folder,
    write_parquet,
    write_parquet_file,
    write_webdataset,
)

from builders import RECIPES
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.packaging.folder import STAGING, open_folder
from ule_datasets.sources.cifar10 import CIFAR10

NAMES = class_names(3)


class Tiny(NamedTuple):
    """A source of a few images and a dataset built from it."""

    source: Path
    dataset: Path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    source = write_parquet(folder / "source", make_splits(3, 4, 8), NAMES)
    outcome = run_build("ops", "--source", source, "--out", folder / "dataset")
    assert outcome.code == 0, outcome.stderr
    return Tiny(source, folder / "dataset")


@pytest.fixture
def refuse(tiny: Tiny, tmp_path: Path) -> Callable[..., Outcome]:
    """``refuse(message, *arguments)``: the build is refused with this message, and leaves every folder as it was.

    Where images were refused that may be left out, what was decoded of the others is kept besides.

    Run for a folder that does not exist, and for one with a dataset that the build was asked to replace.
    """

    def check(message: str, *arguments: str | Path) -> Outcome:
        new, old = tmp_path / "new", tmp_path / "old"
        assert_refused(message, new, *arguments)
        shutil.copytree(tiny.dataset, old, dirs_exist_ok=True)
        return assert_refused(message, old, *arguments, "--overwrite")

    return check


def assert_refused(message: str, out: Path, *arguments: str | Path) -> Outcome:
    before = contents(out)
    outcome = run_build("--out", out, *arguments)
    assert_complaint(outcome, message)
    if "; the same command with --skip-unusable leaves" in outcome.stderr:
        assert (out / STAGING / "spool").is_dir()
        assert without_staging(contents(out)) == without_staging(before)
    else:
        assert contents(out) == before
    return outcome


def contents(out: Path) -> dict[str, str | None] | bytes | None:
    return out.read_bytes() if out.is_file() else snapshot(out)


def without_staging(content: dict[str, str | None] | bytes | None) -> dict[str, str | None]:
    assert not isinstance(content, bytes)
    return {path: digest for path, digest in (content or {}).items() if not path.startswith(STAGING)}


def assert_complaint(outcome: Outcome, message: str) -> None:
    assert outcome.code == 2, outcome
    assert outcome.stdout == ""
    assert 1 <= len(outcome.complaint) <= 2, outcome.stderr
    assert outcome.complaint[0].startswith("ule-build: ")
    assert "Traceback" not in outcome.stderr
    assert "ule-build: unexpected" not in outcome.stderr
    assert re.search(message, "\n".join(outcome.complaint)), outcome.stderr


# --- the images ----------------------------------------------------------------------------------------------


def one_bad_file(folder: Path, content: bytes) -> Path:
    write_image_folder(folder, make_splits(3, 4, 8), NAMES)
    (folder / "train" / NAMES[1] / "bad.png").write_bytes(content)
    return folder


def grey(folder: Path) -> Path:
    from PIL import Image

    one_bad_file(folder, b"")
    Image.new("L", (8, 8), 77).save(folder / "train" / NAMES[1] / "bad.png")
    return folder


def transparent(folder: Path) -> Path:
    from PIL import Image

    one_bad_file(folder, b"")
    Image.new("RGBA", (8, 8)).save(folder / "train" / NAMES[1] / "bad.png")
    return folder


def truncated_parquet(folder: Path) -> Path:
    path = write_parquet(folder, make_splits(3, 4, 8), NAMES) / "train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    return folder


def damaged_parquet_pages(folder: Path) -> Path:
    path = write_parquet(folder, make_splits(3, 4, 8), NAMES) / "train-00001-of-00002.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:8] + bytes(200) + content[208:])
    return folder


def table(folder: Path, **columns: list[object]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "train.parquet")
    return folder


def labels(*values: object, names: tuple[str, ...] | None = None) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        folder.mkdir(parents=True)
        encoded = [encode(image) for image in make_images(len(values), 1, 8).images]
        write_parquet_file(folder / "train.parquet", encoded, values, names)
        return folder

    return write


def mixed_sizes(folder: Path) -> Path:
    write_image_folder(folder, {"train": make_images(3, 2, 8)}, NAMES, seed=1)
    return write_image_folder(folder, {"train": make_images(3, 1, 10)}, NAMES, seed=2)


def mixed_sizes_across_files(folder: Path) -> Path:
    write_webdataset(folder / "a", {"train": make_images(3, 2, 8)})
    write_webdataset(folder / "b", {"train": make_images(3, 2, 10)})
    return folder


def larger_test_images(folder: Path) -> Path:
    return write_parquet(folder, {"train": make_images(3, 2, 8), "test": make_images(3, 1, 10)}, NAMES)


def only_test_images(folder: Path) -> Path:
    return write_image_folder(folder, {"test": make_images(3, 2, 8)}, NAMES)


def files_without_class_folders(folder: Path) -> Path:
    folder.mkdir()
    for index, image in enumerate(make_images(3, 2, 8).images):
        (folder / f"{index}.png").write_bytes(encode(image))
    return folder


def files_beside_class_folders(folder: Path) -> Path:
    write_image_folder(folder, make_splits(3, 4, 8), NAMES)
    (folder / "train" / "stray.png").write_bytes(encode(make_images(1, 1, 8).images[0]))
    return folder


def two_lists_of_names(folder: Path) -> Path:
    write_parquet(folder / "a", {"train": make_images(3, 2, 8)}, NAMES)
    write_parquet(folder / "b", {"train": make_images(3, 2, 8)}, ("x", "y", "z"))
    return folder


def no_label_column(folder: Path) -> Path:
    return table(folder, image=[{"bytes": b"", "path": ""}], category=[0])


def images_elsewhere(folder: Path) -> Path:
    return table(folder, image=[{"bytes": None, "path": "/home/me/1.png"}], label=[0])


def paths_as_images(folder: Path) -> Path:
    return table(folder, image=["/home/me/1.png"], label=[0])


def numbers_as_images(folder: Path) -> Path:
    return table(folder, image=[[0, 1, 2]], label=[0])


def unreadable_metadata(folder: Path) -> Path:
    import pyarrow.parquet as pq

    path = labels(0, 1)(folder) / "train.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": "{"}), path)
    return folder


def batch(content: dict[bytes, object]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_cifar_batches(folder, make_splits(3, 4, 32), NAMES)
        (folder / "cifar-10-batches-py" / "data_batch_4").write_bytes(pickle.dumps(content, protocol=2))
        return folder

    return write


PIXELS = np.zeros((2, 3072), dtype=np.uint8)

BAD_SOURCES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "unreadable image": (
        lambda folder: one_bad_file(folder, b"this is no image"),
        r"1 unusable sample: \S+class001/bad.png is not a readable image: unknown image format",
    ),
    "truncated image": (
        lambda folder: one_bad_file(folder, encode(make_images(1, 1, 8).images[0])[:120]),
        r"1 unusable sample: \S+class001/bad.png cannot be decoded: ",
    ),
    "empty image file": (lambda folder: one_bad_file(folder, b""), r"bad.png is not a readable image"),
    "grey image": (grey, r"bad.png is not a plain RGB image \(mode L\); convert it to RGB first"),
    "transparent image": (
        transparent,
        r"bad.png is not a plain RGB image \(mode RGBA, transparency\); convert it to RGB first",
    ),
    "truncated Parquet": (
        truncated_parquet,
        r"train-00001-of-00002.parquet is not a readable Parquet file \(truncated download\?\): ",
    ),
    "damaged Parquet pages": (damaged_parquet_pages, r"train-00001-of-00002.parquet is not a readable Parquet file"),
    "negative label": (labels(0, 1, -1), r"\(row group 0, row 2\) has label -1, allowed is 0 or more"),
    "fractional label": (labels(0.5, 1.0), r"row 0\) has label 0.5; labels must be class numbers"),
    "label beyond 2^31": (labels(0, 2**31), r"row 1\) has label 2147483648, allowed is 0 to 2147483647"),
    "label beyond 64 bits": (labels(0.0, 1e308), r"row 1\) has label of more than 64 bits, allowed is 0 to 2147483647"),
    "dates as labels": (
        labels(datetime.date(2026, 1, 1)),
        r"column 'label' holds date32.*; labels must be class numbers",
    ),
    "lists as labels": (
        labels([0], [1]),
        r"column 'label' holds list<.*>; labels must be class numbers",
    ),
    "absent label": (labels(0, None), r"row 1\) has no label: 'label' is null"),
    "mixed sizes": (
        mixed_sizes,
        r"is 10x10 pixels, \S+ is 8x8 \(and 2 more like it\); --crop 8 --resize 8 brings all to one size",
    ),
    "mixed sizes across files": (
        mixed_sizes_across_files,
        r"is 10x10 pixels, .* is 8x8.*; --crop 8 --resize 8 brings all to one size",
    ),
    "larger test images": (
        larger_test_images,
        r"is 8x8 pixels, .* is 10x10.*; --crop 8 --resize 8 brings all to one size",
    ),
    "test images only": (only_test_images, r"\(an image folder\) has no training images"),
    "no rows": (labels(), r"\(Parquet shards\) has no training images"),
    "no class folders": (
        files_without_class_folders,
        r"\(an image folder\) has no labels, and One-Pixel Shortcut needs them: give class folders",
    ),
    "images beside class folders": (
        files_beside_class_folders,
        r"has images in class folders \(\S+class000/\w+.png\) and outside of them \(\S+/stray.png\): move all",
    ),
    "two lists of class names": (two_lists_of_names, r"b/train-\S+ has other class names than the files before it"),
    "no label column": (
        no_label_column,
        r"has no labels, and One-Pixel Shortcut needs them: give a label column \(one of .*'label'.*; found \['image'",
    ),
    "images on another machine": (images_elsewhere, r"row 0\) has no image bytes: the file points to images on anot"),
    "not a batch": (batch({b"data": PIXELS, b"labels": [0]}), r"data_batch_4 is not a CIFAR-10 batch: expected uint8"),
    "label beyond the names": (labels(0, 1, 2, 7, names=NAMES), r"row 3\) has label 7, allowed is 0 to 2"),
    "batch label beyond the names": (
        batch({b"data": PIXELS, b"labels": [0, 3]}),
        r"data_batch_4 \(row 1\) has label 3, allowed is 0 to 2",
    ),
    "batch label of 5,000 digits": (
        batch({b"data": PIXELS, b"labels": [0, 10**5000]}),
        r"data_batch_4 \(row 1\) has label of more than 64 bits, allowed is 0 to 2",
    ),
    "paths as images": (paths_as_images, r"train.parquet: column 'image' holds string, not encoded images"),
    "numbers as images": (numbers_as_images, r"train.parquet: column 'image' holds .*, not encoded images"),
    "unreadable metadata": (unreadable_metadata, r"train.parquet: the Hugging Face metadata in its schema is damaged"),
    "batch label of bytes": (
        batch({b"data": PIXELS, b"labels": [b"0", b"x"]}),
        r"data_batch_4 is not a CIFAR-10 batch",
    ),
}


@pytest.mark.parametrize("mistake", BAD_SOURCES)
def test_unusable_images_are_refused(mistake: str, refuse: Callable[..., Outcome], tmp_path: Path) -> None:
    write, message = BAD_SOURCES[mistake]
    refuse(message, "ops", "--source", write(tmp_path / "source"))


@pytest.mark.parametrize("form", ["parquet", "webdataset", "cifar batches"])
def test_a_label_that_the_recipe_does_not_know_is_refused(
    form: str, refuse: Callable[..., Outcome], tmp_path: Path
) -> None:
    images, _ = make_images(10, 1, 32)
    splits = {"train": Samples(images, np.arange(10) + 5), "test": Samples(images, np.arange(10))}
    where = write_form(form, tmp_path / "source", splits, CIFAR10.class_names or ())
    refuse(r"has label 1\d, allowed is 0 to 9", "ops-cifar10", "--source", where)


def test_many_unusable_images_are_reported_together(refuse: Callable[..., Outcome], tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "source", make_splits(3, 4, 8), NAMES)
    for number in range(5):
        (folder / "train" / NAMES[0] / f"bad{number}.png").write_bytes(b"no")
    outcome = refuse(
        r"5 unusable samples: .*bad0.png .* \(and 4 more like it\); the same command", "ops", "--source", folder
    )
    assert "bad1" not in outcome.stderr


def test_workers_report_an_unusable_image_like_the_main_process(tmp_path: Path) -> None:
    where = one_bad_file(tmp_path / "source", b"this is no image")
    one, two = (
        assert_refused(
            "bad.png is not a readable image", tmp_path / "out", "ops", "--source", where, "--workers", count
        )
        for count in ("1", "2")
    )
    assert one.complaint == two.complaint


@pytest.mark.parametrize("named", [True, False], ids=["with its class names", "without class names"])
def test_other_images_than_cifar10_are_refused_with_both_digests(
    named: bool, refuse: Callable[..., Outcome], tmp_path: Path
) -> None:
    splits = make_splits(10, 2, 32)
    where = write_parquet(tmp_path / "source", splits, CIFAR10.class_names if named else None)
    pairs = zip(splits["train"].images, splits["train"].labels.tolist(), strict=True)
    found = hashlib.sha256(b"".join(sorted(hashlib.sha256(i.tobytes() + bytes([n])).digest() for i, n in pairs)))
    outcome = refuse(
        rf"{where} \(Parquet shards\) is not CIFAR-10: its train split of 20 images has digest {found.hexdigest()}, "
        rf"expected {CIFAR10_DIGESTS['train']}; for other images use a recipe of your own, or: ule-build ops",
        "ops-cifar10",
        "--source",
        where,
    )
    assert len(outcome.complaint) == 1


def test_cifar10_without_its_test_split_is_refused(refuse: Callable[..., Outcome], tmp_path: Path) -> None:
    where = write_parquet(tmp_path / "source", {"train": make_images(10, 2, 32)}, CIFAR10.class_names)
    refuse(
        r"\(Parquet shards\) has no test split; CIFAR-10 has train, test",
        "ops-cifar10",
        "--source",
        where,
    )


def test_classes_that_the_recipe_does_not_have_are_refused(refuse: Callable[..., Outcome], tmp_path: Path) -> None:
    where = write_image_folder(tmp_path / "source", make_splits(10, 1, 32), class_names(10))
    message = r"has classes that CIFAR-10 does not have: class000, .*; expected airplane, automobile, .*truck"
    refuse(message, "ops-cifar10", "--source", where)


# --- where the images are ------------------------------------------------------------------------------------


def test_a_source_that_does_not_exist_is_refused(refuse: Callable[..., Outcome]) -> None:
    refuse(
        r"--source /no/such/place: no such file or folder; give hub:OWNER/NAME\[@REVISION\]\[:CONFIG\], digits, or",
        "ops",
        "--source",
        "/no/such/place",
    )


@pytest.mark.parametrize("name", ["images.zip", "train.csv", "notes"])
def test_a_source_file_of_unknown_kind_is_refused(name: str, refuse: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PK something")
    refuse(rf"--source {tmp_path / name}: no images found there; give hub:", "ops", "--source", tmp_path / name)


def test_an_empty_source_folder_is_refused(refuse: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refuse("no images found there", "ops", "--source", tmp_path / "empty")


def test_own_images_need_a_source(refuse: Callable[..., Outcome]) -> None:
    refuse(r"this recipe works on your own images: say where they are with --source \(hub:OWNER/NAME", "ops")


@pytest.mark.parametrize("where", ["hub:", "hub:a/b/c", "hub:spaces in/name"])
def test_a_malformed_hub_name_is_refused(where: str, refuse: Callable[..., Outcome]) -> None:
    refuse("does not name a dataset: use hub:OWNER/NAME, or give a local copy with --source", "ops", "--source", where)


# --- where the dataset should go -----------------------------------------------------------------------------


def test_a_folder_with_something_else_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for option in ((), ("--overwrite",)):
        assert_refused(
            r"holds something else \(thesis.tex\); choose a folder that is",
            out,
            "ops",
            "--source",
            tiny.source,
            *option,
        )


def test_a_folder_with_a_manifest_of_something_else_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "extension"
    out.mkdir()
    (out / "manifest.json").write_text('{"manifest_version": 3, "name": "a browser extension"}')
    for option in ((), ("--overwrite",)):
        assert_refused("manifest.json is not a manifest of ours", out, "ops", "--source", tiny.source, *option)


def test_a_dataset_with_a_damaged_manifest_is_left_alone_and_a_way_out_is_told(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    shutil.copytree(tiny.dataset, out)
    manifest = out / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"ops"', '"uc"'))
    for option in ((), ("--overwrite",)):
        message = (
            rf"its own digest does not agree; .*--overwrite replaces none: move {out} away, or choose another --out"
        )
        assert_refused(message, out, "ops", "--source", tiny.source, *option)


def test_a_bad_source_of_a_finished_dataset_is_refused_and_a_good_one_said_to_be_unread(
    built_digits: Path, tmp_path: Path
) -> None:
    out = tmp_path / "dataset"
    shutil.copytree(built_digits, out)
    assert_refused("no such file or folder", out, "ops-digits", "--source", tmp_path / "nowhere")
    outcome = run_build("ops-digits", "--source", "digits", "--out", out)
    assert outcome.code == 0
    assert "is finished: the images of --source digits are not read" in outcome.stderr


def test_a_tilde_in_a_place_is_the_home_folder(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    outcome = run_build("ops", "--source", tiny.source, "--out", "~/x", "--scratch", "~/decoded")
    assert outcome.code == 0, outcome.stderr
    assert (tmp_path / "x" / "manifest.json").exists()
    assert (tmp_path / "decoded").exists()


def test_a_file_in_place_of_the_folder_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("years of work")
    for option in ((), ("--overwrite",)):
        assert_refused(
            "--out .*file is a file; give a folder that is new",
            tmp_path / "file",
            "ops",
            "--source",
            tiny.source,
            *option,
        )


def test_a_folder_with_another_dataset_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    shutil.copytree(tiny.dataset, out)
    for arguments in (("--seed", "1"), ("--limit", "2"), ("--format", "parquet")):
        message = r"holds ops 1.0.0 \(parquet, webdataset; recipe \w{12}\), which is not what was asked for"
        assert_refused(message, out, "ops", "--source", tiny.source, *arguments)


def test_a_damaged_dataset_is_not_taken_for_a_complete_one(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    shutil.copytree(tiny.dataset, out)
    shard = out / "data" / "train-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    message = r"is damaged: data/train-\S+ is missing or has another size; add --overwrite to rebuild"
    assert_refused(message, out, "ops", "--source", tiny.source)
    assert run_build("ops", "--source", tiny.source, "--out", out, "--overwrite").code == 0
    assert data_files(out) == data_files(tiny.dataset)


def test_an_empty_folder_survives_a_refused_build(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert_refused("no such file or folder", tmp_path / "out", "ops", "--source", "/no/such/place")


@pytest.mark.parametrize("source", ["good", "bad"])
def test_a_build_folder_of_another_tool_is_left_alone(source: str, tiny: Tiny, tmp_path: Path) -> None:
    precious = tmp_path / "out" / ".build" / "release" / "app"
    precious.parent.mkdir(parents=True)
    precious.write_text("another tool's work")
    run_build("ops", "--source", tiny.source if source == "good" else "/no/such/place", "--out", tmp_path / "out")
    assert precious.exists()


def test_a_second_build_in_the_same_folder_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open_folder(out, {"name": "ops"}, overwrite=False):
        before = snapshot(out)
        for option in ((), ("--overwrite",)):
            outcome = run_build("ops", "--source", tiny.source, "--out", out, *option)
            assert_complaint(outcome, rf"another build is at work in {out}; wait for it, or choose another --out")
        assert snapshot(out) == before


def test_an_unfinished_build_of_something_else_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with open_folder(out, {"name": "something-else"}, overwrite=False) as folder:
        folder.files.mkdir()
        (folder.files / "hours-of-work").write_text("perturbation")
    message = "holds an unfinished build of something-else with other settings; finish it with the same command"
    assert_refused(message, out, "ops", "--source", tiny.source)
    assert run_build("ops", "--source", tiny.source, "--out", out, "--overwrite").code == 0
    assert data_files(out) == data_files(tiny.dataset)


def test_leftovers_of_a_killed_build_do_not_block_an_overwrite(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    shutil.copytree(tiny.dataset, out)
    (out / ".build.done").mkdir()  # as left by a kill while the finished build cleaned up
    (out / ".build.done" / "shard-train-00000.json").write_text("{}")
    outcome = run_build("ops", "--source", tiny.source, "--out", out, "--overwrite")
    assert outcome.code == 0, outcome.stderr


# --- the recipe ----------------------------------------------------------------------------------------------


def test_an_unknown_recipe_is_told_which_are_like_it(refuse: Callable[..., Outcome]) -> None:
    refuse(
        "no recipe 'ops-cifar'; did you mean ops-cifar10.* or .*? ule-build --list shows all; or give a file NAME.py",
        "ops-cifar",
    )
    outcome = refuse("no recipe 'zzz'; ule-build --list shows all", "zzz")
    assert "did you mean" not in outcome.stderr


def test_a_command_without_recipe_says_where_they_are_listed() -> None:
    assert_complaint(run_build(), "name a recipe; ule-build --list shows them")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\nRECIPE = Recipe(\n", r"recipe.py, line 2: SyntaxError: '\(' was never closed"),
        ("\n\nRECIPE = undefined_name", "recipe.py, line 3: NameError: name 'undefined_name' is not defined"),
        ("def f():\n    return 1 / 0\nRECIPE = f()", "recipe.py, line 2: ZeroDivisionError"),
        ("import no_such_module", "recipe.py, line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("RECIPES = 1", r"recipe.py must define RECIPE = Recipe\(...\); RECIPE is nothing"),
        ("", r"recipe.py must define RECIPE = Recipe\(...\); RECIPE is nothing"),
        ("RECIPE = {'name': 'x'}", r"recipe.py must define RECIPE = Recipe\(...\); RECIPE is a dict"),
        (
            RECIPE_FILE.replace("my-recipe", "ops-cifar10"),
            "recipe.py: the name 'ops-cifar10' belongs to a published dataset; give yours another name",
        ),
        (
            "from dataclasses import replace\nfrom builders.ops import RECIPE as O\nRECIPE = replace(O, name='Mine!')",
            r"recipe.py, line 3: InputError: recipe name 'Mine!': lower-case letters, digits, '-' and '.'",
        ),
        pytest.param(
            "import sys\nsys.exit(0)",
            "recipe.py",
            id="sys.exit",
        ),
    ],
)
def test_a_faulty_recipe_file_is_refused_with_the_line(
    content: str, message: str, refuse: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "recipe.py").write_text(content)
    try:
        refuse(message, tmp_path / "recipe.py", "--source", "digits")
    except SystemExit as stop:
        pytest.fail(f"the recipe file ended the command with exit code {stop.code}")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("poison_rate=1.5", r"recipe my-recipe: poison_rate is 1.5, not in \(0, 1\]"),
        ("poison_rate=0", r"recipe my-recipe: poison_rate is 0, not in \(0, 1\]"),
        ("shard_mebibytes=-1", "recipe my-recipe: shard_mebibytes is -1, not above 0"),
        ("name='other'", "SyntaxError: keyword argument repeated: name"),
    ],
)
def test_a_recipe_with_a_value_out_of_range_is_refused(
    field: str, message: str, refuse: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "recipe.py").write_text(RECIPE_FILE.replace('version="1.0.0"', f'version="1.0.0", {field}'))
    refuse(message, tmp_path / "recipe.py", "--source", "digits")


def test_a_recipe_file_that_does_not_exist_is_refused(refuse: Callable[..., Outcome]) -> None:
    refuse("no recipe file /no/such/recipe.py", "/no/such/recipe.py")


def test_a_budget_that_does_not_fit_the_layers_is_refused(
    tiny: Tiny, refuse: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "recipe.py").write_text(RECIPE_FILE.replace("(L0(pixels=1),)", "(L0(pixels=1), L0(pixels=1))"))
    refuse("recipe my-recipe: 2 bounds in budget for 1 layers", tmp_path / "recipe.py", "--source", tiny.source)


def test_a_correct_recipe_file_is_built(tiny: Tiny, tmp_path: Path, run_cli: Callable[..., Outcome]) -> None:
    (tmp_path / "recipe.py").write_text(RECIPE_FILE)
    outcome = run_cli(tmp_path / "recipe.py", "--source", tiny.source, "--out", tmp_path / "out")
    assert (outcome.code, outcome.complaint) == (0, [])
    assert outcome.stdout.startswith("my-recipe 1.0.0: 12 train, 6 test images")


def test_a_copy_of_a_published_recipe_may_keep_its_name(
    tiny: Tiny, tmp_path: Path, run_cli: Callable[..., Outcome]
) -> None:
    (tmp_path / "recipe.py").write_text("from builders.ops import RECIPE")
    assert run_cli(tmp_path / "recipe.py", "--source", tiny.source, "--out", tmp_path / "out").code == 0
    assert data_files(tmp_path / "out") == data_files(tiny.dataset)


# --- options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--limit", "0"), "--limit 0: must be at least 1"),
        (("--limit", "-3"), "--limit -3: must be at least 1"),
        (("--limit", "many"), "^ule-build: --limit many: must be a whole number$"),
        (("--resize", "8"), "^ule-build: --resize goes with --crop: "),
        (("--workers", "0"), "--workers 0: must be at least 1"),
        (("--format", ""), "--format is empty; leave it away for the default"),
        (("--format", ","), "--format is empty; leave it away for the default"),
        (("--source", ""), "--source is empty; leave it away for the default"),
        (("--format", "zip"), "--format zip: choose from parquet, webdataset"),
        (("--nonsense",), r"--nonsense.*\(see ule-build --help\)"),
        (("another-name",), r"another-name.*\(see ule-build --help\)"),
    ],
)
def test_a_wrong_option_is_refused(options: tuple[str, ...], message: str, refuse: Callable[..., Outcome]) -> None:
    refuse(message, "ops-digits", *options)


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_folder_that_nothing_can_be_written_to_is_refused_before_an_image_is_read(
    more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)  # who runs the tests may write anywhere
    outcome = run_build("ops-digits", "--out", tmp_path / "x", *more)
    assert_complaint(outcome, f"nothing can be written to {tmp_path}/x: {tmp_path} is read-only; .* with --out$")
    assert "source: " not in outcome.stdout + outcome.stderr


def test_an_option_without_its_value_is_refused() -> None:
    assert_complaint(run_build("ops-digits", "--source"), r"--source.*\(see ule-build --help\)")


# --- the perturbation ----------------------------------------------------------------------------------------


def test_a_perturbation_of_other_images_is_refused(
    tiny: Tiny, built_digits: Path, refuse: Callable[..., Outcome]
) -> None:
    message = r"this perturbation was made for training images with digest 2142e8f8\w+, \S+ has \w{64}"
    refuse(message, "ops", "--source", tiny.source, "--perturbation", built_digits)


def test_random_bytes_are_no_perturbation(tiny: Tiny, refuse: Callable[..., Outcome], tmp_path: Path) -> None:
    path = tmp_path / "noise.safetensors"
    path.write_bytes(hashlib.shake_256(b"noise").digest(5000))
    refuse(rf"{path} is not an intact perturbation file: ", "ops", "--source", tiny.source, "--perturbation", path)


def test_a_pickle_is_no_perturbation_and_is_never_unpickled(
    tiny: Tiny, refuse: Callable[..., Outcome], tmp_path: Path
) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    path = tmp_path / "noise.pt"
    path.write_bytes(pickle.dumps({"noise": Attack()}))
    refuse(r"noise.pt is not an intact perturbation file: ", "ops", "--source", tiny.source, "--perturbation", path)
    assert not (tmp_path / "executed").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "executed").exists(), "the pickle of this test does no harm, so the test shows nothing"


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("no-such-file", "no such file or folder, and not OWNER/NAME on the Hub"),
        (
            "photos",
            "the folder has no perturbation.safetensors; give the file, or the folder of a dataset that has one",
        ),
        ("photos/a.png", r"a.png is not an intact perturbation file: it is an image \(PNG\)"),
    ],
    ids=["no such file", "a folder without one", "a photograph"],
)
def test_a_perturbation_that_is_not_there_is_refused(
    missing: str, message: str, tiny: Tiny, refuse: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(encode(make_images(1, 1, 8).images[0]))
    refuse(message, "ops", "--source", tiny.source, "--perturbation", tmp_path / missing)


@pytest.mark.parametrize("change", ["truncated", "a bit flipped", "a tensor of another tool"])
def test_a_damaged_perturbation_is_refused(
    change: str, tiny: Tiny, refuse: Callable[..., Outcome], tmp_path: Path
) -> None:
    from safetensors.numpy import save

    content = (tiny.dataset / "perturbation.safetensors").read_bytes()
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(
        {
            "truncated": content[:-1],
            "a bit flipped": content[:-1] + bytes([content[-1] ^ 1]),
            "a tensor of another tool": save({"noise": np.zeros(3)}, metadata={"format": "pt"}),
        }[change]
    )
    refuse("damaged.safetensors is not an intact perturbation", "ops", "--source", tiny.source, "--perturbation", path)


def test_a_perturbation_with_foreign_metadata_is_refused(
    tiny: Tiny, refuse: Callable[..., Outcome], tmp_path: Path
) -> None:
    from safetensors.numpy import save

    path = tmp_path / "foreign.safetensors"
    path.write_bytes(save({"noise": np.zeros(3)}, metadata={"ule": "[]"}))
    refuse("foreign.safetensors is not an intact perturb", "ops", "--source", tiny.source, "--perturbation", path)


def test_a_perturbation_beyond_the_budget_is_refused_without_a_trace(
    tiny: Tiny, refuse: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "two.py").write_text(
        RECIPE_FILE.replace("OnePixelShortcut()", "OnePixelShortcut(num_pixels=2)").replace("pixels=1)", "pixels=2)")
    )
    two = tmp_path / "two"
    assert run_build(tmp_path / "two.py", "--source", tiny.source, "--out", two).code == 0
    message = r"this perturbation was made by my-recipe: other methods or settings than ops's \(One-Pixel Shortcut\)"
    refuse(message, "ops", "--source", tiny.source, "--perturbation", two)
    honest = Perturbation.load(two / "perturbation.safetensors")
    (digest,) = RECIPES["ops"].craft_digests
    methods = [{**honest.about["methods"][0], "craft_digest": digest}]
    forged = dataclasses.replace(honest, about={**honest.about, "methods": methods})
    forged.save(tmp_path / "forged.safetensors")
    message = r"the perturbation exceeds its budget \(l_0 1 pixel\) on 12 images"
    refuse(message, "ops", "--source", tiny.source, "--perturbation", tmp_path / "forged.safetensors")


# --- the machine ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_is_reported_and_the_same_command_completes_the_build(
    workers: str, built_digits: Path, tmp_path: Path
) -> None:
    # Images of the source come in chunks of 20, which take 61 kB decoded; the shard is larger.
    for shard in sorted((built_digits / "data").glob("*.parquet")):
        (tmp_path / "source").mkdir(exist_ok=True)
        images = pq.read_table(shard, columns=["image", "label"])  # as clean images: ours say that they are not
        pq.write_table(images, tmp_path / "source" / shard.name, row_group_size=20)
    plain = run_build("ops", "--source", tmp_path / "source", "--out", tmp_path / "plain")
    assert plain.code == 0, plain.stderr
    out = tmp_path / "out"
    arguments = ("ops", "--source", tmp_path / "source", "--out", out, "--workers", workers)
    outcome = run_build_process(*arguments, file_size_limit=300_000)
    assert_complaint(outcome, "no room left to write.*; free some space and run the same command again: it continues")
    left = snapshot(out)
    assert left is not None
    assert all(path.startswith(".build") for path in left), "a loader could take this for a dataset"
    assert not any(path.endswith(".partial") for path in left if path.startswith(".build/files"))
    outcome = run_build("ops", "--source", tmp_path / "source", "--out", out)
    assert outcome.code == 0, outcome.stderr
    assert data_files(out) == data_files(tmp_path / "plain")
    assert not (out / ".build").exists()


def test_a_disk_too_full_for_the_decoded_images_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    outcome = run_build_process("ops-digits", "--out", tmp_path / "out", file_size_limit=300_000)
    assert_complaint(outcome, "no room left to write.*; free some space and run the same command again: it continues")
    assert not (tmp_path / "out").exists()


# --- tracebacks ----------------------------------------------------------------------------------------------


def test_debug_shows_the_traceback() -> None:
    outcome = run_build_process("ops", "--source", "/no/such/place", "--debug")
    assert "Traceback (most recent call last)" in outcome.stderr
    assert "InputError: --source /no/such/place: no such file or folder" in outcome.stderr


def test_debug_does_not_change_the_exit_code() -> None:
    assert run_build_process("ops", "--source", "/no/such/place", "--debug").code == 2


def test_an_error_of_our_own_asks_for_a_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("ule_datasets.building.draw_figures", fail)
    outcome = run_build("ops-digits", "--limit", "1", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert outcome.complaint == [
        "ule-build: unexpected RuntimeError: a bug (run again with --debug for the traceback, and report it)"
    ]
