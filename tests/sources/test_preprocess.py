"""Images of any sizes become images of one size as with torchvision's transforms, before anything else is done."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers import Samples, class_names, encode, make_images, make_recipe, read, write_form, write_image_folder

from ule_datasets import load
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.building import BuildOptions, build
from ule_datasets.data.codec import encoder_versions, resize_and_crop
from ule_datasets.data.split import sample_digest
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.spec import Preprocess, SourceSpec

SIZES = [(33, 47), (47, 33), (40, 40), (32, 57), (201, 99), (24, 24), (9, 30), (31, 31), (32, 32)]
"""(height, width) with odd and even margins, larger and smaller than the result, and as large."""


def one_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_torchvision(image: np.ndarray, resize: int, crop: int) -> np.ndarray:
    from PIL import Image
    from torchvision import transforms

    steps = [transforms.Resize(resize, transforms.InterpolationMode.BILINEAR), transforms.CenterCrop(crop)]
    return np.asarray(transforms.Compose(steps)(Image.fromarray(image)))


def preprocessed(resize: int | None, crop: int) -> SourceSpec:
    return dataclasses.replace(OWN_IMAGES, preprocess=Preprocess(resize=resize, crop=crop))


def images_of_many_sizes(folder: Path) -> Path:
    """Two classes, whose images have the sizes above."""
    for index, (height, width) in enumerate(SIZES):
        path = folder / "train" / class_names(2)[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(one_image(height, width)))
    return folder


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("resize", "crop"), [(32, 28), (31, 28), (24, 24)])
def test_pixels_are_those_of_torchvision(size: tuple[int, int], resize: int, crop: int) -> None:
    image = one_image(*size)
    result = resize_and_crop(image, resize, crop, "it")
    assert result.shape == (crop, crop, 3)
    assert result.dtype == np.uint8
    assert np.array_equal(result, by_torchvision(image, resize, crop))


def test_without_a_resize_only_the_centre_is_taken() -> None:
    image = one_image(40, 31)
    assert np.array_equal(resize_and_crop(image, None, 28, "it"), image[6:34, 2:30]), "1.5 columns are rounded to 2"
    square = one_image(28, 28)
    assert np.array_equal(resize_and_crop(square, None, 28, "it"), square)


def test_without_preprocessing_sizes_must_agree(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pixels, \S+ is \d+x\d+ \(and \d+ more like it\); --crop \d+ --resize"):
        read(images_of_many_sizes(tmp_path))


def test_images_of_many_sizes_become_samples_of_one(tmp_path: Path) -> None:
    train = read(images_of_many_sizes(tmp_path), preprocessed(32, 28)).train
    expected = [by_torchvision(one_image(*size), 32, 28) for size in SIZES]
    digests = {sample_digest(image, index % 2).hex()[:16] for index, image in enumerate(expected)}
    assert set(train.keys) == digests, "keys are of the pixels that remain"
    assert sorted(image.tobytes() for image in train.images) == sorted(image.tobytes() for image in expected)


def test_what_is_too_small_for_the_crop_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 unusable samples: \S+/6.png is 30x9 pixels, smaller than the crop of 28x"):
        read(images_of_many_sizes(tmp_path), preprocessed(None, 28))


@pytest.mark.parametrize("form", ["parquet", "webdataset", "cifar batches"])
def test_every_form_is_preprocessed_alike(form: str, tmp_path: Path) -> None:
    splits = {"train": make_images(3, 2, 32), "test": make_images(3, 1, 32, seed=1)}
    names = class_names(3)
    small = {
        name: Samples(np.stack([by_torchvision(image, 16, 12) for image in images]), labels)
        for name, (images, labels) in splits.items()
    }
    reference = read(write_image_folder(tmp_path / "small", small, names))
    source = read(write_form(form, tmp_path / form, splits, names), preprocessed(16, 12))
    for name, split in reference.splits.items():
        assert source.splits[name].digest == split.digest
        assert source.splits[name].keys == split.keys


def test_a_preprocessed_dataset_is_built_and_opened_with_clean_originals(tmp_path: Path) -> None:
    where, out = images_of_many_sizes(tmp_path / "source"), tmp_path / "out"
    recipe = make_recipe(source=preprocessed(32, 28))
    manifest = build(recipe, BuildOptions(out=out, source=str(where)), Reporter(silent=True)).manifest
    assert manifest.image_shape == (28, 28, 3)
    clean = read(where, recipe.source).train
    mixed = load(out, poison_rate=0.5, source=str(where))
    untouched = ~mixed.poisoned
    assert untouched.sum() == 5
    assert np.array_equal(mixed.tensors()[0].numpy()[untouched], clean.images[untouched])
    card = (out / "README.md").read_text()
    step = "shorter side to 32 pixels (Pillow's antialiased bilinear filter), then the centre 28 x 28"
    assert f"| preprocessing | {step} |" in card
    assert f"JPEG files of the source were decoded by {encoder_versions()['jpeg']}." in card
    assert manifest.environment["jpeg"].startswith("libjpeg")


def test_photographs_of_many_sizes_are_built_end_to_end(imagenet_folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    few = tmp_path / "few" / "train"
    few.mkdir(parents=True)
    chosen = sorted((imagenet_folder / "train").iterdir())[:8]
    for folder in chosen:
        (few / folder.name).symlink_to(folder)
    paths = [path for folder in chosen for path in folder.glob("*.JPEG")]
    pixels = [np.asarray(Image.open(path)) for path in paths]
    assert len({image.shape for image in pixels}) > 1
    recipe = make_recipe(source=preprocessed(256, 224))
    build(recipe, BuildOptions(out=tmp_path / "out", source=str(tmp_path / "few")), Reporter(silent=True))
    train = load(tmp_path / "out")
    expected = {sample_digest(by_torchvision(image, 256, 224), n).hex()[:16] for n, image in enumerate(pixels)}
    assert set(train.keys) == expected
    assert train.tensors()[0].shape == (8, 224, 224, 3)
