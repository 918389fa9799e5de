"""Perturbed images are given back to the clean ones that they were made from, by their pixels alone."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import make_images

from ule_datasets.imports import matching
from ule_datasets.imports.matching import NOBODY, match

RNG = np.random.default_rng(0)


def disturbed(clean: np.ndarray, levels: int, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-levels, levels + 1, clean.shape)
    return np.clip(clean + noise, 0, 255).astype(np.uint8)


def nearest_by_hand(released: np.ndarray, clean: np.ndarray) -> np.ndarray:
    difference = released[:, None].astype(np.int64) - clean[None]
    return (difference**2).sum(axis=(2, 3, 4)).argmin(axis=1)


@pytest.mark.parametrize("levels", [0, 8, 32])
def test_every_image_finds_its_original_whatever_the_order(levels: int) -> None:
    clean, _ = make_images(10, 20, 32)
    order = RNG.permutation(len(clean))
    found = match(disturbed(clean[order], levels), clean)
    assert found.rows.tolist() == order.tolist()
    assert found.sure.all()
    assert not len(found.unmatched)


@pytest.mark.parametrize("shape", [(16, 16), (7, 5), (2, 3), (1, 1)])
def test_what_is_found_is_the_nearest_in_all_pixels(shape: tuple[int, int]) -> None:
    clean = RNG.integers(0, 256, (60, *shape, 3)).astype(np.uint8)
    released = RNG.integers(0, 256, (40, *shape, 3)).astype(np.uint8)  # of nothing: all are about as far
    found = match(released, clean)
    by_hand = nearest_by_hand(released, clean)
    distance = np.sqrt(((released.astype(np.int64) - clean[by_hand]) ** 2).sum(axis=(1, 2, 3)))
    assert np.allclose(((released.astype(float) - clean[found.nearest]) ** 2).sum(axis=(1, 2, 3)) ** 0.5, distance)


def test_images_whose_fields_have_the_same_means_are_told_apart_by_their_pixels() -> None:
    board = (np.indices((32, 32)).sum(axis=0) % 2)[None, :, :, None]
    strengths = np.arange(100)[:, None, None, None]
    clean = np.broadcast_to(128 + np.where(board, strengths, -strengths), (100, 32, 32, 3)).astype(np.uint8)
    assert match(clean[::-1], clean).rows.tolist() == list(range(100))[::-1]


def test_copies_among_the_clean_images_are_given_one_each() -> None:
    clean = make_images(10, 4, 32)[0].copy()
    clean[1] = clean[0]
    found = match(disturbed(clean, 8), clean)
    assert sorted(found.rows.tolist()) == list(range(len(clean)))
    assert found.sure.tolist() == [False, False, *[True] * (len(clean) - 2)]


def test_an_image_of_nothing_has_no_original_and_takes_nobody_else_s() -> None:
    clean = make_images(10, 4, 32)[0]
    released = disturbed(clean, 8)
    released[3] = RNG.integers(0, 256, (32, 32, 3))
    found = match(released, clean)
    assert found.unmatched.tolist() == [3]
    assert found.rows[3] == NOBODY
    assert np.array_equal(np.delete(found.rows, 3), np.delete(np.arange(len(clean)), 3))


def test_of_two_images_of_one_original_only_the_nearer_has_it() -> None:
    clean = make_images(10, 4, 32)[0]
    released = disturbed(clean, 8)
    released[5] = disturbed(clean[4], 3)
    found = match(released, clean)
    assert found.unmatched.tolist() == [4]
    assert found.rows[5] == 4
    assert found.nearest[4] == 4


def test_images_are_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = make_images(10, 4, 32)[0]
    whole = match(disturbed(clean, 8), clean)
    monkeypatch.setattr(matching, "AT_ONCE", 7)
    assert np.array_equal(match(disturbed(clean, 8), clean).rows, whole.rows)
    assert match(clean[:0], clean).rows.shape == (0,)
    assert match(clean[:1], clean[:1]).rows.tolist() == [0]
