"""Reading built shards back: encoded images, labels, keys, poisoned flags, in the order in which they stand.

Shards are held to exactly what the writers of this package make: whatever else a file holds is refused, since some
loader would take it for something (a tar member that is unpickled, class names that are others than the manifest's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.names import Name
from ule_datasets.data.codec import FINISHED, decode_rgb
from ule_datasets.dataset.shards import parquet, webdataset
from ule_datasets.dataset.shards.content import ShardContent
from ule_datasets.dataset.shards.png import png_problem


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleForm:
    """What the manifest says of every sample."""

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    """Height, width, channels."""


def read_shard(path: Path, class_names: Sequence[str]) -> ShardContent:
    """Read a Parquet or tar shard of a dataset with these classes.

    Raises:
        InputError: it cannot be read, or is not exactly what its writer makes of the samples in it.
    """
    return (webdataset.read if path.suffix == ".tar" else parquet.read)(path, class_names)


def check_samples(content: ShardContent, form: SampleForm, origin: str) -> None:
    """Refuse a sample that no shard of ours would hold."""
    height, width, _ = form.image_shape
    known = range(len(form.class_names))
    for key, label, data in zip(content.keys, content.labels, content.encoded, strict=True):
        try:
            Name(key)
        except InputError as error:
            raise InputError(f"{origin}: {error}") from None
        if "." in key:
            raise InputError(f"{origin}: loaders of tar shards would cut the key {key[:100]!r} at its dot")
        if label not in known:
            raise InputError(f"{origin}: {key} has label {label}, outside 0 .. {len(known) - 1}")
        if problem := png_problem(data, height, width):
            raise InputError(f"{origin}: the image of {key} {problem}")


def decode_images(encoded: Sequence[bytes], origin: str) -> np.ndarray:
    """Decode to uint8 [N, H, W, 3]; refused if one is not a plain RGB PNG, or of another size than the first."""
    images: list[np.ndarray] = []
    for row, data in enumerate(encoded):
        pixels = decode_rgb(data, f"{origin}: image {row}", FINISHED).pixels
        if images and pixels.shape != images[0].shape:
            raise InputError(f"{origin}: image {row} has another size than the first")
        images.append(pixels)
    return np.stack(images) if images else np.empty((0, 0, 0, 3), dtype=np.uint8)
