"""CIFAR-100 and SVHN in miniature: their files as their owners give them out, and what says so of them."""

from __future__ import annotations

import dataclasses
import hashlib
import tarfile
from pathlib import Path

from helpers import make_splits, write_cifar100_batches, write_svhn

from ule_datasets.sources.cifar100 import CIFAR100
from ule_datasets.sources.spec import SourceSpec
from ule_datasets.sources.svhn import SVHN

SPLITS = {
    "cifar100": make_splits(100, 2, 32),
    "svhn": make_splits(10, 6, 32),
}
SPECS = {"cifar100": CIFAR100, "svhn": SVHN}


def official(name: str, folder: Path) -> Path:
    """A miniature of the files that the owners give out, unpacked."""
    if name == "svhn":
        return write_svhn(folder, SPLITS[name])
    return write_cifar100_batches(folder, SPLITS[name], CIFAR100.class_names or ())


def archive(folder: Path, path: Path) -> Path:
    """The folder of the batches, packed as it is published."""
    with tarfile.open(path, "w:gz") as packed:
        packed.add(folder / "cifar-100-python", "cifar-100-python")
    return path


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def miniature(name: str, folder: Path) -> SourceSpec:
    """What says of the miniature in a folder what the source says of the real one."""
    known = {name for name, _ in SPECS[name].sums}
    sums = sorted((path.name, md5(path)) for path in folder.rglob("*") if path.name in known)
    counts = tuple((split, len(samples.labels)) for split, samples in SPLITS[name].items())
    return dataclasses.replace(SPECS[name], sums=tuple(sums), num_images=counts)


def recipe_file(path: Path, recipe: str, spec: SourceSpec) -> Path:
    """A recipe of the catalogue, for a miniature."""
    path.write_text(
        "from dataclasses import replace\n"
        "from builders import RECIPES\n"
        f"recipe = RECIPES[{recipe!r}]\n"
        f"source = replace(recipe.source, sums={spec.sums!r}, num_images={spec.num_images!r})\n"
        f"RECIPE = replace(recipe, name='small', source=source)\n"
    )
    return path
