"""Photographs in little: JPEG files of many sizes and modes, what should become of them, and images on disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from helpers import RECIPE_FILE, class_names

from ule_datasets.data.split import order_free_digest, sample_digest
from ule_datasets.data.spool import SpooledImages

COUNTS = {"train": 48, "test": 12}
RESIZE, CROP = 36, 32
CUT = ("--crop", str(CROP), "--resize", str(RESIZE))
CONVERTED = {"CMYK": 1, "L": 1, "P": 1}
"""Pillow modes of the photographs that are not RGB."""
NUM_DUPLICATES = 1
BROKEN = {
    "cut": "cannot be decoded: image file is truncated",
    "text": "is not a readable image: unknown image format",
    "empty": "is not a readable image: empty: an incomplete download?",
    "deep": "is not a plain RGB image (mode F, more than 8 bits a channel); convert it to RGB first",
}
"""What ``write_broken`` writes, by the beginning of its name, and what is said about it."""


def write_photos(folder: Path, *, class_of: Sequence[int] = (0, 1, 2)) -> Path:
    """``SPLIT/<class>/*.JPEG``, 40 to 90 pixels high and wide.

    Among the training images: a grey JPEG, a CMYK one, a PNG, a palette PNG, and one that is there twice.
    """
    rng = np.random.default_rng(7)
    for index in range(sum(COUNTS.values())):
        number = class_of[index % len(class_of)]
        height, width = rng.integers(40, 91, 2).tolist()
        ramp = np.linspace(0, 90, height)[:, None, None] + np.linspace(0, 90, width)[None, :, None]
        pixels = (ramp + 20 * number + rng.integers(0, 36, (height, width, 3))).astype(np.uint8)
        data = {5: _grey, 11: _cmyk, 17: _png, 23: _palette}.get(index, _jpeg)(pixels)
        split = "train" if index < COUNTS["train"] else "test"
        name = hashlib.sha256(f"photo {index}".encode()).hexdigest()[:9]
        path = folder / split / class_names(1 + max(class_of))[number] / f"{name}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if index == 26:
            path.with_name(f"{name}-copy.JPEG").write_bytes(data)
    return folder


def write_broken(folder: Path) -> Path:
    """Photographs that cannot be used, one of each kind of ``BROKEN``, among those of a folder."""
    rng = np.random.default_rng(8)
    target = folder / "train" / class_names(2)[1]
    whole = _jpeg(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8))
    (target / "cut.JPEG").write_bytes(whole[: len(whole) // 2])
    (target / "text.JPEG").write_text("not an image")
    (target / "empty.JPEG").write_bytes(b"")
    (target / "deep.png").write_bytes(_save(rng.random((50, 50), dtype=np.float32), "TIFF"))
    return folder


def broken_files(folder: Path) -> list[Path]:
    """What ``write_broken`` has written, in the order in which it is read."""
    return sorted(path for path in folder.rglob("*.*") if path.stem in BROKEN)


def expected_digest(folder: Path, split: str) -> str:
    """Digest of the pixels that a split should have, by Pillow alone, without the files that are broken."""
    names = sorted(entry.name for entry in (folder / "train").iterdir())
    paths = [path for path in (folder / split).rglob("*.*") if path.stem not in BROKEN]
    return order_free_digest(sample_digest(expected_pixels(path), names.index(path.parent.name)) for path in paths)


def expected_pixels(path: Path) -> np.ndarray:
    """Converted, the shorter side to ``RESIZE``, the centre ``CROP`` x ``CROP``: uint8 [CROP, CROP, 3]."""
    from PIL import Image

    with Image.open(path) as opened:
        image = opened.convert("RGB")
    shorter = min(image.size)
    image = image.resize((RESIZE * image.width // shorter, RESIZE * image.height // shorter), Image.Resampling.BILINEAR)
    left, top = round((image.width - CROP) / 2), round((image.height - CROP) / 2)
    return np.asarray(image)[top : top + CROP, left : left + CROP]


def write_recipe(folder: Path) -> Path:
    """A recipe for one's own images whose datasets have several shards."""
    path = folder / "recipe.py"
    path.write_text(RECIPE_FILE.replace('version="1.0.0"', 'version="1.0.0", shard_mebibytes=0.03'))
    return path


def spooled(images: np.ndarray, folder: Path, counts: Sequence[int] | None = None) -> SpooledImages:
    """Images (uint8 [N, H, W, C]) in files of ``counts`` images each; without, in three of about a third."""
    counts = [len(part) for part in np.array_split(images, 3)] if counts is None else counts
    files, start = [], 0
    for index, count in enumerate(counts):
        files.append((folder / f"{index:03d}.rgb", count))
        images[start : start + count].tofile(files[-1][0])
        start += count
    assert start == len(images)
    height, width, channels = images.shape[1:]
    return SpooledImages.in_files(files, (height, width, channels))


def _save(pixels: np.ndarray, kind: str, mode: str | None = None) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(stream, kind)
    return stream.getvalue()


def _jpeg(pixels: np.ndarray) -> bytes:
    return _save(pixels, "JPEG")


def _grey(pixels: np.ndarray) -> bytes:
    return _save(pixels, "JPEG", "L")


def _cmyk(pixels: np.ndarray) -> bytes:
    return _save(pixels, "JPEG", "CMYK")


def _png(pixels: np.ndarray) -> bytes:
    return _save(pixels, "PNG")


def _palette(pixels: np.ndarray) -> bytes:
    return _save(pixels, "PNG", "P")
