"""Images without labels are a source for methods that need none, and for no others."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from helpers import (
    Outcome,
    Samples,
    class_names,
    encode,
    make_images,
    own_images,
    read,
    write_image_folder,
    write_parquet_file,
    write_webdataset,
)

from builders import RECIPES
from ule_datasets import load
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.data.split import sample_digest
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.packaging.crafting import Workshop, craft

IMAGES = {"train": make_images(1, 9, 8), "test": make_images(1, 4, 8, seed=1)}
"""Made as one class, so that every label is 0."""
FORMS = ("image folder", "Parquet", "WebDataset")

RECIPE_FILE = """
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ule_datasets.data.perturbation import Additive, Support
from ule_datasets.data.bounds import LInf
from ule_datasets.methods.method import Context, Crafted, Method
from ule_datasets.definition import Recipe
from ule_datasets.sources.own_images import OWN_IMAGES


@dataclass(frozen=True, kw_only=True)
class Shade(Method):
    identifier: ClassVar[str] = "shade"
    title: ClassVar[str] = "Shade"
    citation: ClassVar[str] = "wu2023onepixel"
    repeats: ClassVar[str] = "exact"
    needs_labels: ClassVar[bool] = False

    def generate(self, train, context):
        assert context.num_classes == 1
        levels = np.full((1, *train.images.shape[1:]), 3, dtype=np.int8)
        return Crafted(layers=(Additive(levels=levels, support=Support.UNIVERSAL),))


RECIPE = Recipe(
    name="shaded", title="Shaded", summary="Brighter images.", source=OWN_IMAGES, methods=(Shade(),),
    budget=(LInf(levels=3),), version="1.0.0", poison_rate=RATE,
)
"""


def write_files(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        (folder / f"{index}.png").write_bytes(encode(image))
    return folder


def write_form(form: str, folder: Path, splits: dict[str, Samples]) -> Path:
    for name, (images, _) in splits.items():
        match form:
            case "image folder":
                write_files(folder / name, images)
            case "Parquet":
                folder.mkdir(exist_ok=True)
                rows = [{"bytes": encode(image), "path": None} for image in images]
                pq.write_table(pa.table({"image": rows}), folder / f"{name}.parquet", row_group_size=4)
            case "WebDataset":
                import webdataset

                folder.mkdir(exist_ok=True)
                for number in range(2):
                    with webdataset.TarWriter(str(folder / f"{name}-{number}.tar")) as writer:
                        for index in range(number, len(images), 2):
                            writer.write({"__key__": f"{index:03d}", "png": encode(images[index]), "json": {}})
    return folder


def shaded(folder: Path, *, rate: float = 1.0) -> Path:
    path = folder / "shaded.py"
    path.write_text(RECIPE_FILE.replace("RATE", str(rate)))
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_may_come_without_labels(form: str, tmp_path: Path) -> None:
    source = read(write_form(form, tmp_path / "source", IMAGES))
    assert not source.labelled
    assert source.class_names == ("unlabelled",)
    for name, samples in IMAGES.items():
        split = source.splits[name]
        assert split.labels.tolist() == [0] * len(samples.images)
        assert sorted(image.tobytes() for image in split.images) == sorted(image.tobytes() for image in samples.images)
        assert set(split.keys) == {sample_digest(image, 0).hex()[:16] for image in samples.images}


def test_a_folder_with_nothing_but_image_files_is_training_images(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "photos", IMAGES["train"].images)
    (folder / ".thumbnail.png").write_bytes(b"hidden")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("no image")
    source = read(folder)
    assert list(source.splits) == ["train"]
    assert (len(source.train), source.labelled) == (9, False)


def test_class_folders_are_labels(tmp_path: Path) -> None:
    assert read(write_image_folder(tmp_path, {"train": make_images(2, 2, 8)}, class_names(2))).labelled


def test_a_dataset_built_without_labels_is_again_a_source_without_labels(tmp_path: Path) -> None:
    images = IMAGES["train"].images
    write_parquet_file(tmp_path / "train.parquet", [encode(i) for i in images], [0] * 9, ("unlabelled",))
    assert not read(tmp_path).labelled


@pytest.mark.parametrize("where", ["", "train", "test"])
def test_images_in_class_folders_and_outside_of_them_are_refused_with_one_of_each(where: str, tmp_path: Path) -> None:
    splits = {name: make_images(2, 2, 8) for name in ("train", "test")}
    write_image_folder(tmp_path, splits if where else {"": splits["train"]}, class_names(2))
    (tmp_path / where / "stray.jpg").write_bytes(b"")
    expected = r"has images in class folders \(\S+class000/\w+.png\) and outside of them \(\S+stray.jpg\): move all"
    with pytest.raises(InputError, match=expected):
        read(tmp_path)


def test_images_beside_the_folders_of_splits_are_refused(tmp_path: Path) -> None:
    folder = write_form("image folder", tmp_path / "source", IMAGES)
    (folder / "stray.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"has images \(\S+stray.png\) beside its folder test: move them into"):
        read(folder)


def test_parquet_files_with_and_without_labels_are_refused(tmp_path: Path) -> None:
    write_form("Parquet", tmp_path / "source", {"train": IMAGES["train"]})
    labelled = tmp_path / "source" / "test.parquet"
    write_parquet_file(labelled, [encode(IMAGES["test"].images[0])], [0], None)
    with pytest.raises(InputError, match=r"test.parquet has a label column, \S+train.parquet has none of \('label'"):
        read(tmp_path / "source")


def test_a_shard_with_labels_among_shards_without_is_refused(tmp_path: Path) -> None:
    write_form("WebDataset", tmp_path / "source", {"train": IMAGES["train"]})
    write_webdataset(tmp_path / "source", {"train": make_images(2, 2, 8)}, num_files=1)
    expected = r"train-000000.tar \(s000000\): expected one image and no .cls member, .* found \['cls', 'png'\]"
    with pytest.raises(InputError, match=expected):
        read(tmp_path / "source")


def test_images_that_must_have_certain_classes_need_labels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\(an image folder\) has no labels, but your own images has them"):
        read(write_form("image folder", tmp_path / "source", IMAGES), own_images(2))


# --- building ------------------------------------------------------------------------------------------------


def test_a_method_that_needs_no_labels_builds_from_a_folder_of_images(
    tmp_path: Path, run_cli: Callable[..., Outcome]
) -> None:
    import datasets

    folder, out = write_form("image folder", tmp_path / "photos", IMAGES), tmp_path / "out"
    outcome = run_cli(shaded(tmp_path, rate=0.7), "--source", folder, "--out", out)
    assert outcome.code == 0, outcome.stderr
    manifest = Manifest.read(out)
    assert manifest.class_names == ("unlabelled",)
    assert (manifest.splits["train"].num_examples, manifest.splits["train"].num_poisoned) == (9, 6)

    opened = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert opened["train"].features["label"].names == ["unlabelled"]
    assert opened["train"]["label"] == [0] * 9
    assert opened["test"]["label"] == [0] * 4

    original = read(folder).train
    built = load(out)
    assert built.keys == original.keys
    change = np.where(built.poisoned, 3, 0)[:, None, None, None]
    assert np.array_equal(built.tensors()[0].numpy(), np.clip(original.images.astype(int) + change, 0, 255))

    _, front, body = (out / "README.md").read_text().split("---\n", 2)
    content = yaml.safe_load(front)
    assert content["annotations_creators"] == ["no-annotation"]
    assert not {"task_categories", "task_ids"} & set(content)
    assert "\nThe source has no labels: `label` is 0 for every image.\n" in body
    assert "`label` (one class, `unlabelled`)" in body
    (classes, *_) = json.loads((out / "croissant.json").read_text())["recordSet"]
    assert classes["data"] == [{"classes/label": 0, "classes/name": "unlabelled"}]


def test_a_trial_takes_the_first_images(tmp_path: Path, run_cli: Callable[..., Outcome]) -> None:
    folder, out = write_files(tmp_path / "photos", IMAGES["train"].images), tmp_path / "out"
    outcome = run_cli(shaded(tmp_path), "--source", folder, "--out", out, "--limit", "5")
    assert outcome.code == 0, outcome.stderr
    assert load(out).keys == read(folder).train.keys[:5]


@pytest.mark.parametrize(
    ("form", "advice"),
    [
        ("image folder", "give class folders (train/<class>/*)"),
        ("Parquet", "give a label column (one of ('label', 'labels', 'fine_label'); found ['image'])"),
        ("WebDataset", "give every sample a .cls member"),
    ],
)
def test_a_method_that_needs_labels_refuses_before_it_reads_an_image(
    form: str, advice: str, tmp_path: Path, run_cli: Callable[..., Outcome]
) -> None:
    folder = write_form(form, tmp_path / "source", IMAGES)
    outcome = run_cli("ops", "--source", folder, "--out", tmp_path / "out")
    assert outcome.code == 2
    (line,) = outcome.complaint
    assert "has no labels, and One-Pixel Shortcut needs them: " in line
    assert line.endswith(f"{advice}, or use a method that needs no labels: uc")
    assert "reading" not in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_labels_made_up_for_images_without_any_are_not_used(tmp_path: Path) -> None:
    source = read(write_form("image folder", tmp_path / "source", IMAGES))
    with pytest.raises(InputError, match="has no labels, and One-Pixel Shortcut needs them: give a source with labels"):
        craft(RECIPES["ops"], source, Workshop(reporter=Reporter(silent=True)))


def test_methods_of_the_catalogue_say_whether_they_need_labels() -> None:
    need = {method.identifier: method.needs_labels for recipe in RECIPES.values() for method in recipe.methods}
    assert need["ops"]
    assert need["randpix"]
    assert need["em_s"]
    assert need["em_c"]
    assert all(isinstance(answer, bool) for answer in need.values())
    for recipe in RECIPES.values():
        names = [field.name for method in recipe.methods for field in dataclasses.fields(method)]  # type: ignore[arg-type]
        assert "needs_labels" not in names, "not a setting: it would change the recipe's digest"
