"""Opening a built dataset directly: a torch dataset with transforms, or everything as tensors."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import NoneType
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch.utils.data import Dataset

from ule_datasets.base.errors import InputError
from ule_datasets.base.options import FORMATS
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.executor import available_cpus
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.codec import FINISHED, encode_png, open_image
from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION_FILE
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.data.split import positions_of, share_of
from ule_datasets.dataset.fetching import find_dataset, require_images
from ule_datasets.dataset.integrity import require_intact
from ule_datasets.dataset.integrity.files import shards_of
from ule_datasets.dataset.local import remembered_source
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.dataset.shards.content import ShardContent
from ule_datasets.dataset.shards.reading import SampleForm, check_samples, decode_images, read_shard
from ule_datasets.definition import PublishedRecipe
from ule_datasets.sources.reading import read_source

DECODE_BLOCK = 1024


class PoisonedDataset(Dataset[tuple[Any, int]]):
    """One split in memory, images encoded until asked for.

    ``dataset[i]`` is ``(image, label)``: a PIL image, or what ``transform`` makes of it, and the class number.
    """

    def __init__(
        self, content: ShardContent, class_names: tuple[str, ...], transform: Callable[[Any], Any] | None
    ) -> None:
        self._encoded = content.encoded
        self.labels = content.labels
        """Class numbers."""
        self.keys = tuple(content.keys)
        """The samples' identities: the same in every form of the dataset."""
        self.poisoned = np.array(content.poisoned, dtype=bool)
        """Which samples are perturbed (bool, [N])."""
        self.class_names = class_names
        self.transform = transform

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if not isinstance(index, SupportsIndex):
            raise TypeError(f"dataset[i] takes one number, not {_shown(index)}; torch.utils.data.Subset takes several")
        image, _, _ = open_image(self._encoded[index], f"image {index} ({self.keys[index]})", FINISHED)
        return (image if self.transform is None else self.transform(image)), self.labels[index]

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The whole split as uint8 images [N, H, W, 3] and int64 labels [N]; ``transform`` is not applied."""
        starts = range(0, len(self), DECODE_BLOCK)
        with ThreadPoolExecutor(available_cpus()) as pool:
            blocks = list(pool.map(lambda s: decode_images(self._encoded[s : s + DECODE_BLOCK], "dataset"), starts))
        return torch.from_numpy(np.concatenate(blocks)), torch.tensor(self.labels, dtype=torch.int64)


def load(
    where: str | Path,
    *,
    split: str = "train",
    transform: Callable[[Any], Any] | None = None,
    poison_rate: float | None = None,
    source: str | Path | None = None,
    revision: str | None = None,
    verify: bool = False,
) -> PoisonedDataset:
    """Open one split of a dataset.

    Nothing is verified unless ``verify`` says so: files are taken as they are, as long as they can be read.

    Args:
        where: a dataset folder; a name, for ``./datasets/NAME``; or ``OWNER/NAME`` on the Hub, of which only this
            split is fetched.
        split: ``train`` or ``test``.
        transform: applied to each PIL image by ``dataset[i]``.
        poison_rate: keep only this share of the training images poisoned (nested, seeded subsets) and take
            the others from the clean source.
        source: where the clean images are, for ``poison_rate``; default: where a build on this machine took them
            from, else the source's own place.
        revision: of a repository: a tag such as ``v1.0.0``, a branch or a commit.
        verify: check the integrity of the whole dataset first, without its source, as ``ule-verify`` does; of a
            repository everything is fetched.

    Raises:
        InputError: no such dataset or split, a rate above the built one, a source without a rate, with ``verify`` a
            damaged dataset, or an argument that is none of these.
    """
    _check_arguments(
        where=where,
        split=split,
        transform=transform,
        poison_rate=poison_rate,
        source=source,
        revision=revision,
        verify=verify,
    )
    wanted = [f"data/{split}-*"] + ([PERTURBATION_FILE] if poison_rate is not None else [])
    folder = find_dataset(where, revision, patterns=("*",) if verify else tuple(wanted))
    manifest = Manifest.read(folder)
    if split not in manifest.splits:
        raise InputError(f"{folder} has no split {split!r}; it has {', '.join(manifest.splits)}")
    require_images(folder, manifest, where)
    if verify:
        with LocalExecutor(1) as executor:
            require_intact(folder, manifest, executor)
    content = read_split(folder, manifest, split)
    if poison_rate is not None and split == "train":
        location = remembered_source(folder, manifest) if source is None else str(source)
        _lower_rate(content, folder, poison_rate, location)
    return PoisonedDataset(content, manifest.class_names, transform)


def _check_arguments(**given: object) -> None:
    """Refuse values of kinds that would only fail somewhere within."""
    for name, value in given.items():
        kinds, words = _ARGUMENTS[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise InputError(f"load: {name} is {_shown(value)}, must be {words}")
        if value == "":
            raise InputError(f"load: {name} is empty, must be {words}")
    rate = given["poison_rate"]
    if isinstance(rate, int | float | np.integer | np.floating) and not 0 <= rate <= 1:
        raise InputError(f"load: poison_rate is {rate}, must be {_ARGUMENTS['poison_rate'][1]}")
    if given["source"] is not None and rate is None:
        raise InputError("load: source is where poison_rate takes clean images from; give both, or leave it away")
    if given["transform"] is not None and not callable(given["transform"]):
        raise InputError(f"load: transform is {_shown(given['transform'])}, must be {_ARGUMENTS['transform'][1]}")


_ARGUMENTS: dict[str, tuple[tuple[type, ...], str]] = {
    "where": ((str, Path), "a folder, a name, or OWNER/NAME on the Hub"),
    "split": ((str,), "the name of a split: 'train' or 'test'"),
    "transform": ((object,), "a function of a PIL image, or None"),
    "poison_rate": ((int, float, np.integer, np.floating, NoneType), "a share between 0 and 1, or None"),
    "source": ((str, Path, NoneType), "the place of the clean images, or None"),
    "revision": ((str, NoneType), "a tag, a branch or a commit as text, or None"),
    "verify": ((bool,), "True or False"),
}


def _shown(value: object) -> str:
    return f"{reprlib.repr(value)} ({type(value).__name__})"


def read_split(folder: Path, manifest: Manifest, split: str) -> ShardContent:
    """All shards of a split, from Parquet where it is there."""
    file_format = next((name for name in FORMATS if name in manifest.formats), FORMATS[0])
    form = SampleForm(class_names=manifest.class_names, image_shape=manifest.image_shape)
    content = ShardContent()
    for path in shards_of(manifest, file_format, split):
        part = read_shard(folder / path, manifest.class_names)
        check_samples(part, form, str(folder / path))
        content.extend(part)
    return content


def _lower_rate(content: ShardContent, folder: Path, rate: float, location: str | None) -> None:
    """Replace images by their clean originals until only ``rate`` of all are poisoned."""
    built = sum(content.poisoned)
    wanted = share_of(rate, len(content.keys))
    if wanted > built:
        raise InputError(f"poison_rate {rate}: this dataset was built with {built} of {len(content.keys)} poisoned")
    if wanted == built:
        return
    recipe = PublishedRecipe.read(folder)
    perturbation = Perturbation.load(folder / PERTURBATION_FILE)
    with LocalExecutor(1) as executor:
        clean = read_source(recipe.source, location, executor=executor, reporter=Reporter()).train
    rows = positions_of(content.keys, clean.keys)
    if len(missing := np.flatnonzero(rows < 0)):
        raise InputError(f"the source lacks {len(missing)} of the dataset's images, first {content.keys[missing[0]]}")
    order = Seed(perturbation.about["seed"]).order(content.keys, "poison rate")
    for index in order[wanted:].tolist():
        if content.poisoned[index]:
            content.encoded[index] = encode_png(np.asarray(clean.images[rows[index]]))
            content.poisoned[index] = False
