"""The embedded digits: real images that every installation has."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from helpers import Samples, read, write_image_folder, write_parquet
from sklearn.datasets import load_digits
from torch.nn import functional

from ule_datasets.sources.digits import DIGITS, enlarge


def test_digits_have_their_published_digests() -> None:
    source = read("digits", DIGITS)
    assert source.train.digest == "2142e8f8bce5f72c641c0143a4251eaea011f551595dd45654718086045e456e"
    assert source.splits["test"].digest == "6a8e612e0bfbabaa4fe5a2b7bac8d4b9fe16480feb2f2758f09fa257d1e0097c"
    assert source.class_names == tuple("0123456789")


def test_the_splits_hold_every_digit_of_scikit_learn_once() -> None:
    source = read("digits", DIGITS)
    assert (len(source.train), len(source.splits["test"])) == (1437, 360)
    raw = load_digits()
    enlarged = enlarge(raw.images.astype(np.int64))
    expected = [(digit.tobytes(), int(label)) for digit, label in zip(enlarged, raw.target, strict=True)]
    found = [
        (digit.tobytes(), int(label))
        for split in source.splits.values()
        for digit, label in zip(split.images[..., 0], split.labels, strict=True)
    ]
    assert sorted(found) == sorted(expected)


def test_digits_are_grey_images_of_32_by_32_pixels() -> None:
    images = read("digits", DIGITS).train.images
    assert images.shape == (1437, 32, 32, 3)
    assert images.dtype == np.uint8
    assert (images[..., :1] == images).all()
    assert (images.min(), images.max()) == (0, 255)


def test_enlarging_is_bilinear_interpolation_to_the_nearest_level() -> None:
    levels = np.random.default_rng(0).integers(0, 17, (5, 8, 6))
    exact = torch.from_numpy(levels[:, None] * (255 / 16))
    wanted = functional.interpolate(exact, scale_factor=4, mode="bilinear", align_corners=False)[:, 0].numpy()
    found = enlarge(levels)
    assert found.shape == (5, 32, 24)
    assert np.abs(found - wanted).max() <= 0.5 + 1e-9


def test_every_class_gives_a_fifth_of_its_digits_to_the_test_split() -> None:
    source = read("digits", DIGITS)
    train, test = (np.bincount(source.splits[name].labels, minlength=10) for name in ("train", "test"))
    assert (np.abs(test * 5 - (train + test)) <= 5).all()


def test_no_digit_is_in_both_splits_under_one_key() -> None:
    source = read("digits", DIGITS)
    assert not set(source.train.keys) & set(source.splits["test"].keys)
    assert all(
        key[:16] == hashlib.sha256(image.tobytes() + bytes([label])).hexdigest()[:16]
        for key, image, label in zip(source.train.keys, source.train.images, source.train.labels.tolist(), strict=True)
    )


def test_digits_are_recognised_from_files(tmp_path: Path) -> None:
    source = read("digits", DIGITS)
    splits = {name: Samples(split.images, split.labels) for name, split in source.splits.items()}
    for write in (write_parquet, write_image_folder):
        again = read(write(tmp_path / write.__name__, splits, tuple("0123456789")), DIGITS)
        assert again.train.keys == source.train.keys
        assert np.array_equal(again.train.images, source.train.images)
