"""A recipe of somebody else's poison, to check our measuring from outside: TAP as its authors released it.

    export RELEASED_TAP=FOLDER                       # 50,000 PNGs of the CIFAR-10 training set, poisoned; any names
    ule-build benchmarks/released_tap.py --source DIR
    ule-verify released-tap --profile quick --strategies none,standard

Targeted adversarial poisoning: Liam Fowl, Micah Goldblum, Ping-yeh Chiang, Jonas Geiping, Wojciech Czaja, Tom
Goldstein, "Adversarial Examples Make Strong Poisons", NeurIPS 2021, arXiv 2106.10807; within 8/255. The set is the one
in the repository of Liu, Zhao, Larson, "Image Shortcut Squeezing", ICML 2023. Its images carry neither labels nor an
order that others keep, so each is given back to the one clean image within 8 levels of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from builders import RECIPES
from ule_datasets.base.errors import InputError
from ule_datasets.data.bounds import Budget, LInf
from ule_datasets.data.codec import decode_rgb
from ule_datasets.data.perturbation import Additive, Support
from ule_datasets.data.split import Split
from ule_datasets.definition import Recipe
from ule_datasets.methods.method import Context, Crafted, Method, Repeats

FOLDER = "RELEASED_TAP"
NEAREST = 4
"""So many clean images are looked at for each released one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Released(Method):
    """Noise that is the difference of released images from the clean ones."""

    identifier: ClassVar[str] = "released"
    title: ClassVar[str] = "Targeted adversarial poisoning (as released)"
    citation: ClassVar[str] = ""
    repeats: ClassVar[Repeats] = Repeats.EXACT
    needs_labels: ClassVar[bool] = False

    levels: int = 8

    @property
    def bounds(self) -> Budget:
        """That of the paper."""
        return (LInf(levels=self.levels),)

    def generate(self, train: Split, context: Context) -> Crafted:
        """Read the released images of the folder in ``$RELEASED_TAP``, and subtract the clean ones."""
        released = read_all(Path(os.environ.get(FOLDER, "")), train.images.shape)
        clean = train.pixels()
        rows = owners(released, clean, self.levels)
        noise = np.empty(clean.shape, np.int8)
        noise[rows] = (released.astype(np.int16) - clean[rows]).astype(np.int8)
        return Crafted(layers=(Additive(levels=noise, support=Support.SAMPLE, keys=train.keys),))


def read_all(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The folder's PNGs in order of their names, uint8 [N, H, W, 3]; refused unless they are ``shape[0]``."""
    files = sorted(folder.glob("*.png"))
    if len(files) != shape[0]:
        raise InputError(f"${FOLDER}: {len(files):,} PNGs in {folder}, {shape[0]:,} expected")
    images = np.empty(shape, np.uint8)
    for image, file in zip(images, files, strict=True):
        image[...] = decode_rgb(file.read_bytes(), str(file)).pixels
    return images


def owners(released: np.ndarray, clean: np.ndarray, levels: int) -> np.ndarray:
    """For each released image the row of the clean one within ``levels`` of it, each used once; int64 [N]."""
    ours, theirs = coarse(clean), coarse(released)
    norms = ours.square().sum(dim=1)
    near = torch.cat(
        [(norms - 2 * part @ ours.T).topk(NEAREST, largest=False).indices for part in torch.split(theirs, 500)]
    )
    rows, free = np.empty(len(released), np.int64), np.ones(len(clean), bool)
    for number, (image, candidates) in enumerate(zip(released, near.numpy(), strict=True)):
        fits = (row for row in candidates if free[row] and within(image, clean[row], levels))
        rows[number] = row = next(fits, -1)
        if row < 0:
            raise InputError(f"${FOLDER}: image {number} (in order of names) is within {levels} of no clean image")
        free[row] = False
    return rows


def coarse(images: np.ndarray) -> torch.Tensor:
    """Means over 4 x 4 pixels, in which noise nearly vanishes: float32 [N, features]."""
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // 4, 4, width // 4, 4, channels)
    return torch.from_numpy(blocks.mean(axis=(2, 4), dtype=np.float32).reshape(count, -1) - 128)


def within(one: np.ndarray, other: np.ndarray, levels: int) -> bool:
    """Whether no byte differs by more."""
    return bool(np.abs(one.astype(np.int16) - other).max() <= levels)


RECIPE = Recipe(
    name="released-tap",
    title="TAP as released",
    summary="CIFAR-10 with targeted adversarial poisoning within 8/255, as its authors released it.",
    source=RECIPES["ops-cifar10"].source,
    methods=(Released(),),
    version="1.0.0",
)
