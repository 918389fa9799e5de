"""Autoregressive perturbations follow their filters, and filters the rules by which they are drawn, or a file."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.methods.test_one_pixel_shortcut import context, split_of
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.data.perturbation import Additive
from ule_datasets.data.split import Split
from ule_datasets.methods import autoregressive
from ule_datasets.methods.autoregressive import Autoregressive, FilterFile, Process, drawn_filters, response
from ule_datasets.methods.engine.drawn import BLOCK, normals
from ule_datasets.methods.method import Context, Crafted

METHOD = Autoregressive()
EASY = Autoregressive(least_response=3)


@pytest.fixture(scope="module")
def filters() -> np.ndarray:
    return drawn_filters(EASY, Seed(0), 3, 3)


def random_split(count: int = 60, size: tuple[int, int] = (20, 17), num_classes: int = 3) -> Split:
    rng = np.random.default_rng(21)
    return split_of(rng.integers(0, 256, (count, *size, 3), dtype=np.uint8), np.arange(count) % num_classes)


def restated(filters: np.ndarray, start: np.ndarray, size: tuple[int, int], crop: int) -> np.ndarray:
    """One image's noise of norm 1, value by value: float64 [H, W, C]."""
    height, width = size[0] + crop, size[1] + crop
    noise = np.zeros((height, width, 3))
    numbers = iter(start)
    for i, j in itertools.product(range(2), range(width)):
        noise[i, j] = next(numbers)
    for i, j in itertools.product(range(2, height), range(2)):
        noise[i, j] = next(numbers)
    for i, j, channel in itertools.product(range(2, height), range(2, width), range(3)):
        noise[i, j, channel] = (filters[channel] * noise[i - 2 : i + 1, j - 2 : j + 1, channel]).sum()
    cut = noise[crop:, crop:]
    return np.asarray(cut / np.linalg.norm(cut))


@pytest.mark.parametrize("crop", [4, 0])
def test_noise_is_that_of_a_plain_restatement(filters: np.ndarray, crop: int) -> None:
    process = Process(Autoregressive(crop=crop, epsilon=2), Seed(0), filters, (20, 17))
    levels = process.levels(1, 0)
    assert levels.shape == (BLOCK, 20, 17, 3)
    start = normals(Seed(0), (autoregressive.border(20 + crop, 17 + crop), 3, BLOCK), "ar", "start", 1, 0)
    for image in range(4):
        exact = 510 * restated(filters[1], start[..., image], (20, 17), crop)
        assert np.array_equal(levels[image], np.floor(exact + 0.5))


def test_the_class_s_own_filter_is_silent_on_its_noise_and_others_are_not(filters: np.ndarray) -> None:
    start = normals(Seed(0), (autoregressive.border(36, 36), 3, 2), "test")
    for number, each in enumerate(filters):
        noise = autoregressive.run(each[..., None], start, (36, 36))[4:, 4:, :, 0]
        noise /= np.linalg.norm(noise)
        assert response(each, noise) < 1e-12
        assert min(response(other, noise) for other in np.delete(filters, number, axis=0)) > 0.5


def test_a_response_is_the_positive_part_of_the_convolution(filters: np.ndarray) -> None:
    noise = normals(Seed(1), (12, 9, 3), "test")
    matching = filters[0].copy()
    matching[:, 2, 2] = -1
    expected = torch.conv2d(torch.from_numpy(noise).permute(2, 0, 1)[None], torch.from_numpy(matching)[None])
    assert response(filters[0], noise) == pytest.approx(float(expected.relu().sum()), rel=1e-12)


def test_drawn_filters_keep_their_rules(filters: np.ndarray) -> None:
    assert filters.shape == (3, 3, 3, 3)
    assert not filters[:, :, 2, 2].any()
    assert np.allclose(filters.sum(axis=(2, 3)), 1)
    assert np.array_equal(drawn_filters(EASY, Seed(0), 2, 3), filters[:2]), "one after the other"
    assert not np.array_equal(drawn_filters(EASY, Seed(1), 3, 3), filters)
    for each in filters:
        for trial in range(20):
            start = normals(Seed(9), (autoregressive.border(36, 36), 3, 1), "other starts", trial)
            noise = autoregressive.run(each[..., None], start, (36, 36))[4:, 4:]
            assert np.linalg.norm(noise) < 10 * EASY.most_growth, "noise does not grow from other starts either"


def test_those_before_respond_to_the_noise_of_those_after(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[float] = []

    def listening(filters: np.ndarray, noise: np.ndarray) -> float:
        heard.append(response(filters, noise))
        return heard[-1]

    monkeypatch.setattr(autoregressive, "response", listening)
    drawn_filters(METHOD, Seed(0), 2, 3)
    assert heard[-1] >= METHOD.least_response
    assert all(value < METHOD.least_response for value in heard[:-1])


def test_drawing_is_given_up_with_what_was_found() -> None:
    with pytest.raises(
        InputError, match=r"Autoregressive: 1 of 3 filters were found among 5; a smaller least_response"
    ):
        drawn_filters(Autoregressive(least_response=1000, most_candidates=5), Seed(0), 3, 3)


# --- a file of filters ---


def given(path: Path, method: Autoregressive = METHOD) -> Autoregressive:
    import dataclasses

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return dataclasses.replace(method, filters=FilterFile(name="mine", file_name=path.name, sha256=digest))


def generate(method: Autoregressive, folder: Path | None) -> Crafted:
    silent = Reporter(silent=True)
    return method.generate(random_split(), Context(num_classes=3, seed=Seed(0), weights=folder, reporter=silent))


@pytest.mark.parametrize("name", ["filters.npy", "filters.pt"])
def test_filters_of_a_file_make_the_noise(name: str, filters: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / name
    more = np.concatenate([filters, filters])
    if name.endswith(".npy"):
        np.save(path, more)
    else:
        torch.save([torch.from_numpy(each) for each in more], path)
    crafted, drawn = generate(given(path), tmp_path), generate(EASY, None)
    (layer,), (other,) = crafted.layers, drawn.layers
    assert isinstance(layer, Additive)
    assert isinstance(other, Additive)
    assert np.array_equal(layer.levels, other.levels)
    assert crafted.notes["filters"] == {**drawn.notes["filters"], "origin": "file", "name": "mine"}


def changed(filters: np.ndarray, value: float, *place: int) -> np.ndarray:
    result = filters.copy()
    result[place] = value
    return result


def test_filters_that_would_make_black_images_are_refused(filters: np.ndarray, tmp_path: Path) -> None:
    cases = {
        "class 1 has coefficients that are no numbers": changed(filters, np.nan, 1, 0, 0, 0),
        "class 2 has a last coefficient that is not 0": changed(filters, 0.5, 2, 0, 2, 2),
        "the noise of class 0 vanishes or grows beyond all numbers": np.stack([np.zeros((3, 3, 3)), *filters[1:]]),
        "the noise of class 2 vanishes or grows": changed(filters, 1e200, 2, 0, 0, 0),
        r"shape \(2, 3, 3, 3\), expected at least 3 filters of 3 x 3 x 3": filters[:2],
        r"holds an array of shape \(3, 27\)": filters.reshape(3, 27),
    }
    for message, content in cases.items():
        path = tmp_path / "filters.npy"
        np.save(path, content)
        with pytest.raises(InputError, match=message):
            generate(given(path), tmp_path)


@pytest.mark.parametrize("name", ["filters.npy", "filters.pt"])
def test_a_damaged_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 3, 3, 3)}")
    with pytest.raises(InputError, match="holds no filters that can be read") as caught:
        generate(given(path), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_nowhere_or_another_one_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ULE_WEIGHTS", raising=False)
    path = tmp_path / "filters.npy"
    np.save(path, np.zeros(3))
    method = given(path)
    with pytest.raises(InputError, match=r"the filters mine \(filters.npy\) are not downloaded by themselves: give"):
        generate(method, None)
    np.save(path, np.ones(3))
    with pytest.raises(InputError, match="is not the weights mine: its sha256 is"):
        generate(method, tmp_path)


@pytest.mark.parametrize("sha256", ["", "0123", "x" * 64])
def test_a_digest_that_is_none_is_refused(sha256: str) -> None:
    with pytest.raises(InputError, match="FilterFile: sha256 is"):
        FilterFile(name="mine", file_name="mine.npy", sha256=sha256)


@pytest.mark.parametrize("change", [{"epsilon": 0}, {"crop": -1}, {"most_growth": float("inf")}])
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match=rf"Autoregressive: {next(iter(change))} is "):
        Autoregressive(**change)  # type: ignore[arg-type]


def test_images_that_are_too_small_for_a_filter_are_refused(filters: np.ndarray) -> None:
    with pytest.raises(InputError, match="images of 2 x 9 pixels are too small"):
        Process(Autoregressive(crop=0), Seed(0), filters, (2, 9))


def test_noise_is_another_one_in_every_image() -> None:
    (layer,) = EASY.generate(random_split(), context(3)).layers
    assert isinstance(layer, Additive)
    assert len(np.unique(layer.levels.reshape(60, -1), axis=0)) == 60
