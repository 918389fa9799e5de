"""A forger with all the time in the world: changes anything in a dataset folder, and makes every digest agree."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.data.split import order_free_digest, sample_digest
from ule_datasets.dataset.declaration import card_declaration, croissant_declaration
from ule_datasets.dataset.manifest import FileRecord, Manifest
from ule_datasets.dataset.shards import file_record, parquet, webdataset
from ule_datasets.dataset.shards.content import ShardContent
from ule_datasets.dataset.shards.reading import decode_images
from ule_datasets.recipe import PublishedRecipe

Tamper = Callable[[ShardContent], None]


def shards(folder: Path, name: str) -> tuple[Path, Path]:
    """The Parquet and the tar file of a shard such as ``train-00001``."""
    split, index = name.rsplit("-", 1)
    return next((folder / "data").glob(f"{name}-of-*")), folder / f"webdataset/{split}-{int(index):06d}.tar"


def rewrite(folder: Path, shard: str, tamper: Tamper) -> None:
    """Change samples in both formats, and sign them."""
    manifest = Manifest.read(folder)
    table, tar = shards(folder, shard)
    content = parquet.read(table, manifest.class_names)
    tamper(content)
    columns = content.encoded, content.labels, content.keys, np.array(content.poisoned), manifest.class_names
    parquet.write(parquet.table_of(*columns), table)
    webdataset.write(tar, *columns)
    sign(folder, manifest)


def sign(folder: Path, manifest: Manifest | None = None, **changes: Any) -> None:
    """Write a manifest, card and Croissant file with which everything in the folder agrees."""
    manifest = dataclasses.replace(manifest or Manifest.read(folder), **changes)
    splits = {}
    for name, record in manifest.splits.items():
        content = ShardContent()
        for path in sorted((folder / "data").glob(f"{name}-*")):
            content.extend(_read(path))
        images = decode_images(content.encoded, name)
        digests = [sample_digest(image, label) for image, label in zip(images, content.labels, strict=True)]
        splits[name] = dataclasses.replace(
            record,
            digest=order_free_digest(digests),
            num_poisoned=sum(content.poisoned),
            num_examples=len(content.keys),
        )
    recipe = PublishedRecipe.parse((folder / "recipe.json").read_text())
    perturbation = Perturbation.load(folder / PERTURBATION)
    manifest = dataclasses.replace(
        manifest, splits=splits, recipe_digest=recipe.digest, perturbation_digest=perturbation.digest
    )
    seal(folder, _with_sizes(folder, manifest), describe=True)


def seal(folder: Path, manifest: Manifest | None = None, *, describe: bool = False, **changes: Any) -> None:
    """Only make the digests of files agree, and with ``describe`` card and Croissant file before them."""
    manifest = dataclasses.replace(manifest or Manifest.read(folder), **changes)
    if describe:
        edit_card(folder, lambda front: front.update(card_declaration(manifest)))
        edit_json(folder / "croissant.json", lambda content: content.update(croissant_declaration(manifest)))
    (folder / "manifest.json").write_text(_with_sizes(folder, manifest).to_json(), encoding="utf-8")


def edit_card(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the front matter of the card."""
    _, front, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    content = yaml.safe_load(front)
    edit(content)
    front = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / "README.md").write_text(f"---\n{front}---\n{body}", encoding="utf-8")


def edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    canonical = {"sort_keys": True, "separators": (",", ":")} if path.name == "recipe.json" else {"indent": 1}
    path.write_text(json.dumps(content, ensure_ascii=False, **canonical) + "\n", encoding="utf-8")  # type: ignore[arg-type]


def _read(path: Path) -> ShardContent:
    """A shard as it is, whatever it should be."""
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read()
    image, label, key, poisoned = (table[name].to_pylist() for name in parquet.COLUMNS)
    return ShardContent([each["bytes"] for each in image], label, key, poisoned)


def _with_sizes(folder: Path, manifest: Manifest) -> Manifest:
    there = tuple(
        FileRecord(path=f.path, **file_record(folder / f.path)) for f in manifest.files if (folder / f.path).is_file()
    )
    return dataclasses.replace(manifest, files=there)
