"""RandAugment of whole batches against Pillow, one image after another, to the byte."""

from __future__ import annotations

import dataclasses
import io
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from ule_datasets.base.errors import InputError
from ule_datasets.countermeasures.randaugment import LEVELS, OPERATIONS, Choices, RandAugment, TorchvisionRandAugment

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
KINDS = ("noise", "smooth", "dull", "flat", "two values", "mixed")
ENHANCERS = {
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
    "brightness": ImageEnhance.Brightness,
}


def images_of(kind: str, count: int, height: int, width: int, seed: int) -> Tensor:
    """Pictures that are hard in different ways: some channels hold one value only, some nearly all."""
    generator = np.random.default_rng(seed)
    shape = (count, height, width, 3)
    if kind == "mixed":
        one = [images_of(str(generator.choice(KINDS[:-1])), 1, height, width, seed + number) for number in range(count)]
        return torch.cat(one)
    if kind == "noise":
        values = generator.integers(0, 256, shape)
    elif kind == "smooth":
        down, across = np.mgrid[:height, :width]
        slopes = generator.uniform(-9, 9, (2, count, 1, 1, 3))
        plane = slopes[0] * down[:, :, None] + slopes[1] * across[:, :, None]
        values = plane + generator.integers(0, 256, (count, 1, 1, 3)) + generator.integers(-12, 13, shape)
    elif kind == "dull":
        values = generator.integers(90, 104, shape)
    elif kind == "flat":
        values = np.broadcast_to(generator.integers(0, 256, (count, 1, 1, 3)), shape)
    else:
        values = np.where(generator.random(shape) < 0.2, *generator.integers(0, 256, (2, count, 1, 1, 3)))
    return torch.from_numpy(np.clip(values, 0, 255).astype(np.uint8))


def pillow(image: Image.Image, operation: str, level: int, sign: int, row: int, column: int) -> Image.Image:
    """One operation as the released code writes it."""
    width, height = image.size

    def strength(none: float, most: float) -> float:
        return float(np.linspace(none, most, 10)[level])

    grey = (128, 128, 128)
    affine = Image.Transform.AFFINE
    match operation:
        case "shear_x":
            return image.transform(
                image.size, affine, (1, strength(0, 0.3) * sign, 0, 0, 1, 0), Image.Resampling.BICUBIC, fillcolor=grey
            )
        case "shear_y":
            return image.transform(
                image.size, affine, (1, 0, 0, strength(0, 0.3) * sign, 1, 0), Image.Resampling.BICUBIC, fillcolor=grey
            )
        case "translate_x":
            return image.transform(
                image.size, affine, (1, 0, strength(0, 150 / 331) * width * sign, 0, 1, 0), fillcolor=grey
            )
        case "translate_y":
            return image.transform(
                image.size, affine, (1, 0, 0, 0, 1, strength(0, 150 / 331) * height * sign), fillcolor=grey
            )
        case "rotate":
            turned = image.convert("RGBA").rotate(strength(0, 30))
            return Image.composite(turned, Image.new("RGBA", image.size, (128,) * 4), turned).convert("RGB")
        case "posterize":
            return ImageOps.posterize(image, int(np.round(strength(8, 4))))
        case "solarize":
            return ImageOps.solarize(image, strength(256, 0))  # type: ignore[arg-type]
        case "autocontrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
        case "invert":
            return ImageOps.invert(image)
        case "cutout":
            half = int(np.round(strength(0, 20))) // 2
            pixels = np.array(image)
            pixels[max(0, row - half) : row + half, max(0, column - half) : column + half] = (125, 122, 113)
            return Image.fromarray(pixels)
        case _:
            return ENHANCERS[operation](image).enhance(1 + sign * strength(0, 0.9))


def reference(images: Tensor, choices: Choices) -> Tensor:
    """First operation, second operation; image after image."""
    names = list(OPERATIONS)
    results = []
    for index, array in enumerate(images.numpy()):
        image = Image.fromarray(array)
        for turn in range(2):
            operation, level, applied, sign, row, column = (
                int(getattr(choices, field.name)[turn, index]) for field in dataclasses.fields(Choices)
            )
            if applied:
                image = pillow(image, names[operation], level, sign, row, column)
        results.append(np.array(image))
    return torch.from_numpy(np.stack(results))


def only(operation: str, height: int, width: int, seed: int) -> Choices:
    """One operation at each level, in both directions, and nothing after it: for 18 images."""
    both = torch.arange(1, LEVELS + 1).repeat(2)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.randint(0, side, (2, len(both)), generator=generator) for side in (height, width))
    return Choices(
        operation=torch.full((2, len(both)), list(OPERATIONS).index(operation)),
        level=both.expand(2, -1),
        applied=torch.tensor([[True], [False]]).expand(2, len(both)),
        sign=torch.tensor([1, -1]).repeat_interleave(LEVELS).expand(2, -1),
        row=rows,
        column=columns,
    )


@pytest.mark.parametrize("operation", OPERATIONS)
@settings(deadline=None, max_examples=15)
@given(size=SIZES, kind=st.sampled_from(KINDS), seed=st.integers(0, 2**31))
def test_every_operation_gives_the_bytes_of_pillow(operation: str, size: tuple[int, int], kind: str, seed: int) -> None:
    images, choices = images_of(kind, 2 * LEVELS, *size, seed), only(operation, *size, seed)
    assert torch.equal(RandAugment().transform(images, choices), reference(images, choices))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("size", [(32, 32), (64, 64), (224, 224), (28, 28)])
def test_also_at_the_sizes_of_real_images(operation: str, size: tuple[int, int]) -> None:
    images, choices = images_of("mixed", 2 * LEVELS, *size, 5), only(operation, *size, 5)
    assert torch.equal(RandAugment().transform(images, choices), reference(images, choices))


@settings(deadline=None, max_examples=25)
@given(count=st.integers(1, 40), size=SIZES, kind=st.sampled_from(KINDS), seed=st.integers(0, 2**31))
def test_a_batch_is_augmented_as_image_by_image(count: int, size: tuple[int, int], kind: str, seed: int) -> None:
    images = images_of(kind, count, *size, seed)
    choices = RandAugment().draw(count, *size, torch.Generator().manual_seed(seed))
    expected = reference(images, choices)
    assert torch.equal(RandAugment().on_bytes(images, torch.Generator().manual_seed(seed)), expected)


def test_real_pictures_too(cifar10_folder: Path) -> None:
    shard = sorted(cifar10_folder.glob("train-*.parquet"))[0]
    cells = next(pyarrow.parquet.ParquetFile(shard).iter_batches(400, columns=["img"]))["img"].to_pylist()
    images = torch.from_numpy(np.stack([np.array(Image.open(io.BytesIO(cell["bytes"]))) for cell in cells]))
    choices = RandAugment().draw(*images.shape[:3], torch.Generator().manual_seed(0))
    assert torch.equal(RandAugment().transform(images, choices), reference(images, choices))


def test_operations_and_levels_are_equally_likely_and_independent() -> None:
    count = 54_000
    choices = RandAugment().draw(count, 32, 20, torch.Generator().manual_seed(0))
    for turn in range(2):
        pairs = choices.operation[turn] * LEVELS + choices.level[turn] - 1
        assert np.bincount(pairs.numpy(), minlength=135) == pytest.approx(np.full(135, count / 135), rel=0.25)
        assert np.bincount(choices.row[turn].numpy()) == pytest.approx(np.full(32, count / 32), rel=0.15)
        assert np.bincount(choices.column[turn].numpy()) == pytest.approx(np.full(20, count / 20), rel=0.15)
        assert set(choices.sign[turn].tolist()) == {-1, 1}
        assert choices.sign[turn].double().mean().item() == pytest.approx(0, abs=0.02)
    assert choices.applied.any(dim=0).double().mean().item() == pytest.approx(0.75, abs=0.01)
    assert choices.applied.double().mean(dim=1).tolist() == pytest.approx([0.5, 0.5], abs=0.01)
    together = np.corrcoef(torch.cat([choices.operation, choices.level, choices.sign, choices.applied]).numpy())
    assert np.abs(together - np.eye(8)).max() < 0.02


def test_the_images_given_and_the_global_generators_are_left_alone() -> None:
    images = images_of("mixed", 40, 16, 16, 0)
    before, state, python = images.clone(), torch.get_rng_state(), random.getstate()
    first = RandAugment().on_bytes(images, torch.Generator().manual_seed(1))
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    assert torch.equal(RandAugment().on_bytes(images, torch.Generator().manual_seed(1)), first)
    assert not torch.equal(RandAugment().on_bytes(images, torch.Generator().manual_seed(2)), first)


def test_nothing_is_read_back_from_the_device() -> None:
    """A tensor on the meta device has no values: whoever wants to see one gets an error."""
    images = torch.empty(300, 32, 32, 3, dtype=torch.uint8, device="meta")
    result = RandAugment().on_bytes(images, torch.Generator().manual_seed(0))
    assert result.shape == images.shape
    assert result.dtype is torch.uint8


def test_torchvision_gives_what_it_gives_itself() -> None:
    from torchvision.transforms import v2

    images = images_of("smooth", 12, 20, 20, 3)
    seed = int(torch.randint(0, 2**62, (), generator=torch.Generator().manual_seed(4)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        augment = v2.RandAugment(num_ops=2, magnitude=9)
        expected = torch.stack([augment(image.permute(2, 0, 1)).permute(1, 2, 0) for image in images])
    state = torch.get_rng_state()
    result = TorchvisionRandAugment().on_bytes(images, torch.Generator().manual_seed(4))
    assert torch.equal(result, expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(result, images)
    assert result.is_contiguous()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(InputError, match="num_ops is 0, must be at least 1"):
        TorchvisionRandAugment(num_ops=0)
    with pytest.raises(InputError, match="magnitude is 31, must be from 0 to 30"):
        TorchvisionRandAugment(magnitude=31)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_images_without_waiting() -> None:
    images = images_of("mixed", 512, 32, 32, 0)
    expected = RandAugment().on_bytes(images, torch.Generator().manual_seed(3))
    on_gpu = images.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = RandAugment().on_bytes(on_gpu, torch.Generator().manual_seed(3))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(result.cpu(), expected)
