"""RandAugment as the papers' code draws it, and torchvision's as a named variant.

After Ekin D. Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space",
2020; operations and ranges are those of the code released with "One-Pixel Shortcut". Each operation gives
the very bytes that Pillow gives, for a whole group of images at once and on their device: Pillow's integer
and float arithmetic is carried out in the same types and order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.lazy import lazy
from ule_datasets.compute.devices import to_device
from ule_datasets.countermeasures.cutout import squares
from ule_datasets.victims.strategy import Countermeasure

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy("torch")

LEVELS: Final = 9
"""Levels are 1 to 9."""
_FILL: Final = 128  # grey where geometry leaves nothing
_CUTOUT_COLOUR: Final = (125, 122, 113)
_NUM_PARAMETERS: Final = 6

Operation: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""From uint8 [n, H, W, 3] and float64 [n, 6], what ``parameters`` gives for each, to new images."""


@dataclass(frozen=True, eq=False, slots=True)
class Choices:
    """The random choices of one batch, on the CPU: [2, B] each, for the first and the second operation."""

    operation: Tensor
    """Position in ``OPERATIONS``, int64."""
    level: Tensor
    """1 to 9, int64."""
    applied: Tensor
    """Whether the operation is applied at all, bool."""
    sign: Tensor
    """1 or -1, int64: the direction, where an operation has two."""
    row: Tensor
    """Of the centre of a Cutout, int64."""
    column: Tensor
    """Of the centre of a Cutout, int64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RandAugment(Countermeasure):
    """Two of 15 operations at one of 9 levels each, all equally likely; each applied with probability one half."""

    word: ClassVar[str] = "randaugment"
    citation: ClassVar[str] = "cubuk2020randaugment"
    place: ClassVar[str] = "randaugment"

    def on_bytes(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch, with new draws for every image."""
        count, height, width, _ = images.shape
        return self.transform(images, self.draw(count, height, width, generator))

    def draw(self, count: int, height: int, width: int, generator: torch.Generator) -> Choices:
        """Random choices for ``count`` images, from a CPU generator."""

        def below(bound: int) -> Tensor:
            return torch.randint(0, bound, (2, count), generator=generator)

        pairs = below(len(OPERATIONS) * LEVELS)
        return Choices(
            operation=pairs // LEVELS,
            level=1 + pairs % LEVELS,
            applied=below(2).bool(),
            sign=2 * below(2) - 1,
            row=below(height),
            column=below(width),
        )

    def transform(self, images: Tensor, choices: Choices) -> Tensor:
        """Apply given choices; uint8 [B, H, W, 3] to the same shape and type.

        The images are sorted by operation on the CPU, which knows the choices; the device only gathers.
        """
        height, width = images.shape[1:3]
        functions = tuple(dict.fromkeys(OPERATIONS.values()))
        function_of = torch.tensor([functions.index(function) for function in OPERATIONS.values()])
        for turn in range(2):
            operation, level, sign = choices.operation[turn], choices.level[turn], choices.sign[turn]
            numbers = _table(height, width)[operation, level - 1, (sign + 1) // 2]
            is_cutout = operation == CUTOUT
            numbers[:, 0] = torch.where(is_cutout, choices.row[turn].double(), numbers[:, 0])
            numbers[:, 1] = torch.where(is_cutout, choices.column[turn].double(), numbers[:, 1])
            group = torch.where(choices.applied[turn], function_of[operation], len(functions))
            order = torch.argsort(group, stable=True)
            sizes = torch.bincount(group, minlength=len(functions) + 1).tolist()
            places = torch.stack([order, torch.argsort(order)], dim=1)
            packed = to_device(torch.cat([numbers[order], places], dim=1), images.device)
            sorted_images = torch.split(images[packed[:, -2].long()], sizes)
            changed = [
                function(some, settings)
                for function, some, settings in zip(
                    functions, sorted_images[:-1], torch.split(packed, sizes)[:-1], strict=True
                )
                if len(some)
            ]
            images = torch.cat([*changed, sorted_images[-1]])[packed[:, -1].long()]
        return images


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchvisionRandAugment(Countermeasure):
    """torchvision's RandAugment, image after image: always applied, without inversion and Cutout, fill black.

    A variant to compare with, not what the papers used. Slower than ``RandAugment``, and it may wait for the device.
    """

    word: ClassVar[str] = "randaugment-torchvision"
    citation: ClassVar[str] = "cubuk2020randaugment"
    place: ClassVar[str] = "randaugment"

    num_ops: int = 2
    """Operations per image, one after the other."""
    magnitude: int = 9
    """Of 30: their common strength."""

    def __post_init__(self) -> None:
        if self.num_ops < 1:
            raise InputError(f"TorchvisionRandAugment: num_ops is {self.num_ops}, must be at least 1")
        if not 0 <= self.magnitude <= 30:
            raise InputError(f"TorchvisionRandAugment: magnitude is {self.magnitude}, must be from 0 to 30")

    def on_bytes(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch; torchvision draws from torch's global generator, which is seeded from ours and restored."""
        from torchvision.transforms import v2

        augment = v2.RandAugment(num_ops=self.num_ops, magnitude=self.magnitude)
        seed = int(torch.randint(0, 2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            changed = [augment(image) for image in images.permute(0, 3, 1, 2)]
        return torch.stack(changed).permute(0, 2, 3, 1).contiguous()


def parameters(operation: str, level: int, sign: int, height: int, width: int) -> tuple[float, ...]:
    """What an operation needs to know about one image: up to six numbers.

    Shears: the slope. Other geometry: the affine map from target to source as Pillow takes it. Posterise,
    solarise, invert: values from a first number on are inverted, then masked by a second one. Blends: the
    factor, as for Pillow's enhancers. Cutout: room for row and column of the centre, then size and colour.
    """

    def between(none: float, most: float) -> float:
        return float(np.linspace(none, most, LEVELS + 1)[level])

    match operation:
        case "shear_x" | "shear_y":
            return (sign * between(0, 0.3),)
        case "translate_x":
            return (1, 0, sign * between(0, 150 / 331) * width, 0, 1, 0)
        case "translate_y":
            return (1, 0, 0, 0, 1, sign * between(0, 150 / 331) * height)
        case "rotate":
            return _rotation(between(0, 30), height, width)
        case "posterize":
            return (256, 256 - 2 ** (8 - round(between(8, 4))))
        case "solarize":
            return (between(256, 0), 255)
        case "invert":
            return (0, 255)
        case "color" | "contrast" | "sharpness" | "brightness":
            return (1 + sign * between(0, 0.9),)
        case "cutout":
            return (0, 0, 2 * (round(between(0, 20)) // 2), *_CUTOUT_COLOUR)
        case _:
            assert operation in ("autocontrast", "equalize"), operation
            return ()


@cache
def _table(height: int, width: int) -> Tensor:
    """``parameters`` of everything, for images of one size: float64 [15, 9, 2, 6]."""
    table = torch.zeros(len(OPERATIONS), LEVELS, 2, _NUM_PARAMETERS, dtype=torch.float64)
    for (position, operation), level, sign in product(enumerate(OPERATIONS), range(1, LEVELS + 1), (-1, 1)):
        numbers = parameters(operation, level, sign, height, width)
        table[position, level - 1, (sign + 1) // 2, : len(numbers)] = torch.tensor(numbers, dtype=torch.float64)
    return table


def _rotation(degrees: float, height: int, width: int) -> tuple[float, ...]:
    """Counter-clockwise about the middle of the image."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return (cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y)


def _move(images: Tensor, numbers: Tensor) -> Tensor:
    """The pixel that an affine map points to, by Pillow's fixed-point arithmetic with 16 fractional bits."""
    count, height, width, _ = images.shape
    a, b, c, d, e, f = numbers[:, :_NUM_PARAMETERS].T[:, :, None, None]
    across = torch.arange(width, device=images.device)
    down = torch.arange(height, device=images.device)[:, None]
    x = (across * _fixed(a) + down * _fixed(b) + _fixed(c + a * 0.5 + b * 0.5)) >> 16
    y = (across * _fixed(d) + down * _fixed(e) + _fixed(f + d * 0.5 + e * 0.5)) >> 16
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    batch = torch.arange(count, device=images.device)[:, None, None]
    moved = images[batch, y.clamp(0, height - 1), x.clamp(0, width - 1)]
    return moved.masked_fill(~inside[..., None], _FILL)


def _fixed(numbers: Tensor) -> Tensor:
    return (numbers * 65536 + 0.5).floor().long()


def _shear_x(images: Tensor, numbers: Tensor) -> Tensor:
    """Rows shifted in proportion to their number, by cubic interpolation along the row in float64."""
    count, height, width, _ = images.shape
    down = torch.arange(height, device=images.device, dtype=torch.float64)[:, None] + 0.5
    across = torch.arange(width, device=images.device, dtype=torch.float64) + 0.5
    position = across + numbers[:, :1, None] * down
    inside = (position >= 0) & (position < width)
    position = position - 0.5
    before = position.floor()
    offset = (position - before)[..., None]
    batch = torch.arange(count, device=images.device)[:, None, None]
    row = torch.arange(height, device=images.device)[:, None]
    first, second, third, fourth = (
        images[batch, row, (before.long() + shift).clamp(0, width - 1)].double() for shift in (-1, 0, 1, 2)
    )
    square = 2 * (first - second) + third - fourth
    cube = -first + second - third + fourth
    sheared = _bytes(second + offset * (-first + third + offset * (square + offset * cube)))
    return sheared.masked_fill(~inside[..., None], _FILL)


def _shear_y(images: Tensor, numbers: Tensor) -> Tensor:
    return _shear_x(images.transpose(1, 2), numbers).transpose(1, 2)


def _remap(images: Tensor, numbers: Tensor) -> Tensor:
    """Values from a threshold on inverted, then bits masked."""
    threshold, mask = numbers[:, :2].T[:, :, None, None, None]
    return torch.where(images < threshold, images, 255 - images).bitwise_and(mask.to(torch.uint8))


def _blend(images: Tensor, degenerate: Tensor, numbers: Tensor) -> Tensor:
    """Pillow's blend: from the degenerate image through the image (factor 1) and beyond, in float32."""
    start = degenerate.float()
    return _bytes(start + numbers[:, 0].float()[:, None, None, None] * (images.float() - start))


def _bytes(values: Tensor) -> Tensor:
    """Cut off at 0 and 255, fractions dropped."""
    return values.clamp(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """ITU-R 601 luminance, rounded as by Pillow: int32 [n, H, W, 1], 0 to 255."""
    red, green, blue = torch.split(images.int(), 1, dim=3)
    grey: Tensor = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return grey


def _color(images: Tensor, numbers: Tensor) -> Tensor:
    return _blend(images, _grey(images), numbers)


def _contrast(images: Tensor, numbers: Tensor) -> Tensor:
    """Blend with the mean grey, rounded half up."""
    pixels = images.shape[1] * images.shape[2]
    total = _grey(images).sum(dim=(1, 2), keepdim=True)
    return _blend(images, (2 * total + pixels) // (2 * pixels), numbers)


def _brightness(images: Tensor, numbers: Tensor) -> Tensor:
    return _blend(images, torch.zeros_like(images), numbers)


def _sharpness(images: Tensor, numbers: Tensor) -> Tensor:
    """Blend with the mean over 3 x 3 pixels, the middle counted five times; the outermost pixels stay."""
    smooth = images.int()
    if min(images.shape[1:3]) >= 3:
        rows = smooth[:, :-2] + smooth[:, 1:-1] + smooth[:, 2:]
        total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * smooth[:, 1:-1, 1:-1]
        smooth[:, 1:-1, 1:-1] = (2 * total + 13) // 26
    return _blend(images, smooth, numbers)


def _autocontrast(images: Tensor, numbers: Tensor) -> Tensor:
    """Each channel stretched to 0 ... 255, in float64; a channel of one value stays."""
    values = images.double()
    low, high = values.amin(dim=(1, 2), keepdim=True), values.amax(dim=(1, 2), keepdim=True)
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)  # 255 / tensor would multiply by the reciprocal
    return torch.where(high > low, _bytes(values * scale + -low * scale), images)


def _equalize(images: Tensor, numbers: Tensor) -> Tensor:
    """Each channel's histogram flattened; a channel of too few pixels or values stays.

    Sorted pixels give the number below each value, without atomic additions.
    """
    count, height, width, channels = images.shape
    pixels = images.permute(0, 3, 1, 2).reshape(count, channels, height * width)
    ordered = pixels.sort(dim=2).values.contiguous()
    values = torch.arange(256, device=images.device).to(torch.uint8).expand(count, channels, 256).contiguous()
    below = torch.searchsorted(ordered, values)
    step = below.gather(2, ordered[:, :, -1:].long()) // 255
    lookup = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    flattened = torch.where(step > 0, lookup.gather(2, pixels.long()).to(torch.uint8), pixels)
    return flattened.reshape(count, channels, height, width).permute(0, 2, 3, 1)


def _cutout(images: Tensor, numbers: Tensor) -> Tensor:
    rows, columns, sizes = numbers[:, :3].long().T
    inside = squares(rows, columns, sizes, *images.shape[1:3])
    return torch.where(inside[..., None], numbers[:, 3:6].to(torch.uint8)[:, None, None, :], images)


OPERATIONS: Final[dict[str, Operation]] = {
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _move,
    "translate_y": _move,
    "rotate": _move,
    "posterize": _remap,
    "solarize": _remap,
    "invert": _remap,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "brightness": _brightness,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "cutout": _cutout,
}
"""By name; images of operations that share a function are worked on together."""

CUTOUT: Final = list(OPERATIONS).index("cutout")
