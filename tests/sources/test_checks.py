"""What is checked where digests of pixels cannot be known beforehand: counts, room on the disk, the decoder."""

from __future__ import annotations

import dataclasses
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from helpers import make_splits, run_build, write_image_folder

from builders import RECIPES
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.dataset.manifest import build_environment, other_decoder
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.reading import Source, read_source
from ule_datasets.sources.spec import Preprocess, SourceSpec

NAMES = ("left", "right")
STEP = Preprocess(resize=8, crop=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "source", make_splits(2, 6, 10), NAMES)


def read(folder: Path, spec: SourceSpec, spool: Path | None = None) -> Source:
    with LocalExecutor(1) as executor:
        return read_source(spec, str(folder), executor=executor, reporter=Reporter(silent=True), spool=spool)


def counted(folder: Path, **more: int) -> SourceSpec:
    """A published source of which only the numbers of images are known."""
    found = read(folder, OWN_IMAGES)
    counts = {name: len(split) + more.get(name, 0) for name, split in found.splits.items()}
    return dataclasses.replace(OWN_IMAGES, title="a published one", num_images=tuple(counts.items()), preprocess=STEP)


def test_a_source_with_the_right_numbers_of_images_is_taken(folder: Path) -> None:
    assert set(read(folder, counted(folder)).splits) == {"train", "test"}


@pytest.mark.parametrize("split", ["train", "test"])
def test_other_numbers_of_images_are_refused(folder: Path, split: str) -> None:
    spec = counted(folder, **{split: 1})
    with pytest.raises(InputError, match=rf"is not a published one: \d+ images in its {split} split, expected \d+"):
        read(folder, spec)


def test_a_disk_without_room_is_refused_before_anything_is_decoded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    needed = 3 * 8 * 8 * sum(count for _, count in counted(folder).num_images or ())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, needed - 1))
    with pytest.raises(InputError, match=r"a published one takes 0.0 GB decoded, \S+ has room for .* --scratch"):
        read(folder, counted(folder), tmp_path / "spool")
    assert not (tmp_path / "spool").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, needed))
    assert len(read(folder, counted(folder), tmp_path / "spool").train)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 0))
    assert len(read(folder, counted(folder), tmp_path / "spool").train), "what is decoded already takes no more room"


def test_the_sample_of_imagenet_is_not_imagenet100(imagenet_folder: Path) -> None:
    with pytest.raises(InputError, match=r"is not ImageNet-100: 100 images in its train split, expected 129,395"):
        read(imagenet_folder, RECIPES["ops-imagenet100"].source)


def test_another_decoder_is_named_as_the_reason_for_other_pixels(folder: Path, tmp_path: Path) -> None:
    here = build_environment()
    assert other_decoder(here) == other_decoder({}) == ""
    there = {**here, "jpeg": "libjpeg-turbo 1.0.0", "pillow": "2.0"}
    built = run_build("ops", "--source", folder, "--out", tmp_path / "built")
    assert built.code == 0, built.stderr
    perturbation = Perturbation.load(tmp_path / "built" / "perturbation.safetensors")
    about = {**perturbation.about, "environment": there}
    dataclasses.replace(perturbation, source_digest="0" * 64, about=about).save(tmp_path / "other.safetensors")
    outcome = run_build(
        "ops", "--source", folder, "--perturbation", tmp_path / "other.safetensors", "--out", tmp_path / "again"
    )
    assert outcome.code == 2
    assert "JPEG files were decoded by libjpeg-turbo 1.0.0 there (Pillow 2.0) and are by" in outcome.stderr
    assert not (tmp_path / "again").exists()
