"""The embedded digits: real images that every installation has."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from helpers import Samples, read, write_image_folder, write_parquet
from sklearn.datasets import load_digits

from ule_datasets.sources.digits import DIGITS


def test_digits_have_their_published_digests() -> None:
    source = read("digits", DIGITS)
    assert source.train.digest == "5fca31ee3d76e9b39a5cd156d4ba41d7f1248f3b837e2d382267e10c72bf9070"
    assert source.splits["test"].digest == "9acee6c20090948e1e78e526e4be383953b0d50d95c1fbb8e839f2f5f5a2b7f4"
    assert source.class_names == tuple("0123456789")


def test_the_splits_hold_every_digit_of_scikit_learn_once() -> None:
    source = read("digits", DIGITS)
    assert (len(source.train), len(source.splits["test"])) == (1437, 360)
    raw = load_digits()
    expected = [(digit.astype(int).tobytes(), int(label)) for digit, label in zip(raw.images, raw.target, strict=True)]
    found = []
    for split in source.splits.values():
        small = split.images[:, ::4, ::4, 0].astype(int)
        levels = np.rint(small * 16 / 255).astype(int)
        found += [(digit.tobytes(), int(label)) for digit, label in zip(levels, split.labels, strict=True)]
    assert sorted(found) == sorted(expected)


def test_digits_are_grey_blocks_of_32_by_32_pixels() -> None:
    images = read("digits", DIGITS).train.images
    assert images.shape == (1437, 32, 32, 3)
    assert images.dtype == np.uint8
    assert (images[..., :1] == images).all()
    assert (images == images[:, ::4, ::4].repeat(4, axis=1).repeat(4, axis=2)).all()
    assert (images.min(), images.max()) == (0, 255)


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
